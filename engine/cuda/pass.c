/* A pass: rows in, the graph's calls, logits, drawn ids and complete pages out, one synchronisation.
 *
 * What differs between passes of one shape lies in memory that the calls name: token embeddings, rows (page tables
 * and positions), which rows are wanted, how tokens are drawn. So a small pass is recorded the first time, by
 * stream capture, as one CUDA graph a stage, and a decode step is then: fill pinned memory, launch, wait. Between
 * stages the residual stream crosses; events order the streams, the host waits for the last one alone.
 *
 *     stage 0   [rows in, x in, layers 0 .. a]   event --.
 *     stage 1                              wait <--'  [x across] [rows in, layers a .. b, logits, ids out]
 *
 * Large passes run as they are called: there a launch is nothing beside the work.
 */
#include "engine/cuda/cuda.h"

#include <string.h>

/* ---- inputs ---- */

static size_t kept_at(const weft_pass *pass)
{
    return pass->n * sizeof(weft_row);
}

static size_t wanted_at(const weft_pass *pass)
{
    return (pass->n + pass->n_want) * sizeof(weft_row);
}

/* Of the last stage alone. */
static size_t draws_at(const weft_pass *pass)
{
    return (wanted_at(pass) + pass->n_want * sizeof(uint32_t) + 15) / 16 * 16;
}

static bool has_draws(const cuda_backend *b, int stage)
{
    return b->shape.draws && stage == b->n_stage - 1;
}

static size_t input_bytes(const cuda_backend *b, const weft_pass *pass, int stage)
{
    return draws_at(pass) + (has_draws(b, stage) ? cuda_draw_bytes(b, pass->n_logits) : 0);
}

/* Of the stage's view of the rows: its page tables. */
static void write_rows(const cuda_backend *b, const weft_pass *pass, int stage, uint8_t *to)
{
    weft_row *row = (weft_row *)(void *)to, *kept = (weft_row *)(void *)(to + kept_at(pass));
    uint32_t *wanted = (uint32_t *)(void *)(to + wanted_at(pass));
    for (size_t i = 0; i < pass->n; i++) {
        void *table = (void *)(uintptr_t)cuda_page_table(b, &pass->row[i], stage);
        row[i] = (weft_row){table, pass->row[i].position};
    }
    for (size_t i = 0; i < pass->n_want; i++) {
        kept[i] = row[pass->want[i]];
        wanted[i] = (uint32_t)pass->want[i];
    }
}

static uint8_t *input_of(const cuda_backend *b, int stage)
{
    return (uint8_t *)b->input + (size_t)stage * b->input_bytes;
}

static void fill_inputs(cuda_backend *b, const weft_pass *pass)
{
    if (pass->n == 0) return;
    for (int i = 0; i < b->n_stage; i++) {
        write_rows(b, pass, i, input_of(b, i));
        if (has_draws(b, i))
            cuda_draw_write(b, pass, b->stage[i].input + draws_at(pass), input_of(b, i) + draws_at(pass));
    }
    memcpy(b->x, b->places.x, pass->n * b->places.n_embd * sizeof(float));
}

const weft_row *cuda_rows(cuda_backend *b, const weft_row *row)
{
    const weft_pass *pass = b->pass;
    cuda_address at = cuda_here(b)->input;
    if (row >= pass->row && row < pass->row + pass->n)
        at += (cuda_address)((const uint8_t *)row - (const uint8_t *)pass->row);
    else
        at += kept_at(pass) + (cuda_address)((const uint8_t *)row - (const uint8_t *)b->places.kept);
    return (const weft_row *)(uintptr_t)at;
}

const uint32_t *cuda_wanted(cuda_backend *b)
{
    return (const uint32_t *)(uintptr_t)(cuda_here(b)->input + wanted_at(b->pass));
}

static cuda_shape shape_of(const cuda_backend *b, const weft_pass *pass)
{
    cuda_shape s = {pass->n, pass->n_want, pass->from, pass->n_logits, 1, true, cuda_draws(b, pass)};
    int64_t last = 0;
    for (size_t i = 0; i < pass->n; i++) {
        const weft_row *row = &pass->row[i];
        if (row->position > last) last = row->position;
        s.follow = s.follow && row->page == pass->row[0].page &&
                   row->position == pass->row[0].position + (int64_t)i;
    }
    while ((int64_t)s.spans * WEFT_CUDA_SPAN <= last) s.spans *= 2;
    return s;
}

