/* Values and shapes: made unique, expanded until nothing is waiting, then sorted into living and
 * dead.
 *
 * A shape is dead if no finite text has it: a required property whose schema is false, a list that
 * must hold itself. Only living ones reach the automaton, and that is why it has no dead ends.
 */
#include "schemas/shape.h"

#include "schemas/compile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VALUE_NODES, VALUE_OBJECTS, VALUE_CONSTANT, VALUE_UNION }; /* first word of a value's key */

weft_status shapes_fail(shapes *s, weft_status status, const char *format, ...)
{
    char text[256];
    if (s->status) return s->status;
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    s->status = weft_fail(s->err, status, "grammar: %s", text);
    return s->status;
}

static uint32_t no_memory(shapes *s)
{
    shapes_fail(s, WEFT_E_MEMORY, "out of memory");
    return 0;
}

static void shape_free(shape *one)
{
    free(one->texts);
    free(one->properties);
    free(one->prefix);
}

void shapes_free(shapes *s)
{
    for (size_t i = 0; i < s->n; i++) shape_free(&s->all[i]);
    for (size_t i = 0; i < s->n_values; i++) free(s->values[i].shapes);
    for (size_t i = 0; i < s->n_texts; i++) free((char *)s->text[i].at);
    for (size_t i = 0; i < s->n_constants; i++) cJSON_Delete(s->constants[i]);
    free(s->all);
    free(s->values);
    free(s->text);
    free(s->constants);
    intern_free(&s->texts);
    intern_free(&s->shape_keys);
    intern_free(&s->value_keys);
    *s = (shapes){0};
}

/* ---- texts ---- */

uint64_t shapes_text(shapes *s, const char *at, size_t n)
{
    words key = {0};
    bool fresh;
    if (n > TEXT_MAX) {
        shapes_fail(s, WEFT_E_LIMIT, "a name or constant is longer than %d bytes", TEXT_MAX);
        return 0;
    }
    words_add(&key, n);
    for (size_t i = 0; i < n; i += 8) {
        uint64_t word = 0;
        memcpy(&word, at + i, n - i < 8 ? n - i : 8);
        words_add(&key, word);
    }
    uint32_t number = key.failed ? INTERN_FAILED : intern_put(&s->texts, key.at, key.n, &fresh);
    words_free(&key);
    if (number == INTERN_FAILED) return no_memory(s);
    if (!fresh) return number;
    if (!array_reserve((void **)&s->text, s->n_texts, &s->text_capacity, sizeof *s->text))
        return no_memory(s);
    char *copy = strndup(at, n);
    if (!copy) return no_memory(s);
    s->text[s->n_texts++] = (shape_text){.at = copy, .n = (uint32_t)n};
    return number;
}

/* ---- shapes ---- */

/* Takes the content; frees it if the shape is known already. */
static uint32_t add_shape(shapes *s, words *key, shape content)
{
    bool fresh = false;
    uint32_t number = INTERN_FAILED;
    if (!key->failed && !s->status) number = intern_put(&s->shape_keys, key->at, key->n, &fresh);
    words_free(key);
    if (number == INTERN_FAILED ||
        (fresh && !array_reserve((void **)&s->all, s->n, &s->capacity, sizeof *s->all))) {
        shape_free(&content);
        return no_memory(s);
    }
    if (!fresh) {
        shape_free(&content);
        return number;
    }
    s->all[s->n++] = content;
    if (s->n > SHAPES_MAX) shapes_fail(s, WEFT_E_LIMIT, "more than %d shapes", SHAPES_MAX);
    return number;
}

static int by_text(const void *a, const void *b)
{
    const shape_text *x = a, *y = b;
    int order = memcmp(x->at, y->at, x->n < y->n ? x->n : y->n);
    return order ? order : x->n < y->n ? -1 : x->n > y->n;
}

/* Sorts the texts and notes how much each shares with its neighbours. */
static void sort_texts(shape *one)
{
    qsort(one->texts, one->n, sizeof *one->texts, by_text);
    for (uint32_t i = 1; i < one->n; i++) {
        shape_text *x = &one->texts[i - 1], *y = &one->texts[i];
        uint32_t k = 0;
        while (k < x->n && k < y->n && x->at[k] == y->at[k]) k++;
        if (x->shared < k) x->shared = k;
        y->shared = k;
    }
}

/* Order of the text's beginning against prefix and byte. */
static int compare_beginning(const shape_text *t, const char *prefix, uint32_t length, uint8_t byte)
{
    int order = memcmp(t->at, prefix, t->n < length ? t->n : length);
    if (order) return order;
    return t->n <= length ? -1 : (int)(uint8_t)t->at[length] - (int)byte;
}

void shape_texts_after(const shape *one, uint32_t rank, uint32_t length, uint8_t byte,
                       uint32_t *low, uint32_t *high)
{
    const shape_text *t = &one->texts[rank];
    if (length > t->shared) { /* no other has this prefix: most of the time */
        *low = rank;
        *high = rank + (length < t->n && (uint8_t)t->at[length] == byte);
        return;
    }
    uint32_t from = 0, to = one->n;
    while (from < to) {
        uint32_t middle = from + (to - from) / 2;
        if (compare_beginning(&one->texts[middle], t->at, length, byte) < 0)
            from = middle + 1;
        else
            to = middle;
    }
    *low = from;
    to = one->n;
    while (from < to) {
        uint32_t middle = from + (to - from) / 2;
        if (compare_beginning(&one->texts[middle], t->at, length, byte) <= 0)
            from = middle + 1;
        else
            to = middle;
    }
    *high = from;
}

