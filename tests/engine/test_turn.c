/* The recogniser: what a turn was, whatever tokens spelt it; what may follow what; what is shown
 * when; and that a malformed call is never an answer and never a guess. */
#include "tests/engine/turn_test.h"

#define CALC "{\"name\": \"calculator\", \"arguments\": {\"expression\": \"1+2\"}}"
#define NEXT "{\"name\": \"next_item\", \"arguments\": {}}"
#define SPACED                                                                                     \
    "{\n  \"name\": \"calculator\",\n  \"arguments\": {\n    \"expression\": \"1+2\"\n  }\n}"
#define CALLED " calculator{\"expression\":\"1+2\"}"

enum { ENDED = 1, THINKS = 2 };

static const struct {
    const char *text, *want;
    int flags;
} turns[] = {
    /* answers */
    {"Hello there.", "A(Hello there.)", ENDED},
    {"", "A()", ENDED},
    {"a < b, <tools are fun, ``` and <tool_cal", "A(a < b, <tools are fun, ``` and <tool_cal)",
     ENDED},
    {"It is {\"name\": \"calculator\", \"arguments\": {}} here.",
     "A(It is {\"name\": \"calculator\", \"arguments\": {}} here.)", ENDED},
    {"```json\n{\"name\": \"Bob\", \"age\": 3}\n```",
     "A(```json\n{\"name\": \"Bob\", \"age\": 3}\n```)", ENDED},
    {"{\"name\": \"calculato", "A({\"name\": \"calculato)", ENDED},
    {"{\"name\": \"calculators\", \"arguments\": {}}",
     "A({\"name\": \"calculators\", \"arguments\": {}})", ENDED},
    {"{\"title\": \"calculator\"}", "A({\"title\": \"calculator\"})", ENDED},
    {"<tools>\nnone\n</tools>", "A(<tools>\nnone\n</tools>)", ENDED},
    {"```python\nx = {}\n```\nDone.", "A(```python\nx = {}\n```\nDone.)", ENDED},
    {"cut answer", "A(cut answer)", 0},
    /* every form of call */
    {"<tool_call>\n" CALC "\n</tool_call>", "C(" CALC ")" CALLED, ENDED},
    {"<tool_call>\n" CALC, "C(" CALC ")" CALLED, ENDED},
    {"<tool_call>" CALC "</tool_call>\n", "C(" CALC ")" CALLED, ENDED},
    {"```json\n" CALC "\n```", "C(" CALC ")" CALLED, ENDED},
    {"```json\n" SPACED "\n```", "C(" SPACED ")" CALLED, ENDED},
    {CALC, "C(" CALC ")" CALLED, ENDED},
    {CALC "\n```", "C(" CALC ")" CALLED, ENDED},
    {"  " CALC, "C(" CALC ")" CALLED, ENDED},
    {"<tools>\n" CALC "\n</tools>", "C(" CALC ")" CALLED, ENDED},
    /* prose before a call is thought */
    {"Let me see.\n<tool_call>\n" CALC "\n</tool_call>", "T(Let me see.)C(" CALC ")" CALLED, ENDED},
    {"Let me see. <tool_call>\n" NEXT "\n</tool_call>", "T(Let me see. )C(" NEXT ") next_item{}",
     ENDED},
    {"I compute:\n\n```json\n" CALC "\n```\n", "T(I compute:)C(" CALC ")" CALLED, ENDED},
    {"Sure.\n" CALC, "T(Sure.)C(" CALC ")" CALLED, ENDED},
    {"{\"name\": \"x\"}\n" CALC, "T({\"name\": \"x\"})C(" CALC ")" CALLED, ENDED},
    {"<tool_<tool_call>\n" NEXT, "T(<tool_)C(" NEXT ") next_item{}", ENDED},
    /* several */
    {"<tool_call>\n" CALC "\n</tool_call>\n<tool_call>\n" NEXT "\n</tool_call>",
     "C(" CALC ")C(" NEXT ")" CALLED " next_item{}", ENDED},
    {"```json\n" CALC "\n```\n\n```json\n" NEXT "\n```",
     "C(" CALC ")C(" NEXT ")" CALLED " next_item{}", ENDED},
    {CALC "\n" NEXT, "C(" CALC ")C(" NEXT ")" CALLED " next_item{}", ENDED},
    /* cut */
    {"<tool_call>\n{\"name\": \"calculator\", \"argum", "C({\"name\": \"calculator\", \"argum) !",
     0},
    {"<tool_call>", "C() !", 0},
    {"Well.\n{\"name\": \"next_item\", ", "T(Well.)C({\"name\": \"next_item\",) !", 0},
    {"<tool_call>\n" CALC, "C(" CALC ")" CALLED, 0},
    /* thoughts */
    {"<think>\ndo 1+2\n</think>\n\n<tool_call>\n" CALC "\n</tool_call>",
     "T(do 1+2)C(" CALC ")" CALLED, ENDED | THINKS},
    {"<think>\nplan <tool_call> " CALC "\n</think>\n\nThree.",
     "T(plan <tool_call> " CALC ")A(Three.)", ENDED | THINKS},
    {"<think>\nhm\n</think>\n\n", "T(hm)A()", ENDED | THINKS},
    {"<think>\nhm", "T(hm)", THINKS},
    {"<think>\nhm", "T(hm)A()", ENDED | THINKS},
    {"<think>\n\n</think>\n\nHi \xe4\xbd\xa0\xe5\xa5\xbd \xf0\x9f\x98\x80",
     "T()A(Hi \xe4\xbd\xa0\xe5\xa5\xbd "
     "\xf0\x9f\x98\x80)",
     ENDED | THINKS},
};

