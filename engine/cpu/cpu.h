/* The CPU backend's own types. Private to engine/cpu. */
#ifndef WEFT_ENGINE_CPU_CPU_H
#define WEFT_ENGINE_CPU_CPU_H

#include "engine/cpu/arena.h"
#include "engine/cpu/kernels.h"
#include "engine/cpu/pool.h"

struct weft_weight {
    weft_backend *backend;
    cpu_memory memory;
    const uint8_t *data; /* [tiles][tile_bytes] */
    cpu_format format;
    size_t rows, columns;
    size_t tiles, tile_bytes;
    size_t count; /* blocks in a tile (F formats: columns) */
};

enum { CPU_ATTENTION_ITEMS = 4 }; /* of a thread: enough to even out what else the machine does */
enum { CPU_ROPE_TABLES = 2 }; /* a model turns with one or two sets of frequencies */

/* cos and sin of a call's tokens, kept for the next call with the same ones: all layers share them. */
typedef struct cpu_rope_table {
    double *inv_freq;  /* [rope_dim / 2] */
    int64_t *position; /* [n] */
    float *cos_sin;    /* [n][rope_dim / 2][2] */
    size_t n, rope_dim;
    float magnitude;
} cpu_rope_table;

struct weft_backend {
    weft_ops ops;
    const cpu_kernels *k;
    cpu_pool *pool;
    cpu_arena arena;
    int threads;

    /* of reserve: one mapping, never grown by an op */
    void *scratch;
    size_t scratch_bytes;
    size_t max_tokens, max_columns;
    uint8_t *quantised; /* panels, see kernels.h */
    float *floats;
    cpu_rope_table rope[CPU_ROPE_TABLES];
    int rope_next;           /* the table that is overwritten next */
    float *attention_thread; /* [threads][attention_thread_floats] */
    size_t attention_thread_floats;
    float *attention_slot; /* [attention_slots][CPU_QUERIES][value_dim], and as many states: a span's
                            * results */
    cpu_state *attention_state;
    size_t attention_slots;
};

weft_status cpu_weight_new(weft_backend *b, const weft_tensor *t, weft_weight **out,
                           weft_error *err);
void cpu_weight_free(weft_weight *w);

void cpu_matmul(weft_backend *b, const weft_weight *const *w, const float *const *bias,
                float *const *y, size_t n_w, const float *x, size_t n);
void cpu_gated(weft_backend *b, const weft_weight *gate, const weft_weight *up, weft_activation act,
               const float *x, size_t n, float *out);
void cpu_rope(weft_backend *b, float *x, const weft_row *row, size_t n, size_t heads,
              size_t head_dim, size_t rope_dim, weft_rope_kind kind, const double *inv_freq,
              float magnitude);
void cpu_kv_write(weft_backend *b, const weft_kv_layout *l, uint32_t layer, const weft_row *row,
                  size_t n, const float *k, const float *v);
void cpu_attention(weft_backend *b, const weft_attention *a);

static inline size_t cpu_min(size_t a, size_t b)
{
    return a < b ? a : b;
}
static inline size_t cpu_max(size_t a, size_t b)
{
    return a > b ? a : b;
}
static inline size_t cpu_divide_up(size_t a, size_t b)
{
    return (a + b - 1) / b;
}

#endif
