/* One call: an init in fresh namespaces, its request, its limits, its end.
 *
 * This side stands outside the namespaces with the host's privileges and holds the pidfd: time-out,
 * cancel and the watchdog are one SIGKILL to init, and the kernel takes the whole pid namespace with
 * it, stopped and daemonised processes too. It never reads anything a workload wrote.
 * Cloning seven namespaces and mounting a root take 1.2 ms, so an init of the usual shape is made
 * ahead and waits; each serves one call and dies.
 */
#include "sandbox/call.h"
#include "sandbox/confine.h"
#include "sandbox/init.h"
#include "sandbox/watch.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Between two looks at what a call uses. A fast writer takes 20 MB in 10 ms: that is the overshoot
 * where no memory group stands behind the watchdog. */
enum { LOOK_MS = 100, LOOK_WITHOUT_GROUP_MS = 10 };

/* Nothing fills a file system faster than this (a tmpfs takes 6 to 10 GB/s from one writer): where the
 * room above the floor is small, the next look comes before it can be used up. */
enum { DISK_BYTES_PER_MS = 10 << 20 };

typedef struct watched_call {
    const sandbox_call *call;
    sandbox_slot *slot;
    const sandbox_warm *init;
    int cancel, disk;
    int64_t start_ns, disk_floor;
    sandbox_usage most; /* peaks of memory and tasks, the last CPU time */
    sandbox_reply *reply;
} watched_call;

/* --- an init ---------------------------------------------------------------------------------- */

bool sandbox_warm_start(const sandbox_host *host, bool network, bool strict, sandbox_warm *out,
                        sandbox_fault *fault)
{
    int ends[2], pidfd = -1;
    sandbox_warm warm = {.shape = {network, strict, host->trees}};
    warm.report =
        mmap(NULL, sizeof *warm.report, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (warm.report == MAP_FAILED) return sandbox_fault_layer(fault, LAYER_PID_NS, "mmap");
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends)) {
        munmap(warm.report, sizeof *warm.report);
        return sandbox_fault_layer(fault, LAYER_PID_NS, "socketpair");
    }
    warm.sock = ends[0];
    struct clone_args args = {
        .flags = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS |
                 CLONE_NEWCGROUP | CLONE_PIDFD | (network ? 0u : CLONE_NEWNET),
        .pidfd = (uint64_t)(uintptr_t)&pidfd,
        .exit_signal = SIGCHLD,
    };
    warm.pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
    if (warm.pid == 0) {
        /* Nothing of the worker's may live on in init: weft must see a call's end when we die. */
        dup3(ends[1], 3, O_CLOEXEC);
        close_range(4, ~0u, 0);
        sandbox_init_run(&warm.shape,
                         &host->filters[strict    ? FILTER_STRICT
                                        : network ? FILTER_NETWORK
                                                  : FILTER_NORMAL],
                         3, warm.report);
    }
    int error = errno;
    close(ends[1]);
    warm.pidfd = pidfd;
    if (warm.pid < 0) {
        close(ends[0]);
        munmap(warm.report, sizeof *warm.report);
        errno = error;
        return sandbox_fault_layer(fault, LAYER_USER_NS, "clone3 with new namespaces");
    }
    if (!sandbox_ids_map(warm.pid, host->uid, host->gid, fault) ||
        !sandbox_write_full(warm.sock, "g", 1)) {
        sandbox_warm_end(&warm);
        if (!fault->code)
            sandbox_fault_set(fault, WEFT_E_SANDBOX, 0, "sandbox: init died at its start");
        return false;
    }
    *out = warm;
    return true;
}

void sandbox_warm_end(sandbox_warm *warm)
{
    if (warm->pid <= 0) return;
    pidfd_send_signal(warm->pidfd, SIGKILL, NULL, 0);
    waitpid(warm->pid, NULL, 0);
    close(warm->pidfd);
    close(warm->sock);
    munmap(warm->report, sizeof *warm->report);
    warm->pid = 0;
}

/* --- start ------------------------------------------------------------------------------------ */

/* A pipe made by root is root's inode: programs that reopen /dev/stdout could not. Pipes only: what
 * else may come (/dev/null) belongs to the host. */
static bool streams_own(const sandbox_host *host, const sandbox_call *call, sandbox_fault *fault)
{
    if (host->uid == geteuid()) return true;
    for (int i = 0; i < 3; i++) {
        struct stat st;
        if (call->fds[i] < 0 || fstat(call->fds[i], &st) || !S_ISFIFO(st.st_mode)) continue;
        if (fchown(call->fds[i], host->uid, host->gid))
            return sandbox_fault_layer(fault, LAYER_IDS, "chown a standard stream");
    }
    return true;
}

