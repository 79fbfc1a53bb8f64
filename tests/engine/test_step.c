/* Several timelines in a pass, guesses behind the last id, several threads on one model: the same bits
 * as alone, plain and in one thread. On the tiny model. */
#include "engine/draft.h"
#include "tests/engine/count_allocations.h"
#include "tests/engine/engine_test.h"

#include <pthread.h>
#include <sys/resource.h>
#include <sys/wait.h>

enum { SETS = 4, DRAWN = 120 };

static const char tiny[] = "agent/tiny-agent-f16.gguf";

/* Four rows of ids that differ from the start, and their digests, each computed alone. */
typedef struct rig {
    weft_model *model;
    size_t n;
    int32_t *ids[SETS];
    digests alone[SETS];
} rig;

static int setup(void **state)
{
    rig *r = calloc(1, sizeof *r);
    const weft_engine_options options = {.threads = 2, .chunk = 64};
    fixture f = fixture_open("tiny-agent-1");
    r->model = model_open(data_path(tiny), &options);
    r->n = f.n;
    for (size_t i = 0; i < SETS; i++) {
        r->ids[i] = malloc(f.n * sizeof **r->ids);
        for (size_t k = 0; k < f.n; k++) r->ids[i][k] = f.ids[(k + i * 37) % f.n];
        r->alone[i] = digests_of(r->model, r->ids[i], f.n);
    }
    fixture_close(&f);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    rig *r = *state;
    for (size_t i = 0; i < SETS; i++) {
        free(r->ids[i]);
        free(r->alone[i].at);
    }
    weft_model_close(r->model);
    free(r);
    return 0;
}

static weft_timeline *open_at(weft_model *model, const char *dir, const int32_t *ids, size_t n)
{
    weft_timeline *t = NULL;
    CHECK(weft_timeline_open(&t, model, dir, ids, n, err));
    return t;
}

static void compare_logits(const rig *r, const weft_timeline *t, const digests *alone)
{
    uint8_t digest[WEFT_DIGEST_BYTES];
    size_t n = (size_t)weft_timeline_length(t);
    size_t bytes = (size_t)weft_model_get_info(r->model)->n_vocab * sizeof(float);
    weft_blake2b_of(NULL, 0, weft_timeline_logits(t), bytes, digest);
    if (memcmp(digest, alone->at[n - 1], sizeof digest) != 0)
        fail_msg("the logits differ at position %zu", n - 1);
}

static uint32_t random_below(uint64_t *x, uint32_t n)
{
    *x ^= *x << 13;
    *x ^= *x >> 7;
    *x ^= *x << 17;
    return (uint32_t)((*x >> 33) % n);
}

/* ---- several timelines in a pass ---- */

/* Appends of random length, at random times: whatever the passes were made of, each timeline that is
 * ready has the logits that it has alone. */
static void random_company(const rig *r, int chunk, uint64_t seed)
{
    const weft_engine_options options = {.threads = 2, .chunk = chunk};
    weft_model *model = model_open(data_path(tiny), &options);
    weft_step_item item[SETS] = {0};
    size_t done[SETS] = {0}, ready = 0;
    for (size_t i = 0; i < SETS; i++) item[i].timeline = open_at(model, NULL, NULL, 0);
    while (ready < SETS) {
        for (size_t i = 0; i < SETS; i++) {
            bool idle = weft_timeline_pending(item[i].timeline) == 0;
            size_t more = random_below(&seed, 4) ? 1 : random_below(&seed, 90);
            if (!idle || random_below(&seed, 5) == 0) continue;
            if (more > r->n - done[i]) more = r->n - done[i];
            CHECK(weft_timeline_append(item[i].timeline, r->ids[i] + done[i], more, err));
            done[i] += more;
        }
        weft_step(item, SETS);
        ready = 0;
        for (size_t i = 0; i < SETS; i++) {
            assert_int_equal(item[i].status, WEFT_OK);
            assert_int_equal(item[i].ready, weft_timeline_pending(item[i].timeline) == 0);
            if (item[i].ready && done[i]) compare_logits(r, item[i].timeline, &r->alone[i]);
            ready += item[i].ready && done[i] == r->n;
        }
    }
    for (size_t i = 0; i < SETS; i++) {
        assert_int_equal(weft_timeline_evaluated(item[i].timeline), r->n);
        weft_timeline_close(item[i].timeline);
    }
    weft_model_close(model);
}

