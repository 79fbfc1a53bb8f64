/* DeepSeek before DSML: two families whose calls are control tokens around a name and JSON.
 *
 *   dsv31  V3.1:   <call_begin>NAME<sep>{...}<call_end>, results right behind the turn
 *   dsv3   V3, R1: <call_begin>function<sep>NAME, the JSON in a fence, results between two tokens
 *
 * Their templates write no tool definitions; a run that offers tools puts them into the system text
 * in the words of V3.1's model card. `render` repeats the templates' oddities, since a conversation
 * must read as it did in training: V3 closes the block of calls only from the second call on, and
 * drops the calls of a message that has content. Facts read from the file's template: whether V3.1's
 * closed thought is </think> or <think></think>, whether thoughts in the history are cut out (R1),
 * and whether a turn begins with <think> (R1). */
#include "engine/dialect/messages.h"

#define BOS "<｜begin▁of▁sentence｜>"
#define EOS "<｜end▁of▁sentence｜>"
#define USER "<｜User｜>"
#define ASSISTANT "<｜Assistant｜>"
#define CALLS_BEGIN "<｜tool▁calls▁begin｜>"
#define CALLS_END "<｜tool▁calls▁end｜>"
#define CALL_BEGIN "<｜tool▁call▁begin｜>"
#define CALL_END "<｜tool▁call▁end｜>"
#define SEP "<｜tool▁sep｜>"
#define OUTPUTS_BEGIN "<｜tool▁outputs▁begin｜>"
#define OUTPUTS_END "<｜tool▁outputs▁end｜>"
#define OUTPUT_BEGIN "<｜tool▁output▁begin｜>"
#define OUTPUT_END "<｜tool▁output▁end｜>"

static bool is_v31(const weft_dialect *d)
{
    return d->family == &weft_family_dsv31;
}

/* ---- pieces ---- */

/* Definitions for a run; V3's calls differ from V3.1's in the shape alone. */
static weft_status put_tools(const weft_dialect *d, const cJSON *tools, weft_script *out,
                             weft_error *err)
{
    const cJSON *tool;
    put_trusted(out, WEFT_SYSTEM, "## Tools\nYou have access to the following tools:\n");
    cJSON_ArrayForEach(tool, tools)
    {
        const cJSON *f = cJSON_GetObjectItemCaseSensitive(tool, "function");
        const cJSON *parameters = cJSON_GetObjectItemCaseSensitive(f ? f : tool, "parameters");
        const char *name = weft_json_string(f ? f : tool, "name"),
                   *words = weft_json_string(f ? f : tool, "description");
        put_trusted(out, WEFT_SYSTEM, "\n### ");
        if (name) put_foreign(out, WEFT_SYSTEM, name, strlen(name));
        put_trusted(out, WEFT_SYSTEM, "\nDescription: ");
        if (words) put_foreign(out, WEFT_SYSTEM, words, strlen(words));
        put_trusted(out, WEFT_SYSTEM, "\n\nParameters: ");
        weft_status status =
            parameters ? messages_put_json(out, WEFT_SYSTEM, parameters, err) : WEFT_OK;
        if (status) return status;
        put_trusted(out, WEFT_SYSTEM, "\n");
    }
    put_trusted(out, WEFT_SYSTEM,
                "\nIMPORTANT: ALWAYS adhere to this exact format for tool use:\n");
    put_trusted(out, WEFT_SYSTEM, CALLS_BEGIN CALL_BEGIN);
    put_trusted(out, WEFT_SYSTEM,
                is_v31(d) ? "tool_call_name" SEP "tool_call_arguments"
                          : "function" SEP "tool_call_name\n```json\ntool_call_arguments\n```");
    put_trusted(out, WEFT_SYSTEM,
                CALL_END
                "{additional_tool_calls}" CALLS_END
                "\n\nWhere:\n- `tool_call_name` must be an exact match to one of the "
                "available tools\n- `tool_call_arguments` must be valid JSON that strictly "
                "follows the tool's Parameters Schema\n- For multiple tool calls, chain "
                "them directly without separators or spaces\n");
    return WEFT_OK;
}

