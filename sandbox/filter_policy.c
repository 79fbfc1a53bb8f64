/* Which system calls a workload may make. Data only; filter.c compiles it.
 *
 * The lists were written from what glibc, CPython (threads, subprocess, multiprocessing, asyncio,
 * sqlite3), gcc, make, git, bash and perl call, not from what exists: a new kernel's calls are denied
 * until somebody reads about them. Notable absences:
 *   clone3        its flags are behind a pointer; glibc falls back to clone
 *   openat2       its mode is behind a pointer, and could carry a setuid bit
 *   memfd_create  memory that no tmpfs size bounds, and code that no mount bounds
 *   inotify, fanotify  inodes of /usr are the host's: they tell what the host executes
 *   splice, tee, vmsplice, io_uring, userfaultfd  attack surface out of proportion to their use
 *   sync, syncfs  flush the whole host
 */
#include "sandbox/filter.h"

#include <linux/sched.h>
#include <sched.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

const char *const sandbox_calls_strict[] = {
    /* files that are already there, and the call's own tmpfs (Landlock decides) */
    "read", "write", "readv", "writev", "pread64", "pwrite64", "preadv", "pwritev", "preadv2",
    "pwritev2", "close", "close_range", "lseek", "_llseek", "stat", "fstat", "lstat", "stat64",
    "fstat64", "lstat64", "fstatat64", "newfstatat", "statx", "access", "faccessat", "faccessat2",
    "readlink", "readlinkat", "getdents", "getdents64", "getcwd", "chdir", "fchdir", "dup", "dup2",
    "dup3", "fcntl", "fcntl64", "flock", "ftruncate", "ftruncate64", "fsync", "fdatasync",
    "fallocate", "unlink", "unlinkat", "pipe", "pipe2", "select", "_newselect", "pselect6", "poll",
    "ppoll", "epoll_create", "epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait",
    "epoll_pwait2", "eventfd", "eventfd2", "statfs", "fstatfs", "statfs64", "fstatfs64",
    "fadvise64", "fadvise64_64", "readahead", "sendfile", "sendfile64", "copy_file_range",
    /* memory */
    "mmap", "mmap2", "munmap", "mprotect", "mremap", "madvise", "brk", "msync", "mincore", "mlock",
    "mlock2", "munlock", "mlockall", "munlockall", "pkey_alloc", "pkey_free", "pkey_mprotect",
    "membarrier", "get_mempolicy",
    /* threads, signals, time */
    "futex", "futex_time64", "futex_waitv", "set_robust_list", "set_tid_address", "rseq",
    "arch_prctl", "set_thread_area", "exit", "exit_group", "restart_syscall", "tgkill", "tkill",
    "kill", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigreturn", "rt_sigpending",
    "rt_sigtimedwait", "rt_sigsuspend", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "sigaltstack",
    "pause", "alarm", "setitimer", "getitimer", "timer_create", "timer_settime", "timer_gettime",
    "timer_getoverrun", "timer_delete", "nanosleep", "clock_nanosleep", "clock_gettime",
    "clock_getres", "gettimeofday", "time", "times", "getrusage", "sched_yield",
    "sched_getaffinity", "sched_getparam", "sched_getscheduler", "sched_getattr",
    "sched_get_priority_max", "sched_get_priority_min", "sched_rr_get_interval",
    /* facts about oneself */
    "getpid", "getppid", "gettid", "getpgrp", "getpgid", "getsid", "getuid", "geteuid", "getgid",
    "getegid", "getresuid", "getresgid", "getgroups", "capget", "getrlimit", "ugetrlimit",
    "setrlimit", "getpriority", "sysinfo", "uname", "getcpu", "getrandom", "umask",
    /* the hand-over of the notification descriptor, before exec */
    "sendmsg", NULL};

const char *const sandbox_calls_normal[] = {
    "rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat", "mkdir", "mkdirat",
    "rmdir", "truncate", "truncate64", "utime", "utimes", "utimensat", "futimesat", "chown",
    "fchown", "lchown", "fchownat", "getxattr", "lgetxattr", "fgetxattr", "listxattr", "llistxattr",
    "flistxattr", "sync_file_range", "signalfd", "signalfd4", "timerfd_create", "timerfd_settime",
    "timerfd_gettime",
    /* processes; one id is all there is, so changing to it is harmless and GNU make does so */
    "fork", "vfork", "execve", "execveat", "wait4", "waitid", "waitpid", "setpgid", "setsid",
    "setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setfsuid", "setfsgid",
    "setpriority", "sched_setaffinity", "sched_setparam", "sched_setscheduler", "sched_setattr",
    "ioprio_get", "ioprio_set", "pidfd_open", "pidfd_send_signal",
    /* sockets that exist are AF_UNIX ones of the call, or the broker's */
    "connect", "bind", "listen", "accept", "accept4", "getsockname", "getpeername", "sendto",
    "recvfrom", "recvmsg", "sendmmsg", "recvmmsg", "shutdown", "getsockopt", NULL};

