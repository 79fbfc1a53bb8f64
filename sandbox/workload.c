/* The last steps before a stranger's program runs: the child of init confines itself and execs.
 *
 * Order matters. Descriptors and limits first, then Landlock, then seccomp, which would forbid the
 * others. Between seccomp and exec only sendmsg, close_range and execve are called.
 */
#include "sandbox/confine.h"
#include "sandbox/effects.h"
#include "sandbox/init.h"
#include "sandbox/landlock.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PROGRAM_BYTES = 4096 };

static bool program_find(const char *name, char *out, sandbox_fault *fault)
{
    static const char *const directories[] = {"/usr/bin/", "/bin/"};
    if (strchr(name, '/')) {
        if ((size_t)snprintf(out, PROGRAM_BYTES, "%s", name) < PROGRAM_BYTES &&
            access(out, F_OK) == 0)
            return true;
        return sandbox_fault_set(fault, WEFT_E_NOT_FOUND, 0, "%s does not exist in the sandbox",
                                 name);
    }
    for (size_t i = 0; i < sizeof directories / sizeof *directories; i++)
        if ((size_t)snprintf(out, PROGRAM_BYTES, "%s%s", directories[i], name) < PROGRAM_BYTES &&
            access(out, F_OK) == 0)
            return true;
    return sandbox_fault_set(fault, WEFT_E_NOT_FOUND, 0,
                             "%s is not in /usr/bin of the sandbox: install it on the host", name);
}

static bool streams_take(const sandbox_call *call, sandbox_fault *fault)
{
    int in = call->fds[0] >= 0 ? call->fds[0] : open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (in < 0 || dup2(in, 0) < 0 || dup2(call->fds[1], 1) < 0 || dup2(call->fds[2], 2) < 0)
        return sandbox_fault_layer(fault, LAYER_RLIMITS, "standard streams");
    /* Whatever an ancestor left open ends at the exec; no flag can have been forgotten. */
    if (close_range(3, ~0u, CLOSE_RANGE_CLOEXEC))
        return sandbox_fault_layer(fault, LAYER_RLIMITS, "close_range");
    return true;
}

static void signals_reset(void)
{
    struct sigaction standard = {.sa_handler = SIG_DFL};
    for (int i = 1; i < NSIG; i++) sigaction(i, &standard, NULL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static bool confine(const sandbox_call *call, const sandbox_filter *filter, int *out_listener,
                    sandbox_note *note)
{
    if (!sandbox_rlimits_set(call, &note->fault)) return false;
    note->layers |= 1u << LAYER_RLIMITS;
    if (!sandbox_landlock_apply(call, &note->fault)) return false;
    note->layers |= 1u << LAYER_LANDLOCK;
    if (!sandbox_filter_install(filter, out_listener, &note->fault)) return false;
    note->layers |= 1u << LAYER_SECCOMP;
    return true;
}

static _Noreturn void refuse(const sandbox_note *note, int sock)
{
    sandbox_send(sock, note, sizeof *note, NULL, 0);
    _exit(127);
}

void sandbox_workload_run(const sandbox_call *call, const sandbox_filter *filter, int sock)
{
    sandbox_note note = {.hole = -1};
    char program[PROGRAM_BYTES];
    int listener = -1;
    setsid();
    umask(077);
    signals_reset();
    if (chdir(call->cwd)) {
        sandbox_fault_set(&note.fault, WEFT_E_CONFIG, errno, "current directory %s in the sandbox",
                          call->cwd);
        refuse(&note, sock);
    }
    if ((!call->probe && !program_find(call->argv[0], program, &note.fault)) ||
        !streams_take(call, &note.fault) || !confine(call, filter, &listener, &note) ||
        !sandbox_send(sock, &note, sizeof note, &listener, 1))
        refuse(&note, sock);
    close(listener);
    if (call->probe) {
        note.hole = sandbox_effects_try();
        sandbox_send(sock, &note, sizeof note, NULL, 0);
        _exit(0);
    }
    execve(program, call->argv, call->env);
    sandbox_fault_set(&note.fault, errno == ENOENT ? WEFT_E_NOT_FOUND : WEFT_E_INVALID, errno,
                      "start %s in the sandbox", program);
    refuse(&note, sock);
}
