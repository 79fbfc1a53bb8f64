/* Ways to behave badly within one's rights: bombs, survivors, floods. */
#include "tests/sandbox/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void ignore_everything(void)
{
    for (int i = 1; i < NSIG; i++) signal(i, SIG_IGN);
}

/* A daemon under the given name: double fork, own session, deaf; then the parent goes on. */
static int survive(const char *name)
{
    if (fork() == 0) {
        setsid();
        if (fork() == 0) {
            prctl(PR_SET_NAME, name, 0, 0, 0);
            ignore_everything();
            for (;;) pause();
        }
        _exit(0);
    }
    wait(NULL);
    return 0;
}

static _Noreturn void stop_deaf(const char *name)
{
    survive(name);
    ignore_everything();
    raise(SIGSTOP);
    for (;;) pause();
}

/* Forks until refused; says how many lived at once. */
static int fork_bomb(void)
{
    int children = 0;
    for (; children < 100000; children++) {
        pid_t child = fork();
        if (child < 0) break;
        if (child == 0)
            for (;;) pause();
    }
    printf("%d\n", children);
    return 0;
}

static void *sleeper(void *unused)
{
    pause();
    return unused;
}

static int thread_bomb(void)
{
    int threads = 0;
    pthread_t id;
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 1 << 16);
    while (threads < 100000 && pthread_create(&id, &small, sleeper, NULL) == 0) threads++;
    printf("%d\n", threads);
    fflush(stdout);
    _exit(0);
}

/* Touches memory until stopped, in pieces, or spread over children. */
static int memory_bomb(size_t piece, int children)
{
    for (int i = 0; i < children; i++)
        if (fork() == 0) children = 0;
    for (;;) {
        char *p = mmap(NULL, piece, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) return 3;
        memset(p, 1, piece);
    }
}

static int descriptor_bomb(void)
{
    int n = 0;
    while (n < 1000000 && open("/dev/null", O_RDONLY) >= 0) n++;
    printf("%d\n", n);
    return 0;
}

/* Fills dir with files of 1 MiB; says how many MiB fitted. */
static int disk_bomb(const char *dir)
{
    static char block[1 << 20];
    int n = 0;
    for (; n < 100000; n++) {
        char path[256];
        snprintf(path, sizeof path, "%s/f%d", dir, n);
        int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        ssize_t written = fd < 0 ? -1 : write(fd, block, sizeof block);
        if (fd >= 0) close(fd);
        if (written != sizeof block) break;
    }
    printf("%d\n", n);
    return 0;
}

static int inode_bomb(const char *dir)
{
    int n = 0;
    for (; n < 1000000; n++) {
        char path[256];
        snprintf(path, sizeof path, "%s/i%d", dir, n);
        if (mkdir(path, 0700)) break;
    }
    printf("%d\n", n);
    return 0;
}

/* One file as large as allowed, deaf to SIGXFSZ if asked. */
static int file_bomb(int deaf)
{
    static char block[1 << 16];
    if (deaf) signal(SIGXFSZ, SIG_IGN);
    int fd = open("big", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    long total = 0;
    for (ssize_t n; (n = write(fd, block, sizeof block)) > 0;) total += n;
    printf("%ld %d\n", total, errno);
    return 0;
}

static int flood(long bytes)
{
    static char block[1 << 16];
    memset(block, 'x', sizeof block);
    for (long n = 0; n < bytes; n += (long)sizeof block)
        if (write(1, block, sizeof block) != (ssize_t)sizeof block) return 1;
    return 0;
}

/* A grandchild keeps standard output open; the program itself ends. */
static int hold_stdout(const char *name)
{
    printf("done\n");
    fflush(stdout);
    return survive(name);
}

static int recurse(volatile int *depth)
{
    volatile char frame[4096] = {0};
    if (*depth < 0) return 0; /* never: the stack ends first */
    ++*depth;
    return recurse(depth) + frame[0];
}

/* Leaves in the current directory what a collector must not trust. */
static int leave_traps(void)
{
    int bad = symlink("/etc/passwd", "link") || symlink("..", "up") || mkdir("dir", 0777);
    bad |= mkfifo("fifo", 0600) == 0 || mknod("device", S_IFCHR | 0600, 0x103) == 0;
    bad |= open("setuid", O_WRONLY | O_CREAT | O_CLOEXEC, 06755) >= 0;
    return bad;
}

static _Noreturn void spin(void)
{
    for (volatile unsigned long i = 0;; i++) continue;
}

int probe_mode(int argc, char **argv)
{
    const char *mode = argv[1], *arg = argc > 2 ? argv[2] : "";
    if (strcmp(mode, "survive") == 0) return survive(arg);
    if (strcmp(mode, "stop") == 0) stop_deaf(arg);
    if (strcmp(mode, "fork-bomb") == 0) return fork_bomb();
    if (strcmp(mode, "thread-bomb") == 0) return thread_bomb();
    if (strcmp(mode, "memory-bomb") == 0) return memory_bomb(1 << 20, 0);
    if (strcmp(mode, "memory-bombs") == 0) return memory_bomb(1 << 18, 8);
    if (strcmp(mode, "descriptor-bomb") == 0) return descriptor_bomb();
    if (strcmp(mode, "disk-bomb") == 0) return disk_bomb(arg);
    if (strcmp(mode, "inode-bomb") == 0) return inode_bomb(arg);
    if (strcmp(mode, "file-bomb") == 0) return file_bomb(argc > 2);
    if (strcmp(mode, "flood") == 0) return flood(atol(arg));
    if (strcmp(mode, "hold-stdout") == 0) return hold_stdout(arg);
    if (strcmp(mode, "recurse") == 0) return recurse((volatile int[]){0});
    if (strcmp(mode, "traps") == 0) return leave_traps();
    if (strcmp(mode, "spin") == 0) spin();
    return 2;
}
