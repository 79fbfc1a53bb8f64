/* Reads the calls of a turn in DeepSeek's formats, as models write them, which is not always as the
 * format says. Openers are read strictly, closers leniently, and a reading is taken only if there is
 * no other: the tool runs with what was written or not at all. Whatever else stands after a first
 * delimiter becomes a call with an error in words that the model can act on.
 *
 * Read as what they can only mean (each has its cases in test_dsml_malformed.c):
 *  - the block's name function_calls, or tool_calls, function_call, tool_call; no block at all
 *  - a closer of a parameter with a bar behind the word, without a word, or with the words that are
 *    taken for it; of an invoke or the block likewise, or none where the next delimiter tells
 *  - any blanks between delimiters, and words behind the last of them
 *  - the arguments as one JSON object inside the invoke
 *  - no string attribute, where exactly one reading of the value satisfies the tool's schema
 *  - the formats of V3.1 and V3, with or without the tokens that frame them
 *
 * Refused: all else. A parameter that does not end, an invoke that ends with the turn, a key that
 * stands twice, string="false" before what is no JSON, text between parameters, an unknown block or
 * tool, a delimiter that was spelt out as text. */
#include "engine/turn.h"

#include <stdlib.h>
#include <string.h>

#define D S_DSML

static const char shape[] =
    "Write the whole block again as the system text shows it: function_calls, in it an invoke with "
    "the tool's name, in it each argument as a parameter with name and string attribute, each "
    "closed "
    "by its own closer.";
static const char json_shape[] =
    "Write the whole block again: the tool's name, the separator token, then the arguments as one "
    "JSON object.";

enum { UNTYPED_MAX = 4 }; /* values whose type the schema must tell, at a time */

typedef struct reader {
    weft_turn *turn;
    const weft_plan *plan;
    const char *at, *end;
    bool cut;
    const char *call; /* where the call being read begins */
    char *name;
    cJSON *arguments;
    cJSON *untyped[UNTYPED_MAX]; /* strings in arguments that may be JSON */
    size_t n_untyped;
    weft_buffer words; /* what is wrong with it; empty: nothing */
    weft_error *err;
} reader;

/* ---- bytes ---- */

static bool looks_at(const reader *r, const char *text)
{
    size_t n = strlen(text);
    return (size_t)(r->end - r->at) >= n && memcmp(r->at, text, n) == 0;
}

static bool take(reader *r, const char *text)
{
    if (!looks_at(r, text)) return false;
    r->at += strlen(text);
    return true;
}

static void skip_blanks(reader *r)
{
    while (r->at < r->end && memchr(" \t\r\n", *r->at, 4)) r->at++;
}

static bool take_blanks(reader *r)
{
    const char *from = r->at;
    skip_blanks(r);
    return r->at > from;
}

static bool is_sigil(char byte)
{
    return (uint8_t)byte >= WEFT_SIGIL_FIRST;
}

/* ---- words for the model ---- */

/* The first complaint about a call stands. */
static bool wrong(reader *r, const char *format, ...) __attribute__((format(printf, 2, 3)));

static bool wrong(reader *r, const char *format, ...)
{
    char text[512];
    va_list args;
    if (r->words.size) return false;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    weft_utf8_scrub(text, strlen(text), &r->words);
    return false;
}

static bool unterminated(reader *r, const char *what)
{
    if (r->cut) return wrong(r, "The call was cut off before its end. Write it again, shorter.");
    return wrong(r, "The %s was not closed. %s", what, shape);
}

/* ---- the call being read ---- */

static void forget_call(reader *r)
{
    free(r->name);
    cJSON_Delete(r->arguments);
    r->name = NULL;
    r->arguments = NULL;
    r->n_untyped = 0;
    weft_buffer_free(&r->words);
}

