/* Products of few rows of activations: a read of the weights.
 *
 * A thread block has a tile of 16 rows. A half-warp has a brick of it, a lane a row of the brick: its codes come as
 * 16-byte loads, those of a half-warp side by side, and the activations are the same for all its lanes. The
 * bricks' sums meet in shared memory and are added in their order. Nothing crosses lanes.
 *
 * Floor: the bytes of the weights over the memory's bandwidth. A block and a row of activations cost a lane 8 dp4a
 * and about 4 float operations: on 128 lanes a clock that stays below the read up to about 8 rows.
 */
#include "engine/cuda/weights.cuh"

enum { MATVEC_THREADS = 256, MATVEC_THREADS_8 = 128 /* 8 rows need the registers */ };

/* Codes of a row's block j. */
typedef struct block_codes {
    uint32_t w[8];
} block_codes;

INLINE block_codes codes_of_block(int f, const uint8_t *brick, const row_scales *s, uint32_t row, int j)
{
    block_codes c;
    const uint4 *const q = (const uint4 *)(brick + codes_at(f));
    if (f == WEFT_CUDA_Q8) {
        const uint4 u = q[(2 * j) * WEFT_CUDA_ROWS + row];
        const uint4 v = q[(2 * j + 1) * WEFT_CUDA_ROWS + row];
        c.w[0] = u.x, c.w[1] = u.y, c.w[2] = u.z, c.w[3] = u.w;
        c.w[4] = v.x, c.w[5] = v.y, c.w[6] = v.z, c.w[7] = v.w;
        return c;
    }
    uint4 u = {0, 0, 0, 0};
    if (has_nibbles(f)) u = q[j * WEFT_CUDA_ROWS + row];
    const uint32_t word[4] = {u.x, u.y, u.z, u.w};
    const block_planes p = planes_of(f, brick, s, row, j);
    UNROLL
    for (int k = 0; k < 4; k++) {
        c.w[k] = codes_of(f, word[k], &p, 0, k);
        c.w[4 + k] = codes_of(f, word[k], &p, 1, k);
    }
    return c;
}

INLINE int32_t dot_of_half(const uint32_t *w, uint4 x)
{
    int32_t sum = __dp4a((int32_t)w[0], (int32_t)x.x, 0);
    sum = __dp4a((int32_t)w[1], (int32_t)x.y, sum);
    sum = __dp4a((int32_t)w[2], (int32_t)x.z, sum);
    return __dp4a((int32_t)w[3], (int32_t)x.w, sum);
}

/* Adds block j of a brick to the sums of `width` rows of activations; at[t] counts blocks of the call. */
INLINE void add_block(int f, int width, const uint8_t *brick, const row_scales *s, uint32_t row, int j,
                      const weft_cuda_matmul_args *a, const uint32_t *at, float *sum)
{
    const block_codes c = codes_of_block(f, brick, s, row, j);
    const float d = scale_of_block(f, s, j), m = has_minimum(f) ? minimum_of_block(f, s, j) : 0;
    UNROLL
    for (int t = 0; t < width; t++) {
        const uint4 *const q = (const uint4 *)a->q + 2 * (uint64_t)(at[t] + (uint32_t)j);
        const weft_cuda_block x = a->block[at[t] + (uint32_t)j];
        int32_t dot = dot_of_half(c.w, q[0]), second = dot_of_half(c.w + 4, q[1]);
        if (f == WEFT_CUDA_NV4) {
            sum[t] = fmaf((float)dot, float_of_half_block(s, j, 0) * x.d, sum[t]);
            sum[t] = fmaf((float)second, float_of_half_block(s, j, 1) * x.d, sum[t]);
            continue;
        }
        if (has_halves(f)) {
            dot = (dot - offset_of(f) * x.half[0]) * scale_of_half(f, s, j, 0) +
                  (second - offset_of(f) * x.half[1]) * scale_of_half(f, s, j, 1);
        } else {
            dot += second - offset_of(f) * (x.half[0] + x.half[1]);
        }
        sum[t] = fmaf((float)dot, d * x.d, sum[t]);
        if (has_minimum(f)) sum[t] = fmaf(m, x.d * (float)(x.half[0] + x.half[1]), sum[t]);
        if (f == WEFT_CUDA_Q2K) {
            const int32_t minima = x.half[0] * minimum_of_half(s, j, 0) + x.half[1] * minimum_of_half(s, j, 1);
            sum[t] = fmaf((float)(-4 * minima), s->m * x.d, sum[t]);
        }
    }
}

/* Columns [0, count) of a brick of floats, from `column` of the activations on; at[t] counts floats. */
INLINE void add_floats(int f, int width, const uint8_t *brick, uint32_t row, uint32_t count,
                       const weft_cuda_matmul_args *a, const uint32_t *at, float *sum)
{
    const uint32_t step = f == WEFT_CUDA_F32 ? 4 : 8;
    for (uint32_t c = 0; c < count; c += step) {
        const uint4 u = ((const uint4 *)brick)[c / step * WEFT_CUDA_ROWS + row];
        const uint32_t word[4] = {u.x, u.y, u.z, u.w};
        UNROLL
        for (uint32_t i = 0; i < step; i++) {
            const uint16_t half = (uint16_t)(word[i / 2 % 4] >> i % 2 * 16);
            const float w = f == WEFT_CUDA_F32   ? float_of_bits(word[i % 4])
                            : f == WEFT_CUDA_F16 ? float_of_half(half)
                                                 : float_of_bfloat(half);
            if (c + i >= count) break;
            UNROLL
            for (int t = 0; t < width; t++) sum[t] = fmaf(w, a->x[at[t] + c + i], sum[t]);
        }
    }
}

