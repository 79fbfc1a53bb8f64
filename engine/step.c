/* One step: a forward pass over some of the pending ids of several timelines, which reads every weight
 * once.
 *
 * Who takes part. A pass has `chunk` rows. Timelines that need few rows (they decode) come first, one
 * row of four kept for prompts while there are any; prompts share what is left evenly. Where the
 * rows do not reach, those that waited longest go first, so everybody is served in turn, and a
 * decoder waits for one pass of `chunk` rows at most. Guesses (draft.c) are added last, and only in a
 * pass without prompts: beside those a row costs as much as a token.
 *
 * What a timeline gets is a function of its own ids alone (the numeric contract), so none of this
 * can be seen in a result. A timeline that fails (no space for its pages) leaves the pass, with its
 * status; the others go on.
 *
 * Everything is allocated when the model is opened. The logits of many rows are computed into one
 * buffer of the model, 16 rows a read of the output matrix, and copied to their timelines; of one
 * row, in place, unless a device computes them.
 */
#include "engine/timeline.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { FEW = WEFT_GUESSES + 1 };

/* The rows of the pass in progress. */
struct weft_step_state {
    int32_t *id;   /* [chunk] */
    weft_row *row; /* [chunk] */
    size_t *want;  /* [chunk] tokens whose logits are wanted */
    float **to;    /* [chunk] where they go; with visit: unused */
    const float **before; /* [chunk] of a model that predicts: as in weft_pass */
    float **hidden;       /* [chunk] likewise */
    weft_draw *draw; /* [chunk] how the next token is drawn from them, where that was announced */
    size_t n, n_want;
    float *logits;  /* [2 * WEFT_LOGIT_ROWS][n_vocab]; touched as far as it is used */
    uint64_t clock; /* counts how often any timeline was served */
    draft_cost cost;
};

weft_status step_state_new(weft_step_state **out, const weft_model *model, weft_error *err)
{
    size_t chunk = (size_t)model->chunk;
    weft_step_state *s = calloc(1, sizeof *s);
    if (!s) return weft_fail(err, WEFT_E_MEMORY, "scratch of a step: out of memory");
    s->id = malloc(chunk * sizeof *s->id);
    s->row = malloc(chunk * sizeof *s->row);
    s->want = malloc(chunk * sizeof *s->want);
    s->to = malloc(chunk * sizeof *s->to);
    s->before = malloc(chunk * sizeof *s->before);
    s->hidden = malloc(chunk * sizeof *s->hidden);
    s->draw = malloc(chunk * sizeof *s->draw);
    s->logits = malloc(2 * (size_t)WEFT_LOGIT_ROWS * model->h.n_vocab * sizeof *s->logits);
    *out = s;
    return s->id && s->row && s->want && s->to && s->before && s->hidden && s->draw && s->logits
               ? WEFT_OK
               : weft_fail(err, WEFT_E_MEMORY, "scratch of a step: out of memory");
}

void step_state_free(weft_step_state *s)
{
    if (!s) return;
    free(s->id);
    free(s->row);
    free(s->want);
    free(s->to);
    free(s->before);
    free(s->hidden);
    free(s->draw);
    free(s->logits);
    free(s);
}

float *step_logits(const weft_step_state *s)
{
    return s->logits;
}

uint64_t step_clock(const weft_model *model)
{
    return model->step->clock;
}

/* ---- who takes part, with how many rows ---- */

static size_t needed(const weft_timeline *t)
{
    return (size_t)(t->n_ids - timeline_next(t));
}

/* In a small pass the order of waiting does for all. */
static bool is_few(const weft_timeline *t)
{
    return needed(t) <= FEW || t->model->chunk < 2 * FEW;
}

static bool takes_part(const weft_step_item *item)
{
    return !item->status && item->timeline->step_n == 0 && needed(item->timeline) > 0;
}

/* Of the items not served yet, few or many rows needed: the one that waited longest. */
static weft_step_item *next_item(weft_step_item *item, size_t n, bool few)
{
    weft_step_item *best = NULL;
    for (size_t i = 0; i < n; i++) {
        if (!takes_part(&item[i]) || is_few(item[i].timeline) != few) continue;
        if (!best || item[i].timeline->step_clock < best->timeline->step_clock) best = &item[i];
    }
    return best;
}

