/* Jump-ahead: where the grammar leaves one way on, its tokens are taken without sampling. That
 * changes no id and spares forward passes; that the rule looks at the state alone; that it never
 * forbids the tokenisation that a model was trained on, nor a call. */
#include "tests/engine/turn_test.h"

#include "engine/model.h"

static bool bit(const uint32_t *bits, size_t id)
{
    return bits[id / 32] >> (id % 32) & 1;
}

/* ---- the same ids with fewer passes ---- */

enum { IDS_MAX = 400 };

typedef struct sampled {
    int32_t id[IDS_MAX];
    bool forced[IDS_MAX];
    size_t n, n_forced, passes;
    uint8_t digest[WEFT_DIGEST_BYTES]; /* of the last logits */
} sampled;

typedef struct rig {
    weft_model *model;
    weft_dialect *dialect;
    tools tools;
    int32_t *prompt;
    size_t n_prompt;
} rig;

static void rig_open(rig *r)
{
    const weft_engine_options options = {.threads = 1};
    cJSON *definitions = json("[{\"type\": \"function\", \"function\": {\"name\": \"calculator\", "
                              "\"description\": \"Computes.\", \"parameters\": {\"type\": \"object\", "
                              "\"properties\": {\"expression\": {\"type\": \"string\"}}, \"required\": "
                              "[\"expression\"]}}}]");
    weft_script script = {0};
    r->model = model_open(data_path("agent/tiny-agent-f16.gguf"), &options);
    CHECK(weft_dialect_open(&r->dialect, r->model, NULL, err));
    CHECK(weft_dialect_begin(r->dialect, NULL, definitions, "What is 17 +4 *3?", WEFT_THINK_AUTO,
                             &script, err));
    CHECK(weft_script_encode(r->model, &script, &r->prompt, NULL, &r->n_prompt, err));
    weft_script_free(&script);
    cJSON_Delete(definitions);
    tools_open(&r->tools);
}

static void rig_close(rig *r)
{
    weft_dialect_close(r->dialect);
    weft_model_close(r->model);
    tools_close(&r->tools);
    free(r->prompt);
}

/* Samples a turn behind the first `known` ids of `before` (NULL: none). */
static void sample(const rig *r, const weft_turn_options *options, uint64_t seed, bool jump,
                   const sampled *before, size_t known, sampled *out)
{
    const weft_sampler sampler = {.temperature = 1, .top_p = 1, .repeat_penalty = 1, .seed = seed};
    weft_timeline *timeline = NULL;
    weft_turn *turn = NULL;
    weft_turn_delta delta = {0};
    memset(out, 0, sizeof *out);
    CHECK(weft_timeline_open(&timeline, r->model, NULL, r->prompt, r->n_prompt, err));
    CHECK(weft_turn_begin(&turn, r->dialect, options, err));
    while (!delta.ended && out->n < IDS_MAX) {
        int32_t id;
        bool forced = weft_turn_forced(turn, &id);
        if (out->n < known) {
            assert_true(forced == before->forced[out->n]);
            id = before->id[out->n];
        } else if (!forced || !jump) {
            CHECK(weft_timeline_evaluate(timeline, NULL, NULL, err));
            CHECK(weft_timeline_sample(timeline, &sampler, weft_turn_mask(turn), &id, NULL, err));
            out->passes++;
        }
        CHECK(weft_timeline_append(timeline, &id, 1, err));
        CHECK(weft_turn_accept(turn, id, &delta, err));
        out->forced[out->n] = forced;
        out->n_forced += forced;
        out->id[out->n++] = id;
    }
    CHECK(weft_timeline_evaluate(timeline, NULL, NULL, err));
    weft_blake2b_of(NULL, 0, weft_timeline_logits(timeline),
                    sizeof(float) * (size_t)weft_model_get_info(r->model)->n_vocab, out->digest);
    weft_turn_free(turn);
    weft_timeline_close(timeline);
}

static void same(const sampled *a, const sampled *b)
{
    assert_int_equal(a->n, b->n);
    assert_memory_equal(a->id, b->id, a->n * sizeof *a->id);
    assert_memory_equal(a->forced, b->forced, a->n * sizeof *a->forced);
    assert_memory_equal(a->digest, b->digest, sizeof a->digest);
}

