/* The kernels for AVX-512 with VNNI; compiled with that instruction set's flags (engine/meson.build). */
#include "engine/cpu/lanes_avx512.h"

#define KERNELS cpu_kernels_avx512
#define KERNELS_NAME "cpu-avx512"
#include "engine/cpu/kernels.inc"

#include "engine/cpu/amx.inc" /* builds on it; runs only where the CPU has AMX */
