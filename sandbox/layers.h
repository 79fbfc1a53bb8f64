/* The names of the sandbox's layers, and the one way in which setting them up can fail.
 *
 * Every process of a call (worker, init, workload) runs the same straight line of system calls; the
 * first that fails fills a sandbox_fault, which travels outwards over the sockets and becomes the
 * caller's weft_error. A layer that is in force is one bit in a sandbox_layers mask; the mask is
 * built while the layers are put on, never assumed.
 */
#ifndef WEFT_SANDBOX_LAYERS_H
#define WEFT_SANDBOX_LAYERS_H

#include "base/base.h"

#include <stdint.h>

/* Order: outside in, as they are put on. "mandatory" ones refuse the call when they fail; the others
 * have a substitute (docs/sandbox.md). */
#define SANDBOX_LAYER_TABLE(X)                                                                     \
    X(USER_NS, "user_ns", true)                                                                    \
    X(MOUNT_NS, "mount_ns", true)                                                                  \
    X(PID_NS, "pid_ns", true)                                                                      \
    X(NET_NS, "net_ns", true)                                                                      \
    X(IPC_NS, "ipc_ns", true)                                                                      \
    X(UTS_NS, "uts_ns", true)                                                                      \
    X(CGROUP_NS, "cgroup_ns", true)                                                                \
    X(IDS, "ids", true)                                                                            \
    X(ROOT, "root", true)                                                                          \
    X(PROC, "proc", false)                                                                         \
    X(CAPABILITIES, "capabilities", true)                                                          \
    X(RLIMITS, "rlimits", true)                                                                    \
    X(NO_NEW_PRIVS, "no_new_privs", true)                                                          \
    X(LANDLOCK, "landlock", true)                                                                  \
    X(SECCOMP, "seccomp", true)                                                                    \
    X(CGROUP_MEMORY, "cgroup_memory", false)                                                       \
    X(CGROUP_PIDS, "cgroup_pids", false)                                                           \
    X(WATCHDOG, "watchdog", false)

typedef enum sandbox_layer {
#define X(name, text, mandatory) LAYER_##name,
    SANDBOX_LAYER_TABLE(X)
#undef X
        LAYER_COUNT
} sandbox_layer;

typedef uint32_t sandbox_layers; /* bit 1 << sandbox_layer */
_Static_assert(LAYER_COUNT <= 32, "a layer mask is 32 bits");

enum { SANDBOX_WHAT_BYTES = 256 };

/* Why a call could not be set up. code is WEFT_OK while nothing failed. */
typedef struct sandbox_fault {
    int32_t code;  /* weft_status */
    int32_t layer; /* sandbox_layer, or LAYER_COUNT if none is to blame */
    int32_t error; /* errno, or 0 */
    char what[SANDBOX_WHAT_BYTES];
} sandbox_fault;

/* "user_ns"; constant. */
const char *sandbox_layer_name(sandbox_layer layer);
bool sandbox_layer_mandatory(sandbox_layer layer);

/* Records that `layer` failed with the present errno (WEFT_E_SANDBOX). Returns false, so that a
 * function can end with it. */
bool sandbox_fault_layer(sandbox_fault *fault, sandbox_layer layer, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* As above for a failure that is the request's, not a layer's; `error` is an errno or 0. */
bool sandbox_fault_set(sandbox_fault *fault, weft_status code, int error, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* What stands behind a failed layer on this host, and what mends it, as two lines of text. Reads
 * /proc/sys, so it is for the worker and the launcher, not for init. */
void sandbox_cause(const sandbox_fault *fault, char *cause, size_t n_cause, char *cure,
                   size_t n_cure);
/* The fault as the caller's error: "<what>: <errno>: <cause>; <cure>". Returns fault->code. */
weft_status sandbox_fault_error(const sandbox_fault *fault, weft_error *err);

#endif
