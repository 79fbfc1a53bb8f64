/* Builds the root of a call.
 *
 *   /            tmpfs, 1 MiB, read-only when done      /dev   null zero full random urandom, shm
 *   /usr         the host's, read-only                  /proc  own processes only, read-only
 *   /bin /lib*   as on the host (links into /usr)       /tmp   tmpfs
 *   /etc         six files of our own                   /work  the workspace, or a tmpfs
 *
 * Mounts are made detached (fsmount, open_tree), given their attributes, and only then moved into
 * place, so none is ever visible with more rights than it shall have. The new root is attached over
 * "/", where it hides nothing from a process whose root lies below; pivot_root and a lazy unmount
 * then drop the host: at once if the worker sends the request's mounts as descriptors, otherwise when
 * init has cloned them by path. Facts: a proc mount needs an unobscured /proc in the old name space, so it
 * fails in nested containers; device nodes cannot be made in a user namespace, hence bound.
 */
#include "sandbox/rootfs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define HERE "" /* with AT_EMPTY_PATH: the descriptor itself */

enum { DEFAULT_TMPFS_BYTES = 256 << 20 }; /* a quarter of the default memory limit */

/* --- detached mounts -------------------------------------------------------------------------- */

/* Clones the mount tree at dirfd/path and restricts it. -1 with errno. */
static int tree_clone(int dirfd, const char *path, uint64_t attributes)
{
    int at = path[0] ? 0 : AT_EMPTY_PATH;
    int fd = open_tree(dirfd, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE | at);
    if (fd < 0) return -1;
    struct mount_attr attr = {.attr_set = attributes, .propagation = MS_PRIVATE};
    if (mount_setattr(fd, HERE, AT_EMPTY_PATH | AT_RECURSIVE, &attr, sizeof attr)) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

typedef struct fs_option {
    const char *key, *value;
} fs_option;

static int fs_make(const char *type, const fs_option *options, unsigned attributes)
{
    int mount = -1, error = 0;
    int fs = fsopen(type, FSOPEN_CLOEXEC);
    if (fs < 0) return -1;
    for (; options->key && !error; options++)
        error = fsconfig(fs, FSCONFIG_SET_STRING, options->key, options->value, 0);
    if (!error) error = fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0);
    if (!error) mount = fsmount(fs, FSMOUNT_CLOEXEC, attributes);
    error = errno;
    close(fs);
    errno = error;
    return mount;
}

