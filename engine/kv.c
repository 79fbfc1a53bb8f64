/* The pages of one timeline: files of a directory, mapped into one range of addresses.
 *
 *     kv.state     lock, and two counters (kv_file below)
 *     <name>.kv    a sealed page (kv_page.h), mode 0400, perhaps with links elsewhere
 *     open-<page>  a page that is not complete; sealed in place when the timeline is closed
 *
 *     base     page 0          page 1          page 2          ...
 *      +-------+-------+-------+-------+-------+-------+-------+------------------
 *      | head  | bytes         | head  | bytes         | head  | bytes   | nothing yet
 *      +-------+-------+-------+-------+-------+-------+-------+------------------
 *       sealed: read-only       sealed                  open: read and write
 *
 * The range is reserved once, up to the longest context, without memory behind it; each page file
 * is mapped over its part. So addresses never move, and a page is one allocation on disk, made
 * (posix_fallocate) before it is touched: a full disk is an error code and not a SIGBUS. A sealed
 * file has its full size when it is mapped and nobody shortens it later: it is never opened for
 * writing again, and its mode says so.
 *
 * Crashes. The page cache outlives the process, so after kill -9 the files show some prefix of our
 * stores: a header is sealed after its checksum, a page gets its name after its header. After a
 * power loss anything may be torn: the checksum says so. Nothing is synced: the files are a cache.
 *
 * When every id was restored, its last position is computed again for its logits. If that lies in
 * a sealed page, the page is mapped copy-on-write: the same bits are written, and no file changes.
 *
 * A device has pages of its own with the same bytes (weft_device_ops). Ours are read where it has none yet,
 * and are brought up to date before a page is sealed or copied; in between they may be older.
 */
#include "engine/kv_page.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    CHECK_THREADS = 8, /* most, to check pages with */
    CHECK_PAGES = 4    /* fewer are checked by the caller alone */
};

typedef enum page_state {
    PAGE_NONE,   /* nothing is mapped */
    PAGE_FOUND,  /* a sealed file with the right claim is mapped; not checked yet */
    PAGE_BAD,    /* checked: damaged */
    PAGE_OPEN,   /* open-<page> is mapped for writing */
    PAGE_SEALED, /* checked or written here; not to be written */
    PAGE_PRIVATE /* sealed, mapped copy-on-write */
} page_state;

typedef struct kv_file {
    char magic[8]; /* "weft-ks\n" */
    uint32_t version, reserved;
    kv_name root; /* of the pages that the counters count */
    _Atomic uint64_t evaluated, shared;
} kv_file;

_Static_assert(offsetof(kv_file, root) == 16 && offsetof(kv_file, evaluated) == 48 &&
                   sizeof(kv_file) == 64,
               "kv_file is a disk format");
_Static_assert(ATOMIC_LONG_LOCK_FREE == 2, "atomics live in a file");

struct weft_kv {
    char *dir;     /* NULL: memory only */
    int dir_fd;    /* -1: memory only */
    int state_fd;  /* locked */
    kv_file *file; /* mapped, or of our own in memory-only mode */
    kv_file own;
    kv_prefix *prefix; /* or NULL */
    uint8_t *base;     /* the range */
    size_t mapped_bytes;
    size_t page_bytes; /* used part of a page */
    size_t stride;     /* header + page, rounded: size of a page file */
    void **page;       /* [max_pages] */
    uint8_t *state;    /* [max_pages] page_state */
    bool *foreign;     /* [max_pages] came from elsewhere, through this object */
    kv_name root, *name; /* [max_pages], of sealed pages */
    int64_t max_pages;
    int64_t n_sealed;  /* pages 0 .. n_sealed - 1 are sealed for the current ids */
    int64_t inherited; /* positions that weft_kv_inherit brought */
    const weft_device_ops *device; /* with twin */
    weft_kv_twin *twin;            /* of pages that a device computes, or NULL */
};

static kv_head *head_of(const weft_kv *kv, int64_t page)
{
    return (kv_head *)(void *)(kv->base + (size_t)page * kv->stride);
}

static const kv_name *name_before(const weft_kv *kv, int64_t page)
{
    return page > 0 ? &kv->name[page - 1] : &kv->root;
}

