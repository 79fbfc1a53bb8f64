/* Micro-benchmark of the CPU backend against what the machine can do, measured in the same run.
 *
 *   bench/kernels [isa] [threads] [type ...]
 *
 * One token: GB/s of weights, beside a plain read of the same memory by the same threads (each
 * adds up 64-byte words), taken in turns so that a noisy neighbour hits both. Many tokens: GOP/s (a multiply
 * and an add are 2), beside a loop of nothing but VNNI multiply-adds on registers. Attention: one
 * token or some over a long context, GB/s of KV. Best of several repetitions each.
 */
#include "bench/peak.h"
#include "engine/cpu/cpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { REPEATS = 12, WEIGHT_BYTES = 192 << 20 };

typedef struct span_of_memory {
    const uint8_t *at;
    size_t bytes;
    uint32_t pieces;
    uint64_t *sum; /* [pieces] */
} span_of_memory;

static void read_item(void *context, uint32_t item, int thread)
{
    const span_of_memory *m = context;
    size_t piece = m->bytes / m->pieces / 64 * 64;
    typedef uint64_t words __attribute__((vector_size(64), aligned(1), may_alias));
    const uint8_t *p = m->at + item * piece;
    words a = {0}, b = {0}, c = {0}, d = {0};
    for (size_t i = 0; i + 256 <= piece; i += 256) {
        a += *(const words *)(p + i);
        b += *(const words *)(p + i + 64);
        c += *(const words *)(p + i + 128);
        d += *(const words *)(p + i + 192);
    }
    a += b + c + d;
    m->sum[item] = a[0] + a[7];
}

