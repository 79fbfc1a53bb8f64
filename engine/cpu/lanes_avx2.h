/* The vector layer with 8 lanes: AVX2, FMA, F16C. Meaning of each operation: lanes_scalar.h.
 *
 * vpmaddubsw multiplies unsigned by signed bytes and adds pairs into 16 bits with saturation. Weights of 4, 5
 * and 6 bits leave room to add 8, 4 and 2 groups in 16 bits (15 * 127 * 2 * 8 = 30,480), after which
 * vpmaddwd widens. For 8-bit weights it multiplies |w| by x with w's sign: at most 128 * 127 * 2 = 32,512.
 */
#ifndef WEFT_ENGINE_CPU_LANES_H
#define WEFT_ENGINE_CPU_LANES_H

#include "engine/cpu/half.h"

#include <immintrin.h>
#include <math.h>
#include <stddef.h>

/* 16 registers hold 4 dots and 4 sums, or 12 sums of attention, and what feeds them. */
enum { LANES = 8, TOKENS = 4, QUERIES = 6, VECTORS = 2, SUMS = 12, BIASED8 = 0 };

typedef __m256 vf;
typedef __m256i vi, vs, vb;

static inline vf vf_load(const float *p)
{
    return _mm256_loadu_ps(p);
}
static inline void vf_store(float *p, vf a)
{
    _mm256_storeu_ps(p, a);
}
static inline vf vf_set(float a)
{
    return _mm256_set1_ps(a);
}
static inline vf vf_half(const void *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}
static inline vf vf_bfloat(const void *p)
{
    __m256i w = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(w, 16));
}
static inline vf vf_add(vf a, vf b)
{
    return _mm256_add_ps(a, b);
}
static inline vf vf_sub(vf a, vf b)
{
    return _mm256_sub_ps(a, b);
}
static inline vf vf_mul(vf a, vf b)
{
    return _mm256_mul_ps(a, b);
}
static inline vf vf_div(vf a, vf b)
{
    return _mm256_div_ps(a, b);
}
static inline vf vf_fma(vf a, vf b, vf c)
{
    return _mm256_fmadd_ps(a, b, c);
}
static inline vf vf_max(vf a, vf b)
{
    return _mm256_max_ps(a, b);
}
static inline vf vf_min(vf a, vf b)
{
    return _mm256_min_ps(a, b);
}
static inline vf vf_of(vi a)
{
    return _mm256_cvtepi32_ps(a);
}
static inline vi vf_bits(vf a)
{
    return _mm256_castps_si256(a);
}
static inline vf vf_from_bits(vi a)
{
    return _mm256_castsi256_ps(a);
}

static inline vi vi_set(int32_t a)
{
    return _mm256_set1_epi32(a);
}
static inline vi vi_u8(const uint8_t *p)
{
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
}
static inline vi vi_s8(const uint8_t *p)
{
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
}
static inline vi vi_add(vi a, vi b)
{
    return _mm256_add_epi32(a, b);
}
static inline vi vi_sub(vi a, vi b)
{
    return _mm256_sub_epi32(a, b);
}
static inline vi vi_mul(vi a, vi b)
{
    return _mm256_mullo_epi32(a, b);
}
static inline vi vi_shl(vi a, int n)
{
    return _mm256_slli_epi32(a, n);
}
static inline vi vi_sar(vi a, int n)
{
    return _mm256_srai_epi32(a, n);
}

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
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}
static inline vb vb_and(vb a, uint8_t mask)
{
    return _mm256_and_si256(a, _mm256_set1_epi8((char)mask));
}
static inline vb vb_or(vb a, vb b)
{
    return _mm256_or_si256(a, b);
}
static inline vb vb_shl(vb a, int n)
{
    return _mm256_slli_epi32(a, n);
}
static inline vb vb_shr(vb a, int n)
{
    return _mm256_srli_epi32(a, n);
}

static inline vi vi_pairs_s8(const uint8_t *p)
{
    return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)p));
}
static inline vi vi_pair(vi first, vi second)
{
    return _mm256_blend_epi16(first, _mm256_slli_epi32(second, 16), 0xaa);
}
static inline vi vi_dot2(vi init, vi a, vi b)
{
    return _mm256_add_epi32(init, _mm256_madd_epi16(a, b));
}

typedef __m256i vt;
static inline vt vt_load(const int8_t *values)
{
    __m128i a = _mm_loadu_si128((const __m128i *)(const void *)values);
    return _mm256_broadcastsi128_si256(_mm_xor_si128(a, _mm_set1_epi8(-128)));
}
static inline vb vt_lookup(vt table, vb codes)
{
    return _mm256_shuffle_epi8(table, codes);
}

static inline vi widen(vs a)
{
    return _mm256_madd_epi16(a, _mm256_set1_epi16(1));
}
static inline vs vs_begin(vi init)
{
    (void)init;
    return _mm256_setzero_si256();
}
static inline vs vs_dot(vs a, vb w, int32_t x)
{
    return _mm256_add_epi16(a, _mm256_maddubs_epi16(w, _mm256_set1_epi32(x)));
}
static inline vi vs_end(vi init, vs a)
{
    return _mm256_add_epi32(init, widen(a));
}
static inline vi dot8(vi a, vb w, int32_t x)
{
    vb s = _mm256_xor_si256(w, _mm256_set1_epi8(-128));
    vs pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(s), _mm256_sign_epi8(_mm256_set1_epi32(x), s));
    return _mm256_add_epi32(a, widen(pairs));
}

static inline void half_store(uint16_t *p, vf a)
{
    _mm_storeu_si128((__m128i *)(void *)p,
                     _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

#endif
