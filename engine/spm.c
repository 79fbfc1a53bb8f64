/* SentencePiece BPE: a text's characters are its first symbols, and two neighbours join if their text
 * is a token, the best score first. A character that is no token is written byte by byte.
 *
 * There are no words. But hardly any token has a space behind another character (Gemma one, "> </",
 * Llama none), and nothing can merge across a place where no token has such a pair: there the text is
 * cut. The ids stay the same and merging becomes local: 9 MB/s instead of 1.7 on prose and code with
 * Llama's vocabulary.
 *
 * Unigram files (tokenizer model "t5") are refused by name: none of the architectures has one.
 */
#include "engine/tokenizer_parts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Scores in an order of unsigned integers: the largest score becomes the smallest number. */
static uint32_t priority_of(float score)
{
    uint32_t bits;
    score += 0.0f; /* -0 is 0 */
    memcpy(&bits, &score, sizeof bits);
    bits = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return ~bits;
}

static weft_status load_scores(weft_tokenizer *t, const weft_gguf *file, weft_error *err)
{
    static const char scores[] = "tokenizer.ggml.scores";
    size_t n = weft_gguf_array(file, scores);
    if (n != t->n)
        return weft_fail(err, WEFT_E_MODEL,
                         "read the vocabulary: %zu tokens but %zu scores; the file is damaged",
                         t->n, n);
    t->priority = malloc(t->n * sizeof *t->priority);
    if (!t->priority) return weft_fail(err, WEFT_E_MEMORY, "read the vocabulary");
    for (size_t id = 0; id < t->n; id++) {
        double score;
        if (!weft_gguf_array_float(file, scores, id, &score) || isnan(score))
            return weft_fail(
                err, WEFT_E_MODEL,
                "read the vocabulary: the score of token %zu is no number; the file is "
                "damaged",
                id);
        t->priority[id] = priority_of((float)score);
    }
    return WEFT_OK;
}

static void load_cuts(weft_tokenizer *t)
{
    for (size_t id = 0; id < t->n; id++) {
        const weft_text *bytes = &t->bytes[id];
        if (!(t->flags[id] & TOKEN_MERGEABLE)) continue;
        for (size_t i = 1; i < bytes->size; i++)
            if (bytes->data[i] == ' ') t->before_space[(unsigned char)bytes->data[i - 1]] = true;
    }
    t->before_space[' '] = true; /* a run of spaces is never cut */
}

static void load_single_bytes(weft_tokenizer *t)
{
    memset(t->byte_id, 0xff, sizeof t->byte_id);
    for (size_t id = 0; id < t->n; id++)
        if (t->kind[id] == WEFT_TOKEN_BYTE)
            t->byte_id[(unsigned char)*t->bytes[id].data] = (int32_t)id;
    for (size_t b = 0; b < 256; b++) {
        char c = (char)b;
        bool is_token = b < 128 && token_table_find(&t->by_bytes, &c, 1) >= 0;
        t->missing_bytes += t->byte_id[b] < 0 && !is_token;
    }
}

weft_status spm_load(weft_tokenizer *t, const weft_gguf *file, weft_error *err)
{
    weft_status s = load_scores(t, file, err);
    if (!s) s = token_table_build(&t->by_bytes, t->bytes, t->flags, TOKEN_MERGEABLE, t->n, err);
    if (s) return s;
    load_single_bytes(t);
    t->adds_bos = true;
    t->space_prefix = true;
    weft_gguf_bool(file, "tokenizer.ggml.add_space_prefix", &t->space_prefix);
    load_cuts(t);
    return WEFT_OK;
}

/* ---- encoding ---- */

/* Text at byte `base` of the whole, whose first `shift` bytes (0 or 1) are not in it. */
typedef struct spm_place {
    size_t base, shift;
} spm_place;

static size_t origin(spm_place place, size_t at)
{
    return place.base + (at > place.shift ? at - place.shift : 0);
}

static weft_status emit_symbol(token_work *w, const weft_tokenizer *t, const char *text,
                               const token_symbol *symbol, spm_place place, size_t at)
{
    if (symbol->id >= 0) return token_emit(w, symbol->id, origin(place, at + symbol->start));
    weft_status s = WEFT_OK;
    for (uint32_t i = 0; i < symbol->size && !s; i++) {
        int32_t id = t->byte_id[(unsigned char)text[symbol->start + i]];
        if (id >= 0) s = token_emit(w, id, origin(place, at + symbol->start + i));
    }
    return s;
}

/* One stretch that nothing merges out of, at byte `at` of the placed text. */
static weft_status encode_stretch(token_work *w, const weft_tokenizer *t, const char *text,
                                  size_t size, spm_place place, size_t at)
{
    size_t n = 0;
    weft_status s = token_reserve_symbols(w, size);
    if (s) return s;
    for (size_t i = 0; i < size; n++) {
        size_t length = token_utf8_length(text + i, size - i);
        if (!length) length = 1; /* a malformed byte is a symbol of its own */
        w->symbol[n] = (token_symbol){(uint32_t)i, (uint32_t)length, -1, -1,
                                      token_table_find(&t->by_bytes, text + i, length)};
        i += length;
    }
    s = token_merge(w, t, text, n);
    for (int32_t i = 0; i >= 0 && !s; i = w->symbol[i].next)
        s = emit_symbol(w, t, text, &w->symbol[i], place, at);
    return s;
}

static weft_status encode_placed(token_work *w, const weft_tokenizer *t, const char *text,
                                 size_t size, spm_place place)
{
    weft_status s = WEFT_OK;
    for (size_t from = 0, to; from < size && !s; from = to) {
        to = from + 1;
        while (to < size && !(text[to] == ' ' && !t->before_space[(unsigned char)text[to - 1]]))
            to++;
        s = encode_stretch(w, t, text + from, to - from, place, from);
    }
    return s;
}

weft_status spm_encode(token_work *w, const weft_tokenizer *t, const char *text, size_t size,
                       size_t base, bool prefix)
{
    if (!prefix || !t->space_prefix) return encode_placed(w, t, text, size, (spm_place){base, 0});
    char *prefixed = malloc(size + 1);
    if (!prefixed) return weft_fail(w->err, WEFT_E_MEMORY, "encode a text of %zu bytes", size);
    *prefixed = ' ';
    memcpy(prefixed + 1, text, size);
    weft_status s = encode_placed(w, t, prefixed, size + 1, (spm_place){base, 1});
    free(prefixed);
    return s;
}
