/* The KV page file.
 *
 *        0  +--------------------------+
 *           | kv_file      (4096 B)    |  what the pages belong to; the evaluated counter
 *     4096  +--------------------------+
 *           | kv_page 0    (4096 B)    |  state, n_valid, digest
 *           | bytes        (P)         |  weft_kv_page_bytes(layout), rounded up to 4096
 *           +--------------------------+
 *           | kv_page 1    (4096 B)    |
 *           | ...                      |
 *
 * digest of page p = BLAKE2b-256("weft kv page 1" | fingerprint | layout | numerics | n_valid |
 *                                digest of page p - 1, or zeros | ids of its valid positions |
 * bytes)
 *
 * The whole file, up to the longest context, is mapped once, past its end: addresses never move,
 * and space is allocated (posix_fallocate) before a page beyond the end is touched, so a full disk
 * is an error code and not a SIGBUS.
 *
 * Crashes. A page is marked open before a byte of it changes and sealed after its digest is
 * written. The page cache outlives the process, so after kill -9 the file shows some prefix of
 * these stores and a sealed page always matches its digest. After a power loss anything may be
 * torn: the digest says so. Nothing is synced: the file is a cache.
 *
 * A page begun at its first position is zeroed, so that positions never written are zeros and the
 * digest of a partial page is over defined bytes. Hashing costs about 1 ms a MB, once per 64
 * tokens.
 */
#include "engine/kv.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    KV_ALIGN = 4096,
    KV_VERSION = 1,
    KV_STEP_BYTES = 16 << 20, /* the file grows by this much, or a page if that is more */
    KV_PREFIX_MAX = 512
};

typedef enum kv_state { KV_OPEN = 0, KV_SEALED = 1 } kv_state;

typedef struct kv_file {
    char magic[8]; /* "weft-kv\n" */
    uint32_t version;
    uint32_t numerics;
    uint8_t fingerprint[WEFT_DIGEST_BYTES];
    uint32_t type, n_layer, n_head_kv, key_dim, value_dim;
    uint32_t positions; /* in a page: 64 */
    uint64_t page_bytes;
    _Atomic uint64_t evaluated; /* the only field that changes */
} kv_file;

typedef struct kv_page {
    _Atomic uint32_t state; /* kv_state */
    uint32_t n_valid;       /* 1..64 when sealed */
    uint8_t reserved[8];
    uint8_t digest[WEFT_DIGEST_BYTES];
} kv_page;

_Static_assert(offsetof(kv_file, fingerprint) == 16 && offsetof(kv_file, type) == 48 &&
                   offsetof(kv_file, page_bytes) == 72 && offsetof(kv_file, evaluated) == 80 &&
                   sizeof(kv_file) == 88,
               "kv_file is a disk format");
_Static_assert(offsetof(kv_page, n_valid) == 4 && offsetof(kv_page, digest) == 16 &&
                   sizeof(kv_page) == 48,
               "kv_page is a disk format");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the file is little-endian");
_Static_assert(ATOMIC_LONG_LOCK_FREE == 2 && ATOMIC_INT_LOCK_FREE == 2, "atomics live in a file");

struct weft_kv {
    weft_kv_layout layout;
    kv_file head;  /* as it must be; compared with the file's at open */
    int fd;        /* -1: memory only */
    uint8_t *base; /* the mapping */
    size_t mapped_bytes;
    size_t page_bytes; /* used part of a page */
    size_t stride;     /* header + page, rounded */
    void **page;       /* [max_pages] */
    int64_t max_pages;
    int64_t file_pages; /* whole ones in the file at open; they, and the torn one after
                         * them, may hold old bytes */
    int64_t reserved_from, reserved_to; /* pages with space allocated by this process */
    int64_t n_sealed;                   /* complete pages that are sealed for the current ids */
    uint64_t evaluated;                 /* memory-only mode */
};

static size_t kv_offset(const weft_kv *kv, int64_t page) {
    return KV_ALIGN + (size_t)page * kv->stride;
}

static kv_page *kv_header(const weft_kv *kv, int64_t page) {
    return (kv_page *)(void *)(kv->base + kv_offset(kv, page));
}

static kv_file *kv_file_of(const weft_kv *kv) {
    return (kv_file *)(void *)kv->base;
}

/* ---- opening ---- */

