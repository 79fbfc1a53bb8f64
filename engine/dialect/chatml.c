/* ChatML: <|im_start|>role, newline, text, <|im_end|>, newline. Two families share it.
 *
 *   qwen    Qwen2.5, Qwen3 and what was trained like them: tools in the system text, calls in
 *           <tool_call>, results in <tool_response> inside a user turn
 *   chatml  roles alone (SmolLM2). `render` writes what the template writes, which drops tools; a
 *           run that offers tools uses Qwen's words for them
 *
 * Trust: the words of the template are trusted, so that they become control tokens; whatever came
 * in through a parameter is foreign. The default system text is the template's, so it is trusted.
 * Fact: Qwen2.5's template writes a newline before each call and none after the role, Qwen3's one
 * after the role and none before the first call: the same bytes. */
#include "engine/dialect/messages.h"

#define START "<|im_start|>"
#define END "<|im_end|>"

static const char tools_head[] =
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are "
    "provided "
    "with function signatures within <tools></tools> XML tags:\n<tools>";
static const char tools_tail[] =
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments "
    "within <tool_call></tool_call> XML tags:\n<tool_call>\n";
static const char call_shape[] = "{\"name\": <function-name>, \"arguments\": <args-json-object>}";

/* ---- writing ---- */

/* The system turn. given: the caller's system text, or NULL for the template's own. */
static weft_status put_system(const weft_dialect *d, const char *given, const cJSON *tools,
                              weft_script *out, weft_error *err)
{
    const char *own = d->variant.default_system;
    bool with_tools = cJSON_GetArraySize(tools) > 0;
    if (!given && !own && !with_tools) return WEFT_OK;
    put_trusted(out, WEFT_SYSTEM, START "system\n");
    if (given) {
        put_foreign(out, WEFT_SYSTEM, given, strlen(given));
    } else if (own) {
        put_trusted(out, WEFT_SYSTEM, own);
    }
    if (with_tools) {
        if (given || own) put_trusted(out, WEFT_SYSTEM, "\n\n");
        put_trusted(out, WEFT_SYSTEM, tools_head);
        const cJSON *tool;
        cJSON_ArrayForEach(tool, tools)
        {
            put_trusted(out, WEFT_SYSTEM, "\n");
            weft_status status = messages_put_json(out, WEFT_SYSTEM, tool, err);
            if (status) return status;
        }
        put_trusted(out, WEFT_SYSTEM, tools_tail);
        if (d->variant.doubled_braces) put_trusted(out, WEFT_SYSTEM, "{");
        put_trusted(out, WEFT_SYSTEM, call_shape);
        if (d->variant.doubled_braces) put_trusted(out, WEFT_SYSTEM, "}");
        put_trusted(out, WEFT_SYSTEM, "\n</tool_call>");
    }
    put_trusted(out, WEFT_SYSTEM, END "\n");
    return WEFT_OK;
}

static void put_prompt(const weft_dialect *d, weft_segment segment, bool no_thought,
                       weft_script *out)
{
    put_trusted(out, segment, START "assistant\n");
    if (no_thought && d->variant.closes_thought)
        put_trusted(out, segment, "<think>\n\n</think>\n\n");
}

static void put_result(weft_script *out, const char *text, size_t n)
{
    put_trusted(out, WEFT_RESULT, "\n<tool_response>\n");
    put_foreign(out, WEFT_RESULT, text, n);
    put_trusted(out, WEFT_RESULT, "\n</tool_response>");
}

/* ---- a run: begin, results, user ---- */

static weft_status begin(const weft_dialect *d, const char *system, const cJSON *tools,
                         const char *user, weft_think think, weft_script *out, weft_error *err)
{
    weft_status status = put_system(d, system, tools, out, err);
    if (status) return status;
    put_trusted(out, WEFT_USER, START "user\n");
    put_foreign(out, WEFT_USER, user, strlen(user));
    put_trusted(out, WEFT_USER, END "\n");
    put_prompt(d, WEFT_USER, think == WEFT_THINK_OFF, out);
    return WEFT_OK;
}

static weft_status results(const weft_dialect *d, bool ended, const weft_result_text *result,
                           size_t n, const char *note, weft_think think, weft_script *out,
                           weft_error *err)
{
    if (!ended) put_trusted(out, WEFT_RESULT, END);
    put_trusted(out, WEFT_RESULT, "\n" START "user");
    for (size_t i = 0; i < n; i++) put_result(out, result[i].text, strlen(result[i].text));
    if (note) {
        put_trusted(out, WEFT_RESULT, "\n");
        put_foreign(out, WEFT_RESULT, note, strlen(note));
    }
    put_trusted(out, WEFT_RESULT, END "\n");
    put_prompt(d, WEFT_RESULT, think == WEFT_THINK_OFF, out);
    return WEFT_OK;
}

