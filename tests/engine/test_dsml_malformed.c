/* 455 malformed calls in DeepSeek's dialects: none is an answer, none runs with arguments that were guessed. */
#include "tests/engine/dsml_test.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_malformed)};
    return cmocka_run_group_tests(tests, open_all, close_all);
}
