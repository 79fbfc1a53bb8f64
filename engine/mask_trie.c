/* The vocabulary trie and its construction.
 *
 * Nodes lie in preorder, so that a walk reads memory forwards; a node knows where the next node
 * outside its subtree is, which is all that a walk needs to leave out what cannot follow. 151,936
 * tokens of Qwen2.5 make 333,009 nodes of 12 bytes. Tokens of equal bytes hang on one another. Nine
 * of ten tokens are *plain*: whole characters that may stand in a JSON string as they are, but for '<',
 * which may begin the end of a DSML text. Where a state takes every such character alike, they need no
 * walk, and what is left has a trie of its own. */
#include "engine/mask_trie.h"

#include <stdlib.h>
#include <string.h>

typedef struct entry {
    uint64_t head; /* the first eight bytes as a number, so that most comparisons read no text */
    const char *data;
    uint32_t size;
    int32_t id;
} entry;

static entry entry_of(const weft_tokenizer *tokenizer, int32_t id)
{
    weft_text bytes = weft_tokenizer_bytes(tokenizer, id, false);
    entry e = {0, bytes.data, (uint32_t)bytes.size, id};
    for (size_t i = 0; i < 8; i++)
        e.head = e.head << 8 | (i < bytes.size ? (uint8_t)bytes.data[i] : 0);
    return e;
}

static weft_text bytes_of(const entry *e)
{
    return (weft_text){e->data, e->size};
}

