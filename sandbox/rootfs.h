/* The file system that a workload sees: built in init, from nothing. */
#ifndef WEFT_SANDBOX_ROOTFS_H
#define WEFT_SANDBOX_ROOTFS_H

#include "sandbox/wire.h"

#include <sys/types.h>

/* What an init is made for: decided when it is cloned, before its request is known. */
typedef struct sandbox_shape {
    bool network, strict;
    bool trees_come; /* the worker can clone mounts and sends them: the host's tree is not needed */
} sandbox_shape;

/* Notes what stands at each mount's host path and, where the process may, clones it as a detached
 * mount; runs in the worker. As root the workspace is made to belong to uid. */
bool sandbox_mounts_open(sandbox_call *call, uid_t uid, gid_t gid, sandbox_fault *fault);

/* First half: builds, in the calling process's mount namespace, all of the root that does not depend
 * on the request. *out_root is its descriptor. Adds LAYER_PROC if that could be mounted. */
bool sandbox_root_build(const sandbox_shape *shape, int *out_root, sandbox_layers *layers,
                        sandbox_fault *fault);
/* Second half: the workspace, the binds, the sizes; then nothing of the host is left. Closes root.
 * *out_stale: the namespace does not show what the worker saw, a younger one may. */
bool sandbox_root_finish(sandbox_call *call, const sandbox_shape *shape, int root,
                         sandbox_layers *layers, bool *out_stale, sandbox_fault *fault);

#endif
