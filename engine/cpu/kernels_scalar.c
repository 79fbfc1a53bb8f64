/* The kernels in plain C: what the others are compared with, and what runs on any x86-64. */
#include "engine/cpu/lanes_scalar.h"

#define KERNELS cpu_kernels_scalar
#define KERNELS_NAME "cpu-scalar"
#include "engine/cpu/kernels.inc"