static weft_status user(const weft_dialect *d, bool ended, const char *text, weft_think think,
                        weft_script *out, weft_error *err)
{
    if (!ended) put_trusted(out, WEFT_USER, END);
    put_trusted(out, WEFT_USER, "\n" START "user\n");
    put_foreign(out, WEFT_USER, text, strlen(text));
    put_trusted(out, WEFT_USER, END "\n");
    put_prompt(d, WEFT_USER, think == WEFT_THINK_OFF, out);
    return WEFT_OK;
}

/* ---- whole conversations ---- */

/* "<tool_call>", newline, the call, newline, "</tool_call>"; arguments are printed anew. */
static weft_status put_call(const cJSON *call, size_t index, weft_script *out, weft_error *err)
{
    const char *name = NULL;
    const cJSON *arguments = NULL;
    cJSON *owned = NULL;
    weft_status status = message_call(call, index, &name, &arguments, &owned, err);
    if (status) return status;
    put_trusted(out, WEFT_CALL, "<tool_call>\n{\"name\": \"");
    put_foreign(out, WEFT_CALL, name, strlen(name));
    put_trusted(out, WEFT_CALL, "\", \"arguments\": ");
    status = messages_put_json(out, WEFT_CALL, arguments, err);
    put_trusted(out, WEFT_CALL, "}\n</tool_call>");
    cJSON_Delete(owned);
    return status;
}

typedef struct piece {
    const char *text;
    size_t n;
} piece;

static piece strip_newlines(piece p, bool front, bool back)
{
    while (front && p.n && p.text[0] == '\n') p.text++, p.n--;
    while (back && p.n && p.text[p.n - 1] == '\n') p.n--;
    return p;
}

/* Qwen3 takes a thought that stands in the content out of it: what lies between the last <think>
 * before the first </think> and that, and as content what follows the last </think>. */
static void split_thought(piece *content, piece *thought)
{
    static const char open[] = "<think>", close[] = "</think>";
    const char *text = content->text, *first = strstr(text, close), *last = first, *from = text;
    if (!first) return;
    for (const char *next; (next = strstr(last + 1, close));) last = next;
    *thought = strip_newlines((piece){text, (size_t)(first - text)}, false, true);
    for (const char *at = text; (at = strstr(at, open)) && at < first; at++)
        from = at + strlen(open);
    thought->n -= (size_t)(from - text) < thought->n ? (size_t)(from - text) : thought->n;
    thought->text = from;
    *thought = strip_newlines(*thought, true, false);
    last += strlen(close);
    *content = strip_newlines((piece){last, strlen(last)}, true, false);
}

/* recent: after the last real user message; last: of the conversation. */
static weft_status put_assistant(const weft_dialect *d, const weft_message *m, size_t index,
                                 bool recent, bool last, weft_script *out, weft_error *err)
{
    piece content = {m->content, strlen(m->content)}, thought = {"", 0};
    weft_history history = d->variant.history;
    bool writes_thought = false;
    if (m->thought && history != WEFT_HISTORY_PLAIN)
        thought = (piece){m->thought, strlen(m->thought)};
    if (history == WEFT_HISTORY_RECENT) {
        if (!m->thought) split_thought(&content, &thought);
        writes_thought = recent && (last || thought.n);
        if (writes_thought) {
            thought = strip_newlines(thought, true, true);
            content = strip_newlines(content, true, false);
        }
    } else if (history == WEFT_HISTORY_ALWAYS) {
        writes_thought = thought.n > 0;
    }
    weft_segment label = m->calls ? WEFT_THOUGHT : WEFT_ANSWER;
    put_trusted(out, label, START "assistant\n");
    if (writes_thought) {
        put_trusted(out, WEFT_THOUGHT, "<think>\n");
        put_foreign(out, WEFT_THOUGHT, thought.text, thought.n);
        put_trusted(out, WEFT_THOUGHT, "\n</think>\n\n");
    }
    put_foreign(out, label, content.text, content.n);
    const cJSON *call;
    bool first = true;
    cJSON_ArrayForEach(call, m->calls)
    {
        if (content.n || !first) put_trusted(out, WEFT_CALL, "\n");
        weft_status status = put_call(call, index, out, err);
        if (status) return status;
        first = false;
    }
    put_trusted(out, m->calls ? WEFT_CALL : label, END "\n");
    return WEFT_OK;
}

