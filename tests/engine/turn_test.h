/* Shared by the tests of turns and masks: two tools, feeding text as tokens, and a turn's outcome
 * as one line. */
#ifndef WEFT_TESTS_ENGINE_TURN_TEST_H
#define WEFT_TESTS_ENGINE_TURN_TEST_H

#include "engine/turn.h"
#include "tests/engine/vocab.h"

typedef struct tools {
    weft_turn_tool list[3]; /* calculator, next_item, file_write */
    weft_schema *schema[3];
} tools;

static inline void tools_open(tools *t)
{
    static const char *const schemas[3] = {
        "{\"type\": \"object\", \"properties\": {\"expression\": {\"type\": \"string\"}}, "
        "\"required\": "
        "[\"expression\"], \"additionalProperties\": false}",
        "{\"type\": \"object\", \"properties\": {}}",
        "{\"type\": \"object\", \"properties\": {\"path\": {\"type\": \"string\", \"maxLength\": "
        "40}, "
        "\"mode\": {\"enum\": [\"new\", \"append\"]}, \"lines\": {\"type\": \"array\", \"items\": "
        "{\"type\": "
        "\"string\"}, \"maxItems\": 3}, \"size\": {\"type\": \"integer\"}}, \"required\": "
        "[\"path\", "
        "\"lines\"], \"additionalProperties\": false}"};
    static const char *const names[3] = {"calculator", "next_item", "file_write"};
    for (size_t i = 0; i < 3; i++) {
        cJSON *schema = json(schemas[i]);
        CHECK(weft_schema_compile(schema, &t->schema[i], err));
        cJSON_Delete(schema);
        t->list[i] = (weft_turn_tool){names[i], t->schema[i]};
    }
}

static inline void tools_close(tools *t)
{
    for (size_t i = 0; i < 3; i++) weft_schema_free(t->schema[i]);
}

typedef enum spelling {
    AS_TOKENS, /* delimiters as their tokens where there are such */
    AS_TEXT,   /* delimiters spelt out */
    AS_BYTES   /* a token for each byte */
} spelling;

static inline int32_t byte_token(const vocab *v, uint8_t byte)
{
    size_t n = weft_tokenizer_size(v->tokenizer);
    for (size_t i = 0; i < n; i++) {
        weft_text bytes = weft_tokenizer_bytes(v->tokenizer, (int32_t)i, false);
        if (bytes.size == 1 && (uint8_t)bytes.data[0] == byte) return (int32_t)i;
    }
    fail_msg("no token for the byte %d", byte);
    return -1;
}

static inline int32_t *spell(const vocab *v, const char *text, spelling how, size_t *out_n)
{
    if (how != AS_BYTES)
        return ids_of(v, text, how == AS_TOKENS ? WEFT_PLAIN : WEFT_FOREIGN, out_n);
    int32_t known[256], *ids = malloc((strlen(text) + 1) * sizeof *ids);
    memset(known, -1, sizeof known);
    *out_n = strlen(text);
    for (size_t i = 0; text[i]; i++) {
        uint8_t byte = (uint8_t)text[i];
        if (known[byte] < 0) known[byte] = byte_token(v, byte);
        ids[i] = known[byte];
    }
    return ids;
}

static inline int32_t end_id(const vocab *v)
{
    return weft_tokenizer_find(v->tokenizer, "<|im_end|>");
}

/* What deltas brought out, as "T(...)C(...)A(...)" with neighbours of one label joined. */
typedef struct stream {
    weft_buffer text;
    int last; /* label, -1 */
} stream;

static inline void stream_add(stream *s, const weft_turn_delta *delta)
{
    if (!*delta->text) return;
    assert_int_equal(weft_utf8_valid(delta->text, strlen(delta->text)), strlen(delta->text));
    if (s->last != (int)delta->segment) {
        if (s->last >= 0) weft_buffer_putc(&s->text, ')');
        weft_buffer_printf(&s->text, "%c(", weft_segment_name(delta->segment)[0] - 'a' + 'A');
        s->last = (int)delta->segment;
    }
    weft_buffer_puts(&s->text, delta->text);
}

/* Feeds ids; returns how many were accepted. */
static inline size_t feed_ids(weft_turn *turn, const int32_t *ids, size_t n, stream *shown)
{
    weft_error error = {0};
    for (size_t i = 0; i < n; i++) {
        weft_turn_delta delta;
        weft_status status = weft_turn_accept(turn, ids[i], &delta, &error);
        if (status == WEFT_E_INVALID) return i;
        if (status) fail_msg("%s", error.message);
        if (shown) stream_add(shown, &delta);
    }
    return n;
}

/* Segments as T(text)C(text)A(text), a blank, then calls as name{arguments} or name!. Checks that
 * the segments cover the ids. */
static inline char *outcome(weft_turn *turn)
{
    const weft_turn_result *r = NULL;
    weft_buffer out = WEFT_BUFFER_INIT;
    size_t at = 0;
    CHECK(weft_turn_finish(turn, &r, err));
    for (size_t i = 0; i < r->n_segment; i++) {
        const weft_turn_segment *s = &r->segment[i];
        assert_int_equal(s->from, at);
        assert_true(s->n > 0);
        at += s->n;
        assert_int_equal(weft_utf8_valid(s->text, strlen(s->text)), strlen(s->text));
        weft_buffer_printf(&out, "%c(%s)", weft_segment_name(s->segment)[0] - 'a' + 'A', s->text);
    }
    assert_int_equal(at, turn->n);
    for (size_t i = 0; i < r->n_call; i++) {
        const weft_turn_call *c = &r->call[i];
        assert_true((c->error == NULL) == (c->arguments != NULL));
        assert_non_null(c->raw);
        weft_buffer_printf(&out, " %s", c->name);
        if (c->error) {
            weft_buffer_putc(&out, '!');
        } else {
            assert_true(cJSON_IsObject(c->arguments));
            weft_json_compact(c->arguments, &out);
        }
    }
    return weft_buffer_take(&out);
}

#endif
