/* The loop: script, turn, calls, results, until the answer. Each step begins from the state alone
 * and ends with events, so the process may die between any two and `resume` goes on from there. */
#include "agent/run.h"

#include <stdlib.h>
#include <string.h>

atomic_int weft_interrupted;

int64_t run_elapsed_ns(const weft_run *r)
{
    return r->elapsed_before_ns + (weft_monotonic_ns() - r->started_ns);
}

void run_add_counters(const weft_run *r, cJSON *body)
{
    weft_json_add_int(body, "elapsed_ns", run_elapsed_ns(r));
    if (!r->timeline) return;
    weft_json_add_int(body, "evaluated",
                      r->evaluated_before + weft_timeline_evaluated(r->timeline));
    weft_json_add_int(body, "shared", r->shared_before + weft_timeline_shared(r->timeline));
}

weft_status run_emit(weft_run *r, const char *type, const char *span, cJSON *body,
                     weft_durability durability, weft_error *err)
{
    if (!body) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    weft_status status = weft_trace_append(r->trace, type, span, body, durability, NULL, err);
    if (!status) status = run_state_apply(&r->state, type, body, err);
    cJSON_Delete(body);
    return status;
}

weft_status run_limit(weft_run *r, const char *name, int64_t value, weft_error *err)
{
    cJSON *body = cJSON_CreateObject();
    cJSON_AddStringToObject(body, "limit", name);
    weft_json_add_int(body, "value", value);
    run_add_counters(r, body);
    r->limit = name;
    weft_status status = run_emit(r, "limit", "", body, WEFT_BATCHED, err);
    if (status) return status;
    return weft_fail(err, WEFT_E_LIMIT,
                     "the run reached its limit %s %lld: go on with weft resume %s", name,
                     (long long)value, r->id);
}

/* Records and appends a script, leaving out what is recorded already. Its last segment is `open`:
 * the generation prompt stands behind it. */
static weft_status write_script(weft_run *r, weft_script *script, weft_error *err)
{
    int32_t *ids = NULL;
    weft_segment *label = NULL;
    size_t n = 0, segment = 0, done = r->state.script_done;
    weft_status status = weft_script_encode(r->model, script, &ids, &label, &n, err);
    for (size_t from = 0, to; !status && from < n; from = to) {
        for (to = from + 1; to < n && label[to] == label[from];) to++;
        if (segment++ < done) continue; /* recorded by an earlier process, and on the timeline */
        cJSON *body = cJSON_CreateObject(), *list = cJSON_AddArrayToObject(body, "ids");
        weft_buffer text = WEFT_BUFFER_INIT, whole = WEFT_BUFFER_INIT;
        for (size_t i = from; i < to; i++) cJSON_AddItemToArray(list, cJSON_CreateNumber(ids[i]));
        weft_decode(r->model, ids + from, to - from, true, &text);
        weft_utf8_scrub(weft_buffer_str(&text), text.size, &whole);
        cJSON_AddStringToObject(body, "kind", weft_segment_name(label[from]));
        cJSON_AddStringToObject(body, "text", weft_buffer_str(&whole));
        cJSON_AddBoolToObject(body, "open", to == n);
        weft_buffer_free(&text);
        weft_buffer_free(&whole);
        status = weft_timeline_append(r->timeline, ids + from, to - from, err);
        if (status == WEFT_E_LIMIT) {
            cJSON_Delete(body);
            status = run_limit(r, "context", weft_model_get_info(r->model)->context, err);
        } else if (status) {
            cJSON_Delete(body);
        } else {
            status = run_emit(r, "segment", "", body, to == n ? WEFT_DURABLE : WEFT_BATCHED, err);
        }
    }
    free(ids);
    free(label);
    return status;
}

static weft_think read_think(const cJSON *begin)
{
    const char *think = weft_json_string(begin, "think");
    if (think && strcmp(think, "on") == 0) return WEFT_THINK_ON;
    return think && strcmp(think, "off") == 0 ? WEFT_THINK_OFF : WEFT_THINK_AUTO;
}

static weft_status step_opening(weft_run *r, weft_error *err)
{
    const cJSON *begin = r->state.begin;
    const char *task = weft_json_string(begin, "task");
    weft_script script = {0};
    cJSON *tools = r->definitions                 ? cJSON_Duplicate(r->definitions, true)
                   : weft_toolset_count(r->tools) ? weft_toolset_definitions(r->tools)
                                                  : NULL;
    weft_status status = weft_dialect_begin(r->dialect, weft_json_string(begin, "system"), tools,
                                            task ? task : "", read_think(begin), &script, err);
    if (!status) status = write_script(r, &script, err);
    weft_script_free(&script);
    cJSON_Delete(tools);
    return status;
}

static weft_status step_results(weft_run *r, weft_error *err)
{
    const run_state *s = &r->state;
    weft_script script = {0};
    weft_result_text *results = calloc(s->n_call, sizeof *results);
    if (!results) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    for (size_t i = 0; i < s->n_call; i++)
        results[i] = (weft_result_text){s->call[i].name, s->call[i].result};
    weft_status status = weft_dialect_results(r->dialect, s->turn_closed, results, s->n_call, NULL,
                                              read_think(s->begin), &script, err);
    if (!status) status = write_script(r, &script, err);
    weft_script_free(&script);
    free(results);
    return status;
}

