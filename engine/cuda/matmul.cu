/* Products of many rows of activations, on the tensor cores: the bits of matvec.cu.
 *
 * One instruction is 16 rows of weights times 8 rows of activations over the 32 columns of a block, in exact
 * integers; then each of its sums goes through the same float operations in the same order as there. A thread
 * block has 4 tiles, a warp each, and 16 or 64 rows of activations, of which a brick's columns lie in shared
 * memory. Codes go from memory straight into the operands: the layout is theirs.
 *
 * Floor: a sum and a block cost 3 float operations (a minimum: one more), 32 multiply-adds of the tensor cores
 * take a quarter of that time at most. So it is bound by float32 at about 32 / 3 multiply-adds an operation,
 * which is the price of scales for every 32 columns.
 */
#include "engine/cuda/weights.cuh"

enum {
    MATMUL_WARPS = 4,
    MATMUL_THREADS = MATMUL_WARPS * WARP,
    EIGHT = 8,          /* rows of activations of an instruction */
    WIDEST = 64,
    X_STRIDE = 256 + 16 /* bytes of a brick of activations: words of 8 rows meet no bank twice */
};

/* A brick of activations in shared memory. */
typedef struct x_brick {
    uint8_t *q;     /* [width][X_STRIDE] */
    float *d;       /* [BLOCKS][width] */
    float *sum;     /* the same: d times the sum of q */
    uint32_t *half; /* the same: the sums of the halves, 16 bits each */
} x_brick;

/* Blocks that are not there, and rows, count as zeros. */
INLINE void load_x(const weft_cuda_matmul_args *a, const weft_cuda_run *run, uint32_t width,
                   uint32_t brick, const x_brick *x)
{
    const uint32_t blocks = a->columns / WEFT_CUDA_BLOCK, first = brick * BLOCKS;
    for (uint32_t i = threadIdx.x; i < width * BLOCKS * 2; i += MATMUL_THREADS) {
        const uint32_t t = i / (BLOCKS * 2), part = i % (BLOCKS * 2), block = first + part / 2;
        uint4 v = {0, 0, 0, 0};
        if (t < run->n && block < blocks) {
            const uint64_t at = (uint64_t)x_row_of(a, run->first + t) * blocks + block;
            v = ((const uint4 *)a->q)[at * 2 + part % 2];
        }
        *(uint4 *)(x->q + t * X_STRIDE + part * 16) = v;
    }
    for (uint32_t i = threadIdx.x; i < width * BLOCKS; i += MATMUL_THREADS) {
        const uint32_t t = i % width, block = first + i / width;
        weft_cuda_block b = {0, {0, 0}};
        if (t < run->n && block < blocks)
            b = a->block[(uint64_t)x_row_of(a, run->first + t) * blocks + block];
        x->d[i] = b.d;
        x->sum[i] = b.d * (float)(b.half[0] + b.half[1]);
        x->half[i] = (uint16_t)b.half[0] | (uint32_t)(uint16_t)b.half[1] << 16;
    }
}

/* What a lane holds of a tile's block: rows l / 4 and l / 4 + 8, words l % 4 of both halves. */
INLINE void load_codes(int f, const uint8_t *brick, const row_scales *s, int j, uint32_t *code)
{
    const uint32_t lane = threadIdx.x % WARP, row = lane / 4, k = lane % 4;
    const uint32_t *const q = (const uint32_t *)(brick + codes_at(f));
    UNROLL
    for (uint32_t r = 0; r < 2; r++) {
        if (f == WEFT_CUDA_Q8) {
            code[r] = q[(uint32_t)j * 128 + r * 32 + lane];
            code[2 + r] = q[(uint32_t)j * 128 + 64 + r * 32 + lane];
            continue;
        }
        const uint32_t word = has_nibbles(f) ? q[(uint32_t)j * 64 + r * 32 + lane] : 0;
        const block_planes p = planes_of(f, brick, &s[r], row + 8 * r, j);
        code[r] = codes_of(f, word, &p, 0, (int)k);
        code[2 + r] = codes_of(f, word, &p, 1, (int)k);
    }
}

INLINE int32_t half_sum(uint32_t pair, int h)
{
    return (int16_t)(pair >> 16 * h);
}

/* An integer below 2^22 added to the bits of 1.5 * 2^23 is that much more: no conversion. */
enum { MAGIC = 0x4b400000 };
INLINE float float_of_magic(int32_t v)
{
    return float_of_bits((uint32_t)v) - 0x1.8p23f;
}

