/* Text to token ids and back.
 *
 *     spans -> one text -> | special token | fragment | special token | fragment ...
 *                                            fragment -> words -> bytes -> merged tokens   (bpe.c)
 *                                            fragment -> characters -> merged tokens       (spm.c)
 *
 * Trust decides which special tokens match; between them the spans' borders are forgotten, so that a
 * template and the text it holds merge as the model saw them in training.
 *
 * A tokenizer is read-only after it is made: any number of threads may encode with it at once.
 */
#include "engine/tokenizer_parts.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_TEXT_BYTES = 1 << 30 }; /* symbols are counted in 31 bits */

/* ---- life cycle ---- */

/* A short text of the file as a string; "" if the key is not there. */
static weft_status copy_name(const weft_gguf *file, const char *key, char **out, weft_error *err)
{
    weft_text text = {"", 0};
    weft_gguf_text(file, key, &text);
    *out = strndup(text.data, text.size < 256 ? text.size : 256);
    return *out ? WEFT_OK : weft_fail(err, WEFT_E_MEMORY, "read %s", key);
}

static weft_status load(weft_tokenizer *t, const weft_gguf *file, weft_error *err)
{
    weft_status s = copy_name(file, "tokenizer.ggml.model", &t->model, err);
    if (!s) s = copy_name(file, "tokenizer.ggml.pre", &t->pre, err);
    if (s) return s;
    t->is_spm = !strcmp(t->model, "llama");
    if (!t->is_spm && strcmp(t->model, "gpt2") != 0)
        return weft_fail(
            err, WEFT_E_MODEL,
            "tokenizer.ggml.model is \"%.64s\", which weft does not know; it reads gpt2 "
            "(byte-level BPE) and llama (SentencePiece BPE)",
            t->model);
    s = token_vocab_load(t, file, err);
    if (!s) s = t->is_spm ? spm_load(t, file, err) : bpe_load(t, file, err);
    if (!s) s = token_special_build(t, err);
    weft_gguf_bool(file, "tokenizer.ggml.add_bos_token", &t->adds_bos);
    t->adds_bos = t->adds_bos && t->bos >= 0;
    return s;
}

weft_status weft_tokenizer_new(weft_tokenizer **out, const weft_gguf *file, weft_error *err)
{
    weft_tokenizer *t = calloc(1, sizeof *t);
    if (!t) return weft_fail(err, WEFT_E_MEMORY, "read the tokenizer");
    weft_status s = load(t, file, err);
    if (s)
        weft_tokenizer_free(t);
    else
        *out = t;
    return s;
}

void weft_tokenizer_free(weft_tokenizer *t)
{
    if (!t) return;
    pretokenizer_free(t->split);
    free(t->model);
    free(t->pre);
    free(t->stored);
    free(t->bytes);
    free(t->kind);
    free(t->flags);
    free(t->pool);
    free(t->by_stored.slot);
    free(t->by_bytes.slot);
    free(t->special);
    free(t->pair);
    free(t->priority);
    free(t);
}

/* ---- the text to encode ---- */

/* The spans as one text. For SentencePiece U+2581 is read as a space: then `origin` says where each
 * byte came from (NULL: it is the same place). */
typedef struct input {
    const char *text;
    size_t size;
    char *owned;
    size_t *origin; /* [size + 1] */
    /* Per span: its end in text, and how far from its start trust reaches without a break. */
    size_t n;
    size_t *end, *trusted_end, *plain_end;
} input;

static void input_free(input *in)
{
    free(in->owned);
    free(in->origin);
    free(in->end);
}

