/* From file to memory: every tensor of the transformer is found by name, its shape compared with
 * the hyper-parameters, and then repacked by the backend or left where it is (placement.h). Norms and biases are copied, rows of the
 * embedding are read for as long as the model lives.
 *
 * A tensor that nobody asked for is an error: ignoring a bias would give wrong logits in silence.
 */
#include "engine/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_BYTES = 64, VECTOR_ALIGN = 64 };

typedef struct loader {
    weft_model *model;
    const weft_engine_options *options;
    const weft_tensor **taken; /* [tensor count of the file] */
    size_t n_taken;
    float *next_vector; /* free space of model->vectors */
    size_t done_bytes, total_bytes;
    size_t in_memory; /* weights so far */
    weft_error *err;
} loader;

static const char *layer_name(char name[NAME_BYTES], uint32_t layer, const char *part)
{
    snprintf(name, NAME_BYTES, "blk.%u.%s", layer, part);
    return name;
}

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

static weft_status wrong_shape(loader *l, const weft_tensor *t, uint64_t columns, uint64_t rows,
                               uint64_t matrices)
{
    const unsigned long long is[] = {t->dim[0], t->dim[1], t->dim[2]},
                             want[] = {columns, rows, matrices};
    if (is[2] == 1 && want[2] == 1)
        return weft_fail(l->err, WEFT_E_MODEL,
                         "tensor %s: is %llu x %llu, the metadata say %llu x %llu", t->name, is[0],
                         is[1], want[0], want[1]);
    return weft_fail(l->err, WEFT_E_MODEL,
                     "tensor %s: is %llu x %llu x %llu, the metadata say %llu x %llu x %llu",
                     t->name, is[0], is[1], is[2], want[0], want[1], want[2]);
}

/* The tensor of this name and shape (rows 0: one dimension; matrices: of a stack), noted as taken. *out
 * is NULL if it is optional and missing. */
static weft_status take(loader *l, const char *name, uint64_t columns, uint64_t rows,
                        uint64_t matrices, bool optional, const weft_tensor **out)
{
    const weft_tensor *t = weft_gguf_tensor_find(l->model->file, name);
    *out = NULL;
    if (!t && optional) return WEFT_OK;
    if (!t) return weft_fail(l->err, WEFT_E_MODEL, "tensor %s: missing", name);
    uint64_t want_rows = rows ? rows : 1;
    if (t->dim[0] != columns || t->dim[1] != want_rows || t->dim[2] != matrices || t->dim[3] != 1)
        return wrong_shape(l, t, columns, want_rows, matrices);
    if (l->n_taken == weft_gguf_tensor_count(l->model->file))
        return weft_fail(l->err, WEFT_E_MODEL, "tensor %s: taken twice", name);
    l->taken[l->n_taken++] = t;
    *out = t;
    return WEFT_OK;
}

/* weft_progress after each tensor. */
static weft_status finished(loader *l, const weft_tensor *t)
{
    l->done_bytes += t->bytes;
    const weft_engine_options *o = l->options;
    if (o->progress &&
        o->progress(o->progress_context, "load", (int64_t)l->done_bytes, (int64_t)l->total_bytes))
        return weft_fail(l->err, WEFT_E_INTERRUPTED, "loading was stopped");
    return WEFT_OK;
}

static weft_status vector(loader *l, const char *name, uint32_t n, bool optional, const float **out)
{
    const weft_tensor *t;
    weft_status status = take(l, name, n, 0, 1, optional, &t);
    if (status || !t) return status;
    if (t->type != WEFT_F32)
        return weft_fail(l->err, WEFT_E_MODEL, "tensor %s: type %s, only F32 is supported here",
                         name, weft_tensor_type_name(t->type));
    status = weft_tensor_read(t, 0, n * sizeof(float), l->next_vector, l->err);
    if (status) return status;
    *out = l->next_vector;
    l->next_vector += round_up(n, VECTOR_ALIGN / sizeof(float));
    return finished(l, t);
}

