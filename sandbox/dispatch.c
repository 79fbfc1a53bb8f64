/* The launcher process.
 *
 * It was forked before weft held a model or a key, wipes the environment it was born with, and keeps
 * no descriptor but its socket. First it finds out, by a call that runs the effect probes, what this
 * host allows; then it waits. While nothing is asked it starts a few workers ahead, since entering a
 * version 1 memory group takes 12 ms and holds up every fork meanwhile; calls side by side get a
 * worker each, in turn, so that a worker has time to make its next init ready. It ends when weft
 * does: by the signal of its parent's death, or by the end of its socket.
 * Tried and dropped: workers that take requests from one shared socket themselves. One process switch
 * less and 5 % on an idle machine, but a median 1.5 times as long on a loaded one.
 */
#include "sandbox/dispatch.h"
#include "sandbox/confine.h"
#include "sandbox/effects.h"
#include "sandbox/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_WORKERS = 64, AHEAD_WORKERS = 4, MAX_IDLE = 8, QUIET_MS = 20 };

typedef struct worker {
    pid_t pid; /* 0: the entry is free */
    int sock;
    bool heard;        /* it has said that it is ready */
    bool busy;         /* has a request, or is ending */
    uint64_t ready_at; /* launcher's count of events: the longest ready goes first */
    sandbox_slot slot;
} worker;

typedef struct launcher {
    int sock, signals;
    sandbox_host host;
    uint64_t events;
    bool called; /* a workload was asked for once */
    worker workers[MAX_WORKERS];
} launcher;

/* --- start ------------------------------------------------------------------------------------ */

/* Only sock survives, as descriptor 3; the standard streams become /dev/null. */
static int descriptors_clear(int sock)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0) _exit(1);
    if (sock != 3) {
        if (null == 3 && (null = dup(3)) < 0) _exit(1);
        if (dup3(sock, 3, O_CLOEXEC) != 3) _exit(1);
    }
    for (int fd = 0; fd < 3; fd++)
        if (dup2(null, fd) != fd) _exit(1);
    close_range(4, ~0u, 0);
    return 3;
}

/* weft's environment may hold keys. The strings are ours after fork; wipe them. */
static void environment_wipe(void)
{
    extern char **environ;
    static char *none[] = {NULL};
    for (char **entry = environ; entry && *entry; entry++) explicit_bzero(*entry, strlen(*entry));
    environ = none;
}

static void become_launcher(launcher *l, int sock, pid_t parent)
{
    prctl(PR_SET_NAME, "weft-launcher", 0, 0, 0);
    /* A signal that can be caught, so that the groups are removed; see the loop. */
    prctl(PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0);
    if (getppid() != parent) _exit(0);
    sigset_t all, watched;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    struct sigaction standard = {.sa_handler = SIG_DFL};
    for (int i = 1; i < NSIG; i++) sigaction(i, &standard, NULL);
    setsid(); /* Ctrl-C in weft's terminal is weft's business */
    umask(077);
    environment_wipe();
    l->sock = descriptors_clear(sock);
    if (chdir("/")) _exit(1);
    sigemptyset(&watched);
    sigaddset(&watched, SIGCHLD);
    sigaddset(&watched, SIGTERM);
    l->signals = signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK);
    if (l->signals < 0) _exit(1);
    /* Root's supplementary groups would otherwise stay with the workload. */
    if (geteuid() == 0) setgroups(0, NULL);
    l->host.has_ids = sandbox_outer_ids(&l->host.uid, &l->host.gid);
    int tree = open_tree(AT_FDCWD, "/usr", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    l->host.trees = tree >= 0;
    sandbox_close(&tree);
}

static void missing_add(sandbox_verdict *v, const sandbox_fault *fault)
{
    if (v->n_missing < SANDBOX_MAX_MISSING) v->missing[v->n_missing++] = *fault;
}

