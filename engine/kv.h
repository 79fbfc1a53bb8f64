/* The paged KV of one timeline: a directory of page files, mapped side by side. Private to engine/.
 *
 * A page holds 64 positions of all layers. It is *open* while positions are written: a file of its
 * own, `open-<page>`, written in place. When all of it is written it is *sealed*: checksum and
 * header are completed, the file gets the name that follows from model and ids (kv_page.h) and is
 * never written again. Sealed pages are shared by hard link, with the other runs of the model
 * (weft_kv_share) and with forks (weft_kv_inherit). Losing pages costs time, never a run.
 *
 * Order of calls: open -> [attach] -> [share] -> [inherit] -> restore -> (begin -> write through weft_kv_pages ->
 * seal) ... -> close. Positions are begun in ascending order; positions beyond the ids that are
 * given to seal may be begun, written and written again.
 */
#ifndef WEFT_ENGINE_KV_H
#define WEFT_ENGINE_KV_H

#include "engine/ops.h"

/* Part of every page's name. Raise it whenever a change alters the bits of any key or value (a sum
 * in another order, another rounding): pages written before are then recomputed. */
enum { WEFT_KV_NUMERICS = 1 };

typedef struct weft_kv weft_kv;

/* dir: created if missing; NULL keeps the pages in anonymous memory. identity: of the model file.
 * WEFT_E_STORAGE: in use by another process, or the directory cannot be written. */
weft_status weft_kv_open(weft_kv **out, const char *dir, const weft_kv_layout *layout,
                         const uint8_t identity[WEFT_DIGEST_BYTES], int64_t max_positions,
                         weft_error *err);
/* Seals nothing; removes pages begun past the first n positions, then closes. NULL allowed. */
void weft_kv_close(weft_kv *kv, int64_t n);

/* From now on a device computes the pages: their bytes are fetched from it before they are sealed or copied.
 * At most once, before anything is restored. */
weft_status weft_kv_attach(weft_kv *kv, const weft_device_ops *device, weft_backend *backend,
                           weft_error *err);

/* Looks for pages in this store too, and offers it every page that is sealed. A store that cannot be
 * used is not used. Nothing happens in memory-only mode. */
void weft_kv_share(weft_kv *kv, const char *prefix_dir);

/* Takes what another run's directory holds for the first n of its n_from ids: complete pages as
 * hard links, of the last one a copy. weft_kv_restore then finds them. */
void weft_kv_inherit(weft_kv *kv, const char *from_dir, const int32_t *from_ids, int64_t n_from,
                     int64_t n);
/* The same from a timeline in this process, for positions [from, n) that are evaluated there. */
weft_status weft_kv_copy(weft_kv *kv, const weft_kv *source, int64_t from, int64_t n,
                         weft_error *err);

/* Takes over pages of ids [from, n), from a multiple of 64 that is sealed; returns the position up
 * to which keys and values are there now. Every page is read and checked here, by several threads;
 * one that is damaged is removed. Allocates nothing. */
int64_t weft_kv_restore(weft_kv *kv, const int32_t *ids, int64_t from, int64_t n);

/* Makes positions [from, from + n) writable: space on disk is allocated (WEFT_E_STORAGE if there is
 * none, never a SIGBUS later). Inside a sealed page, writes stay in memory. */
weft_status weft_kv_begin(weft_kv *kv, int64_t from, int64_t n, weft_error *err);

/* Seals the complete pages among the first n positions, and calls visit (may be NULL) for each;
 * with `partial` also the last, incomplete one. Nothing happens in memory-only mode. */
weft_status weft_kv_seal(weft_kv *kv, const int32_t *ids, int64_t n, bool partial,
                         weft_page_visit visit, void *context, weft_error *err);

/* Size of a page as a file. */
size_t weft_kv_file_bytes(const weft_kv_layout *layout);

/* Page addresses, stable for the object's life: [max_positions / 64, rounded up]. */
void *const *weft_kv_pages(const weft_kv *kv);
/* Its directory; NULL in memory-only mode. */
const char *weft_kv_dir(const weft_kv *kv);

/* Two counters in the directory, of all processes that worked on it: tokens evaluated, and tokens
 * whose pages came from elsewhere. */
typedef struct weft_kv_counts {
    int64_t evaluated, shared;
} weft_kv_counts;
weft_kv_counts weft_kv_counted(const weft_kv *kv);
void weft_kv_count(weft_kv *kv, int64_t evaluated, int64_t shared);

#endif
