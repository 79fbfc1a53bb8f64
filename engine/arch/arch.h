/* Architectures: what a model file must say about its shape, and how the families differ.
 *
 * All families here are one transformer (transformer.c): RMS norm, grouped-query attention with
 * rotary positions (or latent attention: latent.c), gated feed-forward, residuals. A family is a file that fills weft_hparams:
 * which norms exist, which rope, which window, which activation. Nothing is guessed: a key that
 * would change the mathematics and is not implemented is refused by name, and so is a tensor nobody
 * asked for.
 */
#ifndef WEFT_ENGINE_ARCH_H
#define WEFT_ENGINE_ARCH_H

#include "engine/ops.h"

typedef struct weft_hparams {
    /* from the file, checked against the limits in arch.c */
    uint32_t n_layer, n_embd, n_ff, n_head, n_head_kv, n_vocab;
    uint32_t head_dim; /* of queries, keys and values */
    uint32_t rope_dim; /* even, <= head_dim */
    int64_t context_length;
    float norm_eps;
    double rope_theta;
    double rope_scale; /* positions are divided by it (linear scaling); 1: none */
    bool yarn;         /* low frequencies are divided by it, high ones are not */
    int64_t yarn_context; /* that the model was trained for without it */
    double yarn_beta_fast, yarn_beta_slow; /* turns in that context from where to where it fades */

    /* set by the family */
    weft_rope_kind rope;
    weft_activation activation;
    bool qkv_bias;     /* required; optional otherwise */
    bool head_norms;   /* q and k are normed per head before rope */
    bool post_norms;   /* attention and feed-forward outputs are normed before the residual add */
    bool rope_factors; /* rope_freqs.weight may divide the frequencies */
    float embedding_scale;
    float attention_scale;
    int64_t window;         /* of sliding layers; 0: no layer slides */
    uint32_t window_period; /* layer l is full if (l + 1) % window_period == 0 */
    double window_theta;    /* rope theta of sliding layers; they are never scaled */

    /* mixture of experts, by weft_arch_experts; n_expert 0: every feed-forward is dense */
    uint32_t n_expert, n_expert_used, n_ff_expert;
    uint32_t n_ff_shared; /* of the experts that every token takes, as one feed-forward; 0: none */
    uint32_t n_dense;     /* the first layers have no experts */
    weft_gating gating;
    uint32_t n_group, n_group_used;
    bool expert_normalise; /* the weights of a token's experts are divided by their sum */
    float expert_scale;

    /* latent attention; latent_dim 0: none. head_dim is that of queries, rope_dim of it rotated, last */
    uint32_t latent_dim, value_dim, q_lora; /* q_lora 0: queries are made in one step */
    uint32_t index_heads, index_dim, index_top_k; /* of the indexer; 0: none */

    bool predicts; /* the file has a layer n_layer, behind the last, that predicts the token after the next */
} weft_hparams;

typedef struct weft_arch {
    const char *name; /* general.architecture */
    bool has_experts; /* the others refuse a file with expert_count */
    weft_status (*configure)(const weft_gguf *file, weft_hparams *h, weft_error *err);
    /* Sizes of heads, for latent attention; NULL: those of grouped-query attention are read. */
    weft_status (*heads)(const weft_gguf *file, const char *arch, weft_hparams *h, weft_error *err);
} weft_arch;

extern const weft_arch weft_arch_qwen2, weft_arch_qwen3, weft_arch_llama, weft_arch_gemma3,
    weft_arch_qwen3moe, weft_arch_deepseek2, weft_arch_deepseek32;

/* Reads and checks the hyper-parameters of a file. WEFT_E_MODEL names the architecture or key that
 * is missing, out of range or not supported. */
weft_status weft_hparams_read(const weft_gguf *file, weft_hparams *out, weft_error *err);

/* For the families: values of "<architecture>.<name>". An absent key leaves *out as it is. */
bool weft_arch_int(const weft_gguf *file, const char *arch, const char *name, int64_t *out);
bool weft_arch_float(const weft_gguf *file, const char *arch, const char *name, double *out);
weft_status weft_arch_refuse_window(const weft_gguf *file, const char *arch, const weft_hparams *h,
                                    weft_error *err);

/* An integer in 1..max; `fallback` 0 means the key is required. */
weft_status weft_arch_count(const weft_gguf *file, const char *arch, const char *name, int64_t max,
                            uint32_t fallback, uint32_t *out, weft_error *err);

/* Fills the fields of a mixture of experts; what it lacks or asks for beyond them is refused. normalise:
 * where the file does not say. */
weft_status weft_arch_experts(const weft_gguf *file, const char *arch, bool normalise, weft_hparams *h,
                              weft_error *err);

/* True if a layer's tensors are there to predict further tokens (predict.c). */
bool weft_arch_predicts(const weft_gguf *file, uint32_t layer);
/* A tensor of such a layer from n_layer on, the number of layers that are loaded. */
bool weft_arch_unused(const weft_gguf *file, const weft_tensor *tensor, uint32_t n_layer);

static inline bool weft_layer_slides(const weft_hparams *h, uint32_t layer) {
    return h->window > 0 && (layer + 1) % h->window_period != 0;
}

/* Widths of all heads' queries, and of what attention makes of them. */
static inline size_t weft_query_width(const weft_hparams *h)
{
    return (size_t)h->n_head * h->head_dim;
}
static inline size_t weft_attended_width(const weft_hparams *h)
{
    return (size_t)h->n_head * (h->latent_dim ? h->value_dim : h->head_dim);
}

/* Finds, checks and repacks every tensor of the transformer into the model (load.c). */
weft_status weft_transformer_load(weft_model *model, const weft_engine_options *options,
                                  weft_error *err);
void weft_transformer_unload(weft_model *model);

#endif
