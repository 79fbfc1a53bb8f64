/* A worker runs calls one after the other, each in fresh namespaces. Processes of the launcher. */
#ifndef WEFT_SANDBOX_WORKER_H
#define WEFT_SANDBOX_WORKER_H

#include "sandbox/call.h"

/* What a worker says when it is ready, at first and after each call. */
typedef struct sandbox_ready {
    bool has_memory, has_pids; /* the groups it could enter */
} sandbox_ready;

/* Takes requests from sock until its other end closes. Never returns. */
_Noreturn void sandbox_worker_run(const sandbox_host *host, sandbox_slot *slot, int sock);

#endif
