/* Mixtures of experts: which experts a token takes, and what they make of it.
 *
 * The tokens of a call are grouped by expert, so that an expert's weights are read once a call and those
 * of no one's choice not at all. A pick (a token and one of its experts) has a row of its own in every
 * buffer, sorted by expert, then by token; an expert's rows are then one product of matmul.c, and all
 * experts' products are spread over the threads together. A token's rows are added in the order of their
 * ranks, so its result knows nothing of who else chose the same expert.
 *
 * Floor of decode: the read of the chosen experts. The five steps are four forks at most.
 *
 * Experts in the file come through a cache (cache.c). Those that it has are computed first; those that it lacks
 * follow in waves, and while one wave is computed the kernel reads for the next. Where a token takes few experts,
 * each gets a slot. A prompt goes through most of them, and those it lacks are worth a slot only if they are worth
 * more than who is there; the others are packed tile by tile where they are multiplied with.
 */
#include "engine/cpu/cache.h"
#include "engine/cpu/product.h"

#include <assert.h>
#include <sys/mman.h>

/* ---- the choice ---- */

enum { MAX_GROUPS = 64 };

typedef struct route_job {
    const cpu_kernels *k;
    const weft_routing *r;
    float *scores;
    weft_pick *out;
} route_job;

/* Keeps the largest of list in falling order; equal ones stand by expert, since those come in ascending
 * order. Returns the new length. */
static size_t insert(weft_pick *list, size_t n, size_t most, uint32_t expert, float score)
{
    size_t at = n < most ? n : most - 1;
    if (n == most && !(score > list[at].weight)) return n;
    for (; at > 0 && score > list[at - 1].weight; at--) list[at] = list[at - 1];
    list[at] = (weft_pick){expert, score};
    return n < most ? n + 1 : n;
}

/* What an expert is chosen by. */
static float choice_of(const weft_routing *r, const float *p, uint32_t expert)
{
    return r->bias ? p[expert] + r->bias[expert] : p[expert];
}

/* The groups that count, as bits. */
static uint64_t choose_groups(const weft_routing *r, const float *p)
{
    uint64_t groups = 0;
    const uint32_t size = r->n_expert / r->n_group;
    weft_pick best[MAX_GROUPS];
    size_t n = 0;
    for (uint32_t g = 0; g < r->n_group; g++) {
        weft_pick two[2];
        size_t found = 0;
        for (uint32_t e = g * size; e < (g + 1) * size; e++)
            found = insert(two, found, 2, e, choice_of(r, p, e));
        const bool both = r->gating == WEFT_GATE_SIGMOID && found == 2;
        n = insert(best, n, r->n_group_used, g, both ? two[0].weight + two[1].weight : two[0].weight);
    }
    for (size_t i = 0; i < n; i++) groups |= UINT64_C(1) << best[i].expert;
    return groups;
}

/* Scores into p; returns the sum that a softmax is still to be divided by. */
static float gate(const route_job *job, float *p)
{
    const weft_routing *r = job->r;
    if (r->gating == WEFT_GATE_SIGMOID) {
        job->k->sigmoid(p, r->n_expert);
        return 1;
    }
    float max = p[0];
    for (uint32_t e = 1; e < r->n_expert; e++) max = p[e] > max ? p[e] : max;
    const float sum = job->k->softmax_sum(p, r->n_expert, max, p);
    if (!r->bias) return sum;
    for (uint32_t e = 0; e < r->n_expert; e++) p[e] /= sum; /* what the bias is added to */
    return 1;
}

