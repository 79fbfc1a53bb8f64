/* Turns in DeepSeek's dialects: what a turn was, what may follow what. Malformed calls are in
 * test_dsml_malformed.c; how texts are written, in dsml_test.h. */
#include "tests/engine/dsml_test.h"

#define BLOCK(inside) "<~function_calls>\n" inside "\n</~function_calls>"
#define INVOKE(name, inside) "<~invoke name=\"" name "\">\n" inside "\n</~invoke>"
#define TEXT(key, value) "<~parameter name=\"" key "\" string=\"true\">" value "</~parameter>"
#define JSON(key, value) "<~parameter name=\"" key "\" string=\"false\">" value "</~parameter>"
#define CALC INVOKE("calculator", TEXT("expression", "1+2"))
#define CALLED " calculator{\"expression\":\"1+2\"}"

enum { ENDED = 1, THOUGHT = 2, UNMASKED = 4 };

/* Outcomes name segments and calls, not the calls' text. */
static const struct {
    const char *text, *want;
    int flags;
} turns[] = {
    {"Hello.", "A(Hello.)", ENDED},
    {"", "A()", ENDED},
    {"a < b </ c <~", NULL, 0},
    {"plan</think>Three.", "T(plan)A(Three.)", ENDED | THOUGHT},
    {"plan", "T(plan)", THOUGHT},
    {"plan</think>", "T(plan)A()", ENDED | THOUGHT},
    {"\n\n" BLOCK(CALC), "C" CALLED, ENDED},
    {"plan</think>\n\n" BLOCK(CALC), "T(plan)C" CALLED, ENDED | THOUGHT},
    {"plan</think>Let me see.\n\n" BLOCK(CALC), "T(plan)T(Let me see.)C" CALLED, ENDED | THOUGHT},
    {"\n\n" BLOCK(CALC "\n" INVOKE("next_item", "")), "C" CALLED " next_item{}", ENDED},
    {"\n\n" BLOCK(INVOKE("file_write", TEXT("path", "a \"b\"\\c </x> &<") "\n" JSON(
                                           "lines", "[\"x </\", \"~y\"]"))),
     NULL, UNMASKED},
    {"\n\n" BLOCK(INVOKE("file_write",
                         TEXT("path", "a \"b\"\\c </x> &<") "\n" TEXT("mode", "append") "\n" JSON(
                             "lines", "[\"x </\", \"\\\"y\"]") "\n" JSON("size", "-12"))),
     "C file_write{\"path\":\"a \\\"b\\\"\\\\c </x> &<\",\"mode\":\"append\",\"lines\":[\"x "
     "</\",\"\\\"y\"],\"size\":-12}",
     ENDED},
    {"\n\n" BLOCK(INVOKE("calculator", TEXT("expression", "line\nline\t</<</"))),
     "C calculator{\"expression\":\"line\\nline\\t</<</\"}", ENDED},
    /* cut */
    {"\n\n<~function_calls>\n<~invoke name=\"calculator\">\n<~parameter name=\"expression\" "
     "string=\"true\">1+",
     "C calculator!", 0},
    {"\n\n<~", "C !", 0},
    {"\n\n<~function_calls>\n" CALC "\n", "C" CALLED, 0},
};

static char *short_outcome(weft_turn *turn)
{
    char *whole = outcome(turn);
    weft_buffer out = WEFT_BUFFER_INIT;
    const weft_turn_result *r = NULL;
    CHECK(weft_turn_finish(turn, &r, err));
    for (size_t i = 0; i < r->n_segment; i++) {
        bool call = r->segment[i].segment == WEFT_CALL;
        weft_buffer_printf(&out,
                           call                                    ? "C"
                           : r->segment[i].segment == WEFT_THOUGHT ? "T(%s)"
                                                                   : "A(%s)",
                           r->segment[i].text);
    }
    for (size_t i = 0; i < r->n_call; i++) {
        weft_buffer_printf(&out, " %s", r->call[i].name);
        if (r->call[i].error) {
            weft_buffer_putc(&out, '!');
        } else {
            weft_json_compact(r->call[i].arguments, &out);
        }
    }
    free(whole);
    return weft_buffer_take(&out);
}

