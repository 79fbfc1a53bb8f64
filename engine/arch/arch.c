/* Hyper-parameters: read, check, hand to the family.
 *
 * Whatever passes here satisfies: every count is within the limits below, n_head % n_head_kv == 0,
 * head_dim and rope_dim are even, rope_dim <= head_dim, thetas, scales and eps are finite and
 * positive. So products of two of them fit 64 bits, and load.c compares tensor shapes with them
 * before any use.
 */
#include "engine/arch/arch.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    MAX_LAYERS = 4096,
    MAX_WIDTH = 1 << 20, /* n_embd, n_ff */
    MAX_HEADS = 1 << 14,
    MAX_HEAD_DIM = 1024,
    MAX_VOCAB = 1 << 24,
    MAX_EXPERTS = 1 << 12,
    KEY_BYTES = 128
};

static const weft_arch *const architectures[] = {&weft_arch_qwen2, &weft_arch_qwen3,
                                                 &weft_arch_llama, &weft_arch_gemma3,
                                                 &weft_arch_qwen3moe, &weft_arch_deepseek2,
                                                 &weft_arch_deepseek32};

/* Keys that, if present and above zero, change the mathematics in a way not implemented here. */
static const char *const refused[] = {
    "attn_logit_softcapping", "final_logit_softcapping", "logit_scale",
    "embedding_scale",        "residual_scale",          "attention.scale",
    "attention.clamp_kqv",    "attention.max_alibi_bias",
};

/* The same, but for the families with latent attention. */
static const char *const refused_elsewhere[] = {"expert_shared_count", "expert_group_count"};

static const char *arch_key(char key[KEY_BYTES], const char *arch, const char *name)
{
    snprintf(key, KEY_BYTES, "%s.%s", arch, name);
    return key;
}

bool weft_arch_int(const weft_gguf *file, const char *arch, const char *name, int64_t *out)
{
    char key[KEY_BYTES];
    return weft_gguf_int(file, arch_key(key, arch, name), out);
}

bool weft_arch_float(const weft_gguf *file, const char *arch, const char *name, double *out)
{
    char key[KEY_BYTES];
    return weft_gguf_float(file, arch_key(key, arch, name), out);
}

weft_status weft_arch_refuse_window(const weft_gguf *file, const char *arch, const weft_hparams *h,
                                    weft_error *err)
{
    int64_t window = 0;
    if (weft_arch_int(file, arch, "attention.sliding_window", &window) && window > 0 &&
        window < h->context_length)
        return weft_fail(err, WEFT_E_MODEL,
                         "%s.attention.sliding_window: %lld is not supported for this architecture",
                         arch, (long long)window);
    return WEFT_OK;
}

weft_status weft_arch_count(const weft_gguf *file, const char *arch, const char *name, int64_t max,
                            uint32_t fallback, uint32_t *out, weft_error *err)
{
    int64_t value = fallback;
    if (!weft_arch_int(file, arch, name, &value) && fallback == 0)
        return weft_fail(err, WEFT_E_MODEL, "%s.%s: missing, or not an integer", arch, name);
    if (value < 1 || value > max)
        return weft_fail(err, WEFT_E_MODEL, "%s.%s: %lld is not within 1 to %lld", arch, name,
                         (long long)value, (long long)max);
    *out = (uint32_t)value;
    return WEFT_OK;
}

static weft_status check_positive(const char *arch, const char *name, double value, double max,
                                  weft_error *err)
{
    if (isfinite(value) && value > 0 && value <= max) return WEFT_OK;
    return weft_fail(err, WEFT_E_MODEL, "%s.%s: %g is out of range", arch, name, value);
}

