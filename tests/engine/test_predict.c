/* The layer that predicts: its guesses are those of a plain reference, they come true where they should, and nothing
 * else shows that they were made: not the logits, not the draws, not a page. */
#include "tests/engine/count_allocations.h"
#include "tests/engine/mla_model.h"

#include "engine/timeline.h"

#include <fcntl.h>

enum { SHOWN = 10, LONG = 200, CONTEXT = 256, PAGES = CONTEXT / 64 };

static const variant shared_ends = {.name = "ends of the model",
                                    .heads = 4,
                                    .shared = 1,
                                    .dense = 1,
                                    .predictions = 1};
static const variant own_ends = {.name = "ends of its own",
                                 .heads = 20,
                                 .q_lora = 24,
                                 .shared = 1,
                                 .dense = 2,
                                 .sigmoid = true,
                                 .bias = true,
                                 .normalise = true,
                                 .yarn = true,
                                 .predictions = 1,
                                 .own_ends = true,
                                 .scale = 2.5f};
static const variant sparse = {.name = "with an indexer",
                               .heads = 4,
                               .q_lora = 24,
                               .shared = 1,
                               .dense = 1,
                               .sigmoid = true,
                               .bias = true,
                               .predictions = 1,
                               .indexer = true};
static const variant chain = {.name = "a chain", .heads = 4, .q_lora = 24, .shared = 1, .dense = 1, .sigmoid = true,
                              .predictions = 1, .indexer = true, .chain = true};

typedef struct rig {
    char *dir, *path;
    writer *w;
} rig;

static rig rig_of(const variant *v)
{
    rig r = {.dir = make_temp_dir()};
    r.path = weft_path_join(r.dir, "random.gguf");
    r.w = new_mla(v, r.path);
    return r;
}

static void rig_free(rig *r)
{
    writer_free(r->w);
    free(r->path);
    remove_temp_dir(r->dir);
}

static void fill(int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++) ids[i] = (int32_t)(i * i * 7 + i * 37 + 5) % VOCAB;
}

static int best_of(const double *logit, double *out_margin)
{
    int best = 0;
    double second = -1e300;
    for (int i = 1; i < VOCAB; i++)
        if (logit[i] > logit[best]) best = i;
    for (int i = 0; i < VOCAB; i++)
        if (i != best && logit[i] > second) second = logit[i];
    *out_margin = logit[best] - second;
    return best;
}

/* Two guesses behind each id, the second made of what the layer thinks of the first. */
static void compare_guesses(const variant *v)
{
    rig g = rig_of(v);
    const weft_engine_options o = {.kv_type = WEFT_KV_F32, .chunk = 16, .threads = 2};
    weft_model *model = model_open(g.path, &o);
    reference *r = calloc(1, sizeof *r);
    weft_timeline *t = NULL;
    int32_t ids[N_IDS];
    double logits[VOCAB], before[EMBD], own[EMBD], hidden[EMBD], margin;
    int compared = 0;
    assert_null(weft_model_unused_notice(model));
    assert_int_equal(weft_model_get_info(model)->n_predict, 1);
    assert_int_equal(weft_model_get_info(model)->n_layer, LAYERS);
    fill(ids, N_IDS);
    *r = (reference){.w = g.w, .v = v};
    CHECK(weft_timeline_open(&t, model, NULL, ids, SHOWN, err));
    CHECK(weft_timeline_guess(t, 2, err));
    CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
    for (int p = 0; p < N_IDS - 1; p++) {
        reference_prediction(r, ids[p], p, before, own, logits);
        const int first = best_of(logits, &margin);
        const bool clear = margin > 1e-2;
        reference_logits(r, ids[p], p, before, logits); /* before the next */
        if (p < SHOWN) continue;
        CHECK(weft_timeline_append(t, &ids[p], 1, err));
        CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
        if (t->n_asked != 2 || !clear) continue;
        assert_int_equal(t->guess[0], first);
        reference_prediction(r, first, p + 1, own, hidden, logits);
        const int second = best_of(logits, &margin);
        if (margin <= 1e-2) continue;
        assert_int_equal(t->guess[1], second);
        compared++;
    }
    assert_true(compared > (N_IDS - SHOWN) / 2);
    weft_timeline_close(t);
    weft_model_close(model);
    free(r);
    rig_free(&g);
}

