/* The policy: see residents.h. A slot is looked for in order, some 100 comparisons beside the read of megabytes. */
#include "engine/cpu/residents.h"

#include <assert.h>
#include <math.h>

size_t cpu_residents_bytes(size_t n_expert, size_t n_slot)
{
    return n_expert * (sizeof(double) + sizeof(uint16_t)) +
           n_slot * (sizeof(uint64_t) + sizeof(uint16_t));
}

void cpu_residents_init(cpu_residents *r, size_t n_expert, size_t n_slot, double half_life,
                        void *memory)
{
    assert(n_expert <= CPU_MOST_EXPERTS && n_slot > 0 && n_slot <= n_expert);
    *r = (cpu_residents){.n_expert = n_expert, .n_slot = n_slot, .half_life = half_life};
    r->worth = memory;
    r->wave_of = (uint64_t *)(void *)(r->worth + n_expert);
    r->slot_of = (uint16_t *)(void *)(r->wave_of + n_slot);
    r->expert_of = r->slot_of + n_expert;
    for (size_t e = 0; e < n_expert; e++) {
        r->worth[e] = -INFINITY;
        r->slot_of[e] = CPU_NO_SLOT;
    }
    for (size_t s = 0; s < n_slot; s++) {
        r->wave_of[s] = 0;
        r->expert_of[s] = CPU_NO_SLOT;
    }
}

void cpu_residents_begin(cpu_residents *r)
{
    r->call++;
    r->wave++;
}

void cpu_residents_wave(cpu_residents *r)
{
    r->wave++;
}

void cpu_residents_use(cpu_residents *r, size_t expert)
{
    const double now = (double)r->call / r->half_life;
    r->worth[expert] = now + log2(1 + exp2(r->worth[expert] - now));
}

/* Of those not taken in this wave: a free slot, or that of least worth; n_slot: all are taken. */
static size_t least_slot(const cpu_residents *r)
{
    size_t best = r->n_slot;
    for (size_t s = 0; s < r->n_slot; s++) {
        if (r->wave_of[s] == r->wave) continue;
        if (r->expert_of[s] == CPU_NO_SLOT) return s;
        if (best == r->n_slot || r->worth[r->expert_of[s]] < r->worth[r->expert_of[best]]) best = s;
    }
    return best;
}

bool cpu_residents_admit(const cpu_residents *r, size_t expert)
{
    const size_t slot = least_slot(r);
    if (slot == r->n_slot) return false;
    return r->expert_of[slot] == CPU_NO_SLOT || r->worth[r->expert_of[slot]] < r->worth[expert];
}

size_t cpu_residents_take(cpu_residents *r, size_t expert)
{
    const size_t best = least_slot(r);
    assert(r->slot_of[expert] == CPU_NO_SLOT && best < r->n_slot);
    if (r->expert_of[best] != CPU_NO_SLOT) r->slot_of[r->expert_of[best]] = CPU_NO_SLOT;
    r->expert_of[best] = (uint16_t)expert;
    r->slot_of[expert] = (uint16_t)best;
    r->wave_of[best] = r->wave;
    return best;
}

void cpu_residents_drop(cpu_residents *r, size_t expert)
{
    const uint16_t slot = r->slot_of[expert];
    if (slot == CPU_NO_SLOT) return;
    r->expert_of[slot] = CPU_NO_SLOT;
    r->slot_of[expert] = CPU_NO_SLOT;
}
