/* Drawing a token.
 *
 *   logits -> repetition penalty -> mask -> temperature -> top-k -> top-p -> min-p -> draw
 *
 * The filters act on the tempered distribution over all allowed ids (what one drops does not change
 * what the next sees): top-k keeps the k most probable, top-p the fewest whose probabilities sum to
 * p, min-p those at least min_p times the most probable. Order among equals is by lower id,
 * everywhere. Sampling k of a 150,000-word vocabulary needs no sort: ids that cannot be in the
 * nucleus (their probability is below (1 - p) / n) fall out first, the rest is a heap from which
 * only the kept ones are taken.
 *
 * A draw reads 150,000 logits a few times and must not be felt beside the forward pass that made
 * them: every pass goes by words of the mask, 32 ids at once, in loops that vectorise.
 *
 * Exact and portable: exponentials are weft_softmax_sum's, sums run in one fixed order in double,
 * the logarithm is below, the uniform number is a hash of (seed, position). The penalty divides
 * positive logits and multiplies negative ones (CTRL, arXiv 1909.05858).
 */
#include "engine/sample.h"

#include <math.h>
#include <string.h>

/* ---- numbers ---- */

/* SplitMix64's output function: a bijection of 64-bit words. */
static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

double weft_sample_uniform(uint64_t seed, int64_t position)
{
    /* The seed is mixed before the position is added: seeds 1, 2, 3 must not give one shifted
     * stream. */
    uint64_t stream = mix(seed + 0x9e3779b97f4a7c15u);
    uint64_t z = mix(stream + ((uint64_t)position + 1) * 0x9e3779b97f4a7c15u);
    return (double)(z >> 11) * 0x1p-53;
}

/* ln x for finite x > 0 by plain arithmetic: libm's logarithm may differ by machine. x = 2^e m with
 * m in [1/sqrt 2, sqrt 2); ln m = 2 atanh((m - 1) / (m + 1)). Relative error below 1e-15. */
static double natural_log(double x)
{
    int e;
    double m = frexp(x, &e);
    if (m < 0.70710678118654752) {
        m *= 2;
        e--;
    }
    double t = (m - 1) / (m + 1), t2 = t * t, sum = 0;
    for (int k = 25; k >= 1; k -= 2) sum = sum * t2 + 1.0 / k;
    return e * 0.69314718055994531 + 2 * t * sum;
}

static float largest(const float *x, size_t n)
{
    float top = -INFINITY;
    for (size_t i = 0; i < n; i++) top = x[i] > top ? x[i] : top;
    return top;
}

/* ---- which ids, with what weight ---- */

weft_status weft_sampler_check(const weft_sampler *s, weft_error *err)
{
    if (!(isfinite(s->temperature) && s->temperature >= 0))
        return weft_fail(err, WEFT_E_USAGE, "temperature %g: must be 0 or above", s->temperature);
    if (s->top_k < 0) return weft_fail(err, WEFT_E_USAGE, "top-k %d: must be 0 or above", s->top_k);
    if (!(s->top_p > 0 && s->top_p <= 1))
        return weft_fail(err, WEFT_E_USAGE, "top-p %g: must be above 0 and at most 1", s->top_p);
    if (!(s->min_p >= 0 && s->min_p <= 1))
        return weft_fail(err, WEFT_E_USAGE, "min-p %g: must be within 0 and 1", s->min_p);
    if (!(isfinite(s->repeat_penalty) && s->repeat_penalty > 0))
        return weft_fail(err, WEFT_E_USAGE, "repeat penalty %g: must be above 0",
                         s->repeat_penalty);
    return WEFT_OK;
}

static void penalise(const weft_sample *s, float *logit)
{
    size_t n = s->n_recent < WEFT_REPEAT_LAST ? s->n_recent : WEFT_REPEAT_LAST;
    if (n == 0) return; /* recent may be NULL */
    const int32_t *recent = s->recent + (s->n_recent - n);
    for (size_t i = 0; i < n; i++) {
        bool seen = recent[i] < 0 || (size_t)recent[i] >= s->n_vocab;
        for (size_t j = 0; j < i && !seen; j++) seen = recent[j] == recent[i];
        if (seen) continue;
        float *v = &logit[recent[i]];
        double factor = s->sampler->repeat_penalty;
        *v = (float)(*v > 0 ? *v / factor : *v * factor);
    }
}

enum { WORD = 32 };
#define ONES8(b) 1u << b, 2u << b, 4u << b, 8u << b, 16u << b, 32u << b, 64u << b, 128u << b
static const uint32_t bit_of[WORD] = {ONES8(0), ONES8(8), ONES8(16), ONES8(24)};

