/* Every family against a plain double-precision transformer, on small random models written here:
 * rope kinds, scaling and factors, head norms, post norms, biases, windows, tied and separate
 * outputs. And what a file may ask for that is not implemented is refused by name. */
#include "tests/engine/engine_test.h"

#include "engine/sample.h"

#include <math.h>

enum { LAYERS = 3, EMBD = 32, HEADS = 4, HEADS_KV = 2, FF = 64, VOCAB = 259, TOKENS = 40 };

/* ---- writing a model ---- */

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
} spec;

typedef struct tensor {
    char name[48];
    size_t columns, rows; /* rows 0: one dimension */
    float *data;
} tensor;

typedef struct writer {
    const spec *s;
    weft_buffer kv;
    uint64_t n_kv;
    tensor t[64];
    size_t n;
    int64_t seed;
} writer;

static void put(weft_buffer *b, const void *bytes, size_t n) {
    weft_buffer_append(b, bytes, n);
}

static void put_u32(weft_buffer *b, uint32_t v) {
    put(b, &v, sizeof v);
}

static void put_text(weft_buffer *b, const char *text) {
    uint64_t n = strlen(text);
    put(b, &n, sizeof n);
    put(b, text, n);
}

/* A key: with a dot in front it belongs to the architecture. */
static void key(writer *w, const char *name, uint32_t type) {
    char full[96];
    snprintf(full, sizeof full, "%s%s", *name == '.' ? w->s->arch : "", name);
    put_text(&w->kv, full);
    put_u32(&w->kv, type);
    w->n_kv++;
}

static void key_u32(writer *w, const char *name, uint32_t v) {
    key(w, name, 4);
    put_u32(&w->kv, v);
}

static void key_f32(writer *w, const char *name, float v) {
    key(w, name, 6);
    put(&w->kv, &v, sizeof v);
}

static void key_text(writer *w, const char *name, const char *v) {
    key(w, name, 8);
    put_text(&w->kv, v);
}

static void key_array(writer *w, const char *name, uint32_t element, uint64_t n) {
    key(w, name, 9);
    put_u32(&w->kv, element);
    put(&w->kv, &n, sizeof n);
}

/* A SentencePiece vocabulary of nothing but bytes. */
static void vocabulary(writer *w) {
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

/* Random values around `centre`, of `spread` to either side. */
static tensor *add(writer *w, const char *name, size_t columns, size_t rows, double centre,
                   double spread) {
    assert_true(w->n < sizeof w->t / sizeof *w->t);
    tensor *t = &w->t[w->n++];
    size_t n = columns * (rows ? rows : 1);
    snprintf(t->name, sizeof t->name, "%s", name);
    t->columns = columns;
    t->rows = rows;
    t->data = malloc(n * sizeof(float));
    for (size_t i = 0; i < n; i++)
        t->data[i] = (float)(centre + spread * (2 * weft_sample_uniform(5, w->seed++) - 1));
    return t;
}

static void add_layer(writer *w, uint32_t layer) {
    const spec *s = w->s;
    size_t q = HEADS * s->head_dim, kv = HEADS_KV * s->head_dim;
    char name[48];
#define IN_LAYER(part) (snprintf(name, sizeof name, "blk.%u.%s", layer, part), name)
    add(w, IN_LAYER("attn_norm.weight"), EMBD, 0, 1, 0.3);
    add(w, IN_LAYER("attn_q.weight"), EMBD, q, 0, 0.5);
    add(w, IN_LAYER("attn_k.weight"), EMBD, kv, 0, 0.5);
    add(w, IN_LAYER("attn_v.weight"), EMBD, kv, 0, 0.5);
    if (s->bias) {
        add(w, IN_LAYER("attn_q.bias"), q, 0, 0, 0.5);
        add(w, IN_LAYER("attn_k.bias"), kv, 0, 0, 0.5);
        add(w, IN_LAYER("attn_v.bias"), kv, 0, 0, 0.5);
    }
    if (s->head_norms) {
        add(w, IN_LAYER("attn_q_norm.weight"), s->head_dim, 0, 1, 0.4);
        add(w, IN_LAYER("attn_k_norm.weight"), s->head_dim, 0, 1, 0.4);
    }
    add(w, IN_LAYER("attn_output.weight"), q, EMBD, 0, 0.3);
    if (s->post_norms) add(w, IN_LAYER("post_attention_norm.weight"), EMBD, 0, 1, 0.3);
    add(w, IN_LAYER("ffn_norm.weight"), EMBD, 0, 1, 0.3);
    add(w, IN_LAYER("ffn_gate.weight"), EMBD, FF, 0, 0.4);
    add(w, IN_LAYER("ffn_up.weight"), EMBD, FF, 0, 0.4);
    add(w, IN_LAYER("ffn_down.weight"), FF, EMBD, 0, 0.3);
    if (s->post_norms) add(w, IN_LAYER("post_ffw_norm.weight"), EMBD, 0, 1, 0.3);
#undef IN_LAYER
}

static void describe(writer *w) {
    const spec *s = w->s;
    key_text(w, "general.architecture", s->arch);
    key_u32(w, ".block_count", LAYERS);
    key_u32(w, ".context_length", 256);
    key_u32(w, ".embedding_length", EMBD);
    key_u32(w, ".feed_forward_length", FF);
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
    if (s->extra_key) key_u32(w, s->extra_key, s->extra_value);
    vocabulary(w);
}

static void write_model(writer *w, const char *path) {
    add(w, "token_embd.weight", EMBD, VOCAB, 0, 1);
    if (!w->s->tied) add(w, "output.weight", EMBD, VOCAB, 0, 0.5);
    add(w, "output_norm.weight", EMBD, 0, 1, 0.3);
    if (w->s->factors) add(w, "rope_freqs.weight", w->s->rope_dim / 2, 0, 3, 2);
    if (w->s->extra_tensor) add(w, w->s->extra_tensor, EMBD, 0, 0, 1);
    for (uint32_t i = 0; i < LAYERS; i++) add_layer(w, i);
    describe(w);

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
        put_u32(&file, t->rows ? 2 : 1);
        put(&file, &(uint64_t){t->columns}, 8);
        if (t->rows) put(&file, &(uint64_t){t->rows}, 8);
        put_u32(&file, 0);
        put(&file, &offset, 8);
        offset += (t->columns * (t->rows ? t->rows : 1) * sizeof(float) + 31) / 32 * 32;
    }
    static const char zeros[32];
    put(&file, zeros, (32 - file.size % 32) % 32);
    for (size_t i = 0; i < w->n; i++) {
        const tensor *t = &w->t[i];
        size_t bytes = t->columns * (t->rows ? t->rows : 1) * sizeof(float);
        put(&file, t->data, bytes);
        put(&file, zeros, (32 - bytes % 32) % 32);
    }
    CHECK(weft_file_write(path, file.data, file.size, 0600, err));
    weft_buffer_free(&file);
}

