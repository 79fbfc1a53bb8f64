/* Element by element, and the look-up of rows. Floor: their bytes. */
#include "engine/cuda/weights.cuh"

enum { ELEMENT_THREADS = 256 };

KERNEL(gate, ELEMENT_THREADS, weft_cuda_gate_args)
{
    const uint64_t i = (uint64_t)blockIdx.x * ELEMENT_THREADS + threadIdx.x;
    if (i < a.n) a.out[i] = gated_of(a.activation, a.gate[i], a.up[i]);
}

KERNEL(add, ELEMENT_THREADS, weft_cuda_add_args)
{
    const uint64_t i = (uint64_t)blockIdx.x * ELEMENT_THREADS + threadIdx.x;
    if (i < a.n) a.x[i] += a.y[i];
}

KERNEL(keep, ELEMENT_THREADS, weft_cuda_keep_args)
{
    const float *const x = a.x + (uint64_t)a.from[blockIdx.x] * a.dim;
    float *const out = a.out + (uint64_t)blockIdx.x * a.dim;
    for (uint32_t i = threadIdx.x; i < a.dim; i += ELEMENT_THREADS) out[i] = x[i];
}

/* Column c of a row of a brick, by the operations of cpu/dequant.c. */
INLINE float weight_of(int f, const uint8_t *brick, uint32_t row, uint32_t c)
{
    if (f == WEFT_CUDA_F32) return ((const float *)brick)[(c / 4 * WEFT_CUDA_ROWS + row) * 4 + c % 4];
    if (f == WEFT_CUDA_F16 || f == WEFT_CUDA_BF16) {
        const uint16_t h = ((const uint16_t *)brick)[(c / 8 * WEFT_CUDA_ROWS + row) * 8 + c % 8];
        return f == WEFT_CUDA_F16 ? float_of_half(h) : float_of_bfloat(h);
    }
    const row_scales s = scales_of_row(f, brick, row);
    const uint8_t *const q = brick + codes_at(f);
    const int j = (int)(c / 32), i = (int)(c % 32), half = i / 16, k = i % 16 / 4;
    const float d = f == WEFT_CUDA_NV4 ? float_of_half_block(&s, j, half) : scale_of_block(f, &s, j);
    if (f == WEFT_CUDA_Q8) {
        const uint32_t at = ((uint32_t)(2 * j + half) * WEFT_CUDA_ROWS + row) * 16 + (uint32_t)i % 16;
        return d * (float)(int8_t)q[at];
    }
    uint32_t word = 0;
    if (has_nibbles(f)) word = ((const uint32_t *)q)[((uint32_t)j * WEFT_CUDA_ROWS + row) * 4 + (uint32_t)k];
    const block_planes p = planes_of(f, brick, &s, row, j);
    const int32_t code = (int8_t)(codes_of(f, word, &p, half, k) >> i % 4 * 8);
    const float value = (float)(code - offset_of(f));
    const float scaled = has_halves(f) ? d * (float)scale_of_half(f, &s, j, half) * value : d * value;
    if (f == WEFT_CUDA_Q2K) return scaled - 4 * s.m * (float)minimum_of_half(&s, j, half);
    if (is_k(f)) return scaled - (0 - minimum_of_block(f, &s, j));
    return has_minimum(f) ? scaled + minimum_of_block(f, &s, j) : scaled;
}

INLINE float weight_of_any(weft_cuda_format format, const uint8_t *table, uint32_t columns, uint32_t row,
                           uint32_t brick, uint32_t c)
{
    const uint64_t bricks = (columns + WEFT_CUDA_SUPER - 1) / WEFT_CUDA_SUPER;
    const uint64_t at = row / WEFT_CUDA_ROWS * bricks + brick;
#define CASE(f)                                                                                    \
    case WEFT_CUDA_##f:                                                                            \
        return weight_of(WEFT_CUDA_##f, table + at * brick_bytes(WEFT_CUDA_##f), row % WEFT_CUDA_ROWS, c)
    switch (format) {
        CASE(Q8);
        CASE(Q4);
        CASE(Q4M);
        CASE(Q5);
        CASE(Q5M);
        CASE(Q4K);
        CASE(Q5K);
        CASE(Q6K);
        CASE(Q2K);
        CASE(Q3K);
        CASE(N4);
        CASE(N4K);
        CASE(MX4);
        CASE(NV4);
        CASE(IQ1);
        CASE(IQ2XXS);
        CASE(IQ2XS);
        CASE(IQ2S);
        CASE(IQ3XXS);
        CASE(IQ3S);
        CASE(Q2);
        CASE(Q1);
        CASE(F16);
        CASE(BF16);
    default: CASE(F32);
    }
#undef CASE
}

/* A thread a weight, a block a brick. */
KERNEL(embed, WEFT_CUDA_SUPER, weft_cuda_embed_args)
{
    const uint32_t column = blockIdx.x * WEFT_CUDA_SUPER + threadIdx.x;
    const int32_t id = a.ids[blockIdx.y];
    if (column >= a.columns) return;
    const bool known = id >= 0 && (uint32_t)id < a.rows;
    const float w = known ? weight_of_any(a.format, a.table, a.columns, (uint32_t)id, blockIdx.x, threadIdx.x)
                          : float_of_bits(0x7fc00000);
    a.out[(uint64_t)blockIdx.y * a.columns + column] = w * a.scale;
}
