/* Keeps the head and the tail of a stream in bounded memory. */
#include "sandbox/stream.h"

#include <stdlib.h>
#include <string.h>

void sandbox_collect_init(sandbox_collect *c, size_t cap)
{
    *c = (sandbox_collect){.kept = WEFT_BUFFER_INIT, .cap = cap, .head = cap / 2};
    c->ring_at = c->head;
    weft_sha256_init(&c->hash);
}

void sandbox_collect_add(sandbox_collect *c, const char *bytes, size_t n)
{
    weft_sha256_update(&c->hash, bytes, n);
    c->total += n;
    size_t room = c->cap - c->kept.size;
    size_t linear = n < room ? n : room;
    weft_buffer_append(&c->kept, bytes, linear);
    if (c->kept.failed) return;
    bytes += linear;
    n -= linear;
    size_t ring = c->cap - c->head;
    if (n > ring) { /* only the newest can survive; the ring starts anew */
        bytes += n - ring;
        n = ring;
        c->ring_at = c->head;
    }
    while (n) {
        size_t part = c->cap - c->ring_at < n ? c->cap - c->ring_at : n;
        memcpy(c->kept.data + c->ring_at, bytes, part);
        bytes += part;
        n -= part;
        c->ring_at += part;
        if (c->ring_at == c->cap) c->ring_at = c->head;
    }
}

/* Turns [newest | oldest ...] of the ring into order. */
static bool ring_straighten(sandbox_collect *c)
{
    size_t newer = c->ring_at - c->head, older = c->cap - c->ring_at;
    if (newer == 0) return true;
    char *copy = malloc(newer);
    if (!copy) return false;
    char *ring = c->kept.data + c->head;
    memcpy(copy, ring, newer);
    memmove(ring, ring + newer, older);
    memcpy(ring + older, copy, newer);
    free(copy);
    return true;
}

weft_status sandbox_collect_take(sandbox_collect *c, weft_sandbox_stream *out, weft_error *err)
{
    weft_status status = weft_buffer_ok(&c->kept, err);
    bool cut = c->total > c->cap;
    if (!status && cut && !ring_straighten(c))
        status = weft_fail(err, WEFT_E_MEMORY, "out of memory for a program's output");
    size_t n = c->kept.size;
    char *kept = status ? NULL : weft_buffer_take(&c->kept);
    if (!status && !kept) status = weft_fail(err, WEFT_E_MEMORY, "out of memory");
    if (!status) {
        *out = (weft_sandbox_stream){.kept = kept,
                                     .n_kept = n,
                                     .total = c->total,
                                     .cut = c->total - n,
                                     .cut_at = cut ? c->head : n};
        weft_sha256_final(&c->hash, out->sha256);
    }
    sandbox_collect_free(c);
    return status;
}

void sandbox_collect_free(sandbox_collect *c)
{
    weft_buffer_free(&c->kept);
}
