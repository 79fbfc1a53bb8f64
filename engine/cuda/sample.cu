/* The next token, drawn where the logits lie: engine/sample.c's draw to the bit, as far as it needs no order among the
 * candidates: the largest logit, or with a temperature any id by its weight. (Penalties, top-k, top-p and min-p
 * stay with the host, which then takes the row of logits.)
 *
 * A thread block a row. Weights are summed in double in sample.c's order: eight lanes over 512 ids, the lanes, then the
 * blocks of 512 one after the other. Floor: the row twice, a few microseconds.
 */
#include "engine/cuda/device.cuh"

enum {
    SAMPLE_THREADS = 512,
    SAMPLE_WARPS = SAMPLE_THREADS / WARP,
    SAMPLE_BLOCK = 512,
    SAMPLE_BLOCKS = WEFT_CUDA_VOCAB / SAMPLE_BLOCK,
    SAMPLE_LANES = 8
};

INLINE uint64_t mixed(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}
/* On [0, 1), of (seed, position) alone. */
INLINE double uniform_of(uint64_t seed, int64_t position)
{
    const uint64_t stream = mixed(seed + 0x9e3779b97f4a7c15u);
    const uint64_t z = mixed(stream + ((uint64_t)position + 1) * 0x9e3779b97f4a7c15u);
    return (double)(z >> 11) * 0x1p-53;
}

INLINE bool is_allowed(const weft_cuda_draw *draw, uint32_t id)
{
    return !draw->allowed || (draw->allowed[id / 32] >> id % 32 & 1);
}

INLINE float weight_of_id(const weft_cuda_draw *draw, const float *logit, uint32_t id, float top)
{
    if (!is_allowed(draw, id)) return 0;
    return exp_of((float)(((double)logit[id] - (double)top) / draw->temperature));
}

/* The lowest id of the largest allowed logits, as its key (0: none is allowed), and whether all logits are finite; for
 * every thread. */
INLINE uint64_t largest_of(const weft_cuda_draw *draw, const float *logit, uint32_t n, uint64_t *part,
                           uint32_t *part_bad, bool *out_finite)
{
    uint64_t best = 0;
    bool bad = false;
    for (uint32_t i = threadIdx.x; i < n; i += SAMPLE_THREADS) {
        const float v = logit[i];
        const uint64_t key = (uint64_t)rank_of(v) << 32 | (UINT32_MAX - i);
        bad |= v - v != 0;
        if (is_allowed(draw, i) && key > best) best = key;
    }
    UNROLL
    for (int o = 16; o > 0; o >>= 1) {
        const uint64_t other = __shfl_xor_sync(ALL, best, o);
        best = other > best ? other : best;
    }
    const uint32_t any_bad = __ballot_sync(ALL, bad);
    if (threadIdx.x % WARP == 0) {
        part[threadIdx.x / WARP] = best;
        part_bad[threadIdx.x / WARP] = any_bad;
    }
    __syncthreads();
    *out_finite = true;
    for (uint32_t w = 0; w < SAMPLE_WARPS; w++) {
        best = part[w] > best ? part[w] : best;
        if (part_bad[w]) *out_finite = false;
    }
    return best;
}

/* Sums of blocks of 512 ids, a warp each; weight: [SAMPLE_WARPS][SAMPLE_BLOCK], lane: [SAMPLE_WARPS][SAMPLE_LANES] */
INLINE void sum_blocks(const weft_cuda_draw *draw, const float *logit, uint32_t n, float top, float *weight,
                       double *lanes, double *sum)
{
    const uint32_t lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    float *const w = weight + warp * SAMPLE_BLOCK;
    for (uint32_t b = warp; b * SAMPLE_BLOCK < n; b += SAMPLE_WARPS) {
        const uint32_t first = b * SAMPLE_BLOCK, left = n - first;
        const uint32_t count = left < SAMPLE_BLOCK ? left : SAMPLE_BLOCK, even = count / SAMPLE_LANES * SAMPLE_LANES;
        for (uint32_t i = lane; i < count; i += WARP) w[i] = weight_of_id(draw, logit, first + i, top);
        __syncwarp();
        if (lane < SAMPLE_LANES) {
            double s = 0;
            for (uint32_t i = lane; i < even; i += SAMPLE_LANES) s += (double)w[i];
            lanes[warp * SAMPLE_LANES + lane] = s;
        }
        __syncwarp();
        if (lane == 0) {
            double s = 0;
            for (uint32_t i = 0; i < SAMPLE_LANES; i++) s += lanes[warp * SAMPLE_LANES + i];
            for (uint32_t i = even; i < count; i++) s += (double)w[i];
            sum[b] = s;
        }
        /* Weights are written again once all lanes have read theirs; the rest is of the last block alone. */
    }
}

/* By one thread: the block in which the running sum passes u * total, and the sum before it. */
typedef struct draw_found {
    double before, target;
    uint32_t first;
} draw_found;

INLINE void find_block(const double *sum, uint32_t n, double u, draw_found *found)
{
    const uint32_t blocks = (n + SAMPLE_BLOCK - 1) / SAMPLE_BLOCK;
    double total = 0, before = 0;
    found->first = 0;
    for (uint32_t b = 0; b < blocks; b++) total += sum[b];
    for (uint32_t b = 0; b < blocks; b++) {
        if (sum[b] <= 0) continue;
        found->first = b * SAMPLE_BLOCK;
        if (before + sum[b] > u * total) break;
        before += sum[b];
    }
    found->before = before;
    found->target = u * total;
}

KERNEL(sample, SAMPLE_THREADS, weft_cuda_sample_args)
{
    SHARED(uint64_t, part, SAMPLE_WARPS);
    SHARED(uint32_t, part_bad, SAMPLE_WARPS);
    SHARED(float, weight, SAMPLE_WARPS * SAMPLE_BLOCK);
    SHARED(double, lanes, SAMPLE_WARPS * SAMPLE_LANES);
    SHARED(double, sum, SAMPLE_BLOCKS);
    SHARED(draw_found, found, 1);
    const uint32_t n = a.n_vocab;
    const float *const logit = a.logits + (uint64_t)blockIdx.x * n;
    const weft_cuda_draw draw = a.draw[blockIdx.x];
    bool finite;
    const uint64_t best = largest_of(&draw, logit, n, part, part_bad, &finite);
    const uint32_t top = UINT32_MAX - (uint32_t)best;
    uint32_t id = best ? top : UINT32_MAX;
    if (best && finite && draw.temperature > 0) { /* the whole block or none */
        sum_blocks(&draw, logit, n, logit[top], weight, lanes, sum);
        __syncthreads();
        if (threadIdx.x == 0) find_block(sum, n, uniform_of(draw.seed, draw.position), found);
        __syncthreads();
        const uint32_t left = n - found->first, count = left < SAMPLE_BLOCK ? left : SAMPLE_BLOCK;
        if (threadIdx.x < count)
            weight[threadIdx.x] = weight_of_id(&draw, logit, found->first + threadIdx.x, logit[top]);
        __syncthreads();
        double run = found->before;
        id = 0;
        for (uint32_t i = 0; i < count; i++) { /* every thread the same */
            if (weight[i] <= 0) continue;
            id = found->first + i;
            run += (double)weight[i];
            if (run > found->target) break;
        }
    }
    if (threadIdx.x == 0) {
        a.out[blockIdx.x].id = (int32_t)id;
        a.out[blockIdx.x].finite = finite;
    }
}
