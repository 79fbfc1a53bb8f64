/* The thread pool: one atomic word is the whole protocol.
 *
 * word = (job number << 32) | items not yet claimed. To claim an item is to decrement the low half
 * with a compare-and-swap; a success proves that the job is still open, so its plain fields may be
 * read. The caller works too, and waits for `done` items, not for threads: a worker that
 * sleeps, or wakes up too late, costs nothing. Which thread takes which item is left to chance; it
 * cannot show in the results, since each output element is computed whole inside one item.
 *
 * Workers spin for about 50 us after their last item, since the next fork of a token's evaluation
 * comes within a few; then they sleep on a condition variable, so an idle engine costs no CPU while
 * tools run. Nothing is pinned.
 */
#include "engine/cpu/pool.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

enum {
    SPINS = 2000,       /* pauses before a worker sleeps; one is 20 to 40 ns */
    JOIN_SPINS = 20000, /* pauses before the caller lets others run while it waits */
    MAX_THREADS = 1024
};

typedef struct worker {
    cpu_pool *pool;
    pthread_t thread;
    int index;
} worker;

struct cpu_pool {
    _Alignas(64) _Atomic uint64_t word;
    _Alignas(64) _Atomic uint32_t done;
    _Alignas(64) _Atomic int sleepers;
    _Atomic int stop;
    /* of the open job; written while no item is claimed */
    void (*run)(void *, uint32_t, int);
    void *context;
    uint32_t n;
    int threads, started;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    worker worker[];
};

static inline void relax(void)
{
#if defined __x86_64__
    __builtin_ia32_pause();
#endif
}

/* Works until the open job has no items left. */
static void work(cpu_pool *p, int thread)
{
    uint64_t word = atomic_load_explicit(&p->word, memory_order_acquire);
    while ((uint32_t)word != 0) {
        if (!atomic_compare_exchange_weak_explicit(&p->word, &word, word - 1, memory_order_acq_rel,
                                                   memory_order_acquire))
            continue;
        p->run(p->context, p->n - (uint32_t)word, thread);
        atomic_fetch_add_explicit(&p->done, 1, memory_order_release);
        word = atomic_load_explicit(&p->word, memory_order_acquire);
    }
}

static bool has_work(cpu_pool *p)
{
    return (uint32_t)atomic_load(&p->word) != 0 || atomic_load(&p->stop);
}

static void *worker_main(void *argument)
{
    worker *self = argument;
    cpu_pool *p = self->pool;
    while (!atomic_load(&p->stop)) {
        work(p, self->index);
        int spins = 0;
        while (!has_work(p) && spins++ < SPINS) relax();
        if (spins <= SPINS) continue;
        pthread_mutex_lock(&p->mutex);
        atomic_fetch_add(&p->sleepers, 1); /* before the last look at the word: see cpu_pool_run */
        while (!has_work(p)) pthread_cond_wait(&p->wake, &p->mutex);
        atomic_fetch_sub(&p->sleepers, 1);
        pthread_mutex_unlock(&p->mutex);
    }
    return NULL;
}

static void wake_all(cpu_pool *p)
{
    pthread_mutex_lock(&p->mutex);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->mutex);
}

void cpu_pool_run(cpu_pool *p, void (*run)(void *, uint32_t, int), void *context, uint32_t n)
{
    if (p->threads == 1 || n <= 1) {
        for (uint32_t i = 0; i < n; i++) run(context, i, 0);
        return;
    }
    p->run = run;
    p->context = context;
    p->n = n;
    atomic_store_explicit(&p->done, 0, memory_order_relaxed);
    uint64_t job = (atomic_load_explicit(&p->word, memory_order_relaxed) >> 32) + 1;
    /* Sequentially consistent, as the sleepers' side: either we see the sleeper, or it sees us. */
    atomic_store(&p->word, job << 32 | n);
    if (atomic_load(&p->sleepers) > 0) wake_all(p);
    work(p, 0);
    for (int spins = 0; atomic_load_explicit(&p->done, memory_order_acquire) < n; spins++) {
        if (spins < JOIN_SPINS)
            relax();
        else
            sched_yield();
    }
}

static int available_cores(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set)) return 1;
    int n = CPU_COUNT(&set);
    return n > 0 ? n : 1;
}

weft_status cpu_pool_new(cpu_pool **out, int threads, weft_error *err)
{
    if (threads < 0 || threads > MAX_THREADS)
        return weft_fail(err, WEFT_E_USAGE, "threads %d: must be 0 to %d", threads, MAX_THREADS);
    if (threads == 0) threads = available_cores();
    size_t bytes = sizeof(cpu_pool) + (size_t)threads * sizeof(worker);
    bytes = (bytes + 63) / 64 * 64;
    cpu_pool *p = aligned_alloc(64, bytes);
    if (!p) return weft_fail(err, WEFT_E_MEMORY, "thread pool: out of memory");
    *p = (cpu_pool){.threads = threads};
    pthread_mutex_init(&p->mutex, NULL);
    pthread_cond_init(&p->wake, NULL);
    for (int i = 1; i < threads; i++) {
        p->worker[i] = (worker){.pool = p, .index = i};
        int e = pthread_create(&p->worker[i].thread, NULL, worker_main, &p->worker[i]);
        if (e) {
            errno = e;
            weft_status s =
                weft_fail_errno(err, WEFT_E_MEMORY, "start thread %d of %d", i, threads);
            cpu_pool_free(p);
            return s;
        }
        p->started = i;
    }
    *out = p;
    return WEFT_OK;
}

void cpu_pool_free(cpu_pool *p)
{
    if (!p) return;
    atomic_store(&p->stop, 1);
    wake_all(p);
    for (int i = 1; i <= p->started; i++) pthread_join(p->worker[i].thread, NULL);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->mutex);
    free(p);
}

int cpu_pool_threads(const cpu_pool *p)
{
    return p->threads;
}
