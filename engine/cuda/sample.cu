/* The next token, drawn where the logits lie: engine/sample.c's draw to the bit. (The penalty stays with the host.)
 *
 * Weights and their sums are made by the whole GPU: a weight is a division in double, which a consumer's card does 64
 * times slower than one in float. Sums run in sample.c's order: eight lanes over 512 ids, the lanes, then the blocks of
 * 512 one after the other. The draw is one thread block's. With filters it needs the candidates from the most probable
 * on: a histogram over the weights' upper bits finds how far down at most WEFT_CUDA_KEPT of them reach, those are
 * sorted, and one thread walks them as the host walks its heap. A draw that needs more of them (a flat distribution
 * with a wide nucleus, many equal logits) is left to the host.
 *
 * Floor: the row read twice, its weights written once and, with filters, read twice. One thread block reads 150,000 floats
 * in five to ten microseconds.
 */
#include "engine/cuda/device.cuh"

enum {
    SAMPLE_THREADS = 512,
    SAMPLE_WARPS = SAMPLE_THREADS / WARP,
    SAMPLE_BLOCK = 512, /* ids of a sum */
    SAMPLE_LANES = 8,
    WEIGH_WARPS = 4,
    WEIGHT_SHIFT = 19, /* of a weight's bits: 16 bins an octave */
    WEIGHT_BINS = 2048 /* weights are at most 1: bin 2032 */
};

/* ---- the largest ---- */

INLINE bool is_allowed(const weft_cuda_draw *draw, uint32_t id)
{
    return !draw->allowed || (draw->allowed[id / 32] >> id % 32 & 1);
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

KERNEL(sample_top, SAMPLE_THREADS, weft_cuda_sample_args)
{
    SHARED(uint64_t, part, SAMPLE_WARPS);
    SHARED(uint32_t, part_bad, SAMPLE_WARPS);
    const weft_cuda_draw draw = a.draw[blockIdx.x];
    weft_cuda_drawn drawn = {WEFT_CUDA_NOT_DRAWN, 1};
    if (draw.temperature >= 0) { /* the whole block or none */
        bool finite;
        const uint64_t best =
            largest_of(&draw, a.logits + (uint64_t)blockIdx.x * a.n_vocab, a.n_vocab, part, part_bad, &finite);
        drawn.id = best ? (int32_t)(UINT32_MAX - (uint32_t)best) : -1;
        drawn.finite = finite;
    }
    if (threadIdx.x == 0) a.out[blockIdx.x] = drawn;
}

/* ---- weights ---- */

/* Whether there is something to draw beyond what sample_top found. */
INLINE bool draws(const weft_cuda_draw *draw, const weft_cuda_drawn *largest)
{
    return draw->temperature > 0 && largest->id >= 0 && largest->finite;
}

INLINE float weight_of_id(const weft_cuda_draw *draw, const float *logit, uint32_t id, float top)
{
    if (!is_allowed(draw, id)) return 0;
    return exp_of((float)(((double)logit[id] - (double)top) / draw->temperature));
}

KERNEL(sample_weigh, WEIGH_WARPS * WARP, weft_cuda_sample_args)
{
    SHARED(float, weights, WEIGH_WARPS * SAMPLE_BLOCK);
    SHARED(double, lanes, WEIGH_WARPS * SAMPLE_LANES);
    const uint32_t lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, row = blockIdx.y;
    const uint32_t block = blockIdx.x * WEIGH_WARPS + warp, first = block * SAMPLE_BLOCK;
    const weft_cuda_draw draw = a.draw[row];
    const weft_cuda_drawn largest = a.out[row];
    if (first >= a.n_vocab || !draws(&draw, &largest)) return; /* the whole warp */
    const float *const logit = a.logits + (uint64_t)row * a.n_vocab;
    float *const w = weights + warp * SAMPLE_BLOCK, *const out = a.weight + (uint64_t)row * a.n_vocab + first;
    const uint32_t left = a.n_vocab - first, count = left < SAMPLE_BLOCK ? left : SAMPLE_BLOCK;
    const uint32_t even = count / SAMPLE_LANES * SAMPLE_LANES;
    for (uint32_t i = lane; i < count; i += WARP)
        out[i] = w[i] = weight_of_id(&draw, logit, first + i, logit[largest.id]);
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
        a.sum[(uint64_t)row * WEFT_CUDA_SUMS + block] = s;
    }
}

