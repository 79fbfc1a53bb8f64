/* The vector layer with 16 lanes: AVX-512 with VNNI. Meaning of each operation: lanes_scalar.h. */
#ifndef WEFT_ENGINE_CPU_LANES_H
#define WEFT_ENGINE_CPU_LANES_H

#include "engine/cpu/half.h"

#include <immintrin.h>
#include <math.h>
#include <stddef.h>

/* 24 sums of attention, or 8 dots and 8 sums of a product, leave registers for what feeds them. */
enum { LANES = 16, TOKENS = 8, QUERIES = 12, VECTORS = 4, SUMS = 24, BIASED8 = 1 };

typedef __m512 vf;
typedef __m512i vi, vs, vb;

static inline vf vf_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
static inline void vf_store(float *p, vf a)
{
    _mm512_storeu_ps(p, a);
}
static inline vf vf_set(float a)
{
    return _mm512_set1_ps(a);
}
static inline vf vf_half(const void *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
static inline vf vf_bfloat(const void *p)
{
    __m512i w = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(w, 16));
}
static inline vf vf_add(vf a, vf b)
{
    return _mm512_add_ps(a, b);
}
static inline vf vf_sub(vf a, vf b)
{
    return _mm512_sub_ps(a, b);
}
static inline vf vf_mul(vf a, vf b)
{
    return _mm512_mul_ps(a, b);
}
static inline vf vf_div(vf a, vf b)
{
    return _mm512_div_ps(a, b);
}
static inline vf vf_fma(vf a, vf b, vf c)
{
    return _mm512_fmadd_ps(a, b, c);
}
static inline vf vf_max(vf a, vf b)
{
    return _mm512_max_ps(a, b);
}
static inline vf vf_min(vf a, vf b)
{
    return _mm512_min_ps(a, b);
}
static inline vf vf_of(vi a)
{
    return _mm512_cvtepi32_ps(a);
}
static inline vi vf_bits(vf a)
{
    return _mm512_castps_si512(a);
}
static inline vf vf_from_bits(vi a)
{
    return _mm512_castsi512_ps(a);
}

static inline vi vi_set(int32_t a)
{
    return _mm512_set1_epi32(a);
}
static inline vi vi_u8(const uint8_t *p)
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
}
static inline vi vi_s8(const uint8_t *p)
{
    return _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
}
static inline vi vi_add(vi a, vi b)
{
    return _mm512_add_epi32(a, b);
}
static inline vi vi_sub(vi a, vi b)
{
    return _mm512_sub_epi32(a, b);
}
static inline vi vi_mul(vi a, vi b)
{
    return _mm512_mullo_epi32(a, b);
}
static inline vi vi_shl(vi a, int n)
{
    return _mm512_slli_epi32(a, (unsigned)n);
}
static inline vi vi_sar(vi a, int n)
{
    return _mm512_srai_epi32(a, (unsigned)n);
}

static inline vf vf_scale(vf p, vf n, vi e)
{
    (void)e;
    return _mm512_scalef_ps(p, n);
}

static inline vb vb_load(const uint8_t *p)
{
    return _mm512_loadu_si512(p);
}
static inline vb vb_and(vb a, uint8_t mask)
{
    return _mm512_and_si512(a, _mm512_set1_epi8((char)mask));
}
static inline vb vb_or(vb a, vb b)
{
    return _mm512_or_si512(a, b);
}
static inline vb vb_shl(vb a, int n)
{
    return _mm512_slli_epi32(a, (unsigned)n);
}
static inline vb vb_shr(vb a, int n)
{
    return _mm512_srli_epi32(a, (unsigned)n);
}

static inline vi vi_pairs_s8(const uint8_t *p)
{
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(const void *)p));
}
static inline vi vi_pair(vi first, vi second)
{
    return _mm512_mask_blend_epi16(0xaaaaaaaa, first, _mm512_slli_epi32(second, 16));
}
static inline vi vi_dot2(vi init, vi a, vi b)
{
    return _mm512_dpwssd_epi32(init, a, b);
}

typedef __m512i vt;
static inline vt vt_load(const int8_t *values)
{
    __m128i a = _mm_loadu_si128((const __m128i *)(const void *)values);
    return _mm512_broadcast_i32x4(_mm_xor_si128(a, _mm_set1_epi8(-128)));
}
static inline vb vt_lookup(vt table, vb codes)
{
    return _mm512_shuffle_epi8(table, codes);
}

static inline vs vs_begin(vi init)
{
    return init;
}
static inline vs vs_dot(vs a, vb w, int32_t x)
{
    return _mm512_dpbusd_epi32(a, w, _mm512_set1_epi32(x));
}
static inline vi vs_end(vi init, vs a)
{
    (void)init;
    return a;
}
static inline vi dot8(vi a, vb w, int32_t x)
{
    return _mm512_dpbusd_epi32(a, w, _mm512_set1_epi32(x));
}

static inline void half_store(uint16_t *p, vf a)
{
    _mm256_storeu_si256((__m256i *)(void *)p,
                        _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

#endif
