/* Qwen3 (dense): RMS norm of each query and key head before NeoX rope, no biases; SiLU. */
#include "engine/arch/arch.h"

static weft_status configure(const weft_gguf *file, weft_hparams *h, weft_error *err)
{
    h->rope = WEFT_ROPE_NEOX;
    h->head_norms = true;
    return weft_arch_refuse_window(file, "qwen3", h, err);
}

const weft_arch weft_arch_qwen3 = {.name = "qwen3", .configure = configure};
