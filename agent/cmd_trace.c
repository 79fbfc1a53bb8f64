/* `weft trace list|show|stats`: reading what runs recorded. */
#include "agent/commands.h"
#include "agent/console.h"
#include "agent/run_state.h"
#include "traces/trace.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

typedef struct summary {
    run_state state;
    int64_t events, prefill_ns, decode_ns, tool_ns, processes, nudges;
    int64_t drafted, accepted;
    char begun[40], reason[32];
    weft_status status;
    weft_error *err;
} summary;

static void take_text(char *to, size_t size, const char *text)
{
    snprintf(to, size, "%s", text ? text : "");
}

static bool summarise(void *context, const weft_event *event)
{
    summary *s = context;
    cJSON *body = NULL;
    bool copied = s->state.copied_left > 0; /* what it tells of time is the parent's */
    s->events++;
    if (!event->body) return true; /* redacted: counted, not read */
    s->status = weft_json_parse(event->body, event->body_size, &body, s->err);
    if (!s->status) s->status = run_state_apply(&s->state, event->type, body, s->err);
    if (strcmp(event->type, "run.begin") == 0) {
        take_text(s->begun, sizeof s->begun, event->ts);
        s->processes = 1;
    } else if (strcmp(event->type, "fork") == 0 && !copied) {
        s->processes = 0; /* the one that made the fork says so with a resume */
    } else if (strcmp(event->type, "resume") == 0) {
        s->processes += !copied;
        s->reason[0] = '\0';
    } else if (strcmp(event->type, "turn") == 0 && !copied) {
        s->prefill_ns += weft_json_int(body, "prefill_ns", 0);
        s->decode_ns += weft_json_int(body, "decode_ns", 0);
        s->drafted += weft_json_int(body, "drafted", 0);
        s->accepted += weft_json_int(body, "accepted", 0);
    } else if (strcmp(event->type, "tool.result") == 0 && !copied) {
        s->tool_ns += weft_json_int(cJSON_GetObjectItemCaseSensitive(body, "facts"), "wall_ns", 0);
    } else if (strcmp(event->type, "nudge") == 0) {
        s->nudges++;
    } else if (strcmp(event->type, "run.end") == 0) {
        take_text(s->reason, sizeof s->reason, weft_json_string(body, "reason"));
    }
    cJSON_Delete(body);
    return !s->status;
}

static weft_status read_summary(const char *path, summary *s, weft_error *err)
{
    weft_trace *trace = NULL;
    weft_error late;
    memset(s, 0, sizeof *s);
    s->err = err;
    weft_status status = weft_trace_open(&trace, path, false, err);
    if (!status) status = weft_trace_each(trace, 0, summarise, s, err);
    if (!status) status = s->status;
    weft_trace_close(trace, &late);
    return status;
}

static const char *state_word(const summary *s)
{
    return s->state.ended && *s->reason ? s->reason : "open";
}

static weft_status list_one(const weft_options *o, const char *id, const char *path,
                            weft_error *err)
{
    summary s;
    weft_error why;
    weft_status status = read_summary(path, &s, &why);
    const char *task = s.state.begin ? weft_json_string(s.state.begin, "task") : NULL;
    if (!task) task = status ? why.message : "";
    if (weft_option_flag(o, OPT_JSON)) {
        cJSON *line = cJSON_CreateObject();
        cJSON_AddStringToObject(line, "run", id);
        cJSON_AddStringToObject(line, "state", status ? "unreadable" : state_word(&s));
        weft_json_add_int(line, "events", s.events);
        weft_json_add_int(line, "turns", s.state.turns);
        weft_json_add_int(line, "calls", s.state.calls);
        cJSON_AddStringToObject(line, status ? "error" : "task", task);
        status = print_json(line, err);
    } else {
        weft_buffer shown = WEFT_BUFFER_INIT;
        char *first = strndup(task, strcspn(task, "\n"));
        if (first) weft_console_escape(first, &shown);
        printf("%-24s %-12s %4lld turns %4lld calls  %.60s\n", id,
               status ? "unreadable" : state_word(&s), (long long)s.state.turns,
               (long long)s.state.calls, weft_buffer_str(&shown));
        weft_buffer_free(&shown);
        free(first);
        status = WEFT_OK;
    }
    run_state_free(&s.state);
    return status;
}