static weft_status read_heads(const weft_gguf *file, const char *arch, weft_hparams *h,
                              weft_error *err)
{
    weft_status s = weft_arch_count(file, arch, "attention.head_count", MAX_HEADS, 0, &h->n_head, err);
    if (!s)
        s = weft_arch_count(file, arch, "attention.head_count_kv", MAX_HEADS, h->n_head, &h->n_head_kv,
                       err);
    if (s) return s;
    if (h->n_head % h->n_head_kv != 0)
        return weft_fail(err, WEFT_E_MODEL,
                         "%s.attention.head_count: %u is no multiple of head_count_kv %u", arch,
                         h->n_head, h->n_head_kv);
    uint32_t even = h->n_embd % h->n_head == 0 ? h->n_embd / h->n_head : 0;
    if (even > MAX_HEAD_DIM) even = 0;
    s = weft_arch_count(file, arch, "attention.key_length", MAX_HEAD_DIM, even, &h->head_dim, err);
    uint32_t value_dim = 0;
    if (!s)
        s = weft_arch_count(file, arch, "attention.value_length", MAX_HEAD_DIM, h->head_dim, &value_dim,
                       err);
    if (!s)
        s = weft_arch_count(file, arch, "rope.dimension_count", MAX_HEAD_DIM, h->head_dim, &h->rope_dim,
                       err);
    if (s) return s;
    if (h->head_dim % 2 != 0 || value_dim != h->head_dim)
        return weft_fail(err, WEFT_E_MODEL,
                         "%s.attention.key_length: %u with value_length %u is not supported", arch,
                         h->head_dim, value_dim);
    if (h->rope_dim % 2 != 0 || h->rope_dim > h->head_dim)
        return weft_fail(err, WEFT_E_MODEL, "%s.rope.dimension_count: %u does not fit heads of %u",
                         arch, h->rope_dim, h->head_dim);
    return WEFT_OK;
}

static bool text_is(weft_text text, const char *word)
{
    return text.size == strlen(word) && memcmp(text.data, word, text.size) == 0;
}

static weft_status read_rope(const weft_gguf *file, const weft_arch *family, weft_hparams *h,
                             weft_error *err)
{
    const char *arch = family->name;
    char key[KEY_BYTES];
    weft_text type = {"none", 4};
    (void)weft_gguf_text(file, arch_key(key, arch, "rope.scaling.type"), &type);
    h->rope_scale = 1;
    (void)weft_arch_float(file, arch, "rope.scale_linear", &h->rope_scale); /* its older name */
    h->yarn = family->heads && text_is(type, "yarn");
    if (h->yarn || text_is(type, "linear")) {
        if (!weft_arch_float(file, arch, "rope.scaling.factor", &h->rope_scale))
            return weft_fail(err, WEFT_E_MODEL, "%s.rope.scaling.factor: missing", arch);
    } else if (!text_is(type, "none")) {
        return weft_fail(err, WEFT_E_MODEL, "%s: \"%.*s\" is not supported (known: none, linear%s)",
                         key, (int)(type.size < 40 ? type.size : 40), type.data,
                         family->heads ? ", yarn" : "");
    }
    h->rope_theta = 10000;
    (void)weft_arch_float(file, arch, "rope.freq_base", &h->rope_theta);
    weft_status s = check_positive(arch, "rope.freq_base", h->rope_theta, 1e12, err);
    return s ? s : check_positive(arch, "rope.scaling.factor", h->rope_scale, 1e6, err);
}

static weft_status read_shape(const weft_gguf *file, const weft_arch *family, weft_hparams *h,
                              weft_error *err)
{
    const char *arch = family->name;
    uint32_t context = 0;
    weft_status s = weft_arch_count(file, arch, "block_count", MAX_LAYERS, 0, &h->n_layer, err);
    if (!s) s = weft_arch_count(file, arch, "embedding_length", MAX_WIDTH, 0, &h->n_embd, err);
    if (!s) s = weft_arch_count(file, arch, "feed_forward_length", MAX_WIDTH, 0, &h->n_ff, err);
    if (!s) s = weft_arch_count(file, arch, "context_length", INT32_MAX, 0, &context, err);
    if (!s) s = (family->heads ? family->heads : read_heads)(file, arch, h, err);
    if (s) return s;
    h->context_length = context;
    const weft_tensor *embedding = weft_gguf_tensor_find(file, "token_embd.weight");
    if (!embedding) return weft_fail(err, WEFT_E_MODEL, "tensor token_embd.weight: missing");
    if (embedding->n_dims > 2 || embedding->dim[1] > MAX_VOCAB)
        return weft_fail(err, WEFT_E_MODEL, "tensor token_embd.weight: wrong shape");
    h->n_vocab = (uint32_t)embedding->dim[1];
    double eps = 0;
    (void)weft_arch_float(file, arch, "attention.layer_norm_rms_epsilon", &eps);
    h->norm_eps = (float)eps;
    s = check_positive(arch, "attention.layer_norm_rms_epsilon", h->norm_eps, 1, err);
    return s ? s : read_rope(file, family, h, err);
}

/* A number that is there and not 0 is refused. */
static weft_status refuse_key(const weft_gguf *file, const char *arch, const char *name,
                              weft_error *err)
{
    double value = 0;
    int64_t whole = 0;
    if (!weft_arch_float(file, arch, name, &value) && weft_arch_int(file, arch, name, &whole))
        value = (double)whole;
    if (value == 0) return WEFT_OK;
    return weft_fail(err, WEFT_E_MODEL, "%s.%s: %g is not supported", arch, name, value);
}

