/* Random models of the deepseek2 and deepseek32 families, and of what deepseek2 is, with or without a layer that predicts, a plain
 * reference in double precision: keys and values of every head are made of the latents (expanded, where the engine
 * absorbs), everything is summed one after the other. */
#ifndef WEFT_TESTS_MLA_MODEL_H
#define WEFT_TESTS_MLA_MODEL_H

#include "tests/engine/reference.h"

#include <math.h>

enum {
    NOPE = 16,
    ROPE = 8,
    QK = NOPE + ROPE,
    VALUE = 12,
    LATENT = 32,
    EXPERTS = 12,
    USED = 3,
    FF_EXPERT = 24,
    MAX_MLA_HEADS = 40,
    INDEX_HEADS = 4,
    INDEX_DIM = 16,
    INDEX_TOP_K = 16,
    N_IDS = 24
};

typedef struct variant {
    const char *name;
    uint32_t heads, q_lora, shared, dense;
    bool sigmoid, bias, normalise, yarn;
    uint32_t predictions; /* layers that predict */
    bool own_ends; /* the layer that predicts has its own embedding, norm and output */
    bool indexer;  /* deepseek32; not of the reference */
    bool chain;    /* what comes behind id i is (i + 1) % VOCAB, and the layer that predicts knows it */
    uint32_t groups, groups_used; /* 0: not written */
    float scale;                  /* 0: not written */
    const char *extra_key;        /* an integer key and its value, for refusals */
    uint32_t extra_value;
} variant;

/* ---- the file ---- */

static inline void add_mla_layer(writer *w, const variant *v, uint32_t layer)
{
    char name[48];
#define IN_LAYER(part) (snprintf(name, sizeof name, "blk.%u.%s", layer, part), name)
    add(w, IN_LAYER("attn_norm.weight"), EMBD, 0, 1, 0.3);
    if (v->q_lora) {
        add(w, IN_LAYER("attn_q_a.weight"), EMBD, v->q_lora, 0, 0.5);
        add(w, IN_LAYER("attn_q_a_norm.weight"), v->q_lora, 0, 1, 0.3);
        add(w, IN_LAYER("attn_q_b.weight"), v->q_lora, v->heads * QK, 0, 0.5);
    } else {
        add(w, IN_LAYER("attn_q.weight"), EMBD, v->heads * QK, 0, 0.5);
    }
    add(w, IN_LAYER("attn_kv_a_mqa.weight"), EMBD, LATENT + ROPE, 0, 0.5);
    add(w, IN_LAYER("attn_kv_a_norm.weight"), LATENT, 0, 1, 0.3);
    add_stack(w, IN_LAYER("attn_k_b.weight"), NOPE, LATENT, v->heads, 0, 0.4);
    add_stack(w, IN_LAYER("attn_v_b.weight"), LATENT, VALUE, v->heads, 0, 0.4);
    add(w, IN_LAYER("attn_output.weight"), v->heads * VALUE, EMBD, 0, 0.2);
    if (v->indexer) {
        add(w, IN_LAYER("indexer.attn_q_b.weight"), v->q_lora, INDEX_HEADS * INDEX_DIM, 0, 0.5);
        add(w, IN_LAYER("indexer.attn_k.weight"), EMBD, INDEX_DIM, 0, 0.5);
        add(w, IN_LAYER("indexer.proj.weight"), EMBD, INDEX_HEADS, 0, 0.5);
        add(w, IN_LAYER("indexer.k_norm.weight"), INDEX_DIM, 0, 1, 0.3);
        add(w, IN_LAYER("indexer.k_norm.bias"), INDEX_DIM, 0, 0, 0.3);
    }
    add(w, IN_LAYER("ffn_norm.weight"), EMBD, 0, 1, 0.3);
    if (layer < v->dense) {
        add(w, IN_LAYER("ffn_gate.weight"), EMBD, FF, 0, 0.4);
        add(w, IN_LAYER("ffn_up.weight"), EMBD, FF, 0, 0.4);
        add(w, IN_LAYER("ffn_down.weight"), FF, EMBD, 0, 0.3);
        return;
    }
    add(w, IN_LAYER("ffn_gate_inp.weight"), EMBD, EXPERTS, 0, 1);
    if (v->bias) add(w, IN_LAYER("exp_probs_b.bias"), EXPERTS, 0, 0, 0.4);
    add_stack(w, IN_LAYER("ffn_gate_exps.weight"), EMBD, FF_EXPERT, EXPERTS, 0, 0.4);
    add_stack(w, IN_LAYER("ffn_up_exps.weight"), EMBD, FF_EXPERT, EXPERTS, 0, 0.4);
    add_stack(w, IN_LAYER("ffn_down_exps.weight"), FF_EXPERT, EMBD, EXPERTS, 0, 0.3);
    if (v->shared) {
        add(w, IN_LAYER("ffn_gate_shexp.weight"), EMBD, v->shared * FF_EXPERT, 0, 0.4);
        add(w, IN_LAYER("ffn_up_shexp.weight"), EMBD, v->shared * FF_EXPERT, 0, 0.4);
        add(w, IN_LAYER("ffn_down_shexp.weight"), v->shared * FF_EXPERT, EMBD, 0, 0.3);
    }
}

