/* Fork and join over a few persistent threads. */
#ifndef WEFT_ENGINE_CPU_POOL_H
#define WEFT_ENGINE_CPU_POOL_H

#include "base/error.h"

#include <stdint.h>

typedef struct cpu_pool cpu_pool;

/* threads 0: as many as the cores this process may run on. The caller of cpu_pool_run is one of them. */
weft_status cpu_pool_new(cpu_pool **out, int threads, weft_error *err);
void cpu_pool_free(cpu_pool *pool);
int cpu_pool_threads(const cpu_pool *pool);

/* Calls run(context, item, thread) for every item in 0..n-1, each exactly once, in any order, on any
 * thread (0..threads-1, the caller is 0); returns when all are done. Not reentrant. */
void cpu_pool_run(cpu_pool *pool, void (*run)(void *context, uint32_t item, int thread),
                  void *context, uint32_t n);

#endif
