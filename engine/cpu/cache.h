/* Experts of a layer that stay in the file, through a cache: slots of repacked experts (gate, up and down of one),
 * filled as tokens choose them. Private to engine/cpu. */
#ifndef WEFT_ENGINE_CPU_CACHE_H
#define WEFT_ENGINE_CPU_CACHE_H

#include "engine/cpu/cpu.h"
#include "engine/cpu/residents.h"

enum { CPU_PARTS = 3 /* gate, up, down */, CPU_READ_BYTES = 256 << 10 /* of rows at once */ };

struct cpu_cache {
    weft_backend *backend;
    weft_weight stack[CPU_PARTS]; /* as they are in the file */
    weft_weight slots[CPU_PARTS]; /* their matrices [n_slot], in memory */
    cpu_memory memory;            /* of all slots */
    cpu_residents residents;
    uint64_t *guessed; /* [n_expert] for which call it was, last */
    size_t bytes;      /* of memory */
    size_t expert_bytes; /* of an expert in the file */
    size_t run[CPU_PARTS], runs[CPU_PARTS]; /* tiles that are read at once; so many runs make a matrix */
    uint32_t *wanted; /* [n_slot] experts of the wave under way */
};

weft_status cpu_cache_new(weft_backend *b, const weft_weight *const stack[CPU_PARTS], size_t n_slot,
                          cpu_cache **out, weft_error *err);
void cpu_cache_free(cpu_cache *cache);

/* Tells the kernel that an expert will be read, if it is in no slot. */
void cpu_cache_ahead(const cpu_cache *cache, size_t expert);
/* Reads n experts, none of which has a slot, by all threads: n <= n_slot. Not `all`: those that are worth less than
 * whoever would have to go are left out. False: a read failed, as is noted, and none of them has a slot. */
bool cpu_cache_load(cpu_cache *cache, const cpu_group *group, size_t n, bool all);

#endif
