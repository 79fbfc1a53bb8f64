/* Copying a directory tree. Names are looked up below open directories and links are never followed,
 * so the tree may change, or be hostile, while it is copied. Where the file system can, blocks are
 * shared instead of copied (copy_file_range). */
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct copying {
    int64_t left; /* bytes that may still be copied */
    dev_t device; /* of the destination, which may lie inside the source */
    ino_t inode;
    weft_error *err;
} copying;

static weft_status copy_bytes(copying *c, int in, int out, const char *name)
{
    enum { CHUNK = 1 << 16 };
    char chunk[CHUNK];
    for (bool in_kernel = true;;) {
        ssize_t n = in_kernel ? copy_file_range(in, NULL, out, NULL, 1 << 30, 0)
                              : read(in, chunk, CHUNK);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && in_kernel) { /* between file systems, or one that cannot */
            in_kernel = false;
            continue;
        }
        if (n < 0) return weft_fail_errno(c->err, WEFT_E_STORAGE, "copy %s", name);
        if (n == 0) return WEFT_OK;
        c->left -= n;
        if (c->left < 0)
            return weft_fail(c->err, WEFT_E_LIMIT, "copy %s: the directory is too large", name);
        weft_status status = in_kernel ? WEFT_OK : weft_write_all(out, chunk, (size_t)n, c->err);
        if (status) return weft_fail_prefix(c->err, "copy %s", name);
    }
}

/* Owner, where we may (tools of a run by root are another user), then mode. */
static weft_status take_owner(copying *c, int fd, const char *name, const struct stat *st)
{
    if (fchown(fd, st->st_uid, st->st_gid) != 0 && errno != EPERM)
        return weft_fail_errno(c->err, WEFT_E_STORAGE, "copy %s", name);
    if (fchmod(fd, st->st_mode & 07777) != 0)
        return weft_fail_errno(c->err, WEFT_E_STORAGE, "copy %s", name);
    return WEFT_OK;
}

static weft_status copy_file(copying *c, int from, int to, const char *name, const struct stat *st)
{
    weft_status status = WEFT_OK;
    int in = openat(from, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK), out = -1;
    if (in >= 0)
        out = openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (in < 0 || out < 0)
        status = weft_fail_errno(c->err, WEFT_E_STORAGE, "copy %s", name);
    else
        status = copy_bytes(c, in, out, name);
    if (!status) status = take_owner(c, out, name, st);
    if (in >= 0) close(in);
    if (out >= 0) close(out);
    return status;
}

static weft_status copy_link(copying *c, int from, int to, const char *name)
{
    char target[PATH_MAX];
    ssize_t n = readlinkat(from, name, target, sizeof target - 1);
    if (n >= 0) {
        target[n] = '\0';
        if (symlinkat(target, to, name) == 0) return WEFT_OK;
    }
    return weft_fail_errno(c->err, WEFT_E_STORAGE, "copy link %s", name);
}

static weft_status copy_directory(copying *c, int from, int to);

static weft_status copy_entry(copying *c, int from, int to, const char *name)
{
    struct stat st;
    if (fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return errno == ENOENT ? WEFT_OK /* removed meanwhile */
                               : weft_fail_errno(c->err, WEFT_E_STORAGE, "copy %s", name);
    if (S_ISREG(st.st_mode)) return copy_file(c, from, to, name, &st);
    if (S_ISLNK(st.st_mode)) return copy_link(c, from, to, name);
    if (!S_ISDIR(st.st_mode) || (st.st_dev == c->device && st.st_ino == c->inode)) return WEFT_OK;
    if (mkdirat(to, name, 0700) != 0)
        return weft_fail_errno(c->err, WEFT_E_STORAGE, "create directory %s", name);
    int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    int in = openat(from, name, flags), out = openat(to, name, flags);
    weft_status status = in < 0 || out < 0
                             ? weft_fail_errno(c->err, WEFT_E_STORAGE, "copy directory %s", name)
                             : copy_directory(c, in, out);
    if (!status) status = take_owner(c, out, name, &st);
    if (in >= 0) close(in);
    if (out >= 0) close(out);
    return status;
}

static weft_status copy_directory(copying *c, int from, int to)
{
    int fd = dup(from);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d) {
        if (fd >= 0) close(fd);
        return weft_fail_errno(c->err, WEFT_E_STORAGE, "read a directory");
    }
    weft_status status = WEFT_OK;
    for (struct dirent *e; !status && (e = readdir(d));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            status = copy_entry(c, from, to, e->d_name);
    closedir(d);
    return status;
}

weft_status weft_copy_tree(const char *from, const char *to, int64_t max_bytes, weft_error *err)
{
    struct stat st;
    copying c = {.left = max_bytes, .err = err};
    int in = open(from, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (in < 0) return weft_fail_errno(err, WEFT_E_NOT_FOUND, "open directory %s", from);
    int out = open(to, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    weft_status status = out < 0 || fstat(out, &st) != 0
                             ? weft_fail_errno(err, WEFT_E_STORAGE, "open directory %s", to)
                             : WEFT_OK;
    if (!status) {
        c.device = st.st_dev;
        c.inode = st.st_ino;
        status = copy_directory(&c, in, out);
    }
    close(in);
    if (out >= 0) close(out);
    return status;
}