static weft_turn *begin(const vocab *v, const weft_turn_options *options)
{
    weft_turn *turn = NULL;
    CHECK(weft_turn_begin(&turn, v->dialect, options, err));
    return turn;
}

static void check_turn(const vocab *v, const weft_turn_options *options, size_t index, spelling how)
{
    size_t n = 0;
    stream shown = {WEFT_BUFFER_INIT, -1};
    weft_turn *turn = begin(v, options);
    int32_t *ids = spell(v, turns[index].text, how, &n), end = end_id(v);
    size_t taken = feed_ids(turn, ids, n, &shown);
    if (taken != n) fail_msg("[%s]: token %zu of %zu refused", turns[index].text, taken, n);
    if (turns[index].flags & ENDED) assert_int_equal(feed_ids(turn, &end, 1, &shown), 1);
    char *got = outcome(turn);
    if (strcmp(got, turns[index].want) != 0)
        fail_msg("[%s] spelt %d:\nwant %s\ngot  %s", turns[index].text, how, turns[index].want,
                 got);
    free(got);
    free(ids);
    weft_buffer_free(&shown.text);
    weft_turn_free(turn);
}

static void test_turns(void **state)
{
    static const char *const models[] = {TINY, "smollm2-135m", "qwen2.5-coder-1.5b"};
    for (size_t m = 0; m < 3; m++) {
        vocab v;
        tools t;
        if (!vocab_open(&v, models[m])) continue;
        tools_open(&t);
        for (int unmasked = 0; unmasked < 2; unmasked++) {
            weft_turn_options options = {.tools = t.list, .n_tools = 3, .unmasked = unmasked};
            for (size_t i = 0; i < sizeof turns / sizeof *turns; i++) {
                bool thinks = turns[i].flags & THINKS;
                if (thinks && !weft_dialect_thinks(v.dialect)) continue;
                for (spelling how = AS_TOKENS; how <= (thinks ? AS_TOKENS : AS_BYTES); how++)
                    check_turn(&v, &options, i, how);
            }
        }
        tools_close(&t);
        vocab_close(&v);
    }
}

/* ---- what is shown ---- */

static void check_shown(const vocab *v, const weft_turn_options *options, const char *text,
                        const char *want)
{
    for (spelling how = AS_TOKENS; how <= AS_BYTES; how++) {
        size_t n = 0;
        stream shown = {WEFT_BUFFER_INIT, -1};
        weft_turn *turn = begin(v, options);
        int32_t *ids = spell(v, text, how, &n), end = end_id(v);
        assert_int_equal(feed_ids(turn, ids, n, &shown), n);
        feed_ids(turn, &end, 1, &shown);
        assert_string_equal(weft_buffer_str(&shown.text), want);
        weft_buffer_free(&shown.text);
        free(ids);
        weft_turn_free(turn);
    }
}

