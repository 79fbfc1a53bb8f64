/* From schema nodes to shapes.
 *
 * A value's nodes are multiplied out into branches: sets of nodes that all hold at once, one branch
 * for every choice of the anyOf and oneOf alternatives in them. Each branch then is read keyword by
 * keyword, all its nodes together: types intersect, bounds tighten, a property's value is the
 * conjunction of what every node says of that name. Keywords that shapes cannot express (pattern,
 * not, if, uniqueItems, ...) are left out, so a shape may allow more than the schema, never less.
 */
#include "schemas/compile.h"
#include "schemas/decimal.h"
#include "schemas/shape.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- branches ---- */

/* A pending word is a node, or a node whose anyOf or oneOf is still to be chosen from. */
static const uint64_t CHOOSE_ANY = (uint64_t)1 << 62, CHOOSE_ONE = (uint64_t)1 << 63;

typedef struct branch {
    words nodes;   /* hold already; in order of arrival */
    words pending; /* used as a stack */
} branch;

typedef struct branches {
    branch *at;
    size_t n, capacity;
} branches;

static const schema_node *node_of(const shapes *s, uint64_t word)
{
    return s->schemas[word >> 32 & 0x3fffffff]->nodes[(uint32_t)word];
}

static bool holds(const words *list, uint64_t word)
{
    for (size_t i = 0; i < list->n; i++)
        if (list->at[i] == word) return true;
    return false;
}

static void branch_free(branch *b)
{
    words_free(&b->nodes);
    words_free(&b->pending);
}

static void branches_free(branches *list)
{
    for (size_t i = 0; i < list->n; i++) branch_free(&list->at[i]);
    free(list->at);
    *list = (branches){0};
}

static bool branches_add(branches *list, branch one)
{
    if (!array_reserve((void **)&list->at, list->n, &list->capacity, sizeof *list->at)) {
        branch_free(&one);
        return false;
    }
    list->at[list->n++] = one;
    return true;
}

/* Replaces the choice on top of b's stack: one copy of b per alternative, b itself being the first.
 */
static bool fork_branch(branches *open, branch *b, const node_list *choices, uint64_t schema)
{
    for (size_t i = 1; i < choices->n; i++) {
        branch copy = {{0}, {0}};
        words_append(&copy.nodes, b->nodes.at, b->nodes.n);
        words_append(&copy.pending, b->pending.at, b->pending.n);
        words_add(&copy.pending, schema | choices->at[i]);
        if (!branches_add(open, copy)) return false;
    }
    words_add(&b->pending, schema | choices->at[0]);
    return true;
}

/* Takes in one node. False: it is the schema `false`, and the branch is void. */
static bool take_node(const shapes *s, branch *b, uint64_t word)
{
    const schema_node *node = node_of(s, word);
    const uint64_t schema = word & ~(uint64_t)UINT32_MAX;
    if (node->never) return false;
    if (holds(&b->nodes, word)) return true;
    words_add(&b->nodes, word);
    if (node->one_of.n) words_add(&b->pending, word | CHOOSE_ONE);
    if (node->any_of.n) words_add(&b->pending, word | CHOOSE_ANY);
    for (size_t i = node->all_of.n; i-- > 0;) words_add(&b->pending, schema | node->all_of.at[i]);
    if (node->ref != NO_NODE) words_add(&b->pending, schema | node->ref);
    return true;
}

/* Works `open` off into `done`. False: out of memory. */
static bool multiply_out(const shapes *s, branches *open, branches *done)
{
    while (open->n) {
        branch b = open->at[--open->n];
        bool lives = true;
        while (b.pending.n && lives) {
            uint64_t word = b.pending.at[--b.pending.n];
            if (!(word & (CHOOSE_ANY | CHOOSE_ONE))) {
                lives = take_node(s, &b, word);
                continue;
            }
            const schema_node *node = node_of(s, word);
            const node_list *choices = word & CHOOSE_ANY ? &node->any_of : &node->one_of;
            if (open->n + done->n + choices->n > BRANCHES_MAX) continue; /* loosens */
            word &= ~(CHOOSE_ANY | CHOOSE_ONE | UINT32_MAX);
            if (!fork_branch(open, &b, choices, word)) {
                branch_free(&b);
                return false;
            }
        }
        if (b.nodes.failed || b.pending.failed) {
            branch_free(&b);
            return false;
        }
        if (!lives)
            branch_free(&b);
        else if (!branches_add(done, b))
            return false;
    }
    return true;
}