static void test_guesses_are_the_references(void **state)
{
    compare_guesses(&shared_ends);
    compare_guesses(&own_ends);
}

/* ---- nothing else shows ---- */

typedef struct outcome {
    int32_t ids[LONG];
    uint8_t logits[LONG][WEFT_DIGEST_BYTES], page[PAGES][WEFT_DIGEST_BYTES];
    int64_t guessed, right;
} outcome;

static weft_status see_page(void *context, int64_t page, const uint8_t digest[WEFT_DIGEST_BYTES], weft_error *err)
{
    memcpy(((outcome *)context)->page[page], digest, WEFT_DIGEST_BYTES);
    return WEFT_OK;
}

static void keep_logits(const weft_timeline *t, outcome *out)
{
    weft_blake2b_of(NULL, 0, weft_timeline_logits(t), VOCAB * sizeof(float), out->logits[weft_timeline_length(t) - 1]);
}

/* Draws until the timeline has LONG ids; its last stays pending. */
static void draw(weft_timeline *t, double temperature, int guesses, outcome *out)
{
    const weft_sampler sampler = {.temperature = temperature, .top_p = 1, .repeat_penalty = 1, .seed = 3};
    weft_timeline_on_page(t, see_page, out);
    CHECK(weft_timeline_guess(t, guesses, err));
    const size_t before = allocations;
    while (weft_timeline_length(t) < LONG) {
        int32_t id;
        CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
        keep_logits(t, out);
        CHECK(weft_timeline_sample(t, &sampler, NULL, &id, NULL, err));
        CHECK(weft_timeline_append(t, &id, 1, err));
    }
    assert_int_equal(allocations, before);
    memcpy(out->ids, weft_timeline_ids(t), sizeof out->ids);
    int64_t right;
    out->guessed += weft_timeline_guessed(t, &right);
    out->right += right;
}

static void expect_same(const outcome *want, const outcome *is, size_t from_id, const char *what)
{
    for (size_t i = 0; i < LONG; i++)
        if (want->ids[i] != is->ids[i]) fail_msg("%s: id %zu differs", what, i);
    for (size_t i = from_id; i < LONG - 1; i++)
        if (memcmp(want->logits[i], is->logits[i], WEFT_DIGEST_BYTES) != 0) fail_msg("%s: logits %zu differ", what, i);
    for (size_t i = from_id / 64; i < LONG / 64; i++)
        if (memcmp(want->page[i], is->page[i], WEFT_DIGEST_BYTES) != 0) fail_msg("%s: page %zu differs", what, i);
}

typedef struct way {
    weft_engine_options options;
    int most;
} way;

static void compare_draws(const rig *g, const way *by, double temperature, const outcome *want, outcome *total)
{
    int32_t ids[SHOWN];
    outcome is = {.guessed = 0};
    weft_timeline *t = NULL;
    weft_model *model = model_open(g->path, &by->options);
    char *kv = weft_path_join(g->dir, "kv");
    fill(ids, SHOWN);
    CHECK(weft_timeline_open(&t, model, kv, ids, SHOWN, err));
    draw(t, temperature, by->most, &is);
    expect_same(want, &is, SHOWN - 1, "drawn with predictions");
    assert_int_equal(weft_timeline_evaluated(t) + weft_timeline_pending(t), LONG);
    total->guessed += is.guessed;
    total->right += is.right;
    weft_timeline_close(t);
    weft_model_close(model);
    CHECK(weft_remove_tree(kv, err));
    free(kv);
}

