/* Masks against the naive model: a token is allowed exactly if its bytes are accepted one after the
 * other. And random walks: whatever allowed tokens are drawn, from any vocabulary, a call comes out
 * that parses and conforms, and there is always a token to draw. */
#include "tests/engine/turn_test.h"

static uint64_t next_random(uint64_t *seed)
{
    uint64_t z = (*seed += 0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

static bool bit(const uint32_t *bits, size_t id)
{
    return bits[id / 32] >> (id % 32) & 1;
}

/* ---- the masker alone ---- */

/* A machine with more states than the masker keeps: accepts by position and byte. */
static bool odd_step(const void *context, void *state, uint8_t byte)
{
    uint32_t *at = state;
    uint32_t now = *at;
    *at = (now + 1) % *(const uint32_t *)context;
    return (now * 7 + byte) % 5 != 0;
}

static bool never_stops(const void *context, const void *state)
{
    return false;
}

static uint64_t odd_hash(const void *state)
{
    return *(const uint32_t *)state & 15; /* many collisions */
}

static bool odd_equal(const void *a, const void *b)
{
    return *(const uint32_t *)a == *(const uint32_t *)b;
}

static void test_masker(void **state)
{
    vocab v;
    uint32_t modulus = 5000;
    weft_trie *trie = NULL;
    weft_masker *masker = NULL;
    weft_machine machine = {&modulus, sizeof(uint32_t), odd_step, never_stops, odd_hash, odd_equal};
    assert_true(vocab_open(&v, TINY));
    int32_t skip[] = {v.dialect->delimiter.call};
    size_t n_vocab = weft_tokenizer_size(v.tokenizer), checked = 0;
    CHECK(weft_trie_new(&trie, v.tokenizer, skip, 1, err));
    uint32_t anchor = 1234;
    CHECK(weft_masker_new(&masker, trie, &machine, &anchor, err));
    assert_true(weft_trie_nodes(trie) >= 256);
    for (uint32_t start = 0; start < 12000; start += 7) {
        uint32_t at = start % modulus;
        const uint32_t *bits = weft_masker_allowed(masker, &at);
        assert_non_null(bits);
        if (start % 11) continue;
        for (size_t id = 0; id < n_vocab; id++) {
            weft_text bytes = weft_tokenizer_bytes(v.tokenizer, (int32_t)id, false);
            uint32_t s = at;
            bool ok = bytes.size > 0 && (int32_t)id != skip[0];
            for (size_t i = 0; i < bytes.size && ok; i++)
                ok = odd_step(&modulus, &s, (uint8_t)bytes.data[i]);
            if (bit(bits, id) != ok) fail_msg("state %u, token %zu", at, id);
            checked++;
        }
    }
    assert_true(checked > 100000);
    weft_masker_free(masker);
    weft_trie_free(trie);
    vocab_close(&v);
}

/* Takes string content alike but for one byte, after which nothing may follow, or which may not
 * come. */
typedef struct almost_plain {
    uint8_t byte;
    bool refuses;
} almost_plain;

static bool almost_step(const void *context, void *state, uint8_t byte)
{
    const almost_plain *a = context;
    uint32_t *over = state;
    if (*over || byte < 0x20 || byte == '"' || byte == '\\') return false;
    *over = byte == a->byte;
    return !*over || !a->refuses;
}

static void test_plain_shortcut(void **state)
{
    vocab v;
    weft_trie *trie = NULL;
    assert_true(vocab_open(&v, TINY));
    size_t n_vocab = weft_tokenizer_size(v.tokenizer);
    CHECK(weft_trie_new(&trie, v.tokenizer, NULL, 0, err));
    for (unsigned i = 0; i < 512; i++) {
        almost_plain context = {(uint8_t)i, i >= 256};
        weft_machine machine = {&context, sizeof(uint32_t), almost_step, never_stops, odd_hash, odd_equal};
        weft_masker *masker = NULL;
        uint32_t begin = 0;
        CHECK(weft_masker_new(&masker, trie, &machine, &begin, err));
        const uint32_t *bits = weft_masker_allowed(masker, &begin);
        for (size_t id = 0; id < n_vocab; id++) {
            weft_text bytes = weft_tokenizer_bytes(v.tokenizer, (int32_t)id, false);
            uint32_t s = begin;
            bool ok = weft_trie_has(trie, (int32_t)id);
            for (size_t k = 0; k < bytes.size && ok; k++)
                ok = almost_step(&context, &s, (uint8_t)bytes.data[k]);
            if (bit(bits, id) != ok) fail_msg("byte %u, token %zu", i, id);
        }
        weft_masker_free(masker);
    }
    weft_trie_free(trie);
    vocab_close(&v);
}

/* ---- the turn's mask is what the turn accepts ---- */

/* One id alone where more are accepted: text that is forced, in its spelling (test_jump.c). */
static bool is_spelling(const weft_mask *mask, size_t id, const int32_t *first, const vocab *v)
{
    weft_text a = weft_tokenizer_bytes(v->tokenizer, *first, false);
    weft_text b = weft_tokenizer_bytes(v->tokenizer, (int32_t)id, false);
    size_t n = a.size < b.size ? a.size : b.size;
    return mask->n_allowed == 1 && n > 0 && memcmp(a.data, b.data, n) == 0;
}

static void check_every_id(const vocab *v, const weft_turn_options *options, const int32_t *ids,
                           size_t n)
{
    weft_turn *turn = NULL;
    size_t n_vocab = weft_tokenizer_size(v->tokenizer), count = 0;
    CHECK(weft_turn_begin(&turn, v->dialect, options, err));
    assert_int_equal(feed_ids(turn, ids, n, NULL), n);
    const weft_mask *mask = weft_turn_mask(turn);
    int32_t first = -1;
    assert_true(mask->n_allowed > 0);
    weft_turn_forced(turn, &first);
    for (size_t id = 0; id < n_vocab; id++) {
        weft_turn *other = NULL;
        int32_t one = (int32_t)id;
        CHECK(weft_turn_begin(&other, v->dialect, options, err));
        feed_ids(other, ids, n, NULL);
        bool ok = feed_ids(other, &one, 1, NULL) == 1;
        if (ok && !bit(mask->allowed, id) && is_spelling(mask, id, &first, v)) ok = false;
        if (ok != bit(mask->allowed, id))
            fail_msg("after %zu tokens, token %zu: mask %d, accept %d", n, id, !ok, ok);
        count += ok;
        weft_turn_free(other);
    }
    assert_int_equal(count, mask->n_allowed);
    weft_turn_free(turn);
}

static void test_mask_is_accept(void **state)
{
    static const char *const texts[] = {
        "Let me see.\n<tool_call>\n{\"name\": \"file_write\", \"arguments\": {\"path\": "
        "\"a\xc3\xa9\", \"mode\": "
        "\"new\", \"lines\": [\"x\"], \"size\": -12}}\n</tool_call>\n<tool_call>",
        "```json\n{\"name\": \"calculator\", \"arguments\": {\"expression\": \"1\"}}\n```\n",
        "<think>\na b\n</think>\n\n{\"name\": \"x\"} <tools>",
    };
    vocab v;
    tools t;
    assert_true(vocab_open(&v, TINY));
    tools_open(&t);
    for (size_t i = 0; i < 3; i++) {
        weft_turn_options o = {.tools = t.list, .n_tools = 3};
        size_t n = 0;
        int32_t *ids = spell(&v, texts[i], AS_TOKENS, &n);
        for (size_t k = 0; k <= n; k += 3) check_every_id(&v, &o, ids, k);
        o.choice = WEFT_CHOICE_REQUIRED;
        o.think_budget = 2;
        check_every_id(&v, &o, ids, 1);
        check_every_id(&v, &o, ids, 2);
        o.choice = WEFT_CHOICE_NONE;
        check_every_id(&v, &o, ids, 3);
        free(ids);
    }
    tools_close(&t);
    vocab_close(&v);
}

/* ---- walks ---- */

static int32_t draw(const vocab *v, const weft_mask *mask, uint64_t *seed)
{
    size_t n = weft_tokenizer_size(v->tokenizer), at = next_random(seed) % n;
    for (size_t i = 0; i < n; i++, at = at + 1 < n ? at + 1 : 0)
        if (bit(mask->allowed, at)) return (int32_t)at;
    fail_msg("no token is allowed");
    return -1;
}

static bool closes(const vocab *v, int32_t id)
{
    weft_text bytes = weft_tokenizer_bytes(v->tokenizer, id, false);
    return bytes.size &&
           (memchr(bytes.data, '"', bytes.size) || memchr(bytes.data, '}', bytes.size) ||
            memchr(bytes.data, ']', bytes.size));
}

/* Draws a turn; the longer it gets, the rather tokens that bring it to an end. */
static void walk(const vocab *v, const weft_turn_options *options, uint64_t seed, size_t limit,
                 weft_turn **out)
{
    weft_turn_delta delta = {0};
    CHECK(weft_turn_begin(out, v->dialect, options, err));
    for (size_t step = 0; step < limit && !delta.ended; step++) {
        const weft_mask *mask = weft_turn_mask(*out);
        assert_true(mask && mask->n_allowed > 0);
        int32_t id = draw(v, mask, &seed);
        for (int i = 0; i < 20 && step > 12 && !closes(v, id); i++) id = draw(v, mask, &seed);
        if (step > 40 && bit(mask->allowed, (size_t)end_id(v))) id = end_id(v);
        CHECK(weft_turn_accept(*out, id, &delta, err));
    }
}

static void check_walk(const tools *t, weft_turn *turn, uint64_t seed, size_t *n_calls)
{
    const weft_turn_result *r = NULL;
    weft_error error = {0};
    char *line = outcome(turn);
    CHECK(weft_turn_finish(turn, &r, err));
    if (r->ended && r->n_call == 0) fail_msg("walk %d ended without a call: %s", (int)seed, line);
    for (size_t i = 0; i < r->n_call; i++) {
        const weft_turn_call *call = &r->call[i];
        bool whole = r->ended || i + 1 < r->n_call;
        /* that no free key stands twice is the one thing that a grammar cannot say */
        if (call->error && whole && !strstr(call->error, "stands twice"))
            fail_msg("walk %d: %s: [%s]", (int)seed, call->error, call->raw);
        for (size_t k = 0; k < 3 && !call->error; k++)
            if (strcmp(t->list[k].name, call->name) == 0) {
                if (weft_schema_check(t->schema[k], call->arguments, &error))
                    fail_msg("walk %d: %s: [%s]", (int)seed, error.message, call->raw);
                ++*n_calls;
            }
    }
    free(line);
}

static void test_walks(void **state)
{
    static const struct {
        const char *model;
        size_t walks;
    } cases[] = {
        {TINY, 400}, {"smollm2-135m", 60}, {"qwen2.5-coder-0.5b", 25}, {"qwen2.5-coder-1.5b", 25}};
    for (size_t m = 0; m < sizeof cases / sizeof *cases; m++) {
        vocab v;
        tools t;
        size_t n_calls = 0;
        if (!vocab_open(&v, cases[m].model)) continue;
        tools_open(&t);
        for (size_t i = 0; i < cases[m].walks; i++) {
            weft_turn_options o = {.tools = t.list,
                                   .n_tools = 3,
                                   .choice = WEFT_CHOICE_REQUIRED,
                                   .think_budget = 1 + (int64_t)(i % 6)};
            if (i % 5 == 0) o.only = t.list[i % 3].name;
            weft_turn *turn = NULL;
            walk(&v, &o, 1000 * m + i, 300, &turn);
            check_walk(&t, turn, 1000 * m + i, &n_calls);
            weft_turn_free(turn);
        }
        print_message("%s: %zu valid calls in %zu walks\n", cases[m].model, n_calls,
                      cases[m].walks);
        assert_true(n_calls > cases[m].walks / 2);
        tools_close(&t);
        vocab_close(&v);
    }
}

/* With openers masked, no walk reaches a call. */
static void test_walks_without_calls(void **state)
{
    vocab v;
    tools t;
    assert_true(vocab_open(&v, TINY));
    tools_open(&t);
    for (uint64_t seed = 0; seed < 100; seed++) {
        weft_turn_options o = {.tools = t.list, .n_tools = 3, .choice = WEFT_CHOICE_NONE};
        weft_turn *turn = NULL;
        const weft_turn_result *r = NULL;
        walk(&v, &o, seed, 200, &turn);
        CHECK(weft_turn_finish(turn, &r, err));
        assert_int_equal(r->n_call, 0);
        weft_turn_free(turn);
    }
    tools_close(&t);
    vocab_close(&v);
}

/* A schema that this vocabulary cannot write (SmolLM2 lacks the byte f1): the turn ends, with an
 * error. */
static void test_unwritable(void **state)
{
    vocab v;
    if (!vocab_open(&v, "smollm2-135m")) return;
    cJSON *json_schema =
        json("{\"type\": \"object\", \"properties\": {\"x\": {\"enum\": [\"\xf1\x80\x80\x80\"]}}, "
             "\"required\": [\"x\"]}");
    weft_schema *schema = NULL;
    CHECK(weft_schema_compile(json_schema, &schema, err));
    weft_turn_tool tool = {"t", schema};
    weft_turn_options o = {.tools = &tool, .n_tools = 1};
    weft_turn *turn = NULL;
    size_t n = 0;
    int32_t *ids =
                spell(&v, "<tool_call>{\"name\": \"t\", \"arguments\": {\"x\": \"", AS_BYTES, &n),
            end = end_id(&v);
    CHECK(weft_turn_begin(&turn, v.dialect, &o, err));
    assert_int_equal(feed_ids(turn, ids, n - 1, NULL), n - 1);
    assert_int_equal(feed_ids(turn, &end, 1, NULL), 0);
    assert_int_equal(feed_ids(turn, ids + n - 1, 1, NULL), 1);
    const weft_mask *mask = weft_turn_mask(turn);
    assert_true(bit(mask->allowed, (size_t)end));
    assert_int_equal(feed_ids(turn, &end, 1, NULL), 1);
    char *line = outcome(turn);
    assert_non_null(strstr(line, " !"));
    free(line);
    free(ids);
    weft_turn_free(turn);
    vocab_close(&v);
    weft_schema_free(schema);
    cJSON_Delete(json_schema);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_masker),
        cmocka_unit_test(test_plain_shortcut),
        cmocka_unit_test(test_mask_is_accept),
        cmocka_unit_test(test_walks),
        cmocka_unit_test(test_walks_without_calls),
        cmocka_unit_test(test_unwritable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
