/* Matrix products: who computes which tiles, and what happens to a tile's sums.
 *
 * A call quantises its activations once (for the F formats: interleaves them) into panels of 8 tokens, then
 * forks once over runs of tiles of all its matrices. A run takes the panels in portions that stay in
 * the cache. Nothing here can change a bit of the result: a tile function computes each output whole.
 */
#include "engine/cpu/cpu.h"

#include <assert.h>

enum {
    SERIAL_FLOATS = 16384,     /* activations below this are quantised without a fork: 5 us */
    SEGMENT = 2048,            /* columns that one quantise item takes */
    RUN_BYTES = 64 << 10,      /* weights of an item when one token is computed */
    RUN_TILES = 8,             /* tiles of an item at most when many are */
    PORTION_BYTES = 256 << 10, /* of panels, a quarter of a core's second-level cache */
    ITEMS_PER_THREAD = 8
};

typedef struct product {
    weft_backend *b;
    const float *x;
    size_t n, columns;
    const weft_weight *const *w;
    const float *const *bias;
    float *const *y;
    size_t n_w;
    size_t run; /* tiles an item takes */
    bool gated; /* w[0] and w[1] are gate and up, y[0] their product */
    weft_activation act;
    size_t segments;
} product;

static bool is_float(const weft_weight *w)
{
    return w->format >= CPU_F16;
}

/* Panel i of the activations as w needs them. */
static const void *panel_of(const product *p, const weft_weight *w, size_t i)
{
    if (is_float(w)) {
        if (p->n == 1) return p->x;
        return p->b->floats + i * CPU_WIDTH * p->columns;
    }
    return p->b->quantised + i * CPU_WIDTH * (p->columns / CPU_BLOCK) * CPU_TOKEN_BYTES;
}

static size_t panel_tokens(const product *p, size_t i)
{
    return cpu_min(CPU_WIDTH, p->n - i * CPU_WIDTH);
}

/* ---- activations ---- */

static void quantise_item(void *context, uint32_t item, int thread)
{
    const product *p = context;
    size_t i = item / p->segments, from = item % p->segments * SEGMENT;
    size_t columns = cpu_min(SEGMENT, p->columns - from), tokens = panel_tokens(p, i);
    size_t width = cpu_panel_width(tokens);
    uint8_t *panel = p->b->quantised + i * CPU_WIDTH * (p->columns / CPU_BLOCK) * CPU_TOKEN_BYTES;
    p->b->k->quantise(p->x + i * CPU_WIDTH * p->columns + from, p->columns, columns, tokens,
                      panel + from / CPU_BLOCK * CPU_TOKEN_BYTES * width);
}

static void interleave_item(void *context, uint32_t item, int thread)
{
    const product *p = context;
    size_t i = item / p->segments, from = item % p->segments * SEGMENT;
    size_t columns = cpu_min(SEGMENT, p->columns - from), tokens = panel_tokens(p, i);
    float *panel = p->b->floats + i * CPU_WIDTH * p->columns;
    p->b->k->interleave(p->x + i * CPU_WIDTH * p->columns + from, p->columns, columns, tokens,
                        panel + from * cpu_panel_width(tokens));
}

static void for_each_segment(product *p, void (*run)(void *, uint32_t, int))
{
    size_t items = cpu_divide_up(p->n, CPU_WIDTH) * p->segments;
    if (p->n * p->columns >= SERIAL_FLOATS)
        cpu_pool_run(p->b->pool, run, p, (uint32_t)items);
    else
        for (size_t i = 0; i < items; i++) run(p, (uint32_t)i, 0);
}

static void prepare(product *p)
{
    bool quantised = false, floats = false;
    for (size_t i = 0; i < p->n_w; i++) *(is_float(p->w[i]) ? &floats : &quantised) = true;
    p->segments = cpu_divide_up(p->columns, SEGMENT);
    if (quantised) for_each_segment(p, quantise_item);
    if (floats && p->n > 1) for_each_segment(p, interleave_item);
}

/* ---- tiles ---- */

/* Sums of a tile [tokens][16] to their place in y [n][rows]. */
static void store(const product *p, const weft_weight *w, size_t which, size_t tile, size_t token,
                  size_t tokens, const float *sums)
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

