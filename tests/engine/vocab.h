/* Shared by the tests of dialects, masks and turns: the vocabulary of a model file with its
 * dialect, without the weights. The tiny agent lies in tests/data; the others are looked for where
 * `weft model pull` puts them, and a test of one that is not there is left out. */
#ifndef WEFT_TESTS_ENGINE_VOCAB_H
#define WEFT_TESTS_ENGINE_VOCAB_H

#include "engine/dialect/dialect.h"
#include "tests/engine/engine_test.h"

#define TINY "tiny-agent"

typedef struct vocab {
    weft_gguf *file;
    weft_tokenizer *tokenizer;
    char *chat_template; /* NULL: the file has none */
    char architecture[64];
    weft_dialect *dialect;
    char *bytes; /* of a file that was unpacked, or NULL */
} vocab;

static inline char *vocab_path(const char *name)
{
    char path[4096];
    char *home = weft_home();
    if (strcmp(name, TINY) == 0) {
        snprintf(path, sizeof path, "%s", data_path("agent/tiny-agent-f16.gguf"));
    } else {
        snprintf(path, sizeof path, "%s/models/%s.gguf", home ? home : "", name);
    }
    free(home);
    return strdup(path);
}

/* False: the model is not on this machine. Opens no dialect. */
static inline bool vocab_find(vocab *v, const char *name)
{
    char *path = vocab_path(name);
    weft_text text;
    *v = (vocab){0};
    if (!weft_file_exists(path)) {
        print_message("left out: no %s\n", path);
        free(path);
        return false;
    }
    CHECK(weft_gguf_open(&v->file, path, err));
    free(path);
    CHECK(weft_tokenizer_new(&v->tokenizer, v->file, err));
    if (weft_gguf_text(v->file, "tokenizer.chat_template", &text))
        v->chat_template = strndup(text.data, text.size);
    if (weft_gguf_text(v->file, "general.architecture", &text))
        snprintf(v->architecture, sizeof v->architecture, "%.*s", (int)text.size, text.data);
    return true;
}

static inline bool vocab_open(vocab *v, const char *name)
{
    if (!vocab_find(v, name)) return false;
    CHECK(
        weft_dialect_new(&v->dialect, v->tokenizer, v->architecture, v->chat_template, NULL, err));
    return true;
}

static inline void vocab_close(vocab *v)
{
    weft_dialect_close(v->dialect);
    weft_tokenizer_free(v->tokenizer);
    weft_gguf_close(v->file);
    free(v->chat_template);
    free(v->bytes);
}

static inline cJSON *json(const char *text)
{
    cJSON *value = NULL;
    CHECK(weft_json_parse(text, strlen(text), &value, err));
    return value;
}

/* Ids of a model's text: delimiters as their tokens (PLAIN), or spelt out (FOREIGN). */
static inline int32_t *ids_of(const vocab *v, const char *text, weft_trust trust, size_t *out_n)
{
    int32_t *ids = NULL;
    weft_span span = {text, strlen(text), trust, WEFT_ANSWER};
    CHECK(weft_tokenizer_encode(v->tokenizer, &span, 1, &ids, NULL, out_n, err));
    return ids;
}

#endif
