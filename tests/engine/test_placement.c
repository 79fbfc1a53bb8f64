/* Weights in memory and weights that stay in the file: the same logits, the memory that was asked for, and a
 * line that says so. */
#include "tests/engine/count_allocations.h"
#include "tests/engine/random_model.h"

#include "engine/model.h"

static const spec dense = {.arch = "qwen3",
                           .head_dim = 64,
                           .rope_dim = 64,
                           .theta = 1e6f,
                           .head_norms = true,
                           .tied = true,
                           .embd = 256,
                           .ff = 512};

static void fill(int32_t ids[TOKENS]) {
    for (int i = 0; i < TOKENS; i++) ids[i] = (i * 53 + 11) % VOCAB;
}

static void compare(const char *path, const weft_engine_options *o, const digests *want,
                    const char *what) {
    int32_t ids[TOKENS];
    fill(ids);
    weft_model *model = model_open(path, o);
    digests d = digests_of(model, ids, TOKENS);
    digests_compare(want, &d, 0, TOKENS, what);
    free(d.at);
    weft_model_close(model);
}

/* Every format: nothing, half and all of the weights in memory. */
static void test_same_digests(void **state) {
    char *dir = make_temp_dir(), *path = weft_path_join(dir, "random.gguf");
    int32_t ids[TOKENS];
    fill(ids);
    for (int k = 0; k < 2 * N_TYPES; k++) {
        spec s = dense;
        s.type = all_types[k / 2];
        if (k % 2) s.arch = "qwen3moe", s.ff = 256, s.experts = 6, s.used = 2;
        writer_free(new_model(&s, path));
        weft_engine_options o = {.threads = 2};
        weft_model *model = model_open(path, &o);
        const weft_model_info *info = weft_model_get_info(model);
        const size_t all = info->weight_bytes;
        assert_int_equal(info->mapped_bytes, 0);
        assert_null(weft_model_memory_notice(model));
        digests want = digests_of(model, ids, TOKENS);
        weft_model_close(model);
        o = (weft_engine_options){.threads = 2, .limit_memory = true, .memory = 0};
        compare(path, &o, &want, "all in the file");
        o.memory = all / 2;
        o.chunk = 7;
        compare(path, &o, &want, "half in the file");
        free(want.at);
    }
    free(path);
    remove_temp_dir(dir);
}

static void budget(const char *path, size_t memory, size_t want_weights, size_t want_pool,
                   size_t want_experts, size_t want_mapped) {
    for (int vocab_only = 0; vocab_only < 2; vocab_only++) {
        const weft_engine_options o = {
            .limit_memory = true, .memory = memory, .threads = 1, .vocab_only = vocab_only};
        weft_model *model = model_open(path, &o);
        const weft_model_info *info = weft_model_get_info(model);
        assert_int_equal(info->weight_bytes, want_weights);
        assert_int_equal(info->pool_bytes, want_pool);
        assert_int_equal(info->pool_experts, want_experts);
        assert_int_equal(info->file_experts, want_experts ? LAYERS * 6 : 0);
        assert_int_equal(info->mapped_bytes, want_mapped);
        weft_model_close(model);
    }
}

/* The budget is kept, what every token reads goes first, the pool is shared by layers evenly and never smaller than
 * a token needs, and `vocab_only` says the same. */
static void test_budget(void **state) {
    char *dir = make_temp_dir(), *path = weft_path_join(dir, "random.gguf");
    spec s = dense;
    s.arch = "qwen3moe";
    s.ff = 256;
    s.experts = 6;
    s.used = 2;
    s.type = WEFT_Q8_0;
    writer_free(new_model(&s, path));
    const size_t stack = (size_t)256 * 256 * 6 / 32 * 34, expert = stack / 6 * 3, all = LAYERS * 3 * stack;
    weft_model *model = model_open(path, NULL);
    const weft_model_info *info = weft_model_get_info(model);
    const size_t hot = info->weight_bytes - all, hot_file = info->step_bytes - all / 6 * 2;
    weft_model_close(model);
    budget(path, hot + all, hot + all, 0, 0, 0);
    budget(path, hot + all - 1, hot, 17 * expert, 17, all);
    budget(path, hot + 7 * expert + expert / 2, hot, 7 * expert, 7, all);
    budget(path, hot + 6 * expert, hot, 6 * expert, 6, all);
    budget(path, 0, 0, 6 * expert, 6, all + hot_file);

    const weft_engine_options o = {
        .limit_memory = true, .memory = hot + 7 * expert + expert / 2, .threads = 1};
    model = model_open(path, &o);
    for (uint32_t i = 0; i < LAYERS; i++) {
        const weft_layer *w = &model->layer[i];
        assert_true(model->ops->weight_bytes(w->q) > 0 && model->ops->weight_bytes(w->o) > 0);
        assert_true(model->ops->weight_bytes(w->router) > 0);
        assert_int_equal(model->ops->weight_bytes(w->gate), (i == 0 ? 3 : 2) * expert);
        assert_int_equal(model->ops->weight_bytes(w->down), 0);
    }
    assert_true(model->ops->weight_bytes(model->output) > 0);
    const char *notice = weft_model_memory_notice(model);
    assert_non_null(strstr(notice, "MiB of weights stay in the file"));
    assert_non_null(strstr(notice, "of 18 experts 7 fit into memory"));
    assert_non_null(strstr(notice, "--memory"));
    weft_model_close(model);
    free(path);
    remove_temp_dir(dir);
}

