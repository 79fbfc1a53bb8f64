/* A timeline: ids, how many of them are evaluated, their KV pages, and the logits after the last
 * one. Drawn in timeline.h.
 *
 * Ids are only ever added. Before pending ids are evaluated at the start of a page, pages that another
 * run made for the same ids are taken over. Evaluation takes the pending ones a step at a time (step.c): make the
 * step's pages writable, forward, count, seal what became complete. An error leaves n_evaluated where
 * the last whole step ended, so the same call may be made again. Everything is allocated at open;
 * evaluating and drawing allocate nothing.
 */
#include "engine/timeline.h"

#include "engine/sample.h"

#include <stdlib.h>
#include <string.h>

static size_t mask_bytes(const weft_timeline *t)
{
    return ((size_t)t->model->h.n_vocab + 31) / 32 * sizeof(uint32_t);
}

static weft_status allocate(weft_timeline *t, weft_error *err)
{
    size_t n_vocab = t->model->h.n_vocab;
    t->ids = malloc((size_t)t->model->context * sizeof *t->ids);
    t->logits = malloc((WEFT_GUESSES + 1) * n_vocab * sizeof *t->logits);
    t->weight = malloc(n_vocab * sizeof *t->weight);
    t->candidate = malloc(n_vocab * sizeof *t->candidate);
    t->announced.id = -1;
    if (t->model->ops->device && !(t->announced.allowed = malloc(mask_bytes(t))))
        return weft_fail(err, WEFT_E_MEMORY, "timeline: out of memory");
    const bool predicts = t->model->predicts;
    if (predicts) t->hidden = malloc((WEFT_GUESSES + 1) * t->model->h.n_embd * sizeof *t->hidden);
    if (!t->ids || !t->logits || !t->weight || !t->candidate || (predicts && !t->hidden))
        return weft_fail(err, WEFT_E_MEMORY, "timeline: out of memory");
    return WEFT_OK;
}

static void release(weft_timeline *t)
{
    weft_kv_close(t->kv, t->n_counted);
    free(t->ids);
    free(t->logits);
    free(t->hidden);
    free(t->weight);
    free(t->candidate);
    free(t->announced.allowed);
    draft_free(t->draft);
    free(t);
}

/* Takes over what there is of the pending ids, which begin a page. */
static void take_over(weft_timeline *t)
{
    int64_t shared = weft_kv_counted(t->kv).shared;
    int64_t to = weft_kv_restore(t->kv, t->ids, t->n_evaluated, t->n_ids);
    if (weft_kv_counted(t->kv).shared > shared) t->borrowed_to = to;
    t->restored += to - t->n_evaluated;
    if (to > t->n_evaluated) t->has_logits = t->has_hidden = false;
    t->n_evaluated = t->n_counted = to;
}

weft_status timeline_take_over(weft_timeline *t, weft_error *err)
{
    if (t->n_evaluated % WEFT_PAGE != 0 || t->n_ids - t->n_evaluated < WEFT_PAGE) return WEFT_OK;
    weft_status status = WEFT_OK;
    if (t->n_counted < t->n_evaluated) /* guesses completed the page before */
        status = step_settle(t, err);
    if (!status) take_over(t);
    return status;
}

static void inherit(weft_timeline *t, const weft_kv_source *source)
{
    int64_t n = 0, most = t->n_ids < (int64_t)source->n ? t->n_ids : (int64_t)source->n;
    while (n < most && t->ids[n] == source->ids[n]) n++;
    weft_kv_inherit(t->kv, source->kv_dir, source->ids, (int64_t)source->n, n);
}

weft_status weft_timeline_open(weft_timeline **out, weft_model *model, const char *kv_dir,
                               const int32_t *ids, size_t n, weft_error *err)
{
    return weft_timeline_open_from(out, model, kv_dir, NULL, ids, n, err);
}

