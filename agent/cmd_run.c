/* `weft run` and `weft resume`, and what `weft fork` shares with them. */
#include "agent/commands.h"
#include "agent/models.h"
#include "agent/run.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static bool stdin_has_input(void)
{
    struct stat st;
    if (isatty(STDIN_FILENO) || fstat(STDIN_FILENO, &st) != 0) return false;
    if (S_ISREG(st.st_mode)) return true;
    /* a pipe that nobody feeds must not hold the run up for ever: look whether it is one at all */
    struct pollfd p = {STDIN_FILENO, POLLIN, 0};
    return (S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode)) && poll(&p, 1, 1000) > 0;
}

/* The task's text: argument, file or standard input; input beside an argument is attached. */
static weft_status read_task(const weft_options *o, weft_buffer *task, weft_error *err)
{
    const char *file = o->value[OPT_FILE].text, *word = o->n_argument ? o->argument[0] : NULL;
    enum { TASK_MAX = 8 << 20 };
    weft_status status = WEFT_OK;
    if (o->n_argument > 1)
        return weft_fail(err, WEFT_E_USAGE, "run: one TASK is expected: put it in quotes");
    if (word && file) return weft_fail(err, WEFT_E_USAGE, "run: a TASK or -f FILE, not both");
    if (!word && !file && isatty(STDIN_FILENO))
        return weft_fail(err, WEFT_E_USAGE,
                         "run: a task is missing: weft run \"TASK\", or -f FILE");
    bool from_input = (word && strcmp(word, "-") == 0) || (!word && !file);
    if (file)
        status = weft_file_read(file, TASK_MAX, task, err);
    else if (from_input)
        status = weft_file_read("-", TASK_MAX, task, err);
    else
        weft_buffer_puts(task, word);
    if (!status && !from_input && !(file && strcmp(file, "-") == 0) && stdin_has_input()) {
        weft_buffer input = WEFT_BUFFER_INIT;
        status = weft_file_read("-", TASK_MAX, &input, err);
        if (!status && input.size)
            weft_buffer_printf(task, "\n\n<stdin>\n%s\n</stdin>", input.data);
        weft_buffer_free(&input);
    }
    if (!status) status = weft_buffer_ok(task, err);
    if (!status && weft_utf8_valid(weft_buffer_str(task), task->size) < task->size)
        status = weft_fail(err, WEFT_E_CONFIG, "the task is no valid UTF-8 text: convert it first");
    if (!status && strlen(weft_buffer_str(task)) != task->size)
        status = weft_fail(err, WEFT_E_CONFIG, "the task holds a NUL byte: give text");
    if (!status && strspn(weft_buffer_str(task), " \t\r\n") == task->size)
        status = weft_fail(err, WEFT_E_USAGE, "the task is empty");
    return status;
}

static weft_status make_id(const weft_options *o, char **out, weft_error *err)
{
    const char *given = weft_option_text(o, OPT_RUN_ID);
    char text[64];
    if (*given) {
        if (strlen(given) > 64 ||
            strspn(given, "abcdefghijklmnopqrstuvwxyz0123456789-") != strlen(given))
            return weft_fail(err, WEFT_E_USAGE,
                             "--run-id \"%s\": up to 64 of a-z, 0-9 and - are allowed", given);
        *out = strdup(given);
    } else {
        time_t now = time(NULL);
        struct tm utc;
        uint16_t salt;
        gmtime_r(&now, &utc);
        weft_random(&salt, sizeof salt);
        size_t n = strftime(text, sizeof text, "%Y%m%d-%H%M%S", &utc);
        snprintf(text + n, sizeof text - n, "-%04x", salt);
        *out = strdup(text);
    }
    return *out ? WEFT_OK : weft_fail(err, WEFT_E_MEMORY, "out of memory");
}

static void on_event(void *context, int64_t seq, const char *type, const char *line)
{
    printf("%s\n", line);
    fflush(stdout);
}

void run_print_events(weft_run *r)
{
    if (r->json) weft_trace_set_tap(r->trace, on_event, r);
}

void run_open_console(weft_run *r, const weft_options *o)
{
    r->options = o;
    r->json = weft_option_flag(o, OPT_JSON);
    r->deltas = r->json && weft_option_flag(o, OPT_DELTAS);
    r->started_ns = weft_monotonic_ns();
    weft_console_init(&r->console, weft_option_flag(o, OPT_QUIET) || r->json,
                      weft_option_text(o, OPT_COLOR));
    run_catch_signals();
}

