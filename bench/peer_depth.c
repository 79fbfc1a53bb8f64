/* What a token of DeepSeek-V3.2 costs llama.cpp at a depth of context, through its public API; bench/sparse builds and
 * runs it beside bench/sparse.c.
 *
 *     peer_depth MODEL THREADS DEPTH ...
 *
 * Reading 131,072 tokens would take it hours, so its caches are filled as ours are: the saved state of one real token
 * is taken as a pattern, its cells become DEPTH - 1 cells with random rows of the size that norms give them, and the
 * result is loaded as a saved state. That it was taken is checked: the last position is right, and saving it again
 * gives the same bytes. Then the token at position DEPTH - 1 is evaluated REPETITIONS times, with flash attention
 * and without. It stops if llama.cpp does not use its fused indexer. One line of JSON a depth, in milliseconds.
 * PEER_VERBOSE=1 shows llama.cpp's log.
 *
 * Layout of a sequence's state, little-endian (PEER_VERSION of bench/vs_llama_cpp; each field is compared, so another
 * layout is an error and not a wrong figure). There are two caches, of latents and of index keys:
 *
 *     u32 magic, i32 sequence, then for each cache:
 *     u32 streams (1), u32 cells, cells x { i32 position, u32 sequences (1), i32 sequence }
 *     u32 are values transposed, u32 layers, u32 rotation of keys, u32 rotation of values
 *     layers x { i32 type, u64 bytes of a row, cells x row }           (neither cache holds values of its own)
 */
#include "llama.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { REPETITIONS = 7, MAX_DEPTHS = 16, CACHES = 2, MAX_ROW = 1024, TOKEN = 7 };

static bool indexer_is_fused;
static bool verbose;

static void die(const char *what)
{
    fprintf(stderr, "peer_depth: %s\n", what);
    exit(1);
}

