/* The forward pass: a straight sequence of backend calls over a chunk of tokens.
 *
 * Every op treats tokens independently, keys and values are written before attention reads them,
 * and a token attends to positions up to its own: so the result for a token does not depend on how
 * the prompt was cut or on what else is in the call. The last layer computes its keys and values
 * for all tokens and everything else only for those whose logits are wanted.
 *
 * One chunk touches every weight once: its cost at decode is the read of the weights.
 */
#include "engine/model.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <string.h>

/* The wanted rows of x [n][width] move to the front. */
static void keep_rows(weft_model *m, const weft_pass *pass, float *x, size_t width)
{
    if (m->ops->device) {
        m->ops->device->keep(m->backend, x, width);
        return;
    }
    for (size_t i = 0; i < pass->n_want; i++)
        memmove(x + i * width, x + pass->want[i] * width, width * sizeof *x);
}

/* Keeps the wanted rows of x and of what attention goes on with (and of the row list) and returns how many
 * remain. */
static size_t keep_wanted(weft_model *m, const weft_pass *pass)
{
    const weft_scratch *s = &m->scratch;
    for (size_t i = 0; i < pass->n_want; i++) {
        assert(pass->want[i] >= i && (i == 0 || pass->want[i] > pass->want[i - 1]));
        s->row[i] = pass->row[pass->want[i]];
    }
    keep_rows(m, pass, s->x, m->h.n_embd);
    if (m->h.latent_dim)
        keep_rows(m, pass, s->normed, m->h.n_embd);
    else
        keep_rows(m, pass, s->q, weft_query_width(&m->h));
    return pass->n_want;
}

/* q, k and v of n tokens from the residual stream; k and v go to the pages. */
static void project(weft_model *m, uint32_t layer, const weft_row *row, size_t n)
{
    const weft_hparams *h = &m->h;
    const weft_layer *w = &m->layer[layer];
    const weft_ops *o = m->ops;
    const weft_scratch *s = &m->scratch;
    const weft_weight *const weight[] = {w->q, w->k, w->v};
    const float *const bias[] = {w->q_bias, w->k_bias, w->v_bias};
    float *const y[] = {s->q, s->k, s->v};
    o->rms_norm(m->backend, s->x, w->attn_norm, h->norm_eps, n, h->n_embd, s->normed);
    o->matmul(m->backend, weight, bias, y, 3, s->normed, n);
    if (h->head_norms) {
        o->rms_norm(m->backend, s->q, w->q_norm, h->norm_eps, n * h->n_head, h->head_dim, s->q);
        o->rms_norm(m->backend, s->k, w->k_norm, h->norm_eps, n * h->n_head_kv, h->head_dim, s->k);
    }
    const double *inv_freq = m->inv_freq[weft_layer_slides(h, layer)];
    o->rope(m->backend, s->q, row, n, h->n_head, h->head_dim, h->rope_dim, h->rope, inv_freq, 1);
    o->rope(m->backend, s->k, row, n, h->n_head_kv, h->head_dim, h->rope_dim, h->rope, inv_freq, 1);
    o->kv_write(m->backend, &m->kv, layer, row, n, s->k, s->v);
}

static void attend(weft_model *m, uint32_t layer, const weft_row *row, size_t n)
{
    const weft_hparams *h = &m->h;
    const weft_layer *w = &m->layer[layer];
    const weft_ops *o = m->ops;
    const weft_scratch *s = &m->scratch;
    const weft_attention attention = {
        .layout = &m->kv,
        .layer = layer,
        .n_head = h->n_head,
        .scale = h->attention_scale,
        .window = weft_layer_slides(h, layer) ? h->window : 0,
        .row = row,
        .n = n,
        .q = s->q,
        .out = s->attended,
    };
    const weft_weight *const weight[] = {w->o};
    const float *const bias[] = {NULL};
    float *const y[] = {s->branch};
    o->attention(m->backend, &attention);
    o->matmul(m->backend, weight, bias, y, 1, s->attended, n);
    if (w->post_attn_norm)
        o->rms_norm(m->backend, s->branch, w->post_attn_norm, h->norm_eps, n, h->n_embd, s->branch);
    o->add(m->backend, s->x, s->branch, n * h->n_embd);
}

