/* The probe program: what hostile code would try, one function each.
 *
 * `probe list KEY=VALUE...` runs every probe in a child of its own and prints "name reached" or
 * "name denied ERRNO" or "name killed SIGNAL", one a line. It is run twice, outside (the baseline:
 * what is reached there would work) and inside the sandbox, and the test compares. Probes of calls
 * that would harm the host carry arguments the kernel refuses after its permission check: for those
 * any errno but EPERM, EACCES and ENOSYS counts as reached.
 * `probe MODE ...` (probe_modes) behaves badly in one way, for the tests of limits.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <linux/perf_event.h>
#include <mqueue.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/sandbox/probe.h"

/* --- what the test set up on the host --------------------------------------------------------- */

static const char *secret_path, *socket_path, *abstract_name, *token;
static int tcp_port, leaked_fd = -1;
static pid_t victim;

static void argument_take(char *text)
{
    char *value = strchr(text, '=');
    if (!value) return;
    *value++ = '\0';
    if (strcmp(text, "secret") == 0) secret_path = value;
    if (strcmp(text, "socket") == 0) socket_path = value;
    if (strcmp(text, "abstract") == 0) abstract_name = value;
    if (strcmp(text, "token") == 0) token = value;
    if (strcmp(text, "tcp") == 0) tcp_port = atoi(value);
    if (strcmp(text, "leaked") == 0) leaked_fd = atoi(value);
    if (strcmp(text, "victim") == 0) victim = atoi(value);
}

/* Result of a call: 0 if it worked, else errno. */
static int result(long returned)
{
    return returned < 0 ? errno : 0;
}

/* For calls with arguments that are refused late: anything but a denial is as good as success. */
static int reached(long returned)
{
    if (returned >= 0) return 0;
    return errno == EPERM || errno == EACCES || errno == ENOSYS ? errno : 0;
}

static int opened(const char *path, int flags)
{
    return result(open(path, flags | O_CLOEXEC | O_NOCTTY, 0600));
}

/* --- kernel surfaces -------------------------------------------------------------------------- */

static char scratch[4096];

