/* Drawing on the device: the ids of engine/sample.c, whose own test has references. */
#include "cuda_test.h"

#include "engine/sample.h"

enum { VOCAB = 5 * 512 + 77, WORDS = VOCAB / 32 + 1, ROWS = 8 };

typedef struct scratch {
    float *weight;
    double *sum;
    int32_t *candidate;
} scratch;

static scratch new_scratch(void)
{
    return (scratch){new_floats(ROWS * VOCAB), new_bytes(ROWS * WEFT_CUDA_SUMS * sizeof(double)),
                     new_bytes(VOCAB * sizeof(int32_t))};
}

static void free_scratch(scratch *s)
{
    free(s->weight);
    free(s->sum);
    free(s->candidate);
}

static void draw_rows(const float *logits, const weft_cuda_draw *draw, scratch *s, weft_cuda_drawn *out)
{
    weft_cuda_sample_args a = {logits, draw, out, s->weight, s->sum, ROWS, VOCAB};
    memset(out, 0x5a, ROWS * sizeof *out);
    clear(s->weight, ROWS * VOCAB);
    memset(s->sum, 0xff, ROWS * WEFT_CUDA_SUMS * sizeof *s->sum);
    LAUNCH("sample_top", a, weft_cuda_sample_top_launch(&a));
    LAUNCH("sample_weigh", a, weft_cuda_sample_weigh_launch(&a));
    LAUNCH("sample_pick", a, weft_cuda_sample_pick_launch(&a));
}

static weft_status host_draw(const float *logits, const weft_cuda_draw *d, scratch *s, int32_t *out_id)
{
    weft_error err;
    const weft_sampler sampler = {.temperature = d->temperature, .top_k = d->top_k, .top_p = d->top_p,
                                  .min_p = d->min_p, .repeat_penalty = 1, .seed = d->seed};
    const weft_mask mask = {d->allowed, 0};
    const weft_sample host = {.logits = logits, .n_vocab = VOCAB, .sampler = &sampler,
                              .mask = d->allowed ? &mask : NULL, .position = d->position, .weight = s->weight,
                              .candidate = s->candidate};
    return weft_sample_draw(&host, out_id, NULL, &err);
}

/* left: whether each row may be, must not be, or must be left to the host. */
typedef enum leaving { MAY, NEVER, ALWAYS } leaving;

static void check(const float *logits, const weft_cuda_draw *draw, leaving left)
{
    scratch s = new_scratch();
    FOR_EACH_ORDER(order)
    {
        weft_cuda_drawn out[ROWS];
        draw_rows(logits, draw, &s, out);
        for (int i = 0; i < ROWS; i++) {
            int32_t want = -1;
            const weft_status status = host_draw(logits + (size_t)i * VOCAB, &draw[i], &s, &want);
            if (status == WEFT_E_MODEL) {
                assert_int_equal(out[i].finite, 0);
                continue;
            }
            assert_int_equal(out[i].finite, 1);
            if (left == ALWAYS) want = WEFT_CUDA_NOT_DRAWN;
            if (left == MAY && out[i].id == WEFT_CUDA_NOT_DRAWN) continue;
            if (out[i].id != (status ? -1 : want))
                fail_msg("row %d: %d, not %d; temperature %g, top-k %d, top-p %g, min-p %g", i, out[i].id, want,
                         draw[i].temperature, draw[i].top_k, draw[i].top_p, draw[i].min_p);
        }
    }
    free_scratch(&s);
}

static const double temperatures[] = {0, 1, 0.3, 5, 0.01, 100};

/* Rows of every kind: 0 and from 4 on all different, 1 many equal, 2 few that count, 3 all equal. */
static void fill(float *logits, rng *r)
{
    for (size_t i = 0; i < ROWS * VOCAB; i++) logits[i] = 4 * next_float(r);
    for (size_t i = 0; i < VOCAB; i++) {
        logits[VOCAB + i] = (float)(next32(r) % 3);
        logits[2 * VOCAB + i] = i % 600 == 599 ? 1 : -1e6f;
        logits[3 * VOCAB + i] = i % 2 ? 0.0f : -0.0f;
    }
}

/* Without filters nothing is left to the host. The last rows are masked: most ids, none or one allowed. */
static void test_plain(void **state)
{
    rng r = {61};
    float *logits = new_floats(ROWS * VOCAB);
    uint32_t some[WORDS], none[WORDS] = {0}, one[WORDS] = {0};
    for (size_t i = 0; i < WORDS; i++) some[i] = next32(&r) << 1 & next32(&r);
    one[VOCAB / 32] = 1u << (VOCAB - 1) % 32;
    for (size_t round = 0; round < 12; round++) {
        weft_cuda_draw draw[ROWS];
        fill(logits, &r);
        if (round == 1) logits[4 * VOCAB + VOCAB - 1] = NAN;
        if (round == 2) logits[5 * VOCAB] = INFINITY;
        if (round == 3) logits[6 * VOCAB + 77] = -INFINITY;
        for (size_t i = 0; i < ROWS; i++)
            draw[i] = (weft_cuda_draw){.temperature = temperatures[(round + i) % 6], .top_p = 1,
                                       .seed = round * 77 + i, .position = (int64_t)(round * i * i),
                                       .allowed = i == 6 ? some : i == 7 ? (round % 2 ? none : one) : NULL};
        check(logits, draw, NEVER);
    }
    free(logits);
}

