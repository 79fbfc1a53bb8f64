/* Names, headers and checksums of page files (kv_page.h has the picture). */
#include "engine/kv_page.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "files and names are little-endian");
_Static_assert(ATOMIC_INT_LOCK_FREE == 2, "an atomic lives in a file");
_Static_assert(sizeof(XXH128_canonical_t) == KV_CHECK_BYTES, "the checksum is XXH3-128");

static const char magic[8] = {'w', 'e', 'f', 't', '-', 'k', 'v', '\n'};

/* ---- names ---- */

void kv_name_root(const weft_kv_layout *layout, const uint8_t identity[WEFT_DIGEST_BYTES],
                  kv_name *out)
{
    static const char tag[16] = "weft kv root 2";
    struct {
        char tag[16];
        uint8_t identity[WEFT_DIGEST_BYTES];
        uint32_t type, n_layer, n_head_kv, key_dim, value_dim, positions, numerics, form;
        uint64_t page_bytes;
    } what = {.type = (uint32_t)layout->type,
              .n_layer = layout->n_layer,
              .n_head_kv = layout->n_head_kv,
              .key_dim = layout->key_dim,
              .value_dim = layout->value_dim,
              .positions = WEFT_PAGE,
              .numerics = WEFT_KV_NUMERICS,
              .form = layout->latent_dim | layout->variant << 24,
              .page_bytes = weft_kv_page_bytes(layout)};
    /* whoever adds a member to the layout adds it here, or pages of two layouts share a name */
    _Static_assert(sizeof(weft_kv_layout) == 28, "every member of the layout is in the name");
    _Static_assert(sizeof what == 88, "no padding is hashed");
    memcpy(what.tag, tag, sizeof tag);
    memcpy(what.identity, identity, sizeof what.identity);
    weft_blake2b_of(NULL, 0, &what, sizeof what, out->bytes);
}

void kv_name_next(const kv_name *before, const int32_t *ids, uint32_t n, kv_name *out)
{
    static const char tag[16] = "weft kv page 2";
    uint8_t prefix[sizeof tag + WEFT_DIGEST_BYTES];
    memcpy(prefix, tag, sizeof tag);
    memcpy(prefix + sizeof tag, before->bytes, WEFT_DIGEST_BYTES);
    weft_blake2b_of(prefix, sizeof prefix, ids, n * sizeof *ids, out->bytes);
}

void kv_sealed_file(const kv_name *name, char out[KV_FILE_BYTES])
{
    weft_hex(name->bytes, WEFT_DIGEST_BYTES, out);
    memcpy(out + WEFT_DIGEST_HEX_BYTES - 1, ".kv", sizeof ".kv");
}

void kv_open_file(int64_t page, char out[KV_FILE_BYTES])
{
    snprintf(out, KV_FILE_BYTES, "open-%lld", (long long)page);
}

/* ---- headers ---- */

static const void *bytes_of(const kv_head *head)
{
    return (const uint8_t *)head + KV_ALIGN;
}

static XXH128_canonical_t checksum(const kv_head *head, size_t page_bytes)
{
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits(bytes_of(head), page_bytes));
    return canonical;
}

void kv_head_init(kv_head *head, size_t page_bytes)
{
    atomic_store(&head->state, KV_OPEN);
    memcpy(head->magic, magic, sizeof magic);
    head->version = KV_VERSION;
    head->page_bytes = page_bytes;
}

void kv_head_seal(kv_head *head, const kv_name *name, uint32_t n_valid)
{
    XXH128_canonical_t check = checksum(head, head->page_bytes);
    head->name = *name;
    head->n_valid = n_valid;
    memcpy(head->check, check.digest, sizeof head->check);
    atomic_store(&head->state, KV_SEALED);
}

bool kv_head_claims(const kv_head *head, const kv_name *name, uint32_t n_valid, size_t page_bytes)
{
    return memcmp(head->magic, magic, sizeof magic) == 0 && head->version == KV_VERSION &&
           atomic_load(&head->state) == KV_SEALED && head->page_bytes == page_bytes &&
           head->n_valid == n_valid &&
           memcmp(head->name.bytes, name->bytes, sizeof name->bytes) == 0;
}

bool kv_head_holds(const kv_head *head)
{
    XXH128_canonical_t check = checksum(head, head->page_bytes);
    return memcmp(head->check, check.digest, sizeof head->check) == 0;
}

void kv_head_digest(const kv_head *head, uint8_t out[WEFT_DIGEST_BYTES])
{
    weft_blake2b_of(head->name.bytes, sizeof head->name.bytes, head->check, sizeof head->check,
                    out);
}

/* ---- files ---- */

int kv_allocate(int fd, size_t n)
{
    sigset_t limit, before;
    sigemptyset(&limit);
    sigaddset(&limit, SIGXFSZ);
    pthread_sigmask(SIG_BLOCK, &limit, &before);
    int e;
    do {
        e = posix_fallocate(fd, 0, (off_t)n);
    } while (e == EINTR);
    if (e == EFBIG && !sigismember(&before, SIGXFSZ)) {
        const struct timespec now = {0, 0};
        sigtimedwait(&limit, NULL, &now); /* take the pending signal */
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return e;
}

bool kv_copy_file(int from_dir, const char *from, int to_dir, const char *to, size_t file_bytes,
                  mode_t mode)
{
    int in = openat(from_dir, from, O_RDONLY | O_CLOEXEC | O_NOFOLLOW), out = -1;
    bool done = false;
    if (in < 0) return false;
    unlinkat(to_dir, to, 0);
    out = openat(to_dir, to, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (out < 0 || kv_allocate(out, file_bytes) != 0) goto done;
    for (size_t left = file_bytes; left > 0;) {
        ssize_t n = copy_file_range(in, NULL, out, NULL, left, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) goto done; /* shorter than it should be, or file systems that cannot */
        left -= (size_t)n;
    }
    done = fchmod(out, mode) == 0;
done:
    close(in);
    if (out >= 0) close(out);
    if (!done && out >= 0) unlinkat(to_dir, to, 0);
    return done;
}
