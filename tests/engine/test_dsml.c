/* Turns in DeepSeek's dialects: what a turn was, what may follow what, and that none of 455 malformed
 * calls is an answer or runs with arguments that were guessed.
 *
 * In the texts below ~ is the token ｜DSML｜, { and } around a word are the tokens of the older format:
 * {BEGIN}, {CALL}, {SEP}, {END}, {ENDS}, and <think>, </think>, {EOS} are the tokens of those names. */
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
static int mark_at(const char *text)
{
    for (int i = 0; i < N_MARKS; i++)
        if (strncmp(text, marks[i].mark, strlen(marks[i].mark)) == 0) return i;
    return -1;
}

/* Ids of a text with marks; what stands between them as the tokenizer cuts it, or a token a byte. */
static int32_t *ids_with_marks(const char *text, bool bytes, size_t *out_n)
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

static weft_turn *begin(const weft_turn_options *options)
{
    weft_turn *turn = NULL;
    CHECK(weft_turn_begin(&turn, v.dialect, options, err));
    return turn;
}

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

/* ---- 455 malformed calls ---- */

typedef struct argument {
    const char *key, *value; /* as DSML has it */
    bool text;
} argument;

typedef struct written {
    const char *name;
    argument argument[4];
    const char *json; /* the same as JSON */
} written;

/* What the model meant: seven contents of one or two calls. */
enum { N_CONTENTS = 7, N_VARIANTS = 5 };
static const written contents[N_CONTENTS][2] = {
    {{"calculator", {{"expression", "1+2", true}}, "{\"expression\": \"1+2\"}"}},
    {{"calculator",
      {{"expression", "say \"a\\b\"\n= 2", true}},
      "{\"expression\": \"say \\\"a\\\\b\\\"\\n= 2\"}"}},
    {{"calculator",
      {{"expression", "\xe4\xbd\xa0 <b>3</b> &lt;", true}},
      "{\"expression\": \"\xe4\xbd\xa0 <b>3</b> &lt;\"}"}},
    {{"file_write",
      {{"path", "a.txt", true}, {"lines", "[\"x\", \"y\"]", false}},
      "{\"path\": \"a.txt\", \"lines\": [\"x\", \"y\"]}"}},
    {{"file_write",
      {{"path", "b c", true}, {"mode", "new", true}, {"lines", "[]", false}, {"size", "-7", false}},
      "{\"path\": \"b c\", \"mode\": \"new\", \"lines\": [], \"size\": -7}"}},
    {{"calculator", {{"expression", "4*5", true}}, "{\"expression\": \"4*5\"}"},
     {"file_write",
      {{"path", "d", true}, {"lines", "[\"4*5\"]", false}},
      "{\"path\": \"d\", \"lines\": [\"4*5\"]}"}},
    {{"next_item", {{"n", "5", false}}, "{\"n\": 5}"}},
};

/* How a call is written; a variant of a kind says what is not right. */
typedef struct manner {
    const char *before, *block, *newline, *end_argument, *end_invoke, *end_block, *after;
    const char *open_invoke; /* up to the name */
    const char *typed;       /* the attribute's format: "true" or "false" goes in; "": none */
    const char *wrong_json;  /* the first value, said to be no string */
    const char *between;     /* stands before the first argument */
    const char *twice;       /* a second value for the first argument, NULL: none */
    bool type_first;         /* string="..." before name="..." */
    bool object;             /* arguments as one object */
    const char *broken;      /* stands behind that object */
    int old;      /* V3.1's tokens: 1 all, 2 no frame, 3 no ends, 4 no separator, 5 V3's */
    size_t cut;   /* ends behind the cut-th ~ from the end; 0: whole */
    int cut_more; /* characters more, or less */
} manner;

