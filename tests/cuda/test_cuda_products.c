/* Products on the device: activations to int8, packed weights, sums.
 *
 * The twin of a row's sum is the CPU backend itself: over the 256 columns of one brick both sum one chain, so the
 * CPU's products of each brick's columns, added in order, are the device's bits. */
#include "cuda_test.h"

static const weft_tensor_type types[] = {
    WEFT_Q8_0,   WEFT_Q4_0,  WEFT_Q4_1,  WEFT_Q5_0,  WEFT_Q5_1,   WEFT_Q4_K,   WEFT_Q5_K,
    WEFT_Q6_K,   WEFT_Q2_K,  WEFT_Q3_K,  WEFT_IQ4_NL, WEFT_IQ4_XS, WEFT_MXFP4,  WEFT_NVFP4,
    WEFT_IQ1_S,  WEFT_IQ1_M, WEFT_IQ2_XXS, WEFT_IQ2_XS, WEFT_IQ2_S, WEFT_IQ3_XXS, WEFT_IQ3_S,
    WEFT_TQ1_0,  WEFT_TQ2_0, WEFT_Q2_0,  WEFT_Q1_0,  WEFT_F16,    WEFT_BF16,   WEFT_F32};
static const char *const names[] = {"q8",  "q4",  "q4m",    "q5",    "q5m",  "q4k",    "q5k",  "q6k", "q2k", "q3k",
                                    "n4",  "n4k", "mx4",    "nv4",   "iq1",  "iq1",    "iq2xxs", "iq2xs", "iq2s", "iq3xxs",
                                    "iq3s", "q2", "q2", "q2", "q1", "f16", "bf16", "f32"};
enum { N_FORMATS = sizeof types / sizeof *types };

static size_t block_of(weft_tensor_type type, size_t *out_bytes)
{
    size_t block = 0;
    assert_true(weft_tensor_block(type, &block, out_bytes));
    return block;
}

static uint8_t *packed(const weft_tensor *t)
{
    weft_cuda_format f;
    assert_true(weft_cuda_format_of(t->type, &f));
    const size_t columns = t->dim[0], rows = t->dim[1], row = cpu_row_bytes(t->type, columns);
    uint8_t *out = new_bytes(weft_cuda_weight_bytes(f, columns, rows));
    memset(out, 0xa5, weft_cuda_weight_bytes(f, columns, rows));
    for (size_t from = 0; from < rows; from += 48) /* in runs of tiles, as a loader would */
        weft_cuda_weight_pack(t->type, columns, from, rows - from < 48 ? rows - from : 48,
                              (const uint8_t *)t->data + from * row, out);
    return out;
}

/* ---- activations ---- */

static void test_quantise(void **state)
{
    enum { ROWS = 5, COLUMNS = 96, STRIDE = 101 };
    static const float special[] = {NAN,    INFINITY, -INFINITY, 1e-31f, -1e-30f, 0x1p-149f,
                                    3e38f,  -0.0f,    0.5f,      1.5f,   127,     -126.5f};
    rng r = {11};
    float *x = random_floats(ROWS * STRIDE, &r);
    for (size_t i = 0; i < 12; i++) x[i / 4 * STRIDE + i * 7 % COLUMNS] = special[i];
    for (size_t i = 0; i < 32; i++) x[4 * STRIDE + i] = 0;
    FOR_EACH_ORDER(order)
    {
        int8_t *q = new_bytes(ROWS * COLUMNS);
        weft_cuda_block *b = new_bytes(ROWS * COLUMNS / 32 * sizeof *b);
        memset(q, 0x5a, ROWS * COLUMNS);
        weft_cuda_quantise_args a = {x, q, b, ROWS, COLUMNS, STRIDE};
        LAUNCH("quantise", a, weft_cuda_quantise_launch(&a));
        for (size_t row = 0; row < ROWS; row++) {
            uint8_t panel[COLUMNS / 32 * CPU_TOKEN_BYTES];
            cpu_kernels_scalar.quantise(x + row * STRIDE, STRIDE, COLUMNS, 1, panel);
            for (size_t k = 0; k < COLUMNS / 32; k++) {
                const uint8_t *want = panel + k * CPU_TOKEN_BYTES;
                const weft_cuda_block *got = &b[row * COLUMNS / 32 + k];
                float d, scaled;
                memcpy(&d, want + 32, 4);
                memcpy(&scaled, want + 36, 4);
                assert_memory_equal(q + row * COLUMNS + 32 * k, want, 32);
                assert_bits("scale", 1, &got->d, &d);
                int half[2] = {0, 0};
                for (int i = 0; i < 32; i++) half[i / 16] += (int8_t)want[i];
                assert_int_equal(got->half[0], half[0]);
                assert_int_equal(got->half[1], half[1]);
            }
        }
        free(b);
        free(q);
    }
    free(x);
}

