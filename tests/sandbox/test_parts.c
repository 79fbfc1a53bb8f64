/* The parts that can be tested without a process: streams, requests, groups, usage. */
#include "sandbox/cgroup.h"
#include "sandbox/filter.h"
#include "sandbox/stream.h"
#include "sandbox/watch.h"
#include "sandbox/wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* --- streams ---------------------------------------------------------------------------------- */

/* Against the naive way: keep everything, cut at the end. */
static void streams_keep_head_and_tail(void **state)
{
    (void)state;
    static const size_t caps[] = {1, 2, 3, 7, 64, 100};
    char all[400];
    for (size_t i = 0; i < sizeof all; i++) all[i] = (char)('A' + i % 61);
    unsigned random = 1;
    for (int round = 0; round < 3000; round++) {
        size_t cap = caps[round % 6], total = (size_t)round % (sizeof all + 1), head = cap / 2;
        sandbox_collect c;
        weft_sandbox_stream s;
        weft_error err;
        uint8_t digest[WEFT_DIGEST_BYTES];
        sandbox_collect_init(&c, cap);
        for (size_t at = 0; at < total;) {
            random = random * 1103515245 + 12345;
            size_t n = random / 65536 % 90;
            if (n > total - at) n = total - at;
            sandbox_collect_add(&c, all + at, n);
            at += n;
        }
        assert_int_equal(sandbox_collect_take(&c, &s, &err), WEFT_OK);
        size_t kept = total < cap ? total : cap;
        assert_int_equal(s.n_kept, kept);
        assert_int_equal(s.total, total);
        assert_int_equal(s.cut, total - kept);
        if (total <= cap) {
            assert_memory_equal(s.kept, all, total);
            assert_int_equal(s.cut_at, total);
        } else {
            assert_int_equal(s.cut_at, head);
            assert_memory_equal(s.kept, all, head);
            assert_memory_equal(s.kept + head, all + total - (cap - head), cap - head);
        }
        assert_int_equal(s.kept[kept], '\0');
        weft_sha256_of(all, total, digest);
        assert_memory_equal(s.sha256, digest, sizeof digest);
        free(s.kept);
    }
}

/* --- requests --------------------------------------------------------------------------------- */

static void requests_survive_the_wire(void **state)
{
    (void)state;
    const char *argv[] = {"prog", "", "a b", NULL}, *env[] = {"A=1", "HOME=/x", "A=2", NULL};
    const weft_sandbox_bind binds[] = {{"/etc", "/tool", false}, {"relative", "/w", true}};
    const weft_sandbox_request request = {.argv = argv,
                                          .env = env,
                                          .workdir = "/tmp",
                                          .workdir_readonly = true,
                                          .binds = binds,
                                          .n_binds = 2,
                                          .network = true,
                                          .limits = {.wall_ms = 7, .processes = INT64_MAX}};
    weft_buffer b = WEFT_BUFFER_INIT;
    weft_error err;
    assert_int_equal(sandbox_request_encode(&request, &b, &err), WEFT_OK);
    size_t n = b.size - sizeof(uint64_t);
    sandbox_call call;
    sandbox_fault fault = {0};
    char *bytes = malloc(n);
    memcpy(bytes, b.data + sizeof(uint64_t), n);
    assert_true(sandbox_call_decode(bytes, n, &call, &fault));
    assert_string_equal(call.argv[0], "prog");
    assert_string_equal(call.argv[1], "");
    assert_string_equal(call.argv[2], "a b");
    assert_null(call.argv[3]);
    int a = 0, home = 0;
    for (char **entry = call.env; *entry; entry++) {
        a += strcmp(*entry, "A=2") == 0;
        home += strncmp(*entry, "HOME=", 5) == 0;
        assert_string_not_equal(*entry, "A=1");
    }
    assert_int_equal(a, 1);
    assert_int_equal(home, 1);
    assert_string_equal(call.cwd, "/work");
    assert_true(call.has_workdir && call.network && !call.strict);
    assert_int_equal(call.n_mounts, 3);
    assert_string_equal(call.mounts[0].inside, "/work");
    assert_false(call.mounts[0].writable);
    assert_string_equal(call.mounts[1].host, "/etc");
    assert_false(call.mounts[1].writable);
    assert_true(call.mounts[2].writable);
    assert_int_equal(call.mounts[2].host[0], '/');
    assert_int_equal(call.limits.wall_ms, 7);
    assert_int_equal(call.limits.cpu_seconds, 1);
    assert_int_equal(call.limits.memory_bytes, INT64_C(1) << 30);
    sandbox_call_free(&call);
    /* Every truncation, and every byte damaged, is refused or decoded within bounds. */
    for (size_t cut = 0; cut < n; cut++) {
        bytes = malloc(cut + 1);
        memcpy(bytes, b.data + sizeof(uint64_t), cut);
        assert_false(sandbox_call_decode(bytes, cut, &call, &fault));
        free(bytes);
    }
    for (size_t i = 0; i < n; i++) {
        bytes = malloc(n);
        memcpy(bytes, b.data + sizeof(uint64_t), n);
        bytes[i] ^= 0x55;
        if (sandbox_call_decode(bytes, n, &call, &fault))
            sandbox_call_free(&call);
        else
            free(bytes);
    }
    weft_buffer_free(&b);
}

