/* Attention: which thread sums which positions for which queries.
 *
 * The sums are fixed: positions are cut into spans of CPU_SPAN at absolute multiples of it; a query's
 * result over a span starts from nothing; its spans are merged in order, the first one as it is. So it
 * does not matter whether one thread walks all spans of a query (many tokens) or several threads
 * take some of them each (few tokens, long context), nor which queries share the key loads.
 *
 * A group is the query heads of one KV head (in portions of CPU_QUERIES), for one or more
 * tokens that follow one another on one timeline. All its queries share each load of a key; in the
 * values, they share the positions that all may see, and each walks its own head and tail alone.
 */
#include "engine/cpu/cpu.h"

#include <assert.h>

enum { PAGES_OF_SPAN = CPU_SPAN / WEFT_PAGE };

typedef struct attention_job {
    weft_backend *b;
    const weft_attention *a;
    size_t group;       /* query heads of a KV head */
    size_t parts;       /* portions of a group */
    size_t part;        /* heads in a portion (the last one may have less) */
    size_t tokens;      /* most of a query group */
    size_t token_items; /* items of a (KV head, portion) */
    /* split into spans: */
    size_t streams; /* query groups, each with all its spans */
    size_t runs;    /* items of a stream */
    int64_t wave;   /* spans of a stream that the slots hold */
    int64_t begin;  /* of this wave: counted from each stream's first */
} attention_job;

/* The queries of `n` consecutive tokens and `heads` consecutive heads of one KV head. Query t * heads +
 * h is head `head + h` of token `token + t`. */
typedef struct query_group {
    size_t token, n;
    size_t kv_head, head, heads;
} query_group;

/* A thread's memory for one group. */
typedef struct workspace {
    float *q;     /* chunks (cpu_query_chunk): [key_dim][queries of the chunk] */
    float *score; /* [CPU_QUERIES][CPU_SPAN] */
    float *value; /* [CPU_QUERIES][value_dim] of a span */
    float *total; /* [CPU_QUERIES][value_dim] of all spans so far */
} workspace;

static workspace workspace_of(const weft_backend *b, const weft_kv_layout *l, int thread)
{
    float *p = b->attention_thread + (size_t)thread * b->attention_thread_floats;
    workspace w = {.q = p, .score = p + CPU_QUERIES * l->key_dim};
    w.value = w.score + CPU_QUERIES * CPU_SPAN;
    w.total = w.value + CPU_QUERIES * l->value_dim;
    return w;
}

/* ---- the positions a token sees ---- */

static int64_t first_position(const weft_attention *a, size_t token)
{
    int64_t position = a->row[token].position;
    return a->window > 0 && position >= a->window ? position - a->window + 1 : 0;
}

static int64_t first_span(const weft_attention *a, size_t token)
{
    return first_position(a, token) / CPU_SPAN;
}

static int64_t last_span(const weft_attention *a, size_t token)
{
    return a->row[token].position / CPU_SPAN;
}

/* Positions of a span that a token sees: [from, to), relative to the span; empty if from >= to. */
typedef struct visible {
    int64_t from, to;
} visible;

static visible visible_in(const weft_attention *a, size_t token, int64_t span)
{
    int64_t from = first_position(a, token) - span * CPU_SPAN;
    int64_t to = a->row[token].position + 1 - span * CPU_SPAN;
    return (visible){from > 0 ? from : 0, to < CPU_SPAN ? to : CPU_SPAN};
}

/* ---- one group over one span ---- */

static void load_queries(const weft_backend *b, const weft_attention *a, const query_group *g,
                         float *out)
{
    const size_t key_dim = a->layout->key_dim, n = g->n * g->heads, most = cpu_query_chunk(b, n);
    for (size_t first = 0; first < n; first += most) {
        size_t width = cpu_min(most, n - first);
        for (size_t i = 0; i < width; i++) {
            size_t token = g->token + (first + i) / g->heads;
            size_t head = g->head + (first + i) % g->heads;
            const float *q = a->q + (token * a->n_head + head) * key_dim;
            for (size_t d = 0; d < key_dim; d++) out[d * width + i] = q[d] * a->scale;
        }
        out += width * key_dim;
    }
}

static const uint8_t *keys_of(const weft_attention *a, const query_group *g, int64_t page)
{
    const weft_row *row = &a->row[g->token + g->n - 1];
    return (const uint8_t *)row->page[page] +
           weft_kv_offset(a->layout, a->layer, (uint32_t)g->kv_head);
}

