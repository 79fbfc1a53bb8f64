/* See mock_driver.h. One lock around everything; work is queued per stream and done when somebody waits. */
#include "tests/cuda/mock_driver.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GPUS = 16, MARKED = 1 << 20, SUCCESS = 0, INVALID_VALUE = 1, NO_MEMORY = 2, INVALID_CONTEXT = 201, INVALID_HANDLE = 400,
       NOT_FOUND = 500, ILLEGAL_ADDRESS = 700, CAPTURE_UNSUPPORTED = 900 };

typedef struct block { /* of memory, on a GPU or pinned */
    struct block *next;
    uint8_t *at;
    size_t bytes;
    int gpu; /* -1: pinned */
} block;

typedef struct context {
    int gpu;
    int retained;
} context;

typedef struct function {
    char name[64];
    struct function *next;
} function;

typedef struct module {
    function *functions;
} module;

typedef enum op_kind { OP_KERNEL, OP_COPY, OP_WAIT, OP_EXEC } op_kind;

struct exec;
struct stream;

typedef struct op {
    op_kind kind;
    const function *kernel;
    uint32_t grid[3], block[3], shared;
    void *bytes; /* arguments, or the source of a copy from memory that is not pinned; owned */
    size_t n_bytes;
    void *to;
    const void *from;
    struct exec *exec;
    struct stream *stream; /* to wait for, */
    size_t until;          /* so many of its ops */
    int copy;              /* which counter */
} op;

typedef struct ops {
    op *at;
    size_t n, room, done;
} ops;

typedef struct stream {
    context *context;
    ops queue;
    bool capturing;
    ops captured;
} stream;

typedef struct event {
    stream *stream;
    size_t after; /* ops of it; 0 with stream NULL: never recorded */
} event;

typedef struct graph {
    ops ops;
} graph;

typedef struct exec {
    context *context;
    ops ops;
} exec;

mock_cuda_config mock_cuda_config_now;
mock_cuda_counts mock_cuda_counted;
mock_cuda_open mock_cuda_left;
mock_cuda_kernel mock_cuda_run;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static context contexts[GPUS];
static block *blocks;
static size_t used[GPUS];
static _Thread_local context *current;

#define EXPORT __attribute__((visibility("default")))

void mock_cuda_reset(void)
{
    mock_cuda_config_now = (mock_cuda_config){1, 8, 0, 13000, (size_t)1 << 34, 0, 0, NULL, 0, 0};
    mock_cuda_counted = (mock_cuda_counts){0};
    mock_cuda_run = NULL;
}

size_t mock_cuda_used(int gpu)
{
    return used[gpu];
}

__attribute__((constructor)) static void configure(void)
{
    mock_cuda_reset();
    const char *text = getenv("MOCK_CUDA"), *at;
    mock_cuda_config *c = &mock_cuda_config_now;
    unsigned long mib = 16384;
    if (!text) return;
    sscanf(text, "%d,%d,%d,%d,%lu", &c->gpus, &c->major, &c->minor, &c->driver_version, &mib);
    c->free_bytes = (size_t)mib << 20;
    if ((at = strstr(text, "init="))) c->init_result = atoi(at + 5);
    if ((at = strstr(text, "load="))) c->load_result = atoi(at + 5);
}

/* Begins a call: the result that it is made to fail with, or 0. */
static int enter(const char *name)
{
    pthread_mutex_lock(&mutex);
    mock_cuda_config *c = &mock_cuda_config_now;
    mock_cuda_counted.calls++;
    if (c->fail_at > 0 && --c->fail_at == 0) {
        mock_cuda_counted.failed++;
        snprintf(mock_cuda_counted.last, sizeof mock_cuda_counted.last, "%s", name);
        return c->fail_result;
    }
    return SUCCESS;
}

static int leave(int result)
{
    pthread_mutex_unlock(&mutex);
    return result;
}