/* A layer that predicts a further token: a whole one and what joins it to the others. */
static inline void add_prediction(writer *w, const variant *v, uint32_t layer)
{
    char name[48];
    add_mla_layer(w, v, layer);
    add(w, IN_LAYER("nextn.eh_proj.weight"), 2 * EMBD, EMBD, 0, 0.4);
    add(w, IN_LAYER("nextn.enorm.weight"), EMBD, 0, 1, 0.3);
    add(w, IN_LAYER("nextn.hnorm.weight"), EMBD, 0, 1, 0.3);
    if (v->own_ends) {
        add(w, IN_LAYER("nextn.shared_head_norm.weight"), EMBD, 0, 1, 0.3);
        add(w, IN_LAYER("nextn.embed_tokens.weight"), EMBD, VOCAB, 0, 1);
        add(w, IN_LAYER("nextn.shared_head_head.weight"), EMBD, VOCAB, 0, 0.5);
    }
#undef IN_LAYER
}

static inline void describe_mla(writer *w, const variant *v)
{
    key_text(w, "general.architecture", w->s->arch);
    key_u32(w, ".block_count", LAYERS + v->predictions);
    key_u32(w, ".context_length", 256);
    key_u32(w, ".embedding_length", EMBD);
    key_u32(w, ".feed_forward_length", FF);
    key_u32(w, ".attention.head_count", v->heads);
    key_f32(w, ".attention.layer_norm_rms_epsilon", 1e-5f);
    key_f32(w, ".rope.freq_base", 10000);
    key_u32(w, ".rope.dimension_count", ROPE);
    key_u32(w, ".attention.key_length", LATENT + ROPE);
    key_u32(w, ".attention.value_length", LATENT);
    key_u32(w, ".attention.key_length_mla", QK);
    key_u32(w, ".attention.value_length_mla", VALUE);
    key_u32(w, ".attention.kv_lora_rank", LATENT);
    if (v->q_lora) key_u32(w, ".attention.q_lora_rank", v->q_lora);
    if (v->indexer) {
        key_u32(w, ".attention.indexer.head_count", INDEX_HEADS);
        key_u32(w, ".attention.indexer.key_length", INDEX_DIM);
        key_u32(w, ".attention.indexer.top_k", INDEX_TOP_K);
    }
    if (v->yarn) {
        key_text(w, ".rope.scaling.type", "yarn");
        key_f32(w, ".rope.scaling.factor", 40);
        key_u32(w, ".rope.scaling.original_context_length", 64);
        key_f32(w, ".rope.scaling.yarn_log_multiplier", 0.0707f);
    }
    key_u32(w, ".expert_count", EXPERTS);
    key_u32(w, ".expert_used_count", USED);
    key_u32(w, ".expert_feed_forward_length", FF_EXPERT);
    key_u32(w, ".leading_dense_block_count", v->dense);
    if (v->shared) key_u32(w, ".expert_shared_count", v->shared);
    if (v->sigmoid) key_u32(w, ".expert_gating_func", 2);
    if (v->groups) key_u32(w, ".expert_group_count", v->groups);
    if (v->groups) key_u32(w, ".expert_group_used_count", v->groups_used);
    if (v->scale > 0) key_f32(w, ".expert_weights_scale", v->scale);
    if (v->normalise) {
        key(w, ".expert_weights_norm", 7);
        put(&w->kv, "\1", 1);
    }
    if (v->extra_key) key_u32(w, v->extra_key, v->extra_value);
    vocabulary(w);
}