static int io_uring(void)
{
    return result(syscall(SYS_io_uring_setup, 1, scratch));
}
static int bpf_map(void)
{
    return reached(syscall(SYS_bpf, 0, scratch, 1)); /* BPF_MAP_CREATE, size too small */
}
static int perf(void)
{
    struct perf_event_attr attr = {.type = PERF_TYPE_SOFTWARE,
                                   .size = sizeof attr,
                                   .config = PERF_COUNT_SW_TASK_CLOCK,
                                   .exclude_kernel = 1};
    return reached(syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0));
}
static int fault_handler(void)
{
    return result(syscall(SYS_userfaultfd, 1 /* UFFD_USER_MODE_ONLY */));
}
static int key_add(void)
{
    return result(syscall(SYS_add_key, "user", "weft-probe", "x", 1, KEY_SPEC_PROCESS_KEYRING));
}
static int key_request(void)
{
    return reached(syscall(SYS_request_key, "user", "weft-none", NULL, 0));
}
static int key_control(void)
{
    return result(syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_PROCESS_KEYRING, 1));
}
static int compare_kernel(void)
{
    return result(syscall(SYS_kcmp, getpid(), getpid(), 1, 0, 0));
}
static int steal_descriptor(void)
{
    int fd = (int)syscall(SYS_pidfd_open, getpid(), 0);
    return fd < 0 ? errno : result(syscall(SYS_pidfd_getfd, fd, 2, 0));
}
static int pipe_pages(void)
{
    int ends[2];
    struct iovec part = {scratch, sizeof scratch};
    if (pipe(ends)) return errno;
    return result(vmsplice(ends[1], &part, 1, 0));
}
static int segment_table(void)
{
    return result(syscall(SYS_modify_ldt, 0, scratch, sizeof scratch));
}
static int old_personality(void)
{
    return result(personality(ADDR_NO_RANDOMIZE));
}
static int file_handle(void)
{
    struct file_handle *h = (struct file_handle *)scratch;
    int id;
    h->handle_bytes = MAX_HANDLE_SZ;
    return result(name_to_handle_at(AT_FDCWD, "/usr", h, &id, 0));
}
static int watch_inodes(void)
{
    return result(syscall(SYS_inotify_init1, 0));
}
static int watch_files(void)
{
    return result(syscall(SYS_fanotify_init, 0x200 /* FAN_REPORT_FID */, O_RDONLY));
}
static int own_seccomp(void)
{
    uint32_t action = 0x7fff0000; /* ALLOW */
    return result(syscall(SYS_seccomp, 2 /* GET_ACTION_AVAIL */, 0, &action));
}
static int hidden_mode(void)
{
    uint64_t how[3] = {O_RDONLY, 0, 0};
    return result(syscall(SYS_openat2, AT_FDCWD, "/usr", how, sizeof how));
}
static int flush_host(void)
{
    return result(syscall(SYS_syncfs, open("/usr", O_RDONLY | O_CLOEXEC)));
}
static int memory_file(void)
{
    return result(memfd_create("weft", 0));
}
static int memory_program(void)
{
    int fd = memfd_create("weft", MFD_CLOEXEC), from = open("/bin/true", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return errno;
    for (ssize_t n; (n = read(from, scratch, sizeof scratch)) > 0;)
        if (write(fd, scratch, (size_t)n) != n) return errno;
    char *const none[] = {(char *)"true", NULL};
    syscall(SYS_execveat, fd, "", none, none + 1, AT_EMPTY_PATH); /* on success: exit status 0 */
    return errno;
}
static int shared_segment(void)
{
    int id = (int)syscall(SYS_shmget, 0, 4096, 01600);
    if (id >= 0) syscall(SYS_shmctl, id, 0, NULL);
    return result(id);
}
static int semaphores(void)
{
    int id = (int)syscall(SYS_semget, 0, 1, 01600);
    if (id >= 0) syscall(SYS_semctl, id, 0, 0);
    return result(id);
}
static int message_queue(void)
{
    int id = (int)syscall(SYS_msgget, 0, 01600);
    if (id >= 0) syscall(SYS_msgctl, id, 0, NULL);
    return result(id);
}
static int posix_queue(void)
{
    int id = (int)syscall(SYS_mq_open, "weft-probe", O_RDWR | O_CREAT, 0600, NULL);
    if (id >= 0) syscall(SYS_mq_unlink, "weft-probe");
    return result(id);
}
#ifdef __x86_64__
static int x32_call(void)
{
    /* A kernel without x32 answers ENOSYS: the call was looked up, so it passed any filter. */
    long r = syscall(0x40000000 | SYS_getpid);
    return r >= 0 || errno == ENOSYS ? 0 : errno;
}
static int int80_call(void)
{
    long r = 20; /* getpid of i386 */
    __asm__ volatile("int $0x80" : "+a"(r) : : "memory", "r8", "r9", "r10", "r11");
    return r > 0 || r == -ENOSYS ? 0 : EPERM;
}
#endif

/* --- processes -------------------------------------------------------------------------------- */

static int trace_me(void)
{
    return result(ptrace(PTRACE_TRACEME, 0, 0, 0));
}
static int trace_victim(void)
{
    long r = ptrace(PTRACE_SEIZE, victim, 0, 0);
    int saved = errno;
    if (r == 0) ptrace(PTRACE_DETACH, victim, 0, 0);
    errno = saved;
    return result(r);
}
static int trace_init(void)
{
    return result(ptrace(PTRACE_SEIZE, getppid(), 0, 0));
}
static int read_victim(void)
{
    struct iovec here = {scratch, 8}, there = {&victim, 8};
    return result(process_vm_readv(getppid(), &here, 1, &there, 1, 0));
}
static int signal_victim(void)
{
    return result(kill(victim, 0));
}
static int limit_victim(void)
{
    struct rlimit now;
    return result(prlimit(victim, RLIMIT_NOFILE, NULL, &now));
}
static int proc_victim(void)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/status", (int)victim);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return errno;
    ssize_t n = read(fd, scratch, sizeof scratch - 1);
    scratch[n > 0 ? n : 0] = '\0';
    return strstr(scratch, token) ? 0 : ENOENT; /* the pid may be another's in here */
}
static int secret_environment(void)
{
    return getenv("WEFT_TEST_SECRET") ? 0 : ENOENT;
}
static int become_root(void)
{
    return setuid(0) || geteuid() != 0 ? EPERM : 0;
}
static int root_groups(void)
{
    gid_t zero = 0;
    return result(syscall(SYS_setgroups, 1, &zero));
}
static int take_capability(void)
{
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {{1, 1, 0}, {0, 0, 0}};
    return result(syscall(SYS_capset, &head, data));
}
static int raise_limit(void)
{
    struct rlimit now;
    getrlimit(RLIMIT_NPROC, &now);
    now.rlim_cur = now.rlim_max = RLIM_INFINITY;
    return result(setrlimit(RLIMIT_NPROC, &now));
}
static int dump_core(void)
{
    struct rlimit some = {1 << 20, 1 << 20};
    return result(setrlimit(RLIMIT_CORE, &some));
}
static int real_time(void)
{
    struct sched_param p = {.sched_priority = 1};
    return result(sched_setscheduler(0, SCHED_FIFO, &p));
}
static int lock_memory(void)
{
    return result(mlock(scratch, sizeof scratch));
}

