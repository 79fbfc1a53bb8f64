/* Weights: which GPU has which layer, and their way there.
 *
 * Layers are shared out in their order, so that the residual stream crosses from a GPU to the next once. As
 * few GPUs are taken as hold the weights, unless they were named one by one: then each gets layers in
 * proportion to its free memory. Everything must fit: reading weights over the bus at each token would be
 * slower than the CPU.
 *
 * A matrix is packed (kernels.h) by the host's cores, a portion of rows after the other into pinned memory, and
 * copied from there.
 */
#include "engine/cuda/cuda.h"

#include "engine/arch/arch.h"

#include <stdlib.h>
#include <string.h>

enum {
    STAGING_BYTES = 32 << 20,
    SPARE_SHARE = 16,      /* this part of a GPU's memory is kept for pages and scratch, */
    SPARE_BYTES = 256 << 20, /* and so much, if weights leave a choice */
    ITEM_TILES = 8
};

/* ---- who has what ---- */

/* Of "blk.7.attn_q.weight" 7; others count as the last. */
static uint32_t layer_of(const weft_tensor *t, uint32_t n_layer)
{
    if (strncmp(t->name, "blk.", 4) != 0) return n_layer - 1;
    unsigned long layer = strtoul(t->name + 4, NULL, 10);
    return layer < n_layer ? (uint32_t)layer : n_layer - 1;
}

static bool on_device(const weft_gguf *file, const weft_tensor *t)
{
    return t->dim[1] > 1 && (strcmp(t->name, "token_embd.weight") != 0 ||
                             !weft_gguf_tensor_find(file, "output.weight"));
}

/* Packed bytes of each layer's matrices; returns their sum. */
static size_t measure(const weft_gguf *file, uint32_t n_layer, size_t *bytes)
{
    size_t sum = 0;
    for (size_t i = 0; i < weft_gguf_tensor_count(file); i++) {
        const weft_tensor *t = weft_gguf_tensor_at(file, i);
        weft_cuda_format format;
        if (!on_device(file, t) || weft_arch_unused(file, t, n_layer) || !weft_cuda_format_of(t->type, &format)) continue;
        size_t n = weft_cuda_weight_bytes(format, t->dim[0], t->dim[1]) * t->dim[2];
        bytes[layer_of(t, n_layer)] += n;
        sum += n;
    }
    return sum;
}

static weft_status open_stages(cuda_backend *b, size_t weights, size_t *out_room, weft_error *err)
{
    const cuda_driver *d = b->driver;
    size_t room = 0;
    for (int i = 0; i < b->n_gpu && (b->use_all || i == 0 || room < weights); i++) {
        cuda_stage *s = &b->stage[b->n_stage++];
        size_t free_bytes;
        weft_status e = cuda_stage_open(s, d, &b->gpu[i], b->image.data, err);
        if (!e) e = cuda_check(d, d->memory_info(&free_bytes, &s->total), err, "asking for its memory");
        if (e) return e;
        size_t spare = s->total / SPARE_SHARE + SPARE_BYTES;
        s->room = free_bytes > 2 * spare ? free_bytes - spare : free_bytes / 2;
        room += s->room;
    }
    *out_room = room;
    if (weights <= room) return WEFT_OK;
    return weft_fail(err, WEFT_E_MEMORY,
                     "GPU memory: the weights take %zu MiB, %zu MiB are free for them on %d GPU%s; use a "
                     "smaller quantisation, more GPUs, or --engine cpu",
                     weights >> 20, room >> 20, b->n_stage, b->n_stage == 1 ? "" : "s");
}

/* A layer belongs to the stage in whose share its middle lies. */
static void share_out(cuda_backend *b, const size_t *bytes, size_t weights, size_t room)
{
    const uint32_t n_layer = b->layout.n_layer;
    double before = 0, limit = (double)b->stage[0].room / (double)room * (double)weights;
    int s = 0;
    for (uint32_t layer = 0; layer < n_layer; layer++) {
        while (s + 1 < b->n_stage && before + (double)bytes[layer] / 2 > limit) {
            b->stage[s].end = layer;
            b->stage[++s].first = layer;
            limit += (double)b->stage[s].room / (double)room * (double)weights;
        }
        before += (double)bytes[layer];
    }
    b->stage[s].end = n_layer;
    while (b->n_stage > s + 1) cuda_stage_close(&b->stage[--b->n_stage], b->driver);
}

weft_status cuda_plan(weft_backend *wb, const weft_gguf *file, const weft_kv_layout *layout, weft_error *err)
{
    cuda_backend *b = cuda_of(wb);
    b->layout = *layout;
    b->page_bytes = weft_kv_page_bytes(layout);
    size_t *bytes = calloc(layout->n_layer, sizeof *bytes), room;
    if (!bytes) return weft_fail(err, WEFT_E_MEMORY, "weights: out of memory");
    size_t weights = measure(file, layout->n_layer, bytes);
    weft_status e = open_stages(b, weights, &room, err);
    if (!e) share_out(b, bytes, weights, room);
    free(bytes);
    weft_buffer_free(&b->image);
    if (e) return e;
    const cuda_gpu *gpu = &b->stage[0].gpu;
    snprintf(b->name, sizeof b->name, b->n_stage > 1 ? "cuda-%d.%d-x%d" : "cuda-%d.%d", gpu->major,
             gpu->minor, b->n_stage);
    cuda_pool_init(b);
    b->rows = malloc(STAGING_BYTES);
    if (!b->rows) return weft_fail(err, WEFT_E_MEMORY, "weights: out of memory");
    return cuda_check(b->driver, b->driver->host_new(&b->staging, STAGING_BYTES, CUDA_HOST_PORTABLE_), err,
                      "pinned memory for weights");
}

