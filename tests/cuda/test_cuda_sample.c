/* Drawing on the device: the ids of engine/sample.c. */
#include "cuda_test.h"

#include "engine/sample.h"

enum { VOCAB = 5 * 512 + 77, ROWS = 8 };

static void check(const float *logits, const weft_cuda_draw *draw)
{
    float *weight = new_floats(VOCAB);
    int32_t *candidate = new_bytes(VOCAB * sizeof *candidate);
    weft_cuda_drawn out[ROWS];
    FOR_EACH_ORDER(order)
    {
        weft_cuda_sample_args a = {logits, draw, out, ROWS, VOCAB};
        memset(out, 0x5a, sizeof out);
        LAUNCH("sample", a, weft_cuda_sample_launch(&a));
        for (int i = 0; i < ROWS; i++) {
            weft_error err;
            int32_t want = -1;
            const weft_sampler sampler = {.temperature = draw[i].temperature, .top_p = 1, .repeat_penalty = 1,
                                          .seed = draw[i].seed};
            const weft_mask mask = {draw[i].allowed, 0};
            const weft_sample s = {.logits = logits + (size_t)i * VOCAB, .n_vocab = VOCAB, .sampler = &sampler,
                                   .mask = draw[i].allowed ? &mask : NULL, .position = draw[i].position,
                                   .weight = weight, .candidate = candidate};
            const weft_status status = weft_sample_draw(&s, &want, NULL, &err);
            assert_int_equal(out[i].finite, status != WEFT_E_MODEL);
            if (status != WEFT_E_MODEL) assert_int_equal(out[i].id, status ? -1 : want);
        }
    }
    free(candidate);
    free(weight);
}

static void test_draws(void **state)
{
    static const double temperatures[] = {0, 1, 0.3, 5, 0.01, 100};
    rng r = {61};
    float *logits = new_floats(ROWS * VOCAB);
    uint32_t some[VOCAB / 32 + 1], none[VOCAB / 32 + 1] = {0}, one[VOCAB / 32 + 1] = {0};
    for (size_t i = 0; i < sizeof some / sizeof *some; i++) some[i] = next32(&r) << 1 & next32(&r);
    one[VOCAB / 32] = 1u << (VOCAB - 1) % 32;
    for (size_t round = 0; round < 12; round++) {
        weft_cuda_draw draw[ROWS];
        for (size_t i = 0; i < ROWS * VOCAB; i++) logits[i] = 4 * next_float(&r);
        for (size_t i = 0; i < VOCAB; i++) {
            logits[VOCAB + i] = (float)(next32(&r) % 3); /* many equal */
            logits[2 * VOCAB + i] = i % 600 == 599 ? 1 : -1e6f; /* few that count */
            logits[3 * VOCAB + i] = i % 2 ? 0.0f : -0.0f;
        }
        if (round == 1) logits[4 * VOCAB + VOCAB - 1] = NAN;
        if (round == 2) logits[5 * VOCAB] = INFINITY;
        for (size_t i = 0; i < ROWS; i++)
            draw[i] = (weft_cuda_draw){temperatures[(round + i) % 6], round * 77 + i, (int64_t)(round * i * i),
                                       i == 6 ? some : i == 7 ? (round % 2 ? none : one) : NULL};
        check(logits, draw);
    }
    free(logits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_draws)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
