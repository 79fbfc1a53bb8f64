/* Files and paths. Writing goes through a temporary and a rename, so a reader sees the old content
 * or the new one, never a torn file. */
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

weft_status weft_file_read(const char *path, size_t max_bytes, weft_buffer *out, weft_error *err)
{
    bool input = strcmp(path, "-") == 0;
    int fd = input ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return weft_fail_errno(err, WEFT_E_CONFIG, "read %s", path);
    weft_status status = WEFT_OK;
    for (size_t total = 0;;) {
        char *to = weft_buffer_reserve(out, 1 << 16);
        if (!to) {
            status = weft_buffer_ok(out, err);
            break;
        }
        ssize_t n = read(fd, to, 1 << 16);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            status = weft_fail_errno(err, WEFT_E_CONFIG, "read %s", path);
            break;
        }
        if (n == 0) {
            *to = '\0';
            break;
        }
        total += (size_t)n;
        if (total > max_bytes) {
            status =
                weft_fail(err, WEFT_E_CONFIG, "read %s: larger than %zu bytes", path, max_bytes);
            break;
        }
        out->size += (size_t)n;
        out->data[out->size] = '\0';
    }
    if (!input) close(fd);
    return status;
}

weft_status weft_write_all(int fd, const void *bytes, size_t n, weft_error *err)
{
    const char *p = bytes;
    while (n) {
        ssize_t w = write(fd, p, n);
        if (w < 0 && errno == EINTR) continue;
        if (w < 0) return weft_fail_errno(err, WEFT_E_STORAGE, "write");
        p += w;
        n -= (size_t)w;
    }
    return WEFT_OK;
}

weft_status weft_sync_dir(const char *path, weft_error *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return weft_fail_errno(err, WEFT_E_STORAGE, "open directory %s", path);
    weft_status status = WEFT_OK;
    if (fsync(fd) != 0) status = weft_fail_errno(err, WEFT_E_STORAGE, "sync directory %s", path);
    close(fd);
    return status;
}

weft_status weft_file_write(const char *path, const void *bytes, size_t n, unsigned mode,
                            weft_error *err)
{
    weft_status status = WEFT_E_STORAGE;
    weft_buffer temp = WEFT_BUFFER_INIT, dir = WEFT_BUFFER_INIT;
    int fd = -1;
    weft_buffer_printf(&temp, "%s.tmp-%ld", path, (long)getpid());
    const char *slash = strrchr(path, '/');
    if (slash == path)
        weft_buffer_puts(&dir, "/");
    else if (slash)
        weft_buffer_append(&dir, path, (size_t)(slash - path));
    else
        weft_buffer_puts(&dir, ".");
    if (weft_buffer_ok(&temp, err) || weft_buffer_ok(&dir, err)) goto done;
    fd = open(temp.data, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd < 0) {
        weft_fail_errno(err, WEFT_E_STORAGE, "create %s", temp.data);
        goto done;
    }
    if (weft_write_all(fd, bytes, n, err)) goto remove;
    if (fsync(fd) != 0 || close(fd) != 0) {
        fd = -1;
        weft_fail_errno(err, WEFT_E_STORAGE, "sync %s", temp.data);
        goto remove;
    }
    fd = -1;
    if (rename(temp.data, path) != 0) {
        weft_fail_errno(err, WEFT_E_STORAGE, "rename to %s", path);
        goto remove;
    }
    status = weft_sync_dir(dir.data, err);
    goto done;
remove:
    unlink(temp.data);
done:
    if (fd >= 0) close(fd);
    weft_buffer_free(&temp);
    weft_buffer_free(&dir);
    return status;
}

weft_status weft_mkdirs(const char *path, weft_error *err)
{
    char *copy = strdup(path);
    if (!copy) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    weft_status status = WEFT_OK;
    for (char *p = copy + 1;; p++) {
        if (*p != '/' && *p != '\0') continue;
        char saved = *p;
        *p = '\0';
        if (mkdir(copy, 0700) != 0 && errno != EEXIST) {
            status = weft_fail_errno(err, WEFT_E_STORAGE, "create directory %s", copy);
            break;
        }
        *p = saved;
        if (!saved) break;
    }
    struct stat st;
    if (!status && (stat(path, &st) != 0 || !S_ISDIR(st.st_mode)))
        status = weft_fail(err, WEFT_E_STORAGE, "create directory %s: a file is in the way", path);
    free(copy);
    return status;
}

static weft_status remove_at(int dir, const char *name, const char *shown, weft_error *err)
{
    if (unlinkat(dir, name, 0) == 0 || errno == ENOENT) return WEFT_OK;
    if (errno != EISDIR && errno != EPERM)
        return weft_fail_errno(err, WEFT_E_STORAGE, "remove %s", shown);
    int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return weft_fail_errno(err, WEFT_E_STORAGE, "open directory %s", shown);
    DIR *d = fdopendir(fd);
    if (!d) {
        weft_fail_errno(err, WEFT_E_STORAGE, "open directory %s", shown);
        close(fd);
        return WEFT_E_STORAGE;
    }
    weft_status status = WEFT_OK;
    for (struct dirent *e; !status && (e = readdir(d));) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        status = remove_at(fd, e->d_name, e->d_name, err);
    }
    closedir(d);
    if (!status && unlinkat(dir, name, AT_REMOVEDIR) != 0)
        status = weft_fail_errno(err, WEFT_E_STORAGE, "remove %s", shown);
    return status;
}

weft_status weft_remove_tree(const char *path, weft_error *err)
{
    return remove_at(AT_FDCWD, path, path, err);
}

bool weft_file_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

char *weft_path_join(const char *dir, const char *name)
{
    weft_buffer b = WEFT_BUFFER_INIT;
    size_t n = strlen(dir);
    weft_buffer_append(&b, dir, n);
    if (n && dir[n - 1] != '/') weft_buffer_putc(&b, '/');
    weft_buffer_puts(&b, name);
    return weft_buffer_take(&b);
}

static char *home_under(const char *xdg, const char *below_home)
{
    const char *base = getenv(xdg);
    if (base && base[0] == '/') return weft_path_join(base, "weft");
    const char *home = getenv("HOME");
    return home && *home ? weft_path_join(home, below_home) : NULL;
}

char *weft_home(void)
{
    const char *home = getenv("WEFT_HOME");
    return home && *home ? strdup(home) : home_under("XDG_DATA_HOME", ".local/share/weft");
}

char *weft_config_home(void)
{
    return home_under("XDG_CONFIG_HOME", ".config/weft");
}
