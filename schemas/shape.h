/* What a schema's values look like, without references: the grammar's intermediate form.
 *
 * A *value* is a place where JSON may stand; it is any of its *shapes*. A shape is one kind of
 * text: a set of literals, a string, a number, an object or an array, whose members are values
 * again, so values may be recursive. Both are numbered and unique: two subschemas that allow the
 * same texts mostly come to share one shape, which is what keeps the automaton small.
 *
 * A value is made for a conjunction of schema nodes (properties that several schemas of an allOf
 * name), or for a constant. Expanding it multiplies out anyOf and oneOf into branches, sets of
 * nodes that must all hold; beyond BRANCHES_MAX an alternative is left out of the product, which
 * only loosens the grammar (branch.c).
 */
#ifndef WEFT_SCHEMAS_SHAPE_H
#define WEFT_SCHEMAS_SHAPE_H

#include "schemas/intern.h"
#include "schemas/node.h"

enum {
    BRANCHES_MAX = 64,
    SHAPES_MAX = 65535,
    VALUES_MAX = 65535,
    COUNTED_CHARACTERS = 256, /* longer bounds of strings are left to the check */
    COUNTED_ITEMS = 64,       /* the same for arrays */
    TEXT_MAX = 65535,         /* bytes of a literal or a property name */
    MEMBERS_MAX = 4096,       /* names of one object */
    LITERALS_MAX = 65535,     /* of one value */
    NO_LIMIT = 65535,
};
#define NO_VALUE UINT32_MAX

typedef enum shape_kind {
    SHAPE_LITERALS,
    SHAPE_STRING,
    SHAPE_NUMBER,
    SHAPE_OBJECT,
    SHAPE_ARRAY
} shape_kind;

typedef struct shape_text { /* a literal, or the name of a property */
    const char *at;         /* as printed; strings with their quotes */
    uint32_t n;
    uint32_t shared;   /* bytes that it shares with a neighbour in its list */
    uint32_t property; /* whose name it is */
} shape_text;

typedef struct shape_property {
    uint32_t rank; /* of its name in the shape's texts */
    uint32_t value;
    uint32_t until; /* one past the first required property from here on, or n */
    bool required;
} shape_property;

typedef struct shape {
    shape_kind kind;
    bool live;              /* some finite text has this shape; set by shapes_finish */
    uint32_t n;             /* literals, properties or prefix values */
    uint32_t rest;          /* value of unknown properties (or NO_VALUE) or of items past prefix */
    uint32_t min, max;      /* string: characters; array: items; NO_LIMIT */
    bool integer, negative; /* number: digits only; may start with '-' */
    shape_text *texts;      /* [n] of literals or objects, sorted bytewise */
    shape_property *properties; /* [n] in order */
    uint32_t *prefix;           /* [n] values */
} shape;

typedef struct value {
    uint32_t *shapes; /* [n] sorted */
    uint32_t n;
    bool live;
} value;

typedef struct shapes {
    const weft_schema **schemas; /* [n_schemas] borrowed */
    size_t n_schemas;
    bool flat; /* give up telling objects (or arrays) of one value apart: any object instead */
    weft_status status; /* first failure; sticks */
    weft_error *err;
    intern texts, shape_keys, value_keys;
    shape_text *text; /* [n_texts] owned */
    size_t n_texts, text_capacity;
    shape *all; /* [n] */
    size_t n, capacity;
    value *values; /* [n_values] */
    size_t n_values, value_capacity;
    cJSON **constants; /* owned */
    size_t n_constants, constant_capacity;
} shapes;

void shapes_free(shapes *s);

/* Records the first failure. */
weft_status shapes_fail(shapes *s, weft_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* A node of one of the schemas, as a word. */
static inline uint64_t shape_node(size_t schema, uint32_t node)
{
    return (uint64_t)schema << 32 | node;
}

/* The value for a conjunction of nodes (none: any JSON). only_object: its objects alone. Sorts
 * nodes. */
uint32_t shapes_value(shapes *s, words *nodes, bool only_object);
/* The value that is exactly this constant, which must outlive s. */
uint32_t shapes_constant(shapes *s, const cJSON *constant);
/* The value that is any of the given shapes. Sorts them. */
uint32_t shapes_union(shapes *s, words *shape_numbers);

/* Shapes by content; 0 after a failure, which s->status tells. */
uint32_t shapes_literals(shapes *s, words *texts); /* of shapes_text; sorted here */
uint32_t shapes_string(shapes *s, uint32_t min, uint32_t max);
uint32_t shapes_number(shapes *s, bool integer, bool negative);
/* properties: name text, value, required; three words each. */
uint32_t shapes_object(shapes *s, const words *properties, uint32_t rest);
uint32_t shapes_array(shapes *s, const words *prefix, uint32_t rest, uint32_t min, uint32_t max);

/* Those of the sorted texts that go on with `byte` after the first `length` bytes of texts[rank]:
 * [*low, *high). */
void shape_texts_after(const shape *one, uint32_t rank, uint32_t length, uint8_t byte,
                       uint32_t *low, uint32_t *high);

/* A text by content, as a word. */
uint64_t shapes_text(shapes *s, const char *at, size_t n);

/* Expands all values that are waiting, then finds out which of them have any text at all. */
weft_status shapes_finish(shapes *s);

/* branch.c: the shapes of one value, appended to out. */
void shapes_expand_nodes(shapes *s, const uint64_t *nodes, size_t n, bool only_object, words *out);
void shapes_expand_constant(shapes *s, const cJSON *constant, words *out);

#endif
