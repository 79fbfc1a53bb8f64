/* Text to token ids and back. Private to engine/; the public face is weft_encode/_decode in engine.h.
 *
 * Byte-level BPE with the pre-tokenizer split of the file, and SentencePiece BPE (by scores, with byte
 * fallback). Encoding equals the reference tokenizer's ids on every text. A tokenizer is read-only after
 * it is made: threads may share it.
 *
 * From text that is not trusted no control token ever comes, from foreign text no end of generation and
 * no delimiter either: that is a user-defined token with one of < > [ ] { } | or U+FF5C in it, or any
 * normal token spelled <name>. Runs of spaces and newlines, user-defined in Gemma, are none.
 */
#ifndef WEFT_ENGINE_TOKENIZER_H
#define WEFT_ENGINE_TOKENIZER_H

#include "engine/engine.h"
#include "engine/gguf.h"

typedef struct weft_tokenizer weft_tokenizer;

/* WEFT_E_MODEL names an unknown tokenizer model or pre type. The file must outlive it. */
weft_status weft_tokenizer_new(weft_tokenizer **out, const weft_gguf *file, weft_error *err);
void weft_tokenizer_free(weft_tokenizer *t);

size_t weft_tokenizer_size(const weft_tokenizer *t); /* vocabulary entries */

/* Encodes the concatenation of the spans as one text: merges may cross a span boundary, but a control
 * or user-defined token matches only inside bytes whose trust allows it (engine.h, weft_trust).
 * out_from (may be NULL) receives, per id, the byte offset in the concatenation where it begins.
 * Both arrays are malloc'd. */
weft_status weft_tokenizer_encode(const weft_tokenizer *t, const weft_span *spans, size_t n_spans,
                                  int32_t **out_ids, size_t **out_from, size_t *out_n,
                                  weft_error *err);

/* Ids of text that goes on in the middle of another: no space is put before it and no control or
 * user-defined token matches. Malloc'd. */
weft_status weft_tokenizer_encode_on(const weft_tokenizer *t, weft_text text, int32_t **out_ids,
                                     size_t *out_n, weft_error *err);

/* The bytes an id stands for. Control tokens give their text ("<|im_end|>") if with_control, else
 * nothing. Borrowed for the tokenizer's life. id outside the vocabulary: size 0. */
weft_text weft_tokenizer_bytes(const weft_tokenizer *t, int32_t id, bool with_control);

typedef enum weft_token_kind {
    WEFT_TOKEN_NORMAL = 1,
    WEFT_TOKEN_UNKNOWN = 2,
    WEFT_TOKEN_CONTROL = 3,
    WEFT_TOKEN_USER = 4,
    WEFT_TOKEN_UNUSED = 5,
    WEFT_TOKEN_BYTE = 6
} weft_token_kind;
weft_token_kind weft_tokenizer_kind(const weft_tokenizer *t, int32_t id);

/* Id of the token whose stored text is exactly this (control tokens too); -1 if there is none. */
int32_t weft_tokenizer_find(const weft_tokenizer *t, const char *text);
int32_t weft_tokenizer_bos(const weft_tokenizer *t); /* -1: none */
int32_t weft_tokenizer_eos(const weft_tokenizer *t); /* -1: none */
/* Whether the file asks for BOS in front of a text. */
bool weft_tokenizer_adds_bos(const weft_tokenizer *t);
/* Ends a generation: eos, eot, and the family's other end tokens (dialect.md). */
bool weft_tokenizer_is_end(const weft_tokenizer *t, int32_t id);
/* "gpt2", "llama"; "qwen2", ... */
const char *weft_tokenizer_model(const weft_tokenizer *t);
const char *weft_tokenizer_pre(const weft_tokenizer *t);
/* How many single bytes the vocabulary cannot write (SmolLM2 lacks 14): they are dropped in encoding. */
size_t weft_tokenizer_missing_bytes(const weft_tokenizer *t);

#endif
