/* The effect probes of weft_sandbox_check: one or more for each layer.
 *
 * Each would succeed in an ordinary process of the same user (tests/sandbox/probe.c holds the full
 * list with its baselines). They run behind the normal filter, so none may end the process.
 */
#include "sandbox/effects.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static bool new_namespace(void)
{
    return unshare(CLONE_NEWUSER) == 0;
}

static bool mount_something(void)
{
    return mount("none", "/tmp", "tmpfs", 0, NULL) == 0;
}

/* The host's root holds these on every distribution; ours has none of them. */
static bool see_the_host(void)
{
    return access("/var", F_OK) == 0 || access("/boot", F_OK) == 0 || access("/sys", F_OK) == 0;
}

static bool see_other_processes(void)
{
    return access("/proc/1", F_OK) == 0 || access("/proc/sys", F_OK) == 0;
}

static bool have_a_foreign_parent(void)
{
    return getppid() != 1;
}

static bool write_system(void)
{
    return open("/usr/.weft", O_WRONLY | O_CREAT | O_CLOEXEC, 0600) >= 0 ||
           open("/etc/passwd", O_WRONLY | O_CLOEXEC) >= 0;
}

static bool connect_loopback(void)
{
    return socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0) >= 0 ||
           socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0) >= 0;
}

static bool hold_capability(void)
{
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {{0, 0, 0}, {0, 0, 0}};
    if (syscall(SYS_capget, &head, data)) return true; /* unknown is not none */
    return data[0].effective || data[0].permitted || data[0].inheritable || data[1].effective ||
           data[1].permitted || data[1].inheritable || prctl(PR_CAPBSET_READ, 0, 0, 0, 0) != 0;
}

static bool be_root(void)
{
    return geteuid() == 0 || setuid(0) == 0;
}

static bool raise_limit(void)
{
    struct rlimit most = {RLIM_INFINITY, RLIM_INFINITY};
    return setrlimit(RLIMIT_FSIZE, &most) == 0;
}

static bool trace(void)
{
    return ptrace(PTRACE_TRACEME, 0, 0, 0) == 0;
}

static bool unnamed_memory(void)
{
    return syscall(SYS_memfd_create, "weft", 0) >= 0;
}

static bool ring(void)
{
    char params[256] = {0};
    return syscall(SYS_io_uring_setup, 1, params) >= 0;
}

static bool open_descriptor(void)
{
    for (int fd = 3; fd < 64; fd++)
        if (fcntl(fd, F_GETFD) >= 0 && !(fcntl(fd, F_GETFD) & FD_CLOEXEC)) return true;
    return false;
}

static bool gain_by_exec(void)
{
    return prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1;
}

static bool make_fifo(void)
{
    return syscall(SYS_mknodat, AT_FDCWD, "/tmp/fifo", S_IFIFO | 0600, 0) == 0;
}

/* Of all layers only Landlock forbids this one: the file is ours, its mount allows programs. */
static bool run_shared_memory(void)
{
    char path[] = "/dev/shm/probe";
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0700);
    if (fd < 0) return false;
    bool written = write(fd, "#!/bin/true\n", 12) == 12;
    close(fd);
    pid_t child = written ? fork() : -1;
    if (child < 0) return false;
    if (child == 0) {
        char *const argv[] = {path, NULL};
        execve(path, argv, argv + 1);
        _exit(1);
    }
    int status;
    return waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static const struct {
    bool (*succeeds)(void);
    const char *name;
    sandbox_layer layer;
} effects[] = {
    {new_namespace, "unshare a user namespace", LAYER_SECCOMP},
    {mount_something, "mount a file system", LAYER_SECCOMP},
    {trace, "ptrace", LAYER_SECCOMP},
    {unnamed_memory, "memfd_create", LAYER_SECCOMP},
    {ring, "io_uring_setup", LAYER_SECCOMP},
    {see_the_host, "see the host's files", LAYER_ROOT},
    {write_system, "write to the system's files", LAYER_ROOT},
    {see_other_processes, "see other processes", LAYER_PROC},
    {have_a_foreign_parent, "stand outside the pid namespace", LAYER_PID_NS},
    {make_fifo, "make a fifo", LAYER_SECCOMP},
    {connect_loopback, "open a network socket", LAYER_NET_NS},
    {hold_capability, "hold a capability", LAYER_CAPABILITIES},
    {be_root, "become root", LAYER_IDS},
    {raise_limit, "raise a resource limit", LAYER_RLIMITS},
    {open_descriptor, "use a leaked descriptor", LAYER_RLIMITS},
    {gain_by_exec, "gain privileges by exec", LAYER_NO_NEW_PRIVS},
    {run_shared_memory, "run a program in /dev/shm", LAYER_LANDLOCK},
};
enum { N_EFFECTS = sizeof effects / sizeof *effects };

int sandbox_effects_try(void)
{
    for (int i = 0; i < N_EFFECTS; i++)
        if (effects[i].succeeds()) return i;
    return -1;
}

const char *sandbox_effect_name(int index)
{
    return index >= 0 && index < N_EFFECTS ? effects[index].name : "";
}

sandbox_layer sandbox_effect_layer(int index)
{
    return index >= 0 && index < N_EFFECTS ? effects[index].layer : LAYER_COUNT;
}
