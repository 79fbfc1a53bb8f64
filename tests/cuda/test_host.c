/* The CUDA backend's host side: what a pass costs in calls of the driver, and whole models through it, with the
 * kernels under the shim. */
#include "tests/cuda/host_test.h"
#include "tests/engine/mla_model.h"

#include "engine/cuda/cuda.h"

#include <math.h>

static int start(void **state)
{
    mock_cuda_reset();
    return 0;
}

/* ---- calls ---- */

/* sampler: announced, if there is one. */
static mock_cuda_counts counts_of_step(weft_timeline *t, int32_t id, const weft_sampler *sampler)
{
    const mock_cuda_counts before = mock_cuda_counted;
    mock_cuda_counts now;
    CHECK(weft_timeline_append(t, &id, 1, err));
    if (sampler) weft_timeline_will_draw(t, sampler, NULL);
    CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
    now = mock_cuda_counted;
    long *const d[] = {&now.kernels, &now.graphs, &now.copies_in, &now.copies_out, &now.copies_within,
                       &now.copies_across, &now.copied_in_graphs, &now.synchronisations, &now.allocations,
                       &now.captures, &now.unpinned_out, &now.direct};
    const long *const b[] = {&before.kernels, &before.graphs, &before.copies_in, &before.copies_out,
                             &before.copies_within, &before.copies_across, &before.copied_in_graphs,
                             &before.synchronisations, &before.allocations, &before.captures,
                             &before.unpinned_out, &before.direct};
    for (size_t i = 0; i < sizeof d / sizeof *d; i++) *d[i] -= *b[i];
    return now;
}

/* One launch and one synchronisation a token, drawn on the device or not; every 64 tokens a page is made and one goes
 * out. */
static void check_calls_of_decode(const weft_sampler *sampler)
{
    const int draws = sampler != NULL;
    weft_model *model = gpu_open(agent_path(), "cuda", 64);
    weft_timeline *t = NULL;
    int32_t *ids = some_ids(130, 1024);
    CHECK(weft_timeline_open(&t, model, NULL, ids, 70, err));
    CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
    for (int i = 70; i < 250; i++) {
        const mock_cuda_counts c = counts_of_step(t, ids[i % 130], sampler);
        const bool begins = i % 64 == 0, ends = i % 64 == 63;
        if (i == 70) assert_int_equal(c.captures, 1);
        if (i > 70) assert_int_equal(c.captures, 0);
        assert_int_equal(c.graphs, 1);
        assert_int_equal(c.direct, 0);
        assert_int_equal(c.synchronisations, 1);
        assert_int_equal(c.copied_in_graphs, 3 + draws); /* rows and x in, logits out, an id out */
        assert_int_equal(c.copies_in, 2 + begins); /* its address, into the table */
        assert_int_equal(c.copies_out, 1 + draws + ends);
        assert_int_equal(c.copies_within, begins); /* zeros */
        assert_int_equal(c.unpinned_out, 0);
        assert_int_equal(c.allocations, 0);
        assert_true(c.kernels > 4 * 9);
    }
    free(ids);
    weft_timeline_close(t);
    weft_model_close(model);
    assert_nothing_left();
}

static const weft_sampler plain = {.temperature = 0.8, .top_p = 1, .repeat_penalty = 1, .seed = 3};

static void test_calls_of_decode(void **state)
{
    check_calls_of_decode(NULL);
    check_calls_of_decode(&plain);
}