static inline float *data_of(writer *w, int layer, const char *part)
{
    return (float *)(uintptr_t)find(w, layer, part);
}

/* No layer adds anything to the stream, so that it is the token's embedding, of length 1, to which the output row of the id
 * after it is equal; the layer that predicts takes the embedding of its pair. */
static inline void make_chain(writer *w)
{
    float *embedding = data_of(w, -1, "token_embd.weight"), *output = data_of(w, -1, "output.weight");
    float *join = data_of(w, LAYERS, "nextn.eh_proj.weight");
    for (size_t i = 0; i < w->n; i++) {
        const tensor *t = &w->t[i];
        if (strstr(t->name, "attn_output") || strstr(t->name, "ffn_down")) memset(t->data, 0, t->bytes);
        for (size_t j = 0; t->rows == 0 && j < t->columns; j++) t->data[j] = 1;
    }
    for (int id = 0; id < VOCAB; id++) {
        float *e = embedding + (size_t)id * EMBD;
        double sum = 0;
        for (int i = 0; i < EMBD; i++) sum += (double)e[i] * e[i];
        for (int i = 0; i < EMBD; i++) e[i] = (float)(e[i] / sqrt(sum));
        memcpy(output + (size_t)((id + 1) % VOCAB) * EMBD, e, EMBD * sizeof *e);
    }
    for (int r = 0; r < EMBD; r++)
        for (int c = 0; c < 2 * EMBD; c++) join[r * 2 * EMBD + c] = r == c;
}

static inline writer *new_mla(const variant *v, const char *path)
{
    static const spec family[] = {{.arch = "deepseek2", .type = WEFT_F32}, {.arch = "deepseek32", .type = WEFT_F32}};
    writer *w = calloc(1, sizeof *w);
    assert_non_null(w);
    w->s = &family[v->indexer];
    add(w, "token_embd.weight", EMBD, VOCAB, 0, 1);
    add(w, "output.weight", EMBD, VOCAB, 0, 0.5);
    add(w, "output_norm.weight", EMBD, 0, 1, 0.3);
    for (uint32_t i = 0; i < LAYERS; i++) add_mla_layer(w, v, i);
    for (uint32_t i = 0; i < v->predictions; i++) add_prediction(w, v, LAYERS + i);
    if (v->chain) make_chain(w);
    describe_mla(w, v);
    write_file(w, path);
    return w;
}

/* ---- the reference ---- */

typedef struct reference {
    const writer *w;
    const variant *v;
    double latent[LAYERS + 1][N_IDS][LATENT], rope[LAYERS + 1][N_IDS][ROPE];
} reference;

static inline double frequency(const variant *v, int i)
{
    const double freq = pow(10000, -2.0 * i / ROPE), pi = acos(-1);
    if (!v->yarn) return freq;
    const double low = fmax(0, floor(ROPE * log(64 / (32 * 2 * pi)) / (2 * log(10000))));
    const double high = fmin(ROPE - 1, ceil(ROPE * log(64 / (1 * 2 * pi)) / (2 * log(10000))));
    const double fade = fmin(1, fmax(0, (i - low) / (high - low)));
    return freq / 40 * fade + freq * (1 - fade);
}

static inline void rotate(const variant *v, double *x, int position)
{
    for (int i = 0; i < ROPE / 2; i++) {
        const double angle = position * frequency(v, i), p = x[2 * i], q = x[2 * i + 1];
        x[2 * i] = p * cos(angle) - q * sin(angle);
        x[2 * i + 1] = p * sin(angle) + q * cos(angle);
    }
}

static inline void reference_queries(const reference *r, int layer, const double *x, int position, double *q)
{
    const variant *v = r->v;
    double lora[64];
    if (v->q_lora) {
        times(find(r->w, layer, "attn_q_a.weight"), NULL, x, EMBD, v->q_lora, lora);
        norm(lora, find(r->w, layer, "attn_q_a_norm.weight"), v->q_lora, lora);
        times(find(r->w, layer, "attn_q_b.weight"), NULL, lora, v->q_lora, v->heads * QK, q);
    } else {
        times(find(r->w, layer, "attn_q.weight"), NULL, x, EMBD, v->heads * QK, q);
    }
    for (uint32_t h = 0; h < v->heads; h++) rotate(v, q + h * QK + NOPE, position);
}

