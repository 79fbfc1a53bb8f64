/* Real models: at least as near to the float32 reference as llama.cpp is, and the numeric contract
 * on quantised weights. Needs the models in $WEFT_HOME/models: `weft model pull NAME`. */
#include "tests/engine/engine_test.h"

#include <math.h>

static const char *model_path(const char *name)
{
    static char path[4096];
    char *home = weft_home();
    if (!home) fail_msg("no home directory: set WEFT_HOME");
    snprintf(path, sizeof path, "%s/models/%s.gguf", home, name);
    free(home);
    if (!weft_file_exists(path)) fail_msg("%s is missing: run `weft model pull %s`", path, name);
    return path;
}

/* ---- distance to the reference ---- */

typedef struct distance {
    const fixture *f;
    int64_t n_vocab;
    double next_sum;
    int n_next, n_top, same_top, n_clear,
        same_clear; /* clear: the reference's margin is over 0.3 */
} distance;

static double log_sum_exp(const float *x, int64_t n)
{
    float top = x[0];
    double sum = 0;
    for (int64_t i = 1; i < n; i++) top = x[i] > top ? x[i] : top;
    for (int64_t i = 0; i < n; i++) sum += exp((double)x[i] - top);
    return top + log(sum);
}

/* Position 0 is left out, as in llama.cpp's figures. */
static void measure(void *context, int64_t position, const float *logits)
{
    distance *d = context;
    if (position == 0) return;
    const cJSON *top = cJSON_GetArrayItem(cJSON_GetObjectItem(d->f->json, "top"), (int)position);
    const cJSON *first = top->child, *second = first->next;
    int64_t best = 0;
    for (int64_t i = 1; i < d->n_vocab; i++)
        if (logits[i] > logits[best]) best = i;
    bool same = best == (int64_t)cJSON_GetArrayItem(first, 0)->valuedouble;
    double margin =
        cJSON_GetArrayItem(first, 1)->valuedouble - cJSON_GetArrayItem(second, 1)->valuedouble;
    d->n_top++;
    d->same_top += same;
    if (margin > 0.3) {
        d->n_clear++;
        d->same_clear += same;
    }
    if ((size_t)position + 1 == d->f->n) return;
    double reference =
        cJSON_GetArrayItem(cJSON_GetObjectItem(d->f->json, "next_logprob"), (int)position)
            ->valuedouble;
    double ours = logits[d->f->ids[position + 1]] - log_sum_exp(logits, d->n_vocab);
    d->next_sum += fabs(ours - reference);
    d->n_next++;
}

/* llama.cpp's figures over the same files, weighted by their positions. It has two ways to compute attention,
 * as near to the reference as each other; how much their figures differ is what chance does. The bar is the
 * lower one of each figure. */
typedef struct bar {
    double next, top, clear;
} bar;

static bar read_mode(const cJSON *json, const char *name, const char *mode)
{
    bar b = {0};
    double positions = 0;
    const cJSON *entry;
    cJSON_ArrayForEach(entry, cJSON_GetObjectItem(json, "files"))
    {
        if (strncmp(weft_json_string(entry, "file"), name, strlen(name)) != 0 ||
            strcmp(weft_json_string(entry, "mode"), mode) != 0)
            continue;
        double n = (double)weft_json_int(entry, "n", 0) - 1;
        positions += n;
        b.next += n * cJSON_GetObjectItem(entry, "abs_dlogprob_mean")->valuedouble;
        b.top += n * cJSON_GetObjectItem(entry, "top1")->valuedouble;
        b.clear += n * cJSON_GetObjectItem(entry, "top1_where_margin_gt_0.3")->valuedouble;
    }
    assert_true(positions > 0);
    return (bar){b.next / positions, b.top / positions, b.clear / positions};
}

static bar read_bar(const char *name)
{
    cJSON *json = NULL;
    CHECK(weft_json_parse_file(data_path("logits/llama_distance.json"), &json, err));
    bar a = read_mode(json, name, "default"), b = read_mode(json, name, "noFA");
    cJSON_Delete(json);
    return (bar){fmax(a.next, b.next), fmin(a.top, b.top), fmin(a.clear, b.clear)};
}

static void check_distance(const char *name, weft_kv_type kv_type, bar b)
{
    const weft_engine_options options = {.kv_type = kv_type};
    weft_model *model = model_open(model_path(name), &options);
    distance d = {.n_vocab = weft_model_get_info(model)->n_vocab};
    for (int k = 1; k <= 3; k++) {
        char file[64];
        snprintf(file, sizeof file, "%s-%d", name, k);
        fixture f = fixture_open(file);
        weft_timeline *t = NULL;
        d.f = &f;
        CHECK(weft_timeline_open(&t, model, NULL, f.ids, f.n, err));
        CHECK(weft_timeline_evaluate_each(t, measure, &d, err));
        weft_timeline_close(t);
        fixture_close(&f);
    }
    weft_model_close(model);
    double next = d.next_sum / d.n_next, top = (double)d.same_top / d.n_top;
    double clear = (double)d.same_clear / d.n_clear;
    print_message("%s, KV %s: next off by %.5f (bar %.5f), top-1 %.4f (%.4f), clear %.4f (%.4f)\n",
                  name, weft_kv_type_name(kv_type), next, b.next, top, b.top, clear, b.clear);
    /* llama.cpp's figures are rounded to four digits */
    assert_true(next <= b.next + 5e-5);
    assert_true(top >= b.top - 5e-5);
    assert_true(clear >= b.clear - 5e-5);
}

