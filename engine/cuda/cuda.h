/* The CUDA backend's inside. Private to engine/cuda; backend.c has the overview.
 *
 *   gpu.c      what the machine has           stage.c    one GPU: its context, kernels, memory
 *   weight.c   packing and uploading          twin.c     the device's memory behind the host's addresses
 *   pages.c    KV pages on the devices        call.c     operations: arguments of kernels, and launches;
 *                                             mixture.c, latent.c: those of some families
 *   pass.c     a pass: inputs, graph, outputs, the one synchronisation
 *   draw.c     the draws of a pass
 */
#ifndef WEFT_ENGINE_CUDA_CUDA_H
#define WEFT_ENGINE_CUDA_CUDA_H

#include "engine/cuda/gpu.h"
#include "engine/cuda/kernels.h"
#include "engine/cpu/pool.h"

#include <pthread.h>

/* Raise it whenever a change alters the bits of any key or value that a GPU computes: a part of pages' names. */
enum { CUDA_NUMERICS = 1 };

enum {
    CUDA_TWINS = 12,      /* ranges of host memory with a twin */
    CUDA_ROPE_TABLES = 4, /* distinct ones on a stage in a pass */
    CUDA_GRAPHS = 16,     /* recorded passes that are kept */
    CUDA_GRAPH_ROWS = 16, /* passes of more rows are not recorded */
    CUDA_STAGED = 4       /* complete pages on their way to the host at once */
};

typedef enum cuda_kernel {
#define X(name) CUDA_K_##name,
    WEFT_CUDA_KERNELS(X)
#undef X
        CUDA_KERNELS
} cuda_kernel;

/* A GPU and the layers that it computes. The residual stream enters at the first of them and leaves for the next
 * stage's GPU. */
typedef struct cuda_stage {
    cuda_gpu gpu;
    cuda_context context; /* retained; everything below lives in it */
    cuda_module module;
    cuda_function kernel[CUDA_KERNELS];
    cuda_stream stream;
    cuda_event done;     /* its part of a pass, */
    cuda_event fetched;  /* and its parts of pages that follow */
    uint32_t first, end; /* layers; the last stage has the output too */
    size_t room, total;  /* bytes that were free for weights; of its memory */

    cuda_address twin[CUDA_TWINS];
    cuda_address input;   /* rows, kept rows, wanted, draws: what a pass brings along (pass.c) */
    cuda_address scratch; /* holds the following */
    cuda_address quantised, blocks, kept, other, slots, sums, drawn, cos_sin[CUDA_ROPE_TABLES];
    cuda_address mixture; /* holds the following: */
    cuda_address hidden, picked, runs, token_of, pick_of;
    cuda_address indexer, score; /* the latter lies in the former */
} cuda_stage;

/* Host memory that names the device's. */
typedef struct cuda_range {
    uint8_t *host;
    size_t bytes;
} cuda_range;

/* cos and sin that the pass in progress has made on its stage. */
typedef struct cuda_rope_key {
    const double *inv_freq;
    cuda_address row;
    size_t rope_dim;
    float magnitude;
} cuda_rope_key;

/* Passes of one shape make the same calls with the same arguments. */
typedef struct cuda_shape {
    size_t n, n_want, from, n_logits;
    uint32_t spans; /* of attention, at least as many as the longest row has: a power of two */
    bool follow;    /* the rows follow one another on one timeline */
    bool draws;     /* from some of the logits */
} cuda_shape;

typedef struct cuda_recorded {
    cuda_shape shape;
    cuda_exec exec[CUDA_GPUS]; /* of each stage; NULL: nothing to do there */
    uint64_t used;
} cuda_recorded;