/* Part of tensor t, or all of it: repacked, or left in the file, as t is placed. */
static weft_status weigh_part(loader *l, const weft_tensor *t, const weft_tensor *part, weft_weight **out)
{
    weft_model *m = l->model;
    bool repack = weft_placement_in_memory(&m->placement, m->file, t);
    weft_status status = (repack ? m->ops->weight_new : m->ops->weight_map)(m->backend, part, out, l->err);
    if (!status) l->in_memory += m->ops->weight_bytes(*out);
    return status;
}

static weft_status weigh(loader *l, const weft_tensor *t, weft_weight **out)
{
    weft_status status = weigh_part(l, t, t, out);
    return status ? status : finished(l, t);
}

static weft_status stack(loader *l, const char *name, uint32_t columns, uint32_t rows,
                         uint32_t matrices, weft_weight **out)
{
    const weft_tensor *t;
    weft_status status = take(l, name, columns, rows, matrices, false, &t);
    return status ? status : weigh(l, t, out);
}

static weft_status matrix(loader *l, const char *name, uint32_t columns, uint32_t rows,
                          weft_weight **out)
{
    return stack(l, name, columns, rows, 1, out);
}

/* One matrix of the file as two: its first rows and the others. */
static weft_status split_rows(loader *l, const char *name, uint32_t columns, uint32_t first, uint32_t others,
                              weft_weight **out_first, weft_weight **out_others)
{
    const weft_tensor *t;
    weft_status e = take(l, name, columns, first + others, 1, false, &t);
    if (e) return e;
    const size_t row_bytes = t->bytes / (first + others);
    weft_tensor head = *t, tail = *t;
    head.dim[1] = first;
    head.bytes = first * row_bytes;
    tail.dim[1] = others;
    tail.bytes = others * row_bytes;
    tail.data = (const uint8_t *)t->data + head.bytes;
    tail.offset += head.bytes;
    e = weigh_part(l, t, &head, out_first);
    if (!e) e = weigh_part(l, t, &tail, out_others);
    return e ? e : finished(l, t);
}

static weft_status load_indexer(loader *l, uint32_t i, weft_layer *w)
{
    const weft_hparams *h = &l->model->h;
    const uint32_t dim = h->index_dim, heads = h->index_heads;
    char s[NAME_BYTES];
    weft_status e =
        matrix(l, layer_name(s, i, "indexer.attn_q_b.weight"), h->q_lora, heads * dim, &w->index_q);
    if (!e) e = matrix(l, layer_name(s, i, "indexer.attn_k.weight"), h->n_embd, dim, &w->index_k);
    if (!e) e = matrix(l, layer_name(s, i, "indexer.proj.weight"), h->n_embd, heads, &w->index_weight);
    if (!e) e = vector(l, layer_name(s, i, "indexer.k_norm.weight"), dim, false, &w->index_k_norm);
    if (!e) e = vector(l, layer_name(s, i, "indexer.k_norm.bias"), dim, false, &w->index_k_bias);
    return e;
}