static weft_status join_spans(input *in, const weft_span *spans, size_t n, weft_error *err)
{
    size_t size = 0;
    for (size_t i = 0; i < n; i++)
        if (weft_size_add(size, spans[i].size, &size) || size > MAX_TEXT_BYTES)
            return weft_fail(err, WEFT_E_LIMIT,
                             "encode a text: it is longer than %d bytes; give it in parts",
                             MAX_TEXT_BYTES);
    in->n = n;
    in->size = size;
    in->text = n == 1 ? spans[0].text : "";
    in->end = calloc(3 * (n ? n : 1), sizeof *in->end);
    if (n > 1) in->text = in->owned = malloc(size ? size : 1);
    if (!in->end || (n > 1 && !in->owned))
        return weft_fail(err, WEFT_E_MEMORY, "encode a text of %zu bytes", size);
    in->trusted_end = in->end + n;
    in->plain_end = in->trusted_end + n;
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        if (n > 1 && spans[i].size) memcpy(in->owned + at, spans[i].text, spans[i].size);
        in->end[i] = at += spans[i].size;
    }
    return WEFT_OK;
}

/* U+2581 -> space. The spans' ends move along; a character belongs to the span it starts in. */
static weft_status normalise(input *in, weft_error *err)
{
    static const char mark[] = "\xe2\x96\x81";
    if (!memmem(in->text, in->size, mark, 3)) return WEFT_OK;
    size_t n = 0, span = 0;
    char *text = malloc(in->size);
    in->origin = malloc((in->size + 1) * sizeof *in->origin);
    if (!text || !in->origin) {
        free(text);
        return weft_fail(err, WEFT_E_MEMORY, "encode a text of %zu bytes", in->size);
    }
    for (size_t at = 0; at < in->size;) {
        while (span < in->n && at >= in->end[span]) in->end[span++] = n;
        bool is_mark = in->size - at >= 3 && !memcmp(in->text + at, mark, 3);
        in->origin[n] = at;
        text[n++] = is_mark ? ' ' : in->text[at];
        at += is_mark ? 3 : 1;
    }
    while (span < in->n) in->end[span++] = n;
    in->origin[n] = in->size;
    free(in->owned);
    in->text = in->owned = text;
    in->size = n;
    return WEFT_OK;
}

/* How far bytes of at least this trust reach from span i's start, given how far from the next one's;
 * 0: span i itself has less. */
static size_t reach(const input *in, const weft_span *spans, size_t i, weft_trust least,
                    const size_t *ends)
{
    if (spans[i].trust > least) return 0;
    bool goes_on = i + 1 < in->n && spans[i + 1].trust <= least;
    return goes_on ? ends[i + 1] : in->end[i];
}

static void find_trust(input *in, const weft_span *spans)
{
    _Static_assert(WEFT_TRUSTED < WEFT_PLAIN && WEFT_PLAIN < WEFT_FOREIGN, "ordered by trust");
    for (size_t i = in->n; i--;) {
        in->trusted_end[i] = reach(in, spans, i, WEFT_TRUSTED, in->trusted_end);
        in->plain_end[i] = reach(in, spans, i, WEFT_PLAIN, in->plain_end);
    }
}

static weft_status input_new(input *in, const weft_tokenizer *t, const weft_span *spans, size_t n,
                             weft_error *err)
{
    weft_status s = join_spans(in, spans, n, err);
    if (!s && t->is_spm) s = normalise(in, err);
    if (!s) find_trust(in, spans);
    return s;
}

/* ---- encoding ---- */

static weft_status encode_fragment(token_work *w, const weft_tokenizer *t, const input *in,
                                   size_t from, size_t to, bool after_special)
{
    if (from == to) return WEFT_OK;
    if (t->is_spm) return spm_encode(w, t, in->text + from, to - from, from, after_special);
    return bpe_encode(w, t, in->text + from, to - from, from);
}

static weft_status encode(token_work *w, const weft_tokenizer *t, const input *in)
{
    weft_status s = WEFT_OK;
    size_t from = 0, span = 0; /* from: the fragment's start */
    bool after_special = true; /* the start counts as one */
    for (size_t at = 0; at < in->size && !s;) {
        unsigned char b = (unsigned char)in->text[at];
        if (t->first[b] == t->first[b + 1]) { /* no token begins so: the common case */
            at++;
            continue;
        }
        while (at >= in->end[span]) span++;
        int32_t id = token_special_match(t, in->text, in->size, at, in->trusted_end[span],
                                         in->plain_end[span]);
        if (id < 0) {
            at++;
            continue;
        }
        s = encode_fragment(w, t, in, from, at, after_special);
        if (!s) s = token_emit(w, id, at);
        after_special = true;
        at += t->bytes[id].size;
        from = at;
    }
    if (!s) s = encode_fragment(w, t, in, from, in->size, after_special);
    return s;
}

