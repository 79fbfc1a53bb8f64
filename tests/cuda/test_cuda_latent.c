/* Latent attention, the indexer's scores and its choice: the bits of the CPU backend, which has references of its own. */
#include "cuda_test.h"

#include "engine/cpu/cpu.h"

static const char *const type_names[] = {[WEFT_KV_F32] = "f32", [WEFT_KV_F16] = "f16", [WEFT_KV_Q8_0] = "q8_0"};

/* ---- a timeline of random positions, and the CPU backend that wrote it ---- */

enum { MOST_PAGES = 12, LAYER = 1 };

typedef struct scene {
    device cpu;
    weft_kv_layout l;
    uint8_t *page[MOST_PAGES];
} scene;

/* What lies behind `length`, and the other layer, is NaN (q8_0: its scales are). */
static scene new_scene(weft_kv_type type, const weft_latent_size *size, int64_t length, rng *r)
{
    scene s = {.l = {.type = type, .n_layer = 2, .n_head_kv = 1, .key_dim = size->index_dim,
                     .value_dim = size->latent_dim + size->rope_dim, .latent_dim = size->latent_dim}};
    const size_t n = (size_t)length, bytes = weft_kv_page_bytes(&s.l);
    weft_error err;
    weft_row *row = new_bytes(n * sizeof *row);
    float *latent = random_floats(n * size->latent_dim, r), *rope = random_floats(n * size->rope_dim, r);
    float *index = random_floats(n * size->index_dim, r);
    assert_true(open_device(&s.cpu, "scalar", 1));
    assert_int_equal(s.cpu.ops->reserve(s.cpu.b, 1, 1024, &err), WEFT_OK);
    assert_int_equal(s.cpu.ops->reserve_latent(s.cpu.b, size, &err), WEFT_OK);
    for (size_t i = 0; i < MOST_PAGES; i++) { /* only those that there should be */
        s.page[i] = i * WEFT_PAGE < n ? new_bytes(bytes) : NULL;
        if (s.page[i]) memset(s.page[i], 0xff, bytes);
    }
    for (size_t i = 0; i < n; i++) row[i] = (weft_row){(void *const *)s.page, (int64_t)i};
    s.cpu.ops->latent_write(s.cpu.b, &s.l, LAYER, row, n, latent, rope, index);
    free(index);
    free(rope);
    free(latent);
    free(row);
    return s;
}

static void free_scene(scene *s)
{
    for (int i = 0; i < MOST_PAGES; i++) free(s->page[i]);
    weft_cpu_backend_free(s->cpu.b);
}

/* ---- the indexer ---- */

/* Scores and choice. The CPU's scores are read where its choice left them: those of tokens with more than TOP positions,
 * one after the other. */
static void check_index(weft_kv_type type, uint32_t n_head, uint32_t dim)
{
    enum { N = 5, LENGTH = 600, TOP = 100 };
    static const int64_t position[N] = {LENGTH - 1, TOP - 1, 256, 0, TOP};
    const weft_latent_size size = {.n_head = 1, .latent_dim = 32, .rope_dim = 3, .index_heads = n_head,
                                   .index_dim = dim, .top_k = TOP, .context = LENGTH};
    rng r = {n_head + 41};
    scene s = new_scene(type, &size, LENGTH, &r);
    float *q = random_floats((size_t)N * n_head * dim, &r), *weight = random_floats((size_t)N * n_head, &r);
    float *score = new_floats(N * LENGTH);
    int32_t want[N * TOP], want_count[N], selected[N * TOP], count[N];
    weft_row row[N];
    for (int i = 0; i < N; i++) row[i] = (weft_row){(void *const *)s.page, position[i]};
    const weft_index cpu = {.layout = &s.l, .layer = LAYER, .n_head = n_head, .top_k = TOP, .row = row, .n = N, .q = q,
                            .weight = weight, .selected = want, .count = want_count};
    s.cpu.ops->index_select(s.cpu.b, &cpu);
    FOR_EACH_ORDER(order)
    {
        char name[64];
        weft_cuda_index_args a = {.kv = weft_cuda_kv_of(&s.l, LAYER), .row = row, .q = q, .weight = weight,
                                  .score = score, .selected = selected, .count = count, .stride = LENGTH, .n = N,
                                  .n_head = n_head, .top_k = TOP};
        clear(score, N * LENGTH);
        memset(selected, 0xff, sizeof selected);
        snprintf(name, sizeof name, "index_score_%s", type_names[type]);
        LAUNCH(name, a, weft_cuda_index_score_launch(&a));
        LAUNCH("top_k", a, weft_cuda_top_k_launch(&a));
        const float *cpu_score = s.cpu.b->latent.score;
        for (int i = 0; i < N; i++) {
            const size_t scored = position[i] < TOP ? 0 : (size_t)position[i] + 1;
            assert_bits(name, scored, score + i * LENGTH, cpu_score);
            for (size_t p = scored; p < LENGTH; p++) assert_true(isnan(score[(size_t)i * LENGTH + p])); /* left alone */
            if (scored) cpu_score += s.cpu.b->latent.score_stride;
            assert_int_equal(count[i], want_count[i]);
            assert_memory_equal(selected + i * TOP, want + i * TOP, (size_t)count[i] * sizeof *want);
        }
    }
    free(score);
    free(weight);
    free(q);
    free_scene(&s);
}

