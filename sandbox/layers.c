/* Layer names, and the sentences of a refusal: which primitive the host blocks and how to mend it.
 *
 * The kernel says EPERM for a dozen different reasons; what tells them apart is in /proc/sys. Facts:
 * an exhausted namespace count is ENOSPC (kernel 4.9 and later); Ubuntu 24.04 lets an unprivileged
 * process create the namespace but takes its capabilities, so it is a mount or a map that fails.
 */
#include "sandbox/layers.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct {
    const char *name;
    bool mandatory;
} layer_table[LAYER_COUNT] = {
#define X(name, text, mandatory) [LAYER_##name] = {text, mandatory},
    SANDBOX_LAYER_TABLE(X)
#undef X
};

const char *sandbox_layer_name(sandbox_layer layer)
{
    return (unsigned)layer < LAYER_COUNT ? layer_table[layer].name : "none";
}

bool sandbox_layer_mandatory(sandbox_layer layer)
{
    return (unsigned)layer < LAYER_COUNT && layer_table[layer].mandatory;
}

static void fault_fill(sandbox_fault *fault, weft_status code, int layer, int error,
                       const char *format, va_list args)
{
    fault->code = code;
    fault->layer = layer;
    fault->error = error;
    vsnprintf(fault->what, sizeof fault->what, format, args);
}

bool sandbox_fault_layer(sandbox_fault *fault, sandbox_layer layer, const char *format, ...)
{
    int error = errno;
    va_list args;
    va_start(args, format);
    fault_fill(fault, WEFT_E_SANDBOX, layer, error, format, args);
    va_end(args);
    return false;
}

bool sandbox_fault_set(sandbox_fault *fault, weft_status code, int error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fault_fill(fault, code, LAYER_COUNT, error, format, args);
    va_end(args);
    return false;
}

/* The integer in a /proc/sys file, or fallback if it is not there. */
static long sysctl_read(const char *path, long fallback)
{
    char text[32];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return fallback;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0) return fallback;
    text[n] = '\0';
    return strtol(text, NULL, 10);
}

/* True if this process itself runs under a seccomp filter, as in most containers. */
static bool under_seccomp(void)
{
    char text[4096];
    int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0) return false;
    text[n] = '\0';
    const char *line = strstr(text, "\nSeccomp:");
    return line && strtol(line + 9, NULL, 10) == 2;
}

/* Layers that need privilege in a user namespace of our own, and fail when a host forbids that. */
static bool needs_user_ns(int layer)
{
    return layer <= LAYER_PROC || layer == LAYER_CAPABILITIES;
}

static void cause_of_user_ns(const sandbox_fault *fault, char *cause, size_t n_cause, char *cure,
                             size_t n_cure)
{
    long most = sysctl_read("/proc/sys/user/max_user_namespaces", -1);
    if (fault->error == ENOSPC || fault->error == EUSERS || most == 0) {
        snprintf(cause, n_cause, "user namespaces are used up (user.max_user_namespaces = %ld)",
                 most);
        snprintf(cure, n_cure, "sysctl -w user.max_user_namespaces=15000");
    } else if (sysctl_read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", 0) == 1) {
        snprintf(cause, n_cause, "AppArmor restricts unprivileged user namespaces");
        snprintf(cure, n_cure,
                 "install weft's AppArmor profile (data/apparmor/weft) in /etc/apparmor.d and run "
                 "apparmor_parser -r on it, or sysctl -w "
                 "kernel.apparmor_restrict_unprivileged_userns=0");
    } else if (sysctl_read("/proc/sys/kernel/unprivileged_userns_clone", 1) == 0) {
        snprintf(cause, n_cause, "unprivileged user namespaces are switched off");
        snprintf(cure, n_cure, "sysctl -w kernel.unprivileged_userns_clone=1");
    } else if (under_seccomp()) {
        snprintf(cause, n_cause, "a seccomp filter around weft (a container's own) blocks it");
        snprintf(cure, n_cure,
                 "start the container with a profile that allows user namespaces and mounts, e.g. "
                 "docker run --security-opt seccomp=unconfined --security-opt "
                 "systempaths=unconfined");
    } else if (fault->error == ENOSYS || fault->error == EINVAL) {
        snprintf(cause, n_cause, "the kernel does not have it");
        snprintf(cure, n_cure,
                 "use a kernel of 5.12 or later with user, mount, pid, net, ipc, uts and cgroup "
                 "namespaces");
    } else {
        snprintf(cause, n_cause, "a security policy of this host blocks it");
        snprintf(cure, n_cure,
                 "allow user namespaces to weft: AppArmor profile data/apparmor/weft, "
                 "user.max_user_namespaces, or the container's security options");
    }
}

void sandbox_cause(const sandbox_fault *fault, char *cause, size_t n_cause, char *cure,
                   size_t n_cure)
{
    if (!fault->error) {
        snprintf(cause, n_cause, "the layer was set up but does not hold on this host");
        snprintf(cure, n_cure, "use another kernel, and report this one: it is a hole");
    } else if (fault->layer == LAYER_IDS && geteuid() == 0 && fault->error == EPERM) {
        snprintf(cause, n_cause, "this user namespace maps root to root and no id beside it");
        snprintf(cure, n_cure, "run weft as an ordinary user, or map at least 65,536 ids");
    } else if (needs_user_ns(fault->layer)) {
        cause_of_user_ns(fault, cause, n_cause, cure, n_cure);
    } else if (fault->layer == LAYER_LANDLOCK) {
        snprintf(cause, n_cause, "the kernel has no Landlock, or it is not switched on");
        snprintf(cure, n_cure,
                 "use a kernel of 5.13 or later with CONFIG_SECURITY_LANDLOCK and landlock in its "
                 "lsm= list");
    } else if (fault->layer == LAYER_SECCOMP) {
        snprintf(cause, n_cause, "the kernel has no seccomp filters with user notification");
        snprintf(cure, n_cure, "use a kernel of 5.5 or later with CONFIG_SECCOMP_FILTER");
    } else if (fault->layer == LAYER_CGROUP_MEMORY || fault->layer == LAYER_CGROUP_PIDS) {
        snprintf(cause, n_cause, "no writable cgroup: a watchdog on the summed memory stands in");
        snprintf(cure, n_cure,
                 "run weft under a delegated cgroup, e.g. systemd-run --user --scope -p "
                 "Delegate=yes weft ...");
    } else {
        snprintf(cause, n_cause, "the host refused it");
        snprintf(cure, n_cure, "run weft sandbox check for every layer's state");
    }
}

weft_status sandbox_fault_error(const sandbox_fault *fault, weft_error *err)
{
    if (fault->layer == LAYER_COUNT) {
        if (!fault->error) return weft_fail(err, fault->code, "%s", fault->what);
        return weft_fail(err, fault->code, "%s: %s", fault->what, strerror(fault->error));
    }
    char cause[256], cure[384];
    sandbox_cause(fault, cause, sizeof cause, cure, sizeof cure);
    return weft_fail(err, fault->code, "sandbox layer %s: %s: %s%s%s; %s",
                     sandbox_layer_name((sandbox_layer)fault->layer), fault->what,
                     fault->error ? strerror(fault->error) : "", fault->error ? ": " : "", cause,
                     cure);
}
