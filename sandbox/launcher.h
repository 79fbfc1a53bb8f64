/* weft's handle of the launcher process. */
#ifndef WEFT_SANDBOX_LAUNCHER_H
#define WEFT_SANDBOX_LAUNCHER_H

#include "sandbox/sandbox.h"

#include <sys/types.h>

struct weft_launcher {
    int sock; /* SEQPACKET: one message per call, so threads need no lock */
    pid_t pid;
};

#endif
