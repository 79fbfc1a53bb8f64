/* The CUDA backend's host side: what a pass costs in calls of the driver, and whole models through it, with the
 * kernels under the shim. */
#include "tests/cuda/host_test.h"

#include "engine/cuda/cuda.h"

#include <math.h>

static int start(void **state)
{
    mock_cuda_reset();
    return 0;
}

/* ---- calls ---- */

static mock_cuda_counts counts_of_step(weft_timeline *t, int32_t id)
{
    const mock_cuda_counts before = mock_cuda_counted;
    mock_cuda_counts now;
    CHECK(weft_timeline_append(t, &id, 1, err));
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

/* One launch and one synchronisation a token; every 64 tokens a page is made and one goes out. */
static void test_calls_of_decode(void **state)
{
    weft_model *model = gpu_open(agent_path(), "cuda", 64);
    weft_timeline *t = NULL;
    int32_t *ids = some_ids(130, 1024);
    CHECK(weft_timeline_open(&t, model, NULL, ids, 70, err));
    CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
    for (int i = 70; i < 250; i++) {
        const mock_cuda_counts c = counts_of_step(t, ids[i % 130]);
        const bool begins = i % 64 == 0, ends = i % 64 == 63;
        if (i == 70) assert_int_equal(c.captures, 1);
        if (i > 70) assert_int_equal(c.captures, 0);
        assert_int_equal(c.graphs, 1);
        assert_int_equal(c.direct, 0);
        assert_int_equal(c.synchronisations, 1);
        assert_int_equal(c.copied_in_graphs, 3); /* rows and x in, logits out */
        assert_int_equal(c.copies_in, 2 + begins); /* its address, into the table */
        assert_int_equal(c.copies_out, 1 + ends);
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
    (void)counts_of_step(t, 1);
    const mock_cuda_counts c = counts_of_step(t, 2);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_calls_of_decode, start),
        cmocka_unit_test_setup(test_calls_on_several_gpus, start),
        cmocka_unit_test_setup(test_same_bits, start),
        cmocka_unit_test_setup(test_against_cpu, start),
        cmocka_unit_test_setup(test_families, start),
        cmocka_unit_test(test_unknown_type),
        cmocka_unit_test_setup(test_latent, start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
