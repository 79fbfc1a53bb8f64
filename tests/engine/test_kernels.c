/* Matrix products: every format on every instruction set.
 *
 * Three kinds of evidence. Exact: with activations that int8 holds exactly and scales that are powers
 * of two, the result equals the dequantised matrix times the vector in double, bit for bit. Bounded:
 * with random ones, it is as near as float sums of that length are. Equal: every instruction set, token
 * count and thread count gives the scalar, one-token, one-thread bits. */
#include "kernel_test.h"

#include <stdio.h>

static void multiply(const device *d, const weft_weight *w, const float *bias, const float *x,
                     size_t n, float *y)
{
    d->ops->matmul(d->b, &w, &bias, &y, 1, x, n);
}

static weft_weight *repack(const device *d, const weft_tensor *t)
{
    weft_weight *w = NULL;
    weft_error err;
    assert_int_equal(d->ops->weight_new(d->b, t, &w, &err), WEFT_OK);
    assert_int_equal(d->ops->reserve(d->b, 140, t->dim[0], &err), WEFT_OK);
    return w;
}

/* sum and sum of magnitudes of row . x in double */
static double dot(const weft_tensor *t, size_t row, const float *x, double *out_magnitude)
{
    const size_t columns = t->dim[0];
    float *w = new_floats(columns);
    size_t bytes = cpu_row_bytes(t->type, columns);
    cpu_dequantise(t->type, (const uint8_t *)t->data + row * bytes, columns, w);
    double sum = 0;
    *out_magnitude = 0;
    for (size_t i = 0; i < columns; i++) {
        sum += (double)w[i] * x[i];
        *out_magnitude += fabs((double)w[i] * x[i]);
    }
    free(w);
    return sum;
}

static void test_exact(void **state)
{
    rng r = {1};
    for (int isa = 0; isa < N_ISAS; isa++) {
        device d;
        if (!open_device(&d, all_isas[isa], 1)) continue;
        for (int k = 0; k < N_TYPES; k++) {
            enum { ROWS = 33, COLUMNS = 256 };
            weft_tensor t = random_tensor(all_types[k], ROWS, COLUMNS, true, &r);
            weft_weight *w = repack(&d, &t);
            float x[COLUMNS], y[ROWS];
            for (int i = 0; i < COLUMNS; i++)
                x[i] = i % 32 == 7 ? 127.0f : (float)((int)(next32(&r) % 7) - 3);
            multiply(&d, w, NULL, x, 1, y);
            for (size_t row = 0; row < ROWS; row++) {
                double magnitude, want = dot(&t, row, x, &magnitude);
                if (y[row] != want)
                    fail_msg("%s %s row %zu: %.9g, not %.9g", all_isas[isa],
                             weft_tensor_type_name(t.type), row, (double)y[row], want);
            }
            d.ops->weight_free(w);
            free_tensor(&t);
        }
        weft_cpu_backend_free(d.b);
    }
}

/* x as the kernels see it: quantised and back. */
static void through_int8(float *x, size_t n)
{
    for (size_t b = 0; b < n; b += 32) {
        float amax = 0;
        for (size_t i = b; i < b + 32; i++) amax = fabsf(x[i]) > amax ? fabsf(x[i]) : amax;
        for (size_t i = b; i < b + 32; i++)
            x[i] = nearbyintf(x[i] * (127.0f / amax)) * (amax / 127.0f);
    }
}

static void test_bounded(void **state)
{
    static const size_t columns[] = {256, 4864};
    rng r = {2};
    device d;
    assert_true(open_device(&d, "scalar", 1));
    for (int k = 0; k < N_TYPES; k++)
        for (int c = 0; c < 2; c++) {
            enum { ROWS = 17 };
            weft_tensor t = random_tensor(all_types[k], ROWS, columns[c], false, &r);
            weft_weight *w = repack(&d, &t);
            float *x = random_floats(columns[c], &r), y[ROWS], bias[ROWS];
            for (int i = 0; i < ROWS; i++) bias[i] = next_float(&r);
            multiply(&d, w, bias, x, 1, y);
            if (!is_float_type(all_types[k])) through_int8(x, columns[c]);
            for (size_t row = 0; row < ROWS; row++) {
                double magnitude, want = dot(&t, row, x, &magnitude) + bias[row];
                double bound = (magnitude + 1) * 0x1p-21;
                if (!(fabs(y[row] - want) <= bound))
                    fail_msg("%s row %zu: %.9g, not %.9g within %.2g",
                             weft_tensor_type_name(t.type), row, (double)y[row], want, bound);
            }
            free(x);
            d.ops->weight_free(w);
            free_tensor(&t);
        }
    weft_cpu_backend_free(d.b);
}

