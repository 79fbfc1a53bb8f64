/* Writes small random models of any family and tensor type, for tests of the graph. */
#ifndef WEFT_TESTS_RANDOM_MODEL_H
#define WEFT_TESTS_RANDOM_MODEL_H

#include "tests/engine/engine_test.h"
#include "tests/engine/kernel_test.h"

#include "engine/sample.h"

enum { LAYERS = 3, EMBD = 32, HEADS = 4, HEADS_KV = 2, FF = 64, VOCAB = 259, TOKENS = 40 };

typedef struct spec {
    const char *arch;
    uint32_t head_dim, rope_dim;
    float theta, linear;     /* linear 0: no rope scaling */
    uint32_t window, period; /* 0: none */
    bool bias, head_norms, post_norms, factors, tied;
    bool interleaved, gelu; /* of the reference */
    double embedding_scale;
    const char *extra_key; /* an integer key, and its value */
    uint32_t extra_value;
    const char *scaling_type; /* written as it is */
    const char *extra_tensor;
    uint32_t embd, ff; /* 0: EMBD, FF */
    weft_tensor_type type; /* of the matrices, but for the router's */
    const weft_tensor_type *mix; /* or n_mix types in turn, matrix by matrix */
    size_t n_mix;
    uint32_t experts, used; /* 0: dense; else ff is that of an expert */
    bool not_normalised;    /* expert_weights_norm is written as false */
    float expert_scale;     /* 0: not written */
} spec;

/* Experts wide enough for every block type. */
static const spec moe = {.arch = "qwen3moe",
                         .head_dim = 64,
                         .rope_dim = 64,
                         .theta = 1e6f,
                         .head_norms = true,
                         .experts = 12,
                         .used = 3,
                         .embd = 256,
                         .ff = 256};

typedef struct tensor {
    char name[48];
    size_t columns, rows, matrices; /* rows 0: one dimension */
    weft_tensor_type type;
    float *data; /* or blocks of type */
    size_t bytes;
} tensor;

typedef struct writer {
    const spec *s;
    weft_buffer kv;
    uint64_t n_kv;
    tensor t[128];
    size_t n, mixed; /* mixed: of the mix, types given */
    int64_t seed;
} writer;

static inline void put(weft_buffer *b, const void *bytes, size_t n) {
    weft_buffer_append(b, bytes, n);
}

static inline void put_u32(weft_buffer *b, uint32_t v) {
    put(b, &v, sizeof v);
}

static inline void put_text(weft_buffer *b, const char *text) {
    uint64_t n = strlen(text);
    put(b, &n, sizeof n);
    put(b, text, n);
}

/* A key: with a dot in front it belongs to the architecture. */
static inline void key(writer *w, const char *name, uint32_t type) {
    char full[96];
    snprintf(full, sizeof full, "%s%s", *name == '.' ? w->s->arch : "", name);
    put_text(&w->kv, full);
    put_u32(&w->kv, type);
    w->n_kv++;
}

static inline void key_u32(writer *w, const char *name, uint32_t v) {
    key(w, name, 4);
    put_u32(&w->kv, v);
}

static inline void key_f32(writer *w, const char *name, float v) {
    key(w, name, 6);
    put(&w->kv, &v, sizeof v);
}

static inline void key_text(writer *w, const char *name, const char *v) {
    key(w, name, 8);
    put_text(&w->kv, v);
}

static inline void key_array(writer *w, const char *name, uint32_t element, uint64_t n) {
    key(w, name, 9);
    put_u32(&w->kv, element);
    put(&w->kv, &n, sizeof n);
}

/* A SentencePiece vocabulary of nothing but bytes. */
static inline void vocabulary(writer *w) {
    key_text(w, "tokenizer.ggml.model", "llama");
    key_text(w, "tokenizer.ggml.pre", "default");
    key_array(w, "tokenizer.ggml.tokens", 8, VOCAB);
    const char *const special[] = {"<unk>", "<s>", "</s>"};
    for (int i = 0; i < 3; i++) put_text(&w->kv, special[i]);
    for (int i = 0; i < 256; i++) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", i);
        put_text(&w->kv, text);
    }
    key_array(w, "tokenizer.ggml.scores", 6, VOCAB);
    for (int i = 0; i < VOCAB; i++) put(&w->kv, &(float){0}, 4);
    key_array(w, "tokenizer.ggml.token_type", 5, VOCAB);
    for (int i = 0; i < VOCAB; i++) put_u32(&w->kv, i == 0 ? 2 : i < 3 ? 3 : 6);
    key_u32(w, "tokenizer.ggml.bos_token_id", 1);
    key_u32(w, "tokenizer.ggml.eos_token_id", 2);
    key_u32(w, "tokenizer.ggml.unknown_token_id", 0);
}

