/* Time to run /bin/true confined, beside bubblewrap's full isolation in the same run: each by itself,
 * as fast as it goes, and in turns.
 *
 * Both sides: fresh user, mount, pid, net, ipc, uts and cgroup namespaces, a new root with /usr, /proc,
 * /dev, /tmp; ours has Landlock, seccomp, limits and groups besides. Bar: half of bubblewrap's time, at
 * the median and at the 99th percentile.
 */
#include "sandbox/sandbox.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { DEFAULT_ROUNDS = 300 };

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void report(const char *name, double *us, int n, double *out_p50, double *out_p99)
{
    qsort(us, (size_t)n, sizeof *us, by_size);
    *out_p50 = us[n / 2];
    *out_p99 = us[n * 99 / 100];
    printf("%-12s p50 %7.0f us   p99 %7.0f us   min %7.0f us\n", name, *out_p50, *out_p99, us[0]);
}

static int bubblewrap_true(void)
{
    extern char **environ;
    const char *const argv[] = {"bwrap",
                                "--unshare-all",
                                "--die-with-parent",
                                "--new-session",
                                "--cap-drop",
                                "ALL",
                                "--ro-bind",
                                "/usr",
                                "/usr",
                                "--symlink",
                                "usr/bin",
                                "/bin",
                                "--symlink",
                                "usr/lib",
                                "/lib",
                                "--symlink",
                                "usr/lib64",
                                "/lib64",
                                "--proc",
                                "/proc",
                                "--dev",
                                "/dev",
                                "--tmpfs",
                                "/tmp",
                                "--tmpfs",
                                "/work",
                                "/bin/true",
                                NULL};
    pid_t pid;
    int status;
    if (posix_spawnp(&pid, "bwrap", NULL, NULL, (char *const *)argv, environ)) return -1;
    return waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static weft_launcher *launcher;

static double ours_once(void)
{
    const char *const program[] = {"/bin/true", NULL};
    const weft_sandbox_request request = {.argv = program};
    weft_sandbox_result r;
    weft_error err;
    int64_t start = weft_monotonic_ns();
    if (weft_sandbox_run(launcher, &request, NULL, &r, &err)) {
        fprintf(stderr, "%s\n", err.message);
        exit(1);
    }
    double us = (double)(weft_monotonic_ns() - start) / 1000;
    weft_sandbox_result_free(&r);
    return us;
}

static double theirs_once(void)
{
    int64_t start = weft_monotonic_ns();
    if (bubblewrap_true() != 0) {
        fprintf(stderr, "bwrap failed: install bubblewrap, allow user namespaces\n");
        exit(1);
    }
    return (double)(weft_monotonic_ns() - start) / 1000;
}

static void compare(const char *title, double *ours, double *theirs, int rounds)
{
    double p50, p99, peer50, peer99;
    printf("%s\n", title);
    report("weft", ours, rounds, &p50, &p99);
    report("bubblewrap", theirs, rounds, &peer50, &peer99);
    printf("ratio        p50 %7.2f      p99 %7.2f\n", p50 / peer50, p99 / peer99);
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : DEFAULT_ROUNDS;
    if (rounds < 1) return 2;
    double *ours = calloc((size_t)rounds, sizeof *ours);
    double *theirs = calloc((size_t)rounds, sizeof *theirs);
    weft_error err;
    if (!ours || !theirs || weft_launcher_start(&launcher, &err)) return 1;
    poll(NULL, 0, 300); /* the launcher starts its workers while nothing is asked */
    for (int i = 0; i < rounds; i++) ours[i] = ours_once();
    for (int i = 0; i < rounds; i++) theirs[i] = theirs_once();
    compare("each by itself", ours, theirs, rounds);
    for (int i = 0; i < rounds; i++) {
        ours[i] = ours_once();
        theirs[i] = theirs_once();
    }
    compare("in turns", ours, theirs, rounds);
    weft_launcher_stop(launcher);
    free(ours);
    free(theirs);
    return 0;
}