uint32_t shapes_literals(shapes *s, words *texts)
{
    words key = {0};
    words_sort_unique(texts);
    if (texts->n > LITERALS_MAX)
        shapes_fail(s, WEFT_E_LIMIT, "more than %d constants in one place", LITERALS_MAX);
    shape one = {.kind = SHAPE_LITERALS, .n = (uint32_t)texts->n};
    one.texts = calloc(texts->n + 1, sizeof *one.texts);
    if (!one.texts || texts->failed || s->status) {
        free(one.texts);
        return no_memory(s);
    }
    words_add(&key, SHAPE_LITERALS);
    words_append(&key, texts->at, texts->n);
    for (size_t i = 0; i < texts->n; i++) one.texts[i] = s->text[texts->at[i]];
    sort_texts(&one);
    return add_shape(s, &key, one);
}

uint32_t shapes_string(shapes *s, uint32_t min, uint32_t max)
{
    words key = {0};
    words_append(&key, (const uint64_t[]){SHAPE_STRING, min, max}, 3);
    return add_shape(s, &key, (shape){.kind = SHAPE_STRING, .min = min, .max = max});
}

uint32_t shapes_number(shapes *s, bool integer, bool negative)
{
    words key = {0};
    words_append(&key, (const uint64_t[]){SHAPE_NUMBER, integer, negative}, 3);
    return add_shape(s, &key,
                     (shape){.kind = SHAPE_NUMBER, .integer = integer, .negative = negative});
}

uint32_t shapes_object(shapes *s, const words *properties, uint32_t rest)
{
    words key = {0};
    uint32_t n = (uint32_t)(properties->n / 3);
    shape one = {.kind = SHAPE_OBJECT, .n = n, .rest = rest};
    one.properties = calloc((size_t)n + 1, sizeof *one.properties);
    one.texts = calloc((size_t)n + 1, sizeof *one.texts);
    if (!one.properties || !one.texts || properties->failed || s->status) {
        shape_free(&one);
        return no_memory(s);
    }
    words_append(&key, (const uint64_t[]){SHAPE_OBJECT, rest}, 2);
    words_append(&key, properties->at, properties->n);
    for (uint32_t i = 0; i < n; i++) {
        const uint64_t *p = properties->at + (size_t)3 * i;
        one.texts[i] = s->text[p[0]];
        one.texts[i].property = i;
        one.properties[i] = (shape_property){.value = (uint32_t)p[1], .required = p[2] != 0};
    }
    sort_texts(&one);
    for (uint32_t i = 0; i < n; i++) one.properties[one.texts[i].property].rank = i;
    return add_shape(s, &key, one);
}

uint32_t shapes_array(shapes *s, const words *prefix, uint32_t rest, uint32_t min, uint32_t max)
{
    words key = {0};
    shape one = {
        .kind = SHAPE_ARRAY, .n = (uint32_t)prefix->n, .rest = rest, .min = min, .max = max};
    one.prefix = calloc(prefix->n + 1, sizeof *one.prefix);
    if (!one.prefix || prefix->failed) {
        free(one.prefix);
        return no_memory(s);
    }
    words_append(&key, (const uint64_t[]){SHAPE_ARRAY, rest, min, max}, 4);
    words_append(&key, prefix->at, prefix->n);
    for (size_t i = 0; i < prefix->n; i++) one.prefix[i] = (uint32_t)prefix->at[i];
    return add_shape(s, &key, one);
}

/* ---- values ---- */

static uint32_t add_value(shapes *s, words *key)
{
    bool fresh = false;
    uint32_t number = INTERN_FAILED;
    if (!key->failed && !s->status) number = intern_put(&s->value_keys, key->at, key->n, &fresh);
    words_free(key);
    if (number == INTERN_FAILED || (fresh && !array_reserve((void **)&s->values, s->n_values,
                                                            &s->value_capacity, sizeof *s->values)))
        return no_memory(s);
    if (fresh) s->values[s->n_values++] = (value){0};
    if (s->n_values > VALUES_MAX) shapes_fail(s, WEFT_E_LIMIT, "more than %d values", VALUES_MAX);
    return number;
}

uint32_t shapes_value(shapes *s, words *nodes, bool only_object)
{
    words key = {0};
    words_sort_unique(nodes);
    words_add(&key, only_object ? VALUE_OBJECTS : VALUE_NODES);
    words_append(&key, nodes->at, nodes->n);
    if (nodes->failed) key.failed = true;
    return add_value(s, &key);
}

uint32_t shapes_constant(shapes *s, const cJSON *constant)
{
    words key = {0};
    words_append(&key, (const uint64_t[]){VALUE_CONSTANT, (uint64_t)(uintptr_t)constant}, 2);
    return add_value(s, &key);
}