#define ENTER()                                                                                    \
    do {                                                                                           \
        int made_to_fail = enter(__func__);                                                        \
        if (made_to_fail) return leave(made_to_fail);                                              \
    } while (0)

/* ---- memory ---- */

static block *block_of(const void *at, size_t bytes)
{
    for (block *b = blocks; b; b = b->next)
        if ((const uint8_t *)at >= b->at && (const uint8_t *)at + bytes <= b->at + b->bytes) return b;
    return NULL;
}

static bool on_gpu(uint64_t address, size_t bytes, int gpu)
{
    const block *b = block_of((const void *)(uintptr_t)address, bytes);
    return b && b->gpu == gpu;
}

static bool pinned(const void *at, size_t bytes)
{
    const block *b = block_of(at, bytes);
    return b && b->gpu == -1;
}

static void *new_block(size_t bytes, int gpu)
{
    block *b = malloc(sizeof *b);
    uint8_t *at = aligned_alloc(256, (bytes + 255) / 256 * 256);
    if (!b || !at) abort();
    memset(at, 0xa5, bytes < MARKED ? bytes : MARKED); /* nobody may count on zeros */
    *b = (block){blocks, at, bytes, gpu};
    blocks = b;
    mock_cuda_counted.allocations++;
    return at;
}

static bool free_block(const void *at, int gpu)
{
    for (block **b = &blocks; *b; b = &(*b)->next) {
        block *gone = *b;
        if (gone->at != at || gone->gpu != gpu) continue;
        if (gpu >= 0) used[gpu] -= gone->bytes;
        *b = gone->next;
        free(gone->at);
        free(gone);
        return true;
    }
    return false;
}

/* ---- work ---- */

static op *add_op(ops *list, op what)
{
    if (list->n == list->room) {
        list->room = list->room ? 2 * list->room : 64;
        list->at = realloc(list->at, list->room * sizeof *list->at);
        if (!list->at) abort();
    }
    list->at[list->n] = what;
    return &list->at[list->n++];
}

static void free_ops(ops *list)
{
    for (size_t i = 0; i < list->n; i++) free(list->at[i].bytes);
    free(list->at);
    *list = (ops){0};
}

static void count_copy(int which)
{
    long *const counter[] = {&mock_cuda_counted.copies_in, &mock_cuda_counted.copies_out,
                             &mock_cuda_counted.copies_within, &mock_cuda_counted.copies_across};
    ++*counter[which];
}

static int do_until(stream *s, size_t until);

static int do_op(const op *o, bool in_graph)
{
    if (o->kind == OP_WAIT) return do_until(o->stream, o->until);
    if (o->kind == OP_COPY) {
        count_copy(o->copy);
        mock_cuda_counted.copied_in_graphs += in_graph;
        memmove(o->to, o->bytes ? o->bytes : o->from, o->n_bytes);
    }
    if (o->kind == OP_KERNEL) {
        mock_cuda_counted.kernels++;
        mock_cuda_counted.direct += !in_graph;
        if (mock_cuda_run &&
            mock_cuda_run(o->kernel->name, o->grid, o->block, o->shared, o->bytes, o->n_bytes) != 0)
            return INVALID_VALUE;
    }
    int result = SUCCESS;
    if (o->kind == OP_EXEC)
        for (size_t i = 0; !result && i < o->exec->ops.n; i++) result = do_op(&o->exec->ops.at[i], true);
    return result;
}

static int do_until(stream *s, size_t until)
{
    int result = SUCCESS;
    while (s->queue.done < until && !result) {
        size_t i = s->queue.done++;
        result = do_op(&s->queue.at[i], false);
        free(s->queue.at[i].bytes);
        s->queue.at[i].bytes = NULL;
    }
    return result;
}

static bool usable(const stream *s)
{
    return s && current && s->context == current;
}

static op *put(stream *s, op what)
{
    return add_op(s->capturing ? &s->captured : &s->queue, what);
}

static void *copy_of(const void *bytes, size_t n)
{
    void *out = malloc(n ? n : 1);
    if (!out) abort();
    memcpy(out, bytes, n);
    return out;
}

