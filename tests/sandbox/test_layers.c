/* Every layer, by its effect: what succeeds outside must be denied inside, as root and as a user. */
#include "tests/sandbox/harness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* --- the host's side of the probes ------------------------------------------------------------ */

typedef struct host_targets {
    char secret[96], socket_path[96], abstract[32];
    int tcp, unix_path, unix_abstract, port;
    pid_t victim;
    char arguments[7][128];
} host_targets;

static int leaked = -1; /* a descriptor of "/" without close-on-exec, open before the launcher is */

static int listen_unix(const void *address, socklen_t n)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, address, n), 0);
    assert_int_equal(listen(fd, 4), 0);
    return fd;
}

static void targets_open(host_targets *t, const fixture *f)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof in;
    struct sockaddr_un path = {.sun_family = AF_UNIX}, name = {.sun_family = AF_UNIX};
    snprintf(t->secret, sizeof t->secret, "%s/secret", f->dir);
    snprintf(t->socket_path, sizeof t->socket_path, "%s/socket", f->dir);
    snprintf(t->abstract, sizeof t->abstract, "weft-%d", (int)getpid());
    int fd = open(t->secret, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    assert_true(fd >= 0 && write(fd, "secret", 6) == 6);
    close(fd);
    t->tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(t->tcp, (struct sockaddr *)&in, sizeof in), 0);
    assert_int_equal(listen(t->tcp, 4), 0);
    assert_int_equal(getsockname(t->tcp, (struct sockaddr *)&in, &n), 0);
    t->port = ntohs(in.sin_port);
    snprintf(path.sun_path, sizeof path.sun_path, "%s", t->socket_path);
    t->unix_path = listen_unix(&path, sizeof path);
    int length = snprintf(name.sun_path + 1, sizeof name.sun_path - 1, "%s", t->abstract);
    t->unix_abstract = listen_unix(
        &name, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length));
    t->victim = fork();
    if (t->victim == 0) {
        prctl(PR_SET_NAME, f->token, 0, 0, 0);
        prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
        for (;;) pause();
    }
    snprintf(t->arguments[0], 128, "secret=%s", t->secret);
    snprintf(t->arguments[1], 128, "socket=%s", t->socket_path);
    snprintf(t->arguments[2], 128, "abstract=%s", t->abstract);
    snprintf(t->arguments[3], 128, "token=%s", f->token);
    snprintf(t->arguments[4], 128, "tcp=%d", t->port);
    snprintf(t->arguments[5], 128, "leaked=%d", leaked);
    snprintf(t->arguments[6], 128, "victim=%d", (int)t->victim);
}

static void targets_close(host_targets *t)
{
    kill(t->victim, SIGKILL);
    waitpid(t->victim, NULL, 0);
    close(t->tcp);
    close(t->unix_path);
    close(t->unix_abstract);
    unlink(t->secret);
    unlink(t->socket_path);
}

/* The probe program's lines when it is run outside; malloc'd. */
static char *baseline(host_targets *t)
{
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    pid_t child = fork();
    if (child == 0) {
        char *argv[10] = {(char *)"probe", (char *)"list"};
        for (int i = 0; i < 7; i++) argv[i + 2] = t->arguments[i];
        int null = open("/dev/null", O_RDONLY);
        dup2(null, 0);
        dup2(ends[1], 1);
        execv(probe_path(), argv);
        _exit(127);
    }
    close(ends[1]);
    char *text = calloc(1, 1 << 16);
    assert_non_null(text);
    size_t size = 0;
    for (ssize_t n; (n = read(ends[0], text + size, (1 << 16) - 1 - size)) > 0;) size += (size_t)n;
    close(ends[0]);
    assert_int_equal(waitpid(child, NULL, 0), child);
    return text;
}

/* The word behind "name " in the lines; NULL if the probe is not there. */
static const char *verdict_of(const char *lines, const char *name)
{
    size_t n = strlen(name);
    for (const char *at = lines; at && *at; at = strchr(at, '\n'), at = at ? at + 1 : NULL)
        if (strncmp(at, name, n) == 0 && at[n] == ' ') return at + n + 1;
    return NULL;
}

