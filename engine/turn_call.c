/* Reads the JSON of one call. What is wrong with it is said to the model, in words that tell it
 * what to write; nothing is ever guessed. Two lenient readings are exact all the same: "parameters"
 * for "arguments", and an object that stands in a string. */
#include "engine/turn.h"

#include <stdlib.h>
#include <string.h>

#define SHAPE "{\"name\": \"...\", \"arguments\": {...}}"

enum { NAMES_SHOWN = 40 };

void weft_turn_say_tools(const weft_plan *plan, weft_buffer *words)
{
    weft_buffer_puts(words, plan->n ? "The tools are: " : "No tool can be called now.");
    for (size_t i = 0; i < plan->n && i < NAMES_SHOWN; i++)
        weft_buffer_printf(words, "%s%s", i ? ", " : "", plan->name[i]);
    if (plan->n > NAMES_SHOWN) weft_buffer_printf(words, " and %zu more", plan->n - NAMES_SHOWN);
    if (plan->n) weft_buffer_putc(words, '.');
}

bool weft_turn_is_offered(const weft_plan *plan, const char *name)
{
    for (size_t i = 0; i < plan->n; i++)
        if (strcmp(plan->name[i], name) == 0) return true;
    return false;
}

/* The call's arguments as a new object, or NULL with the words in `words`. */
static cJSON *read_arguments(const cJSON *call, weft_buffer *words)
{
    const cJSON *a = cJSON_GetObjectItemCaseSensitive(call, "arguments");
    const cJSON *p = cJSON_GetObjectItemCaseSensitive(call, "parameters");
    cJSON *inner = NULL;
    if (a && p) {
        weft_buffer_puts(words,
                         "The call has both \"arguments\" and \"parameters\". Write " SHAPE ".");
        return NULL;
    }
    if (!a) a = p;
    if (!a) {
        weft_buffer_puts(words, "The call has no \"arguments\". Write " SHAPE
                                ", with \"arguments\": {} if there are none.");
        return NULL;
    }
    if (cJSON_IsObject(a)) {
        if (!(inner = cJSON_Duplicate(a, true))) words->failed = true;
        return inner;
    }
    weft_error ignored;
    if (cJSON_IsString(a) &&
        weft_json_parse(a->valuestring, strlen(a->valuestring), &inner, &ignored) == WEFT_OK &&
        cJSON_IsObject(inner))
        return inner;
    cJSON_Delete(inner);
    weft_buffer_puts(words, "\"arguments\" is not a JSON object. Write " SHAPE ".");
    return NULL;
}

static void read_object(const weft_plan *plan, const cJSON *call, weft_turn_call *out,
                        weft_buffer *words)
{
    const char *name = weft_json_string(call, "name");
    if (!cJSON_IsObject(call) || !name || !*name) {
        weft_buffer_puts(words, "The call names no tool. Write " SHAPE ". ");
        weft_turn_say_tools(plan, words);
        return;
    }
    out->name = strdup(name);
    if (!out->name) words->failed = true;
    if (!weft_turn_is_offered(plan, name)) {
        weft_buffer_printf(words, "There is no tool \"%s\". ", name);
        weft_turn_say_tools(plan, words);
        return;
    }
    out->arguments = read_arguments(call, words);
}

weft_status weft_turn_read_call(const weft_plan *plan, const char *body, size_t n, bool cut,
                                weft_turn_call *out, weft_error *err)
{
    weft_buffer words = WEFT_BUFFER_INIT;
    weft_error reason = {0};
    cJSON *call = NULL;
    weft_status status = weft_json_parse(body, n, &call, &reason);
    if (status == WEFT_E_MEMORY) {
        words.failed = true;
    } else if (status && cut) {
        weft_buffer_puts(&words, "The call was cut off before its end. Write it again, shorter.");
    } else if (status) {
        weft_buffer_printf(&words, "The call is not valid JSON: %s. Write one object " SHAPE ".",
                           reason.message);
    } else {
        read_object(plan, call, out, &words);
    }
    cJSON_Delete(call);
    if (!out->name && !(out->name = strdup(""))) words.failed = true;
    status = weft_buffer_ok(&words, err);
    if (words.size && !status) {
        out->error = weft_buffer_take(&words);
    } else {
        weft_buffer_free(&words);
    }
    return status;
}
