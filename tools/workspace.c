/* Files below a descriptor, with openat2 (workspace.h says why). */
#include "tools/workspace.h"

#include "sandbox/sandbox.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int workspace_open(const char *root)
{
    return open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

const char *workspace_relative(const char *path)
{
    if (strcmp(path, "/work") == 0) return ".";
    if (strncmp(path, "/work/", 6) == 0) path += 6;
    while (strncmp(path, "./", 2) == 0) path += 2;
    return *path ? path : ".";
}

static int open_beneath(int root, const char *path, int flags, unsigned mode)
{
    struct open_how how = {.flags = (uint64_t)(flags | O_CLOEXEC),
                           .mode = mode,
                           .resolve =
                               RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
    long fd;
    do { /* EAGAIN: something was renamed on the way */
        fd = syscall(SYS_openat2, root, path, &how, sizeof how);
    } while (fd < 0 && (errno == EINTR || errno == EAGAIN));
    return (int)fd;
}

/* Words for the reason in errno. */
static weft_status fail_open(const char *path, weft_error *err)
{
    switch (errno) {
    case EXDEV:
        return weft_fail(err, WEFT_E_INVALID,
                         "%s: the path leaves the workspace: write one relative to it", path);
    case ELOOP:
        return weft_fail(err, WEFT_E_INVALID,
                         "%s: a symbolic link is on the way, and links are not followed", path);
    case ENOENT:
        return weft_fail(err, WEFT_E_INVALID,
                         "%s: no such file or folder: list_files shows what there is", path);
    case ENOTDIR:
        return weft_fail(err, WEFT_E_INVALID, "%s: a part of the path is no folder", path);
    case EISDIR: return weft_fail(err, WEFT_E_INVALID, "%s: this is a folder", path);
    default: return weft_fail_errno(err, WEFT_E_INVALID, "%s", path);
    }
}

weft_status workspace_open_file(int root, const char *path, bool any_links, size_t max_bytes,
                                int *out_fd, struct stat *out_stat, weft_error *err)
{
    struct stat st;
    /* O_NONBLOCK: opening a pipe that someone left here must not wait for a writer */
    int fd = open_beneath(root, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
    if (fd < 0) return fail_open(path, err);
    weft_status status = WEFT_OK;
    if (fstat(fd, &st) != 0)
        status = weft_fail_errno(err, WEFT_E_INVALID, "%s", path);
    else if (S_ISDIR(st.st_mode))
        status = weft_fail(err, WEFT_E_INVALID,
                           "%s: this is a folder: list_files shows what it holds", path);
    else if (!S_ISREG(st.st_mode))
        status = weft_fail(err, WEFT_E_INVALID, "%s: this is no regular file", path);
    else if (!any_links && st.st_nlink != 1)
        status =
            weft_fail(err, WEFT_E_INVALID,
                      "%s: the file has a second name (a hard link), and is not trusted", path);
    else if ((uint64_t)st.st_size > max_bytes)
        status =
            weft_fail(err, WEFT_E_INVALID, "%s: %lld bytes are more than the %zu that can be read",
                      path, (long long)st.st_size, max_bytes);
    if (status) {
        close(fd);
        return status;
    }
    *out_fd = fd;
    if (out_stat) *out_stat = st;
    return WEFT_OK;
}

weft_status workspace_read(int root, const char *path, bool any_links, size_t max_bytes,
                           weft_buffer *out, weft_error *err)
{
    int fd;
    weft_status status = workspace_open_file(root, path, any_links, max_bytes, &fd, NULL, err);
    if (status) return status;
    size_t before = out->size;
    for (;;) {
        char *to = weft_buffer_reserve(out, 1 << 16);
        if (!to) {
            status = weft_buffer_ok(out, err);
            break;
        }
        ssize_t n = read(fd, to, 1 << 16);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) status = weft_fail_errno(err, WEFT_E_INVALID, "%s", path);
        to[n > 0 ? n : 0] = '\0';
        if (n <= 0) break;
        out->size += (size_t)n;
        if (out->size - before > max_bytes) { /* it grew while we read */
            status = weft_fail(err, WEFT_E_INVALID, "%s: the file is larger than %zu bytes", path,
                               max_bytes);
            break;
        }
    }
    close(fd);
    return status;
}

/* ---- write ---- */

/* What we make must belong to the programs' user, or they could not change it. */
static bool hand_over(int fd)
{
    if (geteuid() != 0) return true;
    uid_t uid = weft_sandbox_uid();
    return fchown(fd, uid, uid) == 0;
}

/* A descriptor of the directory that holds path's last part; missing ones are made. */
static weft_status open_parent(int root, const char *path, int *out_fd, weft_error *err)
{
    char part[1024];
    int dir = open_beneath(root, ".", O_RDONLY | O_DIRECTORY, 0);
    if (dir < 0) return fail_open(".", err);
    for (const char *from = path, *slash; (slash = strchr(from, '/')); from = slash + 1) {
        size_t n = (size_t)(slash - path);
        if (n >= sizeof part) {
            close(dir);
            return weft_fail(err, WEFT_E_INVALID, "%.100s...: the path is too long", path);
        }
        memcpy(part, path, n);
        part[n] = '\0';
        if (slash == from) continue;
        int next = open_beneath(root, part, O_RDONLY | O_DIRECTORY, 0);
        if (next < 0 && errno == ENOENT && mkdirat(dir, part + (from - path), 0755) == 0) {
            next = open_beneath(root, part, O_RDONLY | O_DIRECTORY, 0);
            if (next >= 0 && !hand_over(next)) {
                weft_fail_errno(err, WEFT_E_INVALID, "%s: hand the folder to the sandbox's user",
                                part);
                close(next);
                close(dir);
                return WEFT_E_INVALID;
            }
        }
        if (next < 0) fail_open(part, err);
        close(dir);
        if (next < 0) return WEFT_E_INVALID;
        dir = next;
    }
    *out_fd = dir;
    return WEFT_OK;
}

/* A regular file with one name, or nothing, may be replaced. */
static weft_status check_target(int dir, const char *name, const char *path, bool *out_replaced,
                                weft_error *err)
{
    struct stat st;
    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
        if (errno != ENOENT) return fail_open(path, err);
        *out_replaced = false;
        return WEFT_OK;
    }
    if (S_ISDIR(st.st_mode)) return weft_fail(err, WEFT_E_INVALID, "%s: this is a folder", path);
    if (S_ISLNK(st.st_mode))
        return weft_fail(err, WEFT_E_INVALID,
                         "%s: this is a symbolic link, and links are not followed", path);
    if (!S_ISREG(st.st_mode))
        return weft_fail(err, WEFT_E_INVALID, "%s: this is no regular file", path);
    if (st.st_nlink != 1)
        return weft_fail(err, WEFT_E_INVALID,
                         "%s: the file has a second name (a hard link), and is not trusted", path);
    *out_replaced = true;
    return WEFT_OK;
}

weft_status workspace_write(int root, const char *path, const void *bytes, size_t n,
                            bool *out_replaced, weft_error *err)
{
    char temp[64];
    uint64_t unique;
    int dir = -1, fd = -1;
    bool made = false;
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    if (*path == '/') {
        errno = EXDEV;
        return fail_open(path, err);
    }
    if (!*name || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return weft_fail(err, WEFT_E_INVALID, "%s: the path must end in a file name", path);
    weft_status status = open_parent(root, path, &dir, err);
    if (!status) status = check_target(dir, name, path, out_replaced, err);
    if (status) goto done;
    weft_random(&unique, sizeof unique);
    snprintf(temp, sizeof temp, ".weft-write-%016llx", (unsigned long long)unique);
    fd = openat(dir, temp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    made = fd >= 0;
    if (!made || !hand_over(fd)) {
        status = weft_fail_errno(err, WEFT_E_INVALID, "%s: make the file", path);
        goto done;
    }
    status = weft_write_all(fd, bytes, n, err);
    if (!status && renameat(dir, temp, dir, name) != 0) status = fail_open(path, err);
    if (!status) made = false;
done:
    if (made) unlinkat(dir, temp, 0);
    if (fd >= 0) close(fd);
    if (dir >= 0) close(dir);
    return status ? WEFT_E_INVALID : WEFT_OK;
}

/* ---- walk ---- */

typedef struct walk {
    workspace_visit visit;
    void *context;
    weft_buffer path;
    size_t entries;
    bool whole, stopped, failed;
} walk;

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void names_free(char **names, size_t n)
{
    for (size_t i = 0; i < n; i++) free(names[i]);
    free(names);
}

/* The names in a directory, sorted. Closes fd. False on lack of memory. */
static bool read_names(walk *w, int fd, char ***out, size_t *out_n)
{
    DIR *dir = fdopendir(fd);
    char **names = NULL;
    size_t n = 0, room = 0;
    if (!dir) {
        close(fd);
        return false;
    }
    for (struct dirent *e; (e = readdir(dir));) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        if (w->entries + n >= WORKSPACE_ENTRIES) {
            w->whole = false;
            break;
        }
        if (n == room) {
            room = room ? 2 * room : 16;
            char **bigger = realloc(names, room * sizeof(char *));
            if (!bigger) goto fail;
            names = bigger;
        }
        if (!(names[n] = strdup(e->d_name))) goto fail;
        n++;
    }
    closedir(dir);
    if (n) qsort(names, n, sizeof(char *), by_bytes);
    *out = names;
    *out_n = n;
    return true;
fail:
    closedir(dir);
    names_free(names, n);
    return false;
}

/* Everything in the directory fd, which is closed. */
static void walk_directory(walk *w, int fd, int depth)
{
    char **names = NULL;
    size_t n = 0, length = w->path.size;
    int own = dup(fd); /* fdopendir takes fd, and the entries are looked up below */
    if (own < 0 || !read_names(w, fd, &names, &n)) {
        if (own < 0) close(fd);
        w->failed = true;
        n = 0;
    }
    w->entries += n;
    for (size_t i = 0; i < n && !w->stopped && !w->failed; i++) {
        workspace_entry entry;
        if (fstatat(own, names[i], &entry.stat, AT_SYMLINK_NOFOLLOW) != 0)
            continue; /* gone meanwhile */
        if (length) weft_buffer_putc(&w->path, '/');
        weft_buffer_puts(&w->path, names[i]);
        entry.path = weft_buffer_str(&w->path);
        w->failed = w->path.failed;
        if (!w->failed && !w->visit(w->context, &entry)) w->stopped = true;
        if (S_ISDIR(entry.stat.st_mode) && depth >= WORKSPACE_DEPTH) w->whole = false;
        if (S_ISDIR(entry.stat.st_mode) && depth < WORKSPACE_DEPTH && !w->stopped && !w->failed) {
            int below = openat(own, names[i], O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            if (below >= 0) walk_directory(w, below, depth + 1);
        }
        w->path.size = length;
        if (w->path.data) w->path.data[length] = '\0';
    }
    if (own >= 0) close(own);
    names_free(names, n);
}

weft_status workspace_walk(int root, const char *path, workspace_visit visit, void *context,
                           bool *out_whole, weft_error *err)
{
    int fd = open_beneath(root, path, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0) return fail_open(path, err);
    walk w = {.visit = visit, .context = context, .whole = true};
    walk_directory(&w, fd, 1);
    weft_buffer_free(&w.path);
    if (w.failed) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    *out_whole = w.whole;
    return WEFT_OK;
}

void workspace_put_name(const char *name, weft_buffer *out)
{
    weft_buffer safe = WEFT_BUFFER_INIT;
    weft_utf8_scrub(name, strlen(name), &safe);
    for (const char *p = weft_buffer_str(&safe); *p; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            weft_buffer_printf(out, "\\x%02x", (unsigned char)*p);
        else
            weft_buffer_putc(out, *p);
    }
    if (safe.failed) out->failed = true;
    weft_buffer_free(&safe);
}

/* ---- what changed ---- */

typedef struct file_state {
    char *path;
    uint64_t inode, size;
    int64_t changed_ns;
} file_state;

struct workspace_state {
    file_state *file; /* [n] in the order of their paths */
    size_t n, room;
    bool failed;
};

static bool note_file(void *context, const workspace_entry *entry)
{
    workspace_state *s = context;
    if (!S_ISREG(entry->stat.st_mode)) return true;
    if (s->n == s->room) {
        size_t room = s->room ? 2 * s->room : 16;
        file_state *bigger = realloc(s->file, room * sizeof *bigger);
        if (!bigger) goto fail;
        s->file = bigger;
        s->room = room;
    }
    char *path = strdup(entry->path);
    if (!path) goto fail;
    s->file[s->n++] =
        (file_state){path, entry->stat.st_ino, (uint64_t)entry->stat.st_size,
                     entry->stat.st_ctim.tv_sec * 1000000000LL + entry->stat.st_ctim.tv_nsec};
    return true;
fail:
    s->failed = true;
    return false;
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const file_state *)a)->path, ((const file_state *)b)->path);
}