static void on_log(enum ggml_log_level level, const char *text, void *context)
{
    (void)context;
    /* llama.cpp lists which operations read a graph's inputs, here the mask */
    if (strstr(text, "(LIGHTNING_INDEXER)")) indexer_is_fused = true;
    if (verbose || level == GGML_LOG_LEVEL_ERROR) fputs(text, stderr);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- a state of many cells, made of a state of one ---- */

typedef struct bytes {
    uint8_t *data;
    size_t size, capacity;
} bytes;

static void put(bytes *b, const void *from, size_t n)
{
    if (b->size + n > b->capacity) {
        b->capacity = 2 * (b->size + n);
        b->data = realloc(b->data, b->capacity);
        if (!b->data) die("out of memory");
    }
    memcpy(b->data + b->size, from, n);
    b->size += n;
}

static void put_u32(bytes *b, uint32_t value)
{
    put(b, &value, sizeof value);
}

typedef struct reader {
    const uint8_t *at, *end;
} reader;

static void take(reader *r, void *to, size_t n)
{
    if ((size_t)(r->end - r->at) < n) die("the saved state ends early: its layout is not the known one");
    memcpy(to, r->at, n);
    r->at += n;
}

static uint32_t take_u32(reader *r)
{
    uint32_t value;
    take(r, &value, sizeof value);
    return value;
}

static void expect(reader *r, uint32_t value)
{
    if (take_u32(r) != value) die("a field of the saved state is another: its layout is not the known one");
}

static float next_float(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (float)(*state >> 40) * 0x1p-23f - 1.0f;
}

static void put_random_rows(bytes *b, size_t n, size_t width, uint64_t *state)
{
    float row[MAX_ROW];
    ggml_fp16_t half[MAX_ROW];
    for (size_t i = 0; i < n; i++) {
        for (size_t d = 0; d < width; d++) row[d] = 1.7f * next_float(state);
        ggml_fp32_to_fp16_row(row, half, (int64_t)width);
        put(b, half, width * sizeof *half);
    }
}

static void grow_cache(reader *r, bytes *b, uint32_t cells, uint64_t *state)
{
    uint8_t skipped[2 * MAX_ROW];
    expect(r, 1), expect(r, 1);
    expect(r, 0), expect(r, 1), expect(r, 0);
    put_u32(b, 1), put_u32(b, cells);
    for (uint32_t i = 0; i < cells; i++) put_u32(b, i), put_u32(b, 1), put_u32(b, 0);
    const uint32_t transposed = take_u32(r), layers = take_u32(r);
    put_u32(b, transposed), put_u32(b, layers);
    put_u32(b, take_u32(r)), put_u32(b, take_u32(r));
    for (uint32_t layer = 0; layer < layers; layer++) {
        uint64_t row;
        expect(r, GGML_TYPE_F16);
        take(r, &row, sizeof row);
        if (row == 0 || row % 2 || row > sizeof skipped) die("a row of the saved state has no known size");
        take(r, skipped, row);
        put_u32(b, GGML_TYPE_F16), put(b, &row, sizeof row);
        put_random_rows(b, cells, row / 2, state);
    }
}

static bytes saved(struct llama_context *c)
{
    bytes b = {.size = llama_state_seq_get_size(c, 0)};
    b.capacity = b.size;
    b.data = malloc(b.size);
    if (!b.data) die("out of memory");
    if (llama_state_seq_get_data(c, b.data, b.size, 0) != b.size) die("the state cannot be saved");
    return b;
}

static void decode(struct llama_context *c)
{
    llama_token token = TOKEN;
    if (llama_decode(c, llama_batch_get_one(&token, 1)) != 0) die("llama_decode failed");
    llama_synchronize(c);
}

static void fill(struct llama_context *c, uint32_t cells)
{
    llama_memory_t memory = llama_get_memory(c);
    llama_memory_clear(memory, true);
    decode(c);
    bytes one = saved(c), all = {0};
    reader r = {one.data, one.data + one.size};
    uint64_t random = 1;
    put_u32(&all, take_u32(&r));
    expect(&r, 0), put_u32(&all, 0);
    for (int i = 0; i < CACHES; i++) grow_cache(&r, &all, cells, &random);
    if (r.at != r.end) die("the saved state goes on: its layout is not the known one");
    if (llama_state_seq_set_data(c, all.data, all.size, 0) != all.size) die("the state was not taken");
    if (llama_memory_seq_pos_min(memory, 0) != 0 || llama_memory_seq_pos_max(memory, 0) != (llama_pos)cells - 1)
        die("the state was taken with other positions");
    bytes back = saved(c);
    if (back.size != all.size || memcmp(back.data, all.data, all.size) != 0)
        die("the state that was taken is not the one that was given");
    free(back.data);
    free(all.data);
    free(one.data);
}

/* ---- timing ---- */

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Milliseconds of the token at position depth - 1; that token is taken back each time. */
static double measure(struct llama_context *c, uint32_t depth)
{
    double ms[REPETITIONS];
    fill(c, depth - 1);
    for (int i = -1; i < REPETITIONS; i++) { /* the first one warms up */
        const double from = now();
        decode(c);
        if (i >= 0) ms[i] = (now() - from) * 1e3;
        if (!llama_memory_seq_rm(llama_get_memory(c), 0, (llama_pos)depth - 1, -1))
            die("the last token cannot be removed");
    }
    qsort(ms, REPETITIONS, sizeof *ms, by_value);
    return ms[REPETITIONS / 2];
}

static struct llama_context *context(struct llama_model *m, uint32_t n, int threads,
                                     enum llama_flash_attn_type flash)
{
    struct llama_context_params p = llama_context_default_params();
    p.n_ctx = (n + 255) / 256 * 256;
    p.n_batch = p.n_ubatch = 64;
    p.n_seq_max = 1;
    p.n_threads = p.n_threads_batch = threads;
    p.flash_attn_type = flash;
    p.type_k = p.type_v = GGML_TYPE_F16;
    p.no_perf = true;
    indexer_is_fused = false;
    struct llama_context *c = llama_init_from_model(m, p);
    if (!c) die("no context: is there memory for the deepest depth?");
    if (!indexer_is_fused) die("no fused indexer in llama.cpp's graph; PEER_VERBOSE=1 shows what it says");
    return c;
}

int main(int argc, char **argv)
{
    uint32_t depth[MAX_DEPTHS], deepest = 0;
    double with[MAX_DEPTHS], without[MAX_DEPTHS];
    const int n = argc - 3;
    if (n < 1 || n > MAX_DEPTHS) {
        fprintf(stderr, "usage: peer_depth MODEL THREADS DEPTH ... (up to %d)\n", MAX_DEPTHS);
        return 2;
    }
    for (int i = 0; i < n; i++) {
        depth[i] = (uint32_t)strtoul(argv[i + 3], NULL, 10);
        if (depth[i] < 2 || depth[i] > 1u << 24) die("a depth is from 2 to 16,777,216");
        deepest = depth[i] > deepest ? depth[i] : deepest;
    }
    verbose = getenv("PEER_VERBOSE") != NULL;
    llama_log_set(on_log, NULL);
    llama_backend_init();
    struct llama_model *m = llama_model_load_from_file(argv[1], llama_model_default_params());
    if (!m) die("the model cannot be loaded");
    struct llama_context *c = context(m, deepest, atoi(argv[2]), LLAMA_FLASH_ATTN_TYPE_ENABLED);
    for (int i = 0; i < n; i++) with[i] = measure(c, depth[i]);
    llama_free(c);
    c = context(m, deepest, atoi(argv[2]), LLAMA_FLASH_ATTN_TYPE_DISABLED);
    for (int i = 0; i < n; i++) without[i] = measure(c, depth[i]);
    llama_free(c);
    for (int i = 0; i < n; i++)
        printf("{\"depth\": %u, \"flash\": %.3f, \"plain\": %.3f}\n", depth[i], with[i], without[i]);
    llama_model_free(m);
    llama_backend_free();
    return 0;
}
