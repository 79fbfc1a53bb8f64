/* Calls side by side, calls cut short, and processes of the sandbox that die in the middle. */
#include "tests/sandbox/harness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* --- side by side ----------------------------------------------------------------------------- */

enum { THREADS = 6, CALLS = 4 };

typedef struct caller {
    fixture *f;
    int number, wrong;
} caller;

static void *call_repeatedly(void *argument)
{
    caller *c = argument;
    for (int i = 0; i < CALLS; i++) {
        prepared p;
        weft_sandbox_result r;
        weft_error err;
        char script[96], expected[32], input[16];
        snprintf(script, sizeof script, "read x; echo %d-%d-$x; exit %d", c->number, i, c->number);
        snprintf(expected, sizeof expected, "%d-%d-in%d\n", c->number, i, c->number);
        snprintf(input, sizeof input, "in%d\n", c->number);
        prepare_shell(&p, script);
        p.request.stdin_bytes = input;
        p.request.stdin_size = strlen(input);
        if (weft_sandbox_run(c->f->launcher, &p.request, NULL, &r, &err)) {
            c->wrong++;
            continue;
        }
        c->wrong += strcmp(r.out.kept, expected) != 0 || r.exit_status != c->number;
        weft_sandbox_result_free(&r);
    }
    return NULL;
}

static void threads_call_side_by_side(void **state)
{
    pthread_t threads[THREADS];
    caller callers[THREADS];
    for (int i = 0; i < THREADS; i++) {
        callers[i] = (caller){*state, i + 1, 0};
        assert_int_equal(pthread_create(&threads[i], NULL, call_repeatedly, &callers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(callers[i].wrong, 0);
    }
}

/* Two calls that can only end if they run at the same time: each waits for the other's file. */
static void *wait_for_other(void *argument)
{
    caller *c = argument;
    prepared p;
    weft_sandbox_result r;
    weft_error err;
    char script[128];
    snprintf(script, sizeof script,
             "touch me%d; while ! test -e me%d; do sleep 0.01; done; echo met", c->number,
             1 - c->number);
    prepare_shell(&p, script);
    p.request.workdir = c->f->work;
    c->wrong = 1;
    if (weft_sandbox_run(c->f->launcher, &p.request, NULL, &r, &err) == WEFT_OK) {
        c->wrong = strcmp(r.out.kept, "met\n") != 0;
        weft_sandbox_result_free(&r);
    }
    return NULL;
}

static void calls_really_overlap(void **state)
{
    caller callers[2] = {{*state, 0, 0}, {*state, 1, 0}};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, wait_for_other, &callers[0]), 0);
    wait_for_other(&callers[1]);
    pthread_join(thread, NULL);
    assert_int_equal(callers[0].wrong + callers[1].wrong, 0);
    assert_shell(*state, "ls /proc | grep -c '^[0-9]'", "3\n"); /* sh, ls, grep: nobody else */
}

/* --- cut short -------------------------------------------------------------------------------- */

/* Does something once the deaf workload's daemon is alive on the host. */
typedef struct trigger {
    const char *token;
    atomic_int *cancel; /* set to 1 */
    pid_t victim;         /* or killed */
    bool worker, init;    /* or those of the call killed */
} trigger;

static void *trigger_run(void *argument)
{
    trigger *t = argument;
    for (int tries = 0; tries < 2000 && survivors(t->token) == 0; tries++) poll(NULL, 0, 10);
    if (t->cancel) *t->cancel = 1;
    pid_t victim = t->worker ? worker_of(t->token) : t->init ? init_of(t->token) : t->victim;
    if (victim > 0) kill(victim, SIGKILL);
    return NULL;
}

/* Runs the deaf workload until the trigger ends it. */
static weft_status run_until(fixture *f, weft_launcher *launcher, trigger *t,
                             weft_sandbox_result *r, weft_error *err)
{
    pthread_t thread;
    prepared p;
    prepare_probe(&p, "stop", f->token);
    p.request.limits.wall_ms = 600000;
    t->token = f->token;
    assert_int_equal(pthread_create(&thread, NULL, trigger_run, t), 0);
    weft_status status = weft_sandbox_run(launcher, &p.request, t->cancel, r, err);
    pthread_join(thread, NULL);
    return status;
}

