/* The cache of experts: its memory, and how it is filled.
 *
 * An expert is read in runs of some 256 KiB of rows, spread over the threads with those of the others that the
 * call misses: a thread reads a run into its room and packs it from there into the slot, while the rows are in
 * its second-level cache. Who computes has no work before the experts are there, so the threads that compute are
 * the ones that read. What lets the disk work while they compute is the kernel: it is told of every expert as
 * soon as its read is certain, or likely (cpu_experts_soon), and reads it into the page cache, where the read
 * proper finds it. A guess that was wrong has cost the disk's time, and no slot.
 *
 * Floor: the bytes of the experts that are missed, over the disk's speed or, out of the page cache, over that of
 * copying and packing.
 */
#include "engine/cpu/cache.h"

#include "engine/cpu/product.h"

#include <stdlib.h>

static size_t matrix_bytes(const weft_weight *w)
{
    return w->tiles * w->tile_bytes;
}

static weft_status new_slots(cpu_cache *c, size_t n_slot, weft_error *err)
{
    size_t expert = 0;
    for (int k = 0; k < CPU_PARTS; k++) expert += matrix_bytes(&c->stack[k]);
    const bool fits = !weft_size_mul(expert, n_slot, &c->bytes);
    if (fits && !WEFT_FAULT_POINT("engine.slots"))
        c->memory = cpu_arena_take(&c->backend->arena, c->bytes);
    if (!c->memory.at)
        return weft_fail(err, WEFT_E_MEMORY,
                         "tensor %s: %zu slots of %zu KiB for experts: out of memory; allow less "
                         "(--memory)",
                         c->stack[0].from.name, n_slot, expert >> 10);
    const uint8_t *at = c->memory.at;
    for (int k = 0; k < CPU_PARTS; k++) {
        c->slots[k] = c->stack[k];
        c->slots[k].data = at;
        c->slots[k].matrices = n_slot;
        at += n_slot * matrix_bytes(&c->stack[k]);
    }
    return WEFT_OK;
}

weft_status cpu_cache_new(weft_backend *b, const weft_weight *const stack[CPU_PARTS], size_t n_slot,
                          cpu_cache **out, weft_error *err)
{
    const size_t n_expert = stack[0]->matrices;
    size_t rows = 0;
    cpu_cache *c = calloc(1, sizeof *c);
    void *arrays = malloc(cpu_residents_bytes(n_expert, n_slot));
    weft_status s = WEFT_OK;
    if (c) {
        *c = (cpu_cache){.backend = b};
        c->guessed = calloc(n_expert, sizeof *c->guessed);
        c->wanted = malloc(n_slot * sizeof *c->wanted);
    }
    if (!c || !arrays || !c->guessed || !c->wanted) {
        s = weft_fail(err, WEFT_E_MEMORY, "cache of experts: out of memory");
        free(arrays);
        goto done;
    }
    cpu_residents_init(&c->residents, n_expert, n_slot, CPU_HALF_LIFE, arrays);
    for (int k = 0; k < CPU_PARTS; k++) {
        const weft_weight *w = stack[k];
        c->stack[k] = *w;
        c->expert_bytes += w->rows * w->row_bytes;
        c->run[k] = cpu_weight_run(w);
        c->runs[k] = cpu_divide_up(w->tiles, c->run[k]);
        rows = cpu_max(rows, c->run[k] * CPU_ROWS * w->row_bytes);
    }
    s = cpu_room_grow(b, 0, rows, err);
    if (!s) s = new_slots(c, n_slot, err);
    if (s) goto done;
    *out = c;
    c = NULL;
done:
    cpu_cache_free(c);
    return s;
}

void cpu_cache_free(cpu_cache *c)
{
    if (!c) return;
    cpu_arena_give(&c->backend->arena, c->memory);
    free(c->residents.worth);
    free(c->guessed);
    free(c->wanted);
    free(c);
}

void cpu_cache_ahead(const cpu_cache *c, size_t expert)
{
    if (c->residents.slot_of[expert] != CPU_NO_SLOT) return;
    for (int k = 0; k < CPU_PARTS; k++) cpu_weight_ahead(&c->stack[k], expert);
}

static void read_item(void *context, uint32_t item, int thread)
{
    const cpu_cache *c = context;
    const size_t all = c->runs[0] + c->runs[1] + c->runs[2];
    const size_t expert = c->wanted[item / all], slot = c->residents.slot_of[expert];
    size_t at = item % all;
    int k = 0;
    for (; at >= c->runs[k]; k++) at -= c->runs[k];
    const weft_weight *w = &c->stack[k];
    const size_t from = at * c->run[k], to = cpu_min(from + c->run[k], w->tiles);
    uint8_t *rows = cpu_tile_room(c->backend, thread, 0) + c->backend->room_tile_bytes;
    /* The slots are this cache's own; `data` is const for who multiplies. */
    uint8_t *out = (uint8_t *)(uintptr_t)c->slots[k].data + slot * matrix_bytes(w) + from * w->tile_bytes;
    cpu_weight_pack(w, expert, from, to, rows, out);
}

bool cpu_cache_load(cpu_cache *c, const cpu_group *group, size_t n, bool all)
{
    size_t wanted = 0;
    cpu_residents_wave(&c->residents);
    for (size_t i = 0; i < n; i++) {
        if (!all && !cpu_residents_admit(&c->residents, group[i].expert)) continue;
        c->wanted[wanted++] = group[i].expert;
        (void)cpu_residents_take(&c->residents, group[i].expert);
    }
    const size_t items = wanted * (c->runs[0] + c->runs[1] + c->runs[2]);
    cpu_pool_run(c->backend->pool, read_item, c, (uint32_t)items);
    if (!atomic_load(&c->backend->failed)) return true;
    for (size_t i = 0; i < wanted; i++) cpu_residents_drop(&c->residents, c->wanted[i]);
    return false;
}
