/* DeepSeek V2, V3, R1 (deepseek2) and V3.2 (deepseek32): multi-head latent attention, experts with a shared
 * one beside them, and in V3.2 the lightning indexer that chooses which positions a token attends to.
 *
 * Per position a layer keeps one latent, which keys and values of all heads are made of, and one rotated key part.
 * The up-projections are absorbed into queries and outputs (attn_k_b, attn_v_b), for prefill and decode alike, so that
 * a position's bits do not depend on how it came to be evaluated.
 *
 * YaRN is static: every position is turned by the same frequencies, whatever the length. Its mscale goes into the
 * attention scale, squared; cos and sin keep their size, as mscale and mscale_all_dim are equal in all these models.
 */
#include "engine/arch/arch.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    MAX_HEAD = 1024,   /* dims of a head, of the latent, of the indexer */
    MAX_LORA = 1 << 16,
    MAX_INDEX_HEADS = 1 << 10,
    MAX_TOP_K = 1 << 16,
    MAX_GROUPS = 64, /* what the backends route in */
    LATENT_STEP = 32 /* dims that kernels take at once */
};

static weft_status want(const weft_gguf *file, const char *arch, const char *name, int64_t max,
                        uint32_t *out, weft_error *err)
{
    return weft_arch_count(file, arch, name, max, 0, out, err);
}

/* A size that follows from others; files say it all the same. */
static weft_status agree(const weft_gguf *file, const char *arch, const char *name, uint32_t expected,
                         weft_error *err)
{
    int64_t value = expected;
    if (!weft_arch_int(file, arch, name, &value) || value == expected) return WEFT_OK;
    return weft_fail(err, WEFT_E_MODEL, "%s.%s: is %lld, the other sizes make it %u", arch, name,
                     (long long)value, expected);
}

static weft_status read_heads(const weft_gguf *file, const char *arch, weft_hparams *h, weft_error *err)
{
    int64_t n_head_kv = 1, q_lora = 0;
    weft_status s = want(file, arch, "attention.head_count", MAX_HEAD, &h->n_head, err);
    if (s) return s;
    (void)weft_arch_int(file, arch, "attention.head_count_kv", &n_head_kv);
    if (n_head_kv != 1 || weft_gguf_tensor_find(file, "blk.0.attn_kv_b.weight"))
        return weft_fail(err, WEFT_E_MODEL,
                         "%s.attention.head_count_kv: %lld: a file from before attn_kv_b was split into "
                         "attn_k_b and attn_v_b; convert the model again",
                         arch, (long long)n_head_kv);
    h->n_head_kv = 1;
    s = want(file, arch, "attention.kv_lora_rank", MAX_HEAD, &h->latent_dim, err);
    if (!s) s = want(file, arch, "attention.key_length_mla", MAX_HEAD, &h->head_dim, err);
    if (!s) s = want(file, arch, "attention.value_length_mla", MAX_HEAD, &h->value_dim, err);
    if (!s) s = want(file, arch, "rope.dimension_count", MAX_HEAD, &h->rope_dim, err);
    if (!s) s = agree(file, arch, "attention.key_length", h->latent_dim + h->rope_dim, err);
    if (!s) s = agree(file, arch, "attention.value_length", h->latent_dim, err);
    if (s) return s;
    (void)weft_arch_int(file, arch, "attention.q_lora_rank", &q_lora);
    if (q_lora < 0 || q_lora > MAX_LORA)
        return weft_fail(err, WEFT_E_MODEL, "%s.attention.q_lora_rank: %lld is not within 0 to %d", arch,
                         (long long)q_lora, (int)MAX_LORA);
    h->q_lora = (uint32_t)q_lora;
    if (h->rope_dim % 2 != 0 || h->rope_dim >= h->head_dim)
        return weft_fail(err, WEFT_E_MODEL, "%s.rope.dimension_count: %u does not fit heads of %u", arch,
                         h->rope_dim, h->head_dim);
    if (h->latent_dim % LATENT_STEP != 0)
        return weft_fail(err, WEFT_E_MODEL, "%s.attention.kv_lora_rank: %u is no multiple of %d", arch,
                         h->latent_dim, (int)LATENT_STEP);
    return WEFT_OK;
}