weft_status cmd_trace_list(const weft_options *o, int *exit_code, weft_error *err)
{
    char *dir = NULL;
    struct dirent **entry = NULL;
    weft_status status = runs_dir(&dir, err);
    if (status) return status;
    int n = scandir(dir, &entry, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        char *run = entry[i]->d_name[0] == '.' ? NULL : weft_path_join(dir, entry[i]->d_name);
        char *db = run ? weft_path_join(run, "trace.db") : NULL;
        if (!status && db && weft_file_exists(db)) status = list_one(o, entry[i]->d_name, run, err);
        free(db);
        free(run);
        free(entry[i]);
    }
    free(entry);
    free(dir);
    return status;
}

/* ---- show ---- */

static void print_text(const char *label, const char *text)
{
    weft_buffer safe = WEFT_BUFFER_INIT;
    weft_console_escape(text ? text : "", &safe);
    printf("[%s]\n%s%s", label, weft_buffer_str(&safe),
           safe.size && safe.data[safe.size - 1] == '\n' ? "" : "\n");
    weft_buffer_free(&safe);
}

static void print_call(const cJSON *body, const char *type)
{
    char label[160];
    const char *tool = weft_json_string(body, "tool");
    bool result = strcmp(type, "tool.result") == 0;
    snprintf(label, sizeof label, "%s %s",
             result ? weft_json_bool(body, "error", false) ? "error of" : "result of" : "call",
             tool ? tool : "?");
    const char *text = weft_json_string(body, result ? "text" : "arguments");
    print_text(label, text ? text : weft_json_string(body, "error"));
}

static void print_event(const weft_event *event, const cJSON *body)
{
    static const char *const quiet[] = {"kv", "turn"};
    for (size_t i = 0; i < sizeof quiet / sizeof *quiet; i++)
        if (strcmp(event->type, quiet[i]) == 0) return;
    if (!body) {
        printf("[%s]\n(redacted)\n", event->type);
    } else if (strcmp(event->type, "run.begin") == 0) {
        print_text("task", weft_json_string(body, "task"));
    } else if (strcmp(event->type, "segment") == 0) {
        const char *kind = weft_json_string(body, "kind");
        /* calls and results are printed once, from their own events */
        if (kind && strcmp(kind, "call") != 0 && strcmp(kind, "result") != 0)
            print_text(kind, weft_json_string(body, "text"));
    } else if (strncmp(event->type, "tool.", 5) == 0) {
        print_call(body, event->type);
    } else if (strcmp(event->type, "compact") == 0) {
        printf("[compact]\n%s: %lld tokens dropped, the first %lld stay as they are\n",
               weft_json_string(body, "policy") ? weft_json_string(body, "policy") : "?",
               (long long)weft_json_int(body, "dropped", 0), (long long)weft_json_int(body, "kept", 0));
    } else if (strcmp(event->type, "run.end") == 0) {
        print_text("end", weft_json_string(body, "reason"));
    } else {
        weft_buffer text = WEFT_BUFFER_INIT;
        weft_json_compact(body, &text);
        print_text(event->type, weft_buffer_str(&text));
        weft_buffer_free(&text);
    }
}

static bool show_event(void *context, const weft_event *event)
{
    const bool *json = context;
    if (*json) {
        printf("{\"body\":%s,\"seq\":%lld,\"span\":\"%s\",\"ts\":\"%s\",\"type\":\"%s\"}\n",
               event->body ? event->body : "null", (long long)event->seq, event->span, event->ts,
               event->type);
        return true;
    }
    cJSON *body = NULL;
    if (event->body) weft_json_parse(event->body, event->body_size, &body, NULL);
    print_event(event, body);
    cJSON_Delete(body);
    return true;
}

