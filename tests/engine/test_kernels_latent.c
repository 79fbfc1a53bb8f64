/* Latent attention, the indexer and what stands beside them: every instruction set and number of threads bit for bit
 * the scalar result, on awkward sizes; the choice equals sorting; the mathematics against double precision. */
#include "tests/engine/kernel_test.h"

#include "engine/cpu/cpu.h"

enum { LATENT = 64, ROPE = 6, VALUE = LATENT + ROPE, INDEX = 32, INDEX_HEADS = 13, PAGES = 6, LAYER = 1 };

/* ---- pages ---- */

typedef struct scene {
    weft_kv_layout layout;
    void *page[PAGES];
    size_t length;
} scene;

static scene new_scene(const device *d, weft_kv_type type, size_t length, rng *r)
{
    scene s = {.layout = {.type = type,
                          .n_layer = 2,
                          .n_head_kv = 1,
                          .key_dim = INDEX,
                          .value_dim = VALUE,
                          .latent_dim = LATENT},
               .length = length};
    for (int i = 0; i < PAGES; i++) {
        s.page[i] = malloc(weft_kv_page_bytes(&s.layout));
        memset(s.page[i], 0xff, weft_kv_page_bytes(&s.layout)); /* what is not written is NaN */
    }
    for (size_t p = 0; p < length; p++) {
        const weft_row row = {s.page, (int64_t)p};
        float *x = random_floats(VALUE + INDEX, r);
        d->ops->latent_write(d->b, &s.layout, LAYER, &row, 1, x, x + LATENT, x + VALUE);
        free(x);
    }
    return s;
}

static void free_scene(scene *s)
{
    for (int i = 0; i < PAGES; i++) free(s->page[i]);
}

static void reserve(const device *d, uint32_t n_head, uint32_t top_k)
{
    weft_error err;
    const weft_latent_size size = {n_head, LATENT, ROPE, INDEX_HEADS, INDEX, top_k, PAGES * WEFT_PAGE};
    assert_int_equal(d->ops->reserve_latent(d->b, &size, &err), WEFT_OK);
}

/* ---- attention ---- */

/* Tokens at the last positions; of each the q, and by pick the positions it may take. */
static void attend(const device *d, scene *s, uint32_t n_head, size_t n, const int32_t *selected,
                   const int32_t *count, uint32_t top_k, float *out)
{
    weft_row row[4];
    rng r = {77};
    float *q = random_floats(4 * n_head * (LATENT + ROPE + 3), &r);
    for (size_t t = 0; t < n; t++) row[t] = (weft_row){s->page, (int64_t)(s->length - n + t)};
    const weft_latent_attention a = {.layout = &s->layout,
                                     .layer = LAYER,
                                     .n_head = n_head,
                                     .scale = 0.3f,
                                     .row = row,
                                     .n = n,
                                     .q_latent = q,
                                     .q_rope = q + 4 * n_head * LATENT,
                                     .q_rope_stride = ROPE + 3,
                                     .selected = selected,
                                     .count = count,
                                     .top_k = top_k,
                                     .out = out};
    d->ops->latent_attention(d->b, &a);
    free(q);
}

static void check_attention(weft_kv_type type, uint32_t n_head, size_t length)
{
    enum { N = 3, TOP_K = 200 };
    int32_t all[N * PAGES * WEFT_PAGE], some[N * TOP_K], count_all[N], count[N];
    float *want = NULL, *want_some = NULL;
    const size_t size = N * n_head * LATENT, n = length < N ? length : N;
    for (size_t t = 0; t < n; t++) {
        count_all[t] = (int32_t)(length - n + t + 1);
        for (int32_t p = 0; p < count_all[t]; p++) all[t * PAGES * WEFT_PAGE + (size_t)p] = p;
        count[t] = 0; /* about two of three */
        for (int32_t p = 0; p < count_all[t] && count[t] < TOP_K; p++)
            if (p == 0 || (p + (int)t) % 3) some[t * TOP_K + (size_t)count[t]++] = p;
    }
    for (int isa = 0; isa < N_ISAS; isa++)
        for (int threads = 1; threads <= 3; threads++) {
            device d;
            rng r = {5};
            if (!open_device(&d, all_isas[isa], threads)) continue;
            reserve(&d, n_head, TOP_K);
            scene s = new_scene(&d, type, length, &r);
            float *dense = new_floats(size), *chosen = new_floats(size), *listed = new_floats(size);
            attend(&d, &s, n_head, n, NULL, NULL, 0, dense);
            attend(&d, &s, n_head, n, all, count_all, PAGES * WEFT_PAGE, listed);
            attend(&d, &s, n_head, n, some, count, TOP_K, chosen);
            assert_memory_equal(dense, listed, n * n_head * LATENT * sizeof(float));
            if (!want) {
                want = dense, want_some = chosen;
            } else {
                if (memcmp(want, dense, n * n_head * LATENT * sizeof(float)) ||
                    memcmp(want_some, chosen, n * n_head * LATENT * sizeof(float)))
                    fail_msg("%s, %d threads, %u heads, %zu positions: other bits", all_isas[isa], threads,
                             n_head, length);
                free(dense);
                free(chosen);
            }
            free(listed);
            free_scene(&s);
            weft_cpu_backend_free(d.b);
        }
    for (size_t i = 0; i < n * n_head * LATENT; i++) assert_true(isfinite(want[i]) && isfinite(want_some[i]));
    free(want);
    free(want_some);
}

