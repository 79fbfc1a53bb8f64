/* Every tensor type, from an outside reference to the logits of a model.
 *
 * tests/data/tensor_types.json: for each quantised type a block and its values, and the digest of the values
 * of 1024 random blocks (bit for bit: float32). Made with the numpy reader of the gguf package, 0.19.0, and the
 * C code of llama.cpp b11434, which agree; Q1_0 and Q2_0, which the former lacks, with the latter. 1024
 * blocks name every entry of every grid.
 *
 * The model test compares a small random model of one type with the same model in F32, its weights
 * dequantised in the file, so that what is left is the activations in int8. */
#include "tests/engine/kernel_test.h"

#include "tests/engine/engine_test.h"
#include "tests/engine/gguf_build.h"

#include "engine/cpu/codes.h"

/* ---- values ---- */

static void check_values(weft_tensor_type type, const cJSON *expected)
{
    enum { BLOCKS = 1024 };
    const char *block_hex = cJSON_GetObjectItem(expected, "block")->valuestring;
    const char *values_hex = cJSON_GetObjectItem(expected, "values")->valuestring;
    const char *digest_hex = cJSON_GetObjectItem(expected, "digest")->valuestring;
    const char *name = weft_tensor_type_name(type);
    size_t weights, bytes;
    assert_true(weft_tensor_block(type, &weights, &bytes));
    assert_int_equal(strlen(block_hex), 2 * bytes);
    assert_int_equal(strlen(values_hex), 2 * 4 * weights);

    uint8_t *data = malloc(BLOCKS * bytes), digest[WEFT_DIGEST_BYTES], want[WEFT_DIGEST_BYTES];
    float *values = new_floats(BLOCKS * weights), first[CPU_SUPER];
    assert_non_null(data);
    assert_true(weft_unhex(block_hex, data, bytes));
    assert_true(weft_unhex(values_hex, (uint8_t *)first, weights * sizeof *first));
    cpu_dequantise(type, data, weights, values);
    for (size_t i = 0; i < weights; i++)
        if (float_bits(values[i]) != float_bits(first[i]))
            fail_msg("%s: weight %zu is %.9g, not %.9g", name, i, (double)values[i],
                     (double)first[i]);

    rng r = {type};
    for (size_t i = 0; i < BLOCKS * bytes; i++) data[i] = (uint8_t)(next32(&r) >> 8);
    for (size_t i = 0; i < BLOCKS; i++) { /* no infinite scales */
        int scale, minimum;
        half_fields(type, &scale, &minimum);
        if (type == WEFT_IQ1_M) scale = 54; /* the last of the four parts of its scale */
        if (scale >= 0) data[i * bytes + (size_t)scale + 1] &= 0xbf;
        if (minimum >= 0) data[i * bytes + (size_t)minimum + 1] &= 0xbf;
    }
    cpu_dequantise(type, data, BLOCKS * weights, values);
    weft_blake2b_of(NULL, 0, values, BLOCKS * weights * sizeof *values, digest);
    assert_true(weft_unhex(digest_hex, want, sizeof want));
    if (memcmp(digest, want, sizeof want) != 0) fail_msg("%s: other values than outside", name);
    free(values);
    free(data);
}

static void test_values(void **state)
{
    cJSON *all;
    CHECK(weft_json_parse_file(data_path("tensor_types.json"), &all, err));
    for (int k = 0; k < N_TYPES; k++) {
        const cJSON *one = cJSON_GetObjectItem(all, weft_tensor_type_name(all_types[k]));
        if (is_float_type(all_types[k])) continue;
        if (!one) fail_msg("%s: no reference", weft_tensor_type_name(all_types[k]));
        check_values(all_types[k], one);
    }
    cJSON_Delete(all);
}

/* ---- memory ---- */

