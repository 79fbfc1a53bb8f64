/* The launcher process: keeps workers ready and hands each request to one. */
#ifndef WEFT_SANDBOX_DISPATCH_H
#define WEFT_SANDBOX_DISPATCH_H

#include <sys/types.h>

/* Runs in the child of weft_launcher_start; sock is its end, parent the process that forked it.
 * Returns never. */
_Noreturn void sandbox_launcher_run(int sock, pid_t parent);

#endif
