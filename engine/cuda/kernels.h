/* The kernels of the CUDA backend: names, arguments, launch shapes, layouts on the device. Private to engine/cuda
 * and its tests.
 *
 * Plain C, and the common part of C and CUDA's C++: the host side, the kernels and the tests' execution shim
 * (tests/cuda) all read this one description. A kernel `weft_cuda_x` takes one structure by value,
 * weft_cuda_x_args; weft_cuda_x_launch() says the grid for it. All pointers are device addresses.
 *
 * The contract on the device (docs/cuda.md): a token's result does not depend on the other tokens of the call,
 * on how many there are, nor on which of several kernels for the same thing the host takes. Sums run in
 * the orders drawn here; there are no atomics in sums. Against the CPU backend:
 *
 *   bits equal      all but the next: the same operations in the same order
 *   integers equal  the dots of products; their float sums have an order of their own
 *   bound           matmul, matvec, rms_norm, layer_norm: see each
 *
 * A weight matrix is cut into tiles of 16 rows (the last one padded with zeros) and these into bricks of 256
 * columns, in row-major order. A brick, for 8 blocks of 32 columns (the last brick of a row may have fewer: their
 * bytes are there, but are not read):
 *
 *            scales                               ones, twos       codes
 *   Q8       f16 d[16][8]                                          8 x i8 [2][16][16]
 *   Q4       f16 d[16][8]                                          8 x u4    value + 8
 *   Q4M      f16 d[16][8]  f16 m[16][8]                            8 x u4
 *   Q5       f16 d[16][8]                         ones             8 x u4    value + 16
 *   Q5M      f16 d[16][8]  f16 m[16][8]           ones             8 x u4
 *   Q4K      {f16 d, f16 m, u8 s[12]} [16]                         8 x u4
 *   Q5K      {f16 d, f16 m, u8 s[12]} [16]        ones             8 x u4
 *   Q6K      i8 s[16][16]  f16 d[16]              twos             8 x u4    value + 32
 *   Q2K      u8 s[16][16]  {f16 d, f16 m} [16]    twos
 *   Q3K      u8 s[16][12]  f16 d[16]              ones, twos                 value + 4
 *   N4       f16 d[16][8]                                          8 x n4
 *   N4K      {f16 d, u16 high, u8 low[4]} [16]                     8 x n4
 *   MX4      u8 e[16][8]                                           8 x n4
 *   NV4      u8 s[16][16]                                          8 x n4
 *   IQ1      {u16 s[4]} [16]  u16 high[16][8]                      eights
 *   IQ2XXS   {u4 s[8]} [16]  f16 d[16]            ones             eights
 *   IQ2XS    {u4 s[16]} [16]  {u4 high[8]} [16]  f16 d[16]   ones  eights
 *   IQ2S     {u4 s[16]} [16]  u8 high[16][8]  f16 d[16]      ones  eights
 *   IQ3XXS   {u4 s[8]} [16]  f16 d[16]            ones             fours
 *   IQ3S     {u4 s[8]} [16]  u8 high[16][8]  f16 d[16]       ones  fours
 *   Q2       f16 d[16][4]                         twos                       value + 1
 *   Q1       f16 d[16][2]                         ones                       (value + 1) / 2
 *   F16, BF16  [32][16][8] 16-bit                 F32  [64][16][4]
 *
 * Index [16] is the row. u4 is u32 [16][4]: word k of a row holds columns 4 k .. 4 k + 3 in the low nibbles of its
 * bytes, columns 4 k + 16 .. in the high ones: a lane's 16 bytes are one load for dp4a, and a word is exactly a
 * thread's part of an operand of mma.m16n8k32. n4 is the same, but its nibbles name values of a table (cpu/codes.h),
 * and a word has columns 4 k .. in its lower half, lowest nibble first, and 4 k + 16 .. in the upper one: so
 * they select bytes as they are. ones is u32 [2][16][4]: word j % 4 of plane j / 4 belongs to block j, and bit g of
 * byte b to its column 4 g + b: the bit above the others. twos is u32 [4][16][4]: words 2 j and 2 j + 1
 * (counted through the planes) belong to the halves of block j, bits 2 i and 2 i + 1 of byte b to column 4 i + b of
 * the half: the bits above u4. s of Q4K, Q5K and Q2K and N4K's fields are packed as in the file. s of Q3K: in
 * the nibbles of byte j, low bits of the scales of block j's halves; in bits 4 j .. 4 j + 3 of the last 4 bytes,
 * their high ones.
 *
 * IQ: weights are groups of 8 or 4 that an index names (cuda/grids.cuh), and ones has their signs (1: minus).
 * eights is u32 [2][16][4], placed as ones is: byte g of a block's word is the first 8 bits of the index of columns
 * 8 g .. 8 g + 7. fours is placed as twos is: byte k of the word of a half, of its columns 4 k .. 4 k + 3. high has
 * the bits beyond, group after group: of IQ1, 3, and a fourth that lowers the group; of IQ2S, 2; of IQ2XS and IQ3S,
 * 1. s is of a block or (16 of them, and IQ1) of a half, and stands for 2 s + 1; of IQ1, 4 times 3 bits, and above
 * them 4 bits of f16 d, the lowest first.
 *
 * So a brick has the bytes of its weights in the file, but for some types: a weight takes, in bytes
 *
 *              file    here                  file    here                  file    here
 *   IQ1_S      0.195   0.219     IQ2_XS      0.289   0.305     TQ1_0       0.211   0.281 (as Q2)
 *   IQ2_XXS    0.258   0.273     IQ3_XXS     0.383   0.398     TQ2_0       0.258   0.281 (as Q2)
 *
 * Activations: a row of columns int8, row after row, and a weft_cuda_block for each 32 of them.
 */
