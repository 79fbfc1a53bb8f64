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

enum { N_ISAS = 3, N_TYPES = 11 };

static const char *const all_isas[N_ISAS] = {"scalar", "avx2", "avx512"};
static const weft_tensor_type all_types[N_TYPES] = {WEFT_Q8_0, WEFT_Q4_0, WEFT_Q4_1, WEFT_Q5_0,
                                                    WEFT_Q5_1, WEFT_Q4_K, WEFT_Q5_K, WEFT_Q6_K,
                                                    WEFT_F16,  WEFT_BF16, WEFT_F32};

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
    *out_scale = type == WEFT_Q6_K ? 208 : type == WEFT_F16 ? 0 : 0;
    *out_minimum =
        type == WEFT_Q4_1 || type == WEFT_Q5_1 || type == WEFT_Q4_K || type == WEFT_Q5_K ? 2 : -1;
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
            int scale, minimum;
            half_fields(type, &scale, &minimum);
            put_half(b + scale, exact ? f : f * 0.01f);
            if (minimum >= 0) put_half(b + minimum, exact ? g : g * 0.1f);
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
