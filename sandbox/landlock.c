/* Builds the Landlock ruleset of a call: every right that the running kernel knows is handled, so
 * whatever no rule grants is denied.
 *
 * Facts (Documentation/userspace-api/landlock.rst): ABI 1 has file rights to bit 12, 2 REFER, 3
 * TRUNCATE, 4 TCP bind and connect, 5 IOCTL_DEV, 6 scopes (abstract UNIX sockets, signals), 7 and 8
 * only flags of restrict_self, 9 RESOLVE_UNIX. Debian 12's header stops at 2: numbers are ours.
 * Device nodes, fifos and device ioctls are granted nowhere.
 */
#include "sandbox/landlock.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FS_EXECUTE (UINT64_C(1) << 0)
#define FS_WRITE_FILE (UINT64_C(1) << 1)
#define FS_READ_FILE (UINT64_C(1) << 2)
#define FS_READ_DIR (UINT64_C(1) << 3)
#define FS_REMOVE_DIR (UINT64_C(1) << 4)
#define FS_REMOVE_FILE (UINT64_C(1) << 5)
#define FS_MAKE_CHAR (UINT64_C(1) << 6)
#define FS_MAKE_DIR (UINT64_C(1) << 7)
#define FS_MAKE_REG (UINT64_C(1) << 8)
#define FS_MAKE_SOCK (UINT64_C(1) << 9)
#define FS_MAKE_FIFO (UINT64_C(1) << 10)
#define FS_MAKE_BLOCK (UINT64_C(1) << 11)
#define FS_MAKE_SYM (UINT64_C(1) << 12)
#define FS_REFER (UINT64_C(1) << 13)           /* ABI 2 */
#define FS_TRUNCATE (UINT64_C(1) << 14)        /* ABI 3 */
#define FS_IOCTL_DEV (UINT64_C(1) << 15)       /* ABI 5 */
#define FS_RESOLVE_UNIX (UINT64_C(1) << 16)    /* ABI 9 */
#define NET_BIND_TCP (UINT64_C(1) << 0)        /* ABI 4 */
#define NET_CONNECT_TCP (UINT64_C(1) << 1)     /* ABI 4 */
#define SCOPE_ABSTRACT_UNIX (UINT64_C(1) << 0) /* ABI 6 */
#define SCOPE_SIGNAL (UINT64_C(1) << 1)        /* ABI 6 */

enum { CREATE_RULESET_VERSION = 1, RULE_PATH_BENEATH = 1 };

struct ruleset_attr {
    uint64_t handled_access_fs, handled_access_net, scoped;
};
struct path_beneath_attr {
    uint64_t allowed_access;
    int32_t parent_fd;
} __attribute__((packed));

#define LOOK (FS_READ_FILE | FS_READ_DIR)
#define RUN (LOOK | FS_EXECUTE)
#define OWN                                                                                        \
    (RUN | FS_WRITE_FILE | FS_TRUNCATE | FS_REMOVE_DIR | FS_REMOVE_FILE | FS_MAKE_DIR |            \
     FS_MAKE_REG | FS_MAKE_SOCK | FS_MAKE_SYM | FS_REFER | FS_RESOLVE_UNIX)
#define OF_A_FILE (FS_EXECUTE | FS_WRITE_FILE | FS_READ_FILE | FS_TRUNCATE | FS_IOCTL_DEV)

/* Rights that ABI `abi` knows. A newer kernel than ours handles what we know. */
static struct ruleset_attr handled(int abi, bool network)
{
    struct ruleset_attr attr = {.handled_access_fs = (UINT64_C(1) << 13) - 1};
    if (abi >= 2) attr.handled_access_fs |= FS_REFER;
    if (abi >= 3) attr.handled_access_fs |= FS_TRUNCATE;
    if (abi >= 4) attr.handled_access_net = NET_BIND_TCP | (network ? 0 : NET_CONNECT_TCP);
    if (abi >= 5) attr.handled_access_fs |= FS_IOCTL_DEV;
    if (abi >= 6) attr.scoped = SCOPE_ABSTRACT_UNIX | SCOPE_SIGNAL;
    if (abi >= 9) attr.handled_access_fs |= FS_RESOLVE_UNIX;
    return attr;
}

