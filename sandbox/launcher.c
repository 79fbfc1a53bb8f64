/* Starts, asks and stops the launcher process, on weft's side. */
#include "sandbox/launcher.h"
#include "sandbox/dispatch.h"
#include "sandbox/report.h"
#include "sandbox/wire.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STOP_MS = 5000, CHECK_SECONDS = 30 };

weft_status weft_launcher_start(weft_launcher **out, weft_error *err)
{
    int ends[2];
    weft_launcher *l = malloc(sizeof *l);
    if (!l) return weft_fail(err, WEFT_E_MEMORY, "start the launcher: out of memory");
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends)) {
        free(l);
        return weft_fail_errno(err, WEFT_E_SANDBOX, "start the launcher: socketpair");
    }
    pid_t parent = getpid();
    l->pid = fork();
    if (l->pid == 0) sandbox_launcher_run(ends[1], parent);
    close(ends[1]);
    if (l->pid < 0) {
        close(ends[0]);
        free(l);
        return weft_fail_errno(err, WEFT_E_SANDBOX, "start the launcher: fork");
    }
    l->sock = ends[0];
    *out = l;
    return WEFT_OK;
}

void weft_launcher_stop(weft_launcher *l)
{
    if (!l) return;
    /* Its end of the socket ends: it kills its workers, removes their groups and exits. */
    close(l->sock);
    struct pollfd ended = {pidfd_open(l->pid, 0), POLLIN, 0};
    if (ended.fd < 0 || poll(&ended, 1, STOP_MS) != 1) kill(l->pid, SIGKILL);
    sandbox_close(&ended.fd);
    while (waitpid(l->pid, NULL, 0) < 0 && errno == EINTR) continue;
    free(l);
}

weft_status weft_sandbox_check(weft_launcher *l, char **out_json, weft_error *err)
{
    const uint32_t ticket = TICKET_CHECK;
    const struct timeval patience = {CHECK_SECONDS, 0};
    sandbox_verdict verdict;
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
        return weft_fail_errno(err, WEFT_E_SANDBOX, "check the sandbox: socketpair");
    setsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    bool sent = sandbox_send(l->sock, &ticket, sizeof ticket, &ends[1], 1);
    close(ends[1]);
    bool ok = sent && sandbox_read_full(ends[0], &verdict, sizeof verdict);
    close(ends[0]);
    if (!ok)
        return weft_fail(err, WEFT_E_SANDBOX,
                         "check the sandbox: the launcher process has ended; start weft again");
    return sandbox_verdict_json(&verdict, out_json, err);
}
