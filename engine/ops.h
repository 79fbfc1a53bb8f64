/* The backend table: every operation a model graph is made of. Private to engine/.
 *
 * A graph (arch/) is a sequence of these calls over row-major float32 activations [n][dim], n tokens
 * at a time. A backend (cpu/, later cuda/) implements the table; the graph never looks behind it.
 * Activations are the host's memory on the CPU. Of a device they are the device's, and the graph's
 * addresses are names for it (weft_device_ops): so a graph reads and writes activations through calls of
 * this table alone.
 * All tokens of a call are independent of each other: the result for one does not depend on n, nor on
 * which others are there, nor on the threads (the numeric contract).
 *
 * Weights are repacked at load with lanes over rows (docs/engine.md): a row's float sum is sequential
 * over its blocks of 32 columns, products inside a block are exact integers against activations
 * quantised per block of 32 (Q types), or float32 FMAs in column order (F32, F16, BF16).
 */
#ifndef WEFT_ENGINE_OPS_H
#define WEFT_ENGINE_OPS_H

#include "engine/engine.h"
#include "engine/gguf.h"

typedef struct weft_backend weft_backend;
typedef struct weft_weight weft_weight; /* a stack of matrices [rows][columns], mostly of one */

enum { WEFT_PAGE = 64, WEFT_KV_BLOCK = 32 }; /* positions in a KV page; dims of a q8_0 scale */

/* One page holds, for each layer, for each KV head: keys transposed, then values. Lanes run over positions
 * for scores, over dims for values.
 *
 *   f16, f32   keys [key_dim][64]                       values [64][value_dim]
 *   q8_0       keys, for each 32 dims (the last block   values f16 d[blocks][64] i8 q[64][value_dim]
 *              may have fewer): f16 d[64] i8 q[dims][64]
 *
 * An element of q8_0 is q * d. d and q are made of one position's 32 dims alone.
 *
 * Multi-head latent attention (latent_dim > 0) has the same page with other things in it: n_head_kv is 1; the
 * key, transposed, is the indexer's (key_dim 0: no indexer), which every position is scored by; the value is
 * what all heads attend to, the normed latent and behind it the rotated key part, [latent_dim | rope_dim]: one
 * contiguous row a position, so that chosen positions can be gathered. */
typedef struct weft_kv_layout {
    weft_kv_type type;
    uint32_t n_layer, n_head_kv, key_dim, value_dim;
    uint32_t latent_dim; /* 0: keys and values of heads */
    uint32_t variant;    /* of the mathematics that made them: 0, or 1 for an indexer that is not used */
} weft_kv_layout;

/* Bytes of 64 keys or values of `dim` dims; a multiple of 64. */
static inline size_t weft_kv_side_bytes(weft_kv_type type, uint32_t dim)
{
    const size_t blocks = ((size_t)dim + WEFT_KV_BLOCK - 1) / WEFT_KV_BLOCK;
    if (type == WEFT_KV_Q8_0) return WEFT_PAGE * (dim + blocks * sizeof(uint16_t));
    return (size_t)WEFT_PAGE * dim * (type == WEFT_KV_F32 ? 4 : 2);
}
static inline size_t weft_kv_head_bytes(const weft_kv_layout *l)
{
    return weft_kv_side_bytes(l->type, l->key_dim) + weft_kv_side_bytes(l->type, l->value_dim);
}
static inline size_t weft_kv_page_bytes(const weft_kv_layout *l)
{
    return weft_kv_head_bytes(l) * l->n_head_kv * l->n_layer;
}
/* Offset of the keys of (layer, head) in a page; the values follow weft_kv_side_bytes later. */
static inline size_t weft_kv_offset(const weft_kv_layout *l, uint32_t layer, uint32_t head)
{
    return weft_kv_head_bytes(l) * ((size_t)layer * l->n_head_kv + head);
}

/* Where a token of a call stands: its timeline's pages and its absolute position. */
typedef struct weft_row {
    void *const *page; /* [position / 64 + 1] page addresses of its timeline */
    int64_t position;
} weft_row;

