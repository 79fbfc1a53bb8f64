/* Weights lie in chunks of 64 MiB, mapped at 2 MiB boundaries with MADV_HUGEPAGE.
 *
 * Why: decode is the read of the weights, and a 4-bit matrix-vector product reads 36 GB/s from 4 KiB
 * pages where it reads 54 from 2 MiB ones (docs/speed.md). Allocations follow one another in a chunk, so
 * that a 1 MiB matrix does not cost a 2 MiB page. A chunk is unmapped with its last allocation.
 */
#include "engine/cpu/arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#define HUGE_BYTES ((size_t)2 << 20)
#define CHUNK_BYTES ((size_t)64 << 20)

struct cpu_chunk {
    void *map;
    size_t map_bytes;
    uint8_t *base; /* aligned to HUGE_BYTES */
    size_t bytes, used, live;
};

static cpu_chunk *chunk_new(size_t bytes)
{
    size_t map_bytes;
    if (__builtin_add_overflow(bytes, HUGE_BYTES, &map_bytes)) return NULL;
    cpu_chunk *c = malloc(sizeof *c);
    if (!c) return NULL;
    void *map = mmap(NULL, map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) {
        free(c);
        return NULL;
    }
    uintptr_t base = ((uintptr_t)map + HUGE_BYTES - 1) / HUGE_BYTES * HUGE_BYTES;
    *c = (cpu_chunk){.map = map, .map_bytes = map_bytes, .base = (uint8_t *)base, .bytes = bytes};
    (void)madvise(c->base, bytes, MADV_HUGEPAGE); /* only speed depends on it */
    return c;
}

static void chunk_free(cpu_chunk *c)
{
    munmap(c->map, c->map_bytes);
    free(c);
}

cpu_memory cpu_arena_take(cpu_arena *a, size_t bytes)
{
    const cpu_memory none = {NULL, NULL};
    if (bytes > SIZE_MAX - HUGE_BYTES) return none;
    bytes = (bytes + 63) / 64 * 64;
    cpu_chunk *c = a->current;
    if (!c || c->bytes - c->used < bytes) {
        size_t want =
            bytes > CHUNK_BYTES ? (bytes + HUGE_BYTES - 1) / HUGE_BYTES * HUGE_BYTES : CHUNK_BYTES;
        cpu_chunk *fresh = chunk_new(want);
        if (!fresh) return none;
        /* The chunk with more room left stays the current one. */
        if (!c || c->bytes - c->used < want - bytes) {
            if (c && c->live == 0) chunk_free(c);
            a->current = fresh;
        }
        c = fresh;
    }
    cpu_memory m = {c->base + c->used, c};
    c->used += bytes;
    c->live++;
    return m;
}

void cpu_arena_give(cpu_arena *a, cpu_memory m)
{
    if (!m.chunk || --m.chunk->live > 0) return;
    if (a->current == m.chunk) a->current = NULL;
    chunk_free(m.chunk);
}

void cpu_arena_free(cpu_arena *a)
{
    if (a->current) chunk_free(a->current);
    a->current = NULL;
}