static void sums_of(const product *p, const weft_weight *w, size_t tile, size_t panel, float *sums)
{
    int width = cpu_width_index(panel_tokens(p, panel) > 4 ? CPU_WIDTH : panel_tokens(p, panel));
    p->b->k->tile[w->format][width](w->data + tile * w->tile_bytes, w->count, panel_of(p, w, panel),
                                    sums);
}

static void one_tile(const product *p, size_t which, size_t tile, size_t panel)
{
    _Alignas(64) float sums[CPU_WIDTH * CPU_ROWS], up[CPU_WIDTH * CPU_ROWS];
    const weft_weight *w = p->w[which];
    const size_t tokens = panel_tokens(p, panel);
    sums_of(p, w, tile, panel, sums);
    if (p->gated) {
        sums_of(p, p->w[1], tile, panel, up);
        p->b->k->gate(p->act, sums, up, tokens * CPU_ROWS, sums);
    }
    store(p, w, which, tile, panel * CPU_WIDTH, tokens, sums);
}

/* Float weights and one token: four tiles at a time, to hide the latency of the sums. */
static size_t by_four(const product *p, size_t which, size_t from, size_t to)
{
    _Alignas(64) float sums[4 * CPU_ROWS];
    const weft_weight *w = p->w[which];
    for (; from + 4 <= to; from += 4) {
        p->b->k->tile4[w->format](w->data + from * w->tile_bytes, w->count, p->x, sums);
        for (size_t i = 0; i < 4; i++) store(p, w, which, from + i, 0, 1, sums + i * CPU_ROWS);
    }
    return from;
}

static void run_tiles(const product *p, size_t which, size_t from, size_t to)
{
    const size_t panels = cpu_divide_up(p->n, CPU_WIDTH);
    const size_t panel_bytes = CPU_WIDTH * p->columns * (is_float(p->w[which]) ? 4 : 2);
    const size_t portion = cpu_max(1, PORTION_BYTES / panel_bytes);
    if (p->n == 1 && is_float(p->w[which]) && !p->gated) from = by_four(p, which, from, to);
    for (size_t first = 0; first < panels; first += portion)
        for (size_t tile = from; tile < to; tile++)
            for (size_t i = first; i < cpu_min(panels, first + portion); i++)
                one_tile(p, which, tile, i);
}

static void product_item(void *context, uint32_t item, int thread)
{
    const product *p = context;
    size_t which = 0, at = item;
    for (;; which++) {
        size_t items = cpu_divide_up(p->w[which]->tiles, p->run);
        if (at < items) break;
        at -= items;
    }
    size_t from = at * p->run;
    run_tiles(p, which, from, cpu_min(from + p->run, p->w[which]->tiles));
}

static void compute(product *p)
{
    size_t tiles = 0, items = 0, heaviest = 1;
    const size_t matrices = p->gated ? 1 : p->n_w;
    assert(p->n <= p->b->max_tokens && p->columns <= p->b->max_columns);
    prepare(p);
    for (size_t i = 0; i < matrices; i++) {
        tiles += p->w[i]->tiles;
        heaviest = cpu_max(heaviest, p->w[i]->tile_bytes);
    }
    size_t longest = p->n <= CPU_WIDTH ? cpu_max(1, RUN_BYTES / heaviest) : RUN_TILES;
    size_t share = tiles / ((size_t)p->b->threads * ITEMS_PER_THREAD);
    p->run = cpu_max(1, cpu_min(longest, share));
    for (size_t i = 0; i < matrices; i++) items += cpu_divide_up(p->w[i]->tiles, p->run);
    cpu_pool_run(p->b->pool, product_item, p, (uint32_t)items);
}

void cpu_matmul(weft_backend *b, const weft_weight *const *w, const float *const *bias,
                float *const *y, size_t n_w, const float *x, size_t n)
{
    if (n == 0 || n_w == 0) return;
    for (size_t i = 1; i < n_w; i++) assert(w[i]->columns == w[0]->columns);
    product p = {
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
    product p = {.b = b,
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
