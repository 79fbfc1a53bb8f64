/* Hit rates of the policy that decides which experts stay in memory (engine/cpu/residents.h), by half-life, over
 * made-up choices of 8 of 128 experts a token, beside the best that anyone could do who knows the future (Belady).
 * There is no trace of a real model here: the kinds below are the ways in which choices can be uneven.
 *
 *   bench/residents
 */
#include "engine/cpu/residents.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { EXPERTS = 128, USED = 8, TOKENS = 6000, WARM = 1000, TOPIC = 300, TALL = 1 << 30 };

static uint64_t state = 88172645463325252u;

static double uniform(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (double)(state >> 11) * 0x1p-53;
}

typedef struct kind {
    const char *name;
    double zipf;   /* expert of rank r is drawn with r^-zipf */
    bool topics;   /* ranks are dealt anew every TOPIC tokens */
    double repeat; /* an expert of the last token is taken again with this probability */
} kind;

static void deal(size_t rank[EXPERTS])
{
    for (size_t i = 0; i < EXPERTS; i++) rank[i] = i;
    for (size_t i = EXPERTS - 1; i > 0; i--) {
        const size_t k = (size_t)(uniform() * (double)(i + 1)), t = rank[i];
        rank[i] = rank[k];
        rank[k] = t;
    }
}

static void make(const kind *k, uint8_t trace[TOKENS][USED])
{
    double to[EXPERTS], sum = 0;
    size_t rank[EXPERTS];
    for (size_t r = 0; r < EXPERTS; r++) to[r] = sum += pow((double)(r + 1), -k->zipf);
    deal(rank);
    for (size_t t = 0; t < TOKENS; t++) {
        bool taken[EXPERTS] = {false};
        size_t n = 0;
        if (k->topics && t % TOPIC == 0) deal(rank);
        for (size_t i = 0; t > 0 && i < USED; i++)
            if (uniform() < k->repeat) taken[trace[t][n++] = trace[t - 1][i]] = true;
        while (n < USED) {
            const double u = uniform() * sum;
            size_t r = 0;
            while (to[r] < u) r++;
            if (!taken[rank[r]]) taken[trace[t][n++] = (uint8_t)rank[r]] = true;
        }
    }
}

static double policy(uint8_t trace[TOKENS][USED], size_t n_slot, double half_life)
{
    cpu_residents r;
    size_t hits = 0;
    void *memory = malloc(cpu_residents_bytes(EXPERTS, n_slot));
    if (!memory) exit(1);
    cpu_residents_init(&r, EXPERTS, n_slot, half_life, memory);
    for (size_t t = 0; t < TOKENS; t++) {
        cpu_residents_begin(&r);
        for (size_t i = 0; i < USED; i++) cpu_residents_use(&r, trace[t][i]);
        for (size_t i = 0; i < USED; i++) hits += t >= WARM && r.slot_of[trace[t][i]] != CPU_NO_SLOT;
        for (size_t i = 0; i < USED; i++)
            if (r.slot_of[trace[t][i]] == CPU_NO_SLOT) cpu_residents_take(&r, trace[t][i]);
    }
    free(memory);
    return (double)hits / ((TOKENS - WARM) * USED);
}

/* Whoever is needed last goes first. */
static double best(uint8_t trace[TOKENS][USED], size_t n_slot)
{
    static uint32_t next[TOKENS][USED];
    uint32_t seen[EXPERTS], when[EXPERTS];
    bool in[EXPERTS] = {false};
    size_t n = 0, hits = 0;
    for (size_t e = 0; e < EXPERTS; e++) seen[e] = TALL;
    for (size_t t = TOKENS; t-- > 0;)
        for (size_t i = 0; i < USED; i++) {
            next[t][i] = seen[trace[t][i]];
            seen[trace[t][i]] = (uint32_t)t;
        }
    for (size_t t = 0; t < TOKENS; t++) {
        for (size_t i = 0; i < USED; i++) {
            hits += t >= WARM && in[trace[t][i]];
            n += !in[trace[t][i]];
            in[trace[t][i]] = true;
            when[trace[t][i]] = next[t][i];
        }
        for (; n > n_slot; n--) {
            size_t last = EXPERTS;
            for (size_t e = 0; e < EXPERTS; e++)
                if (in[e] && (last == EXPERTS || when[e] > when[last])) last = e;
            in[last] = false;
        }
    }
    return (double)hits / ((TOKENS - WARM) * USED);
}

int main(void)
{
    static const kind kinds[] = {{"all alike", 0, false, 0},
                                 {"some liked", 0.7, false, 0},
                                 {"some liked, by topic", 0.7, true, 0},
                                 {"a third of the last again", 0, false, 0.33},
                                 {"liked by topic, and again", 0.7, true, 0.33}};
    static const double lives[] = {0.1, 4, 16, 32, 64, 256, 1e9};
    static const size_t slots[] = {32, 64, 96};
    static uint8_t trace[TOKENS][USED];
    printf("| choices | slots of %d | last use | 4 | 16 | 32 | 64 | 256 | most uses | best |\n"
           "|---|---|---|---|---|---|---|---|---|---|\n",
           EXPERTS);
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        make(&kinds[k], trace);
        for (size_t s = 0; s < sizeof slots / sizeof *slots; s++) {
            printf("| %s | %zu |", kinds[k].name, slots[s]);
            for (size_t l = 0; l < sizeof lives / sizeof *lives; l++)
                printf(" %.1f |", 100 * policy(trace, slots[s], lives[l]));
            printf(" %.1f |\n", 100 * best(trace, slots[s]));
        }
    }
    return 0;
}