static weft_status load_latent(loader *l, uint32_t i, weft_layer *w)
{
    const weft_hparams *h = &l->model->h;
    const uint32_t n_q = h->n_head * h->head_dim, latent = h->latent_dim;
    char s[NAME_BYTES];
    weft_status e =
        vector(l, layer_name(s, i, "attn_norm.weight"), h->n_embd, false, &w->attn_norm);
    if (!e && h->q_lora) {
        e = matrix(l, layer_name(s, i, "attn_q_a.weight"), h->n_embd, h->q_lora, &w->q_a);
        if (!e) e = vector(l, layer_name(s, i, "attn_q_a_norm.weight"), h->q_lora, false, &w->q_a_norm);
        if (!e) e = matrix(l, layer_name(s, i, "attn_q_b.weight"), h->q_lora, n_q, &w->q);
    } else if (!e) {
        e = matrix(l, layer_name(s, i, "attn_q.weight"), h->n_embd, n_q, &w->q);
    }
    if (!e)
        e = split_rows(l, layer_name(s, i, "attn_kv_a_mqa.weight"), h->n_embd, latent, h->rope_dim,
                       &w->latent, &w->k_rope);
    if (!e) e = vector(l, layer_name(s, i, "attn_kv_a_norm.weight"), latent, false, &w->latent_norm);
    if (!e)
        e = stack(l, layer_name(s, i, "attn_k_b.weight"), h->head_dim - h->rope_dim, latent, h->n_head,
                  &w->k_b);
    if (!e)
        e = stack(l, layer_name(s, i, "attn_v_b.weight"), latent, h->value_dim, h->n_head, &w->v_b);
    if (!e)
        e = matrix(l, layer_name(s, i, "attn_output.weight"), h->n_head * h->value_dim, h->n_embd, &w->o);
    return e || !h->index_heads ? e : load_indexer(l, i, w);
}

static weft_status load_attention(loader *l, uint32_t i, weft_layer *w)
{
    if (l->model->h.latent_dim) return load_latent(l, i, w);
    const weft_hparams *h = &l->model->h;
    uint32_t n_q = h->n_head * h->head_dim, n_kv = h->n_head_kv * h->head_dim;
    bool no_bias = !h->qkv_bias;
    char s[NAME_BYTES];
    weft_status e =
        vector(l, layer_name(s, i, "attn_norm.weight"), h->n_embd, false, &w->attn_norm);
    if (!e) e = matrix(l, layer_name(s, i, "attn_q.weight"), h->n_embd, n_q, &w->q);
    if (!e) e = matrix(l, layer_name(s, i, "attn_k.weight"), h->n_embd, n_kv, &w->k);
    if (!e) e = matrix(l, layer_name(s, i, "attn_v.weight"), h->n_embd, n_kv, &w->v);
    if (!e) e = vector(l, layer_name(s, i, "attn_q.bias"), n_q, no_bias, &w->q_bias);
    if (!e) e = vector(l, layer_name(s, i, "attn_k.bias"), n_kv, no_bias, &w->k_bias);
    if (!e) e = vector(l, layer_name(s, i, "attn_v.bias"), n_kv, no_bias, &w->v_bias);
    if (!e && h->head_norms) {
        e = vector(l, layer_name(s, i, "attn_q_norm.weight"), h->head_dim, false, &w->q_norm);
        if (!e)
            e = vector(l, layer_name(s, i, "attn_k_norm.weight"), h->head_dim, false, &w->k_norm);
    }
    if (!e) e = matrix(l, layer_name(s, i, "attn_output.weight"), n_q, h->n_embd, &w->o);
    if (!e && h->post_norms)
        e = vector(l, layer_name(s, i, "post_attention_norm.weight"), h->n_embd, false,
                   &w->post_attn_norm);
    return e;
}

static weft_status load_dense(loader *l, uint32_t i, weft_layer *w)
{
    const weft_hparams *h = &l->model->h;
    char s[NAME_BYTES];
    weft_status e = matrix(l, layer_name(s, i, "ffn_gate.weight"), h->n_embd, h->n_ff, &w->gate);
    if (!e) e = matrix(l, layer_name(s, i, "ffn_up.weight"), h->n_embd, h->n_ff, &w->up);
    if (!e) e = matrix(l, layer_name(s, i, "ffn_down.weight"), h->n_ff, h->n_embd, &w->down);
    return e;
}

/* Experts that stay in the file get their share of the pool. */
static weft_status pool_experts(loader *l, uint32_t i, weft_layer *w)
{
    weft_model *m = l->model;
    const uint32_t slots = weft_placement_slots(&m->placement, i);
    if (slots == 0 || !m->ops->experts_pool) return WEFT_OK;
    m->guesses_experts = m->ops->experts_soon != NULL;
    return m->ops->experts_pool(m->backend, w->gate, w->up, w->down, slots, l->err);
}