/* Runs the effect probes in a throw-away call with every layer on. */
static void probe_run(const sandbox_host *host, sandbox_reply *reply)
{
    const char *const argv[] = {"probe", NULL};
    const weft_sandbox_request request = {
        .argv = argv, .limits = {.wall_ms = 10000, .memory_bytes = 1 << 28, .processes = 8}};
    sandbox_fault *fault = &reply->report.fault;
    sandbox_call call = {.fds = {-1, -1, -1}};
    sandbox_slot no_group = {0};
    sandbox_warm warm = {.pid = 0};
    weft_buffer bytes = WEFT_BUFFER_INIT;
    weft_error err;
    if (sandbox_request_encode(&request, &bytes, &err)) {
        sandbox_fault_set(fault, err.code, 0, "sandbox: %.200s", err.message);
    } else {
        size_t n = bytes.size - sizeof(uint64_t); /* the decoder starts behind the size */
        memmove(bytes.data, bytes.data + sizeof(uint64_t), n);
        if (sandbox_call_decode(bytes.data, n, &call, fault)) {
            bytes = (weft_buffer)WEFT_BUFFER_INIT; /* the call has it */
            call.probe = true;
            call.fds[1] = open("/dev/null", O_WRONLY | O_CLOEXEC);
            call.fds[2] = open("/dev/null", O_WRONLY | O_CLOEXEC);
            sandbox_call_run(host, &no_group, &warm, &call, -1, reply);
        }
    }
    sandbox_warm_end(&warm);
    sandbox_call_free(&call);
    weft_buffer_free(&bytes);
}

/* Sets up every layer around a throw-away workload and lets it try what they must deny. */
static void host_judge(launcher *l)
{
    sandbox_verdict *v = &l->host.verdict;
    sandbox_reply reply = {.report.hole = -1};
    sandbox_fault *fault = &reply.report.fault;
    bool compiled = l->host.has_ids;
    errno = EPERM;
    if (!compiled)
        sandbox_fault_layer(fault, LAYER_IDS, "root has no other id to give to the workload");
    for (int i = 0; compiled && i < FILTER_COUNT; i++)
        compiled = sandbox_filter_build((sandbox_filter_kind)i, &l->host.filters[i], fault);
    if (compiled) probe_run(&l->host, &reply);
    int hole = reply.report.hole;
    if (!fault->code && hole >= 0) {
        errno = 0;
        sandbox_fault_layer(fault, sandbox_effect_layer(hole), "a confined program could %s",
                            sandbox_effect_name(hole));
    }
    if (!fault->code && (reply.report.signal || reply.report.exit_status != 0))
        sandbox_fault_set(fault, WEFT_E_SANDBOX, 0,
                          "sandbox: the probe ended by signal %d, status %d", reply.report.signal,
                          reply.report.exit_status);
    v->usable = fault->code == WEFT_OK;
    v->layers = reply.report.layers & ~(1u << LAYER_WATCHDOG);
    if (fault->code) missing_add(v, fault);
    if (v->usable && !(v->layers & 1u << LAYER_PROC)) {
        errno = EPERM;
        sandbox_fault_layer(fault, LAYER_PROC, "mount /proc inside");
        missing_add(v, fault);
    }
}

/* --- workers ---------------------------------------------------------------------------------- */

static void groups_note(sandbox_verdict *v, const sandbox_slot *slot)
{
    sandbox_fault fault = {0};
    v->layers |= (slot->has_memory ? 1u << LAYER_CGROUP_MEMORY : 1u << LAYER_WATCHDOG) |
                 (slot->has_pids ? 1u << LAYER_CGROUP_PIDS : 0);
    if (slot->has_memory) return;
    errno = EACCES;
    sandbox_fault_layer(&fault, LAYER_CGROUP_MEMORY, "make a memory group");
    missing_add(v, &fault);
}