/* What every token takes beside its experts: `branch` += it. `normed` is needed no more. */
static void add_shared(weft_model *m, const weft_layer *w, size_t n)
{
    const weft_hparams *h = &m->h;
    const weft_scratch *s = &m->scratch;
    const weft_weight *const weight[] = {w->shared_down};
    const float *const bias[] = {NULL};
    float *const y[] = {s->normed};
    m->ops->gated(m->backend, w->shared_gate, w->shared_up, h->activation, s->normed, n, s->ff);
    m->ops->matmul(m->backend, weight, bias, y, 1, s->ff, n);
    m->ops->add(m->backend, s->branch, s->normed, n * h->n_embd);
}

/* Which experts each token takes: of `normed` into `pick`. */
static void choose_experts(weft_model *m, const weft_layer *w, size_t n)
{
    const weft_hparams *h = &m->h;
    const weft_scratch *s = &m->scratch;
    const weft_routing routing = {.n_expert = h->n_expert,
                                  .n_used = h->n_expert_used,
                                  .normalise = h->expert_normalise,
                                  .scale = h->expert_scale,
                                  .gating = h->gating,
                                  .bias = w->router_bias,
                                  .n_group = h->n_group,
                                  .n_group_used = h->n_group_used};
    const weft_weight *const weight[] = {w->router};
    const float *const bias[] = {NULL};
    float *const y[] = {s->scores};
    m->ops->matmul(m->backend, weight, bias, y, 1, s->normed, n);
    m->ops->route(m->backend, &routing, s->scores, n, s->pick);
}

static weft_experts experts_of(const weft_model *m, const weft_layer *w)
{
    return (weft_experts){w->gate, w->up, w->down, m->h.activation, m->h.n_expert_used};
}

/* The experts of each token, of `normed` into `branch`. */
static void run_experts(weft_model *m, const weft_layer *w, size_t n)
{
    const weft_experts experts = experts_of(m, w);
    choose_experts(m, w, n);
    m->ops->experts(m->backend, &experts, m->scratch.pick, m->scratch.normed, n, m->scratch.branch);
    if (w->shared_gate) add_shared(m, w, n);
}

/* The next layer's router asked one attention too early: what it says is likely, and what of that is in no slot is
 * read ahead while the attention runs. Only for a few tokens; a prompt takes most experts. */
static void guess_experts(weft_model *m, uint32_t layer, size_t n)
{
    enum { FEW = 8 };
    const weft_scratch *s = &m->scratch;
    const weft_layer *next = &m->layer[layer + 1];
    if (!m->guesses_experts || n > FEW || layer + 1 == m->h.n_layer || !next->router) return;
    const weft_experts experts = experts_of(m, next);
    m->ops->rms_norm(m->backend, s->x, next->ffn_norm, m->h.norm_eps, n, m->h.n_embd, s->normed);
    choose_experts(m, next, n);
    m->ops->experts_soon(m->backend, &experts, s->pick, n);
}

void weft_feed_forward(weft_model *m, const weft_layer *w, size_t n)
{
    const weft_hparams *h = &m->h;
    const weft_ops *o = m->ops;
    const weft_scratch *s = &m->scratch;
    const weft_weight *const weight[] = {w->down};
    const float *const bias[] = {NULL};
    float *const y[] = {s->branch};
    o->rms_norm(m->backend, s->x, w->ffn_norm, h->norm_eps, n, h->n_embd, s->normed);
    if (w->router) {
        run_experts(m, w, n);
    } else {
        o->gated(m->backend, w->gate, w->up, h->activation, s->normed, n, s->ff);
        o->matmul(m->backend, weight, bias, y, 1, s->ff, n);
    }
    if (w->post_ffn_norm)
        o->rms_norm(m->backend, s->branch, w->post_ffn_norm, h->norm_eps, n, h->n_embd, s->branch);
    o->add(m->backend, s->x, s->branch, n * h->n_embd);
}

