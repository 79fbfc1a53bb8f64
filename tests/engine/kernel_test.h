/* Shared by the kernel tests: random tensors of every type, backends of every instruction set. */
#ifndef WEFT_TESTS_ENGINE_KERNEL_TEST_H
#define WEFT_TESTS_ENGINE_KERNEL_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/cpu/dequant.h"
#include "engine/cpu/half.h"
#include "engine/cpu/kernels.h"

#include <math.h>
#include <stdlib.h>

enum { N_ISAS = 4 };

static const char *const all_isas[N_ISAS] = {"scalar", "avx2", "avx512", "amx"};
static const weft_tensor_type all_types[] = {
#define X(name, number, weights, bytes) WEFT_##name,
    WEFT_TENSOR_TYPES(X)
#undef X
};
enum { N_TYPES = sizeof all_types / sizeof *all_types };

static inline bool is_float_type(weft_tensor_type type)
{
    return type == WEFT_F32 || type == WEFT_F16 || type == WEFT_BF16;
}

typedef struct rng {
    uint64_t s;
} rng;

static inline uint32_t next32(rng *r)
{
    r->s = r->s * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(r->s >> 33);
}

/* Uniform in [-1, 1). */
static inline float next_float(rng *r)
{
    return (float)(next32(r) & 0xffffff) * 0x1p-23f - 1.0f;
}

static inline void put_half(uint8_t *p, float f)
{
    uint16_t h = half_from_float(f);
    memcpy(p, &h, sizeof h);
}

/* Where the fp16 fields of a type's block stand: bytes from its start, -1: none. */
static inline void half_fields(weft_tensor_type type, int *out_scale, int *out_minimum)
{
    *out_minimum = -1;
    switch (type) {
    case WEFT_Q2_K:
        *out_scale = 80;
        *out_minimum = 82;
        break;
    case WEFT_Q3_K: *out_scale = 108; break;
    case WEFT_Q6_K: *out_scale = 208; break;
    case WEFT_TQ1_0: *out_scale = 52; break;
    case WEFT_TQ2_0: *out_scale = 64; break;
    case WEFT_MXFP4:
    case WEFT_NVFP4:
    case WEFT_IQ1_M: *out_scale = -1; break; /* other fields */
    case WEFT_Q4_1:
    case WEFT_Q5_1:
    case WEFT_Q4_K:
    case WEFT_Q5_K: *out_minimum = 2; /* fall through */
    default: *out_scale = 0;
    }
}

/* Gives a quantised block a scale d, for MXFP4 and NVFP4 the next lower power of two, and a minimum m. */
static inline void put_scale(weft_tensor_type type, uint8_t *block, float d, float m)
{
    int scale, minimum, exponent;
    half_fields(type, &scale, &minimum);
    if (scale >= 0) put_half(block + scale, d);
    if (minimum >= 0) put_half(block + minimum, m);
    frexpf(d, &exponent);
    if (type == WEFT_MXFP4) block[0] = (uint8_t)(127 + exponent);
    if (type == WEFT_NVFP4) { /* fractions stay as they are */
        int e = exponent < -6 ? 1 : exponent > 6 ? 13 : 7 + exponent;
        for (int i = 0; i < 4; i++) block[i] = (uint8_t)(e << 3 | (block[i] & 7));
    }
    if (type == WEFT_IQ1_M) { /* the four upper nibbles of the last four 16-bit words */
        uint16_t h = half_from_float(d);
        for (int i = 0; i < 4; i++)
            block[49 + 2 * i] = (uint8_t)((block[49 + 2 * i] & 15) | (h >> 4 * i & 15) << 4);
    }
}

/* A matrix of random blocks; free with free((void *)t.data). exact: scales are powers of two. */
static inline weft_tensor random_tensor(weft_tensor_type type, size_t rows, size_t columns,
                                        bool exact, rng *r)
{
    size_t weights, bytes;
    assert_true(weft_tensor_block(type, &weights, &bytes));
    assert_int_equal(columns % weights, 0);
    size_t n = rows * (columns / weights);
    uint8_t *data = malloc(n * bytes);
    assert_non_null(data);
    for (size_t i = 0; i < n * bytes; i++) data[i] = (uint8_t)(next32(r) >> 8);
    for (size_t i = 0; i < n; i++) {
        uint8_t *b = data + i * bytes;
        float f = next_float(r), g = next_float(r);
        if (exact) f = g = f < 0 ? -0.25f : 0.25f;
        if (type == WEFT_F32) {
            if (exact) f = (float)((int)(next32(r) % 15) - 7);
            memcpy(b, &f, 4);
        } else if (type == WEFT_BF16) {
            if (exact) f = (float)((int)(next32(r) % 15) - 7);
            uint32_t u = float_bits(f) >> 16;
            memcpy(b, &u, 2);
        } else if (type == WEFT_F16) {
            put_half(b, exact ? (float)((int)(next32(r) % 15) - 7) : f);
        } else {
            put_scale(type, b, exact ? f : f * 0.01f, exact ? g : g * 0.1f);
            if (exact && type == WEFT_Q6_K)
                for (int k = 0; k < 16; k++) b[192 + k] = (uint8_t)(int8_t)(b[192 + k] % 17 - 8);
        }
    }
    return (weft_tensor){.name = "test",
                         .type = type,
                         .n_dims = 2,
                         .dim = {columns, rows, 1, 1},
                         .data = data,
                         .bytes = n * bytes};
}

static inline void free_tensor(weft_tensor *t)
{
    free((void *)(uintptr_t)t->data);
}

typedef struct device {
    weft_backend *b;
    const weft_ops *ops;
} device;

/* False if this CPU lacks the instruction set. */
static inline bool open_device(device *d, const char *isa, int threads)
{
    weft_error err;
    weft_status s = weft_cpu_backend_new(&d->b, &d->ops, isa, threads, &err);
    if (s == WEFT_E_MODEL) return false;
    assert_int_equal(s, WEFT_OK);
    return true;
}

static inline float *new_floats(size_t n)
{
    float *p = malloc((n ? n : 1) * sizeof *p);
    assert_non_null(p);
    return p;
}

static inline float *random_floats(size_t n, rng *r)
{
    float *p = new_floats(n);
    for (size_t i = 0; i < n; i++) p[i] = next_float(r);
    return p;
}

#endif
