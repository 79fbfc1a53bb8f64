/* Questions about JSON values that JSON Schema asks: which type, equal or not, how many characters,
 * where (JSON pointer), and how to show one inside an error message. */
#ifndef WEFT_SCHEMAS_VALUE_H
#define WEFT_SCHEMAS_VALUE_H

#include "base/base.h"

/* A set of these is a type mask. A number with an integral value has both NUMBER and INTEGER. */
enum {
    TYPE_NULL = 1,
    TYPE_BOOLEAN = 2,
    TYPE_OBJECT = 4,
    TYPE_ARRAY = 8,
    TYPE_NUMBER = 16,
    TYPE_STRING = 32,
    TYPE_INTEGER = 64,
    TYPE_ANY = 127,
    JSON_DEPTH_MAX = 200, /* as the parser's; trees built by hand are held to it too */
};

/* A place in a value: a list on the C stack, innermost first; NULL = the top. */
typedef struct json_path {
    const struct json_path *up;
    const char *key; /* NULL: an index */
    size_t index;
    size_t depth; /* 1 for a child of the top */
} json_path;

/* Appends "/items/0/price" (RFC 6901), or "the top level" for NULL. */
void path_print(const json_path *path, weft_buffer *out);
/* Appends one reference token, '~' and '/' escaped. */
void path_print_key(const char *key, weft_buffer *out);

unsigned value_types(const cJSON *value); /* 0: no JSON value */
/* "integer or null" for a type mask. */
void types_print(unsigned types, weft_buffer *out);
bool types_parse(const char *name, unsigned *out);

/* JSON Schema equality: numbers by value, objects without order. */
bool value_equal(const cJSON *a, const cJSON *b);
/* Finds two equal items of an array; false if all differ. */
weft_status value_find_twins(const cJSON *array, bool *found, size_t *first, size_t *second,
                             weft_error *err);
size_t value_characters(const char *text); /* code points */
bool value_depth_within(const cJSON *value, size_t limit);
/* Appends the value as compact JSON, cut after about 80 bytes. */
void value_show(const cJSON *value, weft_buffer *out);

#endif
