/* What all kernels are written with: the words of a kernel, exact arithmetic, loads.
 *
 * A kernel file is written in the common part of C and CUDA's C++, compiled by nvcc for the device and by the C
 * compiler for the tests, which bring the left side of these words themselves (tests/cuda/shim.h).
 * No multiply-add is fused unless it is written (-fmad=false); divisions and roots are IEEE's. So a kernel that
 * does the operations of its CPU twin in the same order has the same bits.
 */
#ifndef WEFT_ENGINE_CUDA_DEVICE_CUH
#define WEFT_ENGINE_CUDA_DEVICE_CUH

#include "engine/cuda/kernels.h"

#include <math.h>

#ifdef __CUDACC__
/* A kernel weft_cuda_<name> of at most `threads` threads a block; the body sees its arguments as `a`. So many
 * blocks a processor are asked for that ptxas has the registers it wants: left alone, it aims at more blocks and
 * spills a register or two. */
#define KERNEL_BLOCKS(name, threads, blocks, args)                                                 \
    extern "C" __global__ void __launch_bounds__(threads, blocks)                                  \
        weft_cuda_##name(const __grid_constant__ args a)
#define KERNEL(name, threads, args) KERNEL_BLOCKS(name, threads, (threads) > 128 ? 2 : 3, args)
#define INLINE static __device__ __forceinline__
#define TABLE static __constant__ const
#define GATHERED static __device__ const /* a table of which each lane reads its own place */
#define UNROLL _Pragma("unroll")
#define NO_UNROLL _Pragma("unroll 1")
#define UNROLL4 _Pragma("unroll 4")
/* type name[count], one for the thread block. SHARED_REST: as much as the launch asks for. */
#define SHARED(type, name, count) __shared__ __align__(16) type name[count]
#define SHARED_REST(type, name)                                                                    \
    extern __shared__ __align__(16) unsigned char shared_rest[];                                   \
    type *const name = (type *)shared_rest
#define HALF_TO_FLOAT(out, bits) asm("cvt.f32.f16 %0, %1;" : "=f"(out) : "h"(bits))
/* d += a * b: 16 rows by 8 columns of sums over 32. Of a, lane l holds row l / 4 (words 0 and 2) and l / 4 + 8 (1
 * and 3), columns 4 (l % 4) .. + 3 (0 and 1) and 16 further (2 and 3); of b, column l / 4 in the same places;
 * of d, rows l / 4 (0 and 1) and l / 4 + 8, columns 2 (l % 4) and + 1. Exact. */
#define MMA_S8(d, a, b)                                                                            \
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, "              \
                 "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                                   \
                 : "+r"((d)[0]), "+r"((d)[1]), "+r"((d)[2]), "+r"((d)[3])                          \
                 : "r"((a)[0]), "r"((a)[1]), "r"((a)[2]), "r"((a)[3]), "r"((b)[0]), "r"((b)[1]))
/* The same over 16 columns: words 0 and 1 of a, one of b. */
#define MMA_S8_HALF(d, a, b)                                                                       \
    asm volatile("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, "              \
                 "{%4, %5}, {%6}, {%0, %1, %2, %3};"                                               \
                 : "+r"((d)[0]), "+r"((d)[1]), "+r"((d)[2]), "+r"((d)[3])                          \
                 : "r"((a)[0]), "r"((a)[1]), "r"((b)[0]))
#elif !defined(WEFT_CUDA_SHIM)
#error "compile with nvcc, or with tests/cuda/shim.h before this file"
#endif

enum { WARP = 32 };
#define ALL UINT32_C(0xffffffff) /* lanes */

/* ---- numbers ---- */

INLINE float float_of_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}
INLINE uint32_t bits_of_float(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

INLINE float float_of_half(uint16_t h)
{
    float f;
    HALF_TO_FLOAT(f, h);
    return f;
}

/* To nearest even, NaN as the CPU has it (cpu/half.h), which the instruction does not keep. */
INLINE uint16_t half_of_float(float f)
{
    const uint32_t bits = bits_of_float(f), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return (uint16_t)(sign | 0x7e00 | (magnitude >> 13 & 0x3ff));
    if (magnitude >= 0x477ff000) return (uint16_t)(sign | 0x7c00);
    if (magnitude < 0x38800000) {
        const float aligned = float_of_bits(magnitude) + 0.5f;
        return (uint16_t)(sign | (bits_of_float(aligned) - 0x3f000000));
    }
    return (uint16_t)(sign | ((magnitude - (112u << 23) + 0xfff + (magnitude >> 13 & 1)) >> 13));
}

INLINE float float_of_bfloat(uint16_t b)
{
    return float_of_bits((uint32_t)b << 16);
}

/* To the nearest integer, ties to even: |v| < 2^22. */
INLINE int32_t round_to_int(float v)
{
    return (int32_t)((v + 0x1.8p23f) - 0x1.8p23f);
}

/* Floats as integers of the same order; -0 as +0, NaN below all. */
INLINE uint32_t rank_of(float x)
{
    const float y = x + 0.0f;
    const uint32_t u = bits_of_float(y);
    if (y != y) return 0;
    return u & 0x80000000 ? ~u : u | 0x80000000;
}

/* e^x by the operations of cpu/float.inc: the same bits. NaN stays NaN. */
INLINE float exp_of(float x)
{
    const float magic = 0x1.8p23f;
    x = -104.0f > x ? -104.0f : x;
    x = 89.0f < x ? 89.0f : x;
    const float t = fmaf(x, 0x1.715476p+0f, magic), n = t - magic;
    const float r = fmaf(n, 0x1.05c61p-29f, fmaf(n, -0x1.62e43p-1f, x));
    float p = fmaf(0x1.a125f6p-13f, r, 0x1.6d444ap-10f);
    p = fmaf(p, r, 0x1.1110ep-7f);
    p = fmaf(p, r, 0x1.5554e8p-5f);
    p = fmaf(p, r, 0x1.555556p-3f);
    p = fmaf(p, r, 0.5f);
    p = fmaf(p, r * r, r) + 1.0f;
    const int32_t e = (int32_t)(bits_of_float(t) - bits_of_float(magic)), half = e >> 1;
    return p * float_of_bits((uint32_t)(half + 127) << 23) *
           float_of_bits((uint32_t)(e - half + 127) << 23);
}

/* ---- sums of a warp, in one fixed order ---- */

INLINE float warp_sum(float v)
{
    UNROLL
    for (int o = 16; o > 0; o >>= 1) v += __shfl_xor_sync(ALL, v, o);
    return v;
}
/* Over this lane and those before it; of the others every lane gets the result. */
INLINE uint32_t warp_upto(uint32_t v)
{
    UNROLL
    for (uint32_t o = 1; o < WARP; o *= 2) {
        const uint32_t other = __shfl_up_sync(ALL, v, o);
        if (threadIdx.x % WARP >= o) v += other;
    }
    return v;
}
INLINE uint32_t warp_max(uint32_t v)
{
    UNROLL
    for (int o = 16; o > 0; o >>= 1) {
        const uint32_t other = __shfl_xor_sync(ALL, v, o);
        v = other > v ? other : v;
    }
    return v;
}

#endif
