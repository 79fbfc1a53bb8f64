/* Reading a brick (kernels.h draws it): codes as signed bytes, scales, and what a block's dot adds to a sum.
 *
 * The format is a constant wherever these are used, so that a kernel has its own format's instructions alone.
 */
#ifndef WEFT_ENGINE_CUDA_WEIGHTS_CUH
#define WEFT_ENGINE_CUDA_WEIGHTS_CUH

#include "engine/cuda/grids.cuh"

enum { BLOCKS = WEFT_CUDA_SUPER / WEFT_CUDA_BLOCK /* of a brick */ };

/* ---- what a format is made of ---- */

INLINE bool is_k(int f)
{
    return f == WEFT_CUDA_Q4K || f == WEFT_CUDA_Q5K;
}
INLINE bool has_minimum(int f)
{
    return f == WEFT_CUDA_Q4M || f == WEFT_CUDA_Q5M || is_k(f);
}
/* Nibbles name values of a table. */
INLINE bool has_table(int f)
{
    return f == WEFT_CUDA_N4 || f == WEFT_CUDA_N4K || f == WEFT_CUDA_MX4 || f == WEFT_CUDA_NV4;
}
/* Groups of 8 weights by index, of 4 weights. */
INLINE bool has_eights(int f)
{
    return f == WEFT_CUDA_IQ1 || f == WEFT_CUDA_IQ2XXS || f == WEFT_CUDA_IQ2XS || f == WEFT_CUDA_IQ2S;
}
INLINE bool has_fours(int f)
{
    return f == WEFT_CUDA_IQ3XXS || f == WEFT_CUDA_IQ3S;
}
/* A scale in integers multiplies the dot of each half of a block, before it becomes a float. */
INLINE bool has_halves(int f)
{
    return f == WEFT_CUDA_Q6K || f == WEFT_CUDA_Q2K || f == WEFT_CUDA_Q3K || has_eights(f);
}
INLINE bool has_ones(int f)
{
    return f == WEFT_CUDA_Q5 || f == WEFT_CUDA_Q5M || f == WEFT_CUDA_Q5K || f == WEFT_CUDA_Q3K ||
           f == WEFT_CUDA_Q1 || has_fours(f) || (has_eights(f) && f != WEFT_CUDA_IQ1);
}
INLINE bool has_twos(int f)
{
    return f == WEFT_CUDA_Q6K || f == WEFT_CUDA_Q2K || f == WEFT_CUDA_Q3K || f == WEFT_CUDA_Q2;
}
INLINE bool has_nibbles(int f)
{
    return f <= WEFT_CUDA_Q6K ? f != WEFT_CUDA_Q8 : has_table(f);
}
INLINE uint32_t scale_bytes(int f)
{
    switch (f) {
    case WEFT_CUDA_Q4M:
    case WEFT_CUDA_Q5M: return 512;
    case WEFT_CUDA_IQ1: return 384;
    case WEFT_CUDA_Q2K: return 320;
    case WEFT_CUDA_Q6K:
    case WEFT_CUDA_IQ2S: return 288;
    case WEFT_CUDA_Q3K:
    case WEFT_CUDA_IQ2XS:
    case WEFT_CUDA_IQ3S: return 224;
    case WEFT_CUDA_N4K:
    case WEFT_CUDA_MX4:
    case WEFT_CUDA_Q2: return 128;
    case WEFT_CUDA_IQ2XXS:
    case WEFT_CUDA_IQ3XXS: return 96;
    case WEFT_CUDA_Q1: return 64;
    default: return 256;
    }
}
/* Where the parts of a brick that follow the scales begin. */
INLINE uint32_t twos_at(int f)
{
    return scale_bytes(f) + (has_ones(f) ? 512 : 0);
}
INLINE uint32_t codes_at(int f)
{
    return twos_at(f) + (has_twos(f) || has_fours(f) ? 1024 : has_eights(f) ? 512 : 0);
}
INLINE uint32_t brick_bytes(int f)
{
    if (f == WEFT_CUDA_F32) return WEFT_CUDA_ROWS * WEFT_CUDA_SUPER * 4;
    if (f == WEFT_CUDA_F16 || f == WEFT_CUDA_BF16) return WEFT_CUDA_ROWS * WEFT_CUDA_SUPER * 2;
    return codes_at(f) + BLOCKS * (f == WEFT_CUDA_Q8 ? 512 : has_nibbles(f) ? 256 : 0);
}

/* ---- scales ---- */