static int tmpfs_make(int64_t bytes, const char *inodes)
{
    char size[24];
    snprintf(size, sizeof size, "%lld", (long long)bytes);
    const fs_option options[] = {
        {"size", size}, {"nr_inodes", inodes}, {"mode", "0700"}, {NULL, NULL}};
    return fs_make("tmpfs", options, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
}

/* Moves a detached mount to root/path and closes its descriptor, also on failure. */
static bool place(int tree, int root, const char *path, sandbox_fault *fault)
{
    bool ok = tree >= 0 && move_mount(tree, HERE, root, path, MOVE_MOUNT_F_EMPTY_PATH) == 0;
    if (!ok) sandbox_fault_layer(fault, LAYER_ROOT, "mount /%s", path);
    if (tree >= 0) close(tree);
    return ok;
}

/* --- the caller's mounts ---------------------------------------------------------------------- */

/* A workspace must belong to the workload's id. Only root can make it so, and must not do it to a
 * directory that is somebody's, or the system's: "--workdir /etc" would hand over the host. */
static bool workspace_own(int fd, const struct stat *st, const sandbox_mount *m, uid_t uid,
                          gid_t gid, sandbox_fault *fault)
{
    if (st->st_uid == uid || !m->writable || geteuid() != 0) return true;
    char link[32], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    path[n > 0 ? n : 0] = '\0';
    if (st->st_uid != 0 || strrchr(path, '/') == path)
        return sandbox_fault_set(fault, WEFT_E_CONFIG, 0,
                                 "workspace %s belongs to uid %u: give a directory of weft's own, "
                                 "or chown it to %u",
                                 m->host, st->st_uid, uid);
    if (fchownat(fd, HERE, uid, gid, AT_EMPTY_PATH))
        return sandbox_fault_set(fault, WEFT_E_CONFIG, errno, "chown workspace %s", m->host);
    return true;
}

static uint64_t mount_attributes(const sandbox_mount *m)
{
    return MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | (m->writable ? 0 : MOUNT_ATTR_RDONLY);
}

static bool mount_open(sandbox_mount *m, uid_t uid, gid_t gid, sandbox_fault *fault)
{
    struct stat st;
    bool workspace = strcmp(m->inside, "/work") == 0;
    int fd = open(m->host, O_PATH | O_CLOEXEC | (workspace ? O_DIRECTORY : 0));
    bool ok = fd >= 0 && fstat(fd, &st) == 0;
    if (!ok) {
        sandbox_fault_set(fault, WEFT_E_CONFIG, errno, "%s for %s inside", m->host, m->inside);
        goto done;
    }
    m->directory = S_ISDIR(st.st_mode);
    m->device = st.st_dev;
    m->inode = st.st_ino;
    if (workspace && !(ok = workspace_own(fd, &st, m, uid, gid, fault))) goto done;
    m->tree = tree_clone(fd, HERE, mount_attributes(m));
    /* An ordinary user may not: init does it by path, in its own namespaces. */
    if (m->tree < 0 && errno != EPERM)
        ok = sandbox_fault_layer(fault, LAYER_ROOT, "open_tree %s", m->host);
done:
    if (fd >= 0) close(fd);
    return ok;
}

bool sandbox_mounts_open(sandbox_call *call, uid_t uid, gid_t gid, sandbox_fault *fault)
{
    for (size_t i = 0; i < call->n_mounts; i++)
        if (!mount_open(&call->mounts[i], uid, gid, fault)) return false;
    return true;
}

/* Clones by path, in init, what the worker could not. A namespace that was made before something was
 * mounted on the host still shows the directory below it: that is found out by the inode. */
static bool mount_open_late(sandbox_mount *m, bool *out_stale, sandbox_fault *fault)
{
    struct stat st;
    int fd = open(m->host, O_PATH | O_CLOEXEC);
    bool ok = fd >= 0 && fstat(fd, &st) == 0;
    if (!ok || st.st_dev != m->device || st.st_ino != m->inode) {
        *out_stale = true;
        ok = sandbox_fault_set(fault, WEFT_E_CONFIG, ok ? ESTALE : errno, "%s for %s inside",
                               m->host, m->inside);
        goto done;
    }
    m->tree = tree_clone(fd, HERE, mount_attributes(m));
    ok = m->tree >= 0 || sandbox_fault_layer(fault, LAYER_ROOT, "open_tree %s", m->host);
done:
    if (fd >= 0) close(fd);
    return ok;
}

/* Where a bind may go: below a directory of the new root that is neither the system's nor the
 * workspace, whose contents an earlier call may have arranged. */
static bool inside_is_allowed(const char *inside)
{
    static const char *const taken[] = {"usr",    "bin", "sbin", "lib", "lib32", "lib64",
                                        "libx32", "dev", "proc", "sys", "work"};
    if (inside[0] != '/' || !inside[1] || strcmp(inside, "/tmp") == 0 ||
        strcmp(inside, "/etc") == 0)
        return false;
    const char *at = inside + 1;
    size_t first = strcspn(at, "/");
    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++)
        if (strlen(taken[i]) == first && memcmp(taken[i], at, first) == 0) return false;
    for (;;) {
        size_t n = strcspn(at, "/");
        if (n == 0 || (n == 1 && at[0] == '.') || (n == 2 && memcmp(at, "..", 2) == 0))
            return false;
        if (!at[n]) return true;
        at += n + 1;
    }
}

/* Makes the mount point root/path, with its parents. */
static bool target_make(int root, const char *path, bool directory, sandbox_fault *fault)
{
    char part[4096];
    if (strlen(path) >= sizeof part)
        return sandbox_fault_set(fault, WEFT_E_CONFIG, ENAMETOOLONG, "bind /%.60s...", path);
    for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
        memcpy(part, path, (size_t)(slash - path));
        part[slash - path] = '\0';
        if (mkdirat(root, part, 0755) && errno != EEXIST)
            return sandbox_fault_set(fault, WEFT_E_CONFIG, errno, "make /%s inside", part);
    }
    if (directory) {
        if (mkdirat(root, path, 0755) && errno != EEXIST)
            return sandbox_fault_set(fault, WEFT_E_CONFIG, errno, "make /%s inside", path);
        return true;
    }
    int fd = openat(root, path, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd < 0) return sandbox_fault_set(fault, WEFT_E_CONFIG, errno, "make /%s inside", path);
    close(fd);
    return true;
}

static bool binds_place(sandbox_call *call, int root, bool *out_stale, sandbox_fault *fault)
{
    for (size_t i = 0; i < call->n_mounts; i++) {
        sandbox_mount *m = &call->mounts[i];
        bool workspace = call->has_workdir && i == 0;
        if (!workspace && !inside_is_allowed(m->inside))
            return sandbox_fault_set(fault, WEFT_E_USAGE, 0, "sandbox: nothing can be bound at %s",
                                     m->inside);
        if (m->tree < 0 && !mount_open_late(m, out_stale, fault)) return false;
        int tree = m->tree;
        m->tree = -1; /* place closes it */
        if (!workspace && !target_make(root, m->inside + 1, m->directory, fault)) {
            close(tree);
            return false;
        }
        if (!place(tree, root, m->inside + 1, fault)) return false;
    }
    return true;
}

