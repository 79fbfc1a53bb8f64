/* The privileges of a process, taken away: ids, capabilities, resource limits. */
#ifndef WEFT_SANDBOX_CONFINE_H
#define WEFT_SANDBOX_CONFINE_H

#include "sandbox/wire.h"

#include <sys/types.h>

/* The one id inside. Not 0: a program that believes it is root tries things. */
enum { SANDBOX_INNER_ID = 1000 };

/* The ids of the workload as the host sees them: a dedicated pair if we are root and may use it, our
 * own otherwise. False if those are root's: nothing may run then. */
bool sandbox_outer_ids(uid_t *uid, gid_t *gid);
/* Writes the id maps of a process in its new user namespace. */
bool sandbox_ids_map(pid_t pid, uid_t uid, gid_t gid, sandbox_fault *fault);
/* Takes the inner id. Clears the parent-death signal, as every change of id does. */
bool sandbox_ids_take(sandbox_fault *fault);
/* Empties the bounding and ambient sets; what is held now stays until sandbox_capabilities_drop, which
 * drops the rest for good and sets no_new_privs. */
bool sandbox_capabilities_bound(sandbox_fault *fault);
bool sandbox_capabilities_drop(sandbox_fault *fault);
/* Sets resource limits; never above what the process already has. */
bool sandbox_rlimits_set(const sandbox_call *call, sandbox_fault *fault);

#endif