static void test_shown(void **state)
{
    vocab v;
    tools t;
    assert_true(vocab_open(&v, TINY));
    tools_open(&t);
    weft_turn_options options = {.tools = t.list, .n_tools = 3};
    check_shown(&v, &options, "Hi \xe4\xbd\xa0\xf0\x9f\x98\x80!",
                "T(Hi \xe4\xbd\xa0\xf0\x9f\x98\x80!");
    check_shown(&v, &options, "So:\n```json\n" CALC "\n```", "T(So:\n)C(" CALC);
    check_shown(&v, &options, "So <tool_call>\n" CALC "\n</tool_call>", "T(So )C(" CALC);
    check_shown(&v, &options, "{\"name\": \"Bob\"}", "T({\"name\": \"Bob\"}");
    check_shown(&v, &options, "1 < 2 <tool", "T(1 < 2 <tool");
    options.choice = WEFT_CHOICE_NONE;
    check_shown(&v, &options, "Hi", "A(Hi");
    options = (weft_turn_options){0};
    check_shown(&v, &options, "Hi", "A(Hi");
    tools_close(&t);
    vocab_close(&v);
}

/* An opener under way is held back, and let go once it is none. */
static void test_held_back(void **state)
{
    vocab v;
    tools t;
    weft_turn_delta delta;
    assert_true(vocab_open(&v, TINY));
    tools_open(&t);
    weft_turn_options options = {.tools = t.list, .n_tools = 3};
    weft_turn *turn = begin(&v, &options);
    size_t n = 0;
    int32_t *ids = spell(&v, "{\"name\": \"calX", AS_BYTES, &n);
    for (size_t i = 0; i < n; i++) {
        CHECK(weft_turn_accept(turn, ids[i], &delta, err));
        assert_string_equal(delta.text, i + 1 < n ? "" : "{\"name\": \"calX");
    }
    free(ids);
    weft_turn_free(turn);
    turn = begin(&v, &options);
    ids = spell(&v, "<tool_call>\n" NEXT, AS_TOKENS, &n);
    bool complete = false;
    for (size_t i = 0; i < n; i++) {
        CHECK(weft_turn_accept(turn, ids[i], &delta, err));
        assert_false(complete);
        complete = delta.call_complete;
        assert_int_equal(delta.segment, WEFT_CALL);
    }
    assert_true(complete);
    free(ids);
    weft_turn_free(turn);
    tools_close(&t);
    vocab_close(&v);
}

/* ---- what is refused ---- */

/* How much of the text a turn accepts, byte for byte. */
static size_t accepted(const vocab *v, const weft_turn_options *options, const char *text,
                       spelling how)
{
    size_t n = 0;
    weft_turn *turn = begin(v, options);
    int32_t *ids = spell(v, text, how, &n);
    size_t taken = feed_ids(turn, ids, n, NULL);
    free(ids);
    weft_turn_free(turn);
    return taken == n ? SIZE_MAX : taken;
}

