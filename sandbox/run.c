/* One call, on weft's side: send the request, feed and drain the pipes, wait for the answer.
 *
 * Everything is polled in one loop, so that no full pipe can stop another, and a deadline of our own
 * stands behind the worker's. The end of the pipes is never waited for: when the answer is there,
 * every writer is dead, and what they wrote is read without blocking. If the answer's socket ends
 * first, the launcher or its worker was killed, and the workload with it.
 */
#include "sandbox/launcher.h"
#include "sandbox/report.h"
#include "sandbox/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CANCEL_POLL_MS = 50, GRACE_MS = 15000, PART_BYTES = 1 << 16, DRAIN_PARTS = 64 };

typedef struct exchange {
    int reply_fd, in, out, err; /* our ends; -1 when done with */
    weft_buffer request;
    size_t request_sent;
    const char *input;
    size_t input_left;
    sandbox_collect collected[2]; /* out, err */
    sandbox_reply reply;
    size_t reply_got;
    bool cancelled;
    int64_t deadline_ns;
    char part[PART_BYTES];
} exchange;

const char *weft_sandbox_hit_text(weft_sandbox_hit hit)
{
    switch (hit) {
    case WEFT_HIT_NONE: return "none";
    case WEFT_HIT_WALL: return "wall time";
    case WEFT_HIT_CPU: return "CPU time";
    case WEFT_HIT_MEMORY: return "memory";
    case WEFT_HIT_PROCESSES: return "processes";
    case WEFT_HIT_FILE: return "file size";
    case WEFT_HIT_CANCELLED: return "cancelled";
    }
    return "unknown";
}

/* --- open ------------------------------------------------------------------------------------- */

/* A pipe whose end `ours` (0 or 1) does not block. */
static bool pipe_open(int ends[2], int ours)
{
    return pipe2(ends, O_CLOEXEC) == 0 && fcntl(ends[ours], F_SETFL, O_NONBLOCK) == 0;
}

static weft_status exchange_open(exchange *x, const weft_launcher *launcher,
                                 const weft_sandbox_request *request, weft_error *err)
{
    const uint32_t ticket = TICKET_RUN;
    int reply[2] = {-1, -1}, in[2] = {-1, -1}, out[2] = {-1, -1}, errors[2] = {-1, -1};
    bool has_input = request->stdin_bytes != NULL;
    weft_status status = WEFT_OK;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, reply) ||
        fcntl(reply[0], F_SETFL, O_NONBLOCK) || (has_input && !pipe_open(in, 1)) ||
        !pipe_open(out, 0) || !pipe_open(errors, 0)) {
        status = weft_fail_errno(err, WEFT_E_SANDBOX, "sandbox: open the pipes of a call");
    } else {
        int theirs[SANDBOX_MAX_FDS] = {reply[1], out[1], errors[1], in[0]};
        if (!sandbox_send(launcher->sock, &ticket, sizeof ticket, theirs, has_input ? 4 : 3))
            status = weft_fail_errno(err, WEFT_E_SANDBOX,
                                     "sandbox: the launcher process has ended; start weft again");
    }
    x->reply_fd = reply[0];
    x->in = in[1];
    x->out = out[0];
    x->err = errors[0];
    sandbox_close(&reply[1]);
    sandbox_close(&in[0]);
    sandbox_close(&out[1]);
    sandbox_close(&errors[1]);
    return status;
}

static void exchange_close(exchange *x)
{
    sandbox_close(&x->reply_fd); /* a call that still runs is cancelled by this */
    sandbox_close(&x->in);
    sandbox_close(&x->out);
    sandbox_close(&x->err);
    weft_buffer_free(&x->request);
    sandbox_collect_free(&x->collected[0]);
    sandbox_collect_free(&x->collected[1]);
}

/* --- the parts of the loop -------------------------------------------------------------------- */

static bool again(ssize_t n)
{
    return n < 0 && (errno == EAGAIN || errno == EINTR);
}

static void request_push(exchange *x)
{
    ssize_t n = send(x->reply_fd, x->request.data + x->request_sent,
                     x->request.size - x->request_sent, MSG_NOSIGNAL);
    if (n > 0)
        x->request_sent += (size_t)n;
    else if (!again(n))
        x->request_sent = x->request.size; /* refused unread: the answer says why */
}

/* The workload may close its standard input early; that is its right. */
static void input_push(exchange *x)
{
    ssize_t n = x->input_left ? write(x->in, x->input, x->input_left) : 0;
    if (n > 0) {
        x->input += n;
        x->input_left -= (size_t)n;
    }
    if (x->input_left == 0 || (n < 0 && !again(n))) sandbox_close(&x->in);
}

/* Reads once. False when there is nothing more for now. */
static bool output_pull(exchange *x, int *fd, sandbox_collect *into)
{
    ssize_t n = *fd < 0 ? -1 : read(*fd, x->part, sizeof x->part);
    if (n > 0) {
        sandbox_collect_add(into, x->part, (size_t)n);
        return true;
    }
    if (*fd >= 0 && !again(n)) sandbox_close(fd);
    return false;
}

/* False at the end of the socket. */
static bool reply_pull(exchange *x)
{
    ssize_t n = read(x->reply_fd, (char *)&x->reply + x->reply_got, sizeof x->reply - x->reply_got);
    if (n > 0) x->reply_got += (size_t)n;
    return n > 0 || again(n);
}