enum { MOST_TOKENS = 70 };
static const size_t token_counts[] = {1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 33, MOST_TOKENS};

/* All counts of tokens, threads 1..3 and instruction sets, against one token at a time in scalar. */
static void check_equal(weft_tensor_type type, size_t rows, size_t columns, rng *r)
{
    weft_tensor t = random_tensor(type, rows, columns, false, r);
    float *x = random_floats(MOST_TOKENS * columns, r), *bias = random_floats(rows, r);
    float *want = new_floats(MOST_TOKENS * rows), *y = new_floats(MOST_TOKENS * rows);
    for (int isa = 0; isa < N_ISAS; isa++)
        for (int threads = 1; threads <= 3; threads++) {
            device d;
            if (!open_device(&d, all_isas[isa], threads)) continue;
            weft_weight *w = repack(&d, &t);
            for (size_t k = 0; k < sizeof token_counts / sizeof *token_counts; k++) {
                size_t n = token_counts[k];
                if (isa == 0 && threads == 1 && k == 0)
                    for (size_t i = 0; i < MOST_TOKENS; i++)
                        multiply(&d, w, bias, x + i * columns, 1, want + i * rows);
                memset(y, 0xff, n * rows * sizeof *y);
                multiply(&d, w, bias, x, n, y);
                if (memcmp(y, want, n * rows * sizeof *y) != 0)
                    fail_msg("%s %zu x %zu, %s, %d threads, %zu tokens: other bits than scalar",
                             weft_tensor_type_name(type), rows, columns, all_isas[isa], threads, n);
            }
            d.ops->weight_free(w);
            weft_cpu_backend_free(d.b);
        }
    free(y);
    free(want);
    free(bias);
    free(x);
    free_tensor(&t);
}

static void test_equal(void **state)
{
    static const size_t rows[] = {1, 15, 16, 17, 33, 160}, columns[] = {32, 64, 96, 256, 896};
    rng r = {3};
    for (int k = 0; k < N_TYPES; k++) {
        size_t weights, bytes;
        assert_true(weft_tensor_block(all_types[k], &weights, &bytes));
        for (size_t i = 0; i < 6; i++)
            for (size_t c = 0; c < 5; c++)
                if (columns[c] % weights == 0 && (c == 3 || i == 4))
                    check_equal(all_types[k], rows[i], columns[c], &r);
        if (4864 % weights == 0) check_equal(all_types[k], 31, 4864, &r);
        if (weights == 1) check_equal(all_types[k], 70, 37, &r); /* any number of columns */
    }
}

/* Extreme blocks: every 8-bit weight and activation at its limit, where 16-bit sums would overflow. */
static void test_limits(void **state)
{
    enum { ROWS = 16, COLUMNS = 256 };
    for (int k = 0; k < N_TYPES; k++) {
        size_t weights, bytes;
        if (is_float_type(all_types[k])) continue;
        assert_true(weft_tensor_block(all_types[k], &weights, &bytes));
        for (int fill = 0; fill < 3; fill++) {
            static const uint8_t pattern[3] = {0x80, 0xff, 0x7f};
            uint8_t *data = malloc(ROWS * COLUMNS / weights * bytes);
            assert_non_null(data);
            memset(data, pattern[fill], ROWS * COLUMNS / weights * bytes);
            for (size_t i = 0; i < ROWS * COLUMNS / weights; i++)
                put_scale(all_types[k], data + i * bytes, 1, 1);
            weft_tensor t = {.name = "test",
                             .type = all_types[k],
                             .n_dims = 2,
                             .dim = {COLUMNS, ROWS, 1, 1},
                             .data = data,
                             .bytes = ROWS * COLUMNS / weights * bytes};
            for (int sign = -1; sign <= 1; sign += 2) {
                float x[COLUMNS], want[ROWS], y[ROWS];
                for (int i = 0; i < COLUMNS; i++) x[i] = (float)(127 * sign);
                for (int isa = 0; isa < N_ISAS; isa++) {
                    device d;
                    if (!open_device(&d, all_isas[isa], 1)) continue;
                    weft_weight *w = repack(&d, &t);
                    multiply(&d, w, NULL, x, 1, y);
                    double magnitude, exact = dot(&t, 3, x, &magnitude);
                    assert_true(fabs(y[3] - exact) <= magnitude * 0x1p-21);
                    if (isa == 0) memcpy(want, y, sizeof y);
                    assert_memory_equal(y, want, sizeof y);
                    d.ops->weight_free(w);
                    weft_cpu_backend_free(d.b);
                }
            }
            free(data);
        }
    }
}

