/* Sequences of words, numbered (intern.h): one pool, one open-addressing table of hashes. */
#include "schemas/intern.h"

#include <stdlib.h>
#include <string.h>

void words_append(words *w, const uint64_t *from, size_t n)
{
    if (w->failed || !n) return;
    if (n > w->capacity - w->n) {
        size_t wanted = w->capacity ? w->capacity : 16;
        while (wanted - w->n < n) wanted *= 2;
        uint64_t *grown = reallocarray(w->at, wanted, sizeof *grown);
        if (!grown) {
            w->failed = true;
            return;
        }
        w->at = grown;
        w->capacity = wanted;
    }
    memcpy(w->at + w->n, from, n * sizeof *from);
    w->n += n;
}

void words_add(words *w, uint64_t word)
{
    words_append(w, &word, 1);
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

void words_sort_unique(words *w)
{
    if (w->n < 2) return;
    qsort(w->at, w->n, sizeof *w->at, by_value);
    size_t kept = 1;
    for (size_t i = 1; i < w->n; i++)
        if (w->at[i] != w->at[kept - 1]) w->at[kept++] = w->at[i];
    w->n = kept;
}

void words_free(words *w)
{
    free(w->at);
    *w = (words){0};
}

static uint64_t hash_words(const uint64_t *at, size_t n)
{
    uint64_t h = 0x9e3779b97f4a7c15 + n;
    for (size_t i = 0; i < n; i++) {
        h = (h ^ at[i]) * 0xff51afd7ed558ccd;
        h ^= h >> 32;
    }
    return h;
}

static bool grow_slots(intern *t)
{
    size_t n = t->n_slots ? t->n_slots * 2 : 64;
    uint32_t *slots = calloc(n, sizeof *slots);
    if (!slots) return false;
    for (size_t i = 0; i < t->n; i++) {
        size_t at = t->entries[i].hash & (n - 1);
        while (slots[at]) at = (at + 1) & (n - 1);
        slots[at] = (uint32_t)i + 1;
    }
    free(t->slots);
    t->slots = slots;
    t->n_slots = n;
    return true;
}

uint32_t intern_put(intern *t, const uint64_t *at, size_t n, bool *fresh)
{
    uint64_t hash = hash_words(at, n);
    if (fresh) *fresh = false;
    if (t->n * 2 >= t->n_slots && !grow_slots(t)) return INTERN_FAILED;
    size_t slot = hash & (t->n_slots - 1);
    for (; t->slots[slot]; slot = (slot + 1) & (t->n_slots - 1)) {
        const struct interned *e = &t->entries[t->slots[slot] - 1];
        if (e->hash == hash && e->n == n &&
            (!n || memcmp(t->pool.at + e->offset, at, n * sizeof *at) == 0))
            return t->slots[slot] - 1;
    }
    if (t->n == t->capacity) {
        size_t wanted = t->capacity ? t->capacity * 2 : 32;
        struct interned *grown = reallocarray(t->entries, wanted, sizeof *grown);
        if (!grown) return INTERN_FAILED;
        t->entries = grown;
        t->capacity = wanted;
    }
    t->entries[t->n] = (struct interned){t->pool.n, n, hash};
    words_append(&t->pool, at, n);
    if (t->pool.failed) return INTERN_FAILED;
    t->slots[slot] = (uint32_t)++t->n;
    if (fresh) *fresh = true;
    return (uint32_t)t->n - 1;
}

const uint64_t *intern_get(const intern *t, uint32_t number, size_t *n)
{
    *n = t->entries[number].n;
    return t->pool.at + t->entries[number].offset;
}

void intern_free(intern *t)
{
    words_free(&t->pool);
    free(t->entries);
    free(t->slots);
    *t = (intern){0};
}
