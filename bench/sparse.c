/* What a token costs at a depth of context, with the indexer's choice and with attention to everything.
 *
 *     build/bench/sparse MODEL [THREADS] [DEPTH ...]
 *
 * The pages of one timeline are filled with random keys and latents, as far as the deepest depth; a token at a depth
 * is then evaluated sparse and dense in turn, on the same pages (its own position is written again each time). At
 * every depth the sparse choice of every layer is compared with brute force: all scores by a loop of its own, sorted.
 * One line of JSON a depth: milliseconds of a whole token, and of its index_select and latent_attention.
 */
#include "engine/kv.h"
#include "engine/model.h"

#include "engine/cpu/half.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { REPETITIONS = 7, MAX_DEPTHS = 16 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void check(weft_status status, const weft_error *err)
{
    if (status == WEFT_OK) return;
    fprintf(stderr, "sparse: %s\n", err->message);
    exit(1);
}

static float next_float(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (float)(*state >> 40) * 0x1p-23f - 1.0f;
}

/* Random rows for positions [0, n) of every layer, of the size that norms give them. */
static void fill(weft_model *m, weft_kv *kv, int64_t n)
{
    const weft_kv_layout *l = &m->kv;
    const size_t rope = l->value_dim - l->latent_dim;
    float latent[1024], k_rope[1024], index[1024];
    uint64_t state = 1;
    weft_error err;
    check(weft_kv_begin(kv, 0, n, &err), &err);
    for (uint32_t layer = 0; layer < l->n_layer; layer++)
        for (int64_t p = 0; p < n; p++) {
            const weft_row row = {weft_kv_pages(kv), p};
            for (size_t d = 0; d < l->latent_dim; d++) latent[d] = 1.7f * next_float(&state);
            for (size_t d = 0; d < rope; d++) k_rope[d] = 1.7f * next_float(&state);
            for (size_t d = 0; d < l->key_dim; d++) index[d] = 1.7f * next_float(&state);
            m->ops->latent_write(m->backend, l, layer, &row, 1, latent, k_rope, index);
        }
}

/* ---- brute force ---- */

typedef struct scored {
    float score;
    int32_t position;
} scored;

static int by_score(const void *a, const void *b)
{
    const scored *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    return x->position < y->position ? -1 : 1;
}

static int by_position(const void *a, const void *b)
{
    return *(const int32_t *)a < *(const int32_t *)b ? -1 : 1;
}

/* One chain over dims for each head and position, one over heads; positions side by side for the compiler. */
static void score_page(const weft_index *x, const uint16_t *keys, float *out)
{
    const size_t dim = x->layout->key_dim;
    static float key[1024][WEFT_PAGE];
    for (size_t d = 0; d < dim; d++)
        for (size_t p = 0; p < WEFT_PAGE; p++) key[d][p] = half_to_float(keys[d * WEFT_PAGE + p]);
    memset(out, 0, WEFT_PAGE * sizeof *out);
    for (size_t h = 0; h < x->n_head; h++) {
        float sum[WEFT_PAGE] = {0};
        for (size_t d = 0; d < dim; d++)
            for (size_t p = 0; p < WEFT_PAGE; p++) sum[p] = fmaf(x->q[h * dim + d], key[d][p], sum[p]);
        for (size_t p = 0; p < WEFT_PAGE; p++)
            out[p] = fmaf(x->weight[h], sum[p] > 0 ? sum[p] : 0, out[p]);
    }
}

static int compared;

static void compare(void *context, const weft_index *x)
{
    const size_t n = (size_t)x->row->position + 1, pages = (n + WEFT_PAGE - 1) / WEFT_PAGE;
    const size_t count = n < x->top_k ? n : x->top_k;
    scored *all = calloc(pages * WEFT_PAGE, sizeof *all);
    int32_t *chosen = calloc(count, sizeof *chosen);
    for (size_t page = 0; all && page < pages; page++) {
        float out[WEFT_PAGE];
        score_page(x, (const uint16_t *)(const void *)((const uint8_t *)x->row->page[page] +
                                                       weft_kv_offset(x->layout, x->layer, 0)),
                   out);
        for (size_t p = 0; p < WEFT_PAGE; p++)
            all[page * WEFT_PAGE + p] = (scored){out[p], (int32_t)(page * WEFT_PAGE + p)};
    }
    if (!all || !chosen) abort();
    qsort(all, n, sizeof *all, by_score);
    for (size_t i = 0; i < count; i++) chosen[i] = all[i].position;
    qsort(chosen, count, sizeof *chosen, by_position);
    if ((size_t)*x->count != count || memcmp(chosen, x->selected, count * sizeof *chosen) != 0) {
        fprintf(stderr, "sparse: layer %u at %zu positions: not the choice of brute force\n", x->layer, n);
        exit(1);
    }
    compared++;
    free(all);
    free(chosen);
}