static void test_attention(void **state)
{
    static const uint32_t heads[] = {1, 4, 31, 128};
    static const size_t lengths[] = {1, 2, 63, 127, 129, 300};
    for (int h = 0; h < 4; h++)
        for (int k = 0; k < 6; k++)
            check_attention((weft_kv_type)((h + k) % WEFT_KV_TYPES), heads[h], lengths[k]);
}

/* One head in double precision. */
static void test_attention_mathematics(void **state)
{
    enum { LENGTH = 150 };
    device d;
    rng r = {9}, same = {9}, q_rng = {77};
    double score[LENGTH], sum = 0, want[LATENT] = {0};
    float out[LATENT];
    assert_true(open_device(&d, NULL, 1));
    reserve(&d, 1, 1);
    scene s = new_scene(&d, WEFT_KV_F32, LENGTH, &r);
    attend(&d, &s, 1, 1, NULL, NULL, 0, out);
    float *rows = random_floats(LENGTH * (VALUE + INDEX), &same), *q = random_floats(4 * (LATENT + ROPE + 3), &q_rng);
    for (int p = 0; p < LENGTH; p++) {
        const float *row = rows + p * (VALUE + INDEX);
        score[p] = 0;
        for (int i = 0; i < LATENT; i++) score[p] += (double)q[i] * row[i];
        for (int i = 0; i < ROPE; i++) score[p] += (double)q[4 * LATENT + i] * row[LATENT + i];
        sum += score[p] = exp(0.3 * score[p]);
    }
    for (int p = 0; p < LENGTH; p++)
        for (int i = 0; i < LATENT; i++) want[i] += score[p] / sum * rows[p * (VALUE + INDEX) + i];
    for (int i = 0; i < LATENT; i++) assert_true(fabs(want[i] - out[i]) < 1e-5);
    free(rows);
    free(q);
    free_scene(&s);
    weft_cpu_backend_free(d.b);
}

/* ---- the choice ---- */

typedef struct ranked {
    float score;
    int32_t position;
} ranked;

static int by_rank(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    const bool bad_x = isnan(x->score), bad_y = isnan(y->score);
    if (bad_x != bad_y) return bad_x ? 1 : -1;
    if (!bad_x && x->score != y->score) return x->score > y->score ? -1 : 1;
    return x->position < y->position ? -1 : 1;
}

static int by_position(const void *a, const void *b)
{
    return *(const int32_t *)a - *(const int32_t *)b;
}

static void sorted_choice(const float *score, size_t n, size_t k, int32_t *out)
{
    ranked *all = calloc(n, sizeof *all);
    for (size_t i = 0; i < n; i++) all[i] = (ranked){score[i], (int32_t)i};
    qsort(all, n, sizeof *all, by_rank);
    for (size_t i = 0; i < k; i++) out[i] = all[i].position;
    qsort(out, k, sizeof *out, by_position);
    free(all);
}

