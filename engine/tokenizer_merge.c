/* Merging, for BPE and SentencePiece alike: join the best pair of neighbours until none is left.
 *
 * The two differ in what makes a pair and how good it is: a merge rule and its rank, or a token's text
 * and its score. Both give (priority, merged id); candidates wait in a binary heap ordered by
 * (priority, leftmost). A candidate is out of date if one of its symbols has since been merged: then
 * their sizes no longer add up, and it is dropped when it comes up. So a word of n symbols takes at
 * most 3 n pushes, O(n log n): a megabyte of one letter takes half a second, not hours.
 */
#include "engine/tokenizer_parts.h"

#include <stdlib.h>
#include <string.h>

weft_status token_emit(token_work *w, int32_t id, size_t from)
{
    if (w->n == w->capacity) {
        size_t capacity = w->capacity ? w->capacity * 2 : 256;
        int32_t *ids = realloc(w->id, capacity * sizeof *ids);
        if (ids) w->id = ids;
        size_t *froms = ids ? realloc(w->from, capacity * sizeof *froms) : NULL;
        if (froms) w->from = froms;
        if (!froms) return weft_fail(w->err, WEFT_E_MEMORY, "encode %zu tokens", capacity);
        w->capacity = capacity;
    }
    w->id[w->n] = id;
    w->from[w->n++] = from;
    return WEFT_OK;
}

weft_status token_reserve_symbols(token_work *w, size_t n)
{
    if (n <= w->symbol_capacity) return WEFT_OK;
    size_t capacity = w->symbol_capacity ? w->symbol_capacity : 64;
    while (capacity < n) capacity *= 2;
    token_symbol *symbol = realloc(w->symbol, capacity * sizeof *symbol);
    if (!symbol) return weft_fail(w->err, WEFT_E_MEMORY, "encode a word of %zu bytes", n);
    w->symbol = symbol;
    w->symbol_capacity = capacity;
    return WEFT_OK;
}

/* ---- the heap ---- */

static weft_status heap_push(token_work *w, token_candidate c)
{
    if (w->n_heap == w->heap_capacity) {
        size_t capacity = w->heap_capacity ? w->heap_capacity * 2 : 64;
        token_candidate *heap = realloc(w->heap, capacity * sizeof *heap);
        if (!heap) return weft_fail(w->err, WEFT_E_MEMORY, "merge %zu symbols", capacity);
        w->heap = heap;
        w->heap_capacity = capacity;
    }
    size_t at = w->n_heap++;
    while (at) {
        size_t parent = (at - 1) / 2;
        if (w->heap[parent].key <= c.key) break;
        w->heap[at] = w->heap[parent];
        at = parent;
    }
    w->heap[at] = c;
    return WEFT_OK;
}

static token_candidate heap_pop(token_work *w)
{
    token_candidate top = w->heap[0], last = w->heap[--w->n_heap];
    size_t at = 0;
    for (size_t child; (child = 2 * at + 1) < w->n_heap; at = child) {
        if (child + 1 < w->n_heap && w->heap[child + 1].key < w->heap[child].key) child++;
        if (last.key <= w->heap[child].key) break;
        w->heap[at] = w->heap[child];
    }
    w->heap[at] = last;
    return top;
}

/* ---- merging ---- */

/* Puts the pair (left, right) into the heap if it can be merged. */
static weft_status consider(token_work *w, const weft_tokenizer *t, const char *text, int32_t left,
                            int32_t right)
{
    if (left < 0 || right < 0) return WEFT_OK;
    const token_symbol *l = &w->symbol[left], *r = &w->symbol[right];
    uint32_t priority, size = l->size + r->size;
    int32_t id;
    if (t->is_spm) {
        id = token_table_find(&t->by_bytes, text + l->start, size);
        if (id < 0) return WEFT_OK;
        priority = t->priority[id];
    } else {
        const bpe_pair *pair = bpe_pair_find(t, l->id, r->id);
        if (!pair) return WEFT_OK;
        id = pair->merged;
        priority = pair->rank;
    }
    return heap_push(
        w, (token_candidate){(uint64_t)priority << 32 | (uint32_t)left, (uint32_t)right, size, id});
}

weft_status token_merge(token_work *w, const weft_tokenizer *t, const char *text, size_t n)
{
    weft_status s = WEFT_OK;
    token_symbol *symbol = w->symbol;
    for (size_t i = 0; i < n; i++) {
        symbol[i].prev = (int32_t)i - 1;
        symbol[i].next = i + 1 < n ? (int32_t)i + 1 : -1;
    }
    w->n_heap = 0;
    for (size_t i = 0; i + 1 < n && !s; i++) s = consider(w, t, text, (int32_t)i, (int32_t)i + 1);
    while (w->n_heap && !s) {
        token_candidate c = heap_pop(w);
        int32_t left = (int32_t)(uint32_t)c.key;
        token_symbol *l = &symbol[left], *r = &symbol[c.right];
        if (!l->size || !r->size || l->size + r->size != c.size) continue;
        l->size = c.size;
        l->id = c.id;
        l->next = r->next;
        if (r->next >= 0) symbol[r->next].prev = left;
        r->size = 0;
        s = consider(w, t, text, l->prev, left);
        if (!s) s = consider(w, t, text, left, l->next);
    }
    return s;
}