/* The 16 bits of place j of 8. */
INLINE uint16_t place_of(uint4 v, int j)
{
    const uint32_t word = j & 4 ? (j & 2 ? v.w : v.z) : (j & 2 ? v.y : v.x);
    return (uint16_t)(word >> (j & 1) * 16);
}

/* What a row of a brick has ahead of its codes. */
typedef struct row_scales {
    uint4 a; /* scales as they lie */
    uint4 b; /* Q4M, Q5M: the minima; IQ1, IQ2, IQ3: the upper bits of indices */
    float d; /* of the brick, if it has one */
    float m; /* of the brick: Q4K, Q5K, negative; Q2K, a quarter */
} row_scales;

/* Bytes of a row in a. */
INLINE uint32_t places_of(int f)
{
    switch (f) {
    case WEFT_CUDA_IQ2XXS:
    case WEFT_CUDA_IQ3XXS:
    case WEFT_CUDA_IQ3S:
    case WEFT_CUDA_Q1: return 4;
    case WEFT_CUDA_N4K:
    case WEFT_CUDA_MX4:
    case WEFT_CUDA_Q2:
    case WEFT_CUDA_IQ1:
    case WEFT_CUDA_IQ2XS:
    case WEFT_CUDA_IQ2S: return 8;
    case WEFT_CUDA_Q3K: return 12;
    default: return 16;
    }
}

/* `bytes` of row `row` of [16] such: 4, 8, 12 or 16. */
INLINE uint4 places_at(const uint8_t *from, uint32_t bytes, uint32_t row)
{
    uint4 v = {0, 0, 0, 0};
    if (bytes == 16) v = ((const uint4 *)from)[row];
    if (bytes == 8) {
        const uint2 two = ((const uint2 *)from)[row];
        v.x = two.x;
        v.y = two.y;
    }
    if (bytes == 4 || bytes == 12) v.x = ((const uint32_t *)from)[bytes / 4 * row];
    if (bytes == 12) {
        v.y = ((const uint32_t *)from)[3 * row + 1];
        v.z = ((const uint32_t *)from)[3 * row + 2];
    }
    return v;
}

INLINE row_scales scales_of_row(int f, const uint8_t *brick, uint32_t row)
{
    row_scales s = {{0, 0, 0, 0}, {0, 0, 0, 0}, 0, 0};
    const uint8_t *const next = brick + WEFT_CUDA_ROWS * places_of(f);
    s.a = places_at(brick, places_of(f), row);
    if (f == WEFT_CUDA_Q4M || f == WEFT_CUDA_Q5M || f == WEFT_CUDA_IQ1) s.b = places_at(next, 16, row);
    if (f == WEFT_CUDA_IQ2S || f == WEFT_CUDA_IQ3S) s.b = places_at(next, 8, row);
    if (f == WEFT_CUDA_IQ2XS) s.b = places_at(next, 4, row);
    if (f == WEFT_CUDA_Q6K || f == WEFT_CUDA_Q3K || (has_eights(f) && f != WEFT_CUDA_IQ1) || has_fours(f))
        s.d = float_of_half(((const uint16_t *)(brick + scale_bytes(f) - 2 * WEFT_CUDA_ROWS))[row]);
    if (f == WEFT_CUDA_N4K) s.d = float_of_half((uint16_t)s.a.x);
    if (f == WEFT_CUDA_IQ1) /* 4 of its bits above each 4 scales of 3 bits */
        s.d = float_of_half((uint16_t)((s.a.x >> 12 & 0x000f) | (s.a.x >> 24 & 0x00f0) | (s.a.y >> 4 & 0x0f00) |
                                       (s.a.y >> 16 & 0xf000)));
    if (has_eights(f)) s.d *= 0.125f;
    if (f == WEFT_CUDA_IQ3XXS) s.d *= 0.25f;
    if (f == WEFT_CUDA_Q2K) {
        const uint32_t v = ((const uint32_t *)next)[row];
        s.d = float_of_half((uint16_t)v);
        s.m = 0.25f * float_of_half((uint16_t)(v >> 16));
    }
    if (is_k(f)) {
        s.d = float_of_half((uint16_t)s.a.x);
        s.m = 0 - float_of_half((uint16_t)(s.a.x >> 16));
    }
    return s;
}

/* 2^(e - 128): the two smallest have no exponent of their own. */
INLINE float power_of(uint32_t e)
{
    return float_of_bits(e < 2 ? 0x200000u << e : (e - 1) << 23);
}

