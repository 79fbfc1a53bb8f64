/* A CUDA device of the CPU's, for tests: what the kernels in engine/cuda are compiled with there.
 *
 * A thread block runs at a time; each of its threads is a fiber, which runs until it waits for the others. The first
 * warp in an order goes as far as barriers let it before the next one starts; the order of warps, lanes and blocks is
 * ascending, descending or drawn from a seed, so that what no barrier orders is seen in more than one order. Shared memory is allocated for each block anew, to the byte, and filled with NaN
 * (integers: -1): AddressSanitizer sees what reaches beyond it, and what was never written spoils a result. The
 * shim ends the program, with what and where, when the threads of a block wait at different barriers,
 * those of a warp meet in different operations, one leaves while others wait, or a launch is not what the
 * kernel was made for. Under ThreadSanitizer each fiber counts as a thread and only barriers order them: it then
 * reports every pair of accesses that lack one.
 *
 * Not modelled: the speed, the memory's size, weak ordering between blocks (no kernel here communicates between
 * blocks of a launch).
 */
#ifndef WEFT_TESTS_CUDA_SHIM_H
#define WEFT_TESTS_CUDA_SHIM_H

#define WEFT_CUDA_SHIM

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* ---- the words of engine/cuda/device.cuh ---- */

typedef struct shim_kernel {
    const char *name;
    void (*call)(const void *args);
    size_t args_bytes;
    uint32_t most_threads;
} shim_kernel;

/* A kernel puts itself on the list of its program or shared object. */
#define KERNEL(name, threads, args)                                                                \
    static void weft_cuda_##name(const args a);                                                    \
    static void call_##name(const void *p)                                                         \
    {                                                                                              \
        weft_cuda_##name(*(const args *)p);                                                        \
    }                                                                                              \
    static const shim_kernel kernel_##name = {#name, call_##name, sizeof(args), threads};          \
    static const shim_kernel *const listed_##name                                                  \
        __attribute__((used, section("shim_kernels"))) = &kernel_##name;                           \
    static void weft_cuda_##name(const args a)
/* Defines the list's function, once in a program (shim_listed) or shared object (shim_replaced). */
#define SHIM_LIST(function)                                                                        \
    extern const shim_kernel *const __start_shim_kernels[] __attribute__((visibility("hidden")));  \
    extern const shim_kernel *const __stop_shim_kernels[] __attribute__((visibility("hidden")));   \
    const shim_kernel *const *function(size_t *out_n)                                              \
    {                                                                                              \
        *out_n = (size_t)(__stop_shim_kernels - __start_shim_kernels);                             \
        return __start_shim_kernels;                                                               \
    }
typedef const shim_kernel *const *(*shim_list_fn)(size_t *out_n);
const shim_kernel *const *shim_listed(size_t *out_n);
const shim_kernel *const *shim_replaced(size_t *out_n);