#define NAMESPACE(name, flag)                                                                      \
    static int unshare_##name(void)                                                                \
    {                                                                                              \
        return result(unshare(flag));                                                              \
    }                                                                                              \
    static int clone_##name(void)                                                                  \
    {                                                                                              \
        long pid = syscall(SYS_clone, (flag) | SIGCHLD, NULL, NULL, NULL, NULL);                   \
        if (pid == 0) _exit(0);                                                                    \
        return result(pid);                                                                        \
    }
NAMESPACE(user, CLONE_NEWUSER)
NAMESPACE(mount, CLONE_NEWNS)
NAMESPACE(pid, CLONE_NEWPID)
NAMESPACE(net, CLONE_NEWNET)
NAMESPACE(ipc, CLONE_NEWIPC)
NAMESPACE(uts, CLONE_NEWUTS)
NAMESPACE(cgroup, CLONE_NEWCGROUP)

static int clone3_user(void)
{
    uint64_t args[11] = {CLONE_NEWUSER, 0, 0, 0, SIGCHLD};
    long pid = syscall(SYS_clone3, args, sizeof args);
    if (pid == 0) _exit(0);
    return result(pid);
}
static int join_namespace(void)
{
    int fd = open("/proc/self/ns/uts", O_RDONLY | O_CLOEXEC);
    return fd < 0 ? errno : result(setns(fd, 0));
}

/* --- mounts and the host's settings ----------------------------------------------------------- */

