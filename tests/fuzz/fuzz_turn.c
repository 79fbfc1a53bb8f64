/* Any tokens into the recogniser, masked and unmasked. Whatever comes in: an id is accepted exactly
 * if the mask has it or spells the same forced text, what is forced is so again when the ids are
 * read anew, the segments cover the ids, texts are UTF-8, a call has arguments or an
 * error, and a masked turn that ends has no call that is not JSON. Input: two bytes of options, then a
 * byte a token; 255 takes the byte after it for one of the special ids. Vocabularies: the tiny agent's,
 * and for the dialect dsv32 that of the tiny DeepSeek checkpoint; placeholders of that one stand for
 * the tokens of the earlier formats, which it lacks. */
#include "engine/turn.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct bench {
    weft_gguf *file;
    weft_tokenizer *tokenizer;
    weft_dialect *dialect;
    weft_schema *schema;
    weft_turn_tool tools[3];
    int32_t byte_id[256], special[8];
} bench;

#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static const struct {
    const char *path, *architecture, *special[8];
} files[2] = {
    {FUZZ_DATA "/agent/tiny-agent-f16.gguf", "qwen2",
     {"<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>",
      "<|im_end|>", "<|im_start|>"}},
    {FUZZ_DATA "/dsv32/tiny-f16.gguf", "deepseek32",
     {"<think>", "</think>", "<｜end▁of▁sentence｜>", "｜DSML｜", "<｜place▁holder▁no▁3｜>",
      "<｜place▁holder▁no▁2｜>", "<｜place▁holder▁no▁1｜>", "<｜place▁holder▁no▁4｜>"}},
};

static const bench *get_bench(bool dsml)
{
    static bench benches[2];
    bench *b = &benches[dsml];
    if (b->dialect) return b;
    weft_error err = {0};
    cJSON *schema = NULL;
    static const char text[] =
        "{\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"string\", \"maxLength\": 5}, "
        "\"b\": {\"type\": \"array\", \"items\": {\"enum\": [1, \"x\"]}}}, \"required\": [\"a\"]}";
    REQUIRE(!weft_gguf_open(&b->file, files[dsml].path, &err) &&
            !weft_tokenizer_new(&b->tokenizer, b->file, &err));
    REQUIRE(!weft_dialect_new(&b->dialect, b->tokenizer, files[dsml].architecture, NULL, NULL, &err));
    REQUIRE(!weft_json_parse(text, sizeof text - 1, &schema, &err));
    REQUIRE(!weft_schema_compile(schema, &b->schema, &err));
    cJSON_Delete(schema);
    b->tools[0] = (weft_turn_tool){"f", b->schema};
    b->tools[1] = (weft_turn_tool){"fg", NULL};
    b->tools[2] = (weft_turn_tool){"next", NULL};
    for (size_t i = 0; i < 8; i++) b->special[i] = weft_tokenizer_find(b->tokenizer, files[dsml].special[i]);
    for (size_t i = weft_tokenizer_size(b->tokenizer); i-- > 0;) {
        weft_text bytes = weft_tokenizer_bytes(b->tokenizer, (int32_t)i, false);
        if (bytes.size == 1) b->byte_id[(uint8_t)bytes.data[0]] = (int32_t)i;
    }
    for (int i = 0; dsml && i < WEFT_SIGILS - 1; i++) {
        char name[64];
        snprintf(name, sizeof name, "<｜place▁holder▁no▁%d｜>", i);
        b->dialect->delimiter.sigil[i] = weft_tokenizer_find(b->tokenizer, name);
    }
    return b;
}

static bool valid(const char *text)
{
    return weft_utf8_valid(text, strlen(text)) == strlen(text);
}

static void check_result(weft_turn *turn, bool unmasked, size_t n_ids)
{
    const weft_turn_result *r = NULL;
    weft_error err = {0};
    size_t at = 0;
    REQUIRE(weft_turn_finish(turn, &r, &err) == WEFT_OK);
    for (size_t i = 0; i < r->n_segment; i++) {
        REQUIRE(r->segment[i].from == at && r->segment[i].n > 0 && valid(r->segment[i].text));
        at += r->segment[i].n;
        REQUIRE(r->segment[i].segment != WEFT_ANSWER || r->n_call == 0);
    }
    REQUIRE(at == n_ids);
    for (size_t i = 0; i < r->n_call; i++) {
        const weft_turn_call *c = &r->call[i];
        REQUIRE((c->error == NULL) == (c->arguments != NULL));
        REQUIRE(c->name && c->raw && valid(c->name) && valid(c->raw) &&
                (!c->error || valid(c->error)));
        if (!unmasked && r->ended) REQUIRE(!c->error || strstr(c->error, "stands twice"));
    }
}