/* Of n GPUs each launches its part; the residual stream crosses n - 1 times; still one wait. */
static void test_calls_on_several_gpus(void **state)
{
    mock_cuda_config_now.gpus = 3;
    weft_model *model = gpu_open(agent_path(), "cuda:0,1,2", 64);
    weft_timeline *t = NULL;
    int32_t *ids = some_ids(70, 1024);
    assert_string_equal(weft_model_get_info(model)->backend, "cuda-8.0-x3");
    CHECK(weft_timeline_open(&t, model, NULL, ids, 70, err));
    CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
    (void)counts_of_step(t, 1, &plain);
    const mock_cuda_counts c = counts_of_step(t, 2, &plain);
    assert_int_equal(c.graphs, 3);
    assert_int_equal(c.direct, 0);
    assert_int_equal(c.copies_across, 2);
    assert_int_equal(c.synchronisations, 1);
    free(ids);
    weft_timeline_close(t);
    weft_model_close(model);
    assert_nothing_left();
}

/* ---- results ---- */

static digests gpu_digests(const char *path, const char *engine, int chunk, const int32_t *ids, size_t n)
{
    weft_model *model = gpu_open(path, engine, chunk);
    digests d = digests_of(model, ids, n);
    weft_model_close(model);
    assert_nothing_left();
    return d;
}

/* Chunks, and so graphs and direct calls, one GPU or three: the same bits. */
static void test_same_bits(void **state)
{
    enum { N = 140 };
    int32_t *ids = some_ids(N, 1024);
    mock_cuda_run = weft_shim_launch;
    mock_cuda_config_now.gpus = 3;
    digests want = gpu_digests(agent_path(), "cuda:1", 64, ids, N);
    static const struct {
        const char *engine;
        int chunk;
    } ways[] = {{"cuda", 1}, {"cuda", 7}, {"cuda:2,0,1", 40}};
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        digests got = gpu_digests(agent_path(), ways[i].engine, ways[i].chunk, ids, N);
        digests_compare(&want, &got, 0, N, ways[i].engine);
        free(got.at);
    }
    free(want.at);
    free(ids);
}

typedef struct distance {
    float *logits; /* [n][n_vocab] */
    size_t n_vocab;
} distance;

static void keep_logits(void *context, int64_t position, const float *logits)
{
    distance *d = context;
    memcpy(d->logits + (size_t)position * d->n_vocab, logits, d->n_vocab * sizeof *logits);
}

static float *logits_of(const char *path, const weft_engine_options *o, const int32_t *ids, size_t n)
{
    weft_model *model = model_open(path, o);
    weft_timeline *t = NULL;
    distance d = {.n_vocab = (size_t)weft_model_get_info(model)->n_vocab};
    d.logits = malloc(n * d.n_vocab * sizeof *d.logits);
    CHECK(weft_timeline_open(&t, model, NULL, ids, n, err));
    CHECK(weft_timeline_evaluate_each(t, keep_logits, &d, err));
    weft_timeline_close(t);
    weft_model_close(model);
    return d.logits;
}

/* The largest difference, in root mean squares of the CPU's logits. */
static double compare_with_cpu(const char *path, weft_kv_type type, size_t n, size_t n_vocab)
{
    int32_t *ids = some_ids(n, (int32_t)n_vocab);
    float *cpu = logits_of(path, &(weft_engine_options){.engine = "cpu", .kv_type = type}, ids, n);
    float *gpu = logits_of(path, &(weft_engine_options){.engine = "cuda", .kv_type = type}, ids, n);
    double worst = 0, squares = 0;
    for (size_t i = 0; i < n * n_vocab; i++) {
        double difference = fabs((double)cpu[i] - (double)gpu[i]);
        assert_true(isfinite(gpu[i]));
        if (difference > worst) worst = difference;
        squares += (double)cpu[i] * (double)cpu[i];
    }
    free(cpu);
    free(gpu);
    free(ids);
    return worst / sqrt(squares / (double)(n * n_vocab));
}

/* Of float weights only the orders of sums differ, 2^-24 of a partial sum each (kernels.h); through the layers of
 * this model that comes to some 1e-5. */
static void test_against_cpu(void **state)
{
    mock_cuda_run = weft_shim_launch;
    for (int type = 0; type < WEFT_KV_TYPES; type++) {
        const double far = compare_with_cpu(agent_path(), (weft_kv_type)type, 100, 1024);
        if (far > 1e-4) fail_msg("KV type %d: %g from the CPU's logits", type, far);
    }
}