static void route_item(void *context, uint32_t token, int thread)
{
    const route_job *job = context;
    const weft_routing *r = job->r;
    float *p = job->scores + (size_t)token * r->n_expert, chosen = 0;
    weft_pick *pick = job->out + (size_t)token * r->n_used;
    const float sum = gate(job, p);
    const uint32_t size = r->n_group > 1 ? r->n_expert / r->n_group : r->n_expert;
    const uint64_t groups = r->n_group > 1 ? choose_groups(r, p) : 1;
    size_t n = 0;
    for (uint32_t e = 0; e < r->n_expert; e++)
        if (groups >> e / size & 1) n = insert(pick, n, r->n_used, e, choice_of(r, p, e));
    for (size_t i = 0; i < n; i++) {
        pick[i].weight = p[pick[i].expert] / sum;
        chosen += pick[i].weight;
    }
    if (r->gating == WEFT_GATE_SIGMOID) chosen += 1e-20f; /* all may have underflown */
    for (size_t i = 0; i < n; i++)
        pick[i].weight = (r->normalise ? pick[i].weight / chosen : pick[i].weight) * r->scale;
}

void cpu_route(weft_backend *b, const weft_routing *r, float *scores, size_t n, weft_pick *out)
{
    assert(r->n_used > 0 && r->n_used <= r->n_expert);
    assert(r->n_group <= MAX_GROUPS && (r->n_group <= 1 || r->n_expert % r->n_group == 0));
    route_job job = {b->k, r, scores, out};
    if (n * r->n_expert * r->n_used >= CPU_SERIAL_FLOATS)
        cpu_pool_run(b->pool, route_item, &job, (uint32_t)n);
    else
        for (size_t t = 0; t < n; t++) route_item(&job, (uint32_t)t, 0);
}

/* ---- scratch ---- */

void cpu_experts_drop(weft_backend *b)
{
    if (b->experts.map) munmap(b->experts.map, b->experts.bytes);
    b->experts = (cpu_experts){0};
}

weft_status cpu_experts_reserve(weft_backend *b, const weft_experts_size *s, weft_error *err)
{
    const size_t columns = cpu_max(s->n_embd, s->n_ff);
    size_t rows;
    cpu_layout l = {0, false};
    if (weft_size_mul(s->n, s->n_used, &rows) || rows > UINT32_MAX || columns > UINT32_MAX)
        return weft_fail(err, WEFT_E_MEMORY, "scratch for %zu tokens of %zu experts: too large",
                         s->n, s->n_used);
    const size_t groups = cpu_min(rows, s->n_expert);
    const size_t panels = rows / CPU_WIDTH + groups; /* every group's last one may be short */
    size_t count = cpu_room(&l, s->n_expert, 1, 1, sizeof(uint32_t));
    size_t place = cpu_room(&l, rows, 1, 1, sizeof(uint32_t));
    size_t owner = cpu_room(&l, panels, 1, 1, sizeof(uint32_t));
    size_t group = cpu_room(&l, groups, 1, 1, sizeof(cpu_group));
    size_t gathered = cpu_room(&l, rows, s->n_embd, 1, sizeof(float));
    size_t hidden = cpu_room(&l, rows, s->n_ff, 1, sizeof(float));
    size_t quantised = cpu_room(&l, panels, cpu_quantised_stride(columns), 1, 1);
    size_t floats = cpu_room(&l, panels, CPU_WIDTH, columns, sizeof(float));
    if (l.overflow)
        return weft_fail(err, WEFT_E_MEMORY, "scratch for %zu tokens of %zu experts: too large",
                         s->n, s->n_used);
    void *map = mmap(NULL, l.bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED)
        return weft_fail_errno(err, WEFT_E_MEMORY, "scratch of %zu MiB", l.bytes >> 20);
    cpu_experts_drop(b);
    uint8_t *base = map;
    b->experts = (cpu_experts){.map = map,
                               .bytes = l.bytes,
                               .size = *s,
                               .count = (uint32_t *)(void *)(base + count),
                               .place = (uint32_t *)(void *)(base + place),
                               .owner = (uint32_t *)(void *)(base + owner),
                               .group = (cpu_group *)(void *)(base + group),
                               .gathered = (float *)(void *)(base + gathered),
                               .hidden = (float *)(void *)(base + hidden),
                               .quantised = base + quantised,
                               .floats = (float *)(void *)(base + floats)};
    return WEFT_OK;
}