#ifndef WEFT_ENGINE_CUDA_KERNELS_H
#define WEFT_ENGINE_CUDA_KERNELS_H

#include "engine/ops.h"

enum {
    WEFT_CUDA_ROWS = 16,     /* of a tile */
    WEFT_CUDA_SUPER = 256,   /* columns of a brick: 8 blocks */
    WEFT_CUDA_BLOCK = 32,    /* columns that share an activation scale */
    WEFT_CUDA_SPAN = 256,    /* positions that attention sums at once: 4 pages */
    WEFT_CUDA_LATENT_SPAN = 128, /* the same for latent attention: positions, or places of the selection */
    WEFT_CUDA_MATRICES = 3,  /* most in one call of matmul */
    WEFT_CUDA_DIM = 256,     /* largest key_dim and value_dim of attention */
    WEFT_CUDA_STATE = 20,    /* floats before the values of an attention slot: max, 3 unused, 16 sums */
    WEFT_CUDA_LATENT = 512,  /* largest latent_dim */
    WEFT_CUDA_LATENT_STATE = 4, /* floats before the values of its slot: max, sum, 2 unused */
    WEFT_CUDA_EXPERTS = 1024, /* most of a layer */
    WEFT_CUDA_GROUPS = 64,   /* most groups of them */
    WEFT_CUDA_USED = 32,     /* most experts of a token */
    WEFT_CUDA_SUMS = 512,    /* sums of a draw, over 512 ids each */
    WEFT_CUDA_VOCAB = 512 * WEFT_CUDA_SUMS, /* largest vocabulary that is drawn from */
    WEFT_CUDA_KEPT = 1024    /* most candidates of a draw that are put in order */
};

typedef struct weft_cuda_launch {
    uint32_t grid[3], block[3], shared_bytes;
} weft_cuda_launch;

static inline uint32_t weft_cuda_divide_up(uint64_t a, uint64_t b)
{
    return (uint32_t)((a + b - 1) / b);
}
static inline weft_cuda_launch weft_cuda_shape(uint32_t x, uint32_t y, uint32_t z, uint32_t threads,
                                               uint32_t shared)
{
    weft_cuda_launch l = {{x, y, z}, {threads, 1, 1}, shared};
    return l;
}

/* ---- weights ---- */

typedef enum weft_cuda_format {
    WEFT_CUDA_Q8,
    WEFT_CUDA_Q4,
    WEFT_CUDA_Q4M,
    WEFT_CUDA_Q5,
    WEFT_CUDA_Q5M,
    WEFT_CUDA_Q4K,
    WEFT_CUDA_Q5K,
    WEFT_CUDA_Q6K,
    WEFT_CUDA_Q2K,
    WEFT_CUDA_Q3K,
    WEFT_CUDA_N4,
    WEFT_CUDA_N4K,
    WEFT_CUDA_MX4,
    WEFT_CUDA_NV4,
    WEFT_CUDA_IQ1,
    WEFT_CUDA_IQ2XXS,
    WEFT_CUDA_IQ2XS,
    WEFT_CUDA_IQ2S,
    WEFT_CUDA_IQ3XXS,
    WEFT_CUDA_IQ3S,
    WEFT_CUDA_Q2,
    WEFT_CUDA_Q1,
    WEFT_CUDA_F16,
    WEFT_CUDA_BF16,
    WEFT_CUDA_F32,
    WEFT_CUDA_FORMATS
} weft_cuda_format;

