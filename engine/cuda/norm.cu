/* Norms of rows, and the Hadamard transform. A thread block a row.
 *
 * A sum runs over every 256th element in each of 256 threads, then over the lanes of a warp by a butterfly, then
 * over the 8 warps in order: the same order for any row length, and whatever else is in the call.
 * Floor: the rows' bytes twice; at decode the launch itself.
 */
#include "engine/cuda/device.cuh"

enum { NORM_THREADS = 256, NORM_WARPS = NORM_THREADS / WARP };

/* The sum of v over the block, for every thread. `part` is written before and read after a barrier: a second call
 * needs another one, or a barrier between. */
INLINE float block_sum(float v, float *part)
{
    float total = 0;
    v = warp_sum(v);
    if (threadIdx.x % WARP == 0) part[threadIdx.x / WARP] = v;
    __syncthreads();
    UNROLL
    for (int i = 0; i < NORM_WARPS; i++) total += part[i];
    return total;
}

KERNEL(rms_norm, NORM_THREADS, weft_cuda_rms_norm_args)
{
    SHARED(float, part, NORM_WARPS);
    const float *const x = a.x + (uint64_t)blockIdx.x * a.dim;
    float *const y = a.y + (uint64_t)blockIdx.x * a.dim, sum = 0;
    for (uint32_t i = threadIdx.x; i < a.dim; i += NORM_THREADS) sum = fmaf(x[i], x[i], sum);
    const float scale = 1.0f / sqrtf(block_sum(sum, part) / (float)a.dim + a.eps);
    for (uint32_t i = threadIdx.x; i < a.dim; i += NORM_THREADS) y[i] = x[i] * scale * a.w[i];
}

/* The variance is of the differences from the mean, in a second pass: no cancellation. */
KERNEL(layer_norm, NORM_THREADS, weft_cuda_layer_norm_args)
{
    SHARED(float, part, NORM_WARPS);
    SHARED(float, part2, NORM_WARPS);
    const float *const x = a.x + (uint64_t)blockIdx.x * a.dim;
    float *const y = a.y + (uint64_t)blockIdx.x * a.dim, sum = 0, squares = 0;
    for (uint32_t i = threadIdx.x; i < a.dim; i += NORM_THREADS) sum += x[i];
    const float mean = block_sum(sum, part) / (float)a.dim;
    for (uint32_t i = threadIdx.x; i < a.dim; i += NORM_THREADS)
        squares = fmaf(x[i] - mean, x[i] - mean, squares);
    const float scale = 1.0f / sqrtf(block_sum(squares, part2) / (float)a.dim + a.eps);
    for (uint32_t i = threadIdx.x; i < a.dim; i += NORM_THREADS)
        y[i] = (x[i] - mean) * scale * a.w[i] + a.bias[i];
}

/* Sylvester's order: stages of distance 1, 2, 4 ..; a thread has one pair a stage. */
KERNEL(hadamard, 512, weft_cuda_hadamard_args)
{
    SHARED_REST(float, v);
    float *const x = a.x + (uint64_t)blockIdx.x * a.dim;
    const float scale = 1.0f / sqrtf((float)a.dim);
    for (uint32_t i = threadIdx.x; i < a.dim; i += blockDim.x) v[i] = x[i];
    __syncthreads();
    for (uint32_t step = 1; step < a.dim; step *= 2) {
        if (threadIdx.x < a.dim / 2) {
            const uint32_t i = threadIdx.x / step * 2 * step + threadIdx.x % step;
            const float p = v[i], q = v[i + step];
            v[i] = p + q;
            v[i + step] = p - q;
        }
        __syncthreads();
    }
    for (uint32_t i = threadIdx.x; i < a.dim; i += blockDim.x) x[i] = v[i] * scale;
}
