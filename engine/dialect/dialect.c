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

static const weft_family *const families[] = {&weft_family_qwen, &weft_family_chatml,
                                              &weft_family_dsv32, &weft_family_dsv31,
                                              &weft_family_dsv3};
enum { N_FAMILIES = sizeof families / sizeof *families };

#define KNOWN "qwen, chatml, dsv32, dsv31, dsv3"

/* A token that the family needs and the vocabulary lacks; NULL: none. */
static const char *lacks(const weft_family *family, const weft_tokenizer *tokenizer)
{
    for (const char *const *token = family->needs; *token; token++)
        if (weft_tokenizer_find(tokenizer, *token) < 0) return *token;
    return NULL;
}

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
        if (!lacks(families[i], tokenizer) &&
            families[i]->fits(tokenizer, architecture, chat_template)) {
            *out = families[i];
            return WEFT_OK;
        }
    return weft_fail(
        err, WEFT_E_MODEL,
        "choose a dialect: neither the vocabulary nor the chat template of this %s model has the "
        "marks of one of the dialects " KNOWN "; take an instruction-tuned model of those families",
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
    v->empty_thought = strstr(source, "<think></think>") != NULL;
    v->opens_thought = strstr(source, "<think>\n") != NULL || strstr(source, "<think>\\n") != NULL;
    v->cuts_thought = strstr(source, "split('</think>'") != NULL;
    v->history = !strstr(source, "reasoning_content") ? WEFT_HISTORY_PLAIN
                 : strstr(source, "last_query_index") ? WEFT_HISTORY_RECENT
                                                      : WEFT_HISTORY_ALWAYS;
    return read_default_system(source, &v->default_system, err);
}

static weft_delimiters find_delimiters(const weft_tokenizer *t, const weft_family *family)
{
    static const char *const sigils[WEFT_SIGILS] = {
        "<｜tool▁calls▁end｜>",  "<｜tool▁call▁end｜>",    "<｜tool▁sep｜>",
        "<｜tool▁call▁begin｜>", "<｜tool▁calls▁begin｜>", "｜DSML｜"};
    weft_delimiters d = {weft_tokenizer_find(t, "<think>"), weft_tokenizer_find(t, "</think>"),
                         -1, -1, -1, -1, {-1, -1, -1, -1, -1, -1}, -1};
    if (d.think < 0 || d.end_think < 0) d.think = d.end_think = -1;
    if (family->syntax == WEFT_SYNTAX_JSON) {
        d.call = weft_tokenizer_find(t, "<tool_call>");
        d.end_call = weft_tokenizer_find(t, "</tool_call>");
        d.response = weft_tokenizer_find(t, "<tool_response>");
        d.end_response = weft_tokenizer_find(t, "</tool_response>");
    } else {
        for (size_t i = 0; i < WEFT_SIGILS; i++) d.sigil[i] = weft_tokenizer_find(t, sigils[i]);
        d.user = weft_tokenizer_find(t, "<｜User｜>");
    }
    return d;
}

weft_status weft_dialect_new(weft_dialect **out, const weft_tokenizer *tokenizer,
                             const char *architecture, const char *chat_template, const char *name,
                             weft_error *err)
{
    const weft_family *family = NULL;
    weft_status status = choose(tokenizer, architecture, chat_template, name, &family, err);
    if (status) return status;
    const char *missing = lacks(family, tokenizer);
    if (missing)
        return weft_fail(
            err, WEFT_E_MODEL,
            "dialect %s: the vocabulary lacks %s; choose another dialect or model", family->name,
            missing);
    weft_dialect *d = calloc(1, sizeof *d);
    if (!d) return weft_fail(err, WEFT_E_MEMORY, "open the dialect: out of memory");
    d->family = family;
    d->tokenizer = tokenizer;
    d->delimiter = find_delimiters(tokenizer, family);
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

bool weft_dialect_in_thought(const weft_dialect *dialect, const int32_t *ids, size_t n)
{
    enum { BEHIND = 2 }; /* tokens that may stand behind <think>: a newline */
    int32_t think = dialect->delimiter.think;
    if (think < 0 || dialect->family->syntax == WEFT_SYNTAX_JSON) return false;
    for (size_t i = n; i-- > 0 && n - i <= BEHIND;) {
        if (ids[i] == think) return true;
        weft_text bytes = weft_tokenizer_bytes(dialect->tokenizer, ids[i], false);
        if (bytes.size != 1 || bytes.data[0] != '\n') return false;
    }
    return false;
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