/* With one thread, its processor time: other processes on the machine then count less. */
static int64_t now_ns(const weft_backend *b)
{
    struct timespec t;
    if (b->threads > 1) return weft_monotonic_ns();
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static double seconds_since(const weft_backend *b, int64_t from)
{
    return (double)(now_ns(b) - from) * 1e-9;
}

static double read_seconds(weft_backend *b, const void *at, size_t bytes)
{
    uint64_t sum[256];
    span_of_memory m = {at, bytes, 256, sum};
    int64_t from = now_ns(b);
    cpu_pool_run(b->pool, read_item, &m, m.pieces);
    return seconds_since(b, from);
}

static void peak_item(void *context, uint32_t item, int thread)
{
    ((double *)context)[item] = peak_run(PEAK_VNNI);
}

static double peak_gops(weft_backend *b)
{
    double amount[256], best = 0;
    if (!peak_has(PEAK_VNNI)) return 0;
    for (int i = 0; i < 4; i++) {
        int64_t from = now_ns(b);
        cpu_pool_run(b->pool, peak_item, amount, (uint32_t)b->threads);
        double s = seconds_since(b, from), sum = 0;
        for (int t = 0; t < b->threads; t++) sum += amount[t];
        best = sum / s > best ? sum / s : best;
    }
    return best * 1e-9;
}

static float *filled(size_t n)
{
    float *p = aligned_alloc(64, (n * sizeof *p + 63) / 64 * 64);
    if (!p) abort();
    for (size_t i = 0; i < n; i++) p[i] = (float)((i * 2654435761u >> 8) & 0xffff) / 65536 - 0.5f;
    return p;
}

/* Small random numbers for every field, fp16 ones included. */
static void *random_blocks(size_t bytes)
{
    uint8_t *p = malloc(bytes);
    if (!p) abort();
    for (size_t i = 0; i < bytes; i++) p[i] = (uint8_t)((i * 2654435761u >> 13) & 0x3b);
    return p;
}

static weft_weight *matrix(weft_backend *b, weft_tensor_type type, size_t rows, size_t columns)
{
    size_t weights, bytes;
    weft_weight *w;
    weft_error err;
    if (!weft_tensor_block(type, &weights, &bytes)) abort();
    weft_tensor t = {.name = "bench",
                     .type = type,
                     .n_dims = 2,
                     .dim = {columns, rows, 1, 1},
                     .bytes = rows * (columns / weights) * bytes};
    uint8_t *data = random_blocks(t.bytes);
    t.data = data;
    if (type == WEFT_MXFP4) /* exponents of models, not subnormal numbers */
        for (size_t i = 0; i < t.bytes; i += bytes) data[i] = (uint8_t)(110 + i % 16);
    if (b->ops.weight_new(b, &t, &w, &err)) {
        fprintf(stderr, "%s\n", err.message);
        exit(1);
    }
    free(data);
    return w;
}

/* Enough matrices of a model's shape that they do not fit the caches. */
static void one_token(weft_backend *b, weft_tensor_type type, size_t rows, size_t columns)
{
    weft_weight *w[512];
    size_t n = 0, bytes = 0;
    while (bytes < WEIGHT_BYTES && n < 512) {
        w[n] = matrix(b, type, rows, columns);
        bytes += b->ops.weight_bytes(w[n++]);
    }
    float *x = filled(columns), *y = filled(rows), *const yp[1] = {y};
    double best = 1e9, plain = 1e9;
    for (int r = 0; r < REPEATS; r++) {
        int64_t from = now_ns(b);
        for (size_t i = 0; i < n; i++) {
            const weft_weight *const one[1] = {w[i]};
            b->ops.matmul(b, one, NULL, yp, 1, x, 1);
        }
        double s = seconds_since(b, from), p = 0;
        for (size_t i = 0; i < n; i++)
            p += read_seconds(b, w[i]->data, w[i]->tiles * w[i]->tile_bytes);
        best = s < best ? s : best;
        plain = p < plain ? p : plain;
    }
    printf("%-7s %6zu x %-5zu  1 token    %6.1f GB/s, plain read %6.1f  %3.0f %%\n",
           weft_tensor_type_name(type), rows, columns, (double)bytes / best * 1e-9,
           (double)bytes / plain * 1e-9, 100 * plain / best);
    for (size_t i = 0; i < n; i++) b->ops.weight_free(w[i]);
    free(x);
    free(y);
}

static void many_tokens(weft_backend *b, weft_tensor_type type, size_t rows, size_t columns,
                        size_t n)
{
    weft_weight *w = matrix(b, type, rows, columns);
    const weft_weight *const one[1] = {w};
    float *x = filled(n * columns), *y = filled(n * rows), *const yp[1] = {y};
    double best = 1e9, peak = 0;
    for (int r = 0; r < 4; r++) {
        int64_t from = now_ns(b);
        b->ops.matmul(b, one, NULL, yp, 1, x, n);
        double s = seconds_since(b, from), p = peak_gops(b);
        best = s < best ? s : best;
        peak = p > peak ? p : peak;
    }
    double gops = 2.0 * (double)rows * (double)columns * (double)n / best * 1e-9;
    printf("%-7s %6zu x %-5zu  %3zu tokens %6.0f GOP/s, VNNI peak %6.0f  %3.0f %%\n",
           weft_tensor_type_name(type), rows, columns, n, gops, peak,
           peak > 0 ? 100 * gops / peak : 0);
    b->ops.weight_free(w);
    free(x);
    free(y);
}

/* n tokens at the end of a context, on one timeline. */
static void attention(weft_backend *b, weft_kv_type type, uint32_t n_head, uint32_t n_head_kv,
                      uint32_t dim, size_t context, size_t n)
{
    weft_kv_layout l = {.type = type, .n_layer = 8, .n_head_kv = n_head_kv, .key_dim = dim, .value_dim = dim};
    size_t pages = context / WEFT_PAGE, bytes = weft_kv_page_bytes(&l);
    void **page = malloc(pages * sizeof *page);
    weft_row *row = malloc((context < n ? n : context) * sizeof *row);
    uint8_t *memory = aligned_alloc(64, pages * bytes);
    if (!page || !row || !memory) abort();
    for (size_t i = 0; i < pages; i++) page[i] = memory + i * bytes;
    for (size_t i = 0; i < context; i++) row[i] = (weft_row){page, (int64_t)i};
    float *kv = filled(WEFT_PAGE * n_head_kv * dim);
    for (size_t i = 0; i < context; i += WEFT_PAGE)
        for (uint32_t layer = 0; layer < l.n_layer; layer++)
            b->ops.kv_write(b, &l, layer, row + i, WEFT_PAGE, kv, kv);
    float *q = filled(n * n_head * dim), *out = filled(n * n_head * dim);
    double best = 1e9, plain = 1e9;
    for (int r = 0; r < 6; r++) {
        int64_t from = now_ns(b);
        for (uint32_t layer = 0; layer < l.n_layer; layer++) {
            weft_attention a = {.layout = &l,
                                .layer = layer,
                                .n_head = n_head,
                                .scale = 0.1f,
                                .row = row + context - n,
                                .n = n,
                                .q = q,
                                .out = out};
            b->ops.attention(b, &a);
        }
        double s = seconds_since(b, from), p = read_seconds(b, memory, pages * bytes);
        best = s < best ? s : best;
        plain = p < plain ? p : plain;
    }
    double seen = (double)context - (double)(n - 1) / 2; /* positions of a token */
    double flops = 4.0 * seen * n_head * dim * l.n_layer * (double)n;
    printf("attention %s %u/%u x %u, %zu tokens at %zu: %.2f ms a layer, %.1f GB/s of KV (plain "
           "read %.1f), %.0f GFLOP/s\n",
           weft_kv_type_name(type), n_head, n_head_kv, dim, n, context, best / l.n_layer * 1e3,
           (double)(pages * bytes) / best * 1e-9, (double)(pages * bytes) / plain * 1e-9,
           flops / best * 1e-9);
    free(memory);
    free(kv);
    free(row);
    free(page);
    free(q);
    free(out);
}

/* Long rows, few tokens, attention. */
static void other_shapes(weft_backend *b)
{
    one_token(b, WEFT_Q6_K, 1536, 8960);
    many_tokens(b, WEFT_Q4_K, 1536, 8960, 512);
    many_tokens(b, WEFT_Q6_K, 1536, 8960, 512);
    many_tokens(b, WEFT_Q4_K, 8960, 1536, 4);
    static const weft_kv_type kv_types[] = {WEFT_KV_F16, WEFT_KV_Q8_0};
    for (size_t i = 0; i < sizeof kv_types / sizeof *kv_types; i++) {
        attention(b, kv_types[i], 12, 2, 128, 8192, 1);
        attention(b, kv_types[i], 14, 2, 64, 8192, 1);
        attention(b, kv_types[i], 9, 3, 64, 2048, 1);
        attention(b, kv_types[i], 12, 2, 128, 8192, 8);
        attention(b, kv_types[i], 12, 2, 128, 512, 512);
        attention(b, kv_types[i], 12, 2, 128, 8192, 64);
        attention(b, kv_types[i], 14, 2, 64, 8192, 64);
    }
}

enum { FIRST_TYPE = 3 }; /* argument */

static bool wanted(weft_tensor_type type, int argc, char **argv)
{
    for (int i = FIRST_TYPE; i < argc; i++)
        if (strcmp(argv[i], weft_tensor_type_name(type)) == 0) return true;
    return argc <= FIRST_TYPE;
}

int main(int argc, char **argv)
{
    weft_backend *b;
    const weft_ops *ops;
    weft_error err;
    if (weft_cpu_backend_new(&b, &ops, argc > 1 ? argv[1] : NULL, argc > 2 ? atoi(argv[2]) : 0,
                             &err) ||
        ops->reserve(b, 512, 8960, &err)) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    printf("%s, %d threads\n", ops->name, weft_cpu_backend_threads(b));
    /* one type of each layout */
    static const weft_tensor_type types[] = {
        WEFT_Q4_K,  WEFT_Q6_K,  WEFT_Q5_0,  WEFT_Q8_0,   WEFT_Q4_1,    WEFT_Q4_0,
        WEFT_Q5_1,  WEFT_Q5_K,  WEFT_Q2_K,  WEFT_Q3_K,   WEFT_IQ4_NL,  WEFT_IQ4_XS,
        WEFT_MXFP4, WEFT_NVFP4, WEFT_IQ1_S, WEFT_IQ2_XS, WEFT_IQ3_XXS, WEFT_IQ3_S,
        WEFT_TQ2_0, WEFT_Q2_0,  WEFT_Q1_0,  WEFT_F16};
    const size_t n_types = sizeof types / sizeof *types;
    for (size_t i = 0; i < n_types; i++) {
        if (!wanted(types[i], argc, argv)) continue;
        one_token(b, types[i], 8960, 1536);
        one_token(b, types[i], 1536, 1536);
    }
    for (size_t i = 0; i < n_types; i++)
        if (wanted(types[i], argc, argv)) many_tokens(b, types[i], 8960, 1536, 512);
    if (argc <= FIRST_TYPE) other_shapes(b);
    weft_cpu_backend_free(b);
    return 0;
}
