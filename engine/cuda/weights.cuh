/* Reading a brick (kernels.h draws it): codes as signed bytes, scales, and what a block's dot adds to a sum.
 *
 * The format is a constant wherever these are used, so that a kernel has its own format's instructions alone.
 */
#ifndef WEFT_ENGINE_CUDA_WEIGHTS_CUH
#define WEFT_ENGINE_CUDA_WEIGHTS_CUH

#include "engine/cuda/device.cuh"

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
    return f == WEFT_CUDA_N4 || f == WEFT_CUDA_N4K || f == WEFT_CUDA_MX4;
}
/* Each half of a block has a scale, an integer. */
INLINE bool has_halves(int f)
{
    return f == WEFT_CUDA_Q6K || f == WEFT_CUDA_Q2K || f == WEFT_CUDA_Q3K;
}
INLINE bool has_ones(int f)
{
    return f == WEFT_CUDA_Q5 || f == WEFT_CUDA_Q5M || f == WEFT_CUDA_Q5K || f == WEFT_CUDA_Q3K;
}
INLINE bool has_twos(int f)
{
    return f == WEFT_CUDA_Q6K || f == WEFT_CUDA_Q2K || f == WEFT_CUDA_Q3K;
}
INLINE bool has_nibbles(int f)
{
    return f != WEFT_CUDA_Q8 && f != WEFT_CUDA_Q2K && f != WEFT_CUDA_Q3K;
}
INLINE uint32_t scale_bytes(int f)
{
    switch (f) {
    case WEFT_CUDA_Q4M:
    case WEFT_CUDA_Q5M: return 512;
    case WEFT_CUDA_Q2K: return 320;
    case WEFT_CUDA_Q6K: return 288;
    case WEFT_CUDA_Q3K: return 224;
    case WEFT_CUDA_N4K:
    case WEFT_CUDA_MX4: return 128;
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
    return twos_at(f) + (has_twos(f) ? 1024 : 0);
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

/* A row's scales of a brick. */
typedef struct row_scales {
    uint4 a, b; /* of the row's places in the scales; b: the minima of Q4M and Q5M */
    float d;    /* of the brick: K formats */
    float m;    /* of the brick: Q4K, Q5K, negative; Q2K, a quarter */
} row_scales;

INLINE row_scales scales_of_row(int f, const uint8_t *brick, uint32_t row)
{
    row_scales s = {{0, 0, 0, 0}, {0, 0, 0, 0}, 0, 0};
    if (f == WEFT_CUDA_N4K || f == WEFT_CUDA_MX4) {
        const uint2 v = ((const uint2 *)brick)[row];
        s.a.x = v.x;
        s.a.y = v.y;
    } else if (f == WEFT_CUDA_Q3K) {
        const uint32_t *const v = (const uint32_t *)brick + 3 * row;
        s.a.x = v[0];
        s.a.y = v[1];
        s.a.z = v[2];
    } else {
        s.a = ((const uint4 *)brick)[row];
    }
    if (f == WEFT_CUDA_Q4M || f == WEFT_CUDA_Q5M) s.b = ((const uint4 *)brick)[WEFT_CUDA_ROWS + row];
    if (f == WEFT_CUDA_Q6K) s.d = float_of_half(((const uint16_t *)(brick + 256))[row]);
    if (f == WEFT_CUDA_Q3K) s.d = float_of_half(((const uint16_t *)(brick + 192))[row]);
    if (f == WEFT_CUDA_N4K) s.d = float_of_half((uint16_t)s.a.x);
    if (f == WEFT_CUDA_Q2K) {
        const uint32_t v = ((const uint32_t *)(brick + 256))[row];
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
    const uint32_t byte = (uint32_t)place_of(s->a, j) >> 8 * h;
    return f == WEFT_CUDA_Q6K ? (int8_t)byte : (int32_t)(byte & 15);
}
/* Q2K: what half h's sum of activations is multiplied by. */
INLINE int32_t minimum_of_half(const row_scales *s, int j, int h)
{
    return place_of(s->a, j) >> (8 * h + 4) & 15;
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
    default: return 0;
    }
}

/* The values that 4 nibbles name: two look-ups among 8, and a choice. */
INLINE uint32_t values_of(int f, uint32_t nibbles)
{
    const uint32_t low = nibbles & 0x7777, choice = (nibbles >> 1 & 0x4444) | 0x3210;
    if (f == WEFT_CUDA_MX4)
        return __byte_perm(__byte_perm(0x03020100, 0x0c080604, low), __byte_perm(0xfdfeff00, 0xf4f8fafc, low),
                           choice);
    return __byte_perm(__byte_perm(0xbfad9881, 0xf6eaddcf, low), __byte_perm(0x26190d01, 0x71594535, low),
                       choice);
}

/* What of a row's block lies in planes. */
typedef struct block_planes {
    uint32_t ones, twos[2];
} block_planes;

INLINE block_planes planes_of(int f, const uint8_t *brick, uint32_t row, int j)
{
    block_planes p = {0, {0, 0}};
    const uint32_t at = (uint32_t)j;
    if (has_ones(f)) p.ones = ((const uint32_t *)(brick + scale_bytes(f)))[(at / 4 * WEFT_CUDA_ROWS + row) * 4 + at % 4];
    if (has_twos(f)) {
        const uint2 v = ((const uint2 *)(brick + twos_at(f)))[(at / 2 * WEFT_CUDA_ROWS + row) * 2 + at % 2];
        p.twos[0] = v.x;
        p.twos[1] = v.y;
    }
    return p;
}

/* The codes of columns 16 h + 4 k .. of a block, from word k of its nibbles and from its planes. */
INLINE uint32_t codes_of(int f, uint32_t q, const block_planes *p, int h, int k)
{
    uint32_t w = 0;
    if (has_table(f)) return values_of(f, q >> 16 * h);
    if (has_nibbles(f)) w = q >> 4 * h & 0x0f0f0f0f;
    if (has_twos(f)) w |= (p->twos[h] >> 2 * k & 0x03030303) << (has_nibbles(f) ? 4 : 0);
    if (has_ones(f)) w |= (p->ones >> (4 * h + k) & 0x01010101) << (has_nibbles(f) ? 4 : 2);
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
