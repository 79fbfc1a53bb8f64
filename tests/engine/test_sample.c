/* The sampler: exact distributions, filters, masks, determinism. No model is needed. */
#include "tests/engine/engine_test.h"

#include "engine/sample.h"

#include <math.h>

enum { N = 1000, DRAWS = 50000 };

static const weft_sampler plain = {.temperature = 1, .top_p = 1, .repeat_penalty = 1, .seed = 7};

typedef struct rig {
    float logits[N], weight[N];
    int32_t candidate[N];
    weft_sample s;
    weft_sampler sampler;
} rig;

static rig *rig_new(const weft_sampler *sampler, size_t n) {
    rig *r = calloc(1, sizeof *r);
    assert_non_null(r);
    r->sampler = *sampler;
    r->s = (weft_sample){.logits = r->logits,
                         .n_vocab = n,
                         .sampler = &r->sampler,
                         .weight = r->weight,
                         .candidate = r->candidate};
    for (size_t i = 0; i < n; i++) /* a lumpy distribution, the same on every machine */
        r->logits[i] = (float)(6 * weft_sample_uniform(99, (int64_t)i) - 3);
    return r;
}

static int32_t draw_at(rig *r, int64_t position) {
    int32_t id = -1;
    r->s.position = position;
    CHECK(weft_sample_draw(&r->s, &id, NULL, err));
    assert_true(id >= 0 && (size_t)id < r->s.n_vocab);
    return id;
}

/* Probabilities of the tempered distribution by libm. */
static void exact(const rig *r, double temperature, double *p) {
    double top = -INFINITY, sum = 0;
    for (size_t i = 0; i < r->s.n_vocab; i++) top = fmax(top, r->logits[i]);
    for (size_t i = 0; i < r->s.n_vocab; i++) sum += p[i] = exp((r->logits[i] - top) / temperature);
    for (size_t i = 0; i < r->s.n_vocab; i++) p[i] /= sum;
}

/* Draws at DRAWS positions and compares the counts with p by chi-square: the 1 - 1e-6 quantile of k
 * degrees of freedom is below k + 4.8 sqrt(2 k) + 16. The positions are fixed, so is the outcome.
 */
static void check_distribution(rig *r, const double *p) {
    int count[N] = {0};
    for (int64_t i = 0; i < DRAWS; i++) count[draw_at(r, i)]++;
    double chi = 0;
    int freedom = -1;
    for (size_t i = 0; i < r->s.n_vocab; i++) {
        if (p[i] == 0) {
            assert_int_equal(count[i], 0);
            continue;
        }
        double expected = p[i] * DRAWS;
        chi += (count[i] - expected) * (count[i] - expected) / expected;
        freedom++;
    }
    if (chi > freedom + 4.8 * sqrt(2.0 * freedom) + 16)
        fail_msg("chi-square %g for %d degrees of freedom", chi, freedom);
}

static void test_distribution(void **state) {
    const double temperatures[] = {0.5, 1, 1.7};
    for (size_t i = 0; i < 3; i++) {
        weft_sampler sampler = plain;
        sampler.temperature = temperatures[i];
        rig *r = rig_new(&sampler, 100);
        double p[N];
        exact(r, temperatures[i], p);
        check_distribution(r, p);
        free(r);
    }
}

/* Zeroes what the filter must drop and renormalises. */
static void keep(const rig *r, double *p, bool (*kept)(const rig *, const double *, size_t)) {
    double out[N], sum = 0;
    for (size_t i = 0; i < r->s.n_vocab; i++) sum += out[i] = kept(r, p, i) ? p[i] : 0;
    for (size_t i = 0; i < r->s.n_vocab; i++) p[i] = out[i] / sum;
}

static double mass_before(const rig *r, const double *p, size_t id, int *rank) {
    double mass = 0;
    *rank = 0;
    for (size_t j = 0; j < r->s.n_vocab; j++) {
        if (!(p[j] > p[id] || (p[j] == p[id] && j < id))) continue;
        mass += p[j];
        (*rank)++;
    }
    return mass;
}