/* ---- literals ---- */

static void add_text(shapes *s, const char *text, size_t n, words *texts)
{
    uint64_t word = shapes_text(s, text, n);
    if (!s->status) words_add(texts, word);
}

/* A number may be printed as it was written, as an integer, or as Python's repr: all that equal it.
 */
static void add_number(shapes *s, const cJSON *number, words *texts)
{
    decimal wanted, d;
    char spelled[32];
    if (!decimal_read(number, &wanted)) return;
    const char *source = number->valuestring ? number->valuestring : wanted.own;
    add_text(s, source, strlen(source), texts);
    weft_json_repr(number->valuedouble, spelled);
    for (int i = 0; i < 2; i++) {
        const cJSON again = {.type = cJSON_Number, .valuestring = spelled};
        if (decimal_read(&again, &d) && decimal_compare(&d, &wanted) == 0)
            add_text(s, spelled, strlen(spelled), texts);
        snprintf(spelled, sizeof spelled, "%.0f",
                 number->valuedouble > -1e15 && number->valuedouble < 1e15 ? number->valuedouble
                                                                           : 0.5);
    }
}

/* Scalars go to texts, containers become shapes of constants. */
static void add_constant(shapes *s, const cJSON *constant, words *texts, words *out)
{
    words list = {0};
    const cJSON *child;
    weft_buffer text = WEFT_BUFFER_INIT;
    switch (constant->type & 0xff) {
    case cJSON_Number: add_number(s, constant, texts); break;
    case cJSON_Array:
        cJSON_ArrayForEach(child, constant) words_add(&list, shapes_constant(s, child));
        if (list.n >= NO_LIMIT)
            shapes_fail(s, WEFT_E_LIMIT, "a constant array of %zu items is too long", list.n);
        words_add(out, shapes_array(s, &list, 0, (uint32_t)list.n, (uint32_t)list.n));
        break;
    case cJSON_Object:
        cJSON_ArrayForEach(child, constant)
        {
            const cJSON name = {.type = cJSON_String, .valuestring = child->string};
            weft_buffer_clear(&text);
            weft_json_compact(&name, &text);
            words_add(&list, shapes_text(s, weft_buffer_str(&text), text.size));
            words_add(&list, shapes_constant(s, child));
            words_add(&list, 1);
        }
        words_add(out, shapes_object(s, &list, NO_VALUE));
        break;
    default:
        weft_json_compact(constant, &text);
        add_text(s, weft_buffer_str(&text), text.size, texts);
    }
    if (text.failed || list.failed) shapes_fail(s, WEFT_E_MEMORY, "out of memory");
    weft_buffer_free(&text);
    words_free(&list);
}

void shapes_expand_constant(shapes *s, const cJSON *constant, words *out)
{
    words texts = {0};
    add_constant(s, constant, &texts, out);
    if (texts.n) words_add(out, shapes_literals(s, &texts));
    words_free(&texts);
}

/* Do all nodes of the branch allow the constant? The checker knows; where it gives up, yes. */
static bool allowed(const shapes *s, const branch *b, const cJSON *constant)
{
    weft_error ignored;
    for (size_t i = 0; i < b->nodes.n; i++) {
        uint64_t word = b->nodes.at[i];
        if (schema_check_node(s->schemas[word >> 32], (uint32_t)word, constant, &ignored) ==
            WEFT_E_INVALID)
            return false;
    }
    return true;
}

