/* The attention half of a DeepSeek layer: what transformer.c does with heads, done with latents.
 *
 * Keys first, for all tokens: the latent, the rotated key part and, with an indexer, its key. Then queries, in the last
 * layer only for tokens whose logits are wanted: the indexer chooses positions, the queries are taken
 * into the latent's space, attention gathers the chosen latents, and what comes out is taken back to values.
 */
#include "engine/model.h"

void weft_latent_keys(weft_model *m, uint32_t layer, const float *x, const weft_row *row, size_t n)
{
    const float index_eps = 1e-6f; /* of a layer norm; files carry the other norms' only */
    const weft_hparams *h = &m->h;
    const weft_layer *w = &m->layer[layer];
    const weft_ops *o = m->ops;
    const weft_scratch *s = &m->scratch;
    const weft_weight *const weight[] = {w->latent, w->k_rope, w->index_k};
    const float *const bias[] = {NULL, NULL, NULL};
    float *const y[] = {s->latent, s->k_rope, s->index_k};
    const bool indexer = h->index_heads > 0;
    o->rms_norm(m->backend, x, w->attn_norm, h->norm_eps, n, h->n_embd, s->normed);
    o->matmul(m->backend, weight, bias, y, indexer ? 3 : 2, s->normed, n);
    o->rms_norm(m->backend, s->latent, w->latent_norm, h->norm_eps, n, h->latent_dim, s->latent);
    o->rope(m->backend, s->k_rope, row, n, 1, h->rope_dim, h->rope_dim, h->rope, m->inv_freq[0], 1);
    if (indexer) {
        o->layer_norm(m->backend, s->index_k, w->index_k_norm, w->index_k_bias, index_eps, n, h->index_dim,
                      s->index_k);
        o->rope(m->backend, s->index_k, row, n, 1, h->index_dim, h->rope_dim, WEFT_ROPE_NEOX,
                m->inv_freq[0], 1);
        o->hadamard(m->backend, s->index_k, n, h->index_dim);
    }
    o->latent_write(m->backend, &m->kv, layer, row, n, s->latent, s->k_rope, s->index_k);
}

/* True if the indexer has something to choose: index_select looks at no query of a token that may take all its
 * positions, so they need not be made (a tenth of a short context's step). What a device is asked for may not depend
 * on positions (ops.h). */
static bool chooses(const weft_model *m, const weft_row *row, size_t n)
{
    bool some = m->ops->device != NULL;
    for (size_t t = 0; t < n && !some; t++) some = row[t].position >= m->h.index_top_k;
    return m->sparse && some;
}

/* q of each head into s->q and, where the indexer is used, its queries and weights. */
static void queries(weft_model *m, const weft_layer *w, const weft_row *row, size_t n)
{
    const weft_hparams *h = &m->h;
    const weft_ops *o = m->ops;
    const weft_scratch *s = &m->scratch;
    const bool indexer = chooses(m, row, n);
    const size_t n_w = indexer ? 2 : 1;
    const float *const bias[] = {NULL, NULL};
    if (h->q_lora) {
        const weft_weight *const down[] = {w->q_a, w->index_weight};
        float *const lora[] = {s->q_lora, s->index_weight};
        const weft_weight *const up[] = {w->q, w->index_q};
        float *const q[] = {s->q, s->index_q};
        o->matmul(m->backend, down, bias, lora, n_w, s->normed, n);
        o->rms_norm(m->backend, s->q_lora, w->q_a_norm, h->norm_eps, n, h->q_lora, s->q_lora);
        o->matmul(m->backend, up, bias, q, n_w, s->q_lora, n);
    } else {
        const weft_weight *const weight[] = {w->q};
        float *const q[] = {s->q};
        o->matmul(m->backend, weight, bias, q, 1, s->normed, n);
    }
    /* a head's rotated part stands last, the indexer's first and in the other order of pairs */
    o->rope(m->backend, s->q + (h->head_dim - h->rope_dim), row, n, h->n_head, h->head_dim, h->rope_dim,
            h->rope, m->inv_freq[0], 1);
    if (!indexer) return;
    o->rope(m->backend, s->index_q, row, n, h->index_heads, h->index_dim, h->rope_dim, WEFT_ROPE_NEOX,
            m->inv_freq[0], 1);
    o->hadamard(m->backend, s->index_q, n * h->index_heads, h->index_dim);
}

static void choose(weft_model *m, uint32_t layer, const weft_row *row, size_t n)
{
    const weft_scratch *s = &m->scratch;
    const weft_index index = {.layout = &m->kv,
                              .layer = layer,
                              .n_head = m->h.index_heads,
                              .top_k = m->h.index_top_k,
                              .row = row,
                              .n = n,
                              .q = s->index_q,
                              .weight = s->index_weight,
                              .selected = s->selected,
                              .count = s->count};
    m->ops->index_select(m->backend, &index);
    if (m->on_selection) m->on_selection(m->on_selection_context, &index);
}

void weft_latent_attend(weft_model *m, uint32_t layer, const weft_row *row, size_t n)
{
    const weft_hparams *h = &m->h;
    const weft_layer *w = &m->layer[layer];
    const weft_ops *o = m->ops;
    const weft_scratch *s = &m->scratch;
    queries(m, w, row, n);
    if (m->sparse) choose(m, layer, row, n);
    const weft_latent_attention attention = {.layout = &m->kv,
                                             .layer = layer,
                                             .n_head = h->n_head,
                                             .scale = h->attention_scale,
                                             .row = row,
                                             .n = n,
                                             .q_latent = s->q_latent,
                                             .q_rope = s->q + (h->head_dim - h->rope_dim),
                                             .q_rope_stride = h->head_dim,
                                             .selected = m->sparse ? s->selected : NULL,
                                             .count = m->sparse ? s->count : NULL,
                                             .top_k = h->index_top_k,
                                             .out = s->attended_latent};
    const weft_weight *const weight[] = {w->o};
    const float *const bias[] = {NULL};
    float *const y[] = {s->branch};
    o->matmul_heads(m->backend, w->k_b, s->q, h->head_dim, n, s->q_latent, h->latent_dim);
    o->latent_attention(m->backend, &attention);
    o->matmul_heads(m->backend, w->v_b, s->attended_latent, h->latent_dim, n, s->attended, h->value_dim);
    o->matmul(m->backend, weight, bias, y, 1, s->attended, n);
    o->add(m->backend, s->x, s->branch, n * h->n_embd);
}
