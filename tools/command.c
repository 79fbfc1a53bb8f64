/* Runs a tool given by a manifest: arguments on standard input, result on standard output.
 *
 *   /work   the run's workspace, writable, read-only or absent, as the manifest says
 *   /tool   the manifest's folder, read-only
 */
#include "tools/confine.h"

#include <stdlib.h>
#include <string.h>

enum { SHOWN_ERROR_LINES = 10 };

/* JSON is written anew without blanks; what is no JSON stays text. */
static void put_result(const tool *t, const weft_sandbox_result *r, weft_buffer *out)
{
    cJSON *value = NULL;
    if (t->json_output && !r->out.cut && !weft_json_parse(r->out.kept, r->out.n_kept, &value, NULL))
        weft_json_compact(value, out);
    else
        confine_put_stream(&r->out, out);
    cJSON_Delete(value);
}

/* Why it failed, the last lines of its standard error, and what it had written until then. */
static void put_failure(const tool_call *call, const weft_sandbox_request *request,
                        const weft_sandbox_result *r, weft_buffer *out)
{
    weft_buffer_printf(out, "%s failed: ", call->tool->info.name);
    confine_put_end(request, r, out);
    if (r->err.n_kept) {
        weft_buffer_puts(out, "\n");
        confine_put_last_lines(&r->err, SHOWN_ERROR_LINES, out);
    }
    if (r->out.n_kept) {
        weft_buffer_puts(out, "\noutput until then:\n");
        confine_put_stream(&r->out, out);
    }
}

weft_status tool_run_command(const tool_call *call, tool_output *output, weft_error *err)
{
    const tool *t = call->tool;
    weft_buffer input = WEFT_BUFFER_INIT, ending = WEFT_BUFFER_INIT;
    weft_sandbox_bind *bind = calloc(t->n_read + 1, sizeof *bind);
    weft_sandbox_result r;
    bool ran = false;
    weft_status status = WEFT_E_MEMORY;
    weft_json_compact(call->arguments, &input);
    weft_buffer_putc(&input, '\n');
    if (!bind || input.failed) {
        weft_fail(err, WEFT_E_MEMORY, "out of memory");
        goto done;
    }
    bind[0] = (weft_sandbox_bind){t->folder, "/tool", false};
    for (size_t i = 0; i < t->n_read; i++)
        bind[i + 1] = (weft_sandbox_bind){t->read[i], t->read[i], false};
    weft_sandbox_request request = {
        .argv = (const char *const *)t->argv,
        .stdin_bytes = input.data,
        .stdin_size = input.size,
        .workdir = t->workspace == TOOL_WORKSPACE_NONE ? NULL : call->set->workspace,
        .workdir_readonly = t->workspace == TOOL_WORKSPACE_READ,
        .binds = bind,
        .n_binds = t->n_read + 1,
        .network = t->network,
        .limits = {.wall_ms = 1000 * (t->seconds ? t->seconds : call->set->seconds),
                   .memory_bytes = (t->memory_mb ? t->memory_mb : 1024) << 20,
                   .processes = t->processes ? t->processes : 64,
                   .output_bytes = t->output_kb ? t->output_kb << 10 : TOOLS_KEPT_BYTES},
    };
    status = confine_run(call, &request, output, &r, &ran, err);
    if (status || !ran) goto done;
    weft_buffer_append(&output->stderr_text, r.err.kept, r.err.n_kept);
    output->error = confine_put_end(&request, &r, &ending);
    if (output->error)
        put_failure(call, &request, &r, &output->text);
    else
        put_result(t, &r, &output->text);
    weft_sandbox_result_free(&r);
done:
    weft_buffer_free(&input);
    weft_buffer_free(&ending);
    free(bind);
    return status;
}
