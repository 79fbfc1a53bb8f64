/* A matrix product in parts that can be spread over threads: panels of activations, runs of tiles.
 * matmul.c runs one at a time, experts.c as many as there are experts chosen. Private to engine/cpu. */
#ifndef WEFT_ENGINE_CPU_PRODUCT_H
#define WEFT_ENGINE_CPU_PRODUCT_H

#include "engine/cpu/cpu.h"

enum {
    CPU_SEGMENT = 2048, /* columns of a panel that one item makes */
    CPU_SERIAL_FLOATS = 16384 /* activations below this are made into panels without a fork: 5 us */
};

typedef struct cpu_product {
    weft_backend *b;
    const float *x; /* [n][columns] */
    size_t n, columns;
    const weft_weight *const *w;
    size_t matrix; /* of each w: which of its stack */
    const float *const *bias;
    float *const *y; /* [n][rows] each */
    size_t n_w;
    bool gated; /* w[0] and w[1] are gate and up, y[0] their product */
    weft_activation act;
    /* of the panels: each CPU_WIDTH * columns floats, or as many bytes as that is when quantised */
    uint8_t *quantised;
    uint8_t *quantised_wide; /* wide panels, see kernels.h; NULL: none are made */
    float *floats;
    bool wants_quantised, wants_wide, wants_floats;
} cpu_product;

/* An expert that was chosen, its rows [row, row + n) and its panels from `panel` on. */
struct cpu_group {
    uint32_t expert, row, n, panel;
    const weft_weight *w[3]; /* gate, up, down */
    float *y[2];             /* of gate and up, of down */
    cpu_product up, down;
};

/* Sets what the panels must hold. */
void cpu_product_begin(cpu_product *p);
static inline size_t cpu_product_panels(const cpu_product *p)
{
    return cpu_divide_up(p->n, CPU_WIDTH);
}
static inline size_t cpu_product_segments(const cpu_product *p)
{
    return cpu_divide_up(p->columns, CPU_SEGMENT);
}
/* Bytes from one quantised panel to the next. */
static inline size_t cpu_quantised_stride(size_t columns)
{
    return CPU_WIDTH * (columns / CPU_BLOCK) * CPU_TOKEN_BYTES;
}
/* Makes panel i (not a wide one) from x, one segment of its columns. */
void cpu_product_panel(const cpu_product *p, size_t i, size_t segment);
/* Computes tiles [from, to) of w[which] for all tokens; the panels are made. */
void cpu_product_tiles(const cpu_product *p, size_t which, size_t from, size_t to, int thread);
/* Tiles that an item takes, if there are `tiles` of at most `heaviest` bytes each to spread. */
size_t cpu_product_run(const weft_backend *b, size_t n, size_t tiles, size_t heaviest);

#endif