static void writer_free(writer *w) {
    for (size_t i = 0; i < w->n; i++) free(w->t[i].data);
    weft_buffer_free(&w->kv);
    free(w);
}

/* ---- the reference: one token after the other, all keys kept, everything in double ---- */

typedef struct reference {
    const writer *w;
    double k[LAYERS][TOKENS][HEADS_KV * 64], v[LAYERS][TOKENS][HEADS_KV * 64];
} reference;

static const float *find(const writer *w, int layer, const char *part) {
    char name[48];
    if (layer >= 0)
        snprintf(name, sizeof name, "blk.%d.%s", layer, part);
    else
        snprintf(name, sizeof name, "%s", part);
    for (size_t i = 0; i < w->n; i++)
        if (strcmp(w->t[i].name, name) == 0) return w->t[i].data;
    return NULL;
}

static void times(const float *m, const float *bias, const double *x, size_t columns, size_t rows,
                  double *y) {
    for (size_t r = 0; r < rows; r++) {
        y[r] = bias ? bias[r] : 0;
        for (size_t c = 0; c < columns; c++) y[r] += (double)m[r * columns + c] * x[c];
    }
}

static void norm(const double *x, const float *weight, size_t n, double *y) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += x[i] * x[i];
    for (size_t i = 0; i < n; i++) y[i] = x[i] / sqrt(sum / (double)n + 1e-5) * weight[i];
}

static bool slides(const spec *s, int layer) {
    return s->window > 0 && (uint32_t)(layer + 1) % s->period != 0;
}

static void rotate(const writer *w, int layer, double *x, size_t heads, int position) {
    const spec *s = w->s;
    const float *factor = find(w, -1, "rope_freqs.weight");
    double theta = slides(s, layer) ? 10000 : s->theta;
    double scale = s->linear > 0 && !slides(s, layer) ? s->linear : 1;
    for (size_t h = 0; h < heads; h++) {
        double *head = x + h * s->head_dim;
        for (uint32_t i = 0; i < s->rope_dim / 2; i++) {
            double angle = position / scale * pow(theta, -2.0 * i / s->rope_dim);
            if (factor) angle /= factor[i];
            uint32_t a = s->interleaved ? 2 * i : i,
                     b = s->interleaved ? a + 1 : i + s->rope_dim / 2;
            double p = head[a], q = head[b];
            head[a] = p * cos(angle) - q * sin(angle);
            head[b] = p * sin(angle) + q * cos(angle);
        }
    }
}

