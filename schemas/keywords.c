/* The keywords of a schema: one table, one reader per kind of value.
 *
 * A keyword that is not in the table is refused: a schema whose rule is silently dropped accepts
 * what its author forbade. Annotations are read only to refuse a wrong type. Draft-07 spellings
 * that tools still print are taken in their 2020-12 sense: definitions, items as an array (with
 * additionalItems), dependencies.
 * Source: JSON Schema Core and Validation, draft 2020-12; draft-07 section 6.4.1 and 6.5.7.
 */
#include "schemas/compile.h"
#include "schemas/decimal.h"

#include <stdlib.h>
#include <string.h>

typedef struct keyword keyword;
typedef weft_status reader(compiler *c, schema_node *node, const keyword *k, const cJSON *value);
struct keyword {
    const char *name;
    reader *read;
    size_t offset; /* of the field in schema_node that it fills, or a type mask */
};

#define FIELD(type, node, k) ((type *)((char *)(node) + (k)->offset))

static weft_status no_memory(compiler *c)
{
    return weft_fail(c->err, WEFT_E_MEMORY, "out of memory");
}

static weft_status wrong(compiler *c, const schema_node *node, const keyword *k, const cJSON *value,
                         const char *expected)
{
    weft_buffer shown = WEFT_BUFFER_INIT;
    value_show(value, &shown);
    compile_fail(c, node, k->name, "must be %s, is %s", expected, weft_buffer_str(&shown));
    weft_buffer_free(&shown);
    return WEFT_E_INVALID;
}

/* ---- annotations: offset is the type they must have ---- */

static weft_status read_annotation(compiler *c, schema_node *node, const keyword *k,
                                   const cJSON *value)
{
    weft_buffer types = WEFT_BUFFER_INIT;
    if (value_types(value) & k->offset) return WEFT_OK;
    types_print((unsigned)k->offset, &types);
    weft_status status = wrong(c, node, k, value, weft_buffer_str(&types));
    weft_buffer_free(&types);
    return status;
}

/* ---- single values ---- */

static weft_status read_count(compiler *c, schema_node *node, const keyword *k, const cJSON *value)
{
    decimal d;
    int64_t n;
    if (!cJSON_IsNumber(value) || !decimal_read(value, &d) || !decimal_to_int(&d, &n) || n < 0)
        return wrong(c, node, k, value, "a non-negative integer");
    *FIELD(size_t, node, k) = n == INT64_MAX ? SIZE_MAX : (size_t)n;
    return WEFT_OK;
}

static weft_status read_bound(compiler *c, schema_node *node, const keyword *k, const cJSON *value)
{
    decimal d;
    if (cJSON_IsBool(value))
        return wrong(c, node, k, value, "a number (the boolean form is draft-04's)");
    if (!cJSON_IsNumber(value) || !decimal_read(value, &d))
        return wrong(c, node, k, value, "a number");
    *FIELD(const cJSON *, node, k) = value;
    return WEFT_OK;
}

static weft_status read_multiple(compiler *c, schema_node *node, const keyword *k,
                                 const cJSON *value)
{
    decimal d;
    if (!cJSON_IsNumber(value) || !decimal_read(value, &d) || !d.n || d.negative)
        return wrong(c, node, k, value, "a number above 0");
    node->multiple_of = value;
    return WEFT_OK;
}

static weft_status read_flag(compiler *c, schema_node *node, const keyword *k, const cJSON *value)
{
    if (!cJSON_IsBool(value)) return wrong(c, node, k, value, "true or false");
    *FIELD(bool, node, k) = cJSON_IsTrue(value);
    return WEFT_OK;
}

static weft_status read_any(compiler *c, schema_node *node, const keyword *k, const cJSON *value)
{
    *FIELD(const cJSON *, node, k) = value;
    return WEFT_OK;
}

static weft_status read_enum(compiler *c, schema_node *node, const keyword *k, const cJSON *value)
{
    if (!cJSON_IsArray(value)) return wrong(c, node, k, value, "an array of the allowed values");
    node->enumeration = value;
    return WEFT_OK;
}

/* An array of strings that all differ. */
static weft_status check_names(compiler *c, schema_node *node, const keyword *k, const cJSON *value,
                               const char *expected)
{
    const cJSON *name;
    bool twice = false;
    size_t i, j;
    if (!cJSON_IsArray(value)) return wrong(c, node, k, value, expected);
    cJSON_ArrayForEach(name, value)
    {
        if (!cJSON_IsString(name)) return wrong(c, node, k, value, expected);
    }
    weft_status status = value_find_twins(value, &twice, &i, &j, c->err);
    if (status || !twice) return status;
    return compile_fail(c, node, k->name, "lists \"%s\" twice",
                        cJSON_GetArrayItem(value, (int)j)->valuestring);
}