static void test_split(void **state)
{
    enum { N = 32 * 13 };
    rng r = {12};
    float *x = random_floats(N, &r), *hi = new_floats(N), *lo = new_floats(N);
    x[40] = INFINITY;
    for (int i = 64; i < 96; i++) x[i] = 1e-33f;
    FOR_EACH_ORDER(order)
    {
        clear(hi, N);
        clear(lo, N);
        weft_cuda_split_args a = {x, hi, lo, N};
        LAUNCH("split", a, weft_cuda_split_launch(&a));
        for (int from = 0; from < N; from += 32) {
            float top = 0;
            for (int i = from; i < from + 32; i++) top = fabsf(x[i]) > top ? fabsf(x[i]) : top;
            for (int i = from; i < from + 32; i++) {
                const bool whole = from == 32 || from == 64;
                const float h = whole ? x[i] : rintf(x[i] * (127 / top)) * (top / 127);
                const float l = whole ? 0 : x[i] - h;
                assert_bits("hi", 1, &hi[i], &h);
                assert_bits("lo", 1, &lo[i], &l);
            }
        }
    }
    free(lo);
    free(hi);
    free(x);
}

/* ---- the twin ---- */

/* Columns [from, from + n) of a matrix or a stack of them. */
static weft_tensor columns_of(const weft_tensor *t, size_t from, size_t n)
{
    size_t bytes = 0;
    const size_t block = block_of(t->type, &bytes), row = cpu_row_bytes(t->type, t->dim[0]);
    const size_t part = n / block * bytes, rows = t->dim[1] * t->dim[2];
    weft_tensor out = *t;
    uint8_t *data = new_bytes(rows * part);
    for (size_t r = 0; r < rows; r++)
        memcpy(data + r * part, (const uint8_t *)t->data + r * row + from / block * bytes, part);
    out.dim[0] = n;
    out.data = data;
    out.bytes = rows * part;
    return out;
}

/* y [n][rows] by the CPU, over all columns as they are. */
static void cpu_product_of(const weft_tensor *t, const float *x, size_t n, float *y)
{
    device d;
    weft_weight *w = NULL;
    weft_error err;
    const float *const bias = NULL;
    assert_true(open_device(&d, "scalar", 1));
    assert_int_equal(d.ops->weight_new(d.b, t, &w, &err), WEFT_OK);
    assert_int_equal(d.ops->reserve(d.b, n, t->dim[0], &err), WEFT_OK);
    d.ops->matmul(d.b, (const weft_weight *const *)&w, &bias, &y, 1, x, n);
    d.ops->weight_free(w);
    weft_cpu_backend_free(d.b);
}

/* y [n][rows]: the bricks' products, added in order. */
static void twin(const weft_tensor *t, const float *x, size_t n, float *y)
{
    const size_t columns = t->dim[0], rows = t->dim[1];
    for (size_t from = 0; from < columns; from += 256) {
        const size_t part = columns - from < 256 ? columns - from : 256;
        weft_tensor brick = columns_of(t, from, part);
        float *slice = new_floats(n * part), *sum = new_floats(n * rows);
        for (size_t i = 0; i < n; i++)
            memcpy(slice + i * part, x + i * columns + from, part * sizeof *x);
        cpu_product_of(&brick, slice, n, sum);
        for (size_t i = 0; i < n * rows; i++) y[i] = from == 0 ? sum[i] : y[i] + sum[i];
        free(sum);
        free(slice);
        free_tensor(&brick);
    }
}

/* ---- the device ---- */

typedef struct activations {
    int8_t *q;
    weft_cuda_block *block;
} activations;

static activations quantised(const float *x, size_t rows, size_t columns, size_t stride)
{
    activations out = {new_bytes(rows * columns), NULL};
    out.block = new_bytes(rows * (columns / 32) * sizeof *out.block);
    weft_cuda_quantise_args a = {x, out.q, out.block, (uint32_t)rows, (uint32_t)columns, (uint32_t)stride};
    if (columns >= 32) LAUNCH("quantise", a, weft_cuda_quantise_launch(&a));
    return out;
}

