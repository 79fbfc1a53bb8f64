/* The execution shim: fibers, barriers, exchanges between lanes, shared memory. shim.h says what it is for. */
#include "tests/cuda/shim.h"

#include "engine/cpu/half.h"
#include "tests/cuda/sanitized.h"
#include "tests/cuda/shim_launch.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#if !defined(__x86_64__)
#error "the shim switches stacks by hand, on x86-64"
#endif
#ifdef WEFT_SHIM_RACES /* this file itself is not to be instrumented: its fibers share s */
#define WITH_TSAN
#endif
#ifdef WITH_ASAN
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef WITH_TSAN
#include <sanitizer/tsan_interface.h>
#endif

enum {
    MOST_THREADS = 1024,
    LANES = 32,
    MOST_WARPS = MOST_THREADS / LANES,
    MOST_SHARED = 48 << 10, /* what every launch may have */
    SITES = 64,
    STACK = 256 << 10, /* sanitizers' frames are large */
    WORDS = 8          /* a lane leaves at most this many in an exchange */
};

typedef enum fiber_state { READY, AT_BARRIER, IN_EXCHANGE, ENDED } fiber_state;

typedef struct fiber {
    void *stack_pointer;
    char *stack;
    fiber_state state;
    shim_index thread;
    uint32_t index;
    const shim_site *at;
#ifdef WITH_ASAN
    void *fake_stack;
#endif
#ifdef WITH_TSAN
    void *tsan;
#endif
} fiber;

/* Two banks: a lane may be one exchange ahead of those that still read the last one, not two. */
typedef struct warp {
    uint64_t word[2][WORDS][LANES];
    uint32_t ready, arrived, bank; /* ready, arrived: a bit a lane */
    const shim_site *at;
} warp;

typedef struct shared_piece {
    const char *site;
    void *memory;
} shared_piece;

shim_index shim_thread, shim_block, shim_block_size, shim_grid_size;

static struct {
    fiber fiber[MOST_THREADS];
    warp warp[MOST_WARPS];
    shared_piece piece[SITES];
    uint32_t warp_order[MOST_WARPS];
    uint32_t pieces, threads, running, waiting;
    size_t shared_bytes, rest_bytes;
    void *rest;
    const shim_kernel *kernel;
    const void *args;
    fiber *now;
    void *main_stack_pointer;
    const shim_site *barrier_at;
    uint64_t seed, random;
#ifdef WITH_ASAN
    void *main_fake_stack;
    const void *main_stack;
    size_t main_stack_bytes;
#endif
#ifdef WITH_TSAN
    void *main_tsan;
#endif
} s;

/* ---- ends ---- */

#define DIE(...)                                                                                   \
    do {                                                                                           \
        fprintf(stderr, "shim: weft_cuda_%s, block (%u, %u, %u): ", s.kernel->name, shim_block.x,     \
                shim_block.y, shim_block.z);                                                       \
        fprintf(stderr, __VA_ARGS__);                                                              \
        fputc('\n', stderr);                                                                       \
        abort();                                                                                   \
    } while (0)

/* ---- fibers ---- */

void shim_switch(void **save, void *to);
__asm__(".text\n"
        ".globl shim_switch\n"
        ".type shim_switch, @function\n"
        "shim_switch:\n"
        "    pushq %rbp\n    pushq %rbx\n    pushq %r12\n    pushq %r13\n    pushq %r14\n    pushq %r15\n"
        "    movq %rsp, (%rdi)\n    movq %rsi, %rsp\n"
        "    popq %r15\n    popq %r14\n    popq %r13\n    popq %r12\n    popq %rbx\n    popq %rbp\n"
        "    ret\n"
        ".size shim_switch, .-shim_switch\n");

static void to_main(fiber *f)
{
#ifdef WITH_ASAN
    __sanitizer_start_switch_fiber(f->state == ENDED ? NULL : &f->fake_stack, s.main_stack,
                                   s.main_stack_bytes);
#endif
#ifdef WITH_TSAN
    __tsan_switch_to_fiber(s.main_tsan, __tsan_switch_to_fiber_no_sync);
#endif
    shim_switch(&f->stack_pointer, s.main_stack_pointer);
#ifdef WITH_ASAN
    __sanitizer_finish_switch_fiber(f->fake_stack, &s.main_stack, &s.main_stack_bytes);
#endif
}