/* ---- timing ---- */

static weft_ops timed; /* the backend's, with clocks around two operations */
static const weft_ops *plain;
static double in_index, in_attention;

static void timed_select(weft_backend *b, const weft_index *x)
{
    const double from = now();
    plain->index_select(b, x);
    in_index += now() - from;
}

static void timed_attention(weft_backend *b, const weft_latent_attention *a)
{
    const double from = now();
    plain->latent_attention(b, a);
    in_attention += now() - from;
}

typedef struct cost {
    double token, index, attention; /* seconds */
} cost;

static cost evaluate(weft_model *m, weft_kv *kv, int64_t position, bool sparse)
{
    const int32_t id = 7;
    const size_t want = 0;
    const weft_row row = {weft_kv_pages(kv), position};
    const weft_pass pass = {.ids = &id, .row = &row, .n = 1, .want = &want, .n_want = 1};
    weft_error err;
    m->sparse = sparse;
    in_index = in_attention = 0;
    const double from = now();
    check(weft_model_pass(m, &pass, &err), &err);
    return (cost){now() - from, in_index, in_attention};
}

static int by_token(const void *a, const void *b)
{
    const cost *x = a, *y = b;
    return x->token < y->token ? -1 : x->token > y->token;
}

static void print_cost(const char *name, cost c, const char *end)
{
    printf("\"%s\": {\"token\": %.3f, \"index\": %.3f, \"attention\": %.3f}%s", name, c.token * 1e3,
           c.index * 1e3, c.attention * 1e3, end);
}

static void measure(weft_model *m, weft_kv *kv, int64_t depth)
{
    cost sparse[REPETITIONS], dense[REPETITIONS];
    compared = 0;
    m->on_selection = compare;
    (void)evaluate(m, kv, depth - 1, true);
    m->on_selection = NULL;
    for (int i = 0; i < REPETITIONS; i++) {
        sparse[i] = evaluate(m, kv, depth - 1, true);
        dense[i] = evaluate(m, kv, depth - 1, false);
    }
    qsort(sparse, REPETITIONS, sizeof *sparse, by_token);
    qsort(dense, REPETITIONS, sizeof *dense, by_token);
    const cost s = sparse[REPETITIONS / 2], d = dense[REPETITIONS / 2];
    printf("{\"depth\": %lld, \"equal_choices\": %d, ", (long long)depth, compared);
    print_cost("sparse", s, ", ");
    print_cost("dense", d, ", ");
    printf("\"ratio\": %.4f}\n", s.token / d.token);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    int64_t depth[MAX_DEPTHS] = {1024, 4096, 16384, 65536, 131072}, deepest = 0;
    int n = 5;
    weft_model *m = NULL;
    weft_kv *kv = NULL;
    weft_error err;
    if (argc < 2) {
        fprintf(stderr, "usage: sparse MODEL [THREADS] [DEPTH ...]\n");
        return 2;
    }
    if (argc > 3) n = 0;
    for (int i = 3; i < argc && n < MAX_DEPTHS; i++) depth[n++] = atoll(argv[i]);
    for (int i = 0; i < n; i++) deepest = depth[i] > deepest ? depth[i] : deepest;
    const weft_engine_options o = {.threads = argc > 2 ? atoi(argv[2]) : 0, .chunk = 1};
    check(weft_model_open(&m, argv[1], &o, &err), &err);
    if (!m->sparse || deepest > m->context) {
        fprintf(stderr, "sparse: a deepseek32 model with a context of %lld is needed\n", (long long)deepest);
        return 1;
    }
    plain = m->ops;
    timed = *m->ops;
    timed.index_select = timed_select;
    timed.latent_attention = timed_attention;
    check(weft_kv_open(&kv, NULL, &m->kv, m->kv_identity, deepest, &err), &err);
    fill(m, kv, deepest);
    m->ops = &timed;
    for (int i = 0; i < n; i++) measure(m, kv, depth[i]);
    m->ops = plain;
    weft_kv_close(kv, 0);
    weft_model_close(m);
    return 0;
}
