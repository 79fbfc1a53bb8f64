/* Mixtures of experts: who takes which experts (cpu/experts.c to the bit), the picks sorted by expert, the
 * experts' results added. Their products are matvec.cu's and matmul.cu's, over the runs that `group` makes.
 */
#include "engine/cuda/device.cuh"

enum { ROUTE_THREADS = WARP, GROUP_THREADS = 512, COMBINE_THREADS = 256, EXP_PARTS = 16 };

/* A choice as an integer: the larger first, of equal ones the lower index. 0: none. */
INLINE uint64_t choice_key(float x, uint32_t index)
{
    return (uint64_t)rank_of(x) << 32 | (UINT32_MAX - index);
}
INLINE uint64_t warp_max_key(uint64_t v)
{
    UNROLL
    for (int o = 16; o > 0; o >>= 1) {
        const uint64_t other = __shfl_xor_sync(ALL, v, o);
        v = other > v ? other : v;
    }
    return v;
}

/* The largest of key(i) over i < n of those not in `taken`, of which a lane has every 32nd; it is taken. */
INLINE uint32_t take_best(const float *value, uint32_t n, uint32_t *taken)
{
    const uint32_t lane = threadIdx.x % WARP;
    uint64_t best = 0;
    for (uint32_t i = lane, k = 0; i < n; i += WARP, k++) {
        const uint64_t key = choice_key(value[i], i);
        if (!(*taken >> k & 1) && key > best) best = key;
    }
    const uint32_t index = UINT32_MAX - (uint32_t)warp_max_key(best);
    if (index % WARP == lane) *taken |= UINT32_C(1) << index / WARP;
    return index;
}

/* Scores into p in place, by a warp, each lane its own; returns what a softmax is still to be divided by. */
INLINE float gate_scores(const weft_cuda_route_args *a, float *p, float *part)
{
    const uint32_t lane = threadIdx.x % WARP, n = a->n_expert;
    if (a->sigmoid) {
        for (uint32_t e = lane; e < n; e += WARP) p[e] = 1 / (1 + exp_of(0 - p[e]));
        return 1;
    }
    float max = p[lane < n ? lane : 0];
    for (uint32_t e = lane; e < n; e += WARP) max = p[e] > max ? p[e] : max;
    UNROLL
    for (int o = 16; o > 0; o >>= 1) {
        const float other = __shfl_xor_sync(ALL, max, o);
        max = other > max ? other : max;
    }
    for (uint32_t e = lane; e < n; e += WARP) p[e] = exp_of(p[e] - max);
    __syncwarp();
    if (lane < EXP_PARTS) {
        float sum = 0;
        for (uint32_t e = lane; e < n; e += EXP_PARTS) sum += p[e];
        part[lane] = sum;
    }
    __syncwarp();
    float v[8];
    UNROLL
    for (int i = 0; i < 8; i++) v[i] = part[i] + part[i + 8];
    UNROLL
    for (int i = 0; i < 4; i++) v[i] += v[i + 4];
    const float sum = (v[0] + v[2]) + (v[1] + v[3]);
    if (!a->bias) return sum;
    for (uint32_t e = lane; e < n; e += WARP) p[e] /= sum;
    return 1;
}

/* What the groups of experts are chosen by: a lane has those that take_best asks it for. */
INLINE void score_groups(const weft_cuda_route_args *a, const float *choice, float *group)
{
    const uint32_t size = a->n_expert / a->n_group;
    for (uint32_t g = threadIdx.x % WARP; g < a->n_group; g += WARP) {
        float first = choice[g * size], second = -INFINITY;
        for (uint32_t e = g * size + 1; e < (g + 1) * size; e++) {
            const float v = choice[e];
            second = v > first ? first : v > second ? v : second;
            first = v > first ? v : first;
        }
        group[g] = a->sigmoid && size > 1 ? first + second : first;
    }
}

/* A warp a token. */
KERNEL(route, ROUTE_THREADS, weft_cuda_route_args)
{
    SHARED(float, choice, WEFT_CUDA_EXPERTS);
    SHARED(float, group, WEFT_CUDA_GROUPS);
    SHARED(float, part, EXP_PARTS);
    SHARED(uint32_t, index, WEFT_CUDA_USED);
    const uint32_t token = blockIdx.x, lane = threadIdx.x, n = a.n_expert;
    float *const p = a.score + (uint64_t)token * n;
    const float sum = gate_scores(&a, p, part);
    for (uint32_t e = lane; e < n; e += WARP) choice[e] = a.bias ? p[e] + a.bias[e] : p[e];
    __syncwarp();
    uint32_t taken = 0;
    if (a.n_group > 1) {
        uint32_t used = 0; /* groups: lane g % 32 has bit g / 32 */
        const uint32_t size = n / a.n_group;
        score_groups(&a, choice, group);
        for (uint32_t i = 0; i < a.n_group_used; i++) (void)take_best(group, a.n_group, &used);
        for (uint32_t e = 0; e < n; e++) { /* those of the other groups are not to be had */
            const uint32_t g = e / size, bits = __shfl_sync(ALL, used, g % WARP);
            if (e % WARP == lane && !(bits >> g / WARP & 1)) taken |= UINT32_C(1) << e / WARP;
        }
    }
    for (uint32_t i = 0; i < a.n_used; i++) {
        const uint32_t e = take_best(choice, n, &taken);
        if (lane == 0) index[i] = e;
    }
    if (lane != 0) return;
    weft_pick *const out = a.out + (uint64_t)token * a.n_used;
    float chosen = 0;
    for (uint32_t i = 0; i < a.n_used; i++) chosen += p[index[i]] / sum;
    if (a.sigmoid) chosen += 1e-20f;
    for (uint32_t i = 0; i < a.n_used; i++) {
        const float w = p[index[i]] / sum;
        out[i].expert = index[i];
        out[i].weight = (a.normalise ? w / chosen : w) * a.scale;
    }
}

