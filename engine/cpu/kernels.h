/* The kernels of one instruction set, and the memory layouts they share. Private to engine/cpu.
 *
 * kernels.inc is compiled once per instruction set over a small vector layer (lanes_*.h) and exports one
 * table. Every width performs the same floating-point operations on each element in the same order,
 * so the tables are interchangeable bit for bit; the scalar one is the specification.
 *
 * Repacked weights: tiles of 16 rows (the last one padded with zero rows). A tile is a sequence of
 * blocks of 32 columns (K types: super-blocks of 256); within a block, row r's part of every field stands at
 * index r, so a vector of rows is one contiguous load. `q` is [4 or 8][16 rows][4 bytes]:
 *
 *   Q8    d f16[16]                                        q u8[8][16][4]  value + 128
 *   Q4    d f16[16]                                        q u8[4][16][4]  value + 8
 *   Q4M   d f16[16]  m f16[16]                             q u8[4][16][4]
 *   Q5    d f16[16]             high u8[16][4]             q u8[4][16][4]  value + 16
 *   Q5M   d f16[16]  m f16[16]  high u8[16][4]             q u8[4][16][4]
 *   Q4K   d f16[16]  m f16[16]  s u8[12][16]  8 x {                     q u8[4][16][4] }
 *   Q5K   d f16[16]  m f16[16]  s u8[12][16]  8 x { high u8[16][4]      q u8[4][16][4] }
 *   Q6K   d f16[16]             s i8[16][16]  8 x { high u8[2][16][4]   q u8[4][16][4] }  value + 32
 *   Q2K   d f16[16]  m f16[16]  s u8[8][16][2] 8 x {                     q u8[2][16][4] }
 *   Q3K   d f16[16]             s u8[6][16][2] 8 x { high u8[16][4]      q u8[2][16][4] }  value + 4
 *   N4    d f16[16]                                        q u8[4][16][4]  a table's index
 *   N4K   d f16[16]             s u8[6][16]   8 x {                     q u8[4][16][4] }  a table's index
 *   MX4   e u8[16]                                         q u8[4][16][4]  a table's index
 *   NV4                         s u8[4][16]   2 x {                     q u8[4][16][4] }  a table's index
 *   IQ1, IQ2   d f16[16]        s u8[4][16][2] 8 x { high u8[16][4]      q u8[2][16][4] }  a table's index
 *   IQ3, IQ3S  d f16[16]        s u8[8][16]   8 x {                     q u8[4][16][4] }  a table's index
 *   T2    d f16[16]                           8 x {                     q u8[2][16][4] }  value + 1
 *   Q2    d f16[16]                           2 x {                     q u8[2][16][4] }  value + 1
 *   Q1    d f16[16]                           4 x {                     q u8[16][4]    }  (value + 1) / 2
 *   F16, BF16, F32: [columns][16]
 *
 * A group is 4 consecutive columns, one 32-bit word of a row; a block has 8. 4-bit words: low nibbles
 * of q[k] are group k, high nibbles group k + 4. Fifth bits: bit g of byte b belongs to column 4 g + b.
 * Sixth bits: word v, bits 2 i and 2 i + 1 of byte b belong to column 4 (4 v + i) + b; so do 2-bit words.
 * The third and the only bits lie as the fifth ones. Tables: codes.h.
 *
 * s of Q4K, Q5K and N4K: the file's packed bytes, transposed; NV4: so too, but 0x7f, which counts as 0, is 0;
 * IQ3: a block's scale. Where each half of a block has a scale, the two lie side by side, s[2 i] and
 * s[2 i + 1] of the file in one pair (Q2K, Q3K); IQ1, IQ2: (scale - 1) / 2 of blocks j and j + 4 in the
 * nibbles of pair j.
 *
 * Every tile has exactly the bytes of its rows in the file, but for IQ1, IQ2, IQ3 and T2 of TQ1_0, which
 * have more.
 *
 * Activations: panels of up to 8 tokens (`width`). A quantised panel is, for each block of 32 columns, 64 * width
 * bytes: i8 q[8 groups][width][4], f32 d[width], f32 s[width] = d * sum, i32 correction[6][width]
 * (cpu_correction). A float panel is f32 [columns][width]. A wide panel, for CPUs with matrix registers, is
 * always of 16 tokens and, for each block, 640 bytes: i8 q[16][32], f32 d[16], f32 s[16].
 */
#ifndef WEFT_ENGINE_CPU_KERNELS_H
#define WEFT_ENGINE_CPU_KERNELS_H

#include "engine/ops.h"

#include <string.h>