/* The ids of word w that exist and are allowed. */
static uint32_t allowed_in(const weft_sample *s, size_t w)
{
    size_t left = s->n_vocab - w * WORD;
    uint32_t exist = left < WORD ? (UINT32_C(1) << left) - 1 : UINT32_MAX;
    return s->mask ? s->mask->allowed[w] & exist : exist;
}

static size_t n_words(const weft_sample *s)
{
    return (s->n_vocab + WORD - 1) / WORD;
}

/* Forbidden ones as -inf. */
static void take_word(const float *x, uint32_t allowed, float out[WORD])
{
    for (size_t j = 0; j < WORD; j++) out[j] = allowed & bit_of[j] ? x[j] : -INFINITY;
}

static void load_word(const weft_sample *s, const float *x, size_t w, uint32_t allowed,
                      float out[WORD])
{
    size_t left = s->n_vocab - w * WORD;
    if (left < WORD) {
        float last[WORD] = {0};
        memcpy(last, x + w * WORD, left * sizeof *x);
        take_word(last, allowed, out);
    } else if (allowed == UINT32_MAX) {
        memcpy(out, x + w * WORD, WORD * sizeof *x);
    } else {
        take_word(x + w * WORD, allowed, out);
    }
}

/* Logits after the penalty: in s->weight, or as they came. */
static const float *penalised(const weft_sample *s)
{
    if (s->sampler->repeat_penalty == 1) return s->logits;
    memcpy(s->weight, s->logits, s->n_vocab * sizeof *s->weight);
    penalise(s, s->weight);
    return s->weight;
}

/* Lowest id among the largest that are allowed; -1 if none is. *finite: whether all are, also those
 * that are not allowed. */
static int32_t argmax(const weft_sample *s, const float *x, bool *finite)
{
    enum { LANES = 8 };
    float top = -INFINITY, v[WORD], most[LANES], bad[LANES] = {0};
    size_t best = SIZE_MAX, j = 0;
    for (size_t w = 0; w < n_words(s); w++) {
        load_word(s, x, w, UINT32_MAX, v);
        for (size_t k = 0; k < WORD; k += LANES)
            for (j = 0; j < LANES; j++) bad[j] += v[k + j] - v[k + j]; /* NAN if it is not finite */
        uint32_t allowed = allowed_in(s, w);
        if (!allowed) continue;
        take_word(v, allowed, v);
        for (j = 0; j < LANES; j++) most[j] = v[j];
        for (size_t k = LANES; k < WORD; k += LANES)
            for (j = 0; j < LANES; j++) most[j] = v[k + j] > most[j] ? v[k + j] : most[j];
        for (j = 1; j < LANES; j++) most[0] = most[j] > most[0] ? most[j] : most[0];
        if (most[0] <= top) continue;
        top = most[0];
        best = w;
    }
    for (j = 1; j < LANES; j++) bad[0] += bad[j];
    *finite = bad[0] == 0;
    if (best == SIZE_MAX) return -1;
    load_word(s, x, best, allowed_in(s, best), v);
    for (j = 0; v[j] != top;) j++;
    return (int32_t)(best * WORD + j);
}

/* ---- filters: a heap of ids, the most probable on top ---- */

static bool before(const float *w, int32_t a, int32_t b)
{
    return w[a] > w[b] || (w[a] == w[b] && a < b);
}

static void sift_down(const float *w, int32_t *heap, size_t n, size_t at)
{
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= n) return;
        if (child + 1 < n && before(w, heap[child + 1], heap[child])) child++;
        if (!before(w, heap[child], heap[at])) return;
        int32_t t = heap[at];
        heap[at] = heap[child];
        heap[child] = t;
        at = child;
    }
}

/* Orders the kept candidates at the end of s->candidate, most probable last; *out_first is the
 * index of the least probable one kept. `weight` holds exp((logit - max) / temperature): the
 * largest is 1. */
static void filter(const weft_sample *s, double total, size_t *out_first, size_t *out_end)
{
    const weft_sampler *p = s->sampler;
    double floor = (1 - p->top_p) * total / (double)s->n_vocab;
    if (p->min_p > floor) floor = p->min_p;
    size_t n = 0;
    for (size_t i = 0; i < s->n_vocab; i++)
        if (s->weight[i] > 0 && s->weight[i] >= floor) s->candidate[n++] = (int32_t)i;
    for (size_t i = n / 2; i-- > 0;) sift_down(s->weight, s->candidate, n, i);
    double sum = 0;
    size_t left = n, most = p->top_k > 0 ? (size_t)p->top_k : n;
    while (left > 0 && n - left < most && !(p->top_p < 1 && left < n && sum >= p->top_p * total)) {
        int32_t top = s->candidate[0];
        sum += s->weight[top];
        s->candidate[0] = s->candidate[--left];
        s->candidate[left] = top;
        sift_down(s->weight, s->candidate, left, 0);
    }
    *out_first = left;
    *out_end = n;
}

