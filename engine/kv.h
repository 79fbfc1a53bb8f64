/* The paged KV of one timeline: a file of pages, mapped and written in place. Private to engine/.
 *
 * A page holds 64 positions of all layers. It is *open* while positions are written and *sealed*
 * when a digest over its bytes, the ids of its positions and the digest of the page before stands
 * in its header: such a page is valid for exactly this token prefix, this model and this layout,
 * whoever wrote it. Losing pages costs time, never a run. Layout on disk: kv.c.
 *
 * Order of calls: open -> restore -> (begin -> write through weft_kv_pages -> seal) ... -> close.
 * Positions are begun in ascending order.
 */
#ifndef WEFT_ENGINE_KV_H
#define WEFT_ENGINE_KV_H

#include "engine/ops.h"

/* Part of every page digest. Raise it whenever a change alters the bits of any key or value (a sum
 * in another order, another rounding): pages written before are then recomputed. */
enum { WEFT_KV_NUMERICS = 1 };

typedef struct weft_kv weft_kv;

/* dir: created if missing, holds `pages.kv`; NULL keeps the pages in anonymous memory. A file of
 * another model, layout or version is emptied. WEFT_E_STORAGE: locked by another process, or the
 * directory cannot be written. */
weft_status weft_kv_open(weft_kv **out, const char *dir, const weft_kv_layout *layout,
                         const uint8_t fingerprint[WEFT_DIGEST_BYTES], int64_t max_positions,
                         weft_error *err);
/* Gives back the space of pages past the first n positions, then closes. NULL allowed. */
void weft_kv_close(weft_kv *kv, int64_t n);

/* How many of the first n ids have valid positions in the file. Reads and hashes those pages. */
int64_t weft_kv_restore(weft_kv *kv, const int32_t *ids, int64_t n);

/* Makes positions [from, from + n) writable: space on disk is allocated (WEFT_E_STORAGE if there is
 * none, never a SIGBUS later) and their pages are marked open. */
weft_status weft_kv_begin(weft_kv *kv, int64_t from, int64_t n, weft_error *err);

/* Seals the complete pages among the first n positions, and calls visit (may be NULL) for each;
 * with `partial` also the last, incomplete one. Nothing happens in memory-only mode. */
weft_status weft_kv_seal(weft_kv *kv, const int32_t *ids, int64_t n, bool partial,
                         weft_page_visit visit, void *context, weft_error *err);

/* Page addresses, stable for the object's life: [max_positions / 64, rounded up]. */
void *const *weft_kv_pages(const weft_kv *kv);

/* Tokens evaluated on this file so far, by all processes; counted in the mapping. */
int64_t weft_kv_evaluated(const weft_kv *kv);
void weft_kv_count(weft_kv *kv, int64_t n);

#endif