/* Gives the timeline up to `most` rows and makes their pages writable; returns how many it took. */
static size_t serve(weft_step_item *item, size_t most)
{
    weft_timeline *t = item->timeline;
    size_t want = needed(t), rows = want < most ? want : most;
    t->step_from = timeline_next(t);
    item->status = weft_kv_begin(t->kv, t->step_from, (int64_t)rows, &item->err);
    if (item->status) return 0;
    t->step_n = rows;
    t->step_clock = ++t->model->step->clock;
    return rows;
}

static size_t serve_few(weft_step_item *item, size_t n, size_t room)
{
    size_t used = 0;
    for (weft_step_item *next; used < room && (next = next_item(item, n, true));)
        used += serve(next, room - used);
    return used;
}

static void serve_prompts(weft_step_item *item, size_t n, size_t prompts, size_t room)
{
    for (weft_step_item *next; room > 0 && (next = next_item(item, n, false)); prompts--) {
        size_t share = room / (prompts ? prompts : 1);
        room -= serve(next, share ? share : 1);
    }
}

/* True if the hidden state of the position before the step is there: not where that position is one of them. */
static bool knows_before(const weft_timeline *t)
{
    return t->has_hidden && t->step_from == t->n_evaluated;
}

/* The number of guesses: of t's past, or of what the model will be asked to predict. */
static size_t propose(weft_timeline *t, size_t most, size_t rows, double *tokens)
{
    const draft_cost *cost = &t->model->step->cost;
    const size_t n = draft_propose(t->draft, cost, t->ids, t->n_ids, most, rows, tokens, t->guess);
    const bool can_predict = knows_before(t) && t->step_n == 1;
    t->n_asked = n == 0 && can_predict ? draft_predictions(t->draft, cost, most, rows, tokens) : 0;
    return n + t->n_asked;
}

static bool asks(const weft_step_item *item, size_t index)
{
    return !item->status && item->timeline->step_n > 0 && item->timeline->n_asked > index;
}

/* Those that asked for a prediction, from item `from` on, as far as one call takes them; returns where it ended. */
static size_t gather_predictions(weft_step_item *item, size_t n, size_t from, size_t index, weft_predict_item *out,
                                 size_t *out_n)
{
    const size_t limit = (size_t)item[0].timeline->model->chunk;
    *out_n = 0;
    for (; from < n && *out_n < WEFT_LOGIT_ROWS && *out_n < limit; from++) {
        weft_timeline *t = item[from].timeline;
        const size_t n_embd = t->model->h.n_embd;
        if (!asks(&item[from], index)) continue;
        float *const spare = t->hidden + (t->at == 0 ? n_embd : 0);
        out[(*out_n)++] = (weft_predict_item){
            .id = index == 0 ? t->ids[t->n_ids - 1] : t->guess[index - 1],
            .row = {weft_kv_pages(t->kv), t->n_ids - 1 + (int64_t)index},
            .before = index == 0 ? t->hidden + t->at * n_embd : spare,
            .hidden = spare,
        };
    }
    return from;
}

/* Guess number `index` of all that asked for so many. Whatever goes wrong (weights that cannot be read) makes a wrong guess
 * at worst; the pass, which reads the same, will say it. */
static void predict(weft_step_item *item, size_t n, size_t index)
{
    weft_predict_item of[WEFT_LOGIT_ROWS];
    weft_model *m = item[0].timeline->model;
    for (size_t from = 0, end, count; from < n; from = end) {
        const int64_t begun = weft_monotonic_ns();
        end = gather_predictions(item, n, from, index, of, &count);
        if (count == 0) continue;
        (void)weft_model_predict(m, of, count, NULL);
        draft_prediction_measured(&m->step->cost, weft_monotonic_ns() - begun);
        for (size_t i = from, k = 0; i < end; i++)
            if (asks(&item[i], index)) item[i].timeline->guess[index] = of[k++].predicted;
    }
}

/* Guesses behind the last ids of those that were served whole. Pages that cannot be had for guesses
 * are no error: the timeline goes on without. */