static void test_refused(void **state)
{
    static const char tag[] = "<tool_call>";
    vocab v;
    tools t;
    assert_true(vocab_open(&v, TINY));
    tools_open(&t);
    weft_turn_options o = {.tools = t.list, .n_tools = 3};
    size_t head = strlen(tag);
    /* once a call is known, only a valid one */
    assert_int_equal(accepted(&v, &o, "<tool_call>hello", AS_BYTES), head);
    assert_int_equal(accepted(&v, &o, "<tool_call>\n\n\n{", AS_BYTES), head + 2);
    assert_int_equal(accepted(&v, &o, "<tool_call>{\"name\": \"calx", AS_BYTES),
                     head + strlen("{\"name\": \"cal"));
    assert_int_equal(accepted(&v, &o, "{\"name\": \"next_item\", \"parameters\"", AS_BYTES),
                     strlen("{\"name\": \"next_item\", \""));
    assert_int_equal(accepted(&v, &o, "{\"name\": \"next_item\"}", AS_BYTES),
                     strlen("{\"name\": \"next_item\""));
    assert_int_equal(accepted(&v, &o,
                              "```json\n{\"name\": \"calculator\", \"arguments\": {\"x\": 1}}",
                              AS_BYTES),
                     strlen("```json\n{\"name\": \"calculator\", \"arguments\": {\""));
    /* after a call only a closer, the next call or the end: no made-up results */
    assert_int_equal(accepted(&v, &o, NEXT "\nThe result", AS_BYTES), strlen(NEXT) + 1);
    assert_int_equal(accepted(&v, &o, NEXT "}", AS_BYTES), strlen(NEXT));
    assert_int_equal(accepted(&v, &o, "<tool_call>\n" NEXT "\n</tool_call>\n\n\n", AS_BYTES),
                     strlen("<tool_call>\n" NEXT "\n</tool_call>\n\n"));
    assert_int_equal(accepted(&v, &o, "<tool_call>\n" NEXT "\n</tool_call></tool_call>", AS_BYTES),
                     strlen("<tool_call>\n" NEXT "\n</tool_call><"));
    assert_int_equal(accepted(&v, &o, NEXT NEXT, AS_BYTES), strlen(NEXT));
    assert_int_equal(accepted(&v, &o, "<tool_call>\n" NEXT "<tool_call>\n" NEXT, AS_BYTES),
                     SIZE_MAX);
    /* a role header, a result, a stray closer cannot be written */
    for (const char *const *id = (const char *const[]){"<|im_start|>", "<tool_response>",
                                                       "</tool_call>", "</think>", NULL};
         *id; id++) {
        weft_turn *turn = begin(&v, &o);
        int32_t token = weft_tokenizer_find(v.tokenizer, *id);
        assert_true(token >= 0);
        assert_int_equal(feed_ids(turn, &token, 1, NULL), 0);
        weft_turn_free(turn);
    }
    /* inside a string a delimiter is text: it must be spelt out, its token is refused */
    static const char in_string[] =
        "<tool_call>{\"name\": \"calculator\", \"arguments\": {\"expression\": \"";
    size_t n = 0;
    int32_t *ids = spell(&v, in_string, AS_TOKENS, &n), closer = v.dialect->delimiter.end_call;
    weft_turn *turn = begin(&v, &o);
    assert_int_equal(feed_ids(turn, ids, n, NULL), n);
    assert_int_equal(feed_ids(turn, &closer, 1, NULL), 0);
    free(ids);
    ids = spell(&v, "</tool_call>\"}}", AS_BYTES, &n);
    assert_int_equal(feed_ids(turn, ids, n, NULL), n);
    free(ids);
    weft_turn_free(turn);
    /* with choice none, no opener can be finished, and JSON that calls nothing is free */
    o.choice = WEFT_CHOICE_NONE;
    assert_int_equal(accepted(&v, &o, "x <tool_call>", AS_BYTES), strlen("x <tool_call"));
    assert_int_equal(accepted(&v, &o, "<tool_call>", AS_TOKENS), 0);
    assert_int_equal(accepted(&v, &o, "```json\n{\"name\": \"calculator\"", AS_BYTES),
                     strlen("```json\n{\"name\": \"calculator"));
    assert_int_equal(accepted(&v, &o, "```json\n{\"name\": \"Bob\"}\n```", AS_BYTES), SIZE_MAX);
    /* with plain words, no line begins as code, JSON or a tag does; inside a line they are text */
    o.choice = WEFT_CHOICE_WORDS;
    for (const char *const *line = (const char *const[]){"{", "[", "<", "`", NULL}; *line; line++) {
        char later[16];
        assert_int_equal(accepted(&v, &o, *line, AS_BYTES), 0);
        snprintf(later, sizeof later, "a\n  %s", *line);
        assert_int_equal(accepted(&v, &o, later, AS_BYTES), strlen("a\n  "));
    }
    assert_int_equal(accepted(&v, &o, "x <tool_call>", AS_BYTES), strlen("x <tool_call"));
    assert_int_equal(accepted(&v, &o, "The set {1, 2} has `a` < 3.\n- so [x].", AS_BYTES), SIZE_MAX);
    tools_close(&t);
    vocab_close(&v);
}

