/* Elementwise kernels, the mathematics of our own, the dequantisers, the thread pool. */
#include "kernel_test.h"

#include "engine/cpu/pool.h"
#include "engine/trig.h"

#include <pthread.h>
#include <stdio.h>
#include <time.h>

/* The tables this CPU runs. */
static size_t tables(const cpu_kernels *out[N_ISAS])
{
    size_t n = 0;
    for (int i = 0; i < N_ISAS; i++) {
        bool known;
        const cpu_kernels *k = cpu_kernels_find(all_isas[i], &known, NULL);
        if (k) out[n++] = k;
    }
    return n;
}

/* Units in the last place of a float between got and the exact value. */
static double ulps(float got, double exact)
{
    int e;
    frexp(exact, &e);
    double unit = ldexp(1, (e < -125 ? -125 : e) - 24);
    return fabs((double)got - exact) / unit;
}

static void test_exp(void **state)
{
    double worst = 0;
    for (uint32_t i = 0; i <= 400000; i++) {
        float x = -104.0f + (float)i * (192.7f / 400000);
        double d = ulps(weft_expf(x), exp((double)x));
        worst = d > worst ? d : worst;
    }
    assert_true(worst < 1.0);
    assert_true(weft_expf(0) == 1 && weft_expf(-0.0f) == 1);
    assert_true(weft_expf(-INFINITY) == 0 && weft_expf(-104.5f) == 0 && weft_expf(-1e30f) == 0);
    assert_true(weft_expf(-103.9f) > 0);
    assert_true(isinf(weft_expf(88.73f)) && isinf(weft_expf(INFINITY)));
    assert_true(weft_expf(88.72f) < INFINITY);
    assert_true(isnan(weft_expf(NAN)));
}

static void test_softmax_sum(void **state)
{
    static const size_t sizes[] = {1, 2, 15, 16, 17, 31, 33, 1000, 4864};
    const cpu_kernels *k[N_ISAS];
    size_t n_tables = tables(k);
    rng r = {21};
    float *x = random_floats(4864, &r), *want = new_floats(4864), *y = new_floats(4864);
    for (size_t i = 0; i < 4864; i++) x[i] = i % 97 == 5 ? -INFINITY : x[i] * 20;
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        size_t n = sizes[s];
        float sum = k[0]->softmax_sum(x, n, 20, want);
        double exact = 0;
        for (size_t i = 0; i < n; i++) {
            assert_true(want[i] == weft_expf(x[i] - 20));
            exact += want[i];
        }
        assert_true(fabs(sum - exact) <= exact * 1e-6);
        for (size_t t = 0; t < n_tables; t++) {
            float got = k[t]->softmax_sum(x, n, 20, y);
            assert_memory_equal(&got, &sum, sizeof got);
            assert_memory_equal(y, want, n * sizeof *y);
        }
        memcpy(y, x, n * sizeof *y); /* in place */
        assert_true(weft_softmax_sum(y, n, 20, y) == sum);
        assert_memory_equal(y, want, n * sizeof *y);
    }
    free(x);
    free(y);
    free(want);
}

static void test_trig_and_pow(void **state)
{
    rng r = {22};
    for (int i = 0; i < 200000; i++) {
        double x = (double)next_float(&r) * (i % 3 == 0 ? 4 : i % 3 == 1 ? 1e4 : 1e6), s, c;
        weft_sincos(x, &s, &c);
        assert_true(fabs(s - sin(x)) < 3e-16 && fabs(c - cos(x)) < 3e-16);
        double base = exp(next_float(&r) * 20), e = next_float(&r) * 4, p = pow(base, e);
        assert_true(fabs(weft_pow(base, e) - p) <= p * 3e-14);
    }
    assert_true(weft_pow(10000, 0) == 1 && weft_pow(1, 5) == 1 && weft_pow(2, -1) == 0.5);
    for (int i = 0; i < 64; i++) { /* what rope asks for */
        double p = pow(1e6, -2.0 * i / 128);
        assert_true(fabs(weft_pow(1e6, -2.0 * i / 128) - p) <= p * 4e-15);
    }
}