static void test_company_changes_nothing(void **state)
{
    const int chunk[] = {1, 7, 64, 512};
    for (size_t i = 0; i < 4; i++) random_company(*state, chunk[i], 17 + i);
}

/* Decoders get a row in every pass; prompts share the rest evenly. */
static void test_shares(void **state)
{
    const rig *r = *state;
    weft_step_item item[SETS] = {0};
    for (size_t i = 0; i < SETS; i++)
        item[i].timeline = open_at(r->model, NULL, r->ids[i], i == 0 ? 1 : r->n);
    for (int pass = 0; pass < 15; pass++) {
        int64_t before[SETS];
        for (size_t i = 0; i < SETS; i++) before[i] = weft_timeline_evaluated(item[i].timeline);
        weft_step(item, SETS);
        assert_true(item[0].ready);
        for (size_t i = 1; i < SETS; i++)
            assert_int_equal(weft_timeline_evaluated(item[i].timeline) - before[i], 21);
        CHECK(weft_timeline_append(item[0].timeline, r->ids[0] + pass + 1, 1, err));
    }
    for (size_t i = 0; i < SETS; i++) weft_timeline_close(item[i].timeline);
}

/* More decoders than rows, and a prompt: everyone is served within as many passes as it takes. */
static void test_nobody_starves(void **state)
{
    const rig *r = *state;
    enum { MANY = 20, ROWS = 16 };
    const weft_engine_options options = {.threads = 1, .chunk = ROWS};
    weft_model *model = model_open(data_path(tiny), &options);
    weft_step_item item[MANY] = {0};
    int64_t served[MANY] = {0};
    for (size_t i = 0; i < MANY; i++)
        item[i].timeline = open_at(model, NULL, r->ids[0], i + 1 == MANY ? 100 : 1);
    for (int pass = 0; pass < 19; pass++) {
        weft_step(item, MANY);
        for (size_t i = 0; i + 1 < MANY; i++) {
            if (!item[i].ready) continue;
            served[i]++;
            CHECK(weft_timeline_append(item[i].timeline, r->ids[0] + served[i], 1, err));
        }
    }
    for (size_t i = 0; i + 1 < MANY; i++) assert_in_range(served[i], 11, 13);
    assert_int_equal(weft_timeline_evaluated(item[MANY - 1].timeline), 19 * 4);
    for (size_t i = 0; i < MANY; i++) weft_timeline_close(item[i].timeline);
    weft_model_close(model);
}

/* In a child: the file of one timeline may not grow; the others, in memory, do not notice. */
static void child_with_one_full_disk(const rig *r, const char *dir)
{
    const struct rlimit limit = {1 << 16, 1 << 16};
    weft_step_item item[SETS] = {0};
    for (size_t i = 0; i < SETS; i++) {
        weft_timeline *t = NULL;
        if (weft_timeline_open(&t, r->model, i == 1 ? dir : NULL, r->ids[i], r->n, NULL)) _exit(9);
        item[i].timeline = t;
    }
    if (setrlimit(RLIMIT_FSIZE, &limit)) _exit(10);
    for (int pass = 0; pass < 100; pass++) weft_step(item, SETS);
    for (size_t i = 0; i < SETS; i++) {
        if (i == 1 && (item[i].status != WEFT_E_STORAGE || item[i].ready)) _exit(11);
        if (i == 1 && !strstr(item[i].err.message, "no space")) _exit(12);
        if (i != 1 && !item[i].ready) _exit(13);
        if (i != 1) compare_logits(r, item[i].timeline, &r->alone[i]);
    }
    _exit(0);
}

static void test_errors_stay_with_their_timeline(void **state)
{
    const rig *r = *state;
    char *dir = make_temp_dir();
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        const weft_engine_options options = {.threads = 1};
        rig own = *r; /* threads do not survive a fork */
        own.model = model_open(data_path(tiny), &options);
        child_with_one_full_disk(&own, dir);
    }
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    remove_temp_dir(dir);
}

/* ---- guesses ---- */

