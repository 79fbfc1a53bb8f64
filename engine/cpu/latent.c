/* Latent attention: who attends for which heads to what.
 *
 * An item is some heads of one token over all its positions, or over those selected: a head's sums do not depend on
 * which heads stand beside it, so nothing needs merging across threads, and an item takes as many heads as leaves
 * every thread one. Positions (selected ones in their order) are cut into spans of CPU_LATENT_SPAN; a span's
 * result starts from nothing, and spans are merged in order. Rows are widened to float once an item and span: at
 * 64 heads that, the softmax and the merging are a tenth of the time. While a span's scores are computed the rows of
 * the next one are asked for, chosen ones as well: so what they cost does not depend on where they lie.
 */
#include "engine/cpu/cpu.h"

#include <assert.h>
#include <sys/mman.h>

/* ---- scratch ---- */

/* A thread's memory. */
typedef struct workspace {
    float *q;        /* [value_dim][lanes], times the scale */
    float *k;        /* [CPU_LATENT_SPAN][value_dim] */
    float *score;    /* [CPU_LATENT_SPAN][lanes] */
    float *value[2]; /* [CPU_LATENT_HEADS][latent_dim]: of all spans so far, of this one */
} workspace;

static size_t workspace_floats(size_t latent_dim, size_t value_dim)
{
    return value_dim * CPU_LATENT_HEADS + CPU_LATENT_SPAN * value_dim +
           CPU_LATENT_SPAN * CPU_LATENT_HEADS + 2 * CPU_LATENT_HEADS * latent_dim;
}

static workspace workspace_of(const weft_backend *b, const weft_kv_layout *l, int thread)
{
    workspace w = {.q = b->latent.thread + (size_t)thread * b->latent.thread_floats};
    w.k = w.q + l->value_dim * CPU_LATENT_HEADS;
    w.score = w.k + CPU_LATENT_SPAN * l->value_dim;
    w.value[0] = w.score + CPU_LATENT_SPAN * CPU_LATENT_HEADS;
    w.value[1] = w.value[0] + CPU_LATENT_HEADS * l->latent_dim;
    return w;
}

void cpu_latent_drop(weft_backend *b)
{
    if (b->latent.map) munmap(b->latent.map, b->latent.bytes);
    b->latent = (cpu_latent){0};
}

weft_status cpu_latent_reserve(weft_backend *b, const weft_latent_size *s, weft_error *err)
{
    const size_t value_dim = (size_t)s->latent_dim + s->rope_dim;
    const size_t index_floats = (size_t)s->index_heads * CPU_SPAN + (size_t)s->index_dim * WEFT_PAGE;
    const size_t floats = cpu_max(workspace_floats(s->latent_dim, value_dim), index_floats);
    const size_t tokens = s->index_heads ? CPU_INDEX_TOKENS : 0;
    const size_t stride = cpu_divide_up((size_t)s->context, WEFT_PAGE) * WEFT_PAGE;
    cpu_layout l = {0, false};
    size_t thread = cpu_room(&l, (size_t)b->threads, floats, 1, sizeof(float));
    size_t query = cpu_room(&l, tokens, s->index_heads, s->index_dim, sizeof(float));
    size_t score = cpu_room(&l, tokens, stride, 1, sizeof(float));
    size_t room = cpu_room(&l, tokens, stride, 1, sizeof(uint32_t));
    if (l.overflow)
        return weft_fail(err, WEFT_E_MEMORY, "scratch for latent attention over %lld tokens: too large",
                         (long long)s->context);
    void *map = mmap(NULL, l.bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED)
        return weft_fail_errno(err, WEFT_E_MEMORY, "scratch of %zu MiB", l.bytes >> 20);
    cpu_latent_drop(b);
    uint8_t *base = map;
    b->latent = (cpu_latent){.map = map,
                             .bytes = l.bytes,
                             .size = *s,
                             .thread = (float *)(void *)(base + thread),
                             .thread_floats = floats,
                             .query = (float *)(void *)(base + query),
                             .score = (float *)(void *)(base + score),
                             .room = (uint32_t *)(void *)(base + room),
                             .score_stride = stride};
    return WEFT_OK;
}

/* ---- attention ---- */

typedef struct latent_job {
    weft_backend *b;
    const weft_latent_attention *a;
    size_t heads, groups; /* of an item; items of a token */
} latent_job;

/* Heads [head, head + heads) of a token, transposed; lanes of no head are 0. */
static void load_queries(const weft_latent_attention *a, size_t token, size_t head, size_t heads,
                         size_t lanes, float *out)
{
    const size_t latent = a->layout->latent_dim, rope = a->layout->value_dim - latent;
    for (size_t h = 0; h < lanes; h++) {
        const size_t at = token * a->n_head + head + h;
        for (size_t d = 0; d < latent; d++)
            out[d * lanes + h] = h < heads ? a->q_latent[at * latent + d] * a->scale : 0;
        for (size_t d = 0; d < rope; d++)
            out[(latent + d) * lanes + h] =
                h < heads ? a->q_rope[at * a->q_rope_stride + d] * a->scale : 0;
    }
}