static void to_fiber(fiber *f)
{
    s.now = f;
    shim_thread = f->thread;
#ifdef WITH_ASAN
    __sanitizer_start_switch_fiber(&s.main_fake_stack, f->stack, STACK);
#endif
#ifdef WITH_TSAN
    __tsan_switch_to_fiber(f->tsan, __tsan_switch_to_fiber_no_sync);
#endif
    shim_switch(&s.main_stack_pointer, f->stack_pointer);
#ifdef WITH_ASAN
    __sanitizer_finish_switch_fiber(s.main_fake_stack, NULL, NULL);
#endif
}

static void fiber_main(void)
{
    fiber *f = s.now;
#ifdef WITH_ASAN
    __sanitizer_finish_switch_fiber(NULL, &s.main_stack, &s.main_stack_bytes);
#endif
#ifdef WITH_TSAN
    __tsan_acquire(&s.args); /* what was before the launch */
#endif
    s.kernel->call(s.args);
#ifdef WITH_TSAN
    __tsan_release(&s.running);
#endif
    f->state = ENDED;
    s.running--;
    to_main(f);
    abort(); /* never resumed */
}

static void make_ready(fiber *f)
{
    f->state = READY;
    s.warp[f->index / LANES].ready |= UINT32_C(1) << f->index % LANES;
}

static void fiber_start(fiber *f, uint32_t index)
{
    if (!f->stack) {
        f->stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (f->stack == MAP_FAILED) DIE("no memory for the stack of a thread");
    }
    /* What shim_switch pops: six registers, fiber_main, and a word so that the stack is aligned as after a call. */
    void **top = (void **)(void *)(f->stack + STACK);
    *--top = NULL;
    *--top = (void *)(uintptr_t)fiber_main;
    for (int i = 0; i < 6; i++) *--top = NULL;
    f->stack_pointer = top;
    f->index = index;
    f->thread = (shim_index){index % shim_block_size.x, index / shim_block_size.x % shim_block_size.y,
                             index / shim_block_size.x / shim_block_size.y};
#ifdef WITH_TSAN
    f->tsan = __tsan_create_fiber(0);
#endif
    make_ready(f);
}

/* ---- who goes next ---- */

static uint32_t random_below(uint32_t n)
{
    s.random = s.random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((s.random >> 33) % n);
}

/* Numbers 0..n-1 in the order of the seed. */
static void order(uint32_t *list, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) list[i] = s.seed == 1 ? n - 1 - i : i;
    for (uint32_t i = n; s.seed > 1 && i > 1; i--) {
        const uint32_t j = random_below(i), t = list[i - 1];
        list[i - 1] = list[j];
        list[j] = t;
    }
}

/* The first warp in order that can go on, as far as it can: so one is ahead of the others by all that no barrier
 * forbids. -1: none can. */
static int next_fiber(void)
{
    for (uint32_t i = 0; i < s.threads / LANES; i++) {
        warp *w = &s.warp[s.warp_order[i]];
        if (!w->ready) continue;
        uint32_t lane = s.seed == 0 ? 0 : s.seed == 1 ? LANES - 1 : random_below(LANES);
        while (!(w->ready >> lane & 1)) lane = (lane + (s.seed == 1 ? LANES - 1 : 1)) % LANES;
        w->ready &= ~(UINT32_C(1) << lane);
        return (int)(s.warp_order[i] * LANES + lane);
    }
    return -1;
}

/* ---- barriers and exchanges ---- */

static bool same_site(const shim_site *a, const shim_site *b)
{
    return a->line == b->line && strcmp(a->file, b->file) == 0 && strcmp(a->what, b->what) == 0;
}

static void wait_in(fiber_state state, const shim_site *at)
{
    fiber *f = s.now;
    f->state = state;
    f->at = at;
    to_main(f);
    shim_thread = f->thread;
}

void shim_barrier(const shim_site *at)
{
    if (s.waiting == 0) s.barrier_at = at;
    if (!same_site(at, s.barrier_at))
        DIE("thread %u is at the barrier of %s:%d, others wait at %s:%d", s.now->index, at->file,
            at->line, s.barrier_at->file, s.barrier_at->line);
    s.waiting++;
#ifdef WITH_TSAN
    __tsan_release(&s.waiting);
#endif
    if (s.waiting < s.threads) {
        wait_in(AT_BARRIER, at);
    } else {
        s.waiting = 0;
        for (uint32_t i = 0; i < s.threads; i++)
            if (s.fiber[i].state == AT_BARRIER) make_ready(&s.fiber[i]);
        order(s.warp_order, s.threads / LANES);
    }
#ifdef WITH_TSAN
    __tsan_acquire(&s.waiting);
#endif
}

uint32_t shim_lane(void)
{
    return s.now->index % LANES;
}

