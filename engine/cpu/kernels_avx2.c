/* The kernels for AVX2, FMA and F16C; compiled with that instruction set's flags (engine/meson.build). */
#include "engine/cpu/lanes_avx2.h"

#define KERNELS cpu_kernels_avx2
#define KERNELS_NAME "cpu-avx2"
#include "engine/cpu/kernels.inc"
