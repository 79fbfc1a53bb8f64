/* The index over a timeline's ids, and the decision how many guesses pay.
 *
 * Places where three ids stand in a row are chained by their hash, the latest first, as an LZ77 coder
 * does: head[hash] is the latest end of such a triple, before[end] the one before it. Of the
 * first places of a chain the one with the longest common past is taken; what follows it is the
 * guess, and may run on into itself. An id is indexed once, so a token costs the walk: below 1 us.
 *
 * Whether to guess: with t tokens from a step that costs c(rows), k guesses are worth it if
 * (t + E(k)) / c(rows + k) is more than t / c(rows). E(k) = p + p^2 + ... + p^k, where p, by length of
 * the common past, is how often guesses came true lately: those that were not computed count too,
 * since the timeline shows what came instead. So text that repeats nothing pays for the walk alone.
 *
 * Predictions of the model's layer are decided in the same way, the time to make them counted in. Their p is only
 * seen when they are made, so where they do not pay one is made now and then.
 */
#include "engine/draft.h"

#include <stdlib.h>
#include <string.h>

enum {
    GRAM = 3,      /* ids that must agree; two agree by chance too often */
    CHAIN = 16,    /* places looked at */
    PAST_MAX = 16, /* common past that is told apart */
    BITS_MAX = 16,
    CLASSES = 4,
    RETRY = 128 /* tokens without a prediction until one is made to see */
};
#define ROW_COST 0.12 /* of a step, one row more, until it was measured (2 cores, 1.5B Q4_K_M) */
#define WORTH 1.03    /* what guesses must promise: the figures are smoothed, not exact */
#define KEEP 0.97     /* of what was counted, at each new outcome: about the last 30 count */

typedef struct outcome {
    double right, wrong;
} outcome;

/* A guess, to be compared with what came. */
typedef struct guessed {
    int64_t at; /* index of the first id; -1: none */
    int32_t id[WEFT_GUESSES];
    size_t n;
} guessed;

struct weft_draft {
    int most;        /* below 0: as many as pay */
    int32_t *head;   /* [1 << bits] latest end of a triple + 1; 0: none */
    int32_t *before; /* [context] the end before + 1 */
    unsigned bits;
    int64_t n_indexed; /* ends below are chained */
    outcome seen[CLASSES]; /* by length of the common past */
    size_t class;          /* of the last guess */
    guessed last;
    outcome predicted_seen;
    guessed predicted;
    int not_asked; /* times since predictions were made */
};

weft_status draft_new(weft_draft **out, int64_t context, int most, weft_error *err)
{
    weft_draft *d = calloc(1, sizeof *d);
    if (!d) return weft_fail(err, WEFT_E_MEMORY, "index of guesses: out of memory");
    while (d->bits < BITS_MAX && (INT64_C(1) << d->bits) < context) d->bits++;
    d->head = calloc((size_t)1 << d->bits, sizeof *d->head);
    d->before = malloc((size_t)context * sizeof *d->before);
    d->most = most;
    d->last.at = d->predicted.at = -1;
    /* A long common past is trusted at first, a short one has to prove itself. */
    for (size_t i = 0; i < CLASSES; i++) d->seen[i] = (outcome){1 + (double)i, 1};
    d->predicted_seen = (outcome){4, 1}; /* published: 85 to 90 % */
    if (!d->head || !d->before) {
        draft_free(d);
        return weft_fail(err, WEFT_E_MEMORY, "index of guesses: out of memory");
    }
    *out = d;
    return WEFT_OK;
}

void draft_free(weft_draft *d)
{
    if (!d) return;
    free(d->head);
    free(d->before);
    free(d);
}

/* ---- where the past repeats ---- */

static size_t hash_of(const weft_draft *d, const int32_t *end)
{
    uint64_t h = 0;
    for (int i = 0; i < GRAM; i++) h = (h ^ (uint32_t)end[-i]) * 0x9e3779b97f4a7c15u;
    return d->bits ? (size_t)(h >> (64 - d->bits)) : 0;
}

/* Chains the triples that end below `end`. */
static void index_to(weft_draft *d, const int32_t *ids, int64_t end)
{
    if (d->n_indexed < GRAM - 1) d->n_indexed = GRAM - 1;
    for (; d->n_indexed < end; d->n_indexed++) {
        int32_t *head = &d->head[hash_of(d, ids + d->n_indexed)];
        d->before[d->n_indexed] = *head;
        *head = (int32_t)d->n_indexed + 1;
    }
}

/* How many ids before and at `place` are those before and at n - 1. */
static size_t common_past(const int32_t *ids, int64_t place, int64_t n)
{
    size_t same = 0;
    while (same < PAST_MAX && (int64_t)same <= place &&
           ids[place - (int64_t)same] == ids[n - 1 - (int64_t)same])
        same++;
    return same;
}

/* End of the best earlier place, or -1; *out_past its common past. */
static int64_t find_place(const weft_draft *d, const int32_t *ids, int64_t n, size_t *out_past)
{
    int64_t best = -1, place = (int64_t)d->head[hash_of(d, ids + n - 1)] - 1;
    size_t most = GRAM - 1;
    for (int i = 0; i < CHAIN && place >= 0 && most < PAST_MAX; i++) {
        size_t past = common_past(ids, place, n);
        if (past > most) {
            most = past;
            best = place;
        }
        place = (int64_t)d->before[place] - 1;
    }
    *out_past = most;
    return best;
}

static size_t class_of(size_t past)
{
    return past >= 10 ? 3 : past >= 6 ? 2 : past >= 4 ? 1 : 0;
}

/* ---- whether it pays ---- */

