/* DeepSeek V3.2's own vocabulary, without a model: tests/data/tok/deepseek-v3.2.gguf.zst. */
#ifndef WEFT_TESTS_ENGINE_DEEPSEEK_VOCAB_H
#define WEFT_TESTS_ENGINE_DEEPSEEK_VOCAB_H

#include "tests/engine/vocab.h"

#include <zstd.h>

/* With the dialect that the file and this chat template choose. */
static inline void deepseek_open_as(vocab *v, const char *architecture, const char *chat_template)
{
    weft_buffer packed = WEFT_BUFFER_INIT;
    *v = (vocab){0};
    CHECK(weft_file_read(data_path("tok/deepseek-v3.2.gguf.zst"), (size_t)64 << 20, &packed, err));
    size_t size = (size_t)ZSTD_getFrameContentSize(packed.data, packed.size);
    v->bytes = malloc(size);
    assert_non_null(v->bytes);
    assert_int_equal(ZSTD_decompress(v->bytes, size, packed.data, packed.size), size);
    weft_buffer_free(&packed);
    CHECK(weft_gguf_open_memory(&v->file, v->bytes, size, err));
    CHECK(weft_tokenizer_new(&v->tokenizer, v->file, err));
    CHECK(weft_dialect_new(&v->dialect, v->tokenizer, architecture, chat_template, NULL, err));
}

static inline void deepseek_open(vocab *v)
{
    deepseek_open_as(v, "deepseek32", NULL);
}

#endif
