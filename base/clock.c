/* Clocks over clock_gettime. */
#include "base/clock.h"

#include <time.h>

static int64_t clock_ns(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t weft_monotonic_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

int64_t weft_realtime_ns(void)
{
    return clock_ns(CLOCK_REALTIME);
}