#define KERNEL_BLOCKS(name, threads, blocks, args) KERNEL(name, threads, args)
#define INLINE static inline __attribute__((always_inline))
#define TABLE static const
#define GATHERED static const
#define UNROLL
#define NO_UNROLL
#define UNROLL4
#define SHARED(type, name, count)                                                                  \
    static const char name##_site;                                                                 \
    type *const name = (type *)shim_shared(&name##_site, sizeof(type) * (count))
#define SHARED_REST(type, name) type *const name = (type *)shim_shared_rest()
#define HALF_TO_FLOAT(out, bits) ((out) = shim_half(bits))
#define MMA_S8(d, a, b) shim_mma_s8(d, a, b, 32, SHIM_AT("MMA_S8"))
#define MMA_S8_HALF(d, a, b) shim_mma_s8(d, a, b, 16, SHIM_AT("MMA_S8_HALF"))

typedef struct shim_index {
    uint32_t x, y, z;
} shim_index;
extern shim_index shim_thread, shim_block, shim_block_size, shim_grid_size;
#define threadIdx shim_thread
#define blockIdx shim_block
#define blockDim shim_block_size
#define gridDim shim_grid_size

typedef struct {
    uint32_t x, y;
} __attribute__((aligned(8))) uint2;
typedef struct {
    uint32_t x, y, z, w;
} __attribute__((aligned(16))) uint4;
typedef struct {
    float x, y;
} __attribute__((aligned(8))) float2;
typedef struct {
    float x, y, z, w;
} __attribute__((aligned(16))) float4;

/* Where a thread waits. */
typedef struct shim_site {
    const char *what, *file;
    int line;
} shim_site;
#define SHIM_AT(what) (&(const shim_site){what, __FILE__, __LINE__})

void shim_barrier(const shim_site *at);
/* Leaves `value` for the other lanes and waits for theirs: what they left, in 32 places. */
const uint64_t *shim_exchange(uint32_t mask, uint64_t value, const shim_site *at);
void shim_mma_s8(int32_t *d, const uint32_t *a, const uint32_t *b, uint32_t columns, const shim_site *at);
void *shim_shared(const char *site, size_t bytes);
void *shim_shared_rest(void);
float shim_half(uint16_t bits);
uint32_t shim_lane(void);

#define __syncthreads() shim_barrier(SHIM_AT("__syncthreads"))
#define __syncwarp() ((void)shim_exchange(0xffffffff, 0, SHIM_AT("__syncwarp")))
#define __ballot_sync(mask, p) shim_ballot(mask, p, SHIM_AT("__ballot_sync"))
#define SHIM_SHUFFLE(mask, v, from, at)                                                            \
    _Generic((v), float: shim_shuffle_float, int32_t: shim_shuffle_int, uint32_t: shim_shuffle_uint,   \
             uint64_t: shim_shuffle_wide, double: shim_shuffle_double)(mask, v, from, at)
#define __shfl_sync(mask, v, lane) SHIM_SHUFFLE(mask, v, (uint32_t)(lane) % 32, SHIM_AT("__shfl_sync"))
#define __shfl_xor_sync(mask, v, o)                                                                \
    SHIM_SHUFFLE(mask, v, shim_lane() ^ (uint32_t)(o), SHIM_AT("__shfl_xor_sync"))
/* The lanes below (above) which there is none keep their own. */
#define __shfl_up_sync(mask, v, o)                                                                 \
    SHIM_SHUFFLE(mask, v, shim_lane() < (uint32_t)(o) ? shim_lane() : shim_lane() - (uint32_t)(o), \
                 SHIM_AT("__shfl_up_sync"))
#define __shfl_down_sync(mask, v, o)                                                               \
    SHIM_SHUFFLE(mask, v, shim_lane() + (uint32_t)(o) > 31 ? shim_lane() : shim_lane() + (uint32_t)(o), \
                 SHIM_AT("__shfl_down_sync"))

static inline uint32_t shim_ballot(uint32_t mask, int p, const shim_site *at)
{
    uint32_t out = 0;
    const uint64_t *lane = shim_exchange(mask, p != 0, at);
    for (int i = 0; i < 32; i++) out |= (uint32_t)lane[i] << i;
    return out;
}

#define SHIM_SHUFFLE_OF(name, type)                                                                \
    static inline type shim_shuffle_##name(uint32_t mask, type v, uint32_t from, const shim_site *at) \
    {                                                                                              \
        uint64_t bits = 0;                                                                         \
        memcpy(&bits, &v, sizeof v);                                                               \
        bits = shim_exchange(mask, bits, at)[from];                                                \
        memcpy(&v, &bits, sizeof v);                                                               \
        return v;                                                                                  \
    }
SHIM_SHUFFLE_OF(float, float)
SHIM_SHUFFLE_OF(int, int32_t)
SHIM_SHUFFLE_OF(uint, uint32_t)
SHIM_SHUFFLE_OF(wide, uint64_t)
SHIM_SHUFFLE_OF(double, double)

/* Fibers do not interrupt each other, so nothing else is needed; ThreadSanitizer wants it said. */
static inline uint32_t shim_atomic_add(uint32_t *p, uint32_t v)
{
    return __atomic_fetch_add(p, v, __ATOMIC_RELAXED);
}
#define atomicAdd(p, v) shim_atomic_add(p, v)

static inline int32_t __dp4a(int32_t a, int32_t b, int32_t c)
{
    for (int i = 0; i < 32; i += 8) c += (int8_t)(a >> i) * (int8_t)(b >> i);
    return c;
}

/* Byte i of the result is the byte of y:x that nibble i of s names, by its low 3 bits. */
static inline uint32_t __byte_perm(uint32_t x, uint32_t y, uint32_t s)
{
    const uint64_t from = (uint64_t)y << 32 | x;
    uint32_t out = 0;
    for (int i = 0; i < 4; i++) out |= (uint32_t)(uint8_t)(from >> 8 * (s >> 4 * i & 7)) << 8 * i;
    return out;
}

static inline int __popc(uint32_t v)
{
    return __builtin_popcount(v);
}

#endif