/* Repacked weights have the file's size, but for these: bytes of 256 weights. */
static void test_weight_bytes(void **state)
{
    static const struct {
        weft_tensor_type type;
        size_t bytes;
    } larger[] = {{WEFT_IQ1_S, 106}, {WEFT_IQ1_M, 106},   {WEFT_IQ2_XXS, 106}, {WEFT_IQ2_XS, 106},
                  {WEFT_IQ2_S, 106}, {WEFT_IQ3_XXS, 138}, {WEFT_IQ3_S, 138},   {WEFT_TQ1_0, 66}};
    rng r = {30};
    device d;
    assert_true(open_device(&d, NULL, 2));
    for (int k = 0; k < N_TYPES; k++) {
        enum { ROWS = 20, COLUMNS = 512 };
        weft_tensor t = random_tensor(all_types[k], ROWS, COLUMNS, false, &r);
        weft_weight *w;
        size_t want = 32 * cpu_row_bytes(all_types[k], COLUMNS);
        for (size_t i = 0; i < sizeof larger / sizeof *larger; i++)
            if (larger[i].type == all_types[k]) want = 32 * COLUMNS / 256 * larger[i].bytes;
        CHECK(d.ops->weight_new(d.b, &t, &w, err));
        if (d.ops->weight_bytes(w) != want)
            fail_msg("%s: %zu bytes, not %zu", weft_tensor_type_name(all_types[k]),
                     d.ops->weight_bytes(w), want);
        d.ops->weight_free(w);
        free_tensor(&t);
    }
    weft_cpu_backend_free(d.b);
}

/* ---- models ---- */

enum {
    LAYERS = 2,
    EMBD = 256,
    HEADS = 4,
    HEADS_KV = 2,
    HEAD = 64,
    FF = 512,
    VOCAB = 259,
    TOKENS = 20
};

/* Random blocks of a type whose weights have about this root of their mean square. */
static void fill(weft_tensor_type type, uint8_t *data, size_t n, float rms, rng *r)
{
    size_t weights, bytes;
    assert_true(weft_tensor_block(type, &weights, &bytes));
    float *values = new_floats(n), unit = type == WEFT_MXFP4 || type == WEFT_NVFP4 ? 0.5f : 1;
    /* what a minimum must be for a mean of 0: the codes' mean, times the scales' over the minima's */
    float centre = type == WEFT_Q4_1   ? -7.5f
                   : type == WEFT_Q5_1 ? -15.5f
                   : type == WEFT_Q2_K ? 1.5f
                   : type == WEFT_Q4_K ? 7.5f
                                       : 15.5f;
    for (int pass = 0; pass < 2; pass++) { /* with a scale of 1, then with the one that fits */
        double sum = 0;
        for (size_t i = 0; i < n / weights; i++) {
            uint8_t *b = data + i * bytes;
            for (size_t k = 0; pass == 0 && k < bytes; k++) {
                b[k] = (uint8_t)(next32(r) >> 8);
                if (type == WEFT_TQ2_0 || type == WEFT_Q2_0) /* code 3 becomes 1, a 0 */
                    b[k] &= (uint8_t) ~((b[k] & 0x55) << 1);
            }
            put_scale(type, b, unit, unit * centre);
        }
        cpu_dequantise(type, data, n, values);
        for (size_t i = 0; i < n; i++) sum += (double)values[i] * values[i];
        unit *= rms / (float)sqrt(sum / (double)n);
    }
    free(values);
}

/* A file with the weights as they are, and one with their values in F32. */
typedef struct writer {
    gguf_build quantised, plain;
    weft_tensor_type type;
    rng r;
} writer;

static void add_matrix(writer *w, const char *name, size_t columns, size_t rows, float rms)
{
    const size_t n = columns * rows, bytes = rows * cpu_row_bytes(w->type, columns);
    uint8_t *data = malloc(bytes);
    float *values = new_floats(n);
    assert_non_null(data);
    fill(w->type, data, n, rms, &w->r);
    cpu_dequantise(w->type, data, n, values);
    build_tensor(&w->quantised, name, columns, rows, w->type, data, bytes);
    build_tensor(&w->plain, name, columns, rows, WEFT_F32, values, n * sizeof *values);
    free(values);
    free(data);
}

