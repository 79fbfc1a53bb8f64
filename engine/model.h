/* A loaded model: weights, hyper-parameters, tokenizer, backend and the scratch of a forward pass.
 * Private to engine/.
 *
 * weft_model is filled once by weft_model_open and read afterwards; only `scratch` and `step` change,
 * so a model and its timelines belong to one thread at a time, unless it is shared (share.c).
 */
#ifndef WEFT_ENGINE_MODEL_H
#define WEFT_ENGINE_MODEL_H

#include "engine/arch/arch.h"
#include "engine/gguf.h"
#include "engine/ops.h"
#include "engine/placement.h"
#include "engine/tokenizer.h"

enum { WEFT_LOGIT_ROWS = 16 }; /* most tokens of one weft_model_logits */

/* Weights of one transformer block; NULL where the architecture has none. n_q = n_head * head_dim,
 * n_kv = n_head_kv * head_dim. Matrices are [rows][columns]. */
typedef struct weft_layer {
    const float *attn_norm;                /* [n_embd] */
    weft_weight *q, *k, *v;                /* [n_q][n_embd], [n_kv][n_embd] twice */
    const float *q_bias, *k_bias, *v_bias; /* [n_q], [n_kv], [n_kv] */
    const float *q_norm, *k_norm;          /* [head_dim], per head */
    weft_weight *o;                        /* [n_embd][n_q] */
    const float *post_attn_norm;           /* [n_embd] */
    const float *ffn_norm;                 /* [n_embd] */
    weft_weight *gate, *up, *down;         /* [n_ff][n_embd] twice, [n_embd][n_ff] */
    weft_weight *router;                   /* [n_expert][n_embd]; with it, gate, up and down are
                                              stacks of n_expert and n_ff is n_ff_expert */
    const float *post_ffn_norm;            /* [n_embd] */

    /* Latent attention. q is then [n_head * head_dim][q_lora, or n_embd], o [n_embd][n_head * value_dim]. */
    weft_weight *q_a;                           /* [q_lora][n_embd] */
    const float *q_a_norm;                      /* [q_lora] */
    weft_weight *latent, *k_rope;               /* [latent_dim][n_embd], [rope_dim][n_embd] */
    const float *latent_norm;                   /* [latent_dim] */
    weft_weight *k_b, *v_b;                     /* of each head: [latent_dim][head_dim - rope_dim],
                                                   [value_dim][latent_dim] */
    weft_weight *index_q, *index_k;             /* [index_heads * index_dim][q_lora], [index_dim][n_embd] */
    weft_weight *index_weight;                  /* [index_heads][n_embd] */
    const float *index_k_norm, *index_k_bias;   /* [index_dim] */
    const float *router_bias;                   /* [n_expert], for the choice alone */
    weft_weight *shared_gate, *shared_up, *shared_down; /* [n_ff_shared][n_embd] twice, and back */
} weft_layer;

/* Of a layer that predicts (predict.c), what a layer does not have. */
typedef struct weft_prediction {
    const weft_tensor *embedding;                     /* [n_vocab][n_embd]: the model's, or the layer's own */
    const float *embedding_norm, *hidden_norm, *norm; /* [n_embd] */
    weft_weight *join;                                /* [n_embd][2 * n_embd] */
    weft_weight *own_output;                          /* [n_vocab][n_embd]; NULL: the model's */
    bool output_is_quantised;
} weft_prediction;

/* Activations of one forward pass, each [chunk][...]. */
typedef struct weft_scratch {
    float *memory; /* owns all below */
    size_t bytes;
    float *x, *normed, *branch; /* [n_embd] residual stream, its norm, a block's output */
    float *q, *attended;        /* weft_query_width, weft_attended_width */
    float *k, *v;               /* [n_kv] */
    float *ff;                  /* [n_ff] of dense layers, of shared experts */
    float *latent, *k_rope;     /* [latent_dim], [rope_dim] */
    float *q_lora;              /* [q_lora] */
    float *q_latent, *attended_latent;        /* [n_head][latent_dim] */
    float *index_q, *index_k, *index_weight;  /* [index_heads][index_dim], [index_dim], [index_heads] */
    int32_t *selected, *count;  /* [index_top_k], 1 */
    float *hidden;              /* [n_embd] of a model that predicts: what its output matrix is given */
    float *pair, *predicted;    /* [2 * n_embd], [n_embd]: of the layer that predicts, input and stream */
    int32_t *pair_id;           /* [1] */
    weft_row *pair_row;         /* of the tokens that have a pair */
    float *scores;              /* [n_expert] of the router */
    weft_pick *pick;            /* [n_expert_used] */
    float *last;                /* [2 * WEFT_LOGIT_ROWS][n_embd], before the output matrix */
    weft_row *row;              /* of the tokens still computed */
} weft_scratch;

