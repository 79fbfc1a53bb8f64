/* One call as the worker sees it: an init to run it in, limits to watch, an answer. */
#ifndef WEFT_SANDBOX_CALL_H
#define WEFT_SANDBOX_CALL_H

#include "sandbox/cgroup.h"
#include "sandbox/filter.h"
#include "sandbox/rootfs.h"
#include "sandbox/wire.h"

/* What the launcher found out about this host; workers inherit it by fork. */
typedef struct sandbox_host {
    uid_t uid; /* of workloads, as the host sees them */
    gid_t gid;
    bool has_ids; /* they are not root's */
    bool trees;   /* this process may clone mounts (open_tree) */
    sandbox_filter filters[FILTER_COUNT];
    sandbox_cgroups cgroups;
    sandbox_verdict verdict;
} sandbox_host;

/* An init that was cloned and waits for its request; pid 0: none. */
typedef struct sandbox_warm {
    sandbox_shape shape;
    pid_t pid;
    int pidfd, sock;
    sandbox_report *report; /* shared with it: what it knows up to now, also when it is killed */
} sandbox_warm;

/* Clones an init into fresh namespaces and maps its ids; it prepares itself meanwhile. */
bool sandbox_warm_start(const sandbox_host *host, bool network, bool strict, sandbox_warm *out,
                        sandbox_fault *fault);
/* Kills and reaps it. */
void sandbox_warm_end(sandbox_warm *warm);

/* Runs one decoded call to its end, in `warm` if that fits (pid 0: in an init of its own). `watched`
 * (or -1): a byte, or the end of its peer, cancels. On return warm is the init that ran it, about to
 * exit and still to be ended. */
void sandbox_call_run(const sandbox_host *host, sandbox_slot *slot, sandbox_warm *warm,
                      sandbox_call *call, int watched, sandbox_reply *reply);

#endif
