/* Gemma 3 (text): embeddings times sqrt(n_embd), norms after attention and feed-forward too,
 * per-head norms of q and k, NeoX rope, tanh GELU. Norm weights hold the +1 already.
 *
 * Every sixth layer sees everything (theta from the file, scaled if the file says so); the others
 * slide over `attention.sliding_window` positions with theta 10,000, which most files leave out.
 * Scores are scaled by 1/sqrt(head_dim), but by 1/sqrt(n_embd / n_head) in the 27B (62 layers).
 */
#include "engine/arch/arch.h"

#include <math.h>

static weft_status configure(const weft_gguf *file, weft_hparams *h, weft_error *err)
{
    int64_t window = 0, period = 6;
    if (!weft_arch_int(file, "gemma3", "attention.sliding_window", &window) || window < 1 ||
        window > INT32_MAX)
        return weft_fail(err, WEFT_E_MODEL,
                         "gemma3.attention.sliding_window: missing or out of range");
    if (weft_gguf_array(file, "gemma3.attention.sliding_window_pattern") > 0)
        return weft_fail(err, WEFT_E_MODEL,
                         "gemma3.attention.sliding_window_pattern: a list is not supported");
    (void)weft_arch_int(file, "gemma3", "attention.sliding_window_pattern", &period);
    if (period < 1 || period > 1024)
        return weft_fail(err, WEFT_E_MODEL,
                         "gemma3.attention.sliding_window_pattern: %lld is out of range",
                         (long long)period);
    h->window_theta = 10000;
    (void)weft_arch_float(file, "gemma3", "rope.freq_base_swa", &h->window_theta);
    h->window = window;
    h->window_period = (uint32_t)period;
    h->rope = WEFT_ROPE_NEOX;
    h->activation = WEFT_GELU_TANH;
    h->head_norms = true;
    h->post_norms = true;
    h->embedding_scale = sqrtf((float)h->n_embd);
    double per_head = h->n_layer == 62 ? (double)h->n_embd / h->n_head : (double)h->head_dim;
    h->attention_scale = (float)(1.0 / sqrt(per_head));
    return WEFT_OK;
}

const weft_arch weft_arch_gemma3 = {.name = "gemma3", .configure = configure};