static void write_argument(weft_buffer *out, const argument *a, const manner *m, const char *value)
{
    char type[64] = "", name[64];
    bool text = a->text && !m->wrong_json;
    snprintf(name, sizeof name, " name=\"%s\"", a->key);
    if (*m->typed) snprintf(type, sizeof type, m->typed, text ? "true" : "false");
    weft_buffer_printf(out, "<~parameter%s%s>%s%s%s", m->type_first ? type : name,
                       m->type_first ? name : type, value, m->end_argument, m->newline);
}

static void write_old(weft_buffer *out, const written *w, const manner *m)
{
    const char *sep = m->old == 4 ? " " : "{SEP}";
    if (m->old == 5) {
        weft_buffer_printf(out, "{CALL}function{SEP}%s\n```json\n%s\n```{END}", w->name, w->json);
    } else {
        weft_buffer_printf(out, "{CALL}%s%s%s%s", w->name, sep, w->json,
                           m->old == 3 ? "" : "{END}");
    }
}

static void write_invoke(weft_buffer *out, const written *w, const manner *m)
{
    if (m->old) {
        write_old(out, w, m);
        return;
    }
    weft_buffer_printf(out, "%s name=\"%s\">%s%s", m->open_invoke, w->name, m->newline, m->between);
    if (m->object) {
        weft_buffer_printf(out, "%s%s%s", w->json, m->broken, m->newline);
    } else {
        for (size_t i = 0; i < 4 && w->argument[i].key; i++) {
            const argument *a = &w->argument[i];
            bool first = i == 0;
            write_argument(out, a, m, first && m->wrong_json ? m->wrong_json : a->value);
            if (first && m->twice) write_argument(out, a, m, *m->twice ? m->twice : a->value);
        }
    }
    weft_buffer_printf(out, "%s%s", m->end_invoke, m->newline);
}

static void write_calls(weft_buffer *out, size_t content, const manner *m)
{
    weft_buffer text = WEFT_BUFFER_INIT;
    const written *w = contents[content];
    bool frames = m->old && m->old != 2 && m->old != 3;
    weft_buffer_puts(&text, m->before);
    if (!m->old) weft_buffer_printf(&text, "%s%s", m->block, *m->block ? m->newline : "");
    if (m->old == 1 || frames) weft_buffer_puts(&text, "{BEGIN}");
    write_invoke(&text, &w[0], m);
    if (w[1].name) write_invoke(&text, &w[1], m);
    if (m->old == 1 || frames) weft_buffer_puts(&text, "{ENDS}");
    weft_buffer_printf(&text, "%s%s", m->old ? "" : m->end_block, m->after);
    size_t size = text.size, seen = 0;
    for (size_t i = text.size; m->cut && i-- > 0;)
        if (text.data[i] == '~' && ++seen == m->cut) size = i + 1 + (size_t)m->cut_more;
    weft_buffer_append(out, text.data, size);
    weft_buffer_free(&text);
}

static const manner right = {.before = "\n\n",
                             .block = "<~function_calls>",
                             .newline = "\n",
                             .end_argument = "</~parameter>",
                             .end_invoke = "</~invoke>",
                             .end_block = "</~function_calls>",
                             .after = "",
                             .open_invoke = "<~invoke",
                             .typed = " string=\"%s\"",
                             .between = "",
                             .broken = ""};

static manner complete(const manner *m)
{
    manner whole = *m;
#define DEFAULT(field)                                                                             \
    if (!whole.field) whole.field = right.field
    DEFAULT(before);
    DEFAULT(block);
    DEFAULT(newline);
    DEFAULT(end_argument);
    DEFAULT(end_invoke);
    DEFAULT(end_block);
    DEFAULT(after);
    DEFAULT(open_invoke);
    DEFAULT(typed);
    DEFAULT(between);
    DEFAULT(broken);
#undef DEFAULT
    return whole;
}

typedef struct variant {
    manner m;
    bool refused;
    const char *frame; /* the whole turn, in which @ stands for the calls; NULL: the calls */
} variant;