/* A model's matrices take them in turn. */
static const weft_tensor_type few_bits[] = {
    WEFT_Q2_K,  WEFT_IQ4_NL,  WEFT_IQ2_XXS, WEFT_Q3_K,    WEFT_MXFP4, WEFT_IQ1_S, WEFT_IQ4_XS, WEFT_TQ1_0, WEFT_IQ3_XXS,
    WEFT_NVFP4, WEFT_IQ2_XS, WEFT_IQ1_M,   WEFT_IQ3_S,  WEFT_Q1_0,  WEFT_IQ2_S, WEFT_Q2_0,   WEFT_TQ2_0};
enum { N_FEW_BITS = sizeof few_bits / sizeof *few_bits };

static bool has_type(const writer *w, weft_tensor_type type)
{
    size_t i = 0;
    while (i < w->n && w->t[i].type != type) i++;
    return i < w->n;
}

/* Of quantised weights activations are rounded to 8 bits, and a difference in the last place may tip one: 1/127 of
 * a block's largest, in a row of some hundred. */
static void test_families(void **state)
{
    static const struct {
        const char *what;
        spec s;
    } models[] = {
        {"gemma3", {.arch = "gemma3", .head_dim = 16, .rope_dim = 16, .theta = 1e6f, .window = 8, .period = 2,
                    .head_norms = true, .post_norms = true, .tied = true, .gelu = true}},
        {"q4_k", {.arch = "qwen2", .head_dim = 64, .rope_dim = 64, .theta = 1e6f, .bias = true, .embd = 256,
                  .ff = 512, .type = WEFT_Q4_K}},
        {"experts", {.arch = "qwen3moe", .head_dim = 16, .rope_dim = 16, .theta = 1e6f, .head_norms = true,
                     .embd = 32, .ff = 32, .experts = 6, .used = 2}},
        {"experts, q8_0", {.arch = "qwen3moe", .head_dim = 16, .rope_dim = 16, .theta = 1e6f, .head_norms = true,
                           .embd = 64, .ff = 64, .experts = 6, .used = 2, .type = WEFT_Q8_0}},
        {"few bits", {.arch = "llama", .head_dim = 64, .rope_dim = 64, .theta = 1e6f, .embd = 256, .ff = 512,
                      .mix = few_bits, .n_mix = N_FEW_BITS}},
        {"experts of few bits", {.arch = "qwen3moe", .head_dim = 64, .rope_dim = 64, .theta = 1e6f,
                                 .head_norms = true, .embd = 256, .ff = 256, .experts = 6, .used = 2,
                                 .mix = few_bits, .n_mix = N_FEW_BITS}},
    };
    char *dir = make_temp_dir();
    mock_cuda_run = weft_shim_launch;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/m%zu.gguf", dir, i);
        writer *w = new_model(&models[i].s, path);
        for (size_t k = 0; k < models[i].s.n_mix; k++) assert_true(has_type(w, models[i].s.mix[k]));
        writer_free(w);
        const bool quantised = models[i].s.type != WEFT_F32 || models[i].s.n_mix;
        const double far = compare_with_cpu(path, WEFT_KV_F16, TOKENS, VOCAB);
        if (far > (quantised ? 5e-2 : 1e-4)) fail_msg("%s: %g from the CPU's logits", models[i].what, far);
    }
    remove_temp_dir(dir);
}

/* A type that no kernel knows is refused by name before memory is taken. */
static void test_unknown_type(void **state)
{
    const weft_tensor t = {.name = "blk.0.attn_q.weight", .type = (weft_tensor_type)9, .n_dims = 2, .dim = {256, 16, 1, 1}};
    weft_weight *w = NULL;
    weft_error e;
    assert_int_equal(cuda_weight_new(NULL, &t, &w, &e), WEFT_E_MODEL);
    assert_string_equal(e.message, "tensor blk.0.attn_q.weight: type unknown has no GPU kernels; use --engine cpu");
    assert_null(w);
}

