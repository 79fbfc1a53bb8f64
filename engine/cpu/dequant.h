/* Rows of a GGUF tensor as float32: the specification of every block format (docs/gguf.md). */
#ifndef WEFT_ENGINE_CPU_DEQUANT_H
#define WEFT_ENGINE_CPU_DEQUANT_H

#include "engine/gguf.h"

/* out[i] = value i of the n weights at `data`; n is a multiple of the type's block. */
void cpu_dequantise(weft_tensor_type type, const void *data, size_t n, float *out);
/* Bytes of a row of n weights; 0 if n is not a multiple of the type's block. */
size_t cpu_row_bytes(weft_tensor_type type, size_t n);

#endif
