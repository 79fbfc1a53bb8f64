/* The CPU backend: life cycle, scratch, and the operations too small for a file of their own.
 *
 * Scratch is one anonymous mapping, laid out once by reserve; its parts are upper bounds and mostly never
 * touched, so they cost address space and no memory.
 */
#include "engine/cpu/cache.h"
#include "engine/cpu/dequant.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/mman.h>

/* Slots of attention: twice the streams it splits into spans (CPU_ATTENTION_ITEMS a thread) is the least. */
enum { SERIAL_FLOATS = 32768, SLOTS = 64, SLOTS_PER_THREAD = 16, ALIGN = 64 };
_Static_assert((int)SLOTS_PER_THREAD >= 2 * (int)CPU_ATTENTION_ITEMS, "a wave holds a span");

/* ---- scratch ---- */

size_t cpu_room(cpu_layout *l, size_t n1, size_t n2, size_t n3, size_t size)
{
    size_t at = l->bytes, bytes;
    if (weft_size_mul(n1, n2, &bytes) || weft_size_mul(bytes, n3, &bytes) ||
        weft_size_mul(bytes, size, &bytes) || weft_size_add(bytes, ALIGN - 1, &bytes) ||
        weft_size_add(l->bytes, bytes / ALIGN * ALIGN, &l->bytes))
        l->overflow = true;
    return at;
}

static void drop_scratch(weft_backend *b)
{
    if (b->scratch) munmap(b->scratch, b->scratch_bytes);
    b->scratch = NULL;
    b->scratch_bytes = b->max_tokens = b->max_columns = 0;
    for (int i = 0; i < CPU_ROPE_TABLES; i++) b->rope[i] = (cpu_rope_table){0};
}

static weft_status reserve(weft_backend *b, size_t n, size_t columns, weft_error *err)
{
    if (n <= b->max_tokens && columns <= b->max_columns) return WEFT_OK;
    n = cpu_max(n, b->max_tokens);
    columns = cpu_max(columns, b->max_columns);
    if (n > UINT32_MAX || columns > UINT32_MAX)
        return weft_fail(err, WEFT_E_MEMORY, "scratch for %zu tokens of %zu columns: too large", n,
                         columns);
    const size_t panels = cpu_divide_up(n, CPU_WIDTH) * CPU_WIDTH;
    const size_t slots = SLOTS + SLOTS_PER_THREAD * (size_t)b->threads;
    const size_t thread_floats = (3 * columns + CPU_SPAN) * CPU_QUERIES + ALIGN;
    cpu_layout l = {0, false};
    size_t quantised = cpu_room(&l, panels, cpu_divide_up(columns, CPU_BLOCK), CPU_TOKEN_BYTES, 1);
    size_t wide = cpu_room(&l, cpu_divide_up(n, CPU_WIDE), cpu_divide_up(columns, CPU_BLOCK),
                           CPU_WIDE_BYTES, 1);
    size_t floats = cpu_room(&l, panels, columns, 1, sizeof(float));
    size_t embedded = cpu_room(&l, columns, 1, 1, sizeof(float)); /* no type is wider */
    size_t thread = cpu_room(&l, (size_t)b->threads, thread_floats, 1, sizeof(float));
    size_t slot = cpu_room(&l, slots, CPU_QUERIES, columns, sizeof(float));
    size_t state = cpu_room(&l, slots, CPU_QUERIES, 1, sizeof(cpu_state));
    size_t inv_freq[CPU_ROPE_TABLES], position[CPU_ROPE_TABLES], cos_sin[CPU_ROPE_TABLES];
    for (int i = 0; i < CPU_ROPE_TABLES; i++) {
        inv_freq[i] = cpu_room(&l, columns, 1, 1, sizeof(double));
        position[i] = cpu_room(&l, n, 1, 1, sizeof(int64_t));
        cos_sin[i] = cpu_room(&l, n, columns, 1, sizeof(float));
    }
    if (l.overflow)
        return weft_fail(err, WEFT_E_MEMORY, "scratch for %zu tokens of %zu columns: too large", n,
                         columns);
    void *map = mmap(NULL, l.bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED)
        return weft_fail_errno(err, WEFT_E_MEMORY, "scratch of %zu MiB", l.bytes >> 20);
    drop_scratch(b);
    uint8_t *base = map;
    b->scratch = map;
    b->scratch_bytes = l.bytes;
    b->max_tokens = n;
    b->max_columns = columns;
    b->quantised = base + quantised;
    b->quantised_wide = base + wide;
    b->floats = (float *)(void *)(base + floats);
    b->embedded = base + embedded;
    b->attention_thread = (float *)(void *)(base + thread);
    b->attention_thread_floats = thread_floats;
    b->attention_slot = (float *)(void *)(base + slot);
    b->attention_state = (cpu_state *)(void *)(base + state);
    b->attention_slots = slots;
    for (int i = 0; i < CPU_ROPE_TABLES; i++) {
        b->rope[i].inv_freq = (double *)(void *)(base + inv_freq[i]);
        b->rope[i].position = (int64_t *)(void *)(base + position[i]);
        b->rope[i].cos_sin = (float *)(void *)(base + cos_sin[i]);
    }
    return WEFT_OK;
}

