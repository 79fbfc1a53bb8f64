/* Attention on the device: the bits of the CPU backend, for every way to launch it. */
#include "cuda_test.h"

typedef struct shape {
    weft_kv_type type;
    uint32_t n_head, n_head_kv, key_dim, value_dim;
    int64_t window;
} shape;

enum { MOST_PAGES = 13 };

/* A timeline of `length` random positions; what lies behind them is NaN (q8_0: NaN scales). */
static void fill_pages(device *d, const weft_kv_layout *l, int64_t length, uint8_t **page, rng *r)
{
    const size_t bytes = weft_kv_page_bytes(l), n = (size_t)length;
    float *k = random_floats(n * l->n_head_kv * l->key_dim, r);
    float *v = random_floats(n * l->n_head_kv * l->value_dim, r);
    weft_row *row = new_bytes(n * sizeof *row);
    for (int i = 0; i < MOST_PAGES; i++) { /* only those that there should be */
        page[i] = i * WEFT_PAGE < length ? new_bytes(bytes) : NULL;
        if (page[i]) memset(page[i], 0xff, bytes);
    }
    for (size_t i = 0; i < n; i++) row[i] = (weft_row){(void *const *)page, (int64_t)i};
    for (uint32_t layer = 0; layer < l->n_layer; layer++) d->ops->kv_write(d->b, l, layer, row, n, k, v);
    free(row);
    free(v);
    free(k);
}

static void free_pages(uint8_t **page)
{
    for (int i = 0; i < MOST_PAGES; i++) free(page[i]);
}

/* n tokens that end at the given positions, against the CPU; tile 1 and, if they follow one another, more. */
static void check(const shape *s, const int64_t *position, const int *timeline, uint32_t n, uint32_t most_tile)
{
    const weft_kv_layout l = {.type = s->type, .n_layer = 2, .n_head_kv = s->n_head_kv, .key_dim = s->key_dim, .value_dim = s->value_dim};
    static const char *const type_names[] = {[WEFT_KV_F32] = "f32", [WEFT_KV_F16] = "f16", [WEFT_KV_Q8_0] = "q8_0"};
    rng r = {(uint64_t)position[0] + s->key_dim};
    device d;
    weft_error err;
    uint8_t *page[2][MOST_PAGES];
    weft_row row[16];
    int64_t length[2] = {1, 1};
    const size_t out_floats = (size_t)n * s->n_head * s->value_dim;
    float *q = random_floats((size_t)n * s->n_head * s->key_dim, &r);
    float *want = new_floats(out_floats), *out = new_floats(out_floats);
    assert_true(open_device(&d, "scalar", 1));
    assert_int_equal(d.ops->reserve(d.b, 64, (size_t)s->n_head * WEFT_CUDA_DIM, &err), WEFT_OK);
    for (uint32_t i = 0; i < n; i++)
        if (position[i] >= length[timeline[i]]) length[timeline[i]] = position[i] + 1;
    for (int t = 0; t < 2; t++) fill_pages(&d, &l, length[t], page[t], &r);
    for (uint32_t i = 0; i < n; i++) row[i] = (weft_row){(void *const *)page[timeline[i]], position[i]};
    weft_attention cpu = {.layout = &l, .layer = 1, .n_head = s->n_head, .scale = 0.3f, .window = s->window,
                          .row = row, .n = n, .q = q, .out = want};
    d.ops->attention(d.b, &cpu);
    const uint32_t spans = MOST_PAGES / 4 + 1;
    const size_t slots = (size_t)n * s->n_head * spans * (WEFT_CUDA_STATE + s->value_dim);
    float *slot = new_floats(slots);
    for (uint32_t queries = 8; queries <= 16; queries *= 2)
        for (uint32_t tile = 1; tile <= most_tile; tile++)
            for (int split = 0; split < 2; split++)
                FOR_EACH_ORDER(order)
                {
                    char name[64];
                    weft_cuda_attention_args a = {.kv = weft_cuda_kv_of(&l, 1), .row = row, .q = q, .out = out,
                                                  .slot = split ? slot : NULL, .window = s->window, .scale = 0.3f,
                                                  .n = n, .n_head = s->n_head, .tile = tile, .spans = spans};
                    clear(out, out_floats);
                    clear(slot, slots);
                    snprintf(name, sizeof name, "attention_%s_%u", type_names[s->type], queries);
                    LAUNCH(name, a, weft_cuda_attention_launch(&a, queries));
                    if (split) LAUNCH("attention_merge", a, weft_cuda_attention_merge_launch(&a));
                    assert_bits(name, out_floats, out, want);
                }
    free(slot);
    for (int t = 0; t < 2; t++) free_pages(page[t]);
    weft_cpu_backend_free(d.b);
    free(out);
    free(want);
    free(q);
}

static void test_shapes(void **state)
{
    static const shape shapes[] = {
        {WEFT_KV_F16, 4, 2, 64, 64, 0},    {WEFT_KV_F32, 3, 3, 33, 17, 0},  {WEFT_KV_Q8_0, 7, 1, 80, 80, 0},
        {WEFT_KV_F16, 14, 1, 128, 128, 0}, {WEFT_KV_F16, 2, 1, 256, 256, 0}, {WEFT_KV_Q8_0, 4, 2, 64, 40, 100},
    };
    static const int64_t position[] = {0, 63, 64, 255, 256, 300, 767, 513};
    static const int timeline[] = {0, 1, 0, 1, 1, 0, 0, 1};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (size_t at = 0; at < 8; at += 4) check(&shapes[i], position + at, timeline + at, 4, 1);
}

/* Tokens that follow one another share their keys: over the ends of pages, spans and windows. */
static void test_tiles(void **state)
{
    static const shape shapes[] = {
        {WEFT_KV_F16, 4, 2, 32, 48, 0}, {WEFT_KV_Q8_0, 3, 1, 40, 64, 70}, {WEFT_KV_F32, 2, 2, 16, 32, 257}};
    static const int64_t first[] = {0, 60, 254, 509};
    static const int timeline[5] = {0, 0, 0, 0, 0};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (size_t k = 0; k < sizeof first / sizeof *first; k++) {
            int64_t position[5];
            for (int t = 0; t < 5; t++) position[t] = first[k] + t;
            check(&shapes[i], position, timeline, 5, 4);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_shapes), cmocka_unit_test(test_tiles)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
