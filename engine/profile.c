/* Where the time of evaluation goes: while a profile is open, a table of timed operations stands in for the
 * backend's own, and the graph calls it as it calls any backend. What is left of the wall time is spent
 * outside the operations. Cost: two readings of the clock an operation, some 15 us a token.
 */
#include "engine/model.h"

#include <stdlib.h>

enum row {
    EMBED,
    NORM,
    QKV,
    ROPE,
    KV_WRITE,
    HEADS,
    INDEX,
    ATTENTION,
    ATTENTION_OUT,
    ROUTER,
    ROUTE,
    EXPERTS,
    GATE_UP,
    DOWN,
    ADD,
    OUTPUT,
    ROWS
};

static const char *const row_name[ROWS] = {
    [EMBED] = "embedding",
    [NORM] = "norms",
    [QKV] = "q, k, v",
    [ROPE] = "rope",
    [KV_WRITE] = "KV write",
    [HEADS] = "heads, latent",
    [INDEX] = "choice of keys",
    [ATTENTION] = "attention",
    [ATTENTION_OUT] = "attention out",
    [ROUTER] = "router",
    [ROUTE] = "choice of experts",
    [EXPERTS] = "experts",
    [GATE_UP] = "gate, up",
    [DOWN] = "down",
    [ADD] = "residual",
    [OUTPUT] = "output",
};

struct weft_profile {
    weft_model *model;
    const weft_ops *ops; /* the backend's own, */
    weft_backend *backend;
    weft_ops timed; /* and what stands in for them */
    weft_profile_row row[ROWS];
};

/* The graph hands the profile on as the backend that its operations take. */
static struct weft_profile *profile_of(weft_backend *b)
{
    return (struct weft_profile *)(void *)b;
}

static void count(struct weft_profile *p, enum row row, int64_t begin, size_t bytes)
{
    p->row[row].ns += weft_monotonic_ns() - begin;
    p->row[row].calls++;
    p->row[row].bytes += bytes;
}

static size_t bytes_of(const struct weft_profile *p, const weft_weight *const *w, size_t n)
{
    size_t sum = 0;
    for (size_t i = 0; i < n; i++) sum += p->ops->weight_bytes(w[i]);
    return sum;
}

static enum row row_of(const weft_model *m, const weft_weight *w)
{
    for (uint32_t i = 0; i < weft_model_layers(m); i++) {
        const weft_layer *layer = &m->layer[i];
        if (w == layer->q || w == layer->q_a || w == layer->latent) return QKV;
        if (w == layer->o) return ATTENTION_OUT;
        if (w == layer->down || w == layer->shared_down) return DOWN;
        if (w == layer->router) return ROUTER;
    }
    return w == m->prediction.join ? QKV : OUTPUT; /* the join is there for the keys of a layer */
}

static void embed(weft_backend *b, const weft_tensor *table, const int32_t *ids, size_t n,
                  float scale, float *out)
{
    struct weft_profile *p = profile_of(b);
    int64_t begin = weft_monotonic_ns();
    p->ops->embed(p->backend, table, ids, n, scale, out);
    count(p, EMBED, begin, 0);
}

static void matmul(weft_backend *b, const weft_weight *const *w, const float *const *bias,
                   float *const *y, size_t n_w, const float *x, size_t n)
{
    struct weft_profile *p = profile_of(b);
    int64_t begin = weft_monotonic_ns();
    p->ops->matmul(p->backend, w, bias, y, n_w, x, n);
    count(p, row_of(p->model, w[0]), begin, bytes_of(p, w, n_w));
}

static void gated(weft_backend *b, const weft_weight *gate, const weft_weight *up,
                  weft_activation act, const float *x, size_t n, float *out)
{
    struct weft_profile *p = profile_of(b);
    int64_t begin = weft_monotonic_ns();
    p->ops->gated(p->backend, gate, up, act, x, n, out);
    count(p, GATE_UP, begin, bytes_of(p, (const weft_weight *const[]){gate, up}, 2));
}

static void rms_norm(weft_backend *b, const float *x, const float *w, float eps, size_t rows,
                     size_t dim, float *y)
{
    struct weft_profile *p = profile_of(b);
    int64_t begin = weft_monotonic_ns();
    p->ops->rms_norm(p->backend, x, w, eps, rows, dim, y);
    count(p, NORM, begin, 0);
}

static void rope(weft_backend *b, float *x, const weft_row *row, size_t n, size_t heads,
                 size_t head_dim, size_t rope_dim, weft_rope_kind kind, const double *inv_freq,
                 float magnitude)
{
    struct weft_profile *p = profile_of(b);
    int64_t begin = weft_monotonic_ns();
    p->ops->rope(p->backend, x, row, n, heads, head_dim, rope_dim, kind, inv_freq, magnitude);
    count(p, ROPE, begin, 0);
}

static void kv_write(weft_backend *b, const weft_kv_layout *layout, uint32_t layer,
                     const weft_row *row, size_t n, const float *k, const float *v)
{
    struct weft_profile *p = profile_of(b);
    int64_t begin = weft_monotonic_ns();
    p->ops->kv_write(p->backend, layout, layer, row, n, k, v);
    count(p, KV_WRITE, begin, 0);
}

static void attention(weft_backend *b, const weft_attention *a)
{
    struct weft_profile *p = profile_of(b);
    int64_t begin = weft_monotonic_ns();
    p->ops->attention(p->backend, a);
    count(p, ATTENTION, begin, 0);
}

static void matmul_heads(weft_backend *b, const weft_weight *w, const float *x, size_t x_stride, size_t n,
                         float *y, size_t y_stride)
{
    struct weft_profile *p = profile_of(b);
    int64_t begin = weft_monotonic_ns();
    p->ops->matmul_heads(p->backend, w, x, x_stride, n, y, y_stride);
    count(p, HEADS, begin, bytes_of(p, &w, 1));
}