/* Walks the candidates from the most probable to the one where the running sum passes u. */
static int32_t pick(const weft_sample *s, size_t first, size_t end, double u)
{
    double sum = 0, run = 0;
    for (size_t i = end; i-- > first;) sum += s->weight[s->candidate[i]];
    for (size_t i = end; i-- > first;) {
        run += s->weight[s->candidate[i]];
        if (run > u * sum) return s->candidate[i];
    }
    return s->candidate[first];
}

/* The weights of a block in the one order that sums have: eight lanes, then the lanes. */
enum { BLOCK = 512 };

static double block_sum(const float *w, size_t n)
{
    enum { LANES = 8 };
    double lane[LANES] = {0}, sum = 0;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t j = 0; j < LANES; j++) lane[j] += (double)w[i + j];
    for (size_t j = 0; j < LANES; j++) sum += lane[j];
    for (; i < n; i++) sum += w[i];
    return sum;
}

static size_t block_size(const weft_sample *s, size_t from)
{
    return s->n_vocab - from < BLOCK ? s->n_vocab - from : BLOCK;
}

static double total_weight(const weft_sample *s)
{
    double total = 0;
    for (size_t i = 0; i < s->n_vocab; i += BLOCK)
        total += block_sum(s->weight + i, block_size(s, i));
    return total;
}

/* Without filters the order does not matter: ids as they stand, whole blocks passed over. Where
 * rounding lets the running sum end below u, the last id with a weight is it. */
static int32_t pick_any(const weft_sample *s, double total, double u)
{
    double before = 0, run;
    size_t from = 0, last = 0;
    for (size_t i = 0; i < s->n_vocab; i += BLOCK) {
        double sum = block_sum(s->weight + i, block_size(s, i));
        if (sum <= 0) continue;
        from = i;
        if (before + sum > u * total) break;
        before += sum;
    }
    run = before;
    for (size_t i = from; i < from + block_size(s, from); i++) {
        if (s->weight[i] <= 0) continue;
        last = i;
        run += s->weight[i];
        if (run > u * total) break;
    }
    return (int32_t)last;
}

/* With a temperature: x are the logits (perhaps s->weight itself), `top` the largest allowed. */
static int32_t draw(const weft_sample *s, const float *x, float top)
{
    const weft_sampler *p = s->sampler;
    float *w = s->weight;
    for (size_t i = 0; i < n_words(s); i++) {
        float v[WORD];
        size_t left = s->n_vocab - i * WORD;
        load_word(s, x, i, allowed_in(s, i), v);
        for (size_t j = 0; j < WORD; j++)
            v[j] = (float)(((double)v[j] - (double)top) / p->temperature);
        memcpy(w + i * WORD, v, (left < WORD ? left : WORD) * sizeof *w);
    }
    (void)weft_softmax_sum(w, s->n_vocab, 0, w);
    double total = total_weight(s);
    double u = weft_sample_uniform(p->seed, s->position);
    bool filtered = p->top_k > 0 || p->top_p < 1 || p->min_p > 0;
    if (!filtered) return pick_any(s, total, u);
    size_t first, end;
    filter(s, total, &first, &end);
    return pick(s, first, end, u);
}

weft_status weft_sample_draw(const weft_sample *s, int32_t *out_id, float *out_logprob,
                             weft_error *err)
{
    weft_status status = weft_sampler_check(s->sampler, err);
    if (status) return status;
    float top = 0;
    double logsum = 0;
    bool finite;
    if (out_logprob) { /* before s->weight is needed */
        top = largest(s->logits, s->n_vocab);
        logsum = natural_log(weft_softmax_sum(s->logits, s->n_vocab, top, s->weight));
    }
    const float *x = penalised(s);
    int32_t id = argmax(s, x, &finite);
    if (!finite)
        return weft_fail(err, WEFT_E_MODEL,
                         "logits at position %lld are not finite: the model file is damaged",
                         (long long)s->position);
    if (id < 0) return weft_fail(err, WEFT_E_INVALID, "the mask allows no token");
    if (s->sampler->temperature > 0) id = draw(s, x, x[id]);
    if (out_logprob) *out_logprob = (float)((double)s->logits[id] - (double)top - logsum);
    *out_id = id;
    return WEFT_OK;
}