weft_status workspace_state_take(int root, workspace_state **out, weft_error *err)
{
    bool whole;
    workspace_state *s = calloc(1, sizeof *s);
    if (!s) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    weft_status status = workspace_walk(root, ".", note_file, s, &whole, err);
    if (!status && s->failed) status = weft_fail(err, WEFT_E_MEMORY, "out of memory");
    if (status) {
        workspace_state_free(s);
        return status;
    }
    /* the walk sorted each directory; looking up needs the order of whole paths */
    if (s->n) qsort(s->file, s->n, sizeof *s->file, by_path);
    *out = s;
    return WEFT_OK;
}

void workspace_state_free(workspace_state *state)
{
    if (!state) return;
    for (size_t i = 0; i < state->n; i++) free(state->file[i].path);
    free(state->file);
    free(state);
}

static bool is_unchanged(const workspace_state *before, const file_state *now)
{
    const file_state *then =
        before->n ? bsearch(now, before->file, before->n, sizeof *now, by_path) : NULL;
    return then && then->inode == now->inode && then->size == now->size &&
           then->changed_ns == now->changed_ns;
}

cJSON *workspace_state_changes(const workspace_state *before, const workspace_state *after,
                               size_t limit, size_t *out_count)
{
    cJSON *list = cJSON_CreateArray();
    *out_count = 0;
    for (size_t i = 0; list && i < after->n; i++) {
        if (is_unchanged(before, &after->file[i]) || ++*out_count > limit) continue;
        weft_buffer name = WEFT_BUFFER_INIT;
        cJSON *entry = cJSON_CreateObject();
        workspace_put_name(after->file[i].path, &name);
        bool ok = entry && !name.failed &&
                  cJSON_AddStringToObject(entry, "name", weft_buffer_str(&name)) &&
                  cJSON_AddNumberToObject(entry, "bytes", (double)after->file[i].size) &&
                  cJSON_AddItemToArray(list, entry);
        weft_buffer_free(&name);
        if (ok) continue;
        cJSON_Delete(entry);
        cJSON_Delete(list);
        list = NULL;
    }
    return list;
}