typedef enum cpu_format {
    CPU_Q8,
    CPU_Q4,
    CPU_Q4M,
    CPU_Q5,
    CPU_Q5M,
    CPU_Q4K,
    CPU_Q5K,
    CPU_Q6K,
    CPU_Q2K,
    CPU_Q3K,
    CPU_N4,
    CPU_N4K,
    CPU_MX4,
    CPU_NV4,
    CPU_IQ1,
    CPU_IQ2,
    CPU_IQ3,
    CPU_IQ3S,
    CPU_T2,
    CPU_Q2,
    CPU_Q1,
    CPU_F16,
    CPU_BF16,
    CPU_F32,
    CPU_FORMATS
} cpu_format;

enum {
    CPU_ROWS = 16,        /* rows of a tile */
    CPU_WIDTH = 8,        /* most tokens of a panel */
    CPU_BLOCK = 32,       /* columns of a block */
    CPU_TOKEN_BYTES = 64, /* of a quantised block and token */
    CPU_SPAN = 256,       /* positions that attention sums at once: 4 pages */
    CPU_LATENT_SPAN = 128, /* positions that latent attention sums at once */
    CPU_LANE_HEADS = 16,   /* latent attention pads heads to this: lanes of the widest set */
    CPU_QUERIES = 56,     /* most queries an attention item holds: 8 tokens of 7 heads */
    CPU_WIDTHS = 5,       /* panel widths 1, 2, 3, 4, 8 */
    CPU_WIDE = 16,        /* tokens of a wide panel */
    CPU_WIDE_BYTES = 640, /* of a block of it */
    CPU_WIDE_PANELS = 8   /* most panels of one call */
};

/* Minus the offset of the stored weights times the sum of a block's activations (or of its first or
 * second half): what a sum of dots starts from. Made with the panel: a shift a block and token less. */
typedef enum cpu_correction {
    CPU_OFFSET_8,
    CPU_OFFSET_16,
    CPU_OFFSET_128,
    CPU_OFFSET_32_FIRST,
    CPU_OFFSET_32_SECOND,
    CPU_OFFSET_4_HALVES, /* of both halves, as a pair of 16-bit numbers */
    CPU_OFFSET_NONE
} cpu_correction;

/* Index of a panel width in the tables. */
static inline int cpu_width_index(size_t width)
{
    return width <= 4 ? (int)width - 1 : 4;
}
/* The width of the panel that holds `tokens` (1..8) tokens. */
static inline size_t cpu_panel_width(size_t tokens)
{
    return tokens <= 4 ? tokens : CPU_WIDTH;
}

/* out[t][r] = sum over the tile's `count` blocks (F formats: columns) for panel column t and tile row r.
 * ahead: bytes from what is read to what is prefetched (Q formats; the memory may end before); 0: not. */
typedef void (*cpu_tile_fn)(const uint8_t *tile, size_t count, const void *panel, size_t ahead,
                            float *out);

/* Products of many tokens, for CPUs with matrix registers: another way to the same bits. */
typedef struct cpu_wide {
    const char *name;
    /* Before and after the use of `tile` on a thread: the state of the registers. */
    void (*begin)(void);
    void (*end)(void);
    /* x [tokens][stride] -> a wide panel; tokens up to 16 that are not there count as zeros. */
    void (*quantise)(const float *x, size_t stride, size_t columns, size_t tokens, uint8_t *panel);
    /* out[t][r] for `panels` panels that are panel_bytes apart, out [panels * 16][16]; NULL: this format goes
     * through cpu_kernels. */
    void (*tile[CPU_FORMATS])(const uint8_t *tile, size_t count, const uint8_t *panel,
                              size_t panel_bytes, size_t panels, float *out);
} cpu_wide;

/* What attention keeps of one query over some positions: max, the 16 strided partial sums of the
 * exponentials, the weighted values. */
typedef struct cpu_state {
    float max;
    float sum[16];
} cpu_state;

