/* OpenAI-style messages: roles, contents that may come in parts, calls whose arguments may be text. */
#include "engine/dialect/messages.h"

#include <stdlib.h>

/* Content is a string, null, or OpenAI's list of text parts. */
static weft_status read_content(const cJSON *content, size_t index, weft_message *m,
                                weft_error *err)
{
    m->content = "";
    if (!content || cJSON_IsNull(content)) return WEFT_OK;
    m->has_content = true;
    if (cJSON_IsString(content)) {
        m->content = content->valuestring;
        return WEFT_OK;
    }
    const cJSON *part;
    cJSON_ArrayForEach(part, content)
    {
        const char *type = weft_json_string(part, "type"), *text = weft_json_string(part, "text");
        if (!text || (type && strcmp(type, "text") != 0))
            return weft_fail(err, WEFT_E_INVALID,
                             "messages[%zu].content: only text parts can be read, not %s", index,
                             type ? type : "an untyped one");
        weft_buffer_puts(&m->joined, text);
    }
    if (!cJSON_IsArray(content))
        return weft_fail(err, WEFT_E_INVALID,
                         "messages[%zu].content: give a string, null or a list of text parts",
                         index);
    m->content = weft_buffer_str(&m->joined);
    return weft_buffer_ok(&m->joined, err);
}

static weft_status read_message(const cJSON *item, size_t index, weft_message *m, weft_error *err)
{
    m->item = item;
    m->role = weft_json_string(item, "role");
    if (!m->role) return weft_fail(err, WEFT_E_INVALID, "messages[%zu]: has no role", index);
    m->thought = weft_json_string(item, "reasoning_content");
    const cJSON *calls = cJSON_GetObjectItemCaseSensitive(item, "tool_calls");
    if (cJSON_GetArraySize(calls) > 0) m->calls = calls;
    return read_content(cJSON_GetObjectItemCaseSensitive(item, "content"), index, m, err);
}

void messages_free(weft_message *list, size_t n)
{
    for (size_t i = 0; list && i < n; i++) weft_buffer_free(&list[i].joined);
    free(list);
}

weft_status messages_read(const cJSON *request, weft_message **out, size_t *out_n, weft_error *err)
{
    const cJSON *array = cJSON_GetObjectItemCaseSensitive(request, "messages"), *item;
    size_t n = 0, count = (size_t)cJSON_GetArraySize(array);
    if (count == 0)
        return weft_fail(err, WEFT_E_INVALID, "messages: give an array of at least one message");
    weft_message *list = calloc(count, sizeof *list);
    if (!list) return weft_fail(err, WEFT_E_MEMORY, "read %zu messages: out of memory", count);
    cJSON_ArrayForEach(item, array)
    {
        weft_status status = read_message(item, n, &list[n], err);
        if (status) {
            messages_free(list, count);
            return status;
        }
        n++;
    }
    *out = list;
    *out_n = n;
    return WEFT_OK;
}

weft_status message_call(const cJSON *call, size_t index, const char **out_name,
                         const cJSON **out_arguments, cJSON **out_owned, weft_error *err)
{
    const cJSON *function = cJSON_GetObjectItemCaseSensitive(call, "function");
    if (!function) function = call;
    const char *name = weft_json_string(function, "name");
    const cJSON *arguments = cJSON_GetObjectItemCaseSensitive(function, "arguments");
    if (!name || !arguments)
        return weft_fail(err, WEFT_E_INVALID,
                         "messages[%zu].tool_calls: a call needs name and arguments", index);
    *out_owned = NULL;
    if (cJSON_IsString(arguments)) {
        if (weft_json_parse(arguments->valuestring, strlen(arguments->valuestring), out_owned, err))
            return weft_fail_prefix(err, "messages[%zu].tool_calls: arguments of %s", index, name);
        arguments = *out_owned;
    }
    *out_name = name;
    *out_arguments = arguments;
    return WEFT_OK;
}

weft_status messages_put_json(weft_script *out, weft_segment segment, const cJSON *value,
                              weft_error *err)
{
    weft_buffer text = WEFT_BUFFER_INIT;
    weft_status status = weft_json_python(value, &text, err);
    if (!status) status = weft_buffer_ok(&text, err);
    if (!status) put_foreign(out, segment, weft_buffer_str(&text), text.size);
    weft_buffer_free(&text);
    return status;
}
