/* A timeline: ids, how many of them are evaluated, their KV pages, and the logits after the last
 * one.
 *
 *      0 .......... n_evaluated .......... n_ids ........ context
 *      | valid KV       | pending              |
 *
 * Ids are only ever added. Evaluation takes the pending ones a chunk at a time: make the chunk's
 * pages writable, forward, count, seal what became complete. An error leaves n_evaluated where the
 * last whole chunk ended, so the same call may be made again. Everything is allocated at open;
 * evaluating and drawing allocate nothing.
 */
#include "engine/kv.h"
#include "engine/model.h"
#include "engine/sample.h"

#include <stdlib.h>
#include <string.h>

struct weft_timeline {
    weft_model *model;
    weft_kv *kv;
    int32_t *ids; /* [context] */
    int64_t n_ids, n_evaluated, restored;
    int64_t n_counted; /* positions of the chunk in progress that the page file's counter knows */
    bool has_logits;
    float *logits; /* [2][n_vocab], the first after position n_evaluated - 1 (model.h) */
    float *weight; /* [n_vocab], the sampler's */
    int32_t *candidate;
    weft_row *row; /* [chunk] */
    size_t *want;  /* [chunk] */
    weft_page_visit on_page;
    void *on_page_context;
};

typedef void (*logits_visit)(void *context, int64_t position, const float *logits);

static weft_status allocate(weft_timeline *t, weft_error *err)
{
    size_t n_vocab = t->model->h.n_vocab, chunk = (size_t)t->model->chunk;
    t->ids = malloc((size_t)t->model->context * sizeof *t->ids);
    t->logits = malloc(2 * n_vocab * sizeof *t->logits);
    t->weight = malloc(n_vocab * sizeof *t->weight);
    t->candidate = malloc(n_vocab * sizeof *t->candidate);
    t->row = malloc(chunk * sizeof *t->row);
    t->want = malloc(chunk * sizeof *t->want);
    if (!t->ids || !t->logits || !t->weight || !t->candidate || !t->row || !t->want)
        return weft_fail(err, WEFT_E_MEMORY, "timeline: out of memory");
    return WEFT_OK;
}

static void release(weft_timeline *t)
{
    weft_kv_close(t->kv, t->n_evaluated);
    free(t->ids);
    free(t->logits);
    free(t->weight);
    free(t->candidate);
    free(t->row);
    free(t->want);
    free(t);
}

weft_status weft_timeline_open(weft_timeline **out, weft_model *model, const char *kv_dir,
                               const int32_t *ids, size_t n, weft_error *err)
{
    if (!model->layer)
        return weft_fail(err, WEFT_E_USAGE, "timeline: the model was opened without its weights");
    weft_timeline *t = calloc(1, sizeof *t);
    if (!t) return weft_fail(err, WEFT_E_MEMORY, "timeline: out of memory");
    t->model = model;
    weft_status status = allocate(t, err);
    if (!status)
        status =
            weft_kv_open(&t->kv, kv_dir, &model->kv, model->info.fingerprint, model->context, err);
    if (!status) status = weft_timeline_append(t, ids, n, err);
    if (status) {
        release(t);
        return status;
    }
    t->restored = t->n_evaluated = weft_kv_restore(t->kv, t->ids, t->n_ids);
    *out = t;
    return WEFT_OK;
}

void weft_timeline_close(weft_timeline *timeline)
{
    if (!timeline) return;
    /* A page that cannot be sealed is recomputed by whoever opens the timeline next. */
    (void)weft_kv_seal(timeline->kv, timeline->ids, timeline->n_evaluated, true, NULL, NULL, NULL);
    release(timeline);
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
    return WEFT_OK;
}

/* Tokens count as evaluated once they are kept: page by page as pages are sealed, so a process that
 * dies in between has counted what the next one will find, and no more. */
static void count_to(weft_timeline *t, int64_t position)
{
    weft_kv_count(t->kv, position - t->n_counted);
    t->n_counted = position;
}

static weft_status page_sealed(void *context, int64_t page, const uint8_t digest[WEFT_DIGEST_BYTES],
                               weft_error *err)
{
    weft_timeline *t = context;
    int64_t end = (page + 1) * WEFT_PAGE;
    count_to(t, end < t->n_evaluated ? end : t->n_evaluated);
    return t->on_page ? t->on_page(t->on_page_context, page, digest, err) : WEFT_OK;
}

/* One chunk: positions [from, from + n). With each_logits [2 * WEFT_LOGIT_ROWS][n_vocab] every position is
 * visited; else logits are computed after the last of all ids only. */