/* Sizes and the expected header, all products checked: the layout comes from a model file. */
static weft_status kv_measure(weft_kv *kv, const weft_kv_layout *layout,
                              const uint8_t fingerprint[WEFT_DIGEST_BYTES], int64_t max_positions,
                              weft_error *err) {
    kv->layout = *layout;
    kv->page_bytes = weft_kv_page_bytes(layout);
    kv->max_pages = (max_positions + WEFT_PAGE - 1) / WEFT_PAGE;
    size_t total;
    if (kv->page_bytes == 0 || kv->page_bytes > ((size_t)1 << 40) || kv->max_pages <= 0)
        return weft_fail(err, WEFT_E_MODEL, "KV layout: a page of %zu bytes is out of range",
                         kv->page_bytes);
    kv->stride = KV_ALIGN + (kv->page_bytes + KV_ALIGN - 1) / KV_ALIGN * KV_ALIGN;
    if (weft_size_mul(kv->stride, (size_t)kv->max_pages, &total) ||
        weft_size_add(total, KV_ALIGN, &total) || total > (size_t)PTRDIFF_MAX)
        return weft_fail(err, WEFT_E_LIMIT,
                         "KV of %lld tokens: too large to map; use a smaller context",
                         (long long)max_positions);
    kv->mapped_bytes = total;
    kv->page = malloc((size_t)kv->max_pages * sizeof *kv->page);
    if (!kv->page) return weft_fail(err, WEFT_E_MEMORY, "KV page table: out of memory");
    kv_file *h = &kv->head;
    memcpy(h->magic, "weft-kv\n", sizeof h->magic);
    h->version = KV_VERSION;
    h->numerics = WEFT_KV_NUMERICS;
    memcpy(h->fingerprint, fingerprint, WEFT_DIGEST_BYTES);
    h->type = (uint32_t)layout->type;
    h->n_layer = layout->n_layer;
    h->n_head_kv = layout->n_head_kv;
    h->key_dim = layout->key_dim;
    h->value_dim = layout->value_dim;
    h->positions = WEFT_PAGE;
    h->page_bytes = kv->page_bytes;
    return WEFT_OK;
}