static int put_copy(stream *s, void *to, const void *from, size_t n, int which)
{
    op what = {.kind = OP_COPY, .to = to, .from = from, .n_bytes = n, .copy = which};
    if (which == 0 && !pinned(from, n)) what.bytes = copy_of(from, n);
    if (which == 1 && !pinned(to, n)) mock_cuda_counted.unpinned_out++;
    put(s, what);
    return SUCCESS;
}

/* ---- the API ---- */

EXPORT int cuInit(unsigned flags);
EXPORT int cuInit(unsigned flags)
{
    ENTER();
    return leave(mock_cuda_config_now.init_result);
}

EXPORT int cuDriverGetVersion(int *version);
EXPORT int cuDriverGetVersion(int *version)
{
    ENTER();
    *version = mock_cuda_config_now.driver_version;
    return leave(SUCCESS);
}

EXPORT int cuGetErrorName(int result, const char **name);
EXPORT int cuGetErrorName(int result, const char **name)
{
    *name = result == NO_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_MOCK";
    return SUCCESS;
}

EXPORT int cuDeviceGetCount(int *count);
EXPORT int cuDeviceGetCount(int *count)
{
    ENTER();
    *count = mock_cuda_config_now.gpus;
    return leave(SUCCESS);
}

EXPORT int cuDeviceGet(int *device, int ordinal);
EXPORT int cuDeviceGet(int *device, int ordinal)
{
    ENTER();
    *device = ordinal;
    return leave(ordinal >= 0 && ordinal < mock_cuda_config_now.gpus ? SUCCESS : INVALID_VALUE);
}

EXPORT int cuDeviceGetName(char *name, int size, int device);
EXPORT int cuDeviceGetName(char *name, int size, int device)
{
    ENTER();
    snprintf(name, (size_t)size, "Mock %d", device);
    return leave(SUCCESS);
}

EXPORT int cuDeviceGetAttribute(int *value, int attribute, int device);
EXPORT int cuDeviceGetAttribute(int *value, int attribute, int device)
{
    ENTER();
    *value = attribute == 75 ? mock_cuda_config_now.major : mock_cuda_config_now.minor;
    return leave(attribute == 75 || attribute == 76 ? SUCCESS : INVALID_VALUE);
}

EXPORT int cuDevicePrimaryCtxRetain(context **out, int device);
EXPORT int cuDevicePrimaryCtxRetain(context **out, int device)
{
    ENTER();
    if (device < 0 || device >= GPUS) return leave(INVALID_VALUE);
    contexts[device].gpu = device;
    contexts[device].retained++;
    mock_cuda_left.contexts++;
    *out = &contexts[device];
    return leave(SUCCESS);
}

EXPORT int cuDevicePrimaryCtxRelease_v2(int device);
EXPORT int cuDevicePrimaryCtxRelease_v2(int device)
{
    pthread_mutex_lock(&mutex); /* what gives back does not fail */
    if (contexts[device].retained-- <= 0) abort();
    mock_cuda_left.contexts--;
    if (current == &contexts[device] && contexts[device].retained == 0) current = NULL;
    return leave(SUCCESS);
}

EXPORT int cuCtxSetCurrent(context *c);
EXPORT int cuCtxSetCurrent(context *c)
{
    ENTER();
    if (!c || c->retained <= 0) return leave(INVALID_CONTEXT);
    current = c;
    return leave(SUCCESS);
}

EXPORT int cuModuleLoadData(module **out, const void *image);
EXPORT int cuModuleLoadData(module **out, const void *image)
{
    ENTER();
    if (!current) return leave(INVALID_CONTEXT);
    if (mock_cuda_config_now.load_result || !image) return leave(mock_cuda_config_now.load_result);
    *out = calloc(1, sizeof **out);
    mock_cuda_left.modules++;
    return leave(*out ? SUCCESS : NO_MEMORY);
}

