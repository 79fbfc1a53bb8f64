/* What the files of operations share: addresses, launches, products. Private to engine/cuda. */
#ifndef WEFT_ENGINE_CUDA_CALL_H
#define WEFT_ENGINE_CUDA_CALL_H

#include "engine/cuda/cuda.h"

/* Device memory under the type that kernels' arguments have. */
static inline void *cuda_ptr(cuda_backend *b, const void *host)
{
    return host ? (void *)(uintptr_t)cuda_at(b, host) : NULL;
}
static inline void *cuda_scratch(cuda_address address)
{
    return (void *)(uintptr_t)address;
}

/* Launches a kernel where calls go to; nothing after the first failure of a pass. */
void cuda_run(cuda_backend *b, cuda_kernel kernel, weft_cuda_launch launch, const void *args, size_t bytes);
#define CUDA_RUN(b, kernel, args)                                                                  \
    cuda_run(b, CUDA_K_##kernel, weft_cuda_##kernel##_launch(&(args)), &(args), sizeof(args))

static inline bool cuda_is_quantised(weft_cuda_format f)
{
    return f < WEFT_CUDA_F16;
}
/* rows of x on the device, stride floats apart, into the stage's scratch. */
void cuda_quantise(cuda_backend *b, const float *x, size_t rows, size_t columns, size_t stride);
/* The rows that one thread block of products takes at once, of n: the width of its kernel. */
uint32_t cuda_width(weft_cuda_format format, size_t columns, bool gated, size_t n);
/* Matrices of one format with the kernel of this width; what their format needs of x, quantised before or x itself,
 * is filled in. */
void cuda_multiply(cuda_backend *b, weft_cuda_matmul_args *a, weft_cuda_format format, uint32_t width,
                   const float *x);
static inline weft_cuda_matrix cuda_matrix(const cuda_weight *w, const float *bias, float *y)
{
    return (weft_cuda_matrix){cuda_scratch(w->data), bias, y, (uint32_t)w->rows};
}

/* ---- mixture.c, latent.c ---- */

void cuda_mixture_calls(weft_ops *ops);
void cuda_latent_calls(weft_ops *ops);
/* Their scratch of a stage, beside what call.c needs. */
weft_status cuda_mixture_scratch(cuda_backend *b, cuda_stage *s, weft_error *err);
weft_status cuda_latent_scratch(cuda_backend *b, cuda_stage *s, weft_error *err);

#endif
