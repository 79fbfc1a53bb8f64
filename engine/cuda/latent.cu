/* Latent attention (MLA, absorbed): all heads share one row a position, over all positions or over those
 * selected; the operations of cpu/latent.c in their order: the same bits.
 *
 * A thread block has 32 heads of a token and spans of 128 positions (or places of the selection). Scores: 32
 * dims of the span's rows at a time in shared memory, a thread has 4 heads by 4 positions. Values: a warp has 8
 * heads, a lane 4 dims at a time, straight from the pages. Then the span is merged into what came before, or left
 * for latent_merge.
 *
 * Floor: 2 * heads * (2 latent + rope) float32 operations a position: dense attention at 128 heads is bound by
 * them, not by its 1.1 KiB a position; so is the sparse one, whose positions are few.
 */
#include "engine/cuda/pages.cuh"

enum {
    LATENT_THREADS = 256,
    LATENT_HEADS = 32,
    LATENT_SPAN = WEFT_CUDA_LATENT_SPAN,
    LATENT_DIMS = 32,                /* of rows at once */
    K_STRIDE = LATENT_SPAN + 4,      /* floats from one dim to the next */
    S_STRIDE = LATENT_HEADS + 4,     /* floats from one position's scores to the next */
    VALUE_HEADS = 8,                 /* of a thread */
    VALUE_DIMS = 4                   /* of a thread, 32 apart; 8 would spill */
};

/* A block's shared memory. */
typedef struct latent_room {
    float *k;     /* [LATENT_DIMS][K_STRIDE]: the span's rows, transposed */
    float *q;     /* [LATENT_DIMS][LATENT_HEADS] */
    float *score; /* [LATENT_SPAN][S_STRIDE] */
    float *max, *sum, *before, *now; /* [LATENT_HEADS]: so far; what that and the span are multiplied by */
} latent_room;

INLINE uint32_t latent_count(const weft_cuda_latent_args *a, uint32_t token)
{
    return a->selected ? (uint32_t)a->count[token] : (uint32_t)a->row[token].position + 1;
}

/* The page's values in which place j of a token lies, and where there. */
INLINE const uint8_t *latent_at(const weft_cuda_latent_args *a, uint32_t token, uint32_t j, uint32_t *out_at)
{
    const uint32_t p = a->selected ? (uint32_t)a->selected[(uint64_t)token * a->top_k + j] : j;
    *out_at = p % WEFT_PAGE;
    return (const uint8_t *)a->row[token].page[p / WEFT_PAGE] + a->kv.offset + a->kv.key_bytes;
}

INLINE float query_of(const weft_cuda_latent_args *a, uint32_t token, uint32_t head, uint32_t d)
{
    const uint64_t at = (uint64_t)token * a->n_head + head;
    return d < a->latent_dim ? a->q_latent[at * a->latent_dim + d]
                             : a->q_rope[at * a->q_rope_stride + (d - a->latent_dim)];
}

/* score[p][h] for the n positions from `from` on. */
INLINE void latent_scores(weft_kv_type type, const weft_cuda_latent_args *a, uint32_t token, uint32_t head,
                          uint32_t from, uint32_t n, const latent_room *r)
{
    const uint32_t lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, dim = a->kv.value_dim;
    float sum[4][4]; /* [position][head] */
    UNROLL
    for (int i = 0; i < 16; i++) sum[i / 4][i % 4] = 0;
    for (uint32_t first = 0; first < dim; first += LATENT_DIMS) {
        const uint32_t dims = dim - first < LATENT_DIMS ? dim - first : LATENT_DIMS;
        for (uint32_t j = warp; j < LATENT_SPAN; j += LATENT_THREADS / WARP) {
            float v = 0;
            if (j < n && lane < dims) {
                uint32_t at;
                const uint8_t *const values = latent_at(a, token, from + j, &at);
                v = value_of(type, values, dim, at, first + lane);
            }
            r->k[lane * K_STRIDE + j] = v;
        }
        for (uint32_t i = threadIdx.x; i < LATENT_DIMS * LATENT_HEADS; i += LATENT_THREADS) {
            const uint32_t h = head + i % LATENT_HEADS, d = i / LATENT_HEADS;
            r->q[i] = h < a->n_head && d < dims ? query_of(a, token, h, first + d) * a->scale : 0;
        }
        __syncthreads();
        for (uint32_t d = 0; d < dims; d++) {
            const float4 k = *(const float4 *)(r->k + d * K_STRIDE + 4 * lane);
            const float4 q = *(const float4 *)(r->q + d * LATENT_HEADS + 4 * warp);
            const float kv[4] = {k.x, k.y, k.z, k.w}, qv[4] = {q.x, q.y, q.z, q.w};
            UNROLL
            for (int i = 0; i < 16; i++) sum[i / 4][i % 4] = fmaf(kv[i / 4], qv[i % 4], sum[i / 4][i % 4]);
        }
        __syncthreads();
    }
    UNROLL
    for (uint32_t i = 0; i < 4; i++) {
        const float4 v = {sum[i][0], sum[i][1], sum[i][2], sum[i][3]};
        *(float4 *)(r->score + (4 * lane + i) * S_STRIDE + 4 * warp) = v;
    }
}