static char *copy_clean(const reader *r, const char *from, const char *to)
{
    weft_buffer out = WEFT_BUFFER_INIT;
    weft_turn_clean(r->turn->dialect, from, (size_t)(to - from), &out);
    if (out.failed) {
        weft_buffer_free(&out);
        return NULL;
    }
    return out.data ? weft_buffer_take(&out) : strdup("");
}

static const weft_schema *schema_of(const reader *r)
{
    for (size_t i = 0; i < r->plan->n; i++)
        if (strcmp(r->plan->name[i], r->name) == 0) return r->plan->schema[i];
    return NULL;
}

/* Each value without a string attribute is text or JSON: of all readings, exactly one must satisfy
 * the schema. */
static void settle_types(reader *r)
{
    const weft_schema *schema = schema_of(r);
    cJSON *found = NULL;
    size_t fitting = 0, n = r->n_untyped;
    if (n == 0 || r->words.size) return;
    for (size_t choice = 0; schema && choice < (size_t)1 << n; choice++) {
        cJSON *reading = cJSON_Duplicate(r->arguments, true);
        bool possible = reading != NULL;
        for (size_t i = 0; i < n && possible; i++) {
            const char *text = r->untyped[i]->valuestring, *key = r->untyped[i]->string;
            cJSON *value = NULL;
            if (!(choice >> i & 1)) continue;
            possible = !weft_json_parse(text, strlen(text), &value, NULL) &&
                       !cJSON_IsString(value) &&
                       cJSON_ReplaceItemInObjectCaseSensitive(reading, key, value);
            if (!possible) cJSON_Delete(value);
        }
        bool fits = possible && weft_schema_check(schema, reading, NULL) == WEFT_OK;
        if (fits && fitting++ == 0) {
            found = reading;
        } else {
            cJSON_Delete(reading);
        }
    }
    if (fitting == 1) {
        cJSON_Delete(r->arguments);
        r->arguments = found;
        return;
    }
    cJSON_Delete(found);
    wrong(r,
          "The parameter \"%s\" has no string attribute, and both readings of its value are "
          "possible or none is. %s",
          r->untyped[0]->string, shape);
}

/* Appends what was read as a call: arguments, or an error. */
static weft_status finish_call(reader *r)
{
    weft_turn_call *call = weft_turn_add_call(r->turn);
    if (call && r->name && *r->name && !weft_turn_is_offered(r->plan, r->name)) {
        weft_buffer_clear(&r->words);
        wrong(r, "There is no tool \"%.200s\". ", r->name);
        weft_turn_say_tools(r->plan, &r->words);
    }
    if (call && r->arguments && r->name) settle_types(r);
    if (call && !r->words.size && !(r->name && r->arguments)) wrong(r, "%s", shape);
    weft_status status = WEFT_E_MEMORY;
    if (call && weft_buffer_ok(&r->words, NULL) == WEFT_OK) {
        call->raw = copy_clean(r, r->call, r->at);
        call->name = r->name ? r->name : strdup("");
        r->name = NULL;
        if (r->words.size) {
            call->error = weft_buffer_take(&r->words);
        } else {
            call->arguments = r->arguments;
            r->arguments = NULL;
        }
        if (call->raw && call->name && (call->error || call->arguments)) status = WEFT_OK;
    }
    forget_call(r);
    return status ? weft_fail(r->err, status, "read a call: out of memory") : WEFT_OK;
}

static bool set_name(reader *r, const char *from, const char *to)
{
    if (to == from) return wrong(r, "The call names no tool. %s", shape);
    r->name = copy_clean(r, from, to);
    if (!r->name) r->words.failed = true;
    return r->name != NULL;
}

/* ---- DSML ---- */

/* A closer's word may be missing, or have bars or blanks around it. */
static bool take_closer(reader *r, const char *const *words)
{
    const char *from = r->at;
    if (!take(r, "</" D)) return false;
    const char *const *word = words;
    while (*word && !take(r, *word)) word++;
    while (take(r, "｜") || take(r, "|") || take(r, " ")) {
    }
    if (take(r, ">")) return true;
    r->at = from;
    return false;
}