static void test_index(void **state)
{
    for (int type = 0; type < WEFT_KV_TYPES; type++) {
        check_index((weft_kv_type)type, 19, 64);
        check_index((weft_kv_type)type, 1, 33);
        check_index((weft_kv_type)type, 16, 128);
    }
}

/* The choice alone, among scores that are hard to tell apart. */
static void test_top_k(void **state)
{
    enum { N = 1537, KINDS = 6, MOST = 5 };
    static const uint32_t tops[MOST] = {1, 16, 511, 1536, 1537};
    rng r = {43};
    float *score = new_floats(KINDS * N);
    uint32_t *room = new_bytes(N * sizeof *room);
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
                const size_t n = (size_t)row[i].position + 1, taken = n < tops[k] ? n : tops[k];
                cpu_select_top(score + i * N, n, taken, room, want);
                assert_int_equal(count[i], taken);
                assert_memory_equal(selected + (size_t)i * tops[k], want, taken * sizeof *want);
            }
            free(want);
            free(selected);
        }
    free(room);
    free(score);
}

/* ---- attention ---- */

enum { TOKENS = 3, TOP = 150 };

/* Dense and over every second position, up to TOP of them; each in one walk and in spans merged later. */
static void check_latent(weft_kv_type type, uint32_t n_head, uint32_t latent, uint32_t rope, int64_t length)
{
    const weft_latent_size size = {.n_head = n_head, .latent_dim = latent, .rope_dim = rope, .context = length};
    rng r = {latent + n_head};
    scene s = new_scene(type, &size, length, &r);
    const size_t stride = rope + 5, floats = (size_t)TOKENS * n_head * latent;
    const int64_t position[TOKENS] = {length - 1, length / 2, 0};
    float *q_latent = random_floats(floats, &r), *q_rope = random_floats(TOKENS * n_head * stride, &r);
    float *want = new_floats(floats), *out = new_floats(floats);
    int32_t selected[TOKENS * TOP], count[TOKENS];
    weft_row row[TOKENS];
    for (int i = 0; i < TOKENS; i++) {
        row[i] = (weft_row){(void *const *)s.page, position[i]};
        for (count[i] = 0; count[i] < TOP && 2 * count[i] <= position[i]; count[i]++) selected[i * TOP + count[i]] = 2 * count[i];
    }
    const uint32_t spans = (uint32_t)length / WEFT_CUDA_LATENT_SPAN + 2;
    const size_t slots = (size_t)TOKENS * n_head * spans * (WEFT_CUDA_LATENT_STATE + latent);
    float *slot = new_floats(slots);
    for (int sparse = 0; sparse < 2; sparse++) {
        const weft_latent_attention cpu = {.layout = &s.l, .layer = LAYER, .n_head = n_head, .scale = 0.4f, .row = row,
                                           .n = TOKENS, .q_latent = q_latent, .q_rope = q_rope, .q_rope_stride = stride,
                                           .selected = sparse ? selected : NULL, .count = count, .top_k = TOP,
                                           .out = want};
        s.cpu.ops->latent_attention(s.cpu.b, &cpu);
        for (int split = 0; split < 2; split++)
            FOR_EACH_ORDER(order)
            {
                char name[64];
                weft_cuda_latent_args a = {.kv = weft_cuda_kv_of(&s.l, LAYER), .row = row, .q_latent = q_latent,
                                           .q_rope = q_rope, .selected = cpu.selected, .count = count, .out = out,
                                           .slot = split ? slot : NULL, .scale = 0.4f, .n = TOKENS, .n_head = n_head,
                                           .latent_dim = latent, .q_rope_stride = (uint32_t)stride, .top_k = TOP,
                                           .spans = spans};
                clear(out, floats);
                clear(slot, slots);
                snprintf(name, sizeof name, "latent_attention_%s", type_names[type]);
                LAUNCH(name, a, weft_cuda_latent_attention_launch(&a));
                if (split) LAUNCH("latent_merge", a, weft_cuda_latent_merge_launch(&a));
                assert_bits(name, floats, out, want);
            }
    }
    free(slot);
    free(out);
    free(want);
    free(q_rope);
    free(q_latent);
    free_scene(&s);
}

static void test_latent(void **state)
{
    for (int type = 0; type < WEFT_KV_TYPES; type++) {
        check_latent((weft_kv_type)type, 5, 64, 16, 400);
        check_latent((weft_kv_type)type, 33, 32, 7, 129);
        check_latent((weft_kv_type)type, 3, 288, 64, 257);
    }
    check_latent(WEFT_KV_F16, 34, 512, 64, 130);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_index), cmocka_unit_test(test_top_k),
                                       cmocka_unit_test(test_latent)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
