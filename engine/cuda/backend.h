/* The CUDA backend, as model.c makes it. Private to engine/. */
#ifndef WEFT_ENGINE_CUDA_BACKEND_H
#define WEFT_ENGINE_CUDA_BACKEND_H

#include "engine/ops.h"

/* devices: "cuda", or the GPUs to use, "cuda:0" or "cuda:0,2". Nothing is computed before ops->device->plan.
 * WEFT_E_MODEL: they cannot be used (why); WEFT_E_USAGE: they are not there. */
weft_status weft_cuda_backend_new(weft_backend **out, const weft_ops **out_ops, const char *devices,
                                  weft_error *err);

#endif