static outcome plain(const rig *g, double temperature)
{
    const weft_engine_options o = {.threads = 1};
    outcome out = {.guessed = 0};
    weft_timeline *t = NULL;
    int32_t ids[SHOWN];
    char *kv = weft_path_join(g->dir, "plain");
    fill(ids, SHOWN);
    weft_model *model = model_open(g->path, &o);
    CHECK(weft_timeline_open(&t, model, kv, ids, SHOWN, err));
    draw(t, temperature, 0, &out);
    assert_int_equal(out.guessed, 0);
    weft_timeline_close(t);
    weft_model_close(model);
    free(kv);
    return out;
}

static void test_nothing_else_shows(void **state)
{
    static const variant *const of[] = {&shared_ends, &own_ends, &sparse};
    static const way ways[] = {{{.threads = 2, .chunk = 64}, 7},
                               {{.threads = 1, .chunk = 7}, 2},
                               {{.threads = 1, .isa = "scalar"}, 1},
                               {{.threads = 2}, -1}};
    for (size_t k = 0; k < sizeof of / sizeof *of; k++) {
        rig g = rig_of(of[k]);
        outcome total = {.guessed = 0};
        for (int warm = 0; warm < 2; warm++) {
            const outcome want = plain(&g, warm);
            for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
                compare_draws(&g, &ways[i], warm, &want, &total);
            char *kv = weft_path_join(g.dir, "plain");
            CHECK(weft_remove_tree(kv, err));
            free(kv);
        }
        assert_true(total.guessed > LONG);
        rig_free(&g);
    }
}

/* ---- they come true ---- */

static void test_guesses_come_true(void **state)
{
    rig g = rig_of(&chain);
    const weft_engine_options o = {.threads = 2};
    const int32_t first = 1;
    weft_model *model = model_open(g.path, &o);
    for (int most = 1; most <= WEFT_GUESSES; most += 3) {
        weft_timeline *t = NULL;
        outcome is = {.guessed = 0};
        CHECK(weft_timeline_open(&t, model, NULL, &first, 1, err));
        draw(t, 0, most, &is);
        for (int i = 0; i < LONG; i++) assert_int_equal(is.ids[i], i + 1);
        assert_in_range(is.guessed - is.right, 0, most); /* the last ones are not drawn */
        assert_true(is.right >= LONG * most / (most + 1) - most - 1);
        weft_timeline_close(t);
    }
    weft_model_close(model);
    rig_free(&g);
}

/* ---- pages ---- */

/* What is restored, forked or shared goes on guessing, with the same pages behind it: the position before is
 * evaluated once more for its hidden state, unless that came along. */
static void test_goes_on_from_pages(void **state)
{
    static const int64_t cuts[] = {1, 63, 64, 65, 100, 128};
    rig g = rig_of(&sparse);
    const outcome want = plain(&g, 0);
    const weft_engine_options o = {.threads = 2};
    weft_model *model = model_open(g.path, &o);
    char *from = weft_path_join(g.dir, "plain"), *kv = weft_path_join(g.dir, "kv"), *other = weft_path_join(g.dir, "fork");
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        const int64_t cut = cuts[i];
        const size_t given = cut < SHOWN ? SHOWN : (size_t)cut + 1; /* the first ids were not drawn */
        const weft_kv_source source = {from, want.ids, LONG};
        outcome is = {.guessed = 0};
        weft_timeline *t = NULL, *fork = NULL;
        CHECK(weft_timeline_open_from(&t, model, kv, &source, want.ids, (size_t)cut, err));
        assert_int_equal(weft_timeline_restored(t), cut);
        CHECK(weft_timeline_append(t, want.ids + cut, given - (size_t)cut, err));
        draw(t, 0, 3, &is);
        expect_same(&want, &is, given - 1, "over another run's pages");
        assert_int_equal(weft_timeline_evaluated(t) + weft_timeline_shared(t), LONG - 1);
        assert_int_equal(weft_timeline_shared(t), cut - 1);
        memset(is.page, 0, sizeof is.page);
        CHECK(weft_timeline_fork(&fork, t, cut, other, err));
        CHECK(weft_timeline_append(fork, want.ids + cut, given - (size_t)cut, err));
        draw(fork, 0, 3, &is);
        expect_same(&want, &is, given - 1, "forked");
        weft_timeline_close(fork);
        weft_timeline_close(t);
        CHECK(weft_remove_tree(kv, err));
        CHECK(weft_remove_tree(other, err));
    }
    free(from);
    free(kv);
    free(other);
    weft_model_close(model);
    rig_free(&g);
}