/* Probes that an ordinary process of any user reaches on any kernel of the last years: if their
 * baseline fails, it is the probe that is broken. */
static const char *const must_reach[] = {
    "memory_file",
    "shared_segment",
    "semaphores",
    "message_queue",
    "segment_table",
    "trace_me",
    "pipe_pages",
    "old_personality",
    "file_handle",
    "watch_inodes",
    "compare_kernel",
    "hidden_mode",
    "flush_host",
    "memory_program",
    "signal_victim",
    "limit_victim",
    "proc_victim",
    "secret_environment",
    "unshare_user",
    "clone_user",
    "clone3_user",
    "tcp_loopback",
    "udp_loopback",
    "six_socket",
    "netlink_socket",
    "unix_path",
    "unix_abstract",
    "host_secret",
    "secret_by_link",
    "secret_by_hard_link",
    "secret_by_dots",
    "leaked_directory",
    "proc_sys",
    "system_tree",
    "host_home",
    "fifo",
    "set_id_by_chmod",
    "set_id_by_open",
    "own_seccomp",
    "oom_of_self",
    "push_input",
    "push_input_high",
    NULL,
};
static const char *const must_reach_as_root[] = {
    "bpf_map",
    "key_add",
    "key_control",
    "become_root",
    "root_groups",
    "take_capability",
    "dump_core",
    "real_time",
    "lock_memory",
    "unshare_mount",
    "unshare_pid",
    "unshare_net",
    "unshare_ipc",
    "unshare_uts",
    "unshare_cgroup",
    "clone_mount",
    "clone_pid",
    "clone_net",
    "join_namespace",
    "mount_new",
    "mount_again",
    "unmount",
    "pivot",
    "change_root",
    "open_fs",
    "clone_tree",
    "attributes_of_mount",
    "restart_host",
    "swap_on",
    "swap_off",
    "set_clock",
    "host_name",
    "kernel_log",
    "raw_socket",
    "write_system",
    "write_passwd",
    "write_root",
    "core_pattern",
    "device_node",
    "give_away",
    "file_capability",
    "secret_by_proc",
    "trace_victim",
    NULL,
};

static int baseline_failures(const char *outside, const char *const *names)
{
    int failures = 0;
    for (; *names; names++) {
        const char *verdict = verdict_of(outside, *names);
        if (verdict && strncmp(verdict, "reached", 7) == 0) continue;
        print_error("baseline: %s did not succeed outside: %.12s\n", *names, verdict);
        failures++;
    }
    return failures;
}

static void every_probe_is_denied_inside(void **state)
{
    fixture *f = *state;
    host_targets t;
    prepared p;
    char host_name[65], host_name_after[65];
    gethostname(host_name, sizeof host_name);
    targets_open(&t, f);
    char *outside = baseline(&t);
    prepare_probe(&p, "list", NULL);
    for (int i = 0; i < 7; i++) p.argv[i + 2] = t.arguments[i];
    weft_sandbox_result r = run_ok(f, &p.request);
    assert_int_equal(r.exit_status, 0);

    int reached_outside = 0, inside = 0, holes = 0;
    for (char *line = r.out.kept, *end; *line; line = end + 1, inside++) {
        end = strchr(line, '\n');
        assert_non_null(end);
        *end = '\0';
        char *word = strchr(line, ' ');
        assert_non_null(word);
        *word++ = '\0';
        const char *before = verdict_of(outside, line);
        assert_non_null(before);
        reached_outside += strncmp(before, "reached", 7) == 0;
        if (strncmp(word, "denied", 6) != 0 && strncmp(word, "killed 31", 9) != 0) {
            print_error("%s: %s inside\n", line, word);
            holes++;
        }
    }
    assert_int_equal(holes, 0);
    assert_true(inside > 100);
    assert_int_equal(baseline_failures(outside, must_reach), 0);
    if (geteuid() == 0) assert_int_equal(baseline_failures(outside, must_reach_as_root), 0);
    print_message("%d probes, %d reach their aim outside, none inside\n", inside, reached_outside);

    /* Nothing happened on the host. */
    gethostname(host_name_after, sizeof host_name_after);
    assert_string_equal(host_name, host_name_after);
    assert_int_equal(kill(t.victim, 0), 0);
    assert_int_not_equal(access("/weft-probe", F_OK), 0);
    /* And the trace will know. */
    static const char *const counted[] = {"io_uring_setup", "ptrace",   "mount",  "unshare",
                                          "clone",          "socket",   "keyctl", "memfd_create",
                                          "chmod",          "prlimit64"};
    for (size_t i = 0; i < sizeof counted / sizeof *counted; i++)
        if (!strstr(r.denials, counted[i]))
            fail_msg("no denial of %s in %s", counted[i], r.denials);
    weft_sandbox_result_free(&r);
    free(outside);
    targets_close(&t);
}

