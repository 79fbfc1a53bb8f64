/* Latent attention, the indexer's scores and its choice, against plain loops that are their definition. */
#include "cuda_test.h"

static const char *const type_names[] = {[WEFT_KV_F32] = "f32", [WEFT_KV_F16] = "f16", [WEFT_KV_Q8_0] = "q8_0"};

/* ---- a timeline of random rows ---- */

enum { MOST_PAGES = 12 };

typedef struct timeline {
    weft_kv_layout l;
    uint8_t *page[MOST_PAGES];
    float *key, *value; /* [length][key_dim], [length][value_dim]: what the pages stand for */
} timeline;

/* What lies behind `length` is NaN. keys and values are kept as the pages' type has them. */
static timeline new_timeline(weft_kv_type type, uint32_t key_dim, uint32_t value_dim, int64_t length, rng *r)
{
    timeline t = {.l = {.type = type, .n_layer = 2, .n_head_kv = 1, .key_dim = key_dim, .value_dim = value_dim}};
    const size_t n = (size_t)length, bytes = weft_kv_page_bytes(&t.l);
    device d;
    weft_row *row = new_bytes(n * sizeof *row);
    t.key = random_floats(n * key_dim, r);
    t.value = random_floats(n * value_dim, r);
    for (size_t i = 0; i < MOST_PAGES; i++) {
        t.page[i] = i * WEFT_PAGE < n ? new_bytes(bytes) : NULL;
        if (t.page[i]) memset(t.page[i], 0xff, bytes);
    }
    assert_true(open_device(&d, "scalar", 1));
    for (size_t i = 0; i < n; i++) row[i] = (weft_row){(void *const *)t.page, (int64_t)i};
    d.ops->kv_write(d.b, &t.l, 1, row, n, t.key, t.value);
    weft_cpu_backend_free(d.b);
    for (size_t i = 0; i < n; i++) {
        const uint8_t *keys = t.page[i / WEFT_PAGE] + weft_kv_offset(&t.l, 1, 0);
        const uint8_t *values = keys + weft_kv_side_bytes(type, key_dim);
        const size_t at = i % WEFT_PAGE, blocks = (value_dim + 31) / 32;
        for (size_t k = 0; k < key_dim && type != WEFT_KV_F32; k++) {
            const uint8_t *block = keys + k / 32 * (WEFT_PAGE * 34);
            t.key[i * key_dim + k] =
                type == WEFT_KV_F16 ? load_half(keys + 2 * (WEFT_PAGE * k + at))
                                    : (float)(int8_t)block[128 + k % 32 * WEFT_PAGE + at] * load_half(block + 2 * at);
        }
        for (size_t k = 0; k < value_dim && type != WEFT_KV_F32; k++)
            t.value[i * value_dim + k] =
                type == WEFT_KV_F16 ? load_half(values + 2 * (at * value_dim + k))
                                    : (float)(int8_t)values[2 * WEFT_PAGE * blocks + at * value_dim + k] *
                                          load_half(values + 2 * (WEFT_PAGE * (k / 32) + at));
    }
    free(row);
    return t;
}

static void free_timeline(timeline *t)
{
    for (int i = 0; i < MOST_PAGES; i++) free(t->page[i]);
    free(t->key);
    free(t->value);
}

/* ---- the indexer ---- */

static void check_scores(weft_kv_type type, uint32_t n_head, uint32_t dim)
{
    enum { N = 3, LENGTH = 600, TOP = 100 };
    static const int64_t position[N] = {LENGTH - 1, TOP - 1, 256};
    rng r = {n_head + 41};
    timeline t = new_timeline(type, dim, 64, LENGTH, &r);
    float *q = random_floats((size_t)N * n_head * dim, &r), *weight = random_floats((size_t)N * n_head, &r);
    float *score = new_floats(N * LENGTH);
    weft_row row[N];
    for (int i = 0; i < N; i++) row[i] = (weft_row){(void *const *)t.page, position[i]};
    FOR_EACH_ORDER(order)
    {
        char name[64];
        weft_cuda_index_args a = {.kv = weft_cuda_kv_of(&t.l, 1), .row = row, .q = q, .weight = weight, .score = score,
                                  .stride = LENGTH, .n = N, .n_head = n_head, .top_k = TOP};
        clear(score, N * LENGTH);
        snprintf(name, sizeof name, "index_score_%s", type_names[type]);
        LAUNCH(name, a, weft_cuda_index_score_launch(&a));
        for (int i = 0; i < N; i++)
            for (int64_t p = 0; p < LENGTH; p++) {
                float want = 0;
                for (uint32_t h = 0; h < n_head; h++) {
                    float dot = 0;
                    for (uint32_t d = 0; d < dim; d++)
                        dot = fmaf(q[((size_t)i * n_head + h) * dim + d], t.key[(size_t)p * dim + d], dot);
                    want = fmaf(weight[(size_t)i * n_head + h], 0 > dot ? 0 : dot, want);
                }
                if (p > position[i] || position[i] < TOP) want = NAN; /* left alone */
                assert_bits(name, 1, &score[i * LENGTH + p], &want);
            }
    }
    free(score);
    free(weight);
    free(q);
    free_timeline(&t);
}