/* However a prompt is cut, its pages are those of one that came token by token. */
static void test_prompts_make_the_same_pages(void **state)
{
    static const int chunks[] = {7, 16, 48, 64, 256};
    rig g = rig_of(&sparse);
    const outcome want = plain(&g, 0);
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
        const weft_engine_options o = {.threads = 2, .chunk = chunks[i]};
        weft_model *model = model_open(g.path, &o);
        weft_timeline *t = NULL;
        outcome is = {.guessed = 0};
        char *kv = weft_path_join(g.dir, "kv");
        CHECK(weft_timeline_open(&t, model, kv, want.ids, LONG, err));
        weft_timeline_on_page(t, see_page, &is);
        CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
        for (int p = 0; p < LONG / 64; p++)
            if (memcmp(is.page[p], want.page[p], WEFT_DIGEST_BYTES) != 0) fail_msg("chunk %d: page %d differs", chunks[i], p);
        weft_timeline_close(t);
        weft_model_close(model);
        CHECK(weft_remove_tree(kv, err));
        free(kv);
    }
    rig_free(&g);
}

/* A prompt half evaluated is forked where it stands: the hidden state there is no reason to take it for that of the
 * position before, which is computed again for its logits. */
static void test_fork_amid_a_prompt(void **state)
{
    rig g = rig_of(&sparse);
    const outcome want = plain(&g, 0);
    const weft_engine_options o = {.threads = 1, .chunk = 48};
    weft_model *model = model_open(g.path, &o);
    weft_timeline *t = NULL, *fork = NULL;
    outcome is = {.guessed = 0};
    CHECK(weft_timeline_open(&t, model, NULL, want.ids, 100, err));
    weft_step_item item = {.timeline = t};
    weft_step(&item, 1);
    char *kv = weft_path_join(g.dir, "kv");
    CHECK(weft_timeline_fork(&fork, t, 48, kv, err));
    draw(fork, 0, 2, &is);
    expect_same(&want, &is, 47, "forked amid a prompt");
    weft_timeline_close(fork);
    weft_timeline_close(t);
    weft_model_close(model);
    free(kv);
    rig_free(&g);
}

/* Pages of another run are met on the way: the hidden state from before them is of no use behind them. */
static void test_pages_met_on_the_way(void **state)
{
    rig g = rig_of(&sparse);
    const outcome want = plain(&g, 0);
    char *store = weft_path_join(g.dir, "store"), *kv[2] = {weft_path_join(g.dir, "a"), weft_path_join(g.dir, "b")};
    const weft_engine_options o = {.threads = 1, .prefix_dir = store};
    weft_model *model = model_open(g.path, &o);
    for (int i = 0; i < 2; i++) {
        outcome is = {.guessed = 0};
        weft_timeline *t = NULL;
        CHECK(weft_timeline_open(&t, model, kv[i], want.ids, 63, err)); /* the second: nothing to take over yet */
        CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
        CHECK(weft_timeline_append(t, want.ids + 63, 1, err));
        CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
        CHECK(weft_timeline_append(t, want.ids + 64, 67, err));
        draw(t, 0, 2, &is);
        assert_int_equal(weft_timeline_shared(t), i == 0 ? 0 : 63);
        memcpy(is.page[0], want.page[0], WEFT_DIGEST_BYTES); /* sealed before anybody looked */
        if (i == 1) memcpy(is.page[1], want.page[1], WEFT_DIGEST_BYTES);
        expect_same(&want, &is, 130, "with pages met on the way");
        weft_timeline_close(t);
        free(kv[i]);
    }
    weft_model_close(model);
    free(store);
    rig_free(&g);
}

