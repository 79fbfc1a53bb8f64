/* Landlock: the second wall around the file system, the network and signals, put on by the workload
 * itself before seccomp. It holds even where a mount was forgotten.
 */
#ifndef WEFT_SANDBOX_LANDLOCK_H
#define WEFT_SANDBOX_LANDLOCK_H

#include "sandbox/wire.h"

/* Restricts the calling thread to what `call` grants. no_new_privs must be set, paths are those
 * inside the new root. */
bool sandbox_landlock_apply(const sandbox_call *call, sandbox_fault *fault);

#endif
