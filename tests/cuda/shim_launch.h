/* The shim from outside: launches. What kernels see of it is shim.h. */
#ifndef WEFT_TESTS_CUDA_SHIM_LAUNCH_H
#define WEFT_TESTS_CUDA_SHIM_LAUNCH_H

#include <stddef.h>
#include <stdint.h>

/* Runs a launch; device memory is memory. 0, or -1 with a line on stderr: no such kernel, other arguments
 * than it takes, or a shape that no device would take. The name may have its prefix weft_cuda_. */
int weft_shim_launch(const char *kernel, const uint32_t grid[3], const uint32_t block[3], uint32_t shared,
                     const void *args, size_t args_bytes);
/* 1 if there is such a kernel, 0 if not. */
int weft_shim_has(const char *kernel);
/* 0: threads and blocks in ascending order, 1: in descending order; otherwise shuffled. */
void weft_shim_order(uint64_t seed);

#endif