static size_t ruleset_size(int abi)
{
    if (abi < 4) return offsetof(struct ruleset_attr, handled_access_net);
    if (abi < 6) return offsetof(struct ruleset_attr, scoped);
    return sizeof(struct ruleset_attr);
}

/* Grants rights beneath path. A path that this root does not have needs no rule. */
static bool grant(int ruleset, uint64_t handled_fs, const char *path, uint64_t rights,
                  sandbox_fault *fault)
{
    struct stat st;
    int fd = open(path, O_PATH | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) return true;
    bool ok = fd >= 0 && fstat(fd, &st) == 0;
    if (ok) {
        if (!S_ISDIR(st.st_mode)) rights &= OF_A_FILE;
        struct path_beneath_attr rule = {rights & handled_fs, fd};
        ok = syscall(SYS_landlock_add_rule, ruleset, RULE_PATH_BENEATH, &rule, 0) == 0;
    }
    if (!ok) sandbox_fault_layer(fault, LAYER_LANDLOCK, "landlock_add_rule %s", path);
    if (fd >= 0) close(fd);
    return ok;
}

static bool grant_all(int ruleset, uint64_t fs, const sandbox_call *call, sandbox_fault *fault)
{
    /* A strict call reads what its loader maps, but cannot list or choose among it. */
    uint64_t system = call->strict ? FS_EXECUTE | FS_READ_FILE : RUN;
    uint64_t own = call->strict ? OWN & ~FS_EXECUTE : OWN;
    uint64_t device = FS_READ_FILE | FS_WRITE_FILE | FS_TRUNCATE;
    bool ok =
        grant(ruleset, fs, "/usr", system, fault) && grant(ruleset, fs, "/lib", system, fault) &&
        grant(ruleset, fs, "/lib64", system, fault) && grant(ruleset, fs, "/bin", system, fault) &&
        grant(ruleset, fs, "/dev", device, fault) && grant(ruleset, fs, "/tmp", own, fault) &&
        (call->has_workdir || grant(ruleset, fs, "/work", own, fault));
    if (ok && call->strict) ok = grant(ruleset, fs, "/etc/ld.so.cache", FS_READ_FILE, fault);
    if (ok && !call->strict)
        ok = grant(ruleset, fs, "/", FS_READ_DIR, fault) &&
             grant(ruleset, fs, "/etc", LOOK, fault) && grant(ruleset, fs, "/proc", LOOK, fault) &&
             grant(ruleset, fs, "/dev/shm", OWN & ~FS_EXECUTE, fault);
    /* The workspace is the first of the mounts. */
    for (size_t i = 0; ok && i < call->n_mounts; i++)
        ok =
            grant(ruleset, fs, call->mounts[i].inside, call->mounts[i].writable ? OWN : RUN, fault);
    return ok;
}

bool sandbox_landlock_apply(const sandbox_call *call, sandbox_fault *fault)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, CREATE_RULESET_VERSION);
    if (abi < 1) return sandbox_fault_layer(fault, LAYER_LANDLOCK, "landlock_create_ruleset");
    struct ruleset_attr attr = handled((int)abi, call->network);
    long ruleset = syscall(SYS_landlock_create_ruleset, &attr, ruleset_size((int)abi), 0);
    if (ruleset < 0) return sandbox_fault_layer(fault, LAYER_LANDLOCK, "landlock_create_ruleset");
    bool ok = grant_all((int)ruleset, attr.handled_access_fs, call, fault);
    if (ok && syscall(SYS_landlock_restrict_self, (int)ruleset, 0))
        ok = sandbox_fault_layer(fault, LAYER_LANDLOCK, "landlock_restrict_self");
    close((int)ruleset);
    return ok;
}
