/* Which experts of a layer are in memory, if there are fewer slots than experts: the policy of the cache, and
 * nothing else. Private to engine/cpu.
 *
 * What is kept are the experts of most worth: a use is worth 1 and half as much after every CPU_HALF_LIFE calls
 * (LRFU, between the least recently and the least frequently used; docs/speed.md has the traces it was chosen
 * by). Since all worths fade alike, their order changes with a use only: log2 of it is kept as if at call 0, and
 * nothing is done for the experts of no one's choice.
 *
 * Nothing here depends on time or threads: the same calls give the same hits.
 */
#ifndef WEFT_ENGINE_CPU_RESIDENTS_H
#define WEFT_ENGINE_CPU_RESIDENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CPU_HALF_LIFE = 32, CPU_NO_SLOT = UINT16_MAX, CPU_MOST_EXPERTS = UINT16_MAX - 1 };

typedef struct cpu_residents {
    size_t n_expert, n_slot;
    double half_life;
    uint64_t call, wave;  /* how many there were */
    double *worth;        /* [n_expert] */
    uint64_t *wave_of;    /* [n_slot] in which the slot was used last */
    uint16_t *slot_of;    /* [n_expert], or CPU_NO_SLOT */
    uint16_t *expert_of;  /* [n_slot], or CPU_NO_SLOT */
} cpu_residents;

/* Bytes of the arrays that init lays out in `memory` (aligned for a double). */
size_t cpu_residents_bytes(size_t n_expert, size_t n_slot);
void cpu_residents_init(cpu_residents *r, size_t n_expert, size_t n_slot, double half_life,
                        void *memory);

/* Another call begins. Each expert that it uses is then told once by _use, before any slot is taken. */
void cpu_residents_begin(cpu_residents *r);
void cpu_residents_use(cpu_residents *r, size_t expert);
/* A call may need more experts than there are slots: it goes in waves. Within a wave no slot is taken twice. */
void cpu_residents_wave(cpu_residents *r);
/* Whether there is a free slot, or one whose expert is worth less than this one. */
bool cpu_residents_admit(const cpu_residents *r, size_t expert);
/* The slot for an expert that has none: a free one, or that of the expert of least worth, which is out then.
 * At most n_slot a wave. */
size_t cpu_residents_take(cpu_residents *r, size_t expert);
/* What is in the expert's slot is worth nothing. */
void cpu_residents_drop(cpu_residents *r, size_t expert);

#endif