weft_status run_make_directories(weft_run *r, weft_error *err)
{
    char *dir = NULL;
    weft_status status = make_id(r->options, &r->id, err);
    if (!status) status = runs_dir(&dir, err);
    if (status) return status;
    char *own = weft_path_join(dir, r->id);
    free(dir);
    if (!own) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    if (weft_file_exists(own)) {
        free(own);
        return weft_fail(err, WEFT_E_USAGE,
                         "--run-id %s: there is such a run already: weft resume %s", r->id, r->id);
    }
    r->dir = own; /* ours from here on: whoever fails removes it */
    const char *given = weft_option_text(r->options, OPT_WORKDIR);
    status = weft_mkdirs(r->dir, err);
    if (status) return status;
    r->workspace = *given ? realpath(given, NULL) : weft_path_join(r->dir, "work");
    if (!r->workspace) return weft_fail_errno(err, WEFT_E_CONFIG, "--workdir %s", given);
    return *given ? WEFT_OK : weft_mkdirs(r->workspace, err);
}

static weft_status write_answer(const weft_run *r, weft_error *err)
{
    const char *answer = r->state.answer ? r->state.answer : "",
               *path = weft_option_text(r->options, OPT_OUTPUT);
    size_t n = strlen(answer);
    if (!r->json && !weft_option_flag(r->options, OPT_NO_EXEC)) {
        printf("%s%s", answer, n && answer[n - 1] == '\n' ? "" : "\n");
        if (fflush(stdout) != 0) return weft_fail_errno(err, WEFT_E_STORAGE, "write the answer");
    }
    return *path ? weft_file_write(path, answer, n, 0644, err) : WEFT_OK;
}

static void closing_line(weft_run *r)
{
    const run_state *s = &r->state;
    double seconds = (double)(weft_monotonic_ns() - r->started_ns) / 1e9;
    if (!r->timeline) return;
    weft_console_line(
        &r->console,
        "run %s: %lld turns, %lld calls, %lld tokens (%lld sampled), %.1f s, %.1f tokens/s", r->id,
        (long long)s->turns, (long long)s->calls, (long long)weft_timeline_length(r->timeline),
        (long long)s->sampled_total, seconds, seconds > 0 ? (double)s->sampled_total / seconds : 0);
}

weft_status run_go(weft_run *r, int *exit_code, weft_error *err)
{
    weft_status status = run_loop(r, err);
    weft_console_break(&r->console);
    if (!status) status = write_answer(r, err);
    if (status == WEFT_E_INTERRUPTED) *exit_code = 128 + weft_interrupted;
    closing_line(r);
    return status;
}

weft_status cmd_run(const weft_options *o, int *exit_code, weft_error *err)
{
    weft_run r = {0};
    weft_buffer task = WEFT_BUFFER_INIT;
    run_open_console(&r, o);
    weft_status status = read_task(o, &task, err);
    if (!status) status = run_make_directories(&r, err);
    if (!status) status = run_attach(o->list[OPT_ATTACH], r.workspace, &task, err);
    if (!status) status = run_start_launcher(&r, err);
    if (!status) status = run_open_tools(&r, NULL, err);
    if (!status) status = run_open_model(&r, NULL, err);
    if (!status) status = run_create(&r, weft_buffer_str(&task), r.json ? on_event : NULL, err);
    if (status && r.dir && !r.trace)
        weft_remove_tree(r.dir, NULL); /* nothing has happened: leave nothing */
    if (!status) status = run_go(&r, exit_code, err);
    weft_buffer_free(&task);
    return run_finish(&r, status, err);
}

weft_status run_arguments(const weft_options *o, const char *verb, const char **run,
                          const char **task, weft_error *err)
{
    bool last = weft_option_flag(o, OPT_LAST);
    size_t n = o->n_argument, at = last ? 0 : 1;
    if (!last && n == 0)
        return weft_fail(err, WEFT_E_USAGE, "%s: name a run, or --last: see weft trace list", verb);
    if (n > at + 1)
        return weft_fail(err, WEFT_E_USAGE, "%s: too many words: put the TASK in quotes", verb);
    *run = last ? NULL : o->argument[0];
    *task = n > at ? o->argument[at] : NULL;
    return WEFT_OK;
}

weft_status cmd_resume(const weft_options *o, int *exit_code, weft_error *err)
{
    weft_run r = {0};
    const char *name = NULL, *task = NULL;
    run_open_console(&r, o);
    weft_status status = run_arguments(o, "resume", &name, &task, err);
    if (!status) status = run_start_launcher(&r, err);
    if (!status) status = find_run(name, weft_option_flag(o, OPT_LAST), &r.dir, err);
    if (!status) status = run_read_trace(&r, true, err);
    const cJSON *begin = r.state.begin;
    if (!status && r.state.phase == RUN_ANSWERED && r.state.ended && !task) {
        weft_console_line(&r.console, "run %s has its answer; give a TASK to go on", r.id);
        status = write_answer(&r, err);
    } else if (!status) {
        status = run_open_tools(&r, begin, err);
        if (!status) status = run_open_model(&r, begin, err);
        if (!status) status = run_reopen(&r, task, r.json ? on_event : NULL, err);
        if (!status) status = run_go(&r, exit_code, err);
    }
    return run_finish(&r, status, err);
}
