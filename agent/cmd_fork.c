/* `weft fork`: a new run that goes on from any event of another.
 *
 * The child's trace is whole by itself: its own run.begin, a `fork` event that names the parent,
 * how many events are shared and the leaf of the last of them, then those events again (all but
 * the parent's run.begin), under the child's own chain, with the blobs that they name. Folding
 * them gives the state at that point, as resume does; the parent may be removed afterwards.
 *
 * Of the KV, complete pages become hard links and the last one a copy, so nothing that the parent
 * evaluated is evaluated again. The parent is only read: it may be running, or dead.
 *
 * What a trace does not record is the workspace: the child gets a copy as it stands now, or the
 * directory that --workdir names. A call whose result lies behind the fork is run by the child.
 */
#include "agent/commands.h"
#include "agent/run.h"

#include <stdlib.h>
#include <string.h>

enum { WORKSPACE_BYTES = 1 << 30 }; /* most that is copied */

typedef struct forking {
    weft_run *run;
    weft_trace *parent;
    char *parent_dir, *parent_kv;
    run_state whole; /* of the parent, for the ids of its pages */
    int64_t at;
    weft_status status;
    weft_error *err;
} forking;

static weft_status parse_body(const weft_event *event, cJSON **out, weft_error *err)
{
    if (!event->body)
        return weft_fail(err, WEFT_E_VERIFY, "event %lld is redacted: a run cannot go on from it",
                         (long long)event->seq);
    return weft_json_parse(event->body, event->body_size, out, err);
}

/* ---- the parent ---- */

/* All of it, as far as it can be read: ids behind the fork only help to find a page. */
static bool fold_parent(void *context, const weft_event *event)
{
    forking *f = context;
    cJSON *body = NULL;
    weft_status status = parse_body(event, &body, f->err);
    if (!status) status = run_state_apply(&f->whole, event->type, body, f->err);
    cJSON_Delete(body);
    if (event->seq < f->at) f->status = status;
    return !status;
}

static weft_status read_parent(forking *f, const char *name, weft_error *err)
{
    const weft_options *o = f->run->options;
    weft_error late;
    if (!*weft_option_text(o, OPT_AT))
        return weft_fail(err, WEFT_E_USAGE,
                         "fork: --at SEQ is missing: weft trace show RUN --json numbers the events");
    f->at = weft_option_int(o, OPT_AT);
    weft_status status = find_run(name, weft_option_flag(o, OPT_LAST), &f->parent_dir, err);
    if (!status) status = weft_trace_open(&f->parent, f->parent_dir, false, err);
    if (status) return status;
    if (f->at < 1 || f->at > weft_trace_size(f->parent))
        return weft_fail(err, WEFT_E_USAGE, "--at %lld: the run has events 0 to %lld: give 1 to %lld",
                         (long long)f->at, (long long)weft_trace_size(f->parent) - 1,
                         (long long)weft_trace_size(f->parent));
    status = weft_trace_each(f->parent, 0, fold_parent, f, &late);
    if (!status) status = f->status;
    if (status && status != f->status) *err = late;
    if (!status && !f->whole.begin)
        status = weft_fail(err, WEFT_E_VERIFY, "the run in %s does not begin with run.begin",
                           f->parent_dir);
    return status;
}

/* ---- the child ---- */

static weft_status copy_workspace(const forking *f, weft_error *err)
{
    if (*weft_option_text(f->run->options, OPT_WORKDIR)) return WEFT_OK;
    const char *from = weft_json_string(f->whole.begin, "workspace");
    weft_error why;
    if (!from) return weft_fail(err, WEFT_E_VERIFY, "run.begin names no workspace");
    if (!weft_copy_tree(from, f->run->workspace, WORKSPACE_BYTES, &why)) return WEFT_OK;
    return weft_fail(err, WEFT_E_CONFIG, "copy the parent's workspace %s: %s: give --workdir DIR",
                     from, why.message);
}

/* A large output lies beside the events; it goes along unless it was redacted. */
static weft_status copy_blob(const forking *f, const cJSON *body)
{
    const char *hex = weft_json_string(body, "full");
    uint8_t digest[WEFT_DIGEST_BYTES];
    weft_buffer bytes = WEFT_BUFFER_INIT;
    if (!hex || !weft_unhex(hex, digest, sizeof digest)) return WEFT_OK;
    weft_status status = weft_trace_get_blob(f->parent, digest, &bytes, f->err);
    if (!status)
        status = weft_trace_put_blob(f->run->trace, weft_buffer_str(&bytes), bytes.size, digest,
                                     f->err);
    weft_buffer_free(&bytes);
    return status == WEFT_E_NOT_FOUND ? WEFT_OK : status;
}

