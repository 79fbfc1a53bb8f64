/* The header of an event and its hashes, as bytes: what docs/trace.md fixes, a stranger recomputes.
 *
 * Pure functions, no SQL. The one idea: a header is written by exactly one function, and reading is
 * "parse, write again, compare": whatever differs by a single byte from what weft writes (another key,
 * a space, another order) is no header.
 *
 *   header = {"body":HEX,"len":N,"prev":HEX,"run":ID,"seq":N,"span":ID,"ts":"S.NANOS","type":T,"v":1}
 *   body   = SHA-256(0x02 || salt || stored body bytes)
 *   prev   = leaf of the event before, 32 zero bytes for event 0
 *   leaf   = SHA-256(0x00 || stored header bytes)                            (RFC 6962 leaf hash)
 */
#ifndef WEFT_TRACES_FORMAT_H
#define WEFT_TRACES_FORMAT_H

#include "base/base.h"

enum {
    TRACE_RUN_BYTES = 64,
    TRACE_TYPE_BYTES = 32,
    TRACE_SPAN_BYTES = 128,
    TRACE_TS_BYTES = 31,       /* "-9223372036854775808.123456789" */
    TRACE_BODY_BYTES = 1 << 26 /* of one event; larger payloads are blobs */
};

typedef struct trace_header {
    uint8_t body[WEFT_DIGEST_BYTES], prev[WEFT_DIGEST_BYTES];
    int64_t len, seq;
    char run[TRACE_RUN_BYTES + 1], span[TRACE_SPAN_BYTES + 1], ts[TRACE_TS_BYTES + 1],
        type[TRACE_TYPE_BYTES + 1];
} trace_header;

/* [a-z0-9-]{1,64}: a run id is also a directory name and part of a checkpoint's origin. */
bool trace_run_ok(const char *run);
/* [a-z][a-z0-9._]{0,31}. */
bool trace_type_ok(const char *type);
/* At most 128 printable ASCII characters but '"' and '\', so that no escape is ever needed. */
bool trace_span_ok(const char *span);
/* Keys ASCII, no key twice in an object, strings valid UTF-8, nesting at most 200: with the
 * writer's own refusal of floats this makes the stored bytes their RFC 8785 form. WEFT_E_INVALID.
 */
weft_status trace_body_check(const cJSON *body, weft_error *err);

/* Real time in nanoseconds as "seconds.nanos". */
void trace_ts(int64_t ns, char out[TRACE_TS_BYTES + 1]);

/* Appends the header's bytes. The fields must be valid. */
void trace_header_write(const trace_header *header, weft_buffer *out);
/* WEFT_E_VERIFY with the reason if the n bytes are not a header that trace_header_write wrote. */
weft_status trace_header_read(const char *bytes, size_t n, trace_header *out, weft_error *err);

void trace_body_digest(const uint8_t *salt, size_t n_salt, const void *body, size_t n_body,
                       uint8_t out[WEFT_DIGEST_BYTES]);
void trace_leaf(const void *header, size_t n, uint8_t out[WEFT_DIGEST_BYTES]);

#endif