/* Longer words before those that they begin with. */
static const char *const parameter_words[] = {"parameters", "parameter", "param", "argument", NULL};
static const char *const invoke_words[] = {"invoke", "function_call", "tool_call", "call", NULL};
static const char *const block_words[] = {"function_calls", "tool_calls", "function_call",
                                          "tool_call", NULL};

/* ="VALUE" behind an attribute's name. */
static bool take_attribute(reader *r, const char *name, const char **out, size_t *out_n)
{
    const char *from = r->at;
    if (!take_blanks(r) || !take(r, name) || !take(r, "=\"")) {
        r->at = from;
        return false;
    }
    const char *quote = memchr(r->at, '"', (size_t)(r->end - r->at));
    for (const char *p = r->at; quote && p < quote; p++)
        if (*p == '<' || *p == '>' || *p == '\n' || is_sigil(*p)) quote = NULL;
    if (!quote) {
        r->at = from;
        return false;
    }
    *out = r->at;
    *out_n = (size_t)(quote - r->at);
    r->at = quote + 1;
    return true;
}

typedef enum typing { TEXT, JSON, UNTYPED } typing;

static bool add_value(reader *r, char *key, typing type, const char *from, size_t n)
{
    cJSON *value = NULL;
    weft_error why;
    if (cJSON_GetObjectItemCaseSensitive(r->arguments, key))
        return wrong(r, "The parameter \"%.200s\" stands twice. %s", key, shape);
    if (type == JSON) {
        if (weft_json_parse(from, n, &value, &why))
            return wrong(r,
                         "The parameter \"%.100s\" says string=\"false\", but its value is not "
                         "valid JSON: %.200s. Write JSON, or string=\"true\" before text.",
                         key, why.message);
    } else {
        if (memchr(from, 0, n) || weft_utf8_valid(from, n) != n)
            return wrong(r, "The parameter \"%.200s\" is not valid UTF-8 text.", key);
        char *text = strndup(from, n);
        value = text ? cJSON_CreateString(text) : NULL;
        free(text);
    }
    if (!value || !cJSON_AddItemToObject(r->arguments, key, value)) {
        cJSON_Delete(value);
        r->words.failed = true;
        return false;
    }
    if (type != UNTYPED) return true;
    if (r->n_untyped == UNTYPED_MAX)
        return wrong(r, "Parameters have no string attribute. %s", shape);
    r->untyped[r->n_untyped++] = value;
    return true;
}

/* A value ends at the first delimiter, since no text can hold one; that must be its closer. */
static bool read_value(reader *r, char *key, typing type)
{
    const char *from = r->at, *sigil = from;
    while (sigil < r->end && *sigil != D[0]) sigil++;
    if (sigil == r->end) {
        r->at = r->end;
        return unterminated(r, "parameter");
    }
    bool closes = sigil - from >= 2 && memcmp(sigil - 2, "</", 2) == 0;
    r->at = closes ? sigil - 2 : sigil;
    const char *to = r->at;
    if (!closes || !take_closer(r, parameter_words)) {
        r->at = sigil + 1;
        return wrong(r, "The parameter \"%.200s\" was not closed. %s", key, shape);
    }
    return add_value(r, key, type, from, (size_t)(to - from));
}

static bool read_parameter(reader *r)
{
    const char *key, *type = NULL;
    size_t n_key, n_type = 0;
    if (!take_attribute(r, "name", &key, &n_key) || n_key == 0)
        return wrong(r, "A parameter has no name. %s", shape);
    bool typed = take_attribute(r, "string", &type, &n_type);
    bool is_true = typed && n_type == 4 && memcmp(type, "true", 4) == 0,
         is_false = typed && n_type == 5 && memcmp(type, "false", 5) == 0;
    skip_blanks(r);
    if ((typed && !is_true && !is_false) || !take(r, ">"))
        return wrong(r, "A parameter's opener is neither string=\"true\" nor string=\"false\". %s",
                     shape);
    char *name = copy_clean(r, key, key + n_key);
    if (!name) r->words.failed = true;
    bool ok = name && read_value(r, name, is_true ? TEXT : is_false ? JSON : UNTYPED);
    free(name);
    return ok;
}