/* One head over its expanded keys and values. */
static inline void reference_head(const reference *r, int layer, uint32_t h, const double *q, int position, double *out)
{
    const float *k_b = find(r->w, layer, "attn_k_b.weight") + (size_t)h * LATENT * NOPE;
    const float *v_b = find(r->w, layer, "attn_v_b.weight") + (size_t)h * VALUE * LATENT;
    const double mscale = r->v->yarn ? 1 + 0.0707f * log(40) : 1;
    double score[N_IDS], sum = 0;
    for (int s = 0; s <= position; s++) {
        score[s] = 0;
        for (int i = 0; i < NOPE; i++) {
            double key = 0;
            for (int l = 0; l < LATENT; l++) key += (double)k_b[l * NOPE + i] * r->latent[layer][s][l];
            score[s] += q[i] * key;
        }
        for (int i = 0; i < ROPE; i++) score[s] += q[NOPE + i] * r->rope[layer][s][i];
        score[s] = exp(score[s] * mscale * mscale / sqrt(QK));
        sum += score[s];
    }
    memset(out, 0, VALUE * sizeof *out);
    for (int s = 0; s <= position; s++) {
        double value[VALUE];
        times(v_b, NULL, r->latent[layer][s], LATENT, VALUE, value);
        for (int i = 0; i < VALUE; i++) out[i] += score[s] / sum * value[i];
    }
}

static inline void reference_attention(reference *r, int layer, const double *x, int position, double *out)
{
    double q[MAX_MLA_HEADS * QK], kv[LATENT + ROPE], attended[MAX_MLA_HEADS * VALUE];
    times(find(r->w, layer, "attn_kv_a_mqa.weight"), NULL, x, EMBD, LATENT + ROPE, kv);
    norm(kv, find(r->w, layer, "attn_kv_a_norm.weight"), LATENT, r->latent[layer][position]);
    memcpy(r->rope[layer][position], kv + LATENT, ROPE * sizeof *kv);
    rotate(r->v, r->rope[layer][position], position);
    reference_queries(r, layer, x, position, q);
    for (uint32_t h = 0; h < r->v->heads; h++)
        reference_head(r, layer, h, q + h * QK, position, attended + h * VALUE);
    times(find(r->w, layer, "attn_output.weight"), NULL, attended, r->v->heads * VALUE, EMBD, out);
}

/* out += weight * down(silu(gate x) * up x) */
static inline void add_gated(const float *gate, const float *up, const float *down, size_t ff, const double *x,
                      double weight, double *out)
{
    double g[FF * 2], u[FF * 2], y[EMBD];
    times(gate, NULL, x, EMBD, ff, g);
    times(up, NULL, x, EMBD, ff, u);
    for (size_t i = 0; i < ff; i++) g[i] = g[i] / (1 + exp(-g[i])) * u[i];
    times(down, NULL, g, ff, EMBD, y);
    for (int i = 0; i < EMBD; i++) out[i] += weight * y[i];
}

/* The largest of `from` that is not taken yet. */
static inline int take_best(const double *from, bool *taken, int n)
{
    int best = -1;
    for (int i = 0; i < n; i++)
        if (!taken[i] && (best < 0 || from[i] > from[best])) best = i;
    taken[best] = true;
    return best;
}

/* V2: the best of a group counts; V3: its two best together. */
static inline void close_groups(const variant *v, const double *choice, bool *taken)
{
    const int size = EXPERTS / (int)v->groups;
    double score[EXPERTS];
    bool kept[EXPERTS] = {false};
    for (int g = 0; g < (int)v->groups; g++) {
        bool seen[EXPERTS] = {false};
        const double first = choice[g * size + take_best(choice + g * size, seen, size)];
        score[g] = v->sigmoid ? first + choice[g * size + take_best(choice + g * size, seen, size)] : first;
    }
    for (uint32_t i = 0; i < v->groups_used; i++) take_best(score, kept, (int)v->groups);
    for (int e = 0; e < EXPERTS; e++) taken[e] = !kept[e / size];
}

