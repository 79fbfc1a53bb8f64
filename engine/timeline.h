/* The inside of a timeline: shared by timeline.c, step.c and draft.c only.
 *
 *      0 .......... n_evaluated .......... n_ids .......... n_ids + n_guess ... context
 *      | valid KV       | pending              | guesses (draft.c)
 *
 * Guesses are no ids of the timeline. A step may compute them behind the last pending id: then every
 * id is evaluated, `n_ahead` guesses have keys and values behind n_ids, in pages that are not sealed,
 * and logits rows beside the one after the last id. Appending the id that was guessed moves on to
 * the next row; appending another drops what is left, and its positions are written again.
 */
#ifndef WEFT_ENGINE_TIMELINE_H
#define WEFT_ENGINE_TIMELINE_H

#include "engine/draft.h"
#include "engine/kv.h"
#include "engine/model.h"

/* The draw that weft_timeline_will_draw announced, and what a device made of it. */
typedef struct timeline_announced {
    bool known, masked; /* for the next evaluation; under the mask */
    weft_sampler sampler;
    uint32_t *allowed; /* [(n_vocab + 31) / 32] a copy; NULL: no device, nothing is announced */
    int32_t id;        /* drawn, for position `at`; -1: not */
    int64_t at;
} timeline_announced;

struct weft_timeline {
    weft_model *model;
    weft_kv *kv;
    int32_t *ids; /* [context] */
    int64_t n_ids, n_evaluated, restored;
    int64_t n_counted; /* positions that the page file's counter knows, and a close keeps */
    int64_t borrowed_to; /* the last pages taken over came from elsewhere and end here */
    bool has_logits;
    float
        *logits; /* [WEFT_GUESSES + 1][n_vocab]: after position n_evaluated - 1, after each guess */
    size_t at;   /* row of the last evaluated id */
    float *hidden; /* [WEFT_GUESSES + 1][n_embd] of a model that predicts: hidden states, of the rows of logits; those */
    bool has_hidden; /* not behind `at` are spare. Only the last evaluated id's counts, if it is known */
    int32_t guess[WEFT_GUESSES];
    size_t n_guess, n_ahead;            /* proposed; computed, and not yet passed or dropped */
    size_t n_asked;                     /* of the proposed: those that the model is asked to predict, or 0 */
    int64_t n_guessed, n_guessed_right; /* computed; passed */
    weft_draft *draft;                  /* NULL: nothing is guessed */
    float *weight;                      /* [n_vocab], the sampler's */
    int32_t *candidate;
    timeline_announced announced;
    weft_page_visit on_page;
    void *on_page_context;
    /* of the step in progress (step.c) */
    int64_t step_from;
    size_t step_n;       /* positions from step_from on; 0: not served */
    uint64_t step_clock; /* when it was served last: who waited longest goes first */
};

/* Where evaluation goes on: n_evaluated, or one before if what came from pages ends there and that position is
 * to be computed again: for its logits where no id is left, for its hidden state where the model predicts. */
int64_t timeline_next(const weft_timeline *t);
/* For a pass that computes the logits of the last id: how the next one will be drawn. */
weft_draw timeline_draw(weft_timeline *t);
/* Takes over pages that other runs made of the pending ids, where those begin a page. */
weft_status timeline_take_over(weft_timeline *t, weft_error *err);

/* ---- step.c ---- */

weft_status step_state_new(weft_step_state **out, const weft_model *model, weft_error *err);
void step_state_free(weft_step_state *s);
/* Where the logits of a pass are computed: [2 * WEFT_LOGIT_ROWS][n_vocab]. */
float *step_logits(const weft_step_state *s);
/* The part of a step that needs the model: plan and forward pass. Errors go to their items. With visit (one
 * item) the logits of every position are computed. */
void step_forward(weft_step_item *item, size_t n, weft_logits_visit visit, void *context);
/* Timelines that later steps serve carry a larger one. */
uint64_t step_clock(const weft_model *model);
/* The part that needs the timeline alone: seals and counts what its forward pass completed. */
weft_status step_settle(weft_timeline *t, weft_error *err);

/* ---- share.c ---- */

/* Has a step made that serves the item's timeline, together with those of other threads. */
void share_step(weft_share *share, weft_step_item *item);
void share_free(weft_share *share);

#endif