/* If a node of the branch lists its values: those that the others allow too. */
static bool expand_listed(shapes *s, const branch *b, unsigned types, words *texts, words *out)
{
    for (size_t i = 0; i < b->nodes.n; i++) {
        const schema_node *node = node_of(s, b->nodes.at[i]);
        const cJSON *one = node->constant      ? node->constant
                           : node->enumeration ? node->enumeration->child
                                               : NULL;
        if (!node->constant && !node->enumeration) continue;
        for (; one; one = node->constant ? NULL : one->next)
            if (value_types(one) & types && allowed(s, b, one)) add_constant(s, one, texts, out);
        return true;
    }
    return false;
}

/* ---- numbers and strings ---- */

static void expand_string(shapes *s, const branch *b, words *out)
{
    size_t min = 0, max = SIZE_MAX;
    for (size_t i = 0; i < b->nodes.n; i++) {
        const schema_node *node = node_of(s, b->nodes.at[i]);
        if (node->min_length > min) min = node->min_length;
        if (node->max_length < max) max = node->max_length;
    }
    if (min > max) return;
    words_add(out, shapes_string(s, min > COUNTED_CHARACTERS ? COUNTED_CHARACTERS : (uint32_t)min,
                                 max > COUNTED_CHARACTERS ? NO_LIMIT : (uint32_t)max));
}

/* The smallest and largest integer that the bounds of the branch leave; false if one is open. */
static bool integer_range(const shapes *s, const branch *b, int64_t *low, int64_t *high)
{
    const int64_t wide = (int64_t)1 << 53;
    *low = -wide;
    *high = wide;
    for (size_t i = 0; i < b->nodes.n; i++) {
        const schema_node *node = node_of(s, b->nodes.at[i]);
        const cJSON *bounds[] = {node->minimum, node->exclusive_minimum, node->maximum,
                                 node->exclusive_maximum};
        for (int j = 0; j < 4; j++) {
            decimal d;
            int64_t v;
            if (!bounds[j] || !decimal_read(bounds[j], &d) || !decimal_to_int(&d, &v)) continue;
            if (j < 2 && v > *low) *low = v;
            if (j >= 2 && v < *high) *high = v;
        }
    }
    return *low > -wide && *high < wide;
}

static bool may_be_negative(const shapes *s, const branch *b)
{
    const cJSON zero = {.type = cJSON_Number, .valuestring = "0"};
    decimal none, d;
    decimal_read(&zero, &none);
    for (size_t i = 0; i < b->nodes.n; i++) {
        const schema_node *node = node_of(s, b->nodes.at[i]);
        const cJSON *bounds[] = {node->minimum, node->exclusive_minimum};
        for (int j = 0; j < 2; j++)
            if (bounds[j] && decimal_read(bounds[j], &d) && decimal_compare(&d, &none) >= 0)
                return false;
    }
    return true;
}

/* A short range of integers is listed, so that it is exact. */
static void expand_number(shapes *s, const branch *b, unsigned types, words *texts, words *out)
{
    enum { LISTED = 256 };
    bool integer = !(types & TYPE_NUMBER);
    int64_t low, high;
    if (integer && integer_range(s, b, &low, &high) && (low > high || high - low <= LISTED)) {
        for (int64_t v = low; v <= high; v++) {
            char text[32];
            int n = snprintf(text, sizeof text, "%lld", (long long)v);
            const cJSON one = {.type = cJSON_Number, .valuestring = text};
            if (allowed(s, b, &one)) add_text(s, text, (size_t)n, texts);
        }
        return;
    }
    words_add(out, shapes_number(s, integer, may_be_negative(s, b)));
}

/* ---- arrays ---- */

static uint32_t item_value(shapes *s, const branch *b, size_t index)
{
    words nodes = {0};
    for (size_t i = 0; i < b->nodes.n; i++) {
        const schema_node *node = node_of(s, b->nodes.at[i]);
        uint64_t schema = b->nodes.at[i] & ~(uint64_t)UINT32_MAX;
        if (index < node->prefix_items.n)
            words_add(&nodes, schema | node->prefix_items.at[index]);
        else if (node->items != NO_NODE)
            words_add(&nodes, schema | node->items);
    }
    uint32_t number = shapes_value(s, &nodes, false);
    words_free(&nodes);
    return number;
}

