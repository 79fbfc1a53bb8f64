/* One turn: evaluate what is pending, sample under the turn's mask, recognise, stream, record.
 * A turn that an earlier process began is fed with the ids that the trace has, then goes on: logits
 * and draws depend on the tokens and positions alone, so it ends as it would have. */
#include "agent/run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int on_progress(void *context, const char *what, int64_t done, int64_t total)
{
    weft_run *r = context;
    if (total > 1 && !r->decoding) weft_console_progress(&r->console, what, "tokens", done, total);
    return weft_interrupted;
}

cJSON *run_id_array(const int32_t *ids, size_t n)
{
    cJSON *list = cJSON_CreateArray();
    for (size_t i = 0; i < n; i++) cJSON_AddItemToArray(list, cJSON_CreateNumber(ids[i]));
    return list;
}

/* The trace learns the ids that were sampled up to here together with each finished page, so that a
 * killed process loses at most a page of them. */
static weft_status on_page(void *context, int64_t page, const uint8_t digest[WEFT_DIGEST_BYTES],
                           weft_error *err)
{
    weft_run *r = context;
    char hex[WEFT_DIGEST_HEX_BYTES];
    cJSON *body = cJSON_CreateObject();
    weft_json_add_int(body, "page", page);
    cJSON_AddStringToObject(body, "digest", weft_hex(digest, WEFT_DIGEST_BYTES, hex));
    if (r->n_sampled > r->n_recorded) {
        cJSON_AddItemToObject(body, "sampled",
                              run_id_array(r->sampled + r->n_recorded, r->n_sampled - r->n_recorded));
        r->n_recorded = r->n_sampled;
    }
    run_add_counters(r, body);
    return run_emit(r, "kv", "", body, WEFT_BATCHED, err);
}

weft_status run_checkpoint(weft_run *r, weft_error *err)
{
    if (!r->timeline || r->n_sampled <= r->n_recorded) return WEFT_OK;
    cJSON *body = cJSON_CreateObject();
    cJSON_AddItemToObject(body, "sampled",
                          run_id_array(r->sampled + r->n_recorded, r->n_sampled - r->n_recorded));
    r->n_recorded = r->n_sampled;
    run_add_counters(r, body);
    return run_emit(r, "kv", "", body, WEFT_BATCHED, err);
}

static weft_status remember_sampled(weft_run *r, int32_t id, weft_error *err)
{
    if (r->n_sampled == r->sampled_capacity) {
        size_t more = r->sampled_capacity ? 2 * r->sampled_capacity : 4096;
        int32_t *grown = realloc(r->sampled, more * sizeof *grown);
        if (!grown) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
        r->sampled = grown;
        r->sampled_capacity = more;
    }
    r->sampled[r->n_sampled++] = id;
    return WEFT_OK;
}

static void show(weft_run *r, const weft_turn_delta *delta)
{
    if (!*delta->text) return;
    if (delta->segment != WEFT_CALL) /* a call is shown whole, in its frame */
        weft_console_stream(&r->console, delta->text, delta->segment != WEFT_ANSWER);
    if (!r->deltas) return;
    cJSON *line = cJSON_CreateObject();
    weft_buffer text = WEFT_BUFFER_INIT;
    cJSON_AddTrueToObject(line, "transient");
    cJSON_AddStringToObject(line, "type", "delta");
    cJSON_AddStringToObject(line, "segment", weft_segment_name(delta->segment));
    cJSON_AddStringToObject(line, "text", delta->text);
    weft_json_compact(line, &text);
    printf("%s\n", weft_buffer_str(&text));
    fflush(stdout);
    weft_buffer_free(&text);
    cJSON_Delete(line);
}

static weft_status check_limits(weft_run *r, weft_error *err)
{
    int64_t sampled = r->state.sampled_total + (int64_t)r->n_sampled;
    if (weft_interrupted)
        return weft_fail(err, WEFT_E_INTERRUPTED, "interrupted: go on with weft resume %s", r->id);
    if (r->limits.tokens && sampled >= r->limits.tokens)
        return run_limit(r, "tokens", r->limits.tokens, err);
    if (r->limits.seconds && run_elapsed_ns(r) / 1000000000 >= r->limits.seconds)
        return run_limit(r, "seconds", r->limits.seconds, err);
    return WEFT_OK;
}