/* ---- small operations ---- */

static void embed(weft_backend *b, const weft_tensor *table, const int32_t *ids, size_t n,
                  float scale, float *out)
{
    const size_t columns = table->dim[0], bytes = cpu_row_bytes(table->type, columns);
    assert(!table->file || columns <= b->max_columns);
    for (size_t t = 0; t < n; t++) {
        float *row = out + t * columns;
        cpu_dequantise(table->type, cpu_read(b, table, (size_t)ids[t] * bytes, bytes, b->embedded),
                       columns, row);
        for (size_t i = 0; i < columns; i++) row[i] *= scale;
    }
}

typedef struct norm_job {
    const cpu_kernels *k;
    const float *x, *w;
    float eps;
    size_t rows, dim, per_item;
    float *y;
} norm_job;

static void norm_item(void *context, uint32_t item, int thread)
{
    const norm_job *job = context;
    size_t from = item * job->per_item, to = cpu_min(job->rows, from + job->per_item);
    for (size_t r = from; r < to; r++)
        job->k->rms_norm(job->x + r * job->dim, job->w, job->eps, job->dim, job->y + r * job->dim);
}

static void rms_norm(weft_backend *b, const float *x, const float *w, float eps, size_t rows,
                     size_t dim, float *y)
{
    norm_job job = {b->k, x, w, eps, rows, dim, rows, y};
    if (rows * dim < SERIAL_FLOATS) {
        norm_item(&job, 0, 0);
        return;
    }
    job.per_item = cpu_divide_up(rows, (size_t)b->threads * 4);
    cpu_pool_run(b->pool, norm_item, &job, (uint32_t)cpu_divide_up(rows, job.per_item));
}

/* Rows of an indexer: one key a token, or its queries. */
static void layer_norm(weft_backend *b, const float *x, const float *w, const float *bias, float eps,
                       size_t rows, size_t dim, float *y)
{
    for (size_t r = 0; r < rows; r++) b->k->layer_norm(x + r * dim, w, bias, eps, dim, y + r * dim);
}

typedef struct hadamard_job {
    const cpu_kernels *k;
    float *x;
    size_t rows, dim, per_item;
} hadamard_job;

static void hadamard_item(void *context, uint32_t item, int thread)
{
    const hadamard_job *job = context;
    const size_t from = item * job->per_item, to = cpu_min(job->rows, from + job->per_item);
    for (size_t r = from; r < to; r++) job->k->hadamard(job->x + r * job->dim, job->dim);
}

static void hadamard(weft_backend *b, float *x, size_t rows, size_t dim)
{
    hadamard_job job = {b->k, x, rows, dim, rows};
    if (rows * dim < SERIAL_FLOATS) {
        hadamard_item(&job, 0, 0);
        return;
    }
    job.per_item = SERIAL_FLOATS / dim;
    cpu_pool_run(b->pool, hadamard_item, &job, (uint32_t)cpu_divide_up(rows, job.per_item));
}

typedef struct add_job {
    const cpu_kernels *k;
    float *x;
    const float *y;
    size_t n;
} add_job;