/* Each of the 256 scales that one byte can hold, from subnormal to too large: a row a scale. */
static void test_byte_scales(void **state)
{
    static const struct {
        weft_tensor_type type;
        size_t columns, bytes, scales; /* one block */
    } types[] = {{WEFT_MXFP4, 32, 17, 1}, {WEFT_NVFP4, 64, 36, 4}};
    enum { ROWS = 256 };
    rng r = {7};
    for (size_t k = 0; k < sizeof types / sizeof *types; k++) {
        weft_tensor t = random_tensor(types[k].type, ROWS, types[k].columns, true, &r);
        float x[64], y[ROWS];
        for (size_t row = 0; row < ROWS; row++)
            memset((uint8_t *)(uintptr_t)t.data + row * types[k].bytes, (int)row, types[k].scales);
        for (int i = 0; i < 64; i++)
            x[i] = i % 32 == 7 ? 127.0f : (float)((int)(next32(&r) % 7) - 3);
        for (int isa = 0; isa < N_ISAS; isa++) {
            device d;
            if (!open_device(&d, all_isas[isa], 1)) continue;
            weft_weight *w = repack(&d, &t);
            multiply(&d, w, NULL, x, 1, y);
            for (size_t row = 0; row < ROWS; row++) {
                double magnitude, want = dot(&t, row, x, &magnitude);
                if (!isfinite(magnitude)) continue; /* a weight of its own is too large */
                if (y[row] != (float)want)
                    fail_msg("%s %s scale %zu: %.9g, not %.9g", all_isas[isa],
                             weft_tensor_type_name(t.type), row, (double)y[row], want);
            }
            d.ops->weight_free(w);
            weft_cpu_backend_free(d.b);
        }
        free_tensor(&t);
    }
}

/* Several matrices in one call, of different formats, equal one call each. */
static void test_together(void **state)
{
    enum { COLUMNS = 256, N = 5 };
    static const weft_tensor_type types[] = {WEFT_Q4_K, WEFT_Q6_K, WEFT_F16};
    static const size_t rows[] = {48, 17, 16};
    rng r = {4};
    for (int isa = 0; isa < N_ISAS; isa++) {
        device d;
        weft_tensor t[3];
        const weft_weight *w[3];
        const float *bias[3] = {NULL, NULL, NULL};
        float *y[3], *alone = new_floats(N * 48), *x = random_floats(N * COLUMNS, &r);
        if (!open_device(&d, all_isas[isa], 2)) {
            free(alone);
            free(x);
            continue;
        }
        for (int i = 0; i < 3; i++) {
            t[i] = random_tensor(types[i], rows[i], COLUMNS, false, &r);
            w[i] = repack(&d, &t[i]);
            y[i] = new_floats(N * rows[i]);
        }
        d.ops->matmul(d.b, w, bias, y, 3, x, N);
        for (int i = 0; i < 3; i++) {
            multiply(&d, w[i], NULL, x, N, alone);
            assert_memory_equal(alone, y[i], N * rows[i] * sizeof(float));
            assert_int_equal(d.ops->weight_bytes(w[i]),
                             (rows[i] + 15) / 16 * 16 * cpu_row_bytes(types[i], COLUMNS));
            d.ops->weight_free((weft_weight *)(uintptr_t)w[i]);
            free_tensor(&t[i]);
            free(y[i]);
        }
        weft_cpu_backend_free(d.b);
        free(alone);
        free(x);
    }
}

/* A weight that stays in its file gives the bits of the repacked one, alone and as gate and up, and takes no
 * memory. */