static void expand_array(shapes *s, const branch *b, words *out)
{
    size_t min = 0, max = SIZE_MAX, n = 0;
    words prefix = {0};
    for (size_t i = 0; i < b->nodes.n; i++) {
        const schema_node *node = node_of(s, b->nodes.at[i]);
        if (node->min_items > min) min = node->min_items;
        if (node->max_items < max) max = node->max_items;
        if (node->prefix_items.n > n) n = node->prefix_items.n;
    }
    if (min > max) return;
    for (size_t i = 0; i < n; i++) words_add(&prefix, item_value(s, b, i));
    words_add(out, shapes_array(s, &prefix, item_value(s, b, n),
                                min > COUNTED_ITEMS ? COUNTED_ITEMS : (uint32_t)min,
                                max > COUNTED_ITEMS ? NO_LIMIT : (uint32_t)max));
    words_free(&prefix);
}

/* ---- objects ---- */

/* Everything the nodes of the branch say of one name. A name that propertyNames forbids gets a
 * value without texts. */
static uint32_t property_value(shapes *s, const branch *b, const char *name)
{
    const cJSON text = {.type = cJSON_String, .valuestring = (char *)name};
    words nodes = {0}, none = {0};
    weft_error ignored;
    bool never = false;
    for (size_t i = 0; i < b->nodes.n; i++) {
        const schema_node *node = node_of(s, b->nodes.at[i]);
        uint64_t schema = b->nodes.at[i] & ~(uint64_t)UINT32_MAX;
        size_t at = named_find(&node->properties, name);
        bool named = at < node->properties.n;
        if (named) words_add(&nodes, schema | node->properties.at[at].node);
        for (size_t j = 0; j < node->n_patterns; j++) {
            bool match = false;
            if (pattern_match(node->patterns[j].pattern, name, &match, &ignored) || !match)
                continue;
            words_add(&nodes, schema | node->patterns[j].node);
            named = true;
        }
        if (!named && node->additional != NO_NODE) words_add(&nodes, schema | node->additional);
        if (node->property_names != NO_NODE &&
            schema_check_node(s->schemas[schema >> 32], node->property_names, &text, &ignored) ==
                WEFT_E_INVALID)
            never = true;
    }
    uint32_t number = never ? shapes_union(s, &none) : shapes_value(s, &nodes, false);
    words_free(&nodes);
    return number;
}

/* The value of names that no node lists; NO_VALUE if there may be none. */
static uint32_t rest_value(shapes *s, const branch *b)
{
    words nodes = {0};
    bool none = false;
    for (size_t i = 0; i < b->nodes.n; i++) {
        const schema_node *node = node_of(s, b->nodes.at[i]);
        uint64_t schema = b->nodes.at[i] & ~(uint64_t)UINT32_MAX;
        bool closed = node->additional != NO_NODE && node_of(s, schema | node->additional)->never;
        if (node->property_names != NO_NODE && node_of(s, schema | node->property_names)->never)
            none = true;
        if (!node->n_patterns && node->additional != NO_NODE)
            words_add(&nodes, schema | node->additional);
        if (closed && node->n_patterns == 1) words_add(&nodes, schema | node->patterns[0].node);
    }
    uint32_t number = none ? NO_VALUE : shapes_value(s, &nodes, false);
    words_free(&nodes);
    return number;
}

static bool is_required(const shapes *s, const branch *b, const char *name)
{
    const cJSON *one;
    for (size_t i = 0; i < b->nodes.n; i++) {
        cJSON_ArrayForEach(one, node_of(s, b->nodes.at[i])->required)
        {
            if (strcmp(one->valuestring, name) == 0) return true;
        }
    }
    return false;
}

typedef struct members {
    words list; /* text, value, required */
    words seen; /* texts */
} members;