static weft_status read_required(compiler *c, schema_node *node, const keyword *k,
                                 const cJSON *value)
{
    weft_status status = check_names(c, node, k, value, "an array of property names");
    if (!status) node->required = value;
    return status;
}

static weft_status read_type(compiler *c, schema_node *node, const keyword *k, const cJSON *value)
{
    static const char expected[] =
        "one of null, boolean, object, array, number, integer, string, or an array of these";
    unsigned all = 0, bits;
    const cJSON *name;
    if (cJSON_IsString(value)) {
        if (!types_parse(value->valuestring, &all)) return wrong(c, node, k, value, expected);
    } else {
        weft_status status = check_names(c, node, k, value, expected);
        if (status) return status;
        cJSON_ArrayForEach(name, value)
        {
            if (!types_parse(name->valuestring, &bits)) return wrong(c, node, k, value, expected);
            all |= bits;
        }
        if (!all) return wrong(c, node, k, value, expected);
    }
    node->types = all;
    return WEFT_OK;
}

static weft_status compile_pattern(compiler *c, schema_node *node, const char *key,
                                   const char *text, pattern **out)
{
    weft_error why;
    weft_status status = pattern_compile(text, out, &why);
    if (status == WEFT_E_INVALID)
        return compile_fail(c, node, key, "\"%.100s\" is no regular expression: %s", text,
                            why.message);
    return status ? no_memory(c) : WEFT_OK;
}

static weft_status read_pattern(compiler *c, schema_node *node, const keyword *k,
                                const cJSON *value)
{
    if (!cJSON_IsString(value)) return wrong(c, node, k, value, "a regular expression");
    return compile_pattern(c, node, k->name, value->valuestring, &node->pattern);
}

/* ---- subschemas ---- */

static weft_status read_schema(compiler *c, schema_node *node, const keyword *k, const cJSON *value)
{
    return compile_node(c, value, (place){node, k->name, NULL, NO_INDEX}, FIELD(uint32_t, node, k));
}

static weft_status read_list(compiler *c, schema_node *node, const keyword *k, const cJSON *value)
{
    if (!cJSON_IsArray(value) || !value->child)
        return wrong(c, node, k, value, "a non-empty array of schemas");
    node_list *list = FIELD(node_list, node, k);
    list->at = calloc((size_t)cJSON_GetArraySize(value), sizeof *list->at);
    if (!list->at) return no_memory(c);
    weft_status status = WEFT_OK;
    for (const cJSON *item = value->child; item && !status; item = item->next) {
        status = compile_node(c, item, (place){node, k->name, NULL, list->n}, &list->at[list->n]);
        list->n++;
    }
    return status;
}

/* draft-07: an array here is prefixItems, and additionalItems the rest. */
static weft_status read_items(compiler *c, schema_node *node, const keyword *k, const cJSON *value)
{
    if (!cJSON_IsArray(value)) return read_schema(c, node, k, value);
    const keyword tuple = {k->name, NULL, offsetof(schema_node, prefix_items)};
    if (cJSON_GetObjectItemCaseSensitive(node->json, "prefixItems"))
        return wrong(c, node, k, value, "a schema beside prefixItems");
    return read_list(c, node, &tuple, value);
}

static weft_status read_additional_items(compiler *c, schema_node *node, const keyword *k,
                                         const cJSON *value)
{
    if (!cJSON_IsArray(cJSON_GetObjectItemCaseSensitive(node->json, "items")))
        return compile_fail(c, node, k->name, "has a meaning only beside items as an array");
    return read_schema(c, node, k, value);
}

/* Subschemas by name that only $ref uses. */
static weft_status read_definitions(compiler *c, schema_node *node, const keyword *k,
                                    const cJSON *value)
{
    weft_status status = WEFT_OK;
    uint32_t unused;
    if (!cJSON_IsObject(value)) return wrong(c, node, k, value, "an object of schemas");
    for (const cJSON *item = value->child; item && !status; item = item->next)
        status = compile_node(c, item, (place){node, k->name, item->string, NO_INDEX}, &unused);
    return status;
}

static int by_name(const void *a, const void *b, void *list)
{
    const named_node *at = list;
    return strcmp(at[*(const uint32_t *)a].name, at[*(const uint32_t *)b].name);
}

