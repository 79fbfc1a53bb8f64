/* Qwen2 and Qwen2.5: biases on q, k and v; NeoX rope; SiLU. Output matrix separate or tied. */
#include "engine/arch/arch.h"

static weft_status configure(const weft_gguf *file, weft_hparams *h, weft_error *err)
{
    h->rope = WEFT_ROPE_NEOX;
    h->qkv_bias = true;
    return weft_arch_refuse_window(file, "qwen2", h, err);
}

const weft_arch weft_arch_qwen2 = {.name = "qwen2", .configure = configure};
