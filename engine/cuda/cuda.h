/* The CUDA backend's inside. Private to engine/cuda; backend.c has the overview.
 *
 *   gpu.c      what the machine has           stage.c    one GPU: its context, kernels, memory
 *   weight.c   packing and uploading          twin.c     the device's memory behind the host's addresses
 *   pages.c    KV pages on the devices        call.c     operations: arguments of kernels, and launches
 *   pass.c     a pass: inputs, graph, outputs, the one synchronisation
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
    CUDA_ROPE_TABLES = 4, /* distinct ones in a pass */
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
    cuda_event done; /* its part of a pass */
    uint32_t first, end; /* layers; the last stage has the output too */
    size_t weight_bytes;

    cuda_address twin[CUDA_TWINS];
    cuda_address input; /* what a pass brings along (pass.c) */
    cuda_address scratch;
    /* in scratch */
    cuda_address quantised, blocks, kept, other, slots, cos_sin[CUDA_ROPE_TABLES];
} cuda_stage;

/* Host memory and its twins. */
typedef struct cuda_range {
    uint8_t *host;
    size_t bytes;
    weft_twin_kind kind;
} cuda_range;

/* cos and sin that this pass has on a stage already. */
typedef struct cuda_rope_key {
    const double *inv_freq;
    cuda_address row;
    uint32_t rope_dim;
    float magnitude;
    int stage;
} cuda_rope_key;

/* What a recorded pass may differ in. */
typedef struct cuda_shape {
    size_t n, n_want, from, n_logits;
    uint32_t spans; /* most spans of attention, rounded up to a power of two */
} cuda_shape;

typedef struct cuda_recorded {
    cuda_shape shape;
    cuda_exec exec[CUDA_GPUS]; /* of each stage; NULL: nothing to do there */
    uint64_t used;
} cuda_recorded;

typedef struct cuda_pool cuda_pool; /* pages.c */

typedef struct cuda_backend {
    weft_ops ops;
    const cuda_driver *driver;
    cuda_gpu gpu[CUDA_GPUS]; /* chosen, not all in use */
    int n_gpu;
    cuda_stage stage[CUDA_GPUS];
    int n_stage;
    char name[CUDA_NAME_BYTES + 32];
    pthread_mutex_t mutex; /* of passes and pages: timelines of other threads open, fetch and close */

    uint32_t n_layer;
    weft_kv_layout layout;
    cuda_pool *pool;
    cpu_pool *threads; /* pack weights */
    uint8_t *staging;  /* pinned, for weights; freed by places */
    size_t staging_bytes;

    cuda_range range[CUDA_TWINS];
    int n_range;
    weft_pass_places places;
    size_t max_rows, max_columns; /* of reserve */

    /* the pass in progress */
    const weft_pass *pass;
    cuda_shape shape;
    int at;        /* stage that calls go to */
    bool recording;
    weft_status status; /* of the first call that failed */
    weft_error err;
    cuda_rope_key rope[CUDA_ROPE_TABLES];
    int n_rope;
    size_t slot_bytes;
    uint8_t *input; /* pinned: rows, kept rows, wanted */
    float *x, *logits; /* pinned: what goes in and comes out */
    uint8_t *staged; /* pinned: [CUDA_STAGED] pages */
    cuda_recorded recorded[CUDA_GRAPHS];
    int n_recorded;
    uint64_t clock;
} cuda_backend;

static inline cuda_backend *cuda_of(weft_backend *b)
{
    return (cuda_backend *)(void *)b;
}

/* ---- stage.c ---- */

/* Makes a GPU ready for work. */
weft_status cuda_stage_open(cuda_stage *stage, const cuda_driver *driver, const cuda_gpu *gpu,
                            const void *image, weft_error *err);
/* Frees what is there; NULL members are nothing. */
void cuda_stage_close(cuda_stage *stage, const cuda_driver *driver);
/* Calls that follow in this thread concern this GPU. */
weft_status cuda_stage_enter(const cuda_stage *stage, const cuda_driver *driver, weft_error *err);
/* what: "the weights". WEFT_E_MEMORY says how much was free. */
weft_status cuda_memory_new(const cuda_driver *driver, const cuda_stage *stage, size_t bytes,
                            const char *what, cuda_address *out, weft_error *err);

#endif
