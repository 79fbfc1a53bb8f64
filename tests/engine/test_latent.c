/* DeepSeek-V3.2 on the tiny checkpoint: logits, chosen positions and greedy continuation of a float32
 * reference, and the numeric contract. Sparsity begins at position 16. */
#include "tests/engine/engine_test.h"

#include "engine/model.h"

#include <math.h>

enum { N = 240, LAYERS = 3, TOP_K = 16, VOCAB = 512 };

typedef struct reference {
    cJSON *json;
    int32_t ids[N];
} reference;

static reference open_reference(void)
{
    reference r = {0};
    CHECK(weft_json_parse_file(data_path("dsv32/tiny-ref.json"), &r.json, err));
    const cJSON *ids = cJSON_GetObjectItem(r.json, "ids"), *id;
    size_t n = 0;
    assert_int_equal(cJSON_GetArraySize(ids), N);
    cJSON_ArrayForEach(id, ids) r.ids[n++] = (int32_t)id->valuedouble;
    return r;
}

static weft_model *open_tiny(const char *file, const weft_engine_options *o)
{
    char name[64];
    snprintf(name, sizeof name, "dsv32/%s.gguf", file);
    return model_open(data_path(name), o);
}

static int best_of(const float *logits)
{
    int best = 0;
    for (int i = 1; i < VOCAB; i++)
        if (logits[i] > logits[best]) best = i;
    return best;
}

static double log_sum_exp(const float *x)
{
    double sum = 0;
    for (int i = 0; i < VOCAB; i++) sum += exp((double)x[i]);
    return log(sum);
}

/* ---- against the reference ---- */

/* What a run over all ids shows. */
typedef struct comparison {
    const reference *r;
    double worst;                 /* |difference of a listed log-probability| */
    int same_top, selections, wrong_selections;
} comparison;

static void compare_logits(void *context, int64_t position, const float *logits)
{
    comparison *c = context;
    const cJSON *top = cJSON_GetArrayItem(cJSON_GetObjectItem(c->r->json, "top"), (int)position), *pair;
    const double total = log_sum_exp(logits);
    c->same_top += best_of(logits) == (int)cJSON_GetArrayItem(top->child, 0)->valuedouble;
    cJSON_ArrayForEach(pair, top)
    {
        const int id = (int)cJSON_GetArrayItem(pair, 0)->valuedouble;
        const double off = fabs(logits[id] - total - cJSON_GetArrayItem(pair, 1)->valuedouble);
        if (!(off <= c->worst)) c->worst = off; /* a NaN stays */
    }
}

static void compare_selection(void *context, const weft_index *x)
{
    comparison *c = context;
    const cJSON *layer = cJSON_GetArrayItem(cJSON_GetObjectItem(c->r->json, "selected"), (int)x->layer);
    for (size_t t = 0; t < x->n; t++) {
        const cJSON *want = cJSON_GetArrayItem(layer, (int)x->row[t].position), *at;
        const int32_t *got = x->selected + t * x->top_k;
        bool same = x->count[t] == cJSON_GetArraySize(want);
        cJSON_ArrayForEach(at, want) same = same && *got++ == (int32_t)at->valuedouble;
        c->selections++;
        c->wrong_selections += !same;
    }
}

static comparison compare(const char *file, const weft_engine_options *o, const reference *r)
{
    comparison c = {.r = r};
    weft_model *model = open_tiny(file, o);
    weft_timeline *t = NULL;
    model->on_selection = compare_selection;
    model->on_selection_context = &c;
    CHECK(weft_timeline_open(&t, model, NULL, r->ids, N, err));
    CHECK(weft_timeline_evaluate_each(t, compare_logits, &c, err));
    weft_timeline_close(t);
    weft_model_close(model);
    return c;
}