typedef enum weft_rope_kind {
    WEFT_ROPE_NEOX,       /* pairs (i, i + d/2) */
    WEFT_ROPE_INTERLEAVED /* pairs (2i, 2i + 1) */
} weft_rope_kind;

typedef enum weft_activation { WEFT_SILU, WEFT_GELU_TANH } weft_activation;

typedef struct weft_attention {
    const weft_kv_layout *layout;
    uint32_t layer, n_head; /* n_head % n_head_kv == 0 */
    float scale;
    int64_t window;     /* 0: all earlier positions; else key j is visible to i if i - j < window */
    const weft_row *row; /* [n] */
    size_t n;
    const float *q; /* [n][n_head][key_dim] */
    float *out;     /* [n][n_head][value_dim] */
} weft_attention;

/* Latent attention (MLA in its absorbed form): all heads share one row a position, [latent | rope].
 *
 * score(h, s) = scale * (q_latent[h] . latent[s] + q_rope[h] . rope[s]), in this order of dims;
 * out[h] = sum over s of softmax(score(h))[s] * latent[s]. A token attends to all positions up to its own, or
 * to those selected, ascending; to take all of them by a selection gives the same bits. */
typedef struct weft_latent_attention {
    const weft_kv_layout *layout; /* latent_dim > 0 */
    uint32_t layer, n_head;
    float scale;
    const weft_row *row; /* [n] */
    size_t n;
    const float *q_latent; /* [n][n_head][latent_dim] */
    const float *q_rope;   /* [n][n_head][q_rope_stride], of which the first value_dim - latent_dim count */
    size_t q_rope_stride;
    const int32_t *selected; /* [n][top_k]; NULL: all positions */
    const int32_t *count;    /* [n] of them; >= 1 */
    uint32_t top_k;
    float *out; /* [n][n_head][latent_dim] */
} weft_latent_attention;

/* The indexer: which positions a token attends to.
 *
 * score(t, s) = sum over heads, in order, of weight[t][h] * max(q[t][h] . k[s], 0), for s <= the token's own;
 * its top_k largest are chosen, of equal ones (+0 and -0 are equal, NaN is below all) those at lower positions.
 * Tokens with at most top_k positions take them all, unscored. (A positive factor would not change the
 * choice, so there is none.) */
typedef struct weft_index {
    const weft_kv_layout *layout; /* key_dim > 0 */
    uint32_t layer, n_head, top_k;
    const weft_row *row; /* [n] */
    size_t n;
    const float *q;      /* [n][n_head][key_dim] */
    const float *weight; /* [n][n_head] */
    int32_t *selected;   /* [n][top_k], ascending */
    int32_t *count;      /* [n] of them: min(position + 1, top_k) */
} weft_index;

typedef enum weft_gating { WEFT_GATE_SOFTMAX, WEFT_GATE_SIGMOID } weft_gating;

/* How a token chooses among experts: p = softmax or sigmoid of its scores; the n_used of the largest p + bias,
 * equal ones by the lower index, where with groups only the experts of the best groups count. Weights are of
 * p alone. */
typedef struct weft_routing {
    uint32_t n_expert, n_used;
    bool normalise; /* the weights of the chosen are divided by their sum (sigmoid: plus 1e-20) */
    float scale;    /* and times this */
    weft_gating gating;
    const float *bias; /* [n_expert], or NULL */
    /* n_group > 1: as many runs of n_expert / n_group; n_group_used of them count, those with the largest sum of
     * their two best p + bias (softmax: with the largest p + bias), equal ones by the lower index. */
    uint32_t n_group, n_group_used;
} weft_routing;

typedef struct weft_pick {
    uint32_t expert;
    float weight;
} weft_pick;

/* The experts of a layer: stacks of n_expert gated feed-forwards. */
typedef struct weft_experts {
    const weft_weight *gate, *up, *down; /* [n_ff][n_embd] twice, [n_embd][n_ff] */
    weft_activation activation;
    uint32_t n_used;
} weft_experts;

/* The largest call of the latent operations. */
typedef struct weft_latent_size {
    uint32_t n_head, latent_dim, rope_dim;
    uint32_t index_heads, index_dim, top_k; /* 0: no indexer */
    int64_t context;
} weft_latent_size;