/* The ids are given; guesses of them are right as often as chance has it. */
static void test_proposals_change_nothing(void **state)
{
    const rig *r = *state;
    char *dir = make_temp_dir();
    uint64_t seed = 5;
    weft_timeline *t = open_at(r->model, dir, r->ids[0], 50);
    for (size_t n = 50; n < r->n; n++) {
        int32_t guess[9];
        for (size_t i = 0; i < 9; i++) {
            bool right = n + i < r->n && random_below(&seed, 4);
            guess[i] = right ? r->ids[0][n + i] : (int32_t)random_below(&seed, 1000);
        }
        weft_timeline_propose(t, guess, random_below(&seed, 10));
        CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
        assert_int_equal(weft_timeline_evaluated(t), n);
        compare_logits(r, t, &r->alone[0]);
        if (n % 101 == 0) { /* closed with guesses in its last page */
            weft_timeline_close(t);
            t = open_at(r->model, dir, r->ids[0], n + 1);
            assert_int_equal(weft_timeline_restored(t), n);
        } else {
            CHECK(weft_timeline_append(t, r->ids[0] + n, 1, err));
        }
    }
    weft_timeline_close(t);
    digests d =
        digests_new(r->model, r->n); /* what stands in the file is what plain decoding writes */
    t = open_at(r->model, dir, r->ids[0], r->n);
    assert_true(weft_timeline_restored(t) >= (int64_t)r->n - 1);
    CHECK(weft_timeline_evaluate_each(t, digests_visit, &d, err));
    digests_compare(&r->alone[0], &d, r->n - 1, r->n, "restored after guesses");
    free(d.at);
    weft_timeline_close(t);
    remove_temp_dir(dir);
}

static void test_several_ids_are_compared_one_by_one(void **state)
{
    const rig *r = *state;
    const int32_t *ids = r->ids[1];
    int64_t right;
    weft_timeline *t = open_at(r->model, NULL, ids, 60);
    int32_t guess[7];
    memcpy(guess, ids + 60, sizeof guess);
    guess[5]++;
    weft_timeline_propose(t, guess, 7);
    CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
    assert_int_equal(weft_timeline_guessed(t, &right), 0); /* not in a prompt's pass */
    CHECK(weft_timeline_append(t, ids + 60, 1, err));
    weft_timeline_propose(t, guess + 1, 6);
    CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
    CHECK(weft_timeline_append(t, ids + 61, 3, err));
    assert_int_equal(weft_timeline_pending(t), 0);
    compare_logits(r, t, &r->alone[1]);
    CHECK(weft_timeline_append(t, ids + 64, 3, err)); /* one right, then a wrong one */
    assert_int_equal(weft_timeline_pending(t), 2);
    CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
    compare_logits(r, t, &r->alone[1]);
    assert_int_equal(weft_timeline_guessed(t, &right), 6);
    assert_int_equal(right, 4);
    assert_int_equal(weft_timeline_evaluated(t), 67);
    const int32_t no_id[] = {ids[67], -1, 5};
    weft_timeline_propose(t, no_id, 3);
    CHECK(weft_timeline_append(t, ids + 67, 1, err)); /* drops what was not evaluated */
    CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
    compare_logits(r, t, &r->alone[1]);
    weft_timeline_close(t);
}

/* Then ids of a page and more follow, which another run may have: the page before is sealed and counted first. */
static void test_guesses_complete_a_page(void **state)
{
    const rig *r = *state;
    const int32_t *ids = r->ids[1];
    char *dir = make_temp_dir();
    weft_timeline *t = open_at(r->model, dir, ids, 60);
    CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
    CHECK(weft_timeline_append(t, ids + 60, 1, err));
    weft_timeline_propose(t, ids + 61, 3);
    CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
    CHECK(weft_timeline_append(t, ids + 61, 3, err));
    assert_int_equal(weft_timeline_pending(t), 0);
    CHECK(weft_timeline_append(t, ids + 64, 66, err));
    CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
    compare_logits(r, t, &r->alone[1]);
    assert_int_equal(weft_timeline_evaluated(t), 130);
    weft_timeline_close(t);
    remove_temp_dir(dir);
}

