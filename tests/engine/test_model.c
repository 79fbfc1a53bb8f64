/* The graph against a float32 reference, and model files that lie. */
#include "tests/engine/engine_test.h"

#include "engine/kv.h"
#include "engine/model.h"

#include <math.h>

static const char tiny[] = "agent/tiny-agent-f16.gguf";

/* ---- the reference ---- */

typedef struct comparison {
    const fixture *f;
    double worst, worst_next;
    int wrong_top;
    int64_t n_vocab;
} comparison;

static double log_sum_exp(const float *x, int64_t n) {
    double top = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++) top = fmax(top, x[i]);
    for (int64_t i = 0; i < n; i++) sum += exp(x[i] - top);
    return top + log(sum);
}

static void compare(void *context, int64_t position, const float *logits) {
    comparison *c = context;
    double sum = log_sum_exp(logits, c->n_vocab);
    const cJSON *top = cJSON_GetArrayItem(cJSON_GetObjectItem(c->f->json, "top"), (int)position);
    const cJSON *pair;
    int64_t best = 0;
    for (int64_t i = 1; i < c->n_vocab; i++)
        if (logits[i] > logits[best]) best = i;
    c->wrong_top += best != (int64_t)cJSON_GetArrayItem(top->child, 0)->valuedouble;
    cJSON_ArrayForEach(pair, top) {
        int id = (int)cJSON_GetArrayItem(pair, 0)->valuedouble;
        c->worst =
            fmax(c->worst, fabs(logits[id] - sum - cJSON_GetArrayItem(pair, 1)->valuedouble));
    }
    if ((size_t)position + 1 == c->f->n) return;
    double next = cJSON_GetArrayItem(cJSON_GetObjectItem(c->f->json, "next_logprob"), (int)position)
                      ->valuedouble;
    c->worst_next = fmax(c->worst_next, fabs(logits[c->f->ids[position + 1]] - sum - next));
}

static void check_greedy(weft_timeline *t, const fixture *f) {
    const weft_sampler sampler = {.temperature = 0, .top_p = 1, .repeat_penalty = 1};
    const cJSON *greedy = cJSON_GetObjectItem(f->json, "greedy"), *expected;
    cJSON_ArrayForEach(expected, greedy) {
        int32_t id;
        CHECK(weft_timeline_sample(t, &sampler, NULL, &id, NULL, err));
        assert_int_equal(id, (int32_t)expected->valuedouble);
        CHECK(weft_timeline_append(t, &id, 1, err));
        CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
    }
}

static void test_reference(void **state) {
    const char *const names[] = {"tiny-agent-1", "tiny-agent-2"};
    const weft_engine_options options = {.kv_type = WEFT_KV_F32, .threads = 2};
    weft_model *model = model_open(data_path(tiny), &options);
    for (size_t i = 0; i < 2; i++) {
        fixture f = fixture_open(names[i]);
        comparison c = {.f = &f, .n_vocab = weft_model_get_info(model)->n_vocab};
        weft_timeline *t = NULL;
        CHECK(weft_timeline_open(&t, model, NULL, f.ids, f.n, err));
        CHECK(weft_timeline_evaluate_each(t, compare, &c, err));
        print_message("%s: worst log-probability off by %g, next by %g\n", names[i], c.worst,
                      c.worst_next);
        assert_int_equal(c.wrong_top, 0);
        assert_true(c.worst < 1e-3 && c.worst_next < 1e-3);
        check_greedy(t, &f);
        weft_timeline_close(t);
        fixture_close(&f);
    }
    weft_model_close(model);
}

/* ---- several timelines in one call ---- */

/* Four sequences, each token of which stands between those of the others, give the logits of each
 * alone. */
