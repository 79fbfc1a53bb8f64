/* Available memory: /proc/meminfo, and the limits of cgroups v2 and v1 from our own group up to the root.
 *
 * A container often sees its own group as the root of /sys/fs/cgroup while /proc/self/cgroup names it by the
 * host's path: levels that are not there are passed over, and the root is always looked at. */
#include "base/memory.h"

#include "base/buffer.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The number behind `key` (or the file's first, for NULL); false if it is not there or says "max". */
static bool number_in(const char *path, const char *key, uint64_t *out)
{
    char line[512];
    bool found = false;
    FILE *f = fopen(path, "re");
    if (!f) return false;
    const size_t n = key ? strlen(key) : 0;
    while (!found && fgets(line, sizeof line, f))
        if (!key || (strncmp(line, key, n) == 0 && strchr(": ", line[n])))
            found = sscanf(line + n + (key ? 1 : 0), "%" SCNu64, out) == 1;
    fclose(f);
    return found;
}

typedef struct cgroup_names {
    const char *mount, *limit, *used, *file[2];
} cgroup_names;

static const cgroup_names v2 = {"/sys/fs/cgroup", "memory.max", "memory.current",
                                {"inactive_file", "active_file"}};
static const cgroup_names v1 = {"/sys/fs/cgroup/memory", "memory.limit_in_bytes",
                                "memory.usage_in_bytes",
                                {"total_inactive_file", "total_active_file"}};

/* What one group leaves; SIZE_MAX if it sets no limit. */
static uint64_t left_in(const char *root, const cgroup_names *names, const char *group)
{
    char path[PATH_MAX];
    uint64_t limit, used = 0, cache = 0, part;
    snprintf(path, sizeof path, "%s%s%s/%s", root, names->mount, group, names->limit);
    if (!number_in(path, NULL, &limit)) return UINT64_MAX;
    snprintf(path, sizeof path, "%s%s%s/%s", root, names->mount, group, names->used);
    if (!number_in(path, NULL, &used)) return UINT64_MAX;
    snprintf(path, sizeof path, "%s%s%s/memory.stat", root, names->mount, group);
    for (int i = 0; i < 2; i++)
        if (number_in(path, names->file[i], &part)) cache += part;
    used -= cache < used ? cache : used;
    return limit > used ? limit - used : 0;
}

/* The least that the group and those above it leave. */
static uint64_t left_up(const char *root, const cgroup_names *names, char *group)
{
    uint64_t least = left_in(root, names, "");
    for (char *end; *group && (end = strrchr(group, '/')); *end = '\0') {
        uint64_t left = end[1] ? left_in(root, names, group) : UINT64_MAX;
        if (left < least) least = left;
    }
    return least;
}

static uint64_t left_by_cgroups(const char *root)
{
    char path[PATH_MAX], line[PATH_MAX];
    uint64_t least = UINT64_MAX;
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = '\0';
        char *kind = strchr(line, ':'), *group = kind ? strchr(kind + 1, ':') : NULL;
        if (!group) continue;
        *group++ = '\0';
        const cgroup_names *names = !kind[1] ? &v2 : strcmp(kind + 1, "memory") == 0 ? &v1 : NULL;
        uint64_t left = names ? left_up(root, names, group) : UINT64_MAX;
        if (left < least) least = left;
    }
    if (f) fclose(f);
    return least;
}

size_t weft_memory_available_under(const char *root)
{
    char path[PATH_MAX];
    uint64_t kib, left = left_by_cgroups(root);
    snprintf(path, sizeof path, "%s/proc/meminfo", root);
    if (number_in(path, "MemAvailable", &kib) && kib < UINT64_MAX >> 10 && kib << 10 < left)
        left = kib << 10;
    return left == UINT64_MAX ? 0 : (size_t)left;
}

size_t weft_memory_available(void)
{
    return weft_memory_available_under("");
}

size_t weft_memory_resident(void)
{
    uint64_t kib = 0;
    return number_in("/proc/self/status", "VmRSS", &kib) ? (size_t)kib << 10 : 0;
}

weft_status weft_memory_parse(const char *text, size_t *out, weft_error *err)
{
    static const char units[] = "KMGT";
    char *end;
    errno = 0;
    double value = isdigit((unsigned char)*text) ? strtod(text, &end) : -1;
    if (value >= 0) {
        const char *unit = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
        if (unit) value = ldexp(value, 10 * (int)(unit - units + 1));
        if (!errno && value < 0x1p63 && (unit ? !end[1] : !*end)) {
            *out = (size_t)value;
            return WEFT_OK;
        }
    }
    return weft_fail(err, WEFT_E_USAGE, "\"%s\" is no size: write bytes, or 512M or 16G", text);
}
