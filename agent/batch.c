/* Running the tasks of a batch: a thread a run, one model for all.
 *
 * Each run keeps its own loop, trace, timeline, tools and workspace, as if it were alone; what they
 * evaluate at the same time is gathered into steps by the engine (weft_model_share), and while one
 * waits for a tool the others think. The launcher of the sandbox is forked before the model is
 * loaded and before there are threads. The main thread prints results in the order of the file.
 */
#include "agent/batch.h"

#include "agent/commands.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LOOK_NS = 200000000 }; /* how often the main thread looks up */

typedef struct batch {
    const weft_options *options;
    weft_console *console;
    weft_run host; /* owns launcher, model and the first dialect */
    char *runs;    /* directory */
    int lock;      /* of batch_lock */
    batch_task *task;
    size_t n, next;
    pthread_mutex_t mutex; /* of next, results, counts */
    pthread_cond_t changed;
    batch_counts *counts;
} batch;

typedef struct worker {
    batch *batch;
    weft_dialect *dialect;
    pthread_t thread;
} worker;

/* ---- results ---- */

static cJSON *result_head(const batch_task *t)
{
    cJSON *line = cJSON_CreateObject();
    if (t->label) cJSON_AddStringToObject(line, "id", t->label);
    weft_json_add_int(line, "line", (int64_t)t->line);
    cJSON_AddStringToObject(line, "run", t->run);
    return line;
}

/* Made of the run's state alone: a run that an earlier command finished gives the same line. */
static cJSON *result_of(const batch_task *t, const run_state *s, weft_status status,
                        const char *limit, const weft_error *err)
{
    cJSON *line = result_head(t);
    cJSON_AddStringToObject(line, "reason", run_end_reason(status));
    weft_json_add_int(line, "exit", weft_status_exit(status));
    if (limit) cJSON_AddStringToObject(line, "limit", limit);
    if (status) cJSON_AddStringToObject(line, "message", err->message);
    if (!status && s->answer) cJSON_AddStringToObject(line, "answer", s->answer);
    cJSON *counts = cJSON_AddObjectToObject(line, "counts");
    weft_json_add_int(counts, "turns", s->turns);
    weft_json_add_int(counts, "calls", s->calls);
    weft_json_add_int(counts, "sampled", s->sampled_total);
    weft_json_add_int(counts, "length", (int64_t)s->n_id);
    return line;
}

static cJSON *not_begun(const batch_task *t)
{
    cJSON *line = result_head(t);
    cJSON_AddStringToObject(line, "reason", run_end_reason(WEFT_E_INTERRUPTED));
    weft_json_add_int(line, "exit", weft_status_exit(WEFT_E_INTERRUPTED));
    cJSON_AddStringToObject(line, "message", "not begun: give the same command again");
    return line;
}

static void count(batch *b, const cJSON *result)
{
    int64_t code = weft_json_int(result, "exit", 1);
    if (code == 0)
        b->counts->answered++;
    else if (code == weft_status_exit(WEFT_E_LIMIT))
        b->counts->limited++;
    else if (code == weft_status_exit(WEFT_E_INTERRUPTED))
        b->counts->interrupted++;
    else
        b->counts->failed++;
}

/* ---- one task ---- */

static weft_run run_of(const batch *b, const batch_task *t)
{
    weft_run r = {.options = &t->options,
                  .id = strdup(t->run),
                  .dir = weft_path_join(b->runs, t->run),
                  .launcher = b->host.launcher,
                  .model = b->host.model,
                  .draft = b->host.draft,
                  .started_ns = weft_monotonic_ns(),
                  .unattended = true,
                  .borrowed = true};
    weft_console_init(&r.console, true, "never");
    return r;
}

static weft_status begin(weft_run *r, const batch_task *t, weft_error *err)
{
    weft_buffer text = WEFT_BUFFER_INIT;
    weft_buffer_puts(&text, t->text);
    r->workspace = weft_path_join(r->dir, "work");
    weft_status status = r->workspace ? weft_mkdirs(r->workspace, err)
                                      : weft_fail(err, WEFT_E_MEMORY, "out of memory");
    if (!status) status = run_attach(t->options.list[OPT_ATTACH], r->workspace, &text, err);
    if (!status) status = run_open_tools(r, NULL, err);
    if (!status) status = run_create(r, weft_buffer_str(&text), NULL, err);
    if (status && !r->trace) weft_remove_tree(r->dir, NULL); /* nothing has happened */
    weft_buffer_free(&text);
    return status;
}