static void test_thinking(void **state)
{
    vocab v;
    tools t;
    assert_true(vocab_open(&v, TINY));
    tools_open(&t);
    const weft_delimiters *d = &v.dialect->delimiter;
    weft_turn_options o = {.tools = t.list, .n_tools = 3, .think = WEFT_THINK_ON};
    weft_turn *turn = begin(&v, &o);
    const weft_mask *mask = weft_turn_mask(turn);
    assert_int_equal(mask->n_allowed, 1);
    assert_true(mask->allowed[d->think / 32] >> (d->think % 32) & 1);
    assert_int_equal(feed_ids(turn, &d->think, 1, NULL), 1);
    assert_true(weft_turn_mask(turn)->n_allowed > 900);
    weft_turn_free(turn);
    o.think = WEFT_THINK_OFF;
    turn = begin(&v, &o);
    assert_int_equal(feed_ids(turn, &d->think, 1, NULL), 0);
    weft_turn_free(turn);
    /* the budget: three tokens, then only the closer, then no second thought */
    o.think = WEFT_THINK_AUTO;
    o.think_budget = 3;
    turn = begin(&v, &o);
    int32_t a = byte_token(&v, 'a');
    const int32_t ids[] = {d->think, a, a, a, a};
    assert_int_equal(feed_ids(turn, ids, 5, NULL), 4);
    mask = weft_turn_mask(turn);
    assert_int_equal(mask->n_allowed, 1);
    assert_int_equal(feed_ids(turn, &d->end_think, 1, NULL), 1);
    assert_int_equal(feed_ids(turn, &d->think, 1, NULL), 0);
    assert_int_equal(feed_ids(turn, &a, 1, NULL), 1);
    weft_turn_free(turn);
    tools_close(&t);
    vocab_close(&v);
}

/* ---- required ---- */

static bool mask_has(const weft_mask *mask, int32_t id)
{
    return mask->allowed[id / 32] >> (id % 32) & 1;
}

static void test_required(void **state)
{
    vocab v;
    tools t;
    assert_true(vocab_open(&v, TINY));
    tools_open(&t);
    weft_turn_options o = {
        .tools = t.list, .n_tools = 3, .choice = WEFT_CHOICE_REQUIRED, .think_budget = 4};
    int32_t a = byte_token(&v, 'a'), newline = byte_token(&v, '\n'), end = end_id(&v);
    const int32_t prose[] = {a, a, a, a};
    weft_turn *turn = begin(&v, &o);
    for (size_t i = 0; i < 4; i++) {
        const weft_mask *mask = weft_turn_mask(turn);
        assert_false(mask_has(mask, end));
        assert_true(mask_has(mask, a));
        assert_int_equal(feed_ids(turn, &prose[i], 1, NULL), 1);
    }
    const weft_mask *mask = weft_turn_mask(turn);
    assert_false(mask_has(mask, end) || mask_has(mask, a) || mask_has(mask, byte_token(&v, '`')));
    assert_true(mask_has(mask, v.dialect->delimiter.call) && mask_has(mask, newline));
    assert_int_equal(feed_ids(turn, &newline, 1, NULL), 1);
    mask = weft_turn_mask(turn);
    assert_true(mask_has(mask, byte_token(&v, '`')) && mask_has(mask, byte_token(&v, '{')));
    size_t n = 0;
    int32_t *ids = spell(&v, "```json\n" NEXT, AS_BYTES, &n);
    assert_int_equal(feed_ids(turn, ids, n, NULL), n);
    assert_true(mask_has(weft_turn_mask(turn), end));
    char *got = outcome(turn);
    assert_string_equal(got, "T(aaaa)C(" NEXT ") next_item{}");
    free(got);
    free(ids);
    weft_turn_free(turn);
    /* one tool alone; another's name in a fence is prose until the budget is used up */
    o.only = "next_item";
    assert_int_equal(accepted(&v, &o, "<tool_call>{\"name\": \"c", AS_BYTES),
                     strlen("<tool_call>{\"name\": \""));
    /* a head that is begun when the budget ends is finished, not thrown away */
    o = (weft_turn_options){
        .tools = t.list, .n_tools = 3, .choice = WEFT_CHOICE_REQUIRED, .think_budget = 5};
    assert_int_equal(accepted(&v, &o, "{\"name\": \"calculator\", \"arguments\": {", AS_BYTES),
                     SIZE_MAX);
    assert_int_equal(accepted(&v, &o, "{\"name\": \"calx", AS_BYTES), strlen("{\"name\": \"cal"));
    o.think_budget = 8;
    assert_int_equal(accepted(&v, &o, "```json\n" NEXT, AS_BYTES), SIZE_MAX);
    assert_int_equal(accepted(&v, &o, "```json\nx", AS_BYTES), strlen("```json\n"));
    /* no budget still ends */
    o.think_budget = 0;
    turn = begin(&v, &o);
    size_t taken = 0;
    while (taken < 1000 && feed_ids(turn, &a, 1, NULL)) taken++;
    assert_int_equal(taken, WEFT_REQUIRED_PROSE);
    weft_turn_free(turn);
    /* what is not offered cannot be required */
    weft_error error = {0};
    o.only = "web_search";
    assert_int_equal(weft_turn_begin(&turn, v.dialect, &o, &error), WEFT_E_INVALID);
    assert_non_null(strstr(error.message, "web_search"));
    tools_close(&t);
    vocab_close(&v);
}

