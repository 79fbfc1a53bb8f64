/* Guessing the next ids of a timeline: from its own past (prompt lookup), or by the model's layer for it. Private
 * to engine/.
 *
 * What a model writes after it has read a tool's result or code often repeats it. Where the last ids
 * stand earlier on the timeline too, what followed there is a guess of what follows here. Where they do not, a
 * model with a layer for it (arch/predict.c) may be asked. A step
 * computes guesses in the same read of the weights, so a right one costs a share of a token. A
 * guess decides nothing: each id is still drawn from its own logits, and those are the same bits.
 */
#ifndef WEFT_ENGINE_DRAFT_H
#define WEFT_ENGINE_DRAFT_H

#include "engine/engine.h"

enum { WEFT_GUESSES = 7 }; /* most at a time: with the last id, one panel of 8 tokens (cpu/) */

typedef struct weft_draft weft_draft;

/* most: guesses at a time; below 0: as many as pay. context: most ids of the timeline. */
weft_status draft_new(weft_draft **out, int64_t context, int most, weft_error *err);
void draft_free(weft_draft *d);

/* What one more row costs, from the steps made so far; of one model. Times are never seen by anything
 * but the decision whether to guess. */
enum { DRAFT_ROWS = 64 };
typedef struct draft_cost {
    double ns[DRAFT_ROWS + 1]; /* of a step of so many rows, smoothed; 0: not measured yet */
    double prediction_ns;      /* of asking the model's layer once, likewise */
} draft_cost;
void draft_measured(draft_cost *cost, size_t rows, int64_t ns);
void draft_prediction_measured(draft_cost *cost, int64_t ns);

/* Guesses of ids[n], ids[n + 1], ...; n ids are known, those that were there at an earlier call
 * unchanged. Returns how many stand in out [WEFT_GUESSES], at most `room`. `rows` others are in
 * the step, which will give `tokens` tokens without these guesses. Allocates nothing. */
size_t draft_propose(weft_draft *d, const draft_cost *cost, const int32_t *ids, int64_t n,
                     size_t room, size_t rows, double *tokens, int32_t *out);

/* Where draft_propose had nothing: how many predictions of the model's layer, one after the other, to make instead. */
size_t draft_predictions(weft_draft *d, const draft_cost *cost, size_t room, size_t rows, double *tokens);
/* Those that were made, of ids[n], ids[n + 1], ... */
void draft_predicted(weft_draft *d, int64_t n, const int32_t *guess, size_t n_guess);

#endif
