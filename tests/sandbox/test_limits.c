/* Every limit, against programs that do their worst, and nothing that outlives its call. */
#include "tests/sandbox/harness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB (INT64_C(1) << 20)

/* True if memory and processes are counted by a group here, not by the watchdog. */
static bool has_groups(const weft_sandbox_result *r)
{
    return strstr(r->layers, "\"cgroup_memory\":true") && strstr(r->layers, "\"cgroup_pids\":true");
}

/* --- time ------------------------------------------------------------------------------------- */

static void wall_time_ends_even_the_deaf(void **state)
{
    fixture *f = *state;
    prepared p;
    /* Stopped, every signal ignored, with a daemon in a session of its own. */
    prepare_probe(&p, "stop", f->token);
    p.request.limits.wall_ms = 400;
    weft_sandbox_result r = run_ok(f, &p.request);
    assert_int_equal(r.hit, WEFT_HIT_WALL);
    assert_int_equal(r.signal, SIGKILL);
    assert_int_equal(r.exit_status, -1);
    assert_true(r.wall_ns >= 400000000);
    assert_non_null(strstr(r.layers, "\"seccomp\":true")); /* known although it was killed */
    assert_true(all_gone(f->token));
    weft_sandbox_result_free(&r);
}

static void cpu_time_ends_a_spinner(void **state)
{
    fixture *f = *state;
    prepared p;
    prepare_probe(&p, "spin", NULL);
    p.request.limits.cpu_seconds = 1;
    p.request.limits.wall_ms = 60000;
    weft_sandbox_result r = run_ok(f, &p.request);
    assert_int_equal(r.hit, WEFT_HIT_CPU);
    assert_true(r.cpu_ns > 500000000); /* the limit counts ticks, the sum is exact */
    weft_sandbox_result_free(&r);
}

/* --- what must not survive -------------------------------------------------------------------- */

static void daemons_end_with_the_program(void **state)
{
    fixture *f = *state;
    prepared p;
    prepare_probe(&p, "survive", f->token);
    weft_sandbox_result r = run_ok(f, &p.request);
    assert_int_equal(r.exit_status, 0);
    assert_int_equal(r.hit, WEFT_HIT_NONE);
    assert_true(all_gone(f->token));
    weft_sandbox_result_free(&r);
}

static void a_grandchild_that_holds_stdout_does_not_hang(void **state)
{
    fixture *f = *state;
    prepared p;
    prepare_probe(&p, "hold-stdout", f->token);
    p.request.limits.wall_ms = 600000; /* a wait for the pipe's end would last this long */
    weft_sandbox_result r = run_ok(f, &p.request);
    assert_string_equal(r.out.kept, "done\n");
    assert_int_equal(r.hit, WEFT_HIT_NONE);
    assert_true(all_gone(f->token));
    weft_sandbox_result_free(&r);
}

/* --- memory ----------------------------------------------------------------------------------- */

static void memory_is_limited(fixture *f, const char *mode)
{
    prepared p;
    prepare_probe(&p, mode, NULL);
    p.request.limits.memory_bytes = 64 * MIB;
    weft_sandbox_result r = run_ok(f, &p.request);
    assert_int_equal(r.hit, WEFT_HIT_MEMORY);
    assert_true(r.peak_bytes > 8 * MIB);
    /* Resident memory has libraries, which no group charges to us; the watchdog overshoots by what is
     * written between two looks. */
    assert_true(r.peak_bytes < (has_groups(&r) ? 96 : 512) * MIB);
    weft_sandbox_result_free(&r);
}

static void memory_of_one_process(void **state)
{
    memory_is_limited(*state, "memory-bomb");
}

static void memory_of_many_processes(void **state)
{
    memory_is_limited(*state, "memory-bombs");
}

static void limits_are_set_anew_for_each_call(void **state)
{
    fixture *f = *state;
    for (int i = 0; i < 6; i++) { /* more calls than workers: groups are reused */
        prepared p;
        prepare_probe(&p, "memory-bomb", NULL);
        p.request.limits.memory_bytes = (i % 2 ? 32 : 96) * MIB;
        weft_sandbox_result r = run_ok(f, &p.request);
        assert_int_equal(r.hit, WEFT_HIT_MEMORY);
        if (has_groups(&r)) assert_true((r.peak_bytes > 48 * MIB) == (i % 2 == 0));
        weft_sandbox_result_free(&r);
        prepare_shell(&p, "true");
        r = run_ok(f, &p.request);
        assert_int_equal(r.hit, WEFT_HIT_NONE); /* not the last call's event */
        weft_sandbox_result_free(&r);
    }
}

/* --- counts ----------------------------------------------------------------------------------- */

static long counted(fixture *f, const char *mode, const char *argument,
                    const weft_sandbox_limits *l, weft_sandbox_result *out)
{
    prepared p;
    prepare_probe(&p, mode, argument);
    p.request.limits = *l;
    *out = run_ok(f, &p.request);
    return atol(out->out.kept);
}

static void processes_and_threads_are_limited(void **state)
{
    static const char *const modes[] = {"fork-bomb", "thread-bomb"};
    for (int i = 0; i < 2; i++) {
        weft_sandbox_result r;
        long n = counted(*state, modes[i], NULL, &(weft_sandbox_limits){.processes = 20}, &r);
        assert_true(n > 10 && n <= 20);
        if (has_groups(&r)) assert_int_equal(r.hit, WEFT_HIT_PROCESSES);
        weft_sandbox_result_free(&r);
    }
}

