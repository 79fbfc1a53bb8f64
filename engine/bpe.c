/* Byte-level BPE: a word's bytes are its first symbols, merge rules join them.
 *
 * A rule is kept as (id, id) -> (rank, id) in an open-addressed table of 16-byte slots, 4 MB for
 * 151,387 rules; the texts are looked up once, at load. Rules whose parts or result are not mergeable
 * (tokenizer_parts.h) are left out.
 */
#include "engine/tokenizer_parts.h"

#include <stdlib.h>
#include <string.h>

static uint32_t hash_pair(uint64_t seed, int32_t left, int32_t right)
{
    uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) ^ seed;
    h *= UINT64_C(0xff51afd7ed558ccd);
    h ^= h >> 33;
    h *= UINT64_C(0xc4ceb9fe1a85ec53);
    return (uint32_t)(h >> 32);
}

const bpe_pair *bpe_pair_find(const weft_tokenizer *t, int32_t left, int32_t right)
{
    if (left < 0 || right < 0) return NULL;
    for (uint32_t at = hash_pair(t->pair_seed, left, right);; at++) {
        const bpe_pair *pair = &t->pair[at & t->pair_mask];
        if (pair->left == left && pair->right == right) return pair;
        if (pair->left < 0) return NULL;
    }
}

/* The first rule for a pair counts. */
static void add_pair(weft_tokenizer *t, bpe_pair new)
{
    uint32_t at = hash_pair(t->pair_seed, new.left, new.right);
    for (;; at++) {
        bpe_pair *pair = &t->pair[at & t->pair_mask];
        if (pair->left == new.left && pair->right == new.right) return;
        if (pair->left >= 0) continue;
        *pair = new;
        return;
    }
}

static bool is_mergeable(const weft_tokenizer *t, int32_t id)
{
    return id >= 0 && (t->flags[id] & TOKEN_MERGEABLE);
}

/* "left right": the space between is the first one after the first character. */
static weft_status add_rule(weft_tokenizer *t, weft_text rule, size_t rank, weft_buffer *joined,
                            weft_error *err)
{
    const char *space = rule.size > 2 ? memchr(rule.data + 1, ' ', rule.size - 2) : NULL;
    if (!space)
        return weft_fail(err, WEFT_E_MODEL,
                         "read the merge rules: rule %zu is not two texts; the file is damaged",
                         rank);
    size_t left_size = (size_t)(space - rule.data), right_size = rule.size - left_size - 1;
    weft_buffer_clear(joined);
    weft_buffer_append(joined, rule.data, left_size);
    weft_buffer_append(joined, space + 1, right_size);
    if (joined->failed) return weft_fail(err, WEFT_E_MEMORY, "read the merge rules");
    int32_t left = token_table_find(&t->by_stored, rule.data, left_size);
    int32_t right = token_table_find(&t->by_stored, space + 1, right_size);
    int32_t merged = token_table_find(&t->by_stored, joined->data, joined->size);
    if (left < 0 || right < 0 || merged < 0)
        return weft_fail(
            err, WEFT_E_MODEL,
            "read the merge rules: rule %zu names a text that is no token; the file is "
            "damaged",
            rank);
    if (is_mergeable(t, left) && is_mergeable(t, right) && is_mergeable(t, merged))
        add_pair(t, (bpe_pair){left, right, (uint32_t)rank, merged});
    return WEFT_OK;
}

static weft_status load_rules(weft_tokenizer *t, const weft_gguf *file, weft_error *err)
{
    static const char merges[] = "tokenizer.ggml.merges";
    weft_status s = WEFT_OK;
    weft_buffer joined = WEFT_BUFFER_INIT;
    size_t n = weft_gguf_array(file, merges), slots = 16;
    if (!n || n >= INT32_MAX)
        return weft_fail(
            err, WEFT_E_MODEL,
            "read the merge rules: the file has %s; take one made by a current converter",
            n ? "too many" : "no tokenizer.ggml.merges");
    while (slots < n + n / 2) slots *= 2;
    t->pair = malloc(slots * sizeof *t->pair);
    if (!t->pair) return weft_fail(err, WEFT_E_MEMORY, "read the merge rules");
    memset(t->pair, 0xff, slots * sizeof *t->pair); /* left -1 everywhere */
    t->pair_mask = (uint32_t)(slots - 1);
    weft_random(&t->pair_seed, sizeof t->pair_seed);
    for (size_t i = 0; i < n && !s; i++) {
        weft_text rule;
        if (!weft_gguf_array_text(file, merges, i, &rule))
            s = weft_fail(err, WEFT_E_MODEL, "read the merge rules: they are no texts");
        else
            s = add_rule(t, rule, i, &joined, err);
    }
    weft_buffer_free(&joined);
    return s;
}

static void load_single_bytes(weft_tokenizer *t)
{
    memset(t->byte_id, 0xff, sizeof t->byte_id);
    for (size_t id = 0; id < t->n; id++) {
        size_t length;
        const weft_text *stored = &t->stored[id];
        if (!is_mergeable(t, (int32_t)id) || t->bytes[id].size != 1) continue;
        int byte = token_alphabet_byte(stored->data, stored->size, &length);
        if (byte >= 0) t->byte_id[byte] = (int32_t)id;
    }
    for (size_t b = 0; b < 256; b++) t->missing_bytes += t->byte_id[b] < 0;
}

weft_status bpe_load(weft_tokenizer *t, const weft_gguf *file, weft_error *err)
{
    weft_status s = pretokenizer_new(&t->split, t->pre, err);
    if (s) return s;
    t->whole_words = pretokenizer_whole_words(t->split);
    t->adds_bos = pretokenizer_adds_bos(t->split);
    load_single_bytes(t);
    s = load_rules(t, file, err);
    if (!s && t->whole_words)
        s = token_table_build(&t->by_bytes, t->bytes, t->flags, TOKEN_MERGEABLE, t->n, err);
    return s;
}

/* ---- encoding ---- */

typedef struct bpe_call {
    token_work *w;
    const weft_tokenizer *t;
    const char *text; /* of the whole fragment */
    size_t base;
} bpe_call;

static weft_status encode_word(void *context, const char *word, size_t size)
{
    const bpe_call *c = context;
    token_work *w = c->w;
    size_t base = c->base + (size_t)(word - c->text);
    if (c->t->whole_words) {
        int32_t id = token_table_find(&c->t->by_bytes, word, size);
        if (id >= 0) return token_emit(w, id, base);
    }
    weft_status s = token_reserve_symbols(w, size);
    if (s) return s;
    for (size_t i = 0; i < size; i++)
        w->symbol[i] =
            (token_symbol){(uint32_t)i, 1, -1, -1, c->t->byte_id[(unsigned char)word[i]]};
    s = token_merge(w, c->t, word, size);
    for (int32_t i = 0; i >= 0 && !s; i = w->symbol[i].next)
        if (w->symbol[i].id >= 0) s = token_emit(w, w->symbol[i].id, base + w->symbol[i].start);
    return s;
}

weft_status bpe_encode(token_work *w, const weft_tokenizer *t, const char *text, size_t size,
                       size_t base)
{
    bpe_call c = {w, t, text, base};
    return pretokenizer_split(t->split, text, size, encode_word, &c, w->err);
}
