/* Control groups, versions 1 and 2.
 *
 * Version 1: a child of our own group in the memory and in the pids hierarchy. Version 2 forbids
 * processes in a group that has controllers for its children, so a slot is our *sibling*: a child of
 * our parent, if that hands down memory and pids (systemd's slices do). Everything is found out by
 * trying; a host that gives us nothing is no error, the watchdog (watch.c) stands in.
 * Groups are named weft-<launcher's pid>-<slot>: what a killed launcher left is known by its pid.
 */
#include "sandbox/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The worker and init are in the group besides the workload. */
enum { OWN_PROCESSES = 2, PROC_FILE_BYTES = 1 << 18 };

/* --- small files ------------------------------------------------------------------------------ */

static bool file_write(const char *dir, const char *name, const char *text)
{
    char path[CGROUP_PATH_BYTES + 96];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return false;
    ssize_t n = write(fd, text, strlen(text));
    int error = errno;
    close(fd);
    errno = error;
    return n == (ssize_t)strlen(text);
}

static bool file_write_int(const char *dir, const char *name, int64_t value)
{
    char text[24];
    snprintf(text, sizeof text, "%lld", (long long)value);
    return file_write(dir, name, text);
}

/* Reads at most n - 1 bytes and ends them with NUL. */
static bool file_read(const char *path, char *text, size_t n)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    size_t size = 0;
    ssize_t got;
    while (size < n - 1 && (got = read(fd, text + size, n - 1 - size)) > 0) size += (size_t)got;
    close(fd);
    text[size] = '\0';
    return true;
}

/* The number behind `key ` at the start of a line of dir/name; 0 if it is not there. */
static int64_t file_field(const char *dir, const char *name, const char *key)
{
    char path[CGROUP_PATH_BYTES + 96], text[1024];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    if (!file_read(path, text, sizeof text)) return 0;
    size_t length = strlen(key);
    for (const char *line = text; line; line = strchr(line, '\n')) {
        if (*line == '\n') line++;
        if (strncmp(line, key, length) == 0 && line[length] == ' ')
            return strtoll(line + length + 1, NULL, 10);
    }
    return 0;
}

static bool has_word(const char *list, const char *word, const char *separators)
{
    size_t length = strlen(word);
    for (const char *at = list; *at;) {
        size_t n = strcspn(at, separators);
        if (n == length && memcmp(at, word, n) == 0) return true;
        at += n;
        at += strspn(at, separators);
    }
    return false;
}

/* --- where we are ----------------------------------------------------------------------------- */

/* Copies the group path of hierarchy `controller` ("" means version 2) out of /proc/self/cgroup. */
static bool member_path(const char *membership, const char *controller, char *out, size_t n)
{
    for (const char *line = membership; line && *line;) {
        const char *end = strchrnul(line, '\n');
        const char *list = memchr(line, ':', (size_t)(end - line));
        const char *path = list ? memchr(list + 1, ':', (size_t)(end - list - 1)) : NULL;
        char names[256];
        if (path && (size_t)(path - list) <= sizeof names) {
            memcpy(names, list + 1, (size_t)(path - list - 1));
            names[path - list - 1] = '\0';
            bool found = *controller ? has_word(names, controller, ",")
                                     : (line[0] == '0' && names[0] == '\0');
            size_t length = (size_t)(end - path - 1);
            if (found && length < n) {
                memcpy(out, path + 1, length);
                out[length] = '\0';
                return true;
            }
        }
        line = *end ? end + 1 : end;
    }
    return false;
}

/* One line of mountinfo: "... ROOT MOUNTPOINT ... - TYPE SOURCE SUPEROPTIONS". */
typedef struct mount_line {
    char root[CGROUP_PATH_BYTES], point[CGROUP_PATH_BYTES], type[32], options[256];
} mount_line;

static bool mount_parse(const char *line, mount_line *out)
{
    const char *dash = strstr(line, " - ");
    const char *end = strchrnul(line, '\n');
    return dash && dash < end &&
           sscanf(line, "%*d %*d %*s %511s %511s", out->root, out->point) == 2 &&
           sscanf(dash + 3, "%31s %*s %255s", out->type, out->options) == 2;
}

