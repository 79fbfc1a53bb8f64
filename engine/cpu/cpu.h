/* The CPU backend's own types. Private to engine/cpu. */
#ifndef WEFT_ENGINE_CPU_CPU_H
#define WEFT_ENGINE_CPU_CPU_H

#include "engine/cpu/arena.h"
#include "engine/cpu/kernels.h"
#include "engine/cpu/pack.h"
#include "engine/cpu/pool.h"

#include <stdatomic.h>

typedef struct cpu_cache cpu_cache;

/* A stack of matrices of one shape; most stacks hold one. Either repacked, or left in the file: then a tile
 * is packed into a thread's own room each time it is needed, and the same kernels run over it. */
struct weft_weight {
    weft_backend *backend;
    cpu_memory memory;
    const uint8_t *data;   /* [matrices][tiles][tile_bytes]; NULL: left in the file */
    weft_tensor from;      /* [matrices][rows][row_bytes] */
    cpu_pack_fn pack;
    cpu_pack_four_fn pack_four; /* NULL: row by row */
    cpu_format format;
    size_t matrices, rows, columns;
    size_t tiles, tile_bytes; /* of one matrix */
    size_t row_bytes;
    size_t count; /* blocks in a tile (F formats: columns) */
    cpu_cache *cache; /* of a stack of experts left in the file: with those of its up and down; or NULL */
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

/* Room for the experts of a call (experts.c); rows are picks, sorted by expert. */
typedef struct cpu_group cpu_group;
typedef struct cpu_experts {
    void *map; /* owns all below */
    size_t bytes;
    weft_experts_size size;
    uint32_t *count;   /* [n_expert] picks, then the next free row */
    uint32_t *place;   /* [n][n_used] row of a pick */
    uint32_t *owner;   /* [panels] group */
    cpu_group *group;  /* [experts chosen] */
    float *gathered;   /* [rows][n_embd] */
    float *hidden;     /* [rows][n_ff] */
    uint8_t *quantised;
    float *floats;
} cpu_experts;

enum {
    CPU_LATENT_HEADS = 64, /* most of an item of latent attention: its queries are 147 KB */
    CPU_INDEX_TOKENS = 8   /* whose scores are kept at once */
};

/* Room for the latent operations (latent.c, index.c). */
typedef struct cpu_latent {
    void *map; /* owns all below */
    size_t bytes;
    weft_latent_size size;
    float *thread; /* [threads][thread_floats] */
    size_t thread_floats;
    float *query; /* [CPU_INDEX_TOKENS][index_heads][index_dim], in chunks */
    float *score; /* [CPU_INDEX_TOKENS][score_stride] */
    uint32_t *room; /* as many, for the choice */
    size_t score_stride;
} cpu_latent;

struct weft_backend {
    weft_ops ops;
    const cpu_kernels *k;
    const cpu_wide *wide; /* NULL: this CPU has none */
    size_t read_ahead; /* see kernels.h */
    cpu_pool *pool;
    cpu_arena arena;
    int threads;
    uint8_t *room; /* [threads][2] a tile [tile_bytes] and the rows that it is made of [row_bytes]; or NULL */
    size_t room_tile_bytes, room_row_bytes;
    atomic_bool failed; /* a read did; then zeros were taken instead, and the results are worth nothing */
    weft_error failure;
    weft_expert_counts counts;
    cpu_experts experts;
    cpu_latent latent;

