/* Pid 1 of a call.
 *
 * It builds what the workload will see, starts it, and is the only process that can outlive it: when
 * the workload ends, one kill(-1) reaches every process of the namespace (the kernel refuses forks of
 * a process with a fatal signal pending, so none is missed), and the report leaves only after the
 * last of them was reaped. Killed from outside, the kernel does the same.
 * Init is never under attack by content: it reads fixed structures only, from the kernel and, before
 * the exec, from its own child. The workload cannot signal it (it ignores everything), trace it (not
 * dumpable) or see it (hidepid).
 */
#include "sandbox/init.h"
#include "sandbox/confine.h"
#include "sandbox/effects.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { NOTIFICATION_BYTES = 512 };

typedef struct supervisor {
    const sandbox_shape *shape;
    sandbox_call call;
    sandbox_report *report;
    pid_t workload;
    bool ended;       /* the workload was reaped */
    bool exec_passed; /* strict: the one exec has happened */
    int sock, signals, notes, listener;
} supervisor;

/* --- before the workload ---------------------------------------------------------------------- */

/* Asks to die with the worker, and makes sure that it still lives: an end between its death and the
 * request would go unnoticed. */
static bool bind_to_worker(int sock, sandbox_fault *fault)
{
    char byte;
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0))
        return sandbox_fault_layer(fault, LAYER_PID_NS, "PR_SET_PDEATHSIG");
    if (recv(sock, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0) _exit(1);
    return true;
}

/* The kernel shall take the workload first when memory runs out. Returns a descriptor with which
 * init takes itself out again, since after the pivot there is no host /proc. */
static int prefer_for_oom(void)
{
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd >= 0 && write(fd, "1000", 4) != 4) sandbox_close(&fd);
    return fd;
}

/* What needs no request. The caller has mapped our ids when it says go. */
static bool prepare(const sandbox_shape *shape, int sock, int *out_root, sandbox_report *report)
{
    sandbox_fault *fault = &report->fault;
    char go;
    if (!bind_to_worker(sock, fault)) return false;
    if (!sandbox_read_full(sock, &go, 1)) _exit(1);
    report->layers |= 1u << LAYER_USER_NS | 1u << LAYER_MOUNT_NS | 1u << LAYER_PID_NS |
                      1u << LAYER_IPC_NS | 1u << LAYER_UTS_NS | 1u << LAYER_CGROUP_NS |
                      (shape->network ? 0 : 1u << LAYER_NET_NS);
    if (!sandbox_ids_take(fault) || !bind_to_worker(sock, fault)) return false;
    report->layers |= 1u << LAYER_IDS;
    if (!sandbox_root_build(shape, out_root, &report->layers, fault)) return false;
    if (sethostname("weft", 4)) return sandbox_fault_layer(fault, LAYER_UTS_NS, "sethostname");
    if (!sandbox_capabilities_bound(fault)) return false;
    setsid(); /* fails only for a leader, which pid 1 of a namespace may be already */
    return true;
}

/* Gives the request its descriptors. False if their number is not what the message says. */
static bool descriptors_assign(sandbox_call *call, const sandbox_go *go, const int *fds, size_t n)
{
    size_t at = 0, want = 2 + go->has_input;
    for (size_t i = 0; i < call->n_mounts; i++) want += go->mounts[i].has_tree;
    if (n != want) return false;
    call->fds[0] = go->has_input ? fds[at++] : -1;
    call->fds[1] = fds[at++];
    call->fds[2] = fds[at++];
    for (size_t i = 0; i < call->n_mounts; i++) {
        sandbox_mount *m = &call->mounts[i];
        m->tree = go->mounts[i].has_tree ? fds[at++] : -1;
        m->directory = go->mounts[i].directory;
        m->device = go->mounts[i].device;
        m->inode = go->mounts[i].inode;
    }
    return true;
}

