/* KV pages on the devices.
 *
 * A page on a device has the bytes that it has in its file (ops.h), each stage the part of its layers. A
 * timeline (weft_kv_twin) has, on each stage, a table of addresses that kernels read instead of the host's.
 *
 *     host:    page p of the file          (older while `dirty`)
 *     slots:   [part of stage 0] [part of stage 1] ...      room for one page, in slabs
 *     tables:  stage s: table[p] = address of its part, less where that part begins in a page
 *
 * Slots are made as pages come, a slab at a time; when a GPU has no memory left, the page of the timeline
 * that was evaluated longest ago goes, after its bytes went to the host. Complete pages are written behind: the
 * pass that completes one copies it out, so sealing it finds the bytes there. A page that is not complete is
 * fetched when it is asked for, as a run closes or forks.
 */
#include "engine/cuda/cuda.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { SLAB_BYTES = 32 << 20, SLAB_SHARE = 64, NO_SLOT = 0 }; /* at most so much, at most such a part of a GPU */

typedef struct cuda_slot {
    weft_kv_twin *owner; /* NULL: free */
    int64_t page;
} cuda_slot;

struct weft_kv_twin {
    cuda_backend *backend;
    void *const *page; /* the host's */
    int64_t max_pages;
    uint32_t *slot;          /* [max_pages] 1 + index, NO_SLOT: not on the device */
    _Atomic uint8_t *dirty;  /* [max_pages] the device's bytes are newer; read without the lock */
    int64_t resident;        /* pages [0, resident) have slots */
    uint64_t used;           /* the last pass that it took part in */
    cuda_address table[CUDA_GPUS];
    weft_kv_twin *next;
};

/* ---- slots ---- */

void cuda_pool_init(cuda_backend *b)
{
    cuda_pool *pool = &b->pool;
    size_t slab = SLAB_BYTES;
    for (int i = 0; i < b->n_stage; i++) {
        const cuda_stage *s = &b->stage[i];
        if (s->total / SLAB_SHARE < slab) slab = s->total / SLAB_SHARE;
        pool->from[i] = weft_kv_offset(&b->layout, s->first, 0);
        const size_t end = s->end == b->layout.n_layer ? b->page_bytes : weft_kv_offset(&b->layout, s->end, 0);
        pool->bytes[i] = end - pool->from[i];
    }
    pool->slab_slots = b->page_bytes < slab ? slab / b->page_bytes : 1;
}

static void free_slab(cuda_backend *b, const cuda_address part[CUDA_GPUS])
{
    for (int i = 0; i < b->n_stage; i++) cuda_memory_free(b->driver, &b->stage[i], part[i]);
}

void cuda_pool_free(cuda_backend *b)
{
    cuda_pool *pool = &b->pool;
    for (size_t i = 0; i < pool->n_slot; i += pool->slab_slots) free_slab(b, pool->slab[i / pool->slab_slots]);
    free(pool->slot);
    free(pool->slab);
    *pool = (cuda_pool){0};
}

static weft_status grow(cuda_backend *b, weft_error *err)
{
    cuda_pool *pool = &b->pool;
    const size_t n = pool->n_slot + pool->slab_slots;
    cuda_slot *slot = realloc(pool->slot, n * sizeof *slot);
    if (slot) pool->slot = slot;
    cuda_address(*slab)[CUDA_GPUS] = realloc(pool->slab, n / pool->slab_slots * sizeof *slab);
    if (slab) pool->slab = slab;
    if (!slot || !slab) return weft_fail(err, WEFT_E_MEMORY, "KV pages: out of memory");
    cuda_address part[CUDA_GPUS] = {0};
    weft_status e = WEFT_OK;
    for (int i = 0; i < b->n_stage && !e; i++) {
        e = cuda_stage_enter(&b->stage[i], b->driver, err);
        if (!e && pool->bytes[i])
            e = cuda_memory_new(b->driver, &b->stage[i], pool->bytes[i] * pool->slab_slots, "KV pages",
                                &part[i], err);
    }
    if (e) {
        free_slab(b, part);
        return e;
    }
    memcpy(slab[n / pool->slab_slots - 1], part, sizeof part);
    memset(slot + pool->n_slot, 0, pool->slab_slots * sizeof *slot);
    pool->n_slot = n;
    return WEFT_OK;
}

static cuda_address part_of(const cuda_backend *b, size_t slot, int stage)
{
    const cuda_pool *pool = &b->pool;
    return pool->slab[slot / pool->slab_slots][stage] + slot % pool->slab_slots * pool->bytes[stage];
}