/* ---- the draw ---- */

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

/* What one thread, or one warp, finds for all. */
typedef struct draw_found {
    double total, before; /* of all weights; of the blocks before `first`, */
    uint32_t first;       /* in whose block the running sum passes u * total */
    uint32_t least;       /* bin down to which candidates are kept, */
    uint32_t kept, all;   /* how many those are; all candidates */
} draw_found;

/* By one thread. */
INLINE void find_block(const double *sum, uint32_t blocks, double u, draw_found *found)
{
    double total = 0, before = 0;
    uint32_t first = 0;
    for (uint32_t b = 0; b < blocks; b++) total += sum[b];
    for (uint32_t b = 0; b < blocks; b++) {
        if (sum[b] <= 0) continue;
        first = b * SAMPLE_BLOCK;
        if (before + sum[b] > u * total) break;
        before += sum[b];
    }
    found->total = total;
    found->before = before;
    found->first = first;
}

/* Without filters: ids as they stand in the found block, whose weights go to near. For thread 0. */
INLINE int32_t pick_any(const float *weight, uint32_t n, double u, const draw_found *found, float *near)
{
    const uint32_t first = found->first, left = n - first, count = left < SAMPLE_BLOCK ? left : SAMPLE_BLOCK;
    if (threadIdx.x < count) near[threadIdx.x] = weight[first + threadIdx.x];
    __syncthreads();
    if (threadIdx.x > 0) return 0;
    const double target = u * found->total;
    double run = found->before;
    uint32_t id = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (near[i] <= 0) continue;
        id = first + i;
        run += (double)near[i];
        if (run > target) break;
    }
    return (int32_t)id;
}

/* The lowest bin down to which, from the top, there are at most WEFT_CUDA_KEPT candidates; by the first warp. A lane has
 * 64 bins, lane 0 the highest. */
INLINE void find_least(const uint32_t *count, draw_found *found)
{
    enum { EACH = WEIGHT_BINS / WARP };
    const uint32_t lane = threadIdx.x, top = WEIGHT_BINS - 1 - lane * EACH;
    uint32_t own = 0;
    for (uint32_t i = 0; i < EACH; i++) own += count[top - i];
    const uint32_t upto = warp_upto(own); /* with all higher bins: the lanes' before */
    if (lane == WARP - 1) {
        found->all = upto;
        if (upto <= WEFT_CUDA_KEPT) found->least = 0;
    }
    uint32_t above = upto - own;
    if (above > WEFT_CUDA_KEPT || upto <= WEFT_CUDA_KEPT) return; /* another lane's, or nobody's */
    uint32_t bin = top;
    for (; above + count[bin] <= WEFT_CUDA_KEPT; bin--) above += count[bin];
    found->least = bin + 1;
}

/* Largest keys first; n, a power of two, of them. */
INLINE void sort_keys(uint64_t *key, uint32_t n)
{
    for (uint32_t size = 2; size <= n; size *= 2)
        for (uint32_t step = size / 2; step > 0; step /= 2) {
            for (uint32_t i = threadIdx.x; i < n / 2; i += SAMPLE_THREADS) {
                const uint32_t low = 2 * i - (i & (step - 1)), high = low + step;
                const uint64_t x = key[low], y = key[high];
                if ((x < y) == ((low & size) == 0)) {
                    key[low] = y;
                    key[high] = x;
                }
            }
            __syncthreads();
        }
}

INLINE double weight_of_key(uint64_t key)
{
    return (double)float_of_bits((uint32_t)(key >> 32));
}