static void check_turn(size_t i, const weft_turn_options *options, bool bytes)
{
    size_t n = 0;
    stream shown = {WEFT_BUFFER_INIT, -1};
    weft_turn *turn = begin(options);
    int32_t *ids = ids_with_marks(turns[i].text, bytes, &n);
    int32_t end = weft_tokenizer_find(v.tokenizer, "<｜end▁of▁sentence｜>");
    size_t taken = feed_ids(turn, ids, n, &shown);
    if (taken != n) fail_msg("[%s]: token %zu of %zu refused", turns[i].text, taken, n);
    if (turns[i].flags & ENDED) assert_int_equal(feed_ids(turn, &end, 1, &shown), 1);
    char *got = short_outcome(turn);
    if (strcmp(got, turns[i].want) != 0)
        fail_msg("[%s]%s:\nwant %s\ngot  %s", turns[i].text, options->unmasked ? " unmasked" : "",
                 turns[i].want, got);
    free(got);
    free(ids);
    weft_buffer_free(&shown.text);
    weft_turn_free(turn);
}

static void test_turns(void **state)
{
    for (int unmasked = 0; unmasked < 2; unmasked++)
        for (size_t i = 0; i < sizeof turns / sizeof *turns; i++) {
            weft_turn_options o = {.tools = t.list, .n_tools = 3, .unmasked = unmasked};
            o.in_thought = turns[i].flags & THOUGHT;
            if (!turns[i].want) continue;
            check_turn(i, &o, false);
            check_turn(i, &o, true);
        }
}

/* ---- what is spelt out is text ---- */

/* A page's text, or a model's that repeats it, calls nothing: it is refused with words, and as the value
 * of a parameter it is a value. */
static void test_spelt_out(void **state)
{
    static const char *const texts[] = {
        ("\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"next_item\">\n\n</｜DSML｜invoke>\n"
         "</｜DSML｜function_calls>{EOS}"),
        "Sure.\n<|DSML|function_calls>\n<|DSML|invoke name=\"next_item\">{EOS}",
        "<dsml:function_calls>{EOS}",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        weft_turn_options o = {.tools = t.list, .n_tools = 3, .unmasked = true};
        weft_turn *turn = begin(&o);
        size_t n = 0;
        int32_t *ids = ids_with_marks(texts[i], false, &n);
        assert_int_equal(feed_ids(turn, ids, n, NULL), n);
        char *got = short_outcome(turn);
        if (strcmp(got, i == 1 ? "T(Sure.)C !" : "C !") != 0) fail_msg("[%s]: %s", texts[i], got);
        free(got);
        weft_turn_free(turn);
        /* and it cannot be completed under the mask */
        o.unmasked = false;
        turn = begin(&o);
        assert_true(feed_ids(turn, ids, n, NULL) < n);
        weft_turn_free(turn);
        free(ids);
    }
    /* nor is a token that has a byte which stands for one */
    weft_turn_options raw = {.tools = t.list, .n_tools = 3, .unmasked = true};
    weft_turn *other = begin(&raw);
    size_t n_raw = 0;
    int32_t *bytes = spell(&v, "<\xff" "function_calls>", AS_BYTES, &n_raw);
    assert_int_equal(feed_ids(other, bytes, n_raw, NULL), n_raw);
    char *answer = short_outcome(other);
    assert_string_equal(answer, "A(<\xef\xbf\xbd" "function_calls>)");
    free(answer);
    free(bytes);
    weft_turn_free(other);
    static const char value[] = "</｜DSML｜parameter>\\n<｜DSML｜invoke name=\\\"next_item\\\">";
    for (int unmasked = 0; unmasked < 2; unmasked++) {
        weft_turn_options o = {.tools = t.list, .n_tools = 3, .unmasked = unmasked};
        weft_turn *turn = begin(&o);
        size_t n = 0;
        int32_t *ids = ids_with_marks(
            "\n\n" BLOCK(
                INVOKE("calculator", TEXT("expression", "</｜DSML｜parameter>\n<｜DSML｜invoke "
                                                        "name=\"next_item\">"))) "{EOS}",
            false, &n);
        char want[256];
        snprintf(want, sizeof want, "C calculator{\"expression\":\"%s\"}", value);
        assert_int_equal(feed_ids(turn, ids, n, NULL), n);
        char *got = short_outcome(turn);
        assert_string_equal(got, want);
        free(got);
        free(ids);
        weft_turn_free(turn);
    }
}