static int mount_new(void)
{
    /* Private first: outside, the mount must not reach the host. */
    if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL)) return errno;
    return result(mount("none", "/tmp", "tmpfs", 0, NULL));
}
static int mount_again(void)
{
    return reached(mount(NULL, "/usr/bin/true", NULL, MS_REMOUNT | MS_BIND, NULL));
}
static int unmount(void)
{
    return reached(umount2("/usr/bin/true", MNT_DETACH));
}
static int pivot(void)
{
    return reached(syscall(SYS_pivot_root, "/usr/bin/true", "/usr/bin/true"));
}
static int change_root(void)
{
    return result(chroot("/tmp"));
}
static int open_fs(void)
{
    return result(fsopen("tmpfs", FSOPEN_CLOEXEC));
}
static int pick_fs(void)
{
    return reached(fspick(AT_FDCWD, "/", FSPICK_CLOEXEC));
}
static int clone_tree(void)
{
    return result(open_tree(AT_FDCWD, "/usr", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC));
}
static int attributes_of_mount(void)
{
    struct mount_attr none = {0};
    return reached(mount_setattr(-1, "", AT_EMPTY_PATH, &none, sizeof none));
}
static int move_tree(void)
{
    return reached(move_mount(-1, "", -1, "", 0));
}
static int module_load(void)
{
    return reached(syscall(SYS_init_module, NULL, 0, ""));
}
static int module_file(void)
{
    return reached(syscall(SYS_finit_module, -1, "", 0));
}
static int kexec(void)
{
    return reached(syscall(SYS_kexec_load, 0, 17, NULL, 0x80000000));
}
static int restart_host(void)
{
    return reached(syscall(SYS_reboot, 0, 0, 0, NULL)); /* wrong magic */
}
static int swap_on(void)
{
    return reached(syscall(SYS_swapon, "/nonexistent", 0));
}
static int swap_off(void)
{
    return reached(syscall(SYS_swapoff, "/nonexistent"));
}
static int set_clock(void)
{
    struct timespec invalid = {0, -1};
    return reached(syscall(SYS_clock_settime, CLOCK_REALTIME, &invalid));
}
static int adjust_clock(void)
{
    memset(scratch, 0, sizeof scratch);
    return result(syscall(SYS_adjtimex, scratch)); /* modes 0: reads */
}
static int host_name(void)
{
    return reached(syscall(SYS_sethostname, scratch, sizeof scratch)); /* too long */
}
static int accounting(void)
{
    return reached(syscall(SYS_acct, "/nonexistent/file"));
}
static int kernel_log(void)
{
    return result(syscall(SYS_syslog, 10, NULL, 0)); /* size of the buffer */
}
static int quota(void)
{
    return reached(syscall(SYS_quotactl, 0x80000100, NULL, 0, NULL)); /* Q_SYNC */
}

/* --- network ---------------------------------------------------------------------------------- */

static int connect_to(int family, int type, const void *address, socklen_t n)
{
    int fd = socket(family, type | SOCK_CLOEXEC, 0);
    return fd < 0 ? errno : result(connect(fd, address, n));
}
static int loopback(int type)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)tcp_port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    return connect_to(AF_INET, type, &to, sizeof to);
}
static int tcp_loopback(void)
{
    return loopback(SOCK_STREAM);
}
static int udp_loopback(void)
{
    return loopback(SOCK_DGRAM);
}
static int six_socket(void)
{
    return result(socket(AF_INET6, SOCK_DGRAM, 0));
}
static int raw_socket(void)
{
    return result(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP));
}
static int netlink_socket(void)
{
    return result(socket(AF_NETLINK, SOCK_RAW, 0));
}
static int packet_socket(void)
{
    return result(socket(AF_PACKET, SOCK_RAW, 0));
}
static int vm_socket(void)
{
    return result(socket(AF_VSOCK, SOCK_STREAM, 0));
}
static int xdp_socket(void)
{
    return result(socket(AF_XDP, SOCK_RAW, 0));
}
static int crypto_socket(void)
{
    return result(socket(AF_ALG, SOCK_SEQPACKET, 0));
}
static int unix_path(void)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    snprintf(to.sun_path, sizeof to.sun_path, "%s", socket_path);
    return connect_to(AF_UNIX, SOCK_STREAM, &to, sizeof to);
}
static int unix_abstract(void)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    int n = snprintf(to.sun_path + 1, sizeof to.sun_path - 1, "%s", abstract_name);
    return connect_to(AF_UNIX, SOCK_STREAM, &to,
                      (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n));
}
static int socket_filter(void)
{
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    struct {
        unsigned short n;
        void *code;
    } program = {0, NULL};
    if (fd < 0) return errno;
    return reached(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program));
}

/* --- files ------------------------------------------------------------------------------------ */