/* The keys that are read a span after this page's values, or what there is. */
static const uint8_t *next_keys(const weft_attention *a, const query_group *g, int64_t page,
                                const uint8_t *otherwise)
{
    int64_t next = page + PAGES_OF_SPAN;
    return next * WEFT_PAGE <= a->row[g->token + g->n - 1].position ? keys_of(a, g, next)
                                                                    : otherwise;
}

/* Scores of queries [first, last) against the pages that hold positions [from, to) of the span. */
static void score(const weft_backend *b, const weft_attention *a, const query_group *g,
                  const workspace *w, int64_t span, visible v, size_t first, size_t last)
{
    const weft_kv_layout *l = a->layout;
    const size_t n = g->n * g->heads, most = cpu_query_chunk(b, n);
    for (int64_t page = v.from / WEFT_PAGE; page * WEFT_PAGE < v.to; page++) {
        const uint8_t *keys = keys_of(a, g, span * PAGES_OF_SPAN + page);
        const uint8_t *ahead = keys + weft_kv_side_bytes(l->type, l->key_dim); /* its values */
        for (size_t i = first / most * most; i < last; i += most, ahead = keys)
            b->k->scores[l->type](keys, l->key_dim, w->q + i * l->key_dim, cpu_min(most, n - i),
                                  ahead, w->score + i * CPU_SPAN + page * WEFT_PAGE);
    }
}

/* Adds positions [v.from, v.to) to the values of queries [first, last). */
static void accumulate(const weft_backend *b, const weft_attention *a, const query_group *g,
                       const workspace *w, int64_t span, visible v, size_t first, size_t last)
{
    const weft_kv_layout *l = a->layout;
    const size_t most = cpu_query_chunk(b, last - first);
    while (v.from < v.to) {
        int64_t page = v.from / WEFT_PAGE, at = v.from % WEFT_PAGE;
        int64_t n = cpu_min((size_t)(WEFT_PAGE - at), (size_t)(v.to - v.from));
        const uint8_t *values = keys_of(a, g, span * PAGES_OF_SPAN + page) +
                                weft_kv_side_bytes(l->type, l->key_dim);
        const uint8_t *ahead = next_keys(a, g, span * PAGES_OF_SPAN + page, values);
        for (size_t i = first; i < last; i += most, ahead = values)
            b->k->values[l->type](values, l->value_dim, (size_t)at,
                                  w->score + i * CPU_SPAN + v.from, cpu_min(most, last - i),
                                  (size_t)n, ahead, w->value + i * l->value_dim);
        v.from += n;
    }
}

/* state[q] and w->value[q] of the group's queries that see something of the span; others are untouched. */
static void attend_span(const weft_backend *b, const weft_attention *a, const query_group *g,
                        const workspace *w, int64_t span, cpu_state *state)
{
    size_t first = 0, last = g->n; /* the tokens that see something: neighbours */
    while (first < last && last_span(a, g->token + first) < span) first++;
    while (first < last && first_span(a, g->token + last - 1) > span) last--;
    if (first == last) return;
    const visible early = visible_in(a, g->token + first, span);
    const visible late = visible_in(a, g->token + last - 1, span);
    const visible common = {late.from, early.to > late.from ? early.to : late.from};
    score(b, a, g, w, span, (visible){early.from, late.to}, first * g->heads, last * g->heads);
    memset(w->value + first * g->heads * a->layout->value_dim, 0,
           (last - first) * g->heads * a->layout->value_dim * sizeof(float));
    for (size_t t = first; t < last; t++) {
        visible own = visible_in(a, g->token + t, span);
        for (size_t q = t * g->heads; q < (t + 1) * g->heads; q++)
            b->k->softmax(w->score + q * CPU_SPAN, (size_t)own.from, (size_t)own.to, &state[q]);
        own.to = own.to < common.from ? own.to : common.from;
        accumulate(b, a, g, w, span, own, t * g->heads, (t + 1) * g->heads);
    }
    accumulate(b, a, g, w, span, common, first * g->heads, last * g->heads);
    for (size_t t = first; t < last; t++) {
        visible own = visible_in(a, g->token + t, span);
        own.from = own.from > common.to ? own.from : common.to;
        accumulate(b, a, g, w, span, own, t * g->heads, (t + 1) * g->heads);
    }
}