static weft_status load_shared(loader *l, uint32_t i, weft_layer *w)
{
    const uint32_t n_embd = l->model->h.n_embd, n_ff = l->model->h.n_ff_shared;
    char s[NAME_BYTES];
    weft_status e = matrix(l, layer_name(s, i, "ffn_gate_shexp.weight"), n_embd, n_ff, &w->shared_gate);
    if (!e) e = matrix(l, layer_name(s, i, "ffn_up_shexp.weight"), n_embd, n_ff, &w->shared_up);
    if (!e) e = matrix(l, layer_name(s, i, "ffn_down_shexp.weight"), n_ff, n_embd, &w->shared_down);
    return e;
}

static weft_status load_experts(loader *l, uint32_t i, weft_layer *w)
{
    const weft_hparams *h = &l->model->h;
    const uint32_t n_ff = h->n_ff_expert, n = h->n_expert;
    char s[NAME_BYTES];
    weft_status e = matrix(l, layer_name(s, i, "ffn_gate_inp.weight"), h->n_embd, n, &w->router);
    if (!e) e = stack(l, layer_name(s, i, "ffn_gate_exps.weight"), h->n_embd, n_ff, n, &w->gate);
    if (!e) e = stack(l, layer_name(s, i, "ffn_up_exps.weight"), h->n_embd, n_ff, n, &w->up);
    if (!e) e = stack(l, layer_name(s, i, "ffn_down_exps.weight"), n_ff, h->n_embd, n, &w->down);
    if (!e) e = pool_experts(l, i, w);
    if (!e && h->gating == WEFT_GATE_SIGMOID)
        e = vector(l, layer_name(s, i, "exp_probs_b.bias"), n, true, &w->router_bias);
    return e || !h->n_ff_shared ? e : load_shared(l, i, w);
}

static weft_status load_feed_forward(loader *l, uint32_t i, weft_layer *w)
{
    const weft_hparams *h = &l->model->h;
    char s[NAME_BYTES];
    weft_status e = vector(l, layer_name(s, i, "ffn_norm.weight"), h->n_embd, false, &w->ffn_norm);
    if (!e) e = (h->n_expert && i >= h->n_dense ? load_experts : load_dense)(l, i, w);
    if (!e && h->post_norms)
        e = vector(l, layer_name(s, i, "post_ffw_norm.weight"), h->n_embd, false,
                   &w->post_ffn_norm);
    return e;
}

/* YaRN: dims that turn more than beta_fast times in the context the model was trained for stay as they are,
 * those that turn less than beta_slow times are divided by the scale, between the two it fades. */
static void apply_yarn(const weft_hparams *h, double *inv_freq)
{
    const double pi = 3.14159265358979323846, turns[2] = {h->yarn_beta_fast, h->yarn_beta_slow};
    double at[2]; /* index of the pair that turns so often */
    for (int i = 0; i < 2; i++)
        at[i] = h->rope_dim * log((double)h->yarn_context / (turns[i] * 2 * pi)) / (2 * log(h->rope_theta));
    const double low = fmax(floor(at[0]), 0), high = fmin(ceil(at[1]), h->rope_dim - 1.0);
    for (uint32_t i = 0; i < h->rope_dim / 2; i++) {
        const double fade = fmin(fmax((i - low) / fmax(high - low, 0.001), 0), 1);
        inv_freq[i] = inv_freq[i] / h->rope_scale * fade + inv_freq[i] * (1 - fade);
    }
}