static void drop(activations *a)
{
    free(a->block);
    free(a->q);
}

/* One call of matvec or matmul of that width. */
static void multiply(const char *kind, size_t format, uint32_t width, const weft_cuda_matmul_args *a)
{
    char name[64];
    snprintf(name, sizeof name, "%s_%s_%u", kind, names[format], width);
    LAUNCH(name, *a,
           kind[3] == 'v' ? weft_cuda_matvec_launch(a, width) : weft_cuda_matmul_launch(a, width));
}

static const struct {
    const char *kind;
    uint32_t width;
} ways[] = {{"matvec", 1}, {"matvec", 4}, {"matvec", 8}, {"matmul", 16}, {"matmul", 64}};
enum { WAYS = sizeof ways / sizeof *ways };

static bool takes(size_t way, size_t format)
{
    return ways[way].kind[3] == 'v' || !is_float_type(types[format]);
}

static void check_sizes(size_t format, size_t rows, size_t columns, size_t n)
{
    rng r = {rows + columns};
    weft_tensor t = random_tensor(types[format], rows, columns, false, &r);
    uint8_t *w = packed(&t);
    float *x = random_floats(n * columns, &r), *want = new_floats(n * rows), *y = new_floats(n * rows);
    float *cpu = new_floats(n * rows), *dense = new_floats(columns), *bias = random_floats(rows, &r);
    activations act = quantised(x, n, columns, columns);
    twin(&t, x, n, want);
    cpu_product_of(&t, x, n, cpu);
    for (size_t row = 0; row < rows; row++) { /* the bound of kernels.h against the CPU's own order */
        cpu_dequantise(t.type, (const uint8_t *)t.data + row * cpu_row_bytes(t.type, columns), columns,
                       dense);
        const double terms = is_float_type(t.type) ? (double)columns : (double)columns / 16;
        for (size_t i = 0; i < n; i++) {
            double magnitude = 0;
            for (size_t c = 0; c < columns; c++) magnitude += fabs((double)dense[c] * x[i * columns + c]);
            /* int8 moves the activations by up to half a step each: 1 % covers it */
            const double bound = 2 * (terms + 2) * 0x1p-24 * (1.01 * magnitude + 0.1);
            assert_true(fabs((double)want[i * rows + row] - (double)cpu[i * rows + row]) <= bound);
        }
    }
    for (size_t i = 0; i < n * rows; i++) want[i] += bias[i % rows];
    for (size_t way = 0; way < WAYS; way++) {
        if (!takes(way, format)) continue;
        FOR_EACH_ORDER(order)
        {
            weft_cuda_matmul_args a = {.w = {{w, bias, y, (uint32_t)rows}},
                                       .q = act.q,
                                       .block = act.block,
                                       .x = x,
                                       .n = (uint32_t)n,
                                       .columns = (uint32_t)columns,
                                       .x_stride = (uint32_t)columns,
                                       .n_w = 1,
                                       .stack = 1};
            clear(y, n * rows);
            multiply(ways[way].kind, format, ways[way].width, &a);
            assert_bits(names[format], n * rows, y, want);
        }
    }
    drop(&act);
    free(bias);
    free(dense);
    free(cpu);
    free(y);
    free(want);
    free(x);
    free(w);
    free_tensor(&t);
}

/* Rows and columns that are multiples of nothing, in every format and width. */
static void test_products(void **state)
{
    static const struct {
        size_t rows, columns, n;
    } sizes[] = {{33, 256, 3}, {17, 1280, 1}, {16, 4864, 2}, {1, 32, 11}, {7, 352, 8},
               {70, 37, 9}, {81, 512, 70}, {9, 384, 17}};
    for (size_t f = 0; f < N_FORMATS; f++)
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            size_t bytes = 0;
            if (sizes[s].columns % block_of(types[f], &bytes) == 0)
                check_sizes(f, sizes[s].rows, sizes[s].columns, sizes[s].n);
        }
}