/* Sends the request to init, which has prepared itself or still does. */
static bool request_send(const sandbox_call *call, int sock)
{
    int fds[SANDBOX_MAX_FDS];
    size_t n = 0;
    sandbox_go go = {.request_bytes = call->n_bytes,
                     .has_input = call->fds[0] >= 0,
                     .probe = call->probe,
                     .pids_cgroup = call->pids_cgroup};
    for (int i = 0; i < 3; i++)
        if (call->fds[i] >= 0) fds[n++] = call->fds[i];
    for (size_t i = 0; i < call->n_mounts; i++) {
        const sandbox_mount *m = &call->mounts[i];
        go.mounts[i].has_tree = m->tree >= 0;
        go.mounts[i].directory = m->directory;
        go.mounts[i].device = m->device;
        go.mounts[i].inode = m->inode;
        if (m->tree >= 0) fds[n++] = m->tree;
    }
    return sandbox_send(sock, &go, sizeof go, fds, n) &&
           sandbox_write_full(sock, call->bytes, call->n_bytes);
}

/* --- while it runs ---------------------------------------------------------------------------- */

static void call_kill(watched_call *w, weft_sandbox_hit hit)
{
    /* What the tree used is in /proc only while it lives. */
    sandbox_usage now;
    if (sandbox_watch(w->init->pid, &now) && now.cpu_ns > w->most.cpu_ns)
        w->most.cpu_ns = now.cpu_ns;
    if (w->reply->hit == WEFT_HIT_NONE) w->reply->hit = hit;
    pidfd_send_signal(w->init->pidfd, SIGKILL, NULL, 0);
}

/* Looks at the whole tree. Returns the limit that is exceeded. */
static weft_sandbox_hit limits_look(watched_call *w)
{
    const weft_sandbox_limits *l = &w->call->limits;
    if (weft_monotonic_ns() - w->start_ns > l->wall_ms * 1000000) return WEFT_HIT_WALL;
    if (w->disk >= 0 && sandbox_disk_room(w->disk, w->disk_floor) < 0) return WEFT_HIT_FILE;
    sandbox_usage now;
    if (!sandbox_watch(w->init->pid, &now)) return WEFT_HIT_NONE;
    w->most.cpu_ns = now.cpu_ns;
    if (now.memory_bytes > w->most.memory_bytes) w->most.memory_bytes = now.memory_bytes;
    if (now.tasks > w->most.tasks) w->most.tasks = now.tasks;
    if (!w->slot->has_memory && now.memory_bytes > l->memory_bytes) return WEFT_HIT_MEMORY;
    if (now.cpu_ns / 1000000000 >= l->cpu_seconds + 1) return WEFT_HIT_CPU;
    return WEFT_HIT_NONE;
}

static int wait_ms(const watched_call *w)
{
    int64_t left =
        (w->call->limits.wall_ms * 1000000 - (weft_monotonic_ns() - w->start_ns)) / 1000000;
    int64_t look = w->slot->has_memory ? LOOK_MS : LOOK_WITHOUT_GROUP_MS;
    if (w->disk >= 0) {
        int64_t to_fill = sandbox_disk_room(w->disk, w->disk_floor) / DISK_BYTES_PER_MS;
        if (to_fill < look) look = to_fill < 1 ? 1 : to_fill;
    }
    return left < 0 ? 0 : (int)(left + 1 < look ? left + 1 : look);
}

/* Takes over what init knew at its end. */
static void report_take(watched_call *w, bool complete, bool killed)
{
    sandbox_report *r = &w->reply->report;
    *r = *w->init->report;
    r->layers |= (w->slot->has_memory ? 1u << LAYER_CGROUP_MEMORY : 1u << LAYER_WATCHDOG) |
                 (w->slot->has_pids ? 1u << LAYER_CGROUP_PIDS : 0);
    if (complete) return;
    r->exit_status = -1;
    r->signal = SIGKILL;
    if (!killed && !r->fault.code && !sandbox_slot_oom(w->slot))
        sandbox_fault_set(&r->fault, WEFT_E_SANDBOX, 0, "sandbox: the call's init was killed");
}

