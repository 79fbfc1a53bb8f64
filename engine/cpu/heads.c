/* A matrix for each head: what absorbs the up-projections of latent attention. An item is one head, a few tiles of its
 * rows, and a panel of up to 8 tokens, which it makes itself: a head's columns are few. The sums are matmul's
 * (the tile functions), so a token's result does not depend on who shares its panel. Not done: the wide products
 * of AMX, which would matter in long prefills only.
 */
#include "engine/cpu/product.h"

#include <assert.h>

enum { MAX_COLUMNS = 1024, RUN_TILES = 8 };

typedef struct heads_job {
    const weft_backend *b;
    const weft_weight *w;
    const float *x;
    size_t x_stride, n, panels, runs;
    float *y;
    size_t y_stride;
} heads_job;

static void heads_item(void *context, uint32_t item, int thread)
{
    /* quantised, a panel is as large as its floats */
    _Alignas(64) float panel[CPU_WIDTH * MAX_COLUMNS], sums[CPU_WIDTH * CPU_ROWS];
    const heads_job *job = context;
    const weft_weight *w = job->w;
    const cpu_kernels *k = job->b->k;
    const size_t run = item % job->runs, head = item / job->runs % w->matrices;
    const size_t first = item / job->runs / w->matrices * CPU_WIDTH;
    const size_t tokens = cpu_min(CPU_WIDTH, job->n - first), x_row = w->matrices * job->x_stride;
    const float *x = job->x + first * x_row + head * job->x_stride;
    const size_t ahead = job->n <= CPU_WIDTH ? job->b->read_ahead : 0;
    if (w->format >= CPU_F16)
        k->interleave(x, x_row, w->columns, tokens, panel);
    else
        k->quantise(x, x_row, w->columns, tokens, panel);
    const int width = cpu_width_index(tokens > 4 ? CPU_WIDTH : tokens);
    const size_t end = cpu_min(w->tiles, (run + 1) * RUN_TILES);
    for (size_t tile = run * RUN_TILES; tile < end; tile++) {
        k->tile[w->format][width](cpu_tile(w, head, tile, cpu_tile_room(job->b, thread, 0)), w->count, panel,
                                  ahead, sums);
        const size_t row = tile * CPU_ROWS, rows = cpu_min(CPU_ROWS, w->rows - row);
        for (size_t t = 0; t < tokens; t++)
            memcpy(job->y + ((first + t) * w->matrices + head) * job->y_stride + row, sums + t * CPU_ROWS,
                   rows * sizeof *sums);
    }
}

void cpu_matmul_heads(weft_backend *b, const weft_weight *w, const float *x, size_t x_stride, size_t n,
                      float *y, size_t y_stride)
{
    assert(w->columns <= MAX_COLUMNS && w->columns <= x_stride && w->rows <= y_stride);
    heads_job job = {b, w, x, x_stride, n, cpu_divide_up(n, CPU_WIDTH), cpu_divide_up(w->tiles, RUN_TILES),
                     y, y_stride};
    cpu_pool_run(b->pool, heads_item, &job, (uint32_t)(job.panels * w->matrices * job.runs));
}