/* ---- uploading ---- */

typedef struct pack_job {
    const weft_tensor *t;
    const uint8_t *file; /* rows of the portion */
    size_t rows, row_bytes, tile_bytes;
    uint8_t *out;
} pack_job;

static void pack_item(void *context, uint32_t item, int thread)
{
    const pack_job *job = context;
    const size_t from = item * (size_t)ITEM_TILES * WEFT_CUDA_ROWS, left = job->rows - from;
    const size_t n = left < ITEM_TILES * WEFT_CUDA_ROWS ? left : ITEM_TILES * WEFT_CUDA_ROWS;
    weft_cuda_weight_pack(job->t->type, job->t->dim[0], 0, n, job->file + from * job->row_bytes,
                          job->out + from / WEFT_CUDA_ROWS * job->tile_bytes);
}

/* One matrix, from row `first` of the tensor's on, to `to`. */
static weft_status upload(cuda_backend *b, const cuda_weight *w, const weft_tensor *t, size_t first,
                          cuda_address to, weft_error *err)
{
    const cuda_stage *s = &b->stage[w->stage];
    const size_t tile_bytes = weft_cuda_weight_bytes(w->format, w->columns, WEFT_CUDA_ROWS);
    const size_t row_bytes = t->bytes / (t->dim[1] * t->dim[2]);
    const size_t tiles = STAGING_BYTES / (tile_bytes > row_bytes * WEFT_CUDA_ROWS ? tile_bytes : row_bytes * WEFT_CUDA_ROWS);
    weft_status e = WEFT_OK;
    for (size_t row = 0; !e && row < w->rows; row += tiles * WEFT_CUDA_ROWS) {
        const size_t left = w->rows - row, n = left < tiles * WEFT_CUDA_ROWS ? left : tiles * WEFT_CUDA_ROWS;
        const size_t part = weft_cuda_divide_up(n, WEFT_CUDA_ROWS);
        pack_job job = {t, b->rows, n, row_bytes, tile_bytes, b->staging};
        e = weft_tensor_read(t, (first + row) * row_bytes, n * row_bytes, b->rows, err);
        if (e) break;
        cpu_pool_run(b->threads, pack_item, &job, weft_cuda_divide_up(part, ITEM_TILES));
        e = cuda_check(b->driver,
                       b->driver->copy_in(to + row / WEFT_CUDA_ROWS * tile_bytes, b->staging,
                                          part * tile_bytes, s->stream),
                       err, "copying weights");
        if (!e) e = cuda_check(b->driver, b->driver->synchronize(s->stream), err, "copying weights");
    }
    return e;
}

static weft_status check_shape(const weft_tensor *t, weft_cuda_format *format, weft_error *err)
{
    if (!weft_cuda_format_of(t->type, format))
        return weft_fail(err, WEFT_E_MODEL, "tensor %s: type %s has no GPU kernels; use --engine cpu",
                         t->name, weft_tensor_type_name(t->type));
    if (!weft_cuda_matvec_width((uint32_t)t->dim[0], true, 1) ||
        weft_cuda_weight_bytes(*format, t->dim[0], WEFT_CUDA_ROWS) > STAGING_BYTES)
        return weft_fail(err, WEFT_E_MODEL,
                         "tensor %s: %llu columns are more than GPU kernels take; use --engine cpu", t->name,
                         (unsigned long long)t->dim[0]);
    return WEFT_OK;
}

static int stage_of(const cuda_backend *b, uint32_t layer)
{
    int s = 0;
    while (s + 1 < b->n_stage && layer >= b->stage[s].end) s++;
    return s;
}

weft_status cuda_weight_new(weft_backend *wb, const weft_tensor *t, weft_weight **out, weft_error *err)
{
    cuda_backend *b = cuda_of(wb);
    weft_cuda_format format;
    weft_status e = check_shape(t, &format, err);
    if (e) return e;
    cuda_weight *w = calloc(1, sizeof *w);
    if (!w) return weft_fail(err, WEFT_E_MEMORY, "weights: out of memory");
    const size_t one = weft_cuda_weight_bytes(format, t->dim[0], t->dim[1]);
    *w = (cuda_weight){b, stage_of(b, layer_of(t, b->layout.n_layer)), 0, format, t->dim[0], t->dim[1],
                       t->dim[2], one * t->dim[2]};
    const cuda_stage *s = &b->stage[w->stage];
    e = cuda_stage_enter(s, b->driver, err);
    if (!e) e = cuda_memory_new(b->driver, s, w->bytes, t->name, &w->data, err);
    for (size_t i = 0; !e && i < w->matrices; i++) e = upload(b, w, t, i * w->rows, w->data + i * one, err);
    weft_weight *weight = (weft_weight *)(void *)w;
    if (e)
        cuda_weight_free(weight);
    else
        *out = weight;
    return e;
}

void cuda_weight_free(weft_weight *weight)
{
    cuda_weight *w = (cuda_weight *)(void *)weight;
    cuda_memory_free(w->backend->driver, &w->backend->stage[w->stage], w->data);
    free(w);
}

size_t cuda_weight_bytes(const weft_weight *w)
{
    return cuda_weight_of(w)->bytes;
}
