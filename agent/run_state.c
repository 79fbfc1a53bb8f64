/* Folding events into the state of a run (run_state.h). Each apply function trusts nothing: a trace
 * may have been made by hand. */
#include "agent/run_state.h"

#include <stdlib.h>
#include <string.h>

static weft_status bad(weft_error *err, const char *type, const char *what)
{
    return weft_fail(err, WEFT_E_VERIFY,
                     "the trace's %s event %s: it was not written by this program", type, what);
}

static void calls_free(run_state *s)
{
    for (size_t i = 0; i < s->n_call; i++) {
        free(s->call[i].name);
        free(s->call[i].arguments);
        free(s->call[i].error);
        free(s->call[i].result);
    }
    free(s->call);
    s->call = NULL;
    s->n_call = 0;
}

static void memory_free(run_state *s)
{
    for (size_t i = 0; i < s->n_memory; i++) {
        free(s->memory[i].key);
        free(s->memory[i].result);
    }
    free(s->memory);
    s->memory = NULL;
    s->n_memory = 0;
}

void run_state_free(run_state *s)
{
    cJSON_Delete(s->begin);
    free(s->id);
    free(s->sampled);
    calls_free(s);
    memory_free(s);
    free(s->last_key);
    free(s->last_result);
    free(s->answer);
    free(s->user);
    free(s->question);
    free(s->output);
    memset(s, 0, sizeof *s);
}

/* Appends the body's array `key` to a growing list of ids. */
static weft_status take_ids(const cJSON *body, const char *key, int32_t **list, size_t *n,
                            size_t *capacity, weft_error *err)
{
    const cJSON *array = cJSON_GetObjectItemCaseSensitive(body, key), *item;
    if (!cJSON_IsArray(array)) return bad(err, "segment", "has no ids");
    cJSON_ArrayForEach(item, array)
    {
        if (!cJSON_IsNumber(item) || item->valuedouble < 0 || item->valuedouble > INT32_MAX)
            return bad(err, "segment", "holds an id that is none");
        if (*n == *capacity) {
            size_t more = *capacity ? 2 * *capacity : 1024;
            int32_t *grown = realloc(*list, more * sizeof *grown);
            if (!grown) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
            *list = grown;
            *capacity = more;
        }
        (*list)[(*n)++] = (int32_t)item->valuedouble;
    }
    return WEFT_OK;
}

static weft_status replace(char **slot, const char *text, weft_error *err)
{
    char *copy = text ? strdup(text) : NULL;
    if (text && !copy) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    free(*slot);
    *slot = copy;
    return WEFT_OK;
}

static weft_status apply_segment(run_state *s, const cJSON *body, weft_error *err)
{
    const char *kind = weft_json_string(body, "kind");
    if (!kind) return bad(err, "segment", "has no kind");
    weft_status status = take_ids(body, "ids", &s->id, &s->n_id, &s->id_capacity, err);
    if (status) return status;
    bool sampled =
        strcmp(kind, "thought") == 0 || strcmp(kind, "call") == 0 || strcmp(kind, "answer") == 0;
    if (sampled) {
        s->turn_segments++;
        return strcmp(kind, "answer") == 0
                   ? replace(&s->answer, weft_json_string(body, "text"), err)
                   : WEFT_OK;
    }
    s->script_done++;
    if (weft_json_bool(body, "open", false)) {
        if (s->phase == RUN_USER) status = replace(&s->user, NULL, err);
        s->phase = RUN_TURN;
        s->turn_from = s->n_id;
        s->script_done = s->turn_segments = s->n_sampled = 0;
        calls_free(s);
    }
    return status;
}