/* --- what is in force ------------------------------------------------------------------------- */

static void check_reports_full_and_its_layers(void **state)
{
    fixture *f = *state;
    weft_error err = {0};
    char *json = NULL;
    cJSON *tree = NULL;
    assert_int_equal(weft_sandbox_check(f->launcher, &json, &err), WEFT_OK);
    assert_int_equal(weft_json_parse(json, strlen(json), &tree, &err), WEFT_OK);
    assert_string_equal(weft_json_string(tree, "level"), "full");
    const cJSON *layers = cJSON_GetObjectItem(tree, "layers");
    static const char *const mandatory[] = {"user_ns",      "mount_ns", "pid_ns",       "net_ns",
                                            "ipc_ns",       "uts_ns",   "cgroup_ns",    "ids",
                                            "root",         "proc",     "capabilities", "rlimits",
                                            "no_new_privs", "landlock", "seccomp"};
    for (size_t i = 0; i < sizeof mandatory / sizeof *mandatory; i++)
        if (!weft_json_bool(layers, mandatory[i], false)) fail_msg("%s is off", mandatory[i]);
    /* Memory is limited one way or the other, and a substitute is told. */
    bool group = weft_json_bool(layers, "cgroup_memory", false);
    assert_int_equal(weft_json_bool(layers, "watchdog", group), !group);
    const cJSON *missing = cJSON_GetObjectItem(tree, "missing");
    assert_int_equal(cJSON_GetArraySize(missing), group ? 0 : 1);
    if (!group) {
        const cJSON *first = cJSON_GetArrayItem(missing, 0);
        assert_string_equal(weft_json_string(first, "layer"), "cgroup_memory");
        assert_true(strlen(weft_json_string(first, "cause")) > 10);
        assert_true(strlen(weft_json_string(first, "cure")) > 10);
    }
    cJSON_Delete(tree);
    free(json);
}

static void the_status_inside_shows_confinement(void **state)
{
    assert_shell(*state,
                 "grep -E '^(CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp|Groups)' "
                 "/proc/self/status | tr -d '\\t '",
                 "Groups:\nCapInh:0000000000000000\nCapPrm:0000000000000000\n"
                 "CapEff:0000000000000000\nCapBnd:0000000000000000\n"
                 "CapAmb:0000000000000000\nNoNewPrivs:1\nSeccomp:2\n"
                 "Seccomp_filters:1\n");
    assert_shell(*state, "ls -A / | sort | tr '\\n' ' '",
                 "bin dev etc lib lib32 lib64 proc sbin tmp usr work ");
    assert_shell(*state, "ls -A /dev | sort | tr '\\n' ' '",
                 "fd full null random shm stderr stdin stdout urandom zero ");
    assert_shell(*state, "id -u; hostname 2>/dev/null || cat /proc/sys/kernel/hostname; umask",
                 "1000\nweft\n0077\n");
    assert_shell(*state,
                 "cat /proc/self/uid_map | tr -s ' ' | cut -d' ' -f3 >/dev/null; ls /proc | "
                 "grep -c '^1$'",
                 "0\n");
}