/* ---- grouping ---- */

typedef struct call {
    weft_backend *b;
    const weft_experts *w;
    const weft_pick *pick; /* [n][n_used] */
    const float *x;
    size_t n, groups, panels;
    float *out;
    size_t hits;        /* of the groups: they stand first */
    size_t from, wave;  /* the groups of the wave under way */
    cpu_product *(*product)(cpu_group *); /* of the step under way */
    size_t run;                           /* tiles of an item */
} call;

/* Groups of the experts that are (in_slot) or are not in a slot of the cache. */
static void add_groups(call *c, bool in_slot, uint32_t *row)
{
    const cpu_experts *s = &c->b->experts;
    const cpu_cache *cache = c->w->gate->cache;
    for (size_t e = 0; e < c->w->gate->matrices; e++) {
        const uint32_t n = s->count[e];
        if (n == 0 || (cache && cache->residents.slot_of[e] != CPU_NO_SLOT) != in_slot) continue;
        s->group[c->groups] =
            (cpu_group){.expert = (uint32_t)e, .row = *row, .n = n, .panel = (uint32_t)c->panels};
        for (size_t i = 0; i < cpu_divide_up(n, CPU_WIDTH); i++)
            s->owner[c->panels++] = (uint32_t)c->groups;
        c->groups++;
        *row += n;
    }
}

/* Counting sort by expert: count becomes each expert's first row, then place each pick's row. */
static void sort_by_expert(call *c)
{
    const cpu_experts *s = &c->b->experts;
    const size_t rows = c->n * c->w->n_used, n_expert = c->w->gate->matrices;
    uint32_t row = 0;
    memset(s->count, 0, n_expert * sizeof *s->count);
    for (size_t i = 0; i < rows; i++) {
        assert(c->pick[i].expert < n_expert);
        s->count[c->pick[i].expert]++;
    }
    if (c->w->gate->cache) add_groups(c, true, &row);
    c->hits = c->groups;
    add_groups(c, false, &row);
    for (size_t i = 0; i < c->groups; i++) s->count[s->group[i].expert] = s->group[i].row;
    for (size_t i = 0; i < rows; i++) s->place[i] = s->count[c->pick[i].expert]++;
}

/* The two products of each expert of the wave: rows of `gathered` through gate and up into `hidden`, those through
 * down back into `gathered`, which nobody reads any more. */
static void set_products(call *c)
{
    const cpu_experts *s = &c->b->experts;
    const cpu_cache *cache = c->w->gate->cache;
    const size_t n_embd = c->w->gate->columns, n_ff = c->w->gate->rows;
    for (size_t i = c->from; i < c->from + c->wave; i++) {
        cpu_group *g = &s->group[i];
        const bool in_slot = cache && cache->residents.slot_of[g->expert] != CPU_NO_SLOT;
        const size_t matrix = in_slot ? cache->residents.slot_of[g->expert] : g->expert;
        g->w[0] = in_slot ? &cache->slots[0] : c->w->gate;
        g->w[1] = in_slot ? &cache->slots[1] : c->w->up;
        g->w[2] = in_slot ? &cache->slots[2] : c->w->down;
        g->y[0] = s->hidden + g->row * n_ff;
        g->y[1] = s->gathered + g->row * n_embd;
        g->up = (cpu_product){.b = c->b,
                              .x = g->y[1],
                              .n = g->n,
                              .columns = n_embd,
                              .w = g->w,
                              .matrix = matrix,
                              .y = g->y,
                              .n_w = 2,
                              .gated = true,
                              .act = c->w->activation,
                              .quantised = s->quantised + g->panel * cpu_quantised_stride(n_embd),
                              .floats = s->floats + g->panel * CPU_WIDTH * n_embd};
        g->down = (cpu_product){.b = c->b,
                                .x = g->y[0],
                                .n = g->n,
                                .columns = n_ff,
                                .w = g->w + 2,
                                .matrix = matrix,
                                .y = g->y + 1,
                                .n_w = 1,
                                .quantised = s->quantised + g->panel * cpu_quantised_stride(n_ff),
                                .floats = s->floats + g->panel * CPU_WIDTH * n_ff};
        cpu_product_begin(&g->up);
        cpu_product_begin(&g->down);
        for (int k = 0; k < CPU_PARTS && !cache; k++) cpu_weight_ahead(g->w[k], g->expert);
    }
}