static bool power_of_two(uint32_t n)
{
    return (n & (n - 1)) == 0;
}

static weft_status read_indexer(const weft_gguf *file, const char *arch, weft_hparams *h, weft_error *err)
{
    weft_status s = want(file, arch, "attention.indexer.head_count", MAX_INDEX_HEADS, &h->index_heads, err);
    if (!s) s = want(file, arch, "attention.indexer.key_length", MAX_HEAD, &h->index_dim, err);
    if (!s) s = want(file, arch, "attention.indexer.top_k", MAX_TOP_K, &h->index_top_k, err);
    if (s) return s;
    if (h->rope_dim > h->index_dim || !power_of_two(h->index_dim))
        return weft_fail(err, WEFT_E_MODEL,
                         "%s.attention.indexer.key_length: %u is no power of two of at least "
                         "rope.dimension_count, %u",
                         arch, h->index_dim, h->rope_dim);
    if (h->q_lora == 0)
        return weft_fail(err, WEFT_E_MODEL,
                         "%s.attention.q_lora_rank: missing; the indexer's queries are made of it", arch);
    return WEFT_OK;
}

/* Keys of YaRN that no published model of the family sets to anything else. */
static weft_status refuse_scale(const weft_gguf *file, const char *arch, const char *name, weft_error *err)
{
    double value = 1;
    int64_t whole = 1;
    if (!weft_arch_float(file, arch, name, &value) && weft_arch_int(file, arch, name, &whole))
        value = (double)whole;
    if (value == 1) return WEFT_OK;
    return weft_fail(err, WEFT_E_MODEL, "%s.%s: %g is not supported", arch, name, value);
}

static weft_status read_yarn(const weft_gguf *file, const char *arch, weft_hparams *h, weft_error *err)
{
    uint32_t original = 0;
    double log_multiplier = 0;
    weft_status s = refuse_scale(file, arch, "rope.scaling.attn_factor", err);
    if (!s) s = refuse_scale(file, arch, "rope.scaling.yarn_attn_factor", err);
    if (!s) s = refuse_scale(file, arch, "rope.scaling.yarn_ext_factor", err);
    h->attention_scale = (float)(1.0 / sqrt((double)h->head_dim));
    if (s || !h->yarn) return s;
    s = want(file, arch, "rope.scaling.original_context_length", INT32_MAX, &original, err);
    if (s) return s;
    h->yarn_context = original;
    h->yarn_beta_fast = 32;
    h->yarn_beta_slow = 1;
    (void)weft_arch_float(file, arch, "rope.scaling.yarn_beta_fast", &h->yarn_beta_fast);
    (void)weft_arch_float(file, arch, "rope.scaling.yarn_beta_slow", &h->yarn_beta_slow);
    (void)weft_arch_float(file, arch, "rope.scaling.yarn_log_multiplier", &log_multiplier);
    if (!(h->yarn_beta_fast > 0 && h->yarn_beta_slow > 0 && h->yarn_beta_fast <= 1e6 &&
          h->yarn_beta_slow <= h->yarn_beta_fast && log_multiplier >= 0 && log_multiplier <= 10))
        return weft_fail(err, WEFT_E_MODEL, "%s.rope.scaling.yarn_*: out of range", arch);
    const double mscale = h->rope_scale > 1 ? 1 + log_multiplier * log(h->rope_scale) : 1;
    h->attention_scale = (float)(mscale * mscale / sqrt((double)h->head_dim));
    return WEFT_OK;
}