typedef struct weft_step_state weft_step_state;
typedef struct weft_share weft_share;

struct weft_model {
    weft_gguf *file;
    weft_tokenizer *tokenizer;
    const weft_ops *ops;
    weft_backend *backend;

    weft_hparams h;
    weft_placement placement;
    bool guesses_experts;         /* some are in the file: those of the next layer are guessed, to be read ahead */
    weft_layer *layer;            /* [weft_model_layers] */
    bool predicts;                /* the layer behind the last is used */
    weft_prediction prediction;
    const weft_tensor *embedding; /* [n_vocab][n_embd], its rows are read from the file */
    weft_weight *output;          /* [n_vocab][n_embd] */
    bool output_is_quantised;
    const float *output_norm; /* [n_embd] */
    float *vectors;           /* owns every norm and bias */
    size_t vector_bytes;
    double *inv_freq[2];      /* [rope_dim / 2]: of full layers, of sliding ones */
    bool sparse;              /* the indexer's choice is used */
    void (*on_selection)(void *context, const weft_index *index); /* for tests; or NULL */
    void *on_selection_context;

    weft_kv_layout kv;
    uint8_t kv_identity[WEFT_DIGEST_BYTES]; /* of the file, in the names of its pages */
    char *prefix_dir;                       /* of pages that its timelines share, or NULL */
    int64_t context;
    int chunk; /* most tokens of one forward pass */
    weft_scratch scratch;
    weft_step_state *step; /* step.c */
    weft_share *share;     /* share.c; NULL: one thread has the model and its timelines */

    weft_model_info info;
    char *text[4]; /* owned strings of info: path, name, architecture, chat template */
    char *notice, *memory_notice, *unused_notice;
};

/* Layers that are loaded and have keys and values in a page. */
static inline uint32_t weft_model_layers(const weft_model *m)
{
    return m->h.n_layer + m->predicts;
}

/* latent.c: attention's half of a layer, in two steps. Keys of all tokens, from the residual stream x, whose norm
 * stays in scratch for the queries; then queries, attention and the residual add, for the tokens still computed. */
void weft_latent_keys(weft_model *model, uint32_t layer, const float *x, const weft_row *row, size_t n);
void weft_latent_attend(weft_model *model, uint32_t layer, const weft_row *row, size_t n);

/* transformer.c: the other half, on the residual stream in scratch. */
void weft_feed_forward(weft_model *model, const weft_layer *layer, size_t n);
/* Logits [n][n_vocab] of streams x [n][n_embd], n <= WEFT_LOGIT_ROWS; out has room for twice as many rows. */
void weft_output(weft_model *model, const float *x, const float *norm, const weft_weight *weight, bool quantised,
                 size_t n, float *out);

/* predict.c: at the end of a pass, with the residual stream of all its tokens in scratch. Keeps their hidden
 * states as the pass asks, and writes the predicting layer's keys of those whose predecessor's is known. */
void weft_predict_keys(weft_model *model, const weft_pass *pass);

/* A token whose keys and values are not written yet, and what is known of the one before it. */
typedef struct weft_predict_item {
    int32_t id;
    weft_row row;
    const float *before; /* [n_embd] hidden state of the token before */
    float *hidden;       /* [n_embd] out: this token's, as the predicting layer makes it */
    int32_t predicted; /* out: the likeliest id behind this token */
} weft_predict_item;
/* What comes behind each of n tokens, n <= WEFT_LOGIT_ROWS, of different timelines. Pages must be begun; what is
 * written there the pass that evaluates the token writes again. Only of a model that predicts. */
weft_status weft_model_predict(weft_model *model, weft_predict_item *item, size_t n, weft_error *err);

/* For the dialects. */
const weft_tokenizer *weft_model_tokenizer(const weft_model *model);

/* Evaluates the tokens of a pass, at most model->chunk, whose pages must be begun; several timelines may share
 * it. Then the logits that it asks for, at most WEFT_LOGIT_ROWS of its wanted tokens, or with n == 0 of those of
 * the pass before. A device can fail, and so can a file that weights are read from. */
weft_status weft_model_pass(weft_model *model, const weft_pass *pass, weft_error *err);

#endif