/* inv_freq[i] = theta^(-2i / rope_dim) / scale / factor[i] */
static weft_status rope_table(loader *l, double theta, double scale, const float *factor,
                              double **out)
{
    uint32_t half = l->model->h.rope_dim / 2;
    double *inv_freq = malloc(half * sizeof *inv_freq);
    if (!inv_freq) return weft_fail(l->err, WEFT_E_MEMORY, "rope table: out of memory");
    for (uint32_t i = 0; i < half; i++) {
        inv_freq[i] = weft_pow(theta, -2.0 * i / l->model->h.rope_dim) / scale;
        if (!factor) continue;
        if (!isfinite(factor[i]) || factor[i] <= 0) {
            free(inv_freq);
            return weft_fail(l->err, WEFT_E_MODEL, "tensor rope_freqs.weight: factor %u is %g", i,
                             (double)factor[i]);
        }
        inv_freq[i] /= factor[i];
    }
    *out = inv_freq;
    return WEFT_OK;
}

static weft_status load_ropes(loader *l)
{
    weft_model *m = l->model;
    const float *factor = NULL;
    weft_status e = WEFT_OK;
    if (m->h.rope_factors) e = vector(l, "rope_freqs.weight", m->h.rope_dim / 2, true, &factor);
    if (!e) e = rope_table(l, m->h.rope_theta, m->h.yarn ? 1 : m->h.rope_scale, factor, &m->inv_freq[0]);
    if (!e && m->h.yarn) apply_yarn(&m->h, m->inv_freq[0]);
    if (!e && m->h.window > 0) e = rope_table(l, m->h.window_theta, 1, NULL, &m->inv_freq[1]);
    return e;
}

static bool is_quantised(const weft_tensor *t)
{
    size_t block_weights = 1, block_bytes;
    weft_tensor_block(t->type, &block_weights, &block_bytes);
    return block_weights > 1;
}

/* The layer behind the last. Files may leave out of it what it shares with the model. */
static weft_status load_prediction(loader *l)
{
    weft_model *m = l->model;
    weft_prediction *p = &m->prediction;
    const uint32_t i = m->h.n_layer, n_embd = m->h.n_embd, n_vocab = m->h.n_vocab;
    const weft_tensor *output;
    char s[NAME_BYTES];
    weft_status e = load_attention(l, i, &m->layer[i]);
    if (!e) e = load_feed_forward(l, i, &m->layer[i]);
    if (!e) e = matrix(l, layer_name(s, i, "nextn.eh_proj.weight"), 2 * n_embd, n_embd, &p->join);
    if (!e) e = vector(l, layer_name(s, i, "nextn.enorm.weight"), n_embd, false, &p->embedding_norm);
    if (!e) e = vector(l, layer_name(s, i, "nextn.hnorm.weight"), n_embd, false, &p->hidden_norm);
    if (!e) e = vector(l, layer_name(s, i, "nextn.shared_head_norm.weight"), n_embd, true, &p->norm);
    if (!e) e = take(l, layer_name(s, i, "nextn.embed_tokens.weight"), n_embd, n_vocab, 1, true, &p->embedding);
    if (!e) e = take(l, layer_name(s, i, "nextn.shared_head_head.weight"), n_embd, n_vocab, 1, true, &output);
    if (e) return e;
    if (!p->norm) p->norm = m->output_norm;
    if (!p->embedding) p->embedding = m->embedding;
    p->output_is_quantised = output ? is_quantised(output) : m->output_is_quantised;
    return output ? weigh(l, output, &p->own_output) : WEFT_OK;
}

static weft_status load_ends(loader *l)
{
    weft_model *m = l->model;
    const weft_hparams *h = &m->h;
    weft_status e = take(l, "token_embd.weight", h->n_embd, h->n_vocab, 1, false, &m->embedding);
    if (!e) e = vector(l, "output_norm.weight", h->n_embd, false, &m->output_norm);
    if (e) return e;
    const weft_tensor *output = weft_gguf_tensor_find(m->file, "output.weight");
    m->output_is_quantised = is_quantised(output ? output : m->embedding);
    if (output) return matrix(l, "output.weight", h->n_embd, h->n_vocab, &m->output);
    return weigh(l, m->embedding, &m->output); /* tied */
}