/* DeepSeek-V3.2's layers: latents, indexer, groups of experts. Chunks and steps by graph: the same bits. */
static void test_latent(void **state)
{
    enum { N = 90 };
    const char *path = data_path("dsv32/tiny-f16.gguf");
    char *own = strdup(path);
    mock_cuda_run = weft_shim_launch;
    weft_model *model = model_open(own, &(weft_engine_options){.engine = "cpu"});
    const size_t n_vocab = (size_t)weft_model_get_info(model)->n_vocab;
    weft_model_close(model);
    const double far = compare_with_cpu(own, WEFT_KV_F16, N, n_vocab);
    if (far > 1e-3) fail_msg("%g from the CPU's logits", far);
    int32_t *ids = some_ids(N, (int32_t)n_vocab);
    digests want = gpu_digests(own, "cuda", 64, ids, N), got = gpu_digests(own, "cuda", 7, ids, N);
    digests_compare(&want, &got, 0, N, "chunks of 7");
    free(want.at);
    free(got.at);
    free(ids);
    free(own);
}

/* ---- draws ---- */

enum { DRAWN = 10, WORDS = 1024 / 32 };

/* A mask that changes from position to position. */
static weft_mask mask_at(int64_t position, uint32_t allowed[WORDS])
{
    for (size_t i = 0; i < WORDS; i++) allowed[i] = (uint32_t)(i + 1) * 2654435761u * (uint32_t)position;
    return (weft_mask){allowed, 0};
}

/* Ids drawn behind a few, announced or not. *out_device: how many of them the device drew. */
static void draw_run(weft_model *model, const weft_sampler *sampler, bool masked, bool announced, int32_t *out,
                     int *out_device)
{
    weft_timeline *t = NULL;
    int32_t *ids = some_ids(5, 1024);
    uint32_t allowed[WORDS];
    *out_device = 0;
    CHECK(weft_timeline_open(&t, model, NULL, ids, 5, err));
    for (int i = 0; i < DRAWN; i++) {
        const weft_mask mask = mask_at(weft_timeline_length(t), allowed);
        if (announced) weft_timeline_will_draw(t, sampler, masked ? &mask : NULL);
        memset(allowed, 0, sizeof allowed); /* it was copied */
        CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
        *out_device += t->announced.id >= 0;
        (void)mask_at(weft_timeline_length(t), allowed);
        CHECK(weft_timeline_sample(t, sampler, masked ? &mask : NULL, &out[i], NULL, err));
        if (t->announced.id >= 0) assert_int_equal(out[i], t->announced.id);
        CHECK(weft_timeline_append(t, &out[i], 1, err));
    }
    free(ids);
    weft_timeline_close(t);
}

/* The ids are those of the host, whatever is announced; the penalty stays with it. */
static void check_draws(const char *engine)
{
    static const weft_sampler samplers[] = {
        {.temperature = 0, .top_p = 1, .repeat_penalty = 1},
        {.temperature = 1.5, .top_p = 1, .repeat_penalty = 1, .seed = 5},
        {.temperature = 2, .top_k = 20, .top_p = 0.9, .min_p = 0.01, .repeat_penalty = 1, .seed = 6},
        {.temperature = 1, .top_p = 0.9, .repeat_penalty = 1.2, .seed = 7},
    };
    weft_model *model = gpu_open(agent_path(), engine, 64);
    for (size_t i = 0; i < sizeof samplers / sizeof *samplers; i++)
        for (int masked = 0; masked < 2; masked++) {
            int32_t want[DRAWN], got[DRAWN];
            int on_device;
            draw_run(model, &samplers[i], masked, false, want, &on_device);
            assert_int_equal(on_device, 0);
            draw_run(model, &samplers[i], masked, true, got, &on_device);
            assert_int_equal(on_device, samplers[i].repeat_penalty == 1 ? DRAWN : 0);
            assert_memory_equal(got, want, sizeof want);
        }
    weft_model_close(model);
    assert_nothing_left();
}

