/* Shared by the tests of the CUDA backend's host side: models on the mock driver, with kernels that run under the
 * shim, or that do nothing where only calls are counted. */
#ifndef WEFT_TESTS_CUDA_HOST_TEST_H
#define WEFT_TESTS_CUDA_HOST_TEST_H

#include "tests/engine/random_model.h"

#include "engine/timeline.h"
#include "tests/cuda/mock_driver.h"
#include "tests/cuda/shim_launch.h"

static inline weft_model *gpu_open(const char *path, const char *engine, int chunk)
{
    return model_open(path, &(weft_engine_options){.engine = engine, .chunk = chunk});
}

static inline const char *agent_path(void)
{
    return data_path("agent/tiny-agent-f16.gguf");
}

/* Everything that the driver gave out is back. */
static inline void assert_nothing_left(void)
{
    const mock_cuda_open none = {0}, *left = &mock_cuda_left;
    if (memcmp(left, &none, sizeof none) != 0)
        fail_msg("left open: %ld contexts, %ld modules, %ld streams, %ld events, %ld graphs, %ld execs, %ld "
                 "allocations, %ld pinned",
                 left->contexts, left->modules, left->streams, left->events, left->graphs, left->execs,
                 left->memory, left->host);
}

static inline int32_t *some_ids(size_t n, int32_t n_vocab)
{
    int32_t *ids = malloc(n * sizeof *ids);
    for (size_t i = 0; i < n; i++) ids[i] = (int32_t)((i * 7919 + 13) % (size_t)n_vocab);
    return ids;
}

#endif
