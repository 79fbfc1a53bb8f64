/* The schema compiler: walks the document, makes one node per subschema, then resolves $ref and
 * refuses loops that never descend into the value.
 *
 * Why the loop check: {"$ref": "#"} at the root would ask the same question of the same value for
 * ever. Edges that stay at one value ($ref, allOf, anyOf, oneOf, not, if/then/else,
 * dependentSchemas) must form no cycle and no chain longer than CHAIN_MAX; with values at most
 * JSON_DEPTH_MAX deep that also bounds the checker's recursion.
 */
#include "schemas/compile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHAIN_MAX = 200 };

bool array_reserve(void **array, size_t n, size_t *capacity, size_t element_size)
{
    if (n < *capacity) return true;
    size_t wanted = *capacity ? *capacity * 2 : 16, bytes;
    if (weft_size_mul(wanted, element_size, &bytes)) return false;
    void *grown = realloc(*array, bytes);
    if (!grown) return false;
    *array = grown;
    *capacity = wanted;
    return true;
}

/* ---- messages ---- */

static void print_place(const schema_node *node, weft_buffer *out)
{
    if (!node->parent) return;
    print_place(node->parent, out);
    weft_buffer_printf(out, "/%s", node->place);
    if (node->place_name) {
        weft_buffer_putc(out, '/');
        path_print_key(node->place_name, out);
    } else if (node->place_index != NO_INDEX) {
        weft_buffer_printf(out, "/%zu", node->place_index);
    }
}

weft_status compile_fail(compiler *c, const schema_node *node, const char *keyword,
                         const char *format, ...)
{
    weft_buffer where = WEFT_BUFFER_INIT;
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    print_place(node, &where);
    if (keyword) {
        weft_buffer_putc(&where, '/');
        path_print_key(keyword, &where);
    }
    weft_fail(c->err, WEFT_E_INVALID, "schema at %s: %s",
              where.size ? weft_buffer_str(&where) : "the top level", text);
    weft_buffer_free(&where);
    return WEFT_E_INVALID;
}

/* ---- the walk ---- */

static schema_node *add_node(compiler *c, const cJSON *json, place where)
{
    weft_schema *s = c->schema;
    if (!array_reserve((void **)&s->nodes, s->n, &s->capacity, sizeof *s->nodes)) return NULL;
    schema_node *node = calloc(1, sizeof *node);
    if (!node) return NULL;
    *node = (schema_node){
        .json = json,
        .types = TYPE_ANY,
        .max_length = SIZE_MAX,
        .max_items = SIZE_MAX,
        .max_properties = SIZE_MAX,
        .min_contains = 1,
        .max_contains = SIZE_MAX,
        .items = NO_NODE,
        .contains = NO_NODE,
        .not_ = NO_NODE,
        .if_ = NO_NODE,
        .then_ = NO_NODE,
        .else_ = NO_NODE,
        .additional = NO_NODE,
        .property_names = NO_NODE,
        .ref = NO_NODE,
        .parent = where.parent,
        .place = where.keyword,
        .place_name = where.name,
        .place_index = where.index,
        .resource = where.parent ? where.parent->resource : 0,
    };
    s->nodes[s->n++] = node;
    return node;
}

weft_status compile_node(compiler *c, const cJSON *json, place where, uint32_t *out)
{
    size_t number = c->schema->n;
    if (number >= SCHEMA_NODES_MAX)
        return weft_fail(c->err, WEFT_E_INVALID, "schema: more than %d subschemas; split it",
                         SCHEMA_NODES_MAX);
    schema_node *node = add_node(c, json, where);
    if (!node) return weft_fail(c->err, WEFT_E_MEMORY, "out of memory");
    weft_status status = WEFT_OK;
    if (cJSON_IsObject(json))
        status = compile_keywords(c, node);
    else if (cJSON_IsFalse(json))
        node->never = true;
    else if (!cJSON_IsTrue(json))
        status = compile_fail(c, node, NULL, "a schema must be an object or a boolean");
    if (!status) *out = (uint32_t)number;
    return status;
}

/* ---- loops ---- */

typedef struct chain {
    compiler *c;
    uint16_t *height; /* [n] 0: not visited; longest chain of edges from here, plus one */
    bool *open;       /* [n] on the current path */
} chain;

static weft_status chain_visit(chain *k, uint32_t number, size_t depth);

static weft_status chain_edge(chain *k, uint32_t from, uint32_t to, size_t depth)
{
    if (to == NO_NODE) return WEFT_OK;
    weft_status status = chain_visit(k, to, depth + 1);
    if (status) return status;
    if (k->height[from] < k->height[to] + 1) k->height[from] = (uint16_t)(k->height[to] + 1);
    if (k->height[from] > CHAIN_MAX)
        return compile_fail(k->c, k->c->schema->nodes[from], NULL,
                            "more than %d $ref or allOf/anyOf/oneOf steps in a row", CHAIN_MAX);
    return WEFT_OK;
}