static void test_draws(void **state)
{
    mock_cuda_run = weft_shim_launch;
    mock_cuda_config_now.gpus = 2;
    check_draws("cuda:0");
    check_draws("cuda:1,0");
}

static int32_t sampled(const weft_timeline *t, const weft_sampler *sampler, const weft_mask *mask)
{
    int32_t id;
    CHECK(weft_timeline_sample(t, sampler, mask, &id, NULL, err));
    return id;
}

/* What was announced otherwise, or for another position, is drawn on the host. A wrong id stands for the device's, which
 * shows who draws. */
static void test_announced_otherwise(void **state)
{
    enum { WRONG = 1023 };
    weft_sampler sampler = {.temperature = 0, .top_p = 1, .repeat_penalty = 1}, other = sampler;
    uint32_t allowed[WORDS], others[WORDS];
    const weft_mask mask = mask_at(77, allowed), different = mask_at(77, others);
    int32_t *ids = some_ids(6, 1024), id;
    float logprob;
    weft_timeline *t = NULL, *fork = NULL;
    mock_cuda_run = weft_shim_launch;
    weft_model *model = gpu_open(agent_path(), "cuda", 64);
    CHECK(weft_timeline_open(&t, model, NULL, ids, 5, err));
    weft_timeline_will_draw(t, &sampler, &mask);
    CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
    const int32_t right = t->announced.id;
    assert_int_not_equal(right, WRONG);
    t->announced.id = WRONG;
    assert_int_equal(sampled(t, &sampler, &mask), WRONG);
    assert_int_equal(sampled(t, &sampler, &different), WRONG); /* the same ids */
    CHECK(weft_timeline_sample(t, &sampler, &mask, &id, &logprob, err));
    assert_int_equal(id, right);
    others[WORDS - 1] ^= 1u << 30; /* of an id that is not drawn */
    assert_int_equal(sampled(t, &sampler, &different), right);
    assert_int_not_equal(sampled(t, &sampler, NULL), WRONG);
    const weft_sampler changed[] = {
        {.temperature = 1e-9, .top_p = 1, .repeat_penalty = 1}, {.top_k = 1, .top_p = 1, .repeat_penalty = 1},
        {.top_p = 0.5, .repeat_penalty = 1}, {.top_p = 1, .min_p = 0.5, .repeat_penalty = 1},
        {.top_p = 1, .repeat_penalty = 1, .seed = 1}};
    for (size_t i = 0; i < sizeof changed / sizeof *changed; i++)
        assert_int_equal(sampled(t, &changed[i], &mask), right);
    other.repeat_penalty = 1.5;
    assert_int_not_equal(sampled(t, &other, &mask), WRONG);
    CHECK(weft_timeline_fork(&fork, t, 5, NULL, err));
    assert_int_equal(sampled(fork, &sampler, &mask), right);
    weft_timeline_close(fork);
    /* the next position, not announced */
    CHECK(weft_timeline_append(t, &ids[5], 1, err));
    CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
    assert_int_equal(t->announced.id, -1);
    assert_int_not_equal(sampled(t, &sampler, &mask), WRONG);
    free(ids);
    weft_timeline_close(t);
    weft_model_close(model);
}

/* A guess that was right needs no evaluation, and the next draw is of its own row. */
static void test_draw_behind_a_guess(void **state)
{
    int32_t want[DRAWN], *ids = some_ids(5, 1024);
    int on_device;
    weft_timeline *t = NULL;
    mock_cuda_run = weft_shim_launch;
    weft_model *model = gpu_open(agent_path(), "cuda", 64);
    draw_run(model, &plain, false, false, want, &on_device);
    assert_int_not_equal(want[0], want[1]);
    CHECK(weft_timeline_open(&t, model, NULL, ids, 5, err));
    weft_timeline_propose(t, want, 1);
    weft_timeline_will_draw(t, &plain, NULL);
    CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
    assert_int_equal(t->announced.id, want[0]);
    CHECK(weft_timeline_append(t, want, 1, err));
    assert_int_equal(weft_timeline_pending(t), 0);
    assert_int_equal(sampled(t, &plain, NULL), want[1]);
    free(ids);
    weft_timeline_close(t);
    weft_model_close(model);
}

