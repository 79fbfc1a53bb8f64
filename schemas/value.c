/* JSON values as JSON Schema sees them: types, equality, uniqueness, places and their texts.
 * uniqueItems sorts by hash first and compares only items of equal hash: n log n instead of n^2 on
 * a long array. Recursion is bounded by JSON_DEPTH_MAX, which callers check once per value. */
#include "schemas/value.h"

#include "schemas/decimal.h"

#include <stdlib.h>
#include <string.h>

void path_print_key(const char *key, weft_buffer *out)
{
    for (; *key; key++) {
        if (*key == '~')
            weft_buffer_puts(out, "~0");
        else if (*key == '/')
            weft_buffer_puts(out, "~1");
        else
            weft_buffer_putc(out, *key);
    }
}

static void print_steps(const json_path *path, weft_buffer *out)
{
    if (!path) return;
    print_steps(path->up, out);
    weft_buffer_putc(out, '/');
    if (path->key)
        path_print_key(path->key, out);
    else
        weft_buffer_printf(out, "%zu", path->index);
}

void path_print(const json_path *path, weft_buffer *out)
{
    if (!path)
        weft_buffer_puts(out, "the top level");
    else
        print_steps(path, out);
}

/* ---- types ---- */

static const struct {
    const char *name;
    unsigned bits; /* what the word in a schema allows */
} TYPES[] = {{"null", TYPE_NULL},      {"boolean", TYPE_BOOLEAN},
             {"object", TYPE_OBJECT},  {"array", TYPE_ARRAY},
             {"string", TYPE_STRING},  {"number", TYPE_NUMBER | TYPE_INTEGER},
             {"integer", TYPE_INTEGER}};
enum { N_TYPES = sizeof TYPES / sizeof *TYPES };

bool types_parse(const char *name, unsigned *out)
{
    for (size_t i = 0; i < N_TYPES; i++) {
        if (strcmp(TYPES[i].name, name) != 0) continue;
        *out = TYPES[i].bits;
        return true;
    }
    return false;
}

void types_print(unsigned types, weft_buffer *out)
{
    const char *separator = "";
    for (size_t i = 0; i < N_TYPES; i++) {
        if ((types & TYPES[i].bits) != TYPES[i].bits) continue;
        weft_buffer_printf(out, "%s%s", separator, TYPES[i].name);
        types &= ~TYPES[i].bits;
        separator = " or ";
    }
}

unsigned value_types(const cJSON *value)
{
    switch (value->type & 0xff) {
    case cJSON_NULL: return TYPE_NULL;
    case cJSON_True:
    case cJSON_False: return TYPE_BOOLEAN;
    case cJSON_String: return value->valuestring ? TYPE_STRING : 0;
    case cJSON_Array: return TYPE_ARRAY;
    case cJSON_Object: return TYPE_OBJECT;
    case cJSON_Number: {
        decimal d;
        if (!decimal_read(value, &d)) return 0;
        return decimal_is_integer(&d) ? TYPE_NUMBER | TYPE_INTEGER : TYPE_NUMBER;
    }
    default: return 0;
    }
}

/* ---- equality ---- */

static bool objects_equal(const cJSON *a, const cJSON *b)
{
    if (cJSON_GetArraySize(a) != cJSON_GetArraySize(b)) return false;
    const cJSON *member;
    cJSON_ArrayForEach(member, a)
    {
        const cJSON *other = cJSON_GetObjectItemCaseSensitive(b, member->string);
        if (!other || !value_equal(member, other)) return false;
    }
    return true;
}

bool value_equal(const cJSON *a, const cJSON *b)
{
    if ((a->type & 0xff) != (b->type & 0xff)) return false;
    switch (a->type & 0xff) {
    case cJSON_Number: {
        decimal x, y;
        return decimal_read(a, &x) && decimal_read(b, &y) && decimal_compare(&x, &y) == 0;
    }
    case cJSON_String: return strcmp(a->valuestring, b->valuestring) == 0;
    case cJSON_Object: return objects_equal(a, b);
    case cJSON_Array: {
        const cJSON *x = a->child, *y = b->child;
        for (; x && y; x = x->next, y = y->next)
            if (!value_equal(x, y)) return false;
        return !x && !y;
    }
    default: return true; /* null, true, false: the type says it all */
    }
}

static uint64_t hash_text(const char *text, uint64_t h)
{
    for (; *text; text++) h = (h ^ (unsigned char)*text) * 0x100000001b3;
    return h;
}

static uint64_t value_hash(const cJSON *value, uint64_t seed)
{
    uint64_t h = (seed ^ (uint64_t)(value->type & 0xff)) * 0x100000001b3;
    const cJSON *child;
    decimal d;
    switch (value->type & 0xff) {
    case cJSON_Number: return decimal_read(value, &d) ? decimal_hash(&d, h) : h;
    case cJSON_String: return hash_text(value->valuestring, h);
    case cJSON_Array: cJSON_ArrayForEach(child, value) h = value_hash(child, h); return h;
    case cJSON_Object: { /* a sum, since the order of members does not matter */
        uint64_t sum = 0;
        cJSON_ArrayForEach(child, value) sum += value_hash(child, hash_text(child->string, h));
        return h ^ sum;
    }
    default: return h;
    }
}

typedef struct hashed {
    uint64_t hash;
    size_t index;
    const cJSON *item;
} hashed;

static int by_hash(const void *a, const void *b)
{
    const hashed *x = a, *y = b;
    if (x->hash != y->hash) return x->hash < y->hash ? -1 : 1;
    return x->index < y->index ? -1 : 1;
}

weft_status value_find_twins(const cJSON *array, bool *found, size_t *first, size_t *second,
                             weft_error *err)
{
    size_t n = (size_t)cJSON_GetArraySize(array), i = 0;
    hashed *items = calloc(n ? n : 1, sizeof *items);
    if (!items) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    const cJSON *child;
    cJSON_ArrayForEach(child, array)
    {
        items[i] = (hashed){value_hash(child, 0xcbf29ce484222325), i, child};
        i++;
    }
    qsort(items, n, sizeof *items, by_hash);
    bool twins = false;
    for (i = 0; i < n && !twins; i++) {
        for (size_t j = i + 1; j < n && items[j].hash == items[i].hash && !twins; j++) {
            if (!value_equal(items[i].item, items[j].item)) continue;
            twins = true;
            *first = items[i].index;
            *second = items[j].index;
        }
    }
    *found = twins;
    free(items);
    return WEFT_OK;
}

/* ---- the rest ---- */

size_t value_characters(const char *text)
{
    size_t n = 0;
    for (; *text; text++) n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

bool value_depth_within(const cJSON *value, size_t limit)
{
    const cJSON *child;
    if (!limit) return false;
    if (!cJSON_IsArray(value) && !cJSON_IsObject(value)) return true;
    cJSON_ArrayForEach(child, value)
    {
        if (!value_depth_within(child, limit - 1)) return false;
    }
    return true;
}

void value_show(const cJSON *value, weft_buffer *out)
{
    enum { SHOWN = 80 };
    weft_buffer text = WEFT_BUFFER_INIT;
    weft_json_compact(value, &text);
    size_t n = text.size;
    if (n > SHOWN) {
        n = SHOWN;
        while (n && ((unsigned char)text.data[n] & 0xc0) == 0x80) n--;
    }
    weft_buffer_append(out, weft_buffer_str(&text), n);
    if (n < text.size) weft_buffer_puts(out, "...");
    weft_buffer_free(&text);
}