/* Peaked rows: every combination of filters keeps few, equal weights at the edge among them. */
static void test_filters(void **state)
{
    static const int ks[] = {0, 1, 40, 1000};
    static const double ps[] = {1, 0.9, 1e-6, 0.5}, mins[] = {0, 0.05, 1};
    rng r = {62};
    float *logits = new_floats(ROWS * VOCAB);
    uint32_t some[WORDS];
    for (size_t i = 0; i < WORDS; i++) some[i] = next32(&r) << 1 & next32(&r);
    for (size_t i = 0; i < ROWS * VOCAB; i++) {
        const float x = next_float(&r);
        logits[i] = i % 97 == 5 ? 20 + 2 * x : i % 97 == 6 ? 20.5f : 4 * x;
    }
    uint64_t seed = 0;
    for (size_t k = 0; k < 4; k++)
        for (size_t p = 0; p < 4; p++)
            for (size_t m = 0; m < 3; m++) {
                weft_cuda_draw draw[ROWS];
                if (k + p + m == 0) continue;
                for (size_t i = 0; i < ROWS; i++, seed++)
                    draw[i] = (weft_cuda_draw){.temperature = i % 2 ? 1 : 0.3, .top_p = ps[p], .min_p = mins[m],
                                               .seed = seed, .position = (int64_t)(seed % 5), .top_k = ks[k],
                                               .allowed = i > 4 ? some : NULL};
                const bool wide = ps[p] == 1 && mins[m] == 0 && ks[k] == 1000; /* all weights above 0 compete */
                check(logits, draw, wide ? MAY : NEVER);
            }
    free(logits);
}

/* What is drawn is the host's whatever the row; flat rows are left to it. */
static void test_any_rows(void **state)
{
    rng r = {63};
    float *logits = new_floats(ROWS * VOCAB);
    uint32_t one[WORDS] = {0}, few[WORDS] = {0};
    one[3] = 1;
    for (size_t i = 0; i < WORDS; i++) few[i] = 1u << next32(&r) % 32;
    for (size_t round = 0; round < 12; round++) {
        weft_cuda_draw draw[ROWS];
        fill(logits, &r);
        for (size_t i = 0; i < ROWS; i++)
            draw[i] = (weft_cuda_draw){.temperature = temperatures[(round + i) % 6],
                                       .top_k = round % 3 ? (int)(next32(&r) % 200) : 0,
                                       .top_p = round % 4 ? 1 - 0.001 * (double)(next32(&r) % 999) : 1,
                                       .min_p = round % 5 ? 0 : 0.1, .seed = next32(&r), .position = (int64_t)round,
                                       .allowed = i == 6 ? few : i == 7 ? one : NULL};
        check(logits, draw, MAY);
    }
    free(logits);
}

/* KEPT candidates are put in order and one more is not, if the draw needs that one. */
static void test_limit(void **state)
{
    enum { EXTRA = 4 };
    float *logits = new_floats(ROWS * VOCAB);
    weft_cuda_draw draw[ROWS];
    rng r = {64};
    for (size_t n = WEFT_CUDA_KEPT; n <= WEFT_CUDA_KEPT + 1; n++) {
        for (size_t i = 0; i < ROWS * VOCAB; i++) logits[i] = -1e6f; /* weight 0 */
        for (size_t row = 0; row < ROWS; row++) {
            for (size_t i = 0; i < n; i++) logits[row * VOCAB + EXTRA + 2 * i] = 1 + 0.001f * next_float(&r);
            draw[row] = (weft_cuda_draw){.temperature = 1, .top_p = 1, .min_p = 0.5, .seed = row};
        }
        check(logits, draw, n > WEFT_CUDA_KEPT ? ALWAYS : NEVER);
    }
    /* as many far below: not needed, so they do not count */
    for (size_t row = 0; row < ROWS; row++) {
        for (size_t i = 0; i < VOCAB; i++) logits[row * VOCAB + i] = i < 20 ? 5 + next_float(&r) : -5 + next_float(&r);
        draw[row] = (weft_cuda_draw){.temperature = 1, .top_p = 1, .top_k = 20, .seed = row};
    }
    check(logits, draw, NEVER);
    free(logits);
}

/* A row that nobody asked about, between others. */
static void test_not_asked(void **state)
{
    rng r = {65};
    float *logits = random_floats(ROWS * VOCAB, &r);
    weft_cuda_draw draw[ROWS];
    scratch s = new_scratch();
    for (size_t i = 0; i < ROWS; i++) draw[i] = (weft_cuda_draw){.temperature = i % 2 ? -1 : 1, .top_p = 1, .seed = i};
    FOR_EACH_ORDER(order)
    {
        weft_cuda_drawn out[ROWS];
        draw_rows(logits, draw, &s, out);
        for (int i = 0; i < ROWS; i++)
            if (i % 2)
                assert_int_equal(out[i].id, WEFT_CUDA_NOT_DRAWN);
            else
                assert_true(out[i].id >= 0 && out[i].finite);
    }
    free_scratch(&s);
    free(logits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_plain), cmocka_unit_test(test_filters),
                                       cmocka_unit_test(test_any_rows), cmocka_unit_test(test_limit),
                                       cmocka_unit_test(test_not_asked)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