/* The index-th allowed id, so that a masked turn always goes on. */
static int32_t pick(const weft_mask *mask, size_t index, size_t n_vocab)
{
    index %= mask->n_allowed;
    for (size_t id = 0; id < n_vocab; id++)
        if ((mask->allowed[id / 32] >> (id % 32) & 1) && index-- == 0) return (int32_t)id;
    return -1;
}

/* Whether the bytes of one are the beginning of the other's. */
static bool spells(const bench *b, int32_t one, int32_t other)
{
    weft_text x = weft_tokenizer_bytes(b->tokenizer, one, false);
    weft_text y = weft_tokenizer_bytes(b->tokenizer, other, false);
    size_t n = x.size < y.size ? x.size : y.size;
    return n > 0 && memcmp(x.data, y.data, n) == 0;
}

enum { IDS_MAX = 4096 };

/* The ids of a turn, and the one that was forced in its place, -1 where there was a choice. */
typedef struct history {
    int32_t id[IDS_MAX], forced[IDS_MAX];
    size_t n;
} history;

/* A resumed turn knows the ids alone: from any of them on it must force the same. */
static void check_again(const bench *b, const weft_turn_options *o, const history *h, size_t from)
{
    weft_turn *turn = NULL;
    weft_turn_delta delta;
    weft_error err = {0};
    REQUIRE(weft_turn_begin(&turn, b->dialect, o, &err) == WEFT_OK);
    for (size_t i = 0; i < h->n; i++) {
        int32_t only = -1;
        if (i >= from) REQUIRE(weft_turn_forced(turn, &only) == (h->forced[i] >= 0));
        if (i >= from) REQUIRE(only == h->forced[i]);
        REQUIRE(weft_turn_accept(turn, h->id[i], &delta, &err) == WEFT_OK);
    }
    weft_turn_free(turn);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static history h;
    if (size < 2) return 0;
    const bench *b = get_bench(data[0] & 8);
    weft_turn_options o = {.tools = b->tools, .n_tools = 3, .think_budget = data[1] & 15};
    o.think = (weft_think)((data[0] >> 4 & 3) % 3);
    o.in_thought = data[0] & 8 && data[1] & 16;
    switch (data[0] & 7) { /* no more kinds than the dialect keeps plans */
    case 0: o.choice = WEFT_CHOICE_REQUIRED; break;
    case 1: o.choice = WEFT_CHOICE_REQUIRED, o.only = "fg"; break;
    case 2: o.choice = WEFT_CHOICE_NONE; break;
    case 3: o.n_tools = 0; break;
    case 4:
    case 5: o.unmasked = true; break;
    default: break;
    }
    weft_turn *turn = NULL;
    weft_turn_delta delta = {0};
    weft_error err = {0};
    size_t n_vocab = weft_tokenizer_size(b->tokenizer);
    h.n = 0;
    REQUIRE(weft_turn_begin(&turn, b->dialect, &o, &err) == WEFT_OK);
    for (size_t i = 2; i < size && !delta.ended && h.n < IDS_MAX; i++) {
        int32_t only = -1, id = b->byte_id[data[i]];
        if (data[i] == 255 && ++i < size) id = b->special[data[i] & 7];
        const weft_mask *mask = weft_turn_mask(turn);
        REQUIRE(o.unmasked ? !mask : mask && mask->n_allowed > 0);
        bool fits = !mask || (mask->allowed[id / 32] >> (id % 32) & 1);
        REQUIRE(weft_turn_forced(turn, &only) == (mask && mask->n_allowed == 1));
        weft_status status = weft_turn_accept(turn, id, &delta, &err);
        REQUIRE(status == WEFT_OK || (status == WEFT_E_INVALID && !fits));
        REQUIRE(status != WEFT_OK || fits || (only >= 0 && spells(b, id, only)));
        if (status) {
            id = pick(mask, i < size ? data[i] : 0, n_vocab);
            REQUIRE(weft_turn_accept(turn, id, &delta, &err) == WEFT_OK);
        }
        REQUIRE(valid(delta.text));
        h.forced[h.n] = only;
        h.id[h.n++] = id;
    }
    check_result(turn, o.unmasked, h.n);
    weft_turn_free(turn);
    check_again(b, &o, &h, data[0] * h.n / 256);
    return 0;
}
