/* Keys and values into their pages (ops.h draws them), by the operations of cpu/rope.c. */
#include "engine/cuda/device.cuh"

enum { KV_WARPS = 4 };

/* Lane i's value of a block of `n` of q8_0, and the block's scale: as to_q8 of cpu/attend.inc. */
INLINE int8_t to_q8(float x, bool exists, uint16_t *out_scale)
{
    const float most = float_of_bits(warp_max(exists ? bits_of_float(x) & 0x7fffffff : 0));
    const uint16_t half = half_of_float(most / 127.0f);
    const bool usable = half > 0 && half < 0x7c00;
    float v = usable ? x * (1.0f / float_of_half(half)) : 0;
    v = v > 127.0f ? 127.0f : v < -127.0f ? -127.0f : v;
    *out_scale = half < 0x7c00 ? half : 0x7e00;
    return (int8_t)round_to_int(v);
}

/* Element d of the key of a head, at place `at` of its page; 32 dims a warp, of which the key may lack some. */
INLINE void write_key(const weft_cuda_kv *kv, uint8_t *keys, uint32_t at, uint32_t d, float x)
{
    const bool exists = d < kv->key_dim;
    if (kv->type == WEFT_KV_Q8_0) {
        uint16_t scale;
        const int8_t q = to_q8(x, exists, &scale);
        uint8_t *const block = keys + d / WEFT_KV_BLOCK * (WEFT_PAGE * (WEFT_KV_BLOCK + 2));
        if (d % WEFT_KV_BLOCK == 0) ((uint16_t *)block)[at] = scale;
        if (exists) block[2 * WEFT_PAGE + d % WEFT_KV_BLOCK * WEFT_PAGE + at] = (uint8_t)q;
    } else if (exists && kv->type == WEFT_KV_F16) {
        ((uint16_t *)keys)[WEFT_PAGE * d + at] = half_of_float(x);
    } else if (exists) {
        ((float *)keys)[WEFT_PAGE * d + at] = x;
    }
}

INLINE void write_value(const weft_cuda_kv *kv, uint8_t *values, uint32_t at, uint32_t d, float x)
{
    const bool exists = d < kv->value_dim;
    if (kv->type == WEFT_KV_Q8_0) {
        uint16_t scale;
        const int8_t q = to_q8(x, exists, &scale);
        const uint32_t blocks = (kv->value_dim + WEFT_KV_BLOCK - 1) / WEFT_KV_BLOCK;
        if (d % WEFT_KV_BLOCK == 0) ((uint16_t *)values)[d / WEFT_KV_BLOCK * WEFT_PAGE + at] = scale;
        if (exists) values[2 * WEFT_PAGE * blocks + at * kv->value_dim + d] = (uint8_t)q;
    } else if (exists && kv->type == WEFT_KV_F16) {
        ((uint16_t *)values)[at * kv->value_dim + d] = half_of_float(x);
    } else if (exists) {
        ((float *)values)[at * kv->value_dim + d] = x;
    }
}

/* A thread block a head and token, a warp 32 dims at a time. */
KERNEL(kv_write, 32 * KV_WARPS, weft_cuda_kv_write_args)
{
    const uint32_t head = blockIdx.x, heads = a.kv.n_head_kv, rest = a.kv.value_dim - a.v_dim;
    const weft_row row = a.row[blockIdx.y];
    const uint64_t place = (uint64_t)blockIdx.y * heads + head;
    const uint32_t at = (uint32_t)(row.position % WEFT_PAGE);
    uint8_t *const keys = (uint8_t *)row.page[row.position / WEFT_PAGE] + a.kv.offset + head * a.kv.head_bytes;
    const uint32_t key_end = (a.kv.key_dim + WARP - 1) / WARP * WARP;
    const uint32_t value_end = (a.kv.value_dim + WARP - 1) / WARP * WARP;
    for (uint32_t d = threadIdx.x; d < key_end; d += blockDim.x)
        write_key(&a.kv, keys, at, d, d < a.kv.key_dim ? a.k[place * a.kv.key_dim + d] : 0);
    for (uint32_t d = threadIdx.x; d < value_end; d += blockDim.x) {
        float x = 0;
        if (d < a.v_dim)
            x = a.v[place * a.v_dim + d];
        else if (d < a.kv.value_dim)
            x = a.v2[place * rest + (d - a.v_dim)];
        write_value(&a.kv, keys + a.kv.key_bytes, at, d, x);
    }
}