/* The largest call of `experts`. */
typedef struct weft_experts_size {
    size_t n, n_expert, n_used, n_embd, n_ff;
} weft_experts_size;

/* How the token after a wanted one will be drawn: told to a pass, so that a device may draw where the logits lie. */
typedef struct weft_draw {
    const weft_sampler *sampler; /* without a penalty. NULL: nobody said */
    const uint32_t *allowed;     /* [(n_vocab + 31) / 32], or NULL: every id */
    int64_t position;            /* of the token to be drawn */
    int32_t *id;                 /* out: what weft_sample_draw gives; left as it is where a device does not draw */
} weft_draw;

/* One pass of the graph. The sequence of its calls depends on n, n_want, n_logits and the first row of the logits
 * alone: the rest may differ from pass to pass of the same calls. */
typedef struct weft_pass {
    const int32_t *ids;    /* [n] tokens to evaluate; n may be 0: only logits are asked for */
    const weft_row *row;   /* [n] where they stand; rows of one timeline follow one another */
    size_t n;
    const size_t *want;    /* [n_want], ascending: the tokens whose logits will be asked for */
    size_t n_want;
    size_t from, n_logits; /* logits of wanted tokens [from, from + n_logits) of the last pass with n > 0, */
    float *logits;         /* [2 n_logits][n_vocab]: the first n_logits rows are the result */
    const weft_draw *draw; /* [n_want], or NULL */
    /* Of a model that predicts, else NULL (predict.c): */
    const float *const *before; /* [n] hidden state of the token before, [n_embd], where that one is not the row before;
                                   NULL: not known */
    float *const *hidden;       /* [n] where the token's own goes, or NULL; may be where one of `before` is */
} weft_pass;

/* Where the graph keeps what a pass needs, set once. */
typedef struct weft_pass_places {
    float *x;       /* [chunk][n_embd]: embedded tokens, the residual stream */
    weft_row *kept; /* [chunk]: the rows of wanted tokens, as calls behind `keep` name them */
    size_t n_embd, n_vocab, n_head, chunk, max_logits;
    int64_t context; /* positions of a timeline */
} weft_pass_places;

typedef enum weft_twin_kind {
    WEFT_TWIN_ACTIVATIONS, /* the device's alone; but x is read from the host when a pass begins */
    WEFT_TWIN_CONSTANTS,   /* copied once, now */
    WEFT_TWIN_RESULTS      /* the logits of a pass are copied to the host when it ends */
} weft_twin_kind;

typedef struct weft_kv_twin weft_kv_twin; /* a timeline's pages on the device */

/* What a backend adds whose memory is not the host's. Addresses of host memory stand for the device's: each
 * range that operations are given is announced by `twin`. Of these `embed` alone writes to the host. */
typedef struct weft_device_ops {
    /* Shares the layers out among devices; called before the first weight. */
    weft_status (*plan)(weft_backend *, const weft_gguf *file, const weft_kv_layout *, weft_error *);
    weft_status (*twin)(weft_backend *, void *host, size_t bytes, weft_twin_kind, weft_error *);
    /* The last call before the first pass. */
    weft_status (*places)(weft_backend *, const weft_pass_places *, weft_error *);

    /* Has issue(context) make the calls of a pass, or repeats what it recorded of an equal one. On return the
     * logits are on the host, and so are the ids of draws that the device made and the pages that the pass
     * completed. After an error the positions of the pass hold anything, those before it what they held. */
    weft_status (*pass)(weft_backend *, const weft_pass *, void (*issue)(void *), void *context,
                        weft_error *);
    /* The calls that follow belong to this layer, of n tokens; n_layer: to the output. */
    void (*layer)(weft_backend *, uint32_t layer, size_t n);
    /* The wanted rows of x [n][width] move to the front. */
    void (*keep)(weft_backend *, float *x, size_t width);
    /* x [n] = hi + lo, as transformer.c does it; x == hi allowed */
    void (*split)(weft_backend *, const float *x, size_t n, float *hi, float *lo);

    /* page: as in weft_row, [max_pages], stable until pages_free. */
    weft_status (*pages_new)(weft_backend *, void *const *page, int64_t max_pages, weft_kv_twin **out,
                             weft_error *);
    void (*pages_free)(weft_kv_twin *);
    /* Brings the host's bytes of a page up to date. */
    weft_status (*page_fetch)(weft_kv_twin *, int64_t page, weft_error *);
    /* The host's bytes of a page are others now, or gone. */
    void (*page_forget)(weft_kv_twin *, int64_t page);

    void (*free)(weft_backend *);
} weft_device_ops;