/* A directory whose run never became durable is nobody's: *out_empty, and the run begins anew. */
static weft_status go_on(weft_run *r, bool *out_empty, weft_error *err)
{
    free(r->id); /* the trace gives it back */
    r->id = NULL;
    weft_status status = run_read_trace(r, true, err);
    *out_empty = status == WEFT_E_NOT_FOUND;
    if (!status) status = run_open_tools(r, r->state.begin, err);
    if (!status) status = run_check_model(r, r->state.begin, err);
    return status ? status : run_reopen(r, NULL, NULL, err);
}

static weft_status open_locked(weft_run *r, const batch *b, const batch_task *t, weft_error *err)
{
    bool empty = false;
    if (!weft_file_exists(r->dir)) return begin(r, t, err);
    weft_dialect *dialect = r->dialect;
    weft_status status = go_on(r, &empty, err);
    if (!empty) return status;
    status = run_finish(r, WEFT_OK, err);
    *r = run_of(b, t);
    r->dialect = dialect;
    if (!status) status = weft_remove_tree(r->dir, err);
    return status ? status : begin(r, t, err);
}

static weft_status open_run(weft_run *r, const batch *b, const batch_task *t, weft_error *err)
{
    if (!r->id || !r->dir) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    weft_status status = batch_lock_run(b->lock, t->run, err);
    if (status) return status;
    status = open_locked(r, b, t, err);
    batch_unlock_run(b->lock, t->run);
    return status;
}

static cJSON *run_task(worker *w, const batch_task *t, int64_t *out_sampled)
{
    weft_error err = {0}, late;
    weft_run r = run_of(w->batch, t);
    r.dialect = w->dialect;
    weft_status status = open_run(&r, w->batch, t, &err);
    int64_t before = r.state.sampled_total;
    if (!status) status = run_loop(&r, &err);
    if (r.trace && weft_trace_close(r.trace, &late) && !status) {
        err = late;
        status = late.code;
    }
    r.trace = NULL;
    *out_sampled = r.state.sampled_total - before;
    cJSON *result = result_of(t, &r.state, status, r.limit, &err);
    run_close(&r);
    return result;
}

/* ---- threads ---- */

static batch_task *take(batch *b)
{
    batch_task *t = NULL;
    pthread_mutex_lock(&b->mutex);
    while (!weft_interrupted && b->next < b->n && !t) {
        if (!b->task[b->next].result) t = &b->task[b->next];
        b->next++;
    }
    pthread_mutex_unlock(&b->mutex);
    return t;
}

static void *work(void *context)
{
    worker *w = context;
    batch *b = w->batch;
    for (batch_task *t; (t = take(b));) {
        int64_t sampled = 0;
        cJSON *result = run_task(w, t, &sampled);
        pthread_mutex_lock(&b->mutex);
        t->result = result;
        b->counts->sampled += sampled;
        count(b, result);
        pthread_cond_signal(&b->changed);
        pthread_mutex_unlock(&b->mutex);
    }
    return NULL;
}

static size_t over(const batch *b)
{
    const batch_counts *c = b->counts;
    return c->answered + c->limited + c->failed + c->interrupted;
}

/* Prints what is over, in the order of the file, until all is or the threads stopped taking tasks. */
static weft_status print_results(batch *b, size_t from, bool wait, size_t *out_next,
                                 weft_error *err)
{
    weft_status status = WEFT_OK;
    pthread_mutex_lock(&b->mutex);
    while (from < b->n && !status) {
        const batch_task *t = &b->task[from];
        if (t->result) {
            pthread_mutex_unlock(&b->mutex);
            weft_console_break(b->console);
            status = print_json(cJSON_Duplicate(t->result, true), err);
            if (!status && (fflush(stdout) != 0 || ferror(stdout)))
                status = weft_fail_errno(err, WEFT_E_STORAGE, "write a result");
            pthread_mutex_lock(&b->mutex);
            from++;
        } else if (wait && !weft_interrupted) {
            struct timespec until;
            clock_gettime(CLOCK_REALTIME, &until);
            until.tv_nsec += LOOK_NS;
            until.tv_sec += until.tv_nsec / 1000000000;
            until.tv_nsec %= 1000000000;
            weft_console_progress(b->console, "batch", "tasks", (int64_t)over(b), (int64_t)b->n);
            pthread_cond_timedwait(&b->changed, &b->mutex, &until);
        } else {
            break;
        }
    }
    pthread_mutex_unlock(&b->mutex);
    *out_next = from;
    return status;
}

