/* Pid 1 of a call's namespaces, and the workload it starts. */
#ifndef WEFT_SANDBOX_INIT_H
#define WEFT_SANDBOX_INIT_H

#include "sandbox/filter.h"
#include "sandbox/rootfs.h"
#include "sandbox/wire.h"

#include <sys/types.h>

/* What the workload tells init before it becomes another program. A message that carries a descriptor
 * is the seccomp listener; one with fault.code set says why the program was not started. */
typedef struct sandbox_note {
    sandbox_fault fault;
    sandbox_layers layers;
    int32_t hole; /* probe calls: see effects.h; -1 */
} sandbox_note;

/* Runs as pid 1. Builds what it can before it knows its request (init is cloned ahead of need), waits
 * for that on sock, builds the rest, starts the workload, answers its seccomp notifications, and when
 * it ends kills and reaps all that is left. What it finds goes to *report, which the worker sees; a
 * byte on sock says that this is all. Never returns. */
_Noreturn void sandbox_init_run(const sandbox_shape *shape, const sandbox_filter *filter, int sock,
                                sandbox_report *report);

/* The child of init: confines itself and becomes the program. Never returns. */
_Noreturn void sandbox_workload_run(const sandbox_call *call, const sandbox_filter *filter,
                                    int sock);

#endif
