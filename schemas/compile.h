/* Between the parts of the schema compiler: the walk (compile.c), the keyword table (keywords.c)
 * and references (ref.c). */
#ifndef WEFT_SCHEMAS_COMPILE_H
#define WEFT_SCHEMAS_COMPILE_H

#include "schemas/node.h"

typedef struct resource { /* a schema with its own $id; 0 is the document */
    char *uri;            /* absolute as far as it can be, no fragment; "" = none given */
    uint32_t root;
} resource;

typedef struct anchor {
    const char *name;
    uint32_t resource, node;
} anchor;

typedef struct compiler {
    weft_schema *schema;
    weft_error *err;
    resource *resources;
    size_t n_resources, resource_capacity;
    anchor *anchors;
    size_t n_anchors, anchor_capacity;
} compiler;

/* Where a subschema hangs: under `node`, by `keyword`, and a name or an index if it is in a list.
 */
typedef struct place {
    const schema_node *parent;
    const char *keyword, *name;
    size_t index;
} place;

#define NO_INDEX SIZE_MAX

/* Compiles a subschema and everything below it; *out = its number. */
weft_status compile_node(compiler *c, const cJSON *json, place where, uint32_t *out);

/* Reads all keywords of an object schema into node. */
weft_status compile_keywords(compiler *c, schema_node *node);

/* WEFT_E_INVALID "schema at /properties/a/minLength: ...". keyword may be NULL: the node itself. */
weft_status compile_fail(compiler *c, const schema_node *node, const char *keyword,
                         const char *format, ...) __attribute__((format(printf, 4, 5)));

weft_status ref_open_resource(compiler *c, schema_node *node, uint32_t number, const char *id);
weft_status ref_add_anchor(compiler *c, schema_node *node, uint32_t number, const char *name);
/* Fills node->ref of all nodes; refuses dangling and remote references. */
weft_status ref_resolve_all(compiler *c);

/* RFC 3986, 5.2: reference against base; the result has no fragment. NULL: out of memory. */
char *uri_resolve(const char *base, const char *reference);

/* Makes room for one more element in a growing array. */
bool array_reserve(void **array, size_t n, size_t *capacity, size_t element_size);

#endif
