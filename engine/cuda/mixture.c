/* Mixtures of experts: the router, and its choice's feed-forwards. Picks are sorted by expert on the device, so that
 * an expert's matrices are read once for all its rows; how many rows each gets the host never learns: the launch
 * has as many runs as any picks could need.
 */
#include "engine/cuda/call.h"

#include <assert.h>

static weft_status reserve_experts(weft_backend *wb, const weft_experts_size *size, weft_error *err)
{
    cuda_backend *b = cuda_of(wb);
    if (size->n_expert > WEFT_CUDA_EXPERTS || size->n_used > WEFT_CUDA_USED)
        return weft_fail(err, WEFT_E_MODEL,
                         "%zu experts, %zu of a token: GPU kernels take %d and %d; use --engine cpu",
                         size->n_expert, size->n_used, WEFT_CUDA_EXPERTS, WEFT_CUDA_USED);
    b->experts = *size;
    return WEFT_OK;
}

weft_status cuda_mixture_scratch(cuda_backend *b, cuda_stage *s, weft_error *err)
{
    const weft_experts_size *e = &b->experts;
    const size_t picks = e->n * e->n_used;
    if (picks == 0) return WEFT_OK;
    const size_t wide = e->n_embd > e->n_ff ? e->n_embd : e->n_ff, runs = weft_cuda_runs((uint32_t)e->n, (uint32_t)e->n_used, (uint32_t)e->n_expert, 1);
    const size_t parts[] = {picks * e->n_ff * sizeof(float), picks * wide * sizeof(float),
                            runs * sizeof(weft_cuda_run), picks * sizeof(uint32_t), picks * sizeof(uint32_t)};
    cuda_address *const at[] = {&s->hidden, &s->picked, &s->runs, &s->token_of, &s->pick_of};
    return cuda_scratch_new(b, s, parts, at, sizeof parts / sizeof *parts, &s->mixture, err);
}

static void route(weft_backend *wb, const weft_routing *r, float *scores, size_t n, weft_pick *out)
{
    cuda_backend *b = cuda_of(wb);
    const weft_cuda_route_args a = {.score = cuda_ptr(b, scores),
                                    .bias = cuda_ptr(b, r->bias),
                                    .out = cuda_ptr(b, out),
                                    .scale = r->scale,
                                    .n = (uint32_t)n,
                                    .n_expert = r->n_expert,
                                    .n_used = r->n_used,
                                    .n_group = r->n_group,
                                    .n_group_used = r->n_group_used,
                                    .sigmoid = r->gating == WEFT_GATE_SIGMOID,
                                    .normalise = r->normalise};
    CUDA_RUN(b, route, a);
}

/* One width for both products, since both read the same runs. */
static uint32_t width_of(const weft_experts *e, size_t n)
{
    const cuda_weight *gate = cuda_weight_of(e->gate), *down = cuda_weight_of(e->down);
    const uint32_t a = weft_cuda_matvec_width((uint32_t)gate->columns, true, n);
    const uint32_t b = weft_cuda_matvec_width((uint32_t)down->columns, false, n);
    return a < b ? a : b;
}

static weft_cuda_matmul_args product(const cuda_stage *s, const cuda_weight *w, float *y, uint32_t picks,
                                     uint32_t runs)
{
    weft_cuda_matmul_args a = {.run = cuda_scratch(s->runs), .n = picks, .columns = (uint32_t)w->columns,
                               .n_w = 1, .n_run = runs};
    a.w[0] = cuda_matrix(w, NULL, y);
    a.stack_bytes[0] = w->bytes / w->matrices;
    return a;
}

/* hidden [places][n_ff] = act(gate x) * (up x), place by place. */
static void gate_up(cuda_backend *b, const weft_experts *e, const float *x, size_t n, uint32_t picks,
                    uint32_t runs, uint32_t width)
{
    const cuda_stage *s = cuda_here(b);
    const cuda_weight *w[] = {cuda_weight_of(e->gate), cuda_weight_of(e->up)};
    float *const y[] = {cuda_scratch(s->hidden), cuda_scratch(s->picked)};
    const bool together = w[0]->format == w[1]->format;
    if (cuda_is_quantised(w[0]->format) || cuda_is_quantised(w[1]->format))
        cuda_quantise(b, x, n, w[0]->columns, w[0]->columns);
    for (int i = 0; i < (together ? 1 : 2); i++) {
        weft_cuda_matmul_args a = product(s, w[i], y[i], picks, runs);
        a.x_row = cuda_scratch(s->token_of);
        if (together) {
            a.w[1] = cuda_matrix(w[1], NULL, NULL);
            a.stack_bytes[1] = w[1]->bytes / w[1]->matrices;
            a.n_w = 2;
            a.gated = true;
            a.activation = e->activation;
        }
        cuda_multiply(b, &a, w[i]->format, width, x);
    }
    const weft_cuda_gate_args gate = {y[0], y[1], y[0], (uint64_t)picks * w[0]->rows, e->activation};
    if (!together) CUDA_RUN(b, gate, gate);
}

static void experts(weft_backend *wb, const weft_experts *e, const weft_pick *pick, const float *x, size_t n,
                    float *out)
{
    cuda_backend *b = cuda_of(wb);
    const cuda_stage *s = cuda_here(b);
    const cuda_weight *down = cuda_weight_of(e->down);
    const uint32_t picks = (uint32_t)n * e->n_used, width = width_of(e, n);
    const uint32_t runs = weft_cuda_runs((uint32_t)n, e->n_used, (uint32_t)down->matrices, width);
    const weft_cuda_group_args group = {cuda_ptr(b, pick), cuda_scratch(s->runs), cuda_scratch(s->token_of),
                                        cuda_scratch(s->pick_of), (uint32_t)n, e->n_used,
                                        (uint32_t)down->matrices, width, runs};
    assert(n <= b->experts.n && e->n_used == b->experts.n_used);
    CUDA_RUN(b, group, group);
    gate_up(b, e, cuda_ptr(b, x), n, picks, runs, width);
    float *const hidden = cuda_scratch(s->hidden), *const picked = cuda_scratch(s->picked);
    weft_cuda_matmul_args a = product(s, down, picked, picks, runs);
    a.y_row = cuda_scratch(s->pick_of);
    if (cuda_is_quantised(down->format)) cuda_quantise(b, hidden, picks, down->columns, down->columns);
    cuda_multiply(b, &a, down->format, width, hidden);
    const weft_cuda_combine_args combine = {picked, cuda_ptr(b, pick), cuda_ptr(b, out), (uint32_t)n, e->n_used,
                                            (uint32_t)down->rows};
    CUDA_RUN(b, combine, combine);
}

void cuda_mixture_calls(weft_ops *ops)
{
    ops->reserve_experts = reserve_experts;
    ops->route = route;
    ops->experts = experts;
}