/* ---- opening ---- */

size_t weft_kv_file_bytes(const weft_kv_layout *layout)
{
    return KV_ALIGN + (weft_kv_page_bytes(layout) + KV_ALIGN - 1) / KV_ALIGN * KV_ALIGN;
}

/* Sizes, all products checked: the layout comes from a model file. */
static weft_status measure(weft_kv *kv, const weft_kv_layout *layout, int64_t max_positions,
                           weft_error *err)
{
    kv->page_bytes = weft_kv_page_bytes(layout);
    kv->max_pages = (max_positions + WEFT_PAGE - 1) / WEFT_PAGE;
    if (kv->page_bytes == 0 || kv->page_bytes > ((size_t)1 << 40) || kv->max_pages <= 0)
        return weft_fail(err, WEFT_E_MODEL, "KV layout: a page of %zu bytes is out of range",
                         kv->page_bytes);
    kv->stride = weft_kv_file_bytes(layout);
    if (weft_size_mul(kv->stride, (size_t)kv->max_pages, &kv->mapped_bytes) ||
        kv->mapped_bytes > (size_t)PTRDIFF_MAX)
        return weft_fail(err, WEFT_E_LIMIT,
                         "KV of %lld tokens: too large to map; use a smaller context",
                         (long long)max_positions);
    kv->page = malloc((size_t)kv->max_pages * sizeof *kv->page);
    kv->state = calloc((size_t)kv->max_pages, sizeof *kv->state);
    kv->foreign = calloc((size_t)kv->max_pages, sizeof *kv->foreign);
    kv->name = calloc((size_t)kv->max_pages, sizeof *kv->name);
    if (!kv->page || !kv->state || !kv->foreign || !kv->name)
        return weft_fail(err, WEFT_E_MEMORY, "KV page table: out of memory");
    return WEFT_OK;
}