/* --- the parts of the root -------------------------------------------------------------------- */

static bool text_make(int root, const char *path, const char *text, sandbox_fault *fault)
{
    int fd = openat(root, path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    if (!ok) sandbox_fault_layer(fault, LAYER_ROOT, "make /%s", path);
    if (fd >= 0) close(fd);
    return ok;
}

/* Binds a file or directory of the host at the same place inside; one that is missing is left out. */
static bool host_bind(int root, const char *path, sandbox_fault *fault)
{
    struct stat st;
    if (stat(path, &st)) return true;
    int tree = tree_clone(AT_FDCWD, path, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
    if (tree < 0) return sandbox_fault_layer(fault, LAYER_ROOT, "open_tree %s", path);
    if (!target_make(root, path + 1, S_ISDIR(st.st_mode), fault)) {
        close(tree);
        return false;
    }
    return place(tree, root, path + 1, fault);
}

/* /bin, /lib and their kin: links into /usr nearly everywhere, directories on old systems. */
static bool system_links(int root, sandbox_fault *fault)
{
    static const char *const names[] = {"/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char text[256];
        ssize_t n = readlink(names[i], text, sizeof text - 1);
        if (n > 0) {
            text[n] = '\0';
            if (symlinkat(text, root, names[i] + 1))
                return sandbox_fault_layer(fault, LAYER_ROOT, "make %s", names[i]);
        } else if (!host_bind(root, names[i], fault)) {
            return false;
        }
    }
    return true;
}

static bool etc_make(const sandbox_shape *shape, int root, sandbox_fault *fault)
{
    /* The loader's cache; what Debian's cc and awk are links to. */
    static const char *const always[] = {"/etc/ld.so.cache", "/etc/alternatives"};
    static const char *const network[] = {"/etc/resolv.conf",   "/etc/hosts",
                                          "/etc/ssl/certs",     "/etc/ssl/openssl.cnf",
                                          "/etc/pki/tls/certs", "/etc/pki/ca-trust/extracted"};
    bool ok = text_make(root, "etc/passwd",
                        "root:x:0:0:root:/:/bin/sh\nweft:x:1000:1000:weft:/tmp:/bin/sh\n"
                        "nobody:x:65534:65534:nobody:/:/bin/sh\n",
                        fault) &&
              text_make(root, "etc/group", "root:x:0:\nweft:x:1000:\nnogroup:x:65534:\n", fault) &&
              text_make(root, "etc/nsswitch.conf",
                        "passwd: files\ngroup: files\nhosts: files dns\nservices: files\n"
                        "protocols: files\n",
                        fault) &&
              (shape->network ||
               text_make(root, "etc/hosts", "127.0.0.1 localhost\n::1 localhost\n", fault));
    for (size_t i = 0; ok && i < sizeof always / sizeof *always; i++)
        ok = host_bind(root, always[i], fault);
    for (size_t i = 0; ok && shape->network && i < sizeof network / sizeof *network; i++)
        ok = host_bind(root, network[i], fault);
    return ok;
}

static bool dev_make(const sandbox_shape *shape, int root, sandbox_fault *fault)
{
    static const char *const devices[] = {"/dev/null", "/dev/zero", "/dev/full", "/dev/random",
                                          "/dev/urandom"};
    static const char *const links[][2] = {{"/proc/self/fd", "dev/fd"},
                                           {"/proc/self/fd/0", "dev/stdin"},
                                           {"/proc/self/fd/1", "dev/stdout"},
                                           {"/proc/self/fd/2", "dev/stderr"}};
    for (size_t i = 0; i < sizeof devices / sizeof *devices; i++) {
        if (!target_make(root, devices[i] + 1, false, fault)) return false;
        int tree = tree_clone(AT_FDCWD, devices[i], MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
        if (!place(tree, root, devices[i] + 1, fault)) return false;
    }
    for (size_t i = 0; i < sizeof links / sizeof *links; i++)
        if (symlinkat(links[i][0], root, links[i][1]))
            return sandbox_fault_layer(fault, LAYER_ROOT, "make /%s", links[i][1]);
    if (shape->strict) return true;
    return target_make(root, "dev/shm", true, fault) &&
           place(tmpfs_make(16 << 20, "1024"), root, "dev/shm", fault);
}

/* A missing /proc lowers the level and is no failure; half a one would be. */
static bool proc_make(int root, sandbox_layers *layers, sandbox_fault *fault)
{
    static const fs_option options[] = {{"hidepid", "invisible"}, {"subset", "pid"}, {NULL, NULL}};
    int tree =
        fs_make("proc", options,
                MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
    if (tree < 0) return true;
    if (!place(tree, root, "proc", fault)) return false;
    *layers |= 1u << LAYER_PROC;
    return true;
}

static bool root_fill(const sandbox_shape *shape, int root, int usr, sandbox_layers *layers,
                      sandbox_fault *fault)
{
    static const char *const directories[] = {"usr", "etc", "dev", "proc", "tmp", "work"};
    for (size_t i = 0; i < sizeof directories / sizeof *directories; i++)
        if (mkdirat(root, directories[i], 0755)) {
            close(usr);
            return sandbox_fault_layer(fault, LAYER_ROOT, "make /%s", directories[i]);
        }
    bool ok = place(usr, root, "usr", fault) && system_links(root, fault) &&
              dev_make(shape, root, fault) &&
              place(tmpfs_make(DEFAULT_TMPFS_BYTES, "16384"), root, "tmp", fault) &&
              place(tmpfs_make(DEFAULT_TMPFS_BYTES, "16384"), root, "work", fault);
    if (ok && !shape->strict) ok = etc_make(shape, root, fault) && proc_make(root, layers, fault);
    if (ok && shape->strict) ok = host_bind(root, "/etc/ld.so.cache", fault);
    return ok;
}

/* The new root becomes "/", the old one is gone. */
static bool host_leave(int root, sandbox_fault *fault)
{
    if (fchdir(root) || syscall(SYS_pivot_root, ".", ".") || umount2(".", MNT_DETACH) || chdir("/"))
        return sandbox_fault_layer(fault, LAYER_ROOT, "pivot_root");
    return true;
}

bool sandbox_root_build(const sandbox_shape *shape, int *out_root, sandbox_layers *layers,
                        sandbox_fault *fault)
{
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
        return sandbox_fault_layer(fault, LAYER_ROOT, "make mounts private");
    int usr =
        tree_clone(AT_FDCWD, "/usr", MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
    if (usr < 0) return sandbox_fault_layer(fault, LAYER_ROOT, "open_tree /usr");
    /* Files we make here shall be readable whatever the caller's umask is. */
    umask(022);
    int root = tmpfs_make(1 << 20, "1024");
    if (root < 0 || move_mount(root, HERE, AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH)) {
        sandbox_fault_layer(fault, LAYER_ROOT, "mount the new root");
        close(usr);
        if (root >= 0) close(root);
        return false;
    }
    if (!root_fill(shape, root, usr, layers, fault) ||
        (shape->trees_come && !host_leave(root, fault))) {
        close(root);
        return false;
    }
    *out_root = root;
    return true;
}

/* /tmp and /work together may take half of the memory limit, so that files alone never reach it. */
static bool tmpfs_resize(const sandbox_call *call, int root, sandbox_fault *fault)
{
    char options[32];
    int64_t bytes = call->limits.memory_bytes / 4;
    if (bytes == DEFAULT_TMPFS_BYTES) return true;
    snprintf(options, sizeof options, "size=%lld", (long long)bytes);
    if (fchdir(root)) return sandbox_fault_layer(fault, LAYER_ROOT, "fchdir");
    const unsigned long flags = MS_REMOUNT | MS_NOSUID | MS_NODEV;
    if (mount(NULL, "tmp", NULL, flags, options) || mount(NULL, "work", NULL, flags, options))
        return sandbox_fault_layer(fault, LAYER_ROOT, "size /tmp and /work");
    return true;
}

bool sandbox_root_finish(sandbox_call *call, const sandbox_shape *shape, int root,
                         sandbox_layers *layers, bool *out_stale, sandbox_fault *fault)
{
    struct mount_attr readonly = {.attr_set = MOUNT_ATTR_RDONLY};
    bool ok = tmpfs_resize(call, root, fault) && binds_place(call, root, out_stale, fault) &&
              (shape->trees_come || host_leave(root, fault));
    if (ok && mount_setattr(root, HERE, AT_EMPTY_PATH, &readonly, sizeof readonly))
        ok = sandbox_fault_layer(fault, LAYER_ROOT, "make the root read-only");
    if (ok && chdir("/")) ok = sandbox_fault_layer(fault, LAYER_ROOT, "chdir");
    if (ok) *layers |= 1u << LAYER_ROOT;
    close(root);
    umask(077);
    return ok;
}
