/* What the tokenizer tests share: vocabularies from tests/data/tok, models from $WEFT_HOME, encoding
 * that fails the test with a line. */
#ifndef WEFT_TESTS_TOK_DATA_H
#define WEFT_TESTS_TOK_DATA_H

#include "engine/tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <zstd.h>

typedef struct tok_ids {
    int32_t *id;
    size_t *from;
    size_t n;
} tok_ids;

typedef struct vocabulary {
    weft_gguf *file;
    weft_tokenizer *t;
    char *bytes; /* of an unpacked file */
} vocabulary;

static inline char *data_path(const char *name)
{
    const char *dir = getenv("WEFT_TEST_DATA");
    char *path = NULL;
    if (!dir) fail_msg("WEFT_TEST_DATA is not set; run the tests with meson test");
    assert_true(asprintf(&path, "%s/tok/%s", dir, name) > 0);
    return path;
}

static inline void read_data(const char *name, weft_buffer *out)
{
    weft_error err;
    char *path = data_path(name);
    if (weft_file_read(path, (size_t)64 << 20, out, &err)) fail_msg("%s", err.message);
    free(path);
}

static inline vocabulary tokenizer_of(weft_gguf *file, char *bytes)
{
    weft_error err;
    vocabulary v = {.file = file, .bytes = bytes};
    if (weft_tokenizer_new(&v.t, file, &err)) fail_msg("%s", err.message);
    return v;
}

/* tests/data/tok/NAME.gguf.zst, or NAME.gguf if name begins with "small". */
static inline vocabulary open_vocabulary(const char *name)
{
    weft_error err;
    weft_gguf *file;
    weft_buffer packed = WEFT_BUFFER_INIT;
    char full[128], *bytes;
    bool small = !strncmp(name, "small", 5);
    snprintf(full, sizeof full, small ? "%s.gguf" : "%s.gguf.zst", name);
    read_data(full, &packed);
    size_t size = packed.size;
    if (small) {
        bytes = weft_buffer_take(&packed);
    } else {
        size = (size_t)ZSTD_getFrameContentSize(packed.data, packed.size);
        bytes = malloc(size);
        assert_non_null(bytes);
        assert_int_equal(ZSTD_decompress(bytes, size, packed.data, packed.size), size);
        weft_buffer_free(&packed);
    }
    if (weft_gguf_open_memory(&file, bytes, size, &err)) fail_msg("%s: %s", name, err.message);
    return tokenizer_of(file, bytes);
}

/* A model that `weft model pull` fetched. */
static inline vocabulary open_model(const char *name)
{
    weft_error err;
    weft_gguf *file;
    char *home = weft_home(), *path = NULL;
    assert_non_null(home);
    assert_true(asprintf(&path, "%s/models/%s.gguf", home, name) > 0);
    if (!weft_file_exists(path)) fail_msg("%s is not there; run: weft model pull %s", path, name);
    if (weft_gguf_open(&file, path, &err)) fail_msg("%s", err.message);
    free(home);
    free(path);
    return tokenizer_of(file, NULL);
}

static inline void close_vocabulary(vocabulary *v)
{
    weft_tokenizer_free(v->t);
    weft_gguf_close(v->file);
    free(v->bytes);
}

static inline tok_ids encode_spans(const vocabulary *v, const weft_span *spans, size_t n)
{
    weft_error err;
    tok_ids ids;
    if (weft_tokenizer_encode(v->t, spans, n, &ids.id, &ids.from, &ids.n, &err))
        fail_msg("%s", err.message);
    return ids;
}

static inline tok_ids encode_text(const vocabulary *v, const char *text, size_t size,
                                  weft_trust trust)
{
    return encode_spans(v, &(weft_span){text, size, trust, WEFT_USER}, 1);
}

static inline void free_ids(tok_ids *ids)
{
    free(ids->id);
    free(ids->from);
}

static inline void decode_ids(const vocabulary *v, const tok_ids *ids, weft_buffer *out)
{
    for (size_t i = 0; i < ids->n; i++) {
        weft_text bytes = weft_tokenizer_bytes(v->t, ids->id[i], false);
        weft_buffer_append(out, bytes.data, bytes.size);
    }
}

#endif