static void check_mapped(weft_tensor_type type, const char *isa, rng *r)
{
    enum { ROWS = 99, COLUMNS = 512 };
    device d;
    if (!open_device(&d, isa, 2)) return;
    weft_tensor t[2] = {random_tensor(type, ROWS, COLUMNS, false, r),
                        random_tensor(type, ROWS, COLUMNS, false, r)};
    float *x = random_floats(MOST_TOKENS * COLUMNS, r), *bias = random_floats(ROWS, r);
    float *want = new_floats(MOST_TOKENS * ROWS), *y = new_floats(MOST_TOKENS * ROWS);
    weft_weight *packed[2], *mapped[2];
    for (int i = 0; i < 2; i++) {
        weft_error err;
        packed[i] = repack(&d, &t[i]);
        assert_int_equal(d.ops->weight_map(d.b, &t[i], &mapped[i], &err), WEFT_OK);
        assert_int_equal(d.ops->weight_bytes(mapped[i]), 0);
    }
    for (size_t k = 0; k < sizeof token_counts / sizeof *token_counts; k++) {
        size_t n = token_counts[k], bytes = n * ROWS * sizeof *y;
        multiply(&d, packed[0], bias, x, n, want);
        multiply(&d, mapped[0], bias, x, n, y);
        assert_memory_equal(y, want, bytes);
        d.ops->gated(d.b, packed[0], packed[1], WEFT_SILU, x, n, want);
        d.ops->gated(d.b, mapped[0], mapped[1], WEFT_SILU, x, n, y);
        assert_memory_equal(y, want, bytes);
        d.ops->gated(d.b, packed[0], mapped[1], WEFT_SILU, x, n, y); /* where the budget ended */
        assert_memory_equal(y, want, bytes);
    }
    for (int i = 0; i < 2; i++) {
        d.ops->weight_free(packed[i]);
        d.ops->weight_free(mapped[i]);
        free_tensor(&t[i]);
    }
    weft_cpu_backend_free(d.b);
    free(x);
    free(bias);
    free(want);
    free(y);
}

static void test_mapped(void **state)
{
    rng r = {7};
    for (int isa = 0; isa < N_ISAS; isa++)
        for (int k = 0; k < N_TYPES; k++) check_mapped(all_types[k], all_isas[isa], &r);
}

/* ---- more tokens than any call takes at once ---- */

enum { MATRICES = 5 };
static const weft_tensor_type many_types[MATRICES] = {WEFT_Q4_K, WEFT_Q2_K, WEFT_F16, WEFT_Q8_0,
                                                      WEFT_Q6_K};
static const size_t many_rows[MATRICES] = {33, 48, 16, 33, 17};

typedef struct many {
    weft_tensor t[MATRICES];
    size_t columns, tokens;
    float *x, *bias[MATRICES];
    float *want[MATRICES], *want_gated[MATRICES]; /* of scalar, a token at a time; gate 0, up i */
} many;

/* Matrices in memory, or, those in the set `mapped`, in their file. */
static void many_open(const many *m, const device *d, unsigned mapped, weft_weight *w[MATRICES])
{
    weft_error err;
    for (int i = 0; i < MATRICES; i++)
        assert_int_equal((mapped >> i & 1 ? d->ops->weight_map
                                          : d->ops->weight_new)(d->b, &m->t[i], &w[i], &err),
                         WEFT_OK);
    assert_int_equal(d->ops->reserve(d->b, m->tokens, m->columns, &err), WEFT_OK);
}

static void many_close(const device *d, weft_weight *w[MATRICES])
{
    for (int i = 0; i < MATRICES; i++) d->ops->weight_free(w[i]);
    weft_cpu_backend_free(d->b);
}

/* All matrices in one call; then the first as the gate of those that have its rows. */
static void many_multiply(const many *m, const device *d, weft_weight *w[MATRICES], size_t first,
                          size_t n, float *y[MATRICES], float *gated[MATRICES])
{
    const float *x = m->x + first * m->columns;
    const weft_weight *all[MATRICES];
    const float *bias[MATRICES];
    for (int i = 0; i < MATRICES; i++) all[i] = w[i], bias[i] = m->bias[i];
    d->ops->matmul(d->b, all, bias, y, MATRICES, x, n);
    for (int i = 1; i < MATRICES; i++)
        if (many_rows[i] == many_rows[0])
            d->ops->gated(d->b, w[0], w[i], WEFT_SILU, x, n, gated[i]);
}

static void many_reference(many *m)
{
    device d;
    weft_weight *w[MATRICES];
    assert_true(open_device(&d, "scalar", 1));
    many_open(m, &d, 0, w);
    for (size_t token = 0; token < m->tokens; token++) {
        float *y[MATRICES], *gated[MATRICES];
        for (int i = 0; i < MATRICES; i++) {
            y[i] = m->want[i] + token * many_rows[i];
            gated[i] = m->want_gated[i] + token * many_rows[i];
        }
        many_multiply(m, &d, w, token, 1, y, gated);
    }
    many_close(&d, w);
}