static void attention(const reference *r, int layer, int position, const double *q, double *out) {
    const spec *s = r->w->s;
    size_t d = s->head_dim;
    int first = slides(s, layer) && position >= (int)s->window ? position - (int)s->window + 1 : 0;
    memset(out, 0, HEADS * d * sizeof *out);
    for (size_t h = 0; h < HEADS; h++) {
        size_t at = h / (HEADS / HEADS_KV) * d;
        double weight[TOKENS], sum = 0;
        for (int j = first; j <= position; j++) {
            double score = 0;
            for (size_t i = 0; i < d; i++) score += q[h * d + i] * r->k[layer][j][at + i];
            sum += weight[j] = exp(score / sqrt((double)d));
        }
        for (int j = first; j <= position; j++)
            for (size_t i = 0; i < d; i++)
                out[h * d + i] += weight[j] / sum * r->v[layer][j][at + i];
    }
}

static void block(reference *r, int layer, int position, double *x) {
    const writer *w = r->w;
    const spec *s = w->s;
    size_t d = s->head_dim, n_q = HEADS * d, n_kv = HEADS_KV * d;
    double y[EMBD], q[HEADS * 64], mixed[HEADS * 64], gate[FF], up[FF];
    double *k = r->k[layer][position], *v = r->v[layer][position];
    norm(x, find(w, layer, "attn_norm.weight"), EMBD, y);
    times(find(w, layer, "attn_q.weight"), find(w, layer, "attn_q.bias"), y, EMBD, n_q, q);
    times(find(w, layer, "attn_k.weight"), find(w, layer, "attn_k.bias"), y, EMBD, n_kv, k);
    times(find(w, layer, "attn_v.weight"), find(w, layer, "attn_v.bias"), y, EMBD, n_kv, v);
    for (size_t h = 0; s->head_norms && h < HEADS; h++)
        norm(q + h * d, find(w, layer, "attn_q_norm.weight"), d, q + h * d);
    for (size_t h = 0; s->head_norms && h < HEADS_KV; h++)
        norm(k + h * d, find(w, layer, "attn_k_norm.weight"), d, k + h * d);
    rotate(w, layer, q, HEADS, position);
    rotate(w, layer, k, HEADS_KV, position);
    attention(r, layer, position, q, mixed);
    times(find(w, layer, "attn_output.weight"), NULL, mixed, n_q, EMBD, y);
    if (s->post_norms) norm(y, find(w, layer, "post_attention_norm.weight"), EMBD, y);
    for (int i = 0; i < EMBD; i++) x[i] += y[i];
    norm(x, find(w, layer, "ffn_norm.weight"), EMBD, y);
    times(find(w, layer, "ffn_gate.weight"), NULL, y, EMBD, FF, gate);
    times(find(w, layer, "ffn_up.weight"), NULL, y, EMBD, FF, up);
    for (int i = 0; i < FF; i++) {
        double g = gate[i];
        double gelu =
            0.5 * g * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (g + 0.044715 * g * g * g)));
        up[i] *= s->gelu ? gelu : g / (1 + exp(-g));
    }
    times(find(w, layer, "ffn_down.weight"), NULL, up, FF, EMBD, y);
    if (s->post_norms) norm(y, find(w, layer, "post_ffw_norm.weight"), EMBD, y);
    for (int i = 0; i < EMBD; i++) x[i] += y[i];
}

static void reference_logits(reference *r, int32_t id, int position, double *logits) {
    const float *embedding = find(r->w, -1, "token_embd.weight");
    const float *output = find(r->w, -1, r->w->s->tied ? "token_embd.weight" : "output.weight");
    double x[EMBD];
    for (int i = 0; i < EMBD; i++)
        x[i] = r->w->s->embedding_scale * embedding[(size_t)id * EMBD + (size_t)i];
    for (int layer = 0; layer < LAYERS; layer++) block(r, layer, position, x);
    norm(x, find(r->w, -1, "output_norm.weight"), EMBD, x);
    times(output, NULL, x, EMBD, VOCAB, logits);
}

/* ---- the tests ---- */

static writer *new_model(const spec *s, const char *path) {
    writer *w = calloc(1, sizeof *w);
    assert_non_null(w);
    w->s = s;
    write_model(w, path);
    return w;
}

typedef struct collected {
    float logits[TOKENS][VOCAB];
} collected;

static void collect(void *context, int64_t position, const float *logits) {
    collected *c = context;
    memcpy(c->logits[position], logits, sizeof c->logits[0]);
}

