/* The seccomp filter: an allow-list compiled once, installed last, in the workload only.
 *
 * Three filters, one per kind of call. Whatever is not listed answers ENOSYS, as an older kernel
 * would, so that programs fall back. Calls that only an attack makes answer EPERM through the
 * notification descriptor, and are counted. A foreign architecture (x32, int 0x80) kills.
 */
#ifndef WEFT_SANDBOX_FILTER_H
#define WEFT_SANDBOX_FILTER_H

#include "sandbox/layers.h"

#include <linux/filter.h>

typedef enum sandbox_filter_kind {
    FILTER_NORMAL,  /* no network: AF_UNIX sockets only */
    FILTER_NETWORK, /* broker: IPv4 and IPv6, no AF_UNIX name space of the host */
    FILTER_STRICT,  /* pure computation: no process, no socket, no exec after the first */
    FILTER_COUNT
} sandbox_filter_kind;

typedef struct sandbox_filter {
    struct sock_filter *code; /* [n] BPF instructions */
    uint16_t n;
} sandbox_filter;

/* Compiles one filter (libseccomp, binary tree; about 3 ms). */
bool sandbox_filter_build(sandbox_filter_kind kind, sandbox_filter *out, sandbox_fault *fault);
void sandbox_filter_free(sandbox_filter *filter);
/* Installs it in the calling thread (no_new_privs must be set). *out_listener delivers the denials. */
bool sandbox_filter_install(const sandbox_filter *filter, int *out_listener, sandbox_fault *fault);

/* --- what the filters are made of (filter_policy.c) ------------------------------------------- */

/* One argument comparison on the low 32 bits, or none when mask is 0. */
typedef struct sandbox_filter_test {
    unsigned arg;
    uint32_t mask, value;
} sandbox_filter_test;

typedef struct sandbox_filter_rule {
    const char *call;
    sandbox_filter_test test[2]; /* both must hold */
    uint8_t kinds;               /* bit per sandbox_filter_kind */
    bool allow;                  /* else: notify, answered EPERM */
} sandbox_filter_rule;

extern const char *const sandbox_calls_strict[]; /* allowed in every kind; NULL-terminated */
extern const char *const sandbox_calls_normal[]; /* allowed besides in NORMAL and NETWORK */
extern const char *const sandbox_calls_denied[]; /* notify in every kind */
extern const sandbox_filter_rule sandbox_filter_rules[]; /* by argument; ends with call NULL */

#endif
