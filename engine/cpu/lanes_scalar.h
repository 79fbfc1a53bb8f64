/* The vector layer with one lane: plain C, the specification of the other two.
 *
 * A float vector (vf) and an integer vector (vi) hold LANES rows, positions or dims; a byte vector (vb)
 * holds a 4-byte group for each lane. vs is an accumulator of dots: vs_begin(init) ... vs_dot ...
 * vs_end(init, a) gives init + sum, exactly, for at most 8 groups of 4-bit, 4 of 5-bit or 2 of 6-bit
 * unsigned weights (what 16-bit sums hold on AVX2). dot8 is for weights stored + 128; if BIASED8,
 * its sum is too large by 128 * sum(x).
 */
#ifndef WEFT_ENGINE_CPU_LANES_H
#define WEFT_ENGINE_CPU_LANES_H

#include "engine/cpu/half.h"

#include <math.h>
#include <stddef.h>

enum {
    LANES = 1,
    TOKENS = 8,  /* of a panel that a kernel keeps in registers at once */
    QUERIES = 4, /* attention: most queries at once, */
    VECTORS = 4, /* most vectors of positions or dims, */
    SUMS = 16,   /* and most of their products, each a register */
    BIASED8 = 1  /* dot8 takes the weights as stored, too large by 128 */
};
#define UNROLL

typedef float vf;
typedef int32_t vi, vs;
typedef uint32_t vb;

static inline vf vf_load(const float *p)
{
    return *p;
}
static inline void vf_store(float *p, vf a)
{
    *p = a;
}
static inline vf vf_set(float a)
{
    return a;
}
static inline vf vf_half(const void *p)
{
    return load_half(p);
}
static inline vf vf_bfloat(const void *p)
{
    return bfloat_to_float(load16(p));
}
static inline vf vf_add(vf a, vf b)
{
    return a + b;
}
static inline vf vf_sub(vf a, vf b)
{
    return a - b;
}
static inline vf vf_mul(vf a, vf b)
{
    return a * b;
}
static inline vf vf_div(vf a, vf b)
{
    return a / b;
}
static inline vf vf_fma(vf a, vf b, vf c)
{
    return fmaf(a, b, c);
}
/* As the instructions: the second operand if either is a NaN. */
static inline vf vf_max(vf a, vf b)
{
    return a > b ? a : b;
}
static inline vf vf_min(vf a, vf b)
{
    return a < b ? a : b;
}
static inline vf vf_of(vi a)
{
    return (float)a;
}
static inline vi vf_bits(vf a)
{
    return (int32_t)float_bits(a);
}
static inline vf vf_from_bits(vi a)
{
    return float_from_bits((uint32_t)a);
}

static inline vi vi_set(int32_t a)
{
    return a;
}
static inline vi vi_u8(const uint8_t *p)
{
    return *p;
}
static inline vi vi_s8(const uint8_t *p)
{
    return (int8_t)*p;
}
static inline vi vi_add(vi a, vi b)
{
    return (int32_t)((uint32_t)a + (uint32_t)b);
}
static inline vi vi_sub(vi a, vi b)
{
    return (int32_t)((uint32_t)a - (uint32_t)b);
}
static inline vi vi_mul(vi a, vi b)
{
    return (int32_t)((uint32_t)a * (uint32_t)b);
}
static inline vi vi_shl(vi a, int n)
{
    return (int32_t)((uint32_t)a << n);
}
static inline vi vi_sar(vi a, int n)
{
    return a >> n;
}

/* p * 2^n for |n| <= 150, rounded once, also into the subnormals; n as an integer too. */
static inline vf vf_scale(vf p, vf n, vi e)
{
    vi half = vi_sar(e, 1), bias = vi_set(127);
    vf s0 = vf_from_bits(vi_shl(vi_add(half, bias), 23));
    vf s1 = vf_from_bits(vi_shl(vi_add(vi_sub(e, half), bias), 23));
    (void)n;
    return vf_mul(vf_mul(p, s0), s1);
}

static inline vb vb_load(const uint8_t *p)
{
    return load32(p);
}
static inline vb vb_and(vb a, uint8_t mask)
{
    return a & mask * UINT32_C(0x01010101);
}
static inline vb vb_or(vb a, vb b)
{
    return a | b;
}
static inline vb vb_shl(vb a, int n)
{
    return a << n;
}
static inline vb vb_shr(vb a, int n)
{
    return a >> n;
}

/* Pairs: two 16-bit numbers a lane. Of signed bytes; of two small integers; init + a0 b0 + a1 b1. */
static inline vi vi_pairs_s8(const uint8_t *p)
{
    return (int32_t)((uint32_t)(int8_t)p[1] << 16 | (uint16_t)(int8_t)p[0]);
}
static inline vi vi_pair(vi first, vi second)
{
    return (int32_t)((uint32_t)second << 16 | (uint16_t)first);
}
static inline vi vi_dot2(vi init, vi a, vi b)
{
    return init + (int16_t)a * (int16_t)b + (a >> 16) * (b >> 16);
}

/* A table of 16 signed values, and for each byte of codes (0..15) its value + 128, as dot8 takes it. */
typedef const int8_t *vt;
static inline vt vt_load(const int8_t *values)
{
    return values;
}
static inline vb vt_lookup(vt table, vb codes)
{
    vb out = 0;
    for (int i = 0; i < 32; i += 8) out |= (vb)(table[codes >> i & 255] + 128) << i;
    return out;
}

static inline vs vs_begin(vi init)
{
    return init;
}
static inline vs vs_dot(vs a, vb w, int32_t x)
{
    for (int i = 0; i < 32; i += 8) a += (int32_t)(w >> i & 255) * (int8_t)((uint32_t)x >> i);
    return a;
}
static inline vi vs_end(vi init, vs a)
{
    (void)init;
    return a;
}
static inline vi dot8(vi a, vb w, int32_t x)
{
    return vs_dot(a, w, x);
}
static inline void half_store(uint16_t *p, vf a)
{
    *p = half_from_float(a);
}

#endif