static void many_compare(const many *m, const char *isa, unsigned mapped, const size_t *counts,
                         size_t n_counts)
{
    device d;
    weft_weight *w[MATRICES];
    float *y[MATRICES], *gated[MATRICES];
    if (!open_device(&d, isa, 2)) return;
    many_open(m, &d, mapped, w);
    for (int i = 0; i < MATRICES; i++) {
        y[i] = new_floats(m->tokens * many_rows[i]);
        gated[i] = new_floats(m->tokens * many_rows[i]);
    }
    for (size_t k = 0; k < n_counts; k++) {
        for (int i = 0; i < MATRICES; i++) {
            memset(y[i], 0xff, counts[k] * many_rows[i] * sizeof *y[i]);
            memset(gated[i], 0xff, counts[k] * many_rows[i] * sizeof *gated[i]);
        }
        many_multiply(m, &d, w, 0, counts[k], y, gated);
        for (int i = 0; i < MATRICES; i++) {
            const size_t bytes = counts[k] * many_rows[i] * sizeof *y[i];
            if (memcmp(y[i], m->want[i], bytes) != 0 ||
                (i && many_rows[i] == many_rows[0] && memcmp(gated[i], m->want_gated[i], bytes) != 0))
                fail_msg("%s, %s, %zu columns, %zu tokens, in the file %x: other bits than scalar",
                         isa, weft_tensor_type_name(m->t[i].type), m->columns, counts[k], mapped);
        }
    }
    for (int i = 0; i < MATRICES; i++) free(y[i]), free(gated[i]);
    many_close(&d, w);
}

/* Formats with wide products beside such without, in one call, in memory and in the file: from where wide
 * products begin to several portions of panels, cut by their number (8 panels) and by their size. */
static void check_many(size_t columns, const size_t *counts, size_t n_counts)
{
    static const unsigned mapped[] = {0, 0x1f, 0x0a, 0x15};
    many m = {.columns = columns, .tokens = counts[n_counts - 1]};
    rng r = {columns};
    m.x = random_floats(m.tokens * columns, &r);
    for (int i = 0; i < MATRICES; i++) {
        m.t[i] = random_tensor(many_types[i], many_rows[i], columns, false, &r);
        m.bias[i] = random_floats(many_rows[i], &r);
        m.want[i] = new_floats(m.tokens * many_rows[i]);
        m.want_gated[i] = new_floats(m.tokens * many_rows[i]);
    }
    many_reference(&m);
    for (int isa = 0; isa < N_ISAS; isa++)
        for (size_t k = 0; k < sizeof mapped / sizeof *mapped; k++)
            many_compare(&m, all_isas[isa], mapped[k], counts, n_counts);
    for (int i = 0; i < MATRICES; i++) {
        free_tensor(&m.t[i]);
        free(m.bias[i]);
        free(m.want[i]);
        free(m.want_gated[i]);
    }
    free(m.x);
}

static void test_many_tokens(void **state)
{
    static const size_t counts[] = {11, 12, 13, 15, 128, 129, 270}, few[] = {12, 96, 100};
    check_many(512, counts, sizeof counts / sizeof *counts);
    check_many(8192, few, sizeof few / sizeof *few);
}

static double reference_gate(weft_activation act, double g)
{
    if (act == WEFT_SILU) return g / (1 + exp(-g));
    return 0.5 * g * (1 + tanh(0.79788456080286535588 * (g + 0.044715 * g * g * g)));
}