static weft_status refuse_untaken(loader *l)
{
    size_t n = weft_gguf_tensor_count(l->model->file);
    for (size_t i = 0; i < n && l->n_taken < n; i++) {
        const weft_tensor *t = weft_gguf_tensor_at(l->model->file, i);
        bool found = false;
        for (size_t j = 0; j < l->n_taken && !found; j++) found = l->taken[j] == t;
        if (!found && !(l->model->h.latent_dim &&
                        weft_arch_unused(l->model->file, t, weft_model_layers(l->model))))
            return weft_fail(
                l->err, WEFT_E_MODEL,
                "tensor %s: not known to the %s architecture; the result would be wrong", t->name,
                l->model->info.architecture);
    }
    return WEFT_OK;
}

/* Room for every vector of the file: one allocation, bounded by the file's size. */
static weft_status prepare(loader *l)
{
    weft_model *m = l->model;
    size_t n = weft_gguf_tensor_count(m->file), floats = VECTOR_ALIGN;
    for (size_t i = 0; i < n; i++) {
        const weft_tensor *t = weft_gguf_tensor_at(m->file, i);
        l->total_bytes += t->bytes;
        if (t->dim[1] == 1) floats += round_up(t->bytes / sizeof(float) + 1, VECTOR_ALIGN);
    }
    if (m->h.n_layer > n)
        return weft_fail(l->err, WEFT_E_MODEL, "%s.block_count: %u layers in %zu tensors",
                         m->info.architecture, m->h.n_layer, n);
    l->taken = calloc(n + 1, sizeof *l->taken);
    m->layer = calloc(weft_model_layers(m), sizeof *m->layer);
    m->vector_bytes = round_up(floats * sizeof(float), VECTOR_ALIGN);
    m->vectors = aligned_alloc(VECTOR_ALIGN, m->vector_bytes);
    if (!l->taken || !m->layer || !m->vectors)
        return weft_fail(l->err, WEFT_E_MEMORY, "weights: out of memory");
    l->next_vector = m->vectors;
    return WEFT_OK;
}

weft_status weft_transformer_load(weft_model *model, const weft_engine_options *options,
                                  weft_error *err)
{
    loader l = {.model = model, .options = options, .err = err};
    weft_status e = prepare(&l);
    if (!e) e = load_ends(&l);
    if (!e) e = load_ropes(&l);
    for (uint32_t i = 0; !e && i < model->h.n_layer; i++) {
        e = load_attention(&l, i, &model->layer[i]);
        if (!e) e = load_feed_forward(&l, i, &model->layer[i]);
    }
    if (!e && model->predicts) e = load_prediction(&l);
    if (!e) e = refuse_untaken(&l);
    model->info.weight_bytes = l.in_memory;
    free(l.taken);
    return e;
}

void weft_transformer_unload(weft_model *model)
{
    for (uint32_t i = 0; model->layer && i < weft_model_layers(model); i++) {
        const weft_layer *w = &model->layer[i];
        weft_weight *const all[] = {
            w->q,       w->k,       w->v,          w->o,           w->gate,      w->up,
            w->down,    w->router,  w->q_a,        w->latent,      w->k_rope,    w->k_b,
            w->v_b,     w->index_q, w->index_k,    w->index_weight, w->shared_gate, w->shared_up,
            w->shared_down};
        for (size_t j = 0; j < sizeof all / sizeof *all; j++)
            if (all[j]) model->ops->weight_free(all[j]);
    }
    weft_weight *const ends[] = {model->output, model->prediction.join, model->prediction.own_output};
    for (size_t j = 0; j < sizeof ends / sizeof *ends; j++)
        if (ends[j]) model->ops->weight_free(ends[j]);
    free(model->layer);
    free(model->vectors);
    free(model->inv_freq[0]);
    free(model->inv_freq[1]);
}