/* One brick of these blocks against activations of 127, of -127: the CPU's bits in every width. */
static void check_brick(size_t format, weft_tensor *t)
{
    enum { ROWS = 16, COLUMNS = 256 };
    uint8_t *w = packed(t);
    float x[COLUMNS], want[ROWS], y[ROWS];
    for (int sign = -1; sign <= 1; sign += 2) {
        for (int i = 0; i < COLUMNS; i++) x[i] = (float)(127 * sign);
        cpu_product_of(t, x, 1, want);
        activations act = quantised(x, 1, COLUMNS, COLUMNS);
        for (size_t way = 0; way < WAYS; way++) {
            weft_cuda_matmul_args a = {.w = {{w, NULL, y, ROWS}}, .q = act.q, .block = act.block,
                                       .n = 1, .columns = COLUMNS, .n_w = 1, .stack = 1};
            clear(y, ROWS);
            multiply(ways[way].kind, format, ways[way].width, &a);
            assert_bits(names[format], ROWS, y, want);
        }
        drop(&act);
    }
    free(w);
}

/* Weights, activations and sums at their limits; the second round: scales too, where they are no halves. */
static void test_limits(void **state)
{
    enum { ROWS = 16, COLUMNS = 256 };
    static const uint8_t pattern[] = {0x80, 0xff, 0x7f, 0x00, 0x01, 0xfe};
    for (size_t f = 0; f < N_FORMATS; f++) {
        size_t bytes = 0;
        const size_t block = block_of(types[f], &bytes), n = ROWS * COLUMNS / block;
        const bool own_scales = types[f] == WEFT_MXFP4 || types[f] == WEFT_NVFP4;
        if (is_float_type(types[f])) continue;
        for (size_t p = 0; p < 2 * sizeof pattern; p++) {
            const bool put = p < sizeof pattern;
            if (!put && !own_scales) continue;
            uint8_t *data = new_bytes(n * bytes);
            memset(data, pattern[p % sizeof pattern], n * bytes);
            for (size_t i = 0; i < n && put; i++) put_scale(types[f], data + i * bytes, 1, 1);
            for (size_t i = 0; i < n && !put; i++) data[i * bytes + bytes - 1] = 0x27; /* not all zeros */
            weft_tensor t = {.name = "test", .type = types[f], .n_dims = 2, .dim = {COLUMNS, ROWS, 1, 1},
                             .data = data, .bytes = n * bytes};
            check_brick(f, &t);
            free_tensor(&t);
        }
    }
}

/* Several matrices in one call; gate and up in one call. */
static void test_together(void **state)
{
    enum { COLUMNS = 512, N = 3 };
    static const size_t rows[] = {48, 17, 5};
    rng r = {21};
    for (size_t f = 0; f < N_FORMATS; f++) {
        weft_tensor t[3];
        float *x = random_floats(N * COLUMNS, &r), *want[3], *y[3];
        uint8_t *w[3];
        for (int i = 0; i < 3; i++) {
            t[i] = random_tensor(types[f], rows[i], COLUMNS, false, &r);
            w[i] = packed(&t[i]);
            want[i] = new_floats(N * rows[i]);
            y[i] = new_floats(N * rows[i]);
            twin(&t[i], x, N, want[i]);
        }
        activations act = quantised(x, N, COLUMNS, COLUMNS);
        weft_cuda_matmul_args a = {.q = act.q, .block = act.block, .x = x, .n = N, .columns = COLUMNS,
                                   .x_stride = COLUMNS, .n_w = 3, .stack = 1};
        for (int i = 0; i < 3; i++)
            a.w[i] = (weft_cuda_matrix){w[i], NULL, y[i], (uint32_t)rows[i]};
        for (size_t way = 0; way < WAYS; way++) {
            if (!takes(way, f)) continue;
            for (int i = 0; i < 3; i++) clear(y[i], N * rows[i]);
            a.n_w = 3;
            a.gated = false;
            multiply(ways[way].kind, f, ways[way].width, &a);
            for (int i = 0; i < 3; i++) assert_bits(names[f], N * rows[i], y[i], want[i]);
            for (int act_kind = 0; act_kind < 2; act_kind++) {
                float gated[N * 17];
                a.gated = true;
                a.n_w = 2;
                a.activation = act_kind ? WEFT_GELU_TANH : WEFT_SILU;
                a.w[0].rows = a.w[1].rows = 17; /* of w[0] the first 17 */
                clear(y[0], N * rows[0]);
                multiply(ways[way].kind, f, ways[way].width, &a);
                for (int i = 0; i < N; i++)
                    cpu_kernels_scalar.gate(a.activation, want[0] + (size_t)i * rows[0],
                                            want[1] + i * 17, 17, gated + i * 17);
                assert_bits("gated", N * 17, y[0], gated);
            }
            a.w[0].rows = (uint32_t)rows[0];
        }
        drop(&act);
        for (int i = 0; i < 3; i++) {
            free(y[i]);
            free(want[i]);
            free(w[i]);
            free_tensor(&t[i]);
        }
        free(x);
    }
}