/* At the end of the context there is no room for guesses. */
static void test_guesses_end_with_the_context(void **state)
{
    const rig *r = *state;
    const weft_engine_options options = {.context = 100, .threads = 1};
    weft_model *model = model_open(data_path(tiny), &options);
    weft_timeline *t = open_at(model, NULL, r->ids[0], 96);
    CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
    for (size_t n = 96; n < 100; n++) {
        CHECK(weft_timeline_append(t, r->ids[0] + n, 1, err));
        weft_timeline_propose(t, (const int32_t[]){1, 2, 3, 4, 5, 6, 7}, 7);
        CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
        compare_logits(r, t, &r->alone[0]);
    }
    assert_int_equal(weft_timeline_guessed(t, NULL), 3 + 2 + 1);
    weft_timeline_close(t);
    weft_model_close(model);
}

typedef struct drawing {
    weft_timeline *timeline;
    weft_sampler sampler;
    int32_t drawn[DRAWN];
    weft_status status;
} drawing;

static const double temperatures[SETS] = {0, 0.7, 1.5, 0};

static drawing drawing_at(const rig *r, weft_model *model, size_t set, const char *dir, int guesses)
{
    drawing d = {
        .timeline = open_at(model, dir, r->ids[set], 100 + 50 * set),
        .sampler = {
            .temperature = temperatures[set], .top_p = 0.95, .repeat_penalty = 1, .seed = set}};
    CHECK(weft_timeline_guess(d.timeline, guesses, err));
    return d;
}

static void *draw_all(void *context)
{
    drawing *d = context;
    for (int i = 0; i < DRAWN && !d->status; i++) {
        d->status = weft_timeline_evaluate(d->timeline, NULL, NULL, NULL);
        if (!d->status)
            d->status =
                weft_timeline_sample(d->timeline, &d->sampler, NULL, &d->drawn[i], NULL, NULL);
        if (!d->status) d->status = weft_timeline_append(d->timeline, &d->drawn[i], 1, NULL);
    }
    return NULL;
}

/* Plain, in one thread: what everything below must draw. */
static void draw_alone(const rig *r, int32_t out[SETS][DRAWN])
{
    for (size_t i = 0; i < SETS; i++) {
        drawing d = drawing_at(r, r->model, i, NULL, 0);
        draw_all(&d);
        assert_int_equal(d.status, WEFT_OK);
        memcpy(out[i], d.drawn, sizeof d.drawn);
        weft_timeline_close(d.timeline);
    }
}

static void test_lookup_changes_nothing(void **state)
{
    const rig *r = *state;
    const int most[] = {-1, 1, 4, 7};
    int32_t plain[SETS][DRAWN];
    int64_t all = 0, all_right = 0;
    draw_alone(r, plain);
    for (size_t m = 0; m < 4; m++) {
        for (size_t i = 0; i < SETS; i++) {
            drawing d = drawing_at(r, r->model, i, NULL, most[m]);
            int64_t right;
            size_t before = allocations;
            draw_all(&d);
            assert_int_equal(allocations, before);
            assert_int_equal(d.status, WEFT_OK);
            assert_memory_equal(d.drawn, plain[i], sizeof d.drawn);
            CHECK(weft_timeline_evaluate(d.timeline, NULL, NULL, err));
            assert_int_equal(weft_timeline_evaluated(d.timeline), weft_timeline_length(d.timeline));
            all += weft_timeline_guessed(d.timeline, &right);
            all_right += right;
            weft_timeline_close(d.timeline);
        }
    }
    assert_true(all > 100 && all_right > 50); /* the tiny agent repeats itself */
    assert_true(all_right < all);
}

/* "a b c d a b c": d comes next, and whoever counts on it has measured what a row costs first. */
static void test_first_step_is_plain(void **state)
{
    const int32_t ids[] = {5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 5, 6, 7, 8, 9, 10, 11, 12, 13};
    const int64_t n = sizeof ids / sizeof *ids;
    const int most[] = {-1, 3};
    int32_t out[WEFT_GUESSES];
    for (size_t i = 0; i < 2; i++) {
        draft_cost cost = {.prediction_ns = 0};
        double tokens = 1;
        weft_draft *d;
        CHECK(draft_new(&d, n, most[i], err));
        /* who asked for a number gets it at once */
        assert_int_equal(draft_propose(d, &cost, ids, n, WEFT_GUESSES, 1, &tokens, out), i ? 3 : 0);
        draft_measured(&cost, 1, 1000);
        tokens = 1;
        assert_true(draft_propose(d, &cost, ids, n, WEFT_GUESSES, 1, &tokens, out) > 0);
        assert_int_equal(out[0], 14);
        draft_free(d);
    }
}

