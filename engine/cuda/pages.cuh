/* Elements of keys and values in their pages (ops.h draws them), as the floats they stand for. */
#ifndef WEFT_ENGINE_CUDA_PAGES_CUH
#define WEFT_ENGINE_CUDA_PAGES_CUH

#include "engine/cuda/device.cuh"

/* Dim d of the key at place `at` of a page. */
INLINE float key_of(weft_kv_type type, const uint8_t *keys, uint32_t d, uint32_t at)
{
    if (type == WEFT_KV_F32) return ((const float *)keys)[WEFT_PAGE * d + at];
    if (type == WEFT_KV_F16) return float_of_half(((const uint16_t *)keys)[WEFT_PAGE * d + at]);
    const uint8_t *const block = keys + d / WEFT_KV_BLOCK * (WEFT_PAGE * (WEFT_KV_BLOCK + 2));
    const int8_t q = (int8_t)block[2 * WEFT_PAGE + d % WEFT_KV_BLOCK * WEFT_PAGE + at];
    return (float)q * float_of_half(((const uint16_t *)block)[at]);
}

/* Dim d of the value of `dim` dims at place `at`. */
INLINE float value_of(weft_kv_type type, const uint8_t *values, uint32_t dim, uint32_t at, uint32_t d)
{
    if (type == WEFT_KV_F32) return ((const float *)values)[at * dim + d];
    if (type == WEFT_KV_F16) return float_of_half(((const uint16_t *)values)[at * dim + d]);
    const uint32_t scales = (dim + WEFT_KV_BLOCK - 1) / WEFT_KV_BLOCK * 2 * WEFT_PAGE;
    const float scale =
        float_of_half(((const uint16_t *)values)[d / WEFT_KV_BLOCK * WEFT_PAGE + at]);
    return (float)(int8_t)values[scales + at * dim + d] * scale;
}

#endif
