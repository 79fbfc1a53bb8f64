/* Memory for repacked weights, in huge pages where the system gives them. */
#ifndef WEFT_ENGINE_CPU_ARENA_H
#define WEFT_ENGINE_CPU_ARENA_H

#include <stddef.h>

typedef struct cpu_chunk cpu_chunk;
typedef struct cpu_arena {
    cpu_chunk *current; /* where the next small allocation goes */
} cpu_arena;

typedef struct cpu_memory {
    void *at; /* zeroed, 64-byte aligned; NULL: out of memory */
    cpu_chunk *chunk;
} cpu_memory;

cpu_memory cpu_arena_take(cpu_arena *arena, size_t bytes);
void cpu_arena_give(cpu_arena *arena, cpu_memory memory);
/* Everything taken must have been given back. */
void cpu_arena_free(cpu_arena *arena);

#endif