/* exp(score - max) in place, and the state so far. A warp has the four heads whose scores it made. */
INLINE void latent_softmax(bool is_first, uint32_t n, const latent_room *r)
{
    const uint32_t lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    __syncwarp();
    for (uint32_t h = 4 * warp; h < 4 * warp + 4; h++) {
        float most = -INFINITY;
        for (uint32_t p = lane; p < n; p += WARP) {
            const float s = r->score[p * S_STRIDE + h];
            most = most > s ? most : s;
        }
        UNROLL
        for (int o = 16; o > 0; o >>= 1) {
            const float other = __shfl_xor_sync(ALL, most, o);
            most = most > other ? most : other;
        }
        for (uint32_t p = lane; p < n; p += WARP)
            r->score[p * S_STRIDE + h] = exp_of(r->score[p * S_STRIDE + h] - most);
        if (lane == 0) r->now[h] = most;
    }
    __syncwarp();
    if (lane >= 4) return;
    const uint32_t h = 4 * warp + lane;
    float sum = 0;
    for (uint32_t p = 0; p < n; p++) sum += r->score[p * S_STRIDE + h];
    const float most = r->now[h], max = is_first || most > r->max[h] ? most : r->max[h];
    const float before = is_first ? 0 : exp_of(r->max[h] - max), now = exp_of(most - max);
    r->sum[h] = is_first ? sum : r->sum[h] * before + sum * now;
    r->max[h] = max;
    r->before[h] = before;
    r->now[h] = now;
}

INLINE float *latent_slot(const weft_cuda_latent_args *a, uint32_t token, uint32_t head, uint32_t span)
{
    return a->slot + (((uint64_t)token * a->n_head + head) * a->spans + span) *
                         (WEFT_CUDA_LATENT_STATE + a->latent_dim);
}

/* The span's values of heads `first` .. + 7 (of the block's) and dims d, d + 32 .., to where they belong. */
INLINE void keep_latent(const weft_cuda_latent_args *a, uint32_t token, uint32_t head, uint32_t first,
                        uint32_t d, uint32_t span, bool is_last, const latent_room *r,
                        float sum[VALUE_HEADS][VALUE_DIMS])
{
    UNROLL
    for (uint32_t i = 0; i < VALUE_HEADS; i++) {
        const uint32_t h = first + i;
        if (head + h >= a->n_head) return;
        float *const slot = a->slot ? latent_slot(a, token, head + h, span) + WEFT_CUDA_LATENT_STATE : NULL;
        float *const out = a->out + ((uint64_t)token * a->n_head + head + h) * a->latent_dim;
        UNROLL
        for (uint32_t k = 0; k < VALUE_DIMS; k++) {
            const uint32_t at = d + k * WARP;
            float v = sum[i][k];
            if (at >= a->latent_dim) continue;
            if (slot) {
                slot[at] = v;
                continue;
            }
            if (span > 0) v = out[at] * r->before[h] + v * r->now[h];
            out[at] = is_last ? v * (1.0f / r->sum[h]) : v;
        }
    }
}

/* Dims d, d + 32 .. of 8 heads, from `first` of the block's on. */
INLINE void add_latent(weft_kv_type type, const weft_cuda_latent_args *a, uint32_t token, uint32_t span,
                       uint32_t n, uint32_t first, uint32_t d, const latent_room *r,
                       float sum[VALUE_HEADS][VALUE_DIMS])
{
    NO_UNROLL
    for (uint32_t j = 0; j < n; j++) {
        uint32_t at;
        const uint8_t *const values = latent_at(a, token, span * LATENT_SPAN + j, &at);
        const float4 p = *(const float4 *)(r->score + j * S_STRIDE + first);
        const float4 q = *(const float4 *)(r->score + j * S_STRIDE + first + 4);
        const float w[VALUE_HEADS] = {p.x, p.y, p.z, p.w, q.x, q.y, q.z, q.w};
        UNROLL
        for (uint32_t k = 0; k < VALUE_DIMS; k++) {
            if (d + k * WARP >= a->latent_dim) break;
            const float v = value_of(type, values, a->kv.value_dim, at, d + k * WARP);
            UNROLL
            for (uint32_t i = 0; i < VALUE_HEADS; i++) sum[i][k] = fmaf(w[i], v, sum[i][k]);
        }
    }
}