/* Returns when init has reported or died. */
static void call_watch(watched_call *w)
{
    bool killed = false, complete = false;
    for (;;) {
        struct pollfd polled[] = {{w->init->sock, POLLIN, 0},
                                  {w->init->pidfd, POLLIN, 0},
                                  {killed ? -1 : w->cancel, POLLIN | POLLRDHUP, 0}};
        int n = poll(polled, 3, killed ? -1 : wait_ms(w));
        if (n < 0 && errno != EINTR) break;
        char done;
        complete = n > 0 && (polled[0].revents & POLLIN) && read(w->init->sock, &done, 1) == 1;
        if (complete || (n > 0 && (polled[0].revents || polled[1].revents))) break;
        weft_sandbox_hit hit = WEFT_HIT_NONE;
        if (n > 0 && polled[2].revents)
            hit = WEFT_HIT_CANCELLED;
        else if (!killed)
            hit = limits_look(w);
        if (hit != WEFT_HIT_NONE) {
            call_kill(w, hit);
            killed = true;
        }
    }
    report_take(w, complete, killed);
}

/* --- the end ---------------------------------------------------------------------------------- */

/* True if the program, or a shell on its behalf, says that this signal ended it. */
static bool ended_by(const sandbox_report *report, int signal)
{
    return report->signal == signal || report->exit_status == 128 + signal;
}

/* Names the limit behind the end. Programs may survive a limit (a handler, a child that took the
 * blow); then only what the kernel counted tells. */
static void hit_find(const watched_call *w)
{
    sandbox_reply *r = w->reply;
    const weft_sandbox_limits *l = &w->call->limits;
    if (r->hit != WEFT_HIT_NONE) return;
    if (sandbox_slot_oom(w->slot))
        r->hit = WEFT_HIT_MEMORY;
    else if (ended_by(&r->report, SIGXCPU) ||
             (r->report.signal == SIGKILL && r->report.cpu_ns / 1000000000 >= l->cpu_seconds))
        r->hit = WEFT_HIT_CPU;
    else if (ended_by(&r->report, SIGXFSZ))
        r->hit = WEFT_HIT_FILE;
    else if (sandbox_slot_full(w->slot) || (!w->slot->has_pids && w->most.tasks >= l->processes))
        r->hit = WEFT_HIT_PROCESSES;
}

static void usage_merge(const watched_call *w)
{
    sandbox_report *r = &w->reply->report;
    if (w->most.cpu_ns > r->cpu_ns) r->cpu_ns = w->most.cpu_ns;
    if (w->most.memory_bytes > r->peak_bytes) r->peak_bytes = w->most.memory_bytes;
}

/* Puts the call into an init and watches it to its end. False if it must be tried in a younger one:
 * this one had died while it waited, or does not see a mount made since. */
static bool call_try(const sandbox_host *host, sandbox_slot *slot, sandbox_warm *warm,
                     const sandbox_call *call, int watched, sandbox_reply *reply)
{
    watched_call w = {.call = call,
                      .slot = slot,
                      .init = warm,
                      .cancel = watched,
                      .disk = -1,
                      .start_ns = weft_monotonic_ns(),
                      .reply = reply};
    if (!request_send(call, warm->sock)) return false;
    if (call->has_workdir && call->mounts[0].writable) {
        w.disk = open(call->mounts[0].host, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (w.disk >= 0) w.disk_floor = sandbox_disk_floor(w.disk, call->limits.file_bytes);
    }
    call_watch(&w);
    usage_merge(&w);
    hit_find(&w);
    reply->no_proc = !(host->verdict.layers & 1u << LAYER_PROC);
    reply->wall_ns = weft_monotonic_ns() - w.start_ns;
    sandbox_close(&w.disk);
    return !reply->report.stale;
}

void sandbox_call_run(const sandbox_host *host, sandbox_slot *slot, sandbox_warm *warm,
                      sandbox_call *call, int watched, sandbox_reply *reply)
{
    sandbox_fault *fault = &reply->report.fault;
    call->pids_cgroup = slot->has_pids;
    if (!sandbox_slot_limit(slot, &call->limits)) {
        sandbox_fault_layer(fault, LAYER_CGROUP_MEMORY, "set the limits of the group");
        return;
    }
    if (!sandbox_mounts_open(call, host->uid, host->gid, fault) || !streams_own(host, call, fault))
        return;
    if (warm->pid > 0 && warm->shape.network == call->network &&
        warm->shape.strict == call->strict && call_try(host, slot, warm, call, watched, reply))
        return;
    sandbox_warm_end(warm);
    *reply = (sandbox_reply){.report.hole = -1};
    if (!sandbox_warm_start(host, call->network, call->strict, warm, fault)) return;
    if (!call_try(host, slot, warm, call, watched, reply) && !fault->code)
        sandbox_fault_set(fault, WEFT_E_SANDBOX, 0, "sandbox: init died at its start");
}
