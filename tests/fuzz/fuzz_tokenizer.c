/* Fuzzes encoding: the input's first byte cuts the rest into a left and a right span, the second says
 * how far each is trusted; byte-level BPE and SentencePiece encode them.
 * Held: ids decode to the text (U+2581 aside, which SentencePiece reads as a space); each stands at its
 * offset; foreign bytes never lie under a control token, a delimiter or an end of generation, plain
 * ones never under a control token. */
#include "engine/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct vocabulary {
    weft_buffer bytes;
    weft_gguf *file;
    weft_tokenizer *t;
    int32_t delimiter[8];
} vocabulary;

static vocabulary vocabularies[2];

static void check(bool holds)
{
    if (!holds) abort();
}

static void open_vocabulary(vocabulary *v, const char *path)
{
    static const char *const delimiters[8] = {
        "<tool_call>",      "</tool_call>", "<think>", "</think>",
        "</tool_response>", "</s>",         "<unk>",   "<s>"};
    weft_error err;
    if (weft_file_read(path, 1 << 20, &v->bytes, &err) ||
        weft_gguf_open_memory(&v->file, v->bytes.data, v->bytes.size, &err) ||
        weft_tokenizer_new(&v->t, v->file, &err)) {
        fprintf(stderr, "%s\n", err.message);
        exit(1);
    }
    check(!weft_tokenizer_missing_bytes(v->t));
    for (size_t i = 0; i < 8; i++) v->delimiter[i] = weft_tokenizer_find(v->t, delimiters[i]);
}

int LLVMFuzzerInitialize(int *argc, char ***argv);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    open_vocabulary(&vocabularies[0], FUZZ_DATA "/tok/small-bpe.gguf");
    open_vocabulary(&vocabularies[1], FUZZ_DATA "/tok/small-spm.gguf");
    return 0;
}

static weft_trust least_trust(const weft_span *spans, size_t from, size_t to)
{
    weft_trust left = from < spans[0].size ? spans[0].trust : WEFT_TRUSTED;
    weft_trust right = to > spans[0].size ? spans[1].trust : WEFT_TRUSTED;
    return left > right ? left : right;
}

static void check_trust(const vocabulary *v, int32_t id, weft_trust trust)
{
    weft_token_kind kind = weft_tokenizer_kind(v->t, id);
    bool is_control = kind == WEFT_TOKEN_CONTROL || kind == WEFT_TOKEN_UNKNOWN;
    check(kind != WEFT_TOKEN_UNUSED && (trust == WEFT_TRUSTED || !is_control));
    if (trust != WEFT_FOREIGN) return;
    check(!weft_tokenizer_is_end(v->t, id));
    for (size_t i = 0; i < 8; i++) check(id != v->delimiter[i]);
}

static void encode(const vocabulary *v, const char *text, size_t size, const weft_span *spans)
{
    weft_error err;
    int32_t *ids;
    size_t *from, n, at = 0;
    bool exact = !memmem(text, size, "\xe2\x96\x81", 3);
    check(!weft_tokenizer_encode(v->t, spans, 2, &ids, &from, &n, &err));
    for (size_t i = 0; i < n; i++) {
        weft_text bytes = weft_tokenizer_bytes(v->t, ids[i], true);
        size_t end = i + 1 < n ? from[i + 1] : size;
        check(bytes.size > 0 && from[i] < end && end <= size);
        check_trust(v, ids[i], least_trust(spans, from[i], end));
        if (!exact) continue;
        check(from[i] == at && end == at + bytes.size &&
              !memcmp(text + at, bytes.data, bytes.size));
        at = end;
    }
    check(!exact || at == size);
    free(ids);
    free(from);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) return 0;
    const char *text = (const char *)data + 2;
    size -= 2;
    size_t cut = data[0] < size ? data[0] : size;
    weft_span spans[2] = {{text, cut, (weft_trust)(data[1] % 3), WEFT_USER},
                          {text + cut, size - cut, (weft_trust)(data[1] / 3 % 3), WEFT_USER}};
    for (size_t i = 0; i < 2; i++) encode(&vocabularies[i], text, size, spans);
    return 0;
}