uint32_t shapes_union(shapes *s, words *shape_numbers)
{
    words key = {0};
    words_sort_unique(shape_numbers);
    words_add(&key, VALUE_UNION);
    words_append(&key, shape_numbers->at, shape_numbers->n);
    if (shape_numbers->failed) key.failed = true;
    return add_value(s, &key);
}

/* Flat: two objects (or arrays) in one value become "any object", so that none need be told apart.
 */
static void flatten(shapes *s, words *list, shape_kind kind)
{
    size_t n = 0, kept = 0;
    for (size_t i = 0; i < list->n; i++) n += s->all[list->at[i]].kind == kind;
    if (n < 2) return;
    for (size_t i = 0; i < list->n; i++)
        if (s->all[list->at[i]].kind != kind) list->at[kept++] = list->at[i];
    list->n = kept;
    words none = {0};
    uint32_t any = shapes_value(s, &none, false);
    words_add(list, kind == SHAPE_OBJECT ? shapes_object(s, &none, any)
                                         : shapes_array(s, &none, any, 0, NO_LIMIT));
}

static void expand(shapes *s, uint32_t number)
{
    words list = {0}, key = {0};
    size_t n;
    const uint64_t *at = intern_get(&s->value_keys, number, &n);
    words_append(&key, at, n); /* a copy: expanding moves the pool */
    if (key.failed) {
        no_memory(s);
        return;
    }
    uint64_t kind = key.at[0];
    if (kind == VALUE_CONSTANT)
        shapes_expand_constant(s, (const cJSON *)(uintptr_t)key.at[1], &list);
    else if (kind == VALUE_UNION)
        words_append(&list, key.at + 1, key.n - 1);
    else
        shapes_expand_nodes(s, key.at + 1, key.n - 1, kind == VALUE_OBJECTS, &list);
    words_sort_unique(&list);
    if (s->flat && kind != VALUE_UNION && !s->status) {
        flatten(s, &list, SHAPE_OBJECT);
        flatten(s, &list, SHAPE_ARRAY);
        words_sort_unique(&list);
    }
    value *v = &s->values[number];
    v->shapes = calloc(list.n + 1, sizeof *v->shapes);
    if (!v->shapes || list.failed) {
        no_memory(s);
    } else {
        for (size_t i = 0; i < list.n; i++) v->shapes[i] = (uint32_t)list.at[i];
        v->n = (uint32_t)list.n;
    }
    words_free(&list);
    words_free(&key);
}

/* ---- life ---- */

static bool object_lives(const shapes *s, const shape *one)
{
    for (uint32_t i = 0; i < one->n; i++)
        if (one->properties[i].required && !s->values[one->properties[i].value].live) return false;
    return true;
}

static bool array_lives(const shapes *s, const shape *one)
{
    for (uint32_t i = 0; i < one->min; i++) {
        uint32_t v = i < one->n ? one->prefix[i] : one->rest;
        if (!s->values[v].live) return false;
    }
    return one->min <= one->max;
}

static bool shape_lives(const shapes *s, const shape *one)
{
    switch (one->kind) {
    case SHAPE_LITERALS: return one->n > 0;
    case SHAPE_STRING: return one->min <= one->max;
    case SHAPE_OBJECT: return object_lives(s, one);
    case SHAPE_ARRAY: return array_lives(s, one);
    default: return true;
    }
}

/* The least fixed point: nothing lives that was not shown to have a finite text. */
static void find_living(shapes *s)
{
    for (bool changed = true; changed;) {
        changed = false;
        for (size_t i = s->n; i-- > 0;) {
            if (s->all[i].live || !shape_lives(s, &s->all[i])) continue;
            s->all[i].live = changed = true;
        }
        for (size_t i = s->n_values; i-- > 0;) {
            value *v = &s->values[i];
            for (uint32_t j = 0; j < v->n && !v->live; j++)
                if (s->all[v->shapes[j]].live) v->live = changed = true;
        }
    }
}

/* A list cannot grow past the first place whose value is dead. */
static void shorten_arrays(shapes *s)
{
    for (size_t i = 0; i < s->n; i++) {
        shape *one = &s->all[i];
        if (one->kind != SHAPE_ARRAY) continue;
        for (uint32_t j = 0; j < one->n && j < one->max; j++)
            if (!s->values[one->prefix[j]].live) one->max = j;
        if (one->max > one->n && !s->values[one->rest].live) one->max = one->n;
    }
}

static void find_required(shapes *s)
{
    for (size_t i = 0; i < s->n; i++) {
        shape *one = &s->all[i];
        uint32_t until = one->n;
        if (one->kind != SHAPE_OBJECT) continue;
        for (uint32_t j = one->n; j-- > 0;) {
            if (one->properties[j].required) until = j + 1;
            one->properties[j].until = until;
        }
    }
}

weft_status shapes_finish(shapes *s)
{
    for (uint32_t i = 0; i < s->n_values && !s->status; i++) expand(s, i);
    if (s->status) return s->status;
    find_living(s);
    shorten_arrays(s);
    find_required(s);
    return WEFT_OK;
}