/* False: the kernels do not know the type; its tensors stay on the CPU. */
bool weft_cuda_format_of(weft_tensor_type type, weft_cuda_format *out);
size_t weft_cuda_brick_bytes(weft_cuda_format format);
/* Bytes of one matrix. A stack is its matrices one after another. */
size_t weft_cuda_weight_bytes(weft_cuda_format format, size_t columns, size_t rows);
/* Rows [from, from + n) of a matrix, `file` being the first of them in the file's own format, into the matrix
 * that begins at out; from is a multiple of 16, and n too unless the matrix ends there. What the last tile lacks
 * becomes 0. */
void weft_cuda_weight_pack(weft_tensor_type type, size_t columns, size_t from, size_t n,
                           const void *file, void *out);

/* ---- activations ---- */

/* Of 32 activations: value = q * d; sum of q over columns 0..15 and 16..31. */
typedef struct weft_cuda_block {
    float d;
    int16_t half[2];
} __attribute__((aligned(8))) weft_cuda_block;

/* Rows of x, `stride` floats apart, into q [rows][columns] and block [rows][columns / 32]. One warp a block. */
typedef struct weft_cuda_quantise_args {
    const float *x;
    int8_t *q;
    weft_cuda_block *block;
    uint32_t rows, columns, stride;
} weft_cuda_quantise_args;

static inline weft_cuda_launch weft_cuda_quantise_launch(const weft_cuda_quantise_args *a)
{
    return weft_cuda_shape(weft_cuda_divide_up((uint64_t)a->rows * (a->columns / 32), 8), 1, 1, 256, 0);
}

/* ---- products ---- */

typedef struct weft_cuda_matrix {
    const uint8_t *data;
    const float *bias; /* [rows], or NULL */
    float *y;
    uint32_t rows;
} weft_cuda_matrix;

/* Rows of activations that meet the same matrix of a stack: places [first, first + n) of x_row and y_row. n is at
 * most the width of the kernel that takes it; 0: nothing. */
typedef struct weft_cuda_run {
    uint32_t matrix, first, n;
} weft_cuda_run;

/* y_i[t] = W_i x[t] + bias_i for the n_w matrices, or gated: y_0[t] = act(W_0 x[t]) * (W_1 x[t]).
 *
 * A row's sum: within a brick, its blocks in order, each one FMA of the exact integer dot with
 * (d * d_x) and, where there is a minimum, one more with m; then the bricks' sums one after the
 * other, from the first; then the bias. (Float formats: an FMA a column instead.) So it does not
 * depend on which kernel, dot products (matvec) or tensor cores (matmul), takes the row. Bound against
 * the CPU's order, one chain: both have at most b + 2 roundings of partial sums that stay below the sum
 * of magnitudes M = sum |w x|, b = 2 * blocks (float formats: columns): |difference| <= 2 (b + 2) 2^-24 M.
 *
 * x_row and y_row NULL: row t of x goes to row t of y. With `run`, run i says which rows meet which matrix;
 * otherwise matrix z of a stack takes rows t * stack + z and writes rows t * stack + z of y. y_stride: floats
 * from one row of y to the next; 0: rows. The activations of a call are fewer than 2^32. */
typedef struct weft_cuda_matmul_args {
    weft_cuda_matrix w[WEFT_CUDA_MATRICES];
    const int8_t *q;              /* quantised formats */
    const weft_cuda_block *block; /* quantised formats */
    const float *x;               /* F32, F16, BF16: rows x_stride apart */
    const weft_cuda_run *run;     /* [n_run], or NULL */
    const uint32_t *x_row, *y_row; /* or NULL */
    uint64_t stack_bytes[2];      /* from one matrix of a stack to the next, of w[0] and w[1] */
    uint32_t n, columns, x_stride, y_stride, n_w, n_run, stack; /* stack: 1 if there is none */
    bool gated;
    weft_activation activation;
} weft_cuda_matmul_args;