static void test_fork_takes_the_hidden_state(void **state)
{
    rig g = rig_of(&chain);
    const weft_engine_options o = {.threads = 1};
    weft_model *model = model_open(g.path, &o);
    weft_timeline *t = NULL, *fork = NULL;
    const int32_t ids[] = {1, 2, 3, 4, 5};
    CHECK(weft_timeline_open(&t, model, NULL, ids, 5, err));
    CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
    CHECK(weft_timeline_fork(&fork, t, 5, NULL, err));
    CHECK(weft_timeline_guess(fork, 1, err));
    CHECK(weft_timeline_append(fork, &(int32_t){6}, 1, err));
    CHECK(weft_timeline_evaluate(fork, NULL, NULL, err));
    assert_int_equal(fork->n_asked, 1);
    assert_int_equal(fork->guess[0], 7);
    /* the state before the last of two new ids is not known yet */
    CHECK(weft_timeline_append(fork, (const int32_t[]){9, 10}, 2, err));
    CHECK(weft_timeline_evaluate(fork, NULL, NULL, err));
    assert_int_equal(fork->n_asked, 0);
    weft_timeline_close(fork);
    weft_timeline_close(t);
    weft_model_close(model);
    rig_free(&g);
}

/* ---- several at once ---- */

static void test_several_at_once(void **state)
{
    enum { SETS = 20 }; /* more than one call of the layer takes */
    rig g = rig_of(&sparse);
    const weft_engine_options o = {.threads = 2, .chunk = 128};
    weft_model *model = model_open(g.path, &o);
    weft_timeline *alone[SETS], *t[SETS];
    weft_step_item item[SETS];
    for (int32_t i = 0; i < SETS; i++) {
        const int32_t ids[] = {i + 1, 2 * i + 3, 5 * i % VOCAB};
        CHECK(weft_timeline_open(&alone[i], model, NULL, ids, 3, err));
        CHECK(weft_timeline_open(&t[i], model, NULL, ids, 3, err));
        CHECK(weft_timeline_guess(t[i], 1 + i % 2, err));
        CHECK(weft_timeline_guess(alone[i], 1 + i % 2, err));
        item[i] = (weft_step_item){.timeline = t[i]};
    }
    for (int step = 0; step < 40; step++) {
        weft_step(item, SETS);
        for (int i = 0; i < SETS; i++) {
            int32_t id = (step * 31 + i * 17) % VOCAB;
            assert_true(item[i].status == WEFT_OK && item[i].ready);
            CHECK(weft_timeline_evaluate(alone[i], NULL, NULL, err));
            assert_memory_equal(weft_timeline_logits(t[i]), weft_timeline_logits(alone[i]), VOCAB * sizeof(float));
            for (size_t k = 0; k < t[i]->n_asked; k++) assert_int_equal(t[i]->guess[k], alone[i]->guess[k]);
            if (t[i]->n_guess > 0 && step % 3 == 0) id = t[i]->guess[0]; /* some come true */
            CHECK(weft_timeline_append(alone[i], &id, 1, err));
            CHECK(weft_timeline_append(t[i], &id, 1, err));
        }
    }
    for (int i = 0; i < SETS; i++) {
        int64_t right;
        assert_true(weft_timeline_guessed(t[i], &right) > 10 && right > 5);
        weft_timeline_close(alone[i]);
        weft_timeline_close(t[i]);
    }
    weft_model_close(model);
    rig_free(&g);
}

/* ---- what is not used, what cannot be read ---- */

static void test_further_layers_are_left(void **state)
{
    variant two = sparse;
    two.predictions = 2;
    rig g = rig_of(&two);
    weft_model *model = model_open(g.path, NULL);
    assert_non_null(strstr(weft_model_unused_notice(model), "further layers for multi-token prediction that are not used"));
    weft_model_close(model);
    rig_free(&g);
}

/* With all weights in a file that was cut, the prediction fails first: the pass says so, and a file that is whole again
 * gives the same bits. */