/* Directory of our group under a mount, which may show only a part of the hierarchy. */
static bool group_dir(const mount_line *mount, const char *path, char *out)
{
    size_t root = strcmp(mount->root, "/") == 0 ? 0 : strlen(mount->root);
    if (strncmp(path, mount->root, root) != 0) return false;
    const char *rest = path + root;
    if (strcmp(rest, "/") == 0) rest = "";
    int n = snprintf(out, CGROUP_PATH_BYTES, "%s%s", mount->point, rest);
    return n > 0 && n < CGROUP_PATH_BYTES;
}

/* Version 2: slots are our siblings, or children of the hierarchy's root if we are in that. */
static void use_v2(const mount_line *mount, const char *path, sandbox_cgroups *out)
{
    char dir[CGROUP_PATH_BYTES];
    if (strcmp(path, "/") != 0) {
        char parent[CGROUP_PATH_BYTES];
        snprintf(parent, sizeof parent, "%s", path);
        char *slash = strrchr(parent, '/');
        if (!slash) return;
        slash[slash == parent] = '\0'; /* keeps a lone "/" */
        if (!group_dir(mount, parent, dir)) return;
    } else if (!group_dir(mount, path, dir)) {
        return;
    }
    out->v2 = true;
    snprintf(out->memory, sizeof out->memory, "%s", dir);
    snprintf(out->pids, sizeof out->pids, "%s", dir);
}

void sandbox_cgroups_parse(const char *mountinfo, const char *membership, sandbox_cgroups *out)
{
    *out = (sandbox_cgroups){0};
    sandbox_cgroups second = {0};
    char path[CGROUP_PATH_BYTES];
    for (const char *line = mountinfo; line && *line;) {
        mount_line mount;
        if (mount_parse(line, &mount)) {
            if (strcmp(mount.type, "cgroup2") == 0 &&
                member_path(membership, "", path, sizeof path))
                use_v2(&mount, path, &second);
            if (strcmp(mount.type, "cgroup") == 0) {
                if (has_word(mount.options, "memory", ",") &&
                    member_path(membership, "memory", path, sizeof path) &&
                    !group_dir(&mount, path, out->memory))
                    out->memory[0] = '\0';
                if (has_word(mount.options, "pids", ",") &&
                    member_path(membership, "pids", path, sizeof path) &&
                    !group_dir(&mount, path, out->pids))
                    out->pids[0] = '\0';
            }
        }
        line = strchrnul(line, '\n');
        if (*line) line++;
    }
    /* A hybrid host has the controllers in version 1 and an empty version 2 beside them. */
    if (!out->memory[0] && !out->pids[0]) *out = second;
}

/* Removes groups whose launcher is gone. */
static void sweep(const char *dir)
{
    DIR *d = dir[0] ? opendir(dir) : NULL;
    if (!d) return;
    for (struct dirent *entry; (entry = readdir(d));) {
        int owner, index;
        if (sscanf(entry->d_name, "weft-%d-%d", &owner, &index) != 2) continue;
        if (kill(owner, 0) && errno == ESRCH) unlinkat(dirfd(d), entry->d_name, AT_REMOVEDIR);
    }
    closedir(d);
}

void sandbox_cgroups_find(sandbox_cgroups *out)
{
    char membership[4096];
    char *mountinfo = malloc(PROC_FILE_BYTES);
    *out = (sandbox_cgroups){0};
    if (mountinfo && file_read("/proc/self/mountinfo", mountinfo, PROC_FILE_BYTES) &&
        file_read("/proc/self/cgroup", membership, sizeof membership))
        sandbox_cgroups_parse(mountinfo, membership, out);
    free(mountinfo);
    if (out->v2) {
        char path[CGROUP_PATH_BYTES + 32], handed[256];
        snprintf(path, sizeof path, "%s/cgroup.subtree_control", out->memory);
        bool read = file_read(path, handed, sizeof handed);
        if (!read || !has_word(handed, "memory", " \n")) out->memory[0] = '\0';
        if (!read || !has_word(handed, "pids", " \n")) out->pids[0] = '\0';
    }
    sweep(out->memory);
    sweep(out->pids);
}

/* --- slots ------------------------------------------------------------------------------------ */