static inline uint32_t weft_cuda_bricks(uint32_t columns)
{
    return weft_cuda_divide_up(columns, WEFT_CUDA_SUPER);
}
static inline uint32_t weft_cuda_tiles(const weft_cuda_matmul_args *a)
{
    uint32_t tiles = 0;
    for (uint32_t i = 0; i < (a->gated ? 1 : a->n_w); i++)
        tiles += weft_cuda_divide_up(a->w[i].rows, WEFT_CUDA_ROWS);
    return tiles;
}
/* Kernels weft_cuda_matvec_<format>_<width>, width 1, 4 or 8 rows at once. */
static inline weft_cuda_launch weft_cuda_matvec_launch(const weft_cuda_matmul_args *a, uint32_t width)
{
    const uint32_t bricks = weft_cuda_bricks(a->columns), warps = weft_cuda_divide_up(bricks, 2);
    const uint32_t most = width == 8 ? 4 : 8;
    const uint32_t sums = (bricks + bricks % 2) * width * WEFT_CUDA_ROWS * (a->gated ? 2 : 1);
    return weft_cuda_shape(weft_cuda_tiles(a), a->run ? a->n_run : weft_cuda_divide_up(a->n, width),
                           a->stack, 32 * (warps < most ? warps : most), sums * (uint32_t)sizeof(float));
}
/* The widest of them whose sums fit the 48 KiB of shared memory that every launch may have; 0: too many
 * columns. */
static inline uint32_t weft_cuda_matvec_width(uint32_t columns, bool gated, uint64_t n)
{
    const uint32_t most = 768 / (weft_cuda_bricks(columns) + 1) / (gated ? 2 : 1);
    const uint32_t width = n <= 1 ? 1 : n <= 4 ? 4 : 8;
    return width <= most ? width : most >= 4 ? 4 : most >= 1 ? 1 : 0;
}
/* Kernels weft_cuda_matmul_<format>_<width>, width 16 or 64, quantised formats only. 4 tiles a thread block. */
static inline weft_cuda_launch weft_cuda_matmul_launch(const weft_cuda_matmul_args *a, uint32_t width)
{
    return weft_cuda_shape(weft_cuda_divide_up(weft_cuda_tiles(a), 4),
                           a->run ? a->n_run : weft_cuda_divide_up(a->n, width), a->stack, 128, 0);
}

/* ---- element by element, and norms ---- */

/* y[r] = x[r] / sqrt(mean(x[r]^2) + eps) * w; x == y allowed. A thread sums every 256th square, then a tree.
 * Bound: a sum of dim squares in either order is within (dim / 16 + 6) 2^-24 of the exact one, relatively (no
 * cancellation), half of that after the root: |difference| <= ((dim / 16 + 6) + 4) 2^-24 |y|. */
typedef struct weft_cuda_rms_norm_args {
    const float *x, *w;
    float *y;
    float eps;
    uint32_t rows, dim;
} weft_cuda_rms_norm_args;

static inline weft_cuda_launch weft_cuda_rms_norm_launch(const weft_cuda_rms_norm_args *a)
{
    return weft_cuda_shape(a->rows, 1, 1, 256, 0);
}

/* y[r] = (x[r] - mean) / sqrt(variance + eps) * w + bias; x == y allowed. Bound, with A the largest |x[r]| and s the
 * result's 1 / sqrt(): |difference| <= (dim / 8 + 16) 2^-24 (A s |w| + |bias|). */
typedef struct weft_cuda_layer_norm_args {
    const float *x, *w, *bias;
    float *y;
    float eps;
    uint32_t rows, dim;
} weft_cuda_layer_norm_args;

static inline weft_cuda_launch weft_cuda_layer_norm_launch(const weft_cuda_layer_norm_args *a)
{
    return weft_cuda_shape(a->rows, 1, 1, 256, 0);
}

/* In place: the Walsh-Hadamard transform of each row, dim a power of two from 2 to 1024, over sqrt(dim). */
typedef struct weft_cuda_hadamard_args {
    float *x;
    uint32_t rows, dim;
} weft_cuda_hadamard_args;

static inline weft_cuda_launch weft_cuda_hadamard_launch(const weft_cuda_hadamard_args *a)
{
    return weft_cuda_shape(a->rows, 1, 1, a->dim / 2 < 32 ? 32 : a->dim / 2,
                           a->dim * (uint32_t)sizeof(float));
}

