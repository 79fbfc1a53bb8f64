/* One GPU: the context that everything on it belongs to, the kernels, a stream, memory.
 *
 * The primary context is used, as other libraries in the process would: a GPU has one of these. Contexts are a
 * matter of threads, so whoever enters the backend sets the context of the stage he works on.
 */
#include "engine/cuda/cuda.h"

#include <string.h>

static const char *const kernel_name[CUDA_KERNELS] = {
#define X(name) "weft_cuda_" #name,
    WEFT_CUDA_KERNELS(X)
#undef X
};

static weft_status find_kernels(cuda_stage *s, const cuda_driver *d, weft_error *err)
{
    int result = 0;
    for (int i = 0; i < CUDA_KERNELS && !result; i++) {
        result = d->module_function(&s->kernel[i], s->module, kernel_name[i]);
        if (result == CUDA_ERROR_NOT_FOUND_)
            return weft_fail(err, WEFT_E_MODEL,
                             "weft-cuda.fatbin has no kernel %s: it belongs to another version of weft; "
                             "install both together",
                             kernel_name[i]);
    }
    return cuda_check(d, result, err, "finding the kernels");
}

weft_status cuda_stage_enter(const cuda_stage *s, const cuda_driver *d, weft_error *err)
{
    return cuda_check(d, d->context_set(s->context), err, "using its context");
}

weft_status cuda_stage_open(cuda_stage *s, const cuda_driver *d, const cuda_gpu *gpu, const void *image,
                            weft_error *err)
{
    *s = (cuda_stage){.gpu = *gpu};
    weft_status e = cuda_check(d, d->context_retain(&s->context, gpu->device), err, "making a context");
    if (!e) e = cuda_stage_enter(s, d, err);
    if (!e) e = cuda_image_check(d, d->module_load(&s->module, image), gpu, err);
    if (!e) e = find_kernels(s, d, err);
    if (!e) e = cuda_check(d, d->stream_new(&s->stream, CUDA_STREAM_NON_BLOCKING_), err,
                           "making a stream");
    if (!e) e = cuda_check(d, d->event_new(&s->done, CUDA_EVENT_DISABLE_TIMING_), err, "making an event");
    if (!e) e = cuda_check(d, d->event_new(&s->fetched, CUDA_EVENT_DISABLE_TIMING_), err, "making an event");
    return e;
}

void cuda_stage_close(cuda_stage *s, const cuda_driver *d)
{
    if (!s->context) return;
    for (int i = 0; i < CUDA_TWINS; i++) cuda_memory_free(d, s, s->twin[i]);
    cuda_memory_free(d, s, s->input);
    cuda_memory_free(d, s, s->scratch);
    cuda_memory_free(d, s, s->mixture);
    cuda_memory_free(d, s, s->indexer);
    (void)d->context_set(s->context);
    if (s->done) d->event_free(s->done);
    if (s->fetched) d->event_free(s->fetched);
    if (s->stream) d->stream_free(s->stream);
    if (s->module) d->module_unload(s->module);
    d->context_release(s->gpu.device);
    *s = (cuda_stage){0};
}

/* Handles and addresses are unique over the GPUs: should the context not be had, what can be given back still is. */
void cuda_memory_free(const cuda_driver *d, const cuda_stage *s, cuda_address address)
{
    if (!address) return;
    (void)d->context_set(s->context);
    d->memory_free(address);
}

weft_status cuda_memory_new(const cuda_driver *d, const cuda_stage *s, size_t bytes, const char *what,
                            cuda_address *out, weft_error *err)
{
    size_t free_bytes = 0, total = 0;
    int result = d->memory_new(out, bytes);
    if (result != CUDA_ERROR_OUT_OF_MEMORY_) return cuda_check(d, result, err, what);
    if (d->memory_info(&free_bytes, &total) != 0) free_bytes = 0;
    return weft_fail(err, WEFT_E_MEMORY,
                     "cuda:%d %s: %zu MiB for %s do not fit, %zu MiB are free; use a smaller "
                     "quantisation or context, more GPUs, or --engine cpu",
                     s->gpu.ordinal, s->gpu.name, bytes >> 20, what, free_bytes >> 20);
}
