/* Fault points, test builds only (see fault.h). */
#include "base/fault.h"

#ifdef WEFT_FAULTS
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

bool weft_fault_hit(const char *point)
{
    static atomic_long passes;
    const char *spec = getenv("WEFT_FAULT");
    size_t n = strlen(point);
    if (!spec || strncmp(spec, point, n) != 0 || spec[n] != ':') return false;
    char *end;
    long at = strtol(spec + n + 1, &end, 10);
    if (atomic_fetch_add(&passes, 1) + 1 != at) return false;
    if (strcmp(end, ":fail") == 0) return true;
    raise(SIGKILL);
    return true;
}
#else
typedef int weft_fault_unused; /* ISO C wants a declaration in every translation unit */
#endif