static void test_half(void **state)
{
    const cpu_kernels *k[N_ISAS];
    size_t n_tables = tables(k);
    float x[4096];
    uint16_t want[4096], got[4096];
    rng r = {23};
    for (uint32_t h = 0; h < 0x10000; h++) { /* every half comes back */
        float f = half_to_float((uint16_t)h);
        if ((h & 0x7fff) > 0x7c00)
            assert_true(isnan(f));
        else
            assert_int_equal(half_from_float(f), h);
    }
    assert_true(half_to_float(0x3c00) == 1 && half_to_float(0x0001) == 0x1p-24f);
    assert_true(half_to_float(0x7bff) == 65504 && half_from_float(65520) == 0x7c00);
    assert_int_equal(half_from_float(65519.996f), 0x7bff);
    assert_int_equal(half_from_float(0x1p-25f), 0);   /* a tie, to even */
    assert_int_equal(half_from_float(0x1.8p-24f), 2); /* likewise */
    assert_int_equal(half_from_float(1 + 0x1p-11f), 0x3c00);
    for (int round = 0; round < 64; round++) { /* F16C agrees on all bit patterns */
        for (int i = 0; i < 4096; i++) {
            uint32_t u = next32(&r) << 1 ^ next32(&r);
            x[i] = float_from_bits(u % 3 ? 0x33000000 + u % 0x16000000 + (u & 0x80000000) : u);
        }
        for (int i = 0; i < 4096; i++) want[i] = half_from_float(x[i]);
        for (size_t t = 0; t < n_tables; t++) {
            k[t]->to_half(x, 4095, got);
            assert_memory_equal(got, want, 4095 * sizeof *got);
        }
    }
}

static void test_rms_norm(void **state)
{
    static const size_t dims[] = {1, 15, 16, 17, 64, 96, 896, 1536};
    const cpu_kernels *k[N_ISAS];
    size_t n_tables = tables(k);
    rng r = {24};
    float *x = random_floats(1536, &r), *w = random_floats(1536, &r);
    float want[1536], y[1536];
    for (size_t d = 0; d < sizeof dims / sizeof *dims; d++) {
        size_t dim = dims[d];
        double mean = 0;
        for (size_t i = 0; i < dim; i++) mean += (double)x[i] * x[i] / (double)dim;
        k[0]->rms_norm(x, w, 1e-6f, dim, want);
        for (size_t i = 0; i < dim; i++) {
            double exact = x[i] / sqrt(mean + 1e-6) * w[i];
            assert_true(fabs(want[i] - exact) <= fabs(exact) * 1e-6);
        }
        for (size_t t = 0; t < n_tables; t++) {
            memcpy(y, x, dim * sizeof *y);
            k[t]->rms_norm(y, w, 1e-6f, dim, y); /* in place */
            assert_memory_equal(y, want, dim * sizeof *y);
        }
    }
    free(x);
    free(w);
}

static void test_gate(void **state)
{
    const cpu_kernels *k[N_ISAS];
    size_t n_tables = tables(k);
    rng r = {25};
    float g[39], u[39], want[39], y[39];
    for (int i = 0; i < 39; i++) {
        g[i] = next_float(&r) * (i % 4 == 0 ? 120 : 5);
        u[i] = next_float(&r);
    }
    for (int act = WEFT_SILU; act <= WEFT_GELU_TANH; act++)
        for (size_t t = 0; t < n_tables; t++) {
            k[t]->gate((weft_activation)act, g, u, 39, y);
            if (t == 0) memcpy(want, y, sizeof y);
            assert_memory_equal(y, want, sizeof y);
            for (int i = 0; i < 39; i++) { /* each element alone */
                float one;
                k[t]->gate((weft_activation)act, g + i, u + i, 1, &one);
                assert_memory_equal(&one, &y[i], sizeof one);
            }
        }
}