static weft_status read_groups(const weft_gguf *file, const char *arch, weft_hparams *h, weft_error *err)
{
    weft_status s = weft_arch_count(file, arch, "expert_group_count", MAX_GROUPS, 1, &h->n_group, err);
    if (!s)
        s = weft_arch_count(file, arch, "expert_group_used_count", h->n_group, h->n_group,
                            &h->n_group_used, err);
    if (s) return s;
    if (h->n_expert % h->n_group != 0 || h->n_expert / h->n_group * h->n_group_used < h->n_expert_used)
        return weft_fail(err, WEFT_E_MODEL,
                         "%s.expert_group_count: %u groups, %u of them used, do not fit %u experts of which "
                         "%u are used",
                         arch, h->n_group, h->n_group_used, h->n_expert, h->n_expert_used);
    return WEFT_OK;
}

static weft_status read_experts(const weft_gguf *file, const char *arch, int64_t gating, weft_hparams *h,
                                weft_error *err)
{
    enum { SOFTMAX = 1, SIGMOID = 2, MAX_SHARED = 64 }; /* of expert_gating_func */
    int64_t dense = 0, shared = 0;
    weft_status s = weft_arch_experts(file, arch, false, h, err);
    if (!s) s = read_groups(file, arch, h, err);
    if (s) return s;
    (void)weft_arch_int(file, arch, "expert_gating_func", &gating);
    if (gating != SOFTMAX && gating != SIGMOID)
        return weft_fail(err, WEFT_E_MODEL, "%s.expert_gating_func: %lld is not supported (1: softmax, 2: sigmoid)",
                         arch, (long long)gating);
    h->gating = gating == SIGMOID ? WEFT_GATE_SIGMOID : WEFT_GATE_SOFTMAX;
    (void)weft_arch_int(file, arch, "leading_dense_block_count", &dense);
    (void)weft_arch_int(file, arch, "expert_shared_count", &shared);
    if (dense < 0 || dense > h->n_layer)
        return weft_fail(err, WEFT_E_MODEL, "%s.leading_dense_block_count: %lld of %u layers", arch,
                         (long long)dense, h->n_layer);
    if (shared < 0 || shared > MAX_SHARED)
        return weft_fail(err, WEFT_E_MODEL, "%s.expert_shared_count: %lld is not within 0 to %d", arch,
                         (long long)shared, (int)MAX_SHARED);
    h->n_dense = (uint32_t)dense;
    h->n_ff_shared = (uint32_t)shared * h->n_ff_expert;
    return WEFT_OK;
}

/* Layers for multi-token prediction stand last and are counted in block_count or not. Of several the first is used:
 * each further one predicts one token further. */
static void leave_prediction(const weft_gguf *file, weft_hparams *h)
{
    while (h->n_layer > 1 && weft_arch_predicts(file, h->n_layer - 1)) h->n_layer--;
    h->predicts = weft_arch_predicts(file, h->n_layer);
}

static weft_status configure(const weft_gguf *file, const char *arch, int64_t gating, weft_hparams *h,
                             weft_error *err)
{
    h->rope = WEFT_ROPE_INTERLEAVED;
    leave_prediction(file, h);
    weft_status s = read_yarn(file, arch, h, err);
    if (!s) s = read_experts(file, arch, gating, h, err);
    return s ? s : weft_arch_refuse_window(file, arch, h, err);
}

static weft_status configure_2(const weft_gguf *file, weft_hparams *h, weft_error *err)
{
    return configure(file, "deepseek2", 1, h, err); /* V2's files do not name their gate: softmax */
}

static weft_status configure_32(const weft_gguf *file, weft_hparams *h, weft_error *err)
{
    weft_status s = configure(file, "deepseek32", 0, h, err);
    return s ? s : read_indexer(file, "deepseek32", h, err);
}

const weft_arch weft_arch_deepseek2 = {
    .name = "deepseek2", .has_experts = true, .heads = read_heads, .configure = configure_2};
const weft_arch weft_arch_deepseek32 = {
    .name = "deepseek32", .has_experts = true, .heads = read_heads, .configure = configure_32};