/* cos_sin [n][rope_dim / 2][2]: what rope reads. In double, as the CPU does it. */
typedef struct weft_cuda_rope_table_args {
    const weft_row *row;
    const double *inv_freq; /* [rope_dim / 2] */
    float *cos_sin;
    float magnitude;
    uint32_t n, rope_dim;
} weft_cuda_rope_table_args;

static inline weft_cuda_launch weft_cuda_rope_table_launch(const weft_cuda_rope_table_args *a)
{
    return weft_cuda_shape(weft_cuda_divide_up((uint64_t)a->n * (a->rope_dim / 2), 128), 1, 1, 128, 0);
}

/* In place on x [n][heads], head_stride floats apart: the first rope_dim of each head. */
typedef struct weft_cuda_rope_args {
    float *x;
    const float *cos_sin;
    uint32_t n, heads, head_stride, rope_dim;
    weft_rope_kind kind;
} weft_cuda_rope_args;

static inline weft_cuda_launch weft_cuda_rope_launch(const weft_cuda_rope_args *a)
{
    return weft_cuda_shape(weft_cuda_divide_up((uint64_t)a->n * a->heads * (a->rope_dim / 2), 256), 1, 1,
                           256, 0);
}

/* out[i] = act(gate[i]) * up[i] */
typedef struct weft_cuda_gate_args {
    const float *gate, *up;
    float *out;
    uint64_t n;
    weft_activation activation;
} weft_cuda_gate_args;

/* x[i] += y[i] */
typedef struct weft_cuda_add_args {
    float *x;
    const float *y;
    uint64_t n;
} weft_cuda_add_args;

/* x = hi + lo; hi on the grid that quantise makes of a block of 32, lo what that loses (model.c). hi may be x. */
typedef struct weft_cuda_split_args {
    const float *x;
    float *hi, *lo;
    uint64_t n;
} weft_cuda_split_args;

/* out[i] = x[from[i]], rows of dim; from ascends and from[i] >= i. x != out. */
typedef struct weft_cuda_keep_args {
    const float *x;
    float *out;
    const uint32_t *from;
    uint32_t rows, dim;
} weft_cuda_keep_args;

static inline weft_cuda_launch weft_cuda_gate_launch(const weft_cuda_gate_args *a)
{
    return weft_cuda_shape(weft_cuda_divide_up(a->n, 256), 1, 1, 256, 0);
}
static inline weft_cuda_launch weft_cuda_add_launch(const weft_cuda_add_args *a)
{
    return weft_cuda_shape(weft_cuda_divide_up(a->n, 256), 1, 1, 256, 0);
}
static inline weft_cuda_launch weft_cuda_split_launch(const weft_cuda_split_args *a)
{
    return weft_cuda_shape(weft_cuda_divide_up(a->n, 256), 1, 1, 256, 0);
}
static inline weft_cuda_launch weft_cuda_keep_launch(const weft_cuda_keep_args *a)
{
    return weft_cuda_shape(a->rows, 1, 1, 256, 0);
}

/* out[t] = scale * row ids[t] of a packed matrix; ids beyond `rows` give NaN. */
typedef struct weft_cuda_embed_args {
    const uint8_t *table;
    const int32_t *ids;
    float *out; /* [n][columns] */
    float scale;
    weft_cuda_format format;
    uint32_t n, columns, rows;
} weft_cuda_embed_args;

static inline weft_cuda_launch weft_cuda_embed_launch(const weft_cuda_embed_args *a)
{
    return weft_cuda_shape(weft_cuda_bricks(a->columns), a->n, 1, 256, 0);
}

/* ---- keys and values ---- */

/* Where a layer's heads stand in a page (ops.h draws it): head h's keys at offset + h * head_bytes, its values
 * key_bytes later. */
typedef struct weft_cuda_kv {
    uint64_t offset, head_bytes, key_bytes;
    weft_kv_type type;
    uint32_t n_head_kv, key_dim, value_dim;
} weft_cuda_kv;

static inline weft_cuda_kv weft_cuda_kv_of(const weft_kv_layout *l, uint32_t layer)
{
    weft_cuda_kv kv = {weft_kv_offset(l, layer, 0), weft_kv_head_bytes(l),
                       weft_kv_side_bytes(l->type, l->key_dim), l->type, l->n_head_kv, l->key_dim,
                       l->value_dim};
    return kv;
}