/* posix_fallocate that reports a full disk or a file size limit as errno, not as SIGXFSZ. */
static int kv_allocate(int fd, size_t offset, size_t n) {
    sigset_t limit, before;
    sigemptyset(&limit);
    sigaddset(&limit, SIGXFSZ);
    pthread_sigmask(SIG_BLOCK, &limit, &before);
    int e;
    do {
        e = posix_fallocate(fd, (off_t)offset, (off_t)n);
    } while (e == EINTR);
    if (e == EFBIG && !sigismember(&before, SIGXFSZ)) {
        const struct timespec now = {0, 0};
        sigtimedwait(&limit, NULL, &now); /* take the pending signal */
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return e;
}

static weft_status kv_open_file(weft_kv *kv, const char *dir, weft_error *err) {
    char *path = NULL;
    weft_status status = weft_mkdirs(dir, err);
    if (status) goto done;
    path = weft_path_join(dir, "pages.kv");
    if (!path) {
        status = weft_fail(err, WEFT_E_MEMORY, "KV path: out of memory");
        goto done;
    }
    kv->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (kv->fd < 0) {
        status = weft_fail_errno(err, WEFT_E_STORAGE, "open %s", path);
        goto done;
    }
    if (flock(kv->fd, LOCK_EX | LOCK_NB) != 0) {
        status = errno == EWOULDBLOCK
                     ? weft_fail(err, WEFT_E_STORAGE,
                                 "lock %s: another process works on this timeline; wait for it or "
                                 "stop it",
                                 path)
                     : weft_fail_errno(err, WEFT_E_STORAGE, "lock %s", path);
        goto done;
    }
    struct stat st;
    if (fstat(kv->fd, &st) != 0) {
        status = weft_fail_errno(err, WEFT_E_STORAGE, "stat %s", path);
        goto done;
    }
    kv_file found;
    size_t fixed = offsetof(kv_file, evaluated);
    bool ours = st.st_size >= KV_ALIGN &&
                pread(kv->fd, &found, sizeof found, 0) == (ssize_t)sizeof found &&
                memcmp(&found, &kv->head, fixed) == 0;
    if (ours) {
        kv->file_pages = (int64_t)(((size_t)st.st_size - KV_ALIGN) / kv->stride);
        if (kv->file_pages > kv->max_pages) kv->file_pages = kv->max_pages;
    } else if (ftruncate(kv->fd, 0) != 0) {
        status = weft_fail_errno(err, WEFT_E_STORAGE, "empty %s", path);
        goto done;
    }
    int e = kv_allocate(kv->fd, 0, KV_ALIGN);
    if (e != 0) {
        errno = e;
        status = weft_fail_errno(err, WEFT_E_STORAGE, "write %s", path);
        goto done;
    }
    kv->base =
        mmap(NULL, kv->mapped_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, kv->fd, 0);
    if (kv->base == MAP_FAILED) {
        kv->base = NULL;
        status = weft_fail_errno(err, WEFT_E_STORAGE, "map %s", path);
        goto done;
    }
    if (!ours) memcpy(kv->base, &kv->head, fixed);
done:
    free(path);
    return status;
}

weft_status weft_kv_open(weft_kv **out, const char *dir, const weft_kv_layout *layout,
                         const uint8_t fingerprint[WEFT_DIGEST_BYTES], int64_t max_positions,
                         weft_error *err) {
    weft_status status;
    weft_kv *kv = calloc(1, sizeof *kv);
    if (!kv) return weft_fail(err, WEFT_E_MEMORY, "KV: out of memory");
    kv->fd = -1;
    status = kv_measure(kv, layout, fingerprint, max_positions, err);
    if (status) goto done;
    if (dir) {
        status = kv_open_file(kv, dir, err);
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
        kv->page[p] = kv->base + kv_offset(kv, p) + KV_ALIGN;
    *out = kv;
    kv = NULL;
done:
    weft_kv_close(kv, 0);
    return status;
}

void weft_kv_close(weft_kv *kv, int64_t n) {
    if (!kv) return;
    if (kv->base) munmap(kv->base, kv->mapped_bytes);
    if (kv->fd >= 0) {
        int64_t used = (n + WEFT_PAGE - 1) / WEFT_PAGE;
        /* Only a process that wrote pages trims: one that merely looked leaves the file as it was.
         * A failure leaves unused space behind, nothing else. */
        if (kv->reserved_to > 0 && ftruncate(kv->fd, (off_t)kv_offset(kv, used)) != 0) errno = 0;
        close(kv->fd);
    }
    free(kv->page);
    free(kv);
}

/* ---- digests ---- */

static size_t kv_put(uint8_t *out, size_t at, const void *bytes, size_t n) {
    memcpy(out + at, bytes, n);
    return at + n;
}

static void kv_digest(const weft_kv *kv, int64_t page, const int32_t *ids, uint32_t n_valid,
                      uint8_t out[WEFT_DIGEST_BYTES]) {
    static const char tag[16] = "weft kv page 1";
    static const uint8_t none[WEFT_DIGEST_BYTES];
    const kv_file *h = &kv->head;
    uint8_t prefix[KV_PREFIX_MAX];
    size_t n = kv_put(prefix, 0, tag, sizeof tag);
    n = kv_put(prefix, n, h->fingerprint, WEFT_DIGEST_BYTES);
    const uint32_t layout[8] = {h->type,      h->n_layer,   h->n_head_kv, h->key_dim,
                                h->value_dim, h->positions, h->numerics,  n_valid};
    n = kv_put(prefix, n, layout, sizeof layout);
    n = kv_put(prefix, n, page > 0 ? kv_header(kv, page - 1)->digest : none, WEFT_DIGEST_BYTES);
    n = kv_put(prefix, n, ids + page * WEFT_PAGE, n_valid * sizeof *ids);
    assert(n <= sizeof prefix);
    weft_blake2b_of(prefix, n, kv->page[page], kv->page_bytes, out);
}

int64_t weft_kv_restore(weft_kv *kv, const int32_t *ids, int64_t n) {
    int64_t valid = 0;
    for (int64_t p = 0; p < kv->file_pages; p++) {
        const kv_page *h = kv_header(kv, p);
        uint32_t n_valid = h->n_valid;
        if (atomic_load(&h->state) != KV_SEALED || n_valid < 1 || n_valid > WEFT_PAGE) break;
        if (valid + n_valid > n) break;
        uint8_t digest[WEFT_DIGEST_BYTES];
        kv_digest(kv, p, ids, n_valid, digest);
        if (memcmp(digest, h->digest, sizeof digest) != 0) break;
        valid += n_valid;
        if (n_valid < WEFT_PAGE) break;
        kv->n_sealed = p + 1;
    }
    return valid;
}

/* ---- writing ---- */

/* Space for pages first..last. The first call fixes where this process began to write. */
static weft_status kv_reserve(weft_kv *kv, int64_t first, int64_t last, weft_error *err) {
    if (kv->reserved_to == 0) kv->reserved_from = first;
    assert(first >= kv->reserved_from);
    if (last < kv->reserved_to) return WEFT_OK;
    int64_t from = kv->reserved_to > first ? kv->reserved_to : first;
    int64_t step = KV_STEP_BYTES / (int64_t)kv->stride;
    int64_t to = last + 1 + step < kv->max_pages ? last + 1 + step : kv->max_pages;
    int e = kv_allocate(kv->fd, kv_offset(kv, from), (size_t)(to - from) * kv->stride);
    if (e != 0 && to > last + 1) { /* nearly full: what is needed now may still fit */
        to = last + 1;
        e = kv_allocate(kv->fd, kv_offset(kv, from), (size_t)(to - from) * kv->stride);
    }
    if (e != 0) {
        errno = e;
        return weft_fail_errno(err, WEFT_E_STORAGE,
                               "KV file: no space for page %lld of %zu bytes; free some disk space "
                               "and resume",
                               (long long)last, kv->stride);
    }
    kv->reserved_to = to;
    return WEFT_OK;
}

weft_status weft_kv_begin(weft_kv *kv, int64_t from, int64_t n, weft_error *err) {
    int64_t first = from / WEFT_PAGE, last = (from + n - 1) / WEFT_PAGE;
    assert(from >= 0 && n > 0 && last < kv->max_pages);
    if (kv->fd < 0) return WEFT_OK;
    weft_status status = kv_reserve(kv, first, last, err);
    if (status) return status;
    if (kv->n_sealed > first) kv->n_sealed = first;
    for (int64_t p = first; p <= last; p++) {
        atomic_store(&kv_header(kv, p)->state, KV_OPEN);
        if (p <= kv->file_pages && p * WEFT_PAGE >= from) memset(kv->page[p], 0, kv->page_bytes);
    }
    return WEFT_OK;
}

static weft_status kv_seal_page(weft_kv *kv, int64_t page, const int32_t *ids, uint32_t n_valid,
                                weft_error *err) {
    if (WEFT_FAULT_POINT("kv.page"))
        return weft_fail(err, WEFT_E_STORAGE, "KV page %lld: sealing failed (fault injected)",
                         (long long)page);
    kv_page *h = kv_header(kv, page);
    kv_digest(kv, page, ids, n_valid, h->digest);
    h->n_valid = n_valid;
    atomic_store(&h->state, KV_SEALED);
    (void)WEFT_FAULT_POINT("kv.sealed");
    return WEFT_OK;
}

weft_status weft_kv_seal(weft_kv *kv, const int32_t *ids, int64_t n, bool partial,
                         weft_page_visit visit, void *context, weft_error *err) {
    if (kv->fd < 0) return WEFT_OK;
    int64_t complete = n / WEFT_PAGE;
    while (kv->n_sealed < complete) {
        int64_t p = kv->n_sealed;
        weft_status status = kv_seal_page(kv, p, ids, WEFT_PAGE, err);
        if (status) return status;
        kv->n_sealed = p + 1;
        if (!visit) continue;
        status = visit(context, p, kv_header(kv, p)->digest, err);
        if (status) return status;
    }
    uint32_t rest = (uint32_t)(n % WEFT_PAGE);
    bool open = rest > 0 && kv->reserved_to > complete &&
                atomic_load(&kv_header(kv, complete)->state) != KV_SEALED;
    return partial && open ? kv_seal_page(kv, complete, ids, rest, err) : WEFT_OK;
}

void *const *weft_kv_pages(const weft_kv *kv) {
    return kv->page;
}

int64_t weft_kv_evaluated(const weft_kv *kv) {
    return (int64_t)(kv->fd < 0 ? kv->evaluated : atomic_load(&kv_file_of(kv)->evaluated));
}

void weft_kv_count(weft_kv *kv, int64_t n) {
    if (kv->fd < 0)
        kv->evaluated += (uint64_t)n;
    else
        atomic_fetch_add(&kv_file_of(kv)->evaluated, (uint64_t)n);
}