static void bad_requests_are_refused(void **state)
{
    (void)state;
    const char *argv[] = {"prog", NULL}, *env[] = {"NOVALUE", NULL}, *env2[] = {"=x", NULL};
    const weft_sandbox_bind bind = {"/tmp", "/t", true};
    const weft_sandbox_request bad[] = {
        {.argv = NULL},
        {.argv = argv, .env = env},
        {.argv = argv, .env = env2},
        {.argv = argv, .strict = true, .network = true},
        {.argv = argv, .strict = true, .workdir = "/tmp"},
        {.argv = argv, .strict = true, .binds = &bind, .n_binds = 1},
        {.argv = argv, .binds = &bind, .n_binds = SANDBOX_MAX_BINDS + 1},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        weft_buffer b = WEFT_BUFFER_INIT;
        weft_error err;
        assert_int_equal(sandbox_request_encode(&bad[i], &b, &err), WEFT_E_USAGE);
        weft_buffer_free(&b);
    }
    /* No overflow from limits that nobody means, none too small to start a program. */
    weft_sandbox_limits l = sandbox_limits_fill(
        (weft_sandbox_limits){INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX});
    assert_true(l.wall_ms < INT64_MAX / 1000000 && l.cpu_seconds < INT64_MAX / 1000000000);
    assert_true(l.memory_bytes < INT64_MAX / 4 && l.file_bytes < INT64_MAX / 16);
    assert_true(l.processes < INT32_MAX);
    l = sandbox_limits_fill((weft_sandbox_limits){1, 1, 1, 1, 1, 1});
    assert_int_equal(l.wall_ms, 1);
    assert_int_equal(l.memory_bytes, 16 << 20);
}

/* --- groups ----------------------------------------------------------------------------------- */

#define LINE(root, point, type, options)                                                           \
    "30 23 0:26 " root " " point " rw,nosuid shared:9 - " type " " type " rw," options "\n"