static void add_span(const weft_backend *b, bool is_first, cpu_state *total, float *total_value,
                     const cpu_state *state, const float *value, size_t value_dim)
{
    if (is_first) {
        *total = *state;
        memcpy(total_value, value, value_dim * sizeof *value);
    } else {
        b->k->merge(total, total_value, state, value, value_dim);
    }
}

static void finish_query(const weft_backend *b, const weft_attention *a, const query_group *g,
                         size_t q, const cpu_state *total, const float *value)
{
    const size_t value_dim = a->layout->value_dim;
    size_t token = g->token + q / g->heads, head = g->head + q % g->heads;
    b->k->finish(total, value, value_dim, a->out + (token * a->n_head + head) * value_dim);
}

/* ---- many tokens: an item walks all spans of its queries ---- */

static void attend_group(const attention_job *job, const query_group *g, int thread)
{
    const weft_attention *a = job->a;
    const size_t value_dim = a->layout->value_dim, last = g->token + g->n - 1;
    const workspace w = workspace_of(job->b, a->layout, thread);
    cpu_state state[CPU_QUERIES], total[CPU_QUERIES];
    load_queries(job->b, a, g, w.q);
    for (int64_t span = first_span(a, g->token); span <= last_span(a, last); span++) {
        attend_span(job->b, a, g, &w, span, state);
        for (size_t q = 0; q < g->n * g->heads; q++) {
            size_t token = g->token + q / g->heads;
            if (span < first_span(a, token) || span > last_span(a, token)) continue;
            add_span(job->b, span == first_span(a, token), &total[q], w.total + q * value_dim,
                     &state[q], w.value + q * value_dim, value_dim);
        }
    }
    for (size_t q = 0; q < g->n * g->heads; q++)
        finish_query(job->b, a, g, q, &total[q], w.total + q * value_dim);
}

/* KV head and portion of its heads; the tokens are the caller's. */
static query_group group_of(const attention_job *job, size_t index)
{
    size_t kv_head = index / job->parts, part = index % job->parts;
    return (query_group){.kv_head = kv_head,
                         .head = kv_head * job->group + part * job->part,
                         .heads = cpu_min(job->part, job->group - part * job->part)};
}

/* How many tokens from t on, at most up to `end`, follow one another on a timeline. */
static size_t run_of(const weft_attention *a, size_t t, size_t end)
{
    size_t next = t + 1;
    while (next < end && a->row[next].page == a->row[t].page &&
           a->row[next].position == a->row[next - 1].position + 1)
        next++;
    return next - t;
}

static void attention_item(void *context, uint32_t item, int thread)
{
    const attention_job *job = context;
    query_group g = group_of(job, item / job->token_items);
    size_t t = item % job->token_items * job->tokens, end = cpu_min(job->a->n, t + job->tokens);
    for (; t < end; t += g.n) {
        g.token = t;
        g.n = run_of(job->a, t, end);
        attend_group(job, &g, thread);
    }
}

/* ---- few tokens: runs of spans are items, in waves as large as the slots allow ---- */

static int64_t spans_of(const weft_attention *a, const query_group *g)
{
    return last_span(a, g->token + g->n - 1) - first_span(a, g->token) + 1;
}

/* Fills job->streams; returns the spans of the longest one. */
static int64_t count_streams(attention_job *job, size_t groups)
{
    const weft_attention *a = job->a;
    int64_t longest = 0;
    job->streams = 0;
    for (query_group g = {0}; g.token < a->n; g.token += g.n) {
        g.n = run_of(a, g.token, cpu_min(a->n, g.token + job->tokens));
        int64_t spans = spans_of(a, &g);
        longest = spans > longest ? spans : longest;
        job->streams += groups;
    }
    return longest;
}

/* Streams stand by tokens, then by groups. */
static query_group stream_of(const attention_job *job, size_t stream)
{
    const size_t groups = job->a->layout->n_head_kv * job->parts;
    query_group g = group_of(job, stream % groups);
    for (size_t i = stream / groups;; i--) {
        g.n = run_of(job->a, g.token, cpu_min(job->a->n, g.token + job->tokens));
        if (i == 0) return g;
        g.token += g.n;
    }
}

