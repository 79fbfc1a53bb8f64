/* Activations to int8, 32 at a time, each block by its own largest value: cpu/float.inc has the same numbers. */
#include "engine/cuda/device.cuh"

enum { QUANTISE_WARPS = 8 };

/* What a block is divided and multiplied by, from the bits of its largest magnitude. A value that is not finite
 * makes the scale NaN, so that it reaches the logits; below 1e-30 all count as 0 (127 / most would overflow). */
INLINE bool usable_scale(uint32_t top)
{
    return float_of_bits(top) >= 1e-30f && top < 0x7f800000;
}

/* A warp a block, a lane a value. */
KERNEL(quantise, 32 * QUANTISE_WARPS, weft_cuda_quantise_args)
{
    const uint32_t blocks = a.columns / WEFT_CUDA_BLOCK, lane = threadIdx.x % WARP;
    const uint64_t at = (uint64_t)blockIdx.x * QUANTISE_WARPS + threadIdx.x / WARP;
    if (at >= (uint64_t)a.rows * blocks) return; /* a whole warp */
    const uint64_t row = at / blocks, column = at % blocks * WEFT_CUDA_BLOCK + lane;
    const float x = a.x[row * a.stride + column];
    const uint32_t top = warp_max(bits_of_float(x) & 0x7fffffff);
    const float most = float_of_bits(top);
    const bool usable = usable_scale(top);
    const float inverse = usable ? 127.0f / most : 0;
    const int32_t q = round_to_int(usable ? x * inverse : 0);
    a.q[row * a.columns + column] = (int8_t)q;
    int32_t half = q;
    UNROLL
    for (int o = 8; o > 0; o >>= 1) half += __shfl_xor_sync(ALL, half, o);
    const int32_t second = __shfl_sync(ALL, half, 16);
    if (lane == 0) {
        weft_cuda_block *const b = &a.block[at];
        b->d = usable ? most / 127.0f : top >= 0x7f800000 ? float_of_bits(0x7fc00000) : 0;
        b->half[0] = (int16_t)half;
        b->half[1] = (int16_t)second;
    }
}

/* A warp a block of 32 here too: the grid is quantise's. */
KERNEL(split, 32 * QUANTISE_WARPS, weft_cuda_split_args)
{
    const uint64_t i = (uint64_t)blockIdx.x * (32 * QUANTISE_WARPS) + threadIdx.x;
    if (i / WARP * WARP >= a.n) return; /* a whole warp: n is a multiple of 32 */
    const float x = a.x[i];
    const uint32_t top = warp_max(bits_of_float(x) & 0x7fffffff);
    const float most = float_of_bits(top), step = most / 127, inverse = 127 / most;
    const bool usable = most > 1e-30f && top < 0x7f800000;
    const float hi = usable ? rintf(x * inverse) * step : x;
    a.hi[i] = hi;
    a.lo[i] = usable ? x - hi : 0;
}