/* ---- malformed calls ---- */

static const struct {
    const char *body;
    bool valid;
    const char *words; /* of the error */
} bodies[] = {
    {CALC, true, NULL},
    {NEXT, true, NULL},
    {"{\"name\":\"calculator\",\"arguments\":{\"expression\":\"a\\\"b{\"}}", true, NULL},
    {"{\"name\": \"calculator\", \"parameters\": {\"expression\": \"1\"}}", true, NULL},
    {"{\"name\": \"calculator\", \"arguments\": \"{\\\"expression\\\": \\\"1\\\"}\"}", true, NULL},
    {"{\"name\": \"calculator\", \"arguments\": {}, \"id\": 7}", true, NULL},
    {"{\"name\": \"calculator\"}", false, "no \"arguments\""},
    {"{\"name\": \"calculator\", \"arguments\": null}", false, "not a JSON object"},
    {"{\"name\": \"calculator\", \"arguments\": \"1+2\"}", false, "not a JSON object"},
    {"{\"name\": \"calculator\", \"arguments\": \"[1]\"}", false, "not a JSON object"},
    {"{\"name\": \"calculator\", \"arguments\": [\"1+2\"]}", false, "not a JSON object"},
    {"{\"name\": \"calculator\", \"arguments\": 3}", false, "not a JSON object"},
    {"{\"name\": \"calculator\", \"arguments\": {}, \"parameters\": {}}", false, "both"},
    {"{\"name\": \"calculator\", \"expression\": \"1+2\"}", false, "no \"arguments\""},
    {"{\"name\": \"calculator\", \"arguments\": {\"expression\": \"1+2\"}", false,
     "not valid JSON"},
    {"{\"name\": \"calculator\", \"arguments\": {\"expression\": \"1+2}}", false, "not valid JSON"},
    {"{\"name\": \"calculator\", \"arguments\": {\"expression\": 1+2}}", false, "not valid JSON"},
    {"{\"name\": \"calculator\", \"arguments\": {'expression': '1'}}", false, "not valid JSON"},
    {"{\"name\": \"calculator\", \"arguments\": {\"expression\": \"1\",}}", false,
     "not valid JSON"},
    {"{\"name\": \"calculator\", \"arguments\": {\"e\": \"1\", \"e\": \"2\"}}", false,
     "not valid JSON"},
    {"{\"name\": \"calculator\", \"arguments\": {\"expression\": \"\xff\"}}", false,
     "not valid JSON"},
    {"{\"name\": \"calculator\", \"arguments\": {\"expression\": \"\\ud800\"}}", false,
     "not valid JSON"},
    {"{\"name\": \"calculator\" \"arguments\": {}}", false, "not valid JSON"},
    {"{\"name\": \"calculator\", \"arguments\": {\"expression\": NaN}}", false, "not valid JSON"},
    {"{\"name\": \"calculator\", // the tool\n\"arguments\": {}}", false, "not valid JSON"},
    /* these only a tag makes a call of */
    {"{\"name\": \"Calculator\", \"arguments\": {}}", false,
     "The tools are: calculator, file_write, next_item."},
    {"{\"name\": \"web_search\", \"arguments\": {}}", false, "no tool \"web_search\""},
    {"{\"name\": \"\", \"arguments\": {}}", false, "names no tool"},
    {"{\"name\": 3, \"arguments\": {}}", false, "names no tool"},
    {"{\"arguments\": {\"expression\": \"1\"}}", false, "names no tool"},
    {"{\"arguments\": {}, \"name\": \"next_item\"}", true, NULL},
    {"{{\"name\": \"calculator\", \"arguments\": {}}}", false, "not valid JSON"},
    {CALC "}", false, "not valid JSON"},
    {CALC " " NEXT, false, "not valid JSON"},
    {"[" CALC "]", false, "names no tool"},
    {"", false, "not valid JSON"},
    {"calculator(1+2)", false, "not valid JSON"},
    {"calculator", false, "not valid JSON"},
    {"\"calculator\"", false, "names no tool"},
    {"null", false, "names no tool"},
    {"<function=calculator>{\"expression\": \"1\"}</function>", false, "not valid JSON"},
    {"{\"name\": \"calculator\", \"arguments\": {\"expression\": \"1\"}}\nok?", false,
     "not valid JSON"},
};
enum { N_BODIES = sizeof bodies / sizeof *bodies, N_STRICT = 25 };

