/* Attention over pages, by the operations of the CPU backend in its order (cpu/attend.inc, cpu/attention.c): the
 * same bits.
 *
 * A thread block has up to 8 or 16 queries that share their keys, and a span of 256 positions at a time. Scores: a
 * thread a position, keys lie side by side for 64 of them; each load serves all queries. Softmax: a warp a
 * query. Values: a thread a dim, four queries at a time; what lies beyond a token's own positions is never read
 * into its sum. Then the span is merged into the sums of the spans before it, or left for attention_merge.
 *
 * Floor at decode: the bytes of keys and values once. A key costs a thread one FMA a query, so prefill is bound
 * by float32 FMAs.
 */
#include "engine/cuda/pages.cuh"

enum {
    SPAN = WEFT_CUDA_SPAN,
    ATTENTION_THREADS = SPAN,
    ATTENTION_WARPS = ATTENTION_THREADS / WARP,
    PARTS = 16,  /* partial sums of exponentials */
    TOGETHER = 4 /* queries whose values one thread sums together */
};

INLINE float sum_of_parts(const float *s)
{
    float v[8];
    UNROLL
    for (int i = 0; i < 8; i++) v[i] = s[i] + s[i + 8];
    UNROLL
    for (int i = 0; i < 4; i++) v[i] += v[i + 4];
    return (v[0] + v[2]) + (v[1] + v[3]);
}

/* ---- which queries, which positions ---- */

typedef struct query_block {
    uint32_t kv_head, head, heads; /* the first of the query heads, how many */
    uint32_t token, tokens, queries; /* query i: token + i / heads, head + i % heads */
    int64_t span; /* the first that its first token sees */
    int64_t last; /* the last that its last token sees */
} query_block;

INLINE int64_t first_position(const weft_cuda_attention_args *a, uint32_t token)
{
    const int64_t position = a->row[token].position;
    return a->window > 0 && position >= a->window ? position - a->window + 1 : 0;
}

INLINE query_block queries_of(const weft_cuda_attention_args *a, uint32_t most)
{
    query_block b;
    const uint32_t group = a->n_head / a->kv.n_head_kv, room = most / a->tile;
    const uint32_t heads = group < room ? group : room, parts = (group + heads - 1) / heads;
    const uint32_t part = blockIdx.x % parts;
    b.kv_head = blockIdx.x / parts;
    b.head = b.kv_head * group + part * heads;
    b.heads = group - part * heads < heads ? group - part * heads : heads;
    b.token = blockIdx.y * a->tile;
    b.tokens = a->n - b.token < a->tile ? a->n - b.token : a->tile;
    b.queries = b.tokens * b.heads;
    b.span = first_position(a, b.token) / SPAN;
    b.last = a->row[b.token + b.tokens - 1].position / SPAN;
    return b;
}

/* Positions of a span that a token sees: [from, to) within it; empty if from >= to. */
typedef struct visible {
    int32_t from, to;
} visible;

INLINE visible visible_in(const weft_cuda_attention_args *a, uint32_t token, int64_t span)
{
    const int64_t from = first_position(a, token) - span * SPAN;
    const int64_t to = a->row[token].position + 1 - span * SPAN;
    visible v;
    v.from = from > 0 ? (from < SPAN ? (int32_t)from : SPAN) : 0;
    v.to = to < SPAN ? (int32_t)to : SPAN;
    return v;
}

INLINE const uint8_t *keys_at(const weft_cuda_attention_args *a, const query_block *b, int64_t page)
{
    return (const uint8_t *)a->row[b->token + b->tokens - 1].page[page] + a->kv.offset +
           b->kv_head * a->kv.head_bytes;
}

/* ---- scores ---- */