/* Leaves n words and waits for the warp; the bank in which all of them lie. */
static uint32_t meet(uint32_t mask, const uint64_t *word, int n, const shim_site *at)
{
    fiber *f = s.now;
    warp *w = &s.warp[f->index / LANES];
    const uint32_t lane = f->index % LANES, bank = w->bank;
    if (mask != UINT32_MAX) DIE("%s:%d: %s of a part of the warp", at->file, at->line, at->what);
    if (w->arrived == 0) w->at = at;
    if (!same_site(at, w->at))
        DIE("lane %u of warp %u is in %s at %s:%d, others in %s at %s:%d", lane, f->index / LANES,
            at->what, at->file, at->line, w->at->what, w->at->file, w->at->line);
    for (int i = 0; i < n; i++) w->word[bank][i][lane] = word[i];
    w->arrived |= UINT32_C(1) << lane;
#ifdef WITH_TSAN
    __tsan_release(w);
#endif
    if (w->arrived != UINT32_MAX) {
        wait_in(IN_EXCHANGE, at);
    } else {
        w->arrived = 0;
        w->bank ^= 1;
        for (uint32_t i = f->index - lane; i < f->index - lane + LANES; i++)
            if (s.fiber[i].state == IN_EXCHANGE) make_ready(&s.fiber[i]);
    }
#ifdef WITH_TSAN
    __tsan_acquire(w);
#endif
    return bank;
}

const uint64_t *shim_exchange(uint32_t mask, uint64_t value, const shim_site *at)
{
    const uint32_t bank = meet(mask, &value, 1, at);
    return s.warp[s.now->index / LANES].word[bank][0];
}

/* By the definition of the fragments, sum by sum, 4 columns at once; 16 or 32 columns. */
void shim_mma_s8(int32_t *d, const uint32_t *a, const uint32_t *b, uint32_t columns, const shim_site *at)
{
    const bool whole = columns == 32;
    const uint64_t mine[6] = {a[0], a[1], whole ? a[2] : 0, whole ? a[3] : 0, b[0], whole ? b[1] : 0};
    const uint32_t bank = meet(UINT32_MAX, mine, 6, at), lane = s.now->index % LANES;
    uint64_t(*word)[LANES] = s.warp[s.now->index / LANES].word[bank];
    for (uint32_t i = 0; i < 4; i++) {
        const uint32_t row = lane / 4 + (i < 2 ? 0 : 8), column = lane % 4 * 2 + i % 2;
        for (uint32_t k = 0; k < columns / 4; k++)
            d[i] = __dp4a((int32_t)word[k / 4 * 2 + row / 8][row % 8 * 4 + k % 4],
                          (int32_t)word[4 + k / 4][column * 4 + k % 4], d[i]);
    }
}

float shim_half(uint16_t bits)
{
    return half_to_float(bits);
}

/* ---- shared memory ---- */

static void *shared_new(size_t bytes)
{
    s.shared_bytes += (bytes + 15) / 16 * 16;
    if (s.shared_bytes > MOST_SHARED)
        DIE("%zu bytes of shared memory: at most %d", s.shared_bytes, (int)MOST_SHARED);
    void *p = NULL;
    if (posix_memalign(&p, 16, bytes)) DIE("no memory for %zu shared bytes", bytes);
    memset(p, 0xff, bytes);
#ifdef WITH_TSAN
    __tsan_release(p); /* by the first thread that names it; the others see_shared */
#endif
    return p;
}

static void *see_shared(void *p)
{
#ifdef WITH_TSAN
    __tsan_acquire(p);
#endif
    return p;
}

void *shim_shared(const char *site, size_t bytes)
{
    for (uint32_t i = 0; i < s.pieces; i++)
        if (s.piece[i].site == site) return see_shared(s.piece[i].memory);
    if (s.pieces == SITES) DIE("more than %d shared arrays", (int)SITES);
    s.piece[s.pieces] = (shared_piece){site, shared_new(bytes)};
    return s.piece[s.pieces++].memory;
}

void *shim_shared_rest(void)
{
    if (!s.rest) s.rest = shared_new(s.rest_bytes);
    return see_shared(s.rest);
}

static void drop_shared(void)
{
    for (uint32_t i = 0; i < s.pieces; i++) free(s.piece[i].memory);
    free(s.rest);
    s.rest = NULL;
    s.pieces = 0;
    s.shared_bytes = 0;
}

/* ---- launches ---- */