/* The dots of a tile's block with 8 rows of activations, as floats: 4 a lane. */
INLINE void dots(int f, const uint32_t *code, const row_scales *s, int j, const uint32_t *q,
                 const uint32_t *half, float *out)
{
    const uint32_t x[2] = {q[0], q[4]};
    int32_t sum[4] = {0, 0, 0, 0};
    if (has_halves(f)) {
        int32_t second[4] = {0, 0, 0, 0};
        MMA_S8_HALF(sum, code, x);
        MMA_S8_HALF(second, code + 2, x + 1);
        UNROLL
        for (int i = 0; i < 4; i++) {
            const uint32_t pair = half[i % 2];
            const row_scales *const r = &s[i / 2];
            const int32_t v = (sum[i] - offset_of(f) * half_sum(pair, 0)) * scale_of_half(f, r, j, 0) +
                              (second[i] - offset_of(f) * half_sum(pair, 1)) * scale_of_half(f, r, j, 1);
            /* Below 2^22, but for Q6K and IQ2. */
            out[i] = f == WEFT_CUDA_Q2K || f == WEFT_CUDA_Q3K || f == WEFT_CUDA_IQ1 ? float_of_magic(MAGIC + v)
                                                                                     : (float)v;
        }
        return;
    }
    UNROLL
    for (int i = 0; i < 4; i++) {
        const uint32_t pair = half[i % 2];
        sum[i] = MAGIC - offset_of(f) * (half_sum(pair, 0) + half_sum(pair, 1));
    }
    MMA_S8(sum, code, x);
    UNROLL
    for (int i = 0; i < 4; i++) out[i] = float_of_magic(sum[i]);
}

/* NV4: the sums of a lane, each half with a scale of its own. */
INLINE void add_scaled_halves(const uint32_t *code, const float *scale, const uint32_t *q, const float *x, float *to)
{
    int32_t sum[4] = {MAGIC, MAGIC, MAGIC, MAGIC}, second[4] = {MAGIC, MAGIC, MAGIC, MAGIC};
    MMA_S8_HALF(sum, code, q);
    MMA_S8_HALF(second, code + 2, q + 4);
    UNROLL
    for (int i = 0; i < 4; i++) {
        to[i] = fmaf(float_of_magic(sum[i]), scale[i / 2] * x[i % 2], to[i]);
        to[i] = fmaf(float_of_magic(second[i]), scale[2 + i / 2] * x[i % 2], to[i]);
    }
}

/* Adds block j of a brick to the sums of a lane: sum[n][4] for each 8 rows of activations. */
INLINE void add_block_wide(int f, int width, const uint8_t *brick, const row_scales *s, int j,
                           const x_brick *x, float *sum)
{
    const uint32_t lane = threadIdx.x % WARP, column = lane % 4 * 2;
    uint32_t code[4];
    float d[4], m[2] = {0, 0};
    load_codes(f, brick, s, j, code);
    UNROLL
    for (int r = 0; r < 2; r++) {
        d[r] = f == WEFT_CUDA_NV4 ? float_of_half_block(&s[r], j, 0) : scale_of_block(f, &s[r], j);
        d[2 + r] = f == WEFT_CUDA_NV4 ? float_of_half_block(&s[r], j, 1) : 0;
        if (has_minimum(f)) m[r] = minimum_of_block(f, &s[r], j);
    }
    UNROLL
    for (int n = 0; n < width / EIGHT; n++) {
        const uint32_t at = (uint32_t)(j * width + n * EIGHT) + column;
        const uint32_t *const q =
            (const uint32_t *)(x->q + ((uint32_t)(n * EIGHT) + lane / 4) * X_STRIDE + j * 32) + lane % 4;
        float dot[4];
        if (f == WEFT_CUDA_NV4) {
            add_scaled_halves(code, d, q, x->d + at, sum + 4 * n);
            continue;
        }
        dots(f, code, s, j, q, x->half + at, dot);
        UNROLL
        for (int i = 0; i < 4; i++) {
            float *const to = &sum[4 * n + i];
            const row_scales *const r = &s[i / 2];
            *to = fmaf(dot[i], d[i / 2] * x->d[at + i % 2], *to);
            if (has_minimum(f)) *to = fmaf(m[i / 2], x->sum[at + i % 2], *to);
            if (f == WEFT_CUDA_Q2K) {
                const uint32_t pair = x->half[at + i % 2];
                const int32_t minima = half_sum(pair, 0) * minimum_of_half(r, j, 0) +
                                       half_sum(pair, 1) * minimum_of_half(r, j, 1);
                *to = fmaf(float_of_magic(MAGIC - 4 * minima), r->m * x->d[at + i % 2], *to);
            }
        }
    }
}

