/* DeepSeek-V3.2: roles as tokens, calls in DSML, results in plain tags.
 *
 *   <BOS>system, tools<User>task<Assistant><think>thought</think>words, calls<EOS>results<think>...
 *
 * There is no generation prompt of its own: the marker <think> or </think> ends a user turn and a
 * block of results, so a sampled turn begins inside the thought or right behind it. Thoughts of the
 * task under way stay, however many calls it takes; a new user message drops all earlier ones, and
 * their turns then begin with </think> (weft_dialect_retain).
 *
 * Trust: ｜DSML｜ is a control token and writes every delimiter of a call, so foreign text cannot end
 * a parameter. <result> and <function_results> are plain text, so their closers in a result are
 * written with &lt; - the reference does not, and a page could end its own result there. */
#include "engine/dialect/messages.h"

#define BOS "<｜begin▁of▁sentence｜>"
#define EOS "<｜end▁of▁sentence｜>"
#define USER "<｜User｜>"
#define ASSISTANT "<｜Assistant｜>"
#define DSML "｜DSML｜"

static const char tools_head[] =
    "## Tools\n\nYou have access to a set of tools you can use to answer the user's question.\n"
    "You can invoke functions by writing a \"<" DSML "function_calls>\" block like the following "
    "as part of your reply to the user:\n"
    "<" DSML "function_calls>\n"
    "<" DSML "invoke name=\"$FUNCTION_NAME\">\n"
    "<" DSML "parameter name=\"$PARAMETER_NAME\" string=\"true|false\">$PARAMETER_VALUE</" DSML
    "parameter>\n"
    "...\n"
    "</" DSML "invoke>\n"
    "<" DSML "invoke name=\"$FUNCTION_NAME2\">\n"
    "...\n"
    "</" DSML "invoke>\n"
    "</" DSML "function_calls>\n\n"
    "String and scalar parameters should be specified as is without any escaping or quotes, while "
    "lists and objects should use JSON format. The \"string\" attribute should be set to \"true\" "
    "for string type parameters and \"false\" for other types (numbers, booleans, arrays, "
    "objects).\n\n"
    "If the thinking_mode is enabled, then after function results you should strongly consider "
    "outputting a thinking block. Here is an example:\n\n"
    "<" DSML "function_calls>\n...\n</" DSML "function_calls>\n\n"
    "<function_results>\n...\n</function_results>\n\n"
    "<think>...thinking about results</think>\n\n"
    "Here are the functions available in JSONSchema format:\n<functions>\n";
static const char tools_tail[] = "</functions>\n";

/* ---- pieces ---- */

static void put_marker(weft_script *out, weft_segment segment, bool thinks)
{
    put_trusted(out, segment, thinks ? "<think>" : "</think>");
}

/* Foreign text in which the guarded closers cannot stand: their '<' is written as &lt;. */
static void put_guarded(weft_script *out, weft_segment segment, const char *text,
                        const char *const *guard)
{
    const char *from = text;
    for (const char *at = text; (at = strchr(at, '<')); at++) {
        size_t i = 0;
        while (guard[i] && strncmp(at, guard[i], strlen(guard[i])) != 0) i++;
        if (!guard[i]) continue;
        put_foreign(out, segment, from, (size_t)(at - from));
        put_foreign(out, segment, "&lt;", 4);
        from = at + 1;
    }
    put_foreign(out, segment, from, strlen(from));
}

static weft_status put_tools(const cJSON *tools, weft_segment segment, weft_script *out,
                             weft_error *err)
{
    const cJSON *tool;
    put_trusted(out, segment, tools_head);
    cJSON_ArrayForEach(tool, tools)
    {
        const cJSON *function = cJSON_GetObjectItemCaseSensitive(tool, "function");
        weft_status status = messages_put_json(out, segment, function ? function : tool, err);
        if (status) return status;
        put_trusted(out, segment, "\n");
    }
    put_trusted(out, segment, tools_tail);
    return WEFT_OK;
}

static void put_result(weft_script *out, const char *text)
{
    static const char *const guard[] = {"</result", "</function_results", NULL};
    put_trusted(out, WEFT_RESULT, "\n<result>");
    put_guarded(out, WEFT_RESULT, text, guard);
    put_trusted(out, WEFT_RESULT, "</result>");
}

static void put_user(weft_script *out, const char *text, bool thinks)
{
    put_trusted(out, WEFT_USER, USER);
    put_foreign(out, WEFT_USER, text, strlen(text));
    put_trusted(out, WEFT_USER, ASSISTANT);
    put_marker(out, WEFT_USER, thinks);
}

/* ---- a run: begin, results, user ---- */

static bool thinks(weft_think think)
{
    return think != WEFT_THINK_OFF;
}

static weft_status begin(const weft_dialect *d, const char *system, const cJSON *tools,
                         const char *user, weft_think think, weft_script *out, weft_error *err)
{
    weft_status status = WEFT_OK;
    put_trusted(out, WEFT_SYSTEM, BOS);
    if (system) put_foreign(out, WEFT_SYSTEM, system, strlen(system));
    if (cJSON_GetArraySize(tools) > 0) {
        put_trusted(out, WEFT_SYSTEM, "\n\n");
        status = put_tools(tools, WEFT_SYSTEM, out, err);
    }
    put_user(out, user, thinks(think));
    return status;
}