static void layer_norm(weft_backend *b, const float *x, const float *w, const float *bias, float eps,
                       size_t rows, size_t dim, float *y)
{
    struct weft_profile *p = profile_of(b);
    int64_t begin = weft_monotonic_ns();
    p->ops->layer_norm(p->backend, x, w, bias, eps, rows, dim, y);
    count(p, NORM, begin, 0);
}

static void hadamard(weft_backend *b, float *x, size_t rows, size_t dim)
{
    struct weft_profile *p = profile_of(b);
    int64_t begin = weft_monotonic_ns();
    p->ops->hadamard(p->backend, x, rows, dim);
    count(p, INDEX, begin, 0);
}

static void latent_write(weft_backend *b, const weft_kv_layout *layout, uint32_t layer, const weft_row *row,
                         size_t n, const float *latent, const float *rope, const float *index)
{
    struct weft_profile *p = profile_of(b);
    int64_t begin = weft_monotonic_ns();
    p->ops->latent_write(p->backend, layout, layer, row, n, latent, rope, index);
    count(p, KV_WRITE, begin, 0);
}

static void index_select(weft_backend *b, const weft_index *index)
{
    struct weft_profile *p = profile_of(b);
    int64_t begin = weft_monotonic_ns();
    p->ops->index_select(p->backend, index);
    count(p, INDEX, begin, 0);
}

static void latent_attention(weft_backend *b, const weft_latent_attention *a)
{
    struct weft_profile *p = profile_of(b);
    int64_t begin = weft_monotonic_ns();
    p->ops->latent_attention(p->backend, a);
    count(p, ATTENTION, begin, 0);
}

static void add(weft_backend *b, float *x, const float *y, size_t n)
{
    struct weft_profile *p = profile_of(b);
    int64_t begin = weft_monotonic_ns();
    p->ops->add(p->backend, x, y, n);
    count(p, ADD, begin, 0);
}

static void route(weft_backend *b, const weft_routing *r, float *scores, size_t n, weft_pick *out)
{
    struct weft_profile *p = profile_of(b);
    int64_t begin = weft_monotonic_ns();
    p->ops->route(p->backend, r, scores, n, out);
    count(p, ROUTE, begin, 0);
}

static void experts(weft_backend *b, const weft_experts *w, const weft_pick *pick, const float *x,
                    size_t n, float *out)
{
    struct weft_profile *p = profile_of(b);
    int64_t begin = weft_monotonic_ns();
    p->ops->experts(p->backend, w, pick, x, n, out);
    count(p, EXPERTS, begin, 0);
}

static void experts_soon(weft_backend *b, const weft_experts *w, const weft_pick *pick, size_t n)
{
    struct weft_profile *p = profile_of(b);
    int64_t begin = weft_monotonic_ns();
    p->ops->experts_soon(p->backend, w, pick, n);
    count(p, EXPERTS, begin, 0);
}

static void experts_counts(const weft_backend *b, weft_expert_counts *out)
{
    const struct weft_profile *p = (const struct weft_profile *)(const void *)b;
    p->ops->experts_counts(p->backend, out);
}

static weft_status failure(weft_backend *b, weft_error *err)
{
    struct weft_profile *p = profile_of(b);
    return p->ops->failure ? p->ops->failure(p->backend, err) : WEFT_OK;
}

weft_status weft_profile_begin(weft_profile **out, weft_model *model, weft_error *err)
{
    if (model->ops->device)
        return weft_fail(err, WEFT_E_USAGE,
                         "profile: %s runs a whole pass at once, its operations cannot be timed; use "
                         "--engine cpu",
                         model->ops->name);
    struct weft_profile *p = calloc(1, sizeof *p);
    if (!p) return weft_fail(err, WEFT_E_MEMORY, "profile: out of memory");
    p->model = model;
    p->ops = model->ops;
    p->backend = model->backend;
    p->timed = *model->ops;
    p->timed.weight_new = NULL; /* what takes the backend itself and is for loading: not now */
    p->timed.weight_map = NULL;
    p->timed.reserve = NULL;
    p->timed.reserve_experts = NULL;
    p->timed.experts_pool = NULL;
    p->timed.reserve_latent = NULL;
    if (p->ops->experts_counts) p->timed.experts_counts = experts_counts;
    p->timed.scratch_bytes = NULL;
    p->timed.failure = failure;
    if (p->ops->experts_soon) p->timed.experts_soon = experts_soon;
    p->timed.embed = embed;
    p->timed.matmul = matmul;
    p->timed.gated = gated;
    p->timed.rms_norm = rms_norm;
    p->timed.rope = rope;
    p->timed.kv_write = kv_write;
    p->timed.attention = attention;
    p->timed.add = add;
    p->timed.route = route;
    p->timed.experts = experts;
    p->timed.matmul_heads = matmul_heads;
    p->timed.layer_norm = layer_norm;
    p->timed.hadamard = hadamard;
    p->timed.latent_write = latent_write;
    p->timed.index_select = index_select;
    p->timed.latent_attention = latent_attention;
    for (int i = 0; i < ROWS; i++) p->row[i].name = row_name[i];
    model->ops = &p->timed;
    model->backend = (weft_backend *)(void *)p;
    *out = p;
    return WEFT_OK;
}

const weft_profile_row *weft_profile_rows(const weft_profile *p, size_t *out_n)
{
    *out_n = ROWS;
    return p->row;
}

void weft_profile_end(weft_profile *p)
{
    if (!p) return;
    p->model->ops = p->ops;
    p->model->backend = p->backend;
    free(p);
}
