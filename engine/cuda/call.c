/* The operations of ops.h: which kernels, with which arguments. Bits do not depend on what is chosen here by the
 * number of rows (kernels.h); what costs time does.
 *
 * Calls cannot fail one by one: the first failure is kept for the end of the pass, what follows it does nothing.
 */
#include "engine/cuda/call.h"

#include "engine/cpu/dequant.h"

#include <assert.h>

void cuda_run(cuda_backend *b, cuda_kernel kernel, weft_cuda_launch l, const void *args, size_t bytes)
{
    const cuda_stage *s = cuda_here(b);
    void *buffer = (void *)(uintptr_t)args;
    void *extra[] = {(void *)1, buffer, (void *)2, &bytes, NULL}; /* CU_LAUNCH_PARAM_BUFFER_POINTER, _SIZE, _END */
    if (b->status) return;
    int result = b->driver->launch(s->kernel[kernel], l.grid[0], l.grid[1], l.grid[2], l.block[0], l.block[1],
                                   l.block[2], l.shared_bytes, s->stream, NULL, extra);
    b->status = cuda_check(b->driver, result, &b->err, "launching a kernel");
}

/* Embeddings are looked up on the host: a few rows of a table that would fill memory of the device. */
static void embed(weft_backend *wb, const weft_tensor *table, const int32_t *ids, size_t n, float scale,
                  float *out)
{
    cuda_backend *b = cuda_of(wb);
    const size_t columns = table->dim[0], bytes = cpu_row_bytes(table->type, columns);
    for (size_t t = 0; t < n && !b->read_status; t++, out += columns) {
        b->read_status = weft_tensor_read(table, (size_t)ids[t] * bytes, bytes, b->table_row, &b->read_err);
        if (b->read_status) break;
        cpu_dequantise(table->type, b->table_row, columns, out);
        for (size_t i = 0; i < columns; i++) out[i] *= scale;
    }
}

static weft_status failure(weft_backend *wb, weft_error *err)
{
    cuda_backend *b = cuda_of(wb);
    const weft_status status = b->read_status;
    if (status && err) *err = b->read_err;
    b->read_status = WEFT_OK;
    return status;
}

/* ---- products ---- */

void cuda_quantise(cuda_backend *b, const float *x, size_t rows, size_t columns, size_t stride)
{
    const cuda_stage *s = cuda_here(b);
    const weft_cuda_quantise_args a = {x, cuda_scratch(s->quantised), cuda_scratch(s->blocks), (uint32_t)rows,
                                       (uint32_t)columns, (uint32_t)stride};
    assert(rows * columns <= b->quantised_room);
    CUDA_RUN(b, quantise, a);
}

/* From 9 rows on a tensor core's tile of them is filled well enough to pay. */
uint32_t cuda_width(weft_cuda_format f, size_t columns, bool gated, size_t n)
{
    if (n > 8 && cuda_is_quantised(f)) return n > 32 ? 64 : 16;
    return weft_cuda_matvec_width((uint32_t)columns, gated, n);
}

static cuda_kernel product_kernel(weft_cuda_format f, uint32_t width)
{
    if (width >= 16) return (cuda_kernel)((width == 16 ? CUDA_K_matmul_q8_16 : CUDA_K_matmul_q8_64) + (int)f);
    const int quantised[] = {CUDA_K_matvec_q8_1, CUDA_K_matvec_q8_4, CUDA_K_matvec_q8_8};
    const int floats[] = {CUDA_K_matvec_f16_1, CUDA_K_matvec_f16_4, CUDA_K_matvec_f16_8};
    const int i = width == 1 ? 0 : width == 4 ? 1 : 2;
    return (cuda_kernel)(cuda_is_quantised(f) ? quantised[i] + (int)f : floats[i] + (int)(f - WEFT_CUDA_F16));
}

void cuda_multiply(cuda_backend *b, weft_cuda_matmul_args *a, weft_cuda_format format, uint32_t width,
                   const float *x)
{
    const cuda_stage *s = cuda_here(b);
    if (cuda_is_quantised(format)) {
        a->q = cuda_scratch(s->quantised);
        a->block = cuda_scratch(s->blocks);
    } else {
        a->x = x;
        if (a->x_stride == 0) a->x_stride = a->columns;
    }
    if (a->stack == 0) a->stack = 1;
    cuda_run(b, product_kernel(format, width),
             width >= 16 ? weft_cuda_matmul_launch(a, width) : weft_cuda_matvec_launch(a, width), a, sizeof *a);
}