/* Queues the copy of a page on each stage, to n_th place of `staged`. */
static weft_status copy_out(cuda_backend *b, size_t slot, size_t place, weft_error *err)
{
    const cuda_pool *pool = &b->pool;
    uint8_t *to = (uint8_t *)b->staged + place * b->page_bytes;
    weft_status e = WEFT_OK;
    for (int i = 0; i < b->n_stage && !e; i++) {
        if (pool->bytes[i] == 0) continue;
        e = cuda_stage_enter(&b->stage[i], b->driver, err);
        if (!e) e = cuda_check(b->driver,
                               b->driver->copy_out(to + pool->from[i], part_of(b, slot, i), pool->bytes[i],
                                                   b->stage[i].stream),
                               err, "copying a KV page");
    }
    return e;
}

void cuda_pages_arrived(cuda_backend *b)
{
    for (size_t i = 0; i < b->n_staged; i++) {
        const struct cuda_staged *s = &b->staged_page[i];
        memcpy(s->twin->page[s->page], (uint8_t *)b->staged + i * b->page_bytes, b->page_bytes);
        atomic_store_explicit(&s->twin->dirty[s->page], 0, memory_order_release);
    }
    b->n_staged = 0;
}

static weft_status stage_page(cuda_backend *b, weft_kv_twin *t, int64_t p, weft_error *err)
{
    weft_status e = WEFT_OK;
    if (b->n_staged == CUDA_STAGED) {
        e = cuda_wait(b, err);
        if (!e) cuda_pages_arrived(b);
    }
    if (!e) e = copy_out(b, t->slot[p] - 1, b->n_staged, err);
    if (!e) b->staged_page[b->n_staged++] = (struct cuda_staged){t, p};
    return e;
}

static weft_status fetch(cuda_backend *b, weft_kv_twin *t, int64_t p, weft_error *err)
{
    weft_status e = stage_page(b, t, p, err);
    if (!e) e = cuda_wait(b, err);
    if (!e) cuda_pages_arrived(b);
    b->n_staged = 0;
    return e;
}

static void drop(weft_kv_twin *t, int64_t p)
{
    if (t->slot[p] != NO_SLOT) t->backend->pool.slot[t->slot[p] - 1].owner = NULL;
    t->slot[p] = NO_SLOT;
    if (p < t->resident) t->resident = p;
}

/* The slot of the page that is needed least: of the timeline evaluated longest ago, and not in this pass. */
static weft_status evict(cuda_backend *b, weft_error *err)
{
    cuda_slot *oldest = NULL;
    for (size_t i = 0; i < b->pool.n_slot; i++) {
        cuda_slot *s = &b->pool.slot[i];
        if (s->owner->used != b->clock && (!oldest || s->owner->used < oldest->owner->used)) oldest = s;
    }
    if (!oldest) return WEFT_E_MEMORY; /* *err says what did not fit */
    weft_kv_twin *t = oldest->owner;
    weft_status e = t->dirty[oldest->page] ? fetch(b, t, oldest->page, err) : WEFT_OK;
    if (!e) drop(t, oldest->page);
    return e;
}

static weft_status take_slot(cuda_backend *b, weft_kv_twin *t, int64_t p, weft_error *err)
{
    cuda_pool *pool = &b->pool;
    for (int tries = 0; tries < 2; tries++) {
        for (size_t i = 0; i < pool->n_slot; i++) {
            if (pool->slot[i].owner) continue;
            pool->slot[i] = (cuda_slot){t, p};
            t->slot[p] = (uint32_t)i + 1;
            return WEFT_OK;
        }
        weft_status e = grow(b, err);
        if (e == WEFT_E_MEMORY) e = evict(b, err);
        if (e) return e;
    }
    return WEFT_E_MEMORY;
}

/* ---- timelines ---- */

weft_status cuda_pages_new(weft_backend *wb, void *const *page, int64_t max_pages, weft_kv_twin **out,
                           weft_error *err)
{
    cuda_backend *b = cuda_of(wb);
    weft_kv_twin *t = calloc(1, sizeof *t);
    if (!t) return weft_fail(err, WEFT_E_MEMORY, "KV pages: out of memory");
    *t = (weft_kv_twin){.backend = b, .page = page, .max_pages = max_pages};
    t->slot = calloc((size_t)max_pages, sizeof *t->slot);
    t->dirty = calloc((size_t)max_pages, sizeof *t->dirty);
    weft_status e = t->slot && t->dirty ? WEFT_OK : weft_fail(err, WEFT_E_MEMORY, "KV pages: out of memory");
    pthread_mutex_lock(&b->mutex);
    for (int i = 0; i < b->n_stage && !e; i++) {
        e = cuda_stage_enter(&b->stage[i], b->driver, err);
        if (!e) e = cuda_memory_new(b->driver, &b->stage[i], (size_t)max_pages * sizeof(cuda_address),
                                    "a table of KV pages", &t->table[i], err);
    }
    t->next = b->pool.first;
    b->pool.first = t;
    pthread_mutex_unlock(&b->mutex);
    if (e)
        cuda_pages_free(t);
    else
        *out = t;
    return e;
}