static void forward(weft_model *m, const weft_pass *pass)
{
    const weft_device_ops *device = m->ops->device;
    const weft_row *row = pass->row;
    size_t n = pass->n;
    for (uint32_t layer = 0; layer < m->h.n_layer; layer++) {
        if (device) device->layer(m->backend, layer, n);
        if (m->h.latent_dim)
            weft_latent_keys(m, layer, m->scratch.x, row, n);
        else
            project(m, layer, row, n);
        if (layer + 1 == m->h.n_layer && !m->predicts) {
            n = keep_wanted(m, pass);
            row = m->scratch.row;
            if (n == 0) return;
        }
        (m->h.latent_dim ? weft_latent_attend : attend)(m, layer, row, n);
        weft_feed_forward(m, &m->layer[layer], n);
        guess_experts(m, layer, n);
    }
    if (!m->predicts) return;
    weft_predict_keys(m, pass);
    keep_rows(m, pass, m->scratch.x, m->h.n_embd);
}

/* x = hi + lo (hi may be x): hi stands on the grid that the backend quantises a block of 32 to, lo is what that would lose.
 * A block with a value that is not finite goes into hi as it is. */
static void split(const float *x, size_t n, float *hi, float *lo)
{
    enum { BLOCK = 32 };
    for (size_t from = 0; from < n; from += BLOCK) {
        float top = 0;
        for (size_t i = from; i < from + BLOCK; i++) top = fabsf(x[i]) > top ? fabsf(x[i]) : top;
        bool usable = top > 1e-30f && top <= FLT_MAX;
        float step = top / 127, inverse = 127 / top;
        for (size_t i = from; i < from + BLOCK; i++) {
            float whole = x[i];
            hi[i] = usable ? rintf(whole * inverse) * step : whole;
            lo[i] = usable ? whole - hi[i] : 0;
        }
    }
}

static void split_rows(weft_model *m, size_t n, float *x, float *lo)
{
    if (m->ops->device)
        m->ops->device->split(m->backend, x, n, x, lo);
    else
        split(x, n, x, lo);
}

/* Quantised output matrices take each row twice, as hi and lo, and add the two results: 16 bits of activation
 * for one read of the weights. Decode is that read, so it costs next to nothing, and it takes a sixth
 * off the whole model's distance to float32 (docs/engine.md). */
void weft_output(weft_model *m, const float *x, const float *norm, const weft_weight *output, bool quantised,
                 size_t n, float *out)
{
    const weft_hparams *h = &m->h;
    const weft_scratch *s = &m->scratch;
    const weft_weight *const weight[] = {output};
    const float *const bias[] = {NULL};
    float *const y[] = {out};
    const size_t width = n * h->n_embd, size = n * h->n_vocab;
    m->ops->rms_norm(m->backend, x, norm, h->norm_eps, n, h->n_embd, s->last);
    if (!quantised) {
        m->ops->matmul(m->backend, weight, bias, y, 1, s->last, n);
        return;
    }
    split_rows(m, width, s->last, s->last + width);
    m->ops->matmul(m->backend, weight, bias, y, 1, s->last, 2 * n);
    m->ops->add(m->backend, out, out + size, size);
}

static void logits(weft_model *m, const weft_pass *pass)
{
    if (m->ops->device) m->ops->device->layer(m->backend, m->h.n_layer, pass->n_logits);
    weft_output(m, m->scratch.x + pass->from * m->h.n_embd, m->output_norm, m->output, m->output_is_quantised,
                pass->n_logits, pass->logits);
}

typedef struct pass_call {
    weft_model *model;
    const weft_pass *pass;
} pass_call;

static void issue(void *context)
{
    const pass_call *call = context;
    if (call->pass->n > 0) forward(call->model, call->pass);
    if (call->pass->n_logits > 0) logits(call->model, call->pass);
}

weft_status weft_model_pass(weft_model *model, const weft_pass *pass, weft_error *err)
{
    pass_call call = {model, pass};
    assert(pass->n <= (size_t)model->chunk && pass->n_want <= (pass->n ? pass->n : pass->n_want));
    assert(pass->from + pass->n_logits <= pass->n_want && pass->n_logits <= WEFT_LOGIT_ROWS);
    const weft_ops *o = model->ops;
    weft_status status = WEFT_OK;
    if (pass->n > 0)
        o->embed(model->backend, model->embedding, pass->ids, pass->n, model->h.embedding_scale,
                 model->scratch.x);
    if (o->device)
        status = o->device->pass(model->backend, pass, issue, &call, err);
    else
        issue(&call);
    return status || !o->failure ? status : o->failure(model->backend, err);
}