static void check_family(const spec *s) {
    char *dir = make_temp_dir(), *path = weft_path_join(dir, "random.gguf");
    writer *w = new_model(s, path);
    const weft_engine_options o = {.kv_type = WEFT_KV_F32, .chunk = 9, .threads = 2};
    weft_model *model = model_open(path, &o);
    weft_timeline *t = NULL;
    collected *c = calloc(1, sizeof *c);
    reference *r = calloc(1, sizeof *r);
    int32_t ids[TOKENS];
    for (int i = 0; i < TOKENS; i++) ids[i] = (i * 97 + 5) % VOCAB;
    CHECK(weft_timeline_open(&t, model, NULL, ids, TOKENS, err));
    CHECK(weft_timeline_evaluate_each(t, collect, c, err));
    r->w = w;
    double worst = 0;
    for (int i = 0; i < TOKENS; i++) {
        double expected[VOCAB];
        reference_logits(r, ids[i], i, expected);
        for (int j = 0; j < VOCAB; j++) worst = fmax(worst, fabs(expected[j] - c->logits[i][j]));
    }
    print_message("%s: worst logit off by %g\n", s->arch, worst);
    assert_true(worst < 2e-4);
    weft_timeline_close(t);
    weft_model_close(model);
    free(c);
    free(r);
    writer_free(w);
    free(path);
    remove_temp_dir(dir);
}

static void test_qwen2(void **state) {
    const spec s = {.arch = "qwen2",
                    .head_dim = 8,
                    .rope_dim = 8,
                    .theta = 1e6f,
                    .bias = true,
                    .embedding_scale = 1};
    check_family(&s);
}

static void test_qwen3(void **state) {
    const spec s = {.arch = "qwen3",
                    .head_dim = 16,
                    .rope_dim = 16,
                    .theta = 1e6f,
                    .head_norms = true,
                    .tied = true,
                    .embedding_scale = 1};
    check_family(&s);
}

static void test_llama(void **state) {
    spec s = {.arch = "llama",
              .head_dim = 8,
              .rope_dim = 8,
              .theta = 5e5f,
              .interleaved = true,
              .factors = true,
              .embedding_scale = 1};
    check_family(&s);
    s.factors = false;
    s.linear = 4;
    s.rope_dim = 6;
    s.tied = true;
    check_family(&s);
}

static void test_gemma3(void **state) {
    const spec s = {.arch = "gemma3",
                    .head_dim = 16,
                    .rope_dim = 16,
                    .theta = 1e6f,
                    .linear = 8,
                    .window = 7,
                    .period = 3,
                    .head_norms = true,
                    .post_norms = true,
                    .tied = true,
                    .gelu = true,
                    .embedding_scale = sqrt(EMBD)};
    check_family(&s);
}

/* Whatever would change the mathematics and is not implemented is named, not ignored. */
static void test_refusals(void **state) {
    const spec plain = {.arch = "llama", .head_dim = 8, .rope_dim = 8, .theta = 1e4f};
    const struct {
        const char *key;
        uint32_t value;
        const char *scaling, *tensor, *expect;
    } cases[] = {
        {".expert_count", 8, NULL, NULL, "llama.expert_count: 8 is not supported"},
        {".final_logit_softcapping", 30, NULL, NULL, "llama.final_logit_softcapping"},
        {".attention.sliding_window", 16, NULL, NULL, "llama.attention.sliding_window: 16"},
        {".logit_scale", 2, NULL, NULL, "llama.logit_scale"},
        {NULL, 0, "yarn", NULL, "llama.rope.scaling.type: \"yarn\" is not supported"},
        {NULL, 0, "linear", NULL, "llama.rope.scaling.factor: missing"},
        {NULL, 0, NULL, "blk.0.attn_output.bias", "blk.0.attn_output.bias: not known to the llama"},
        {NULL, 0, NULL, "blk.2.attn_q.bias2", "blk.2.attn_q.bias2: not known"},
    };
    char *dir = make_temp_dir(), *path = weft_path_join(dir, "random.gguf");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        spec s = plain;
        s.extra_key = cases[i].key;
        s.extra_value = cases[i].value;
        s.scaling_type = cases[i].scaling;
        s.extra_tensor = cases[i].tensor;
        writer_free(new_model(&s, path));
        weft_model *model = NULL;
        weft_error err = {0};
        assert_int_equal(weft_model_open(&model, path, NULL, &err), WEFT_E_MODEL);
        if (!strstr(err.message, cases[i].expect)) fail_msg("said \"%s\"", err.message);
    }
    spec s = plain; /* a window as wide as the context is none */
    s.extra_key = ".attention.sliding_window";
    s.extra_value = 256;
    writer_free(new_model(&s, path));
    weft_model_close(model_open(path, NULL));
    free(path);
    remove_temp_dir(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_qwen2),    cmocka_unit_test(test_qwen3),
        cmocka_unit_test(test_llama),    cmocka_unit_test(test_gemma3),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