/* Compares the last guess with the ids that came. */
static void learn(guessed *g, outcome *o, const int32_t *ids, int64_t n)
{
    if (g->at < 0 || n <= g->at) return;
    size_t came = (size_t)(n - g->at), right = 0;
    size_t known = came < g->n ? came : g->n;
    while (right < known && ids[g->at + (int64_t)right] == g->id[right]) right++;
    o->right = o->right * KEEP + (double)right;
    o->wrong = o->wrong * KEEP + (right < known);
    g->at = -1;
}

static bool nothing_measured(const draft_cost *cost)
{
    for (size_t i = 1; i <= DRAFT_ROWS; i++)
        if (cost->ns[i] != 0) return false;
    return true;
}

/* A step of so many rows: measured, between two that were, or by rule of thumb. */
static double cost_of(const draft_cost *cost, size_t rows)
{
    size_t low = rows, high = rows;
    while (low > 0 && cost->ns[low] == 0) low--;
    while (high <= DRAFT_ROWS && cost->ns[high] == 0) high++;
    if (low > 0 && high <= DRAFT_ROWS && low < high)
        return cost->ns[low] +
               (cost->ns[high] - cost->ns[low]) * (double)(rows - low) / (double)(high - low);
    if (low > 0) return cost->ns[low] * (1 + ROW_COST * (double)(rows - low));
    if (high <= DRAFT_ROWS) return cost->ns[high] / (1 + ROW_COST * (double)(high - rows));
    return 1 + ROW_COST * (double)rows;
}

/* One outlier may neither make a size look too dear for ever (it would not be tried again), nor
 * age against the others while the context grows: what one size shows moves all a little. */
void draft_measured(draft_cost *cost, size_t rows, int64_t ns)
{
    if (rows == 0 || rows > DRAFT_ROWS || ns <= 0) return;
    double expected = cost_of(cost, rows), seen = (double)ns;
    if (!nothing_measured(cost) && seen > 2 * expected) seen = 2 * expected;
    if (cost->ns[rows] == 0) {
        cost->ns[rows] = seen;
        return;
    }
    double drift = 1 + (seen / cost->ns[rows] - 1) / 64;
    cost->ns[rows] += (seen - cost->ns[rows]) / 8;
    for (size_t i = 1; i <= DRAFT_ROWS; i++)
        if (i != rows) cost->ns[i] *= drift;
}

void draft_prediction_measured(draft_cost *cost, int64_t ns)
{
    if (ns <= 0) return;
    if (cost->prediction_ns == 0) cost->prediction_ns = (double)ns;
    cost->prediction_ns += ((double)ns - cost->prediction_ns) / 8;
}

/* The number of guesses, 0 to `most`, that promises the most tokens a second; each takes `each_ns` to make. */
static size_t best_number(const outcome *o, double each_ns, const draft_cost *cost, size_t most, size_t rows,
                          double *tokens)
{
    double p = o->right / (o->right + o->wrong), sum = 0, power = 1, gained = 0;
    double best = WORTH * *tokens / cost_of(cost, rows);
    size_t number = 0;
    for (size_t k = 1; k <= most; k++) {
        power *= p;
        sum += power;
        double rate = (*tokens + sum) / (cost_of(cost, rows + k) + each_ns * (double)k);
        if (rate <= best) continue;
        best = rate;
        number = k;
        gained = sum;
    }
    *tokens += gained;
    return number;
}

/* At most `room`. */
static size_t how_many(const weft_draft *d, const outcome *o, double each_ns, const draft_cost *cost, size_t room,
                       size_t rows, double *tokens)
{
    if (room > WEFT_GUESSES) room = WEFT_GUESSES;
    if (rows + room > DRAFT_ROWS) room = rows < DRAFT_ROWS ? DRAFT_ROWS - rows : 0;
    if (d->most >= 0) return room < (size_t)d->most ? room : (size_t)d->most;
    /* somebody waits for a process's first token, and what guesses cost here is not known yet */
    if (nothing_measured(cost)) return 0;
    return best_number(o, each_ns, cost, room, rows, tokens);
}

size_t draft_propose(weft_draft *d, const draft_cost *cost, const int32_t *ids, int64_t n,
                     size_t room, size_t rows, double *tokens, int32_t *out)
{
    size_t past;
    learn(&d->last, &d->seen[d->class], ids, n);
    learn(&d->predicted, &d->predicted_seen, ids, n);
    if (n < GRAM) return 0;
    index_to(d, ids, n - 1); /* the last triple is not chained yet: it would find itself */
    int64_t place = find_place(d, ids, n, &past);
    if (place < 0) return 0;
    for (size_t i = 0; i < WEFT_GUESSES; i++) {
        int64_t from = place + 1 + (int64_t)i;
        out[i] = d->last.id[i] = from < n ? ids[from] : d->last.id[from - n];
    }
    d->last.at = n;
    d->last.n = WEFT_GUESSES;
    d->class = class_of(past);
    return how_many(d, &d->seen[d->class], 0, cost, room, rows, tokens);
}

size_t draft_predictions(weft_draft *d, const draft_cost *cost, size_t room, size_t rows, double *tokens)
{
    size_t n = how_many(d, &d->predicted_seen, cost->prediction_ns, cost, room, rows, tokens);
    if (n == 0 && room > 0 && d->most < 0 && !nothing_measured(cost) && d->not_asked++ >= RETRY) n = 1;
    if (n > 0) d->not_asked = 0;
    return n;
}

void draft_predicted(weft_draft *d, int64_t n, const int32_t *guess, size_t n_guess)
{
    d->predicted.at = n;
    d->predicted.n = n_guess;
    memcpy(d->predicted.id, guess, n_guess * sizeof *guess);
}
