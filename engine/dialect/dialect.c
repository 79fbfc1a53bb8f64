/* Chooses a dialect and reads its variant from the chat template.
 *
 * A template is a program in a language that weft does not run. What differs between the templates
 * of one family is a handful of facts, and each shows as a literal in the template's source: those
 * literals are what is looked for here. That the outcome equals the template's own is proven by the
 * rendered conversations in tests/data/chat. */
#include "engine/dialect/dialect.h"
#include "engine/mask.h"
#include "engine/turn.h"

#include <stdlib.h>
#include <string.h>

static const weft_family *const families[] = {&weft_family_qwen, &weft_family_chatml};
enum { N_FAMILIES = sizeof families / sizeof *families };

#define KNOWN "qwen, chatml"

static weft_status choose(const weft_tokenizer *tokenizer, const char *architecture,
                          const char *chat_template, const char *name, const weft_family **out,
                          weft_error *err)
{
    if (name) {
        for (size_t i = 0; i < N_FAMILIES; i++)
            if (strcmp(families[i]->name, name) == 0) {
                *out = families[i];
                return WEFT_OK;
            }
        return weft_fail(err, WEFT_E_USAGE, "dialect %s: not known; use one of " KNOWN, name);
    }
    for (size_t i = 0; i < N_FAMILIES; i++)
        if (families[i]->fits(tokenizer, chat_template)) {
            *out = families[i];
            return WEFT_OK;
        }
    return weft_fail(
        err, WEFT_E_MODEL,
        "choose a dialect: this %s model's vocabulary has no <|im_start|>, so it fits none of "
        "the dialects " KNOWN "; take an instruction-tuned model of those families",
        architecture && *architecture ? architecture : "unnamed");
}

/* The default system text stands in a string literal of its own, or after the header of the system
 * role; it begins with "You are" in every template of these families. ("You are provided with" of
 * the tool text stands in the middle of a literal.) */
static weft_status read_default_system(const char *source, char **out, weft_error *err)
{
    static const char head[] = "You are ";
    for (const char *at = strstr(source, head); at; at = strstr(at + 1, head)) {
        size_t before = (size_t)(at - source);
        bool own = before >= 1 && (at[-1] == '\'' || at[-1] == '"');
        bool real_newline = before >= 7 && memcmp(at - 7, "system\n", 7) == 0;
        bool escaped_newline = before >= 8 && memcmp(at - 8, "system\\n", 8) == 0;
        if (!own && !real_newline && !escaped_newline) continue;
        size_t n = strcspn(at, "'\"<");
        char *text = malloc(n + 1);
        if (!text) return weft_fail(err, WEFT_E_MEMORY, "read the chat template: out of memory");
        memcpy(text, at, n);
        text[n] = '\0';
        *out = text;
        return WEFT_OK;
    }
    return WEFT_OK;
}

static weft_status read_variant(const char *source, weft_variant *v, weft_error *err)
{
    if (!source) return WEFT_OK;
    v->doubled_braces = strstr(source, "{{\\\"name\\\": <function-name>") != NULL;
    v->closes_thought = strstr(source, "enable_thinking") != NULL;
    v->history = !strstr(source, "reasoning_content") ? WEFT_HISTORY_PLAIN
                 : strstr(source, "last_query_index") ? WEFT_HISTORY_RECENT
                                                      : WEFT_HISTORY_ALWAYS;
    return read_default_system(source, &v->default_system, err);
}

static weft_delimiters find_delimiters(const weft_tokenizer *t)
{
    weft_delimiters d = {
        weft_tokenizer_find(t, "<think>"),         weft_tokenizer_find(t, "</think>"),
        weft_tokenizer_find(t, "<tool_call>"),     weft_tokenizer_find(t, "</tool_call>"),
        weft_tokenizer_find(t, "<tool_response>"), weft_tokenizer_find(t, "</tool_response>")};
    if (d.think < 0 || d.end_think < 0) d.think = d.end_think = -1;
    return d;
}

weft_status weft_dialect_new(weft_dialect **out, const weft_tokenizer *tokenizer,
                             const char *architecture, const char *chat_template, const char *name,
                             weft_error *err)
{
    const weft_family *family = NULL;
    weft_status status = choose(tokenizer, architecture, chat_template, name, &family, err);
    if (status) return status;
    if (weft_tokenizer_find(tokenizer, "<|im_start|>") < 0 ||
        weft_tokenizer_find(tokenizer, "<|im_end|>") < 0)
        return weft_fail(
            err, WEFT_E_MODEL,
            "dialect %s: the vocabulary lacks <|im_start|> or <|im_end|>; choose another "
            "dialect or model",
            family->name);
    weft_dialect *d = calloc(1, sizeof *d);
    if (!d) return weft_fail(err, WEFT_E_MEMORY, "open the dialect: out of memory");
    d->family = family;
    d->tokenizer = tokenizer;
    d->delimiter = find_delimiters(tokenizer);
    d->variant.writes_tools = family == &weft_family_qwen;
    status = read_variant(chat_template, &d->variant, err);
    if (status) {
        weft_dialect_close(d);
        return status;
    }
    *out = d;
    return WEFT_OK;
}

void weft_dialect_close(weft_dialect *dialect)
{
    if (!dialect) return;
    weft_dialect_forget(dialect);
    weft_trie_free(dialect->trie);
    free(dialect->ends);
    free(dialect->variant.default_system);
    free(dialect);
}

const char *weft_dialect_name(const weft_dialect *dialect)
{
    return dialect->family->name;
}

bool weft_dialect_thinks(const weft_dialect *dialect)
{
    return dialect->delimiter.think >= 0;
}

weft_status weft_dialect_render(const weft_dialect *dialect, const cJSON *request, weft_script *out,
                                weft_error *err)
{
    weft_status status = dialect->family->render(dialect, request, out, err);
    return status ? status : weft_script_ok(out, err);
}

weft_status weft_dialect_begin(const weft_dialect *dialect, const char *system, const cJSON *tools,
                               const char *user, weft_think think, weft_script *out,
                               weft_error *err)
{
    weft_status status = dialect->family->begin(dialect, system, tools, user, think, out, err);
    return status ? status : weft_script_ok(out, err);
}

weft_status weft_dialect_results(const weft_dialect *dialect, bool ended,
                                 const weft_result_text *results, size_t n, const char *note,
                                 weft_think think, weft_script *out, weft_error *err)
{
    weft_status status =
        dialect->family->results(dialect, ended, results, n, note, think, out, err);
    return status ? status : weft_script_ok(out, err);
}

weft_status weft_dialect_user(const weft_dialect *dialect, bool ended, const char *user,
                              weft_think think, weft_script *out, weft_error *err)
{
    weft_status status = dialect->family->user(dialect, ended, user, think, out, err);
    return status ? status : weft_script_ok(out, err);
}