static void cancel_kills_everything(void **state)
{
    fixture *f = *state;
    atomic_int cancel = 0;
    trigger t = {.cancel = &cancel};
    weft_sandbox_result r;
    weft_error err;
    assert_int_equal(run_until(f, f->launcher, &t, &r, &err), WEFT_OK);
    assert_int_equal(r.hit, WEFT_HIT_CANCELLED);
    assert_int_equal(r.signal, SIGKILL);
    assert_true(all_gone(f->token));
    weft_sandbox_result_free(&r);
    /* Set before the call: it ends as well. */
    prepared p;
    prepare_shell(&p, "sleep 600");
    p.request.limits.wall_ms = 600000;
    assert_int_equal(weft_sandbox_run(f->launcher, &p.request, &cancel, &r, &err), WEFT_OK);
    assert_int_equal(r.hit, WEFT_HIT_CANCELLED);
    weft_sandbox_result_free(&r);
}

static void a_killed_launcher_is_an_error_and_no_hang(void **state)
{
    fixture *f = *state;
    weft_launcher_stop(f->launcher); /* so that there is one of its name */
    weft_error err = {0};
    weft_sandbox_result r;
    prepared p;
    assert_int_equal(weft_launcher_start(&f->launcher, &err), WEFT_OK);
    trigger t = {.victim = launcher_pid()};
    assert_int_equal(run_until(f, f->launcher, &t, &r, &err), WEFT_E_SANDBOX);
    assert_non_null(strstr(err.message, "killed"));
    assert_true(all_gone(f->token));
    prepare_shell(&p, "true");
    assert_int_equal(weft_sandbox_run(f->launcher, &p.request, NULL, &r, &err), WEFT_E_SANDBOX);
    char *json;
    assert_int_equal(weft_sandbox_check(f->launcher, &json, &err), WEFT_E_SANDBOX);
    weft_launcher_stop(f->launcher);
    assert_int_equal(weft_launcher_start(&f->launcher, &err), WEFT_OK);
}

static void a_killed_worker_costs_its_call_only(void **state)
{
    fixture *f = *state;
    weft_error err = {0};
    weft_sandbox_result r;
    trigger t = {.worker = true};
    assert_int_equal(run_until(f, f->launcher, &t, &r, &err), WEFT_E_SANDBOX);
    assert_true(all_gone(f->token));
    for (int i = 0; i < 6; i++) assert_shell(f, "echo again", "again\n");
}

static void a_killed_init_is_an_error(void **state)
{
    fixture *f = *state;
    weft_error err = {0};
    weft_sandbox_result r;
    trigger t = {.init = true};
    assert_int_equal(run_until(f, f->launcher, &t, &r, &err), WEFT_E_SANDBOX);
    assert_non_null(strstr(err.message, "init was killed"));
    assert_true(all_gone(f->token));
    assert_shell(f, "echo again", "again\n");
}

/* --- with weft's own end ---------------------------------------------------------------------- */

static bool ended(pid_t pid)
{
    for (int tries = 0; tries < 500; tries++) {
        if (kill(pid, 0) != 0) return true;
        poll(NULL, 0, 10);
    }
    return false;
}

static void the_launcher_dies_with_its_parent(void **state)
{
    fixture *f = *state;
    int ends[2];
    pid_t launcher;
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    pid_t child = fork();
    if (child == 0) {
        weft_launcher *l;
        weft_error err;
        weft_sandbox_result r;
        prepared p;
        if (weft_launcher_start(&l, &err)) _exit(1);
        launcher = launcher_pid();
        if (write(ends[1], &launcher, sizeof launcher) != sizeof launcher) _exit(1);
        prepare_probe(&p, "stop", f->token);
        p.request.limits.wall_ms = 600000;
        weft_sandbox_run(l, &p.request, NULL, &r, &err);
        _exit(0);
    }
    assert_int_equal(read(ends[0], &launcher, sizeof launcher), sizeof launcher);
    for (int tries = 0; tries < 2000 && survivors(f->token) == 0; tries++) poll(NULL, 0, 10);
    assert_true(survivors(f->token) > 0);
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, NULL, 0), child);
    close(ends[0]);
    close(ends[1]);
    assert_true(ended(launcher));
    assert_true(all_gone(f->token));
}