/* Where a stream's k-th span of the wave is kept. The first slots hold the streams' sums so far. */
static size_t slot_of(const attention_job *job, size_t stream, int64_t k)
{
    return (job->streams + stream * (size_t)job->wave + (size_t)k) * CPU_QUERIES;
}

static void span_item(void *context, uint32_t item, int thread)
{
    const attention_job *job = context;
    const weft_attention *a = job->a;
    weft_backend *b = job->b;
    const size_t stream = item / job->runs;
    const query_group g = stream_of(job, stream);
    const int64_t left = spans_of(a, &g) - job->begin;
    const int64_t n = left < job->wave ? left : job->wave;
    const int64_t each = (job->wave + (int64_t)job->runs - 1) / (int64_t)job->runs;
    int64_t k = (int64_t)(item % job->runs) * each;
    const int64_t end = k + each < n ? k + each : n;
    workspace w = workspace_of(b, a->layout, thread);
    if (k < end) load_queries(b, a, &g, w.q);
    for (; k < end; k++) {
        size_t slot = slot_of(job, stream, k);
        w.value = b->attention_slot + slot * a->layout->value_dim;
        attend_span(b, a, &g, &w, first_span(a, g.token) + job->begin + k,
                    b->attention_state + slot);
    }
}

/* An item is one query of a stream. */
static void merge_item(void *context, uint32_t item, int thread)
{
    const attention_job *job = context;
    const weft_attention *a = job->a;
    weft_backend *b = job->b;
    const size_t most = job->tokens * job->part, stream = item / most, q = item % most;
    const size_t value_dim = a->layout->value_dim;
    const query_group g = stream_of(job, stream);
    if (q >= g.n * g.heads) return;
    const size_t token = g.token + q / g.heads, total = stream * CPU_QUERIES + q;
    float *value = b->attention_slot + total * value_dim;
    const int64_t first = first_span(a, g.token) + job->begin;
    for (int64_t k = 0; k < job->wave; k++) {
        const int64_t span = first + k;
        if (span < first_span(a, token) || span > last_span(a, token)) continue;
        const size_t slot = slot_of(job, stream, k) + q;
        add_span(b, span == first_span(a, token), &b->attention_state[total], value,
                 &b->attention_state[slot], b->attention_slot + slot * value_dim, value_dim);
        if (span == last_span(a, token))
            finish_query(b, a, &g, q, &b->attention_state[total], value);
    }
}

static void attend_by_spans(attention_job *job, int64_t longest)
{
    const int64_t wave = (int64_t)(job->b->attention_slots / job->streams) - 1;
    const size_t enough = (size_t)job->b->threads * CPU_ATTENTION_ITEMS;
    assert(wave > 0);
    job->wave = wave < longest ? wave : longest;
    job->runs = cpu_min(cpu_divide_up(enough, job->streams), (size_t)job->wave);
    for (job->begin = 0; job->begin < longest; job->begin += job->wave) {
        cpu_pool_run(job->b->pool, span_item, job, (uint32_t)(job->streams * job->runs));
        cpu_pool_run(job->b->pool, merge_item, job,
                     (uint32_t)(job->streams * job->tokens * job->part));
    }
}

void cpu_attention(weft_backend *b, const weft_attention *a)
{
    const weft_kv_layout *l = a->layout;
    assert(a->n <= b->max_tokens && a->n_head % l->n_head_kv == 0);
    assert(l->key_dim <= b->max_columns && l->value_dim <= b->max_columns);
    if (a->n == 0) return;
    attention_job job = {.b = b, .a = a, .group = a->n_head / l->n_head_kv};
    job.part = cpu_min(job.group, CPU_QUERIES);
    job.parts = cpu_divide_up(job.group, job.part);
    job.tokens = cpu_min(a->n, CPU_QUERIES / job.part);
    const size_t groups = l->n_head_kv * job.parts;
    const size_t enough = (size_t)b->threads * CPU_ATTENTION_ITEMS;
    if (b->threads > 1 && a->n < enough * job.tokens) {
        int64_t longest = count_streams(&job, groups);
        if (job.streams < enough && longest > 1) {
            attend_by_spans(&job, longest);
            return;
        }
    }
    job.tokens = cpu_max(1, cpu_min(job.tokens, a->n * groups / enough));
    job.token_items = cpu_divide_up(a->n, job.tokens);
    cpu_pool_run(b->pool, attention_item, &job, (uint32_t)(job.token_items * groups));
}