/* An object in place of parameters: up to its closer, all of it. */
static bool read_object_body(reader *r)
{
    const char *from = r->at, *to = from;
    while (to < r->end && !is_sigil(*to)) to++;
    r->at = to;
    if (to == r->end) return unterminated(r, "invoke");
    while (to > from && (to[-1] == '<' || to[-1] == '/')) to--; /* of that delimiter */
    r->at = to;
    while (to > from && memchr(" \t\r\n", to[-1], 4)) to--;
    weft_error why;
    cJSON *object = NULL;
    if (r->arguments->child) return wrong(r, "JSON stands among the parameters. %s", shape);
    if (weft_json_parse(from, (size_t)(to - from), &object, &why))
        return wrong(r, "The arguments are not valid JSON: %.200s. %s", why.message, shape);
    if (!cJSON_IsObject(object)) {
        cJSON_Delete(object);
        return wrong(r, "The arguments are no JSON object. %s", shape);
    }
    cJSON_Delete(r->arguments);
    r->arguments = object;
    return true;
}

/* Whether the next delimiter can only stand behind an invoke. */
static bool ends_invoke(reader *r)
{
    const char *from = r->at;
    bool ends = looks_at(r, "<" D "invoke") || take_closer(r, block_words);
    r->at = from;
    return ends;
}

/* Behind `<D invoke`: the name, the parameters, the closer, or what tells that one is missing. */
static bool read_invoke(reader *r)
{
    const char *name;
    size_t n = 0;
    if (!take_attribute(r, "name", &name, &n)) return wrong(r, "An invoke has no name. %s", shape);
    if (!set_name(r, name, name + n)) return false;
    skip_blanks(r);
    if (!take(r, ">")) return wrong(r, "The opener of an invoke is not closed. %s", shape);
    r->arguments = cJSON_CreateObject();
    if (!r->arguments) r->words.failed = true;
    bool object = false;
    while (!r->words.failed) {
        skip_blanks(r);
        if (r->at == r->end) return unterminated(r, "invoke");
        if (take_closer(r, invoke_words)) return true;
        if (ends_invoke(r))
            return object || r->arguments->child || wrong(r, "An invoke was not closed. %s", shape);
        if (take(r, "<" D "parameter")) {
            if (object) return wrong(r, "JSON stands among the parameters. %s", shape);
            if (!read_parameter(r)) return false;
        } else if (looks_at(r, "{") && !object) {
            if (!read_object_body(r)) return false;
            object = true;
        } else {
            return wrong(r, "Between parameters stands what is none. %s", shape);
        }
    }
    return false;
}

/* Past the rest of a call that cannot be read, to where the next may begin. */
static void skip_call(reader *r)
{
    while (r->at < r->end && !looks_at(r, "<" D "invoke") && !looks_at(r, S_CALL)) r->at++;
}

/* ---- V3.1 and V3 ---- */

/* The bytes of a JSON object from r->at; 0: it does not end. */
static size_t object_size(const reader *r)
{
    size_t depth = 0;
    bool quoted = false, escaped = false;
    for (const char *p = r->at; p < r->end && !is_sigil(*p); p++) {
        if (escaped) {
            escaped = false;
        } else if (quoted) {
            escaped = *p == '\\';
            quoted = *p != '"';
        } else if (*p == '"') {
            quoted = true;
        } else if (*p == '{' || *p == '[') {
            depth++;
        } else if ((*p == '}' || *p == ']') && (depth == 0 || --depth == 0)) {
            return (size_t)(p + 1 - r->at);
        }
    }
    return 0;
}