/* The sums of v over all threads before this one; *out_total over all. part: [GROUP_THREADS / WARP] */
INLINE uint32_t sum_before(uint32_t v, uint32_t *part, uint32_t *out_total)
{
    const uint32_t lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    uint32_t upto = v, before = 0, total = 0;
    UNROLL
    for (uint32_t o = 1; o < WARP; o *= 2) {
        const uint32_t other = __shfl_up_sync(ALL, upto, o);
        if (lane >= o) upto += other;
    }
    if (lane == WARP - 1) part[warp] = upto;
    __syncthreads();
    for (uint32_t w = 0; w < GROUP_THREADS / WARP; w++) {
        before += w < warp ? part[w] : 0;
        total += part[w];
    }
    *out_total = total;
    return before + upto - v;
}

/* One thread block for all picks: a thread has two experts, counts their picks, and then gives them their places in
 * the order of the tokens. No atomics: places are the same each time. */
KERNEL(group, GROUP_THREADS, weft_cuda_group_args)
{
    SHARED(uint32_t, expert, GROUP_THREADS);
    SHARED(uint32_t, part, GROUP_THREADS / WARP);
    SHARED(uint32_t, part2, GROUP_THREADS / WARP);
    const uint32_t picks = a.n * a.n_used, mine = 2 * threadIdx.x;
    uint32_t count[2] = {0, 0}, place[2], run[2], total;
    for (uint32_t from = 0; from < picks; from += GROUP_THREADS) {
        const uint32_t here = picks - from < GROUP_THREADS ? picks - from : GROUP_THREADS;
        if (threadIdx.x < here) expert[threadIdx.x] = a.pick[from + threadIdx.x].expert;
        __syncthreads();
        for (uint32_t i = 0; i < here; i++) {
            count[0] += expert[i] == mine;
            count[1] += expert[i] == mine + 1;
        }
        __syncthreads();
    }
    place[0] = sum_before(count[0] + count[1], part, &total);
    place[1] = place[0] + count[0];
    const uint32_t runs[2] = {(count[0] + a.width - 1) / a.width, (count[1] + a.width - 1) / a.width};
    run[0] = sum_before(runs[0] + runs[1], part2, &total);
    run[1] = run[0] + runs[0];
    for (uint32_t k = 0; k < 2; k++)
        for (uint32_t i = 0; i < runs[k]; i++) {
            const uint32_t done = i * a.width, left = count[k] - done;
            weft_cuda_run *const r = &a.run[run[k] + i];
            r->matrix = mine + k;
            r->first = place[k] + done;
            r->n = left < a.width ? left : a.width;
        }
    for (uint32_t i = total + threadIdx.x; i < a.n_run; i += GROUP_THREADS) {
        a.run[i].matrix = a.run[i].first = a.run[i].n = 0;
    }
    for (uint32_t from = 0; from < picks; from += GROUP_THREADS) {
        const uint32_t here = picks - from < GROUP_THREADS ? picks - from : GROUP_THREADS;
        if (threadIdx.x < here) expert[threadIdx.x] = a.pick[from + threadIdx.x].expert;
        __syncthreads();
        for (uint32_t i = 0; i < here; i++) {
            if (expert[i] / 2 != threadIdx.x) continue;
            const uint32_t at = place[expert[i] % 2]++;
            a.token_of[at] = (from + i) / a.n_used;
            a.pick_of[at] = from + i;
        }
        __syncthreads();
    }
}

/* out[t] = sum of its picks' rows times their weights, in their order. */
KERNEL(combine, COMBINE_THREADS, weft_cuda_combine_args)
{
    const uint32_t token = blockIdx.y, d = blockIdx.x * COMBINE_THREADS + threadIdx.x;
    if (d >= a.dim) return;
    float sum = 0;
    for (uint32_t i = 0; i < a.n_used; i++) {
        const uint64_t pick = (uint64_t)token * a.n_used + i;
        sum += a.y[pick * a.dim + d] * a.pick[pick].weight;
    }
    a.out[(uint64_t)token * a.dim + d] = sum;
}