static void test_reference(void **state)
{
    reference r = open_reference();
    const int chunks[] = {1, 7, 64};
    for (int i = 0; i < 3; i++) {
        const weft_engine_options o = {.kv_type = WEFT_KV_F32, .chunk = chunks[i]};
        const comparison c = compare("tiny-f16", &o, &r);
        assert_int_equal(c.selections, N * LAYERS);
        assert_int_equal(c.wrong_selections, 0);
        assert_int_equal(c.same_top, N);
        if (!(c.worst <= 1e-3)) fail_msg("chunk %d: off by %g", chunks[i], c.worst);
    }
    cJSON_Delete(r.json);
}

/* What rounding keys and latents to half costs; the peer, whose indexer cache is half, reaches 96.7 %. */
static void test_f16_keys(void **state)
{
    reference r = open_reference();
    const weft_engine_options o = {.kv_type = WEFT_KV_F16}, small = {.kv_type = WEFT_KV_Q8_0};
    const comparison c = compare("tiny-f16", &o, &r), q = compare("tiny-f16", &small, &r);
    print_message("f16 KV: %d of %d first choices, worst %g; q8_0 KV: %d, worst %g\n", c.same_top, N, c.worst,
                  q.same_top, q.worst);
    assert_true(c.same_top >= N * 97 / 100);
    assert_true(q.same_top >= N * 3 / 4 && isfinite(q.worst));
    cJSON_Delete(r.json);
}

static void test_greedy(void **state)
{
    reference r = open_reference();
    const weft_engine_options o = {.kv_type = WEFT_KV_F32};
    weft_model *model = open_tiny("tiny-f16", &o);
    weft_timeline *t = NULL;
    const cJSON *greedy = cJSON_GetObjectItem(r.json, "greedy"), *want;
    CHECK(weft_timeline_open(&t, model, NULL, r.ids, N, err));
    cJSON_ArrayForEach(want, greedy)
    {
        CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
        const int32_t id = best_of(weft_timeline_logits(t));
        assert_int_equal(id, want->valuedouble);
        CHECK(weft_timeline_append(t, &id, 1, err));
    }
    weft_timeline_close(t);
    weft_model_close(model);
    cJSON_Delete(r.json);
}

/* ---- the numeric contract ---- */

/* Four timelines in one call, a position at a time. */
static void check_batch(weft_model *model, const int32_t *ids, const digests *want)
{
    enum { BATCH = 4 };
    weft_step_item item[BATCH] = {0};
    for (int i = 0; i < BATCH; i++)
        CHECK(weft_timeline_open(&item[i].timeline, model, NULL, NULL, 0, err));
    for (size_t p = 0; p < N; p++) {
        for (int i = 0; i < BATCH; i++) CHECK(weft_timeline_append(item[i].timeline, ids + p, 1, err));
        weft_step(item, BATCH);
        for (int i = 0; i < BATCH; i++) {
            uint8_t digest[WEFT_DIGEST_BYTES];
            assert_true(item[i].status == WEFT_OK && item[i].ready);
            weft_blake2b_of(NULL, 0, weft_timeline_logits(item[i].timeline), VOCAB * sizeof(float), digest);
            if (memcmp(digest, want->at[p], sizeof digest) != 0)
                fail_msg("batch of 4: the logits differ at position %zu", p);
        }
    }
    for (int i = 0; i < BATCH; i++) weft_timeline_close(item[i].timeline);
}

/* The last 40 positions over pages that were written, closed and opened again. */
static void check_reopened(weft_model *model, const int32_t *ids, const digests *want)
{
    enum { FIRST = 200 };
    char *dir = make_temp_dir(), *kv = weft_path_join(dir, "kv");
    weft_timeline *t = NULL;
    digests d = digests_new(model, N);
    CHECK(weft_timeline_open(&t, model, kv, ids, FIRST, err));
    CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
    weft_timeline_close(t);
    CHECK(weft_timeline_open(&t, model, kv, ids, N, err));
    assert_int_equal(weft_timeline_restored(t), FIRST);
    CHECK(weft_timeline_evaluate_each(t, digests_visit, &d, err));
    digests_compare(want, &d, FIRST, N, "reopened");
    weft_timeline_close(t);
    free(d.at);
    free(kv);
    remove_temp_dir(dir);
}

