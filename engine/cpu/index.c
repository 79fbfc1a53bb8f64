/* The indexer: every position scored, the best chosen.
 *
 * Scores are the products of attention's own kernel (keys transposed, lanes over positions, one chain over dims),
 * then one chain over heads. Keys are widened to float once for all heads: converting them for every 12 heads took a
 * fifth of the time. An item is one token and a few pages; the choice of a token is one item. The
 * choice is a radix select over the scores as integers, so it is exact, and ties go to lower positions by the order
 * in which they are collected. Floor: 2 * heads * dim operations a position; the choice reads 4 bytes a position
 * twice.
 */
#include "engine/cpu/cpu.h"

#include <assert.h>

enum { RUN_PAGES = 8, DIGIT = 11, BINS = 1 << DIGIT };

typedef struct index_job {
    weft_backend *b;
    const weft_index *x;
    size_t token[CPU_INDEX_TOKENS]; /* of this wave */
    size_t n, runs;                 /* items of a token: RUN_PAGES pages each */
} index_job;

static size_t positions_of(const weft_index *x, size_t token)
{
    return (size_t)x->row[token].position + 1;
}

/* ---- scores ---- */

/* Chunks of heads, each [key_dim][heads of the chunk], as `scores` takes them. */
static void query_item(void *context, uint32_t item, int thread)
{
    const index_job *job = context;
    const weft_index *x = job->x;
    const size_t dim = x->layout->key_dim, most = cpu_query_chunk(job->b, x->n_head);
    const float *q = x->q + job->token[item] * x->n_head * dim;
    float *out = job->b->latent.query + item * x->n_head * dim;
    for (size_t first = 0; first < x->n_head; first += most) {
        const size_t width = cpu_min(most, x->n_head - first);
        for (size_t i = 0; i < width; i++)
            for (size_t d = 0; d < dim; d++) out[d * width + i] = q[(first + i) * dim + d];
        out += width * dim;
    }
}

/* A share of the next page's keys, so that all are there when it is their turn. */
static void ask_for(const uint8_t *keys, size_t bytes, size_t share, size_t shares)
{
    const size_t lines = cpu_divide_up(bytes, 64);
    for (size_t i = lines * share / shares; i < lines * (share + 1) / shares; i++)
        __builtin_prefetch(keys + 64 * i, 0, 2);
}

static void score_item(void *context, uint32_t item, int thread)
{
    const index_job *job = context;
    const weft_index *x = job->x;
    const weft_backend *b = job->b;
    const size_t which = item / job->runs, token = job->token[which], dim = x->layout->key_dim;
    const size_t pages = cpu_divide_up(positions_of(x, token), WEFT_PAGE);
    const size_t offset = weft_kv_offset(x->layout, x->layer, 0), most = cpu_query_chunk(b, x->n_head);
    const size_t bytes = weft_kv_side_bytes(x->layout->type, x->layout->key_dim);
    const float *q = b->latent.query + which * x->n_head * dim;
    float *heads = b->latent.thread + (size_t)thread * b->latent.thread_floats;
    float *keys = heads + x->n_head * CPU_SPAN;
    float *out = b->latent.score + which * b->latent.score_stride;
    size_t page = item % job->runs * RUN_PAGES;
    const size_t end = cpu_min(pages, page + RUN_PAGES);
    for (; page < end; page++) {
        const uint8_t *next = (const uint8_t *)x->row[token].page[cpu_min(page + 1, pages - 1)] + offset;
        b->k->widen_keys[x->layout->type]((const uint8_t *)x->row[token].page[page] + offset, dim, keys);
        for (size_t i = 0; i < x->n_head; i += most) {
            ask_for(next, bytes, i / most, cpu_divide_up(x->n_head, most));
            b->k->scores[WEFT_KV_F32](keys, dim, q + i * dim, cpu_min(most, x->n_head - i), keys,
                                      heads + i * CPU_SPAN);
        }
        b->k->index_combine(heads, x->n_head, x->weight + token * x->n_head, out + page * WEFT_PAGE);
    }
}