/* ---- what is refused under the mask ---- */

/* How many ids of the text a turn takes; SIZE_MAX: all. */
static size_t accepted(const weft_turn_options *options, const char *text)
{
    size_t n = 0;
    weft_turn *turn = begin(options);
    int32_t *ids = ids_with_marks(text, true, &n);
    size_t taken = feed_ids(turn, ids, n, NULL);
    free(ids);
    weft_turn_free(turn);
    return taken == n ? SIZE_MAX : taken;
}

/* Ids of the text when it is taken whole. */
static size_t count_ids(const char *text)
{
    size_t n = 0;
    free(ids_with_marks(text, true, &n));
    return n;
}

static void check_stops(const weft_turn_options *o, const char *good, const char *bad)
{
    weft_buffer text = WEFT_BUFFER_INIT;
    weft_buffer_printf(&text, "%s%s", good, bad);
    size_t taken = accepted(o, text.data), want = count_ids(good);
    if (taken != want) fail_msg("[%s|%s]: stops at %zu, not %zu", good, bad, taken, want);
    weft_buffer_free(&text);
}

#define OPEN "\n\n<~function_calls>\n<~invoke name=\""
#define WRITE OPEN "file_write\">\n"

static void test_refused(void **state)
{
    weft_turn_options o = {.tools = t.list, .n_tools = 3};
    check_stops(&o, "x ", "~");
    check_stops(&o, "x </", "~");
    check_stops(&o, "x ", "{BEGIN}");
    check_stops(&o, "x ", "<think>");
    check_stops(&o, "\n\n<~", "invoke");
    check_stops(&o, OPEN "cal", "x");
    check_stops(&o, OPEN "next_item", "s");
    check_stops(&o, OPEN "calculator\">\n", "\n");         /* an argument is required */
    check_stops(&o, OPEN "next_item\">\n<~parameter name=\"", "\"");
    check_stops(&o, WRITE "<~parameter name=\"", "lines"); /* path first, in the schema's order */
    check_stops(&o, WRITE "<~parameter name=\"path\" string=\"", "f");
    check_stops(&o, WRITE TEXT("path", "p") "\n<~parameter name=\"lines\" string=\"", "t");
    check_stops(&o, WRITE TEXT("path", "p") "\n<~parameter name=\"", "path");
    check_stops(&o, WRITE TEXT("path", "p") "\n<", "/");
    check_stops(&o, WRITE TEXT("path", "p") "\n<~parameter name=\"mode\" string=\"true\">new",
                "er");
    check_stops(&o, WRITE TEXT("path", "p") "\n<~parameter name=\"mode\" string=\"true\">ne",
                "</~");
    check_stops(&o, WRITE TEXT("path", "p") "\n<~parameter name=\"lines\" string=\"false\">[\"a\"",
                "</~");
    check_stops(&o, WRITE TEXT("path", "p") "\n<~parameter name=\"lines\" string=\"false\">", " ");
    check_stops(&o,
                WRITE TEXT("path", "p") "\n" JSON("lines", "[]") "\n<~parameter name=\"size\" "
                                                                 "string=\"false\">1",
                ".");
    check_stops(&o, WRITE "<~parameter name=\"path\" string=\"true\">a</", "{END}");
    check_stops(&o, WRITE "<~parameter name=\"path\" string=\"true\">a", "~");
    /* forty characters and no more, though '<' may begin the closer */
    check_stops(
        &o,
        WRITE "<~parameter name=\"path\" string=\"true\">1234567890123456789012345678901234567890",
        "1");
    check_stops(
        &o,
        WRITE
        "<~parameter name=\"path\" string=\"true\">1234567890123456789012345678901234567890</",
        "x");
    check_stops(&o, "\n\n" BLOCK(CALC), "\n");
    check_stops(&o, "\n\n<~function_calls>\n" CALC "\n<", "x");
    o.in_thought = true;
    check_stops(&o, "x <", "~");
    check_stops(&o, "x ", "{EOS}");
    o = (weft_turn_options){.tools = t.list, .n_tools = 3, .choice = WEFT_CHOICE_NONE};
    check_stops(&o, "x <", "~");
    o.choice = WEFT_CHOICE_WORDS;
    check_stops(&o, "x\n", "<");
    o = (weft_turn_options){0};
    check_stops(&o, "x <", "~");
}