EXPORT int cuModuleUnload(module *m);
EXPORT int cuModuleUnload(module *m)
{
    pthread_mutex_lock(&mutex);
    for (function *f; (f = m->functions); free(f)) m->functions = f->next;
    free(m);
    mock_cuda_left.modules--;
    return leave(SUCCESS);
}

EXPORT int cuModuleGetFunction(function **out, module *m, const char *name);
EXPORT int cuModuleGetFunction(function **out, module *m, const char *name)
{
    ENTER();
    const char *missing = mock_cuda_config_now.missing;
    if (missing && strcmp(missing, name) == 0) return leave(NOT_FOUND);
    function *f = calloc(1, sizeof *f);
    if (!f) return leave(NO_MEMORY);
    snprintf(f->name, sizeof f->name, "%s", name);
    f->next = m->functions;
    m->functions = f;
    *out = f;
    return leave(SUCCESS);
}

EXPORT int cuMemGetInfo_v2(size_t *free_bytes, size_t *total);
EXPORT int cuMemGetInfo_v2(size_t *free_bytes, size_t *total)
{
    ENTER();
    if (!current) return leave(INVALID_CONTEXT);
    *total = mock_cuda_config_now.free_bytes;
    *free_bytes = *total - used[current->gpu];
    return leave(SUCCESS);
}

static bool any_capture; /* strictly: nothing is allocated meanwhile */

EXPORT int cuMemAlloc_v2(uint64_t *address, size_t bytes);
EXPORT int cuMemAlloc_v2(uint64_t *address, size_t bytes)
{
    ENTER();
    if (!current) return leave(INVALID_CONTEXT);
    if (any_capture) return leave(CAPTURE_UNSUPPORTED);
    if (bytes == 0) return leave(INVALID_VALUE);
    if (bytes > mock_cuda_config_now.free_bytes - used[current->gpu]) return leave(NO_MEMORY);
    used[current->gpu] += bytes;
    *address = (uint64_t)(uintptr_t)new_block(bytes, current->gpu);
    mock_cuda_left.memory++;
    return leave(SUCCESS);
}

EXPORT int cuMemFree_v2(uint64_t address);
EXPORT int cuMemFree_v2(uint64_t address)
{
    pthread_mutex_lock(&mutex);
    const block *b = block_of((void *)(uintptr_t)address, 1);
    if (!b || b->gpu < 0 || !free_block(b->at, b->gpu)) abort();
    mock_cuda_left.memory--;
    return leave(SUCCESS);
}

EXPORT int cuMemHostAlloc(void **out, size_t bytes, unsigned flags);
EXPORT int cuMemHostAlloc(void **out, size_t bytes, unsigned flags)
{
    ENTER();
    if (!current) return leave(INVALID_CONTEXT);
    *out = new_block(bytes, -1);
    mock_cuda_left.host++;
    return leave(SUCCESS);
}

EXPORT int cuMemFreeHost(void *memory);
EXPORT int cuMemFreeHost(void *memory)
{
    pthread_mutex_lock(&mutex);
    if (!free_block(memory, -1)) abort();
    mock_cuda_left.host--;
    return leave(SUCCESS);
}

EXPORT int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t n, stream *s);
EXPORT int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t n, stream *s)
{
    ENTER();
    if (!usable(s)) return leave(INVALID_HANDLE);
    if (!on_gpu(to, n, current->gpu)) return leave(ILLEGAL_ADDRESS);
    return leave(put_copy(s, (void *)(uintptr_t)to, from, n, 0));
}

EXPORT int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t n, stream *s);
EXPORT int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t n, stream *s)
{
    ENTER();
    if (!usable(s)) return leave(INVALID_HANDLE);
    if (!on_gpu(from, n, current->gpu)) return leave(ILLEGAL_ADDRESS);
    return leave(put_copy(s, to, (void *)(uintptr_t)from, n, 1));
}