static void test_rows_of_several_timelines(void **state) {
    enum { SETS = 4, LENGTH = 70 };
    const weft_engine_options options = {.chunk = SETS, .threads = 2};
    weft_model *model = model_open(data_path(tiny), &options);
    size_t n_vocab = model->h.n_vocab;
    fixture f = fixture_open("tiny-agent-1");
    digests alone[SETS], together[SETS];
    weft_kv *kv[SETS] = {0};
    for (size_t s = 0; s < SETS; s++) {
        alone[s] = digests_of(model, f.ids + 50 * s, LENGTH);
        together[s] = digests_new(model, LENGTH);
        CHECK(weft_kv_open(&kv[s], NULL, &model->kv, model->info.fingerprint, 128, err));
    }
    float *logits = malloc(2 * SETS * n_vocab * sizeof *logits);
    for (int64_t step = 0; step < LENGTH + SETS; step++) {
        int32_t ids[SETS];
        weft_row row[SETS];
        size_t want[SETS], set[SETS], n = 0;
        for (size_t s = 0; s < SETS; s++) { /* each timeline starts one step later */
            int64_t at = step - (int64_t)s;
            if (at < 0 || at >= LENGTH) continue;
            ids[n] = f.ids[50 * s + (size_t)at];
            row[n] = (weft_row){weft_kv_pages(kv[s]), at};
            want[n] = n;
            set[n++] = s;
        }
        if (n == 0) continue;
        const weft_pass pass = {ids, row, n, want, n, 0, n, logits, NULL};
        CHECK(weft_model_pass(model, &pass, err));
        for (size_t i = 0; i < n; i++)
            digests_visit(&together[set[i]], row[i].position, logits + i * n_vocab);
    }
    for (size_t s = 0; s < SETS; s++) {
        digests_compare(&alone[s], &together[s], 0, LENGTH, "batch of 4");
        weft_kv_close(kv[s], 0);
        free(alone[s].at);
        free(together[s].at);
    }
    free(logits);
    fixture_close(&f);
    weft_model_close(model);
}

/* ---- what a model says about itself ---- */

static void test_info(void **state) {
    const weft_engine_options options = {.threads = 1, .context = 1000};
    weft_model *model = model_open(data_path(tiny), &options);
    const weft_model_info *info = weft_model_get_info(model);
    assert_string_equal(info->architecture, "qwen2");
    assert_string_equal(info->name, "Hf");
    assert_string_equal(info->quantisation, "F16");
    assert_string_equal(info->tokenizer, "gpt2");
    assert_string_equal(info->pre, "qwen2");
    assert_int_equal(info->n_layer, 4);
    assert_int_equal(info->n_embd, 128);
    assert_int_equal(info->n_head, 4);
    assert_int_equal(info->n_head_kv, 2);
    assert_int_equal(info->n_vocab, 1024);
    assert_int_equal(info->context, 1000);
    assert_int_equal(info->context_length, 32768);
    assert_int_equal(info->file_bytes, 1875296);
    assert_int_equal(info->n_params, 919680);
    assert_int_equal(info->kv_page_bytes, 64 * 4 * 2 * 32 * 2 * 2);
    assert_non_null(strstr(info->chat_template, "messages"));
    size_t short_run = weft_model_memory(model, 64), long_run = weft_model_memory(model, 64 * 11);
    assert_int_equal(long_run - short_run, 10 * (info->kv_page_bytes + 64 * sizeof(int32_t)));
    cJSON *types = weft_model_tensor_types(model);
    assert_int_equal(cJSON_GetArrayItem(cJSON_GetObjectItem(types, "F16"), 0)->valuedouble, 29);
    assert_int_equal(cJSON_GetArrayItem(cJSON_GetObjectItem(types, "F32"), 0)->valuedouble, 21);
    cJSON_Delete(types);
    weft_model_close(model);
}

static void test_text(void **state) {
    const weft_engine_options options = {.vocab_only = true};
    weft_model *model = model_open(data_path(tiny), &options);
    const weft_span spans[] = {{"<|im_start|>", 12, WEFT_TRUSTED, WEFT_SYSTEM},
                               {"hello <|im_end|>", 16, WEFT_FOREIGN, WEFT_USER}};
    int32_t *ids = NULL;
    size_t n = 0;
    CHECK(weft_encode(model, spans, 2, &ids, NULL, &n, err));
    assert_true(n > 4);
    assert_int_equal(ids[0], 1016);
    weft_buffer text = WEFT_BUFFER_INIT;
    weft_decode(model, ids, n, false, &text);
    assert_string_equal(weft_buffer_str(&text), "hello <|im_end|>");
    weft_buffer_clear(&text);
    weft_decode(model, ids, n, true, &text);
    assert_string_equal(weft_buffer_str(&text), "<|im_start|>hello <|im_end|>");
    weft_buffer_free(&text);
    free(ids);
    weft_timeline *t = NULL;
    assert_int_equal(weft_timeline_open(&t, model, NULL, NULL, 0, NULL), WEFT_E_USAGE);
    weft_model_close(model);
    assert_string_equal(weft_segment_name(WEFT_SYSTEM), "system");
    assert_string_equal(weft_segment_name(WEFT_ANSWER), "answer");
}

