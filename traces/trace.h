/* The run's event log: one SQLite file, append-only, hash-linked. Format: docs/trace.md.
 *
 * Bodies are restricted canonical JSON (base/json.h weft_json_canonical). The stored bytes are what is
 * hashed. One writer per file; readers open read-only and may run beside it.
 */
#ifndef WEFT_TRACE_H
#define WEFT_TRACE_H

#include "base/base.h"

typedef struct weft_trace weft_trace;

enum { WEFT_SALT_BYTES = 16 };

/* Creates DIR/trace.db for a new run (WEFT_E_STORAGE if it is there already). */
weft_status weft_trace_create(weft_trace **out, const char *dir, const char *run_id, weft_error *err);
/* Opens an existing trace: for_writing takes the single-writer lock (WEFT_E_STORAGE "in use by pid N"
 * if another process holds it) and verifies the last link. `path` is a run directory or a trace.db. */
weft_status weft_trace_open(weft_trace **out, const char *path, bool for_writing, weft_error *err);
/* Commits what is pending and closes. NULL is allowed. */
weft_status weft_trace_close(weft_trace *trace, weft_error *err);

typedef enum weft_durability {
    WEFT_BATCHED, /* in the open transaction; on disk at the next barrier or second */
    WEFT_DURABLE  /* committed with synchronous=FULL before the call returns */
} weft_durability;

/* Appends one event. `type` is a name of docs/trace.md ("tool.call"); `span` an id that groups events
 * (a turn, a call) or "". body is borrowed. Only after WEFT_OK may the caller act on it. On failure the
 * trace refuses every later append (WEFT_E_STORAGE). out_seq may be NULL. */
weft_status weft_trace_append(weft_trace *trace, const char *type, const char *span,
                              const cJSON *body, weft_durability durability, int64_t *out_seq,
                              weft_error *err);

/* Called with every appended event as it will be stored: header fields and body as canonical JSON
 * text {"body":...,"seq":N,"span":...,"ts":...,"type":...}; for `--json` and progress. May be NULL. */
typedef void (*weft_trace_tap)(void *context, int64_t seq, const char *type, const char *line);
void weft_trace_set_tap(weft_trace *trace, weft_trace_tap tap, void *context);

typedef struct weft_event {
    int64_t seq;
    const char *type, *span, *ts; /* borrowed until the next call on the trace */
    const char *body;             /* canonical JSON text; NULL if redacted */
    size_t body_size;
    const char *header;           /* stored header bytes */
    size_t header_size;
} weft_event;

/* Events [from, end) in order; visit returns false to stop early. Checks each link on the way:
 * WEFT_E_VERIFY "event N: ..." where it is broken. */
weft_status weft_trace_each(weft_trace *trace, int64_t from,
                            bool (*visit)(void *context, const weft_event *event), void *context,
                            weft_error *err);
/* Number of events, and the leaf hash of the last one (zeros if none). */
int64_t weft_trace_size(const weft_trace *trace);
void weft_trace_head(const weft_trace *trace, uint8_t out[WEFT_DIGEST_BYTES]);
const char *weft_trace_run_id(const weft_trace *trace);

/* Large payloads by SHA-256, zstd-compressed in table blob. Stored in the same transaction. */
weft_status weft_trace_put_blob(weft_trace *trace, const void *bytes, size_t n,
                                uint8_t out_sha256[WEFT_DIGEST_BYTES], weft_error *err);
weft_status weft_trace_get_blob(weft_trace *trace, const uint8_t sha256[WEFT_DIGEST_BYTES],
                                weft_buffer *out, weft_error *err);

#endif