EXPORT int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t n, stream *s);
EXPORT int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t n, stream *s)
{
    ENTER();
    if (!usable(s)) return leave(INVALID_HANDLE);
    if (!on_gpu(to, n, current->gpu) || !on_gpu(from, n, current->gpu)) return leave(ILLEGAL_ADDRESS);
    return leave(put_copy(s, (void *)(uintptr_t)to, (void *)(uintptr_t)from, n, 2));
}

EXPORT int cuMemsetD8Async(uint64_t at, unsigned char value, size_t n, stream *s);
EXPORT int cuMemsetD8Async(uint64_t at, unsigned char value, size_t n, stream *s)
{
    ENTER();
    if (!usable(s)) return leave(INVALID_HANDLE);
    if (!on_gpu(at, n, current->gpu)) return leave(ILLEGAL_ADDRESS);
    void *bytes = malloc(n);
    if (!bytes) abort();
    memset(bytes, value, n);
    put(s, (op){.kind = OP_COPY, .to = (void *)(uintptr_t)at, .bytes = bytes, .n_bytes = n, .copy = 2});
    return leave(SUCCESS);
}

EXPORT int cuMemcpyPeerAsync(uint64_t to, context *to_context, uint64_t from, context *from_context, size_t n,
                             stream *s);
EXPORT int cuMemcpyPeerAsync(uint64_t to, context *to_context, uint64_t from, context *from_context, size_t n,
                             stream *s)
{
    ENTER();
    if (!usable(s)) return leave(INVALID_HANDLE);
    if (!on_gpu(to, n, to_context->gpu) || !on_gpu(from, n, from_context->gpu))
        return leave(ILLEGAL_ADDRESS);
    return leave(put_copy(s, (void *)(uintptr_t)to, (void *)(uintptr_t)from, n, 3));
}

EXPORT int cuStreamCreate(stream **out, unsigned flags);
EXPORT int cuStreamCreate(stream **out, unsigned flags)
{
    ENTER();
    if (!current) return leave(INVALID_CONTEXT);
    stream *s = calloc(1, sizeof *s);
    if (!s) return leave(NO_MEMORY);
    s->context = current;
    mock_cuda_left.streams++;
    *out = s;
    return leave(SUCCESS);
}

EXPORT int cuStreamDestroy_v2(stream *s);
EXPORT int cuStreamDestroy_v2(stream *s)
{
    pthread_mutex_lock(&mutex);
    if (s->capturing) any_capture = false;
    free_ops(&s->queue);
    free_ops(&s->captured);
    free(s);
    mock_cuda_left.streams--;
    return leave(SUCCESS);
}

EXPORT int cuStreamSynchronize(stream *s);
EXPORT int cuStreamSynchronize(stream *s)
{
    ENTER();
    if (!usable(s)) return leave(INVALID_HANDLE);
    if (s->capturing) return leave(CAPTURE_UNSUPPORTED);
    mock_cuda_counted.synchronisations++;
    return leave(do_until(s, s->queue.n));
}

EXPORT int cuStreamBeginCapture_v2(stream *s, int mode);
EXPORT int cuStreamBeginCapture_v2(stream *s, int mode)
{
    ENTER();
    if (!usable(s) || s->capturing) return leave(INVALID_HANDLE);
    s->capturing = any_capture = true;
    mock_cuda_counted.captures++;
    return leave(SUCCESS);
}

EXPORT int cuStreamEndCapture(stream *s, graph **out);
EXPORT int cuStreamEndCapture(stream *s, graph **out)
{
    int fails = enter(__func__);
    if (!usable(s) || !s->capturing) return leave(INVALID_HANDLE);
    s->capturing = any_capture = false; /* also when it fails */
    graph *g = calloc(1, sizeof *g);
    if (!g) abort();
    g->ops = s->captured;
    s->captured = (ops){0};
    if (fails) {
        free_ops(&g->ops);
        free(g);
        return leave(fails);
    }
    mock_cuda_left.graphs++;
    *out = g;
    return leave(SUCCESS);
}

