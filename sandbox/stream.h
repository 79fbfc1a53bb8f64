/* One output stream of a workload as it arrives: all of it counted and hashed, head and tail kept. */
#ifndef WEFT_SANDBOX_STREAM_H
#define WEFT_SANDBOX_STREAM_H

#include "sandbox/sandbox.h"

/* Up to cap bytes are kept. Within the first `head` (half of cap) the text stays as it came; the rest
 * is a ring that always holds the newest cap - head bytes. Memory grows with the output, to cap. */
typedef struct sandbox_collect {
    weft_buffer kept;
    size_t cap, head;
    size_t ring_at; /* next place in [head, cap) to overwrite, once kept is full */
    uint64_t total;
    weft_sha256 hash;
} sandbox_collect;

void sandbox_collect_init(sandbox_collect *c, size_t cap);
void sandbox_collect_add(sandbox_collect *c, const char *bytes, size_t n);
/* Gives what was kept, in order. c is empty afterwards, on failure too. */
weft_status sandbox_collect_take(sandbox_collect *c, weft_sandbox_stream *out, weft_error *err);
void sandbox_collect_free(sandbox_collect *c);

#endif