enum { N_KINDS = 13, KIND_THOUGHT = 6, KIND_UNTYPED = 8 };
static const struct {
    const char *name;
    variant variant[N_VARIANTS];
} kinds[N_KINDS] = {
    {"name of the block",
     {{.m = {.block = "<~tool_calls>"}},
      {.m = {.block = "<~function_call>"}},
      {.m = {.block = "<~tool_call>"}},
      {.m = {.block = "<~functions>"}, .refused = true},
      {.m = {.block = "<~calls>"}, .refused = true}}},
    {"wrapper",
     {{.m = {.block = "", .end_block = ""}},
      {.m = {.end_block = ""}},
      {.m = {.block = ""}},
      {.m = {.block = "<~function_calls>\n<~function_calls>"}},
      {.m = {.block = "<~function_calls"}, .refused = true}}},
    {"unterminated",
     {{.m = {.cut = 3, .cut_more = -3}, .refused = true},
      {.m = {.cut = 3}, .refused = true},
      {.m = {.cut = 3, .cut_more = 5}, .refused = true},
      {.m = {.cut = 2, .cut_more = 4}, .refused = true},
      {.m = {.end_invoke = "", .end_block = ""}, .refused = true}}},
    {"closers",
     {{.m = {.end_argument = "</~param>"}},
      {.m = {.end_argument = "</~>", .end_invoke = "</~>", .end_block = "</~>"}},
      {.m = {.end_argument = "</parameter>"}, .refused = true},
      {.m = {.end_argument = "</~invoke>", .end_invoke = ""}, .refused = true},
      {.m = {.end_invoke = "", .end_block = "</~tool_calls>"}}}},
    {"JSON body",
     {{.m = {.object = true}},
      {.m = {.object = true, .newline = ""}},
      {.m = {.object = true, .broken = ","}, .refused = true},
      {.m = {.object = true, .between = "["}, .refused = true},
      {.m = {.object = true, .broken = "\n<~parameter name=\"z\" string=\"true\">z</~parameter>"},
       .refused = true}}},
    {"earlier format",
     {{.m = {.old = 1}},
      {.m = {.old = 2}},
      {.m = {.old = 3}},
      {.m = {.old = 4}, .refused = true},
      {.m = {.old = 5}}}},
    {"call in the thought",
     {{.m = {.before = "\n\n"}, .frame = "I call it.@{EOS}"},
      {.m = {.before = "\n\n"}, .frame = "I will write:@ so.</think>@{EOS}"},
      {.m = {.before = "\n\n"}, .refused = true, .frame = "I call it.@</think>It is 3.{EOS}"},
      {.m = {.before = "\n\n"}, .refused = true, .frame = "I call it.@</think>{EOS}"},
      {.m = {.old = 1, .before = ""}, .frame = "I call it.@{EOS}"}}},
    {"bar behind the word",
     {{.m = {.end_argument = "</~parameter｜>"}},
      {.m = {.end_invoke = "</~invoke｜>"}},
      {.m = {.end_block = "</~function_calls｜>"}},
      {.m = {.end_argument = "</~parameter|>",
             .end_invoke = "</~invoke|>",
             .end_block = "</~function_calls|>"}},
      {.m = {.open_invoke = "<~invoke｜"}, .refused = true}}},
    {"string attribute",
     {{.m = {.typed = ""}},
      {.m = {.typed = " string=\"%s!\""}, .refused = true},
      {.m = {.typed = " string='%s'"}, .refused = true},
      {.m = {.typed = " string=%s"}, .refused = true},
      {.m = {.type_first = true}, .refused = true}}},
    {"twice",
     {{.m = {.twice = ""}, .refused = true},
      {.m = {.twice = "0"}, .refused = true},
      {.m = {.twice = "", .typed = ""}, .refused = true},
      {.m = {.twice = "0", .end_argument = "</~>"}, .refused = true},
      {.m = {.twice = "1", .block = "", .end_block = ""}, .refused = true}}},
    {"text around",
     {{.m = {.after = "Now I wait."}},
      {.m = {.after = "\n\nThe result is 7.\n"}},
      {.m = {.after = "\n\n<function_results>\n<result>7</result>\n</function_results>"}},
      {.m = {.between = "Its arguments:\n"}, .refused = true},
      {.m = {.block = "<~function_calls>\nI call:"}, .refused = true}}},
    {"newlines",
     {{.m = {.before = "\n"}},
      {.m = {.before = ""}},
      {.m = {.newline = "\r\n"}},
      {.m = {.newline = ""}},
      {.m = {.newline = "\n\n  "}}}},
    {"no JSON",
     {{.m = {.wrong_json = "abc"}, .refused = true},
      {.m = {.wrong_json = "[1,]"}, .refused = true},
      {.m = {.wrong_json = "{'a': True}"}, .refused = true},
      {.m = {.wrong_json = ""}, .refused = true},
      {.m = {.wrong_json = "1 2"}, .refused = true}}},
};