/* Writes k [n][n_head_kv][key_dim] and v [n][n_head_kv][v_dim], behind which come the value_dim - v_dim of v2
 * (latent pages; NULL and v_dim == value_dim elsewhere). key_dim 0: no keys. */
typedef struct weft_cuda_kv_write_args {
    weft_cuda_kv kv;
    const weft_row *row;
    const float *k, *v, *v2;
    uint32_t n, v_dim;
} weft_cuda_kv_write_args;

static inline weft_cuda_launch weft_cuda_kv_write_launch(const weft_cuda_kv_write_args *a)
{
    return weft_cuda_shape(a->kv.n_head_kv, a->n, 1, 128, 0);
}

/* Causal attention, kernels weft_cuda_attention_<f32|f16|q8_0>_<8|16>: up to that many queries share the loads of
 * keys: the heads of a group (or a portion of them), times `tile` tokens, which follow one another on one
 * timeline (tile 1: they need not).
 *
 * A score is a chain of FMAs over dims, a value one over positions; positions are summed in spans at absolute
 * multiples of 256, and these merged in order. slot NULL: a thread block walks all spans of its tokens
 * and writes out. Otherwise each of the `spans` (at least the most that a row has) is a thread block of its own,
 * which leaves its state in slot [n][n_head][spans][WEFT_CUDA_STATE + value_dim] for attention_merge. Same
 * bits. */
typedef struct weft_cuda_attention_args {
    weft_cuda_kv kv;
    const weft_row *row;
    const float *q; /* [n][n_head][key_dim] */
    float *out;     /* [n][n_head][value_dim] */
    float *slot;
    int64_t window; /* 0: none */
    float scale;
    uint32_t n, n_head, tile, spans;
} weft_cuda_attention_args;

/* Heads that one thread block takes together. */
static inline uint32_t weft_cuda_attention_heads(const weft_cuda_attention_args *a, uint32_t queries)
{
    const uint32_t group = a->n_head / a->kv.n_head_kv, most = queries / a->tile;
    return group < most ? group : most;
}
static inline weft_cuda_launch weft_cuda_attention_launch(const weft_cuda_attention_args *a,
                                                          uint32_t queries)
{
    const uint32_t group = a->n_head / a->kv.n_head_kv;
    const uint32_t parts = weft_cuda_divide_up(group, weft_cuda_attention_heads(a, queries));
    const uint32_t floats = queries * (a->kv.key_dim + WEFT_CUDA_SPAN);
    return weft_cuda_shape(a->kv.n_head_kv * parts, weft_cuda_divide_up(a->n, a->tile),
                           a->slot ? a->spans : 1, 256, floats * (uint32_t)sizeof(float));
}
static inline weft_cuda_launch weft_cuda_attention_merge_launch(const weft_cuda_attention_args *a)
{
    return weft_cuda_shape(a->n_head, a->n, 1, 256, 0);
}

/* ---- latent attention and its indexer ---- */

/* Kernels weft_cuda_index_score_<f32|f16|q8_0>, then top_k: weft_index of ops.h. A row with at most top_k positions
 * takes them all, unscored. Scores are the CPU's bits, so the choice is its choice. */
typedef struct weft_cuda_index_args {
    weft_cuda_kv kv;
    const weft_row *row;
    const float *q;      /* [n][n_head][key_dim] */
    const float *weight; /* [n][n_head] */
    float *score;        /* [n][stride] */
    int32_t *selected;   /* [n][top_k], ascending */
    int32_t *count;      /* [n] */
    uint64_t stride;     /* at least the most positions that a row has */
    uint32_t n, n_head, top_k;
} weft_cuda_index_args;

static inline weft_cuda_launch weft_cuda_index_score_launch(const weft_cuda_index_args *a)
{
    return weft_cuda_shape(weft_cuda_divide_up(a->stride, 256), a->n, 1, 256,
                           a->kv.key_dim * 16 * (uint32_t)sizeof(float));
}
static inline weft_cuda_launch weft_cuda_top_k_launch(const weft_cuda_index_args *a)
{
    return weft_cuda_shape(a->n, 1, 1, 512, 0);
}

/* Kernels weft_cuda_latent_attention_<f32|f16|q8_0>: weft_latent_attention of ops.h, latent_dim at most
 * WEFT_CUDA_LATENT. selected NULL: all positions. slot as in attention: NULL, or
 * [n][n_head][spans][WEFT_CUDA_LATENT_STATE + latent_dim], spans at least the most that a row has, and latent_merge
 * after. Same bits either way, and the CPU's. */