/* Behind the token that begins a call: NAME sep {...}, or function sep NAME, the JSON in a fence. */
static bool read_token_call(reader *r)
{
    const char *name = r->at;
    weft_error why;
    bool fenced = take(r, "function" S_SEP);
    if (fenced) name = r->at;
    while (r->at < r->end && !is_sigil(*r->at) && *r->at != '\n' && *r->at != '{') r->at++;
    const char *to = r->at;
    while (to > name && to[-1] == ' ') to--;
    if (r->at == r->end) return unterminated(r, "call");
    if (!set_name(r, name, to)) return false;
    if (!fenced && !take(r, S_SEP))
        return wrong(r, "No separator token stands behind the tool's name. %s", json_shape);
    skip_blanks(r);
    if (take(r, "```json")) skip_blanks(r);
    if (!looks_at(r, "{")) return wrong(r, "The arguments are no JSON object. %s", json_shape);
    size_t n = object_size(r);
    const char *from = r->at;
    if (n == 0) {
        skip_call(r);
        return unterminated(r, "JSON of the arguments");
    }
    r->at += n;
    if (weft_json_parse(from, n, &r->arguments, &why))
        return wrong(r, "The arguments are not valid JSON: %.200s. %s", why.message, json_shape);
    skip_blanks(r);
    if (take(r, "```")) skip_blanks(r);
    take(r, S_CALL_END);
    return true;
}

/* ---- the region ---- */

static weft_status read_one(reader *r, bool (*read)(reader *))
{
    if (!read(r)) {
        if (r->words.failed) return finish_call(r);
        skip_call(r);
    }
    return finish_call(r);
}

/* The delimiter at which the reader stands, if any, is no call: it is passed, and true returned. */
static bool pass_frame(reader *r)
{
    for (const char *const *word = block_words; *word; word++) {
        const char *from = r->at;
        if (take(r, "<" D) && take(r, *word)) {
            skip_blanks(r);
            if (take(r, ">")) return true;
        }
        r->at = from;
    }
    return take_closer(r, block_words) || take_closer(r, invoke_words) || take(r, S_CALLS) ||
           take(r, S_CALLS_END);
}

/* No further delimiter: the rest is words. */
static bool is_rest(const reader *r)
{
    for (const char *p = r->at; p < r->end; p++)
        if (is_sigil(*p)) return false;
    return true;
}

weft_status weft_dsml_read(weft_turn *turn, const char *text, size_t n, bool cut, weft_error *err)
{
    reader r = {.turn = turn,
                .plan = turn->plan,
                .at = text,
                .end = text + n,
                .cut = cut,
                .words = WEFT_BUFFER_INIT,
                .err = err};
    weft_status status = WEFT_OK;
    size_t before = turn->result.n_call;
    while (!status) {
        skip_blanks(&r);
        r.call = r.at;
        bool called = turn->result.n_call > before;
        if (r.at == r.end || (called && is_rest(&r))) break;
        if (pass_frame(&r)) continue;
        if (take(&r, "<" D "invoke")) {
            status = read_one(&r, read_invoke);
        } else if (take(&r, S_CALL)) {
            status = read_one(&r, read_token_call);
        } else {
            /* what follows is read no further: whether it was meant is not known */
            wrong(&r, "What stands here is no call. %s", shape);
            r.at = r.end;
            status = finish_call(&r);
        }
    }
    if (!status && turn->result.n_call == before) {
        r.call = text;
        r.at = r.end;
        unterminated(&r, "block of calls");
        status = finish_call(&r);
    }
    forget_call(&r);
    return status;
}

weft_status weft_dsml_refuse(weft_turn *turn, const char *text, size_t n, const char *words,
                             weft_error *err)
{
    reader r = {.turn = turn,
                .plan = turn->plan,
                .at = text + n,
                .end = text + n,
                .call = text,
                .words = WEFT_BUFFER_INIT,
                .err = err};
    wrong(&r, "%s", words);
    return finish_call(&r);
}
