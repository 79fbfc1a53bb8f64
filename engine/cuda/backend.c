/* The CUDA backend: ops.h on GPUs, through the driver alone.
 *
 * It is made from a list of devices, planned when the model file is known (weight.c: GPUs open, layers are shared
 * out), gets weights and memory, and then makes passes (pass.c). Kernels are chosen in call.c; KV pages are kept
 * in pages.c. Order of locks: only `mutex`, held through a pass and through whatever touches pages.
 */
#include "engine/cuda/backend.h"

#include "engine/cuda/cuda.h"

#include <stdlib.h>
#include <string.h>

static weft_status weight_map(weft_backend *b, const weft_tensor *t, weft_weight **out, weft_error *err)
{
    return cuda_weight_new(b, t, out, err); /* nothing is left in the file: see weight.c */
}

static weft_status reserve(weft_backend *wb, size_t n, size_t columns, weft_error *err)
{
    cuda_backend *b = cuda_of(wb);
    if (n > UINT32_MAX || columns > UINT32_MAX)
        return weft_fail(err, WEFT_E_MEMORY, "scratch for %zu tokens of %zu columns: too large", n, columns);
    if (n > b->max_rows) b->max_rows = n;
    if (columns <= b->max_columns) return WEFT_OK;
    void *row = realloc(b->table_row, columns * sizeof(float)); /* no type has more bytes */
    if (!row) return weft_fail(err, WEFT_E_MEMORY, "scratch: out of memory");
    b->table_row = row;
    b->max_columns = columns;
    return WEFT_OK;
}

static void backend_free(weft_backend *wb)
{
    cuda_backend *b = cuda_of(wb);
    void *const pinned[] = {b->staging, b->input, b->x, b->logits, b->drawn, b->staged};
    cuda_forget_recorded(b);
    cuda_pool_free(b);
    for (size_t i = 0; i < sizeof pinned / sizeof *pinned; i++)
        if (pinned[i]) b->driver->host_free(pinned[i]);
    while (b->n_stage > 0) cuda_stage_close(&b->stage[--b->n_stage], b->driver);
    cpu_pool_free(b->threads);
    weft_buffer_free(&b->image);
    free(b->table_row);
    free(b->rows);
    pthread_mutex_destroy(&b->mutex);
    free(b);
}

static const weft_device_ops device_ops = {
    .plan = cuda_plan,
    .twin = cuda_twin,
    .places = cuda_places,
    .pass = cuda_pass,
    .layer = cuda_layer,
    .keep = cuda_keep,
    .split = cuda_split,
    .pages_new = cuda_pages_new,
    .pages_free = cuda_pages_free,
    .page_fetch = cuda_page_fetch,
    .page_forget = cuda_page_forget,
    .free = backend_free,
};

/* "cuda" is all of them, "cuda:0,2" those two. */
static weft_status choose(cuda_backend *b, const cuda_gpu *all, int n, const char *devices, weft_error *err)
{
    const char *p = devices + strlen("cuda");
    b->use_all = *p == ':';
    for (int i = 0; !b->use_all && i < n; i++)
        if (!cuda_gpu_supported(&all[i], err)) b->gpu[b->n_gpu++] = all[i];
    if (!b->use_all) return b->n_gpu ? WEFT_OK : WEFT_E_MODEL;
    while (*p == ':' || *p == ',') {
        char *end;
        unsigned long ordinal = strtoul(p + 1, &end, 10);
        if (end == p + 1 || (*end && *end != ',')) break;
        if (ordinal >= (unsigned long)n)
            return weft_fail(err, WEFT_E_USAGE, "%s: there is no GPU %lu, the last is %d", devices, ordinal, n - 1);
        for (int i = 0; i < b->n_gpu; i++)
            if (b->gpu[i].ordinal == (int)ordinal)
                return weft_fail(err, WEFT_E_USAGE, "%s: GPU %lu is named twice", devices, ordinal);
        weft_status e = cuda_gpu_supported(&all[ordinal], err);
        if (e) return e;
        b->gpu[b->n_gpu++] = all[ordinal];
        p = end;
    }
    if (*p == '\0') return WEFT_OK;
    return weft_fail(err, WEFT_E_USAGE, "%s: name GPUs by number, as in cuda:0 or cuda:0,1", devices);
}

weft_status weft_cuda_backend_new(weft_backend **out, const weft_ops **out_ops, const char *devices,
                                  weft_error *err)
{
    cuda_gpu gpu[CUDA_GPUS];
    int n = 0;
    cuda_backend *b = calloc(1, sizeof *b);
    if (!b) return weft_fail(err, WEFT_E_MEMORY, "CUDA backend: out of memory");
    pthread_mutex_init(&b->mutex, NULL);
    b->ops = (weft_ops){.name = b->name,
                        .device = &device_ops,
                        .numerics = CUDA_NUMERICS,
                        .weight_new = cuda_weight_new,
                        .weight_map = weight_map,
                        .weight_free = cuda_weight_free,
                        .weight_bytes = cuda_weight_bytes,
                        .reserve = reserve};
    cuda_calls(&b->ops);
    weft_status e = cuda_driver_get(&b->driver, err);
    if (!e) e = cuda_gpus(b->driver, gpu, &n, err);
    if (!e) e = choose(b, gpu, n, devices, err);
    if (!e) e = cuda_image_read(&b->image, err);
    if (!e) e = cpu_pool_new(&b->threads, 0, err);
    if (e) {
        backend_free((weft_backend *)(void *)b);
        return e;
    }
    *out = (weft_backend *)(void *)b;
    *out_ops = &b->ops;
    return WEFT_OK;
}