static void add_member(shapes *s, const branch *b, const char *name, members *m)
{
    const cJSON string = {.type = cJSON_String, .valuestring = (char *)name};
    weft_buffer text = WEFT_BUFFER_INIT;
    weft_json_compact(&string, &text);
    uint64_t word = shapes_text(s, weft_buffer_str(&text), text.size);
    if (text.failed) shapes_fail(s, WEFT_E_MEMORY, "out of memory");
    weft_buffer_free(&text);
    if (s->status || holds(&m->seen, word)) return;
    if (m->seen.n >= MEMBERS_MAX)
        shapes_fail(s, WEFT_E_LIMIT, "more than %d properties in one object", MEMBERS_MAX);
    words_add(&m->seen, word);
    words_add(&m->list, word);
    words_add(&m->list, property_value(s, b, name));
    words_add(&m->list, (uint64_t)is_required(s, b, name));
}

static void expand_object(shapes *s, const branch *b, words *out)
{
    members m = {{0}, {0}};
    const cJSON *name;
    for (size_t i = 0; i < b->nodes.n && !s->status; i++) {
        const named_list *list = &node_of(s, b->nodes.at[i])->properties;
        for (size_t j = 0; j < list->n && !s->status; j++) add_member(s, b, list->at[j].name, &m);
    }
    for (size_t i = 0; i < b->nodes.n && !s->status; i++) {
        cJSON_ArrayForEach(name, node_of(s, b->nodes.at[i])->required)
            add_member(s, b, name->valuestring, &m);
    }
    words_add(out, shapes_object(s, &m.list, rest_value(s, b)));
    words_free(&m.list);
    words_free(&m.seen);
}

/* ---- all together ---- */

static void expand_branch(shapes *s, const branch *b, bool only_object, words *texts, words *out)
{
    unsigned types = only_object ? TYPE_OBJECT : TYPE_ANY;
    for (size_t i = 0; i < b->nodes.n; i++) types &= node_of(s, b->nodes.at[i])->types;
    if (expand_listed(s, b, types, texts, out)) return;
    if (types & TYPE_NULL) add_text(s, "null", 4, texts);
    if (types & TYPE_BOOLEAN) {
        add_text(s, "true", 4, texts);
        add_text(s, "false", 5, texts);
    }
    if (types & (TYPE_NUMBER | TYPE_INTEGER)) expand_number(s, b, types, texts, out);
    if (types & TYPE_STRING) expand_string(s, b, out);
    if (types & TYPE_ARRAY) expand_array(s, b, out);
    if (types & TYPE_OBJECT) expand_object(s, b, out);
}

/* Literals that a free string or number of the same value covers need no path of their own. */
static void drop_covered(const shapes *s, const words *out, words *texts)
{
    bool strings = false, numbers = false;
    for (size_t i = 0; i < out->n; i++) {
        const shape *one = &s->all[out->at[i]];
        strings |= one->kind == SHAPE_STRING && one->min == 0 && one->max == NO_LIMIT;
        numbers |= one->kind == SHAPE_NUMBER && !one->integer && one->negative;
    }
    size_t kept = 0;
    for (size_t i = 0; i < texts->n; i++) {
        char first = s->text[texts->at[i]].at[0];
        bool is_number = first == '-' || (first >= '0' && first <= '9');
        if ((strings && first == '"') || (numbers && is_number)) continue;
        texts->at[kept++] = texts->at[i];
    }
    texts->n = kept;
}

void shapes_expand_nodes(shapes *s, const uint64_t *nodes, size_t n, bool only_object, words *out)
{
    branches open = {0}, done = {0};
    branch first = {{0}, {0}};
    words texts = {0};
    for (size_t i = n; i-- > 0;) words_add(&first.pending, nodes[i]);
    if (first.pending.failed)
        branch_free(&first);
    else if (branches_add(&open, first) && multiply_out(s, &open, &done)) {
        for (size_t i = 0; i < done.n && !s->status; i++)
            expand_branch(s, &done.at[i], only_object, &texts, out);
        if (!s->status) drop_covered(s, out, &texts);
        if (texts.n && !s->status) words_add(out, shapes_literals(s, &texts));
        goto end;
    }
    shapes_fail(s, WEFT_E_MEMORY, "out of memory");
end:
    if (texts.failed || out->failed) shapes_fail(s, WEFT_E_MEMORY, "out of memory");
    branches_free(&open);
    branches_free(&done);
    words_free(&texts);
}