/* ---- stacks ---- */

enum { STACK = 3 }; /* matrices of one */

static weft_tensor random_stack(weft_tensor_type type, size_t rows, size_t columns, rng *r)
{
    weft_tensor t = random_tensor(type, STACK * rows, columns, false, r);
    t.dim[1] = rows;
    t.dim[2] = STACK;
    t.n_dims = 3;
    return t;
}

static uint8_t *packed_stack(const weft_tensor *t, size_t *out_bytes)
{
    weft_cuda_format f;
    assert_true(weft_cuda_format_of(t->type, &f));
    const size_t columns = t->dim[0], rows = t->dim[1], row = cpu_row_bytes(t->type, columns);
    *out_bytes = weft_cuda_weight_bytes(f, columns, rows);
    uint8_t *w = new_bytes(STACK * *out_bytes);
    for (size_t i = 0; i < STACK; i++)
        weft_cuda_weight_pack(t->type, columns, 0, rows, (const uint8_t *)t->data + i * rows * row, w + i * *out_bytes);
    return w;
}

/* y by the CPU's products over heads, brick after brick: x [n][STACK][x_stride], y [n][STACK][y_stride]. */
static void heads_twin(const weft_tensor *t, const float *x, size_t x_stride, size_t n, float *y, size_t y_stride)
{
    const size_t columns = t->dim[0], floats = n * STACK * y_stride;
    float *sum = new_floats(floats);
    for (size_t from = 0; from < columns; from += 256) {
        weft_tensor brick = columns_of(t, from, columns - from < 256 ? columns - from : 256);
        device d;
        weft_weight *w = NULL;
        weft_error err;
        assert_true(open_device(&d, "scalar", 1));
        assert_int_equal(d.ops->weight_new(d.b, &brick, &w, &err), WEFT_OK);
        assert_int_equal(d.ops->reserve(d.b, n, columns, &err), WEFT_OK);
        clear(sum, floats);
        d.ops->matmul_heads(d.b, w, x + from, x_stride, n, sum, y_stride);
        for (size_t i = 0; i < floats; i++) y[i] = from == 0 ? sum[i] : y[i] + sum[i];
        d.ops->weight_free(w);
        weft_cpu_backend_free(d.b);
        free_tensor(&brick);
    }
    free(sum);
}

/* A matrix for each head. What lies between the rows of y, NaN here, is left alone. */
static void check_heads(size_t format, size_t rows, size_t columns, size_t n, rng *r)
{
    const size_t x_stride = columns + 5, y_stride = rows + 3, floats = n * STACK * y_stride;
    size_t bytes;
    weft_tensor t = random_stack(types[format], rows, columns, r);
    uint8_t *w = packed_stack(&t, &bytes);
    float *x = random_floats(n * STACK * x_stride, r), *want = new_floats(floats), *y = new_floats(floats);
    activations act = quantised(x, n * STACK, columns, x_stride);
    heads_twin(&t, x, x_stride, n, want, y_stride);
    for (size_t way = 0; way < WAYS; way++) {
        if (!takes(way, format)) continue;
        FOR_EACH_ORDER(order)
        {
            weft_cuda_matmul_args a = {.w = {{w, NULL, y, (uint32_t)rows}}, .q = act.q, .block = act.block, .x = x,
                                       .stack_bytes = {bytes, bytes}, .n = (uint32_t)n, .columns = (uint32_t)columns,
                                       .x_stride = (uint32_t)x_stride, .y_stride = (uint32_t)y_stride, .n_w = 1,
                                       .stack = STACK};
            clear(y, floats);
            multiply(ways[way].kind, format, ways[way].width, &a);
            assert_bits(names[format], floats, y, want);
        }
    }
    drop(&act);
    free(y);
    free(want);
    free(x);
    free(w);
    free_tensor(&t);
}

static void test_heads(void **state)
{
    static const struct {
        size_t rows, columns, n;
    } sizes[] = {{20, 256, 4}, {33, 512, 1}, {16, 96, 9}, {1, 37, 2}};
    rng r = {24};
    for (size_t f = 0; f < N_FORMATS; f++)
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            size_t bytes;
            if (sizes[s].columns % block_of(types[f], &bytes) == 0)
                check_heads(f, sizes[s].rows, sizes[s].columns, sizes[s].n, &r);
        }
}