static int by_bytes(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    if (x->head != y->head) return x->head < y->head ? -1 : 1;
    size_t n = x->size < y->size ? x->size : y->size;
    int order = memcmp(x->data, y->data, n);
    if (order) return order;
    if (x->size != y->size) return x->size < y->size ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

/* Dealt out by the first two bytes, then sorted in each heap: a third of the time of one qsort, which somebody
 * who starts a run waits for. */
static weft_status sort_entries(entry *list, size_t n)
{
    enum { HEAPS = 1 << 16, SHIFT = 64 - 16 };
    uint32_t *end = calloc(HEAPS + 1, sizeof *end);
    entry *dealt = malloc((n + 1) * sizeof *dealt);
    const bool room = end && dealt;
    for (size_t i = 0; room && i < n; i++) end[(list[i].head >> SHIFT) + 1]++;
    for (size_t h = 0; room && h < HEAPS; h++) end[h + 1] += end[h];
    for (size_t i = 0; room && i < n; i++) dealt[end[list[i].head >> SHIFT]++] = list[i];
    for (size_t h = 0, from = 0; room && h < HEAPS; from = end[h++])
        if (end[h] - from > 1) qsort(dealt + from, end[h] - from, sizeof *dealt, by_bytes);
    if (room) memcpy(list, dealt, n * sizeof *list);
    free(dealt);
    free(end);
    return room ? WEFT_OK : WEFT_E_MEMORY;
}

static bool is_skipped(const weft_tokenizer *tokenizer, int32_t id, const int32_t *skip,
                       size_t n_skip)
{
    weft_token_kind kind = weft_tokenizer_kind(tokenizer, id);
    if (kind != WEFT_TOKEN_NORMAL && kind != WEFT_TOKEN_USER && kind != WEFT_TOKEN_BYTE)
        return true;
    for (size_t i = 0; i < n_skip; i++)
        if (skip[i] == id) return true;
    size_t size = weft_tokenizer_bytes(tokenizer, id, false).size;
    return size == 0 || size > WEFT_TRIE_DEPTH;
}

static size_t common(weft_text a, weft_text b)
{
    size_t n = 0;
    while (n < a.size && n < b.size && a.data[n] == b.data[n]) n++;
    return n;
}

/* Whole characters, none of them a quote, a backslash, '<' or a control. */
static bool is_plain(weft_text bytes)
{
    size_t characters = 0;
    uint8_t all = 0;
    for (size_t i = 0; i < bytes.size; i++) {
        uint8_t byte = (uint8_t)bytes.data[i];
        if (byte < 0x20 || byte == '"' || byte == '\\' || byte == '<') return false;
        characters += (byte & 0xc0) != 0x80;
        all |= byte;
    }
    if (all >= 0x80 && weft_utf8_valid(bytes.data, bytes.size) < bytes.size) return false;
    return characters <= WEFT_TRIE_PLAIN;
}

/* A trie of sorted entries; path[d] is the open node at depth d. */
static weft_status build(weft_trie_part *part, int32_t *twin, const entry *list, size_t n)
{
    uint32_t path[WEFT_TRIE_DEPTH];
    size_t open = 0, nodes = 0;
    for (size_t i = 0; i < n; i++)
        nodes += list[i].size - (i ? common(bytes_of(&list[i - 1]), bytes_of(&list[i])) : 0);
    if (nodes >= UINT32_MAX) return WEFT_E_MODEL;
    part->node = malloc((nodes ? nodes : 1) * sizeof *part->node);
    if (!part->node) return WEFT_E_MEMORY;
    for (size_t i = 0; i < n; i++) {
        weft_text bytes = bytes_of(&list[i]);
        size_t shared = i ? common(bytes_of(&list[i - 1]), bytes) : 0;
        if (i && shared == bytes.size) { /* the same bytes again */
            twin[list[i].id] = part->node[path[open - 1]].token;
            part->node[path[open - 1]].token = list[i].id;
            continue;
        }
        while (open > shared) part->node[path[--open]].next = (uint32_t)part->n;
        for (; open < bytes.size; open++) {
            path[open] = (uint32_t)part->n;
            part->node[part->n++] =
                (weft_trie_node){0, -1, (uint16_t)open, (uint8_t)bytes.data[open]};
        }
        part->node[path[open - 1]].token = list[i].id;
    }
    while (open > 0) part->node[path[--open]].next = (uint32_t)part->n;
    return WEFT_OK;
}

weft_status weft_trie_new(weft_trie **out, const weft_tokenizer *tokenizer, const int32_t *skip,
                          size_t n_skip, weft_error *err)
{
    size_t n_vocab = weft_tokenizer_size(tokenizer), n = 0, n_rest = 0;
    weft_status status = WEFT_E_MEMORY;
    weft_trie *trie = calloc(1, sizeof *trie);
    entry *list = calloc(n_vocab + 1, sizeof *list);
    if (!trie || !list) goto done;
    trie->n_vocab = n_vocab;
    trie->twin = malloc((n_vocab + 1) * sizeof *trie->twin);
    trie->plain = calloc(weft_trie_words(trie) + 1, sizeof *trie->plain);
    if (!trie->twin || !trie->plain) goto done;
    for (size_t i = 0; i < n_vocab; i++) {
        trie->twin[i] = WEFT_TRIE_LEFT_OUT;
        if (is_skipped(tokenizer, (int32_t)i, skip, n_skip)) continue;
        trie->twin[i] = -1;
        list[n++] = entry_of(tokenizer, (int32_t)i);
    }
    if ((status = sort_entries(list, n))) goto done;
    if ((status = build(&trie->all, trie->twin, list, n))) goto done;
    for (size_t i = 0; i < n; i++) {
        if (is_plain(bytes_of(&list[i]))) {
            trie->plain[list[i].id / 32] |= UINT32_C(1) << (list[i].id % 32);
        } else {
            list[n_rest++] = list[i];
        }
    }
    if ((status = build(&trie->rest, trie->twin, list, n_rest))) goto done;
    *out = trie;
    trie = NULL;
done:
    free(list);
    weft_trie_free(trie);
    if (status)
        weft_fail(err, status, "index the vocabulary of %zu tokens: %s", n_vocab,
                  weft_status_text(status));
    return status;
}

void weft_trie_free(weft_trie *trie)
{
    if (!trie) return;
    free(trie->all.node);
    free(trie->rest.node);
    free(trie->plain);
    free(trie->twin);
    free(trie);
}

bool weft_trie_has(const weft_trie *trie, int32_t id)
{
    return trie->twin[id] != WEFT_TRIE_LEFT_OUT;
}

size_t weft_trie_words(const weft_trie *trie)
{
    return (trie->n_vocab + 31) / 32;
}

size_t weft_trie_nodes(const weft_trie *trie)
{
    return trie->all.n;
}