/* Waits for the request. Ends the process if the worker goes away first. */
static bool request_take(supervisor *s)
{
    sandbox_fault *fault = &s->report->fault, ignored;
    sandbox_go go;
    int fds[SANDBOX_MAX_FDS];
    size_t n_fds;
    if (sandbox_receive(s->sock, &go, sizeof go, fds, SANDBOX_MAX_FDS, &n_fds) !=
        (ssize_t)sizeof go)
        _exit(0);
    char *bytes = malloc(go.request_bytes + 1);
    if (!bytes || !sandbox_read_full(s->sock, bytes, go.request_bytes)) _exit(1);
    /* A fault of the preparation stands; the request was taken so that it can be answered. */
    if (fault->code) fault = &ignored;
    if (!sandbox_call_decode(bytes, go.request_bytes, &s->call, fault)) return false;
    if (!descriptors_assign(&s->call, &go, fds, n_fds))
        return sandbox_fault_set(fault, WEFT_E_INVALID, 0, "sandbox: descriptors are missing");
    s->call.probe = go.probe;
    s->call.pids_cgroup = go.pids_cgroup;
    return true;
}

static bool complete(supervisor *s, int root)
{
    sandbox_report *r = s->report;
    if (!sandbox_root_finish(&s->call, s->shape, root, &r->layers, &r->stale, &r->fault))
        return false;
    if (!sandbox_capabilities_drop(&r->fault)) return false;
    r->layers |= 1u << LAYER_CAPABILITIES | 1u << LAYER_NO_NEW_PRIVS;
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
        return sandbox_fault_layer(&r->fault, LAYER_PID_NS, "PR_SET_DUMPABLE");
    /* The workload is forked from here; the report is not for it, not even until its exec. */
    if (madvise(r, sizeof *r, MADV_DONTFORK))
        return sandbox_fault_layer(&r->fault, LAYER_PID_NS, "MADV_DONTFORK");
    return true;
}

/* --- the notifications ------------------------------------------------------------------------ */

static void denial_count(sandbox_report *report, int call)
{
    for (uint32_t i = 0; i < report->n_denials; i++)
        if (report->denials[i].call == call) {
            if (report->denials[i].count < UINT32_MAX) report->denials[i].count++;
            return;
        }
    if (report->n_denials == SANDBOX_MAX_DENIALS) return;
    report->denials[report->n_denials] = (sandbox_denial){call, 1};
    report->n_denials++;
}

/* Answers one notification: EPERM, except for the exec that starts a strict workload. */
static void denial_answer(supervisor *s)
{
    union {
        struct seccomp_notif body;
        char room[NOTIFICATION_BYTES];
    } request;
    union {
        struct seccomp_notif_resp body;
        char room[NOTIFICATION_BYTES];
    } answer;
    memset(&request, 0, sizeof request);
    memset(&answer, 0, sizeof answer);
    /* ENOENT: the caller was killed meanwhile. */
    if (ioctl(s->listener, SECCOMP_IOCTL_NOTIF_RECV, &request)) return;
    answer.body.id = request.body.id;
    if (s->shape->strict && !s->exec_passed && request.body.data.nr == SYS_execve) {
        s->exec_passed = true;
        answer.body.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
    } else {
        answer.body.error = -EPERM;
        denial_count(s->report, request.body.data.nr);
    }
    ioctl(s->listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
}

/* Kernels may enlarge the structures; ours must hold them. */
static bool notification_fits(void)
{
    struct seccomp_notif_sizes sizes;
    return syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes) == 0 &&
           sizes.seccomp_notif <= NOTIFICATION_BYTES &&
           sizes.seccomp_notif_resp <= NOTIFICATION_BYTES;
}

/* --- the workload's life ---------------------------------------------------------------------- */

