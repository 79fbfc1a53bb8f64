/* What the machine's multipliers can do at most: loops of nothing but multiply-adds on registers. For benchmarks. */
#ifndef WEFT_BENCH_PEAK_H
#define WEFT_BENCH_PEAK_H

#include <stdbool.h>

typedef enum peak_unit {
    PEAK_VNNI, /* int8, 512-bit vpdpbusd */
    PEAK_AMX,  /* int8, tdpbssd on 16 x 64 tiles */
    PEAK_FMA,  /* float32, 512-bit */
    PEAK_UNITS
} peak_unit;

const char *peak_name(peak_unit unit);
/* False if the processor, or the operating system, does not offer it. */
bool peak_has(peak_unit unit);
/* Runs a fixed number of operations on this thread; returns how many (a multiply and an add are 2). */
double peak_run(peak_unit unit);

#endif
