/* Every family against a plain double-precision transformer, on small random models written here:
 * rope kinds, scaling and factors, head norms, post norms, biases, windows, tied and separate
 * outputs. And what a file may ask for that is not implemented is refused by name. */
#include "tests/engine/reference.h"

#include <math.h>

/* ---- the reference: one token after the other, all keys kept, everything in double ---- */

typedef struct reference {
    const writer *w;
    double k[LAYERS][TOKENS][HEADS_KV * 64], v[LAYERS][TOKENS][HEADS_KV * 64];
} reference;

static bool slides(const spec *s, int layer) {
    return s->window > 0 && (uint32_t)(layer + 1) % s->period != 0;
}

static void rotate(const writer *w, int layer, double *x, size_t heads, int position) {
    const spec *s = w->s;
    const float *factor = find(w, -1, "rope_freqs.weight");
    double theta = slides(s, layer) ? 10000 : s->theta;
    double scale = s->linear > 0 && !slides(s, layer) ? s->linear : 1;
    for (size_t h = 0; h < heads; h++) {
        double *head = x + h * s->head_dim;
        for (uint32_t i = 0; i < s->rope_dim / 2; i++) {
            double angle = position / scale * pow(theta, -2.0 * i / s->rope_dim);
            if (factor) angle /= factor[i];
            uint32_t a = s->interleaved ? 2 * i : i,
                     b = s->interleaved ? a + 1 : i + s->rope_dim / 2;
            double p = head[a], q = head[b];
            head[a] = p * cos(angle) - q * sin(angle);
            head[b] = p * sin(angle) + q * cos(angle);
        }
    }
}

static void attention(const reference *r, int layer, int position, const double *q, double *out) {
    const spec *s = r->w->s;
    size_t d = s->head_dim;
    int first = slides(s, layer) && position >= (int)s->window ? position - (int)s->window + 1 : 0;
    memset(out, 0, HEADS * d * sizeof *out);
    for (size_t h = 0; h < HEADS; h++) {
        size_t at = h / (HEADS / HEADS_KV) * d;
        double weight[TOKENS], sum = 0;
        for (int j = first; j <= position; j++) {
            double score = 0;
            for (size_t i = 0; i < d; i++) score += q[h * d + i] * r->k[layer][j][at + i];
            sum += weight[j] = exp(score / sqrt((double)d));
        }
        for (int j = first; j <= position; j++)
            for (size_t i = 0; i < d; i++)
                out[h * d + i] += weight[j] / sum * r->v[layer][j][at + i];
    }
}

static void gated(const spec *s, const float *w_gate, const float *w_up, const float *w_down,
                  const double *x, double *out) {
    double gate[FF], up[FF];
    times(w_gate, NULL, x, EMBD, FF, gate);
    times(w_up, NULL, x, EMBD, FF, up);
    for (int i = 0; i < FF; i++) {
        double g = gate[i];
        double gelu =
            0.5 * g * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (g + 0.044715 * g * g * g)));
        up[i] *= s->gelu ? gelu : g / (1 + exp(-g));
    }
    times(w_down, NULL, up, FF, EMBD, out);
}

/* The `used` likeliest experts, each weighed with its share of their probability. */
static void mixture(const writer *w, int layer, const double *x, double *out) {
    const spec *s = w->s;
    double share[64], total = 0, of_chosen = 0, one[EMBD];
    bool chosen[64] = {false};
    times(find(w, layer, "ffn_gate_inp.weight"), NULL, x, EMBD, s->experts, share);
    for (uint32_t e = 0; e < s->experts; e++) total += share[e] = exp(share[e]);
    for (uint32_t k = 0; k < s->used; k++) {
        uint32_t best = s->experts;
        for (uint32_t e = 0; e < s->experts; e++)
            if (!chosen[e] && (best == s->experts || share[e] > share[best])) best = e;
        chosen[best] = true;
        of_chosen += share[best];
    }
    memset(out, 0, EMBD * sizeof *out);
    for (uint32_t e = 0; e < s->experts; e++) {
        if (!chosen[e]) continue;
        const size_t at = (size_t)e * EMBD * FF;
        double weight = share[e] / (s->not_normalised ? total : of_chosen);
        if (s->expert_scale > 0) weight *= s->expert_scale;
        gated(s, find(w, layer, "ffn_gate_exps.weight") + at,
              find(w, layer, "ffn_up_exps.weight") + at,
              find(w, layer, "ffn_down_exps.weight") + at, x, one);
        for (int i = 0; i < EMBD; i++) out[i] += weight * one[i];
    }
}