const char *const sandbox_calls_denied[] = {"io_uring_setup",
                                            "io_uring_enter",
                                            "io_uring_register",
                                            "ptrace",
                                            "process_vm_readv",
                                            "process_vm_writev",
                                            "process_madvise",
                                            "process_mrelease",
                                            "pidfd_getfd",
                                            "kcmp",
                                            "userfaultfd",
                                            "bpf",
                                            "perf_event_open",
                                            "add_key",
                                            "request_key",
                                            "keyctl",
                                            "memfd_create",
                                            "memfd_secret",
                                            "inotify_init",
                                            "inotify_init1",
                                            "fanotify_init",
                                            "fanotify_mark",
                                            "name_to_handle_at",
                                            "open_by_handle_at",
                                            "lookup_dcookie",
                                            "shmget",
                                            "shmat",
                                            "shmctl",
                                            "shmdt",
                                            "semget",
                                            "semop",
                                            "semctl",
                                            "semtimedop",
                                            "msgget",
                                            "msgsnd",
                                            "msgrcv",
                                            "msgctl",
                                            "mq_open",
                                            "mq_unlink",
                                            "mq_timedsend",
                                            "mq_timedreceive",
                                            "mq_notify",
                                            "mq_getsetattr",
                                            "mount",
                                            "umount",
                                            "umount2",
                                            "pivot_root",
                                            "chroot",
                                            "move_mount",
                                            "open_tree",
                                            "fsopen",
                                            "fsconfig",
                                            "fsmount",
                                            "fspick",
                                            "mount_setattr",
                                            "unshare",
                                            "setns",
                                            "init_module",
                                            "finit_module",
                                            "delete_module",
                                            "kexec_load",
                                            "kexec_file_load",
                                            "reboot",
                                            "swapon",
                                            "swapoff",
                                            "settimeofday",
                                            "stime",
                                            "clock_settime",
                                            "clock_adjtime",
                                            "adjtimex",
                                            "sethostname",
                                            "setdomainname",
                                            "acct",
                                            "quotactl",
                                            "quotactl_fd",
                                            "iopl",
                                            "ioperm",
                                            "modify_ldt",
                                            "vmsplice",
                                            "mknod",
                                            "mknodat",
                                            "setxattr",
                                            "lsetxattr",
                                            "fsetxattr",
                                            "removexattr",
                                            "lremovexattr",
                                            "fremovexattr",
                                            "seccomp",
                                            "capset",
                                            "setgroups",
                                            "syslog",
                                            "vhangup",
                                            "uselib",
                                            "ustat",
                                            "sysfs",
                                            "migrate_pages",
                                            "move_pages",
                                            "nfsservctl",
                                            NULL};

#define ANY32 0xffffffffu
#define EQ(arg, v)                                                                                 \
    {                                                                                              \
        arg, ANY32, (uint32_t)(v)                                                                  \
    }
#define BITS_CLEAR(arg, bits)                                                                      \
    {                                                                                              \
        arg, (bits), 0                                                                             \
    }
#define BITS_SET(arg, bits)                                                                        \
    {                                                                                              \
        arg, (bits), (bits)                                                                        \
    }
#define NONE                                                                                       \
    {                                                                                              \
        0, 0, 0                                                                                    \
    }

#define IN_NORMAL (1u << FILTER_NORMAL)
#define IN_NETWORK (1u << FILTER_NETWORK)
#define IN_STRICT (1u << FILTER_STRICT)
#define IN_BOTH (IN_NORMAL | IN_NETWORK)
#define IN_ALL (IN_BOTH | IN_STRICT)

#define NEW_NAMESPACES                                                                             \
    (CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS |     \
     CLONE_NEWCGROUP)
#define SET_ID (S_ISUID | S_ISGID)

#define ALLOW(call, kinds, ...)                                                                    \
    {                                                                                              \
        call, {__VA_ARGS__}, kinds, true                                                           \
    }
#define DENY(call, kinds, ...)                                                                     \
    {                                                                                              \
        call, {__VA_ARGS__}, kinds, false                                                          \
    }
/* A file mode without, or with, set-id bits in argument n. */
#define MODE(call, n, kinds)                                                                       \
    ALLOW(call, kinds, BITS_CLEAR(n, SET_ID), NONE),                                               \
        DENY(call, kinds, BITS_SET(n, S_ISUID), NONE),                                             \
        DENY(call, kinds, BITS_SET(n, S_ISGID), NONE)
#define PRCTL(option) ALLOW("prctl", IN_ALL, EQ(0, option), NONE)
#define IOCTL(request) ALLOW("ioctl", IN_ALL, EQ(1, request), NONE)
#define SOCKOPT(option) ALLOW("setsockopt", IN_BOTH, EQ(1, SOL_SOCKET), EQ(2, option))

