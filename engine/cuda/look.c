/* `weft doctor`'s view of the GPUs: each is made ready as a run would, and let go. */
#include "engine/cuda/cuda.h"

static void report(weft_gpu_visit visit, void *context, const cuda_driver *d, const cuda_gpu *gpu,
                   const void *image)
{
    weft_error err;
    cuda_stage stage = {0};
    size_t free_bytes = 0, total = 0;
    weft_status e = cuda_gpu_supported(gpu, &err);
    if (!e) e = cuda_stage_open(&stage, d, gpu, image, &err);
    if (!e) e = cuda_check(d, d->memory_info(&free_bytes, &total), &err, "asking for its memory");
    cuda_stage_close(&stage, d);
    if (e)
        visit(context, false, err.message);
    else {
        char text[WEFT_ERROR_BYTES];
        snprintf(text, sizeof text,
                 "cuda:%d %s, compute capability %d.%d, %.1f of %.1f GiB free, driver for CUDA %d.%d: "
                 "used by --engine cuda",
                 gpu->ordinal, gpu->name, gpu->major, gpu->minor, (double)free_bytes / (1 << 30),
                 (double)total / (1 << 30), d->version / 1000, d->version % 1000 / 10);
        visit(context, true, text);
    }
}

void weft_gpu_look(weft_gpu_visit visit, void *context)
{
    const cuda_driver *d;
    cuda_gpu gpu[CUDA_GPUS];
    int n = 0;
    weft_error err;
    weft_buffer image = WEFT_BUFFER_INIT;
    weft_status e = cuda_driver_get(&d, &err);
    if (!e) e = cuda_gpus(d, gpu, &n, &err);
    if (!e) e = cuda_image_read(&image, &err);
    if (e) visit(context, false, err.message);
    for (int i = 0; !e && i < n; i++) report(visit, context, d, &gpu[i], image.data);
    weft_buffer_free(&image);
}