/* What stands before the calls, by turns. */
static const char *const leads[3] = {"", "A plan.</think>", "A plan.</think>Let me call it."};

static char *malformed(size_t kind, size_t which, size_t content, bool *out_thought)
{
    const variant *x = &kinds[kind].variant[which];
    weft_buffer calls = WEFT_BUFFER_INIT, out = WEFT_BUFFER_INIT;
    const char *lead = leads[(which + content) % 3];
    const manner m = complete(&x->m);
    write_calls(&calls, content, &m);
    *out_thought = x->frame || *lead;
    if (!x->frame) {
        weft_buffer_printf(&out, "%s%s{EOS}", lead, calls.data);
    } else {
        for (const char *at = x->frame; *at; at++) {
            if (*at == '@') {
                weft_buffer_puts(&out, calls.data);
            } else {
                weft_buffer_putc(&out, *at);
            }
        }
    }
    weft_buffer_free(&calls);
    return weft_buffer_take(&out);
}

/* The content's calls as "name{...}"; call_is compares one that was read. */
static bool call_is(const weft_turn_call *call, const written *w)
{
    weft_buffer got = WEFT_BUFFER_INIT, want = WEFT_BUFFER_INIT;
    cJSON *arguments = json(w->json);
    weft_json_compact(call->arguments, &got);
    weft_json_compact(arguments, &want);
    bool same = strcmp(call->name, w->name) == 0 && strcmp(got.data, want.data) == 0;
    weft_buffer_free(&got);
    weft_buffer_free(&want);
    cJSON_Delete(arguments);
    return same;
}

/* Every call is one that was meant, in its order, or an error with words. Returns how many are not
 * errors. */
static size_t check_calls(const weft_turn_result *r, size_t content, const char *text)
{
    size_t next = 0, good = 0;
    for (size_t i = 0; i < r->n_call; i++) {
        const weft_turn_call *call = &r->call[i];
        if (call->error) {
            assert_true(strlen(call->error) > 20);
            continue;
        }
        while (next < 2 && contents[content][next].name && !call_is(call, &contents[content][next]))
            next++;
        if (next == 2 || !contents[content][next].name) {
            weft_buffer got = WEFT_BUFFER_INIT;
            weft_json_compact(call->arguments, &got);
            fail_msg("[%s] runs %s%s", text, call->name, got.data);
        }
        next++;
        good++;
    }
    return good;
}