/* The values that hold a token's j-th position; *out_at its place in them. */
static const uint8_t *values_of(const weft_latent_attention *a, size_t token, size_t j, size_t *out_at)
{
    const weft_kv_layout *l = a->layout;
    const size_t position = a->selected ? (size_t)a->selected[token * a->top_k + j] : j;
    *out_at = position % WEFT_PAGE;
    return (const uint8_t *)a->row[token].page[position / WEFT_PAGE] + weft_kv_offset(l, a->layer, 0) +
           weft_kv_side_bytes(l->type, l->key_dim);
}

static void widen_span(const weft_backend *b, const weft_latent_attention *a, size_t token, size_t from,
                       size_t n, float *out)
{
    const weft_kv_layout *l = a->layout;
    for (size_t j = 0; j < n; j++) {
        size_t at;
        const uint8_t *values = values_of(a, token, from + j, &at);
        b->k->widen[l->type](values, l->value_dim, at, out + j * l->value_dim);
    }
}

/* Asks for the j-th position's row. (q8_0's scales, which lie elsewhere, are not asked for.) */
static void ask_for(const weft_latent_attention *a, size_t token, size_t j)
{
    const weft_kv_layout *l = a->layout;
    const size_t bytes = weft_kv_side_bytes(l->type, l->value_dim) / WEFT_PAGE;
    size_t at;
    const uint8_t *row = values_of(a, token, j, &at) + at * bytes;
    for (size_t i = 0; i < bytes; i += 64) __builtin_prefetch(row + i, 0, 2);
}

/* Scores of a span's n positions, a few at a time; between them the next span's rows are asked for. */
static void score_span(const weft_backend *b, const weft_latent_attention *a, size_t token, size_t from,
                       size_t n, size_t count, size_t lanes, const workspace *w)
{
    enum { FEW = 12 };
    const size_t dim = a->layout->value_dim;
    for (size_t j = 0; j < n; j += FEW) {
        const size_t next = from + CPU_LATENT_SPAN + j;
        for (size_t i = next; i < next + FEW && i < count; i++) ask_for(a, token, i);
        b->k->latent_scores(w->q, lanes, w->k + j * dim, dim, cpu_min(FEW, n - j), w->score + j * lanes);
    }
}

static void latent_item(void *context, uint32_t item, int thread)
{
    const latent_job *job = context;
    const weft_latent_attention *a = job->a;
    const weft_kv_layout *l = a->layout;
    const cpu_kernels *k = job->b->k;
    const size_t token = item / job->groups, head = item % job->groups * job->heads;
    const size_t heads = cpu_min(job->heads, a->n_head - head);
    const size_t lanes = cpu_divide_up(heads, CPU_LANE_HEADS) * CPU_LANE_HEADS;
    const size_t count = a->selected ? (size_t)a->count[token] : (size_t)a->row[token].position + 1;
    const workspace w = workspace_of(job->b, l, thread);
    float max[2][CPU_LATENT_HEADS], sum[2][CPU_LATENT_HEADS];
    load_queries(a, token, head, heads, lanes, w.q);
    for (size_t from = 0; from < count; from += CPU_LATENT_SPAN) {
        const size_t n = cpu_min(CPU_LATENT_SPAN, count - from);
        const int at = from > 0; /* the first span is the sum so far */
        widen_span(job->b, a, token, from, n, w.k);
        score_span(job->b, a, token, from, n, count, lanes, &w);
        k->latent_softmax(w.score, lanes, n, max[at], sum[at]);
        k->latent_values(w.score, lanes, heads, w.k, l->value_dim, n, w.value[at], l->latent_dim);
        if (at)
            k->latent_merge(heads, l->latent_dim, max[0], sum[0], w.value[0], max[1], sum[1], w.value[1]);
    }
    float *out = a->out + (token * a->n_head + head) * l->latent_dim;
    for (size_t h = 0; h < heads; h++)
        k->scale_by(w.value[0] + h * l->latent_dim, 1.0f / sum[0][h], l->latent_dim,
                    out + h * l->latent_dim);
}

void cpu_latent_attention(weft_backend *b, const weft_latent_attention *a)
{
    const weft_kv_layout *l = a->layout;
    assert(l->n_head_kv == 1 && l->latent_dim > 0 && l->latent_dim % WEFT_KV_BLOCK == 0);
    assert(workspace_floats(l->latent_dim, l->value_dim) <= b->latent.thread_floats);
    latent_job job = {.b = b, .a = a, .heads = CPU_LATENT_HEADS};
    while (job.heads > CPU_LANE_HEADS && a->n * cpu_divide_up(a->n_head, job.heads) < (size_t)b->threads)
        job.heads /= 2;
    job.groups = cpu_divide_up(a->n_head, job.heads);
    cpu_pool_run(b->pool, latent_item, &job, (uint32_t)(a->n * job.groups));
}