static void add_guesses(weft_step_item *item, size_t n, size_t rows, size_t room)
{
    double tokens = (double)rows;
    size_t most_asked = 0;
    for (size_t i = 0; i < n && room > 0; i++) {
        weft_timeline *t = item[i].timeline;
        if (item[i].status || t->step_n == 0 || t->step_from + (int64_t)t->step_n != t->n_ids)
            continue;
        size_t fits = (size_t)(t->model->context - t->n_ids), most = fits < room ? fits : room;
        if (t->draft)
            t->n_guess = propose(t, most, rows, &tokens);
        else if (t->n_guess > most)
            t->n_guess = most;
        if (t->n_guess && weft_kv_begin(t->kv, t->n_ids, (int64_t)t->n_guess, NULL)) t->n_guess = t->n_asked = 0;
        if (t->n_asked > most_asked) most_asked = t->n_asked;
        t->step_n += t->n_guess;
        rows += t->n_guess;
        room -= t->n_guess;
    }
    for (size_t i = 0; i < most_asked; i++) predict(item, n, i);
    for (size_t i = 0; i < n && most_asked > 0; i++) {
        const weft_timeline *t = item[i].timeline;
        if (asks(&item[i], 0)) draft_predicted(t->draft, t->n_ids, t->guess, t->n_guess);
    }
}

/* Fills step_n of the timelines; false if nobody has anything to compute. */
static bool plan(weft_model *m, weft_step_item *item, size_t n, bool guesses)
{
    size_t prompts = 0, room = (size_t)m->chunk;
    for (size_t i = 0; i < n; i++) {
        assert(item[i].timeline->model == m);
        item[i].timeline->step_n = item[i].timeline->n_asked = 0;
        if (takes_part(&item[i]) && !is_few(item[i].timeline)) prompts++;
    }
    size_t kept = prompts ? room / 4 : 0;
    size_t few = serve_few(item, n, room - kept);
    if (prompts)
        serve_prompts(item, n, prompts, room - few);
    else if (guesses)
        add_guesses(item, n, few, few < room / 2 ? room / 2 - few : 0);
    for (size_t i = 0; i < n; i++)
        if (item[i].timeline->step_n) return true;
    return false;
}

/* ---- the pass ---- */

static void add_rows(weft_step_state *s, weft_timeline *t, bool every)
{
    const weft_hparams *h = &t->model->h;
    for (size_t i = 0; i < t->step_n; i++) {
        int64_t position = t->step_from + (int64_t)i, behind = position - t->n_ids;
        size_t at = behind >= 0 ? (size_t)behind + 1 : 0;
        if (every || behind >= -1) {
            s->draw[s->n_want] = behind == -1 && !every ? timeline_draw(t) : (weft_draw){0};
            s->to[s->n_want] = t->logits + at * h->n_vocab;
            s->want[s->n_want++] = s->n;
        }
        if (t->hidden) {
            const bool kept = behind >= -1 || i + 1 == t->step_n;
            s->before[s->n] = i == 0 && knows_before(t) ? t->hidden + t->at * h->n_embd : NULL;
            s->hidden[s->n] = kept ? t->hidden + at * h->n_embd : NULL;
        }
        s->id[s->n] = behind < 0 ? t->ids[position] : t->guess[behind];
        s->row[s->n++] = (weft_row){weft_kv_pages(t->kv), position};
    }
}

/* Evaluates the rows, with the first logits in the same pass, and then what is left of the logits. */
static weft_status compute(weft_model *m, weft_logits_visit visit, void *context, weft_error *err)
{
    const weft_step_state *s = m->step;
    const size_t n_vocab = m->h.n_vocab;
    const bool in_place = s->n_want == 1 && !visit && !m->ops->device;
    weft_pass pass = {.ids = s->id, .row = s->row, .n = s->n, .want = s->want, .n_want = s->n_want,
                      .before = s->before, .hidden = s->hidden, .draw = s->draw};
    do {
        const size_t left = s->n_want - pass.from;
        pass.n_logits = left < WEFT_LOGIT_ROWS ? left : WEFT_LOGIT_ROWS;
        pass.logits = in_place ? s->to[0] : s->logits;
        weft_status status = weft_model_pass(m, &pass, err);
        if (status || in_place) return status;
        for (size_t i = 0; i < pass.n_logits; i++) {
            const float *row = s->logits + i * n_vocab;
            const weft_row *of = &s->row[s->want[pass.from + i]];
            if (visit) visit(context, of->position, row);
            if (!visit || pass.from + i + 1 == s->n_want)
                memcpy(s->to[pass.from + i], row, n_vocab * sizeof *row);
        }
        pass.from += pass.n_logits;
        pass.n = 0;
    } while (pass.from < s->n_want);
    return WEFT_OK;
}

