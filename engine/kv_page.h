/* One page of KV as a file: its name, its header, its checksum. Private to engine/kv*.c.
 *
 *        0  +--------------------------+
 *           | kv_head      (4096 B)    |  what the bytes are, as the file claims
 *     4096  +--------------------------+
 *           | bytes        (P)         |  weft_kv_page_bytes(layout), rounded up to 4096
 *           +--------------------------+
 *
 * The name says what the bytes must be; it is known before them, from ids alone:
 *
 *     root    = BLAKE2b-256("weft kv root 2" | model identity | layout | numerics)
 *     name(p) = BLAKE2b-256("weft kv page 2" | name(p - 1), or root | ids of page p)
 *
 * so equal names mean equal model, layout and ids from the first position on. The checksum says
 * that the bytes are those that were written. It is XXH3-128: it runs at the speed of memory
 * (BLAKE2b: 1 GB/s, a quarter of a second for 8,192 tokens of a 1.5B), and it guards a cache
 * against damage. Whoever could forge it can write the user's home, and thus replace the program.
 */
#ifndef WEFT_ENGINE_KV_PAGE_H
#define WEFT_ENGINE_KV_PAGE_H

#include "engine/kv.h"

#include <sys/types.h>

enum {
    KV_ALIGN = 4096, /* size of the header; pages of bytes start on it */
    KV_VERSION = 2,
    KV_CHECK_BYTES = 16,
    KV_FILE_BYTES = 2 * WEFT_DIGEST_BYTES + sizeof ".kv" /* of a file name */
};

typedef enum kv_state { KV_OPEN = 0, KV_SEALED = 1 } kv_state;

typedef struct kv_name {
    uint8_t bytes[WEFT_DIGEST_BYTES];
} kv_name;

typedef struct kv_head {
    char magic[8]; /* "weft-kv\n" */
    uint32_t version;
    _Atomic uint32_t state; /* kv_state; what follows holds once it is KV_SEALED */
    kv_name name;           /* claimed: of the ids of the n_valid first positions */
    uint8_t check[KV_CHECK_BYTES];
    uint64_t page_bytes;
    uint32_t n_valid; /* 1..64 */
    uint32_t reserved;
} kv_head;

_Static_assert(offsetof(kv_head, version) == 8 && offsetof(kv_head, state) == 12 &&
                   offsetof(kv_head, name) == 16 && offsetof(kv_head, check) == 48 &&
                   offsetof(kv_head, page_bytes) == 64 && offsetof(kv_head, n_valid) == 72 &&
                   sizeof(kv_head) == 80,
               "kv_head is a disk format");

void kv_name_root(const weft_kv_layout *layout, const uint8_t identity[WEFT_DIGEST_BYTES],
                  kv_name *out);
/* Name of n ids behind the pages that `before` names. */
void kv_name_next(const kv_name *before, const int32_t *ids, uint32_t n, kv_name *out);
/* "<hex>.kv", and the file of a page that is not complete. */
void kv_sealed_file(const kv_name *name, char out[KV_FILE_BYTES]);
void kv_open_file(int64_t page, char out[KV_FILE_BYTES]);

void kv_head_init(kv_head *head, size_t page_bytes);
/* Writes name, length and checksum of the bytes behind the header, then the state. */
void kv_head_seal(kv_head *head, const kv_name *name, uint32_t n_valid);
/* The header is sealed and claims exactly this. */
bool kv_head_claims(const kv_head *head, const kv_name *name, uint32_t n_valid, size_t page_bytes);
/* The bytes behind the header have its checksum. Reads the whole page. */
bool kv_head_holds(const kv_head *head);
/* For the record: binds name and checksum in one value. */
void kv_head_digest(const kv_head *head, uint8_t out[WEFT_DIGEST_BYTES]);

/* posix_fallocate that reports a full disk or a file size limit as its result, not as SIGXFSZ. */
int kv_allocate(int fd, size_t n);
/* Copies a page file into a new one of this mode; false if that cannot be. */
bool kv_copy_file(int from_dir, const char *from, int to_dir, const char *to, size_t file_bytes,
                  mode_t mode);

/* ---- kv_prefix.c: the store of pages that runs share ---- */

typedef struct kv_prefix kv_prefix;

/* NULL if there is no memory or no such directory can be: then nothing is shared. */
kv_prefix *kv_prefix_open(const char *dir);
void kv_prefix_close(kv_prefix *prefix);
/* Makes dir/file another name of the store's page, or a copy where links cannot cross. False: the
 * store has no such page. */
bool kv_prefix_take(kv_prefix *prefix, const char *file, int dir, size_t file_bytes);
/* Offers dir/file, a sealed page. What goes wrong means that it is not shared. */
void kv_prefix_put(kv_prefix *prefix, const char *file, int dir);
/* Forgets a page that was found to be damaged. */
void kv_prefix_drop(kv_prefix *prefix, const char *file);

#endif
