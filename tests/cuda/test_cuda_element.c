/* Norms, rotation, element by element, keys and values into pages. */
#include "cuda_test.h"

#include "engine/trig.h"

/* ---- norms ---- */

static void test_rms_norm(void **state)
{
    static const uint32_t dims[] = {1, 31, 64, 896, 1025};
    enum { ROWS = 3 };
    rng r = {31};
    for (size_t k = 0; k < sizeof dims / sizeof *dims; k++) {
        const uint32_t dim = dims[k];
        float *x = random_floats(ROWS * dim, &r), *w = random_floats(dim, &r), *y = new_floats(ROWS * dim);
        float *want = new_floats(dim), *first = new_floats(ROWS * dim);
        FOR_EACH_ORDER(order)
        {
            weft_cuda_rms_norm_args a = {x, w, y, 1e-6f, ROWS, dim};
            clear(y, ROWS * dim);
            if (order == 2) { /* in place */
                memcpy(y, x, ROWS * dim * sizeof *x);
                a.x = y;
            }
            LAUNCH("rms_norm", a, weft_cuda_rms_norm_launch(&a));
            if (order == FIRST_ORDER) memcpy(first, y, ROWS * dim * sizeof *y);
            assert_bits("rms_norm, in another order", ROWS * dim, y, first);
            for (size_t row = 0; row < ROWS; row++) {
                cpu_kernels_scalar.rms_norm(x + row * dim, w, 1e-6f, dim, want);
                for (size_t i = 0; i < dim; i++) /* the bound of kernels.h */
                    assert_true(fabs((double)y[row * dim + i] - (double)want[i]) <=
                                ((double)dim / 16 + 10) * 0x1p-24 * fabs((double)want[i]));
            }
        }
        free(first);
        free(want);
        free(y);
        free(w);
        free(x);
    }
}

static void test_layer_norm(void **state)
{
    static const uint32_t dims[] = {2, 33, 128, 1000};
    enum { ROWS = 4 };
    rng r = {32};
    device d;
    assert_true(open_device(&d, "scalar", 1));
    for (size_t k = 0; k < sizeof dims / sizeof *dims; k++) {
        const uint32_t dim = dims[k], n = ROWS * dim;
        float *x = random_floats(n, &r), *w = random_floats(dim, &r), *bias = random_floats(dim, &r);
        float *y = new_floats(n), *first = new_floats(n), *want = new_floats(n);
        for (size_t i = 0; i < dim; i++) x[i] += 100; /* a mean far from 0 */
        d.ops->layer_norm(d.b, x, w, bias, 1e-6f, ROWS, dim, want);
        FOR_EACH_ORDER(order)
        {
            weft_cuda_layer_norm_args a = {x, w, bias, y, 1e-6f, ROWS, dim};
            clear(y, n);
            LAUNCH("layer_norm", a, weft_cuda_layer_norm_launch(&a));
            if (order == FIRST_ORDER) memcpy(first, y, n * sizeof *y);
            assert_bits("layer_norm, in another order", n, y, first);
        }
        for (size_t row = 0; row < ROWS; row++) { /* the bound of kernels.h */
            double mean = 0, squares = 0, most = 0;
            const float *in = x + row * dim;
            for (size_t i = 0; i < dim; i++) mean += (double)in[i] / dim;
            for (size_t i = 0; i < dim; i++) {
                squares += ((double)in[i] - mean) * ((double)in[i] - mean);
                most = fmax(most, fabs((double)in[i]));
            }
            const double s = 1 / sqrt(squares / dim + 1e-6);
            for (size_t i = 0; i < dim; i++) {
                const double bound =
                    ((double)dim / 8 + 16) * 0x1p-24 * (most * s * fabs((double)w[i]) + fabs((double)bias[i]));
                assert_true(fabs((double)y[row * dim + i] - (double)want[row * dim + i]) <= bound);
            }
        }
        free(want);
        free(first);
        free(y);
        free(bias);
        free(w);
        free(x);
    }
    weft_cpu_backend_free(d.b);
}