INLINE void add_brick(int f, int width, const uint8_t *data, uint32_t brick, uint32_t row,
                      const weft_cuda_matmul_args *a, const uint32_t *x_row, float *sum)
{
    const uint32_t column = brick * WEFT_CUDA_SUPER, left = a->columns - column;
    const uint32_t count = left < WEFT_CUDA_SUPER ? left : WEFT_CUDA_SUPER;
    uint32_t at[8];
    data += (uint64_t)brick * brick_bytes(f);
    if (f >= WEFT_CUDA_F16) {
        for (int t = 0; t < width; t++) at[t] = x_row[t] * a->x_stride + column;
        add_floats(f, width, data, row, count, a, at, sum);
        return;
    }
    const row_scales s = scales_of_row(f, data, row);
    UNROLL
    for (int t = 0; t < width; t++)
        at[t] = x_row[t] * (a->columns / WEFT_CUDA_BLOCK) + column / WEFT_CUDA_BLOCK;
    if (width == 1 && count == WEFT_CUDA_SUPER) { /* the loads of half a brick at once */
        UNROLL4
        for (int j = 0; j < BLOCKS; j++) add_block(f, width, data, &s, row, j, a, at, sum);
    } else {
        NO_UNROLL
        for (int j = 0; j < (int)(count / WEFT_CUDA_BLOCK); j++)
            add_block(f, width, data, &s, row, j, a, at, sum);
    }
}

/* sums: [gate, up][bricks][width][16 rows] */
INLINE void matvec(int f, int width, const weft_cuda_matmul_args *a, float *sums)
{
    const uint32_t bricks = (a->columns + WEFT_CUDA_SUPER - 1) / WEFT_CUDA_SUPER;
    const uint32_t row = threadIdx.x % WEFT_CUDA_ROWS, parts = blockDim.x / WEFT_CUDA_ROWS;
    const uint32_t each = (uint32_t)width * WEFT_CUDA_ROWS; /* sums of a brick */
    const weft_cuda_run run = run_of(a, (uint32_t)width);
    uint32_t tile = blockIdx.x;
    const uint32_t m = matrix_of(a, &tile);
    uint32_t x_row[8];
    if (run.n == 0) return; /* the whole block */
    UNROLL
    for (uint32_t t = 0; t < (uint32_t)width; t++)
        x_row[t] = x_row_of(a, run.first + (t < run.n ? t : run.n - 1));
    NO_UNROLL
    for (uint32_t g = 0; g < (a->gated ? 2 : 1); g++) {
        const uint8_t *const data = a->w[m + g].data + run.matrix * a->stack_bytes[(m + g) % 2] +
                                    (uint64_t)tile * bricks * brick_bytes(f);
        NO_UNROLL
        for (uint32_t brick = threadIdx.x / WEFT_CUDA_ROWS; brick < bricks; brick += parts) {
            float sum[8];
            UNROLL
            for (int t = 0; t < width; t++) sum[t] = 0;
            add_brick(f, width, data, brick, row, a, x_row, sum);
            UNROLL
            for (int t = 0; t < width; t++)
                sums[(g * bricks + brick) * each + (uint32_t)t * WEFT_CUDA_ROWS + row] = sum[t];
        }
    }
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < run.n * WEFT_CUDA_ROWS; i += blockDim.x) {
        const uint32_t r = tile * WEFT_CUDA_ROWS + i % WEFT_CUDA_ROWS, rows = a->w[m].rows;
        if (r >= rows) continue;
        float total = sums[i];
        for (uint32_t brick = 1; brick < bricks; brick++) total += sums[brick * each + i];
        if (a->gated) {
            float up = sums[bricks * each + i];
            for (uint32_t brick = 1; brick < bricks; brick++)
                up += sums[(bricks + brick) * each + i];
            total = gated_of(a->activation, total, up);
        } else if (a->w[m].bias) {
            total += a->w[m].bias[r];
        }
        a->w[m].y[y_at(a, run.first + i / WEFT_CUDA_ROWS, rows) + r] = total;
    }
}

#define MATVEC(name, format, width)                                                                \
    KERNEL(matvec_##name##_##width, width == 8 ? MATVEC_THREADS_8 : MATVEC_THREADS,                  \
           weft_cuda_matmul_args)                                                                  \
    {                                                                                              \
        SHARED_REST(float, sums);                                                                  \
        matvec(WEFT_CUDA_##format, width, &a, sums);                                               \
    }
#define MATVECS(name, format) MATVEC(name, format, 1) MATVEC(name, format, 4) MATVEC(name, format, 8)
MATVECS(q8, Q8)
MATVECS(q4, Q4)
MATVECS(q4m, Q4M)
MATVECS(q5, Q5)
MATVECS(q5m, Q5M)
MATVECS(q4k, Q4K)
MATVECS(q5k, Q5K)
MATVECS(q6k, Q6K)
MATVECS(q2k, Q2K)
MATVECS(q3k, Q3K)
MATVECS(n4, N4)
MATVECS(n4k, N4K)
MATVECS(mx4, MX4)
MATVECS(nv4, NV4)
MATVECS(iq1, IQ1)
MATVECS(iq2xxs, IQ2XXS)
MATVECS(iq2xs, IQ2XS)
MATVECS(iq2s, IQ2S)
MATVECS(iq3xxs, IQ3XXS)
MATVECS(iq3s, IQ3S)
MATVECS(q2, Q2)
MATVECS(q1, Q1)
MATVECS(f16, F16)
MATVECS(bf16, BF16)
MATVECS(f32, F32)