/* What the device says of a draw that is not to be had from it. */
static weft_cuda_drawn said;
static int say(const char *name, const uint32_t grid[3], const uint32_t block[3], uint32_t shared, const void *args,
               size_t bytes)
{
    const int result = weft_shim_launch(name, grid, block, shared, args, bytes);
    if (strcmp(name, "weft_cuda_sample_pick") == 0) *((const weft_cuda_sample_args *)args)->out = said;
    return result;
}

static void test_left_to_the_host(void **state)
{
    static const weft_cuda_drawn say_so[] = {{WEFT_CUDA_NOT_DRAWN, 1}, {-1, 1}, {7, 0}};
    int32_t want[DRAWN];
    int on_device;
    mock_cuda_run = weft_shim_launch;
    weft_model *model = gpu_open(agent_path(), "cuda", 64);
    draw_run(model, &plain, false, false, want, &on_device);
    mock_cuda_run = say;
    for (size_t i = 0; i < sizeof say_so / sizeof *say_so; i++) {
        int32_t got[DRAWN];
        said = say_so[i];
        draw_run(model, &plain, false, true, got, &on_device);
        assert_int_equal(on_device, 0);
        assert_memory_equal(got, want, sizeof want);
    }
    weft_model_close(model);
}

/* Which passes have something to draw: those with rows, of a vocabulary that kernels take, if it was announced. */
static void test_which_passes_draw(void **state)
{
    int32_t id;
    const weft_draw draw[] = {{0}, {&plain, NULL, 5, &id}, {0}};
    cuda_backend *b = calloc(1, sizeof *b);
    weft_pass pass = {.n = 3, .n_want = 3, .from = 0, .n_logits = 3, .draw = draw};
    b->places.n_vocab = WEFT_CUDA_VOCAB;
    assert_true(cuda_draws(b, &pass));
    b->places.n_vocab++;
    assert_false(cuda_draws(b, &pass));
    b->places.n_vocab = 100;
    pass.n_logits = 1;
    assert_false(cuda_draws(b, &pass));
    pass.from = 1;
    assert_true(cuda_draws(b, &pass));
    pass.n = 0;
    assert_false(cuda_draws(b, &pass));
    pass.n = 3;
    pass.draw = NULL;
    assert_false(cuda_draws(b, &pass));
    free(b);
}

/* What cannot be drawn is refused with the host's words, announced or not. */
static void test_refused(void **state)
{
    static const weft_sampler good = {.temperature = 1, .top_p = 1, .repeat_penalty = 1},
                              bad = {.temperature = 1, .top_p = 2, .repeat_penalty = 1};
    static const uint32_t nothing[WORDS] = {0};
    const weft_mask none = {nothing, 0};
    int32_t *ids = some_ids(5, 1024), id;
    weft_error why;
    mock_cuda_run = weft_shim_launch;
    weft_model *model = gpu_open(agent_path(), "cuda", 64);
    for (int i = 0; i < 2; i++) {
        weft_timeline *t = NULL;
        CHECK(weft_timeline_open(&t, model, NULL, ids, 5, err));
        weft_timeline_will_draw(t, i ? &bad : &good, i ? NULL : &none);
        CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
        assert_int_equal(weft_timeline_sample(t, i ? &bad : &good, i ? NULL : &none, &id, NULL, &why),
                         i ? WEFT_E_USAGE : WEFT_E_INVALID);
        weft_timeline_close(t);
    }
    free(ids);
    weft_model_close(model);
}