/* Random scores, many alike, signs of zero, infinities and NaN; every k of small lists, some of long ones. */
static void test_select(void **state)
{
    enum { MOST = 3000 };
    static const float odd[] = {0, -0.0f, 1, -1, INFINITY, -INFINITY, NAN, 1e-40f};
    static float score[MOST];
    static int32_t want[MOST], got[MOST];
    static uint32_t room[MOST];
    rng r = {3};
    for (int round = 0; round < 60; round++) {
        const size_t n = round < 30 ? 1 + next32(&r) % 40 : 1 + next32(&r) % MOST;
        for (size_t i = 0; i < n; i++)
            score[i] = round % 3 == 0   ? next_float(&r)
                       : round % 3 == 1 ? odd[next32(&r) % 8]
                                        : (float)(next32(&r) % 5) * 0.25f + (next32(&r) % 7 ? 0 : next_float(&r) * 1e-6f);
        for (size_t k = 1; k <= n; k += n < 50 ? 1 : 1 + next32(&r) % 400) {
            sorted_choice(score, n, k, want);
            cpu_select_top(score, n, k, room, got);
            assert_memory_equal(want, got, k * sizeof *got);
        }
    }
}

/* Scores by loops of their own, sorted; rows beside each other of several lengths, some of which take everything. */
static void check_index(weft_kv_type type, const char *isa, int threads)
{
    enum { N = 11, TOP_K = 100, LENGTH = 380 };
    static const int64_t position[N] = {379, 0, 99, 100, 101, 378, 255, 256, 63, 127, 200};
    int32_t *selected = calloc(N * TOP_K, sizeof *selected), count[N], want[TOP_K];
    weft_row row[N];
    device d;
    rng r = {21};
    if (!open_device(&d, isa, threads)) return;
    reserve(&d, 1, TOP_K);
    scene s = new_scene(&d, type, LENGTH, &r);
    float *q = random_floats(N * INDEX_HEADS * INDEX, &r), *weight = random_floats(N * INDEX_HEADS, &r), score[LENGTH];
    for (int t = 0; t < N; t++) row[t] = (weft_row){s.page, position[t]};
    const weft_index x = {&s.layout, LAYER, INDEX_HEADS, TOP_K, row, N, q, weight, selected, count};
    d.ops->index_select(d.b, &x);
    for (int t = 0; t < N; t++) {
        const size_t n = (size_t)position[t] + 1, k = n < TOP_K ? n : TOP_K;
        for (size_t p = 0; p < n; p++) {
            float key[INDEX][WEFT_PAGE];
            cpu_kernels_scalar.widen_keys[type](
                (const uint8_t *)s.page[p / WEFT_PAGE] + weft_kv_offset(&s.layout, LAYER, 0), INDEX, key[0]);
            score[p] = 0;
            for (int h = 0; h < INDEX_HEADS; h++) {
                float sum = 0;
                for (int i = 0; i < INDEX; i++)
                    sum = fmaf(q[(t * INDEX_HEADS + h) * INDEX + i], key[i][p % WEFT_PAGE], sum);
                score[p] = fmaf(weight[t * INDEX_HEADS + h], sum > 0 ? sum : 0, score[p]);
            }
        }
        sorted_choice(score, n, k, want);
        assert_int_equal(count[t], k);
        if (memcmp(want, selected + t * TOP_K, k * sizeof *want))
            fail_msg("%s, %d threads, position %d: another choice", isa, threads, (int)position[t]);
    }
    free(q);
    free(weight);
    free(selected);
    free_scene(&s);
    weft_cpu_backend_free(d.b);
}

static void test_index(void **state)
{
    for (int type = 0; type < WEFT_KV_TYPES; type++)
        for (int isa = 0; isa < N_ISAS; isa++)
            for (int threads = 1; threads <= 3; threads += 2) check_index((weft_kv_type)type, all_isas[isa], threads);
}

/* ---- matrices of heads, norms ---- */

