/* Runs a program that nobody trusts, confined by namespaces, Landlock, seccomp, rlimits and cgroups.
 *
 * weft starts one launcher process before it loads a model; each call asks the launcher for a fresh
 * set of namespaces (spec: docs/sandbox.md). If a layer is missing the code is refused
 * (WEFT_E_SANDBOX, exit 5) with the blocked primitive and its cure; nothing ever runs unconfined.
 * A launcher handle may be used by several threads; calls then run side by side.
 */
#ifndef WEFT_SANDBOX_H
#define WEFT_SANDBOX_H

#include "base/base.h"

#include <stdatomic.h>

typedef struct weft_launcher weft_launcher;

/* Forks the launcher. Call before threads exist and before a model is loaded. It holds no secret, no
 * descriptor but its socket, and dies with this process. */
weft_status weft_launcher_start(weft_launcher **out, weft_error *err);
void weft_launcher_stop(weft_launcher *launcher);

typedef struct weft_sandbox_bind {
    const char *host;   /* existing file or directory */
    const char *inside; /* absolute path, e.g. "/tool" */
    bool writable;
} weft_sandbox_bind;

typedef struct weft_sandbox_limits {
    int64_t wall_ms;       /* 0: 60,000 */
    int64_t cpu_seconds;   /* 0: as wall */
    int64_t memory_bytes;  /* 0: 1 GiB */
    int64_t processes;     /* 0: 64 */
    int64_t file_bytes;    /* largest single file; 0: 256 MiB */
    int64_t output_bytes;  /* kept per stream; 0: 1 MiB. What is beyond is counted and hashed, not kept */
} weft_sandbox_limits;

typedef struct weft_sandbox_request {
    const char *const *argv;  /* NULL-terminated; argv[0] is searched in /usr/bin:/bin inside */
    const char *const *env;   /* NULL-terminated "K=V" added to the fixed environment, or NULL */
    const void *stdin_bytes;  /* NULL: standard input is /dev/null */
    size_t stdin_size;
    const char *workdir;      /* host directory that becomes /work (writable); NULL: an empty tmpfs */
    bool workdir_readonly;
    const weft_sandbox_bind *binds; /* [n_binds] extra read-only (or writable) mounts */
    size_t n_binds;
    const char *cwd;          /* NULL: /work */
    bool network;             /* true: keeps the host's network namespace (broker only) */
    bool strict;              /* pure computation: no file system but the tmpfs, no exec after start */
    weft_sandbox_limits limits;
} weft_sandbox_request;

typedef enum weft_sandbox_hit {
    WEFT_HIT_NONE = 0,
    WEFT_HIT_WALL,
    WEFT_HIT_CPU,
    WEFT_HIT_MEMORY,
    WEFT_HIT_PROCESSES,
    WEFT_HIT_FILE,
    WEFT_HIT_CANCELLED
} weft_sandbox_hit;

typedef struct weft_sandbox_stream {
    char *kept;          /* [n_kept + 1], head and tail of what came, NUL-terminated */
    size_t n_kept;
    uint64_t total;      /* bytes the program wrote */
    uint64_t cut;        /* bytes left out of the middle of kept (kept = head, then tail) */
    uint64_t cut_at;     /* offset in kept where they are missing */
    uint8_t sha256[WEFT_DIGEST_BYTES]; /* of all `total` bytes */
} weft_sandbox_stream;

typedef struct weft_sandbox_result {
    int exit_status;     /* 0..255, or -1 if a signal ended it */
    int signal;          /* 0 or the signal */
    weft_sandbox_hit hit;
    int64_t wall_ns, cpu_ns;
    int64_t peak_bytes;  /* peak resident memory */
    weft_sandbox_stream out, err;
    char *layers;        /* JSON object: level and layers in force; canonical */
    char *denials;       /* JSON array of {"call":name,"count":n}; canonical; "[]" if none */
} weft_sandbox_result;

/* Runs one program to its end. WEFT_OK whatever its exit status; WEFT_E_SANDBOX if it could not be
 * confined; WEFT_E_NOT_FOUND if argv[0] does not exist inside. `cancel` (may be NULL) is polled:
 * non-zero kills the workload. The result is freed with weft_sandbox_result_free. */
weft_status weft_sandbox_run(weft_launcher *launcher, const weft_sandbox_request *request,
                             const atomic_int *cancel, weft_sandbox_result *out, weft_error *err);
void weft_sandbox_result_free(weft_sandbox_result *result);

/* The level and layers in force, found by doing: canonical JSON object
 * {"level":"full|no-proc|none","layers":{name:bool...},"missing":[{"layer","cause","cure"}]}; malloc'd. */
weft_status weft_sandbox_check(weft_launcher *launcher, char **out_json, weft_error *err);

/* "full", "no-proc", ...: constant text. */
const char *weft_sandbox_hit_text(weft_sandbox_hit hit);

/* The outer user id that workloads run under: files in a workspace must belong to it. Equals
 * geteuid() for an ordinary user. */
unsigned weft_sandbox_uid(void);

#endif
