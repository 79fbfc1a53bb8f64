/* Shared by the tests of the CUDA kernels: launches under the shim, in three orders of threads and blocks. */
#ifndef WEFT_TESTS_CUDA_CUDA_TEST_H
#define WEFT_TESTS_CUDA_CUDA_TEST_H

#include "engine/cuda/kernels.h"
#include "tests/cuda/sanitized.h"
#include "tests/cuda/shim_launch.h"
#include "tests/engine/kernel_test.h"

#include <stdio.h>

#ifdef WEFT_SHIM_RACES
enum { FIRST_ORDER = 0, ORDERS = 1 }; /* what barriers do not order is reported in any */
#else
enum { FIRST_ORDER = SANITIZED ? 2 : 0, ORDERS = 3 };
#endif

/* Everything inside happens with threads ascending, descending and shuffled; under sanitizers shuffled alone: what is read
 * and written does not depend on it. */
#define FOR_EACH_ORDER(order)                                                                      \
    for (uint64_t order = FIRST_ORDER; order < ORDERS; order++)                                              \
        if ((weft_shim_order(order == 2 ? 20251127 : order), true))

#define LAUNCH(name, args, shape) launch(name, shape, &(args), sizeof(args))

static inline void launch(const char *name, weft_cuda_launch l, const void *args, size_t bytes)
{
    if (weft_shim_launch(name, l.grid, l.block, l.shared_bytes, args, bytes)) fail_msg("%s", name);
}

static inline void *new_bytes(size_t n)
{
    void *p = malloc(n ? n : 1);
    assert_non_null(p);
    return p;
}

/* A float's bits where they differ, for messages; equal bits, or both NaN. */
static inline void assert_bits(const char *what, size_t n, const float *got, const float *want)
{
    for (size_t i = 0; i < n; i++)
        if (float_bits(got[i]) != float_bits(want[i]) && !(isnan(got[i]) && isnan(want[i])))
            fail_msg("%s: element %zu of %zu is %.9g, not %.9g", what, i, n, (double)got[i],
                     (double)want[i]);
}

static inline void clear(float *p, size_t n)
{
    memset(p, 0xff, n * sizeof *p);
}

#endif
