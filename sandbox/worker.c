/* A worker process: takes a request, runs it, answers, makes the next init ready.
 *
 * The answer leaves as soon as init reports that nothing of the workload is left; tearing the
 * namespaces down and making new ones, 1.5 ms of kernel time, happens while weft already goes on.
 */
#include "sandbox/worker.h"

#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static bool request_read(int reply_fd, sandbox_call *call, sandbox_fault *fault)
{
    /* weft sends at once; one that hangs must not keep a worker for ever. */
    struct timeval patience = {10, 0};
    uint64_t size;
    setsockopt(reply_fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (!sandbox_read_full(reply_fd, &size, sizeof size) || size > SANDBOX_MAX_REQUEST_BYTES)
        return sandbox_fault_set(fault, WEFT_E_INVALID, 0, "sandbox: the request did not arrive");
    char *bytes = malloc(size + 1);
    if (!bytes)
        return sandbox_fault_set(fault, WEFT_E_MEMORY, 0, "sandbox: out of memory for a request");
    if (!sandbox_read_full(reply_fd, bytes, size)) {
        free(bytes);
        return sandbox_fault_set(fault, WEFT_E_INVALID, 0, "sandbox: the request was cut off");
    }
    if (sandbox_call_decode(bytes, size, call, fault)) return true;
    free(bytes);
    return false;
}

static void call_serve(const sandbox_host *host, sandbox_slot *slot, sandbox_warm *warm, int *fds,
                       size_t n_fds)
{
    sandbox_reply reply = {.report.hole = -1};
    sandbox_call call = {.fds = {-1, -1, -1}};
    bool ok = request_read(fds[TICKET_FD_REPLY], &call, &reply.report.fault);
    call.fds[0] = n_fds > TICKET_FD_IN ? fds[TICKET_FD_IN] : -1;
    call.fds[1] = fds[TICKET_FD_OUT];
    call.fds[2] = fds[TICKET_FD_ERR];
    if (ok) sandbox_call_run(host, slot, warm, &call, fds[TICKET_FD_REPLY], &reply);
    sandbox_write_full(fds[TICKET_FD_REPLY], &reply, sizeof reply);
    close(fds[TICKET_FD_REPLY]);
    sandbox_call_free(&call);
}

void sandbox_worker_run(const sandbox_host *host, sandbox_slot *slot, int sock)
{
    prctl(PR_SET_NAME, "weft-worker", 0, 0, 0);
    sandbox_slot_enter(slot);
    for (;;) {
        sandbox_ready ready = {slot->has_memory, slot->has_pids};
        sandbox_warm warm = {.pid = 0};
        sandbox_fault ignored; /* a call that finds no init makes its own, and reports */
        sandbox_warm_start(host, false, false, &warm, &ignored);
        if (!sandbox_send(sock, &ready, sizeof ready, NULL, 0)) _exit(0);
        uint32_t ticket;
        int fds[SANDBOX_MAX_FDS];
        size_t n_fds;
        ssize_t n = sandbox_receive(sock, &ticket, sizeof ticket, fds, SANDBOX_MAX_FDS, &n_fds);
        if (n != (ssize_t)sizeof ticket) _exit(0); /* the launcher is gone */
        if (n_fds > TICKET_FD_ERR && n_fds <= TICKET_FD_IN + 1)
            call_serve(host, slot, &warm, fds, n_fds);
        else
            for (size_t i = 0; i < n_fds; i++) close(fds[i]);
        sandbox_warm_end(&warm);
    }
}