static weft_status apply_turn(run_state *s, const cJSON *body, weft_error *err)
{
    const cJSON *calls = cJSON_GetObjectItemCaseSensitive(body, "calls"), *item;
    size_t n = (size_t)cJSON_GetArraySize(calls), i = 0;
    calls_free(s);
    if (n) {
        s->call = calloc(n, sizeof *s->call);
        if (!s->call) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
        s->n_call = n;
    }
    cJSON_ArrayForEach(item, calls)
    {
        run_call *c = &s->call[i++];
        const char *name = weft_json_string(item, "name");
        weft_status status = replace(&c->name, name ? name : "", err);
        if (!status) status = replace(&c->arguments, weft_json_string(item, "arguments"), err);
        if (!status) status = replace(&c->error, weft_json_string(item, "error"), err);
        if (status) return status;
    }
    s->turns++;
    s->sampled_total += weft_json_int(body, "sampled", 0);
    s->turn_closed = weft_json_bool(body, "ended", true);
    s->turn_segments = s->n_sampled = 0;
    s->must_answer = false;
    s->phase = weft_json_bool(body, "cut", false) ? RUN_USER : n ? RUN_CALLS : RUN_ANSWERED;
    return WEFT_OK;
}

static run_call *find_call(run_state *s, const cJSON *body)
{
    int64_t i = weft_json_int(body, "index", -1);
    return s->phase == RUN_CALLS && i >= 0 && (size_t)i < s->n_call ? &s->call[i] : NULL;
}

char *run_call_key(const char *name, const char *arguments)
{
    cJSON *value = NULL;
    weft_buffer key = WEFT_BUFFER_INIT, sorted = WEFT_BUFFER_INIT;
    weft_buffer_printf(&key, "%s\n", name);
    if (arguments && !weft_json_parse(arguments, strlen(arguments), &value, NULL)) {
        /* canonical form refuses fractions: then the text as written has to do */
        if (weft_json_canonical(value, &sorted, NULL)) {
            weft_buffer_clear(&sorted);
            weft_json_compact(value, &sorted);
        }
        weft_buffer_append(&key, weft_buffer_str(&sorted), sorted.size);
    }
    cJSON_Delete(value);
    weft_buffer_free(&sorted);
    return weft_buffer_take(&key);
}

const char *run_state_recall(const run_state *s, const char *key)
{
    for (size_t i = 0; i < s->n_memory; i++)
        if (strcmp(s->memory[i].key, key) == 0) return s->memory[i].result;
    return NULL;
}

static weft_status remember(run_state *s, const run_call *c, weft_error *err)
{
    run_memory *grown = realloc(s->memory, (s->n_memory + 1) * sizeof *grown);
    if (grown) s->memory = grown;
    char *key = run_call_key(c->name, c->arguments), *result = strdup(c->result);
    if (!grown || !key || !result) {
        free(key);
        free(result);
        return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    }
    s->memory[s->n_memory++] = (run_memory){key, result};
    return WEFT_OK;
}

static weft_status compare_with_last(run_state *s, const run_call *c, bool *stuck, weft_error *err)
{
    char *key = run_call_key(c->name, c->arguments);
    if (!key) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    /* a failure may carry words about its repetition behind the text it had before */
    size_t n = s->last_result ? strlen(s->last_result) : 0, m = strlen(c->result);
    *stuck = c->failed && s->last_key && strcmp(s->last_key, key) == 0 &&
             strncmp(s->last_result, c->result, n < m ? n : m) == 0;
    free(s->last_key);
    s->last_key = key;
    return replace(&s->last_result, c->result, err);
}

static weft_status apply_result(run_state *s, const cJSON *body, weft_error *err)
{
    run_call *c = find_call(s, body);
    const char *text = weft_json_string(body, "text");
    if (!c || !text) return bad(err, "tool.result", "belongs to no call");
    weft_status status = replace(&c->result, text, err);
    if (status) return status;
    c->finished = true;
    c->failed = weft_json_bool(body, "error", false);
    s->calls++;
    bool repeated = weft_json_bool(body, "repeated", false);
    bool stuck = false; /* the same call failed in the same way as just before */
    status = compare_with_last(s, c, &stuck, err);
    if (status) return status;
    s->repeats = repeated || stuck ? s->repeats + 1 : 0;
    if (s->repeats >= 2) s->must_answer = true;
    bool ran = !repeated && weft_json_bool(body, "executed", false);
    if (ran && !c->failed) status = replace(&s->output, c->result, err);
    if (ran && !status) {
        if (!weft_json_bool(body, "idempotent", false))
            memory_free(s); /* it may have changed what the others looked at */
        else if (!c->failed)
            status = remember(s, c, err);
    }
    for (size_t i = 0; i < s->n_call; i++)
        if (!s->call[i].finished) return status;
    s->phase = RUN_RESULTS;
    return status;
}