void cuda_pages_free(weft_kv_twin *t)
{
    cuda_backend *b = t->backend;
    pthread_mutex_lock(&b->mutex);
    for (weft_kv_twin **at = &b->pool.first; *at; at = &(*at)->next)
        if (*at == t) {
            *at = t->next;
            break;
        }
    for (int64_t p = 0; t->slot && p < t->max_pages; p++) drop(t, p);
    for (int i = 0; i < b->n_stage; i++) cuda_memory_free(b->driver, &b->stage[i], t->table[i]);
    pthread_mutex_unlock(&b->mutex);
    free(t->slot);
    free(t->dirty);
    free(t);
}

/* Without the lock unless there is something to do: who seals need not wait for the pass of others. A page's
 * bytes become newer in passes of its own timeline alone, and its owner waits for those. */
weft_status cuda_page_fetch(weft_kv_twin *t, int64_t page, weft_error *err)
{
    if (!atomic_load_explicit(&t->dirty[page], memory_order_acquire)) return WEFT_OK;
    cuda_backend *b = t->backend;
    pthread_mutex_lock(&b->mutex);
    weft_status e = t->dirty[page] ? fetch(b, t, page, err) : WEFT_OK;
    pthread_mutex_unlock(&b->mutex);
    return e;
}

void cuda_page_forget(weft_kv_twin *t, int64_t page)
{
    pthread_mutex_lock(&t->backend->mutex);
    drop(t, page);
    t->dirty[page] = 0;
    pthread_mutex_unlock(&t->backend->mutex);
}

/* ---- passes ---- */

static weft_kv_twin *find(const cuda_backend *b, const weft_row *row)
{
    weft_kv_twin *t = b->pool.first;
    while (t && t->page != row->page) t = t->next;
    return t;
}

cuda_address cuda_page_table(const cuda_backend *b, const weft_row *row, int stage)
{
    return find(b, row)->table[stage];
}

/* A page that the pass begins holds zeros, so that nothing in it depends on what was there before; others come
 * from the host. */
static weft_status fill(cuda_backend *b, weft_kv_twin *t, int64_t p, bool begins, weft_error *err)
{
    const cuda_driver *d = b->driver;
    const cuda_pool *pool = &b->pool;
    weft_status e = WEFT_OK;
    for (int i = 0; i < b->n_stage && !e; i++) {
        const cuda_stage *s = &b->stage[i];
        const cuda_address part = part_of(b, t->slot[p] - 1, i), entry = part - pool->from[i];
        const uint8_t *bytes = (const uint8_t *)t->page[p] + pool->from[i];
        if (pool->bytes[i] == 0) continue;
        e = cuda_stage_enter(s, d, err);
        if (!e) e = cuda_check(d, begins ? d->memory_set(part, 0, pool->bytes[i], s->stream)
                                         : d->copy_in(part, bytes, pool->bytes[i], s->stream),
                               err, "filling a KV page");
        if (!e) e = cuda_check(d, d->copy_in(t->table[i] + (cuda_address)p * sizeof entry, &entry, sizeof entry,
                                             s->stream),
                               err, "noting a KV page");
    }
    return e;
}

static weft_status prepare_row(cuda_backend *b, weft_kv_twin *t, int64_t position, weft_error *err)
{
    const int64_t last = position / WEFT_PAGE;
    weft_status e = WEFT_OK;
    while (t->resident <= last && !e) {
        const int64_t p = t->resident;
        if (t->slot[p] == NO_SLOT) {
            e = take_slot(b, t, p, err);
            if (!e) e = fill(b, t, p, p == last && position % WEFT_PAGE == 0, err);
            if (e) drop(t, p);
        }
        if (!e) t->resident++;
    }
    return e;
}

weft_status cuda_pages_prepare(cuda_backend *b, const weft_pass *pass, weft_error *err)
{
    weft_status e = WEFT_OK;
    b->clock++;
    for (size_t i = 0; i < pass->n; i++) find(b, &pass->row[i])->used = b->clock;
    for (size_t i = 0; i < pass->n && !e; i++)
        e = prepare_row(b, find(b, &pass->row[i]), pass->row[i].position, err);
    for (size_t i = 0; i < pass->n && !e; i++)
        find(b, &pass->row[i])->dirty[pass->row[i].position / WEFT_PAGE] = 1;
    return e;
}

weft_status cuda_pages_write_behind(cuda_backend *b, const weft_pass *pass, weft_error *err)
{
    weft_status e = WEFT_OK;
    for (size_t i = 0; i < pass->n && !e; i++)
        if (pass->row[i].position % WEFT_PAGE == WEFT_PAGE - 1)
            e = stage_page(b, find(b, &pass->row[i]), pass->row[i].position / WEFT_PAGE, err);
    return e;
}