static cpu_product *up_of(cpu_group *g)
{
    return &g->up;
}
static cpu_product *down_of(cpu_group *g)
{
    return &g->down;
}

/* ---- the steps ---- */

static void gather_item(void *context, uint32_t token, int thread)
{
    const call *c = context;
    const size_t n_embd = c->w->gate->columns, n_used = c->w->n_used;
    for (size_t i = 0; i < n_used; i++)
        memcpy(c->b->experts.gathered + c->b->experts.place[token * n_used + i] * n_embd,
               c->x + token * n_embd, n_embd * sizeof(float));
}

static void panel_item(void *context, uint32_t item, int thread)
{
    const call *c = context;
    const cpu_experts *s = &c->b->experts;
    const size_t segments = cpu_product_segments(c->product(&s->group[c->from]));
    const size_t panel = s->group[c->from].panel + item / segments;
    cpu_group *g = &s->group[s->owner[panel]];
    cpu_product_panel(c->product(g), panel - g->panel, item % segments);
}

static void tiles_item(void *context, uint32_t item, int thread)
{
    const call *c = context;
    cpu_group *group = c->b->experts.group + c->from;
    const size_t tiles = c->product(group)->w[0]->tiles, runs = cpu_divide_up(tiles, c->run);
    const size_t from = item % runs * c->run;
    cpu_product_tiles(c->product(&group[item / runs]), 0, from, cpu_min(from + c->run, tiles),
                      thread);
}

/* w_0 y_0 + w_1 y_1 + ..., by rank */
static void combine_item(void *context, uint32_t token, int thread)
{
    const call *c = context;
    const size_t n_embd = c->w->gate->columns, n_used = c->w->n_used;
    float *out = c->out + token * n_embd;
    memset(out, 0, n_embd * sizeof *out);
    for (size_t i = token * n_used; i < (token + 1) * n_used; i++)
        c->b->k->add_times(out, c->b->experts.gathered + c->b->experts.place[i] * n_embd,
                           c->pick[i].weight, n_embd);
}

/* As one fork, or here if it is little work. */
static void spread(call *c, void (*run)(void *, uint32_t, int), size_t items, size_t floats)
{
    if (floats >= CPU_SERIAL_FLOATS)
        cpu_pool_run(c->b->pool, run, c, (uint32_t)items);
    else
        for (size_t i = 0; i < items; i++) run(c, (uint32_t)i, 0);
}

static void multiply(call *c, cpu_product *(*product)(cpu_group *))
{
    const cpu_group *group = c->b->experts.group, *last = &group[c->from + c->wave - 1];
    const cpu_product *first = product(&c->b->experts.group[c->from]);
    const size_t tiles = first->w[0]->tiles, rows = last->row + last->n - group[c->from].row;
    const size_t panels = last->panel + cpu_product_panels(&last->up) - group[c->from].panel;
    c->product = product;
    spread(c, panel_item, panels * cpu_product_segments(first), rows * first->columns);
    c->run = cpu_product_run(c->b, rows / c->wave, tiles * c->wave, first->w[0]->tile_bytes);
    cpu_pool_run(c->b->pool, tiles_item, c, (uint32_t)(cpu_divide_up(tiles, c->run) * c->wave));
}