/* One launch for each format among them. */
static void matmul(weft_backend *wb, const weft_weight *const *w, const float *const *bias, float *const *y,
                   size_t n_w, const float *x, size_t n)
{
    cuda_backend *b = cuda_of(wb);
    const size_t columns = cuda_weight_of(w[0])->columns;
    bool done[WEFT_CUDA_MATRICES] = {false}, quantised = false;
    assert(n_w <= WEFT_CUDA_MATRICES);
    for (size_t i = 0; i < n_w; i++) {
        const weft_cuda_format format = cuda_weight_of(w[i])->format;
        weft_cuda_matmul_args a = {.n = (uint32_t)n, .columns = (uint32_t)columns};
        if (done[i]) continue;
        for (size_t j = i; j < n_w; j++) {
            const cuda_weight *one = cuda_weight_of(w[j]);
            if (one->format != format) continue;
            done[j] = true;
            a.w[a.n_w++] = cuda_matrix(one, cuda_ptr(b, bias[j]), cuda_ptr(b, y[j]));
        }
        if (cuda_is_quantised(format) && !quantised) {
            cuda_quantise(b, cuda_ptr(b, x), n, columns, columns);
            quantised = true;
        }
        cuda_multiply(b, &a, format, cuda_width(format, columns, false, n), cuda_ptr(b, x));
    }
}

static void gated(weft_backend *wb, const weft_weight *gate, const weft_weight *up, weft_activation act,
                  const float *x, size_t n, float *out)
{
    cuda_backend *b = cuda_of(wb);
    const cuda_weight *w[] = {cuda_weight_of(gate), cuda_weight_of(up)};
    float *const y = cuda_ptr(b, out), *const other = cuda_scratch(cuda_here(b)->other);
    const bool together = w[0]->format == w[1]->format;
    if (cuda_is_quantised(w[0]->format) || cuda_is_quantised(w[1]->format))
        cuda_quantise(b, cuda_ptr(b, x), n, w[0]->columns, w[0]->columns);
    for (int i = 0; i < (together ? 1 : 2); i++) {
        weft_cuda_matmul_args a = {.n = (uint32_t)n, .columns = (uint32_t)w[i]->columns, .n_w = 1};
        a.w[0] = cuda_matrix(w[i], NULL, i ? other : y);
        if (together) {
            a.w[1] = cuda_matrix(w[1], NULL, NULL);
            a.n_w = 2;
            a.gated = true;
            a.activation = act;
        }
        cuda_multiply(b, &a, w[i]->format, cuda_width(w[i]->format, w[i]->columns, together, n), cuda_ptr(b, x));
    }
    const weft_cuda_gate_args gate_args = {y, other, y, n * w[0]->rows, act};
    assert(w[0]->rows <= b->max_columns);
    if (!together) CUDA_RUN(b, gate, gate_args);
}

/* ---- the rest of a layer ---- */

static void rms_norm(weft_backend *wb, const float *x, const float *w, float eps, size_t rows, size_t dim,
                     float *y)
{
    cuda_backend *b = cuda_of(wb);
    const weft_cuda_rms_norm_args a = {cuda_ptr(b, x), cuda_ptr(b, w), cuda_ptr(b, y), eps, (uint32_t)rows, (uint32_t)dim};
    CUDA_RUN(b, rms_norm, a);
}

/* The table of these frequencies for these rows: made once a pass on each stage, all layers share it. */
static const float *rope_table(cuda_backend *b, const weft_row *row, size_t n, size_t rope_dim,
                               const double *inv_freq, float magnitude)
{
    const cuda_rope_key key = {inv_freq, (cuda_address)(uintptr_t)row, rope_dim, magnitude};
    int i = 0;
    while (i < b->n_rope &&
           !(b->rope[i].inv_freq == inv_freq && b->rope[i].row == key.row &&
             b->rope[i].rope_dim == rope_dim && b->rope[i].magnitude == magnitude))
        i++;
    assert(i < CUDA_ROPE_TABLES);
    float *table = cuda_scratch(cuda_here(b)->cos_sin[i]);
    if (i < b->n_rope) return table;
    const weft_cuda_rope_table_args a = {row, cuda_ptr(b, inv_freq), table, magnitude, (uint32_t)n, (uint32_t)rope_dim};
    CUDA_RUN(b, rope_table, a);
    b->rope[b->n_rope++] = key;
    return table;
}

static void rope(weft_backend *wb, float *x, const weft_row *row, size_t n, size_t heads, size_t head_dim,
                 size_t rope_dim, weft_rope_kind kind, const double *inv_freq, float magnitude)
{
    cuda_backend *b = cuda_of(wb);
    const float *table = rope_table(b, cuda_rows(b, row), n, rope_dim, inv_freq, magnitude);
    const weft_cuda_rope_args a = {cuda_ptr(b, x), table, (uint32_t)n, (uint32_t)heads, (uint32_t)head_dim,
                                   (uint32_t)rope_dim, kind};
    CUDA_RUN(b, rope, a);
}