/* Outer ids: never root's. Read from the owner of a file that the workload made. */
static void the_outer_id_is_not_root(void **state)
{
    fixture *f = *state;
    prepared p;
    char path[128];
    struct stat st;
    prepare_shell(&p, "echo x > made");
    p.request.workdir = f->work;
    weft_sandbox_result r = run_ok(f, &p.request);
    weft_sandbox_result_free(&r);
    snprintf(path, sizeof path, "%s/made", f->work);
    assert_int_equal(stat(path, &st), 0);
    assert_int_not_equal(st.st_uid, 0);
    assert_int_not_equal(st.st_gid, 0);
    assert_int_equal(st.st_uid, weft_sandbox_uid());
    if (geteuid() != 0) assert_int_equal(weft_sandbox_uid(), geteuid());
    assert_int_equal(unlink(path), 0);
}

/* --- refusal ---------------------------------------------------------------------------------- */

static bool set_quota(void)
{
    int fd = open("/proc/sys/user/max_user_namespaces", O_WRONLY | O_CLOEXEC);
    return fd >= 0 && write(fd, "0", 1) == 1 && close(fd) == 0;
}

/* In a user namespace whose own quota of user namespaces is 0. Exit status: 0 as it should be. */
static int refused_without_namespaces(const char *witness)
{
    if (geteuid() == 0 && (!become_ordinary() || prctl(PR_SET_DUMPABLE, 1, 0, 0, 0))) return 10;
    if (!user_namespace_enter(0) || !set_quota()) return 11;
    weft_launcher *launcher;
    weft_error err = {0};
    weft_sandbox_result result;
    prepared p;
    char script[128], *json = NULL;
    if (weft_launcher_start(&launcher, &err)) return 14;
    snprintf(script, sizeof script, "echo ran > %s", witness);
    prepare_shell(&p, script);
    if (weft_sandbox_run(launcher, &p.request, NULL, &result, &err) != WEFT_E_SANDBOX) return 15;
    if (!strstr(err.message, "user_ns") || !strstr(err.message, "clone3") ||
        !strstr(err.message, "sysctl -w user.max_user_namespaces"))
        return 16;
    if (weft_sandbox_check(launcher, &json, &err)) return 17;
    if (!strstr(json, "\"level\":\"none\"") || !strstr(json, "\"layer\":\"user_ns\"")) return 18;
    free(json);
    weft_launcher_stop(launcher);
    return access(witness, F_OK) == 0 ? 19 : 0;
}

/* Real root in a namespace with one id only: there is none to give to the workload. */
static int refused_as_root_only(void)
{
    weft_launcher *launcher;
    weft_error err = {0};
    weft_sandbox_result result;
    prepared p;
    if (!user_namespace_enter(0) || weft_launcher_start(&launcher, &err)) return 10;
    prepare_shell(&p, "true");
    if (weft_sandbox_run(launcher, &p.request, NULL, &result, &err) != WEFT_E_SANDBOX) return 11;
    if (!strstr(err.message, "layer ids")) return 12;
    weft_launcher_stop(launcher);
    return 0;
}

static int in_a_child(int status)
{
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static void root_never_maps_to_root(void **state)
{
    (void)state;
    int status;
    if (geteuid() != 0) skip();
    pid_t child = fork();
    if (child == 0) _exit(refused_as_root_only());
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(in_a_child(status), 0);
}

static void without_user_namespaces_nothing_runs(void **state)
{
    fixture *f = *state;
    char witness[96];
    int status;
    snprintf(witness, sizeof witness, "%s/witness", f->dir);
    pid_t child = fork();
    if (child == 0) _exit(refused_without_namespaces(witness));
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(in_a_child(status), 0);
}

int main(int argc, char **argv)
{
    (void)argc;
    setenv("WEFT_TEST_SECRET", "key", 1);
    leaked = open("/", O_RDONLY | O_DIRECTORY);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_probe_is_denied_inside),
        cmocka_unit_test(check_reports_full_and_its_layers),
        cmocka_unit_test(the_status_inside_shows_confinement),
        cmocka_unit_test(the_outer_id_is_not_root),
        cmocka_unit_test(without_user_namespaces_nothing_runs),
        cmocka_unit_test(root_never_maps_to_root),
    };
    int failed = cmocka_run_group_tests(tests, fixture_open, fixture_close);
    return failed + again_as_user(argv);
}