static void run_wave(call *c, size_t from, size_t n)
{
    if (n == 0) return;
    c->from = from;
    c->wave = n;
    set_products(c);
    multiply(c, up_of);
    multiply(c, down_of);
}

/* ---- through the cache ---- */

static size_t next_wave(const call *c, size_t from)
{
    return cpu_min(c->groups - from, cpu_min(c->w->n_used, c->w->gate->cache->residents.n_slot));
}

static void announce(const call *c, size_t from)
{
    for (size_t i = 0; i < next_wave(c, from); i++)
        cpu_cache_ahead(c->w->gate->cache, c->b->experts.group[from + i].expert);
}

static void count(call *c)
{
    cpu_cache *cache = c->w->gate->cache;
    weft_expert_counts *counts = &c->b->counts;
    cpu_residents_begin(&cache->residents);
    for (size_t i = 0; i < c->groups; i++) {
        const size_t expert = c->b->experts.group[i].expert;
        cpu_residents_use(&cache->residents, expert);
        if (i >= c->hits && cache->guessed[expert] == cache->residents.call) counts->right++;
    }
    counts->hits += (int64_t)c->hits;
    counts->misses += (int64_t)(c->groups - c->hits);
    counts->read_bytes += (int64_t)((c->groups - c->hits) * cache->expert_bytes);
}

static void run_cached(call *c)
{
    enum { FEW = 8 }; /* tokens of a decoding call */
    cpu_cache *cache = c->w->gate->cache;
    count(c);
    announce(c, c->hits);
    run_wave(c, 0, c->hits);
    for (size_t from = c->hits, n; from < c->groups; from += n) {
        n = next_wave(c, from);
        if (!cpu_cache_load(cache, c->b->experts.group + from, n, c->n <= FEW)) return; /* the pass is worth nothing */
        announce(c, from + n);
        run_wave(c, from, n);
    }
}

void cpu_experts_soon(weft_backend *b, const weft_experts *w, const weft_pick *pick, size_t n)
{
    cpu_cache *cache = w->gate->cache;
    if (!cache) return;
    for (size_t i = 0; i < n * w->n_used; i++) {
        const size_t expert = pick[i].expert;
        if (cache->residents.slot_of[expert] != CPU_NO_SLOT ||
            cache->guessed[expert] == cache->residents.call + 1)
            continue;
        cache->guessed[expert] = cache->residents.call + 1;
        b->counts.guesses++;
        cpu_cache_ahead(cache, expert);
    }
}

weft_status cpu_experts_pool(weft_backend *b, weft_weight *gate, weft_weight *up, weft_weight *down,
                             size_t n_slot, weft_error *err)
{
    const weft_weight *const stack[CPU_PARTS] = {gate, up, down};
    for (int k = 0; k < CPU_PARTS; k++) assert(!stack[k]->data && stack[k]->matrices == gate->matrices);
    return cpu_cache_new(b, stack, n_slot, &gate->cache, err);
}

/* ---- all of it ---- */

void cpu_experts_run(weft_backend *b, const weft_experts *w, const weft_pick *pick, const float *x,
                     size_t n, float *out)
{
    const size_t n_embd = w->gate->columns;
    const weft_experts_size *size = &b->experts.size;
    if (n == 0) return;
    assert(n <= size->n && w->n_used <= size->n_used && w->gate->matrices <= size->n_expert);
    assert(n_embd <= size->n_embd && w->gate->rows <= size->n_ff);
    assert(w->up->rows == w->gate->rows && w->up->columns == n_embd);
    assert(w->down->columns == w->gate->rows && w->down->rows == n_embd);
    call c = {.b = b, .w = w, .pick = pick, .x = x, .n = n, .out = out};
    sort_by_expert(&c);
    spread(&c, gather_item, n, n * w->n_used * n_embd);
    if (w->gate->cache)
        run_cached(&c);
    else
        run_wave(&c, 0, c.groups);
    spread(&c, combine_item, n, n * w->n_used * n_embd);
}