static void test_scores(void **state)
{
    check_scores(WEFT_KV_F16, 19, 64);
    check_scores(WEFT_KV_F32, 1, 33);
    check_scores(WEFT_KV_Q8_0, 16, 128);
}

/* ---- the choice ---- */

static bool above(const float *s, int32_t a, int32_t b)
{
    const bool a_nan = isnan(s[a]), b_nan = isnan(s[b]);
    if (a_nan != b_nan) return b_nan;
    if (!a_nan && s[a] != s[b]) return s[a] > s[b];
    return a < b;
}

/* A position is chosen if fewer than k stand above it. */
static size_t brute_force(const float *s, size_t n, size_t k, int32_t *out)
{
    size_t taken = 0;
    for (size_t i = 0; i < n; i++) {
        size_t better = 0;
        for (size_t j = 0; j < n; j++) better += above(s, (int32_t)j, (int32_t)i);
        if (better < k) out[taken++] = (int32_t)i;
    }
    return taken;
}

static void test_top_k(void **state)
{
    enum { N = 1537, TOP = 511, KINDS = 6, MOST = 5 };
    static const uint32_t tops[MOST] = {1, 16, 511, 1536, 1537};
    rng r = {43};
    float *score = new_floats(KINDS * N);
    weft_row row[KINDS];
    for (int i = 0; i < N; i++) {
        const float x = next_float(&r);
        score[i] = x;                                                  /* all different */
        score[N + i] = (float)(next32(&r) % 5) - 2;                    /* many equal */
        score[2 * N + i] = i % 3 ? -0.0f : 0.0f;                       /* all equal */
        score[3 * N + i] = i % 7 == 0 ? NAN : i % 11 == 0 ? INFINITY : i % 13 == 0 ? -INFINITY : x;
        score[4 * N + i] = float_from_bits(0x3f800000u + next32(&r) % 300); /* in the last digit alone */
        score[5 * N + i] = x * (i % 2 ? 1e-39f : -1e30f);
    }
    for (int i = 0; i < KINDS; i++) row[i] = (weft_row){NULL, i == 5 ? 700 : N - 1};
    for (int k = 0; k < MOST; k++)
        FOR_EACH_ORDER(order)
        {
            int32_t *selected = new_bytes(KINDS * tops[k] * sizeof *selected), count[KINDS], *want = new_bytes(N * sizeof *want);
            weft_cuda_index_args a = {.row = row, .score = score, .selected = selected, .count = count, .stride = N,
                                      .n = KINDS, .top_k = tops[k]};
            LAUNCH("top_k", a, weft_cuda_top_k_launch(&a));
            for (int i = 0; i < KINDS; i++) {
                const size_t n = (size_t)row[i].position + 1, taken = brute_force(score + i * N, n, tops[k], want);
                assert_int_equal(count[i], taken);
                assert_memory_equal(selected + (size_t)i * tops[k], want, taken * sizeof *want);
            }
            free(want);
            free(selected);
        }
    free(score);
}

/* ---- attention ---- */