INLINE void latent_values(weft_kv_type type, const weft_cuda_latent_args *a, uint32_t token, uint32_t head,
                          uint32_t span, uint32_t n, bool is_last, const latent_room *r)
{
    const uint32_t lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, first = warp % 4 * VALUE_HEADS;
    NO_UNROLL
    for (uint32_t from = warp / 4 * VALUE_DIMS * WARP; from < a->latent_dim; from += 2 * VALUE_DIMS * WARP) {
        float sum[VALUE_HEADS][VALUE_DIMS];
        UNROLL
        for (int i = 0; i < VALUE_HEADS * VALUE_DIMS; i++) sum[i / VALUE_DIMS][i % VALUE_DIMS] = 0;
        add_latent(type, a, token, span, n, first, from + lane, r, sum);
        keep_latent(a, token, head, first, from + lane, span, is_last, r, sum);
    }
}

INLINE void latent_attention(weft_kv_type type, const weft_cuda_latent_args *a, const latent_room *r)
{
    const uint32_t token = blockIdx.y, head = blockIdx.x * LATENT_HEADS, count = latent_count(a, token);
    const uint32_t spans = (count + LATENT_SPAN - 1) / LATENT_SPAN;
    const uint32_t begin = a->slot ? blockIdx.z : 0, end = a->slot ? begin + 1 : spans;
    if (begin >= spans) return; /* the whole block */
    for (uint32_t span = begin; span < end; span++) {
        const uint32_t left = count - span * LATENT_SPAN, n = left < LATENT_SPAN ? left : LATENT_SPAN;
        latent_scores(type, a, token, head, span * LATENT_SPAN, n, r);
        latent_softmax(span == begin, n, r);
        __syncthreads();
        latent_values(type, a, token, head, span, n, span + 1 == spans, r);
        if (a->slot && threadIdx.x < LATENT_HEADS && head + threadIdx.x < a->n_head) {
            float *const slot = latent_slot(a, token, head + threadIdx.x, span);
            slot[0] = r->max[threadIdx.x];
            slot[1] = r->sum[threadIdx.x];
        }
        /* Scores and states are written again only behind the barriers of latent_scores. */
    }
}

#define LATENT(name, type)                                                                         \
    KERNEL(latent_attention_##name, LATENT_THREADS, weft_cuda_latent_args)                           \
    {                                                                                              \
        SHARED(float, k, LATENT_DIMS * K_STRIDE);                                                  \
        SHARED(float, q, LATENT_DIMS * LATENT_HEADS);                                              \
        SHARED(float, score, LATENT_SPAN * S_STRIDE);                                              \
        SHARED(float, state, 4 * LATENT_HEADS);                                                    \
        const latent_room r = {k,                                                                  \
                               q,                                                                  \
                               score,                                                              \
                               state,                                                              \
                               state + LATENT_HEADS,                                               \
                               state + 2 * LATENT_HEADS,                                           \
                               state + 3 * LATENT_HEADS};                                          \
        latent_attention(type, &a, &r);                                                            \
    }
LATENT(f32, WEFT_KV_F32)
LATENT(f16, WEFT_KV_F16)
LATENT(q8_0, WEFT_KV_Q8_0)

/* A thread block a head, a thread every 256th dim: its spans in order. */
KERNEL(latent_merge, LATENT_THREADS, weft_cuda_latent_args)
{
    const uint32_t token = blockIdx.y, head = blockIdx.x;
    const uint32_t spans = (latent_count(&a, token) + LATENT_SPAN - 1) / LATENT_SPAN;
    float *const out = a.out + ((uint64_t)token * a.n_head + head) * a.latent_dim;
    for (uint32_t d = threadIdx.x; d < a.latent_dim; d += LATENT_THREADS) {
        const float *slot = latent_slot(&a, token, head, 0);
        float max = slot[0], sum = slot[1], value = slot[WEFT_CUDA_LATENT_STATE + d];
        UNROLL4
        for (uint32_t span = 1; span < spans; span++) {
            slot = latent_slot(&a, token, head, span);
            const float most = max > slot[0] ? max : slot[0];
            const float before = exp_of(max - most), now = exp_of(slot[0] - most);
            sum = sum * before + slot[1] * now;
            value = value * before + slot[WEFT_CUDA_LATENT_STATE + d] * now;
            max = most;
        }
        out[d] = value * (1.0f / sum);
    }
}