/* No token: still two arrays to free. */
static weft_status reserve_nothing(token_work *w)
{
    weft_status s = token_emit(w, 0, 0);
    w->n = 0;
    return s;
}

static void work_free(token_work *w)
{
    free(w->symbol);
    free(w->heap);
    free(w->id);
    free(w->from);
}

weft_status weft_tokenizer_encode(const weft_tokenizer *t, const weft_span *spans, size_t n_spans,
                                  int32_t **out_ids, size_t **out_from, size_t *out_n,
                                  weft_error *err)
{
    token_work w = {.err = err};
    input in = {0};
    weft_status s = input_new(&in, t, spans, n_spans, err);
    if (!s) s = encode(&w, t, &in);
    if (!s && !w.id) s = reserve_nothing(&w);
    if (!s) {
        if (in.origin)
            for (size_t i = 0; i < w.n; i++) w.from[i] = in.origin[w.from[i]];
        *out_ids = w.id;
        *out_n = w.n;
        w.id = NULL;
        if (out_from) {
            *out_from = w.from;
            w.from = NULL;
        }
    }
    work_free(&w);
    input_free(&in);
    return s;
}

weft_status weft_tokenizer_encode_on(const weft_tokenizer *t, weft_text text, int32_t **out_ids,
                                     size_t *out_n, weft_error *err)
{
    token_work w = {.err = err};
    const input in = {.text = text.data, .size = text.size};
    weft_status s = encode_fragment(&w, t, &in, 0, text.size, false);
    if (!s && !w.id) s = reserve_nothing(&w);
    if (!s) {
        *out_ids = w.id;
        *out_n = w.n;
        w.id = NULL;
    }
    work_free(&w);
    return s;
}

/* ---- facts about tokens ---- */

static bool is_token(const weft_tokenizer *t, int32_t id)
{
    return id >= 0 && (size_t)id < t->n;
}

size_t weft_tokenizer_size(const weft_tokenizer *t)
{
    return t->n;
}

weft_text weft_tokenizer_bytes(const weft_tokenizer *t, int32_t id, bool with_control)
{
    if (!is_token(t, id)) return (weft_text){"", 0};
    bool shown = t->kind[id] == WEFT_TOKEN_NORMAL || t->kind[id] == WEFT_TOKEN_USER ||
                 t->kind[id] == WEFT_TOKEN_BYTE;
    return shown || with_control ? t->bytes[id] : (weft_text){"", 0};
}

weft_token_kind weft_tokenizer_kind(const weft_tokenizer *t, int32_t id)
{
    return is_token(t, id) ? (weft_token_kind)t->kind[id] : WEFT_TOKEN_UNUSED;
}

int32_t weft_tokenizer_find(const weft_tokenizer *t, const char *text)
{
    return token_table_find(&t->by_stored, text, strlen(text));
}

int32_t weft_tokenizer_bos(const weft_tokenizer *t)
{
    return t->bos;
}

int32_t weft_tokenizer_eos(const weft_tokenizer *t)
{
    return t->eos;
}

bool weft_tokenizer_adds_bos(const weft_tokenizer *t)
{
    return t->adds_bos;
}

bool weft_tokenizer_is_end(const weft_tokenizer *t, int32_t id)
{
    return is_token(t, id) && (t->flags[id] & TOKEN_END);
}

const char *weft_tokenizer_model(const weft_tokenizer *t)
{
    return t->model;
}

const char *weft_tokenizer_pre(const weft_tokenizer *t)
{
    return t->pre;
}

size_t weft_tokenizer_missing_bytes(const weft_tokenizer *t)
{
    return t->missing_bytes;
}
