/* The compiled schema: one node per subschema, numbered; edges are numbers, so that $ref cycles
 * cost nothing. Everything text-like is borrowed from `document`, the schema's own copy of its
 * JSON. After weft_schema_compile the structure never changes and can be read by many threads.
 */
#ifndef WEFT_SCHEMAS_NODE_H
#define WEFT_SCHEMAS_NODE_H

#include "schemas/pattern.h"
#include "schemas/schema.h"
#include "schemas/value.h"

#define NO_NODE UINT32_MAX

enum { SCHEMA_NODES_MAX = 10000 };

typedef struct node_list {
    uint32_t *at;
    size_t n;
} node_list;

typedef struct named_node { /* properties, dependentSchemas, dependentRequired */
    const char *name;
    uint32_t node;         /* NO_NODE in dependentRequired */
    const cJSON *required; /* array of strings in dependentRequired, else NULL */
} named_node;

typedef struct named_list {
    named_node *at; /* in the schema's order */
    size_t n;
    uint32_t *sorted; /* positions in `at`, by name */
} named_list;

typedef struct pattern_node {
    pattern *pattern;
    uint32_t node;
} pattern_node;

typedef struct schema_node {
    const cJSON *json;
    bool never;     /* the schema `false` */
    unsigned types; /* TYPE_ANY without `type` */
    const cJSON *enumeration, *constant;
    const cJSON *minimum, *maximum, *exclusive_minimum, *exclusive_maximum, *multiple_of;
    size_t min_length, max_length, min_items, max_items, min_properties, max_properties;
    size_t min_contains, max_contains;
    pattern *pattern;
    bool unique_items;
    node_list prefix_items, all_of, any_of, one_of;
    uint32_t items, contains, not_, if_, then_, else_, additional, property_names, ref;
    const cJSON *required;
    named_list properties, dependents;
    pattern_node *patterns;
    size_t n_patterns;
    /* only for messages and while compiling */
    const struct schema_node *parent; /* NULL: the root */
    const char *place,
        *place_name; /* under the parent: "/properties/" + "a", or "/allOf/" + index */
    size_t place_index;
    uint32_t resource; /* the $id scope it lies in */
    const char *ref_text;
} schema_node;

struct weft_schema {
    cJSON *document;
    schema_node **nodes; /* [n] node 0 is the root */
    size_t n, capacity;
};

/* The position of a name in a list, or n. */
size_t named_find(const named_list *list, const char *name);

/* Does the value conform to one node? As weft_schema_check; for the grammar's enum filter. */
weft_status schema_check_node(const weft_schema *schema, uint32_t node, const cJSON *value,
                              weft_error *err);

#endif
