/* The layer norm of the indexer's keys has an epsilon of 1e-6, which no file carries: engines took 0, or that of the
 * other norms. The tiny checkpoint does not show it, since its keys have a variance of about 1. Here its key matrix is
 * made a thousandth, so that variances are about 1e-6, and the epsilon of the other norms 1e-3. What follows the norm
 * (rope, Hadamard) keeps lengths, so the keys in the pages must be as long as a norm in double precision makes them. */
#include "tests/engine/engine_test.h"

#include "engine/cpu/half.h"
#include "engine/gguf.h"
#include "engine/kv.h"
#include "engine/model.h"

#include <math.h>

enum { N = 60, EMBD = 128, DIM = 64 }; /* one page; of the checkpoint */

static const double shrink = 1.0 / 1024, other_eps = 1e-3;

/* ---- the checkpoint ---- */

static float *floats(const weft_gguf *file, const char *name, size_t from, size_t n)
{
    const weft_tensor *t = weft_gguf_tensor_find(file, name);
    float *out = malloc(n * sizeof *out);
    assert_non_null(t);
    assert_non_null(out);
    assert_true(t->type == WEFT_F32 || t->type == WEFT_F16);
    for (size_t i = 0; i < n; i++)
        out[i] = t->type == WEFT_F32 ? ((const float *)t->data)[from + i]
                                     : half_to_float(((const uint16_t *)t->data)[from + i]);
    return out;
}

/* tiny-f16 with another key matrix in its first layer and another epsilon. */
static void write_checkpoint(const char *path)
{
    static const char key[] = "deepseek32.attention.layer_norm_rms_epsilon";
    const float eps = (float)other_eps;
    weft_buffer bytes = WEFT_BUFFER_INIT;
    weft_gguf *file = NULL;
    CHECK(weft_file_read(data_path("dsv32/tiny-f16.gguf"), 64 << 20, &bytes, err));
    CHECK(weft_gguf_open_memory(&file, bytes.data, bytes.size, err));
    const weft_tensor *t = weft_gguf_tensor_find(file, "blk.0.indexer.attn_k.weight");
    assert_non_null(t);
    assert_int_equal(t->type, WEFT_F16);
    assert_int_equal(t->bytes, EMBD * DIM * sizeof(uint16_t));
    uint16_t *weight = (uint16_t *)((char *)bytes.data + ((const char *)t->data - (const char *)bytes.data));
    for (size_t i = 0; i < EMBD * DIM; i++)
        weight[i] = half_from_float((float)(half_to_float(weight[i]) * shrink));
    char *at = memmem(bytes.data, bytes.size, key, sizeof key - 1);
    assert_non_null(at);
    memcpy(at + sizeof key - 1 + sizeof(uint32_t), &eps, sizeof eps); /* behind the type of the value */
    weft_gguf_close(file);
    CHECK(weft_file_write(path, bytes.data, bytes.size, 0600, err));
    weft_buffer_free(&bytes);
}

/* ---- the reference ---- */

/* How long the key of an id is in the first layer, where a token's state is its embedding. */
static double key_length(const weft_gguf *file, int32_t id, double eps)
{
    float *x = floats(file, "token_embd.weight", (size_t)id * EMBD, EMBD);
    float *norm = floats(file, "blk.0.attn_norm.weight", 0, EMBD);
    float *k = floats(file, "blk.0.indexer.attn_k.weight", 0, EMBD * DIM);
    float *weight = floats(file, "blk.0.indexer.k_norm.weight", 0, DIM);
    float *bias = floats(file, "blk.0.indexer.k_norm.bias", 0, DIM);
    double sum = 0, mean = 0, variance = 0, length = 0, y[DIM] = {0};
    for (int i = 0; i < EMBD; i++) sum += (double)x[i] * x[i];
    for (int d = 0; d < DIM; d++)
        for (int i = 0; i < EMBD; i++)
            y[d] += (double)k[d * EMBD + i] * x[i] * norm[i] / sqrt(sum / EMBD + other_eps);
    for (int d = 0; d < DIM; d++) mean += y[d] / DIM;
    for (int d = 0; d < DIM; d++) variance += (y[d] - mean) * (y[d] - mean) / DIM;
    for (int d = 0; d < DIM; d++) length += pow((y[d] - mean) / sqrt(variance + eps) * weight[d] + bias[d], 2);
    free(x);
    free(norm);
    free(k);
    free(weight);
    free(bias);
    return sqrt(length);
}

/* ---- the engine ---- */

typedef struct lengths {
    double of[N];
    bool seen;
} lengths;

static void read_keys(void *context, const weft_index *x)
{
    lengths *l = context;
    if (x->layer != 0 || x->row[x->n - 1].position != N - 1) return;
    const uint8_t *page = x->row[x->n - 1].page[0];
    const float *key = (const float *)(const void *)(page + weft_kv_offset(x->layout, 0, 0)); /* [DIM][WEFT_PAGE] */
    for (size_t p = 0; p < N; p++) {
        double sum = 0;
        for (size_t d = 0; d < DIM; d++) sum += pow((double)key[d * WEFT_PAGE + p], 2);
        l->of[p] = sqrt(sum);
    }
    l->seen = true;
}

static void test_epsilon(void **state)
{
    (void)state;
    char *dir = make_temp_dir(), *path = weft_path_join(dir, "small-keys.gguf");
    const weft_engine_options o = {.kv_type = WEFT_KV_F32};
    lengths l = {.seen = false};
    weft_timeline *t = NULL;
    weft_gguf *file = NULL;
    int32_t ids[N];
    int without = 0, others = 0; /* keys that another epsilon would make another length */
    write_checkpoint(path);
    for (int i = 0; i < N; i++) ids[i] = 7 * i + 3;
    weft_model *model = model_open(path, &o);
    assert_int_equal(model->h.n_embd, EMBD);
    assert_int_equal(model->h.index_dim, DIM);
    model->on_selection = read_keys;
    model->on_selection_context = &l;
    CHECK(weft_timeline_open(&t, model, NULL, ids, N, err));
    CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
    assert_true(l.seen);
    CHECK(weft_gguf_open(&file, path, err));
    for (int p = 0; p < N; p++) {
        const double want = key_length(file, ids[p], 1e-6);
        if (!(fabs(l.of[p] - want) < 2e-3 * want)) fail_msg("key %d is %g long, wanted %g", p, l.of[p], want);
        without += fabs(key_length(file, ids[p], 0) - want) > 0.05 * want;
        others += fabs(key_length(file, ids[p], other_eps) - want) > 0.05 * want;
    }
    assert_int_equal(without, N);
    assert_int_equal(others, N);
    weft_gguf_close(file);
    weft_timeline_close(t);
    weft_model_close(model);
    free(path);
    remove_temp_dir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_epsilon)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