    /* of reserve: one mapping, never grown by an op */
    void *scratch;
    size_t scratch_bytes;
    size_t max_tokens, max_columns;
    uint8_t *quantised, *quantised_wide; /* panels, see kernels.h */
    float *floats;
    uint8_t *embedded; /* a row of the embedding as it stands in the file */
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
weft_status cpu_weight_map(weft_backend *b, const weft_tensor *t, weft_weight **out,
                           weft_error *err);
void cpu_weight_free(weft_weight *w);
void cpu_weight_drop_room(weft_backend *b);
/* Each room of a thread then has space for a tile and for rows of so many bytes. Not between an op's forks. */
weft_status cpu_room_grow(weft_backend *b, size_t tile_bytes, size_t row_bytes, weft_error *err);
/* Notes the first failure since the last cpu_failure. Any thread. */
void cpu_fail(weft_backend *b, const weft_error *err);
weft_status cpu_failure(weft_backend *b, weft_error *err);
/* Tells the kernel that a matrix in the file is about to be read. */
void cpu_weight_ahead(const weft_weight *w, size_t matrix);
/* n bytes of a tensor from byte `at` on: where they lie, or read into room. What cannot be read counts as 0 and is
 * noted as a failure. */
const uint8_t *cpu_read(weft_backend *b, const weft_tensor *t, size_t at, size_t n, uint8_t *room);
/* Tiles whose rows are read at once, some 256 KiB of them. */
size_t cpu_weight_run(const weft_weight *w);
/* Packs tiles [from, to); `rows` has room for their rows. */
void cpu_weight_pack(const weft_weight *w, size_t matrix, size_t from, size_t to, uint8_t *rows,
                     uint8_t *out);

static inline uint8_t *cpu_tile_room(const weft_backend *b, int thread, int which)
{
    const size_t bytes = b->room_tile_bytes + b->room_row_bytes;
    return b->room ? b->room + ((size_t)thread * 2 + (size_t)which) * bytes : NULL;
}
/* A tile's bytes: where they lie, or packed into room. */
static inline const uint8_t *cpu_tile(const weft_weight *w, size_t matrix, size_t tile,
                                      uint8_t *room)
{
    if (w->data) return w->data + (matrix * w->tiles + tile) * w->tile_bytes;
    cpu_weight_pack(w, matrix, tile, tile + 1, room + w->backend->room_tile_bytes, room);
    return room;
}

void cpu_matmul(weft_backend *b, const weft_weight *const *w, const float *const *bias,
                float *const *y, size_t n_w, const float *x, size_t n);
void cpu_gated(weft_backend *b, const weft_weight *gate, const weft_weight *up, weft_activation act,
               const float *x, size_t n, float *out);
void cpu_experts_soon(weft_backend *b, const weft_experts *w, const weft_pick *pick, size_t n);
weft_status cpu_experts_pool(weft_backend *b, weft_weight *gate, weft_weight *up, weft_weight *down,
                             size_t n_slot, weft_error *err);
weft_status cpu_experts_reserve(weft_backend *b, const weft_experts_size *s, weft_error *err);
void cpu_experts_drop(weft_backend *b);
void cpu_route(weft_backend *b, const weft_routing *r, float *scores, size_t n, weft_pick *out);
void cpu_experts_run(weft_backend *b, const weft_experts *w, const weft_pick *pick, const float *x,
                     size_t n, float *out);
void cpu_rope(weft_backend *b, float *x, const weft_row *row, size_t n, size_t heads,
              size_t head_dim, size_t rope_dim, weft_rope_kind kind, const double *inv_freq,
              float magnitude);
void cpu_kv_write(weft_backend *b, const weft_kv_layout *l, uint32_t layer, const weft_row *row,
                  size_t n, const float *k, const float *v);
void cpu_attention(weft_backend *b, const weft_attention *a);
void cpu_latent_write(weft_backend *b, const weft_kv_layout *l, uint32_t layer, const weft_row *row,
                      size_t n, const float *latent, const float *rope, const float *index);
weft_status cpu_latent_reserve(weft_backend *b, const weft_latent_size *s, weft_error *err);
void cpu_latent_drop(weft_backend *b);
void cpu_matmul_heads(weft_backend *b, const weft_weight *w, const float *x, size_t x_stride, size_t n,
                      float *y, size_t y_stride);
void cpu_latent_attention(weft_backend *b, const weft_latent_attention *a);
void cpu_index_select(weft_backend *b, const weft_index *x);
/* The positions of the k largest of n scores, ascending; of equal ones the lower positions. room [n] */
void cpu_select_top(const float *score, size_t n, size_t k, uint32_t *room, int32_t *out);

/* Parts of a scratch mapping, laid out one after the other. */
typedef struct cpu_layout {
    size_t bytes;
    bool overflow;
} cpu_layout;
/* Room for n1 * n2 * n3 objects of `size` bytes; its offset. */
size_t cpu_room(cpu_layout *l, size_t n1, size_t n2, size_t n3, size_t size);

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

/* n queries go through the score and value kernels in chunks of this many: as few chunks as possible, and even
 * ones, since each converts the keys again. */
static inline size_t cpu_query_chunk(const weft_backend *b, size_t n)
{
    return cpu_divide_up(n, cpu_divide_up(n, (size_t)b->k->queries));
}

#endif