static weft_status start(batch *b, worker *w, size_t n, size_t *out_started, weft_error *err)
{
    const char *name = weft_option_text(b->options, OPT_DIALECT);
    weft_status status = weft_model_share(b->host.model, n, err);
    for (size_t i = 0; i < n && !status; i++) {
        w[i].batch = b;
        status = weft_dialect_open(&w[i].dialect, b->host.model, *name ? name : NULL, err);
    }
    for (*out_started = 0; *out_started < n && !status; (*out_started)++) {
        int e = pthread_create(&w[*out_started].thread, NULL, work, &w[*out_started]);
        if (e) {
            errno = e;
            status =
                weft_fail_errno(err, WEFT_E_MEMORY, "start thread %zu of %zu", *out_started + 1, n);
            if (*out_started > 0) return WEFT_OK; /* fewer at once do the same work */
            return status;
        }
    }
    return status;
}

static weft_status run_all(batch *b, size_t at_once, weft_error *err)
{
    size_t started = 0, next = 0;
    worker *w = calloc(at_once, sizeof *w);
    weft_status status =
        w ? run_open_model(&b->host, NULL, err) : weft_fail(err, WEFT_E_MEMORY, "out of memory");
    if (!status) status = start(b, w, at_once, &started, err);
    if (!status) status = print_results(b, 0, true, &next, err);
    if (status && !weft_interrupted) weft_interrupted = SIGTERM; /* results can go nowhere */
    for (size_t i = 0; i < started; i++) pthread_join(w[i].thread, NULL);
    for (size_t i = 0; i < b->n && started; i++) {
        if (b->task[i].result) continue;
        b->task[i].result = not_begun(&b->task[i]);
        b->counts->interrupted++;
    }
    if (!status) status = print_results(b, next, false, &next, err);
    for (size_t i = 0; w && i < at_once; i++) weft_dialect_close(w[i].dialect);
    free(w);
    return status;
}

/* Runs that an earlier command answered. What cannot be read here fails when its turn comes. */
static size_t find_answered(batch *b)
{
    weft_error err;
    size_t left = 0;
    for (size_t i = 0; i < b->n; i++) {
        weft_run r = run_of(b, &b->task[i]);
        free(r.id);
        r.id = NULL;
        if (r.dir && weft_file_exists(r.dir) && !run_read_trace(&r, false, &err) &&
            r.state.phase == RUN_ANSWERED && r.state.ended) {
            b->task[i].result = result_of(&b->task[i], &r.state, WEFT_OK, NULL, NULL);
            b->counts->answered++;
            b->counts->earlier++;
        } else {
            left++;
        }
        (void)run_finish(&r, WEFT_OK, &err);
    }
    return left;
}

weft_status batch_run(const weft_options *o, batch_task *task, size_t n, size_t at_once,
                      weft_console *console, batch_counts *out, weft_error *err)
{
    batch b = {.options = o, .console = console, .task = task, .n = n, .counts = out};
    size_t next;
    *out = (batch_counts){0};
    b.host.options = o;
    b.host.console = *console;
    b.host.started_ns = weft_monotonic_ns();
    weft_status status = runs_dir(&b.runs, err);
    if (!status) status = batch_lock(b.runs, task, n, &b.lock, err);
    if (status) {
        free(b.runs);
        return status;
    }
    pthread_mutex_init(&b.mutex, NULL);
    pthread_cond_init(&b.changed, NULL);
    size_t left = find_answered(&b);
    if (left == 0) {
        status = print_results(&b, 0, false, &next, err);
    } else {
        status = run_start_launcher(&b.host, err);
        if (!status) status = run_all(&b, left < at_once ? left : at_once, err);
    }
    run_close(&b.host);
    pthread_cond_destroy(&b.changed);
    pthread_mutex_destroy(&b.mutex);
    close(b.lock);
    free(b.runs);
    return status;
}
