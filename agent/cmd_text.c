/* `weft tokenize` and `weft render`: text to ids and back, messages to the dialect's text, by hand.
 */
#include "agent/commands.h"
#include "agent/engine_options.h"

#include <stdlib.h>
#include <string.h>

/* Calls visit for each line of standard input (without its newline). */
static weft_status each_line(weft_status (*visit)(void *, const char *, size_t, weft_error *),
                             void *context, weft_error *err)
{
    char *line = NULL;
    size_t capacity = 0, number = 0;
    weft_status status = WEFT_OK;
    for (ssize_t n; !status && (n = getline(&line, &capacity, stdin)) >= 0;) {
        number++;
        if (n && line[n - 1] == '\n') n--;
        if (!n) continue;
        status = visit(context, line, (size_t)n, err);
        if (status) weft_fail_prefix(err, "line %zu", number);
    }
    free(line);
    return status;
}

/* ---- tokenize ---- */

typedef struct tokenizing {
    weft_model *model;
    weft_trust trust;
    bool decode;
} tokenizing;

static cJSON *ids_json(const int32_t *ids, size_t n)
{
    cJSON *list = cJSON_CreateArray();
    for (size_t i = 0; i < n; i++) cJSON_AddItemToArray(list, cJSON_CreateNumber(ids[i]));
    return list;
}

static weft_status encode(const tokenizing *t, const char *text, size_t n, cJSON **out,
                          weft_error *err)
{
    int32_t *ids = NULL;
    size_t count = 0;
    weft_span span = {text, n, t->trust, WEFT_USER};
    weft_status status = weft_encode(t->model, &span, 1, &ids, NULL, &count, err);
    if (!status) *out = ids_json(ids, count);
    free(ids);
    return status;
}

static weft_status decode(const tokenizing *t, const cJSON *list, weft_buffer *out, weft_error *err)
{
    int32_t *ids = NULL;
    size_t n = 0;
    weft_status status =
        engine_read_ids(list, weft_model_get_info(t->model)->n_vocab, &ids, &n, err);
    if (!status) weft_decode(t->model, ids, n, true, out);
    free(ids);
    return status ? status : weft_buffer_ok(out, err);
}

static weft_status tokenize_line(void *context, const char *line, size_t n, weft_error *err)
{
    const tokenizing *t = context;
    cJSON *in = NULL, *out = cJSON_CreateObject(), *ids = NULL;
    weft_buffer text = WEFT_BUFFER_INIT, clean = WEFT_BUFFER_INIT;
    weft_status status = weft_json_parse(line, n, &in, err);
    if (!status && t->decode) {
        status = decode(t, cJSON_GetObjectItemCaseSensitive(in, "ids"), &text, err);
        weft_utf8_scrub(weft_buffer_str(&text), text.size, &clean);
        cJSON_AddStringToObject(out, "text", weft_buffer_str(&clean));
    } else if (!status) {
        const char *source = weft_json_string(in, "text");
        status = source ? encode(t, source, strlen(source), &ids, err)
                        : weft_fail(err, WEFT_E_CONFIG, "an object with \"text\" is expected");
        if (ids) cJSON_AddItemToObject(out, "ids", ids);
    }
    if (status)
        cJSON_Delete(out);
    else
        status = print_json(out, err);
    weft_buffer_free(&text);
    weft_buffer_free(&clean);
    cJSON_Delete(in);
    return status;
}

static weft_status tokenize_one(const tokenizing *t, const char *text, size_t n, weft_error *err)
{
    cJSON *list = NULL;
    weft_buffer out = WEFT_BUFFER_INIT;
    weft_status status;
    if (t->decode) {
        status = weft_json_parse(text, n, &list, err);
        if (!status) status = decode(t, list, &out, err);
        if (!status) fwrite(out.data ? out.data : "", 1, out.size, stdout);
        cJSON_Delete(list);
    } else {
        status = encode(t, text, n, &list, err);
        if (!status) status = print_json(list, err);
    }
    weft_buffer_free(&out);
    return status;
}

weft_status cmd_tokenize(const weft_options *o, int *exit_code, weft_error *err)
{
    tokenizing t = {.trust = WEFT_PLAIN, .decode = weft_option_flag(o, OPT_DECODE)};
    weft_buffer input = WEFT_BUFFER_INIT;
    if (weft_option_flag(o, OPT_SPECIAL) && weft_option_flag(o, OPT_FOREIGN))
        return weft_fail(err, WEFT_E_USAGE, "tokenize: --special or --foreign, not both");
    if (o->n_argument > 1) return weft_fail(err, WEFT_E_USAGE, "tokenize: put TEXT in quotes");
    if (weft_option_flag(o, OPT_SPECIAL)) t.trust = WEFT_TRUSTED;
    if (weft_option_flag(o, OPT_FOREIGN)) t.trust = WEFT_FOREIGN;
    weft_status status = engine_open(o, true, &t.model, err);
    if (!status && weft_option_flag(o, OPT_JSONL)) {
        status = each_line(tokenize_line, &t, err);
    } else if (!status) {
        bool from_input = !o->n_argument || strcmp(o->argument[0], "-") == 0;
        if (from_input) status = weft_file_read("-", (size_t)256 << 20, &input, err);
        const char *text = from_input ? weft_buffer_str(&input) : o->argument[0];
        if (!status) status = tokenize_one(&t, text, from_input ? input.size : strlen(text), err);
    }
    weft_buffer_free(&input);
    weft_model_close(t.model);
    return status;
}

/* ---- render ---- */

typedef struct rendering {
    weft_model *model;
    weft_dialect *dialect;
    bool ids, jsonl;
} rendering;

static weft_status render_line(void *context, const char *line, size_t n, weft_error *err)
{
    const rendering *r = context;
    cJSON *request = NULL, *out = cJSON_CreateObject();
    weft_script script = {0};
    weft_status status = weft_json_parse(line, n, &request, err);
    if (!status) status = weft_dialect_render(r->dialect, request, &script, err);
    if (!status && r->ids) {
        int32_t *ids = NULL;
        size_t count = 0;
        status = weft_script_encode(r->model, &script, &ids, NULL, &count, err);
        if (!status) cJSON_AddItemToObject(out, "ids", ids_json(ids, count));
        free(ids);
    } else if (!status) {
        cJSON_AddStringToObject(out, "text", weft_buffer_str(&script.text));
    }
    if (status)
        cJSON_Delete(out);
    else
        status = print_json(out, err);
    weft_script_free(&script);
    cJSON_Delete(request);
    return status;
}

weft_status cmd_render(const weft_options *o, int *exit_code, weft_error *err)
{
    rendering r = {.ids = weft_option_flag(o, OPT_AS_IDS), .jsonl = weft_option_flag(o, OPT_JSONL)};
    const char *name = weft_option_text(o, OPT_DIALECT);
    weft_buffer input = WEFT_BUFFER_INIT;
    weft_status status = engine_open(o, true, &r.model, err);
    if (!status) status = weft_dialect_open(&r.dialect, r.model, *name ? name : NULL, err);
    if (!status && r.jsonl) {
        status = each_line(render_line, &r, err);
    } else if (!status) {
        status = weft_file_read("-", (size_t)64 << 20, &input, err);
        if (!status) status = render_line(&r, weft_buffer_str(&input), input.size, err);
    }
    weft_buffer_free(&input);
    weft_dialect_close(r.dialect);
    weft_model_close(r.model);
    return status;
}