/* ---- from stage to stage ---- */

static void note(cuda_backend *b, int result, const char *what)
{
    if (!b->status) b->status = cuda_check(b->driver, result, &b->err, what);
}

/* The residual stream of n rows to the next stage. Not recorded: a graph belongs to one GPU. */
static void cross(cuda_backend *b, int from, int to, size_t n)
{
    const cuda_driver *d = b->driver;
    const cuda_stage *s = &b->stage[from], *next = &b->stage[to];
    const cuda_address x = cuda_twin_of(b, b->places.x, from), y = cuda_twin_of(b, b->places.x, to);
    note(b, d->context_set(s->context), "using its context");
    if (!b->status) note(b, d->event_record(s->done, s->stream), "noting the end of its layers");
    if (!b->status) note(b, d->context_set(next->context), "using its context");
    if (!b->status) note(b, d->stream_wait(next->stream, s->done, 0), "waiting for the layers before");
    if (!b->status)
        note(b, d->copy_across(y, next->context, x, s->context, n * b->places.n_embd * sizeof(float),
                               next->stream),
             "copying between GPUs");
}

static void leave(cuda_backend *b)
{
    const cuda_driver *d = b->driver;
    cuda_graph graph = NULL;
    if (b->at < 0 || !b->recording) return;
    int result = d->capture_end(cuda_here(b)->stream, &graph);
    note(b, result, "recording a pass");
    if (!b->status) note(b, d->exec_new(&b->recording->exec[b->at], graph, 0), "preparing a recorded pass");
    if (graph) d->graph_free(graph);
    b->at = -1;
}

static void enter(cuda_backend *b, int stage)
{
    const cuda_driver *d = b->driver;
    const cuda_stage *s = &b->stage[stage];
    const weft_pass *pass = b->pass;
    if (b->at >= 0) cross(b, b->at, stage, pass->n);
    if (!b->status) note(b, d->context_set(s->context), "using its context");
    if (b->recording && !b->status)
        note(b, d->capture_begin(s->stream, CUDA_CAPTURE_THREAD_LOCAL_), "recording a pass");
    if (b->status) return;
    b->at = stage;
    b->n_rope = 0;
    if (pass->n == 0) return;
    note(b, d->copy_in(s->input, input_of(b, stage), input_bytes(b, pass, stage), s->stream), "copying rows");
    if (s->first == 0 && !b->status)
        note(b, d->copy_in(cuda_at(b, b->places.x), b->x, pass->n * b->places.n_embd * sizeof(float),
                           s->stream),
             "copying embeddings");
}

void cuda_layer(weft_backend *wb, uint32_t layer, size_t n)
{
    cuda_backend *b = cuda_of(wb);
    int stage = 0;
    while (stage + 1 < b->n_stage && layer >= b->stage[stage].end) stage++;
    if (b->status || stage == b->at) return;
    leave(b);
    if (!b->status) enter(b, stage);
}

/* ---- running ---- */

static void issue_calls(cuda_backend *b, void (*issue)(void *), void *context)
{
    const weft_pass *pass = b->pass;
    b->at = -1;
    issue(context);
    if (b->at >= 0 && !b->status && pass->n_logits)
        note(b, b->driver->copy_out(b->logits, cuda_at(b, pass->logits),
                                    pass->n_logits * b->places.n_vocab * sizeof(float),
                                    cuda_here(b)->stream),
             "copying logits");
    if (b->at >= 0 && b->shape.draws) cuda_draw_run(b, cuda_here(b)->input + draws_at(pass));
    leave(b);
}

static void drop_recorded(cuda_backend *b, cuda_recorded *r)
{
    for (int i = 0; i < b->n_stage; i++)
        if (r->exec[i]) b->driver->exec_free(r->exec[i]);
    *r = (cuda_recorded){0};
}

void cuda_forget_recorded(cuda_backend *b)
{
    while (b->n_recorded > 0) drop_recorded(b, &b->recorded[--b->n_recorded]);
}

static bool same_shape(const cuda_shape *a, const cuda_shape *b)
{
    return a->n == b->n && a->n_want == b->n_want && a->from == b->from && a->n_logits == b->n_logits &&
           a->spans == b->spans && a->follow == b->follow && a->draws == b->draws;
}