static bool copy_event(void *context, const weft_event *event)
{
    forking *f = context;
    cJSON *body = NULL;
    if (event->seq >= f->at) return false;
    f->status = parse_body(event, &body, f->err);
    if (!f->status) f->status = copy_blob(f, body);
    if (f->status)
        cJSON_Delete(body);
    else
        f->status = run_emit(f->run, event->type, event->span, body, WEFT_BATCHED, f->err);
    return !f->status;
}

static weft_status write_beginning(forking *f, cJSON *begin, weft_error *err)
{
    weft_run *r = f->run;
    uint8_t leaf[WEFT_DIGEST_BYTES];
    char hex[WEFT_DIGEST_HEX_BYTES];
    weft_error late;
    weft_status status = run_emit(r, "run.begin", "", begin, WEFT_BATCHED, err);
    if (!status) status = weft_trace_leaf(f->parent, f->at - 1, leaf, err);
    if (status) return status;
    cJSON *body = cJSON_CreateObject();
    cJSON_AddStringToObject(body, "run", weft_trace_run_id(f->parent));
    weft_json_add_int(body, "size", f->at);
    cJSON_AddStringToObject(body, "head", weft_hex(leaf, sizeof leaf, hex));
    status = run_emit(r, "fork", "", body, WEFT_BATCHED, err);
    if (status) return status;
    status = weft_trace_each(f->parent, 1, copy_event, f, &late);
    if (f->status) return f->status;
    if (status) *err = late;
    return status;
}

/* Ids of the parent's timeline, as its pages know them. */
static weft_status find_pages(forking *f, int32_t **ids, weft_error *err)
{
    const run_state *s = &f->whole;
    const int32_t *forced = NULL;
    size_t n_forced = run_state_forced(s, &forced),
           n = s->phase == RUN_TURN ? s->turn_from : s->n_id;
    f->parent_kv = weft_path_join(f->parent_dir, "kv");
    *ids = malloc((n + n_forced + 1) * sizeof **ids);
    if (!f->parent_kv || !*ids) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    if (n) memcpy(*ids, s->id, n * sizeof **ids);
    if (n_forced) memcpy(*ids + n, forced, n_forced * sizeof **ids);
    f->run->parent = (weft_kv_source){f->parent_kv, *ids, n + n_forced};
    return WEFT_OK;
}

/* Everything up to the point where the loop takes over. What fails here leaves no run behind. */
static weft_status make_child(forking *f, weft_error *err)
{
    weft_run *r = f->run;
    int32_t *ids = NULL;
    cJSON *begin = NULL;
    weft_status status = run_make_directories(r, err);
    if (status) return status;
    status = copy_workspace(f, err);
    if (!status) status = run_start_launcher(r, err);
    if (!status) status = run_fork_body(r, f->whole.begin, &begin, err);
    if (!status) status = run_open_tools(r, begin, err);
    if (!status) status = run_open_model(r, begin, err);
    if (!status) status = weft_trace_create(&r->trace, r->dir, r->id, err);
    if (status) {
        cJSON_Delete(begin);
    } else {
        run_print_events(r);
        status = write_beginning(f, begin, err);
    }
    if (!status) status = run_read_begin(r, err);
    if (!status) status = find_pages(f, &ids, err);
    if (!status) status = run_open_timeline(r, err);
    r->parent = (weft_kv_source){0};
    free(ids);
    return status;
}

weft_status cmd_fork(const weft_options *o, int *exit_code, weft_error *err)
{
    weft_run r = {0};
    weft_error late;
    const char *name = NULL, *task = NULL;
    forking f = {.run = &r, .err = err};
    run_open_console(&r, o);
    weft_status status = run_arguments(o, "fork", &name, &task, err);
    if (!status) status = read_parent(&f, name, err);
    bool began = !status;
    if (!status) status = make_child(&f, err);
    if (!status) status = run_emit_resume(&r, task, err);
    bool made = !status;
    if (!status) status = run_go(&r, exit_code, err);
    weft_status closed = weft_trace_close(r.trace, &late);
    if (!status && closed) {
        *err = late;
        status = closed;
    }
    char *unmade = began && !made && r.dir ? strdup(r.dir) : NULL;
    run_close(&r);
    if (unmade) weft_remove_tree(unmade, NULL);
    free(unmade);
    weft_trace_close(f.parent, &late);
    run_state_free(&f.whole);
    free(f.parent_kv);
    free(f.parent_dir);
    return status;
}