static weft_status chain_list(chain *k, uint32_t from, const node_list *list, size_t depth)
{
    weft_status status = WEFT_OK;
    for (size_t i = 0; i < list->n && !status; i++)
        status = chain_edge(k, from, list->at[i], depth);
    return status;
}

static weft_status chain_visit(chain *k, uint32_t number, size_t depth)
{
    const schema_node *node = k->c->schema->nodes[number];
    if (k->open[number])
        return compile_fail(k->c, node, NULL,
                            "a loop of references that never descends into the value");
    if (k->height[number]) return WEFT_OK;
    if (depth > CHAIN_MAX)
        return compile_fail(k->c, node, NULL,
                            "more than %d $ref or allOf/anyOf/oneOf steps in a row", CHAIN_MAX);
    k->open[number] = true;
    k->height[number] = 1;
    const uint32_t single[] = {node->ref, node->not_, node->if_, node->then_, node->else_};
    const node_list *lists[] = {&node->all_of, &node->any_of, &node->one_of};
    weft_status status = WEFT_OK;
    for (size_t i = 0; i < 5 && !status; i++) status = chain_edge(k, number, single[i], depth);
    for (size_t i = 0; i < 3 && !status; i++) status = chain_list(k, number, lists[i], depth);
    for (size_t i = 0; i < node->dependents.n && !status; i++)
        status = chain_edge(k, number, node->dependents.at[i].node, depth);
    k->open[number] = false;
    return status;
}

static weft_status refuse_loops(compiler *c)
{
    size_t n = c->schema->n;
    chain k = {c, calloc(n, sizeof *k.height), calloc(n, sizeof *k.open)};
    weft_status status = WEFT_OK;
    if (!k.height || !k.open) status = weft_fail(c->err, WEFT_E_MEMORY, "out of memory");
    for (uint32_t i = 0; i < n && !status; i++) status = chain_visit(&k, i, 0);
    free(k.height);
    free(k.open);
    return status;
}

/* ---- the public functions ---- */

static void named_free(named_list *list)
{
    free(list->at);
    free(list->sorted);
}

static void node_free(schema_node *node)
{
    for (size_t i = 0; i < node->n_patterns; i++) pattern_free(node->patterns[i].pattern);
    free(node->patterns);
    pattern_free(node->pattern);
    free(node->prefix_items.at);
    free(node->all_of.at);
    free(node->any_of.at);
    free(node->one_of.at);
    named_free(&node->properties);
    named_free(&node->dependents);
    free(node);
}

void weft_schema_free(weft_schema *schema)
{
    if (!schema) return;
    for (size_t i = 0; i < schema->n; i++) node_free(schema->nodes[i]);
    free(schema->nodes);
    cJSON_Delete(schema->document);
    free(schema);
}

size_t named_find(const named_list *list, const char *name)
{
    size_t low = 0, high = list->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(list->at[list->sorted[middle]].name, name);
        if (order == 0) return list->sorted[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return list->n;
}

static weft_status compile_document(compiler *c)
{
    uint32_t root;
    char *none = strdup("");
    if (!none ||
        !array_reserve((void **)&c->resources, 0, &c->resource_capacity, sizeof *c->resources)) {
        free(none);
        return weft_fail(c->err, WEFT_E_MEMORY, "out of memory");
    }
    c->resources[c->n_resources++] = (resource){none, 0};
    weft_status status =
        compile_node(c, c->schema->document, (place){NULL, NULL, NULL, NO_INDEX}, &root);
    if (!status) status = ref_resolve_all(c);
    if (!status) status = refuse_loops(c);
    return status;
}

weft_status weft_schema_compile(const cJSON *json, weft_schema **out, weft_error *err)
{
    if (!value_depth_within(json, JSON_DEPTH_MAX))
        return weft_fail(err, WEFT_E_INVALID, "schema: nested more than %d levels deep",
                         JSON_DEPTH_MAX);
    compiler c = {.schema = calloc(1, sizeof *c.schema), .err = err};
    weft_status status = WEFT_OK;
    if (c.schema) c.schema->document = cJSON_Duplicate(json, true);
    if (!c.schema || !c.schema->document)
        status = weft_fail(err, WEFT_E_MEMORY, "out of memory");
    else
        status = compile_document(&c);
    for (size_t i = 0; i < c.n_resources; i++) free(c.resources[i].uri);
    free(c.resources);
    free(c.anchors);
    if (status)
        weft_schema_free(c.schema);
    else
        *out = c.schema;
    return status;
}