static void block(reference *r, int layer, int position, double *x) {
    const writer *w = r->w;
    const spec *s = w->s;
    size_t d = s->head_dim, n_q = HEADS * d, n_kv = HEADS_KV * d;
    double y[EMBD], q[HEADS * 64], mixed[HEADS * 64];
    double *k = r->k[layer][position], *v = r->v[layer][position];
    norm(x, find(w, layer, "attn_norm.weight"), EMBD, y);
    times(find(w, layer, "attn_q.weight"), find(w, layer, "attn_q.bias"), y, EMBD, n_q, q);
    times(find(w, layer, "attn_k.weight"), find(w, layer, "attn_k.bias"), y, EMBD, n_kv, k);
    times(find(w, layer, "attn_v.weight"), find(w, layer, "attn_v.bias"), y, EMBD, n_kv, v);
    for (size_t h = 0; s->head_norms && h < HEADS; h++)
        norm(q + h * d, find(w, layer, "attn_q_norm.weight"), d, q + h * d);
    for (size_t h = 0; s->head_norms && h < HEADS_KV; h++)
        norm(k + h * d, find(w, layer, "attn_k_norm.weight"), d, k + h * d);
    rotate(w, layer, q, HEADS, position);
    rotate(w, layer, k, HEADS_KV, position);
    attention(r, layer, position, q, mixed);
    times(find(w, layer, "attn_output.weight"), NULL, mixed, n_q, EMBD, y);
    if (s->post_norms) norm(y, find(w, layer, "post_attention_norm.weight"), EMBD, y);
    for (int i = 0; i < EMBD; i++) x[i] += y[i];
    norm(x, find(w, layer, "ffn_norm.weight"), EMBD, y);
    if (s->experts)
        mixture(w, layer, y, mixed);
    else
        gated(s, find(w, layer, "ffn_gate.weight"), find(w, layer, "ffn_up.weight"),
              find(w, layer, "ffn_down.weight"), y, mixed);
    memcpy(y, mixed, sizeof y);
    if (s->post_norms) norm(y, find(w, layer, "post_ffw_norm.weight"), EMBD, y);
    for (int i = 0; i < EMBD; i++) x[i] += y[i];
}

static void reference_logits(reference *r, int32_t id, int position, double *logits) {
    const float *embedding = find(r->w, -1, "token_embd.weight");
    const float *output = find(r->w, -1, r->w->s->tied ? "token_embd.weight" : "output.weight");
    double x[EMBD];
    for (int i = 0; i < EMBD; i++)
        x[i] = r->w->s->embedding_scale * embedding[(size_t)id * EMBD + (size_t)i];
    for (int layer = 0; layer < LAYERS; layer++) block(r, layer, position, x);
    norm(x, find(r->w, -1, "output_norm.weight"), EMBD, x);
    times(output, NULL, x, EMBD, VOCAB, logits);
}

/* ---- the tests ---- */

typedef struct collected {
    float logits[TOKENS][VOCAB];
} collected;

static void collect(void *context, int64_t position, const float *logits) {
    collected *c = context;
    memcpy(c->logits[position], logits, sizeof c->logits[0]);
}

static void check_family(const spec *s) {
    char *dir = make_temp_dir(), *path = weft_path_join(dir, "random.gguf");
    writer *w = new_model(s, path);
    const weft_engine_options o = {.kv_type = WEFT_KV_F32, .chunk = 9, .threads = 2};
    weft_model *model = model_open(path, &o);
    weft_timeline *t = NULL;
    collected *c = calloc(1, sizeof *c);
    reference *r = calloc(1, sizeof *r);
    int32_t ids[TOKENS];
    for (int i = 0; i < TOKENS; i++) ids[i] = (i * 97 + 5) % VOCAB;
    CHECK(weft_timeline_open(&t, model, NULL, ids, TOKENS, err));
    CHECK(weft_timeline_evaluate_each(t, collect, c, err));
    r->w = w;
    double worst = 0;
    for (int i = 0; i < TOKENS; i++) {
        double expected[VOCAB];
        reference_logits(r, ids[i], i, expected);
        for (int j = 0; j < VOCAB; j++) worst = fmax(worst, fabs(expected[j] - c->logits[i][j]));
    }
    print_message("%s: worst logit off by %g\n", s->arch, worst);
    assert_true(worst < 2e-4);
    weft_timeline_close(t);
    weft_model_close(model);
    free(c);
    free(r);
    writer_free(w);
    free(path);
    remove_temp_dir(dir);
}

static void test_qwen2(void **state) {
    const spec s = {.arch = "qwen2",
                    .head_dim = 8,
                    .rope_dim = 8,
                    .theta = 1e6f,
                    .bias = true,
                    .embedding_scale = 1};
    check_family(&s);
}

static void test_qwen3(void **state) {
    const spec s = {.arch = "qwen3",
                    .head_dim = 16,
                    .rope_dim = 16,
                    .theta = 1e6f,
                    .head_norms = true,
                    .tied = true,
                    .embedding_scale = 1};
    check_family(&s);
}

static void test_llama(void **state) {
    spec s = {.arch = "llama",
              .head_dim = 8,
              .rope_dim = 8,
              .theta = 5e5f,
              .interleaved = true,
              .factors = true,
              .embedding_scale = 1};
    check_family(&s);
    s.factors = false;
    s.linear = 4;
    s.rope_dim = 6;
    s.tied = true;
    check_family(&s);
}

