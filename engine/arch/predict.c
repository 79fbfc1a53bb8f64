/* Multi-token prediction: a layer behind the last that guesses the token after the next (DeepSeek V3, V3.2; nextn in
 * GGUF).
 *
 * At position p it takes a pair: the token's embedding, and the hidden state of the token before it, which is what the
 * output matrix was given there (normed). Both are normed, joined to one stream by a matrix, and go through a whole layer with
 * keys and values of its own; its output says what stands at p + 1. A hidden state that it makes itself serves for the pair
 * after: so one layer may guess several tokens, each less likely than the one before.
 *
 * Its keys lie in the pages like any layer's, at the position of the pair's token: they depend on ids up to
 * there alone, so pages can be shared, kept and cut as ever. Position 0 has no token before it: its pair is zeros. Every
 * pass writes them for its tokens, for the cost of the join; a whole pair is computed for a guess alone.
 *
 * Guesses decide nothing: ids are drawn from the logits of the pass that evaluates them (draft.h).
 */
#include "engine/timeline.h"

#include <assert.h>
#include <string.h>

/* The stream of n pairs into scratch.predicted, whose hidden states lie in scratch.branch. */
static void join(weft_model *m, const int32_t *ids, const weft_row *row, size_t n)
{
    const weft_prediction *p = &m->prediction;
    const weft_scratch *s = &m->scratch;
    const weft_ops *o = m->ops;
    const size_t width = m->h.n_embd;
    const weft_weight *const weight[] = {p->join};
    const float *const bias[] = {NULL};
    float *const y[] = {s->predicted};
    o->embed(m->backend, p->embedding, ids, n, m->h.embedding_scale, s->predicted);
    o->rms_norm(m->backend, s->predicted, p->embedding_norm, m->h.norm_eps, n, width, s->predicted);
    o->rms_norm(m->backend, s->branch, p->hidden_norm, m->h.norm_eps, n, width, s->branch);
    for (size_t i = 0; i < n; i++) {
        float *pair = s->pair + i * 2 * width;
        if (row[i].position == 0) {
            memset(pair, 0, 2 * width * sizeof *pair);
            continue;
        }
        memcpy(pair, s->predicted + i * width, width * sizeof *pair);
        memcpy(pair + width, s->branch + i * width, width * sizeof *pair);
    }
    o->matmul(m->backend, weight, bias, y, 1, s->pair, n);
}

/* Hidden state of the token before row r; NULL: not known. */
static const float *before(const weft_model *m, const weft_pass *pass, size_t r)
{
    const weft_row *row = &pass->row[r];
    if (r > 0 && row[-1].page == row->page)
        return m->scratch.hidden + (r - 1) * m->h.n_embd;
    return pass->before[r];
}

void weft_predict_keys(weft_model *m, const weft_pass *pass)
{
    const weft_scratch *s = &m->scratch;
    const size_t width = m->h.n_embd;
    size_t n = 0;
    m->ops->rms_norm(m->backend, s->x, m->output_norm, m->h.norm_eps, pass->n, width, s->hidden);
    for (size_t r = 0; r < pass->n; r++) {
        const float *hidden = before(m, pass, r);
        if (!hidden && pass->row[r].position > 0) continue; /* computed again: the page has its keys */
        s->pair_id[n] = pass->ids[r];
        s->pair_row[n] = pass->row[r];
        memcpy(s->branch + n++ * width, hidden ? hidden : s->hidden, width * sizeof *s->branch);
    }
    for (size_t r = 0; r < pass->n; r++)
        if (pass->hidden[r]) memcpy(pass->hidden[r], s->hidden + r * width, width * sizeof *s->hidden);
    if (n == 0) return;
    join(m, s->pair_id, s->pair_row, n);
    weft_latent_keys(m, m->h.n_layer, s->predicted, s->pair_row, n);
}

static int32_t largest(const float *logit, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (logit[i] > logit[best]) best = i;
    return (int32_t)best;
}

weft_status weft_model_predict(weft_model *m, weft_predict_item *item, size_t n, weft_error *err)
{
    const weft_prediction *p = &m->prediction;
    const weft_scratch *s = &m->scratch;
    const uint32_t layer = m->h.n_layer;
    const size_t width = m->h.n_embd;
    float *const logits = step_logits(m->step);
    assert(m->predicts && n <= WEFT_LOGIT_ROWS && n <= (size_t)m->chunk);
    for (size_t i = 0; i < n; i++) {
        s->pair_id[i] = item[i].id;
        s->pair_row[i] = item[i].row;
        memcpy(s->branch + i * width, item[i].before, width * sizeof *s->branch);
    }
    join(m, s->pair_id, s->pair_row, n);
    memcpy(s->x, s->predicted, n * width * sizeof *s->x);
    weft_latent_keys(m, layer, s->x, s->pair_row, n);
    weft_latent_attend(m, layer, s->pair_row, n);
    weft_feed_forward(m, &m->layer[layer], n);
    weft_output(m, s->x, p->norm, p->own_output ? p->own_output : m->output, p->output_is_quantised, n, logits);
    for (size_t i = 0; i < n; i++) {
        memcpy(item[i].hidden, s->x + i * width, width * sizeof *s->x);
        item[i].predicted = largest(logits + i * m->h.n_vocab, m->h.n_vocab);
    }
    return m->ops->failure ? m->ops->failure(m->backend, err) : WEFT_OK;
}