void sandbox_slot_make(const sandbox_cgroups *where, pid_t owner, unsigned index, sandbox_slot *out)
{
    *out = (sandbox_slot){.v2 = where->v2};
    snprintf(out->memory, sizeof out->memory, "%s/weft-%d-%u", where->memory, (int)owner, index);
    snprintf(out->pids, sizeof out->pids, "%s/weft-%d-%u", where->pids, (int)owner, index);
    out->has_memory = where->memory[0] && mkdir(out->memory, 0755) == 0;
    if (where->v2 && out->has_memory) /* the same directory */
        out->has_pids = where->pids[0] != '\0';
    else
        out->has_pids = where->pids[0] && mkdir(out->pids, 0755) == 0;
}

pid_t sandbox_slot_fork(sandbox_slot *slot)
{
    int group =
        slot->v2 && slot->has_memory ? open(slot->memory, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
    if (group >= 0) {
        struct clone_args args = {
            .flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = (uint64_t)group};
        slot->entered = true; /* as the child sees it */
        pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
        int error = errno;
        if (pid != 0) slot->entered = false;
        close(group);
        errno = error;
        if (pid >= 0) return pid;
    }
    return fork();
}

void sandbox_slot_enter(sandbox_slot *slot)
{
    if (slot->entered) return;
    if (slot->has_memory && !file_write(slot->memory, "cgroup.procs", "0")) {
        slot->has_memory = false;
        if (slot->v2) slot->has_pids = false;
        rmdir(slot->memory);
    }
    if (slot->has_pids && !slot->v2 && !file_write(slot->pids, "cgroup.procs", "0")) {
        slot->has_pids = false;
        rmdir(slot->pids);
    }
}

static bool memory_limit(const sandbox_slot *slot, int64_t bytes)
{
    if (slot->v2) {
        file_write(slot->memory, "memory.swap.max", "0"); /* absent without swap */
        return file_write_int(slot->memory, "memory.max", bytes);
    }
    /* memory must never exceed memory + swap, so that one is lifted first (absent without swap). */
    file_write(slot->memory, "memory.memsw.limit_in_bytes", "-1");
    if (!file_write_int(slot->memory, "memory.limit_in_bytes", bytes)) {
        /* The last call's file cache may exceed this call's limit. */
        file_write(slot->memory, "memory.force_empty", "0");
        if (!file_write_int(slot->memory, "memory.limit_in_bytes", bytes)) return false;
    }
    return file_write_int(slot->memory, "memory.memsw.limit_in_bytes", bytes) || errno == ENOENT;
}

static int64_t oom_count(const sandbox_slot *slot)
{
    return file_field(slot->memory, slot->v2 ? "memory.events" : "memory.oom_control", "oom_kill");
}

static int64_t refusal_count(const sandbox_slot *slot)
{
    return file_field(slot->pids, "pids.events", "max");
}

bool sandbox_slot_limit(sandbox_slot *slot, const weft_sandbox_limits *limits)
{
    if (slot->has_memory) {
        if (slot->memory_bytes != limits->memory_bytes) {
            slot->memory_bytes = 0;
            if (!memory_limit(slot, limits->memory_bytes)) return false;
            slot->memory_bytes = limits->memory_bytes;
        }
        slot->ooms = oom_count(slot);
    }
    if (slot->has_pids) {
        if (slot->processes != limits->processes) {
            slot->processes = 0;
            if (!file_write_int(slot->pids, "pids.max", limits->processes + OWN_PROCESSES))
                return false;
            slot->processes = limits->processes;
        }
        slot->refusals = refusal_count(slot);
    }
    return true;
}

bool sandbox_slot_oom(const sandbox_slot *slot)
{
    return slot->has_memory && oom_count(slot) > slot->ooms;
}

bool sandbox_slot_full(const sandbox_slot *slot)
{
    return slot->has_pids && refusal_count(slot) > slot->refusals;
}

static bool group_remove(const char *dir)
{
    for (int tries = 0; tries < 100; tries++) {
        if (rmdir(dir) == 0 || errno == ENOENT) return true;
        file_write(dir, "cgroup.kill", "1"); /* version 2, kernel 5.14 */
        poll(NULL, 0, 10);
    }
    return false;
}

bool sandbox_slot_remove(sandbox_slot *slot)
{
    bool gone = !slot->has_memory || group_remove(slot->memory);
    if (slot->has_pids && !slot->v2) gone = group_remove(slot->pids) && gone;
    slot->has_memory = slot->has_pids = false;
    return gone;
}