static void test_gemma3(void **state) {
    const spec s = {.arch = "gemma3",
                    .head_dim = 16,
                    .rope_dim = 16,
                    .theta = 1e6f,
                    .linear = 8,
                    .window = 7,
                    .period = 3,
                    .head_norms = true,
                    .post_norms = true,
                    .tied = true,
                    .gelu = true,
                    .embedding_scale = sqrt(EMBD)};
    check_family(&s);
}

static void test_qwen3moe(void **state) {
    spec s = {.arch = "qwen3moe",
              .head_dim = 16,
              .rope_dim = 16,
              .theta = 1e6f,
              .head_norms = true,
              .experts = 13,
              .used = 4,
              .embedding_scale = 1};
    check_family(&s);
    s.used = 13;
    s.not_normalised = true;
    s.expert_scale = 0.75f;
    check_family(&s);
}

/* Whatever would change the mathematics and is not implemented is named, not ignored. */
static void test_refusals(void **state) {
    const spec plain = {.arch = "llama", .head_dim = 8, .rope_dim = 8, .theta = 1e4f};
    const struct {
        const char *key;
        uint32_t value;
        const char *scaling, *tensor, *expect;
    } cases[] = {
        {".expert_count", 8, NULL, NULL, "llama.expert_count: 8 is not supported"},
        {".expert_shared_count", 1, NULL, NULL, "llama.expert_shared_count: 1 is not supported"},
        {".final_logit_softcapping", 30, NULL, NULL, "llama.final_logit_softcapping"},
        {".attention.sliding_window", 16, NULL, NULL, "llama.attention.sliding_window: 16"},
        {".logit_scale", 2, NULL, NULL, "llama.logit_scale"},
        {NULL, 0, "yarn", NULL, "llama.rope.scaling.type: \"yarn\" is not supported"},
        {NULL, 0, "linear", NULL, "llama.rope.scaling.factor: missing"},
        {NULL, 0, NULL, "blk.0.attn_output.bias", "blk.0.attn_output.bias: not known to the llama"},
        {NULL, 0, NULL, "blk.2.attn_q.bias2", "blk.2.attn_q.bias2: not known"},
    };
    char *dir = make_temp_dir(), *path = weft_path_join(dir, "random.gguf");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        spec s = plain;
        s.extra_key = cases[i].key;
        s.extra_value = cases[i].value;
        s.scaling_type = cases[i].scaling;
        s.extra_tensor = cases[i].tensor;
        writer_free(new_model(&s, path));
        weft_model *model = NULL;
        weft_error err = {0};
        assert_int_equal(weft_model_open(&model, path, NULL, &err), WEFT_E_MODEL);
        if (!strstr(err.message, cases[i].expect)) fail_msg("said \"%s\"", err.message);
    }
    spec s = plain; /* a window as wide as the context is none */
    s.extra_key = ".attention.sliding_window";
    s.extra_value = 256;
    writer_free(new_model(&s, path));
    weft_model_close(model_open(path, NULL));
    free(path);
    remove_temp_dir(dir);
}

/* A mixture whose keys or tensors do not fit together. */
static void test_expert_keys(void **state) {
    const spec plain = {.arch = "qwen3moe", .head_dim = 8, .rope_dim = 8, .theta = 1e4f,
                        .head_norms = true, .experts = 5, .used = 2};
    const struct {
        uint32_t experts, used;
        const char *key;
        uint32_t value;
        const char *expect;
    } cases[] = {
        {0, 0, NULL, 0, "qwen3moe.expert_count: missing"},
        {5, 6, NULL, 0, "qwen3moe.expert_used_count: 6 is not within 1 to 5"},
        {5, 0, NULL, 0, "qwen3moe.expert_used_count: 0"},
        {5, 2, ".expert_gating_func", 2, "qwen3moe.expert_gating_func: 2 is not supported"},
        {5, 2, ".expert_group_count", 4, "qwen3moe.expert_group_count: 4 is not supported"},
    };
    char *dir = make_temp_dir(), *path = weft_path_join(dir, "random.gguf");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        spec s = plain;
        s.experts = cases[i].experts;
        s.used = cases[i].used;
        s.extra_key = cases[i].key;
        s.extra_value = cases[i].value;
        writer_free(new_model(&s, path));
        weft_model *model = NULL;
        weft_error err = {0};
        assert_int_equal(weft_model_open(&model, path, NULL, &err), WEFT_E_MODEL);
        if (!strstr(err.message, cases[i].expect)) fail_msg("said \"%s\"", err.message);
    }
    free(path);
    remove_temp_dir(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_qwen2),    cmocka_unit_test(test_qwen3),
        cmocka_unit_test(test_llama),    cmocka_unit_test(test_gemma3),
        cmocka_unit_test(test_qwen3moe), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_expert_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
