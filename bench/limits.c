/* The machine's limits, measured now: one JSON object.
 *
 *   bench/limits [threads] [MiB]
 *
 * "read": bytes per second of a plain read of so much memory (default 1024 MiB) in 2 MiB pages; "read_ahead": of one that
 * prefetches, as our products do on CPUs where it helps. "vnni", "amx", "fma": operations per second, where the
 * machine has them. Each by all threads at once, best of five.
 */
#include "bench/peak.h"

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

enum { REPEATS = 5, MAX_THREADS = 256, READ = -1, READ_AHEAD = -2, AHEAD_WORDS = 1024 };

typedef struct job {
    pthread_barrier_t *start;
    int unit; /* a peak_unit, READ or READ_AHEAD */
    const uint64_t *from;
    size_t words;
    double amount, begin, end;
    uint64_t sum; /* keeps the read from being optimised away */
} job;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static inline __attribute__((always_inline)) uint64_t read_all(const uint64_t *from, size_t words,
                                                               size_t ahead)
{
    uint64_t sum[8] = {0};
    for (size_t i = 0; i + 8 <= words; i += 8) {
        if (ahead && i + ahead < words) __builtin_prefetch(from + i + ahead, 0, 2);
        for (size_t k = 0; k < 8; k++) sum[k] ^= from[i + k];
    }
    for (size_t k = 1; k < 8; k++) sum[0] ^= sum[k];
    return sum[0];
}

static void *work(void *context)
{
    job *j = context;
    pthread_barrier_wait(j->start);
    j->begin = now();
    if (j->unit >= 0) {
        j->amount = peak_run((peak_unit)j->unit);
    } else {
        j->sum = j->unit == READ ? read_all(j->from, j->words, 0)
                                 : read_all(j->from, j->words, AHEAD_WORDS);
        j->amount = (double)(j->words * sizeof *j->from);
    }
    j->end = now();
    return NULL;
}

static double rate_once(int unit, int threads, const uint64_t *memory, size_t words)
{
    pthread_t thread[MAX_THREADS];
    job jobs[MAX_THREADS];
    pthread_barrier_t start;
    pthread_barrier_init(&start, NULL, (unsigned)threads);
    for (int i = 0; i < threads; i++) {
        size_t share = words / (size_t)threads;
        jobs[i] = (job){.start = &start, .unit = unit, .from = memory + share * (size_t)i, .words = share};
        if (i > 0 && pthread_create(&thread[i], NULL, work, &jobs[i]) != 0) {
            fprintf(stderr, "limits: thread %d of %d did not start\n", i, threads);
            exit(1);
        }
    }
    work(&jobs[0]);
    double amount = jobs[0].amount, begin = jobs[0].begin, end = jobs[0].end;
    for (int i = 1; i < threads; i++) {
        pthread_join(thread[i], NULL);
        amount += jobs[i].amount;
        begin = jobs[i].begin < begin ? jobs[i].begin : begin;
        end = jobs[i].end > end ? jobs[i].end : end;
    }
    pthread_barrier_destroy(&start);
    return amount / (end - begin);
}

static double rate(int unit, int threads, const uint64_t *memory, size_t words)
{
    double best = 0;
    for (int i = 0; i < REPEATS; i++) {
        double r = rate_once(unit, threads, memory, words);
        best = r > best ? r : best;
    }
    return best;
}

int main(int argc, char **argv)
{
    int threads = argc > 1 ? atoi(argv[1]) : 1, mib = argc > 2 ? atoi(argv[2]) : 1024;
    if (argc > 3 || threads < 1 || threads > MAX_THREADS || mib < 1) {
        fprintf(stderr, "usage: limits [threads, 1 to %d] [MiB, at least 1]\n", MAX_THREADS);
        return 2;
    }
    size_t bytes = (size_t)mib << 20;
    uint64_t *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        perror("limits: memory for the plain read");
        return 1;
    }
    madvise(memory, bytes, MADV_HUGEPAGE);
    for (size_t i = 0; i < bytes / sizeof *memory; i++) memory[i] = i;
    printf("{\"threads\":%d,\"read\":%.4g,\"read_ahead\":%.4g", threads,
           rate(READ, threads, memory, bytes / sizeof *memory),
           rate(READ_AHEAD, threads, memory, bytes / sizeof *memory));
    for (int unit = 0; unit < PEAK_UNITS; unit++)
        if (peak_has((peak_unit)unit))
            printf(",\"%s\":%.4g", peak_name((peak_unit)unit), rate(unit, threads, NULL, 0));
    printf("}\n");
    return 0;
}