static void add_item(void *context, uint32_t item, int thread)
{
    const add_job *job = context;
    size_t from = item * (size_t)SERIAL_FLOATS;
    job->k->add(job->x + from, job->y + from, cpu_min(SERIAL_FLOATS, job->n - from));
}

static void add(weft_backend *b, float *x, const float *y, size_t n)
{
    add_job job = {b->k, x, y, n};
    cpu_pool_run(b->pool, add_item, &job, (uint32_t)cpu_divide_up(n, SERIAL_FLOATS));
}

static size_t weight_bytes(const weft_weight *w)
{
    if (w->cache) return w->cache->bytes;
    return w->data ? w->matrices * w->tiles * w->tile_bytes : 0;
}

static void experts_counts(const weft_backend *b, weft_expert_counts *out)
{
    *out = b->counts;
}

static size_t scratch_bytes(const weft_backend *b)
{
    return b->scratch_bytes + b->experts.bytes + b->latent.bytes;
}

/* ---- life cycle ---- */

static const char *name_of(const cpu_kernels *k, const cpu_wide *wide)
{
    return wide ? wide->name : k->name;
}

const char *weft_cpu_backend_best(void)
{
    bool known;
    const cpu_wide *wide = NULL;
    const cpu_kernels *k = cpu_kernels_find(NULL, &known, &wide);
    return name_of(k, wide); /* scalar runs everywhere */
}

weft_status weft_cpu_backend_new(weft_backend **out, const weft_ops **out_ops, const char *isa,
                                 int threads, weft_error *err)
{
    bool known;
    const cpu_wide *wide = NULL;
    const cpu_kernels *k = cpu_kernels_find(isa, &known, &wide);
    if (!known)
        return weft_fail(err, WEFT_E_USAGE,
                         "instruction set %s: unknown; choose scalar, avx2, avx512 or amx", isa);
    if (!k)
        return weft_fail(err, WEFT_E_MODEL, "instruction set %s: this CPU does not have it", isa);
    weft_backend *b = calloc(1, sizeof *b);
    if (!b) return weft_fail(err, WEFT_E_MEMORY, "CPU backend: out of memory");
    weft_status s = cpu_pool_new(&b->pool, threads, err);
    if (s) {
        free(b);
        return s;
    }
    b->k = k;
    b->wide = wide;
    b->read_ahead = cpu_read_ahead();
    b->threads = cpu_pool_threads(b->pool);
    b->ops = (weft_ops){.name = name_of(k, wide),
                        .weight_new = cpu_weight_new,
                        .weight_map = cpu_weight_map,
                        .weight_free = cpu_weight_free,
                        .weight_bytes = weight_bytes,
                        .failure = cpu_failure,
                        .reserve = reserve,
                        .embed = embed,
                        .matmul = cpu_matmul,
                        .gated = cpu_gated,
                        .rms_norm = rms_norm,
                        .rope = cpu_rope,
                        .kv_write = cpu_kv_write,
                        .attention = cpu_attention,
                        .add = add,
                        .reserve_experts = cpu_experts_reserve,
                        .route = cpu_route,
                        .experts = cpu_experts_run,
                        .experts_pool = cpu_experts_pool,
                        .experts_soon = cpu_experts_soon,
                        .experts_counts = experts_counts,
                        .scratch_bytes = scratch_bytes,
                        .reserve_latent = cpu_latent_reserve,
                        .matmul_heads = cpu_matmul_heads,
                        .layer_norm = layer_norm,
                        .hadamard = hadamard,
                        .latent_write = cpu_latent_write,
                        .index_select = cpu_index_select,
                        .latent_attention = cpu_latent_attention};
    *out = b;
    *out_ops = &b->ops;
    return WEFT_OK;
}

void weft_cpu_backend_free(weft_backend *b)
{
    if (!b) return;
    cpu_pool_free(b->pool);
    drop_scratch(b);
    cpu_experts_drop(b);
    cpu_latent_drop(b);
    cpu_weight_drop_room(b);
    cpu_arena_free(&b->arena);
    free(b);
}

int weft_cpu_backend_threads(const weft_backend *b)
{
    return b->threads;
}