/* Random values around `centre`, of `spread` to either side; matrices of a quantised model as random blocks. */
static inline tensor *add_stack(writer *w, const char *name, size_t columns, size_t rows, size_t matrices,
                         double centre, double spread) {
    assert_true(w->n < sizeof w->t / sizeof *w->t);
    tensor *t = &w->t[w->n++];
    size_t n = columns * (rows ? rows : 1) * matrices;
    snprintf(t->name, sizeof t->name, "%s", name);
    t->columns = columns;
    t->rows = rows;
    t->matrices = matrices;
    t->type = WEFT_F32;
    if (rows && !strstr(name, "ffn_gate_inp"))
        t->type = w->s->n_mix ? w->s->mix[w->mixed++ % w->s->n_mix] : w->s->type;
    if (t->type != WEFT_F32) {
        rng r = {(uint64_t)w->seed++};
        weft_tensor blocks = random_tensor(t->type, rows * matrices, columns, false, &r);
        t->data = (float *)(uintptr_t)blocks.data;
        t->bytes = blocks.bytes;
        return t;
    }
    t->bytes = n * sizeof(float);
    t->data = malloc(t->bytes);
    for (size_t i = 0; i < n; i++)
        t->data[i] = (float)(centre + spread * (2 * weft_sample_uniform(5, w->seed++) - 1));
    return t;
}

static inline tensor *add(writer *w, const char *name, size_t columns, size_t rows, double centre,
                   double spread) {
    return add_stack(w, name, columns, rows, 1, centre, spread);
}

static inline uint32_t embd_of(const spec *s) {
    return s->embd ? s->embd : EMBD;
}

static inline uint32_t ff_of(const spec *s) {
    return s->ff ? s->ff : FF;
}

static inline void add_layer(writer *w, uint32_t layer) {
    const spec *s = w->s;
    const size_t embd = embd_of(s), ff = ff_of(s);
    size_t q = HEADS * s->head_dim, kv = HEADS_KV * s->head_dim;
    char name[48];
#define IN_LAYER(part) (snprintf(name, sizeof name, "blk.%u.%s", layer, part), name)
    add(w, IN_LAYER("attn_norm.weight"), embd, 0, 1, 0.3);
    add(w, IN_LAYER("attn_q.weight"), embd, q, 0, 0.5);
    add(w, IN_LAYER("attn_k.weight"), embd, kv, 0, 0.5);
    add(w, IN_LAYER("attn_v.weight"), embd, kv, 0, 0.5);
    if (s->bias) {
        add(w, IN_LAYER("attn_q.bias"), q, 0, 0, 0.5);
        add(w, IN_LAYER("attn_k.bias"), kv, 0, 0, 0.5);
        add(w, IN_LAYER("attn_v.bias"), kv, 0, 0, 0.5);
    }
    if (s->head_norms) {
        add(w, IN_LAYER("attn_q_norm.weight"), s->head_dim, 0, 1, 0.4);
        add(w, IN_LAYER("attn_k_norm.weight"), s->head_dim, 0, 1, 0.4);
    }
    add(w, IN_LAYER("attn_output.weight"), q, embd, 0, 0.3);
    if (s->post_norms) add(w, IN_LAYER("post_attention_norm.weight"), embd, 0, 1, 0.3);
    add(w, IN_LAYER("ffn_norm.weight"), embd, 0, 1, 0.3);
    if (s->experts) {
        add(w, IN_LAYER("ffn_gate_inp.weight"), embd, s->experts, 0, 1);
        add_stack(w, IN_LAYER("ffn_gate_exps.weight"), embd, ff, s->experts, 0, 0.4);
        add_stack(w, IN_LAYER("ffn_up_exps.weight"), embd, ff, s->experts, 0, 0.4);
        add_stack(w, IN_LAYER("ffn_down_exps.weight"), ff, embd, s->experts, 0, 0.3);
    } else {
        add(w, IN_LAYER("ffn_gate.weight"), embd, ff, 0, 0.4);
        add(w, IN_LAYER("ffn_up.weight"), embd, ff, 0, 0.4);
        add(w, IN_LAYER("ffn_down.weight"), ff, embd, 0, 0.3);
    }
    if (s->post_norms) add(w, IN_LAYER("post_ffw_norm.weight"), embd, 0, 1, 0.3);
#undef IN_LAYER
}