/* score[i][p] for this thread's position p of the span; -inf where query i does not see it. q [key_dim][most] */
INLINE void score_position(weft_kv_type type, int most, const weft_cuda_attention_args *a,
                           const query_block *b, int64_t span, const float *q, float *score)
{
    const int32_t p = (int32_t)threadIdx.x;
    const visible early = visible_in(a, b->token, span);
    const visible late = visible_in(a, b->token + b->tokens - 1, span);
    float sum[16];
    UNROLL
    for (int i = 0; i < most; i++) sum[i] = 0;
    if (p >= early.from && p < late.to) {
        const uint8_t *const keys = keys_at(a, b, (span * SPAN + p) / WEFT_PAGE);
        UNROLL4
        for (uint32_t d = 0; d < a->kv.key_dim; d++) {
            const float key = key_of(type, keys, d, (uint32_t)p % WEFT_PAGE);
            const float4 *const v = (const float4 *)(q + d * (uint32_t)most);
            UNROLL
            for (int i = 0; i < most / 4; i++) {
                const float4 w = v[i];
                sum[4 * i] = fmaf(w.x, key, sum[4 * i]);
                sum[4 * i + 1] = fmaf(w.y, key, sum[4 * i + 1]);
                sum[4 * i + 2] = fmaf(w.z, key, sum[4 * i + 2]);
                sum[4 * i + 3] = fmaf(w.w, key, sum[4 * i + 3]);
            }
        }
    }
    UNROLL
    for (int i = 0; i < most; i++) {
        if (i >= (int)b->queries) break;
        const visible own = visible_in(a, b->token + (uint32_t)i / b->heads, span);
        score[i * SPAN + p] = p >= own.from && p < own.to ? sum[i] : -INFINITY;
    }
}

/* ---- softmax ---- */

/* Of each query: what its spans came to so far, and what that and this span are to be multiplied by. */
typedef struct query_state {
    float max, before, now;
    float sum[PARTS];
} query_state;

/* exp(score - max) in place, by one warp. Returns the largest score; lane i < 16 has part i of the sum. */
INLINE float softmax_of_span(float *score, float *out_sum)
{
    const uint32_t lane = threadIdx.x % WARP;
    float max = -INFINITY, sum = 0;
    for (uint32_t p = lane; p < SPAN; p += WARP) max = max > score[p] ? max : score[p];
    UNROLL
    for (int o = 16; o > 0; o >>= 1) {
        const float other = __shfl_xor_sync(ALL, max, o);
        max = max > other ? max : other;
    }
    for (uint32_t p = lane; p < SPAN; p += WARP) score[p] = exp_of(score[p] - max);
    __syncwarp();
    if (lane < PARTS)
        for (uint32_t p = lane; p < SPAN; p += PARTS) sum += score[p];
    *out_sum = sum;
    return max;
}

/* The span's largest score and a lane's part of its sum into those so far; is_first: there are none. One warp. */
INLINE void merge_state(bool is_first, float span_max, float span_sum, query_state *total)
{
    const uint32_t lane = threadIdx.x % WARP;
    const float max = is_first || span_max > total->max ? span_max : total->max;
    const float before = is_first ? 0 : exp_of(total->max - max), now = exp_of(span_max - max);
    __syncwarp(); /* all have read total->max */
    if (lane < PARTS)
        total->sum[lane] = is_first ? span_sum : total->sum[lane] * before + span_sum * now;
    if (lane == 0) {
        total->max = max;
        total->before = before;
        total->now = now;
    }
}

/* ---- values ---- */

/* Adds positions [from, to) of a span to dim d of queries first .. first + 3. checked: some of these
 * positions are not for all of them. */