/* By one thread: sample.c's filter and pick over the sorted candidates. */
INLINE int32_t walk(const weft_cuda_draw *draw, const uint64_t *key, const draw_found *found, double u)
{
    const uint32_t most = draw->top_k > 0 ? (uint32_t)draw->top_k : UINT32_MAX;
    const double nucleus = draw->top_p * found->total;
    double sum = 0, run = 0;
    uint32_t n = 0;
    bool done = false;
    while (n < found->kept && !done) {
        sum += weight_of_key(key[n++]);
        done = n >= most || (draw->top_p < 1 && sum >= nucleus);
    }
    if (n == 0 || (!done && n < found->all)) return WEFT_CUDA_NOT_DRAWN;
    const double target = u * sum;
    uint32_t at = 0;
    for (; at + 1 < n; at++) {
        run += weight_of_key(key[at]);
        if (run > target) break;
    }
    return (int32_t)(UINT32_MAX - (uint32_t)key[at]);
}

/* With filters; count and key are 0. For thread 0. */
INLINE int32_t pick_filtered(const weft_cuda_draw *draw, const float *weight, uint32_t n, double u, uint32_t *count,
                             uint64_t *key, draw_found *found)
{
    double least = (1 - draw->top_p) * found->total / (double)n;
    if (draw->min_p > least) least = draw->min_p;
    for (uint32_t i = threadIdx.x; i < n; i += SAMPLE_THREADS) {
        const float w = weight[i];
        if (w > 0 && (double)w >= least) (void)atomicAdd(&count[bits_of_float(w) >> WEIGHT_SHIFT], 1u);
    }
    __syncthreads();
    if (threadIdx.x < WARP) find_least(count, found);
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < n; i += SAMPLE_THREADS) {
        const float w = weight[i];
        const uint32_t bits = bits_of_float(w);
        if (!(w > 0 && (double)w >= least) || bits >> WEIGHT_SHIFT < found->least) continue;
        const uint32_t at = atomicAdd(&found->kept, 1u); /* in any order: they are sorted */
        if (at < WEFT_CUDA_KEPT) key[at] = (uint64_t)bits << 32 | (UINT32_MAX - i);
    }
    __syncthreads();
    uint32_t sorted = 1;
    while (sorted < found->kept) sorted *= 2;
    sort_keys(key, sorted);
    return threadIdx.x == 0 ? walk(draw, key, found, u) : 0;
}

KERNEL(sample_pick, SAMPLE_THREADS, weft_cuda_sample_args)
{
    SHARED(double, sum, WEFT_CUDA_SUMS);
    SHARED(uint32_t, count, WEIGHT_BINS);
    SHARED(uint64_t, key, WEFT_CUDA_KEPT);
    SHARED(float, near, SAMPLE_BLOCK);
    SHARED(draw_found, found, 1);
    const uint32_t row = blockIdx.x, n = a.n_vocab, blocks = (n + SAMPLE_BLOCK - 1) / SAMPLE_BLOCK;
    const weft_cuda_draw draw = a.draw[row];
    const weft_cuda_drawn largest = a.out[row];
    if (!draws(&draw, &largest)) return; /* the whole block */
    const float *const weight = a.weight + (uint64_t)row * n;
    const double u = uniform_of(draw.seed, draw.position);
    for (uint32_t i = threadIdx.x; i < blocks; i += SAMPLE_THREADS) sum[i] = a.sum[(uint64_t)row * WEFT_CUDA_SUMS + i];
    for (uint32_t i = threadIdx.x; i < WEIGHT_BINS; i += SAMPLE_THREADS) count[i] = 0;
    for (uint32_t i = threadIdx.x; i < WEFT_CUDA_KEPT; i += SAMPLE_THREADS) key[i] = 0;
    __syncthreads();
    if (threadIdx.x == 0) {
        found->kept = 0;
        find_block(sum, blocks, u, found);
    }
    __syncthreads();
    const bool filtered = draw.top_k > 0 || draw.top_p < 1 || draw.min_p > 0;
    const int32_t id = filtered ? pick_filtered(&draw, weight, n, u, count, key, found)
                                : pick_any(weight, n, u, found, near);
    if (threadIdx.x == 0) a.out[row].id = id;
}