static worker *worker_start(launcher *l, unsigned index)
{
    worker *w = &l->workers[index];
    int ends[2];
    if (index >= MAX_WORKERS) return NULL;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends)) return NULL;
    sandbox_slot_make(&l->host.cgroups, getpid(), index, &w->slot);
    pid_t launcher_pid = getpid();
    w->pid = sandbox_slot_fork(&w->slot);
    if (w->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
        if (getppid() != launcher_pid) _exit(0);
        dup3(ends[1], 3, O_CLOEXEC);
        close_range(4, ~0u, 0);
        sandbox_worker_run(&l->host, &w->slot, 3);
    }
    close(ends[1]);
    if (w->pid < 0) {
        close(ends[0]);
        sandbox_slot_remove(&w->slot);
        w->pid = 0;
        return NULL;
    }
    w->sock = ends[0];
    w->heard = false;
    w->ready_at = UINT64_MAX; /* those that are ready go first */
    w->busy = false;          /* a request may wait in its socket while it gets ready */
    return w;
}

/* Forgets a worker that has ended. Its socket may still hold a request: weft sees the end of the
 * reply socket and reports it. */
static void worker_bury(worker *w)
{
    sandbox_close(&w->sock);
    sandbox_slot_remove(&w->slot);
    w->pid = 0;
    w->busy = false;
}

/* Index of a free entry, or MAX_WORKERS. */
static unsigned worker_free(const launcher *l)
{
    unsigned i = 0;
    while (i < MAX_WORKERS && l->workers[i].pid) i++;
    return i;
}

/* True if a worker should be started as soon as nothing else is to be done. Not before the first call:
 * until then weft loads a model with all cores, and many runs call nothing. */
static bool worker_wanted(const launcher *l)
{
    return l->called && l->host.verdict.usable && worker_free(l) < AHEAD_WORKERS;
}

/* The worker that has been idle for longest, or a new one. */
static worker *worker_idle(launcher *l)
{
    worker *longest = NULL;
    for (unsigned i = 0; i < MAX_WORKERS; i++) {
        worker *w = &l->workers[i];
        if (w->pid && !w->busy && (!longest || w->ready_at < longest->ready_at)) longest = w;
    }
    return longest ? longest : worker_start(l, worker_free(l));
}

/* After a burst all but MAX_IDLE go. */
static void workers_trim(launcher *l)
{
    unsigned idle = 0;
    for (unsigned i = 0; i < MAX_WORKERS; i++) {
        worker *w = &l->workers[i];
        if (w->pid && !w->busy && ++idle > MAX_IDLE) {
            shutdown(w->sock, SHUT_WR); /* it reads the end and exits */
            w->busy = true;
        }
    }
}

static void children_reap(launcher *l)
{
    for (pid_t pid; (pid = waitpid(-1, NULL, WNOHANG)) > 0;)
        for (unsigned i = 0; i < MAX_WORKERS; i++)
            if (l->workers[i].pid == pid) worker_bury(&l->workers[i]);
}

static _Noreturn void launcher_end(launcher *l)
{
    for (unsigned i = 0; i < MAX_WORKERS; i++)
        if (l->workers[i].pid) kill(l->workers[i].pid, SIGKILL);
    for (unsigned i = 0; i < MAX_WORKERS; i++)
        if (l->workers[i].pid) {
            waitpid(l->workers[i].pid, NULL, 0);
            worker_bury(&l->workers[i]);
        }
    _exit(0);
}

/* --- requests --------------------------------------------------------------------------------- */

static void reply_refusal(const launcher *l, int fd, const sandbox_fault *fault)
{
    sandbox_reply reply = {.report = {.hole = -1, .fault = *fault}};
    reply.report.layers = l->host.verdict.layers;
    sandbox_write_full(fd, &reply, sizeof reply);
}

