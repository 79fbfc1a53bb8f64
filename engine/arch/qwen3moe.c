/* Qwen3 MoE: Qwen3's attention; in each layer a router chooses experts by softmax, whose weights are
 * divided by their sum. No shared expert. */
#include "engine/arch/arch.h"

static weft_status configure(const weft_gguf *file, weft_hparams *h, weft_error *err)
{
    enum { SOFTMAX = 1 }; /* of expert_gating_func; 0: not said */
    int64_t gating = SOFTMAX;
    (void)weft_arch_int(file, "qwen3moe", "expert_gating_func", &gating);
    if (gating != 0 && gating != SOFTMAX)
        return weft_fail(err, WEFT_E_MODEL,
                         "qwen3moe.expert_gating_func: %lld is not supported for this architecture",
                         (long long)gating);
    h->rope = WEFT_ROPE_NEOX;
    h->head_norms = true;
    weft_status s = weft_arch_experts(file, "qwen3moe", true, h, err);
    return s ? s : weft_arch_refuse_window(file, "qwen3moe", h, err);
}

const weft_arch weft_arch_qwen3moe = {.name = "qwen3moe", .has_experts = true, .configure = configure};