static int host_secret(void)
{
    return opened(secret_path, O_RDONLY);
}
static int secret_by_link(void)
{
    unlink("/tmp/probe-link");
    if (symlink(secret_path, "/tmp/probe-link")) return errno;
    int r = opened("/tmp/probe-link", O_RDONLY);
    unlink("/tmp/probe-link");
    return r;
}
static int secret_by_hard_link(void)
{
    int r = result(link(secret_path, "/tmp/probe-hard"));
    if (r == 0) unlink("/tmp/probe-hard");
    return r;
}
static int secret_by_dots(void)
{
    char path[1024];
    snprintf(path, sizeof path, "/tmp/../../../../../../..%s", secret_path);
    return opened(path, O_RDONLY);
}
static int secret_by_proc(void)
{
    char path[1024];
    snprintf(path, sizeof path, "/proc/%d/root%s", (int)getppid(), secret_path);
    return opened(path, O_RDONLY);
}
static int leaked_directory(void)
{
    return result(openat(leaked_fd, "etc/passwd", O_RDONLY | O_CLOEXEC));
}
static int write_system(void)
{
    return reached(open("/usr/bin/true", O_WRONLY | O_CLOEXEC)); /* may be busy */
}
static int write_passwd(void)
{
    return opened("/etc/passwd", O_WRONLY);
}
static int write_root(void)
{
    int r = opened("/weft-probe", O_WRONLY | O_CREAT);
    unlink("/weft-probe");
    return r;
}
static int core_pattern(void)
{
    return opened("/proc/sys/kernel/core_pattern", O_WRONLY);
}
static int oom_of_self(void)
{
    return opened("/proc/self/oom_score_adj", O_WRONLY);
}
static int proc_sys(void)
{
    return opened("/proc/sys/kernel/random/boot_id", O_RDONLY);
}
static int kernel_core(void)
{
    return opened("/proc/kcore", O_RDONLY);
}
static int system_tree(void)
{
    return opened("/sys/kernel", O_RDONLY | O_DIRECTORY);
}
static int host_home(void)
{
    return opened("/root", O_PATH | O_DIRECTORY);
}
static int host_dev(void)
{
    return opened("/dev/pts", O_PATH | O_DIRECTORY);
}
static int terminal_multiplexer(void)
{
    return opened("/dev/ptmx", O_RDWR);
}
static int device_node(void)
{
    int r = result(mknod("/tmp/probe-dev", S_IFCHR | 0600, 0x103));
    if (r == 0) unlink("/tmp/probe-dev");
    return r;
}
static int fifo(void)
{
    int r = result(mkfifo("/tmp/probe-fifo", 0600));
    if (r == 0) unlink("/tmp/probe-fifo");
    return r;
}
/* A file of ours in /tmp; the probes that need one remove it. */
static int own_file(int mode)
{
    unlink("/tmp/probe-own");
    return open("/tmp/probe-own", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
}
static int set_id_by_chmod(void)
{
    int fd = own_file(0700);
    int r = fd < 0 ? errno : result(fchmod(fd, 04755));
    unlink("/tmp/probe-own");
    return r;
}
static int set_id_by_open(void)
{
    int r = result(own_file(04755));
    unlink("/tmp/probe-own");
    return r;
}
static int give_away(void)
{
    int fd = own_file(0600);
    int r = fd < 0 ? errno : result(fchown(fd, 12345, 12345));
    unlink("/tmp/probe-own");
    return r;
}
static int file_capability(void)
{
    const unsigned char cap[20] = {1, 0, 0, 2, 1};
    int fd = own_file(0700);
    int r = fd < 0 ? errno : result(syscall(SYS_fsetxattr, fd, "security.capability", cap, 20, 0));
    unlink("/tmp/probe-own");
    return r;
}
static int push_input(void)
{
    return reached(ioctl(0, TIOCSTI, "x"));
}
static int push_input_high(void)
{
    return reached(syscall(SYS_ioctl, 0, UINT64_C(0x100000000) | TIOCSTI, "x"));
}
static int console_paste(void)
{
    return reached(ioctl(0, TIOCLINUX, "\3"));
}

static const struct {
    const char *name;
    int (*run)(void);
} probes[] = {
#define P(name)                                                                                    \
    {                                                                                              \
#name, name                                                                                \
    }
    P(io_uring),
    P(bpf_map),
    P(perf),
    P(fault_handler),
    P(key_add),
    P(key_request),
    P(key_control),
    P(compare_kernel),
    P(steal_descriptor),
    P(pipe_pages),
    P(segment_table),
    P(old_personality),
    P(file_handle),
    P(watch_inodes),
    P(watch_files),
    P(own_seccomp),
    P(hidden_mode),
    P(flush_host),
    P(memory_file),
    P(memory_program),
    P(shared_segment),
    P(semaphores),
    P(message_queue),
    P(posix_queue),
#ifdef __x86_64__
    P(x32_call),
    P(int80_call),
#endif
    P(trace_me),
    P(trace_victim),
    P(trace_init),
    P(read_victim),
    P(signal_victim),
    P(limit_victim),
    P(proc_victim),
    P(secret_environment),
    P(become_root),
    P(root_groups),
    P(take_capability),
    P(raise_limit),
    P(dump_core),
    P(real_time),
    P(lock_memory),
    P(unshare_user),
    P(unshare_mount),
    P(unshare_pid),
    P(unshare_net),
    P(unshare_ipc),
    P(unshare_uts),
    P(unshare_cgroup),
    P(clone_user),
    P(clone_mount),
    P(clone_pid),
    P(clone_net),
    P(clone_ipc),
    P(clone_uts),
    P(clone_cgroup),
    P(clone3_user),
    P(join_namespace),
    P(mount_new),
    P(mount_again),
    P(unmount),
    P(pivot),
    P(change_root),
    P(open_fs),
    P(pick_fs),
    P(clone_tree),
    P(attributes_of_mount),
    P(move_tree),
    P(module_load),
    P(module_file),
    P(kexec),
    P(restart_host),
    P(swap_on),
    P(swap_off),
    P(set_clock),
    P(adjust_clock),
    P(host_name),
    P(accounting),
    P(kernel_log),
    P(quota),
    P(tcp_loopback),
    P(udp_loopback),
    P(six_socket),
    P(raw_socket),
    P(netlink_socket),
    P(packet_socket),
    P(vm_socket),
    P(xdp_socket),
    P(crypto_socket),
    P(unix_path),
    P(unix_abstract),
    P(socket_filter),
    P(host_secret),
    P(secret_by_link),
    P(secret_by_hard_link),
    P(secret_by_dots),
    P(secret_by_proc),
    P(leaked_directory),
    P(write_system),
    P(write_passwd),
    P(write_root),
    P(core_pattern),
    P(oom_of_self),
    P(proc_sys),
    P(kernel_core),
    P(system_tree),
    P(host_home),
    P(host_dev),
    P(terminal_multiplexer),
    P(device_node),
    P(fifo),
    P(set_id_by_chmod),
    P(set_id_by_open),
    P(give_away),
    P(file_capability),
    P(push_input),
    P(push_input_high),
    P(console_paste),
#undef P
};

static void list_run(void)
{
    for (size_t i = 0; i < sizeof probes / sizeof *probes; i++) {
        int status;
        pid_t child = fork();
        if (child == 0) _exit(probes[i].run());
        if (child < 0 || waitpid(child, &status, 0) != child)
            printf("%s failed\n", probes[i].name);
        else if (WIFSIGNALED(status))
            printf("%s killed %d\n", probes[i].name, WTERMSIG(status));
        else if (WEXITSTATUS(status) == 0)
            printf("%s reached\n", probes[i].name);
        else
            printf("%s denied %d\n", probes[i].name, WEXITSTATUS(status));
    }
}

int main(int argc, char **argv)
{
    if (argc < 2) return 2;
    if (strcmp(argv[1], "list") != 0) return probe_mode(argc, argv);
    for (int i = 2; i < argc; i++) argument_take(argv[i]);
    list_run();
    return 0;
}
