/* How forced text is spelt.
 *
 * After {" a call must go on with name": and only then is there a choice; yet a dozen sequences of
 * tokens write it. The one that the tokenizer writes is what the model was trained on and what it
 * would choose, so it alone is allowed, and a token without a choice need not be sampled: it is
 * evaluated with the next one that is (jump-ahead).
 *
 * The rule looks at the state alone, so that a resumed turn, a replay and a batch see the same:
 * a token is the spelling if it is the first of the forced text's own tokenisation, leaves at least
 * a byte of it, and stays the first whichever byte follows the forced text, together with what that
 * byte makes forced. So it ends before anything that could still merge with what the model chooses.
 * All texts stay possible, and that the rest can be written is known: the tokenisation writes it. */
#include "engine/mask.h"

#include <stdlib.h>
#include <string.h>

/* Bytes looked ahead, and behind the choice that ends them; longer than the tokens it is about. */
enum { FORCED_MAX = 96, BEHIND_MAX = 32 };

typedef struct speller {
    const weft_tokenizer *tokenizer;
    const int32_t *sigil; /* [n_sigil] */
    size_t n_sigil;
} speller;

/* The id that a byte stands for by itself; -1: it is an ordinary byte. */
static int32_t sigil_at(const speller *s, char byte)
{
    size_t first = 256 - s->n_sigil, at = (uint8_t)byte;
    return s->sigil && at >= first ? s->sigil[at - first] : -1;
}

/* The first token of the text's tokenisation, or -1 if that does not write the whole text up to a
 * sigil: there a token ends in any case. */
static weft_status first_token(const speller *s, weft_text text, int32_t *out_id, weft_error *err)
{
    int32_t *ids = NULL;
    size_t n = 0, at = 0, end = 0;
    while (end < text.size && sigil_at(s, text.data[end]) < 0) end++;
    *out_id = text.size && end == 0 ? sigil_at(s, text.data[0]) : -1;
    if (end == 0) return WEFT_OK;
    text.size = end;
    weft_status status = weft_tokenizer_encode_on(s->tokenizer, text, &ids, &n, err);
    if (status) return status;
    for (size_t i = 0; i < n; i++) {
        weft_text bytes = weft_tokenizer_bytes(s->tokenizer, ids[i], false);
        bool writes = bytes.size <= text.size - at &&
                      memcmp(bytes.data, text.data + at, bytes.size) == 0;
        if (!writes) break;
        at += bytes.size;
    }
    if (n && at == text.size) *out_id = ids[0];
    free(ids);
    return WEFT_OK;
}

static weft_status find_spelling(weft_masker *masker, const speller *s, const void *state,
                                 int32_t *out_id, weft_error *err)
{
    char text[FORCED_MAX + BEHIND_MAX];
    int32_t id = -1, other;
    *out_id = -1;
    size_t n = weft_masker_forced_text(masker, state, text, 0, FORCED_MAX);
    if (n == SIZE_MAX) return weft_fail(err, WEFT_E_MEMORY, "spell a call: out of memory");
    if (n < 2) return WEFT_OK;
    weft_status status = first_token(s, (weft_text){text, n}, &id, err);
    if (status || id < 0 || weft_tokenizer_bytes(s->tokenizer, id, false).size >= n) return status;
    for (unsigned byte = 0; byte < 256 && !status; byte++) {
        text[n] = (char)byte;
        size_t all = weft_masker_forced_text(masker, state, text, n + 1, n + BEHIND_MAX);
        if (all == SIZE_MAX) return weft_fail(err, WEFT_E_MEMORY, "spell a call: out of memory");
        if (all == 0) continue;
        status = first_token(s, (weft_text){text, all}, &other, err);
        if (!status && other != id) return WEFT_OK;
    }
    if (!status) *out_id = id;
    return status;
}

/* Where a long text is forced and then anything may follow, hundreds of tokenisations are compared: what came
 * of it is kept with the state. */
weft_status weft_masker_spelling(weft_masker *masker, const weft_tokenizer *tokenizer,
                                 const int32_t *sigil, size_t n_sigil, const void *state,
                                 int32_t *out_id, weft_error *err)
{
    const speller s = {tokenizer, sigil, n_sigil};
    int32_t *known = weft_masker_spelt(masker, state);
    weft_status status = WEFT_OK;
    if (known && *known != WEFT_UNSPELT) {
        *out_id = *known;
        return WEFT_OK;
    }
    if (known) status = find_spelling(masker, &s, state, out_id, err);
    known = status ? known : weft_masker_spelt(masker, state);
    if (!known) return weft_fail(err, WEFT_E_MEMORY, "spell a call: out of memory");
    if (!status) *known = *out_id;
    return status;
}
