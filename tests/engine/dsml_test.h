/* Shared by the tests of turns in DeepSeek's dialects: texts with marks as ids, on the vocabulary of V3.2.
 *
 * In the texts ~ is the token ｜DSML｜, { and } around a word are the tokens of the older format: {BEGIN}, {CALL},
 * {SEP}, {END}, {ENDS}, and <think>, </think>, {EOS} are the tokens of those names. */
#ifndef WEFT_TESTS_DSML_TEST_H
#define WEFT_TESTS_DSML_TEST_H

#include "tests/engine/deepseek_vocab.h"
#include "tests/engine/turn_test.h"

static const struct {
    const char *mark, *token;
} marks[] = {
    {"~", "｜DSML｜"},
    {"{BEGIN}", "<｜tool▁calls▁begin｜>"},
    {"{CALL}", "<｜tool▁call▁begin｜>"},
    {"{SEP}", "<｜tool▁sep｜>"},
    {"{END}", "<｜tool▁call▁end｜>"},
    {"{ENDS}", "<｜tool▁calls▁end｜>"},
    {"<think>", "<think>"},
    {"</think>", "</think>"},
    {"{EOS}", "<｜end▁of▁sentence｜>"},
};
enum { N_MARKS = sizeof marks / sizeof *marks };

static vocab v;
static tools t;

/* The mark that the text begins with; -1: none. */
static inline int mark_at(const char *text)
{
    for (int i = 0; i < N_MARKS; i++)
        if (strncmp(text, marks[i].mark, strlen(marks[i].mark)) == 0) return i;
    return -1;
}

/* Ids of a text with marks; what stands between them as the tokenizer cuts it, or a token a byte. */
static inline int32_t *ids_with_marks(const char *text, bool bytes, size_t *out_n)
{
    int32_t *ids = malloc((strlen(text) + 1) * sizeof *ids);
    size_t n = 0;
    while (*text) {
        int mark = mark_at(text);
        if (mark >= 0) {
            ids[n] = weft_tokenizer_find(v.tokenizer, marks[mark].token);
            assert_true(ids[n++] >= 0);
            text += strlen(marks[mark].mark);
            continue;
        }
        size_t size = 1, count = 0;
        while (text[size] && mark_at(text + size) < 0) size++;
        char *piece = strndup(text, size);
        int32_t *plain = spell(&v, piece, bytes ? AS_BYTES : AS_TEXT, &count);
        memcpy(ids + n, plain, count * sizeof *ids);
        n += count;
        text += size;
        free(plain);
        free(piece);
    }
    *out_n = n;
    return ids;
}

static inline weft_turn *begin(const weft_turn_options *options)
{
    weft_turn *turn = NULL;
    CHECK(weft_turn_begin(&turn, v.dialect, options, err));
    return turn;
}

static inline int open_all(void **state)
{
    deepseek_open(&v);
    tools_open(&t);
    return 0;
}

static inline int close_all(void **state)
{
    vocab_close(&v);
    tools_close(&t);
    return 0;
}

#endif
