/* Latent attention and its indexer, as DeepSeek's models have them: arguments of kernels. */
#include "engine/cuda/call.h"

#include <assert.h>

static weft_status reserve_latent(weft_backend *wb, const weft_latent_size *size, weft_error *err)
{
    cuda_backend *b = cuda_of(wb);
    if (size->latent_dim > WEFT_CUDA_LATENT)
        return weft_fail(err, WEFT_E_MODEL, "latents of %u: GPU kernels take %d; use --engine cpu",
                         size->latent_dim, WEFT_CUDA_LATENT);
    b->latent = *size;
    return WEFT_OK;
}

/* Positions that a row can have in a pass of this shape. */
static size_t stride_of(uint32_t spans)
{
    return (size_t)spans * WEFT_CUDA_SPAN;
}

weft_status cuda_latent_scratch(cuda_backend *b, cuda_stage *s, weft_error *err)
{
    uint32_t spans = 1;
    if (!b->latent.top_k) return WEFT_OK;
    while (stride_of(spans) < (size_t)b->latent.context) spans *= 2;
    const size_t parts[] = {b->places.chunk * stride_of(spans) * sizeof(float)};
    cuda_address *const at[] = {&s->score};
    return cuda_scratch_new(b, s, parts, at, 1, &s->indexer, err);
}

static void matmul_heads(weft_backend *wb, const weft_weight *weight, const float *x, size_t x_stride, size_t n,
                         float *y, size_t y_stride)
{
    cuda_backend *b = cuda_of(wb);
    const cuda_weight *w = cuda_weight_of(weight);
    weft_cuda_matmul_args a = {.n = (uint32_t)n, .columns = (uint32_t)w->columns, .n_w = 1,
                               .stack = (uint32_t)w->matrices, .x_stride = (uint32_t)x_stride,
                               .y_stride = (uint32_t)y_stride};
    a.w[0] = cuda_matrix(w, NULL, cuda_ptr(b, y));
    a.stack_bytes[0] = w->bytes / w->matrices;
    if (cuda_is_quantised(w->format)) cuda_quantise(b, cuda_ptr(b, x), n * w->matrices, w->columns, x_stride);
    cuda_multiply(b, &a, w->format, cuda_width(w->format, w->columns, false, n), cuda_ptr(b, x));
}

static void layer_norm(weft_backend *wb, const float *x, const float *w, const float *bias, float eps,
                       size_t rows, size_t dim, float *y)
{
    cuda_backend *b = cuda_of(wb);
    const weft_cuda_layer_norm_args a = {cuda_ptr(b, x), cuda_ptr(b, w), cuda_ptr(b, bias), cuda_ptr(b, y), eps,
                                         (uint32_t)rows, (uint32_t)dim};
    CUDA_RUN(b, layer_norm, a);
}

static void hadamard(weft_backend *wb, float *x, size_t rows, size_t dim)
{
    cuda_backend *b = cuda_of(wb);
    const weft_cuda_hadamard_args a = {cuda_ptr(b, x), (uint32_t)rows, (uint32_t)dim};
    CUDA_RUN(b, hadamard, a);
}

static void latent_write(weft_backend *wb, const weft_kv_layout *layout, uint32_t layer, const weft_row *row,
                         size_t n, const float *latent, const float *rope, const float *index)
{
    cuda_backend *b = cuda_of(wb);
    const weft_cuda_kv_write_args a = {.kv = weft_cuda_kv_of(layout, layer), .row = cuda_rows(b, row),
                                       .k = layout->key_dim ? cuda_ptr(b, index) : NULL,
                                       .v = cuda_ptr(b, latent), .v2 = cuda_ptr(b, rope), .n = (uint32_t)n,
                                       .v_dim = layout->latent_dim};
    CUDA_RUN(b, kv_write, a);
}

static void index_select(weft_backend *wb, const weft_index *call)
{
    cuda_backend *b = cuda_of(wb);
    static const cuda_kernel kernel[WEFT_KV_TYPES] = {[WEFT_KV_F16] = CUDA_K_index_score_f16,
                                                      [WEFT_KV_F32] = CUDA_K_index_score_f32,
                                                      [WEFT_KV_Q8_0] = CUDA_K_index_score_q8_0};
    const weft_cuda_index_args a = {.kv = weft_cuda_kv_of(call->layout, call->layer),
                                    .row = cuda_rows(b, call->row),
                                    .q = cuda_ptr(b, call->q),
                                    .weight = cuda_ptr(b, call->weight),
                                    .score = cuda_scratch(cuda_here(b)->score),
                                    .selected = cuda_ptr(b, call->selected),
                                    .count = cuda_ptr(b, call->count),
                                    .stride = stride_of(b->shape.spans),
                                    .n = (uint32_t)call->n,
                                    .n_head = call->n_head,
                                    .top_k = call->top_k};
    cuda_run(b, kernel[call->layout->type], weft_cuda_index_score_launch(&a), &a, sizeof a);
    CUDA_RUN(b, top_k, a);
}

/* Slots for few rows, as in attention (call.c); a selection has no more spans than it has places. */
static void latent_attention(weft_backend *wb, const weft_latent_attention *call)
{
    cuda_backend *b = cuda_of(wb);
    static const cuda_kernel kernel[WEFT_KV_TYPES] = {[WEFT_KV_F16] = CUDA_K_latent_attention_f16,
                                                      [WEFT_KV_F32] = CUDA_K_latent_attention_f32,
                                                      [WEFT_KV_Q8_0] = CUDA_K_latent_attention_q8_0};
    size_t places = stride_of(b->shape.spans);
    if (call->selected && call->top_k < places) places = call->top_k;
    weft_cuda_latent_args a = {.kv = weft_cuda_kv_of(call->layout, call->layer),
                               .row = cuda_rows(b, call->row),
                               .q_latent = cuda_ptr(b, call->q_latent),
                               .q_rope = cuda_ptr(b, call->q_rope),
                               .selected = cuda_ptr(b, call->selected),
                               .count = cuda_ptr(b, call->count),
                               .out = cuda_ptr(b, call->out),
                               .scale = call->scale,
                               .n = (uint32_t)call->n,
                               .n_head = call->n_head,
                               .latent_dim = call->layout->latent_dim,
                               .q_rope_stride = (uint32_t)call->q_rope_stride,
                               .top_k = call->top_k,
                               .spans = weft_cuda_divide_up(places, WEFT_CUDA_LATENT_SPAN)};
    const size_t slots = (size_t)a.n * a.n_head * a.spans * (WEFT_CUDA_LATENT_STATE + a.latent_dim) * sizeof(float);
    if (a.n <= CUDA_GRAPH_ROWS && a.spans > 1 && slots <= b->slot_bytes)
        a.slot = cuda_scratch(cuda_here(b)->slots);
    cuda_run(b, kernel[call->layout->type], weft_cuda_latent_attention_launch(&a), &a, sizeof a);
    if (a.slot) CUDA_RUN(b, latent_merge, a);
}

void cuda_latent_calls(weft_ops *ops)
{
    ops->reserve_latent = reserve_latent;
    ops->matmul_heads = matmul_heads;
    ops->layer_norm = layer_norm;
    ops->hadamard = hadamard;
    ops->latent_write = latent_write;
    ops->index_select = index_select;
    ops->latent_attention = latent_attention;
}