/* Timelines of one step: one announces, one does not, one guesses too: its rows behind the first are the host's. */
static void test_draws_of_a_batch(void **state)
{
    enum { N = 3, STEPS = 4 };
    weft_timeline *t[N], *alone[N];
    weft_step_item item[N];
    int32_t *ids = some_ids(20, 1024);
    mock_cuda_run = weft_shim_launch;
    weft_model *model = gpu_open(agent_path(), "cuda", 64);
    for (int i = 0; i < N; i++) {
        CHECK(weft_timeline_open(&t[i], model, NULL, ids + 3 * i, 4 + (size_t)i, err));
        CHECK(weft_timeline_open(&alone[i], model, NULL, ids + 3 * i, 4 + (size_t)i, err));
    }
    for (int step = 0; step < STEPS; step++) {
        for (int i = 0; i < N; i++) {
            if (i != 1) weft_timeline_will_draw(t[i], &plain, NULL);
            if (i == 2) weft_timeline_propose(t[i], ids, 2);
            item[i] = (weft_step_item){.timeline = t[i]};
        }
        weft_step(item, N);
        for (int i = 0; i < N; i++) {
            assert_int_equal(item[i].status, WEFT_OK);
            CHECK(weft_timeline_evaluate(alone[i], NULL, NULL, err));
            assert_int_equal(t[i]->announced.id >= 0, i != 1);
            const int32_t id = sampled(t[i], &plain, NULL);
            assert_int_equal(id, sampled(alone[i], &plain, NULL));
            CHECK(weft_timeline_append(t[i], &id, 1, err));
            CHECK(weft_timeline_append(alone[i], &id, 1, err));
        }
    }
    for (int i = 0; i < N; i++) {
        weft_timeline_close(t[i]);
        weft_timeline_close(alone[i]);
    }
    free(ids);
    weft_model_close(model);
}

/* A layer that predicts is left out, and that is said; what the model computes is the CPU's, which uses it. */
static void test_prediction_is_left_out(void **state)
{
    static const variant v = {.heads = 4, .q_lora = 24, .shared = 1, .dense = 1, .sigmoid = true, .predictions = 1, .indexer = true};
    char *dir = make_temp_dir(), *path = weft_path_join(dir, "random.gguf");
    mock_cuda_run = weft_shim_launch;
    writer_free(new_mla(&v, path));
    weft_model *model = model_open(path, &(weft_engine_options){.engine = "cuda"});
    const char *notice = weft_model_unused_notice(model);
    if (!notice || !strstr(notice, "is not used") || !strstr(notice, "--engine cpu")) fail_msg("said: %s", notice);
    assert_int_equal(weft_model_get_info(model)->n_predict, 0);
    weft_model_close(model);
    const double far = compare_with_cpu(path, WEFT_KV_F32, 24, VOCAB);
    if (far > 1e-4) fail_msg("%g from the CPU's logits", far);
    free(path);
    remove_temp_dir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_calls_of_decode, start),
        cmocka_unit_test_setup(test_calls_on_several_gpus, start),
        cmocka_unit_test_setup(test_same_bits, start),
        cmocka_unit_test_setup(test_against_cpu, start),
        cmocka_unit_test_setup(test_prediction_is_left_out, start),
        cmocka_unit_test_setup(test_families, start),
        cmocka_unit_test(test_unknown_type),
        cmocka_unit_test_setup(test_latent, start),
        cmocka_unit_test_setup(test_draws, start),
        cmocka_unit_test_setup(test_announced_otherwise, start),
        cmocka_unit_test_setup(test_draw_behind_a_guess, start),
        cmocka_unit_test_setup(test_left_to_the_host, start),
        cmocka_unit_test_setup(test_which_passes_draw, start),
        cmocka_unit_test_setup(test_refused, start),
        cmocka_unit_test_setup(test_draws_of_a_batch, start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