/* Nothing of the step counts; guesses that an earlier one computed are dropped with the logits. A position that was
 * computed again is lost too: what its page holds now must not be sealed. */
static void fail_item(weft_step_item *item, weft_status status, const weft_error *err)
{
    weft_timeline *t = item->timeline;
    item->status = status;
    item->err = *err;
    t->step_n = t->n_ahead = t->n_guess = 0;
    t->has_hidden = false;
    if (t->n_evaluated > t->step_from) t->n_evaluated = t->step_from;
    if (t->n_counted > t->step_from) t->n_counted = t->step_from;
}

/* What the timeline now stands at. */
static void advance(weft_timeline *t)
{
    int64_t end = t->step_from + (int64_t)t->step_n;
    bool whole = end >= t->n_ids;
    if (t->n_counted > t->step_from) { /* the last one, again; if another run computed it, now it is ours */
        if (t->borrowed_to == t->n_counted) weft_kv_count(t->kv, 0, -1);
        t->n_counted = t->step_from;
    }
    t->borrowed_to = 0;
    t->n_evaluated = whole ? t->n_ids : end;
    t->n_ahead = whole ? (size_t)(end - t->n_ids) : 0;
    t->n_guessed += (int64_t)t->n_ahead;
    t->has_logits = whole;
    t->has_hidden = t->hidden != NULL;
    t->at = 0;
    if (whole) t->announced.known = false; /* it was of this evaluation */
}

void step_forward(weft_step_item *item, size_t n, weft_logits_visit visit, void *context)
{
    if (n == 0) return;
    weft_model *m = item[0].timeline->model;
    weft_step_state *s = m->step;
    if (!plan(m, item, n, !visit)) return;
    int64_t begun = weft_monotonic_ns();
    s->n = s->n_want = 0;
    for (size_t i = 0; i < n; i++) {
        if (!item[i].timeline->step_n) continue;
        item[i].timeline->has_logits = false;
        add_rows(s, item[i].timeline, visit != NULL);
    }
    weft_error err;
    weft_status status = compute(m, visit, context, &err);
    for (size_t i = 0; i < n; i++) {
        if (!item[i].timeline->step_n) continue;
        if (status)
            fail_item(&item[i], status, &err);
        else
            advance(item[i].timeline);
    }
    if (status) return;
    draft_measured(&s->cost, s->n_want == s->n ? s->n : 0, weft_monotonic_ns() - begun);
}

/* ---- after the pass ---- */

static void count_to(weft_timeline *t, int64_t position)
{
    weft_kv_count(t->kv, position - t->n_counted, 0);
    t->n_counted = position;
}

/* Tokens count as evaluated once they are kept: page by page as pages are sealed, so a process that
 * dies in between has counted what the next one will find, and no more. */
static weft_status page_sealed(void *context, int64_t page, const uint8_t digest[WEFT_DIGEST_BYTES],
                               weft_error *err)
{
    weft_timeline *t = context;
    int64_t end = (page + 1) * WEFT_PAGE;
    if (end > t->n_counted) count_to(t, end < t->n_evaluated ? end : t->n_evaluated);
    return t->on_page ? t->on_page(t->on_page_context, page, digest, err) : WEFT_OK;
}

weft_status step_settle(weft_timeline *t, weft_error *err)
{
    weft_status status = weft_kv_seal(t->kv, t->ids, t->n_evaluated, false, page_sealed, t, err);
    count_to(t, t->n_evaluated);
    return status;
}

void weft_step(weft_step_item *item, size_t n)
{
    for (size_t i = 0; i < n; i++)
        item[i].status = timeline_take_over(item[i].timeline, &item[i].err);
    step_forward(item, n, NULL, NULL);
    for (size_t i = 0; i < n; i++) {
        if (!item[i].status) item[i].status = step_settle(item[i].timeline, &item[i].err);
        item[i].ready = !item[i].status && needed(item[i].timeline) == 0;
    }
    (void)WEFT_FAULT_POINT("engine.chunk");
}