static void descriptors_are_limited(void **state)
{
    weft_sandbox_result r;
    long n = counted(*state, "descriptor-bomb", NULL, &(weft_sandbox_limits){0}, &r);
    assert_true(n > 500 && n <= 1024);
    weft_sandbox_result_free(&r);
}

static void tmpfs_space_and_inodes_are_limited(void **state)
{
    static const char *const dirs[] = {"/tmp", "/work", "/dev/shm"};
    for (int i = 0; i < 3; i++) {
        weft_sandbox_result r;
        const weft_sandbox_limits l = {.memory_bytes = 128 * MIB};
        long n = counted(*state, "disk-bomb", dirs[i], &l, &r);
        assert_true(n >= 15 && n <= 32);
        weft_sandbox_result_free(&r);
        n = counted(*state, "inode-bomb", dirs[i], &l, &r);
        assert_true(n > 500 && n <= 16384);
        weft_sandbox_result_free(&r);
    }
}

/* --- files ------------------------------------------------------------------------------------ */

static void file_size_is_limited(void **state)
{
    fixture *f = *state;
    prepared p;
    prepare_probe(&p, "file-bomb", NULL);
    p.request.limits.file_bytes = MIB;
    weft_sandbox_result r = run_ok(f, &p.request);
    assert_int_equal(r.hit, WEFT_HIT_FILE);
    assert_int_equal(r.signal, SIGXFSZ);
    weft_sandbox_result_free(&r);
    prepare_probe(&p, "file-bomb", "deaf");
    p.request.limits.file_bytes = MIB;
    r = run_ok(f, &p.request);
    assert_int_equal(atol(r.out.kept), MIB); /* then EFBIG */
    weft_sandbox_result_free(&r);
}

/* Makes the workspace a file system of its own, as a host's disk would be. */
static bool workspace_mount(const fixture *f)
{
    if (geteuid() == 0) {
        if (unshare(CLONE_NEWNS)) return false;
    } else if (!user_namespace_enter(CLONE_NEWNS)) {
        return false;
    }
    char options[64];
    snprintf(options, sizeof options, "size=768m,mode=0700,uid=%u", (unsigned)geteuid());
    return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
           mount("none", f->work, "tmpfs", 0, options) == 0;
}

/* Exit status 0: the bomb was stopped. */
static int disk_is_guarded(const fixture *f)
{
    weft_launcher *launcher;
    weft_error err = {0};
    weft_sandbox_result r;
    prepared p;
    if (!workspace_mount(f)) return 12;
    if (weft_launcher_start(&launcher, &err)) return 13;
    prepare_probe(&p, "disk-bomb", "/work");
    p.request.workdir = f->work;
    p.request.limits.file_bytes = MIB;
    if (weft_sandbox_run(launcher, &p.request, NULL, &r, &err)) {
        fprintf(stderr, "%s\n", err.message);
        return 14;
    }
    bool stopped = r.hit == WEFT_HIT_FILE;
    weft_sandbox_result_free(&r);
    weft_launcher_stop(launcher);
    return stopped ? 0 : 15;
}

static void a_workspace_cannot_fill_the_disk(void **state)
{
    int status;
    pid_t child = fork();
    if (child == 0) _exit(disk_is_guarded(*state));
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* --- output ----------------------------------------------------------------------------------- */

static void a_flood_is_counted_hashed_and_cut(void **state)
{
    fixture *f = *state;
    enum { BYTES = 3 << 20 };
    prepared p;
    uint8_t expected[WEFT_DIGEST_BYTES];
    char *text = malloc(BYTES), number[16];
    assert_non_null(text);
    memset(text, 'x', BYTES);
    weft_sha256_of(text, BYTES, expected);
    free(text);
    snprintf(number, sizeof number, "%d", BYTES);
    prepare_probe(&p, "flood", number);
    p.request.limits.output_bytes = 1000;
    weft_sandbox_result r = run_ok(f, &p.request);
    assert_int_equal(r.exit_status, 0);
    assert_int_equal(r.out.total, BYTES);
    assert_int_equal(r.out.n_kept, 1000);
    assert_int_equal(r.out.cut, BYTES - 1000);
    assert_int_equal(r.out.cut_at, 500);
    assert_memory_equal(r.out.sha256, expected, sizeof expected);
    weft_sandbox_result_free(&r);
}

static void a_deep_recursion_only_hurts_itself(void **state)
{
    fixture *f = *state;
    prepared p;
    prepare_probe(&p, "recurse", NULL);
    weft_sandbox_result r = run_ok(f, &p.request);
    assert_int_equal(r.signal, SIGSEGV);
    weft_sandbox_result_free(&r);
}

int main(int argc, char **argv)
{
    (void)argc;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wall_time_ends_even_the_deaf),
        cmocka_unit_test(cpu_time_ends_a_spinner),
        cmocka_unit_test(daemons_end_with_the_program),
        cmocka_unit_test(a_grandchild_that_holds_stdout_does_not_hang),
        cmocka_unit_test(memory_of_one_process),
        cmocka_unit_test(memory_of_many_processes),
        cmocka_unit_test(limits_are_set_anew_for_each_call),
        cmocka_unit_test(processes_and_threads_are_limited),
        cmocka_unit_test(descriptors_are_limited),
        cmocka_unit_test(tmpfs_space_and_inodes_are_limited),
        cmocka_unit_test(file_size_is_limited),
        cmocka_unit_test(a_workspace_cannot_fill_the_disk),
        cmocka_unit_test(a_flood_is_counted_hashed_and_cut),
        cmocka_unit_test(a_deep_recursion_only_hurts_itself),
    };
    int failed = cmocka_run_group_tests(tests, fixture_open, fixture_close);
    return failed + again_as_user(argv);
}