/* What the dot of block j is multiplied by. With halves, their own scales are in the dot. */
INLINE float scale_of_block(int f, const row_scales *s, int j)
{
    if (has_halves(f)) return s->d;
    if (f == WEFT_CUDA_MX4) return power_of((j < 4 ? s->a.x : s->a.y) >> j % 4 * 8 & 255);
    if (f == WEFT_CUDA_N4K)
        return s->d * (float)((int32_t)((s->a.y >> 4 * j & 15) | (s->a.x >> (16 + 2 * j) & 3) << 4) - 32);
    if (has_fours(f)) return s->d * (float)(2 * (s->a.x >> 4 * j & 15) + 1);
    if (f == WEFT_CUDA_Q2 || f == WEFT_CUDA_Q1) return float_of_half(place_of(s->a, f == WEFT_CUDA_Q2 ? j / 2 : j / 4));
    if (!is_k(f)) return float_of_half(place_of(s->a, j));
    const uint32_t i = j % 4 * 8, low = s->a.y >> i;
    const uint32_t scale = j < 4 ? low & 63 : (s->a.w >> i & 15) | (low >> 6 & 3) << 4;
    return s->d * (float)scale;
}
INLINE float minimum_of_block(int f, const row_scales *s, int j)
{
    if (!is_k(f)) return float_of_half(place_of(s->b, j));
    const uint32_t i = j % 4 * 8, low = s->a.z >> i;
    const uint32_t minimum = j < 4 ? low & 63 : (s->a.w >> i >> 4 & 15) | (low >> 6 & 3) << 4;
    return s->m * (float)minimum;
}
/* The scale of half h of block j. */
INLINE int32_t scale_of_half(int f, const row_scales *s, int j, int h)
{
    if (f == WEFT_CUDA_Q3K) {
        const uint32_t low = (j < 4 ? s->a.x : s->a.y) >> (j % 4 * 8 + 4 * h) & 15;
        return (int32_t)(low | (s->a.z >> (4 * j + 2 * h) & 3) << 4) - 32;
    }
    if (f == WEFT_CUDA_IQ1) return 2 * (place_of(s->a, j / 2) >> (j % 2 * 6 + 3 * h) & 7) + 1;
    if (f == WEFT_CUDA_IQ2XXS) return 2 * (int32_t)(s->a.x >> 4 * j & 15) + 1;
    if (has_eights(f)) return 2 * (int32_t)((j < 4 ? s->a.x : s->a.y) >> (j % 4 * 8 + 4 * h) & 15) + 1;
    const uint32_t byte = (uint32_t)place_of(s->a, j) >> 8 * h;
    return f == WEFT_CUDA_Q6K ? (int8_t)byte : (int32_t)(byte & 15);
}
/* Q2K: what half h's sum of activations is multiplied by. */
INLINE int32_t minimum_of_half(const row_scales *s, int j, int h)
{
    return place_of(s->a, j) >> (8 * h + 4) & 15;
}

/* NV4: what the dot of half h is multiplied by, half of a float of 4 exponent and 3 fraction bits. */
INLINE float float_of_half_block(const row_scales *s, int j, int h)
{
    return float_of_bits((uint32_t)(place_of(s->a, j) >> 8 * h & 255) << 20) * 0x1p119f;
}

/* ---- codes ---- */

/* What the codes stand above their values. */
INLINE int32_t offset_of(int f)
{
    switch (f) {
    case WEFT_CUDA_Q4: return 8;
    case WEFT_CUDA_Q5: return 16;
    case WEFT_CUDA_Q6K: return 32;
    case WEFT_CUDA_Q3K: return 4;
    case WEFT_CUDA_Q2:
    case WEFT_CUDA_Q1: return 1; /* Q1's codes are 0 and 2 */
    default: return 0;
    }
}

/* The values that 4 nibbles name: two look-ups among 8, and a choice. */
INLINE uint32_t values_of(int f, uint32_t nibbles)
{
    const uint32_t low = nibbles & 0x7777, choice = (nibbles >> 1 & 0x4444) | 0x3210;
    if (f == WEFT_CUDA_MX4 || f == WEFT_CUDA_NV4)
        return __byte_perm(__byte_perm(0x03020100, 0x0c080604, low), __byte_perm(0xfdfeff00, 0xf4f8fafc, low),
                           choice);
    return __byte_perm(__byte_perm(0xbfad9881, 0xf6eaddcf, low), __byte_perm(0x26190d01, 0x71594535, low),
                       choice);
}

/* What of a row's block lies in planes. */
typedef struct block_planes {
    uint32_t ones, twos[2];
    uint32_t index[2]; /* the first 8 bits of each group's, */
    uint32_t high;     /* what is beyond, group after group */
} block_planes;