EXPORT int cuEventCreate(event **out, unsigned flags);
EXPORT int cuEventCreate(event **out, unsigned flags)
{
    ENTER();
    *out = calloc(1, sizeof **out);
    mock_cuda_left.events++;
    return leave(*out ? SUCCESS : NO_MEMORY);
}

EXPORT int cuEventDestroy_v2(event *e);
EXPORT int cuEventDestroy_v2(event *e)
{
    pthread_mutex_lock(&mutex);
    free(e);
    mock_cuda_left.events--;
    return leave(SUCCESS);
}

EXPORT int cuEventRecord(event *e, stream *s);
EXPORT int cuEventRecord(event *e, stream *s)
{
    ENTER();
    if (!usable(s) || s->capturing) return leave(INVALID_HANDLE);
    *e = (event){s, s->queue.n};
    return leave(SUCCESS);
}

EXPORT int cuStreamWaitEvent(stream *s, event *e, unsigned flags);
EXPORT int cuStreamWaitEvent(stream *s, event *e, unsigned flags)
{
    ENTER();
    if (!usable(s) || s->capturing) return leave(INVALID_HANDLE);
    if (e->stream) put(s, (op){.kind = OP_WAIT, .stream = e->stream, .until = e->after});
    return leave(SUCCESS);
}

EXPORT int cuGraphDestroy(graph *g);
EXPORT int cuGraphDestroy(graph *g)
{
    pthread_mutex_lock(&mutex);
    free_ops(&g->ops);
    free(g);
    mock_cuda_left.graphs--;
    return leave(SUCCESS);
}

EXPORT int cuGraphInstantiateWithFlags(exec **out, graph *g, unsigned long long flags);
EXPORT int cuGraphInstantiateWithFlags(exec **out, graph *g, unsigned long long flags)
{
    ENTER();
    exec *e = calloc(1, sizeof *e);
    if (!e) return leave(NO_MEMORY);
    e->context = current;
    for (size_t i = 0; i < g->ops.n; i++) {
        op what = g->ops.at[i];
        if (what.bytes) what.bytes = copy_of(what.bytes, what.n_bytes);
        add_op(&e->ops, what);
    }
    mock_cuda_left.execs++;
    *out = e;
    return leave(SUCCESS);
}

EXPORT int cuGraphExecDestroy(exec *e);
EXPORT int cuGraphExecDestroy(exec *e)
{
    pthread_mutex_lock(&mutex);
    free_ops(&e->ops);
    free(e);
    mock_cuda_left.execs--;
    return leave(SUCCESS);
}

EXPORT int cuGraphLaunch(exec *e, stream *s);
EXPORT int cuGraphLaunch(exec *e, stream *s)
{
    ENTER();
    if (!usable(s) || e->context != current) return leave(INVALID_HANDLE);
    mock_cuda_counted.graphs++;
    put(s, (op){.kind = OP_EXEC, .exec = e});
    return leave(SUCCESS);
}

EXPORT int cuLaunchKernel(function *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                          unsigned bz, unsigned shared, stream *s, void **parameters, void **extra);
EXPORT int cuLaunchKernel(function *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                          unsigned bz, unsigned shared, stream *s, void **parameters, void **extra)
{
    ENTER();
    if (!usable(s)) return leave(INVALID_HANDLE);
    bool sane = f && gx && gy && gz && gy <= 65535 && gz <= 65535 && bx && by && bz &&
                bx * by * bz <= 1024 && shared <= 48 << 10 && !parameters && extra && extra[0] == (void *)1 &&
                extra[2] == (void *)2 && !extra[4];
    if (!sane) return leave(INVALID_VALUE);
    size_t n = *(const size_t *)extra[3];
    put(s, (op){.kind = OP_KERNEL, .kernel = f, .grid = {gx, gy, gz}, .block = {bx, by, bz},
                .shared = shared, .bytes = copy_of(extra[1], n), .n_bytes = n});
    return leave(SUCCESS);
}
