/* Clocks. Monotonic nanoseconds measure, real-time nanoseconds are written into logs. */
#ifndef WEFT_BASE_CLOCK_H
#define WEFT_BASE_CLOCK_H

#include <stdint.h>

int64_t weft_monotonic_ns(void);
int64_t weft_realtime_ns(void);

#endif