static void test_distance_smollm2(void **state)
{
    check_distance("smollm2-135m", WEFT_KV_F16, read_bar("smollm2-135m"));
}

static void test_distance_qwen_0_5b(void **state)
{
    check_distance("qwen2.5-coder-0.5b", WEFT_KV_F16, read_bar("qwen2.5-coder-0.5b"));
}

/* KV of q8_0 has a bar of its own: what was measured (0.1269, 0.9632, 0.9894), with a margin. It is
 * far from f16's 0.0165 (docs/engine.md). */
static void test_distance_q8_0(void **state)
{
    check_distance("qwen2.5-coder-0.5b", WEFT_KV_Q8_0, (bar){0.14, 0.955, 0.985});
}

static void test_distance_qwen_1_5b(void **state)
{
    check_distance("qwen2.5-coder-1.5b", WEFT_KV_F16, read_bar("qwen2.5-coder-1.5b"));
}

static void test_distance_gemma3(void **state)
{
    check_distance("gemma3-270m", WEFT_KV_F16, read_bar("gemma3-270m"));
}

/* ---- the contract on quantised weights ---- */

typedef struct variant {
    const char *isa;
    int chunk, threads;
    size_t n; /* tokens: slow ones take fewer */
} variant;

static void check_contract(const char *name, const char *fixture_name, size_t n,
                           const variant *variants, size_t n_variants)
{
    fixture f = fixture_open(fixture_name);
    weft_model *model = model_open(model_path(name), NULL);
    digests expected = digests_of(model, f.ids, n);
    char *dir = make_temp_dir();
    weft_timeline *t = NULL;
    CHECK(weft_timeline_open(&t, model, dir, f.ids, n / 2, err));
    CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
    weft_timeline_close(t);
    weft_model_close(model);

    for (size_t i = 0; i < n_variants; i++) {
        const variant *v = &variants[i];
        if (v->isa && !isa_usable(v->isa)) continue;
        const weft_engine_options o = {.isa = v->isa, .chunk = v->chunk, .threads = v->threads};
        model = model_open(model_path(name), &o);
        char what[128];
        snprintf(what, sizeof what, "%s, %s, chunk %d, %d threads", name,
                 weft_model_get_info(model)->backend, v->chunk, v->threads);
        digests d = digests_of(model, f.ids, v->n);
        digests_compare(&expected, &d, 0, v->n, what);
        free(d.at);
        if (i == 0) { /* restored half way, by another process's settings */
            d = digests_new(model, n);
            CHECK(weft_timeline_open(&t, model, dir, f.ids, n, err));
            assert_int_equal(weft_timeline_restored(t), n / 2);
            CHECK(weft_timeline_evaluate_each(t, digests_visit, &d, err));
            digests_compare(&expected, &d, n / 2, n, "restored");
            weft_timeline_close(t);
            free(d.at);
        }
        weft_model_close(model);
    }
    free(expected.at);
    remove_temp_dir(dir);
    fixture_close(&f);
}

static void test_contract_smollm2(void **state)
{
    const variant variants[] = {{NULL, 7, 1, 150},     {NULL, 1, 2, 80},   {NULL, 64, 2, 150},
                                {"avx512", 64, 2, 150}, {"avx2", 512, 2, 150}, {"avx2", 3, 1, 30}, {"scalar", 5, 2, 10}};
    check_contract("smollm2-135m", "smollm2-135m-1", 150, variants,
                   sizeof variants / sizeof *variants);
}

/* Q4_K and Q6_K, a separate output matrix. */
static void test_contract_qwen_1_5b(void **state)
{
    const variant variants[] = {{NULL, 7, 1, 40}, {"avx2", 512, 2, 40}, {"scalar", 2, 2, 3}};
    check_contract("qwen2.5-coder-1.5b", "qwen2.5-coder-1.5b-1", 40, variants,
                   sizeof variants / sizeof *variants);
}

/* Sliding windows: past 512 positions, cut differently. */
static void test_contract_gemma3(void **state)
{
    const variant variants[] = {{NULL, 61, 1, 560}, {"avx2", 512, 2, 530}, {"scalar", 4, 2, 6}};
    check_contract("gemma3-270m", "gemma3-270m-3", 560, variants,
                   sizeof variants / sizeof *variants);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_distance_smollm2),   cmocka_unit_test(test_distance_gemma3),
        cmocka_unit_test(test_distance_qwen_0_5b), cmocka_unit_test(test_distance_q8_0),
        cmocka_unit_test(test_distance_qwen_1_5b),
        cmocka_unit_test(test_contract_smollm2),   cmocka_unit_test(test_contract_gemma3),
        cmocka_unit_test(test_contract_qwen_1_5b),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
