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
    int64_t started_ns, elapsed_before_ns, evaluated_before;
    int32_t *sampled; /* ids of the turn in progress */
    size_t n_sampled, sampled_capacity;
    size_t n_recorded; /* of them, known to the trace */
    int64_t prefill_ns, decode_ns, prefilled, jumped; /* jumped: of n_sampled, without a choice */
    bool decoding;                                    /* the turn's prompt is evaluated */
    const char *limit; /* name of the limit that was reached, or NULL */
    bool json, deltas;
} weft_run;

/* Set by SIGINT and SIGTERM; the loop and long calls poll it. Holds the signal's number. */
extern volatile int weft_interrupted;

/* Appends an event and applies it to the state. Takes ownership of body. */
weft_status run_emit(weft_run *r, const char *type, const char *span, cJSON *body,
                     weft_durability durability, weft_error *err);
int64_t run_elapsed_ns(const weft_run *r);
/* WEFT_E_LIMIT with r->limit set and a `limit` event written. */
weft_status run_limit(weft_run *r, const char *name, int64_t value, weft_error *err);
/* Adds "elapsed_ns" and "evaluated" to a body. */
void run_add_counters(const weft_run *r, cJSON *body);

/* ---- run_setup.c ---- */

/* The body of run.begin for the options (after the tools are known). */
weft_status run_begin_body(weft_run *r, const char *task, cJSON **out, weft_error *err);
/* Launcher, toolset: what must exist before the model is loaded. `begin` is run.begin's body on
 * resume, NULL on a fresh run. */
weft_status run_open_tools(weft_run *r, const cJSON *begin, weft_error *err);
/* Model, dialect, and the timeline over the state's ids. */
weft_status run_open_model(weft_run *r, const cJSON *begin, weft_error *err);
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

/* ---- run.c ---- */

/* From the state's phase to the answer; writes run.end. Returns the status of the run. */
weft_status run_loop(weft_run *r, weft_error *err);

#endif