static weft_status open_named(const weft_options *o, weft_trace **out, char **path, weft_error *err)
{
    const char *name = o->n_argument ? o->argument[0] : NULL;
    weft_status status = find_run(name, weft_option_flag(o, OPT_LAST), path, err);
    return status ? status : weft_trace_open(out, *path, false, err);
}

weft_status cmd_trace_show(const weft_options *o, int *exit_code, weft_error *err)
{
    weft_trace *trace = NULL;
    char *path = NULL;
    bool json = weft_option_flag(o, OPT_JSON);
    weft_error late;
    weft_status status = open_named(o, &trace, &path, err);
    if (!status) status = weft_trace_each(trace, 0, show_event, &json, err);
    weft_trace_close(trace, &late);
    free(path);
    return status;
}

static double seconds(int64_t ns)
{
    return (double)ns / 1e9;
}

/* Ids on the timeline, those of a turn in progress too. */
static size_t timeline_length(const run_state *r)
{
    const int32_t *sampled = NULL;
    return r->phase == RUN_TURN ? r->turn_from + run_state_forced(r, &sampled) : r->n_id;
}

weft_status cmd_trace_stats(const weft_options *o, int *exit_code, weft_error *err)
{
    const char *name = o->n_argument ? o->argument[0] : NULL;
    char *path = NULL;
    summary s;
    weft_status status = find_run(name, weft_option_flag(o, OPT_LAST), &path, err);
    if (status) return status;
    status = read_summary(path, &s, err);
    free(path);
    if (!status) {
        const run_state *r = &s.state;
        cJSON *line = cJSON_CreateObject();
        cJSON_AddStringToObject(line, "state", state_word(&s));
        weft_json_add_int(line, "events", s.events);
        weft_json_add_int(line, "processes", s.processes);
        weft_json_add_int(line, "length", (int64_t)timeline_length(r));
        weft_json_add_int(line, "evaluated", r->evaluated);
        weft_json_add_int(line, "shared", r->shared);
        weft_json_add_int(line, "sampled", r->sampled_total);
        weft_json_add_int(line, "drafted", s.drafted);
        weft_json_add_int(line, "accepted", s.accepted);
        weft_json_add_int(line, "turns", r->turns);
        weft_json_add_int(line, "calls", r->calls);
        weft_json_add_int(line, "nudges", s.nudges);
        cJSON *time = cJSON_AddObjectToObject(line, "seconds");
        cJSON_AddNumberToObject(time, "total", seconds(r->elapsed_ns));
        cJSON_AddNumberToObject(time, "prefill", seconds(s.prefill_ns));
        cJSON_AddNumberToObject(time, "decode", seconds(s.decode_ns));
        cJSON_AddNumberToObject(time, "tools", seconds(s.tool_ns));
        if (weft_option_flag(o, OPT_JSON)) {
            status = print_json(line, err);
        } else {
            printf("state              %s\nevents             %lld\nprocesses          %lld\n"
                   "timeline           %lld tokens\nevaluated          %lld tokens\n"
                   "shared             %lld tokens, evaluated by other runs\n"
                   "sampled            %lld tokens\n"
                   "drafted            %lld tokens, %lld accepted\n"
                   "turns              %lld\ncalls              %lld\n"
                   "seconds            %.1f: prefill %.1f, decode %.1f, tools %.1f\n",
                   state_word(&s), (long long)s.events, (long long)s.processes,
                   (long long)timeline_length(r), (long long)r->evaluated, (long long)r->shared,
                   (long long)r->sampled_total, (long long)s.drafted, (long long)s.accepted,
                   (long long)r->turns, (long long)r->calls,
                   seconds(r->elapsed_ns), seconds(s.prefill_ns), seconds(s.decode_ns),
                   seconds(s.tool_ns));
            cJSON_Delete(line);
        }
    }
    run_state_free(&s.state);
    return status;
}