/* An unmasked turn of head, body and tail. */
static weft_turn *foreign_turn(const vocab *v, const tools *t, const char *head, const char *body,
                               const char *tail, spelling how, bool ends)
{
    char text[1024];
    size_t n = 0;
    snprintf(text, sizeof text, "%s%s%s", head, body, tail);
    weft_turn_options o = {.tools = t->list, .n_tools = 3, .unmasked = true};
    weft_turn *turn = begin(v, &o);
    int32_t *ids = spell(v, text, how, &n), end = end_id(v);
    assert_null(weft_turn_mask(turn));
    assert_int_equal(feed_ids(turn, ids, n, NULL), n);
    if (ends) feed_ids(turn, &end, 1, NULL);
    free(ids);
    return turn;
}

/* One call, valid or with words for the model; no answer. */
static void check_call(weft_turn *turn, const char *text, bool valid, const char *words)
{
    const weft_turn_result *r = NULL;
    char *line = outcome(turn);
    CHECK(weft_turn_finish(turn, &r, err));
    if (r->n_call != 1) fail_msg("[%s]: %zu calls: %s", text, r->n_call, line);
    for (size_t i = 0; i < r->n_segment; i++)
        if (r->segment[i].segment == WEFT_ANSWER) fail_msg("[%s] is an answer: %s", text, line);
    if (valid != (r->call[0].error == NULL))
        fail_msg("[%s]: %s", text, r->call[0].error ? r->call[0].error : "no error");
    if (words && !strstr(r->call[0].error, words)) fail_msg("[%s]: %s", text, r->call[0].error);
    free(line);
}

static void test_malformed(void **state)
{
    static const struct {
        const char *head, *tail;
        bool strict; /* a call only if it begins with an offered name */
    } forms[] = {
        {"<tool_call>\n", "\n</tool_call>", false},
        {"<tool_call>", "", false},
        {"I see.\n<tool_call>\n", "\n</tool_call>\n", false},
        {"```json\n", "\n```", true},
        {"", "", true},
        {"Now:\n<tools>\n", "\n</tools>", true},
    };
    static const char *const models[] = {TINY, "smollm2-135m"};
    size_t checked = 0;
    for (size_t m = 0; m < 2; m++) {
        vocab v;
        tools t;
        if (!vocab_open(&v, models[m])) continue;
        tools_open(&t);
        for (size_t f = 0; f < sizeof forms / sizeof *forms; f++)
            for (size_t i = 0; i < (forms[f].strict ? N_STRICT : N_BODIES); i++)
                for (int ends = 0; ends < 2; ends++) {
                    /* spelt-out delimiters inside an open string are text: only tokens end it */
                    spelling how = i % 2 ? AS_TOKENS : AS_TEXT;
                    /* smollm2 cannot write the byte ff */
                    if (m == 1 && strchr(bodies[i].body, '\xff')) continue;
                    weft_turn *turn = foreign_turn(&v, &t, forms[f].head, bodies[i].body,
                                                   forms[f].tail, how, ends);
                    bool cut = !ends && forms[f].strict && !bodies[i].valid;
                    check_call(turn, bodies[i].body, bodies[i].valid,
                               cut || !ends ? NULL : bodies[i].words);
                    weft_turn_free(turn);
                    checked++;
                }
        tools_close(&t);
        vocab_close(&v);
    }
    assert_true(checked >= 200);
}

