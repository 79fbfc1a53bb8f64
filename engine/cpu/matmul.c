/* Matrix products: who computes which tiles, and what happens to a tile's sums.
 *
 * A call quantises its activations once (for the F formats: interleaves them) into panels of 8 tokens, then
 * forks once over runs of tiles of all its matrices. A run takes the panels in portions that stay in
 * the cache. Nothing here can change a bit of the result: a tile function computes each output whole.
 */
#include "engine/cpu/product.h"

#include <assert.h>

enum {
    RUN_BYTES = 256 << 10,     /* weights of an item when few tokens are computed */
    RUN_TILES = 8,             /* tiles of an item at most when many are */
    WIDE_TOKENS = 12,          /* from here on the wide products win (docs/speed.md) */
    PORTION_BYTES = 256 << 10, /* of panels, a quarter of a core's second-level cache */
    WIDE_PORTION_BYTES = 1 << 20, /* half of it, on the CPUs that have wide products: 2 MiB */
    ITEMS_PER_THREAD = 8
};

static bool is_float(const weft_weight *w)
{
    return w->format >= CPU_F16;
}

/* Experts' products have no room for wide panels. */
static bool is_wide(const cpu_product *p, const weft_weight *w)
{
    const cpu_wide *wide = p->b->wide;
    if (!wide || !p->quantised_wide || p->n < WIDE_TOKENS) return false;
    if (p->gated) return wide->tile[p->w[0]->format] && wide->tile[p->w[1]->format];
    return wide->tile[w->format] != NULL;
}

static size_t wide_panel_bytes(const cpu_product *p)
{
    return p->columns / CPU_BLOCK * CPU_WIDE_BYTES;
}

/* Panel i of the activations as w needs them. */
static const void *panel_of(const cpu_product *p, const weft_weight *w, size_t i)
{
    if (!is_float(w)) return p->quantised + i * cpu_quantised_stride(p->columns);
    return p->n == 1 ? p->x : p->floats + i * CPU_WIDTH * p->columns;
}

static size_t panel_tokens(const cpu_product *p, size_t i)
{
    return cpu_min(CPU_WIDTH, p->n - i * CPU_WIDTH);
}

/* ---- activations ---- */

void cpu_product_begin(cpu_product *p)
{
    p->wants_quantised = p->wants_wide = p->wants_floats = false;
    for (size_t i = 0; i < p->n_w; i++)
        *(is_float(p->w[i])     ? &p->wants_floats
          : is_wide(p, p->w[i]) ? &p->wants_wide
                                : &p->wants_quantised) = true;
    if (p->n == 1) p->wants_floats = false; /* x is its own panel */
}

void cpu_product_panel(const cpu_product *p, size_t i, size_t segment)
{
    const size_t from = segment * CPU_SEGMENT, columns = cpu_min(CPU_SEGMENT, p->columns - from);
    const size_t tokens = panel_tokens(p, i), width = cpu_panel_width(tokens);
    const float *x = p->x + i * CPU_WIDTH * p->columns + from;
    if (p->wants_quantised)
        p->b->k->quantise(x, p->columns, columns, tokens,
                          p->quantised + i * cpu_quantised_stride(p->columns) +
                              from / CPU_BLOCK * CPU_TOKEN_BYTES * width);
    if (p->wants_floats)
        p->b->k->interleave(x, p->columns, columns, tokens,
                            p->floats + i * CPU_WIDTH * p->columns + from * width);
}

static void panel_item(void *context, uint32_t item, int thread)
{
    const cpu_product *p = context;
    const size_t segments = cpu_product_segments(p);
    cpu_product_panel(p, item / segments, item % segments);
}

static void wide_panel_item(void *context, uint32_t item, int thread)
{
    const cpu_product *p = context;
    const size_t segments = cpu_product_segments(p);
    const size_t i = item / segments, from = item % segments * CPU_SEGMENT;
    p->b->wide->quantise(p->x + i * CPU_WIDE * p->columns + from, p->columns,
                         cpu_min(CPU_SEGMENT, p->columns - from),
                         cpu_min(CPU_WIDE, p->n - i * CPU_WIDE),
                         p->quantised_wide + i * wide_panel_bytes(p) +
                             from / CPU_BLOCK * CPU_WIDE_BYTES);
}

static void for_each_segment(cpu_product *p, size_t width, void (*run)(void *, uint32_t, int))
{
    const size_t items = cpu_divide_up(p->n, width) * cpu_product_segments(p);
    if (p->n * p->columns >= CPU_SERIAL_FLOATS)
        cpu_pool_run(p->b->pool, run, p, (uint32_t)items);
    else
        for (size_t i = 0; i < items; i++) run(p, (uint32_t)i, 0);
}