static weft_status refuse_unknown(const weft_gguf *file, const weft_arch *arch, weft_error *err)
{
    weft_status s = arch->has_experts ? WEFT_OK : refuse_key(file, arch->name, "expert_count", err);
    for (size_t i = 0; !s && i < sizeof refused / sizeof *refused; i++)
        s = refuse_key(file, arch->name, refused[i], err);
    for (size_t i = 0; !s && !arch->heads && i < sizeof refused_elsewhere / sizeof *refused_elsewhere; i++)
        s = refuse_key(file, arch->name, refused_elsewhere[i], err);
    if (s) return s;
    bool causal = true;
    char key[KEY_BYTES];
    (void)weft_gguf_bool(file, arch_key(key, arch->name, "attention.causal"), &causal);
    if (!causal) return weft_fail(err, WEFT_E_MODEL, "%s: only causal models generate text", key);
    return WEFT_OK;
}

bool weft_arch_predicts(const weft_gguf *file, uint32_t layer)
{
    char name[KEY_BYTES];
    snprintf(name, sizeof name, "blk.%u.nextn.eh_proj.weight", layer);
    return weft_gguf_tensor_find(file, name) != NULL;
}

bool weft_arch_unused(const weft_gguf *file, const weft_tensor *tensor, uint32_t n_layer)
{
    unsigned layer;
    return sscanf(tensor->name, "blk.%u.", &layer) == 1 && layer >= n_layer && weft_arch_predicts(file, layer);
}

weft_status weft_arch_experts(const weft_gguf *file, const char *arch, bool normalise, weft_hparams *h,
                              weft_error *err)
{
    char key[KEY_BYTES];
    double scale = 0;
    weft_status s = weft_arch_count(file, arch, "expert_count", MAX_EXPERTS, 0, &h->n_expert, err);
    if (!s)
        s = weft_arch_count(file, arch, "expert_used_count", h->n_expert, 0, &h->n_expert_used, err);
    if (!s) /* older files: the experts of a token share the width of a dense layer */
        s = weft_arch_count(file, arch, "expert_feed_forward_length", MAX_WIDTH,
                       h->n_ff / h->n_expert_used, &h->n_ff_expert, err);
    if (s) return s;
    h->expert_normalise = normalise;
    (void)weft_gguf_bool(file, arch_key(key, arch, "expert_weights_norm"), &h->expert_normalise);
    (void)weft_arch_float(file, arch, "expert_weights_scale", &scale);
    h->expert_scale = scale == 0 ? 1 : (float)scale; /* 0 stands for none in files */
    return check_positive(arch, "expert_weights_scale", h->expert_scale, 1e6, err);
}

static weft_status find_architecture(const weft_gguf *file, const weft_arch **out, weft_error *err)
{
    weft_text name;
    if (!weft_gguf_text(file, "general.architecture", &name))
        return weft_fail(err, WEFT_E_MODEL, "general.architecture: missing");
    weft_buffer known = WEFT_BUFFER_INIT;
    size_t n = sizeof architectures / sizeof *architectures;
    for (size_t i = 0; i < n; i++) {
        const char *candidate = architectures[i]->name;
        if (strlen(candidate) == name.size && memcmp(candidate, name.data, name.size) == 0) {
            weft_buffer_free(&known);
            *out = architectures[i];
            return WEFT_OK;
        }
        weft_buffer_printf(&known, "%s%s", i ? ", " : "", candidate);
    }
    weft_fail(err, WEFT_E_MODEL, "architecture \"%.*s\" is not supported (known: %s)",
              (int)(name.size < 60 ? name.size : 60), name.data, weft_buffer_str(&known));
    weft_buffer_free(&known);
    return WEFT_E_MODEL;
}

weft_status weft_hparams_read(const weft_gguf *file, weft_hparams *out, weft_error *err)
{
    const weft_arch *arch = NULL;
    weft_hparams h = {0};
    weft_status s = find_architecture(file, &arch, err);
    if (!s) s = read_shape(file, arch, &h, err);
    if (!s) s = refuse_unknown(file, arch, err);
    if (s) return s;
    h.activation = WEFT_SILU;
    h.embedding_scale = 1;
    h.attention_scale = (float)(1.0 / sqrt((double)h.head_dim));
    s = arch->configure(file, &h, err);
    if (!s && h.window > 0)
        s = check_positive(arch->name, "rope.freq_base_swa", h.window_theta, 1e12, err);
    if (s) return s;
    *out = h;
    return WEFT_OK;
}
