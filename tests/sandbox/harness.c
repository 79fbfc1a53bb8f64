/* Shared parts of the sandbox tests. */
#include "tests/sandbox/harness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ORDINARY_UID = 61234 };

const char *probe_path(void)
{
    const char *path = getenv("WEFT_TEST_PROBE");
    assert_non_null(path);
    return path;
}

int fixture_open(void **state)
{
    weft_error err;
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    snprintf(f->dir, sizeof f->dir, "/tmp/weft-sandbox-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->work, sizeof f->work, "%s/work", f->dir);
    assert_int_equal(mkdir(f->work, 0700), 0);
    snprintf(f->token, sizeof f->token, "wt%d", (int)getpid());
    weft_status status = weft_launcher_start(&f->launcher, &err);
    if (status) print_error("%s\n", err.message);
    *state = f;
    return status;
}

int fixture_close(void **state)
{
    fixture *f = *state;
    weft_error err;
    weft_launcher_stop(f->launcher);
    weft_status status = weft_remove_tree(f->dir, &err);
    if (status) print_error("%s\n", err.message);
    free(f);
    return status;
}

void prepare_probe(prepared *p, const char *mode, const char *argument)
{
    *p = (prepared){.bind = {probe_path(), "/probe", false}};
    p->argv[0] = "/probe";
    p->argv[1] = mode;
    p->argv[2] = argument;
    p->request.argv = p->argv;
    p->request.binds = &p->bind;
    p->request.n_binds = 1;
}

void prepare_shell(prepared *p, const char *script)
{
    *p = (prepared){.argv = {"sh", "-c", script}};
    p->request.argv = p->argv;
}

weft_sandbox_result run_ok(fixture *f, const weft_sandbox_request *request)
{
    weft_sandbox_result result = {0};
    weft_error err = {0};
    weft_status status = weft_sandbox_run(f->launcher, request, NULL, &result, &err);
    if (status) print_error("%s\n", err.message);
    assert_int_equal(status, WEFT_OK);
    return result;
}

void assert_shell(fixture *f, const char *script, const char *output)
{
    prepared p;
    prepare_shell(&p, script);
    weft_sandbox_result r = run_ok(f, &p.request);
    if (strcmp(r.out.kept, output) != 0) print_error("standard error: %s\n", r.err.kept);
    assert_string_equal(r.out.kept, output);
    weft_sandbox_result_free(&r);
}

/* Name and state of a process, from its stat line; false if it is gone. */
static bool process_name(const char *pid, char *name, size_t n, char *state, pid_t *parent)
{
    char path[300], text[512];
    snprintf(path, sizeof path, "/proc/%s/stat", pid);
    FILE *f = fopen(path, "re");
    if (!f) return false;
    size_t got = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[got] = '\0';
    char *open = strchr(text, '('), *close = strrchr(text, ')');
    if (!open || !close) return false;
    *close = '\0';
    snprintf(name, n, "%s", open + 1);
    int ppid = 0;
    if (sscanf(close + 1, " %c %d", state, &ppid) != 2) return false;
    *parent = ppid;
    return true;
}

static int processes_named(const char *wanted, pid_t parent, pid_t *out, pid_t *out_parent)
{
    int n = 0;
    DIR *d = opendir("/proc");
    assert_non_null(d);
    for (struct dirent *entry; (entry = readdir(d));) {
        char name[64], state;
        pid_t its_parent;
        if (entry->d_name[0] < '0' || entry->d_name[0] > '9') continue;
        if (!process_name(entry->d_name, name, sizeof name, &state, &its_parent)) continue;
        if (strcmp(name, wanted) != 0 || state == 'Z' || (parent && its_parent != parent)) continue;
        if (out) *out = atoi(entry->d_name);
        if (out_parent) *out_parent = its_parent;
        n++;
    }
    closedir(d);
    return n;
}

int survivors(const char *token)
{
    return processes_named(token, 0, NULL, NULL);
}

bool all_gone(const char *token)
{
    for (int tries = 0; tries < 200; tries++) {
        if (survivors(token) == 0) return true;
        poll(NULL, 0, 10);
    }
    return false;
}

pid_t init_of(const char *token)
{
    pid_t init = 0;
    return processes_named(token, 0, NULL, &init) == 1 ? init : 0;
}

pid_t worker_of(const char *token)
{
    char pid[16], name[64], state;
    pid_t worker = 0;
    snprintf(pid, sizeof pid, "%d", (int)init_of(token));
    return process_name(pid, name, sizeof name, &state, &worker) ? worker : 0;
}

pid_t launcher_pid(void)
{
    pid_t pid = 0;
    /* It takes its name a moment after the fork. */
    for (int tries = 0; tries < 500; tries++) {
        if (processes_named("weft-launcher", getpid(), &pid, NULL) == 1) return pid;
        poll(NULL, 0, 10);
    }
    fail_msg("no launcher process");
    return 0;
}

static bool write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    if (fd >= 0) close(fd);
    return ok;
}

bool user_namespace_enter(int flags)
{
    char uid[32], gid[32];
    snprintf(uid, sizeof uid, "0 %u 1", (unsigned)geteuid());
    snprintf(gid, sizeof gid, "0 %u 1", (unsigned)getegid());
    return unshare(CLONE_NEWUSER | flags) == 0 && write_text("/proc/self/setgroups", "deny") &&
           write_text("/proc/self/uid_map", uid) && write_text("/proc/self/gid_map", gid);
}

bool become_ordinary(void)
{
    return setgroups(0, NULL) == 0 && setresgid(ORDINARY_UID, ORDINARY_UID, ORDINARY_UID) == 0 &&
           setresuid(ORDINARY_UID, ORDINARY_UID, ORDINARY_UID) == 0;
}

int again_as_user(char **argv)
{
    if (geteuid() != 0) return 0;
    pid_t child = fork();
    if (child == 0) {
        /* A fresh exec, as an ordinary user's weft would be: dumpable, no capabilities. */
        if (!become_ordinary()) _exit(99);
        execv("/proc/self/exe", argv);
        _exit(98);
    }
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child) return 1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