INLINE void add_values(weft_kv_type type, bool checked, const weft_cuda_attention_args *a,
                       const query_block *b, int64_t span, int32_t from, int32_t to, uint32_t first,
                       uint32_t d, const float *score, float *sum)
{
    visible own[TOGETHER];
    if (from >= to) return;
    UNROLL
    for (uint32_t i = 0; i < TOGETHER; i++) {
        const uint32_t q = first + i < b->queries ? first + i : b->queries - 1;
        if (checked) own[i] = visible_in(a, b->token + q / b->heads, span);
    }
    while (from < to) {
        const int32_t end = from / WEFT_PAGE * WEFT_PAGE + WEFT_PAGE;
        const int32_t stop = end < to ? end : to;
        const uint8_t *const values =
            keys_at(a, b, (span * SPAN + from) / WEFT_PAGE) + a->kv.key_bytes;
        UNROLL4
        for (int32_t p = from; p < stop; p++) {
            const float v = value_of(type, values, a->kv.value_dim, (uint32_t)p % WEFT_PAGE, d);
            UNROLL
            for (uint32_t i = 0; i < TOGETHER; i++)
                if (!checked || (p >= own[i].from && p < own[i].to))
                    sum[i] = fmaf(score[(first + i) * SPAN + (uint32_t)p], v, sum[i]);
        }
        from = stop;
    }
}

INLINE float *slot_of(const weft_cuda_attention_args *a, uint32_t token, uint32_t head, uint64_t span)
{
    return a->slot + (((uint64_t)token * a->n_head + head) * a->spans + span) *
                         (WEFT_CUDA_STATE + a->kv.value_dim);
}

/* This span's values of four queries, dim d, to where they belong. */
INLINE void keep_values(const weft_cuda_attention_args *a, const query_block *b, int64_t span,
                        uint32_t first, uint32_t d, const query_state *total, const float *sum)
{
    UNROLL
    for (uint32_t i = 0; i < TOGETHER; i++) {
        const uint32_t q = first + i, token = b->token + q / b->heads, head = b->head + q % b->heads;
        if (q >= b->queries) return;
        if (a->slot) {
            slot_of(a, token, head, (uint64_t)(span - b->span))[WEFT_CUDA_STATE + d] = sum[i];
            continue;
        }
        float *const out = a->out + ((uint64_t)token * a->n_head + head) * a->kv.value_dim + d;
        const int64_t begin = first_position(a, token) / SPAN, end = a->row[token].position / SPAN;
        if (span < begin || span > end) continue;
        float v = sum[i];
        if (span > begin) v = *out * total[q].before + v * total[q].now;
        *out = span == end ? v * (1.0f / sum_of_parts(total[q].sum)) : v;
    }
}

INLINE void values_of_span(weft_kv_type type, const weft_cuda_attention_args *a, const query_block *b,
                           int64_t span, const float *score, const query_state *total)
{
    const uint32_t lanes = (a->kv.value_dim + WARP - 1) / WARP * WARP;
    const uint32_t groups = ATTENTION_THREADS / lanes, group = threadIdx.x / lanes;
    const uint32_t d = threadIdx.x % lanes;
    const visible early = visible_in(a, b->token, span);
    const visible late = visible_in(a, b->token + b->tokens - 1, span);
    const int32_t from = late.from, to = early.to > from ? early.to : from; /* what all see */
    if (group >= groups || d >= a->kv.value_dim) return;
    for (uint32_t first = group * TOGETHER; first < b->queries; first += groups * TOGETHER) {
        float sum[TOGETHER] = {0, 0, 0, 0};
        add_values(type, true, a, b, span, early.from, from, first, d, score, sum);
        add_values(type, false, a, b, span, from, to, first, d, score, sum);
        add_values(type, true, a, b, span, to, late.to, first, d, score, sum);
        keep_values(a, b, span, first, d, total, sum);
    }
}

/* ---- kernels ---- */