typedef struct weft_ops {
    const char *name; /* "cpu-avx512" */
    const weft_device_ops *device; /* NULL: activations are the host's memory, calls compute at once */
    uint32_t numerics; /* part of a page's name: 0 on the CPU. Equal numbers, equal bits */

    /* Repacks a tensor (dim[0] = columns, dim[1] = rows, dim[2] = matrices in the stack). The tensor's bytes
     * are not needed after. */
    weft_status (*weight_new)(weft_backend *, const weft_tensor *, weft_weight **out, weft_error *);
    /* The same weight, with the same results, left where it is: the tensor's file must outlive it, and what is
     * used of it is read and repacked each time. */
    weft_status (*weight_map)(weft_backend *, const weft_tensor *, weft_weight **out, weft_error *);
    void (*weight_free)(weft_weight *);
    size_t (*weight_bytes)(const weft_weight *); /* of memory: 0 if it was left where it is */
    /* What went wrong in the operations since the last call of this (a file that cannot be read any more); then
     * their results are worth nothing. NULL: nothing ever does. */
    weft_status (*failure)(weft_backend *, weft_error *);

    /* Scratch for calls of up to n tokens and matrices up to max_columns, max_heads * head_dim wide: no other op allocates. */
    weft_status (*reserve)(weft_backend *, size_t n, size_t max_columns, weft_error *);

    /* out[t] = scale * dequantised row ids[t] of table; [n][columns] */
    void (*embed)(weft_backend *, const weft_tensor *table, const int32_t *ids, size_t n,
                  float scale, float *out);
    /* y[i][t] = W_i x[t] + bias_i for n_w matrices of the same columns; bias[i] may be NULL.
     * x [n][columns], y[i] [n][rows_i] */
    void (*matmul)(weft_backend *, const weft_weight *const *w, const float *const *bias,
                   float *const *y, size_t n_w, const float *x, size_t n);
    /* out[t] = act(W_gate x[t]) * (W_up x[t]); [n][rows] */
    void (*gated)(weft_backend *, const weft_weight *gate, const weft_weight *up,
                  weft_activation act, const float *x, size_t n, float *out);
    /* y[r] = x[r] / sqrt(mean(x[r]^2) + eps) * w; rows of dim; x == y allowed */
    void (*rms_norm)(weft_backend *, const float *x, const float *w, float eps, size_t rows,
                     size_t dim, float *y);
    /* In place on x [n][heads][head_dim]: rotates the first rope_dim of each head. inv_freq
     * [rope_dim / 2] in double; the angle is position * inv_freq[i], cos and sin are ours, in double,
     * rounded to float32 and times `magnitude`. */
    void (*rope)(weft_backend *, float *x, const weft_row *row, size_t n, size_t heads,
                 size_t head_dim, size_t rope_dim, weft_rope_kind kind, const double *inv_freq,
                 float magnitude);
    /* Writes k [n][n_head_kv][key_dim] and v [n][n_head_kv][value_dim] at each token's position. */
    void (*kv_write)(weft_backend *, const weft_kv_layout *, uint32_t layer, const weft_row *row,
                     size_t n, const float *k, const float *v);
    /* Causal attention of each token over its timeline up to and including its own position. */
    void (*attention)(weft_backend *, const weft_attention *);
    /* x[i] += y[i] */
    void (*add)(weft_backend *, float *x, const float *y, size_t n);

    /* Scratch for `experts`, as `reserve` for the others. */
    weft_status (*reserve_experts)(weft_backend *, const weft_experts_size *, weft_error *);
    /* scores [n][n_expert], overwritten; out [n][n_used], the best choice first. */
    void (*route)(weft_backend *, const weft_routing *, float *scores, size_t n, weft_pick *out);
    /* out[t] = sum over t's picks, in their order, of weight * down(act(gate x[t]) * (up x[t])) of that
     * expert. Of the experts only those picked are read, once a call. x and out [n][n_embd] */
    void (*experts)(weft_backend *, const weft_experts *, const weft_pick *pick, const float *x,
                    size_t n, float *out);

    /* Experts in the file, through a pool of memory; NULL, all four: not on this backend. */
    /* The experts of stacks made by weight_map get n_slot slots, in which those used last and most often stay; the
     * pool belongs to gate. Without one each expert is read and repacked whenever it is used. */
    weft_status (*experts_pool)(weft_backend *, weft_weight *gate, weft_weight *up, weft_weight *down,
                                size_t n_slot, weft_error *);
    /* These picks are likely to come in the next call with these experts. No result depends on it. */
    void (*experts_soon)(weft_backend *, const weft_experts *, const weft_pick *pick, size_t n);
    void (*experts_counts)(const weft_backend *, weft_expert_counts *out);
    /* Bytes that scratch may take by what was reserved so far; most of it is never touched. */
    size_t (*scratch_bytes)(const weft_backend *);

    /* ---- latent attention ---- */

    /* Scratch for the operations below, as `reserve` for the others; call it after reserve. */
    weft_status (*reserve_latent)(weft_backend *, const weft_latent_size *, weft_error *);
    /* y[t][h] = W_h x[t][h] for a stack of n_head matrices [rows][columns]. x [n][n_head][x_stride], of which
     * the first `columns` count; y [n][n_head][y_stride], of which the first `rows` are written. */
    void (*matmul_heads)(weft_backend *, const weft_weight *w, const float *x, size_t x_stride, size_t n,
                         float *y, size_t y_stride);
    /* y[r] = (x[r] - mean) / sqrt(variance + eps) * w + bias; rows of dim; x == y allowed */
    void (*layer_norm)(weft_backend *, const float *x, const float *w, const float *bias, float eps,
                       size_t rows, size_t dim, float *y);
    /* In place, each row of dim (a power of two): the Walsh-Hadamard transform (Sylvester's order) over
     * sqrt(dim). */
    void (*hadamard)(weft_backend *, float *x, size_t rows, size_t dim);
    /* Writes latent [n][latent_dim], rope [n][value_dim - latent_dim] and, if key_dim > 0, the indexer's key
     * index [n][key_dim] at each token's position. */
    void (*latent_write)(weft_backend *, const weft_kv_layout *, uint32_t layer, const weft_row *row,
                         size_t n, const float *latent, const float *rope, const float *index);
    void (*index_select)(weft_backend *, const weft_index *);
    void (*latent_attention)(weft_backend *, const weft_latent_attention *);
} weft_ops;

/* isa NULL: the best of this CPU. WEFT_E_USAGE for an unknown one, WEFT_E_MODEL if the CPU lacks it. */
weft_status weft_cpu_backend_new(weft_backend **out, const weft_ops **out_ops, const char *isa,
                                 int threads, weft_error *err);
void weft_cpu_backend_free(weft_backend *backend);
/* The name that isa NULL comes to. */
const char *weft_cpu_backend_best(void);
int weft_cpu_backend_threads(const weft_backend *backend);
/* What weight_new takes for a tensor: about its size in the file, more for the types with grids. */
size_t weft_cpu_packed_bytes(const weft_tensor *tensor);
/* What a thread takes beside to read and repack it. */
size_t weft_cpu_room_bytes(const weft_tensor *tensor);

/* Deterministic mathematics used outside the kernels too (sampling, reference checks): the same
 * operations at each vector width. */
float weft_expf(float x); /* accurate to about 1 ulp on [-104, 88]; 0 below; exp(-inf) = 0 */
/* out[i] = exp(x[i] - max); returns the sum in a fixed order (16 strided partial sums, then a tree). */
float weft_softmax_sum(const float *x, size_t n, float max, float *out);
double weft_pow(double base, double exponent); /* base > 0 */

#endif