/* Experts: lists say which rows meet which matrix. */
static void test_runs(void **state)
{
    enum { ROWS = 20, COLUMNS = 256, N = 4, LISTED = 5 };
    static const uint32_t x_row[LISTED] = {2, 0, 3, 1, 2}, y_row[LISTED] = {4, 0, 1, 3, 2};
    static const weft_cuda_run run[] = {{2, 0, 3}, {0, 0, 0}, {1, 3, 2}};
    rng r = {22};
    for (size_t f = 0; f < N_FORMATS; f++) {
        size_t bytes;
        weft_tensor t = random_stack(types[f], ROWS, COLUMNS, &r);
        uint8_t *w = packed_stack(&t, &bytes);
        float *x = random_floats(N * COLUMNS, &r), want[ROWS], y[LISTED * ROWS];
        activations act = quantised(x, N, COLUMNS, COLUMNS);
        for (size_t way = 0; way < WAYS; way++) {
            if (!takes(way, f) || ways[way].width < 3) continue; /* these runs are of up to 3 */
            weft_cuda_matmul_args a = {.w = {{w, NULL, y, ROWS}}, .q = act.q, .block = act.block, .x = x, .run = run,
                                       .x_row = x_row, .y_row = y_row, .stack_bytes = {bytes, bytes}, .n = N,
                                       .columns = COLUMNS, .x_stride = COLUMNS, .n_w = 1, .n_run = 3, .stack = 1};
            clear(y, LISTED * ROWS);
            multiply(ways[way].kind, f, ways[way].width, &a);
            for (int i = 0; i < LISTED; i++) {
                weft_tensor one = t;
                one.data = (const uint8_t *)t.data + (size_t)(i < 3 ? 2 : 1) * ROWS * cpu_row_bytes(t.type, COLUMNS);
                one.dim[2] = 1;
                twin(&one, x + x_row[i] * COLUMNS, 1, want);
                assert_bits("run", ROWS, y + y_row[i] * ROWS, want);
            }
        }
        drop(&act);
        free(x);
        free(w);
        free_tensor(&t);
    }
}

/* Every type of the file format has kernels, and they are tested here. */
static void test_types(void **state)
{
    for (size_t i = 0; i < N_TYPES; i++) {
        weft_cuda_format format;
        size_t k = 0;
        while (k < N_FORMATS && types[k] != all_types[i]) k++;
        assert_true(k < N_FORMATS && weft_cuda_format_of(all_types[i], &format));
    }
}

/* Rows by number: what the packed bytes stand for is what the file's do. */
static void test_embed(void **state)
{
    enum { ROWS = 37, N = 6 };
    static const int32_t ids[N] = {0, 36, 15, 16, -1, 37};
    rng r = {23};
    for (size_t f = 0; f < N_FORMATS; f++) {
        size_t bytes = 0;
        const size_t columns = 256 * 3 + (is_float_type(types[f]) ? 33 : block_of(types[f], &bytes) % 256);
        weft_tensor t = random_tensor(types[f], ROWS, columns, false, &r);
        weft_cuda_format format;
        assert_true(weft_cuda_format_of(types[f], &format));
        uint8_t *w = packed(&t);
        float *out = new_floats(N * columns), *want = new_floats(columns);
        FOR_EACH_ORDER(order)
        {
            weft_cuda_embed_args a = {w, ids, out, 1.5f, format, N, (uint32_t)columns, ROWS};
            clear(out, N * columns);
            LAUNCH("embed", a, weft_cuda_embed_launch(&a));
            for (size_t i = 0; i < N; i++) {
                for (size_t c = 0; c < columns; c++) want[c] = NAN;
                if (i < 4)
                    cpu_dequantise(t.type,
                                   (const uint8_t *)t.data +
                                       (size_t)ids[i] * cpu_row_bytes(t.type, columns),
                                   columns, want);
                for (size_t c = 0; c < columns; c++) want[c] *= 1.5f;
                assert_bits(names[f], columns, out + i * columns, want);
            }
        }
        free(want);
        free(out);
        free(w);
        free_tensor(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quantise), cmocka_unit_test(test_split),    cmocka_unit_test(test_products),
        cmocka_unit_test(test_limits),   cmocka_unit_test(test_together), cmocka_unit_test(test_heads),
        cmocka_unit_test(test_runs),     cmocka_unit_test(test_types),    cmocka_unit_test(test_embed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