static bool in_top_k(const rig *r, const double *p, size_t id) {
    int rank;
    mass_before(r, p, id, &rank);
    return rank < r->sampler.top_k;
}

static bool in_top_p(const rig *r, const double *p, size_t id) {
    int rank;
    return mass_before(r, p, id, &rank) < r->sampler.top_p;
}

static bool in_min_p(const rig *r, const double *p, size_t id) {
    double top = 0;
    for (size_t j = 0; j < r->s.n_vocab; j++) top = fmax(top, p[j]);
    return p[id] >= r->sampler.min_p * top;
}

static void test_filters(void **state) {
    double p[N];
    weft_sampler sampler = plain;
    sampler.top_k = 7;
    rig *r = rig_new(&sampler, 100);
    exact(r, 1, p);
    keep(r, p, in_top_k);
    check_distribution(r, p);
    free(r);

    sampler = plain;
    sampler.top_p = 0.6;
    r = rig_new(&sampler, 100);
    exact(r, 1, p);
    keep(r, p, in_top_p);
    check_distribution(r, p);
    free(r);

    sampler = plain;
    sampler.min_p = 0.3;
    r = rig_new(&sampler, 100);
    exact(r, 1, p);
    keep(r, p, in_min_p);
    check_distribution(r, p);
    free(r);
}

/* The nucleus always holds the most probable id, and k = 1 is greedy at any temperature. */
static void test_narrow_filters(void **state) {
    weft_sampler narrow = plain;
    narrow.top_p = 1e-9;
    rig *r = rig_new(&narrow, N);
    weft_sampler greedy = plain;
    greedy.temperature = 0;
    rig *g = rig_new(&greedy, N);
    int32_t best = draw_at(g, 0);
    for (int64_t i = 0; i < 200; i++) assert_int_equal(draw_at(r, i), best);
    r->sampler = plain;
    r->sampler.top_k = 1;
    r->sampler.temperature = 5;
    for (int64_t i = 0; i < 200; i++) assert_int_equal(draw_at(r, i), best);
    r->sampler = plain;
    r->sampler.temperature = 1e-300; /* all weight on the largest, no NAN */
    for (int64_t i = 0; i < 200; i++) assert_int_equal(draw_at(r, i), best);
    free(r);
    free(g);
}

static void test_ties_go_to_the_lower_id(void **state) {
    weft_sampler sampler = plain;
    sampler.temperature = 0;
    rig *r = rig_new(&sampler, 100);
    r->logits[41] = r->logits[40] = r->logits[99] = 50;
    assert_int_equal(draw_at(r, 0), 40);
    r->sampler = plain;
    r->sampler.top_k = 2;
    for (int64_t i = 0; i < 300; i++) {
        int32_t id = draw_at(r, i);
        assert_true(id == 40 || id == 41);
    }
    free(r);
}

static void test_mask(void **state) {
    weft_sampler sampler = plain;
    rig *r = rig_new(&sampler, 100);
    uint32_t allowed[4] = {0};
    const int32_t ids[] = {3, 31, 32, 64, 99};
    double p[N], only[N] = {0}, sum = 0;
    exact(r, 1, p);
    for (size_t i = 0; i < 5; i++) {
        allowed[ids[i] / 32] |= 1u << (ids[i] % 32);
        sum += only[ids[i]] = p[ids[i]];
    }
    for (size_t i = 0; i < 100; i++) only[i] /= sum;
    weft_mask mask = {allowed, 5};
    r->s.mask = &mask;
    check_distribution(r, only);
    r->sampler.temperature = 0;
    int32_t best = draw_at(r, 0);
    for (size_t i = 0; i < 5; i++) assert_true(r->logits[best] >= r->logits[ids[i]]);
    r->sampler.temperature = 1;
    r->sampler.top_k = 1;
    assert_int_equal(draw_at(r, 0), best);

    const uint32_t nothing[4] = {0};
    mask = (weft_mask){nothing, 0};
    weft_error err;
    int32_t id = -5;
    assert_int_equal(weft_sample_draw(&r->s, &id, NULL, &err), WEFT_E_INVALID);
    assert_int_equal(id, -5);
    free(r);
}