typedef struct weft_cuda_latent_args {
    weft_cuda_kv kv;
    const weft_row *row;
    const float *q_latent; /* [n][n_head][latent_dim] */
    const float *q_rope;   /* [n][n_head][q_rope_stride] */
    const int32_t *selected, *count;
    float *out; /* [n][n_head][latent_dim] */
    float *slot;
    float scale;
    uint32_t n, n_head, latent_dim, q_rope_stride, top_k, spans;
} weft_cuda_latent_args;

static inline weft_cuda_launch weft_cuda_latent_attention_launch(const weft_cuda_latent_args *a)
{
    return weft_cuda_shape(weft_cuda_divide_up(a->n_head, 32), a->n, a->slot ? a->spans : 1, 256, 0);
}
static inline weft_cuda_launch weft_cuda_latent_merge_launch(const weft_cuda_latent_args *a)
{
    return weft_cuda_shape(a->n_head, a->n, 1, 256, 0);
}

/* ---- experts ---- */

/* weft_routing of ops.h; equal to the CPU's picks unless a score is NaN. */
typedef struct weft_cuda_route_args {
    float *score; /* [n][n_expert], overwritten */
    const float *bias;
    weft_pick *out; /* [n][n_used] */
    float scale;
    uint32_t n, n_expert, n_used, n_group, n_group_used; /* n_group 0 or 1: none */
    bool sigmoid;                                        /* or softmax */
    bool normalise;
} weft_cuda_route_args;

static inline weft_cuda_launch weft_cuda_route_launch(const weft_cuda_route_args *a)
{
    return weft_cuda_shape(a->n, 1, 1, 32, 0);
}

/* Sorts the picks by expert, then by token: place i is a row of token token_of[i], pick pick_of[i]. run: the
 * experts' places in portions of `width`, n_run of them, those beyond the last with n 0. matmul_args of the
 * experts' gate and up take x_row = token_of; of down, y_row = pick_of; then combine. */
typedef struct weft_cuda_group_args {
    const weft_pick *pick;       /* [n][n_used] */
    weft_cuda_run *run;          /* [n_run] */
    uint32_t *token_of, *pick_of; /* [n * n_used] */
    uint32_t n, n_used, n_expert, width, n_run;
} weft_cuda_group_args;

/* Runs that any n * n_used picks need at most. */
static inline uint32_t weft_cuda_runs(uint32_t n, uint32_t n_used, uint32_t n_expert, uint32_t width)
{
    const uint32_t picks = n * n_used;
    return picks / width + (picks < n_expert ? picks : n_expert);
}
static inline weft_cuda_launch weft_cuda_group_launch(const weft_cuda_group_args *a)
{
    return weft_cuda_shape(1, 1, 1, 512, 0);
}

/* out[t] = sum over t's picks, in their order, of weight * y[pick]; y [n * n_used][dim] */
typedef struct weft_cuda_combine_args {
    const float *y;
    const weft_pick *pick;
    float *out;
    uint32_t n, n_used, dim;
} weft_cuda_combine_args;

static inline weft_cuda_launch weft_cuda_combine_launch(const weft_cuda_combine_args *a)
{
    return weft_cuda_shape(weft_cuda_divide_up(a->dim, 256), a->n, 1, 256, 0);
}

/* ---- sampling ---- */

/* How the token after a row is drawn: weft_sample of sample.h without the penalty. */
typedef struct weft_cuda_draw {
    double temperature; /* 0: the largest; below 0: the row is not drawn from */
    double top_p;       /* 1: off */
    double min_p;       /* 0: off */
    uint64_t seed;
    int64_t position;        /* of the token to be drawn */
    const uint32_t *allowed; /* [(n_vocab + 31) / 32], or NULL */
    int32_t top_k;           /* 0: off */
} weft_cuda_draw;

enum { WEFT_CUDA_NOT_DRAWN = -2 };
typedef struct weft_cuda_drawn {
    int32_t id;     /* -1: the mask allows none; WEFT_CUDA_NOT_DRAWN: nobody asked, or the draw needs more candidates in
                       order than WEFT_CUDA_KEPT */
    int32_t finite; /* 0: some logit is not, and id counts for nothing */
} weft_cuda_drawn;