static void add_vector(writer *w, const char *name, size_t n, float centre, float spread)
{
    float values[FF];
    for (size_t i = 0; i < n; i++) values[i] = centre + spread * next_float(&w->r);
    build_tensor(&w->quantised, name, n, 1, WEFT_F32, values, n * sizeof *values);
    build_tensor(&w->plain, name, n, 1, WEFT_F32, values, n * sizeof *values);
}

static void add_layer(writer *w, int layer)
{
    static const struct {
        const char *name;
        size_t columns, rows; /* rows 0: a vector */
    } parts[] = {{"attn_norm.weight", EMBD, 0},
                 {"attn_q.weight", EMBD, HEADS * HEAD},
                 {"attn_k.weight", EMBD, HEADS_KV * HEAD},
                 {"attn_v.weight", EMBD, HEADS_KV * HEAD},
                 {"attn_q.bias", HEADS * HEAD, 0},
                 {"attn_k.bias", HEADS_KV * HEAD, 0},
                 {"attn_v.bias", HEADS_KV * HEAD, 0},
                 {"attn_output.weight", HEADS * HEAD, EMBD},
                 {"ffn_norm.weight", EMBD, 0},
                 {"ffn_gate.weight", EMBD, FF},
                 {"ffn_up.weight", EMBD, FF},
                 {"ffn_down.weight", FF, EMBD}};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        char name[64];
        bool norm = strstr(parts[i].name, "norm") != NULL;
        snprintf(name, sizeof name, "blk.%d.%s", layer, parts[i].name);
        if (parts[i].rows)
            add_matrix(w, name, parts[i].columns, parts[i].rows,
                       1 / sqrtf((float)parts[i].columns));
        else
            add_vector(w, name, parts[i].columns, norm ? 1 : 0, 0.2f);
    }
}

static void describe(gguf_build *g)
{
    static const char *const special[] = {"<unk>", "<s>", "</s>"};
    build_text(g, "general.architecture", "qwen2");
    build_u32(g, "qwen2.block_count", LAYERS);
    build_u32(g, "qwen2.context_length", 256);
    build_u32(g, "qwen2.embedding_length", EMBD);
    build_u32(g, "qwen2.feed_forward_length", FF);
    build_u32(g, "qwen2.attention.head_count", HEADS);
    build_u32(g, "qwen2.attention.head_count_kv", HEADS_KV);
    build_value(g, "qwen2.attention.layer_norm_rms_epsilon", G_F32, &(float){1e-6f}, 4);
    build_value(g, "qwen2.rope.freq_base", G_F32, &(float){1e6f}, 4);
    build_text(g, "tokenizer.ggml.model", "llama"); /* nothing but bytes */
    build_text(g, "tokenizer.ggml.pre", "default");
    build_array(g, "tokenizer.ggml.tokens", G_STRING, VOCAB);
    for (int i = 0; i < 3; i++) put_text(&g->values, special[i]);
    for (int i = 0; i < 256; i++) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", i);
        put_text(&g->values, text);
    }
    build_array(g, "tokenizer.ggml.scores", G_F32, VOCAB);
    for (int i = 0; i < VOCAB; i++) put_u32(&g->values, 0);
    build_array(g, "tokenizer.ggml.token_type", G_I32, VOCAB);
    for (int i = 0; i < VOCAB; i++) put_u32(&g->values, i == 0 ? 2 : i < 3 ? 3 : 6);
    build_u32(g, "tokenizer.ggml.bos_token_id", 1);
    build_u32(g, "tokenizer.ggml.eos_token_id", 2);
    build_u32(g, "tokenizer.ggml.unknown_token_id", 0);
}

static void finish(gguf_build *g, const char *path)
{
    weft_buffer file = WEFT_BUFFER_INIT;
    describe(g);
    build_finish(g, &file);
    CHECK(weft_file_write(path, file.data, file.size, 0600, err));
    weft_buffer_free(&file);
}