static void test_same_ids_fewer_passes(void **state)
{
    rig r = {0};
    size_t forced = 0, in_calls = 0, resumed = 0;
    rig_open(&r);
    for (uint64_t seed = 0; seed < 12; seed++) {
        weft_turn_options o = {.tools = r.tools.list, .n_tools = 3};
        if (seed % 3) o.choice = WEFT_CHOICE_REQUIRED, o.think_budget = 1 + (int64_t)(seed % 5);
        if (seed % 3 == 2) o.only = "file_write";
        static sampled plain, jumped, again;
        sample(&r, &o, seed, false, NULL, 0, &plain);
        sample(&r, &o, seed, true, NULL, 0, &jumped);
        same(&plain, &jumped);
        assert_int_equal(plain.passes, plain.n);
        assert_int_equal(jumped.passes, plain.n - plain.n_forced);
        forced += plain.n_forced;
        in_calls += plain.n;
        /* killed at any token and resumed from the ids alone, also between two forced ones */
        for (size_t known = seed % 7; known < plain.n; known += 1 + known / 5) {
            sample(&r, &o, seed, true, &plain, known, &again);
            same(&plain, &again);
            resumed++;
        }
    }
    print_message("%zu of %zu tokens were forced; %zu turns resumed\n", forced, in_calls, resumed);
    assert_true(forced > in_calls / 20 && resumed > 50);
    rig_close(&r);
}

/* ---- the spelling ---- */

/* Text that is forced from the turn's state, found by trying every byte. */
static size_t forced_text(const weft_turn *turn, char *out, size_t size)
{
    weft_turn_state state = turn->state;
    for (size_t n = 0; n < size; n++) {
        weft_turn_state next = state, only;
        int ways = weft_turn_state_may_end(turn->plan, &state) ? 2 : 0;
        for (unsigned byte = 0; byte < 256 && ways < 2; byte++) {
            unsigned events;
            next = state;
            if (!weft_turn_state_step(turn->plan, &next, (uint8_t)byte, &events)) continue;
            ways++;
            only = next;
            out[n] = (char)byte;
        }
        if (ways != 1) return n;
        state = only;
    }
    return size;
}

/* The mask has each id that the turn accepts; where it has fewer, the text is forced and the one it
 * has leaves some of it. Returns whether it was so. */
static bool check_mask(const vocab *v, weft_turn *turn)
{
    const weft_mask *mask = weft_turn_mask(turn);
    size_t n_vocab = weft_tokenizer_size(v->tokenizer), accepts = 0;
    int32_t only = -1;
    char text[256];
    assert_non_null(mask);
    bool single = weft_turn_forced(turn, &only);
    assert_true(single == (mask->n_allowed == 1) && (!single || bit(mask->allowed, (size_t)only)));
    if (!single || turn->forced >= 0) return false;
    size_t n = forced_text(turn, text, sizeof text);
    weft_text bytes = weft_tokenizer_bytes(v->tokenizer, only, false);
    for (size_t id = 0; id < n_vocab; id++) {
        weft_text other = weft_tokenizer_bytes(v->tokenizer, (int32_t)id, false);
        size_t shared = other.size < n ? other.size : n;
        accepts += other.size > 0 && weft_trie_has(v->dialect->trie, (int32_t)id) &&
                   memcmp(other.data, text, shared) == 0;
    }
    if (accepts == 1) return false;
    assert_true(bytes.size < n && memcmp(bytes.data, text, bytes.size) == 0);
    return true;
}

/* Calls as models write them, in the tokenizer's own tokens: each is allowed, and some are forced. */
static void test_canonical_calls(void **state)
{
    static const char *const texts[] = {
        "<tool_call>\n{\"name\": \"calculator\", \"arguments\": {\"expression\": \"1+2\"}}\n</tool_call>",
        "<tool_call>\n{\"name\":\"calculator\",\"arguments\":{\"expression\":\"1+2\"}}\n</tool_call>",
        "```json\n{\n  \"name\": \"calculator\",\n  \"arguments\": {\n    \"expression\": \"1+2\"\n  }\n}\n```",
        ("{\"name\": \"file_write\", \"arguments\": {\"path\": \"a b\", \"mode\": \"append\", \"lines\": [\"x\", "
        "\"y\"], \"size\": -12}}"),
        "{\"name\":\"file_write\",\"arguments\":{\"path\":\"a\",\"mode\":\"new\",\"lines\":[],\"size\":1}}",
        "<tools>\n{\n\"name\": \"file_write\",\n\"arguments\": {\n\"path\": \"a\",\n\"lines\": [\n\"x\"\n]\n}\n}\n</tools>",
        "<tool_call>\n{\"name\": \"next_item\", \"arguments\": {}}\n</tool_call>",
    };
    static const char *const models[] = {TINY, "smollm2-135m", "qwen2.5-coder-1.5b"};
    for (size_t m = 0; m < 3; m++) {
        vocab v;
        tools t;
        size_t forced = 0, all = 0;
        if (!vocab_open(&v, models[m])) continue;
        tools_open(&t);
        for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
            weft_turn_options o = {.tools = t.list, .n_tools = 3};
            weft_turn *turn = NULL;
            weft_turn_delta delta;
            size_t n = 0;
            int32_t *ids = spell(&v, texts[i], AS_TOKENS, &n);
            CHECK(weft_turn_begin(&turn, v.dialect, &o, err));
            for (size_t k = 0; k < n; k++) {
                forced += check_mask(&v, turn);
                if (!bit(weft_turn_mask(turn)->allowed, (size_t)ids[k])) {
                    weft_text bytes = weft_tokenizer_bytes(v.tokenizer, ids[k], false);
                    fail_msg("%s: [%s]: token %zu [%.*s] is forbidden", models[m], texts[i], k,
                             (int)bytes.size, bytes.data);
                }
                CHECK(weft_turn_accept(turn, ids[k], &delta, err));
            }
            all += n;
            free(ids);
            weft_turn_free(turn);
        }
        print_message("%s: %zu of %zu tokens of calls are forced by their spelling\n", models[m],
                      forced, all);
        assert_true(forced > 0);
        tools_close(&t);
        vocab_close(&v);
    }
}

