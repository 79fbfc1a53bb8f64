/* Ids, capabilities and resource limits.
 *
 * The dedicated id: 65529 is in the range that systemd and Debian leave unused (65520 to 65533), and
 * still inside the 65,536 ids of a usual container. If root's own namespace does not map it (a
 * rootless container with one id), root is an ordinary user outside, and maps to itself; unless it is
 * root there too.
 */
#include "sandbox/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { DEDICATED_ID = 65529 };

/* Finds the host's side of an id in a map of our own user namespace; false if it has none. */
static bool id_outside(const char *map, unsigned id, unsigned *out)
{
    FILE *f = fopen(map, "re");
    if (!f) return false;
    unsigned inside, outside, count;
    bool found = false;
    while (!found && fscanf(f, "%u %u %u", &inside, &outside, &count) == 3)
        found = id >= inside && id - inside < count;
    fclose(f);
    if (found) *out = outside + (id - inside);
    return found;
}

bool sandbox_outer_ids(uid_t *uid, gid_t *gid)
{
    unsigned outside;
    *uid = geteuid();
    *gid = getegid();
    if (*uid != 0) return true;
    if (id_outside("/proc/self/uid_map", DEDICATED_ID, &outside) &&
        id_outside("/proc/self/gid_map", DEDICATED_ID, &outside)) {
        *uid = DEDICATED_ID;
        *gid = DEDICATED_ID;
        return true;
    }
    return id_outside("/proc/self/uid_map", 0, &outside) && outside != 0;
}

unsigned weft_sandbox_uid(void)
{
    uid_t uid;
    gid_t gid;
    sandbox_outer_ids(&uid, &gid);
    return uid;
}

static bool proc_write(pid_t pid, const char *name, const char *text, sandbox_fault *fault)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    if (!ok) sandbox_fault_layer(fault, LAYER_IDS, "write %s of the user namespace", name);
    if (fd >= 0) close(fd);
    return ok;
}

bool sandbox_ids_map(pid_t pid, uid_t uid, gid_t gid, sandbox_fault *fault)
{
    char uid_map[64], gid_map[64];
    snprintf(uid_map, sizeof uid_map, "%d %u 1", SANDBOX_INNER_ID, uid);
    snprintf(gid_map, sizeof gid_map, "%d %u 1", SANDBOX_INNER_ID, gid);
    return proc_write(pid, "setgroups", "deny", fault) &&
           proc_write(pid, "uid_map", uid_map, fault) && proc_write(pid, "gid_map", gid_map, fault);
}

bool sandbox_ids_take(sandbox_fault *fault)
{
    /* By system call: the C library would look for threads to change along, there are none. */
    if (syscall(SYS_setresgid, SANDBOX_INNER_ID, SANDBOX_INNER_ID, SANDBOX_INNER_ID) ||
        syscall(SYS_setresuid, SANDBOX_INNER_ID, SANDBOX_INNER_ID, SANDBOX_INNER_ID))
        return sandbox_fault_layer(fault, LAYER_IDS, "take the inner id");
    return true;
}

bool sandbox_capabilities_bound(sandbox_fault *fault)
{
    int cap = 0;
    while (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) == 0) cap++;
    if (errno != EINVAL || cap == 0) /* EINVAL: past the last one this kernel knows */
        return sandbox_fault_layer(fault, LAYER_CAPABILITIES, "drop capability %d", cap);
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
        return sandbox_fault_layer(fault, LAYER_CAPABILITIES, "clear ambient capabilities");
    return true;
}

bool sandbox_capabilities_drop(sandbox_fault *fault)
{
    unsigned long bits = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |
                         SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED |
                         SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;
    if (prctl(PR_SET_SECUREBITS, bits, 0, 0, 0))
        return sandbox_fault_layer(fault, LAYER_CAPABILITIES, "lock securebits");
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct none[2] = {{0, 0, 0}, {0, 0, 0}};
    if (syscall(SYS_capset, &head, none))
        return sandbox_fault_layer(fault, LAYER_CAPABILITIES, "capset");
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        return sandbox_fault_layer(fault, LAYER_NO_NEW_PRIVS, "PR_SET_NO_NEW_PRIVS");
    return true;
}

bool sandbox_rlimits_set(const sandbox_call *call, sandbox_fault *fault)
{
    const weft_sandbox_limits *l = &call->limits;
    rlim_t cpu = (rlim_t)l->cpu_seconds, memory = (rlim_t)l->memory_bytes;
    const struct {
        int resource;
        rlim_t soft, hard;
    } table[] = {
        {RLIMIT_CORE, 0, 0},
        {RLIMIT_CPU, cpu, cpu + 1}, /* SIGXCPU, then SIGKILL */
        /* Twice the memory limit: programs reserve more than they touch, and the group or the
         * watchdog shall be the one that stops them, since only they can report it. */
        {RLIMIT_DATA, memory * 2, memory * 2},
        {RLIMIT_FSIZE, (rlim_t)l->file_bytes, (rlim_t)l->file_bytes},
        {RLIMIT_MEMLOCK, 0, 0},
        {RLIMIT_MSGQUEUE, 0, 0},
        {RLIMIT_NICE, 0, 0},
        {RLIMIT_NOFILE, 1024, 1024},
        /* Counted per user namespace, init included. With a pids group, that one is to refuse first,
         * because it counts refusals. */
        {RLIMIT_NPROC, (rlim_t)l->processes + (call->pids_cgroup ? 8 : 1),
         (rlim_t)l->processes + (call->pids_cgroup ? 8 : 1)},
        {RLIMIT_RTPRIO, 0, 0},
        {RLIMIT_SIGPENDING, 1024, 1024},
        {RLIMIT_STACK, 8 << 20, 64 << 20},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct rlimit now, want = {table[i].soft, table[i].hard};
        if (getrlimit(table[i].resource, &now))
            return sandbox_fault_layer(fault, LAYER_RLIMITS, "getrlimit %d", table[i].resource);
        if (want.rlim_max > now.rlim_max) want.rlim_max = now.rlim_max;
        if (want.rlim_cur > want.rlim_max) want.rlim_cur = want.rlim_max;
        if (setrlimit(table[i].resource, &want))
            return sandbox_fault_layer(fault, LAYER_RLIMITS, "setrlimit %d", table[i].resource);
    }
    return true;
}