static void write_models(weft_tensor_type type, const char *quantised, const char *plain)
{
    writer w = {.type = type, .r = {40}};
    add_matrix(&w, "token_embd.weight", EMBD, VOCAB, 1);
    add_matrix(&w, "output.weight", EMBD, VOCAB, 2 / sqrtf(EMBD));
    add_vector(&w, "output_norm.weight", EMBD, 1, 0.2f);
    for (int i = 0; i < LAYERS; i++) add_layer(&w, i);
    finish(&w.quantised, quantised);
    finish(&w.plain, plain);
}

typedef struct run {
    float logits[TOKENS][VOCAB];
} run;

static void collect(void *context, int64_t position, const float *logits)
{
    run *r = context;
    memcpy(r->logits[position], logits, sizeof r->logits[0]);
}

static void evaluate(const char *path, const weft_engine_options *options, weft_tensor_type type,
                     run *out)
{
    weft_model *model = model_open(path, options);
    weft_timeline *t = NULL;
    int32_t ids[TOKENS];
    for (int i = 0; i < TOKENS; i++) ids[i] = (i * 97 + 5) % VOCAB;
    assert_string_equal(weft_model_get_info(model)->quantisation, weft_tensor_type_name(type));
    CHECK(weft_timeline_open(&t, model, NULL, ids, TOKENS, err));
    CHECK(weft_timeline_evaluate_each(t, collect, out, err));
    weft_timeline_close(t);
    weft_model_close(model);
}

static double log_sum_exp(const float *x)
{
    double sum = 0;
    for (int i = 0; i < VOCAB; i++) sum += exp(x[i]);
    return log(sum);
}

/* Mean |difference of a log-probability| over all positions and tokens; *out_worst the largest. */
static double distance(const run *a, const run *b, double *out_worst)
{
    double sum = 0;
    *out_worst = 0;
    for (int i = 0; i < TOKENS; i++) {
        double za = log_sum_exp(a->logits[i]), zb = log_sum_exp(b->logits[i]);
        for (int j = 0; j < VOCAB; j++) {
            double d = fabs((a->logits[i][j] - za) - (b->logits[i][j] - zb));
            sum += d;
            *out_worst = fmax(*out_worst, d);
        }
    }
    return sum / (TOKENS * VOCAB);
}

/* The bars: the noise of int8 activations, in which the type of the weights has little part. The output
 * matrix takes its activations in two parts, so it adds none. */
static void test_models(void **state)
{
    static const weft_engine_options ways[] = {
        {.threads = 2},
        {.threads = 1, .chunk = 1, .isa = "scalar"},
        {.threads = 2, .chunk = 7, .isa = "avx2"},
        {.threads = 1, .chunk = 16, .isa = "avx512"},
    };
    char *dir = make_temp_dir();
    char *quantised = weft_path_join(dir, "q.gguf"), *plain = weft_path_join(dir, "f.gguf");
    run *reference = calloc(3, sizeof *reference), *first = reference + 1, *other = reference + 2;
    assert_non_null(reference);
    for (int k = 0; k < N_TYPES; k++) {
        const char *name = weft_tensor_type_name(all_types[k]);
        double worst;
        if (is_float_type(all_types[k])) continue;
        write_models(all_types[k], quantised, plain);
        evaluate(plain, &ways[0], WEFT_F32, reference);
        evaluate(quantised, &ways[0], all_types[k], first);
        double mean = distance(reference, first, &worst);
        if (!(mean < 0.025 && worst < 0.15))
            fail_msg("%s: log-probabilities are off by %.4f, at worst %.4f", name, mean, worst);
        for (size_t i = 1; i < sizeof ways / sizeof *ways; i++) {
            if (!isa_usable(ways[i].isa)) continue;
            evaluate(quantised, &ways[i], all_types[k], other);
            if (memcmp(first, other, sizeof *first) != 0)
                fail_msg("%s: other logits with %s", name, ways[i].isa);
        }
    }
    free(reference);
    free(quantised);
    free(plain);
    remove_temp_dir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_weight_bytes),
        cmocka_unit_test(test_models),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
