/* The CUDA driver, loaded at run time. Private to engine/cuda.
 *
 * weft links neither libcuda nor the CUDA runtime, and builds without their headers: what it calls of the driver
 * API is declared here, by hand, as the driver exports it (CUDA 11.4 and later keep these symbols). Names without
 * cu and _v2; handles are opaque pointers, device memory is an address.
 *
 * The library stays loaded until the process ends: a driver does not survive being unloaded and loaded again.
 */
#ifndef WEFT_ENGINE_CUDA_DRIVER_H
#define WEFT_ENGINE_CUDA_DRIVER_H

#include "base/base.h"

typedef uint64_t cuda_address; /* CUdeviceptr */
typedef struct cuda_context_t *cuda_context;
typedef struct cuda_module_t *cuda_module;
typedef struct cuda_function_t *cuda_function;
typedef struct cuda_stream_t *cuda_stream;
typedef struct cuda_event_t *cuda_event;
typedef struct cuda_graph_t *cuda_graph;
typedef struct cuda_exec_t *cuda_exec;

/* X(name, symbol, parameters); each returns a CUresult, 0 for success. */
#define CUDA_DRIVER(X)                                                                             \
    X(init, "cuInit", (unsigned flags))                                                            \
    X(driver_version, "cuDriverGetVersion", (int *version))                                        \
    X(error_name, "cuGetErrorName", (int result, const char **name))                               \
    X(device_count, "cuDeviceGetCount", (int *count))                                              \
    X(device_get, "cuDeviceGet", (int *device, int ordinal))                                       \
    X(device_name, "cuDeviceGetName", (char *name, int size, int device))                          \
    X(device_attribute, "cuDeviceGetAttribute", (int *value, int attribute, int device))           \
    X(context_retain, "cuDevicePrimaryCtxRetain", (cuda_context *context, int device))             \
    X(context_release, "cuDevicePrimaryCtxRelease_v2", (int device))                               \
    X(context_set, "cuCtxSetCurrent", (cuda_context context))                                      \
    X(module_load, "cuModuleLoadData", (cuda_module *module, const void *image))                   \
    X(module_unload, "cuModuleUnload", (cuda_module module))                                       \
    X(module_function, "cuModuleGetFunction",                                                      \
      (cuda_function *function, cuda_module module, const char *name))                             \
    X(memory_info, "cuMemGetInfo_v2", (size_t *free_bytes, size_t *total_bytes))                   \
    X(memory_new, "cuMemAlloc_v2", (cuda_address *address, size_t bytes))                          \
    X(memory_free, "cuMemFree_v2", (cuda_address address))                                         \
    X(host_new, "cuMemHostAlloc", (void **memory, size_t bytes, unsigned flags))                   \
    X(host_free, "cuMemFreeHost", (void *memory))                                                  \
    X(copy_in, "cuMemcpyHtoDAsync_v2",                                                             \
      (cuda_address to, const void *from, size_t bytes, cuda_stream stream))                       \
    X(copy_out, "cuMemcpyDtoHAsync_v2",                                                            \
      (void *to, cuda_address from, size_t bytes, cuda_stream stream))                             \
    X(copy_within, "cuMemcpyDtoDAsync_v2",                                                         \
      (cuda_address to, cuda_address from, size_t bytes, cuda_stream stream))                      \
    X(memory_set, "cuMemsetD8Async",                                                               \
      (cuda_address at, unsigned char value, size_t bytes, cuda_stream stream))                    \
    X(copy_across, "cuMemcpyPeerAsync",                                                            \
      (cuda_address to, cuda_context to_context, cuda_address from, cuda_context from_context,     \
       size_t bytes, cuda_stream stream))                                                          \
    X(stream_new, "cuStreamCreate", (cuda_stream *stream, unsigned flags))                         \
    X(stream_free, "cuStreamDestroy_v2", (cuda_stream stream))                                     \
    X(stream_wait, "cuStreamWaitEvent", (cuda_stream stream, cuda_event event, unsigned flags))    \
    X(synchronize, "cuStreamSynchronize", (cuda_stream stream))                                    \
    X(capture_begin, "cuStreamBeginCapture_v2", (cuda_stream stream, int mode))                    \
    X(capture_end, "cuStreamEndCapture", (cuda_stream stream, cuda_graph *graph))                  \
    X(event_new, "cuEventCreate", (cuda_event *event, unsigned flags))                             \
    X(event_free, "cuEventDestroy_v2", (cuda_event event))                                         \
    X(event_record, "cuEventRecord", (cuda_event event, cuda_stream stream))                       \
    X(graph_free, "cuGraphDestroy", (cuda_graph graph))                                            \
    X(exec_new, "cuGraphInstantiateWithFlags",                                                     \
      (cuda_exec *exec, cuda_graph graph, unsigned long long flags))                               \
    X(exec_free, "cuGraphExecDestroy", (cuda_exec exec))                                           \
    X(exec_launch, "cuGraphLaunch", (cuda_exec exec, cuda_stream stream))                          \
    X(launch, "cuLaunchKernel",                                                                    \
      (cuda_function function, unsigned grid_x, unsigned grid_y, unsigned grid_z,                  \
       unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes,                \
       cuda_stream stream, void **parameters, void **extra))

typedef struct cuda_driver {
    void *library;
    int version; /* of CUDA that it supports: 12040 is 12.4 */
#define X(name, symbol, parameters) int(*name) parameters;
    CUDA_DRIVER(X)
#undef X
} cuda_driver;

/* Values of the driver API. */
enum {
    CUDA_ERROR_OUT_OF_MEMORY_ = 2,
    CUDA_ERROR_NO_DEVICE_ = 100,
    CUDA_ERROR_NO_BINARY_ = 209,
    CUDA_ERROR_PTX_VERSION_ = 222,
    CUDA_ERROR_NOT_FOUND_ = 500,
    CUDA_MAJOR_ = 75, /* device attributes: compute capability */
    CUDA_MINOR_ = 76,
    CUDA_STREAM_NON_BLOCKING_ = 1,
    CUDA_EVENT_DISABLE_TIMING_ = 2,
    CUDA_CAPTURE_THREAD_LOCAL_ = 1,
    CUDA_HOST_PORTABLE_ = 1
};

/* Loads and starts the driver, once a process. WEFT_E_MODEL: there is none, or it is too old (which). */
weft_status cuda_driver_get(const cuda_driver **out, weft_error *err);

/* WEFT_OK, or the failure of `what` with the driver's name for it. WEFT_E_MEMORY for lack of memory, else
 * WEFT_E_MODEL. */
weft_status cuda_check(const cuda_driver *driver, int result, weft_error *err, const char *what);

#endif