/* Embedding lookup in each type, large norms and additions across threads. */
static void test_backend_small_ops(void **state)
{
    enum { COLUMNS = 256, ROWS = 5, N = 3 };
    static const int32_t ids[N] = {4, 0, 4};
    rng r = {26};
    for (int k = 0; k < N_TYPES; k++) {
        device d;
        float out[N * COLUMNS], row[COLUMNS];
        weft_tensor t = random_tensor(all_types[k], ROWS, COLUMNS, false, &r);
        assert_true(open_device(&d, NULL, 2));
        d.ops->embed(d.b, &t, ids, N, 3.0f, out);
        for (int i = 0; i < N; i++) {
            size_t bytes = cpu_row_bytes(t.type, COLUMNS);
            cpu_dequantise(t.type, (const uint8_t *)t.data + (size_t)ids[i] * bytes, COLUMNS, row);
            for (int c = 0; c < COLUMNS; c++) assert_true(out[i * COLUMNS + c] == row[c] * 3.0f);
        }
        weft_cpu_backend_free(d.b);
        free_tensor(&t);
    }
    enum { DIM = 1024, MANY = 70 };
    float *x = random_floats(MANY * DIM, &r), *w = random_floats(DIM, &r);
    float *y = new_floats(MANY * DIM), *z = new_floats(MANY * DIM);
    device one, three;
    assert_true(open_device(&one, "scalar", 1) && open_device(&three, NULL, 3));
    one.ops->rms_norm(one.b, x, w, 1e-5f, MANY, DIM, y);
    three.ops->rms_norm(three.b, x, w, 1e-5f, MANY, DIM, z);
    assert_memory_equal(y, z, MANY * DIM * sizeof *y);
    one.ops->add(one.b, y, x, MANY * DIM);
    three.ops->add(three.b, z, x, MANY * DIM);
    assert_memory_equal(y, z, MANY * DIM * sizeof *y);
    weft_cpu_backend_free(one.b);
    weft_cpu_backend_free(three.b);
    free(x);
    free(w);
    free(y);
    free(z);
}

