/* Walks the tree of one call through /proc/PID/task/TID/children.
 *
 * Processes of the call cannot leave the tree: init is pid 1 of their namespace, an orphan becomes
 * its child. Cost: 25 us a process [measured], so a bomb of 64 costs 1.6 ms per look.
 */
#include "sandbox/watch.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* Beyond this many the limit on processes has failed anyway; what was seen is enough to judge. */
enum { MAX_PIDS = 4096, TEXT_BYTES = 4096 };

static ssize_t read_at(int dir, const char *name, char *text, size_t n)
{
    int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    ssize_t got = read(fd, text, n - 1);
    close(fd);
    if (got >= 0) text[got] = '\0';
    return got;
}

/* The value in kB of a line of /proc/PID/status, as bytes; 0 if it is not there. */
static int64_t status_bytes(const char *status, const char *key)
{
    const char *line = strstr(status, key);
    return line ? strtoll(line + strlen(key), NULL, 10) * 1024 : 0;
}

/* Fields 14 to 17 and 20 of /proc/PID/stat; the name in field 2 may hold anything, so count from the
 * last parenthesis. */
static void stat_add(const char *stat, sandbox_usage *sum)
{
    unsigned long long user, system;
    long long children_user, children_system, threads;
    const char *rest = strrchr(stat, ')');
    if (!rest || sscanf(rest + 1,
                        " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %lld %lld "
                        "%*d %*d %lld",
                        &user, &system, &children_user, &children_system, &threads) != 5)
        return;
    int64_t tick_ns = INT64_C(1000000000) / sysconf(_SC_CLK_TCK);
    sum->cpu_ns +=
        ((int64_t)(user + system) + (int64_t)(children_user + children_system)) * tick_ns;
    sum->tasks += threads;
}

/* Appends the children of one process to the list; false if the kernel does not tell. */
static bool children_add(int dir, pid_t *list, size_t *n)
{
    int tasks = openat(dir, "task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = tasks < 0 ? NULL : fdopendir(tasks);
    if (!d) {
        if (tasks >= 0) close(tasks);
        return false;
    }
    bool told = false;
    for (struct dirent *entry; (entry = readdir(d));) {
        char name[300], text[TEXT_BYTES];
        if (entry->d_name[0] == '.') continue;
        snprintf(name, sizeof name, "%s/children", entry->d_name);
        if (read_at(dirfd(d), name, text, sizeof text) < 0) continue;
        told = true;
        for (char *at = text, *end; *n < MAX_PIDS; at = end) {
            long pid = strtol(at, &end, 10);
            if (end == at) break;
            list[(*n)++] = (pid_t)pid;
        }
    }
    closedir(d);
    return told;
}

bool sandbox_watch(pid_t init, sandbox_usage *out)
{
    sandbox_usage sum = {0};
    bool seen = false;
    pid_t list[MAX_PIDS] = {init};
    for (size_t i = 0, n = 1; i < n; i++) {
        char path[32], text[TEXT_BYTES];
        snprintf(path, sizeof path, "/proc/%d", (int)list[i]);
        int dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (dir < 0) continue;
        if (read_at(dir, "stat", text, sizeof text) > 0) stat_add(text, &sum);
        if (read_at(dir, "status", text, sizeof text) > 0)
            sum.memory_bytes += status_bytes(text, "\nVmRSS:") + status_bytes(text, "\nVmSwap:");
        bool told = children_add(dir, list, &n);
        if (i == 0) seen = told;
        close(dir);
    }
    if (!seen) return false;
    sum.tasks--; /* init */
    *out = sum;
    return true;
}

static int64_t free_bytes(int fd, int64_t *out_total)
{
    struct statvfs fs;
    if (fstatvfs(fd, &fs)) return -1;
    *out_total = (int64_t)fs.f_blocks * (int64_t)fs.f_frsize;
    return (int64_t)fs.f_bavail * (int64_t)fs.f_frsize;
}

int64_t sandbox_disk_floor(int fd, int64_t file_bytes)
{
    int64_t total, now = free_bytes(fd, &total);
    if (now < 0) return 0;
    int64_t by_size = total / 20, by_growth = 0, growth;
    if (!__builtin_mul_overflow(file_bytes, 16, &growth) && growth < now) by_growth = now - growth;
    int64_t floor = by_size > by_growth ? by_size : by_growth;
    /* On a disk that is nearly full already one file of the allowed size must still fit. */
    int64_t one_file = now > file_bytes ? now - file_bytes : 0;
    return floor < now ? floor : one_file;
}

int64_t sandbox_disk_room(int fd, int64_t floor)
{
    int64_t total, now = free_bytes(fd, &total);
    return now < 0 ? INT64_MAX : now - floor;
}
