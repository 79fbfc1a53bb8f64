/* The one place where tools start processes. */
#include "tools/confine.h"

#include <stdio.h>
#include <string.h>

static void add_stream_facts(cJSON *facts, const char *name, const weft_sandbox_stream *stream)
{
    char key[32], hex[WEFT_DIGEST_HEX_BYTES];
    snprintf(key, sizeof key, "%s_bytes", name);
    weft_json_add_int(facts, key, (int64_t)stream->total);
    snprintf(key, sizeof key, "%s_sha256", name);
    cJSON_AddStringToObject(facts, key, weft_hex(stream->sha256, WEFT_DIGEST_BYTES, hex));
}

/* layers and denials are canonical JSON texts of the sandbox. */
static void add_json_fact(cJSON *facts, const char *key, const char *text)
{
    cJSON *value = NULL;
    if (text && !weft_json_parse(text, strlen(text), &value, NULL) &&
        !cJSON_AddItemToObject(facts, key, value))
        cJSON_Delete(value);
}

static void add_facts(cJSON *facts, const weft_sandbox_result *r)
{
    if (r->signal)
        weft_json_add_int(facts, "signal", r->signal);
    else
        weft_json_add_int(facts, "exit", r->exit_status);
    if (r->hit) cJSON_AddStringToObject(facts, "hit", weft_sandbox_hit_text(r->hit));
    weft_json_add_int(facts, "wall_ns", r->wall_ns);
    weft_json_add_int(facts, "cpu_ns", r->cpu_ns);
    weft_json_add_int(facts, "peak_bytes", r->peak_bytes);
    add_stream_facts(facts, "stdout", &r->out);
    add_stream_facts(facts, "stderr", &r->err);
    add_json_fact(facts, "layers", r->layers);
    add_json_fact(facts, "denials", r->denials);
}

weft_status confine_run(const tool_call *call, const weft_sandbox_request *request,
                        tool_output *output, weft_sandbox_result *result, bool *ran,
                        weft_error *err)
{
    weft_error why;
    *ran = false;
    if (!call->set->launcher)
        return tool_refuse(output,
                           "%s needs the sandbox, which is not available here: nothing was run",
                           call->tool->info.name);
    weft_status status = weft_sandbox_run(call->set->launcher, request, call->cancel, result, &why);
    switch (status) {
    case WEFT_OK: break;
    case WEFT_E_NOT_FOUND: return tool_refuse(output, "%s: %s", call->tool->info.name, why.message);
    default: return weft_fail(err, status, "%s: %s", call->tool->info.name, why.message);
    }
    if (result->hit == WEFT_HIT_CANCELLED) {
        weft_sandbox_result_free(result);
        return weft_fail(err, WEFT_E_INTERRUPTED, "%s: interrupted", call->tool->info.name);
    }
    /* a tool that starts two programs (web_fetch) has the facts of the last */
    cJSON *facts = cJSON_CreateObject();
    if (!facts) {
        weft_sandbox_result_free(result);
        return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    }
    add_facts(facts, result);
    cJSON_Delete(output->facts);
    output->facts = facts;
    *ran = true;
    return WEFT_OK;
}

void confine_put_stream(const weft_sandbox_stream *stream, weft_buffer *out)
{
    if (!stream->cut) {
        weft_buffer_append(out, stream->kept, stream->n_kept);
        return;
    }
    weft_buffer_append(out, stream->kept, stream->cut_at);
    weft_buffer_printf(out, "\n[... %llu of %llu bytes were not kept ...]\n",
                       (unsigned long long)stream->cut, (unsigned long long)stream->total);
    weft_buffer_append(out, stream->kept + stream->cut_at, stream->n_kept - stream->cut_at);
}

void confine_put_last_lines(const weft_sandbox_stream *stream, size_t lines, weft_buffer *out)
{
    size_t end = stream->n_kept, at;
    while (end && strchr("\n\r ", stream->kept[end - 1])) end--;
    for (at = end; at > 0 && end - at < 2000; at--)
        if (stream->kept[at - 1] == '\n' && --lines == 0) break;
    weft_buffer_append(out, stream->kept + at, end - at);
}

bool confine_put_end(const weft_sandbox_request *request, const weft_sandbox_result *r,
                     weft_buffer *out)
{
    const weft_sandbox_limits *l = &request->limits;
    switch (r->hit) {
    case WEFT_HIT_WALL:
        weft_buffer_printf(out, "the time limit of %.3g s was reached", (double)l->wall_ms / 1000);
        return true;
    case WEFT_HIT_CPU:
        weft_buffer_puts(out, "the limit of processor time was reached");
        return true;
    case WEFT_HIT_MEMORY:
        weft_buffer_printf(out, "the memory limit of %lld MiB was reached",
                           (long long)(l->memory_bytes >> 20));
        return true;
    case WEFT_HIT_PROCESSES:
        weft_buffer_printf(out, "the limit of %lld processes was reached", (long long)l->processes);
        return true;
    case WEFT_HIT_FILE: weft_buffer_puts(out, "the limit of file size was reached"); return true;
    default: break;
    }
    if (r->signal) {
        weft_buffer_printf(out, "it was ended by signal %d (%s)", r->signal, strsignal(r->signal));
        return true;
    }
    if (r->exit_status) weft_buffer_printf(out, "exit status %d", r->exit_status);
    return r->exit_status != 0;
}