static void groups_are_found_in_every_layout(void **state)
{
    (void)state;
    static const struct {
        const char *mounts, *member, *memory, *pids;
        bool v2;
    } cases[] = {
        /* Version 2 under systemd: siblings. */
        {LINE("/", "/sys/fs/cgroup", "cgroup2", "x"), "0::/user.slice/a.scope\n",
         "/sys/fs/cgroup/user.slice", "/sys/fs/cgroup/user.slice", true},
        {LINE("/", "/sys/fs/cgroup", "cgroup2", "x"), "0::/a.scope\n", "/sys/fs/cgroup",
         "/sys/fs/cgroup", true},
        {LINE("/", "/sys/fs/cgroup", "cgroup2", "x"), "0::/\n", "/sys/fs/cgroup", "/sys/fs/cgroup",
         true},
        /* Version 1: children, each hierarchy by itself. */
        {LINE("/", "/c/memory", "cgroup", "memory") LINE("/", "/c/pids", "cgroup", "pids"),
         "8:pids:/\n4:memory:/m/n\n", "/c/memory/m/n", "/c/pids", false},
        /* Hybrid: version 2 is mounted and has nothing. */
        {LINE("/", "/c/unified", "cgroup2", "x") LINE("/", "/c/memory", "cgroup", "memory"),
         "4:memory:/m\n0::/u\n", "/c/memory/m", "", false},
        /* A container that sees its own part only. */
        {LINE("/docker/1", "/c/memory", "cgroup", "memory"), "4:memory:/docker/1\n", "/c/memory",
         "", false},
        {LINE("/docker/1", "/c/memory", "cgroup", "memory"), "4:memory:/other\n", "", "", false},
        /* "memory" as part of another word, and none at all. */
        {LINE("/", "/c/x", "cgroup", "mymemory"), "4:mymemory:/m\n", "", "", false},
        {LINE("/", "/tmp", "tmpfs", "size=1"), "", "", "", false},
        {"", "", "", "", false},
        {"broken - line\n - \n", "x\n:\n::\n", "", "", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sandbox_cgroups found;
        sandbox_cgroups_parse(cases[i].mounts, cases[i].member, &found);
        assert_string_equal(found.memory, cases[i].memory);
        assert_string_equal(found.pids, cases[i].pids);
        assert_int_equal(found.v2, cases[i].v2);
    }
}

/* --- the watchdog ----------------------------------------------------------------------------- */

static void usage_sums_the_tree(void **state)
{
    (void)state;
    enum { CHILDREN = 3, BYTES = 16 << 20 };
    int ready[2];
    char byte;
    assert_int_equal(pipe(ready), 0);
    pid_t top = fork();
    if (top == 0) {
        for (int i = 0; i < CHILDREN; i++) {
            if (fork() == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
                char *p =
                    mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
                if (p != MAP_FAILED) memset(p, 1, BYTES);
                if (write(ready[1], "x", 1) != 1) _exit(1);
                for (;;) pause();
            }
        }
        for (;;) pause();
    }
    for (int i = 0; i < CHILDREN; i++) assert_int_equal(read(ready[0], &byte, 1), 1);
    sandbox_usage usage;
    assert_true(sandbox_watch(top, &usage));
    assert_int_equal(usage.tasks, CHILDREN);
    assert_true(usage.memory_bytes >= (int64_t)CHILDREN * BYTES);
    assert_true(usage.memory_bytes < (int64_t)CHILDREN * BYTES + (256 << 20));
    kill(top, SIGKILL);
    assert_int_equal(waitpid(top, NULL, 0), top);
    assert_false(sandbox_watch(top, &usage));
}

static void filters_compile_for_every_kind(void **state)
{
    (void)state;
    for (int kind = 0; kind < FILTER_COUNT; kind++) {
        sandbox_filter filter;
        sandbox_fault fault = {0};
        assert_true(sandbox_filter_build((sandbox_filter_kind)kind, &filter, &fault));
        assert_true(filter.n > 50 && filter.n < 4096);
        sandbox_filter_free(&filter);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(streams_keep_head_and_tail),
        cmocka_unit_test(requests_survive_the_wire),
        cmocka_unit_test(bad_requests_are_refused),
        cmocka_unit_test(groups_are_found_in_every_layout),
        cmocka_unit_test(usage_sums_the_tree),
        cmocka_unit_test(filters_compile_for_every_kind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
