/* What travels between the processes of the sandbox, and how.
 *
 *   weft ──ticket + descriptors──> launcher ──the same──> worker        SEQPACKET
 *   weft ══request, cancel══> worker ══sandbox_reply══> weft            STREAM, one per call
 *   worker ──sandbox_go + descriptors, request──> init ──one byte──> worker
 *                                                                       STREAM, one per init
 *   workload ──sandbox_note──> init                                     SEQPACKET, until its exec
 *
 * Each call brings its own reply socket, so calls of several threads never share one. All ends run
 * the same program image: structures travel as they are, only strings are encoded. The request is
 * [uint64 size][sandbox_head][strings, NUL-terminated], its decoder checks every bound all the same.
 */
#ifndef WEFT_SANDBOX_WIRE_H
#define WEFT_SANDBOX_WIRE_H

#include "sandbox/layers.h"
#include "sandbox/sandbox.h"

#include <sys/types.h>

enum {
    SANDBOX_MAX_FDS = 72, /* three streams, the workspace and the binds */
    SANDBOX_MAX_DENIALS = 64,
    SANDBOX_MAX_BINDS = 64,
    SANDBOX_MAX_REQUEST_BYTES = 16 << 20,
};

/* First message of a call: what is wanted, with the descriptors it needs. */
typedef enum sandbox_ticket {
    TICKET_RUN = 1,   /* [reply, out, err, in?] */
    TICKET_CHECK = 2, /* [reply] */
} sandbox_ticket;
enum { TICKET_FD_REPLY, TICKET_FD_OUT, TICKET_FD_ERR, TICKET_FD_IN };

/* One extra mount, or the workspace (inside = "/work"). */
typedef struct sandbox_mount {
    const char *host, *inside;
    bool writable;
    bool directory;
    int tree;               /* detached mount (open_tree), or -1 while init has to make it */
    uint64_t device, inode; /* what the worker saw at `host` */
} sandbox_mount;

/* A decoded request: borrows its strings from `bytes`. */
typedef struct sandbox_call {
    char *bytes;
    size_t n_bytes;
    char **argv; /* NULL-terminated */
    char **env;  /* NULL-terminated: the whole environment, fixed part included */
    const char *cwd;
    sandbox_mount *mounts; /* [n_mounts], the workspace first if there is one */
    size_t n_mounts;
    bool has_workdir, network, strict;
    bool probe;       /* run the effect probes in place of argv */
    bool pids_cgroup; /* the worker has a group that counts processes */
    weft_sandbox_limits limits;
    int fds[3]; /* standard streams of the workload; in = -1: /dev/null */
} sandbox_call;

typedef struct sandbox_denial {
    int32_t call; /* system call number */
    uint32_t count;
} sandbox_denial;

/* What init gets besides the request's bytes, which follow it. Descriptors with it: the standard
 * streams (input only if has_input), then the trees of the mounts that have one. */
typedef struct sandbox_go {
    uint64_t request_bytes;
    bool has_input, probe, pids_cgroup;
    struct {
        bool has_tree, directory;
        uint64_t device, inode;
    } mounts[SANDBOX_MAX_BINDS + 1];
} sandbox_go;

/* What init saw, in memory that it shares with the worker: complete when init says so with one byte,
 * and known up to the last step when init was killed. */
typedef struct sandbox_report {
    sandbox_fault fault; /* code != WEFT_OK: it was not run */
    int32_t exit_status, signal;
    int64_t cpu_ns, peak_bytes;
    sandbox_layers layers;
    int32_t hole; /* probe calls: index of an effect probe that succeeded, or -1 */
    bool stale;   /* init's view of the host's mounts is older than the request: ask another */
    uint32_t n_denials;
    sandbox_denial denials[SANDBOX_MAX_DENIALS];
} sandbox_report;

/* The worker's answer to weft. */
typedef struct sandbox_reply {
    sandbox_report report;
    bool no_proc; /* the host's level */
    int32_t hit;  /* weft_sandbox_hit */
    int64_t wall_ns;
} sandbox_reply;

enum { SANDBOX_MAX_MISSING = 4 };

/* The launcher's standing answer: which level this host allows, found once by doing it. */
typedef struct sandbox_verdict {
    bool usable;
    sandbox_layers layers;
    uint32_t n_missing;
    sandbox_fault missing[SANDBOX_MAX_MISSING];
} sandbox_verdict;

/* The limits of a request with the defaults in place of zeros, none so small that nothing runs or so
 * large that sums overflow. */
weft_sandbox_limits sandbox_limits_fill(weft_sandbox_limits limits);
/* Encodes a request with defaults filled in and relative host paths made absolute. */
weft_status sandbox_request_encode(const weft_sandbox_request *request, weft_buffer *out,
                                   weft_error *err);
/* Decodes [size] bytes and takes ownership of `bytes` (malloc'd) on success. The worker and init
 * both do: the first watches the limits, the second runs it. */
bool sandbox_call_decode(char *bytes, size_t size, sandbox_call *out, sandbox_fault *fault);
void sandbox_call_free(sandbox_call *call);

/* One SEQPACKET message with descriptors. Receiving: bytes, 0 at the end of the peer, -1; received
 * descriptors are close-on-exec, *n_fds says how many came. */
bool sandbox_send(int sock, const void *data, size_t n, const int *fds, size_t n_fds);
ssize_t sandbox_receive(int sock, void *data, size_t n, int *fds, size_t max_fds, size_t *n_fds);
/* Exactly n bytes over a stream; false at its end or on an error. */
bool sandbox_read_full(int fd, void *data, size_t n);
bool sandbox_write_full(int fd, const void *data, size_t n);

void sandbox_close(int *fd); /* closes if >= 0 and sets -1 */

#endif