static void note_take(supervisor *s)
{
    sandbox_note note;
    int fd = -1;
    size_t n_fds = 0;
    if (sandbox_receive(s->notes, &note, sizeof note, &fd, 1, &n_fds) != (ssize_t)sizeof note) {
        if (n_fds) close(fd);
        sandbox_close(&s->notes); /* exec, or its end, has closed the other end */
        return;
    }
    s->report->layers |= note.layers;
    if (note.hole >= 0) s->report->hole = note.hole;
    if (note.fault.code && !s->report->fault.code) s->report->fault = note.fault;
    if (n_fds) {
        sandbox_close(&s->listener);
        s->listener = fd;
        if (!notification_fits()) {
            errno = ENOSYS;
            sandbox_fault_layer(&s->report->fault, LAYER_SECCOMP, "seccomp notification size");
            kill(s->workload, SIGKILL);
        }
    }
}

static void children_reap(supervisor *s)
{
    struct signalfd_siginfo info;
    while (read(s->signals, &info, sizeof info) > 0) continue;
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
        if (pid != s->workload) continue;
        s->ended = true;
        s->report->exit_status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
        s->report->signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    }
}

static void supervise(supervisor *s)
{
    while (!s->ended) {
        struct pollfd polled[] = {
            {s->signals, POLLIN, 0},
            /* After the listener only a failed exec speaks, and that ends the workload anyway. */
            {s->listener < 0 ? s->notes : -1, POLLIN, 0},
            {s->listener, POLLIN, 0}};
        if (poll(polled, 3, -1) < 0 && errno != EINTR) break;
        if (polled[2].revents & POLLIN)
            denial_answer(s);
        else if (polled[2].revents)
            sandbox_close(&s->listener); /* nobody is under the filter any more */
        if (polled[1].revents) note_take(s);
        if (polled[0].revents & POLLIN) children_reap(s);
    }
    /* What it said last may still lie in the socket. */
    struct pollfd last = {s->notes, POLLIN, 0};
    while (s->notes >= 0 && poll(&last, 1, 0) > 0) {
        note_take(s);
        last.fd = s->notes;
    }
    kill(-1, SIGKILL);
    sandbox_close(&s->listener);
    while (waitpid(-1, NULL, 0) > 0 || errno == EINTR) continue;
}

static bool workload_start(supervisor *s, const sandbox_filter *filter)
{
    int ends[2];
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    s->signals = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
    if (s->signals < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
        return sandbox_fault_layer(&s->report->fault, LAYER_PID_NS, "prepare the workload");
    s->notes = ends[0];
    s->workload = fork();
    if (s->workload == 0) {
        close(s->sock);
        close(ends[0]);
        sandbox_workload_run(&s->call, filter, ends[1]);
    }
    close(ends[1]);
    if (s->workload < 0)
        return sandbox_fault_layer(&s->report->fault, LAYER_PID_NS, "fork the workload");
    return true;
}

static void usage_note(sandbox_report *report)
{
    struct rusage used;
    if (getrusage(RUSAGE_CHILDREN, &used)) return;
    report->cpu_ns = ((int64_t)used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000000 +
                     ((int64_t)used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1000;
    report->peak_bytes = (int64_t)used.ru_maxrss * 1024;
}

void sandbox_init_run(const sandbox_shape *shape, const sandbox_filter *filter, int sock,
                      sandbox_report *report)
{
    supervisor s = {
        .shape = shape, .sock = sock, .report = report, .signals = -1, .notes = -1, .listener = -1};
    int root = -1, oom = prefer_for_oom();
    report->hole = -1;
    bool prepared = prepare(shape, sock, &root, report);
    if (request_take(&s) && prepared && complete(&s, root) && workload_start(&s, filter)) {
        if (oom >= 0 && write(oom, "0", 1) != 1) _exit(1);
        for (int i = 0; i < 3; i++) sandbox_close(&s.call.fds[i]);
        supervise(&s);
        usage_note(report);
    }
    sandbox_write_full(sock, "d", 1);
    _exit(0);
}