weft_status weft_timeline_open_from(weft_timeline **out, weft_model *model, const char *kv_dir,
                                    const weft_kv_source *source, const int32_t *ids, size_t n,
                                    weft_error *err)
{
    if (!model->layer)
        return weft_fail(err, WEFT_E_USAGE, "timeline: the model was opened without its weights");
    weft_timeline *t = calloc(1, sizeof *t);
    if (!t) return weft_fail(err, WEFT_E_MEMORY, "timeline: out of memory");
    t->model = model;
    weft_status status = allocate(t, err);
    if (!status)
        status =
            weft_kv_open(&t->kv, kv_dir, &model->kv, model->kv_identity, model->context, err);
    if (!status && model->ops->device)
        status = weft_kv_attach(t->kv, model->ops->device, model->backend, err);
    if (!status) status = weft_timeline_append(t, ids, n, err);
    if (status) {
        release(t);
        return status;
    }
    if (model->prefix_dir) weft_kv_share(t->kv, model->prefix_dir);
    if (source) inherit(t, source);
    take_over(t);
    *out = t;
    return WEFT_OK;
}

weft_status weft_timeline_fork(weft_timeline **out, weft_timeline *from, int64_t length,
                               const char *kv_dir, weft_error *err)
{
    if (length < 0 || length > from->n_ids)
        return weft_fail(err, WEFT_E_INVALID, "fork at token %lld: the timeline has %lld",
                         (long long)length, (long long)from->n_ids);
    const weft_kv_source source = {weft_kv_dir(from->kv), from->ids, (size_t)from->n_ids};
    weft_timeline *t = NULL;
    weft_status status = weft_timeline_open_from(
        &t, from->model, kv_dir, source.kv_dir ? &source : NULL, from->ids, (size_t)length, err);
    if (status) return status;
    int64_t known = from->n_evaluated < length ? from->n_evaluated : length;
    status = weft_kv_copy(t->kv, from->kv, t->n_evaluated, known, err);
    if (known > t->n_evaluated) {
        t->restored += known - t->n_evaluated;
        t->n_evaluated = t->n_counted = t->borrowed_to = known;
    }
    if (!status) status = weft_kv_seal(t->kv, t->ids, t->n_evaluated, false, NULL, NULL, err);
    if (status) {
        release(t);
        return status;
    }
    if (from->has_logits && from->n_evaluated == length) {
        memcpy(t->logits, weft_timeline_logits(from), t->model->h.n_vocab * sizeof *t->logits);
        t->has_logits = true;
    }
    if (from->has_hidden && from->n_evaluated == length) {
        const size_t n_embd = t->model->h.n_embd;
        memcpy(t->hidden, from->hidden + from->at * n_embd, n_embd * sizeof *t->hidden);
        t->has_hidden = true;
    }
    *out = t;
    return WEFT_OK;
}

void weft_timeline_close(weft_timeline *timeline)
{
    if (!timeline) return;
    /* A page that cannot be sealed is recomputed by whoever opens the timeline next. */
    (void)weft_kv_seal(timeline->kv, timeline->ids, timeline->n_counted, true, NULL, NULL, NULL);
    release(timeline);
}

/* Ids that were guessed are evaluated already; the first that was not ends the guesses. They count with
 * the next evaluation: who stops before it leaves the last id pending, as without guesses. */
static void pass_guesses(weft_timeline *t)
{
    while (t->n_ahead > 0 && t->n_evaluated < t->n_ids &&
           t->guess[t->at] == t->ids[t->n_evaluated]) {
        t->n_evaluated++;
        t->at++;
        t->n_ahead--;
        t->n_guessed_right++;
    }
    if (t->n_evaluated < t->n_ids) t->n_ahead = t->n_guess = 0;
}