/* rest: q [key_dim][most], score [most][SPAN]; total [most] */
INLINE void attention(weft_kv_type type, int most, const weft_cuda_attention_args *a, float *rest,
                      query_state *total)
{
    const query_block b = queries_of(a, (uint32_t)most);
    float *const q = rest, *const score = rest + a->kv.key_dim * (uint32_t)most;
    const int64_t begin = b.span + (a->slot ? blockIdx.z : 0), end = a->slot ? begin : b.last;
    if (begin > b.last) return; /* the whole block: a span that this row does not have */
    for (uint32_t i = threadIdx.x; i < a->kv.key_dim * (uint32_t)most; i += ATTENTION_THREADS) {
        const uint32_t d = i / (uint32_t)most, k = i % (uint32_t)most;
        const uint64_t head = (uint64_t)(b.token + k / b.heads) * a->n_head + b.head + k % b.heads;
        q[i] = k < b.queries ? a->q[head * a->kv.key_dim + d] * a->scale : 0;
    }
    __syncthreads();
    for (int64_t span = begin; span <= end; span++) {
        score_position(type, most, a, &b, span, q, score);
        __syncthreads();
        for (uint32_t i = threadIdx.x / WARP; i < b.queries; i += ATTENTION_WARPS) {
            const uint32_t token = b.token + i / b.heads;
            const int64_t own = first_position(a, token) / SPAN;
            if (span < own || span > a->row[token].position / SPAN) continue;
            float sum;
            const float max = softmax_of_span(score + i * SPAN, &sum);
            merge_state(a->slot || span == own, max, sum, &total[i]);
        }
        __syncthreads();
        values_of_span(type, a, &b, span, score, total);
        if (a->slot && threadIdx.x < b.queries * PARTS) {
            const uint32_t i = threadIdx.x / PARTS, part = threadIdx.x % PARTS;
            float *const slot = slot_of(a, b.token + i / b.heads, b.head + i % b.heads,
                                        (uint64_t)(span - b.span));
            if (part == 0) slot[0] = total[i].max;
            slot[WEFT_CUDA_STATE - PARTS + part] = total[i].sum[part];
        }
        if (span < end) __syncthreads(); /* score and total are written again */
    }
}

#define ATTENTION(name, type, most)                                                                \
    KERNEL(attention_##name##_##most, ATTENTION_THREADS, weft_cuda_attention_args)                   \
    {                                                                                              \
        SHARED_REST(float, rest);                                                                  \
        SHARED(query_state, total, most);                                                          \
        attention(type, most, &a, rest, total);                                                    \
    }
ATTENTION(f32, WEFT_KV_F32, 8)
ATTENTION(f32, WEFT_KV_F32, 16)
ATTENTION(f16, WEFT_KV_F16, 8)
ATTENTION(f16, WEFT_KV_F16, 16)
ATTENTION(q8_0, WEFT_KV_Q8_0, 8)
ATTENTION(q8_0, WEFT_KV_Q8_0, 16)

/* A thread block a query, a thread a dim: its spans in order. */
KERNEL(attention_merge, WEFT_CUDA_DIM, weft_cuda_attention_args)
{
    SHARED(float, sums, PARTS);
    const uint32_t token = blockIdx.y, head = blockIdx.x, d = threadIdx.x;
    const uint32_t leader = token / a.tile * a.tile; /* slots count from its first span */
    const int64_t base = first_position(&a, leader) / SPAN;
    const int64_t begin = first_position(&a, token) / SPAN - base;
    const int64_t end = a.row[token].position / SPAN - base;
    float max = 0, value = 0, sum = 0;
    UNROLL4
    for (int64_t span = begin; span <= end; span++) {
        const float *const slot = slot_of(&a, token, head, (uint64_t)span);
        const float v = d < a.kv.value_dim ? slot[WEFT_CUDA_STATE + d] : 0;
        const float s = d < PARTS ? slot[WEFT_CUDA_STATE - PARTS + d] : 0, m = slot[0];
        const float most = span == begin || m > max ? m : max;
        const float before = exp_of(max - most), now = exp_of(m - most);
        value = span == begin ? v : value * before + v * now;
        sum = span == begin ? s : sum * before + s * now;
        max = most;
    }
    if (d < PARTS) sums[d] = sum;
    __syncthreads();
    if (d < a.kv.value_dim)
        a.out[((uint64_t)token * a.n_head + head) * a.kv.value_dim + d] = value * (1.0f / sum_of_parts(sums));
}
