/* The deepseek2 family (V2, V3, R1) against a plain reference in double precision (mla_model.h). And what a
 * file may ask for that is not implemented is refused by name. The indexer of V3.2 is in test_latent.c. */
#include "tests/engine/mla_model.h"

typedef struct comparison {
    reference r;
    const int32_t *ids;
    double worst;
} comparison;

static void compare(void *context, int64_t position, const float *logits)
{
    comparison *c = context;
    double want[VOCAB], hidden[EMBD];
    reference_logits(&c->r, c->ids[position], (int)position, hidden, want);
    for (int i = 0; i < VOCAB; i++)
        if (!(fabs(want[i] - logits[i]) <= c->worst)) c->worst = fabs(want[i] - logits[i]);
}

static const variant variants[] = {
    {.name = "V2 Lite", .heads = 4, .shared = 2, .dense = 1, .yarn = true},
    {.name = "V2", .heads = 20, .q_lora = 24, .shared = 2, .dense = 1, .groups = 4, .groups_used = 2, .scale = 2},
    {.name = "V3",
     .heads = 40,
     .q_lora = 24,
     .shared = 1,
     .dense = 2,
     .sigmoid = true,
     .bias = true,
     .normalise = true,
     .yarn = true,
     .groups = 3,
     .groups_used = 2,
     .scale = 2.5f},
    {.name = "no shared expert, no dense layer", .heads = 4, .sigmoid = true},
    {.name = "a layer for prediction", .heads = 4, .shared = 1, .dense = 1, .predictions = 1},
};

static void test_variants(void **state)
{
    char *dir = make_temp_dir(), *path = weft_path_join(dir, "random.gguf");
    int32_t ids[N_IDS];
    for (int i = 0; i < N_IDS; i++) ids[i] = (i * 37 + 5) % VOCAB;
    for (size_t k = 0; k < sizeof variants / sizeof *variants; k++) {
        writer *w = new_mla(&variants[k], path);
        comparison *c = calloc(1, sizeof *c);
        const weft_engine_options o = {.kv_type = WEFT_KV_F32, .chunk = 7, .threads = 2};
        weft_model *model = model_open(path, &o);
        weft_timeline *t = NULL;
        *c = (comparison){.r = {.w = w, .v = &variants[k]}, .ids = ids};
        CHECK(weft_timeline_open(&t, model, NULL, ids, N_IDS, err));
        CHECK(weft_timeline_evaluate_each(t, compare, c, err));
        if (!(c->worst < 1e-3)) fail_msg("%s: off by %g", variants[k].name, c->worst);
        weft_timeline_close(t);
        weft_model_close(model);
        writer_free(w);
        free(c);
    }
    free(path);
    remove_temp_dir(dir);
}

static void test_refusals(void **state)
{
    static const struct {
        const char *key;
        uint32_t value;
        const char *words;
    } wrong[] = {
        {".attention.head_count_kv", 4, "convert the model again"},
        {".expert_gating_func", 3, "deepseek2.expert_gating_func: 3 is not supported"},
        {".expert_group_count", 5, "do not fit 12 experts"},
        {".rope.scaling.attn_factor", 2, "attn_factor: 2 is not supported"},
        {".attention.sliding_window", 16, "sliding_window"},
        {".attn_logit_softcapping", 30, "attn_logit_softcapping: 30 is not supported"},
    };
    char *dir = make_temp_dir(), *path = weft_path_join(dir, "random.gguf");
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        variant v = variants[0];
        weft_model *model = NULL;
        weft_error e = {0};
        v.extra_key = wrong[i].key;
        v.extra_value = wrong[i].value;
        writer_free(new_mla(&v, path));
        assert_int_equal(weft_model_open(&model, path, NULL, &e), WEFT_E_MODEL);
        if (!strstr(e.message, wrong[i].words)) fail_msg("%s: %s", wrong[i].key, e.message);
    }
    free(path);
    remove_temp_dir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_variants), cmocka_unit_test(test_refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