/* total[n][4] of a lane: its tile times the run's rows. All threads of the block come here together. */
INLINE void product(int f, int width, const weft_cuda_matmul_args *a, const weft_cuda_run *run,
                    const uint8_t *tile, const x_brick *x, float *total)
{
    const uint32_t bricks = (a->columns + WEFT_CUDA_SUPER - 1) / WEFT_CUDA_SUPER;
    const uint32_t row = threadIdx.x % WARP / 4, blocks = a->columns / WEFT_CUDA_BLOCK;
    NO_UNROLL
    for (uint32_t brick = 0; brick < bricks; brick++) {
        const uint32_t left = blocks - brick * BLOCKS;
        const uint8_t *const data = tile + (uint64_t)brick * brick_bytes(f);
        float sum[WIDEST / EIGHT * 4];
        __syncthreads(); /* the last brick's activations are not read any more */
        load_x(a, run, (uint32_t)width, brick, x);
        __syncthreads();
        UNROLL
        for (int i = 0; i < width / 2; i++) sum[i] = 0;
        const row_scales s[2] = {scales_of_row(f, data, row), scales_of_row(f, data, row + 8)};
        NO_UNROLL
        for (int j = 0; j < (int)(left < BLOCKS ? left : BLOCKS); j++)
            add_block_wide(f, width, data, s, j, x, sum);
        UNROLL
        for (int i = 0; i < width / 2; i++) total[i] = brick == 0 ? sum[i] : total[i] + sum[i];
    }
}

/* A lane's totals to their places in y. up: y has gate's already. */
INLINE void store(int width, const weft_cuda_matmul_args *a, const weft_cuda_run *run, uint32_t m,
                  uint32_t tile, bool up, const float *total)
{
    const uint32_t lane = threadIdx.x % WARP, rows = a->w[m].rows;
    UNROLL
    for (int i = 0; i < width / 2; i++) {
        const uint32_t t = (uint32_t)(i / 4 * EIGHT + i % 2) + lane % 4 * 2;
        const uint32_t r = tile * WEFT_CUDA_ROWS + lane / 4 + (i % 4 < 2 ? 0 : 8);
        if (t >= run->n || r >= rows) continue;
        float *const y = a->w[m].y + y_at(a, run->first + t, rows) + r;
        float v = total[i];
        if (up)
            v = gated_of(a->activation, *y, v);
        else if (a->w[m].bias)
            v += a->w[m].bias[r];
        *y = v;
    }
}

INLINE void matmul(int f, int width, const weft_cuda_matmul_args *a, const x_brick *x)
{
    const uint32_t bricks = (a->columns + WEFT_CUDA_SUPER - 1) / WEFT_CUDA_SUPER;
    const weft_cuda_run run = run_of(a, (uint32_t)width);
    uint32_t tile = blockIdx.x * MATMUL_WARPS + threadIdx.x / WARP;
    uint32_t m = matrix_of(a, &tile);
    if (run.n == 0) return; /* the whole block */
    const bool exists = m < (a->gated ? 1 : a->n_w);
    if (!exists) m = tile = 0; /* beyond the last tile: computes with the others, and keeps nothing */
    NO_UNROLL
    for (uint32_t g = 0; g < (a->gated ? 2 : 1); g++) {
        float total[WIDEST / EIGHT * 4];
        product(f, width, a, &run,
                a->w[m + g].data + run.matrix * a->stack_bytes[(m + g) % 2] +
                    (uint64_t)tile * bricks * brick_bytes(f),
                x, total);
        if (exists) store(width, a, &run, m, tile, g == 1, total);
    }
}

#define MATMUL(name, format, width)                                                                \
    KERNEL_BLOCKS(matmul_##name##_##width, MATMUL_THREADS, width == 64 ? 2 : 3, weft_cuda_matmul_args) \
    {                                                                                              \
        SHARED(uint8_t, q, width * X_STRIDE);                                                      \
        SHARED(float, d, BLOCKS * width);                                                          \
        SHARED(float, sum, BLOCKS * width);                                                        \
        SHARED(uint32_t, half, BLOCKS * width);                                                    \
        const x_brick x = {q, d, sum, half};                                                       \
        matmul(WEFT_CUDA_##format, width, &a, &x);                                                 \
    }
#define MATMULS(name, format) MATMUL(name, format, 16) MATMUL(name, format, 64)
MATMULS(q8, Q8)
MATMULS(q4, Q4)
MATMULS(q4m, Q4M)
MATMULS(q5, Q5)
MATMULS(q5m, Q5M)
MATMULS(q4k, Q4K)
MATMULS(q5k, Q5K)
MATMULS(q6k, Q6K)
MATMULS(q2k, Q2K)
MATMULS(q3k, Q3K)
MATMULS(n4, N4)
MATMULS(n4k, N4K)
MATMULS(mx4, MX4)
MATMULS(nv4, NV4)
MATMULS(iq1, IQ1)
MATMULS(iq2xxs, IQ2XXS)
MATMULS(iq2xs, IQ2XS)
MATMULS(iq2s, IQ2S)
MATMULS(iq3xxs, IQ3XXS)
MATMULS(iq3s, IQ3S)
MATMULS(q2, Q2)
MATMULS(q1, Q1)
