/* Finds control and user-defined tokens in a text, before anything is split or merged.
 *
 * Leftmost, then longest, among those the trust of every covered byte allows: where a run of foreign
 * bytes cuts <|im_end|> in two, nothing matches.
 *
 * The tokens are sorted by text, so those that begin with the bytes read so far are one range of the
 * table; each byte narrows it by two binary searches. No tree: Gemma has 6,414 such tokens, and a
 * byte that begins none is passed over by one look at first[].
 */
#include "engine/tokenizer_parts.h"

#include <stdlib.h>
#include <string.h>

static int compare(const void *a, const void *b, void *context)
{
    const weft_text *bytes = context;
    const weft_text *x = &bytes[*(const int32_t *)a], *y = &bytes[*(const int32_t *)b];
    int order = memcmp(x->data, y->data, x->size < y->size ? x->size : y->size);
    return order ? order : (x->size > y->size) - (x->size < y->size);
}

static bool is_special(const weft_tokenizer *t, size_t id)
{
    return t->bytes[id].size &&
           (t->kind[id] == WEFT_TOKEN_CONTROL || t->kind[id] == WEFT_TOKEN_UNKNOWN ||
            t->kind[id] == WEFT_TOKEN_USER);
}

weft_status token_special_build(weft_tokenizer *t, weft_error *err)
{
    size_t n = 0;
    for (size_t id = 0; id < t->n; id++) n += is_special(t, id);
    t->special = malloc((n ? n : 1) * sizeof *t->special);
    if (!t->special) return weft_fail(err, WEFT_E_MEMORY, "read the vocabulary");
    for (size_t id = 0; id < t->n; id++)
        if (is_special(t, id)) t->special[t->n_special++] = (int32_t)id;
    qsort_r(t->special, n, sizeof *t->special, compare, t->bytes);
    for (size_t i = 0; i < n; i++) t->first[(unsigned char)*t->bytes[t->special[i]].data + 1]++;
    for (size_t b = 0; b < 256; b++) t->first[b + 1] += t->first[b];
    return WEFT_OK;
}

/* The first special in [low, high), all longer than depth, whose byte at depth is at least b. */
static uint32_t bound(const weft_tokenizer *t, uint32_t low, uint32_t high, size_t depth,
                      unsigned b)
{
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if ((unsigned char)t->bytes[t->special[middle]].data[depth] < b)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Where the trusted run must reach for this token to match at all. */
static bool allowed(const weft_tokenizer *t, int32_t id, size_t end, size_t trusted_end,
                    size_t plain_end)
{
    if (t->kind[id] != WEFT_TOKEN_USER) return end <= trusted_end;
    return end <= plain_end || !(t->flags[id] & TOKEN_DELIMITER);
}

int32_t token_special_match(const weft_tokenizer *t, const char *text, size_t size, size_t at,
                            size_t trusted_end, size_t plain_end)
{
    unsigned b = (unsigned char)text[at];
    uint32_t low = t->first[b], high = t->first[b + 1];
    int32_t best = -1;
    for (size_t depth = 1; low < high; depth++) {
        int32_t shortest = t->special[low];
        if (t->bytes[shortest].size == depth) {
            if (allowed(t, shortest, at + depth, trusted_end, plain_end)) best = shortest;
            low++;
            /* Two stored texts may have one plain form; the lower id stays. */
            while (low < high && t->bytes[t->special[low]].size == depth) low++;
        }
        if (at + depth == size) break;
        b = (unsigned char)text[at + depth];
        low = bound(t, low, high, depth, b);
        high = b == 255 ? high : bound(t, low, high, depth, b + 1);
    }
    return best;
}