static weft_status evaluate(weft_run *r, weft_error *err)
{
    int64_t from = weft_monotonic_ns(), pending = weft_timeline_pending(r->timeline);
    int64_t restored = weft_timeline_restored(r->timeline);
    bool prefill = pending > 1 && !r->decoding;
    if (prefill) weft_console_progress(&r->console, "prefill", "tokens", 0, pending);
    weft_status status = weft_timeline_evaluate(r->timeline, on_progress, r, err);
    int64_t spent = weft_monotonic_ns() - from;
    if (prefill) {
        r->prefill_ns += spent;
        r->prefilled += pending - (weft_timeline_restored(r->timeline) - restored);
    } else {
        r->decode_ns += spent;
    }
    r->decoding = true;
    return status;
}

/* The next id: the only one that may come, or one sampled behind all before it. */
static weft_status next_id(weft_run *r, weft_turn *turn, int32_t *out_id, weft_error *err)
{
    if (weft_turn_forced(turn, out_id)) {
        r->jumped++;
        return WEFT_OK;
    }
    const weft_mask *mask = weft_turn_mask(turn);
    weft_timeline_will_draw(r->timeline, &r->sampler, mask);
    weft_status status = evaluate(r, err);
    if (status) return status;
    return weft_timeline_sample(r->timeline, &r->sampler, mask, out_id, NULL, err);
}

static weft_status sample_turn(weft_run *r, weft_turn *turn, weft_error *err)
{
    weft_turn_delta delta = {0};
    const int32_t *forced = NULL;
    size_t n_forced = run_state_forced(&r->state, &forced);
    weft_status status = WEFT_OK;
    for (size_t i = 0; i < n_forced && !status; i++) {
        int32_t only;
        r->jumped += weft_turn_forced(turn, &only) && only == forced[i];
        status = remember_sampled(r, forced[i], err);
        if (!status) status = weft_turn_accept(turn, forced[i], &delta, err);
        if (!status) show(r, &delta);
    }
    r->n_recorded = r->n_sampled;
    while (!status && !delta.ended) {
        int32_t id;
        if ((status = check_limits(r, err)) || (status = next_id(r, turn, &id, err))) break;
        status = weft_timeline_append(r->timeline, &id, 1, err);
        if (status == WEFT_E_LIMIT)
            return run_limit(r, "context", weft_model_get_info(r->model)->context, err);
        if (!status) status = remember_sampled(r, id, err);
        if (!status) status = weft_turn_accept(turn, id, &delta, err);
        if (!status) show(r, &delta);
    }
    return status;
}

static cJSON *segment_body(const weft_run *r, const weft_turn_segment *segment)
{
    cJSON *body = cJSON_CreateObject();
    cJSON_AddStringToObject(body, "kind", weft_segment_name(segment->segment));
    cJSON_AddItemToObject(body, "ids", run_id_array(r->sampled + segment->from, segment->n));
    cJSON_AddStringToObject(body, "text", segment->text);
    weft_json_add_int(body, "turn", r->state.turns);
    return body;
}

static cJSON *call_body(const weft_turn_call *call)
{
    cJSON *body = cJSON_CreateObject();
    cJSON_AddStringToObject(body, "name", call->name);
    if (call->arguments) {
        weft_buffer text = WEFT_BUFFER_INIT;
        weft_json_compact(call->arguments, &text);
        cJSON_AddStringToObject(body, "arguments", weft_buffer_str(&text));
        weft_buffer_free(&text);
    }
    if (call->raw) cJSON_AddStringToObject(body, "raw", call->raw);
    if (call->error) cJSON_AddStringToObject(body, "error", call->error);
    return body;
}

/* The turn's segments, then the turn: the trace writes them in one transaction as a rule; where it
 * did not, the segments that are there already are left out. */