static void check_same(const char *file, const weft_engine_options *o, const int32_t *ids,
                       const digests *want, const char *what)
{
    weft_model *model = open_tiny(file, o);
    digests d = digests_of(model, ids, N);
    digests_compare(want, &d, 0, N, what);
    free(d.at);
    weft_model_close(model);
}

static void check_contract(const char *file, weft_kv_type type, const int32_t *ids)
{
    static const char *const isas[] = {"scalar", "avx2", "avx512"};
    static const int chunks[] = {1, 7, 64};
    weft_engine_options o = {.kv_type = type, .chunk = 64, .threads = 2};
    weft_model *model = open_tiny(file, &o);
    digests want = digests_of(model, ids, N);
    check_batch(model, ids, &want);
    check_reopened(model, ids, &want);
    weft_model_close(model);
    for (int i = 0; i < 3; i++) {
        o = (weft_engine_options){.kv_type = type, .chunk = chunks[i], .threads = 1};
        check_same(file, &o, ids, &want, "chunk, one thread");
        if (!isa_usable(isas[i])) continue;
        o = (weft_engine_options){.kv_type = type, .isa = isas[i], .threads = 2};
        check_same(file, &o, ids, &want, isas[i]);
    }
    free(want.at);
}

static void test_contract(void **state)
{
    reference r = open_reference();
    check_contract("tiny-f16", WEFT_KV_F32, r.ids);
    check_contract("tiny-f16", WEFT_KV_F16, r.ids);
    check_contract("tiny-f16", WEFT_KV_Q8_0, r.ids);
    check_contract("tiny-q8_0", WEFT_KV_F16, r.ids);
    cJSON_Delete(r.json);
}

/* Quantised weights: finite, and as near the reference as random weights allow: where two positions are equally
 * good, rounding takes the other, and everything after it differs. */
static void test_quantised(void **state)
{
    reference r = open_reference();
    const weft_engine_options o = {.kv_type = WEFT_KV_F16};
    const comparison c = compare("tiny-q8_0", &o, &r);
    print_message("q8_0: %d of %d first choices, worst %g\n", c.same_top, N, c.worst);
    assert_true(c.same_top >= N * 3 / 4 && c.worst < 4);
    cJSON_Delete(r.json);
}

/* --attention dense: the same up to top_k positions, other logits and other pages afterwards. */
static void test_dense(void **state)
{
    reference r = open_reference();
    const weft_engine_options sparse = {0}, dense = {.dense_attention = true};
    char *dir = make_temp_dir(), *kv = weft_path_join(dir, "kv");
    weft_timeline *t = NULL;
    weft_model *model = open_tiny("tiny-f16", &sparse);
    digests want = digests_of(model, r.ids, N);
    CHECK(weft_timeline_open(&t, model, kv, r.ids, N, err));
    CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
    weft_timeline_close(t);
    weft_model_close(model);
    model = open_tiny("tiny-f16", &dense);
    digests got = digests_of(model, r.ids, N);
    digests_compare(&want, &got, 0, TOP_K, "dense");
    assert_memory_not_equal(want.at[N - 1], got.at[N - 1], WEFT_DIGEST_BYTES);
    CHECK(weft_timeline_open(&t, model, kv, r.ids, N, err));
    assert_int_equal(weft_timeline_restored(t), 0);
    weft_timeline_close(t);
    weft_model_close(model);
    free(want.at);
    free(got.at);
    free(kv);
    remove_temp_dir(dir);
    cJSON_Delete(r.json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference), cmocka_unit_test(test_f16_keys), cmocka_unit_test(test_greedy),
        cmocka_unit_test(test_contract),  cmocka_unit_test(test_quantised), cmocka_unit_test(test_dense),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