static void prepare(cpu_product *p)
{
    cpu_product_begin(p);
    if (p->wants_quantised || p->wants_floats) for_each_segment(p, CPU_WIDTH, panel_item);
    if (p->wants_wide) for_each_segment(p, CPU_WIDE, wide_panel_item);
}

/* ---- tiles ---- */

/* Sums of a tile [tokens][16] to their place in y [n][rows]. */
static void store(const cpu_product *p, const weft_weight *w, size_t which, size_t tile,
                  size_t token, size_t tokens, const float *sums)
{
    const size_t row = tile * CPU_ROWS, rows = cpu_min(CPU_ROWS, w->rows - row);
    const float *bias = p->bias ? p->bias[which] : NULL;
    for (size_t t = 0; t < tokens; t++) {
        float *y = p->y[which] + (token + t) * w->rows + row;
        const float *s = sums + t * CPU_ROWS;
        if (bias)
            for (size_t r = 0; r < rows; r++) y[r] = s[r] + bias[row + r];
        else
            memcpy(y, s, rows * sizeof *y);
    }
}

static void sums_of(const cpu_product *p, const weft_weight *w, const uint8_t *tile, size_t panel,
                    float *sums)
{
    int width = cpu_width_index(panel_tokens(p, panel) > 4 ? CPU_WIDTH : panel_tokens(p, panel));
    /* With one panel the read of the weights is what is waited for. */
    size_t ahead = p->n <= CPU_WIDTH ? p->b->read_ahead : 0;
    p->b->k->tile[w->format][width](tile, w->count, panel_of(p, w, panel), ahead, sums);
}

/* up: the tile of the second matrix, NULL if p is not gated. */
static void one_tile(const cpu_product *p, size_t which, size_t tile, const uint8_t *data,
                     const uint8_t *up, size_t panel)
{
    _Alignas(64) float sums[CPU_WIDTH * CPU_ROWS], up_sums[CPU_WIDTH * CPU_ROWS];
    const weft_weight *w = p->w[which];
    const size_t tokens = panel_tokens(p, panel);
    sums_of(p, w, data, panel, sums);
    if (up) {
        sums_of(p, p->w[1], up, panel, up_sums);
        p->b->k->gate(p->act, sums, up_sums, tokens * CPU_ROWS, sums);
    }
    store(p, w, which, tile, panel * CPU_WIDTH, tokens, sums);
}

/* Float weights and one token: four tiles at a time, to hide the latency of the sums. */
static size_t by_four(const cpu_product *p, size_t which, size_t from, size_t to)
{
    _Alignas(64) float sums[4 * CPU_ROWS];
    const weft_weight *w = p->w[which];
    for (; from + 4 <= to; from += 4) {
        p->b->k->tile4[w->format](cpu_tile(w, p->matrix, from, NULL), w->count, p->x, sums);
        for (size_t i = 0; i < 4; i++) store(p, w, which, from + i, 0, 1, sums + i * CPU_ROWS);
    }
    return from;
}

/* As cpu_product_tiles; a tile goes through several panels at once, since it is unpacked for them
 * together. */
static void wide_tiles(const cpu_product *p, size_t which, size_t from, size_t to, int thread)
{
    enum { TOKENS = CPU_WIDE_PANELS * CPU_WIDE };
    _Alignas(64) float sums[TOKENS * CPU_ROWS], up[TOKENS * CPU_ROWS];
    const weft_weight *w = p->w[which];
    const cpu_wide *wide = p->b->wide;
    const size_t bytes = wide_panel_bytes(p), panels = cpu_divide_up(p->n, CPU_WIDE);
    const size_t portion = cpu_max(1, cpu_min(CPU_WIDE_PANELS, WIDE_PORTION_BYTES / bytes));
    uint8_t *room = cpu_tile_room(p->b, thread, 0);
    wide->begin();
    for (size_t first = 0; first < panels; first += portion) {
        const uint8_t *panel = p->quantised_wide + first * bytes;
        const size_t n = cpu_min(portion, panels - first);
        const size_t tokens = cpu_min(n * CPU_WIDE, p->n - first * CPU_WIDE);
        for (size_t tile = from; tile < to; tile++) {
            wide->tile[w->format](cpu_tile(w, p->matrix, tile, room), w->count, panel, bytes, n,
                                  sums);
            if (p->gated) {
                const weft_weight *v = p->w[1];
                wide->tile[v->format](cpu_tile(v, p->matrix, tile, room), v->count, panel, bytes, n,
                                      up);
                p->b->k->gate(p->act, sums, up, tokens * CPU_ROWS, sums);
            }
            store(p, w, which, tile, first * CPU_WIDE, tokens, sums);
        }
    }
    wide->end();
}

