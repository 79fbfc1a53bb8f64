/* From a call to a result: check name and arguments, run the tool, cut its output to the cap.
 *
 * What the model sees is valid UTF-8 without NUL and at most output_bytes long. A longer output
 * loses its middle: the beginning says what it is, the end usually holds what mattered, and one
 * line between them says how much is missing. The whole is kept beside it for the trace.
 */
#include "tools/set.h"

#include "tools/calculator/calculator.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

weft_status tool_refuse(tool_output *output, const char *format, ...)
{
    char text[2 * WEFT_ERROR_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    weft_buffer_clear(&output->text);
    weft_buffer_puts(&output->text, text);
    output->error = true;
    return WEFT_OK;
}

/* ---- check ---- */

static const tool *find(const weft_toolset *set, const char *name)
{
    const weft_tool_info *info = weft_toolset_find(set, name);
    return info ? (const tool *)info : NULL; /* info is the first member */
}
_Static_assert(offsetof(tool, info) == 0, "a tool begins with its info");

/* "expression (string), precision (integer, optional)" */
static void describe(const tool *t, weft_buffer *out)
{
    const cJSON *property, *name,
        *required = cJSON_GetObjectItemCaseSensitive(t->info.parameters, "required");
    const cJSON *properties = cJSON_GetObjectItemCaseSensitive(t->info.parameters, "properties");
    if (!properties || !properties->child) {
        weft_buffer_puts(out, "no arguments");
        return;
    }
    cJSON_ArrayForEach(property, properties)
    {
        const char *type = weft_json_string(property, "type");
        bool needed = false;
        cJSON_ArrayForEach(name, required) needed |=
            cJSON_IsString(name) && strcmp(name->valuestring, property->string) == 0;
        weft_buffer_printf(out, "%s%s (%s%s)", property == properties->child ? "" : ", ",
                           property->string, type ? type : "any value", needed ? "" : ", optional");
    }
}

static weft_status fail_unknown(const weft_toolset *set, const char *name, weft_error *err)
{
    weft_buffer known = WEFT_BUFFER_INIT;
    for (size_t i = 0; i < set->n; i++)
        weft_buffer_printf(&known, "%s%s", i ? ", " : "", set->tools[i].info.name);
    weft_status status =
        weft_fail(err, WEFT_E_INVALID, "there is no tool named \"%.64s\": %s%s", name ? name : "",
                  set->n ? "the tools are " : "no tools are offered", weft_buffer_str(&known));
    weft_buffer_free(&known);
    return status;
}

weft_status weft_toolset_check(const weft_toolset *set, const char *name, const cJSON *arguments,
                               weft_error *err)
{
    const tool *t = find(set, name);
    if (!t) return fail_unknown(set, name, err);
    weft_error why = {.code = WEFT_OK};
    weft_status status = WEFT_OK;
    if (!cJSON_IsObject(arguments))
        status = weft_fail(&why, WEFT_E_INVALID, "the arguments must be one JSON object");
    else
        status = weft_schema_check(t->schema, arguments, &why);
    if (!status) return WEFT_OK;
    if (status != WEFT_E_INVALID) return weft_fail(err, status, "%s", why.message);
    weft_buffer takes = WEFT_BUFFER_INIT;
    describe(t, &takes);
    status = weft_fail(err, WEFT_E_INVALID, "%s: %s. It takes %s", t->info.name, why.message,
                       weft_buffer_str(&takes));
    weft_buffer_free(&takes);
    return status;
}

/* ---- result ---- */

/* The largest place <= at where a character begins. */
static size_t back_to_character(const char *text, size_t at)
{
    while (at > 0 && ((unsigned char)text[at] & 0xc0) == 0x80) at--;
    return at;
}

static size_t on_to_character(const char *text, size_t n, size_t at)
{
    while (at < n && ((unsigned char)text[at] & 0xc0) == 0x80) at++;
    return at;
}

/* 1234567 -> "1,234,567" */
static void put_grouped(weft_buffer *out, size_t value)
{
    char digits[24];
    int n = snprintf(digits, sizeof digits, "%zu", value);
    for (int i = 0; i < n; i++) {
        if (i && (n - i) % 3 == 0) weft_buffer_putc(out, ',');
        weft_buffer_putc(out, digits[i]);
    }
}

enum { CUT_LINE_BYTES = 96 }; /* room for the line about the cut */

static void cut(const char *text, size_t n, size_t cap, weft_buffer *out)
{
    size_t room = cap - CUT_LINE_BYTES;
    size_t head = back_to_character(text, room / 2),
           tail = on_to_character(text, n, n - (room - room / 2));
    weft_buffer_append(out, text, head);
    weft_buffer_puts(out, "\n[... ");
    put_grouped(out, tail - head);
    weft_buffer_puts(out, " of ");
    put_grouped(out, n);
    weft_buffer_puts(out, " bytes are left out here ...]\n");
    weft_buffer_append(out, text + tail, n - tail);
}

/* Valid UTF-8 without NUL and without the newlines at the end. */
static void clean(const weft_buffer *raw, weft_buffer *out)
{
    const char *text = weft_buffer_str(raw);
    for (size_t from = 0; from < raw->size;) {
        const char *nul = memchr(text + from, '\0', raw->size - from);
        size_t n = nul ? (size_t)(nul - text) - from : raw->size - from;
        weft_utf8_scrub(text + from, n, out);
        if (nul) weft_buffer_puts(out, "\xef\xbf\xbd");
        from += n + (nul ? 1 : 0);
    }
    if (raw->failed) out->failed = true;
    while (out->size && out->data[out->size - 1] == '\n') out->data[--out->size] = '\0';
}

static weft_status finish(const weft_toolset *set, tool_output *output, weft_tool_result *out,
                          weft_error *err)
{
    weft_buffer whole = WEFT_BUFFER_INIT, shown = WEFT_BUFFER_INIT, errors = WEFT_BUFFER_INIT;
    weft_tool_result result = {.error = output->error};
    if (output->error) weft_buffer_puts(&whole, "error: ");
    clean(&output->text, &whole);
    if (output->stderr_text.size) clean(&output->stderr_text, &errors);
    result.full_bytes = whole.size;
    weft_sha256_of(weft_buffer_str(&whole), whole.size, result.full_sha256);
    if (whole.size > (size_t)set->output_bytes) {
        cut(whole.data, whole.size, (size_t)set->output_bytes, &shown);
        result.n_full = whole.size;
        result.full = weft_buffer_take(&whole);
    }
    result.text = weft_buffer_take(result.full ? &shown : &whole);
    if (errors.size) result.stderr_text = weft_buffer_take(&errors);
    result.facts = output->facts;
    output->facts = NULL;
    weft_buffer_free(&whole);
    weft_buffer_free(&shown);
    weft_buffer_free(&errors);
    if (!result.text || (result.n_full && !result.full) || output->stderr_text.failed) {
        weft_tool_result_free(&result);
        return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    }
    *out = result;
    return WEFT_OK;
}

weft_status weft_toolset_call(weft_toolset *set, const char *name, const cJSON *arguments,
                              const atomic_int *cancel, weft_tool_result *out, weft_error *err)
{
    weft_error why;
    tool_output output = {.facts = cJSON_CreateObject()};
    int64_t begun = weft_monotonic_ns();
    if (!output.facts) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    weft_status status = weft_toolset_check(set, name, arguments, &why);
    if (status == WEFT_E_INVALID) {
        status = tool_refuse(&output, "%s", why.message);
    } else if (status) {
        weft_fail(err, status, "%s", why.message);
    } else {
        tool_call call = {set, find(set, name), arguments, cancel};
        status = call.tool->run(&call, &output, err);
        if (cancel && *cancel) status = weft_fail(err, WEFT_E_INTERRUPTED, "%s: interrupted", name);
    }
    if (!status && !cJSON_HasObjectItem(output.facts, "wall_ns"))
        weft_json_add_int(output.facts, "wall_ns", weft_monotonic_ns() - begun);
    if (!status) status = finish(set, &output, out, err);
    weft_buffer_free(&output.text);
    weft_buffer_free(&output.stderr_text);
    cJSON_Delete(output.facts);
    return status;
}

void weft_tool_result_free(weft_tool_result *result)
{
    if (!result) return;
    free(result->text);
    free(result->full);
    free(result->stderr_text);
    cJSON_Delete(result->facts);
    *result = (weft_tool_result){0};
}

weft_status tool_run_calculator(const tool_call *call, tool_output *output, weft_error *err)
{
    const char *expression = weft_json_string(call->arguments, "expression");
    weft_error why;
    weft_status status = calculator_evaluate(expression, strlen(expression), &output->text, &why);
    if (status == WEFT_E_INVALID) return tool_refuse(output, "%s", why.message);
    return status ? weft_fail(err, status, "%s", why.message) : WEFT_OK;
}