static weft_status results(const weft_dialect *d, bool ended, const weft_result_text *result,
                           size_t n, const char *note, weft_think think, weft_script *out,
                           weft_error *err)
{
    static const char *const guard[] = {"</result", "</function_results", NULL};
    if (!ended) put_trusted(out, WEFT_RESULT, EOS);
    put_trusted(out, WEFT_RESULT, "\n\n<function_results>");
    for (size_t i = 0; i < n; i++) put_result(out, result[i].text);
    if (note) {
        put_trusted(out, WEFT_RESULT, "\n");
        put_guarded(out, WEFT_RESULT, note, guard);
    }
    put_trusted(out, WEFT_RESULT, "\n</function_results>\n\n");
    put_marker(out, WEFT_RESULT, thinks(think));
    return WEFT_OK;
}

static weft_status user(const weft_dialect *d, bool ended, const char *text, weft_think think,
                        weft_script *out, weft_error *err)
{
    if (!ended) put_trusted(out, WEFT_USER, EOS);
    put_user(out, text, thinks(think));
    return WEFT_OK;
}

/* ---- whole conversations ---- */

/* Where a message stands: the reasoning rule needs the last question, results need their calls. */
typedef struct place {
    const weft_message *list;
    size_t i, question; /* question: the last user or developer message, SIZE_MAX if none */
    bool thinks;
    const cJSON *tools; /* of the system message in front, else NULL */
} place;

static bool after_question(const place *p)
{
    return p->question == SIZE_MAX || p->i > p->question;
}

/* One argument: strings as they are, all else as JSON. */
static weft_status put_parameter(const cJSON *value, weft_script *out, weft_error *err)
{
    static const char *const guard[] = {"</" DSML, NULL};
    weft_status status = WEFT_OK;
    bool text = cJSON_IsString(value);
    put_trusted(out, WEFT_CALL, "<" DSML "parameter name=\"");
    put_foreign(out, WEFT_CALL, value->string, strlen(value->string));
    put_trusted(out, WEFT_CALL, text ? "\" string=\"true\">" : "\" string=\"false\">");
    if (text) {
        put_guarded(out, WEFT_CALL, value->valuestring, guard);
    } else {
        status = messages_put_json(out, WEFT_CALL, value, err);
    }
    put_trusted(out, WEFT_CALL, "</" DSML "parameter>\n");
    return status;
}

static weft_status put_call(const cJSON *call, size_t index, weft_script *out, weft_error *err)
{
    const char *name = NULL;
    const cJSON *arguments = NULL, *value;
    cJSON *owned = NULL;
    weft_status status = message_call(call, index, &name, &arguments, &owned, err);
    if (!status && !cJSON_IsObject(arguments))
        status =
            weft_fail(err, WEFT_E_INVALID,
                      "messages[%zu].tool_calls: arguments of %s are no JSON object", index, name);
    if (!status) {
        put_trusted(out, WEFT_CALL, "<" DSML "invoke name=\"");
        put_foreign(out, WEFT_CALL, name, strlen(name));
        put_trusted(out, WEFT_CALL, "\">\n");
        if (!arguments->child) put_trusted(out, WEFT_CALL, "\n");
    }
    for (value = status ? NULL : arguments->child; value && !status; value = value->next)
        status = put_parameter(value, out, err);
    put_trusted(out, WEFT_CALL, "</" DSML "invoke>\n");
    cJSON_Delete(owned);
    return status;
}

static weft_status put_assistant(const place *p, weft_script *out, weft_error *err)
{
    const weft_message *m = &p->list[p->i];
    weft_segment label = m->calls ? WEFT_THOUGHT : WEFT_ANSWER;
    if (p->thinks && after_question(p)) {
        bool thought = m->thought && *m->thought;
        if (!thought && !m->calls)
            return weft_fail(err, WEFT_E_INVALID,
                             "messages[%zu]: an answer to the last user message needs its "
                             "reasoning_content in thinking mode; give it, or thinking false",
                             p->i);
        if (thought) put_foreign(out, WEFT_THOUGHT, m->thought, strlen(m->thought));
        put_trusted(out, WEFT_THOUGHT, "</think>");
    }
    put_foreign(out, label, m->content, strlen(m->content));
    if (m->calls) {
        const cJSON *call;
        put_trusted(out, WEFT_CALL, "\n\n<" DSML "function_calls>\n");
        cJSON_ArrayForEach(call, m->calls)
        {
            weft_status status = put_call(call, p->i, out, err);
            if (status) return status;
        }
        put_trusted(out, WEFT_CALL, "</" DSML "function_calls>");
    }
    put_trusted(out, m->calls ? WEFT_CALL : label, EOS);
    return WEFT_OK;
}

