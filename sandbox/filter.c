/* Compiles and installs the seccomp filters of filter_policy.c.
 *
 * Facts: libseccomp cannot give one call an action of its own for "any other argument", so what an
 * argument rule does not match falls to ENOSYS; where that should be counted as a denial, the
 * complement is written with the same arguments (socket of another family, prlimit64 on others).
 * Compiled programs are copied out through a pipe, since libseccomp writes them only to descriptors.
 */
#include "sandbox/filter.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* "argument n is not v" answers EPERM and is counted; the equal case has an allow rule. */
static const struct {
    const char *call;
    unsigned arg;
    uint64_t value;
    uint8_t kinds;
} complements[] = {
    {"socket", 0, AF_UNIX, 1 << FILTER_NORMAL},
    {"socketpair", 0, AF_UNIX, 1 << FILTER_NORMAL | 1 << FILTER_NETWORK},
    {"prlimit64", 0, 0, 1 << FILTER_NORMAL | 1 << FILTER_NETWORK | 1 << FILTER_STRICT},
    {"personality", 0, 0xffffffff, 1 << FILTER_NORMAL | 1 << FILTER_NETWORK | 1 << FILTER_STRICT},
};

/* Adds one rule for a call by name. A call this architecture lacks is no error: it cannot be made. */
static bool rule_add(scmp_filter_ctx ctx, uint32_t action, const char *call, unsigned n,
                     const struct scmp_arg_cmp *tests, sandbox_fault *fault)
{
    int number = seccomp_syscall_resolve_name(call);
    if (number < 0) return true;
    int error = seccomp_rule_add_array(ctx, action, number, n, tests);
    if (error == 0) return true;
    errno = -error;
    return sandbox_fault_layer(fault, LAYER_SECCOMP, "seccomp rule for %s", call);
}

static bool names_add(scmp_filter_ctx ctx, uint32_t action, const char *const *names,
                      sandbox_fault *fault)
{
    for (; *names; names++)
        if (!rule_add(ctx, action, *names, 0, NULL, fault)) return false;
    return true;
}

static bool argument_rules_add(scmp_filter_ctx ctx, sandbox_filter_kind kind, sandbox_fault *fault)
{
    for (const sandbox_filter_rule *rule = sandbox_filter_rules; rule->call; rule++) {
        if (!(rule->kinds & (1u << kind))) continue;
        struct scmp_arg_cmp tests[2];
        unsigned n = 0;
        for (int i = 0; i < 2; i++)
            if (rule->test[i].mask)
                tests[n++] = SCMP_CMP64(rule->test[i].arg, SCMP_CMP_MASKED_EQ, rule->test[i].mask,
                                        rule->test[i].value);
        uint32_t action = rule->allow ? SCMP_ACT_ALLOW : SCMP_ACT_NOTIFY;
        if (!rule_add(ctx, action, rule->call, n, tests, fault)) return false;
    }
    for (size_t i = 0; i < sizeof complements / sizeof *complements; i++) {
        if (!(complements[i].kinds & (1u << kind))) continue;
        struct scmp_arg_cmp test = {
            .arg = complements[i].arg, .op = SCMP_CMP_NE, .datum_a = complements[i].value};
        if (!rule_add(ctx, SCMP_ACT_NOTIFY, complements[i].call, 1, &test, fault)) return false;
    }
    return true;
}

/* Copies the program out of libseccomp. A pipe holds 64 KiB, a program at most 4096 * 8. */
static bool program_export(scmp_filter_ctx ctx, sandbox_filter *out, sandbox_fault *fault)
{
    int ends[2] = {-1, -1};
    struct sock_filter *code = NULL;
    bool ok = false;
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK)) goto done;
    int error = seccomp_export_bpf(ctx, ends[1]);
    if (error) {
        errno = -error;
        goto done;
    }
    size_t most = BPF_MAXINSNS * sizeof *code;
    code = malloc(most);
    if (!code) goto done;
    ssize_t n = read(ends[0], code, most);
    if (n <= 0 || (size_t)n % sizeof *code) goto done;
    out->code = code;
    out->n = (uint16_t)((size_t)n / sizeof *code);
    code = NULL;
    ok = true;
done:
    if (!ok) sandbox_fault_layer(fault, LAYER_SECCOMP, "export the seccomp filter");
    free(code);
    if (ends[0] >= 0) close(ends[0]);
    if (ends[1] >= 0) close(ends[1]);
    return ok;
}

bool sandbox_filter_build(sandbox_filter_kind kind, sandbox_filter *out, sandbox_fault *fault)
{
    bool ok = false;
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ERRNO(ENOSYS));
    if (!ctx) return sandbox_fault_layer(fault, LAYER_SECCOMP, "seccomp_init");
    int error = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
    if (!error) error = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* binary tree */
    if (error) {
        errno = -error;
        sandbox_fault_layer(fault, LAYER_SECCOMP, "seccomp_attr_set");
        goto done;
    }
    if (!names_add(ctx, SCMP_ACT_ALLOW, sandbox_calls_strict, fault) ||
        !names_add(ctx, SCMP_ACT_NOTIFY, sandbox_calls_denied, fault) ||
        (kind != FILTER_STRICT && !names_add(ctx, SCMP_ACT_ALLOW, sandbox_calls_normal, fault)) ||
        !argument_rules_add(ctx, kind, fault))
        goto done;
    ok = program_export(ctx, out, fault);
done:
    seccomp_release(ctx);
    return ok;
}

void sandbox_filter_free(sandbox_filter *filter)
{
    free(filter->code);
    *filter = (sandbox_filter){NULL, 0};
}

bool sandbox_filter_install(const sandbox_filter *filter, int *out_listener, sandbox_fault *fault)
{
    struct sock_fprog program = {.len = filter->n, .filter = filter->code};
    long fd =
        syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
    if (fd < 0) return sandbox_fault_layer(fault, LAYER_SECCOMP, "install the seccomp filter");
    *out_listener = (int)fd;
    return true;
}