/* Feeds the text unmasked, up to `upto` ids; the turn's outcome, and that nothing is an answer. */
static void check_malformed(const char *text, bool thought, size_t content, bool refused,
                            size_t upto, size_t *out_n)
{
    stream shown = {WEFT_BUFFER_INIT, -1};
    weft_turn_options o = {.tools = t.list, .n_tools = 3, .unmasked = true, .in_thought = thought};
    weft_turn *turn = begin(&o);
    const weft_turn_result *r = NULL;
    int32_t *ids = ids_with_marks(text, false, out_n);
    size_t n = upto < *out_n ? upto : *out_n;
    bool whole = n == *out_n;
    assert_int_equal(feed_ids(turn, ids, n, &shown), n);
    CHECK(weft_turn_finish(turn, &r, err));
    for (size_t i = 0; i < r->n_segment; i++) {
        const weft_turn_segment *s = &r->segment[i];
        bool leaks =
            strstr(s->text, "DSML") || strstr(s->text, "▁call") || strstr(s->text, "invoke");
        if (s->segment == WEFT_ANSWER && (leaks || (whole && *s->text)))
            fail_msg("[%s] is answered with [%s]", text, s->text);
    }
    if (strstr(weft_buffer_str(&shown.text), "A("))
        fail_msg("[%s] shows [%s]", text, shown.text.data);
    size_t good = check_calls(r, content, text), meant = contents[content][1].name ? 2 : 1;
    bool failed = good < r->n_call;
    if (whole && (refused ? !failed : good != meant || failed))
        fail_msg("[%s]: %zu of %zu calls are good; it should be %s", text, good, r->n_call,
                 refused ? "refused" : "read");
    weft_buffer_free(&shown.text);
    free(ids);
    weft_turn_free(turn);
}

/* Under the mask it cannot be written, unless as a call that was meant. */
static bool check_masked(const char *text, bool thought, size_t content)
{
    weft_turn_options o = {.tools = t.list, .n_tools = 3, .in_thought = thought};
    weft_turn *turn = begin(&o);
    const weft_turn_result *r = NULL;
    size_t n = 0;
    int32_t *ids = ids_with_marks(text, false, &n);
    bool taken = feed_ids(turn, ids, n, NULL) == n;
    CHECK(weft_turn_finish(turn, &r, err));
    check_calls(r, content, text);
    free(ids);
    weft_turn_free(turn);
    return taken;
}

static void test_malformed(void **state)
{
    char *seen[N_KINDS * N_VARIANTS * N_CONTENTS];
    size_t n = 0, cuts = 0, refusals = 0, written_masked = 0;
    for (size_t kind = 0; kind < N_KINDS; kind++)
        for (size_t which = 0; which < N_VARIANTS; which++)
            for (size_t content = 0; content < N_CONTENTS; content++) {
                bool thought, refused = kinds[kind].variant[which].refused;
                char *text = malformed(kind, which, content, &thought);
                size_t n_ids = 0;
                /* the tool takes anything: without its type the value could be text as well */
                if (kind == KIND_UNTYPED && which == 0 && content == 6) refused = true;
                for (size_t i = 0; i < n; i++)
                    if (strcmp(seen[i], text) == 0) fail_msg("twice: [%s]", text);
                check_malformed(text, thought, content, refused, SIZE_MAX, &n_ids);
                for (size_t cut = n % 7 + 1; cut < n_ids; cut += 7, cuts++)
                    check_malformed(text, thought, content, refused, cut, &n_ids);
                written_masked += check_masked(text, thought, content);
                refusals += refused;
                seen[n++] = text;
            }
    print_message("%zu malformed calls: %zu read, %zu refused; %zu of them cut off; %zu can be "
                  "written under the mask\n",
                  n, n - refusals, refusals, cuts, written_masked);
    assert_int_equal(n, 455);
    for (size_t i = 0; i < n; i++) free(seen[i]);
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

static int open_all(void **state)
{
    deepseek_open(&v);
    tools_open(&t);
    return 0;
}

static int close_all(void **state)
{
    vocab_close(&v);
    tools_close(&t);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_turns),           cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_spelt_out),       cmocka_unit_test(test_refused),
        cmocka_unit_test(test_demanded),        cmocka_unit_test(test_in_thought),
        cmocka_unit_test(test_random_turns),    cmocka_unit_test(test_forced),
        cmocka_unit_test(test_earlier_formats),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