/* gated = act(gate x) * (up x), on all instruction sets and token counts. */
static void test_gated(void **state)
{
    enum { ROWS = 35, COLUMNS = 64 };
    rng r = {5};
    weft_tensor gate = random_tensor(WEFT_Q8_0, ROWS, COLUMNS, false, &r);
    weft_tensor up = random_tensor(WEFT_Q4_0, ROWS, COLUMNS, false, &r);
    float *x = random_floats(MOST_TOKENS * COLUMNS, &r);
    float want[2][MOST_TOKENS * ROWS], g[MOST_TOKENS * ROWS], u[MOST_TOKENS * ROWS];
    float y[MOST_TOKENS * ROWS];
    for (int isa = 0; isa < N_ISAS; isa++) {
        device d;
        if (!open_device(&d, all_isas[isa], 2)) continue;
        weft_weight *w_gate = repack(&d, &gate), *w_up = repack(&d, &up);
        multiply(&d, w_gate, NULL, x, MOST_TOKENS, g);
        multiply(&d, w_up, NULL, x, MOST_TOKENS, u);
        for (int act = WEFT_SILU; act <= WEFT_GELU_TANH; act++)
            for (size_t k = 0; k < sizeof token_counts / sizeof *token_counts; k++) {
                size_t n = token_counts[k];
                d.ops->gated(d.b, w_gate, w_up, (weft_activation)act, x, n, y);
                if (isa == 0 && n == 1)
                    for (size_t i = 0; i < MOST_TOKENS; i++)
                        d.ops->gated(d.b, w_gate, w_up, (weft_activation)act, x + i * COLUMNS, 1,
                                     want[act] + i * ROWS);
                assert_memory_equal(y, want[act], n * ROWS * sizeof *y);
                for (size_t i = 0; i < n * ROWS; i++) {
                    double exact = reference_gate((weft_activation)act, g[i]) * u[i];
                    assert_true(fabs(y[i] - exact) <= 4e-7 * fabs(exact) + 1e-7);
                }
            }
        d.ops->weight_free(w_gate);
        d.ops->weight_free(w_up);
        weft_cpu_backend_free(d.b);
    }
    free(x);
    free_tensor(&gate);
    free_tensor(&up);
}

/* Values that are not finite reach the result; tiny and zero blocks count as nothing. */
static void test_not_finite(void **state)
{
    enum { COLUMNS = 64 };
    rng r = {6};
    weft_tensor t = random_tensor(WEFT_Q8_0, 16, COLUMNS, false, &r);
    for (int isa = 0; isa < N_ISAS; isa++) {
        device d;
        float x[COLUMNS] = {0}, y[16];
        if (!open_device(&d, all_isas[isa], 1)) continue;
        weft_weight *w = repack(&d, &t);
        x[40] = 1e-33f;
        multiply(&d, w, NULL, x, 1, y);
        for (int i = 0; i < 16; i++) assert_true(y[i] == 0);
        x[40] = INFINITY;
        multiply(&d, w, NULL, x, 1, y);
        for (int i = 0; i < 16; i++) assert_true(isnan(y[i]));
        x[40] = NAN;
        multiply(&d, w, NULL, x, 1, y);
        for (int i = 0; i < 16; i++) assert_true(isnan(y[i]));
        d.ops->weight_free(w);
        weft_cpu_backend_free(d.b);
    }
    free_tensor(&t);
}

static void test_refusals(void **state)
{
    device d;
    weft_weight *w = NULL;
    weft_error err;
    uint8_t data[64] = {0};
    assert_true(open_device(&d, NULL, 1));
    weft_tensor t = {.name = "odd",
                     .type = WEFT_Q8_0,
                     .n_dims = 2,
                     .dim = {33, 1, 1, 1},
                     .data = data,
                     .bytes = 34};
    assert_int_equal(d.ops->weight_new(d.b, &t, &w, &err), WEFT_E_MODEL);
    assert_non_null(strstr(err.message, "multiples of 32"));
    t.dim[0] = 32;
    t.dim[1] = 2; /* more rows than bytes */
    assert_int_equal(d.ops->weight_new(d.b, &t, &w, &err), WEFT_E_MODEL);
    t.dim[1] = UINT64_MAX / 16;
    assert_int_equal(d.ops->weight_new(d.b, &t, &w, &err), WEFT_E_MODEL);
    t.dim[1] = 1;
    t.type = (weft_tensor_type)99;
    assert_int_equal(d.ops->weight_new(d.b, &t, &w, &err), WEFT_E_MODEL);
    assert_int_equal(d.ops->reserve(d.b, SIZE_MAX / 8, 1024, &err), WEFT_E_MEMORY);
    assert_null(w);
    weft_cpu_backend_free(d.b);
    assert_int_equal(weft_cpu_backend_new(&d.b, &d.ops, "sse9", 1, &err), WEFT_E_USAGE);
    assert_int_equal(weft_cpu_backend_new(&d.b, &d.ops, NULL, -1, &err), WEFT_E_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exact),       cmocka_unit_test(test_bounded),
        cmocka_unit_test(test_equal),       cmocka_unit_test(test_limits),
        cmocka_unit_test(test_byte_scales), cmocka_unit_test(test_together),
        cmocka_unit_test(test_gated),       cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_refusals), cmocka_unit_test(test_mapped),
        cmocka_unit_test(test_many_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