static void test_unreadable(void **state)
{
    rig g = rig_of(&sparse);
    const weft_engine_options o = {.threads = 2, .limit_memory = true, .memory = 0};
    weft_model *whole = model_open(g.path, NULL), *model = NULL;
    weft_timeline *want = NULL, *t = NULL;
    weft_buffer file = WEFT_BUFFER_INIT;
    CHECK(weft_timeline_open(&want, whole, NULL, (const int32_t[]){1, 2, 3}, 3, err));
    CHECK(weft_file_read(g.path, 64 << 20, &file, err));
    model = model_open(g.path, &o);
    CHECK(weft_timeline_open(&t, model, NULL, (const int32_t[]){1, 2, 3}, 3, err));
    CHECK(weft_timeline_guess(t, 2, err));
    for (int32_t id = 4; id < 9; id++) {
        weft_error said = {0};
        CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
        CHECK(weft_timeline_evaluate(want, NULL, NULL, err));
        assert_memory_equal(weft_timeline_logits(t), weft_timeline_logits(want), VOCAB * sizeof(float));
        CHECK(weft_timeline_append(t, &id, 1, err));
        CHECK(weft_timeline_append(want, &id, 1, err));
        assert_int_equal(truncate(g.path, (off_t)(file.size / 8)), 0);
        assert_int_equal(weft_timeline_evaluate(t, NULL, NULL, &said), WEFT_E_STORAGE);
        assert_non_null(strstr(said.message, "it was cut"));
        assert_int_equal(t->n_guess, 0);
        const int fd = open(g.path, O_WRONLY);
        assert_int_equal(pwrite(fd, file.data, file.size, 0), file.size);
        close(fd);
    }
    weft_timeline_close(want);
    weft_timeline_close(t);
    weft_model_close(whole);
    weft_model_close(model);
    weft_buffer_free(&file);
    rig_free(&g);
}

/* ---- whether it pays ---- */

/* How often a layer is asked in 597 tokens, where a second row and a prediction cost so many hundredths of a step. */
static int times_asked(int row, int prediction, bool right)
{
    weft_draft *d;
    draft_cost cost = {.prediction_ns = 0};
    int32_t out[WEFT_GUESSES], ids[600];
    int asked = 0;
    double tokens = 1;
    for (int i = 0; i < 600; i++) ids[i] = i;
    CHECK(draft_new(&d, 600, -1, err));
    assert_int_equal(draft_predictions(d, &cost, WEFT_GUESSES, 1, &tokens), 0); /* nothing is known yet */
    draft_measured(&cost, 1, 1000);
    draft_measured(&cost, 2, 1000 + 10 * row);
    for (int64_t n = 3; n < 600; n++) {
        tokens = 1;
        assert_int_equal(draft_propose(d, &cost, ids, n, WEFT_GUESSES, 1, &tokens, out), 0);
        if (draft_predictions(d, &cost, 1, 1, &tokens) == 0) continue;
        asked++;
        draft_predicted(d, n, &ids[right ? n : 0], 1);
        draft_prediction_measured(&cost, 10 * prediction);
    }
    draft_free(d);
    return asked;
}

/* Asked only where a right guess is cheaper than a step, and, where it is not, once in a while to see. */
static void test_asked_where_it_pays(void **state)
{
    assert_int_equal(times_asked(5, 2, true), 597);
    assert_in_range(times_asked(100, 2, true), 3, 6);
    assert_in_range(times_asked(5, 200, true), 3, 6);
    assert_in_range(times_asked(5, 2, false), 6, 60);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_guesses_are_the_references),
                                       cmocka_unit_test(test_nothing_else_shows),
                                       cmocka_unit_test(test_guesses_come_true),
                                       cmocka_unit_test(test_goes_on_from_pages),
                                       cmocka_unit_test(test_fork_takes_the_hidden_state),
                                       cmocka_unit_test(test_prompts_make_the_same_pages),
                                       cmocka_unit_test(test_fork_amid_a_prompt),
                                       cmocka_unit_test(test_pages_met_on_the_way),
                                       cmocka_unit_test(test_several_at_once),
                                       cmocka_unit_test(test_further_layers_are_left),
                                       cmocka_unit_test(test_unreadable),
                                       cmocka_unit_test(test_asked_where_it_pays)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
