/* Reading a brick (kernels.h draws it): codes as signed bytes, scales, and what a block's dot adds to a sum.
 *
 * The format is a constant wherever these are used, so that a kernel has its own format's instructions alone.
 */
#ifndef WEFT_ENGINE_CUDA_WEIGHTS_CUH
#define WEFT_ENGINE_CUDA_WEIGHTS_CUH

#include "engine/cuda/device.cuh"

enum { BLOCKS = WEFT_CUDA_SUPER / WEFT_CUDA_BLOCK /* of a brick */ };

INLINE bool is_k(int f)
{
    return f == WEFT_CUDA_Q4K || f == WEFT_CUDA_Q5K;
}
INLINE bool is_five(int f)
{
    return f == WEFT_CUDA_Q5 || f == WEFT_CUDA_Q5M || f == WEFT_CUDA_Q5K;
}
INLINE bool has_minimum(int f)
{
    return f == WEFT_CUDA_Q4M || f == WEFT_CUDA_Q5M || is_k(f);
}
INLINE uint32_t scale_bytes(int f)
{
    return f == WEFT_CUDA_Q6K ? 288 : f == WEFT_CUDA_Q4M || f == WEFT_CUDA_Q5M ? 512 : 256;
}
INLINE uint32_t high_bytes(int f)
{
    return f == WEFT_CUDA_Q6K ? 1024 : is_five(f) ? 512 : 0;
}
INLINE uint32_t brick_bytes(int f)
{
    if (f == WEFT_CUDA_F32) return WEFT_CUDA_ROWS * WEFT_CUDA_SUPER * 4;
    if (f == WEFT_CUDA_F16 || f == WEFT_CUDA_BF16) return WEFT_CUDA_ROWS * WEFT_CUDA_SUPER * 2;
    return scale_bytes(f) + high_bytes(f) + BLOCKS * (f == WEFT_CUDA_Q8 ? 512 : 256);
}

/* The 16 bits of place j of 8. */
INLINE uint16_t place_of(uint4 v, int j)
{
    const uint32_t word = j & 4 ? (j & 2 ? v.w : v.z) : (j & 2 ? v.y : v.x);
    return (uint16_t)(word >> (j & 1) * 16);
}

/* A row's scales of a brick. */
typedef struct row_scales {
    uint4 a, b; /* of the row's places in the scales; b: the minima of Q4M and Q5M */
    float d;    /* of the brick: Q4K, Q5K, Q6K */
    float m;    /* of the brick: Q4K, Q5K, negative */
} row_scales;

INLINE row_scales scales_of_row(int f, const uint8_t *brick, uint32_t row)
{
    row_scales s = {{0, 0, 0, 0}, {0, 0, 0, 0}, 0, 0};
    s.a = ((const uint4 *)brick)[row];
    if (f == WEFT_CUDA_Q4M || f == WEFT_CUDA_Q5M) s.b = ((const uint4 *)brick)[WEFT_CUDA_ROWS + row];
    if (f == WEFT_CUDA_Q6K) s.d = float_of_half(((const uint16_t *)(brick + 256))[row]);
    if (is_k(f)) {
        s.d = float_of_half((uint16_t)s.a.x);
        s.m = 0 - float_of_half((uint16_t)(s.a.x >> 16));
    }
    return s;
}

/* What the dot of block j is multiplied by. Q6K: its dot has the blocks' own scales in it. */
INLINE float scale_of_block(int f, const row_scales *s, int j)
{
    if (f == WEFT_CUDA_Q6K) return s->d;
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
/* Q6K: the scale of half h of block j. */
INLINE int32_t scale_of_half(const row_scales *s, int j, int h)
{
    return (int8_t)(place_of(s->a, j) >> 8 * h);
}

/* What the codes stand above their values. */
INLINE int32_t offset_of(int f)
{
    return f == WEFT_CUDA_Q4 ? 8 : f == WEFT_CUDA_Q5 ? 16 : f == WEFT_CUDA_Q6K ? 32 : 0;
}

/* Word k's 4 codes of the first half of a block (columns 4 k ..), from its word of q, and its high bits. */
INLINE uint32_t codes_first(int f, uint32_t q, uint32_t high, int k)
{
    uint32_t w = q & 0x0f0f0f0f;
    if (is_five(f)) w |= (high >> k & 0x01010101) << 4;
    if (f == WEFT_CUDA_Q6K) w |= (high >> 2 * k & 0x03030303) << 4;
    return w;
}
/* The same of the second half (columns 16 + 4 k ..); Q6K: high is its own word. */
INLINE uint32_t codes_second(int f, uint32_t q, uint32_t high, int k)
{
    uint32_t w = q >> 4 & 0x0f0f0f0f;
    if (is_five(f)) w |= (high >> (k + 4) & 0x01010101) << 4;
    if (f == WEFT_CUDA_Q6K) w |= (high >> 2 * k & 0x03030303) << 4;
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
