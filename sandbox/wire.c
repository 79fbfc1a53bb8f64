/* Encoding of requests, and messages with descriptors. */
#include "sandbox/wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

enum {
    HEAD_NETWORK = 1,
    HEAD_STRICT = 2,
    HEAD_WORKDIR = 4,
    HEAD_WORK_READONLY = 8,
};

typedef struct sandbox_head {
    uint32_t flags, n_argv, n_env, n_binds;
    weft_sandbox_limits limits;
} sandbox_head;

/* The environment is fixed, never inherited: keys and tokens of the host stay outside. */
static const char *const fixed_env[] = {
    "PATH=/usr/bin:/bin", "HOME=/tmp", "TMPDIR=/tmp", "LANG=C.UTF-8",
    "LC_ALL=C.UTF-8",     "TZ=UTC",    "USER=weft",   "LOGNAME=weft",
    "SHELL=/bin/sh",      "TERM=dumb",
};
enum { N_FIXED_ENV = sizeof fixed_env / sizeof *fixed_env };

void sandbox_close(int *fd)
{
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

/* --- encoding, in weft ------------------------------------------------------------------------ */

static void put_text(weft_buffer *out, const char *text)
{
    weft_buffer_append(out, text, strlen(text) + 1);
}

/* The launcher's current directory is "/": a relative path must be made absolute here. */
static weft_status put_path(weft_buffer *out, const char *path, weft_error *err)
{
    if (path[0] != '/') {
        char *cwd = getcwd(NULL, 0);
        if (!cwd) return weft_fail_errno(err, WEFT_E_CONFIG, "resolve %s", path);
        weft_buffer_puts(out, cwd);
        weft_buffer_putc(out, '/');
        free(cwd);
    }
    put_text(out, path);
    return WEFT_OK;
}

static int64_t between(int64_t value, int64_t fallback, int64_t least, int64_t most)
{
    if (value <= 0) return fallback;
    return value < least ? least : value > most ? most : value;
}

weft_sandbox_limits sandbox_limits_fill(weft_sandbox_limits l)
{
    const int64_t mib = 1 << 20, most_seconds = INT64_C(30) * 24 * 3600;
    l.wall_ms = between(l.wall_ms, 60000, 1, most_seconds * 1000);
    l.cpu_seconds = between(l.cpu_seconds, (l.wall_ms + 999) / 1000, 1, most_seconds);
    /* Below 16 MiB the kernel's own memory for a process group does not fit. */
    l.memory_bytes = between(l.memory_bytes, 1024 * mib, 16 * mib, INT64_C(1) << 50);
    l.processes = between(l.processes, 64, 1, 1 << 20);
    l.file_bytes = between(l.file_bytes, 256 * mib, 1, INT64_C(1) << 50);
    l.output_bytes = between(l.output_bytes, mib, 1, INT64_C(1) << 40);
    return l;
}

static size_t count_strings(const char *const *list)
{
    size_t n = 0;
    while (list && list[n]) n++;
    return n;
}

static weft_status request_check(const weft_sandbox_request *request, weft_error *err)
{
    if (!request->argv || !request->argv[0] || !request->argv[0][0])
        return weft_fail(err, WEFT_E_USAGE, "sandbox: no program was given");
    if (request->strict && (request->workdir || request->network))
        return weft_fail(err, WEFT_E_USAGE,
                         "sandbox: a strict call has neither a workspace nor the network");
    if (request->n_binds > SANDBOX_MAX_BINDS)
        return weft_fail(err, WEFT_E_USAGE, "sandbox: %zu binds; at most %d are allowed",
                         request->n_binds, SANDBOX_MAX_BINDS);
    for (size_t i = 0; i < request->n_binds; i++)
        if (request->strict && request->binds[i].writable)
            return weft_fail(err, WEFT_E_USAGE, "sandbox: a strict call has no writable bind (%s)",
                             request->binds[i].inside);
    for (size_t i = 0; request->env && request->env[i]; i++)
        if (!strchr(request->env[i], '=') || request->env[i][0] == '=')
            return weft_fail(err, WEFT_E_USAGE, "sandbox: environment entry %zu is not K=V", i);
    return WEFT_OK;
}

weft_status sandbox_request_encode(const weft_sandbox_request *request, weft_buffer *out,
                                   weft_error *err)
{
    weft_status status = request_check(request, err);
    if (status) return status;
    sandbox_head head = {
        .flags = (request->network ? HEAD_NETWORK : 0) | (request->strict ? HEAD_STRICT : 0) |
                 (request->workdir ? HEAD_WORKDIR : 0) |
                 (request->workdir_readonly ? HEAD_WORK_READONLY : 0),
        .n_argv = (uint32_t)count_strings(request->argv),
        .n_env = (uint32_t)count_strings(request->env),
        .n_binds = (uint32_t)request->n_binds,
        .limits = sandbox_limits_fill(request->limits),
    };
    uint64_t size = 0;
    size_t start = out->size;
    weft_buffer_append(out, &size, sizeof size);
    weft_buffer_append(out, &head, sizeof head);
    for (size_t i = 0; i < head.n_argv; i++) put_text(out, request->argv[i]);
    for (size_t i = 0; i < head.n_env; i++) put_text(out, request->env[i]);
    put_text(out, request->cwd ? request->cwd : "/work");
    if (request->workdir && (status = put_path(out, request->workdir, err))) return status;
    for (size_t i = 0; i < request->n_binds; i++) {
        weft_buffer_putc(out, request->binds[i].writable ? 'w' : 'r');
        if ((status = put_path(out, request->binds[i].host, err))) return status;
        put_text(out, request->binds[i].inside);
    }
    if ((status = weft_buffer_ok(out, err))) return status;
    size = out->size - start - sizeof size;
    if (size > SANDBOX_MAX_REQUEST_BYTES)
        return weft_fail(err, WEFT_E_USAGE,
                         "sandbox: arguments and environment are larger than %d bytes",
                         SANDBOX_MAX_REQUEST_BYTES);
    memcpy(out->data + start, &size, sizeof size);
    return WEFT_OK;
}

/* --- decoding, in the worker ------------------------------------------------------------------ */

typedef struct string_reader {
    char *at, *end;
    bool bad;
} string_reader;

static char *next_text(string_reader *r)
{
    char *nul = r->bad ? NULL : memchr(r->at, '\0', (size_t)(r->end - r->at));
    if (!nul) {
        r->bad = true;
        return NULL;
    }
    char *text = r->at;
    r->at = nul + 1;
    return text;
}

/* Puts entry into env, in place of one with the same key. */
static void env_put(char **env, size_t *n, char *entry)
{
    size_t key = strcspn(entry, "=") + 1;
    for (size_t i = 0; i < *n; i++)
        if (strncmp(env[i], entry, key) == 0) {
            env[i] = entry;
            return;
        }
    env[(*n)++] = entry;
}

static bool call_strings(string_reader *r, const sandbox_head *head, sandbox_call *call)
{
    for (size_t i = 0; i < head->n_argv; i++) call->argv[i] = next_text(r);
    size_t n = 0;
    for (size_t i = 0; i < N_FIXED_ENV; i++) env_put(call->env, &n, (char *)fixed_env[i]);
    for (size_t i = 0; i < head->n_env && !r->bad; i++) {
        char *entry = next_text(r);
        if (entry) env_put(call->env, &n, entry);
    }
    call->cwd = next_text(r);
    if (head->flags & HEAD_WORKDIR)
        call->mounts[call->n_mounts++] =
            (sandbox_mount){.host = next_text(r),
                            .inside = "/work",
                            .writable = !(head->flags & HEAD_WORK_READONLY),
                            .directory = true,
                            .tree = -1};
    for (size_t i = 0; i < head->n_binds && !r->bad; i++) {
        char *host = next_text(r), *inside = next_text(r);
        if (r->bad) break;
        call->mounts[call->n_mounts++] = (sandbox_mount){
            .host = host + 1, .inside = inside, .writable = host[0] == 'w', .tree = -1};
    }
    return !r->bad;
}

bool sandbox_call_decode(char *bytes, size_t size, sandbox_call *out, sandbox_fault *fault)
{
    sandbox_head head;
    if (size < sizeof head) goto bad;
    memcpy(&head, bytes, sizeof head);
    if (head.n_argv == 0 || head.n_argv > size || head.n_env > size ||
        head.n_binds > SANDBOX_MAX_BINDS)
        goto bad;
    sandbox_call call = {
        .argv = calloc((size_t)head.n_argv + 1, sizeof(char *)),
        .env = calloc((size_t)head.n_env + N_FIXED_ENV + 1, sizeof(char *)),
        .mounts = calloc((size_t)head.n_binds + 1, sizeof(sandbox_mount)),
        .has_workdir = head.flags & HEAD_WORKDIR,
        .network = head.flags & HEAD_NETWORK,
        .strict = head.flags & HEAD_STRICT,
        .limits = head.limits,
        .fds = {-1, -1, -1},
    };
    string_reader reader = {bytes + sizeof head, bytes + size, false};
    if (!call.argv || !call.env || !call.mounts) {
        sandbox_call_free(&call);
        return sandbox_fault_set(fault, WEFT_E_MEMORY, 0, "sandbox: out of memory for a request");
    }
    if (!call_strings(&reader, &head, &call)) {
        sandbox_call_free(&call);
        goto bad;
    }
    call.bytes = bytes;
    call.n_bytes = size;
    *out = call;
    return true;
bad:
    return sandbox_fault_set(fault, WEFT_E_INVALID, 0, "sandbox: malformed request");
}

void sandbox_call_free(sandbox_call *call)
{
    for (size_t i = 0; call->mounts && i < call->n_mounts; i++)
        sandbox_close(&call->mounts[i].tree);
    for (size_t i = 0; i < 3; i++) sandbox_close(&call->fds[i]);
    free(call->argv);
    free(call->env);
    free(call->mounts);
    free(call->bytes);
    *call = (sandbox_call){.fds = {-1, -1, -1}};
}

/* --- messages --------------------------------------------------------------------------------- */

typedef union fd_control {
    struct cmsghdr head; /* for alignment */
    char bytes[CMSG_SPACE(SANDBOX_MAX_FDS * sizeof(int))];
} fd_control;

bool sandbox_send(int sock, const void *data, size_t n, const int *fds, size_t n_fds)
{
    struct iovec part = {(void *)data, n};
    fd_control control = {.bytes = {0}};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (n_fds) {
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&message);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
    }
    ssize_t sent;
    do sent = sendmsg(sock, &message, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent == (ssize_t)n;
}

ssize_t sandbox_receive(int sock, void *data, size_t n, int *fds, size_t max_fds, size_t *n_fds)
{
    struct iovec part = {data, n};
    fd_control control;
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = max_fds ? &control : NULL,
                             .msg_controllen = max_fds ? CMSG_LEN(max_fds * sizeof(int)) : 0};
    ssize_t got;
    do got = recvmsg(sock, &message, MSG_CMSG_CLOEXEC);
    while (got < 0 && errno == EINTR);
    if (n_fds) *n_fds = 0;
    if (got < 0 || !max_fds) return got;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
        size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        memcpy(fds, CMSG_DATA(c), count * sizeof(int));
        *n_fds = count;
    }
    return got;
}

bool sandbox_read_full(int fd, void *data, size_t n)
{
    char *at = data;
    while (n) {
        ssize_t got = read(fd, at, n);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return false;
        at += got;
        n -= (size_t)got;
    }
    return true;
}

bool sandbox_write_full(int fd, const void *data, size_t n)
{
    const char *at = data;
    while (n) {
        ssize_t sent = send(fd, at, n, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent <= 0) return false;
        at += sent;
        n -= (size_t)sent;
    }
    return true;
}