/* Random masks over a vocabulary that no word of a mask divides: greedy against the plain definition,
 * and draws over more than one block of weights. */
static void test_words_and_blocks(void **state) {
    weft_sampler sampler = plain;
    uint32_t allowed[(N + 31) / 32];
    double p[N];
    for (int64_t round = 0; round < 200; round++) {
        rig *r = rig_new(&sampler, N - 3);
        int32_t best = -1;
        weft_mask mask = {allowed, 1};
        for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++)
            allowed[i] = (uint32_t)(weft_sample_uniform(5, 100 * round + (int64_t)i) * 0x1p32) &
                         (uint32_t)(weft_sample_uniform(6, 7 * round) * 0x1p32);
        allowed[round % 30] |= 1;
        r->logits[round % 900] = r->logits[round % 90]; /* ties */
        for (size_t i = 0; i < r->s.n_vocab; i++)
            if ((allowed[i / 32] >> (i % 32) & 1) && (best < 0 || r->logits[i] > r->logits[best]))
                best = (int32_t)i;
        r->s.mask = &mask;
        r->sampler.temperature = 0;
        assert_int_equal(draw_at(r, round), best);
        free(r);
    }
    rig *r = rig_new(&sampler, N);
    exact(r, 1, p);
    check_distribution(r, p);
    free(r);
}

/* The ids allowed may be the least probable ones: what is masked must not swallow the weight. */
static void test_mask_in_the_far_tail(void **state) {
    rig *r = rig_new(&plain, 100);
    r->logits[5] = 200;
    r->logits[60] = -300;
    r->logits[61] = -300;
    uint32_t allowed[4] = {0, (1u << 28) | (1u << 29), 0, 0};
    weft_mask mask = {allowed, 2};
    r->s.mask = &mask;
    int seen[2] = {0};
    for (int64_t i = 0; i < 1000; i++) seen[draw_at(r, i) - 60]++;
    assert_true(seen[0] > 400 && seen[1] > 400);
    free(r);
}

static void test_draws_depend_on_seed_and_position_alone(void **state) {
    rig *a = rig_new(&plain, N), *b = rig_new(&plain, N);
    for (int64_t i = 999; i >= 0; i--) b->candidate[i] = draw_at(b, i); /* backwards */
    int same = 0, shifted = 0;
    for (int64_t i = 0; i < 1000; i++) assert_int_equal(draw_at(a, i), b->candidate[i]);
    b->sampler.seed++;
    for (int64_t i = 0; i < 1000; i++) {
        same += draw_at(a, i) == draw_at(b, i);
        shifted += draw_at(a, i + 1) == draw_at(b, i);
    }
    assert_true(same < 30 && shifted < 30); /* about 4 of 1000 by chance */
    free(a);
    free(b);
}

static void test_uniform(void **state) {
    /* Computed apart from this program: another value would change every recorded run. */
    assert_true(weft_sample_uniform(1, 0) == 3316356330981164 * 0x1p-53);
    assert_true(weft_sample_uniform(1, 1) == 8498871037046174 * 0x1p-53);
    assert_true(weft_sample_uniform(UINT64_MAX, 12345) == 1306681058093215 * 0x1p-53);
    double mean = 0, lag = 0, before = 0.5;
    for (int64_t i = 0; i < 100000; i++) {
        double u = weft_sample_uniform(1, i);
        assert_true(u >= 0 && u < 1);
        mean += u;
        lag += (u - 0.5) * (before - 0.5);
        before = u;
    }
    assert_true(fabs(mean / 100000 - 0.5) < 0.004);
    assert_true(fabs(lag / 100000) < 0.001);
}

