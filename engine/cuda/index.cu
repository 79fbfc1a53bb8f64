/* The indexer of sparse attention: every position scored, the best chosen; the CPU's scores to the bit
 * (cpu/index.c) and therefore its choice.
 *
 * Floor of the scores: 2 * heads * dim operations a position, float32; of the choice: 4 bytes a position, five
 * times.
 */
#include "engine/cuda/pages.cuh"

enum {
    INDEX_THREADS = 256,
    INDEX_HEADS = 16, /* at once */
    TOP_THREADS = 512,
    TOP_WARPS = TOP_THREADS / WARP,
    DIGIT = 8,
    BINS = 1 << DIGIT
};

/* ---- scores ---- */

/* A thread a position, 16 heads at a time; rest: their queries, [key_dim][INDEX_HEADS]. Rows that may take all
 * their positions are not scored. */
INLINE void index_score(weft_kv_type type, const weft_cuda_index_args *a, float *rest)
{
    const uint32_t token = blockIdx.y, dim = a->kv.key_dim;
    const int64_t last = a->row[token].position, first = (int64_t)blockIdx.x * INDEX_THREADS;
    const int64_t p = first + threadIdx.x;
    if (last < (int64_t)a->top_k || first > last) return; /* the whole block */
    const float *const weight = a->weight + (uint64_t)token * a->n_head;
    const uint8_t *const keys =
        p <= last ? (const uint8_t *)a->row[token].page[p / WEFT_PAGE] + a->kv.offset : NULL;
    float total = 0;
    for (uint32_t head = 0; head < a->n_head; head += INDEX_HEADS) {
        float sum[INDEX_HEADS];
        __syncthreads(); /* the last heads' queries are not read any more */
        for (uint32_t i = threadIdx.x; i < dim * INDEX_HEADS; i += INDEX_THREADS) {
            const uint32_t h = head + i % INDEX_HEADS;
            rest[i] = h < a->n_head ? a->q[((uint64_t)token * a->n_head + h) * dim + i / INDEX_HEADS] : 0;
        }
        __syncthreads();
        if (!keys) continue;
        UNROLL
        for (int i = 0; i < INDEX_HEADS; i++) sum[i] = 0;
        UNROLL4
        for (uint32_t d = 0; d < dim; d++) {
            const float key = key_of(type, keys, d, (uint32_t)p % WEFT_PAGE);
            const float4 *const q = (const float4 *)(rest + d * INDEX_HEADS);
            UNROLL
            for (int i = 0; i < INDEX_HEADS / 4; i++) {
                const float4 v = q[i];
                sum[4 * i] = fmaf(v.x, key, sum[4 * i]);
                sum[4 * i + 1] = fmaf(v.y, key, sum[4 * i + 1]);
                sum[4 * i + 2] = fmaf(v.z, key, sum[4 * i + 2]);
                sum[4 * i + 3] = fmaf(v.w, key, sum[4 * i + 3]);
            }
        }
        UNROLL
        for (uint32_t i = 0; i < INDEX_HEADS; i++)
            if (head + i < a->n_head) /* a NaN stays one */
                total = fmaf(weight[head + i], 0 > sum[i] ? 0 : sum[i], total);
    }
    if (keys) a->score[(uint64_t)token * a->stride + (uint64_t)p] = total;
}

