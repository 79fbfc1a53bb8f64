/* Fuzzes the GGUF reader: the bytes are a file. What opens is walked from end to end, and its tokenizer
 * must be refused with a reason or encode. Held: what the accessors return lies in the bytes. */
#include "engine/tokenizer.h"

#include <stdlib.h>
#include <string.h>

static void check(bool holds)
{
    if (!holds) abort();
}

static void check_text(weft_text text, const uint8_t *data, size_t size)
{
    const uint8_t *at = (const uint8_t *)text.data;
    check(at >= data && at <= data + size && text.size <= (size_t)(data + size - at));
}

static void walk_key(const weft_gguf *file, weft_text name, const uint8_t *data, size_t size)
{
    weft_text text;
    int64_t integer;
    double number;
    bool truth;
    check_text(name, data, size);
    char *key = strndup(name.data, name.size);
    if (!key) return;
    if (weft_gguf_text(file, key, &text)) check_text(text, data, size);
    weft_gguf_int(file, key, &integer);
    weft_gguf_float(file, key, &number);
    weft_gguf_bool(file, key, &truth);
    size_t n = weft_gguf_array(file, key);
    check(n <= size);
    for (size_t i = 0; i <= n; i++) {
        bool any = weft_gguf_array_int(file, key, i, &integer);
        any |= weft_gguf_array_float(file, key, i, &number);
        if (weft_gguf_array_text(file, key, i, &text)) {
            check_text(text, data, size);
            any = true;
        }
        check(!any || i < n);
    }
    free(key);
}

static void walk_tokenizer(const weft_gguf *file)
{
    static const char text[] = "<|im_start|>Hello w\xc3\xb6rld <think> 12\xff</s>";
    weft_error err = {0};
    weft_tokenizer *t;
    weft_span span = {text, sizeof text - 1, WEFT_TRUSTED, WEFT_USER};
    int32_t *ids;
    size_t n;
    if (weft_tokenizer_new(&t, file, &err)) {
        check(*err.message);
        return;
    }
    if (!weft_tokenizer_encode(t, &span, 1, &ids, NULL, &n, &err)) {
        for (size_t i = 0; i < n; i++)
            check(ids[i] >= 0 && (size_t)ids[i] < weft_tokenizer_size(t));
        free(ids);
    }
    weft_tokenizer_free(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    weft_error err = {0};
    weft_gguf *file;
    uint8_t digest[WEFT_DIGEST_BYTES];
    if (weft_gguf_open_memory(&file, data, size, &err)) {
        check(*err.message);
        return 0;
    }
    for (size_t i = 0; i < weft_gguf_key_count(file); i++)
        walk_key(file, weft_gguf_key_at(file, i), data, size);
    for (size_t i = 0; i < weft_gguf_tensor_count(file); i++) {
        const weft_tensor *t = weft_gguf_tensor_at(file, i);
        check(weft_gguf_tensor_find(file, t->name) == t);
        check(t->bytes > 0);
        check_text((weft_text){t->data, t->bytes}, data, size);
        check(!weft_tensor_read(t, t->bytes - 1, 1, digest, NULL));
    }
    check(!weft_gguf_fingerprint(file, digest, NULL));
    walk_tokenizer(file);
    weft_gguf_close(file);
    return 0;
}
