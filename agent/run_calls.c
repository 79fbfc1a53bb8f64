/* The calls of a turn: approval, the repeat guard, log before act, run, log the result.
 *
 * A call is durable in the trace before it runs and its result before the model sees it. A call
 * that an earlier process started and did not finish is run again only if its tool is idempotent.
 * Calls run in groups of up to --jobs; results are recorded in call order whatever the order they
 * came in.
 */
#include "agent/run.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct job {
    weft_run *run;
    size_t index;               /* of the call in the turn */
    const weft_tool_info *tool; /* NULL: unknown */
    cJSON *arguments;
    char *text; /* result that needs no running, or NULL */
    bool error, repeated, executed;
    weft_tool_result result;
    weft_status status;
    weft_error err;
    pthread_t thread;
    bool threaded;
} job;

static void call_span(const weft_run *r, size_t index, char *out, size_t size)
{
    snprintf(out, size, "turn-%lld/%zu", (long long)r->state.turns - 1, index);
}

static weft_status settle(job *j, bool error, weft_error *err, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* The call gets this text as its result without running. */
static weft_status settle(job *j, bool error, weft_error *err, const char *format, ...)
{
    weft_buffer text = WEFT_BUFFER_INIT;
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *to = n < 0 ? NULL : weft_buffer_reserve(&text, (size_t)n);
    if (to) {
        vsnprintf(to, (size_t)n + 1, format, again);
        text.size = (size_t)n;
    }
    va_end(again);
    j->text = to ? weft_buffer_take(&text) : NULL;
    j->error = error;
    weft_buffer_free(&text);
    return j->text ? WEFT_OK : weft_fail(err, WEFT_E_MEMORY, "out of memory");
}

/* Asks on the terminal. Without one, "ask" denies. */
static bool approved(weft_run *r, const run_call *c, const char **why)
{
    const char *mode = weft_option_text(r->options, OPT_APPROVE);
    const weft_tool_info *tool = weft_toolset_find(r->tools, c->name);
    const char *rule = tool ? tool->approval : "never";
    *why = "the approval policy denies it";
    if (strcmp(mode, "never") == 0 || strcmp(rule, "deny") == 0) return false;
    if (strcmp(mode, "ask") != 0 && strcmp(rule, "ask") != 0) return true;
    if (r->unattended || isatty(STDIN_FILENO) != 1 || isatty(STDERR_FILENO) != 1) {
        *why = "it needs approval and there is no terminal to ask on";
        return false;
    }
    weft_console_block(&r->console, c->name, c->arguments ? c->arguments : "", false);
    fputs("run this call? [y/N] ", stderr);
    char answer[16] = "";
    *why = "the user denied it";
    return fgets(answer, sizeof answer, stdin) && (answer[0] == 'y' || answer[0] == 'Y');
}

static weft_status record_approval(weft_run *r, size_t index, bool yes, const char *why,
                                   weft_error *err)
{
    char span[48];
    call_span(r, index, span, sizeof span);
    cJSON *body = cJSON_CreateObject();
    weft_json_add_int(body, "index", (int64_t)index);
    cJSON_AddBoolToObject(body, "approved", yes);
    if (!yes) cJSON_AddStringToObject(body, "why", why);
    return run_emit(r, "approval", span, body, WEFT_BATCHED, err);
}

/* A call that was made before to an idempotent tool gets its earlier result and a word about it. */
static weft_status guard_repeat(job *j, weft_error *err)
{
    const run_call *c = &j->run->state.call[j->index];
    char *key = run_call_key(c->name, c->arguments);
    if (!key) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    const char *earlier = run_state_recall(&j->run->state, key);
    free(key);
    if (!earlier) return WEFT_OK;
    j->repeated = true;
    /* Words that the 1.5B follows: others made it refuse, or call again; without the question it
     * answers what the repeated call was about. A long question would crowd out the results. */
    enum { QUESTION_BYTES = 600 };
    const char *question = j->run->state.question;
    bool restate = question && strlen(question) <= QUESTION_BYTES;
    const char *last = j->run->state.output;
    bool newer = last && strcmp(last, earlier) != 0;
    return settle(
        j, false, err,
        "You already made this call and its result was %s%s%s. You have every result you need. "
        "Now answer in plain words, without a call%s%s",
        earlier, newer ? "\nThe result of your last call was " : "", newer ? last : "",
        restate ? ": " : ".", restate ? question : "");
}

/* In the same transaction as the result that carries the words. */
static weft_status record_nudge(job *j, const char *span, weft_error *err)
{
    weft_run *r = j->run;
    cJSON *body = cJSON_CreateObject();
    cJSON_AddStringToObject(body, "tool", r->state.call[j->index].name);
    weft_json_add_int(body, "index", (int64_t)j->index);
    weft_json_add_int(body, "count", r->state.repeats + 1);
    return run_emit(r, "nudge", span, body, WEFT_BATCHED, err);
}

/* Decides what happens to a call before anything runs. */
static weft_status prepare(job *j, weft_error *err)
{
    weft_run *r = j->run;
    const run_call *c = &r->state.call[j->index];
    const char *why;
    weft_error local;
    j->tool = weft_toolset_find(r->tools, c->name);
    if (c->started && !(j->tool && j->tool->idempotent))
        return settle(j, true, err,
                      "outcome unknown: interrupted. The call may or may not have taken effect.");
    if (c->error || !c->arguments)
        return settle(j, true, err, "%s", c->error ? c->error : "the call has no arguments object");
    if (weft_json_parse(c->arguments, strlen(c->arguments), &j->arguments, &local))
        return settle(j, true, err, "the arguments are no JSON: %s", local.message);
    if (weft_toolset_check(r->tools, c->name, j->arguments, &local))
        return settle(j, true, err, "%s", local.message);
    weft_status status = guard_repeat(j, err);
    if (status || j->text || c->started) return status;
    bool yes = approved(r, c, &why);
    if (!yes || strcmp(j->tool->approval, "never") != 0)
        status = record_approval(r, j->index, yes, why, err);
    if (!status && !yes) status = settle(j, true, err, "the call was not run: %s", why);
    return status;
}

static weft_status record_call(job *j, weft_error *err)
{
    weft_run *r = j->run;
    const run_call *c = &r->state.call[j->index];
    char span[48], title[256];
    call_span(r, j->index, span, sizeof span);
    snprintf(title, sizeof title, "call %s", c->name);
    weft_console_block(&r->console, title, c->arguments ? c->arguments : "(malformed)", false);
    if (c->started) return WEFT_OK;
    cJSON *body = cJSON_CreateObject();
    weft_json_add_int(body, "index", (int64_t)j->index);
    cJSON_AddStringToObject(body, "tool", c->name);
    if (c->arguments) cJSON_AddStringToObject(body, "arguments", c->arguments);
    return run_emit(r, "tool.call", span, body, WEFT_DURABLE, err);
}

static void *run_job(void *context)
{
    job *j = context;
    const run_call *c = &j->run->state.call[j->index];
    bool broken = WEFT_FAULT_POINT("run.tool");
    j->status = broken ? weft_fail(&j->err, WEFT_E_SANDBOX, "fault point run.tool")
                       : weft_toolset_call(j->run->tools, c->name, j->arguments, &weft_interrupted,
                                           &j->result, &j->err);
    if (WEFT_FAULT_POINT("run.tool_done"))
        j->status = weft_fail(&j->err, WEFT_E_SANDBOX, "fault point run.tool_done");
    return NULL;
}

/* Whether this failure is the one before over again: same call, same text. */
static bool fails_again(const job *j, const char *text)
{
    const run_state *s = &j->run->state;
    const run_call *c = &s->call[j->index];
    char *key = run_call_key(c->name, c->arguments);
    bool again = key && s->last_key && strcmp(key, s->last_key) == 0 &&
                 strncmp(s->last_result, text, strlen(text)) == 0;
    free(key);
    return again;
}

static void add_text(cJSON *body, const job *j, const char *text, bool error)
{
    weft_buffer words = WEFT_BUFFER_INIT;
    weft_buffer_puts(&words, text);
    if (error && fails_again(j, text))
        weft_buffer_puts(
            &words,
            "\nThe same call failed in the same way before: write it differently, or answer "
            "in plain words.");
    cJSON_AddStringToObject(body, "text", weft_buffer_str(&words));
    weft_buffer_free(&words);
}

static weft_status record_result(job *j, weft_error *err)
{
    weft_run *r = j->run;
    const run_call *c = &r->state.call[j->index];
    const weft_tool_result *t = &j->result;
    const char *text = j->executed ? t->text : j->text;
    bool error = j->executed ? t->error : j->error;
    char span[48], hex[WEFT_DIGEST_HEX_BYTES], title[256];
    uint8_t digest[WEFT_DIGEST_BYTES];
    weft_status status = WEFT_OK;
    call_span(r, j->index, span, sizeof span);
    cJSON *body = cJSON_CreateObject();
    weft_json_add_int(body, "index", (int64_t)j->index);
    cJSON_AddStringToObject(body, "tool", c->name);
    add_text(body, j, text, error);
    cJSON_AddBoolToObject(body, "error", error);
    if (j->repeated) cJSON_AddTrueToObject(body, "repeated");
    if (j->executed) {
        cJSON_AddTrueToObject(body, "executed");
        cJSON_AddBoolToObject(body, "idempotent", j->tool->idempotent);
        weft_json_add_int(body, "bytes", (int64_t)t->full_bytes);
        cJSON_AddStringToObject(body, "sha256", weft_hex(t->full_sha256, WEFT_DIGEST_BYTES, hex));
        if (t->facts) cJSON_AddItemToObject(body, "facts", cJSON_Duplicate(t->facts, true));
        if (t->stderr_text) cJSON_AddStringToObject(body, "stderr", t->stderr_text);
        if (t->full) {
            status = weft_trace_put_blob(r->trace, t->full, t->n_full, digest, err);
            cJSON_AddStringToObject(body, "full", weft_hex(digest, WEFT_DIGEST_BYTES, hex));
        }
    }
    run_add_counters(r, body);
    snprintf(title, sizeof title, "%s of %s", error ? "error" : "result", c->name);
    weft_console_block(&r->console, title, text, error);
    if (!status && j->repeated) status = record_nudge(j, span, err);
    if (status) {
        cJSON_Delete(body);
        return status;
    }
    status = run_emit(r, "tool.result", span, body, WEFT_DURABLE, err);
    if (!status && r->limits.repeats && r->state.repeats > r->limits.repeats)
        status = run_limit(r, "repeats", r->limits.repeats, err);
    return status;
}

static void job_free(job *j)
{
    cJSON_Delete(j->arguments);
    free(j->text);
    weft_tool_result_free(&j->result);
}

/* Runs the calls [0, n) of jobs side by side. */
static weft_status run_group(job *jobs, size_t n, weft_error *err)
{
    weft_status status = WEFT_OK;
    size_t begun = 0;
    for (; begun < n && !status; begun++) {
        status = prepare(&jobs[begun], err);
        if (!status) status = record_call(&jobs[begun], err);
    }
    for (size_t i = 0; i < n && !status; i++) {
        job *j = &jobs[i];
        if (j->text) continue;
        j->executed = true;
        j->threaded = n > 1 && pthread_create(&j->thread, NULL, run_job, j) == 0;
        if (!j->threaded) run_job(j);
    }
    for (size_t i = 0; i < n; i++)
        if (jobs[i].threaded) pthread_join(jobs[i].thread, NULL);
    for (size_t i = 0; i < n && !status; i++) {
        if (jobs[i].executed && jobs[i].status) {
            *err = jobs[i].err;
            status = jobs[i].status;
        } else {
            status = record_result(&jobs[i], err);
        }
    }
    return status;
}

weft_status run_calls(weft_run *r, weft_error *err)
{
    int64_t at_once = weft_json_int(r->state.begin, "jobs", 1);
    size_t width = at_once < 1 ? 1 : at_once > 64 ? 64 : (size_t)at_once;
    weft_status status = WEFT_OK;
    job *jobs = calloc(width, sizeof *jobs);
    if (!jobs) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    while (!status && r->state.phase == RUN_CALLS) {
        size_t n = 0;
        if (weft_interrupted) {
            status =
                weft_fail(err, WEFT_E_INTERRUPTED, "interrupted: go on with weft resume %s", r->id);
            break;
        }
        for (size_t i = 0; i < r->state.n_call && n < width; i++)
            if (!r->state.call[i].finished) jobs[n++] = (job){.run = r, .index = i};
        if (r->limits.tool_calls && r->state.calls >= r->limits.tool_calls) {
            status = run_limit(r, "tool_calls", r->limits.tool_calls, err);
            break;
        }
        status = run_group(jobs, n, err);
        for (size_t i = 0; i < n; i++) job_free(&jobs[i]);
    }
    free(jobs);
    return status;
}

/* Why a call could not be run as it stands, "" if it could. */
static void call_fault(const weft_run *r, const run_call *c, weft_error *why)
{
    cJSON *arguments = NULL;
    why->message[0] = '\0';
    if (c->error || !c->arguments) {
        weft_fail(why, WEFT_E_INVALID, "%s",
                  c->error ? c->error : "the call has no arguments object");
    } else if (!weft_json_parse(c->arguments, strlen(c->arguments), &arguments, why)) {
        for (size_t i = 0; i < r->n_offered; i++)
            if (strcmp(r->offered[i].name, c->name) == 0 && r->offered[i].schema)
                weft_schema_check(r->offered[i].schema, arguments, why);
    }
    cJSON_Delete(arguments);
}

weft_status run_print_calls(weft_run *r, weft_error *err)
{
    for (size_t i = 0; i < r->state.n_call; i++) {
        const run_call *c = &r->state.call[i];
        weft_error why;
        cJSON *body = cJSON_CreateObject();
        weft_buffer text = WEFT_BUFFER_INIT;
        char span[48];
        call_span(r, i, span, sizeof span);
        weft_json_add_int(body, "index", (int64_t)i);
        cJSON_AddStringToObject(body, "tool", c->name);
        if (c->arguments) cJSON_AddStringToObject(body, "arguments", c->arguments);
        call_fault(r, c, &why);
        if (*why.message) cJSON_AddStringToObject(body, "error", why.message);
        if (!r->json) {
            weft_json_compact(body, &text);
            printf("%s\n", weft_buffer_str(&text));
        }
        weft_buffer_free(&text);
        weft_status status = run_emit(r, "tool.call", span, body, WEFT_BATCHED, err);
        if (status) return status;
    }
    return WEFT_OK;
}
