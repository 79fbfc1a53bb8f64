/* Control groups: the hard limit on memory and processes, where the host lets us have one.
 *
 * Each worker sits in a group of its own (a slot) for its whole life, and what it clones is born
 * there. Moving a process costs 12 ms (the kernel waits for a grace period), being born costs
 * nothing: so a slot is entered once, and a call only writes its limits. Version 2 lets the worker
 * itself be born in it.
 */
#ifndef WEFT_SANDBOX_CGROUP_H
#define WEFT_SANDBOX_CGROUP_H

#include "sandbox/layers.h"
#include "sandbox/sandbox.h"

#include <sys/types.h>

enum { CGROUP_PATH_BYTES = 512 };

/* Where groups may be made: "" where a controller is missing. v2 has one directory for both. */
typedef struct sandbox_cgroups {
    bool v2;
    char memory[CGROUP_PATH_BYTES];
    char pids[CGROUP_PATH_BYTES];
} sandbox_cgroups;

typedef struct sandbox_slot {
    bool v2, has_memory, has_pids;
    bool entered; /* by birth */
    char memory[CGROUP_PATH_BYTES + 48];
    char pids[CGROUP_PATH_BYTES + 48];
    int64_t memory_bytes, processes; /* as last written; 0: never */
    int64_t ooms, refusals;          /* event counters when the call began */
} sandbox_slot;

/* Finds the directories from the texts of /proc/self/mountinfo and /proc/self/cgroup. */
void sandbox_cgroups_parse(const char *mountinfo, const char *membership, sandbox_cgroups *out);
/* As above for this process; then removes what launchers that died left behind. */
void sandbox_cgroups_find(sandbox_cgroups *out);

/* Makes the groups of slot `index` of launcher `owner`; whatever cannot be made is left out. */
void sandbox_slot_make(const sandbox_cgroups *where, pid_t owner, unsigned index,
                       sandbox_slot *out);
/* fork, with the child in the slot's groups where the kernel can do that (version 2). */
pid_t sandbox_slot_fork(sandbox_slot *slot);
/* Moves the calling process in, unless it was born there. What it could not enter is removed from the slot. */
void sandbox_slot_enter(sandbox_slot *slot);
/* Sets the limits of the next call and notes the event counters. False (errno): memory or process
 * count is not limited now. */
bool sandbox_slot_limit(sandbox_slot *slot, const weft_sandbox_limits *limits);
/* What happened since: a process killed for memory, a fork refused. */
bool sandbox_slot_oom(const sandbox_slot *slot);
bool sandbox_slot_full(const sandbox_slot *slot);
/* Kills what is left in the groups and removes them; waits up to a second for processes that are
 * dying. False if a group is left (the next launcher sweeps it away). */
bool sandbox_slot_remove(sandbox_slot *slot);

#endif