INLINE uint32_t high_of_block(int f, const row_scales *s, int j)
{
    if (f == WEFT_CUDA_IQ1) return place_of(s->b, j);
    if (f == WEFT_CUDA_IQ2XS) return s->b.x >> 4 * j;
    return (j < 4 ? s->b.x : s->b.y) >> j % 4 * 8;
}

INLINE block_planes planes_of(int f, const uint8_t *brick, const row_scales *s, uint32_t row, int j)
{
    block_planes p = {0, {0, 0}, {0, 0}, 0};
    const uint32_t word = ((uint32_t)j / 4 * WEFT_CUDA_ROWS + row) * 4 + (uint32_t)j % 4;
    const uint32_t two = ((uint32_t)j / 2 * WEFT_CUDA_ROWS + row) * 2 + (uint32_t)j % 2;
    if (has_ones(f)) p.ones = ((const uint32_t *)(brick + scale_bytes(f)))[word];
    if (has_eights(f)) p.index[0] = ((const uint32_t *)(brick + twos_at(f)))[word];
    if (has_twos(f) || has_fours(f)) {
        const uint2 v = ((const uint2 *)(brick + twos_at(f)))[two];
        p.twos[0] = p.index[0] = v.x;
        p.twos[1] = p.index[1] = v.y;
    }
    if (has_eights(f) || has_fours(f)) p.high = high_of_block(f, s, j);
    return p;
}

/* The codes of columns 16 h + 4 k .. of a block, from word k of its nibbles and from its planes. */
INLINE uint32_t codes_of(int f, uint32_t q, const block_planes *p, int h, int k)
{
    const uint32_t one = p->ones >> (4 * h + k) & 0x01010101;
    uint32_t w = 0;
    if (has_table(f)) return values_of(f, q >> 16 * h);
    if (has_fours(f)) return grid_weights(f, p->index[h] >> 8 * k & 255, p->high >> (4 * h + k), 0, one);
    if (has_eights(f)) {
        const int group = 2 * h + k / 2, bits = f == WEFT_CUDA_IQ1 ? 4 : high_bits(f);
        return grid_weights(f, p->index[0] >> 8 * group & 255, p->high >> bits * group, k % 2, one);
    }
    if (has_nibbles(f)) w = q >> 4 * h & 0x0f0f0f0f;
    if (has_twos(f)) w |= (p->twos[h] >> 2 * k & 0x03030303) << (has_nibbles(f) ? 4 : 0);
    if (has_ones(f)) w |= one << (has_nibbles(f) ? 4 : has_twos(f) ? 2 : 1);
    return w;
}

/* ---- which rows a thread block computes ---- */

/* Places [first, first + n) of the activations, against `matrix` of the stack. */
INLINE weft_cuda_run run_of(const weft_cuda_matmul_args *a, uint32_t width)
{
    if (a->run) return a->run[blockIdx.y];
    weft_cuda_run r;
    r.matrix = blockIdx.z;
    r.first = blockIdx.y * width;
    r.n = a->n - r.first < width ? a->n - r.first : width;
    return r;
}
/* Place p's row of the activations. */
INLINE uint32_t x_row_of(const weft_cuda_matmul_args *a, uint32_t p)
{
    return (a->x_row ? a->x_row[p] : p) * a->stack + blockIdx.z;
}
INLINE uint64_t y_at(const weft_cuda_matmul_args *a, uint32_t p, uint32_t rows)
{
    return ((uint64_t)(a->y_row ? a->y_row[p] : p) * a->stack + blockIdx.z) *
           (a->y_stride ? a->y_stride : rows);
}
/* The matrix that a tile, counted through the matrices of the call, belongs to; *tile becomes its place there.
 * n_w (gated: 1) if it lies beyond them. */
INLINE uint32_t matrix_of(const weft_cuda_matmul_args *a, uint32_t *tile)
{
    const uint32_t most = a->gated ? 1 : a->n_w;
    uint32_t m = 0;
    for (; m < most; m++) {
        const uint32_t tiles = (a->w[m].rows + WEFT_CUDA_ROWS - 1) / WEFT_CUDA_ROWS;
        if (*tile < tiles) break;
        *tile -= tiles;
    }
    return m;
}

/* act(g) * u by the operations of cpu/float.inc. */
INLINE float gated_of(weft_activation activation, float g, float u)
{
    float z = g;
    if (activation == WEFT_GELU_TANH) z = fmaf(g * g, 0.0713548162726f, 1.5957691216057308f) * g;
    return g / (1 + exp_of(0 - z)) * u;
}

#endif