/* ---- demanded calls, thoughts and their budgets ---- */

static bool only_id(weft_turn *turn, const char *mark)
{
    size_t n = 0;
    int32_t only = -1, *ids = ids_with_marks(mark, true, &n);
    bool same = weft_turn_forced(turn, &only) && only == ids[0];
    free(ids);
    return same;
}

static void feed_marks(weft_turn *turn, const char *text)
{
    size_t n = 0;
    int32_t *ids = ids_with_marks(text, true, &n);
    assert_int_equal(feed_ids(turn, ids, n, NULL), n);
    free(ids);
}

static void test_demanded(void **state)
{
    weft_turn_options o = {.tools = t.list,
                           .n_tools = 3,
                           .choice = WEFT_CHOICE_REQUIRED,
                           .only = "next_item",
                           .think_budget = 3,
                           .in_thought = true};
    weft_turn *turn = begin(&o);
    feed_marks(turn, "ab");
    assert_false(only_id(turn, "</think>"));
    feed_marks(turn, "c");
    assert_true(only_id(turn, "</think>"));
    feed_marks(turn, "</think>");
    /* two newlines, the opener, the only tool: the tokenizer's own ids without a choice */
    static const char whole[] =
        "\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"next_item\">\n";
    size_t n = 0, k = 0;
    int32_t *want = NULL, only;
    weft_span span = {whole, strlen(whole), WEFT_TRUSTED, WEFT_CALL};
    CHECK(weft_tokenizer_encode(v.tokenizer, &span, 1, &want, NULL, &n, err));
    for (weft_turn_delta delta; k < n && weft_turn_forced(turn, &only); k++) {
        assert_int_equal(only, want[k]);
        CHECK(weft_turn_accept(turn, only, &delta, err));
    }
    assert_true(k + 1 >= n);
    free(want);
    weft_turn_free(turn);
    /* an end only behind the block; one that was begun is finished */
    o = (weft_turn_options){
        .tools = t.list, .n_tools = 3, .choice = WEFT_CHOICE_REQUIRED, .think_budget = 2};
    check_stops(&o, "", "{EOS}");
    check_stops(&o, "a<", "b");
    check_stops(&o, "a\n\n", "b");
    assert_int_equal(accepted(&o, "a<~function_calls>\n" CALC "\n</~function_calls>{EOS}"),
                     SIZE_MAX);
}

static void test_in_thought(void **state)
{
    int32_t think = v.dialect->delimiter.think, a = byte_token(&v, 'a'),
            newline = byte_token(&v, '\n');
    const int32_t open[] = {a, think}, r1[] = {think, newline}, far[] = {think, a},
                  none[] = {a, newline};
    assert_true(weft_dialect_in_thought(v.dialect, open, 2));
    assert_true(weft_dialect_in_thought(v.dialect, r1, 2));
    assert_false(weft_dialect_in_thought(v.dialect, far, 2));
    assert_false(weft_dialect_in_thought(v.dialect, none, 2));
    assert_false(weft_dialect_in_thought(v.dialect, open, 0));
}