/* Results belong to the calls before them by order alone. */
static weft_status put_tool(const place *p, weft_script *out, weft_error *err)
{
    size_t first = p->i;
    while (first > 0 && is_role(&p->list[first - 1], "tool")) first--;
    const weft_message *caller = first > 0 ? &p->list[first - 1] : NULL;
    size_t nth = p->i - first + 1, calls = caller && is_role(caller, "assistant") && caller->calls
                                               ? (size_t)cJSON_GetArraySize(caller->calls)
                                               : 0;
    if (nth > calls)
        return weft_fail(err, WEFT_E_INVALID,
                         "messages[%zu]: a result without a call; an assistant message with "
                         "tool_calls must stand before it, one for each result",
                         p->i);
    if (nth == 1) put_trusted(out, WEFT_RESULT, "\n\n<function_results>");
    put_result(out, p->list[p->i].content);
    if (nth == calls) {
        put_trusted(out, WEFT_RESULT, "\n</function_results>\n\n");
        put_marker(out, WEFT_RESULT, p->thinks && after_question(p));
    }
    return WEFT_OK;
}

/* The tools and the response format that a message brings along. */
static weft_status put_extras(const cJSON *tools, const cJSON *format, weft_segment label,
                              weft_script *out, weft_error *err)
{
    weft_status status = WEFT_OK;
    if (cJSON_GetArraySize(tools) > 0) {
        put_trusted(out, label, "\n\n");
        status = put_tools(tools, label, out, err);
    }
    if (!status && format) {
        put_trusted(
            out, label,
            "\n\n## Response Format:\n\nYou MUST strictly adhere to the following schema to "
            "reply:\n");
        status = messages_put_json(out, label, format, err);
    }
    return status;
}

static weft_status put_message(const place *p, weft_script *out, weft_error *err)
{
    const weft_message *m = &p->list[p->i];
    const cJSON *tools = cJSON_GetObjectItemCaseSensitive(m->item, "tools"),
                *format = cJSON_GetObjectItemCaseSensitive(m->item, "response_format");
    bool last = p->i == p->question;
    weft_status status = WEFT_OK;
    if (is_role(m, "system")) {
        put_foreign(out, WEFT_SYSTEM, m->content, strlen(m->content));
        return put_extras(p->tools && p->i == 0 ? p->tools : tools, format, WEFT_SYSTEM, out, err);
    }
    if (is_role(m, "user")) {
        put_user(out, m->content, p->thinks && last);
    } else if (is_role(m, "developer")) {
        if (!last)
            return weft_fail(err, WEFT_E_INVALID,
                             "messages[%zu]: a developer message can only stand where the last "
                             "user message does",
                             p->i);
        put_trusted(out, WEFT_USER, USER);
        status = put_extras(tools, format, WEFT_USER, out, err);
        put_trusted(out, WEFT_USER, "\n\n# The user's message is: ");
        put_foreign(out, WEFT_USER, m->content, strlen(m->content));
        put_trusted(out, WEFT_USER, ASSISTANT);
        put_marker(out, WEFT_USER, p->thinks);
    } else if (is_role(m, "assistant")) {
        status = put_assistant(p, out, err);
    } else if (is_role(m, "tool")) {
        status = put_tool(p, out, err);
    } else {
        status = weft_fail(err, WEFT_E_INVALID, "messages[%zu]: the role %s is not known", p->i,
                           m->role);
    }
    return status;
}

static weft_status render(const weft_dialect *d, const cJSON *request, weft_script *out,
                          weft_error *err)
{
    weft_message *m = NULL;
    size_t n = 0;
    weft_status status = messages_read(request, &m, &n, err);
    if (status) return status;
    place p = {.list = m, .question = SIZE_MAX};
    p.thinks = weft_json_bool(request, "thinking", true);
    p.tools = cJSON_GetObjectItemCaseSensitive(request, "tools");
    if (cJSON_GetArraySize(p.tools) == 0) p.tools = NULL;
    for (size_t i = 0; i < n; i++)
        if (is_role(&m[i], "user") || is_role(&m[i], "developer")) p.question = i;
    put_trusted(out, WEFT_SYSTEM, BOS);
    if (p.tools && !is_role(&m[0], "system"))
        status = put_extras(p.tools, NULL, WEFT_SYSTEM, out, err);
    for (; p.i < n && !status; p.i++) status = put_message(&p, out, err);
    messages_free(m, n);
    return status;
}

/* ---- the family ---- */

/* The template shows which of the two DSML dialects it writes; V4's block is called tool_calls. A
 * file without one is known by its architecture. */
static bool fits(const weft_tokenizer *tokenizer, const char *architecture,
                 const char *chat_template)
{
    if (weft_tokenizer_find(tokenizer, DSML) < 0) return false;
    return chat_template ? strstr(chat_template, "function_calls>") != NULL
                         : architecture && strcmp(architecture, "deepseek32") == 0;
}

static const char *const needs[] = {DSML, BOS, EOS, USER, ASSISTANT, "<think>", "</think>", NULL};

const weft_family weft_family_dsv32 = {"dsv32", WEFT_SYNTAX_DSML, needs, fits, render, begin, results, user};