/* The ids behind the first `kept` are others from here on. */
static weft_status apply_compact(run_state *s, const cJSON *body, weft_error *err)
{
    int64_t kept = weft_json_int(body, "kept", -1);
    if (s->phase != RUN_USER || kept < 0 || (uint64_t)kept > s->n_id)
        return bad(err, "compact", "does not fit the ids before it");
    s->n_id = (size_t)kept;
    return take_ids(body, "ids", &s->id, &s->n_id, &s->id_capacity, err);
}

static weft_status apply_event(run_state *s, const char *type, const cJSON *body, weft_error *err)
{
    s->elapsed_ns = weft_json_int(body, "elapsed_ns", s->elapsed_ns);
    if (s->copied_left > 0) {
        s->copied_left--;
    } else {
        s->evaluated = weft_json_int(body, "evaluated", s->evaluated);
        s->shared = weft_json_int(body, "shared", s->shared);
    }
    if (strcmp(type, "run.begin") == 0) {
        if (s->begin) return bad(err, type, "stands twice");
        s->begin = cJSON_Duplicate(body, true);
        if (!s->begin) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
        return replace(&s->question, weft_json_string(body, "task"), err);
    }
    if (!s->begin) return bad(err, type, "stands before run.begin");
    if (strcmp(type, "segment") == 0) return apply_segment(s, body, err);
    if (strcmp(type, "turn") == 0) return apply_turn(s, body, err);
    if (strcmp(type, "compact") == 0) return apply_compact(s, body, err);
    if (strcmp(type, "tool.call") == 0) {
        run_call *c = find_call(s, body);
        if (!c) return bad(err, type, "belongs to no turn");
        c->started = true;
    } else if (strcmp(type, "tool.result") == 0) {
        return apply_result(s, body, err);
    } else if (strcmp(type, "kv") == 0) {
        if (cJSON_HasObjectItem(body, "sampled"))
            return take_ids(body, "sampled", &s->sampled, &s->n_sampled, &s->sampled_capacity, err);
    } else if (strcmp(type, "resume") == 0) {
        const char *user = weft_json_string(body, "task");
        s->ended = false;
        if (user) {
            if (s->phase == RUN_ANSWERED) s->phase = RUN_USER;
            weft_status status = replace(&s->question, user, err);
            return status ? status : replace(&s->user, user, err);
        }
    } else if (strcmp(type, "run.end") == 0) {
        s->ended = true;
    }
    return WEFT_OK;
}

/* A call that the parent had begun and that has no result here did not run for this run. */
static void calls_have_not_run(run_state *s)
{
    for (size_t i = 0; i < s->n_call; i++)
        if (!s->call[i].finished) s->call[i].started = false;
}

weft_status run_state_apply(run_state *s, const char *type, const cJSON *body, weft_error *err)
{
    bool copied = s->copied_left > 0, fork = !copied && strcmp(type, "fork") == 0;
    weft_status status = apply_event(s, type, body, err);
    if (fork) s->copied_left = weft_json_int(body, "size", 1) - 1;
    if ((fork || copied) && s->copied_left <= 0) calls_have_not_run(s);
    return status;
}

size_t run_state_forced(const run_state *s, const int32_t **out)
{
    size_t from_segments = s->n_id - s->turn_from;
    if (s->phase != RUN_TURN) return 0;
    if (from_segments > s->n_sampled) {
        *out = s->id + s->turn_from;
        return from_segments;
    }
    *out = s->sampled;
    return s->n_sampled;
}