static cuda_recorded *find_recorded(cuda_backend *b)
{
    for (int i = 0; i < b->n_recorded; i++)
        if (same_shape(&b->recorded[i].shape, &b->shape)) return &b->recorded[i];
    return NULL;
}

/* A free place; of full ones that used longest ago. */
static cuda_recorded *place_for_recording(cuda_backend *b)
{
    cuda_recorded *oldest = &b->recorded[0];
    if (b->n_recorded < CUDA_GRAPHS) return &b->recorded[b->n_recorded++];
    for (int i = 1; i < CUDA_GRAPHS; i++)
        if (b->recorded[i].used < oldest->used) oldest = &b->recorded[i];
    drop_recorded(b, oldest);
    return oldest;
}

static cuda_recorded *record(cuda_backend *b, void (*issue)(void *), void *context)
{
    cuda_recorded *r = place_for_recording(b);
    r->shape = b->shape;
    b->recording = r;
    issue_calls(b, issue, context);
    b->recording = NULL;
    if (!b->status) return r;
    drop_recorded(b, r);
    *r = b->recorded[--b->n_recorded];
    return NULL;
}

static void launch(cuda_backend *b, cuda_recorded *r)
{
    const cuda_driver *d = b->driver;
    int before = -1;
    r->used = b->clock;
    for (int i = 0; i < b->n_stage && !b->status; i++) {
        if (!r->exec[i]) continue;
        if (before >= 0) cross(b, before, i, b->pass->n);
        if (!b->status) note(b, d->context_set(b->stage[i].context), "using its context");
        if (!b->status) note(b, d->exec_launch(r->exec[i], b->stage[i].stream), "launching a pass");
        before = i;
    }
    b->at = before;
}

/* The last stage waits for the others, the host for the last. */
weft_status cuda_wait(cuda_backend *b, weft_error *err)
{
    const cuda_driver *d = b->driver;
    const cuda_stage *last = &b->stage[b->n_stage - 1];
    weft_status e = WEFT_OK;
    for (int i = 0; i + 1 < b->n_stage && !e; i++) {
        const cuda_stage *s = &b->stage[i];
        e = cuda_stage_enter(s, d, err);
        if (!e) e = cuda_check(d, d->event_record(s->fetched, s->stream), err, "noting its end");
        if (!e) e = cuda_stage_enter(last, d, err);
        if (!e) e = cuda_check(d, d->stream_wait(last->stream, s->fetched, 0), err, "waiting for a GPU");
    }
    if (!e) e = cuda_stage_enter(last, d, err);
    return e ? e : cuda_check(d, d->synchronize(last->stream), err, "computing a pass");
}

static weft_status run(cuda_backend *b, const weft_pass *pass, void (*issue)(void *), void *context,
                       weft_error *err)
{
    weft_status e = cuda_pages_prepare(b, pass, err);
    if (e) return e;
    b->pass = pass;
    b->shape = shape_of(b, pass);
    b->status = WEFT_OK;
    fill_inputs(b, pass);
    if (pass->n == 0 || pass->n > CUDA_GRAPH_ROWS) {
        issue_calls(b, issue, context);
    } else {
        cuda_recorded *r = find_recorded(b);
        if (!r) r = record(b, issue, context);
        if (r) launch(b, r);
    }
    if (b->status) {
        *err = b->err;
        return b->status;
    }
    e = cuda_pages_write_behind(b, pass, err);
    return e ? e : cuda_wait(b, err);
}

weft_status cuda_pass(weft_backend *wb, const weft_pass *pass, void (*issue)(void *), void *context,
                      weft_error *err)
{
    cuda_backend *b = cuda_of(wb);
    weft_error unused;
    pthread_mutex_lock(&b->mutex);
    weft_status e = run(b, pass, issue, context, err ? err : &unused);
    if (e) {
        b->n_staged = 0;
        (void)cuda_wait(b, NULL); /* nobody may use its pinned memory any more */
    } else {
        cuda_pages_arrived(b);
        memcpy(pass->logits, b->logits, pass->n_logits * b->places.n_vocab * sizeof(float));
        cuda_draw_arrived(b, pass);
    }
    b->pass = NULL;
    pthread_mutex_unlock(&b->mutex);
    return e;
}