/* Accepts one of two texts. */
typedef struct either {
    const char *text[2];
} either;

typedef struct either_state {
    uint32_t at, alive;
} either_state;

static bool either_step(const void *context, void *state, uint8_t byte)
{
    const either *e = context;
    either_state *s = state;
    for (uint32_t i = 0; i < 2; i++)
        if ((s->alive >> i & 1) && (uint8_t)e->text[i][s->at] != byte) s->alive &= ~(1u << i);
    s->at++;
    return byte && s->alive;
}

static bool either_may_stop(const void *context, const void *state)
{
    const either *e = context;
    const either_state *s = state;
    for (uint32_t i = 0; i < 2; i++)
        if ((s->alive >> i & 1) && !e->text[i][s->at]) return true;
    return false;
}

static uint64_t either_hash(const void *state)
{
    const either_state *s = state;
    return s->at * 2654435761u ^ s->alive;
}

static bool either_equal(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(either_state)) == 0;
}

/* The tokens taken from the start until there is a choice: they must begin both texts' own. */
static size_t check_either(const vocab *v, const weft_trie *trie, const char *a, const char *b)
{
    const either context = {{a, b}};
    const weft_machine machine = {&context,    sizeof(either_state), either_step, either_may_stop,
                                  either_hash, either_equal};
    weft_masker *masker = NULL;
    either_state at = {0, 3};
    int32_t *ids[2], id = -1;
    size_t n[2], taken = 0;
    CHECK(weft_masker_new(&masker, trie, &machine, &at, err));
    for (size_t i = 0; i < 2; i++)
        CHECK(weft_tokenizer_encode_on(v->tokenizer, (weft_text){context.text[i], strlen(context.text[i])},
                                       &ids[i], &n[i], err));
    for (;; taken++) {
        CHECK(weft_masker_spelling(masker, v->tokenizer, NULL, 0, &at, &id, err));
        if (id < 0) break;
        if (at.alive == 3 && (taken >= n[0] || taken >= n[1] || ids[0][taken] != id || ids[1][taken] != id))
            fail_msg("[%s] or [%s]: token %zu is not both texts'", a, b, taken);
        weft_text bytes = weft_tokenizer_bytes(v->tokenizer, id, false);
        for (size_t i = 0; i < bytes.size; i++)
            assert_true(either_step(&context, &at, (uint8_t)bytes.data[i]));
    }
    free(ids[0]);
    free(ids[1]);
    weft_masker_free(masker);
    return taken;
}

/* Two texts that agree up to any byte: no token is taken that the rest would change. Gemma's is a
 * SentencePiece vocabulary. */
static void test_stops_before_a_merge(void **state)
{
    static const char text[] = "name\": \"read_file_lines\", \"arguments\": {\"expression\": \"";
    static const char *const tails[] = {"\"", " ", "x", "ing\": 1", ", \"", "9"};
    static const char *const models[] = {TINY, "smollm2-135m", "qwen2.5-coder-1.5b", "gemma3-270m"};
    for (size_t m = 0; m < 4; m++) {
        vocab v;
        weft_trie *trie = NULL;
        size_t taken = 0;
        if (!vocab_find(&v, models[m])) continue;
        CHECK(weft_trie_new(&trie, v.tokenizer, NULL, 0, err));
        for (size_t cut = 1; cut + 1 < sizeof text; cut++)
            for (size_t i = 0; i < sizeof tails / sizeof *tails; i++) {
                char other[sizeof text + 16];
                if (tails[i][0] == text[cut]) continue;
                snprintf(other, sizeof other, "%.*s%s", (int)cut, text, tails[i]);
                taken += check_either(&v, trie, text, other);
            }
        print_message("%s: %zu tokens taken\n", models[m], taken);
        assert_true(taken > 100);
        weft_trie_free(trie);
        vocab_close(&v);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_ids_fewer_passes),
        cmocka_unit_test(test_canonical_calls),
        cmocka_unit_test(test_stops_before_a_merge),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