/* Text after a call of a foreign turn is no answer, and the next call is found. */
static void test_foreign_turns(void **state)
{
    vocab v;
    tools t;
    assert_true(vocab_open(&v, TINY));
    tools_open(&t);
    static const struct {
        const char *text, *want;
    } cases[] = {
        {"<tool_call>\n" CALC "\n</tool_call>\nThe result is 3.\n<tool_call>\n" NEXT
         "\n</tool_call>",
         "C(" CALC ")T(The result is 3.)C(" NEXT ")" CALLED " next_item{}"},
        {"<tool_call>\n{\"name\": \"calculator\", \"arguments\": {\"expression\": "
         "\"1}}\n</tool_call>\n"
         "<tool_call>\n" NEXT "\n</tool_call>",
         "C({\"name\": \"calculator\", \"arguments\": {\"expression\": \"1}})C(" NEXT
         ") ! next_item{}"},
        {"<tool_call>\n" CALC "\n<tool_call>\n" NEXT "\n</tool_call>",
         "C(" CALC ")C(" NEXT ")" CALLED " next_item{}"},
        {CALC "\n\nDone.", "C(" CALC ")T(Done.)" CALLED},
        {"```json\n" CALC "\n```\nDone <x>.", "C(" CALC ")T(Done <x>.)" CALLED},
        {"stray </tool_call> and </think> tags", "A(stray </tool_call> and </think> tags)"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        weft_turn *turn = foreign_turn(&v, &t, "", cases[i].text, "", AS_TOKENS, true);
        char *got = outcome(turn);
        assert_string_equal(got, cases[i].want);
        free(got);
        weft_turn_free(turn);
    }
    tools_close(&t);
    vocab_close(&v);
}

/* Without tools everything is an answer. */
static void test_no_tools(void **state)
{
    vocab v;
    assert_true(vocab_open(&v, TINY));
    weft_turn_options o = {0};
    weft_turn *turn = begin(&v, &o);
    size_t n = 0;
    int32_t *ids = spell(&v, CALC, AS_TOKENS, &n), end = end_id(&v);
    assert_int_equal(feed_ids(turn, ids, n, NULL), n);
    assert_int_equal(feed_ids(turn, &end, 1, NULL), 1);
    assert_int_equal(feed_ids(turn, &end, 1, NULL), 0); /* it has ended */
    char *got = outcome(turn);
    assert_string_equal(got, "A(" CALC ")");
    free(got);
    free(ids);
    weft_turn_free(turn);
    vocab_close(&v);
}

/* Plans are kept from turn to turn, let go on request, and never under a turn. */
static void test_plans(void **state)
{
    vocab v;
    tools t;
    assert_true(vocab_open(&v, TINY));
    tools_open(&t);
    weft_turn_options o = {.tools = t.list, .n_tools = 3};
    weft_turn *a = begin(&v, &o), *b = begin(&v, &o);
    assert_ptr_equal(a->plan, b->plan);
    o.n_tools = 2;
    weft_turn *c = begin(&v, &o);
    assert_ptr_not_equal(a->plan, c->plan);
    weft_dialect_forget(v.dialect);
    weft_turn *d = begin(&v, &o);
    assert_ptr_not_equal(c->plan, d->plan);
    assert_true(weft_turn_mask(a)->n_allowed > 0);
    for (size_t i = 1; i <= 3; i++)
        for (weft_choice choice = WEFT_CHOICE_AUTO; choice <= WEFT_CHOICE_NONE; choice++)
            for (int unmasked = 0; unmasked < 2; unmasked++) {
                o = (weft_turn_options){
                    .tools = t.list, .n_tools = i, .choice = choice, .unmasked = unmasked};
                weft_turn_free(begin(&v, &o));
            }
    size_t kept = 0;
    for (weft_plan *plan = v.dialect->plans; plan; plan = plan->next) kept++;
    assert_int_equal(kept, 9); /* eight, and one in use */
    weft_turn_free(a);
    weft_turn_free(b);
    weft_turn_free(c);
    weft_turn_free(d);
    tools_close(&t);
    vocab_close(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_turns),     cmocka_unit_test(test_shown),
        cmocka_unit_test(test_held_back), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_thinking),  cmocka_unit_test(test_required),
        cmocka_unit_test(test_malformed), cmocka_unit_test(test_foreign_turns),
        cmocka_unit_test(test_no_tools),  cmocka_unit_test(test_plans),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