/* A family that drops earlier thoughts when the user speaks again: the ids are rewritten, the event
 * says what stays, and the timeline is opened anew over them: its pages hold the common beginning. */
static weft_status drop_thoughts(weft_run *r, weft_error *err)
{
    const run_state *s = &r->state;
    int32_t *ids = NULL;
    size_t n = 0, kept = 0;
    weft_status status = weft_dialect_retain(r->dialect, s->id, s->n_id, &ids, &n, &kept, err);
    if (status || !ids) return status;
    int64_t dropped = (int64_t)s->n_id - (int64_t)n;
    cJSON *body = cJSON_CreateObject();
    cJSON_AddStringToObject(body, "policy", "drop-thoughts");
    weft_json_add_int(body, "kept", (int64_t)kept);
    weft_json_add_int(body, "dropped", dropped);
    cJSON_AddItemToObject(body, "ids", run_id_array(ids + kept, n - kept));
    run_add_counters(r, body);
    free(ids);
    status = run_emit(r, "compact", "", body, WEFT_DURABLE, err);
    if (status) return status;
    weft_timeline_close(r->timeline);
    r->timeline = NULL;
    status = run_open_timeline(r, err);
    if (status) return status;
    weft_console_notice(&r->console,
                        "a new question: %lld tokens of earlier thoughts are dropped; %zu of %zu stay "
                        "evaluated, %lld are read again",
                        (long long)dropped, n - (size_t)weft_timeline_pending(r->timeline), n,
                        (long long)weft_timeline_pending(r->timeline));
    return WEFT_OK;
}

static weft_status step_user(weft_run *r, weft_error *err)
{
    const run_state *s = &r->state;
    weft_script script = {0};
    weft_status status = s->script_done ? WEFT_OK : drop_thoughts(r, err);
    if (status) return status;
    status = weft_dialect_user(r->dialect, s->turn_closed, s->user ? s->user : "",
                                           read_think(s->begin), &script, err);
    if (!status) status = write_script(r, &script, err);
    weft_script_free(&script);
    return status;
}

static weft_status advance(weft_run *r, weft_error *err)
{
    for (;;) {
        weft_status status = WEFT_OK;
        if (weft_interrupted)
            return weft_fail(err, WEFT_E_INTERRUPTED, "interrupted: go on with weft resume %s",
                             r->id);
        switch (r->state.phase) {
        case RUN_NEW: status = step_opening(r, err); break;
        case RUN_TURN: status = run_turn(r, err); break;
        case RUN_CALLS:
            if (weft_option_flag(r->options, OPT_NO_EXEC)) return run_print_calls(r, err);
            status = run_calls(r, err);
            break;
        case RUN_RESULTS: status = step_results(r, err); break;
        case RUN_USER: status = step_user(r, err); break;
        case RUN_ANSWERED: return weft_timeline_evaluate(r->timeline, NULL, NULL, err);
        }
        if (status) return status;
    }
}

const char *run_end_reason(weft_status status)
{
    switch (status) {
    case WEFT_OK: return "answer";
    case WEFT_E_LIMIT: return "limit";
    case WEFT_E_INTERRUPTED: return "interrupted";
    case WEFT_E_DENIED: return "denied";
    default: return "error";
    }
}

static cJSON *end_body(weft_run *r, weft_status status, const weft_error *why)
{
    const run_state *s = &r->state;
    cJSON *body = cJSON_CreateObject(), *counts = cJSON_AddObjectToObject(body, "counts");
    cJSON_AddStringToObject(body, "reason", run_end_reason(status));
    weft_json_add_int(body, "exit", weft_status_exit(status));
    if (r->limit) cJSON_AddStringToObject(body, "limit", r->limit);
    if (status) cJSON_AddStringToObject(body, "message", why->message);
    if (!status && s->answer) cJSON_AddStringToObject(body, "answer", s->answer);
    weft_json_add_int(counts, "turns", s->turns);
    weft_json_add_int(counts, "calls", s->calls);
    weft_json_add_int(counts, "sampled", s->sampled_total);
    weft_json_add_int(counts, "length",
                      r->timeline ? weft_timeline_length(r->timeline) : (int64_t)s->n_id);
    run_add_counters(r, body);
    return body;
}

weft_status run_loop(weft_run *r, weft_error *err)
{
    weft_error late;
    weft_status status = advance(r, err);
    if (status == WEFT_E_STORAGE)
        return status; /* the log itself failed: nothing more can be recorded */
    weft_status kept = run_checkpoint(r, &late);
    if (!kept && status && status != WEFT_E_LIMIT && status != WEFT_E_INTERRUPTED) {
        cJSON *body = cJSON_CreateObject();
        cJSON_AddStringToObject(body, "message", err->message);
        kept = run_emit(r, "error", "", body, WEFT_BATCHED, &late);
    }
    if (!kept) kept = run_emit(r, "run.end", "", end_body(r, status, err), WEFT_DURABLE, &late);
    if (kept) {
        *err = late;
        return kept;
    }
    return status;
}