static void test_repeat_penalty(void **state) {
    weft_sampler sampler = plain;
    sampler.temperature = 0;
    sampler.repeat_penalty = 2;
    rig *r = rig_new(&sampler, 100);
    for (size_t i = 0; i < 100; i++) r->logits[i] = -50;
    r->logits[10] = 8;
    r->logits[20] = 5;
    r->logits[30] = -1;
    int32_t recent[70];
    for (size_t i = 0; i < 70; i++) recent[i] = 10;
    r->s.recent = recent;
    r->s.n_recent = 1;
    assert_int_equal(draw_at(r, 0), 20); /* 8 / 2 < 5 */
    r->s.n_recent = 70;                  /* a repeated id is penalised once */
    r->logits[20] = 3;
    assert_int_equal(draw_at(r, 0), 10); /* 8 / 2 > 3 */
    recent[5] = 20;                      /* 65 tokens back: forgotten */
    r->logits[20] = 6;
    assert_int_equal(draw_at(r, 0), 20);
    recent[6] = 20; /* 64 back: counts */
    assert_int_equal(draw_at(r, 0), 10);
    r->logits[10] = r->logits[20] = -49; /* negative ones are multiplied */
    assert_int_equal(draw_at(r, 0), 30);
    free(r);
}

static void test_logprob(void **state) {
    weft_sampler sampler = plain;
    sampler.temperature = 0.3;
    sampler.repeat_penalty = 1.5;
    rig *r = rig_new(&sampler, N);
    double p[N];
    exact(r, 1, p);
    for (int64_t i = 0; i < 100; i++) {
        int32_t id;
        float logprob = 0;
        r->s.position = i;
        CHECK(weft_sample_draw(&r->s, &id, &logprob, err));
        assert_true(fabs(logprob - log(p[id])) < 1e-5);
        assert_int_equal(id, draw_at(r, i));
    }
    free(r);
}

static void test_bad_input(void **state) {
    rig *r = rig_new(&plain, N);
    const float bad[] = {NAN, INFINITY, -INFINITY};
    weft_error err;
    int32_t id = -1;
    for (size_t i = 0; i < 3; i++) {
        for (size_t at = 0; at < N; at += 333) {
            float before = r->logits[at];
            r->logits[at] = bad[i];
            assert_int_equal(weft_sample_draw(&r->s, &id, NULL, &err), WEFT_E_MODEL);
            r->logits[at] = before;
        }
    }
    const weft_sampler wrong[] = {
        {.temperature = -1, .top_p = 1, .repeat_penalty = 1},
        {.temperature = NAN, .top_p = 1, .repeat_penalty = 1},
        {.temperature = 1, .top_p = 0, .repeat_penalty = 1},
        {.temperature = 1, .top_p = 1.5, .repeat_penalty = 1},
        {.temperature = 1, .top_p = 1, .min_p = -0.1, .repeat_penalty = 1},
        {.temperature = 1, .top_p = 1, .top_k = -1, .repeat_penalty = 1},
        {.temperature = 1, .top_p = 1, .repeat_penalty = 0},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        r->sampler = wrong[i];
        assert_int_equal(weft_sample_draw(&r->s, &id, NULL, &err), WEFT_E_USAGE);
    }
    assert_int_equal(id, -1);
    free(r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_distribution),
        cmocka_unit_test(test_filters),
        cmocka_unit_test(test_narrow_filters),
        cmocka_unit_test(test_ties_go_to_the_lower_id),
        cmocka_unit_test(test_mask),
        cmocka_unit_test(test_words_and_blocks),
        cmocka_unit_test(test_mask_in_the_far_tail),
        cmocka_unit_test(test_draws_depend_on_seed_and_position_alone),
        cmocka_unit_test(test_uniform),
        cmocka_unit_test(test_repeat_penalty),
        cmocka_unit_test(test_logprob),
        cmocka_unit_test(test_bad_input),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
