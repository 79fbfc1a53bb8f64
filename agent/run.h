/* One run: the model, the timeline, the tools and the trace of a task, and the loop that ties them
 * together. Nothing here computes: engine/, tools/, sandbox/ and traces/ do.
 *
 * Everything that decides how a run goes on is read from its run.begin event, by `run` as by
 * `resume`.
 */
#ifndef WEFT_AGENT_RUN_H
#define WEFT_AGENT_RUN_H

#include "agent/console.h"
#include "agent/options.h"
#include "agent/run_state.h"
#include "engine/engine.h"
#include "tools/tool.h"
#include "traces/trace.h"

typedef struct run_limits {
    int64_t turns, tool_calls, tokens, seconds, repeats; /* 0: none */
} run_limits;

typedef struct weft_run {
    const weft_options *options;
    weft_console console;
    char *id, *dir, *workspace;
    weft_launcher *launcher;
    weft_toolset *tools;
    weft_model *model;
    weft_dialect *dialect;
    weft_timeline *timeline;
    weft_trace *trace;
    run_state state;
    run_limits limits;
    weft_sampler sampler;
    weft_turn_tool *offered; /* [n_offered] */
    size_t n_offered;
    cJSON *definitions;   /* --tools-json: offered in place of the toolset, never run */
    weft_schema **schema; /* [n_offered] of the definitions, or NULL */
    int64_t started_ns, elapsed_before_ns, evaluated_before, shared_before;
    weft_kv_source parent; /* of a fork, while it is made */
    int32_t *sampled; /* ids of the turn in progress */
    size_t n_sampled, sampled_capacity;
    size_t n_recorded; /* of them, known to the trace */
    int64_t prefill_ns, decode_ns, prefilled, jumped; /* jumped: of n_sampled, without a choice */
    bool decoding;                                    /* the turn's prompt is evaluated */
    int64_t drafted_before, accepted_before;          /* guesses until the turn in progress */
    const char *limit; /* name of the limit that was reached, or NULL */
    int draft; /* most guesses at a time; -1: as many as pay */
    bool json, deltas;
    bool unattended; /* nobody can be asked */
    bool borrowed;   /* launcher, model and dialect are the batch's */
} weft_run;

/* Set by SIGINT and SIGTERM; the loop and long calls poll it. Holds the signal's number. */
extern atomic_int weft_interrupted;

/* Appends an event and applies it to the state. Takes ownership of body. */
weft_status run_emit(weft_run *r, const char *type, const char *span, cJSON *body,
                     weft_durability durability, weft_error *err);
int64_t run_elapsed_ns(const weft_run *r);
/* WEFT_E_LIMIT with r->limit set and a `limit` event written. */
weft_status run_limit(weft_run *r, const char *name, int64_t value, weft_error *err);
cJSON *run_id_array(const int32_t *ids, size_t n);
/* Adds "elapsed_ns", "evaluated" and "shared" to a body. */
void run_add_counters(const weft_run *r, cJSON *body);

/* ---- run_open.c ---- */

/* The first SIGINT or SIGTERM ends runs resumably, a second one of the same kind kills. */
void run_catch_signals(void);
/* Leaves r->launcher NULL, with a notice, where there is no sandbox. */
weft_status run_start_launcher(weft_run *r, weft_error *err);
/* Copies files (NULL-terminated list, or NULL) into the workspace, read-only, and names them in the
 * task. */
weft_status run_attach(char *const *files, const char *workspace, weft_buffer *task,
                       weft_error *err);
/* Opens the trace in r->dir and folds it: r->state, id and workspace. */
weft_status run_read_trace(weft_run *r, bool for_writing, weft_error *err);
/* A new run in r->dir, whose tools and model are open, or the one whose trace was read, with a new
 * user turn if task is not NULL: up to where run_loop begins. tap (may be NULL) gets every event. */
weft_status run_create(weft_run *r, const char *task, weft_trace_tap tap, weft_error *err);
weft_status run_reopen(weft_run *r, const char *task, weft_trace_tap tap, weft_error *err);
/* The event that says that a process goes on with a run. */
weft_status run_emit_resume(weft_run *r, const char *task, weft_error *err);
/* Closes the trace and everything else. Keeps status and err of what went before, if that failed. */
weft_status run_finish(weft_run *r, weft_status status, weft_error *err);

/* ---- run_setup.c ---- */

/* The body of run.begin for the options (after the tools are known). */
weft_status run_begin_body(weft_run *r, const char *task, cJSON **out, weft_error *err);
/* The same for a fork of the run that began with `parent`, in r->workspace. */
weft_status run_fork_body(weft_run *r, const cJSON *parent, cJSON **out, weft_error *err);
/* Launcher, toolset: what must exist before the model is loaded. `begin` is run.begin's body on
 * resume, NULL on a fresh run. */
weft_status run_open_tools(weft_run *r, const cJSON *begin, weft_error *err);
/* Model, dialect, and the timeline over the state's ids. */
weft_status run_open_model(weft_run *r, const cJSON *begin, weft_error *err);
/* WEFT_E_MODEL if the model is not the one that the run began with. */
weft_status run_check_model(const weft_run *r, const cJSON *begin, weft_error *err);
/* --system: text, or the content of @FILE. */
weft_status run_read_system(const char *text, weft_buffer *out, weft_error *err);
weft_status run_open_timeline(weft_run *r, weft_error *err);
/* Limits, sampler and offered tools from run.begin; limits may be raised by this call's options. */
weft_status run_read_begin(weft_run *r, weft_error *err);
void run_close(weft_run *r);

/* ---- run_turn.c, run_calls.c ---- */

/* Samples one turn to its end and records it. */
weft_status run_turn(weft_run *r, weft_error *err);
/* Records the ids of a turn in progress that the trace does not have yet. */
weft_status run_checkpoint(weft_run *r, weft_error *err);
/* Runs the calls of the last turn that have no result yet. */
weft_status run_calls(weft_run *r, weft_error *err);
/* --no-exec: prints the turn's calls as they would be run. */
weft_status run_print_calls(weft_run *r, weft_error *err);

/* ---- cmd_run.c: what run, resume and fork have in common ---- */

void run_open_console(weft_run *r, const weft_options *o);
/* Id, directory and workspace of a new run. */
weft_status run_make_directories(weft_run *r, weft_error *err);
/* Prints each event from here on, with --json. */
void run_print_events(weft_run *r);
/* The loop, the answer, the closing line. */
weft_status run_go(weft_run *r, int *exit_code, weft_error *err);
/* RUN and TASK from `VERB [RUN | --last] [TASK]`; *run NULL: --last. */
weft_status run_arguments(const weft_options *o, const char *verb, const char **run,
                          const char **task, weft_error *err);

/* ---- run.c ---- */

/* From the state's phase to the answer; writes run.end. Returns the status of the run. */
weft_status run_loop(weft_run *r, weft_error *err);
/* "answer", "limit", ...: why a run with this status ended. */
const char *run_end_reason(weft_status status);

#endif
