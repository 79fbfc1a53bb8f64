/* What can be used, in words: `weft doctor` prints these lines and `--engine cuda` fails with them. */
#include "engine/cuda/gpu.h"

#include "engine/engine.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LEAST_MAJOR = 8, IMAGE_MAX_BYTES = 1 << 30 };

static weft_status describe(const cuda_driver *d, int ordinal, cuda_gpu *out, weft_error *err)
{
    cuda_gpu gpu = {.ordinal = ordinal};
    weft_status e = cuda_check(d, d->device_get(&gpu.device, ordinal), err, "looking at a GPU");
    if (!e) e = cuda_check(d, d->device_name(gpu.name, (int)sizeof gpu.name - 1, gpu.device), err,
                           "its name");
    if (!e) e = cuda_check(d, d->device_attribute(&gpu.major, CUDA_MAJOR_, gpu.device), err,
                           "its compute capability");
    if (!e) e = cuda_check(d, d->device_attribute(&gpu.minor, CUDA_MINOR_, gpu.device), err,
                           "its compute capability");
    if (!e) *out = gpu;
    return e;
}

weft_status cuda_gpus(const cuda_driver *d, cuda_gpu out[CUDA_GPUS], int *out_n, weft_error *err)
{
    int n = 0;
    weft_status e = cuda_check(d, d->device_count(&n), err, "counting GPUs");
    if (e) return e;
    if (n <= 0) return weft_fail(err, WEFT_E_MODEL, "the NVIDIA driver finds no GPU");
    if (n > CUDA_GPUS) n = CUDA_GPUS;
    for (int i = 0; i < n && !e; i++) e = describe(d, i, &out[i], err);
    if (!e) *out_n = n;
    return e;
}

weft_status cuda_gpu_supported(const cuda_gpu *gpu, weft_error *err)
{
    if (gpu->major >= LEAST_MAJOR) return WEFT_OK;
    return weft_fail(err, WEFT_E_MODEL,
                     "cuda:%d %s has compute capability %d.%d; the kernels need %d.0 or later",
                     gpu->ordinal, gpu->name, gpu->major, gpu->minor, LEAST_MAJOR);
}

/* ---- the compiled kernels ---- */

/* Beside the program, where the build leaves it under the program, and where it is installed. */
static const char *const places[] = {"%s/weft-cuda.fatbin", "%s/engine/cuda/weft-cuda.fatbin",
                                     WEFT_CUDA_DIR "/weft-cuda.fatbin"};

static bool program_dir(char *out, size_t bytes)
{
    ssize_t n = readlink("/proc/self/exe", out, bytes - 1);
    if (n <= 0) return false;
    out[n] = '\0';
    char *slash = strrchr(out, '/');
    if (!slash) return false;
    *slash = '\0';
    return true;
}

static bool find_image(weft_buffer *path)
{
    char dir[4096];
#ifdef WEFT_FAULTS
    const char *test = getenv("WEFT_TEST_CUDA_IMAGE");
    if (test) {
        weft_buffer_printf(path, "%s", test);
        return weft_file_exists(test);
    }
#endif
    if (!program_dir(dir, sizeof dir)) dir[0] = '\0';
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        weft_buffer_clear(path);
        if (!strstr(places[i], "%s"))
            weft_buffer_printf(path, "%s", places[i]);
        else if (dir[0])
            weft_buffer_printf(path, "%s%s", dir, places[i] + 2);
        else
            continue;
        if (weft_file_exists(weft_buffer_str(path))) return true;
    }
    return false;
}

weft_status cuda_image_read(weft_buffer *out, weft_error *err)
{
    weft_buffer path = WEFT_BUFFER_INIT;
    weft_status e;
    if (find_image(&path))
        e = weft_file_read(weft_buffer_str(&path), IMAGE_MAX_BYTES, out, err);
    else if (WEFT_CUDA_TOOLKIT)
        e = weft_fail(err, WEFT_E_MODEL,
                      "the compiled kernels, weft-cuda.fatbin, are neither beside the program nor in %s: "
                      "install them again",
                      WEFT_CUDA_DIR);
    else
        e = weft_fail(err, WEFT_E_MODEL,
                      "this weft was built without GPU kernels: build it where nvcc is installed");
    weft_buffer_free(&path);
    return e;
}

weft_status cuda_image_check(const cuda_driver *d, int result, const cuda_gpu *gpu, weft_error *err)
{
    if (result == CUDA_ERROR_NO_BINARY_ || result == CUDA_ERROR_PTX_VERSION_)
        return weft_fail(err, WEFT_E_MODEL,
                         "cuda:%d %s: the driver knows CUDA %d.%d and cannot load kernels built with "
                         "%d.%d; update the driver",
                         gpu->ordinal, gpu->name, d->version / 1000, d->version % 1000 / 10,
                         WEFT_CUDA_TOOLKIT / 1000, WEFT_CUDA_TOOLKIT % 1000 / 10);
    return cuda_check(d, result, err, "loading the kernels");
}