/* The lock and the counters. Counts of another model's pages are not ours. */
static weft_status open_state(weft_kv *kv, weft_error *err)
{
    const char *dir = kv->dir;
    kv->state_fd =
        openat(kv->dir_fd, "kv.state", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (kv->state_fd < 0) return weft_fail_errno(err, WEFT_E_STORAGE, "open %s/kv.state", dir);
    if (flock(kv->state_fd, LOCK_EX | LOCK_NB) != 0)
        return errno == EWOULDBLOCK
                   ? weft_fail(err, WEFT_E_STORAGE,
                               "lock %s: another process works on this timeline; wait for it or "
                               "stop it",
                               dir)
                   : weft_fail_errno(err, WEFT_E_STORAGE, "lock %s", dir);
    int e = kv_allocate(kv->state_fd, KV_ALIGN);
    if (e != 0) {
        errno = e;
        return weft_fail_errno(err, WEFT_E_STORAGE, "write %s/kv.state", dir);
    }
    void *at = mmap(NULL, KV_ALIGN, PROT_READ | PROT_WRITE, MAP_SHARED, kv->state_fd, 0);
    if (at == MAP_FAILED) return weft_fail_errno(err, WEFT_E_STORAGE, "map %s/kv.state", dir);
    kv->file = at;
    if (memcmp(kv->file, &kv->own, offsetof(kv_file, evaluated)) != 0)
        memcpy(kv->file, &kv->own, sizeof kv->own);
    return WEFT_OK;
}

static weft_status open_directory(weft_kv *kv, const char *dir, weft_error *err)
{
    weft_status status = weft_mkdirs(dir, err);
    if (status) return status;
    kv->dir = strdup(dir);
    if (!kv->dir) return weft_fail(err, WEFT_E_MEMORY, "KV: out of memory");
    kv->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (kv->dir_fd < 0) return weft_fail_errno(err, WEFT_E_STORAGE, "open %s", dir);
    status = open_state(kv, err);
    if (status) return status;
    unlinkat(kv->dir_fd, "pages.kv", 0); /* the one file of weft 0.1: of no use, and large */
    void *base = mmap(NULL, kv->mapped_bytes, PROT_NONE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED)
        return weft_fail_errno(err, WEFT_E_MEMORY, "KV of %zu bytes", kv->mapped_bytes);
    kv->base = base;
    return WEFT_OK;
}

weft_status weft_kv_open(weft_kv **out, const char *dir, const weft_kv_layout *layout,
                         const uint8_t identity[WEFT_DIGEST_BYTES], int64_t max_positions,
                         weft_error *err)
{
    static const char magic[8] = {'w', 'e', 'f', 't', '-', 'k', 's', '\n'};
    weft_kv *kv = calloc(1, sizeof *kv);
    if (!kv) return weft_fail(err, WEFT_E_MEMORY, "KV: out of memory");
    kv->dir_fd = kv->state_fd = -1;
    weft_status status = measure(kv, layout, max_positions, err);
    if (status) goto done;
    kv_name_root(layout, identity, &kv->root);
    memcpy(kv->own.magic, magic, sizeof magic);
    kv->own.version = KV_VERSION;
    kv->own.root = kv->root;
    kv->file = &kv->own;
    if (dir) {
        status = open_directory(kv, dir, err);
        if (status) goto done;
    } else {
        void *base = mmap(NULL, kv->mapped_bytes, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (base == MAP_FAILED) {
            status = weft_fail_errno(err, WEFT_E_MEMORY, "KV of %zu bytes", kv->mapped_bytes);
            goto done;
        }
        kv->base = base;
    }
    for (int64_t p = 0; p < kv->max_pages; p++)
        kv->page[p] = kv->base + (size_t)p * kv->stride + KV_ALIGN;
    *out = kv;
    kv = NULL;
done:
    weft_kv_close(kv, 0);
    return status;
}

weft_status weft_kv_attach(weft_kv *kv, const weft_device_ops *device, weft_backend *backend,
                           weft_error *err)
{
    assert(!kv->twin);
    kv->device = device;
    return device->pages_new(backend, kv->page, kv->max_pages, &kv->twin, err);
}

/* The device's bytes of page p, if they are newer than ours. */
static weft_status fetch(const weft_kv *kv, int64_t p, weft_error *err)
{
    return kv->twin ? kv->device->page_fetch(kv->twin, p, err) : WEFT_OK;
}

static void forget(const weft_kv *kv, int64_t p)
{
    if (kv->twin) kv->device->page_forget(kv->twin, p);
}

void weft_kv_close(weft_kv *kv, int64_t n)
{
    if (!kv) return;
    char file[KV_FILE_BYTES];
    if (kv->twin) kv->device->pages_free(kv->twin);
    for (int64_t p = (n + WEFT_PAGE - 1) / WEFT_PAGE; kv->base && p < kv->max_pages; p++) {
        if (kv->state[p] != PAGE_OPEN) continue;
        kv_open_file(p, file);
        unlinkat(kv->dir_fd, file, 0);
    }
    if (kv->base) munmap(kv->base, kv->mapped_bytes);
    if (kv->file && kv->file != &kv->own) munmap(kv->file, KV_ALIGN);
    if (kv->state_fd >= 0) close(kv->state_fd);
    if (kv->dir_fd >= 0) close(kv->dir_fd);
    kv_prefix_close(kv->prefix);
    free(kv->dir);
    free(kv->page);
    free(kv->state);
    free(kv->foreign);
    free(kv->name);
    free(kv);
}

void weft_kv_share(weft_kv *kv, const char *prefix_dir)
{
    if (kv->dir && !kv->prefix) kv->prefix = kv_prefix_open(prefix_dir);
}

/* ---- finding pages ---- */

/* Puts a file over page p's addresses; protection and flags as for mmap. */
static bool map_file(weft_kv *kv, int64_t p, const char *file, int mode, int protection, int flags)
{
    struct stat st;
    int fd = openat(kv->dir_fd, file, mode | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) return false;
    bool whole = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && (size_t)st.st_size == kv->stride;
    if (!whole) errno = EINVAL;
    void *at = whole ? mmap(head_of(kv, p), kv->stride, protection, flags | MAP_FIXED, fd, 0)
                     : MAP_FAILED;
    int saved = errno;
    close(fd);
    errno = saved;
    return at != MAP_FAILED;
}

/* The addresses stay reserved. Should even that fail, the old mapping stays, which is harmless. */
static void unmap_page(weft_kv *kv, int64_t p)
{
    if (mmap(head_of(kv, p), kv->stride, PROT_NONE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
        errno = 0;
    kv->state[p] = PAGE_NONE;
    forget(kv, p);
}

/* Maps <name>.kv of our own directory if its header claims that name. */
static bool map_sealed(weft_kv *kv, int64_t p, const char *file)
{
    if (!map_file(kv, p, file, O_RDONLY, PROT_READ, MAP_SHARED)) return false;
    kv->state[p] = PAGE_FOUND;
    if (kv_head_claims(head_of(kv, p), &kv->name[p], WEFT_PAGE, kv->page_bytes)) return true;
    unmap_page(kv, p);
    errno = EINVAL;
    return false;
}

/* A kill between the header and the name leaves a page that is complete under its open name. */
static bool finish_open(weft_kv *kv, int64_t p, const char *file)
{
    char open_file[KV_FILE_BYTES];
    kv_open_file(p, open_file);
    if (!map_file(kv, p, open_file, O_RDONLY, PROT_READ, MAP_SHARED)) return false;
    bool complete = kv_head_claims(head_of(kv, p), &kv->name[p], WEFT_PAGE, kv->page_bytes);
    unmap_page(kv, p);
    return complete && fchmodat(kv->dir_fd, open_file, 0400, 0) == 0 &&
           renameat(kv->dir_fd, open_file, kv->dir_fd, file) == 0;
}

/* Looks for the complete page p of these ids: here, then in the store; a file that cannot be it is
 * removed on the way. */
static bool find_page(weft_kv *kv, int64_t p, const int32_t *ids)
{
    char file[KV_FILE_BYTES];
    kv_name_next(name_before(kv, p), ids + p * WEFT_PAGE, WEFT_PAGE, &kv->name[p]);
    kv_sealed_file(&kv->name[p], file);
    if ((p + 1) * WEFT_PAGE <= kv->inherited) kv->foreign[p] = true;
    if (map_sealed(kv, p, file)) return true;
    if (errno != ENOENT)
        unlinkat(kv->dir_fd, file, 0);
    else if (finish_open(kv, p, file))
        return map_sealed(kv, p, file);
    if (!kv->prefix || !kv_prefix_take(kv->prefix, file, kv->dir_fd, kv->stride)) return false;
    kv->foreign[p] = true;
    if (map_sealed(kv, p, file)) return true;
    unlinkat(kv->dir_fd, file, 0);
    kv_prefix_drop(kv->prefix, file);
    return false;
}

/* A damaged page is forgotten; the store may have another file under its name, which is tried. */
static bool find_again(weft_kv *kv, int64_t p, const int32_t *ids)
{
    char file[KV_FILE_BYTES];
    kv_sealed_file(&kv->name[p], file);
    for (int left = 2; left > 0; left--) {
        unmap_page(kv, p);
        unlinkat(kv->dir_fd, file, 0);
        if (left == 1) break;
        if (find_page(kv, p, ids) && kv_head_holds(head_of(kv, p))) return true;
        if (kv->prefix) kv_prefix_drop(kv->prefix, file);
    }
    return false;
}

/* ---- checking pages ---- */

typedef struct check {
    weft_kv *kv;
    _Atomic int64_t next;
    int64_t end;
} check;

/* Reading goes at the speed of memory from huge stretches of the page cache, so the page tables are
 * filled by one call a page and not by a fault every 64 KiB. */
static void *check_pages(void *context)
{
    check *c = context;
    for (int64_t p; (p = atomic_fetch_add(&c->next, 1)) < c->end;) {
        bool readable = madvise(head_of(c->kv, p), c->kv->stride, MADV_POPULATE_READ) == 0 ||
                        errno == EINVAL; /* an older kernel: faults do it */
        c->kv->state[p] =
            readable && kv_head_holds(head_of(c->kv, p)) ? PAGE_SEALED : PAGE_BAD;
    }
    return NULL;
}

static void check_range(weft_kv *kv, int64_t from, int64_t to)
{
    check c = {.kv = kv, .next = from, .end = to};
    pthread_t thread[CHECK_THREADS];
    cpu_set_t cpus;
    int n = 0, most = sched_getaffinity(0, sizeof cpus, &cpus) == 0 ? CPU_COUNT(&cpus) : 1;
    if (most > CHECK_THREADS) most = CHECK_THREADS;
    if (to - from < CHECK_PAGES) most = 1;
    while (n < most - 1 && pthread_create(&thread[n], NULL, check_pages, &c) == 0) n++;
    check_pages(&c);
    while (n > 0) pthread_join(thread[--n], NULL);
}

/* The last, incomplete page, if it was sealed for exactly these ids. */
static int64_t restore_partial(weft_kv *kv, int64_t p, const int32_t *ids, int64_t n)
{
    char file[KV_FILE_BYTES];
    kv_name name;
    if (p >= kv->max_pages || kv->state[p] != PAGE_NONE) return 0;
    kv_open_file(p, file);
    if (!map_file(kv, p, file, O_RDWR, PROT_READ | PROT_WRITE, MAP_SHARED)) return 0;
    const kv_head *h = head_of(kv, p);
    uint32_t n_valid = h->n_valid;
    bool fits = n_valid >= 1 && n_valid < WEFT_PAGE && p * WEFT_PAGE + n_valid <= n;
    if (fits) kv_name_next(name_before(kv, p), ids + p * WEFT_PAGE, n_valid, &name);
    if (!fits || !kv_head_claims(h, &name, n_valid, kv->page_bytes) || !kv_head_holds(h)) {
        unmap_page(kv, p); /* not ours to remove: who only looks, with fewer ids, keeps it */
        return 0;
    }
    kv->state[p] = PAGE_OPEN;
    return n_valid;
}

int64_t weft_kv_restore(weft_kv *kv, const int32_t *ids, int64_t from, int64_t n)
{
    int64_t first = from / WEFT_PAGE, end = first, p = first, shared = 0;
    assert(from % WEFT_PAGE == 0 && n <= kv->max_pages * WEFT_PAGE);
    if (!kv->dir || kv->n_sealed != first) return from;
    while ((end + 1) * WEFT_PAGE <= n && kv->state[end] == PAGE_NONE && find_page(kv, end, ids))
        end++;
    check_range(kv, first, end);
    for (; p < end && (kv->state[p] == PAGE_SEALED || find_again(kv, p, ids)); p++) {
        kv->state[p] = PAGE_SEALED;
        if (kv->foreign[p]) shared += WEFT_PAGE;
    }
    for (int64_t q = p; q < end; q++) /* sound or not, they stand behind a gap */
        if (kv->state[q] != PAGE_NONE) unmap_page(kv, q);
    kv->n_sealed = p;
    int64_t rest = restore_partial(kv, p, ids, n), valid = p * WEFT_PAGE + rest;
    if (valid <= kv->inherited) shared += rest;
    kv->inherited = 0;
    weft_kv_count(kv, 0, shared);
    return valid;
}

/* ---- pages of others ---- */

/* Part of another run's page as our open one: the same bytes, a shorter claim. */
static void inherit_partial(weft_kv *kv, int from_dir, const char *from, const int32_t *from_ids,
                            const kv_name *claimed, uint32_t n_claimed, int64_t n)
{
    int64_t p = n / WEFT_PAGE;
    char file[KV_FILE_BYTES];
    kv_name name;
    kv_open_file(p, file);
    if (!kv_copy_file(from_dir, from, kv->dir_fd, file, kv->stride, 0600)) return;
    bool kept = false;
    if (map_file(kv, p, file, O_RDWR, PROT_READ | PROT_WRITE, MAP_SHARED)) {
        kv_head *h = head_of(kv, p);
        kept = kv_head_claims(h, claimed, n_claimed, kv->page_bytes) && kv_head_holds(h);
        kv_name_next(name_before(kv, p), from_ids + p * WEFT_PAGE, (uint32_t)(n % WEFT_PAGE),
                     &name);
        if (kept) kv_head_seal(h, &name, (uint32_t)(n % WEFT_PAGE));
        unmap_page(kv, p);
    }
    if (!kept) unlinkat(kv->dir_fd, file, 0);
}

void weft_kv_inherit(weft_kv *kv, const char *from_dir, const int32_t *from_ids, int64_t n_from,
                     int64_t n)
{
    int dir = kv->dir ? open(from_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (dir < 0) return;
    assert(n <= n_from && n <= kv->max_pages * WEFT_PAGE && kv->n_sealed == 0);
    char file[KV_FILE_BYTES];
    kv_name claimed;
    int64_t p = 0;
    for (; (p + 1) * WEFT_PAGE <= n; p++) {
        kv_name_next(name_before(kv, p), from_ids + p * WEFT_PAGE, WEFT_PAGE, &kv->name[p]);
        kv_sealed_file(&kv->name[p], file);
        if (linkat(dir, file, kv->dir_fd, file, 0) == 0 || errno == EEXIST || errno == ENOENT)
            continue;
        kv_copy_file(dir, file, kv->dir_fd, file, kv->stride, 0400);
    }
    int64_t rest = n_from - p * WEFT_PAGE;
    if (n % WEFT_PAGE && rest >= WEFT_PAGE) {
        kv_name_next(name_before(kv, p), from_ids + p * WEFT_PAGE, WEFT_PAGE, &claimed);
        kv_sealed_file(&claimed, file);
        inherit_partial(kv, dir, file, from_ids, &claimed, WEFT_PAGE, n);
    } else if (n % WEFT_PAGE) {
        kv_name_next(name_before(kv, p), from_ids + p * WEFT_PAGE, (uint32_t)rest, &claimed);
        kv_open_file(p, file);
        inherit_partial(kv, dir, file, from_ids, &claimed, (uint32_t)rest, n);
    }
    close(dir);
    kv->inherited = n;
}

weft_status weft_kv_copy(weft_kv *kv, const weft_kv *source, int64_t from, int64_t n,
                         weft_error *err)
{
    if (from >= n) return WEFT_OK;
    assert(kv->stride == source->stride);
    weft_status status = weft_kv_begin(kv, from, n - from, err);
    for (int64_t p = from / WEFT_PAGE; !status && p * WEFT_PAGE < n; p++) {
        status = fetch(source, p, err);
        if (status) return status;
        memcpy(kv->page[p], source->page[p], kv->page_bytes);
        forget(kv, p);
    }
    if (!status) weft_kv_count(kv, 0, n - from);
    return status;
}

/* ---- writing ---- */

static weft_status create_page(weft_kv *kv, int64_t p, weft_error *err)
{
    char file[KV_FILE_BYTES];
    kv_open_file(p, file);
    unlinkat(kv->dir_fd, file, 0); /* of an earlier process, for other ids */
    int fd = openat(kv->dir_fd, file, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    int e = fd < 0 ? errno : kv_allocate(fd, kv->stride);
    if (e == 0 && mmap(head_of(kv, p), kv->stride, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
                       fd, 0) == MAP_FAILED)
        e = errno;
    if (fd >= 0) close(fd);
    if (e != 0) {
        unlinkat(kv->dir_fd, file, 0);
        errno = e;
        return weft_fail_errno(err, WEFT_E_STORAGE,
                               "KV file: no space for page %lld of %zu bytes; free some disk space "
                               "and resume",
                               (long long)p, kv->stride);
    }
    kv_head_init(head_of(kv, p), kv->page_bytes);
    kv->state[p] = PAGE_OPEN;
    return WEFT_OK;
}

static weft_status make_private(weft_kv *kv, int64_t p, weft_error *err)
{
    char file[KV_FILE_BYTES];
    kv_sealed_file(&kv->name[p], file);
    if (!map_file(kv, p, file, O_RDONLY, PROT_READ | PROT_WRITE, MAP_PRIVATE))
        return weft_fail_errno(err, WEFT_E_STORAGE, "KV page %s/%s: it is gone; resume the run",
                               kv->dir, file);
    kv->state[p] = PAGE_PRIVATE;
    return WEFT_OK;
}

weft_status weft_kv_begin(weft_kv *kv, int64_t from, int64_t n, weft_error *err)
{
    int64_t first = from / WEFT_PAGE, last = (from + n - 1) / WEFT_PAGE;
    assert(from >= 0 && n > 0 && last < kv->max_pages);
    if (!kv->dir) return WEFT_OK;
    weft_status status = WEFT_OK;
    for (int64_t p = first; p <= last && !status; p++) {
        if (kv->state[p] == PAGE_NONE)
            status = create_page(kv, p, err);
        else if (kv->state[p] == PAGE_SEALED)
            status = make_private(kv, p, err);
        else if (kv->state[p] == PAGE_OPEN)
            atomic_store(&head_of(kv, p)->state, KV_OPEN);
    }
    return status;
}

static weft_status seal_page(weft_kv *kv, int64_t p, const int32_t *ids, weft_error *err)
{
    char file[KV_FILE_BYTES], open_file[KV_FILE_BYTES];
    if (WEFT_FAULT_POINT("kv.page"))
        return weft_fail(err, WEFT_E_STORAGE, "KV page %lld: sealing failed (fault injected)",
                         (long long)p);
    weft_status status = fetch(kv, p, err);
    if (status) return status;
    kv_name_next(name_before(kv, p), ids + p * WEFT_PAGE, WEFT_PAGE, &kv->name[p]);
    kv_head_seal(head_of(kv, p), &kv->name[p], WEFT_PAGE);
    (void)WEFT_FAULT_POINT("kv.sealed");
    kv_open_file(p, open_file);
    kv_sealed_file(&kv->name[p], file);
    if (fchmodat(kv->dir_fd, open_file, 0400, 0) != 0 ||
        renameat(kv->dir_fd, open_file, kv->dir_fd, file) != 0)
        return weft_fail_errno(err, WEFT_E_STORAGE, "KV page: name %s/%s; resume the run", kv->dir,
                               file);
    mprotect(head_of(kv, p), kv->stride, PROT_READ); /* a stray store shows at once */
    kv->state[p] = PAGE_SEALED;
    if (kv->prefix) kv_prefix_put(kv->prefix, file, kv->dir_fd);
    return WEFT_OK;
}

weft_status weft_kv_seal(weft_kv *kv, const int32_t *ids, int64_t n, bool partial,
                         weft_page_visit visit, void *context, weft_error *err)
{
    if (!kv->dir) return WEFT_OK;
    int64_t complete = n / WEFT_PAGE;
    while (kv->n_sealed < complete) {
        int64_t p = kv->n_sealed;
        uint8_t digest[WEFT_DIGEST_BYTES];
        weft_status status = seal_page(kv, p, ids, err);
        if (status) return status;
        kv->n_sealed = p + 1;
        if (!visit) continue;
        kv_head_digest(head_of(kv, p), digest);
        status = visit(context, p, digest, err);
        if (status) return status;
    }
    uint32_t rest = (uint32_t)(n % WEFT_PAGE);
    if (!partial || rest == 0 || kv->state[complete] != PAGE_OPEN ||
        atomic_load(&head_of(kv, complete)->state) == KV_SEALED)
        return WEFT_OK;
    if (WEFT_FAULT_POINT("kv.page"))
        return weft_fail(err, WEFT_E_STORAGE, "KV page %lld: sealing failed (fault injected)",
                         (long long)complete);
    weft_status status = fetch(kv, complete, err);
    if (status) return status;
    kv_name name;
    kv_name_next(name_before(kv, complete), ids + complete * WEFT_PAGE, rest, &name);
    kv_head_seal(head_of(kv, complete), &name, rest);
    (void)WEFT_FAULT_POINT("kv.sealed");
    return WEFT_OK;
}

void *const *weft_kv_pages(const weft_kv *kv)
{
    return kv->page;
}

const char *weft_kv_dir(const weft_kv *kv)
{
    return kv->dir;
}

weft_kv_counts weft_kv_counted(const weft_kv *kv)
{
    return (weft_kv_counts){(int64_t)atomic_load(&kv->file->evaluated),
                            (int64_t)atomic_load(&kv->file->shared)};
}

void weft_kv_count(weft_kv *kv, int64_t evaluated, int64_t shared)
{
    atomic_fetch_add(&kv->file->evaluated, (uint64_t)evaluated);
    atomic_fetch_add(&kv->file->shared, (uint64_t)shared);
}