/* What stands in front of the model's words where it thinks, and where it does not. */
static void put_marker(const weft_dialect *d, weft_segment segment, bool thinks, weft_script *out)
{
    if (is_v31(d)) {
        put_trusted(out, segment,
                    thinks                     ? "<think>"
                    : d->variant.empty_thought ? "<think></think>"
                                               : "</think>");
    } else if (d->variant.opens_thought) {
        put_trusted(out, segment, thinks ? "<think>\n" : "<think>\n</think>");
    }
}

static weft_status put_call(const weft_dialect *d, const cJSON *call, size_t index,
                            weft_script *out, weft_error *err)
{
    const char *name = NULL;
    const cJSON *arguments = NULL;
    cJSON *owned = NULL;
    weft_status status = message_call(call, index, &name, &arguments, &owned, err);
    if (status) return status;
    put_trusted(out, WEFT_CALL, is_v31(d) ? CALL_BEGIN : CALL_BEGIN "function" SEP);
    put_foreign(out, WEFT_CALL, name, strlen(name));
    put_trusted(out, WEFT_CALL, is_v31(d) ? SEP : "\n```json\n");
    status = messages_put_json(out, WEFT_CALL, arguments, err);
    put_trusted(out, WEFT_CALL, is_v31(d) ? CALL_END : "\n```" CALL_END);
    cJSON_Delete(owned);
    return status;
}

static void put_output(weft_script *out, const char *text)
{
    put_trusted(out, WEFT_RESULT, OUTPUT_BEGIN);
    put_foreign(out, WEFT_RESULT, text, strlen(text));
    put_trusted(out, WEFT_RESULT, OUTPUT_END);
}

/* ---- a run: begin, results, user ---- */

static bool thinks(const weft_dialect *d, weft_think think)
{
    return is_v31(d) ? think == WEFT_THINK_ON : think != WEFT_THINK_OFF;
}

static void put_user(const weft_dialect *d, const char *text, weft_think think, weft_script *out)
{
    put_trusted(out, WEFT_USER, USER);
    put_foreign(out, WEFT_USER, text, strlen(text));
    put_trusted(out, WEFT_USER, ASSISTANT);
    put_marker(d, WEFT_USER, thinks(d, think), out);
}

static weft_status begin(const weft_dialect *d, const char *system, const cJSON *tools,
                         const char *user, weft_think think, weft_script *out, weft_error *err)
{
    weft_status status = WEFT_OK;
    put_trusted(out, WEFT_SYSTEM, BOS);
    if (system) put_foreign(out, WEFT_SYSTEM, system, strlen(system));
    if (cJSON_GetArraySize(tools) > 0) {
        if (system && *system) put_trusted(out, WEFT_SYSTEM, "\n\n");
        status = put_tools(d, tools, out, err);
    }
    put_user(d, user, think, out);
    return status;
}

static weft_status results(const weft_dialect *d, bool ended, const weft_result_text *result,
                           size_t n, const char *note, weft_think think, weft_script *out,
                           weft_error *err)
{
    if (!ended) put_trusted(out, WEFT_RESULT, EOS);
    if (!is_v31(d)) put_trusted(out, WEFT_RESULT, OUTPUTS_BEGIN);
    for (size_t i = 0; i < n; i++) {
        if (i && !is_v31(d) && !d->variant.opens_thought) put_trusted(out, WEFT_RESULT, "\n");
        put_output(out, result[i].text);
    }
    if (note) put_output(out, note);
    if (!is_v31(d)) put_trusted(out, WEFT_RESULT, OUTPUTS_END);
    return WEFT_OK;
}

