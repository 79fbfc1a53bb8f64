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

/* Repacked, or left in the file, as placed. */
static weft_status weigh(loader *l, const weft_tensor *t, weft_weight **out)
{
    weft_model *m = l->model;
    bool repack = weft_placement_in_memory(&m->placement, m->file, t);
    weft_status status = (repack ? m->ops->weight_new : m->ops->weight_map)(m->backend, t, out, l->err);
    if (status) return status;
    l->in_memory += m->ops->weight_bytes(*out);
    return finished(l, t);
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

static weft_status load_attention(loader *l, uint32_t i, weft_layer *w)
{
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

static weft_status load_experts(loader *l, uint32_t i, weft_layer *w)
{
    const weft_hparams *h = &l->model->h;
    const uint32_t n_ff = h->n_ff_expert, n = h->n_expert;
    char s[NAME_BYTES];
    weft_status e = matrix(l, layer_name(s, i, "ffn_gate_inp.weight"), h->n_embd, n, &w->router);
    if (!e) e = stack(l, layer_name(s, i, "ffn_gate_exps.weight"), h->n_embd, n_ff, n, &w->gate);
    if (!e) e = stack(l, layer_name(s, i, "ffn_up_exps.weight"), h->n_embd, n_ff, n, &w->up);
    if (!e) e = stack(l, layer_name(s, i, "ffn_down_exps.weight"), n_ff, h->n_embd, n, &w->down);
    return e ? e : pool_experts(l, i, w);
}

static weft_status load_feed_forward(loader *l, uint32_t i, weft_layer *w)
{
    const weft_hparams *h = &l->model->h;
    char s[NAME_BYTES];
    weft_status e = vector(l, layer_name(s, i, "ffn_norm.weight"), h->n_embd, false, &w->ffn_norm);
    if (!e && h->n_expert) e = load_experts(l, i, w);
    if (!e && !h->n_expert) e = load_dense(l, i, w);
    if (!e && h->post_norms)
        e = vector(l, layer_name(s, i, "post_ffw_norm.weight"), h->n_embd, false,
                   &w->post_ffn_norm);
    return e;
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
    if (!e) e = rope_table(l, m->h.rope_theta, m->h.rope_scale, factor, &m->inv_freq[0]);
    if (!e && m->h.window > 0) e = rope_table(l, m->h.window_theta, 1, NULL, &m->inv_freq[1]);
    return e;
}

static weft_status load_ends(loader *l)
{
    weft_model *m = l->model;
    const weft_hparams *h = &m->h;
    weft_status e = take(l, "token_embd.weight", h->n_embd, h->n_vocab, 1, false, &m->embedding);
    if (!e) e = vector(l, "output_norm.weight", h->n_embd, false, &m->output_norm);
    if (e) return e;
    const weft_tensor *output = weft_gguf_tensor_find(m->file, "output.weight");
    size_t block_weights = 1, block_bytes;
    weft_tensor_block(output ? output->type : m->embedding->type, &block_weights, &block_bytes);
    m->output_is_quantised = block_weights > 1;
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
        if (!found)
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
    m->layer = calloc(m->h.n_layer, sizeof *m->layer);
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
    if (!e) e = refuse_untaken(&l);
    model->info.weight_bytes = l.in_memory;
    free(l.taken);
    return e;
}

void weft_transformer_unload(weft_model *model)
{
    for (uint32_t i = 0; model->layer && i < model->h.n_layer; i++) {
        const weft_layer *w = &model->layer[i];
        weft_weight *const all[] = {w->q,    w->k,  w->v,    w->o,
                                    w->gate, w->up, w->down, w->router};
        for (size_t j = 0; j < sizeof all / sizeof *all; j++)
            if (all[j]) model->ops->weight_free(all[j]);
    }
    if (model->output) model->ops->weight_free(model->output);
    free(model->layer);
    free(model->vectors);
    free(model->inv_freq[0]);
    free(model->inv_freq[1]);
}