/* Each head is what matmul makes of its matrix alone, whatever the strides and the number of tokens. */
static void check_heads(weft_tensor_type type, const char *isa, int threads, bool mapped)
{
    enum { HEADS = 5, COLUMNS = 256, ROWS = 37, N = 11, X = COLUMNS + 3, Y = ROWS + 2 };
    device d;
    weft_error err;
    rng r = {6};
    if (!open_device(&d, isa, threads)) return;
    weft_tensor t = random_tensor(type, HEADS * ROWS, COLUMNS, false, &r);
    t.dim[1] = ROWS;
    t.dim[2] = HEADS;
    t.n_dims = 3;
    weft_weight *w, *one;
    float *x = random_floats(N * HEADS * X, &r), *y = new_floats(N * HEADS * Y), *column = new_floats(N * COLUMNS);
    float *want = new_floats(N * ROWS);
    assert_int_equal((mapped ? d.ops->weight_map : d.ops->weight_new)(d.b, &t, &w, &err), WEFT_OK);
    assert_int_equal(d.ops->reserve(d.b, N, COLUMNS, &err), WEFT_OK);
    for (size_t n = 1; n <= N; n += 5) {
        for (int i = 0; i < N * HEADS * Y; i++) y[i] = -7;
        d.ops->matmul_heads(d.b, w, x, X, n, y, Y);
        for (int h = 0; h < HEADS; h++) {
            weft_tensor part = t;
            part.dim[2] = 1;
            part.bytes = t.bytes / HEADS;
            part.data = (const uint8_t *)t.data + (size_t)h * part.bytes;
            assert_int_equal(d.ops->weight_new(d.b, &part, &one, &err), WEFT_OK);
            for (size_t k = 0; k < n; k++)
                memcpy(column + k * COLUMNS, x + (k * HEADS + (size_t)h) * X, COLUMNS * sizeof *x);
            const weft_weight *const weight[] = {one};
            const float *const bias[] = {NULL};
            float *const out[] = {want};
            d.ops->matmul(d.b, weight, bias, out, 1, column, n);
            for (size_t k = 0; k < n; k++) {
                const float *got = y + (k * HEADS + (size_t)h) * Y;
                assert_memory_equal(got, want + k * ROWS, ROWS * sizeof *got);
                assert_true(got[ROWS] == -7 && got[ROWS + 1] == -7);
            }
            d.ops->weight_free(one);
        }
    }
    d.ops->weight_free(w);
    free_tensor(&t);
    free(x);
    free(y);
    free(column);
    free(want);
    weft_cpu_backend_free(d.b);
}

static void test_heads(void **state)
{
    static const weft_tensor_type types[] = {WEFT_F32, WEFT_F16, WEFT_BF16, WEFT_Q8_0, WEFT_Q4_0, WEFT_Q4_K};
    for (int k = 0; k < 6; k++)
        for (int isa = 0; isa < N_ISAS; isa++) {
            check_heads(types[k], all_isas[isa], 1, false);
            check_heads(types[k], all_isas[isa], 3, true);
        }
}

static void test_norms(void **state)
{
    static const size_t dims[] = {1, 2, 32, 64, 128, 512};
    rng r = {8};
    for (int k = 0; k < 6; k++) {
        const size_t n = dims[k];
        float *x = random_floats(n, &r), *w = random_floats(n, &r), *bias = random_floats(n, &r);
        float *want_norm = NULL, *want_hadamard = NULL;
        for (int isa = 0; isa < N_ISAS; isa++) {
            device d;
            if (!open_device(&d, all_isas[isa], 1)) continue;
            float *y = new_floats(n), *z = new_floats(n);
            memcpy(z, x, n * sizeof *x);
            d.ops->layer_norm(d.b, x, w, bias, 1e-6f, 1, n, y);
            d.ops->hadamard(d.b, z, 1, n);
            if (want_norm) {
                assert_memory_equal(want_norm, y, n * sizeof *y);
                assert_memory_equal(want_hadamard, z, n * sizeof *z);
                free(y);
                free(z);
            } else {
                want_norm = y, want_hadamard = z;
            }
            weft_cpu_backend_free(d.b);
        }
        double mean = 0, variance = 0;
        for (size_t i = 0; i < n; i++) mean += x[i] / (double)n;
        for (size_t i = 0; i < n; i++) variance += (x[i] - mean) * (x[i] - mean) / (double)n;
        for (size_t i = 0; i < n; i++) {
            double sum = 0; /* Sylvester: the sign is the parity of i & j */
            for (size_t j = 0; j < n; j++) sum += __builtin_parityll(i & j) ? -x[j] : x[j];
            assert_true(fabs(sum / sqrt((double)n) - want_hadamard[i]) < 1e-5);
            assert_true(fabs((x[i] - mean) / sqrt(variance + 1e-6) * w[i] + bias[i] - want_norm[i]) < 1e-4);
        }
        free(x);
        free(w);
        free(bias);
        free(want_norm);
        free(want_hadamard);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attention), cmocka_unit_test(test_attention_mathematics),
        cmocka_unit_test(test_select),    cmocka_unit_test(test_index),
        cmocka_unit_test(test_heads),     cmocka_unit_test(test_norms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