/* Hand-made blocks, values worked out from the format document. */
static void test_dequantise(void **state)
{
    float y[256];
    uint8_t b[256] = {0};
    put_half(b, 0.5f); /* Q4_0: low nibbles are the first half */
    b[2] = 0xf1;
    cpu_dequantise(WEFT_Q4_0, b, 32, y);
    assert_true(y[0] == -3.5f && y[16] == 3.5f && y[1] == -4);
    put_half(b + 2, -1); /* Q4_1 */
    b[4] = 0x3a;
    cpu_dequantise(WEFT_Q4_1, b, 32, y);
    assert_true(y[0] == 4 && y[16] == 0.5f && y[5] == -1);
    memset(b, 0, sizeof b);
    put_half(b, 2); /* Q5_0: fifth bits of weights 3 and 31 */
    b[2] = 8;
    b[5] = 0x80;
    b[6 + 3] = 0x07;
    cpu_dequantise(WEFT_Q5_0, b, 32, y);
    assert_true(y[3] == 14 && y[31] == 0 && y[0] == -32 && y[19] == -32);
    memset(b, 0, sizeof b);
    put_half(b, 2); /* Q5_1 */
    put_half(b + 2, 1);
    b[4] = 1;
    cpu_dequantise(WEFT_Q5_1, b, 32, y);
    assert_true(y[0] == 33 && y[1] == 1);
    memset(b, 0, sizeof b);
    put_half(b, 0.25f); /* Q8_0 */
    b[2] = 0x80;
    b[33] = 4;
    cpu_dequantise(WEFT_Q8_0, b, 32, y);
    assert_true(y[0] == -32 && y[31] == 1 && y[1] == 0);
    memset(b, 0, sizeof b);
    put_half(b, 1); /* Q4_K: scale of sub-block 1 = 63, minimum of 5 = 16 + 2 */
    put_half(b + 2, 0.5f);
    b[4 + 1] = 63;
    b[4 + 5] = 0x40;       /* high bits of minimum 5 */
    b[4 + 9] = 0x20 | 3;   /* low bits: minimum 5 = 2, scale 5 = 3 */
    b[16] = 0xf0;          /* column 0 of sub-block 1 */
    b[16 + 2 * 32] = 0x20; /* column 0 of sub-block 5 */
    cpu_dequantise(WEFT_Q4_K, b, 256, y);
    assert_true(y[32] == 945 && y[0] == 0 && y[160] == 3 * 2 - 9 && y[161] == -9);
    memset(b, 0, sizeof b);
    put_half(b, 1); /* Q5_K: the fifth bit of sub-block 2 is bit 2 */
    b[4 + 2] = 1;
    b[16 + 7] = 4;
    b[48 + 32 + 7] = 9;
    cpu_dequantise(WEFT_Q5_K, b, 256, y);
    assert_true(y[64 + 7] == 25 && y[64 + 6] == 0);
    memset(b, 0, sizeof b);
    put_half(b + 208, 0.5f); /* Q6_K: column 97 = high nibble of ql[33], bits 6-7 of qh[1] */
    b[33] = 0xa0;
    b[128 + 1] = 0x80;
    b[192 + 6] = (uint8_t)-2;
    cpu_dequantise(WEFT_Q6_K, b, 256, y);
    assert_true(y[97] == 0.5f * -2 * (10 + 32 - 32) && y[96] == 32 && y[0] == 0);
    assert_int_equal(cpu_row_bytes(WEFT_Q6_K, 255), 0);
    assert_int_equal(cpu_row_bytes(WEFT_Q6_K, 512), 420);
}

/* ---- pool ---- */

enum { POOL_ITEMS = 1000 };

typedef struct tally {
    int count[POOL_ITEMS];
    int in_thread[8];
} tally;

static void count_item(void *context, uint32_t item, int thread)
{
    tally *t = context;
    t->count[item]++;
    t->in_thread[thread]++; /* a thread index is never two threads at once */
}

static void test_pool(void **state)
{
    weft_error err;
    for (int threads = 1; threads <= 4; threads++) {
        cpu_pool *pool;
        assert_int_equal(cpu_pool_new(&pool, threads, &err), WEFT_OK);
        assert_int_equal(cpu_pool_threads(pool), threads);
        for (int job = 0; job < 300; job++) {
            tally t = {{0}, {0}};
            uint32_t n = (uint32_t)job % 7 == 0 ? POOL_ITEMS : (uint32_t)job % 5;
            if (job == 100 || job == 200) { /* the workers fall asleep */
                struct timespec nap = {0, 3000000};
                nanosleep(&nap, NULL);
            }
            cpu_pool_run(pool, count_item, &t, n);
            int sum = 0;
            for (uint32_t i = 0; i < POOL_ITEMS; i++) assert_int_equal(t.count[i], i < n);
            for (int i = 0; i < 8; i++) sum += t.in_thread[i];
            assert_int_equal(sum, n);
        }
        cpu_pool_free(pool);
    }
    cpu_pool *pool = NULL;
    assert_int_equal(cpu_pool_new(&pool, 0, &err), WEFT_OK);
    assert_true(cpu_pool_threads(pool) >= 1);
    cpu_pool_free(pool);
    cpu_pool_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exp),          cmocka_unit_test(test_softmax_sum),
        cmocka_unit_test(test_trig_and_pow), cmocka_unit_test(test_half),
        cmocka_unit_test(test_rms_norm),     cmocka_unit_test(test_gate),
        cmocka_unit_test(test_dequantise),   cmocka_unit_test(test_backend_small_ops),
        cmocka_unit_test(test_pool),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