#define INDEX_SCORE(name, type)                                                                    \
    KERNEL(index_score_##name, INDEX_THREADS, weft_cuda_index_args)                                  \
    {                                                                                              \
        SHARED_REST(float, rest);                                                                  \
        index_score(type, &a, rest);                                                               \
    }
INDEX_SCORE(f32, WEFT_KV_F32)
INDEX_SCORE(f16, WEFT_KV_F16)
INDEX_SCORE(q8_0, WEFT_KV_Q8_0)

/* ---- the choice ---- */

/* What one thread finds for all. */
typedef struct top_found {
    uint32_t digit, left;
} top_found;

/* By the first warp: the digit, counted from the top, at which `wanted` of the counted are reached, and how many of
 * that digit's own are still to be taken. A lane has 8 bins. */
INLINE void find_digit(const uint32_t *count, uint32_t wanted, top_found *found)
{
    enum { EACH = BINS / WARP };
    const uint32_t lane = threadIdx.x;
    const uint32_t top = BINS - 1 - lane * EACH; /* its highest bin: lane 0 has the highest */
    uint32_t own = 0;
    UNROLL
    for (uint32_t i = 0; i < EACH; i++) own += count[top - i];
    const uint32_t upto = warp_upto(own); /* with all higher bins: the lanes' before */
    uint32_t above = upto - own;
    if (above >= wanted || upto < wanted) return; /* another lane's */
    for (uint32_t i = 0; i < EACH; i++) {
        if (above + count[top - i] >= wanted) {
            found->digit = top - i;
            found->left = wanted - above;
            return;
        }
        above += count[top - i];
    }
}

/* The k largest of n scores, as positions in ascending order: first the rank of the k-th, digit by digit, then all
 * above it and the first of those equal to it. Counts are integers: the order of the atomics cannot show. */
KERNEL(top_k, TOP_THREADS, weft_cuda_index_args)
{
    SHARED(uint32_t, count, BINS);
    SHARED(top_found, found, 1);
    SHARED(uint32_t, before, 2 * TOP_WARPS);
    const uint32_t token = blockIdx.x, lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const uint32_t n = (uint32_t)a.row[token].position + 1, k = a.top_k;
    const float *const score = a.score + (uint64_t)token * a.stride;
    int32_t *const out = a.selected + (uint64_t)token * k;
    if (threadIdx.x == 0) a.count[token] = (int32_t)(n < k ? n : k);
    if (n <= k) { /* the whole block: all of them, unscored */
        for (uint32_t i = threadIdx.x; i < n; i += TOP_THREADS) out[i] = (int32_t)i;
        return;
    }
    uint32_t least = 0, equal = k; /* the digits so far; of that rank, how many */
    for (int shift = 32 - DIGIT; shift >= 0; shift -= DIGIT) {
        for (uint32_t i = threadIdx.x; i < BINS; i += TOP_THREADS) count[i] = 0;
        __syncthreads();
        for (uint32_t i = threadIdx.x; i < n; i += TOP_THREADS) {
            const uint32_t rank = rank_of(score[i]);
            if (shift == 32 - DIGIT || rank >> (shift + DIGIT) == least)
                (void)atomicAdd(&count[rank >> shift & (BINS - 1)], 1u);
        }
        __syncthreads();
        if (warp == 0) find_digit(count, equal, found);
        __syncthreads();
        least = least << DIGIT | found->digit;
        equal = found->left;
    }
    uint32_t taken = 0, ties = 0; /* in the positions so far */
    for (uint32_t from = 0; from < n; from += TOP_THREADS) {
        const uint32_t i = from + threadIdx.x, rank = i < n ? rank_of(score[i]) : 0;
        const uint32_t larger = __ballot_sync(ALL, i < n && rank > least);
        const uint32_t same = __ballot_sync(ALL, i < n && rank == least);
        __syncthreads(); /* the last positions' counts are not read any more */
        if (lane == 0) {
            before[warp] = (uint32_t)__popc(larger);
            before[TOP_WARPS + warp] = (uint32_t)__popc(same);
        }
        __syncthreads();
        const uint32_t lower = (UINT32_C(1) << lane) - 1;
        uint32_t at = taken + (uint32_t)__popc(larger & lower), tie = ties + (uint32_t)__popc(same & lower);
        for (uint32_t w = 0; w < TOP_WARPS; w++) {
            at += w < warp ? before[w] : 0;
            tie += w < warp ? before[TOP_WARPS + w] : 0;
            taken += before[w];
            ties += before[TOP_WARPS + w];
        }
        const bool is_larger = larger >> lane & 1, is_tie = (same >> lane & 1) && tie < equal;
        if (is_larger || is_tie) out[at + (tie < equal ? tie : equal)] = (int32_t)i;
    }
}