/* ---- threads ---- */

static void test_threads_share_a_model(void **state)
{
    const rig *r = *state;
    const weft_engine_options options = {.threads = 2, .chunk = 64};
    int32_t plain[SETS][DRAWN];
    draw_alone(r, plain);
    for (int guesses = -1; guesses <= 7; guesses += 4) {
        weft_model *model = model_open(data_path(tiny), &options);
        char *dir[SETS];
        drawing d[SETS];
        pthread_t thread[SETS];
        CHECK(weft_model_share(model, SETS, err));
        for (size_t i = 0; i < SETS; i++) {
            dir[i] = make_temp_dir();
            d[i] = drawing_at(r, model, i, dir[i], guesses);
        }
        for (size_t i = 0; i < SETS; i++)
            assert_int_equal(pthread_create(&thread[i], NULL, draw_all, &d[i]), 0);
        for (size_t i = 0; i < SETS; i++) pthread_join(thread[i], NULL);
        for (size_t i = 0; i < SETS; i++) {
            assert_int_equal(d[i].status, WEFT_OK);
            assert_memory_equal(d[i].drawn, plain[i], sizeof plain[i]);
            weft_timeline_close(d[i].timeline);
            remove_temp_dir(dir[i]);
        }
        weft_model_close(model);
    }
}

/* One thread's failure and another's interruption leave the rest alone. */
static int stop_at_once(void *context, const char *what, int64_t done, int64_t total)
{
    return 1;
}

static void *evaluate_and_stop(void *context)
{
    drawing *d = context;
    d->status = weft_timeline_evaluate(d->timeline, stop_at_once, NULL, NULL);
    return NULL;
}

static void test_interrupting_one_thread(void **state)
{
    const rig *r = *state;
    const weft_engine_options options = {.threads = 1, .chunk = 16};
    int32_t plain[SETS][DRAWN];
    draw_alone(r, plain);
    weft_model *model = model_open(data_path(tiny), &options);
    pthread_t thread[2];
    CHECK(weft_model_share(model, 2, err));
    drawing d = drawing_at(r, model, 0, NULL, 0), stopped = drawing_at(r, model, 1, NULL, 0);
    assert_int_equal(pthread_create(&thread[0], NULL, draw_all, &d), 0);
    assert_int_equal(pthread_create(&thread[1], NULL, evaluate_and_stop, &stopped), 0);
    pthread_join(thread[0], NULL);
    pthread_join(thread[1], NULL);
    assert_int_equal(stopped.status, WEFT_E_INTERRUPTED);
    assert_in_range(weft_timeline_evaluated(stopped.timeline), 1, 16);
    assert_int_equal(d.status, WEFT_OK);
    assert_memory_equal(d.drawn, plain[0], sizeof plain[0]);
    weft_error why;
    assert_int_equal(weft_timeline_evaluate_each(d.timeline, digests_visit, NULL, &why),
                     WEFT_E_INVALID);
    weft_timeline_close(d.timeline);
    weft_timeline_close(stopped.timeline);
    weft_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_company_changes_nothing),
        cmocka_unit_test(test_shares),
        cmocka_unit_test(test_nobody_starves),
        cmocka_unit_test(test_errors_stay_with_their_timeline),
        cmocka_unit_test(test_proposals_change_nothing),
        cmocka_unit_test(test_several_ids_are_compared_one_by_one),
        cmocka_unit_test(test_guesses_complete_a_page),
        cmocka_unit_test(test_guesses_end_with_the_context),
        cmocka_unit_test(test_first_step_is_plain),
        cmocka_unit_test(test_lookup_changes_nothing),
        cmocka_unit_test(test_threads_share_a_model),
        cmocka_unit_test(test_interrupting_one_thread),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