/* ---- files that lie ---- */

typedef struct lie {
    const char *find; /* bytes in the file */
    size_t offset;    /* from the end of `find` */
    const void *put;
    size_t n;
    const char *expect; /* must stand in the message */
} lie;

/* Behind a key come its type (4 bytes) and the value. */
#define U32(value) 4, &(const uint32_t){value}, 4
#define F32(value) 4, &(const float){value}, 4

static void check_lie(const weft_buffer *file, const char *path, const lie *l) {
    char *copy = malloc(file->size);
    memcpy(copy, file->data, file->size);
    char *at = memmem(copy, file->size, l->find, strlen(l->find));
    if (!at) fail_msg("%s is not in the file", l->find);
    memcpy(at + strlen(l->find) + l->offset, l->put, l->n);
    CHECK(weft_file_write(path, copy, file->size, 0600, err));
    free(copy);
    weft_error err = {0};
    weft_model *model = NULL;
    weft_status status = weft_model_open(&model, path, NULL, &err);
    assert_null(model);
    if (status != WEFT_E_MODEL) fail_msg("%s: status %d, %s", l->find, (int)status, err.message);
    if (!strstr(err.message, l->expect)) fail_msg("%s: said \"%s\"", l->find, err.message);
}

static void test_lies(void **state) {
    const lie lies[] = {
        {"general.architecture", 12, "qwex2", 5, "architecture \"qwex2\" is not supported"},
        {"general.archit", 0, "Ecture", 6, "general.architecture: missing"},
        {"qwen2.block_count", U32(0), "qwen2.block_count: 0"},
        {"qwen2.block_count", U32(5), "blk.4.attn_norm.weight: missing"},
        {"qwen2.block_count", U32(3), "blk.3."},
        {"qwen2.block_count", U32(4000), "4000 layers"},
        {"qwen2.block_count", U32(0xffffffff), "qwen2.block_count: 4294967295"},
        {"qwen2.context_length", U32(0), "qwen2.context_length: 0"},
        {"qwen2.embedding_length", U32(0), "qwen2.embedding_length: 0"},
        {"qwen2.embedding_length", U32(256), "tensor token_embd.weight: is 128 x 1024"},
        {"qwen2.embedding_length", U32(0x80000000), "qwen2.embedding_length: 2147483648"},
        {"qwen2.feed_forward_length", U32(0), "qwen2.feed_forward_length: 0"},
        {"qwen2.feed_forward_length", U32(385), "ffn_gate.weight: is 128 x 384"},
        {"qwen2.attention.head_count", U32(0), "qwen2.attention.head_count: 0"},
        {"qwen2.attention.head_count", U32(3), "no multiple of head_count_kv 2"},
        {"qwen2.attention.head_count", U32(128), "attention.key_length: 1 "},
        {"qwen2.attention.head_count", U32(6), "attention.key_length: missing"},
        {"qwen2.attention.head_count", U32(2), "attn_k.weight: is 128 x 64"},
        {"qwen2.attention.head_count_kv", U32(0), "head_count_kv: 0"},
        {"qwen2.attention.head_count_kv", U32(4), "attn_k.weight: is 128 x 64"},
        {"qwen2.rope.freq_base", F32(0), "qwen2.rope.freq_base: 0"},
        {"qwen2.rope.freq_base", F32(-5), "qwen2.rope.freq_base: -5"},
        {"qwen2.rope.freq_base", F32(NAN), "qwen2.rope.freq_base"},
        {"qwen2.attention.layer_norm_rms_epsilon", F32(0), "layer_norm_rms_epsilon: 0"},
        {"qwen2.attention.layer_norm_rms_epsilon", F32(INFINITY), "layer_norm_rms_epsilon: inf"},
        {"blk.0.attn_q.bi", 0, "os", 2, "tensor blk.0.attn_q.bias: missing"},
        {"blk.2.ffn_up.weigh", 0, "x", 1, "tensor blk.2.ffn_up.weight: missing"},
        {"output_norm.weigh", 0, "x", 1, "tensor output_norm.weight: missing"},
        {"token_embd.weigh", 0, "x", 1, "tensor token_embd.weight: missing"},
    };
    weft_buffer file = WEFT_BUFFER_INIT;
    CHECK(weft_file_read(data_path(tiny), 8 << 20, &file, err));
    char *dir = make_temp_dir(), *path = weft_path_join(dir, "lie.gguf");
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) check_lie(&file, path, &lies[i]);
    free(path);
    remove_temp_dir(dir);
    weft_buffer_free(&file);
}

