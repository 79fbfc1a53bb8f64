/* All kernels, compiled for the shim, and their list. */
#include "tests/cuda/shim.h"

#include "engine/cuda/kernels.cu"

extern const shim_kernel *const shim_kernels[];
const shim_kernel *const shim_kernels[] = {
#define X(name) &kernel_##name,
    WEFT_CUDA_KERNELS(X)
#undef X
        NULL,
};