/* Spans of 128 of the given positions, merged in order: cpu/latent.c in plain loops. */
static void latent_twin(const timeline *t, const float *q, size_t latent, const int32_t *at, size_t count, float *out)
{
    const size_t dim = t->l.value_dim;
    float max = 0, sum = 0, score[128];
    float *value = new_floats(latent);
    for (size_t from = 0; from < count; from += 128) {
        const size_t n = count - from < 128 ? count - from : 128;
        float most = -INFINITY, part = 0;
        for (size_t j = 0; j < n; j++) {
            score[j] = 0;
            for (size_t d = 0; d < dim; d++) score[j] = fmaf(t->value[(size_t)at[from + j] * dim + d], q[d], score[j]);
            most = most > score[j] ? most : score[j];
        }
        for (size_t j = 0; j < n; j++) part += score[j] = weft_expf(score[j] - most);
        for (size_t d = 0; d < latent; d++) {
            value[d] = 0;
            for (size_t j = 0; j < n; j++) value[d] = fmaf(score[j], t->value[(size_t)at[from + j] * dim + d], value[d]);
        }
        const float top = from == 0 || most > max ? most : max;
        const float a = weft_expf(max - top), b = weft_expf(most - top);
        sum = from == 0 ? part : sum * a + part * b;
        for (size_t d = 0; d < latent; d++) out[d] = from == 0 ? value[d] : out[d] * a + value[d] * b;
        max = top;
    }
    for (size_t d = 0; d < latent; d++) out[d] *= 1.0f / sum;
    free(value);
}

static void check_latent(weft_kv_type type, uint32_t n_head, uint32_t latent, uint32_t rope, int64_t length)
{
    enum { N = 3, TOP = 150 };
    rng r = {latent + n_head};
    timeline t = new_timeline(type, 32, latent + rope, length, &r);
    const size_t stride = rope + 5, dim = latent + rope, floats = (size_t)N * n_head * latent;
    const int64_t position[N] = {length - 1, length / 2, 0};
    float *q_latent = random_floats(floats, &r), *q_rope = random_floats(N * n_head * stride, &r), *q = new_floats(dim);
    float *want = new_floats(2 * floats), *out = new_floats(floats);
    int32_t *all = new_bytes((size_t)length * sizeof *all), selected[N * TOP], count[N];
    weft_row row[N];
    for (int32_t i = 0; i < (int32_t)length; i++) all[i] = i;
    for (int i = 0; i < N; i++) { /* every second, up to TOP of them */
        row[i] = (weft_row){(void *const *)t.page, position[i]};
        for (count[i] = 0; count[i] < TOP && 2 * count[i] <= position[i]; count[i]++) selected[i * TOP + count[i]] = 2 * count[i];
        for (uint32_t h = 0; h < n_head; h++) {
            const size_t at = (size_t)i * n_head + h;
            for (size_t d = 0; d < dim; d++)
                q[d] = (d < latent ? q_latent[at * latent + d] : q_rope[at * stride + d - latent]) * 0.4f;
            latent_twin(&t, q, latent, all, (size_t)position[i] + 1, want + at * latent);
            latent_twin(&t, q, latent, selected + i * TOP, (size_t)count[i], want + floats + at * latent);
        }
    }
    const uint32_t spans = (uint32_t)length / 128 + 2;
    const size_t slots = (size_t)N * n_head * spans * (WEFT_CUDA_LATENT_STATE + latent);
    float *slot = new_floats(slots);
    for (int sparse = 0; sparse < 2; sparse++)
        for (int split = 0; split < 2; split++)
            FOR_EACH_ORDER(order)
            {
                char name[64];
                weft_cuda_latent_args a = {.kv = weft_cuda_kv_of(&t.l, 1), .row = row, .q_latent = q_latent,
                                           .q_rope = q_rope, .selected = sparse ? selected : NULL, .count = count,
                                           .out = out, .slot = split ? slot : NULL, .scale = 0.4f, .n = N,
                                           .n_head = n_head, .latent_dim = latent, .q_rope_stride = (uint32_t)stride,
                                           .top_k = TOP, .spans = spans};
                clear(out, floats);
                clear(slot, slots);
                snprintf(name, sizeof name, "latent_attention_%s", type_names[type]);
                LAUNCH(name, a, weft_cuda_latent_attention_launch(&a));
                if (split) LAUNCH("latent_merge", a, weft_cuda_latent_merge_launch(&a));
                assert_bits(name, floats, out, want + (sparse ? floats : 0));
            }
    free(slot);
    free(all);
    free(out);
    free(want);
    free(q);
    free(q_rope);
    free(q_latent);
    free_timeline(&t);
}

static void test_latent(void **state)
{
    check_latent(WEFT_KV_F16, 5, 64, 16, 400);
    check_latent(WEFT_KV_F32, 33, 32, 7, 129);
    check_latent(WEFT_KV_Q8_0, 3, 288, 64, 257);
    check_latent(WEFT_KV_F16, 34, 512, 64, 130);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_scores), cmocka_unit_test(test_top_k),
                                       cmocka_unit_test(test_latent)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
