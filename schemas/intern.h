/* Numbers for sequences of words: equal sequences get equal numbers, 0, 1, 2, ... in order of
 * arrival. The whole grammar compiler rests on it: values, shapes, item sets and results are all
 * recognised by what they hold. Also the growing word array that such sequences are written into.
 */
#ifndef WEFT_SCHEMAS_INTERN_H
#define WEFT_SCHEMAS_INTERN_H

#include "base/base.h"

/* As weft_buffer: a failed allocation sticks and turns appends into no-ops. */
typedef struct words {
    uint64_t *at;
    size_t n, capacity;
    bool failed;
} words;

void words_add(words *w, uint64_t word);
void words_append(words *w, const uint64_t *from, size_t n);
void words_sort_unique(words *w);
void words_free(words *w);

typedef struct intern {
    words pool;
    struct interned {
        size_t offset, n;
        uint64_t hash;
    } * entries;
    size_t n, capacity;
    uint32_t *slots; /* [n_slots] entry + 1, open addressing, at most half full */
    size_t n_slots;
} intern;

#define INTERN_FAILED UINT32_MAX

/* The number of a sequence; INTERN_FAILED without memory. *fresh (may be NULL): it is new. */
uint32_t intern_put(intern *t, const uint64_t *at, size_t n, bool *fresh);
/* The sequence of a number; valid until the next intern_put. */
const uint64_t *intern_get(const intern *t, uint32_t number, size_t *n);
void intern_free(intern *t);

#endif