/* Another family's name over the same tensors: what it lacks, or has too much, is named. */
static void test_other_families(void **state) {
    weft_buffer file = WEFT_BUFFER_INIT;
    CHECK(weft_file_read(data_path(tiny), 8 << 20, &file, err));
    for (char *p = file.data; (p = memmem(p, (size_t)(file.data + file.size - p), "qwen2.", 6));)
        memcpy(p, "qwen3.", 6);
    char *dir = make_temp_dir(), *path = weft_path_join(dir, "lie.gguf");
    const lie l = {"general.architecture", 12, "qwen3", 5, "blk.0.attn_q_norm.weight: missing"};
    check_lie(&file, path, &l);
    for (char *p = file.data; (p = memmem(p, (size_t)(file.data + file.size - p), "qwen3.", 6));)
        memcpy(p, "llama.", 6);
    /* the same shape, the rope of another family: it loads, and gives other logits */
    weft_model *qwen = model_open(data_path(tiny), NULL);
    char *at = memmem(file.data, file.size, "general.architecture", 20);
    memcpy(at + 32, "llama", 5);
    CHECK(weft_file_write(path, file.data, file.size, 0600, err));
    weft_model *llama = model_open(path, NULL);
    const int32_t ids[] = {1016, 489, 198};
    digests a = digests_of(qwen, ids, 3), b = digests_of(llama, ids, 3);
    assert_memory_equal(a.at[0], b.at[0], WEFT_DIGEST_BYTES); /* position 0 is not rotated */
    assert_memory_not_equal(a.at[2], b.at[2], WEFT_DIGEST_BYTES);
    free(a.at);
    free(b.at);
    weft_model_close(qwen);
    weft_model_close(llama);
    free(path);
    remove_temp_dir(dir);
    weft_buffer_free(&file);
}

static int stop(void *context, const char *what, int64_t done, int64_t total) {
    int *calls = context;
    assert_string_equal(what, "load");
    assert_true(done > 0 && done <= total);
    return ++*calls == 5;
}

static void test_options(void **state) {
    weft_model *model = NULL;
    weft_error err;
    int calls = 0;
    weft_engine_options o = {.progress = stop, .progress_context = &calls};
    assert_int_equal(weft_model_open(&model, data_path(tiny), &o, &err), WEFT_E_INTERRUPTED);
    assert_int_equal(calls, 5);
    o = (weft_engine_options){.context = 40000};
    assert_int_equal(weft_model_open(&model, data_path(tiny), &o, &err), WEFT_E_LIMIT);
    o = (weft_engine_options){.isa = "sse9"};
    assert_int_equal(weft_model_open(&model, data_path(tiny), &o, &err), WEFT_E_USAGE);
    o = (weft_engine_options){.kv_type = (weft_kv_type)7};
    assert_int_equal(weft_model_open(&model, data_path(tiny), &o, &err), WEFT_E_USAGE);
    assert_int_equal(weft_model_open(&model, "/nonexistent.gguf", NULL, &err), WEFT_E_MODEL);
    assert_null(model);
    for (int i = 0; i < WEFT_KV_TYPES; i++) {
        weft_kv_type type;
        assert_true(weft_kv_type_find(weft_kv_type_name((weft_kv_type)i), &type) && (int)type == i);
    }
    assert_false(weft_kv_type_find("q4_0", &o.kv_type));
    weft_model_close(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference), cmocka_unit_test(test_rows_of_several_timelines),
        cmocka_unit_test(test_info),      cmocka_unit_test(test_text),
        cmocka_unit_test(test_lies),      cmocka_unit_test(test_other_families),
        cmocka_unit_test(test_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