weft_status weft_timeline_append(weft_timeline *timeline, const int32_t *ids, size_t n,
                                 weft_error *err)
{
    int64_t room = timeline->model->context - timeline->n_ids;
    if (n > (size_t)room)
        return weft_fail(
            err, WEFT_E_LIMIT,
            "the context is full: %lld tokens of %lld are used and %zu more do not fit",
            (long long)timeline->n_ids, (long long)timeline->model->context, n);
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || (uint32_t)ids[i] >= timeline->model->h.n_vocab)
            return weft_fail(err, WEFT_E_INVALID, "id %d is not in the vocabulary of %u", ids[i],
                             timeline->model->h.n_vocab);
    if (n > 0) memcpy(timeline->ids + timeline->n_ids, ids, n * sizeof *ids);
    timeline->n_ids += (int64_t)n;
    pass_guesses(timeline);
    return WEFT_OK;
}

int64_t timeline_next(const weft_timeline *t)
{
    if (t->n_evaluated == 0) return 0;
    const bool again = t->n_evaluated == t->n_ids ? !t->has_logits : t->model->predicts && !t->has_hidden;
    return t->n_evaluated - again;
}

/* One step for this timeline: its own, or one that it shares with those of other threads. */
static weft_status step_once(weft_timeline *t, weft_logits_visit visit, void *context,
                             weft_error *err)
{
    weft_step_item item = {.timeline = t};
    if (t->model->share)
        share_step(t->model->share, &item);
    else
        step_forward(&item, 1, visit, context);
    if (!item.status) return step_settle(t, err);
    if (err) *err = item.err;
    return item.status;
}

static weft_status evaluate(weft_timeline *t, weft_logits_visit visit, void *visit_context,
                            weft_progress progress, void *context, weft_error *err)
{
    weft_status status = visit ? WEFT_OK : timeline_take_over(t, err);
    if (status) return status;
    const int64_t start = timeline_next(t);
    if (start == t->n_ids) return step_settle(t, err); /* what guesses completed */
    while (timeline_next(t) < t->n_ids) {
        status = step_once(t, visit, visit_context, err);
        if (status) return status;
        (void)WEFT_FAULT_POINT("engine.chunk");
        if (progress && progress(context, "prefill", t->n_evaluated - start, t->n_ids - start))
            return weft_fail(err, WEFT_E_INTERRUPTED,
                             "evaluation was stopped at token %lld of %lld",
                             (long long)t->n_evaluated, (long long)t->n_ids);
        if (!visit) status = timeline_take_over(t, err);
        if (status) return status;
    }
    return WEFT_OK;
}

weft_status weft_timeline_evaluate(weft_timeline *timeline, weft_progress progress, void *context,
                                   weft_error *err)
{
    return evaluate(timeline, NULL, NULL, progress, context, err);
}

weft_status weft_timeline_evaluate_each(weft_timeline *timeline, weft_logits_visit visit,
                                        void *context, weft_error *err)
{
    if (timeline->model->share)
        return weft_fail(err, WEFT_E_INVALID,
                         "a model that threads share gives the last position's logits only");
    return evaluate(timeline, visit, context, NULL, NULL, err);
}

weft_status weft_timeline_guess(weft_timeline *timeline, int most, weft_error *err)
{
    draft_free(timeline->draft);
    timeline->draft = NULL;
    if (most == 0) return WEFT_OK;
    return draft_new(&timeline->draft, timeline->model->context, most, err);
}

void weft_timeline_propose(weft_timeline *timeline, const int32_t *ids, size_t n)
{
    timeline->n_guess = 0;
    while (timeline->n_ahead == 0 && timeline->n_guess < n && timeline->n_guess < WEFT_GUESSES &&
           ids[timeline->n_guess] >= 0 &&
           (uint32_t)ids[timeline->n_guess] < timeline->model->h.n_vocab) {
        timeline->guess[timeline->n_guess] = ids[timeline->n_guess];
        timeline->n_guess++;
    }
}

