/* The vocabulary trie and its construction.
 *
 * Nodes lie in preorder, so that a walk reads memory forwards; a node knows where the next node outside its
 * subtree is, which is all that a walk needs to leave out what cannot follow. 151,936 tokens of Qwen2.5 make
 * 12 bytes times some 400,000 nodes. Tokens of equal bytes hang on the first of them. */
#include "engine/mask_trie.h"

#include <stdlib.h>
#include <string.h>

typedef struct entry {
    weft_text bytes;
    int32_t id;
} entry;

static int by_bytes(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    size_t n = x->bytes.size < y->bytes.size ? x->bytes.size : y->bytes.size;
    int order = memcmp(x->bytes.data, y->bytes.data, n);
    if (order) return order;
    if (x->bytes.size != y->bytes.size) return x->bytes.size < y->bytes.size ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

static bool is_skipped(const weft_tokenizer *tokenizer, int32_t id, const int32_t *skip, size_t n_skip)
{
    weft_token_kind kind = weft_tokenizer_kind(tokenizer, id);
    if (kind != WEFT_TOKEN_NORMAL && kind != WEFT_TOKEN_USER && kind != WEFT_TOKEN_BYTE) return true;
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

/* Fills the nodes from the sorted entries; path[d] is the open node at depth d. */
static void fill(weft_trie *trie, const entry *list, size_t n)
{
    uint32_t path[WEFT_TRIE_DEPTH];
    size_t open = 0;
    for (size_t i = 0; i < n; i++) {
        weft_text bytes = list[i].bytes;
        size_t shared = i ? common(list[i - 1].bytes, bytes) : 0;
        if (i && shared == bytes.size) { /* the same bytes again */
            trie->twin[list[i].id] = trie->node[path[open - 1]].token;
            trie->node[path[open - 1]].token = list[i].id;
            continue;
        }
        while (open > shared) trie->node[path[--open]].next = (uint32_t)trie->n;
        for (; open < bytes.size; open++) {
            path[open] = (uint32_t)trie->n;
            trie->node[trie->n++] =
                (weft_trie_node){0, -1, (uint16_t)open, (uint8_t)bytes.data[open]};
        }
        trie->node[path[open - 1]].token = list[i].id;
    }
    while (open > 0) trie->node[path[--open]].next = (uint32_t)trie->n;
}

weft_status weft_trie_new(weft_trie **out, const weft_tokenizer *tokenizer, const int32_t *skip,
                          size_t n_skip, weft_error *err)
{
    size_t n_vocab = weft_tokenizer_size(tokenizer), n = 0, nodes = 0;
    weft_status status = WEFT_E_MEMORY;
    weft_trie *trie = calloc(1, sizeof *trie);
    entry *list = calloc(n_vocab ? n_vocab : 1, sizeof *list);
    if (!trie || !list) goto done;
    trie->n_vocab = n_vocab;
    trie->twin = malloc((n_vocab ? n_vocab : 1) * sizeof *trie->twin);
    if (!trie->twin) goto done;
    for (size_t i = 0; i < n_vocab; i++) {
        trie->twin[i] = WEFT_TRIE_LEFT_OUT;
        if (is_skipped(tokenizer, (int32_t)i, skip, n_skip)) continue;
        trie->twin[i] = -1;
        list[n++] = (entry){weft_tokenizer_bytes(tokenizer, (int32_t)i, false), (int32_t)i};
    }
    qsort(list, n, sizeof *list, by_bytes);
    for (size_t i = 0; i < n; i++)
        nodes += list[i].bytes.size - (i ? common(list[i - 1].bytes, list[i].bytes) : 0);
    if (nodes >= UINT32_MAX) {
        status = WEFT_E_MODEL;
        goto done;
    }
    trie->node = malloc((nodes ? nodes : 1) * sizeof *trie->node);
    if (!trie->node) goto done;
    fill(trie, list, n);
    *out = trie;
    trie = NULL;
    status = WEFT_OK;
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
    free(trie->node);
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
    return trie->n;
}