static weft_status user(const weft_dialect *d, bool ended, const char *text, weft_think think,
                        weft_script *out, weft_error *err)
{
    if (!ended) put_trusted(out, WEFT_USER, EOS);
    put_user(d, text, think, out);
    return WEFT_OK;
}

/* ---- whole conversations ---- */

/* What the templates remember from message to message. */
typedef struct memory {
    bool asked;      /* V3.1: the user spoke last */
    bool answered;   /* a result stood last */
    bool called;     /* V3: a call was written at some time */
    bool had_output; /* V3: and a result was */
} memory;

/* All system messages come first, whatever their place, parted by a blank line. */
static void put_systems(const weft_message *m, size_t n, weft_script *out)
{
    bool first = true;
    for (size_t i = 0; i < n; i++) {
        if (!is_role(&m[i], "system")) continue;
        if (!first) put_trusted(out, WEFT_SYSTEM, "\n\n");
        put_foreign(out, WEFT_SYSTEM, m[i].content, strlen(m[i].content));
        first = false;
    }
}

/* A thought in the history's text is cut out: V3.1 cuts at the first closer, R1 at the last. */
static const char *without_thought(const weft_dialect *d, const char *content)
{
    static const char close[] = "</think>";
    const char *at = d->variant.cuts_thought ? strstr(content, close) : NULL;
    if (!at) return content;
    for (const char *next; !is_v31(d) && (next = strstr(at + 1, close));) at = next;
    return at + strlen(close);
}

static weft_status put_calls_v31(const weft_dialect *d, const weft_message *m, size_t index,
                                 weft_script *out, weft_error *err)
{
    weft_status status = WEFT_OK;
    const cJSON *call;
    put_foreign(out, WEFT_THOUGHT, m->content, strlen(m->content));
    put_trusted(out, WEFT_CALL, CALLS_BEGIN);
    cJSON_ArrayForEach(call, m->calls)
    {
        if (!status) status = put_call(d, call, index, out, err);
    }
    put_trusted(out, WEFT_CALL, CALLS_END EOS);
    return status;
}

static weft_status put_v31(const weft_dialect *d, const weft_message *m, size_t index, memory *s,
                           weft_script *out, weft_error *err)
{
    weft_status status = WEFT_OK;
    if (is_role(m, "user")) {
        put_trusted(out, WEFT_USER, USER);
        put_foreign(out, WEFT_USER, m->content, strlen(m->content));
        *s = (memory){.asked = true};
    } else if (is_role(m, "assistant")) {
        weft_segment label = m->calls ? WEFT_THOUGHT : WEFT_ANSWER;
        if (s->asked) {
            put_trusted(out, label, ASSISTANT);
            put_marker(d, label, false, out);
        }
        if (m->calls) {
            status = put_calls_v31(d, m, index, out, err);
        } else {
            const char *text = s->answered ? m->content : without_thought(d, m->content);
            put_foreign(out, WEFT_ANSWER, text, strlen(text));
            put_trusted(out, WEFT_ANSWER, EOS);
        }
        *s = (memory){0};
    } else if (is_role(m, "tool")) {
        put_output(out, m->content);
        *s = (memory){.answered = true};
    }
    return status;
}

/* V3 ends the block behind every call but the conversation's first, R1 behind the last of each
 * message. */
static weft_status put_calls_v3(const weft_dialect *d, const weft_message *m, size_t index,
                                memory *s, weft_script *out, weft_error *err)
{
    bool is_r1 = d->variant.opens_thought;
    const cJSON *call;
    cJSON_ArrayForEach(call, m->calls)
    {
        bool first = !s->called;
        put_trusted(out, WEFT_CALL, first ? ASSISTANT : "\n");
        if (first && is_r1) put_foreign(out, WEFT_CALL, m->content, strlen(m->content));
        if (first) put_trusted(out, WEFT_CALL, CALLS_BEGIN);
        weft_status status = put_call(d, call, index, out, err);
        if (status) return status;
        if (!first && !is_r1) put_trusted(out, WEFT_CALL, CALLS_END EOS);
        s->called = true;
    }
    if (is_r1) put_trusted(out, WEFT_CALL, CALLS_END EOS);
    return WEFT_OK;
}