/* Kernels weft_cuda_sample_top, sample_weigh, sample_pick, one after the other: a token a row, the id that
 * weft_sample_draw would give. top finds the largest logit; with a temperature, weigh has the weights and their sums
 * by 512 ids, and pick draws. */
typedef struct weft_cuda_sample_args {
    const float *logits;        /* [n][n_vocab] */
    const weft_cuda_draw *draw; /* [n] */
    weft_cuda_drawn *out;       /* [n] */
    float *weight;              /* [n][n_vocab], theirs */
    double *sum;                /* [n][WEFT_CUDA_SUMS], theirs */
    uint32_t n, n_vocab;        /* at most WEFT_CUDA_VOCAB */
} weft_cuda_sample_args;

static inline weft_cuda_launch weft_cuda_sample_top_launch(const weft_cuda_sample_args *a)
{
    return weft_cuda_shape(a->n, 1, 1, 512, 0);
}
/* A warp for 512 ids. */
static inline weft_cuda_launch weft_cuda_sample_weigh_launch(const weft_cuda_sample_args *a)
{
    return weft_cuda_shape(weft_cuda_divide_up(a->n_vocab, 4 * 512), a->n, 1, 128, 0);
}
static inline weft_cuda_launch weft_cuda_sample_pick_launch(const weft_cuda_sample_args *a)
{
    return weft_cuda_shape(a->n, 1, 1, 512, 0);
}

/* ---- the list of kernels ---- */

/* In the order of weft_cuda_format. */
#define WEFT_CUDA_QUANTISED(X, a, b)                                                               \
    X(a##q8##b) X(a##q4##b) X(a##q4m##b) X(a##q5##b) X(a##q5m##b) X(a##q4k##b) X(a##q5k##b) X(a##q6k##b) \
    X(a##q2k##b) X(a##q3k##b) X(a##n4##b) X(a##n4k##b) X(a##mx4##b) X(a##nv4##b) \
    X(a##iq1##b) X(a##iq2xxs##b) X(a##iq2xs##b) X(a##iq2s##b) X(a##iq3xxs##b) X(a##iq3s##b) X(a##q2##b) X(a##q1##b)
#define WEFT_CUDA_FLOATS(X, a, b) X(a##f16##b) X(a##bf16##b) X(a##f32##b)

/* X(name) for each kernel weft_cuda_<name>. */
#define WEFT_CUDA_KERNELS(X)                                                                       \
    X(quantise)                                                                                    \
    WEFT_CUDA_QUANTISED(X, matvec_, _1)                                                            \
    WEFT_CUDA_QUANTISED(X, matvec_, _4)                                                            \
    WEFT_CUDA_QUANTISED(X, matvec_, _8)                                                            \
    WEFT_CUDA_FLOATS(X, matvec_, _1)                                                               \
    WEFT_CUDA_FLOATS(X, matvec_, _4)                                                               \
    WEFT_CUDA_FLOATS(X, matvec_, _8)                                                               \
    WEFT_CUDA_QUANTISED(X, matmul_, _16)                                                           \
    WEFT_CUDA_QUANTISED(X, matmul_, _64)                                                           \
    X(rms_norm)                                                                                    \
    X(layer_norm)                                                                                  \
    X(hadamard)                                                                                    \
    X(rope_table)                                                                                  \
    X(rope)                                                                                        \
    X(gate)                                                                                        \
    X(add)                                                                                         \
    X(split)                                                                                       \
    X(keep)                                                                                        \
    X(embed)                                                                                       \
    X(kv_write)                                                                                    \
    X(attention_f32_8)                                                                             \
    X(attention_f32_16)                                                                            \
    X(attention_f16_8)                                                                             \
    X(attention_f16_16)                                                                            \
    X(attention_q8_0_8)                                                                            \
    X(attention_q8_0_16)                                                                           \
    X(attention_merge)                                                                             \
    X(index_score_f32)                                                                             \
    X(index_score_f16)                                                                             \
    X(index_score_q8_0)                                                                            \
    X(top_k)                                                                                       \
    X(latent_attention_f32)                                                                        \
    X(latent_attention_f16)                                                                        \
    X(latent_attention_q8_0)                                                                       \
    X(latent_merge)                                                                                \
    X(route)                                                                                       \
    X(group)                                                                                       \
    X(combine)                                                                                     \
    X(sample_top)                                                                                  \
    X(sample_weigh)                                                                                \
    X(sample_pick)

#endif