int64_t weft_timeline_guessed(const weft_timeline *timeline, int64_t *out_right)
{
    if (out_right) *out_right = timeline->n_guessed_right;
    return timeline->n_guessed;
}

int64_t weft_timeline_length(const weft_timeline *timeline)
{
    return timeline->n_ids;
}

int64_t weft_timeline_pending(const weft_timeline *timeline)
{
    return timeline->n_ids - timeline->n_evaluated;
}

const int32_t *weft_timeline_ids(const weft_timeline *timeline)
{
    return timeline->ids;
}

int64_t weft_timeline_restored(const weft_timeline *timeline)
{
    return timeline->restored;
}

int64_t weft_timeline_evaluated(const weft_timeline *timeline)
{
    return weft_kv_counted(timeline->kv).evaluated;
}

int64_t weft_timeline_shared(const weft_timeline *timeline)
{
    return weft_kv_counted(timeline->kv).shared;
}

void weft_timeline_on_page(weft_timeline *timeline, weft_page_visit visit, void *context)
{
    timeline->on_page = visit;
    timeline->on_page_context = context;
}

const float *weft_timeline_logits(const weft_timeline *timeline)
{
    if (!timeline->has_logits) return NULL;
    return timeline->logits + timeline->at * timeline->model->h.n_vocab;
}

void weft_timeline_will_draw(weft_timeline *timeline, const weft_sampler *sampler, const weft_mask *mask)
{
    timeline_announced *a = &timeline->announced;
    a->known = a->allowed && sampler->repeat_penalty == 1 && !weft_sampler_check(sampler, NULL);
    if (!a->known) return;
    a->sampler = *sampler;
    a->masked = mask != NULL;
    if (mask) memcpy(a->allowed, mask->allowed, mask_bytes(timeline));
}

weft_draw timeline_draw(weft_timeline *t)
{
    timeline_announced *a = &t->announced;
    a->id = -1;
    a->at = t->n_ids;
    if (!a->known) return (weft_draw){0};
    return (weft_draw){&a->sampler, a->masked ? a->allowed : NULL, t->n_ids, &a->id};
}

static bool same_sampler(const weft_sampler *a, const weft_sampler *b)
{
    return a->temperature == b->temperature && a->top_k == b->top_k && a->top_p == b->top_p && a->min_p == b->min_p &&
           a->repeat_penalty == b->repeat_penalty && a->seed == b->seed;
}

/* Whether a device has drawn this already: at this position, by these rules, under this mask. */
static bool is_drawn(const weft_timeline *t, const weft_sampler *sampler, const weft_mask *mask)
{
    const timeline_announced *a = &t->announced;
    return a->id >= 0 && a->at == t->n_ids && same_sampler(&a->sampler, sampler) && a->masked == (mask != NULL) &&
           (!mask || memcmp(a->allowed, mask->allowed, mask_bytes(t)) == 0);
}

weft_status weft_timeline_sample(const weft_timeline *timeline, const weft_sampler *sampler,
                                 const weft_mask *mask, int32_t *out_id, float *out_logprob,
                                 weft_error *err)
{
    const weft_timeline *t = timeline;
    if (!t->has_logits || t->n_evaluated != t->n_ids)
        return weft_fail(err, WEFT_E_INVALID, "sampling: %lld ids are pending; evaluate them first",
                         (long long)(t->n_ids - t->n_evaluated));
    if (!out_logprob && is_drawn(t, sampler, mask)) {
        *out_id = t->announced.id;
        return WEFT_OK;
    }
    const weft_sample s = {
        .logits = t->logits + t->at * t->model->h.n_vocab,
        .n_vocab = t->model->h.n_vocab,
        .sampler = sampler,
        .mask = mask,
        .recent = t->ids,
        .n_recent = (size_t)t->n_ids,
        .position = t->n_ids,
        .weight = t->weight,
        .candidate = t->candidate,
    };
    return weft_sample_draw(&s, out_id, out_logprob, err);
}