void cpu_product_tiles(const cpu_product *p, size_t which, size_t from, size_t to, int thread)
{
    const weft_weight *w = p->w[which];
    if (is_wide(p, w)) {
        wide_tiles(p, which, from, to, thread);
        return;
    }
    const size_t panels = cpu_product_panels(p);
    const size_t panel_bytes = CPU_WIDTH * p->columns * (is_float(w) ? 4 : 2);
    const size_t portion = cpu_max(1, PORTION_BYTES / panel_bytes);
    uint8_t *room = cpu_tile_room(p->b, thread, 0), *second = cpu_tile_room(p->b, thread, 1);
    if (p->n == 1 && is_float(w) && !p->gated && w->data) from = by_four(p, which, from, to);
    for (size_t first = 0; first < panels; first += portion)
        for (size_t tile = from; tile < to; tile++) {
            const uint8_t *data = cpu_tile(w, p->matrix, tile, room);
            const uint8_t *up = p->gated ? cpu_tile(p->w[1], p->matrix, tile, second) : NULL;
            for (size_t i = first; i < cpu_min(panels, first + portion); i++)
                one_tile(p, which, tile, data, up, i);
        }
}

size_t cpu_product_run(const weft_backend *b, size_t n, size_t tiles, size_t heaviest)
{
    size_t longest = n <= CPU_WIDTH ? cpu_max(1, RUN_BYTES / heaviest) : RUN_TILES;
    return cpu_max(1, cpu_min(longest, tiles / ((size_t)b->threads * ITEMS_PER_THREAD)));
}

typedef struct job {
    cpu_product *p;
    size_t run; /* tiles an item takes */
} job;

static void product_item(void *context, uint32_t item, int thread)
{
    const job *j = context;
    const cpu_product *p = j->p;
    size_t which = 0, at = item;
    for (;; which++) {
        size_t items = cpu_divide_up(p->w[which]->tiles, j->run);
        if (at < items) break;
        at -= items;
    }
    size_t from = at * j->run;
    cpu_product_tiles(p, which, from, cpu_min(from + j->run, p->w[which]->tiles), thread);
}

static void compute(cpu_product *p)
{
    size_t tiles = 0, items = 0, heaviest = 1;
    const size_t matrices = p->gated ? 1 : p->n_w;
    assert(p->n <= p->b->max_tokens && p->columns <= p->b->max_columns);
    p->quantised = p->b->quantised;
    p->quantised_wide = p->b->quantised_wide;
    p->floats = p->b->floats;
    for (size_t i = 0; i < p->n_w; i++) cpu_weight_ahead(p->w[i], 0);
    prepare(p);
    for (size_t i = 0; i < matrices; i++) {
        tiles += p->w[i]->tiles;
        heaviest = cpu_max(heaviest, p->w[i]->tile_bytes);
    }
    job j = {p, cpu_product_run(p->b, p->n, tiles, heaviest)};
    for (size_t i = 0; i < matrices; i++) items += cpu_divide_up(p->w[i]->tiles, j.run);
    cpu_pool_run(p->b->pool, product_item, &j, (uint32_t)items);
}

void cpu_matmul(weft_backend *b, const weft_weight *const *w, const float *const *bias,
                float *const *y, size_t n_w, const float *x, size_t n)
{
    if (n == 0 || n_w == 0) return;
    for (size_t i = 1; i < n_w; i++) assert(w[i]->columns == w[0]->columns);
    cpu_product p = {
        .b = b, .x = x, .n = n, .columns = w[0]->columns, .w = w, .bias = bias, .y = y, .n_w = n_w};
    compute(&p);
}

void cpu_gated(weft_backend *b, const weft_weight *gate, const weft_weight *up, weft_activation act,
               const float *x, size_t n, float *out)
{
    if (n == 0) return;
    assert(gate->columns == up->columns && gate->rows == up->rows);
    const weft_weight *const w[2] = {gate, up};
    float *const y[1] = {out};
    cpu_product p = {.b = b,
                     .x = x,
                     .n = n,
                     .columns = gate->columns,
                     .w = w,
                     .y = y,
                     .n_w = 2,
                     .gated = true,
                     .act = act};
    compute(&p);
}