struct cuda_slot;
typedef struct cuda_pool {
    struct cuda_slot *slot; /* [n_slot] room for a page, a part of it on each stage */
    size_t n_slot, slab_slots;
    cuda_address (*slab)[CUDA_GPUS]; /* [n_slot / slab_slots] */
    size_t from[CUDA_GPUS], bytes[CUDA_GPUS]; /* each stage's part of a page */
    weft_kv_twin *first; /* all timelines */
} cuda_pool;

typedef struct cuda_backend {
    weft_ops ops;
    const cuda_driver *driver;
    cuda_gpu gpu[CUDA_GPUS]; /* that may be used */
    int n_gpu;
    bool use_all; /* they were asked for one by one */
    weft_buffer image; /* the kernels, until the stages are open */
    cuda_stage stage[CUDA_GPUS];
    int n_stage;
    char name[32];
    pthread_mutex_t mutex; /* passes and pages: timelines of other threads open, fetch and close */

    weft_kv_layout layout;
    size_t page_bytes;
    cpu_pool *threads; /* pack weights */
    void *rows, *staging; /* of a weight, from the file and, pinned, packed; given back by `places` */
    size_t max_rows, max_columns; /* of reserve */
    weft_experts_size experts;    /* 0: no experts */
    weft_latent_size latent;      /* 0: no latent attention */
    void *table_row; /* of the embedding, as the file has it */
    weft_status read_status; /* of the first that could not be read */
    weft_error read_err;
    cuda_range range[CUDA_TWINS];
    int n_range;
    weft_pass_places places;
    size_t slot_bytes, quantised_room;
    cuda_pool pool;
    void *input, *x, *logits, *drawn, *staged; /* pinned: what goes in, input for each stage, and what comes out */
    size_t input_bytes;                        /* of a stage */
    size_t n_staged;                           /* pages */
    struct cuda_staged { weft_kv_twin *twin; int64_t page; } staged_page[CUDA_STAGED];
    cuda_recorded recorded[CUDA_GRAPHS];
    int n_recorded;
    uint64_t clock; /* of passes */

    /* the pass in progress */
    const weft_pass *pass;
    cuda_shape shape;
    cuda_recorded *recording; /* NULL: calls run */
    int at;                   /* stage that calls go to; -1: none yet */
    cuda_rope_key rope[CUDA_ROPE_TABLES];
    int n_rope;
    weft_status status; /* of the first call that failed */
    weft_error err;
} cuda_backend;

static inline cuda_backend *cuda_of(weft_backend *b)
{
    return (cuda_backend *)(void *)b;
}
/* Where a pass is. If it failed before its first layer it is nowhere; the calls that still come do nothing, at the first. */
static inline int cuda_stage_here(const cuda_backend *b)
{
    return b->at < 0 ? 0 : b->at;
}
static inline cuda_stage *cuda_here(cuda_backend *b)
{
    return &b->stage[cuda_stage_here(b)];
}

/* ---- stage.c ---- */

/* Makes a GPU ready for work. */
weft_status cuda_stage_open(cuda_stage *stage, const cuda_driver *driver, const cuda_gpu *gpu,
                            const void *image, weft_error *err);
/* Frees what is there; NULL members are nothing. */
void cuda_stage_close(cuda_stage *stage, const cuda_driver *driver);
/* Calls that follow in this thread concern this GPU. */
weft_status cuda_stage_enter(const cuda_stage *stage, const cuda_driver *driver, weft_error *err);
/* Gives memory back; address 0 is none. */
void cuda_memory_free(const cuda_driver *driver, const cuda_stage *stage, cuda_address address);
/* what: "the weights". WEFT_E_MEMORY says how much was free. */
weft_status cuda_memory_new(const cuda_driver *driver, const cuda_stage *stage, size_t bytes,
                            const char *what, cuda_address *out, weft_error *err);

/* ---- weight.c ---- */

typedef struct cuda_weight {
    cuda_backend *backend;
    int stage;
    cuda_address data;
    weft_cuda_format format;
    size_t columns, rows, matrices, bytes;
} cuda_weight;

