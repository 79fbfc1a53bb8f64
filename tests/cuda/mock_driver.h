/* A CUDA driver for tests: it has the symbols of libcuda.so.1 that engine/cuda calls, computes nothing by
 * itself and watches how it is used.
 *
 * Work in a stream is done at synchronisation and no earlier, events order streams, pinned memory is read
 * and written when the work is done: a host that does not wait reads old bytes. Every address is checked
 * against the live allocations of the GPU whose context is current. Device memory is host memory, so kernels
 * may be run on it: mock_cuda_run names a function that does.
 *
 * A test links the library and names the same file to the engine (WEFT_TEST_CUDA_DRIVER): one copy serves both.
 * Programs configure it by MOCK_CUDA=gpus,major,minor,driver_version,free_mib[,first result of cuInit or
 * cuModuleLoadData: init=N load=N].
 */
#ifndef WEFT_TESTS_MOCK_DRIVER_H
#define WEFT_TESTS_MOCK_DRIVER_H

#include <stddef.h>
#include <stdint.h>

typedef struct mock_cuda_config {
    int gpus, major, minor, driver_version;
    size_t free_bytes;        /* of each GPU */
    int init_result, load_result;
    const char *missing;      /* a kernel that the module lacks, or NULL */
    long fail_at;             /* the so-manyth call from now fails; 0: none does */
    int fail_result;
} mock_cuda_config;

typedef struct mock_cuda_counts {
    long calls;                       /* of anything that can fail */
    long kernels, direct, graphs;     /* launched, of these by themselves; graphs launched */
    long copies_in, copies_out, copies_within, copies_across;
    long copied_in_graphs;            /* of all these */
    long synchronisations;
    long unpinned_out;                /* copies out that would have made the host wait */
    long allocations;                 /* of device and pinned memory */
    long captures;
    long failed;                      /* calls that were made to fail */
    char last[64];                    /* name of the call that was */
} mock_cuda_counts;

/* Handles that are open: contexts, modules, streams, events, graphs, memory. 0 when all was given back. */
typedef struct mock_cuda_open {
    long contexts, modules, streams, events, graphs, execs, memory, host;
} mock_cuda_open;

extern mock_cuda_config mock_cuda_config_now;
extern mock_cuda_counts mock_cuda_counted;
extern mock_cuda_open mock_cuda_left;

/* Runs a kernel; non-zero: it cannot. NULL: kernels do nothing. */
typedef int (*mock_cuda_kernel)(const char *name, const uint32_t grid[3], const uint32_t block[3],
                                uint32_t shared, const void *args, size_t args_bytes);
extern mock_cuda_kernel mock_cuda_run;

/* Bytes of a GPU's memory that are in use. */
size_t mock_cuda_used(int gpu);

/* The default configuration, counts 0. Nothing may be open. */
void mock_cuda_reset(void);

#endif