/* Bytes of "RssAnon:" now. */
static size_t own_memory(void) {
    char line[256];
    size_t kib = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f)) sscanf(line, "RssAnon: %zu", &kib);
    fclose(f);
    return kib << 10;
}

/* ThreadSanitizer keeps a multiple of what is touched, and it counts as ours. */
#ifdef __has_feature
#define WITH_SHADOW __has_feature(thread_sanitizer)
#else
#define WITH_SHADOW 0
#endif

/* 40 MB of weights left in the file take a few tiles' room. */
static void test_memory_is_bounded(void **state) {
    if (WITH_SHADOW) skip();
    char *dir = make_temp_dir(), *path = weft_path_join(dir, "random.gguf");
    spec s = dense;
    s.embd = 1024;
    s.ff = 4096;
    s.type = WEFT_Q8_0;
    writer_free(new_model(&s, path));
    const weft_engine_options o = {.limit_memory = true, .threads = 2};
    const size_t before = own_memory();
    weft_model *model = model_open(path, &o);
    assert_true(weft_model_get_info(model)->mapped_bytes > 36 << 20);
    int32_t ids[TOKENS];
    fill(ids);
    digests d = digests_of(model, ids, TOKENS);
    const size_t now = own_memory();
    print_message("%zu KiB of memory of our own\n", (now - before) >> 10);
    assert_true(now < before + (12 << 20));
    free(d.at);
    weft_model_close(model);
    free(path);
    remove_temp_dir(dir);
}

/* A prompt of several chunks, then tokens one by one over the end of a page. */
static void draw_and_count(const char *path, const weft_engine_options *o, const char *dir,
                           const char *what) {
    enum { PROMPT = 100, DRAWN = 100 };
    const weft_sampler sampler = {.temperature = 0.8, .top_k = 40, .top_p = 0.95, .repeat_penalty = 1.1};
    int32_t ids[PROMPT];
    for (int i = 0; i < PROMPT; i++) ids[i] = (i * 53 + 11) % VOCAB;
    weft_model *model = model_open(path, o);
    assert_int_equal(o->limit_memory, weft_model_get_info(model)->mapped_bytes > 0);
    weft_timeline *t = NULL;
    CHECK(weft_timeline_open(&t, model, dir, ids, PROMPT, err));
    const size_t before = allocations;
    assert_true(before > 0);
    for (int i = 0; i < DRAWN; i++) {
        int32_t id;
        CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
        CHECK(weft_timeline_sample(t, &sampler, NULL, &id, NULL, err));
        CHECK(weft_timeline_append(t, &id, 1, err));
    }
    if (allocations != before) fail_msg("%s: %zu allocations", what, allocations - before);
    weft_timeline_close(t);
    weft_model_close(model);
}

static void test_token_loop_allocates_nothing(void **state) {
    char *root = make_temp_dir(), *path = weft_path_join(root, "random.gguf");
    static const weft_tensor_type types[] = {WEFT_Q4_K, WEFT_F32};
    for (int k = 0; k < 8; k++) {
        spec s = dense;
        s.type = types[k / 4];
        if (k & 2) s.arch = "qwen3moe", s.ff = 256, s.experts = 6, s.used = 2;
        writer_free(new_model(&s, path));
        char *dir = make_temp_dir(), what[64];
        snprintf(what, sizeof what, "%s, %s, in %s", s.arch, weft_tensor_type_name(s.type),
                 k & 1 ? "the file" : "memory");
        const weft_engine_options o = {.threads = 2, .limit_memory = k & 1};
        draw_and_count(path, &o, dir, what);
        remove_temp_dir(dir);
    }
    free(path);
    remove_temp_dir(root);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_digests),
        cmocka_unit_test(test_budget),
        cmocka_unit_test(test_memory_is_bounded),
        cmocka_unit_test(test_token_loop_allocates_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