static inline const cuda_weight *cuda_weight_of(const weft_weight *w)
{
    return (const cuda_weight *)(const void *)w;
}

/* Opens as many GPUs as the weights need and gives each its layers. */
weft_status cuda_plan(weft_backend *b, const weft_gguf *file, const weft_kv_layout *layout, weft_error *err);
weft_status cuda_weight_new(weft_backend *b, const weft_tensor *t, weft_weight **out, weft_error *err);
void cuda_weight_free(weft_weight *w);
size_t cuda_weight_bytes(const weft_weight *w);

/* ---- twin.c ---- */

weft_status cuda_twin(weft_backend *b, void *host, size_t bytes, weft_twin_kind kind, weft_error *err);
weft_status cuda_places(weft_backend *b, const weft_pass_places *places, weft_error *err);
/* One allocation, cut into parts. */
weft_status cuda_scratch_new(cuda_backend *b, cuda_stage *s, const size_t *parts, cuda_address *const *at,
                             size_t n, cuda_address *out, weft_error *err);
/* Where the range that has this address lies on the stage that calls go to. */
cuda_address cuda_at(const cuda_backend *b, const void *host);
cuda_address cuda_twin_of(const cuda_backend *b, const void *host, int stage);

/* ---- pages.c ---- */

weft_status cuda_pages_new(weft_backend *b, void *const *page, int64_t max_pages, weft_kv_twin **out,
                           weft_error *err);
void cuda_pages_free(weft_kv_twin *twin);
weft_status cuda_page_fetch(weft_kv_twin *twin, int64_t page, weft_error *err);
void cuda_page_forget(weft_kv_twin *twin, int64_t page);
void cuda_pool_init(cuda_backend *b);
void cuda_pool_free(cuda_backend *b);

/* Before a pass: room and contents for every page of its rows. */
weft_status cuda_pages_prepare(cuda_backend *b, const weft_pass *pass, weft_error *err);
/* The device's page table of the row's timeline, on a stage. */
cuda_address cuda_page_table(const cuda_backend *b, const weft_row *row, int stage);
/* Behind the pass: queues copies of the pages that it completed. */
weft_status cuda_pages_write_behind(cuda_backend *b, const weft_pass *pass, weft_error *err);
/* They have arrived: into the files. */
void cuda_pages_arrived(cuda_backend *b);

/* ---- pass.c ---- */

weft_status cuda_pass(weft_backend *b, const weft_pass *pass, void (*issue)(void *), void *context,
                      weft_error *err);
void cuda_layer(weft_backend *b, uint32_t layer, size_t n);
/* Waits for everything that was queued, on all stages. */
weft_status cuda_wait(cuda_backend *b, weft_error *err);
void cuda_forget_recorded(cuda_backend *b);
/* The rows on the device that these name: the pass's or the kept ones. */
const weft_row *cuda_rows(cuda_backend *b, const weft_row *row);
const uint32_t *cuda_wanted(cuda_backend *b);

/* ---- draw.c ---- */

/* Whether the device has something to draw in this pass. */
bool cuda_draws(const cuda_backend *b, const weft_pass *pass);
/* What n draws take of a stage's input. */
size_t cuda_draw_bytes(const cuda_backend *b, size_t n);
/* Those of the pass, as they will stand at `address`, into the input. */
void cuda_draw_write(const cuda_backend *b, const weft_pass *pass, cuda_address address, uint8_t *to);
/* Behind the pass's logits: the kernels, and their ids on the way to the host. */
void cuda_draw_run(cuda_backend *b, cuda_address draws);
/* They have arrived. */
void cuda_draw_arrived(const cuda_backend *b, const weft_pass *pass);

/* ---- call.c ---- */

void cuda_calls(weft_ops *ops);
void cuda_keep(weft_backend *b, float *x, size_t width);
void cuda_split(weft_backend *b, const float *x, size_t n, float *hi, float *lo);

#endif