/* ---- masks and jump-ahead ---- */

static bool bit(const uint32_t *bits, int32_t id)
{
    return bits[id / 32] >> (id % 32) & 1;
}

/* Whether the state takes the token's bytes, tried one after the other. */
static bool takes(const weft_turn *turn, int32_t id)
{
    weft_turn_state s = turn->state;
    weft_text bytes = weft_tokenizer_bytes(v.tokenizer, id, false);
    unsigned events;
    if (!weft_trie_has(v.dialect->trie, id)) return false;
    for (size_t i = 0; i < bytes.size; i++)
        if (!weft_turn_state_step(turn->plan, &s, (uint8_t)bytes.data[i], &events)) return false;
    return true;
}

static void check_mask(weft_turn *turn)
{
    const weft_mask *mask = weft_turn_mask(turn);
    int32_t only, n = (int32_t)weft_tokenizer_size(v.tokenizer);
    assert_non_null(mask);
    if (weft_turn_forced(turn, &only)) return;
    for (int32_t id = 0; id < n; id++) {
        weft_token_kind kind = weft_tokenizer_kind(v.tokenizer, id);
        if (kind == WEFT_TOKEN_CONTROL || kind == WEFT_TOKEN_USER) continue;
        if (bit(mask->allowed, id) != takes(turn, id))
            fail_msg("token %d: mask and state disagree", id);
    }
}

static uint32_t draw(uint32_t *seed)
{
    *seed = *seed * 1664525 + 1013904223;
    return *seed >> 8;
}

/* Half of the time one of the tokens that lead on in a call, else any that the mask has. */
static int32_t choose(weft_turn *turn, uint32_t *seed)
{
    static const char *const words[] = {"~",  "<",     "</",       "\n", "\n\n", ">",
                                        "\"", "{EOS}", "</think>", "]",  "1"};
    const weft_mask *mask = weft_turn_mask(turn);
    int32_t n = (int32_t)weft_tokenizer_size(v.tokenizer);
    for (int tries = 0; tries < 12 && (draw(seed) & 3); tries++) {
        size_t count = 0;
        int32_t *ids = ids_with_marks(words[draw(seed) % 11], false, &count), id = ids[0];
        free(ids);
        if (bit(mask->allowed, id)) return id;
    }
    for (int32_t id = (int32_t)(draw(seed) % (uint32_t)n);; id = (id + 1) % n)
        if (bit(mask->allowed, id)) return id;
}

/* A masked turn that ended holds only calls that are right, whatever was drawn. */
static void test_random_turns(void **state)
{
    size_t ended = 0, calls = 0, masks = 0;
    for (uint32_t walk = 0; walk < 60; walk++) {
        uint32_t seed = walk * 7919 + 1;
        weft_turn_options o = {.tools = t.list,
                               .n_tools = 3,
                               .think_budget = 6,
                               .in_thought = walk & 1,
                               .choice = walk % 3 ? WEFT_CHOICE_REQUIRED : WEFT_CHOICE_AUTO};
        weft_turn *turn = begin(&o);
        weft_turn_delta delta = {0};
        for (size_t i = 0; i < 200 && !delta.ended; i++) {
            if (walk < 12 && i % 13 == walk) check_mask(turn), masks++;
            CHECK(weft_turn_accept(turn, choose(turn, &seed), &delta, err));
        }
        const weft_turn_result *r = NULL;
        CHECK(weft_turn_finish(turn, &r, err));
        for (size_t i = 0; i < r->n_call && delta.ended; i++) {
            const weft_turn_call *c = &r->call[i];
            if (c->error && !strstr(c->error, "stands twice")) fail_msg("%s: %s", c->raw, c->error);
            for (size_t k = 0; k < 3; k++)
                if (!c->error && strcmp(c->name, t.list[k].name) == 0)
                    CHECK(weft_schema_check(t.schema[k], c->arguments, err));
        }
        ended += delta.ended;
        calls += r->n_call;
        weft_turn_free(turn);
    }
    print_message("%zu of 60 turns ended, with %zu calls; %zu masks compared\n", ended, calls,
                  masks);
    assert_true(ended > 20 && calls > 20);
}

