/* Beginning a run, or going on with one: what `run`, `resume` and `batch` share. */
#include "agent/run.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

static void on_signal(int number)
{
    weft_interrupted = number;
}

void run_catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
}

weft_status run_attach(char *const *files, const char *workspace, weft_buffer *task,
                       weft_error *err)
{
    enum { ATTACH_MAX = 256 << 20 };
    weft_status status = WEFT_OK;
    if (files && *files) weft_buffer_puts(task, "\n\nAttached files in the workspace:");
    for (char *const *path = files; path && *path && !status; path++) {
        const char *slash = strrchr(*path, '/'), *name = slash ? slash + 1 : *path;
        weft_buffer content = WEFT_BUFFER_INIT;
        char *to = weft_path_join(workspace, name);
        status = to ? weft_file_read(*path, ATTACH_MAX, &content, err)
                    : weft_fail(err, WEFT_E_MEMORY, "out of memory");
        if (!status)
            status = weft_file_write(to, weft_buffer_str(&content), content.size, 0444, err);
        weft_buffer_printf(task, " %s", name);
        weft_buffer_free(&content);
        free(to);
    }
    return status ? status : weft_buffer_ok(task, err);
}

weft_status run_start_launcher(weft_run *r, weft_error *err)
{
    weft_status status = weft_launcher_start(&r->launcher, err);
    if (status != WEFT_E_SANDBOX) return status;
    weft_console_notice(&r->console, "%s; tools that run code will be refused", err->message);
    r->launcher = NULL;
    return WEFT_OK;
}

typedef struct folding {
    weft_run *run;
    weft_status status;
    weft_error *err;
} folding;

static bool fold_event(void *context, const weft_event *event)
{
    folding *f = context;
    cJSON *body = NULL;
    f->status = event->body ? weft_json_parse(event->body, event->body_size, &body, f->err)
                            : weft_fail(f->err, WEFT_E_VERIFY,
                                        "event %lld is redacted: the run cannot go on",
                                        (long long)event->seq);
    if (!f->status) f->status = run_state_apply(&f->run->state, event->type, body, f->err);
    cJSON_Delete(body);
    return !f->status;
}

weft_status run_read_trace(weft_run *r, bool for_writing, weft_error *err)
{
    weft_status status = weft_trace_open(&r->trace, r->dir, for_writing, err);
    if (status) return status;
    folding f = {r, WEFT_OK, err};
    status = weft_trace_each(r->trace, 0, fold_event, &f, err);
    if (!status) status = f.status;
    if (status) return status;
    if (!r->state.begin)
        return weft_fail(err, WEFT_E_VERIFY,
                         "the run in %s recorded nothing: begin again with weft run", r->dir);
    if (r->state.copied_left > 0)
        return weft_fail(err, WEFT_E_VERIFY,
                         "the fork in %s was interrupted while it was made: remove it and fork again",
                         r->dir);
    r->id = strdup(weft_trace_run_id(r->trace));
    const char *workspace = weft_json_string(r->state.begin, "workspace");
    r->workspace = workspace ? strdup(workspace) : NULL;
    if (!r->id || !r->workspace)
        return weft_fail(err, WEFT_E_VERIFY, "run.begin names no workspace");
    return WEFT_OK;
}

weft_status run_emit_resume(weft_run *r, const char *task, weft_error *err)
{
    cJSON *body = cJSON_CreateObject();
    if (task) cJSON_AddStringToObject(body, "task", task);
    weft_json_add_int(body, "restored", weft_timeline_restored(r->timeline));
    weft_json_add_int(body, "length", weft_timeline_length(r->timeline));
    cJSON_AddStringToObject(body, "backend", weft_model_get_info(r->model)->backend);
    run_add_counters(r, body);
    return run_emit(r, "resume", "", body, WEFT_DURABLE, err);
}

weft_status run_create(weft_run *r, const char *task, weft_trace_tap tap, weft_error *err)
{
    cJSON *begin = NULL;
    weft_status status = run_begin_body(r, task, &begin, err);
    if (!status) status = weft_trace_create(&r->trace, r->dir, r->id, err);
    if (status) {
        cJSON_Delete(begin);
        return status;
    }
    weft_trace_set_tap(r->trace, tap, r);
    status = run_emit(r, "run.begin", "", begin, WEFT_DURABLE, err);
    if (!status) status = run_read_begin(r, err);
    return status ? status : run_open_timeline(r, err);
}

weft_status run_reopen(weft_run *r, const char *task, weft_trace_tap tap, weft_error *err)
{
    weft_trace_set_tap(r->trace, tap, r);
    weft_status status = run_read_begin(r, err);
    if (!status) status = run_open_timeline(r, err);
    return status ? status : run_emit_resume(r, task, err);
}

weft_status run_finish(weft_run *r, weft_status status, weft_error *err)
{
    weft_error late;
    weft_status closed = weft_trace_close(r->trace, &late);
    if (!status && closed) {
        *err = late;
        status = closed;
    }
    run_close(r);
    return status;
}