static void test_hadamard(void **state)
{
    enum { ROWS = 3 };
    rng r = {33};
    device d;
    assert_true(open_device(&d, "scalar", 1));
    for (uint32_t dim = 2; dim <= 1024; dim *= 2) {
        float *x = random_floats(ROWS * dim, &r), *y = new_floats(ROWS * dim), *want = new_floats(ROWS * dim);
        memcpy(want, x, ROWS * dim * sizeof *x);
        d.ops->hadamard(d.b, want, ROWS, dim);
        FOR_EACH_ORDER(order)
        {
            weft_cuda_hadamard_args a = {y, ROWS, dim};
            memcpy(y, x, ROWS * dim * sizeof *x);
            LAUNCH("hadamard", a, weft_cuda_hadamard_launch(&a));
            assert_bits("hadamard", ROWS * dim, y, want);
        }
        free(want);
        free(y);
        free(x);
    }
    weft_cpu_backend_free(d.b);
}

/* ---- rotation ---- */

static void test_rope(void **state)
{
    enum { N = 5, HEADS = 3, STRIDE = 70, DIM = 66 };
    static const int64_t positions[N] = {0, 1, 63, 131071, 4000000};
    rng r = {34};
    weft_row row[N];
    double inv_freq[DIM / 2];
    float table[N * DIM], *x = random_floats(N * HEADS * STRIDE, &r);
    float *y = new_floats(N * HEADS * STRIDE), *want = new_floats(N * HEADS * STRIDE);
    for (int i = 0; i < N; i++) row[i] = (weft_row){NULL, positions[i]};
    for (int i = 0; i < DIM / 2; i++) inv_freq[i] = weft_pow(10000, -2.0 * i / DIM);
    for (int kind = 0; kind < 2; kind++)
        FOR_EACH_ORDER(order)
        {
            weft_cuda_rope_table_args t = {row, inv_freq, table, 0.75f, N, DIM};
            clear(table, N * DIM);
            LAUNCH("rope_table", t, weft_cuda_rope_table_launch(&t));
            weft_cuda_rope_args a = {y, table, N, HEADS, STRIDE, DIM, kind ? WEFT_ROPE_INTERLEAVED : WEFT_ROPE_NEOX};
            memcpy(y, x, N * HEADS * STRIDE * sizeof *x);
            memcpy(want, x, N * HEADS * STRIDE * sizeof *x);
            LAUNCH("rope", a, weft_cuda_rope_launch(&a));
            for (int i = 0; i < N; i++) {
                float cos_sin[DIM];
                for (int k = 0; k < DIM / 2; k++) {
                    double s, c;
                    weft_sincos((double)positions[i] * inv_freq[k], &s, &c);
                    cos_sin[2 * k] = (float)c * 0.75f;
                    cos_sin[2 * k + 1] = (float)s * 0.75f;
                }
                assert_bits("rope_table", DIM, table + i * DIM, cos_sin);
                for (int h = 0; h < HEADS; h++)
                    cpu_kernels_scalar.rotate(want + (i * HEADS + h) * STRIDE, DIM, a.kind, cos_sin);
            }
            assert_bits("rope", N * HEADS * STRIDE, y, want);
        }
    free(want);
    free(y);
    free(x);
}

/* ---- element by element ---- */

static void test_elements(void **state)
{
    enum { N = 1000 + 31 };
    rng r = {35};
    float *x = random_floats(N, &r), *u = random_floats(N, &r), *y = new_floats(N), *want = new_floats(N);
    for (int i = 0; i < N; i++) x[i] *= i % 5 == 0 ? 100 : 6;
    x[3] = NAN;
    x[4] = INFINITY;
    x[5] = -INFINITY;
    x[6] = -0.0f;
    FOR_EACH_ORDER(order)
    {
        for (int kind = 0; kind < 2; kind++) {
            weft_cuda_gate_args a = {x, u, y, N, kind ? WEFT_GELU_TANH : WEFT_SILU};
            clear(y, N);
            LAUNCH("gate", a, weft_cuda_gate_launch(&a));
            cpu_kernels_scalar.gate(a.activation, x, u, N, want);
            assert_bits("gate", N, y, want);
        }
        weft_cuda_add_args b = {y, u, N};
        memcpy(y, x, N * sizeof *x);
        memcpy(want, x, N * sizeof *x);
        LAUNCH("add", b, weft_cuda_add_launch(&b));
        cpu_kernels_scalar.add(want, u, N);
        assert_bits("add", N, y, want);
        static const uint32_t from[] = {0, 2, 3};
        weft_cuda_keep_args c = {x, y, from, 3, 257};
        clear(y, N);
        LAUNCH("keep", c, weft_cuda_keep_launch(&c));
        for (int i = 0; i < 3; i++) assert_bits("keep", 257, y + i * 257, x + from[i] * 257);
    }
    free(want);
    free(y);
    free(u);
    free(x);
}