/* Calls in the tokenizer's own ids: each is allowed, and most of the frame is forced. */
static void test_forced(void **state)
{
    static const char *const texts[] = {
        "\n\n" BLOCK(CALC),
        "\n\n" BLOCK(INVOKE("next_item", "")),
        "\n\n" BLOCK(INVOKE("file_write",
                            TEXT("path", "a b") "\n" TEXT("mode", "append") "\n" JSON(
                                "lines", "[\"x\", \"y\"]") "\n" JSON("size", "-12")) "\n" CALC),
    };
    size_t forced = 0, all = 0;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        weft_turn_options o = {.tools = t.list, .n_tools = 3};
        weft_turn *turn = begin(&o);
        weft_turn_delta delta;
        size_t n = 0;
        int32_t *ids = ids_with_marks(texts[i], false, &n), only;
        for (size_t k = 0; k < n; k++) {
            bool single = weft_turn_forced(turn, &only);
            if (!bit(weft_turn_mask(turn)->allowed, ids[k]))
                fail_msg("[%s]: token %zu is forbidden", texts[i], k);
            if (single) assert_int_equal(only, ids[k]);
            forced += single;
            CHECK(weft_turn_accept(turn, ids[k], &delta, err));
        }
        assert_true(only_id(turn, "{EOS}"));
        all += n;
        free(ids);
        weft_turn_free(turn);
    }
    print_message("%zu of %zu tokens of calls are forced\n", forced, all);
    assert_true(forced > all / 2);
}

/* ---- the earlier formats ---- */

static void check_family(const char *source, const char *text)
{
    vocab other;
    deepseek_open_as(&other, "deepseek2", source);
    vocab kept = v;
    v = other;
    for (int unmasked = 0; unmasked < 2; unmasked++) {
        weft_turn_options o = {.tools = t.list, .n_tools = 3, .unmasked = unmasked};
        weft_turn *turn = begin(&o);
        size_t n = 0;
        int32_t *ids = ids_with_marks(text, false, &n), only;
        size_t forced = 0;
        for (size_t k = 0; k < n; k++) {
            weft_turn_delta delta;
            forced += weft_turn_forced(turn, &only);
            CHECK(weft_turn_accept(turn, ids[k], &delta, err));
        }
        char *got = short_outcome(turn);
        assert_string_equal(got, "T(Well.)C calculator{\"expression\":\"1+2\"} next_item{}");
        assert_true(unmasked || forced > 5);
        free(got);
        free(ids);
        weft_turn_free(turn);
    }
    weft_turn_options o = {.tools = t.list, .n_tools = 3};
    check_stops(&o, "x <", "~");
    check_stops(&o, "x", "{CALL}");
    check_stops(&o, "x{BEGIN}", "calculator");
    o.in_thought = true;
    check_stops(&o, "x", "{BEGIN}");
    v = kept;
    vocab_close(&other);
}

static void test_earlier_formats(void **state)
{
    check_family(
        "'<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>' </think>",
        "Well.{BEGIN}{CALL}calculator{SEP}{\"expression\": \"1+2\"}{END}{CALL}next_item{SEP}{}"
        "{END}{ENDS}{EOS}");
    check_family(
        "'<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>' ```json",
        "Well.{BEGIN}{CALL}function{SEP}calculator\n```json\n{\"expression\": "
        "\"1+2\"}\n```{END}\n{CALL}function{SEP}next_item\n```json\n{}\n```{END}{ENDS}{EOS}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_turns),        cmocka_unit_test(test_spelt_out),
        cmocka_unit_test(test_refused),      cmocka_unit_test(test_demanded),
        cmocka_unit_test(test_in_thought),   cmocka_unit_test(test_random_turns),
        cmocka_unit_test(test_forced),       cmocka_unit_test(test_earlier_formats),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