typedef struct cpu_kernels {
    const char *name;
    int queries; /* most queries per call of scores and values */
    cpu_tile_fn tile[CPU_FORMATS][CPU_WIDTHS];
    /* F formats: 4 consecutive tiles, one token; out [4][16] */
    void (*tile4[CPU_FORMATS])(const uint8_t *tile, size_t count, const float *x, float *out);

    /* x [tokens][stride] -> a quantised or float panel of cpu_panel_width(tokens). */
    void (*quantise)(const float *x, size_t stride, size_t columns, size_t tokens, void *panel);
    void (*interleave)(const float *x, size_t stride, size_t columns, size_t tokens, float *panel);

    void (*rms_norm)(const float *x, const float *w, float eps, size_t dim, float *y);
    /* out[i] = act(gate[i]) * up[i] */
    void (*gate)(weft_activation act, const float *gate, const float *up, size_t n, float *out);
    void (*add)(float *x, const float *y, size_t n);
    /* x[i] += y[i] * w, rounded twice */
    void (*add_times)(float *x, const float *y, float w, size_t n);
    /* One head: pairs of `dim` rotated by cos_sin [dim / 2][2]. */
    void (*rotate)(float *x, size_t dim, weft_rope_kind kind, const float *cos_sin);
    void (*to_half)(const float *x, size_t n, uint16_t *out);

    /* n <= WEFT_KV_BLOCK values of a q8_0 block; returns their scale, a half */
    uint16_t (*to_q8)(const float *x, size_t n, int8_t *out);

    /* out[i][p] = sum over dims of q[dim][i] * k[dim][p], p < 64, i < n; out rows CPU_SPAN apart.
     * ahead: as many bytes that are needed soon (here and in values) */
    void (*scores[WEFT_KV_TYPES])(const void *k, size_t key_dim, const float *q, size_t n, const void *ahead,
                      float *out);
    /* exp(score - max) in place for from <= p < to, 0 elsewhere in 0..255; fills max and sum */
    void (*softmax)(float *score, size_t from, size_t to, cpu_state *state);
    /* out[i][d] += p[i][j] * v[first + j][d] for j < positions in order; p rows CPU_SPAN apart */
    void (*values[WEFT_KV_TYPES])(const void *v, size_t value_dim, size_t first, const float *p,
                                  size_t n, size_t positions, const void *ahead, float *out);
    /* into = into + from, both rescaled to the larger max */
    void (*merge)(cpu_state *into, float *into_value, const cpu_state *from,
                  const float *from_value, size_t value_dim);
    /* out = value / sum */
    void (*finish)(const cpu_state *state, const float *value, size_t value_dim, float *out);

    float (*softmax_sum)(const float *x, size_t n, float max, float *out);

    /* Latent attention (latent.inc); lanes: heads, rounded up to a multiple of CPU_LANE_HEADS. */
    /* row `at` of a page's values [64][dim] as floats */
    void (*widen[WEFT_KV_TYPES])(const void *values, size_t dim, size_t at, float *out);
    /* a page's keys as floats [dim][64] */
    void (*widen_keys[WEFT_KV_TYPES])(const void *keys, size_t dim, float *out);
    /* out[p][h] = sum over dims of q[dim][h] * k[p][dim]; rows of `lanes` */
    void (*latent_scores)(const float *q, size_t lanes, const float *k, size_t dim, size_t positions,
                          float *out);
    /* exp(score - max) in place, max and sum over positions; score [positions][lanes] */
    void (*latent_softmax)(float *score, size_t lanes, size_t positions, float *max, float *sum);
    /* out[h][d] = sum over positions of p[j][h] * k[j][d], d < out_dim (a multiple of 32) */
    void (*latent_values)(const float *p, size_t lanes, size_t heads, const float *k, size_t dim,
                          size_t positions, float *out, size_t out_dim);
    /* As merge, for heads side by side. */
    void (*latent_merge)(size_t heads, size_t out_dim, float *max, float *sum, float *value,
                         const float *from_max, const float *from_sum, const float *from_value);
    void (*scale_by)(const float *x, float by, size_t n, float *out);
    /* out[p] = sum over heads in order of weight[h] * max(score[h][p], 0), p < 64; rows CPU_SPAN apart */
    void (*index_combine)(const float *score, size_t heads, const float *weight, float *out);
    void (*sigmoid)(float *x, size_t n); /* in place: 1 / (1 + e^-x) */
    void (*layer_norm)(const float *x, const float *w, const float *bias, float eps, size_t dim, float *y);
    void (*hadamard)(float *x, size_t dim); /* over sqrt(dim); dim a power of two */
} cpu_kernels;

extern const cpu_kernels cpu_kernels_scalar;
#ifdef WEFT_X86_64
extern const cpu_kernels cpu_kernels_avx2, cpu_kernels_avx512;
extern const cpu_wide cpu_wide_amx;
#endif

/* The widest table this CPU runs, or the one of that name: NULL if unknown (*known false) or if the CPU lacks
 * it. *out_wide: what it has for many tokens, or NULL;
 * out_wide NULL: not asked for. */
const cpu_kernels *cpu_kernels_find(const char *isa, bool *known, const cpu_wide **out_wide);

/* How far products of few tokens prefetch the weights on this CPU, in bytes. */
size_t cpu_read_ahead(void);

#endif