static void kv_write(weft_backend *wb, const weft_kv_layout *layout, uint32_t layer, const weft_row *row,
                     size_t n, const float *k, const float *v)
{
    cuda_backend *b = cuda_of(wb);
    const weft_cuda_kv_write_args a = {.kv = weft_cuda_kv_of(layout, layer), .row = cuda_rows(b, row),
                                       .k = cuda_ptr(b, k), .v = cuda_ptr(b, v), .n = (uint32_t)n,
                                       .v_dim = layout->value_dim};
    CUDA_RUN(b, kv_write, a);
}

/* Many rows fill the GPU with a thread block for each few; of few rows, each span is a thread block. */
static void attention(weft_backend *wb, const weft_attention *call)
{
    cuda_backend *b = cuda_of(wb);
    static const cuda_kernel kernel[WEFT_KV_TYPES][2] = {
        [WEFT_KV_F16] = {CUDA_K_attention_f16_8, CUDA_K_attention_f16_16},
        [WEFT_KV_F32] = {CUDA_K_attention_f32_8, CUDA_K_attention_f32_16},
        [WEFT_KV_Q8_0] = {CUDA_K_attention_q8_0_8, CUDA_K_attention_q8_0_16}};
    const weft_kv_layout *layout = call->layout;
    const uint32_t group = call->n_head / layout->n_head_kv;
    const bool follow = b->shape.follow && call->n == b->pass->n;
    weft_cuda_attention_args a = {.kv = weft_cuda_kv_of(layout, call->layer),
                                  .row = cuda_rows(b, call->row),
                                  .q = cuda_ptr(b, call->q),
                                  .out = cuda_ptr(b, call->out),
                                  .window = call->window,
                                  .scale = call->scale,
                                  .n = (uint32_t)call->n,
                                  .n_head = call->n_head,
                                  .tile = 1,
                                  .spans = b->shape.spans};
    const size_t slots = (size_t)a.n * a.n_head * a.spans * (WEFT_CUDA_STATE + layout->value_dim) * sizeof(float);
    if (a.n <= CUDA_GRAPH_ROWS && a.spans > 1 && slots <= b->slot_bytes)
        a.slot = cuda_scratch(cuda_here(b)->slots);
    else if (follow && group <= 8)
        a.tile = 16 / group;
    const uint32_t queries = a.tile * group <= 8 ? 8 : 16;
    cuda_run(b, kernel[layout->type][queries == 16], weft_cuda_attention_launch(&a, queries), &a, sizeof a);
    if (a.slot) CUDA_RUN(b, attention_merge, a);
}

static void add(weft_backend *wb, float *x, const float *y, size_t n)
{
    cuda_backend *b = cuda_of(wb);
    const weft_cuda_add_args a = {cuda_ptr(b, x), cuda_ptr(b, y), n};
    CUDA_RUN(b, add, a);
}

/* ---- what a device adds ---- */

/* Rows move in parallel, so they cannot move in place. */
void cuda_keep(weft_backend *wb, float *x, size_t width)
{
    cuda_backend *b = cuda_of(wb);
    const cuda_stage *s = cuda_here(b);
    const size_t n = b->pass->n_want;
    const weft_cuda_keep_args a = {cuda_ptr(b, x), cuda_scratch(s->kept), cuda_wanted(b), (uint32_t)n, (uint32_t)width};
    assert(n <= b->max_rows && width <= b->max_columns);
    if (n == 0 || n == b->pass->n) return;
    CUDA_RUN(b, keep, a);
    if (b->status) return;
    b->status = cuda_check(b->driver,
                           b->driver->copy_within(cuda_at(b, x), s->kept, n * width * sizeof(float), s->stream),
                           &b->err, "keeping rows");
}

void cuda_split(weft_backend *wb, const float *x, size_t n, float *hi, float *lo)
{
    cuda_backend *b = cuda_of(wb);
    const weft_cuda_split_args a = {cuda_ptr(b, x), cuda_ptr(b, hi), cuda_ptr(b, lo), n};
    CUDA_RUN(b, split, a);
}

void cuda_calls(weft_ops *ops)
{
    ops->embed = embed;
    ops->failure = failure;
    ops->matmul = matmul;
    ops->gated = gated;
    ops->rms_norm = rms_norm;
    ops->rope = rope;
    ops->kv_write = kv_write;
    ops->attention = attention;
    ops->add = add;
    cuda_mixture_calls(ops);
    cuda_latent_calls(ops);
}
