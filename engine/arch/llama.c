/* Llama 1 to 3, Mistral, SmolLM2: interleaved rope (the converter permuted q and k for it); SiLU.
 * Llama 3.1 and later ship their frequency factors as the tensor rope_freqs.weight. */
#include "engine/arch/arch.h"

static weft_status configure(const weft_gguf *file, weft_hparams *h, weft_error *err)
{
    h->rope = WEFT_ROPE_INTERLEAVED;
    h->rope_factors = true;
    return weft_arch_refuse_window(file, "llama", h, err);
}

const weft_arch weft_arch_llama = {.name = "llama", .configure = configure};