static weft_status sort_names(compiler *c, named_list *list)
{
    free(list->sorted);
    list->sorted = calloc(list->n ? list->n : 1, sizeof *list->sorted);
    if (!list->sorted) return no_memory(c);
    for (uint32_t i = 0; i < list->n; i++) list->sorted[i] = i;
    qsort_r(list->sorted, list->n, sizeof *list->sorted, by_name, list->at);
    return WEFT_OK;
}

/* Appends the members of value, which are schemas, arrays of names, or (draft-07) either. */
static weft_status read_named(compiler *c, schema_node *node, const keyword *k, const cJSON *value,
                              bool schemas, bool names)
{
    named_list *list = FIELD(named_list, node, k);
    if (!cJSON_IsObject(value))
        return wrong(c, node, k, value, schemas ? "an object of schemas" : "an object of arrays");
    size_t more = (size_t)cJSON_GetArraySize(value);
    named_node *grown = reallocarray(list->at, list->n + more + 1, sizeof *grown);
    if (!grown) return no_memory(c);
    list->at = grown;
    for (const cJSON *item = value->child; item; item = item->next) {
        named_node one = {item->string, NO_NODE, NULL};
        weft_status status;
        if (names && (!schemas || cJSON_IsArray(item))) {
            status = check_names(c, node, k, item, "an object of arrays of property names");
            one.required = item;
        } else {
            status =
                compile_node(c, item, (place){node, k->name, item->string, NO_INDEX}, &one.node);
        }
        if (status) return status;
        list->at[list->n++] = one;
    }
    return sort_names(c, list);
}

static weft_status read_schemas_by_name(compiler *c, schema_node *node, const keyword *k,
                                        const cJSON *value)
{
    return read_named(c, node, k, value, true, false);
}

static weft_status read_names_by_name(compiler *c, schema_node *node, const keyword *k,
                                      const cJSON *value)
{
    return read_named(c, node, k, value, false, true);
}

static weft_status read_dependencies(compiler *c, schema_node *node, const keyword *k,
                                     const cJSON *value)
{
    return read_named(c, node, k, value, true, true);
}

static weft_status read_patterns(compiler *c, schema_node *node, const keyword *k,
                                 const cJSON *value)
{
    if (!cJSON_IsObject(value)) return wrong(c, node, k, value, "an object of schemas");
    node->patterns = calloc((size_t)cJSON_GetArraySize(value) + 1, sizeof *node->patterns);
    if (!node->patterns) return no_memory(c);
    for (const cJSON *item = value->child; item; item = item->next) {
        pattern_node *one = &node->patterns[node->n_patterns];
        weft_status status = compile_pattern(c, node, k->name, item->string, &one->pattern);
        if (status) return status;
        node->n_patterns++;
        status = compile_node(c, item, (place){node, k->name, item->string, NO_INDEX}, &one->node);
        if (status) return status;
    }
    return WEFT_OK;
}

/* ---- identity ---- */

static weft_status read_schema_uri(compiler *c, schema_node *node, const keyword *k,
                                   const cJSON *value)
{
    static const char *const known[] = {"https://json-schema.org/draft/2020-12/schema",
                                        "http://json-schema.org/draft/2020-12/schema",
                                        "https://json-schema.org/draft/2019-09/schema",
                                        "http://json-schema.org/draft/2019-09/schema",
                                        "https://json-schema.org/draft-07/schema",
                                        "http://json-schema.org/draft-07/schema",
                                        "https://json-schema.org/draft-06/schema",
                                        "http://json-schema.org/draft-06/schema"};
    if (!cJSON_IsString(value)) return wrong(c, node, k, value, "a string");
    size_t n = strlen(value->valuestring);
    if (n && value->valuestring[n - 1] == '#') n--;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strlen(known[i]) == n && memcmp(known[i], value->valuestring, n) == 0) return WEFT_OK;
    return wrong(c, node, k, value,
                 "the URI of a known draft (2020-12, 2019-09, draft-07 or draft-06)");
}

static weft_status read_ref(compiler *c, schema_node *node, const keyword *k, const cJSON *value)
{
    if (!cJSON_IsString(value)) return wrong(c, node, k, value, "a string");
    node->ref_text = value->valuestring;
    return WEFT_OK;
}