/* ---- the choice ---- */

/* Floats as integers of the same order; -0 as +0, NaN below all. */
static uint32_t rank_of(float x)
{
    uint32_t u;
    const float y = x + 0.0f;
    memcpy(&u, &y, sizeof u);
    if (y != y) return 0;
    return u & 0x80000000 ? ~u : u | 0x80000000;
}

/* Which digit the *k-th largest has, given how often each occurs; *k becomes what is still to be taken of it. */
static uint32_t digit_of(const uint32_t count[BINS], uint32_t digit, size_t *k)
{
    for (; count[digit] < *k; digit--) *k -= count[digit];
    return digit;
}

/* The first digit is found over all scores. Then only those that reach it are looked at, in ascending order of position:
 * a few more than k, unless many are alike. */
void cpu_select_top(const float *score, size_t n, size_t k, uint32_t *room, int32_t *out)
{
    enum { FIRST = 32 - DIGIT, SECOND = FIRST - DIGIT };
    uint32_t count[BINS] = {0};
    size_t equal = k, near = 0, taken = 0;
    assert(k > 0 && k <= n);
    for (size_t i = 0; i < n; i++) count[rank_of(score[i]) >> FIRST]++;
    uint32_t least = digit_of(count, BINS - 1, &equal);
    for (size_t i = 0; i < n; i++) {
        room[near] = (uint32_t)i;
        near += rank_of(score[i]) >> FIRST >= least;
    }
    for (int shift = SECOND, width = DIGIT;; shift = 0, width = SECOND) { /* 11 bits, then the last 10 */
        memset(count, 0, sizeof count);
        for (size_t i = 0; i < near; i++) {
            const uint32_t rank = rank_of(score[room[i]]);
            if (rank >> (shift + width) == least) count[rank >> shift & ((1u << width) - 1)]++;
        }
        least = least << width | digit_of(count, (1u << width) - 1, &equal);
        if (shift == 0) break;
    }
    for (size_t i = 0; taken < k; i++) {
        const uint32_t rank = rank_of(score[room[i]]);
        if (rank < least || (rank == least && equal == 0)) continue;
        equal -= rank == least;
        out[taken++] = (int32_t)room[i];
    }
}

static void select_item(void *context, uint32_t item, int thread)
{
    const index_job *job = context;
    const weft_index *x = job->x;
    const size_t token = job->token[item];
    cpu_select_top(job->b->latent.score + item * job->b->latent.score_stride, positions_of(x, token),
                   x->top_k, job->b->latent.room + item * job->b->latent.score_stride,
                   x->selected + token * x->top_k);
}

/* The next tokens that have more positions than they may take; the others take all. */
static size_t next_wave(index_job *job, size_t token)
{
    const weft_index *x = job->x;
    size_t longest = 0;
    for (job->n = 0; token < x->n && job->n < CPU_INDEX_TOKENS; token++) {
        const size_t positions = positions_of(x, token), count = cpu_min(positions, x->top_k);
        x->count[token] = (int32_t)count;
        if (positions > x->top_k) {
            job->token[job->n++] = token;
            longest = cpu_max(longest, positions);
        } else {
            for (size_t i = 0; i < count; i++) x->selected[token * x->top_k + i] = (int32_t)i;
        }
    }
    job->runs = cpu_divide_up(longest, RUN_PAGES * WEFT_PAGE);
    return token;
}

void cpu_index_select(weft_backend *b, const weft_index *x)
{
    index_job job = {.b = b, .x = x};
    assert(x->n_head <= b->latent.size.index_heads && x->layout->key_dim <= b->latent.size.index_dim);
    for (size_t token = 0; token < x->n;) {
        token = next_wave(&job, token);
        if (job.n == 0) continue;
        cpu_pool_run(b->pool, query_item, &job, (uint32_t)job.n);
        cpu_pool_run(b->pool, score_item, &job, (uint32_t)(job.n * job.runs));
        cpu_pool_run(b->pool, select_item, &job, (uint32_t)job.n);
    }
}