static inline void reference_experts(const reference *r, int layer, const double *x, double *out)
{
    const variant *v = r->v;
    const float *bias = find(r->w, layer, "exp_probs_b.bias");
    double p[EXPERTS], choice[EXPERTS], sum = 0, chosen = 0;
    bool taken[EXPERTS] = {false};
    int pick[USED];
    times(find(r->w, layer, "ffn_gate_inp.weight"), NULL, x, EMBD, EXPERTS, p);
    for (int e = 0; e < EXPERTS; e++) sum += p[e] = v->sigmoid ? 1 / (1 + exp(-p[e])) : exp(p[e]);
    for (int e = 0; e < EXPERTS; e++) {
        if (!v->sigmoid) p[e] /= sum;
        choice[e] = p[e] + (bias ? bias[e] : 0);
    }
    if (v->groups > 1) close_groups(v, choice, taken);
    for (int i = 0; i < USED; i++) chosen += p[pick[i] = take_best(choice, taken, EXPERTS)];
    for (int i = 0; i < USED; i++) {
        const size_t at = (size_t)pick[i] * EMBD * FF_EXPERT;
        add_gated(find(r->w, layer, "ffn_gate_exps.weight") + at, find(r->w, layer, "ffn_up_exps.weight") + at,
                  find(r->w, layer, "ffn_down_exps.weight") + at, FF_EXPERT, x,
                  p[pick[i]] / (v->normalise ? chosen : 1) * (v->scale > 0 ? v->scale : 1), out);
    }
    if (v->shared)
        add_gated(find(r->w, layer, "ffn_gate_shexp.weight"), find(r->w, layer, "ffn_up_shexp.weight"),
                  find(r->w, layer, "ffn_down_shexp.weight"), v->shared * FF_EXPERT, x, 1, out);
}

static inline void reference_layer(reference *r, int layer, double *x, int position)
{
    double normed[EMBD], branch[EMBD];
    norm(x, find(r->w, layer, "attn_norm.weight"), EMBD, normed);
    reference_attention(r, layer, normed, position, branch);
    for (int i = 0; i < EMBD; i++) x[i] += branch[i];
    norm(x, find(r->w, layer, "ffn_norm.weight"), EMBD, normed);
    if ((uint32_t)layer < r->v->dense)
        add_gated(find(r->w, layer, "ffn_gate.weight"), find(r->w, layer, "ffn_up.weight"),
                  find(r->w, layer, "ffn_down.weight"), FF, normed, 1, x);
    else
        reference_experts(r, layer, normed, x);
}

/* hidden [EMBD]: what the output matrix is given. */
static inline void reference_logits(reference *r, int32_t id, int position, double *hidden, double *logits)
{
    for (int i = 0; i < EMBD; i++) hidden[i] = find(r->w, -1, "token_embd.weight")[id * EMBD + i];
    for (int layer = 0; layer < LAYERS; layer++) reference_layer(r, layer, hidden, position);
    norm(hidden, find(r->w, -1, "output_norm.weight"), EMBD, hidden);
    times(find(r->w, -1, "output.weight"), NULL, hidden, EMBD, VOCAB, logits);
}

/* What comes behind id, by the layer that predicts; before: the hidden state of the token before, own: this one's. */
static inline void reference_prediction(reference *r, int32_t id, int position, const double *before, double *own,
                                        double *logits)
{
    const float *embedding = find(r->w, LAYERS, "nextn.embed_tokens.weight");
    const float *head = find(r->w, LAYERS, "nextn.shared_head_head.weight");
    const float *head_norm = find(r->w, LAYERS, "nextn.shared_head_norm.weight");
    double pair[2 * EMBD] = {0}, normed[EMBD];
    if (!embedding) embedding = find(r->w, -1, "token_embd.weight");
    for (int i = 0; i < EMBD; i++) pair[i] = embedding[id * EMBD + i];
    norm(pair, find(r->w, LAYERS, "nextn.enorm.weight"), EMBD, pair);
    if (position > 0) norm(before, find(r->w, LAYERS, "nextn.hnorm.weight"), EMBD, pair + EMBD);
    if (position == 0) memset(pair, 0, sizeof pair);
    times(find(r->w, LAYERS, "nextn.eh_proj.weight"), NULL, pair, 2 * EMBD, EMBD, own);
    reference_layer(r, LAYERS, own, position);
    norm(own, head_norm ? head_norm : find(r->w, -1, "output_norm.weight"), EMBD, normed);
    times(head ? head : find(r->w, -1, "output.weight"), NULL, normed, EMBD, VOCAB, logits);
}

#endif