static weft_status put_v3(const weft_dialect *d, const weft_message *m, size_t index, memory *s,
                          weft_script *out, weft_error *err)
{
    weft_status status = WEFT_OK;
    if (is_role(m, "user")) {
        put_trusted(out, WEFT_USER, USER);
        put_foreign(out, WEFT_USER, m->content, strlen(m->content));
        s->answered = false;
    } else if (is_role(m, "assistant") &&
               (d->variant.opens_thought ? !!m->calls : !m->has_content)) {
        status = put_calls_v3(d, m, index, s, out, err);
        s->answered = false;
    } else if (is_role(m, "assistant")) {
        const char *text = s->answered ? m->content : without_thought(d, m->content);
        put_trusted(out, WEFT_ANSWER, s->answered ? OUTPUTS_END : ASSISTANT);
        put_foreign(out, WEFT_ANSWER, text, strlen(text));
        put_trusted(out, WEFT_ANSWER, EOS);
        s->answered = false;
    } else if (is_role(m, "tool")) {
        put_trusted(out, WEFT_RESULT,
                    !s->had_output             ? OUTPUTS_BEGIN
                    : d->variant.opens_thought ? ""
                                               : "\n");
        put_output(out, m->content);
        s->answered = s->had_output = true;
    }
    return status;
}

static weft_status render(const weft_dialect *d, const cJSON *request, weft_script *out,
                          weft_error *err)
{
    weft_message *m = NULL;
    size_t n = 0;
    memory s = {0};
    bool prompts = weft_json_bool(request, "add_generation_prompt", false);
    weft_status status = messages_read(request, &m, &n, err);
    if (status) return status;
    put_trusted(out, WEFT_SYSTEM, BOS);
    put_systems(m, n, out);
    for (size_t i = 0; i < n && !status; i++)
        status = is_v31(d) ? put_v31(d, &m[i], i, &s, out, err) : put_v3(d, &m[i], i, &s, out, err);
    if (!is_v31(d) && s.answered) put_trusted(out, WEFT_RESULT, OUTPUTS_END);
    if (prompts && !s.answered && (s.asked || !is_v31(d))) {
        bool on = weft_json_bool(request, "thinking", !is_v31(d));
        put_trusted(out, WEFT_USER, ASSISTANT);
        put_marker(d, WEFT_USER, on, out);
    }
    messages_free(m, n);
    return status;
}

/* ---- the two families ---- */

/* Known by the template alone: the vocabularies of all of DeepSeek's models have the tokens of all
 * of its formats. */
static bool fits_v31(const weft_tokenizer *tokenizer, const char *architecture,
                     const char *chat_template)
{
    return chat_template && strstr(chat_template, CALL_BEGIN) &&
           strstr(chat_template, "</think>") && !strstr(chat_template, "```json");
}

static bool fits_v3(const weft_tokenizer *tokenizer, const char *architecture,
                    const char *chat_template)
{
    return chat_template && strstr(chat_template, CALL_BEGIN) && strstr(chat_template, "```json");
}

static const char *const needs_v31[] = {BOS,         EOS,       USER,       ASSISTANT, SEP,
                                        CALLS_BEGIN, "<think>", "</think>", NULL};
static const char *const needs_v3[] = {BOS, EOS, USER, ASSISTANT, SEP, CALLS_BEGIN, NULL};

const weft_family weft_family_dsv31 = {"dsv31", WEFT_SYNTAX_V31, needs_v31, fits_v31, render, begin, results, user};
const weft_family weft_family_dsv3 = {"dsv3", WEFT_SYNTAX_V3, needs_v3, fits_v3, render, begin, results, user};
