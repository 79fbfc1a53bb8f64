/* The machine's GPUs and the compiled kernels: what is there, whether it can be used, why not. Private to
 * engine/cuda.
 *
 * The kernels are one file of machine code for several GPUs and PTX for later ones, weft-cuda.fatbin. It is a
 * file beside the program and not a part of it: the program runs without, and a machine without a GPU need
 * not map it. */
#ifndef WEFT_ENGINE_CUDA_GPU_H
#define WEFT_ENGINE_CUDA_GPU_H

#include "engine/cuda/driver.h"

enum { CUDA_GPUS = 16, CUDA_NAME_BYTES = 96 };

typedef struct cuda_gpu {
    int device; /* the driver's handle */
    int ordinal;
    int major, minor; /* compute capability */
    char name[CUDA_NAME_BYTES];
} cuda_gpu;

/* GPUs of the machine, at most CUDA_GPUS. WEFT_E_MODEL: none (why). */
weft_status cuda_gpus(const cuda_driver *driver, cuda_gpu out[CUDA_GPUS], int *out_n, weft_error *err);
/* WEFT_OK if the kernels run on it. */
weft_status cuda_gpu_supported(const cuda_gpu *gpu, weft_error *err);

/* The compiled kernels. WEFT_E_MODEL: there are none (why). The caller frees the buffer. */
weft_status cuda_image_read(weft_buffer *out, weft_error *err);
/* WEFT_OK, or why the driver refuses the image: more than cuda_check can say. */
weft_status cuda_image_check(const cuda_driver *driver, int result, const cuda_gpu *gpu, weft_error *err);

#endif