static weft_status record(weft_run *r, const weft_turn_result *result, bool cut, weft_error *err)
{
    char span[32];
    weft_status status = WEFT_OK;
    snprintf(span, sizeof span, "turn-%lld", (long long)r->state.turns);
    for (size_t i = r->state.turn_segments; i < result->n_segment && !status; i++)
        status =
            run_emit(r, "segment", span, segment_body(r, &result->segment[i]), WEFT_BATCHED, err);
    if (status) return status;
    cJSON *body = cJSON_CreateObject(), *calls = cJSON_AddArrayToObject(body, "calls");
    for (size_t i = 0; !cut && i < result->n_call; i++)
        cJSON_AddItemToArray(calls, call_body(&result->call[i]));
    weft_json_add_int(body, "turn", r->state.turns);
    weft_json_add_int(body, "sampled", (int64_t)r->n_sampled);
    weft_json_add_int(body, "forced", r->jumped);
    weft_json_add_int(body, "prefilled", r->prefilled);
    weft_json_add_int(body, "prefill_ns", r->prefill_ns);
    weft_json_add_int(body, "decode_ns", r->decode_ns);
    int64_t accepted, drafted = weft_timeline_guessed(r->timeline, &accepted);
    weft_json_add_int(body, "drafted", drafted - r->drafted_before);
    weft_json_add_int(body, "accepted", accepted - r->accepted_before);
    weft_json_add_int(body, "length", weft_timeline_length(r->timeline));
    cJSON_AddBoolToObject(body, "ended", result->ended);
    if (cut) cJSON_AddTrueToObject(body, "cut");
    run_add_counters(r, body);
    status = run_emit(r, "turn", span, body, WEFT_DURABLE, err);
    r->n_sampled = r->n_recorded = 0;
    return status;
}

static weft_status begin(weft_run *r, weft_turn **out, weft_error *err)
{
    const cJSON *b = r->state.begin;
    const char *choice = weft_json_string(b, "tool_choice"), *think = weft_json_string(b, "think");
    weft_turn_options o = {.tools = r->offered, .n_tools = r->n_offered};
    o.think_budget = weft_json_int(b, "think_budget", 0);
    o.in_thought = weft_dialect_in_thought(r->dialect, r->state.id, r->state.turn_from);
    o.think = think && strcmp(think, "on") == 0    ? WEFT_THINK_ON
              : think && strcmp(think, "off") == 0 ? WEFT_THINK_OFF
                                                   : WEFT_THINK_AUTO;
    bool free_choice = !choice || strcmp(choice, "auto") == 0;
    if (r->state.must_answer) {
        o.choice = WEFT_CHOICE_WORDS;
    } else if (choice && strcmp(choice, "none") == 0) {
        o.choice = WEFT_CHOICE_NONE;
    } else if (!free_choice && r->state.calls == 0) { /* a demanded call is demanded once */
        o.choice = WEFT_CHOICE_REQUIRED;
        if (strcmp(choice, "required") != 0) o.only = choice;
    }
    return weft_turn_begin(out, r->dialect, &o, err);
}

weft_status run_turn(weft_run *r, weft_error *err)
{
    weft_turn *turn = NULL;
    const weft_turn_result *result;
    if (r->limits.turns && r->state.turns >= r->limits.turns)
        return run_limit(r, "turns", r->limits.turns, err);
    weft_timeline_on_page(r->timeline, on_page, r);
    r->n_sampled = r->n_recorded = 0;
    r->prefilled = r->prefill_ns = r->decode_ns = r->jumped = 0;
    r->decoding = false;
    r->drafted_before = weft_timeline_guessed(r->timeline, &r->accepted_before);
    weft_status status = begin(r, &turn, err);
    bool cut = r->state.user != NULL;
    if (!status && cut) {
        /* the user speaks into an unfinished turn: it ends where it stands */
        const int32_t *forced = NULL;
        size_t n = run_state_forced(&r->state, &forced);
        weft_turn_delta delta;
        for (size_t i = 0; i < n && !status; i++) {
            status = remember_sampled(r, forced[i], err);
            if (!status) status = weft_turn_accept(turn, forced[i], &delta, err);
        }
    } else if (!status) {
        status = sample_turn(r, turn, err);
    }
    if (!status) status = weft_turn_finish(turn, &result, err);
    if (!status) status = record(r, result, cut, err);
    weft_console_break(&r->console);
    weft_turn_free(turn);
    return status;
}