static void cancel_send(exchange *x)
{
    /* Not before the request is out: the byte would be read as part of it. */
    if (x->cancelled || x->request_sent < x->request.size) return;
    x->cancelled = true;
    send(x->reply_fd, "c", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    x->deadline_ns = weft_monotonic_ns() + (int64_t)GRACE_MS * 1000000;
}

static weft_status exchange_loop(exchange *x, const atomic_int *cancel, weft_error *err)
{
    while (x->reply_got < sizeof x->reply) {
        bool sending = x->request_sent < x->request.size;
        struct pollfd polled[] = {{x->reply_fd, (short)(POLLIN | (sending ? POLLOUT : 0)), 0},
                                  {x->out, POLLIN, 0},
                                  {x->err, POLLIN, 0},
                                  {x->in, POLLOUT, 0}};
        if (poll(polled, 4, CANCEL_POLL_MS) < 0 && errno != EINTR)
            return weft_fail_errno(err, WEFT_E_SANDBOX, "sandbox: poll");
        if (cancel && *cancel) cancel_send(x);
        if (polled[0].revents & POLLOUT && sending) request_push(x);
        if (polled[1].revents) output_pull(x, &x->out, &x->collected[0]);
        if (polled[2].revents) output_pull(x, &x->err, &x->collected[1]);
        if (polled[3].revents) input_push(x);
        if (polled[0].revents & (POLLIN | POLLHUP | POLLERR) && !reply_pull(x))
            return weft_fail(err, WEFT_E_SANDBOX,
                             "sandbox: the launcher or its worker was killed during the call; "
                             "start weft again");
        if (weft_monotonic_ns() > x->deadline_ns)
            return weft_fail(err, WEFT_E_SANDBOX,
                             "sandbox: the launcher does not answer; start weft again");
    }
    for (int i = 0; i < DRAIN_PARTS && output_pull(x, &x->out, &x->collected[0]); i++) continue;
    for (int i = 0; i < DRAIN_PARTS && output_pull(x, &x->err, &x->collected[1]); i++) continue;
    return WEFT_OK;
}

/* Writing to a pipe without reader raises SIGPIPE, and a library must not change how the program
 * takes signals: block it in this thread, and swallow the one that may have come. */
static weft_status exchange_run(exchange *x, const atomic_int *cancel, weft_error *err)
{
    sigset_t pipe_signal, before, pending;
    sigemptyset(&pipe_signal);
    sigaddset(&pipe_signal, SIGPIPE);
    sigpending(&pending);
    pthread_sigmask(SIG_BLOCK, &pipe_signal, &before);
    weft_status status = exchange_loop(x, cancel, err);
    const struct timespec now = {0, 0};
    if (!sigismember(&pending, SIGPIPE))
        while (sigtimedwait(&pipe_signal, NULL, &now) == SIGPIPE) continue;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return status;
}

/* --- result ----------------------------------------------------------------------------------- */

static weft_status result_fill(exchange *x, weft_sandbox_result *out, weft_error *err)
{
    const sandbox_report *r = &x->reply.report;
    if (r->fault.code) return sandbox_fault_error(&r->fault, err);
    weft_sandbox_result result = {.exit_status = r->exit_status,
                                  .signal = r->signal,
                                  .hit = (weft_sandbox_hit)x->reply.hit,
                                  .wall_ns = x->reply.wall_ns,
                                  .cpu_ns = r->cpu_ns,
                                  .peak_bytes = r->peak_bytes};
    weft_status status = sandbox_collect_take(&x->collected[0], &result.out, err);
    if (!status) status = sandbox_collect_take(&x->collected[1], &result.err, err);
    if (!status) status = sandbox_layers_json(r->layers, x->reply.no_proc, &result.layers, err);
    if (!status) status = sandbox_denials_json(r, &result.denials, err);
    if (status)
        weft_sandbox_result_free(&result);
    else
        *out = result;
    return status;
}

weft_status weft_sandbox_run(weft_launcher *launcher, const weft_sandbox_request *request,
                             const atomic_int *cancel, weft_sandbox_result *out, weft_error *err)
{
    exchange *x = calloc(1, sizeof *x);
    if (!x) return weft_fail(err, WEFT_E_MEMORY, "sandbox: out of memory for a call");
    x->reply_fd = x->in = x->out = x->err = -1;
    weft_sandbox_limits limits = sandbox_limits_fill(request->limits);
    sandbox_collect_init(&x->collected[0], (size_t)limits.output_bytes);
    sandbox_collect_init(&x->collected[1], (size_t)limits.output_bytes);
    x->input = request->stdin_bytes;
    x->input_left = request->stdin_bytes ? request->stdin_size : 0;
    x->deadline_ns = weft_monotonic_ns() + (limits.wall_ms + GRACE_MS) * 1000000;
    weft_status status = sandbox_request_encode(request, &x->request, err);
    if (!status) status = exchange_open(x, launcher, request, err);
    if (!status) status = exchange_run(x, cancel, err);
    if (!status) status = result_fill(x, out, err);
    exchange_close(x);
    free(x);
    return status;
}

void weft_sandbox_result_free(weft_sandbox_result *result)
{
    if (!result) return;
    free(result->out.kept);
    free(result->err.kept);
    free(result->layers);
    free(result->denials);
    *result = (weft_sandbox_result){0};
}