static weft_status evaluate_chunk(weft_timeline *t, int64_t from, size_t n, float *each_logits,
                                  logits_visit visit, void *context, weft_error *err)
{
    weft_model *m = t->model;
    size_t n_vocab = m->h.n_vocab, n_want = 0;
    weft_status status = weft_kv_begin(t->kv, from, (int64_t)n, err);
    if (status) return status;
    bool last = from + (int64_t)n == t->n_ids;
    for (size_t i = 0; i < n; i++) {
        t->row[i] = (weft_row){weft_kv_pages(t->kv), from + (int64_t)i};
        if (each_logits || (last && i + 1 == n)) t->want[n_want++] = i;
    }
    t->has_logits = false;
    weft_model_forward(m, t->ids + from, t->row, n, t->want, n_want);
    for (size_t i = 0; each_logits && i < n; i += WEFT_LOGIT_ROWS) {
        size_t rows = n - i < WEFT_LOGIT_ROWS ? n - i : WEFT_LOGIT_ROWS;
        weft_model_logits(m, i, rows, each_logits);
        for (size_t j = 0; j < rows; j++)
            visit(context, from + (int64_t)(i + j), each_logits + j * n_vocab);
        if (i + rows == n)
            memcpy(t->logits, each_logits + (rows - 1) * n_vocab, n_vocab * sizeof(float));
    }
    if (!each_logits && n_want > 0) weft_model_logits(m, 0, 1, t->logits);
    t->has_logits = last;
    t->n_evaluated = from + (int64_t)n;
    t->n_counted = from;
    status = weft_kv_seal(t->kv, t->ids, t->n_evaluated, false, page_sealed, t, err);
    count_to(t, t->n_evaluated);
    return status;
}

static weft_status evaluate(weft_timeline *t, float *each_logits, logits_visit visit,
                            void *visit_context, weft_progress progress, void *context,
                            weft_error *err)
{
    int64_t from = t->n_evaluated;
    /* Everything came from pages: the last position is computed again for its logits. */
    if (from == t->n_ids && from > 0 && !t->has_logits) from--;
    const int64_t start = from;
    while (from < t->n_ids) {
        int64_t left = t->n_ids - from;
        size_t n = left < t->model->chunk ? (size_t)left : (size_t)t->model->chunk;
        weft_status status = evaluate_chunk(t, from, n, each_logits, visit, visit_context, err);
        if (status) return status;
        from += (int64_t)n;
        (void)WEFT_FAULT_POINT("engine.chunk");
        if (progress && progress(context, "prefill", from - start, t->n_ids - start))
            return weft_fail(err, WEFT_E_INTERRUPTED,
                             "evaluation was stopped at token %lld of %lld", (long long)from,
                             (long long)t->n_ids);
    }
    return WEFT_OK;
}

weft_status weft_timeline_evaluate(weft_timeline *timeline, weft_progress progress, void *context,
                                   weft_error *err)
{
    return evaluate(timeline, NULL, NULL, NULL, progress, context, err);
}

weft_status weft_timeline_evaluate_each(weft_timeline *timeline, logits_visit visit, void *context,
                                        weft_error *err)
{
    float *logits =
        malloc(2 * (size_t)WEFT_LOGIT_ROWS * timeline->model->h.n_vocab * sizeof *logits);
    if (!logits)
        return weft_fail(err, WEFT_E_MEMORY, "logits of %d rows: out of memory", WEFT_LOGIT_ROWS);
    weft_status status = evaluate(timeline, logits, visit, context, NULL, NULL, err);
    free(logits);
    return status;
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
    return weft_kv_evaluated(timeline->kv);
}

void weft_timeline_on_page(weft_timeline *timeline, weft_page_visit visit, void *context)
{
    timeline->on_page = visit;
    timeline->on_page_context = context;
}

const float *weft_timeline_logits(const weft_timeline *timeline)
{
    return timeline->has_logits ? timeline->logits : NULL;
}

weft_status weft_timeline_sample(const weft_timeline *timeline, const weft_sampler *sampler,
                                 const weft_mask *mask, int32_t *out_id, float *out_logprob,
                                 weft_error *err)
{
    const weft_timeline *t = timeline;
    if (!t->has_logits || t->n_evaluated != t->n_ids)
        return weft_fail(err, WEFT_E_INVALID, "sampling: %lld ids are pending; evaluate them first",
                         (long long)(t->n_ids - t->n_evaluated));
    const weft_sample s = {
        .logits = t->logits,
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