/* Processes whose parent is this one. */
static int children_of(pid_t pid)
{
    char path[64], text[1024] = "";
    int n = 0;
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)pid, (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_true(read(fd, text, sizeof text - 1) >= 0);
    close(fd);
    for (const char *p = text; (p = strchr(p, ' ')); p++) n++;
    return n;
}

/* While a model is loaded there is one worker; others get ready once calls are made. */
static void workers_come_with_calls(void **state)
{
    fixture *f = *state;
    weft_error err;
    weft_launcher_stop(f->launcher);
    assert_int_equal(weft_launcher_start(&f->launcher, &err), WEFT_OK);
    char *json = NULL;
    assert_int_equal(weft_sandbox_check(f->launcher, &json, &err), WEFT_OK);
    free(json);
    poll(NULL, 0, 300);
    assert_int_equal(children_of(launcher_pid()), 1);
    assert_shell(f, "echo first", "first\n");
    for (int tries = 0; tries < 500 && children_of(launcher_pid()) < 4; tries++) poll(NULL, 0, 10);
    assert_int_equal(children_of(launcher_pid()), 4);
}

static int read_all(const char *pid, const char *name, char *text, size_t n)
{
    char path[300];
    snprintf(path, sizeof path, "/proc/%s/%s", pid, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, text, n - 1);
    if (fd >= 0) close(fd);
    text[got > 0 ? got : 0] = '\0';
    return (int)got;
}

static void the_launcher_holds_no_secret(void **state)
{
    fixture *f = *state;
    weft_error err;
    weft_launcher_stop(f->launcher);
    int extra = open("/etc/passwd", O_RDONLY); /* without close-on-exec */
    assert_int_equal(weft_launcher_start(&f->launcher, &err), WEFT_OK);
    char *json = NULL;
    assert_int_equal(weft_sandbox_check(f->launcher, &json, &err), WEFT_OK); /* it is up */
    free(json);
    char pid[16], text[8192], path[64];
    snprintf(pid, sizeof pid, "%d", (int)launcher_pid());
    assert_true(read_all(pid, "environ", text, sizeof text) >= 0);
    for (size_t i = 0; i < sizeof text && text[i]; i++) assert_int_equal(text[i], 0);
    snprintf(path, sizeof path, "/proc/%s/fd", pid);
    DIR *d = opendir(path);
    assert_non_null(d);
    for (struct dirent *entry; (entry = readdir(d));) {
        char target[256];
        ssize_t n = readlinkat(dirfd(d), entry->d_name, target, sizeof target - 1);
        if (n <= 0) continue;
        target[n] = '\0';
        if (strcmp(target, "/dev/null") != 0 && strncmp(target, "socket:", 7) != 0 &&
            strcmp(target, "anon_inode:[signalfd]") != 0)
            fail_msg("the launcher holds %s", target);
    }
    closedir(d);
    close(extra);
}

int main(int argc, char **argv)
{
    (void)argc;
    setenv("WEFT_API_KEY", "secret", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_call_side_by_side),
        cmocka_unit_test(calls_really_overlap),
        cmocka_unit_test(cancel_kills_everything),
        cmocka_unit_test(a_killed_worker_costs_its_call_only),
        cmocka_unit_test(a_killed_init_is_an_error),
        cmocka_unit_test(a_killed_launcher_is_an_error_and_no_hang),
        cmocka_unit_test(the_launcher_dies_with_its_parent),
        cmocka_unit_test(the_launcher_holds_no_secret),
        cmocka_unit_test(workers_come_with_calls),
    };
    int failed = cmocka_run_group_tests(tests, fixture_open, fixture_close);
    return failed + again_as_user(argv);
}