static inline void describe(writer *w) {
    const spec *s = w->s;
    key_text(w, "general.architecture", s->arch);
    key_u32(w, ".block_count", LAYERS);
    key_u32(w, ".context_length", 256);
    key_u32(w, ".embedding_length", embd_of(s));
    key_u32(w, ".feed_forward_length", ff_of(s));
    key_u32(w, ".attention.head_count", HEADS);
    key_u32(w, ".attention.head_count_kv", HEADS_KV);
    key_u32(w, ".attention.key_length", s->head_dim);
    key_u32(w, ".attention.value_length", s->head_dim);
    key_f32(w, ".attention.layer_norm_rms_epsilon", 1e-5f);
    key_f32(w, ".rope.freq_base", s->theta);
    if (s->rope_dim != s->head_dim) key_u32(w, ".rope.dimension_count", s->rope_dim);
    if (s->linear > 0) key_text(w, ".rope.scaling.type", "linear");
    if (s->linear > 0) key_f32(w, ".rope.scaling.factor", s->linear);
    if (s->scaling_type) key_text(w, ".rope.scaling.type", s->scaling_type);
    if (s->window) key_u32(w, ".attention.sliding_window", s->window);
    if (s->period) key_u32(w, ".attention.sliding_window_pattern", s->period);
    if (s->experts) {
        key_u32(w, ".expert_count", s->experts);
        key_u32(w, ".expert_used_count", s->used);
        key_u32(w, ".expert_feed_forward_length", ff_of(s));
    }
    if (s->not_normalised) key(w, ".expert_weights_norm", 7);
    if (s->not_normalised) put(&w->kv, "", 1);
    if (s->expert_scale > 0) key_f32(w, ".expert_weights_scale", s->expert_scale);
    if (s->extra_key) key_u32(w, s->extra_key, s->extra_value);
    vocabulary(w);
}

/* What was added, as a file. */
static inline void write_file(const writer *w, const char *path) {
    weft_buffer file = WEFT_BUFFER_INIT;
    put(&file, "GGUF", 4);
    put_u32(&file, 3);
    put(&file, &(uint64_t){w->n}, 8);
    put(&file, &w->n_kv, 8);
    put(&file, w->kv.data, w->kv.size);
    uint64_t offset = 0;
    for (size_t i = 0; i < w->n; i++) {
        const tensor *t = &w->t[i];
        put_text(&file, t->name);
        put_u32(&file, t->matrices > 1 ? 3 : t->rows ? 2 : 1);
        put(&file, &(uint64_t){t->columns}, 8);
        if (t->rows) put(&file, &(uint64_t){t->rows}, 8);
        if (t->matrices > 1) put(&file, &(uint64_t){t->matrices}, 8);
        put_u32(&file, t->type);
        put(&file, &offset, 8);
        offset += (t->bytes + 31) / 32 * 32;
    }
    static const char zeros[32];
    put(&file, zeros, (32 - file.size % 32) % 32);
    for (size_t i = 0; i < w->n; i++) {
        const tensor *t = &w->t[i];
        put(&file, t->data, t->bytes);
        put(&file, zeros, (32 - t->bytes % 32) % 32);
    }
    CHECK(weft_file_write(path, file.data, file.size, 0600, err));
    weft_buffer_free(&file);
}

static inline void write_model(writer *w, const char *path) {
    const size_t embd = embd_of(w->s);
    add(w, "token_embd.weight", embd, VOCAB, 0, 1);
    if (!w->s->tied) add(w, "output.weight", embd, VOCAB, 0, 0.5);
    add(w, "output_norm.weight", embd, 0, 1, 0.3);
    if (w->s->factors) add(w, "rope_freqs.weight", w->s->rope_dim / 2, 0, 3, 2);
    if (w->s->extra_tensor) add(w, w->s->extra_tensor, embd, 0, 0, 1);
    for (uint32_t i = 0; i < LAYERS; i++) add_layer(w, i);
    describe(w);
    write_file(w, path);
}

static inline void writer_free(writer *w) {
    for (size_t i = 0; i < w->n; i++) free(w->t[i].data);
    weft_buffer_free(&w->kv);
    free(w);
}

static inline writer *new_model(const spec *s, const char *path) {
    writer *w = calloc(1, sizeof *w);
    assert_non_null(w);
    w->s = s;
    write_model(w, path);
    return w;
}

#endif