const sandbox_filter_rule sandbox_filter_rules[] = {
    /* An O_CREAT mode could leave a set-id file in the workspace, for the host to run. */
    MODE("open", 2, IN_ALL),
    MODE("openat", 3, IN_ALL),
    MODE("creat", 1, IN_ALL),
    MODE("chmod", 1, IN_BOTH),
    MODE("fchmod", 1, IN_BOTH),
    MODE("fchmodat", 2, IN_BOTH),

    ALLOW("clone", IN_BOTH, BITS_CLEAR(0, NEW_NAMESPACES), NONE),
    ALLOW("clone", IN_STRICT, {0, NEW_NAMESPACES | CLONE_THREAD, CLONE_THREAD}, NONE),
    DENY("clone", IN_ALL, BITS_SET(0, CLONE_NEWUSER), NONE),
    DENY("clone", IN_ALL, BITS_SET(0, CLONE_NEWNS), NONE),
    DENY("clone", IN_ALL, BITS_SET(0, CLONE_NEWPID), NONE),
    DENY("clone", IN_ALL, BITS_SET(0, CLONE_NEWNET), NONE),
    DENY("clone", IN_ALL, BITS_SET(0, CLONE_NEWIPC), NONE),
    DENY("clone", IN_ALL, BITS_SET(0, CLONE_NEWUTS), NONE),
    DENY("clone", IN_ALL, BITS_SET(0, CLONE_NEWCGROUP), NONE),

    /* The first exec is init's own doing (init.c lets exactly one pass). */
    DENY("execve", IN_STRICT, NONE, NONE),
    DENY("execveat", IN_STRICT, NONE, NONE),

    ALLOW("socket", IN_NORMAL, EQ(0, AF_UNIX), NONE),
    ALLOW("socketpair", IN_BOTH, EQ(0, AF_UNIX), NONE),
    ALLOW("socket", IN_NETWORK, EQ(0, AF_INET), {1, 0xf, SOCK_STREAM}),
    ALLOW("socket", IN_NETWORK, EQ(0, AF_INET), {1, 0xf, SOCK_DGRAM}),
    ALLOW("socket", IN_NETWORK, EQ(0, AF_INET6), {1, 0xf, SOCK_STREAM}),
    ALLOW("socket", IN_NETWORK, EQ(0, AF_INET6), {1, 0xf, SOCK_DGRAM}),
    /* glibc tries AF_UNIX (nscd) and AF_NETLINK on its own: ENOSYS, and no denial is counted. */
    DENY("socket", IN_NETWORK, EQ(0, AF_PACKET), NONE),
    DENY("socket", IN_NETWORK, EQ(0, AF_VSOCK), NONE),
    DENY("socket", IN_NETWORK, EQ(0, AF_ALG), NONE),
    DENY("socket", IN_NETWORK, EQ(0, AF_XDP), NONE),
    SOCKOPT(SO_REUSEADDR),
    SOCKOPT(SO_KEEPALIVE),
    SOCKOPT(SO_SNDBUF),
    SOCKOPT(SO_RCVBUF),
    SOCKOPT(SO_PASSCRED),
    SOCKOPT(SO_RCVTIMEO),
    SOCKOPT(SO_SNDTIMEO),
    SOCKOPT(SO_LINGER),
    SOCKOPT(SO_BROADCAST),
    SOCKOPT(SO_REUSEPORT),
    ALLOW("setsockopt", IN_NETWORK, EQ(1, 0 /* IPPROTO_IP */), NONE),
    ALLOW("setsockopt", IN_NETWORK, EQ(1, 6 /* IPPROTO_TCP */), NONE),
    ALLOW("setsockopt", IN_NETWORK, EQ(1, 41 /* IPPROTO_IPV6 */), NONE),

    /* The kernel reads 32 bits of the request: so do we, or 1 << 32 | TIOCSTI passes. */
    IOCTL(TCGETS),
    IOCTL(TIOCGWINSZ),
    IOCTL(TIOCGPGRP),
    IOCTL(FIONREAD),
    IOCTL(FIONBIO),
    IOCTL(FIOCLEX),
    IOCTL(FIONCLEX),
    IOCTL(FIOASYNC),
    DENY("ioctl", IN_ALL, EQ(1, TIOCSTI), NONE),
    DENY("ioctl", IN_ALL, EQ(1, TIOCLINUX), NONE),

    ALLOW("prlimit64", IN_ALL, EQ(0, 0), NONE),
    ALLOW("personality", IN_ALL, EQ(0, 0xffffffff), NONE),
    PRCTL(PR_SET_NAME),
    PRCTL(PR_GET_NAME),
    PRCTL(PR_SET_PDEATHSIG),
    PRCTL(PR_GET_PDEATHSIG),
    PRCTL(PR_GET_DUMPABLE),
    PRCTL(PR_SET_CHILD_SUBREAPER),
    PRCTL(PR_GET_CHILD_SUBREAPER),
    PRCTL(PR_GET_KEEPCAPS),
    PRCTL(PR_CAPBSET_READ),
    PRCTL(PR_SET_NO_NEW_PRIVS),
    PRCTL(PR_GET_NO_NEW_PRIVS),
    PRCTL(PR_GET_SECCOMP),
    PRCTL(PR_GET_SECUREBITS),
    PRCTL(PR_SET_TIMERSLACK),
    PRCTL(PR_GET_TIMERSLACK),
    PRCTL(PR_SET_THP_DISABLE),
    PRCTL(0x53564d41 /* PR_SET_VMA: glibc names its heaps */),
    {NULL, {NONE, NONE}, 0, false}};