/* The last user message that is not a result in disguise; the last message if there is none. */
static size_t last_question(const weft_message *m, size_t n)
{
    static const char open[] = "<tool_response>", close[] = "</tool_response>";
    for (size_t i = n; i-- > 0;) {
        size_t size = strlen(m[i].content);
        bool result = strncmp(m[i].content, open, strlen(open)) == 0 && size >= strlen(close) &&
                      strcmp(m[i].content + size - strlen(close), close) == 0;
        if (is_role(&m[i], "user") && !result) return i;
    }
    return n - 1;
}

static weft_status render_qwen_messages(const weft_dialect *d, const weft_message *m, size_t n,
                                        weft_script *out, weft_error *err)
{
    size_t question = last_question(m, n);
    for (size_t i = 0; i < n; i++) {
        if (is_role(&m[i], "user") || (is_role(&m[i], "system") && i > 0)) {
            weft_segment label = is_role(&m[i], "user") ? WEFT_USER : WEFT_SYSTEM;
            put_trusted(out, label, label == WEFT_USER ? START "user\n" : START "system\n");
            put_foreign(out, label, m[i].content, strlen(m[i].content));
            put_trusted(out, label, END "\n");
        } else if (is_role(&m[i], "assistant")) {
            weft_status status = put_assistant(d, &m[i], i, i > question, i + 1 == n, out, err);
            if (status) return status;
        } else if (is_role(&m[i], "tool")) {
            if (i == 0 || !is_role(&m[i - 1], "tool")) put_trusted(out, WEFT_RESULT, START "user");
            put_result(out, m[i].content, strlen(m[i].content));
            if (i + 1 == n || !is_role(&m[i + 1], "tool")) put_trusted(out, WEFT_RESULT, END "\n");
        }
    }
    return WEFT_OK;
}

/* SmolLM2's template: every message under the name of its role, whatever the role. */
static void render_plain_messages(const weft_message *m, size_t n, weft_script *out)
{
    for (size_t i = 0; i < n; i++) {
        weft_segment label = is_role(&m[i], "system")      ? WEFT_SYSTEM
                             : is_role(&m[i], "assistant") ? WEFT_ANSWER
                             : is_role(&m[i], "tool")      ? WEFT_RESULT
                                                           : WEFT_USER;
        put_trusted(out, label, START);
        put_foreign(out, label, m[i].role, strlen(m[i].role));
        put_trusted(out, label, "\n");
        put_foreign(out, label, m[i].content, strlen(m[i].content));
        put_trusted(out, label, END "\n");
    }
}

static weft_status render(const weft_dialect *d, const cJSON *request, weft_script *out,
                          weft_error *err)
{
    weft_message *m = NULL;
    size_t n = 0;
    const cJSON *tools = cJSON_GetObjectItemCaseSensitive(request, "tools");
    weft_status status = messages_read(request, &m, &n, err);
    if (status) return status;
    bool has_system = is_role(&m[0], "system");
    if (d->variant.writes_tools) {
        status = put_system(d, has_system ? m[0].content : NULL, tools, out, err);
        if (!status) status = render_qwen_messages(d, m, n, out, err);
    } else {
        if (!has_system) status = put_system(d, NULL, NULL, out, err);
        if (!status) render_plain_messages(m, n, out);
    }
    if (!status && weft_json_bool(request, "add_generation_prompt", false)) {
        weft_segment label = out->n ? out->span[out->n - 1].segment : WEFT_USER;
        put_prompt(d, label, !weft_json_bool(request, "thinking", true), out);
    }
    messages_free(m, n);
    return status;
}

/* ---- the two families ---- */

static bool fits_qwen(const weft_tokenizer *tokenizer, const char *architecture,
                      const char *chat_template)
{
    return weft_tokenizer_find(tokenizer, "<tool_call>") >= 0 ||
           (chat_template && strstr(chat_template, "<tool_call>"));
}

static bool fits_chatml(const weft_tokenizer *tokenizer, const char *architecture,
                        const char *chat_template)
{
    return true;
}

static const char *const needs[] = {START, END, NULL};

const weft_family weft_family_qwen = {"qwen", WEFT_SYNTAX_JSON, needs, fits_qwen, render, begin, results, user};
const weft_family weft_family_chatml = {"chatml", WEFT_SYNTAX_JSON, needs, fits_chatml, render, begin, results, user};