static weft_status read_anchor(compiler *c, schema_node *node, const keyword *k, const cJSON *value)
{
    static const char first[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_";
    static const char rest[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789-.";
    const char *s = cJSON_IsString(value) ? value->valuestring : "";
    if (!*s || !strchr(first, *s) || s[strspn(s, rest)])
        return wrong(c, node, k, value, "a plain name (letters, digits, '_', '-', '.')");
    return ref_add_anchor(c, node, (uint32_t)(c->schema->n - 1), s);
}

static weft_status read_id(compiler *c, schema_node *node, const keyword *k, const cJSON *value)
{
    const char *hash = cJSON_IsString(value) ? strchr(value->valuestring, '#') : NULL;
    if (!cJSON_IsString(value) || (hash && hash[1]))
        return wrong(c, node, k, value, "a URI reference without a fragment");
    return ref_open_resource(c, node, (uint32_t)(c->schema->n - 1), value->valuestring);
}

/* ---- the table ---- */

#define AT(field) offsetof(schema_node, field)
/* $id and $anchor come first: what follows in the same schema lies in their scope, and the node
 * that is being read is still the last one made. */
static const keyword KEYWORDS[] = {
    {"$id", read_id, 0},
    {"$anchor", read_anchor, 0},
    {"$schema", read_schema_uri, 0},
    {"$ref", read_ref, 0},
    {"$defs", read_definitions, 0},
    {"definitions", read_definitions, 0},
    {"type", read_type, 0},
    {"enum", read_enum, 0},
    {"const", read_any, AT(constant)},
    {"minimum", read_bound, AT(minimum)},
    {"maximum", read_bound, AT(maximum)},
    {"exclusiveMinimum", read_bound, AT(exclusive_minimum)},
    {"exclusiveMaximum", read_bound, AT(exclusive_maximum)},
    {"multipleOf", read_multiple, 0},
    {"minLength", read_count, AT(min_length)},
    {"maxLength", read_count, AT(max_length)},
    {"pattern", read_pattern, 0},
    {"items", read_items, AT(items)},
    {"prefixItems", read_list, AT(prefix_items)},
    {"additionalItems", read_additional_items, AT(items)},
    {"minItems", read_count, AT(min_items)},
    {"maxItems", read_count, AT(max_items)},
    {"uniqueItems", read_flag, AT(unique_items)},
    {"contains", read_schema, AT(contains)},
    {"minContains", read_count, AT(min_contains)},
    {"maxContains", read_count, AT(max_contains)},
    {"properties", read_schemas_by_name, AT(properties)},
    {"patternProperties", read_patterns, 0},
    {"additionalProperties", read_schema, AT(additional)},
    {"propertyNames", read_schema, AT(property_names)},
    {"required", read_required, 0},
    {"minProperties", read_count, AT(min_properties)},
    {"maxProperties", read_count, AT(max_properties)},
    {"dependentRequired", read_names_by_name, AT(dependents)},
    {"dependentSchemas", read_schemas_by_name, AT(dependents)},
    {"dependencies", read_dependencies, AT(dependents)},
    {"allOf", read_list, AT(all_of)},
    {"anyOf", read_list, AT(any_of)},
    {"oneOf", read_list, AT(one_of)},
    {"not", read_schema, AT(not_)},
    {"if", read_schema, AT(if_)},
    {"then", read_schema, AT(then_)},
    {"else", read_schema, AT(else_)},
    {"title", read_annotation, TYPE_STRING},
    {"description", read_annotation, TYPE_STRING},
    {"$comment", read_annotation, TYPE_STRING},
    {"format", read_annotation, TYPE_STRING},
    {"contentEncoding", read_annotation, TYPE_STRING},
    {"contentMediaType", read_annotation, TYPE_STRING},
    {"contentSchema", read_annotation, TYPE_OBJECT | TYPE_BOOLEAN},
    {"default", read_annotation, TYPE_ANY},
    {"examples", read_annotation, TYPE_ARRAY},
    {"deprecated", read_annotation, TYPE_BOOLEAN},
    {"readOnly", read_annotation, TYPE_BOOLEAN},
    {"writeOnly", read_annotation, TYPE_BOOLEAN},
};
enum { N_KEYWORDS = sizeof KEYWORDS / sizeof *KEYWORDS };

static bool is_known(const char *name)
{
    for (size_t i = 0; i < N_KEYWORDS; i++)
        if (strcmp(KEYWORDS[i].name, name) == 0) return true;
    return false;
}

weft_status compile_keywords(compiler *c, schema_node *node)
{
    const cJSON *member;
    weft_status status = WEFT_OK;
    cJSON_ArrayForEach(member, node->json)
    {
        if (!is_known(member->string))
            return compile_fail(c, node, member->string,
                                "this keyword is not supported, and none is ignored; remove it or "
                                "write the rule with the keywords in schemas/README.md");
    }
    for (size_t i = 0; i < N_KEYWORDS && !status; i++) {
        const cJSON *value = cJSON_GetObjectItemCaseSensitive(node->json, KEYWORDS[i].name);
        if (value) status = KEYWORDS[i].read(c, node, &KEYWORDS[i], value);
    }
    return status;
}