/* Hands the descriptors of a call to a worker, or answers why not. */
static void call_assign(launcher *l, const int *fds, size_t n_fds)
{
    const uint32_t ticket = TICKET_RUN;
    l->called = true;
    if (!l->host.verdict.usable) {
        reply_refusal(l, fds[TICKET_FD_REPLY], &l->host.verdict.missing[0]);
        return;
    }
    for (worker *w; (w = worker_idle(l));) {
        w->busy = true; /* also if it has just died: SIGCHLD will bury it */
        if (sandbox_send(w->sock, &ticket, sizeof ticket, fds, n_fds)) return;
    }
    sandbox_fault fault = {0};
    sandbox_fault_set(&fault, WEFT_E_SANDBOX, errno,
                      "sandbox: no process for one more call at a time");
    reply_refusal(l, fds[TICKET_FD_REPLY], &fault);
}

static void ticket_take(launcher *l)
{
    uint32_t ticket;
    int fds[SANDBOX_MAX_FDS];
    size_t n_fds;
    ssize_t n = sandbox_receive(l->sock, &ticket, sizeof ticket, fds, SANDBOX_MAX_FDS, &n_fds);
    if (n <= 0) launcher_end(l);
    if (n == (ssize_t)sizeof ticket && ticket == TICKET_CHECK && n_fds == 1)
        sandbox_write_full(fds[0], &l->host.verdict, sizeof l->host.verdict);
    else if (n == (ssize_t)sizeof ticket && ticket == TICKET_RUN && n_fds > TICKET_FD_ERR)
        call_assign(l, fds, n_fds);
    for (size_t i = 0; i < n_fds; i++) close(fds[i]);
}

static void signals_take(launcher *l)
{
    struct signalfd_siginfo info;
    bool end = false;
    while (read(l->signals, &info, sizeof info) == (ssize_t)sizeof info)
        end = end || info.ssi_signo == SIGTERM;
    if (end) launcher_end(l);
    children_reap(l);
}

/* A worker says that it is ready, or its socket that it has ended. */
static void worker_hear(launcher *l, worker *w)
{
    sandbox_ready ready;
    if (sandbox_receive(w->sock, &ready, sizeof ready, NULL, 0, NULL) == (ssize_t)sizeof ready) {
        w->slot.has_memory = ready.has_memory;
        w->slot.has_pids = ready.has_pids;
        /* One that got a request before its first word is busy still. */
        if (w->heard) w->busy = false;
        w->heard = true;
        w->ready_at = ++l->events;
    } else {
        sandbox_close(&w->sock);
        w->busy = true; /* until SIGCHLD buries it */
    }
}

static void launcher_loop(launcher *l)
{
    struct pollfd polled[MAX_WORKERS + 2] = {{l->sock, POLLIN, 0}, {l->signals, POLLIN, 0}};
    for (unsigned i = 0; i < MAX_WORKERS; i++)
        polled[i + 2] = (struct pollfd){l->workers[i].sock, POLLIN, 0};
    int n = poll(polled, MAX_WORKERS + 2, worker_wanted(l) ? QUIET_MS : -1);
    if (n < 0 && errno != EINTR) launcher_end(l);
    if (n == 0) worker_start(l, worker_free(l));
    if (polled[1].revents) signals_take(l);
    for (unsigned i = 0; i < MAX_WORKERS; i++)
        if (polled[i + 2].revents && l->workers[i].sock == polled[i + 2].fd)
            worker_hear(l, &l->workers[i]);
    if (polled[0].revents) ticket_take(l);
    workers_trim(l);
}

void sandbox_launcher_run(int sock, pid_t parent)
{
    launcher *l = calloc(1, sizeof *l);
    if (!l) _exit(1);
    for (unsigned i = 0; i < MAX_WORKERS; i++) l->workers[i].sock = -1;
    become_launcher(l, sock, parent);
    host_judge(l);
    if (l->host.verdict.usable) {
        sandbox_cgroups_find(&l->host.cgroups);
        worker *first = worker_start(l, 0);
        if (!first) _exit(1);
        worker_hear(l, first); /* which groups it could enter belongs to the verdict */
        groups_note(&l->host.verdict, &first->slot);
    }
    for (;;) launcher_loop(l);
}