/* ---- pages ---- */

enum { PAGES = 3, TOKENS = 7 };

/* Whole pages are compared: what is not written stays. latent: a page of latent attention, whose row comes in two parts;
 * 0: one of heads. */
static void check_write(weft_kv_type type, uint32_t heads, uint32_t key_dim, uint32_t value_dim, uint32_t latent)
{
    static const int64_t positions[TOKENS] = {0, 1, 63, 64, 65, 130, 191};
    const weft_kv_layout l = {.type = type, .n_layer = 3, .n_head_kv = heads, .key_dim = key_dim,
                              .value_dim = value_dim, .latent_dim = latent};
    const uint32_t v_dim = latent ? latent : value_dim;
    const size_t bytes = weft_kv_page_bytes(&l);
    rng r = {key_dim + 36};
    device d;
    uint8_t *got[PAGES], *want[PAGES];
    weft_row row[TOKENS], cpu_row[TOKENS];
    float *k = random_floats(TOKENS * heads * key_dim, &r), *v = random_floats(TOKENS * heads * v_dim, &r);
    float *rope = random_floats(TOKENS * heads * (value_dim - v_dim), &r);
    assert_true(open_device(&d, "scalar", 1));
    if (key_dim > 2) k[2] = NAN;
    v[0] = 1e38f;
    v[v_dim] = 1e-30f;
    for (int i = 0; i < PAGES; i++) {
        got[i] = new_bytes(bytes);
        want[i] = new_bytes(bytes);
        memset(want[i], 0x11, bytes);
    }
    for (int i = 0; i < TOKENS; i++) {
        row[i] = (weft_row){(void *const *)got, positions[i]};
        cpu_row[i] = (weft_row){(void *const *)want, positions[i]};
    }
    if (latent)
        d.ops->latent_write(d.b, &l, 1, cpu_row, TOKENS, v, rope, k);
    else
        d.ops->kv_write(d.b, &l, 1, cpu_row, TOKENS, k, v);
    FOR_EACH_ORDER(order)
    {
        for (int i = 0; i < PAGES; i++) memset(got[i], 0x11, bytes);
        weft_cuda_kv_write_args a = {weft_cuda_kv_of(&l, 1), row, key_dim ? k : NULL, v, latent ? rope : NULL, TOKENS, v_dim};
        LAUNCH("kv_write", a, weft_cuda_kv_write_launch(&a));
        for (int i = 0; i < PAGES; i++) assert_memory_equal(got[i], want[i], bytes);
    }
    for (int i = 0; i < PAGES; i++) {
        free(got[i]);
        free(want[i]);
    }
    weft_cpu_backend_free(d.b);
    free(rope);
    free(v);
    free(k);
}

static void test_kv_write(void **state)
{
    for (int type = 0; type < WEFT_KV_TYPES; type++) {
        check_write((weft_kv_type)type, 3, 64, 64, 0);
        check_write((weft_kv_type)type, 2, 33, 80, 0);
        check_write((weft_kv_type)type, 1, 1, 31, 0);
        check_write((weft_kv_type)type, 1, 128, 144, 128);
        check_write((weft_kv_type)type, 1, 33, 96 + 7, 96);
        check_write((weft_kv_type)type, 1, 0, 64 + 1, 64); /* no indexer */
    }
}

/* Each kernel of the list exists; a name or arguments that are not its own are refused. */
static void test_list(void **state)
{
    static const char *const names[] = {
#define X(name) "weft_cuda_" #name,
        WEFT_CUDA_KERNELS(X)
#undef X
    };
    static const uint32_t one[3] = {1, 1, 1}, warp[3] = {32, 1, 1};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        assert_int_equal(weft_shim_has(names[i]), 1);
    assert_int_equal(weft_shim_has("weft_cuda_nothing"), 0);
    assert_int_equal(weft_shim_launch("nothing", one, warp, 0, NULL, 0), -1);
    assert_int_equal(weft_shim_launch("add", one, warp, 0, names, 1), -1);
    assert_int_equal(weft_shim_launch("add", one, one, 0, names, sizeof(weft_cuda_add_args)), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_list),
        cmocka_unit_test(test_rms_norm), cmocka_unit_test(test_layer_norm), cmocka_unit_test(test_hadamard),
        cmocka_unit_test(test_rope),     cmocka_unit_test(test_elements),   cmocka_unit_test(test_kv_write),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