static void say_stuck(void)
{
    for (uint32_t i = 0; i < s.threads; i++)
        if (s.fiber[i].state != ENDED && s.fiber[i].state != READY)
            DIE("%u threads are left and none can go on; thread %u waits in %s at %s:%d", s.running, i,
                s.fiber[i].at->what, s.fiber[i].at->file, s.fiber[i].at->line);
}

static void run_block(void)
{
    s.running = s.threads;
    s.waiting = 0;
    memset(s.warp, 0, sizeof s.warp);
    order(s.warp_order, s.threads / LANES);
    for (uint32_t i = 0; i < s.threads; i++) fiber_start(&s.fiber[i], i);
    for (int next; (next = next_fiber()) >= 0;) {
        fiber *f = &s.fiber[next];
        to_fiber(f);
        if (f->state == ENDED && s.waiting > 0)
            DIE("thread %u has ended, others wait at %s:%d", f->index, s.barrier_at->file,
                s.barrier_at->line);
    }
    if (s.running > 0) say_stuck();
#ifdef WITH_TSAN
    __tsan_acquire(&s.running);
    for (uint32_t i = 0; i < s.threads; i++) __tsan_destroy_fiber(s.fiber[i].tsan);
#endif
    drop_shared();
}

void weft_shim_order(uint64_t seed)
{
    s.seed = seed;
    s.random = seed;
}

/* What a shared object brings instead, if the environment names one: mutate.py's copies. */
static const shim_kernel *const *replaced(size_t *out_n)
{
    static const shim_kernel *const *list;
    static size_t n;
    const char *path = getenv("WEFT_SHIM_KERNELS");
    if (path && !list) {
        void *object = dlopen(path, RTLD_NOW);
        shim_list_fn function = NULL;
        if (object) *(void **)&function = dlsym(object, "shim_replaced");
        if (!function) {
            fprintf(stderr, "shim: %s\n", dlerror());
            abort();
        }
        list = function(&n);
    }
    *out_n = n;
    return list;
}

static const shim_kernel *find(const char *name)
{
    for (int i = 0; i < 2; i++) {
        size_t n;
        const shim_kernel *const *list = i == 0 ? replaced(&n) : shim_listed(&n);
        for (size_t k = 0; k < n; k++)
            if (strcmp(list[k]->name, name) == 0) return list[k];
    }
    return NULL;
}

static const char *without_prefix(const char *kernel)
{
    static const char prefix[] = "weft_cuda_";
    return strncmp(kernel, prefix, sizeof prefix - 1) == 0 ? kernel + sizeof prefix - 1 : kernel;
}

int weft_shim_has(const char *kernel)
{
    return find(without_prefix(kernel)) != NULL;
}

int weft_shim_launch(const char *kernel, const uint32_t grid[3], const uint32_t block[3], uint32_t shared,
                     const void *args, size_t args_bytes)
{
    const shim_kernel *k = find(without_prefix(kernel));
    const uint64_t threads = (uint64_t)block[0] * block[1] * block[2];
    const uint64_t blocks = (uint64_t)grid[0] * grid[1] * grid[2];
    if (!k || args_bytes != k->args_bytes) {
        fprintf(stderr, "shim: %s: %s\n", kernel, k ? "arguments of another size" : "no such kernel");
        return -1;
    }
    if (threads == 0 || threads > k->most_threads || threads % LANES != 0 || blocks == 0 ||
        blocks > UINT32_MAX || grid[1] > 65535 || grid[2] > 65535) {
        fprintf(stderr, "shim: %s: %u x %u x %u blocks of %llu threads, of which it takes %u\n", kernel,
                grid[0], grid[1], grid[2], (unsigned long long)threads, k->most_threads);
        return -1;
    }
    uint32_t *list = malloc(blocks * sizeof *list);
    if (!list) {
        fprintf(stderr, "shim: no memory for a list of %llu blocks\n", (unsigned long long)blocks);
        return -1;
    }
    s.kernel = k;
    s.args = args;
    s.threads = (uint32_t)threads;
    s.rest_bytes = shared;
    shim_grid_size = (shim_index){grid[0], grid[1], grid[2]};
    shim_block_size = (shim_index){block[0], block[1], block[2]};
#ifdef WITH_TSAN
    s.main_tsan = __tsan_get_current_fiber();
    __tsan_release(&s.args);
#endif
    order(list, (uint32_t)blocks);
    for (uint64_t i = 0; i < blocks; i++) {
        shim_block = (shim_index){list[i] % grid[0], list[i] / grid[0] % grid[1],
                                  list[i] / grid[0] / grid[1]};
        run_block();
    }
    free(list);
    return 0;
}
