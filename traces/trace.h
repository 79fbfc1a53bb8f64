/* The run's event log: one SQLite file, append-only, hash-linked. Format: docs/trace.md.
 *
 * Bodies are restricted canonical JSON (base/json.h weft_json_canonical). The stored bytes are what
 * is hashed. One writer per file; readers open read-only and may run beside it. An object is used
 * by one thread at a time.
 */
#ifndef WEFT_TRACE_H
#define WEFT_TRACE_H

#include "base/base.h"

typedef struct weft_trace weft_trace;

enum { WEFT_SALT_BYTES = 16 };

/* Creates DIR and DIR/trace.db for a new run (WEFT_E_STORAGE if it is there already). run_id is
 * [a-z0-9-]{1,64}, else WEFT_E_USAGE. */
weft_status weft_trace_create(weft_trace **out, const char *dir, const char *run_id,
                              weft_error *err);
/* Opens an existing trace: for_writing takes the single-writer lock (WEFT_E_STORAGE "in use by pid
 * N" if another holds it), verifies the last link and that no event is missing. `path` is a run
 * directory or a trace.db. WEFT_E_NOT_FOUND, also if a writer finds an empty database or no
 * event; WEFT_E_VERIFY if it is no trace or a damaged one. */
weft_status weft_trace_open(weft_trace **out, const char *path, bool for_writing, weft_error *err);
/* Puts everything on disk and closes, also on failure. NULL is allowed. */
weft_status weft_trace_close(weft_trace *trace, weft_error *err);

typedef enum weft_durability {
    WEFT_BATCHED, /* committed: readers see it, kill -9 does not lose it; on disk at the latest with
                     the next durable event, the first event a second later, or close */
    WEFT_DURABLE  /* on disk (synchronous=FULL) before the call returns */
} weft_durability;

/* Appends one event. `type` is a name of docs/trace.md ("tool.call"); `span` an id that groups
 * events (a turn, a call) or ""; body an object, borrowed. Only after WEFT_OK may the caller act on
 * it. WEFT_E_INVALID: the arguments cannot be stored (a float, a key that is not ASCII, broken
 * UTF-8, more than 64 MiB); nothing has happened. Any other failure (WEFT_E_STORAGE) breaks the
 * trace: it refuses every later append and blob. out_seq may be NULL. */
weft_status weft_trace_append(weft_trace *trace, const char *type, const char *span,
                              const cJSON *body, weft_durability durability, int64_t *out_seq,
                              weft_error *err);

/* Called with every appended event as it will be stored: header fields and body as canonical JSON
 * text {"body":...,"seq":N,"span":...,"ts":...,"type":...}; for `--json` and progress. May be NULL.
 */
typedef void (*weft_trace_tap)(void *context, int64_t seq, const char *type, const char *line);
void weft_trace_set_tap(weft_trace *trace, weft_trace_tap tap, void *context);

typedef struct weft_event {
    int64_t seq;
    const char *type, *span, *ts; /* these and the texts below are borrowed during the visit */
    const char *body;             /* canonical JSON text; NULL if redacted */
    size_t body_size;
    const char *header; /* stored header bytes */
    size_t header_size;
} weft_event;

/* Events [from, end) in order, as one snapshot; visit (may be NULL) returns false to stop early and
 * must not append. Checks body, header and link of each on the way: WEFT_E_VERIFY "event N: ..."
 * names the first that was changed or is missing. */
weft_status weft_trace_each(weft_trace *trace, int64_t from,
                            bool (*visit)(void *context, const weft_event *event), void *context,
                            weft_error *err);
/* Number of events, and the leaf hash of the last one (zeros if none). A reader's are those of its
 * open, or of its last complete weft_trace_each. The run id is "" while there is no event. */
int64_t weft_trace_size(const weft_trace *trace);
void weft_trace_head(const weft_trace *trace, uint8_t out[WEFT_DIGEST_BYTES]);
const char *weft_trace_run_id(const weft_trace *trace);
/* The leaf hash of one event. WEFT_E_VERIFY if it is missing or damaged. */
weft_status weft_trace_leaf(weft_trace *trace, int64_t seq, uint8_t out[WEFT_DIGEST_BYTES],
                            weft_error *err);

/* Large payloads (at most 512 MiB) by SHA-256, zstd-compressed in table blob. put: committed
 * together with the next append, which thereby becomes durable. get appends to out;
 * WEFT_E_NOT_FOUND, WEFT_E_VERIFY if the content is not what its digest says. */
weft_status weft_trace_put_blob(weft_trace *trace, const void *bytes, size_t n,
                                uint8_t out_sha256[WEFT_DIGEST_BYTES], weft_error *err);
weft_status weft_trace_get_blob(weft_trace *trace, const uint8_t sha256[WEFT_DIGEST_BYTES],
                                weft_buffer *out, weft_error *err);

#endif
