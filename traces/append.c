/* Appending: one event is one insert, committed before the call returns.
 *
 * Two kinds of commit, by SQLite's `synchronous` setting of the moment:
 *   FULL    the WAL is on the disk when the call returns: every durable event, every event that
 *           brings a blob, and a batched one that comes a second or more after the last of this kind;
 *   NORMAL  the WAL has been written but not synced: the other batched events. Readers see them at
 *           once and kill -9 does not lose them; a power cut may lose those of the last second.
 * The sync of a FULL commit covers every earlier byte of the WAL, so order is never lost either.
 * Measured (docs/trace.md): 27 us for NORMAL, 150 us for FULL. One open transaction over many events
 * was tried: 10 us instead of 27, for which readers lag, a crash loses the tail, and a full disk is
 * reported for the wrong event.
 *
 * Fail closed: the first failure of a write breaks the trace, and nothing is written after it. What
 * a failed commit left in the WAL may still turn up at the next open, as an event its caller did
 * not act upon: a call without a result.
 */
#include "traces/store.h"

#include <assert.h>
#include <string.h>

static const int64_t SYNC_NS = 1000000000;

weft_status trace_writable(const weft_trace *t, weft_error *err)
{
    if (t->broken)
        return weft_fail(err, WEFT_E_STORAGE,
                         "append to %s: refused, since an earlier append failed (%s)", t->path,
                         t->why_broken.message);
    if (!t->insert)
        return weft_fail(err, WEFT_E_STORAGE, "append to %s: it was opened for reading", t->path);
    return WEFT_OK;
}

weft_status trace_break(weft_trace *t, weft_error *err)
{
    /* the rollback may find that SQLite has rolled back already */
    sqlite3_exec(t->db, "ROLLBACK", NULL, NULL, NULL);
    t->in_transaction = false;
    t->why_broken = *err;
    return t->broken = err->code;
}

/* Not inside a transaction: SQLite refuses it there. */
static weft_status set_full_sync(weft_trace *t, bool full, weft_error *err)
{
    if (t->full_sync == full) return WEFT_OK;
    weft_status status = trace_exec(
        t->db, full ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=NORMAL", WEFT_E_STORAGE, err);
    if (!status) t->full_sync = full;
    return status;
}

weft_status trace_begin(weft_trace *t, weft_error *err)
{
    if (t->in_transaction) return WEFT_OK;
    weft_status status = set_full_sync(t, true, err);
    if (!status) status = trace_exec(t->db, "BEGIN IMMEDIATE", WEFT_E_STORAGE, err);
    if (!status) t->in_transaction = true;
    return status;
}

/* The insert and its commit. */
static weft_status store(weft_trace *t, const trace_header *h, const uint8_t *salt, bool full,
                         weft_error *err)
{
    if (WEFT_FAULT_POINT("trace.append"))
        return weft_fail(err, WEFT_E_STORAGE, "append event %lld: fault trace.append",
                         (long long)h->seq);
    weft_status status = set_full_sync(t, full, err);
    if (status) return status;
    sqlite3_stmt *q = t->insert;
    if (sqlite3_bind_int64(q, 1, h->seq) != SQLITE_OK ||
        sqlite3_bind_blob64(q, 2, t->header.data, t->header.size, SQLITE_STATIC) != SQLITE_OK ||
        sqlite3_bind_blob(q, 3, salt, WEFT_SALT_BYTES, SQLITE_STATIC) != SQLITE_OK ||
        sqlite3_bind_blob64(q, 4, t->body.data, t->body.size, SQLITE_STATIC) != SQLITE_OK ||
        sqlite3_step(q) != SQLITE_DONE)
        status = trace_sql_fail(t->db, WEFT_E_STORAGE, err, "append event %lld", (long long)h->seq);
    sqlite3_reset(q);
    sqlite3_clear_bindings(q);
    if (status || !t->in_transaction) return status;
    if (sqlite3_exec(t->db, "COMMIT", NULL, NULL, NULL) != SQLITE_OK)
        return trace_sql_fail(t->db, WEFT_E_STORAGE, err, "append event %lld", (long long)h->seq);
    t->in_transaction = false;
    return WEFT_OK;
}

/* The event as the tap will see it; made before the insert, since nothing may fail after it. */
static weft_status line_make(weft_trace *t, const trace_header *h, weft_error *err)
{
    weft_buffer_clear(&t->line);
    weft_buffer_puts(&t->line, "{\"body\":");
    weft_buffer_append(&t->line, t->body.data, t->body.size);
    weft_buffer_printf(&t->line, ",\"seq\":%lld,\"span\":\"%s\",\"ts\":\"%s\",\"type\":\"%s\"}",
                       (long long)h->seq, h->span, h->ts, h->type);
    return weft_buffer_ok(&t->line, err);
}

/* Everything that can be wrong with the caller's part, before anything is touched. */
static weft_status event_make(weft_trace *t, const char *type, const char *span, const cJSON *body,
                              const uint8_t *salt, trace_header *h, weft_error *err)
{
    if (!trace_type_ok(type))
        return weft_fail(err, WEFT_E_INVALID, "event type '%.64s': it is no lower-case name", type);
    if (!trace_span_ok(span))
        return weft_fail(err, WEFT_E_INVALID,
                         "event span: it is not at most %d printable ASCII characters",
                         TRACE_SPAN_BYTES);
    weft_status status = trace_body_check(body, err);
    if (status) return status;
    weft_buffer_clear(&t->body);
    if ((status = weft_json_canonical(body, &t->body, err))) return status;
    if (t->body.size > TRACE_BODY_BYTES)
        return weft_fail(err, WEFT_E_INVALID, "event body: %zu bytes are past %d; store a blob",
                         t->body.size, TRACE_BODY_BYTES);
    h->len = (int64_t)t->body.size;
    h->seq = t->size;
    memcpy(h->prev, t->head, WEFT_DIGEST_BYTES);
    memcpy(h->run, t->run, strlen(t->run) + 1);
    memcpy(h->type, type, strlen(type) + 1);
    memcpy(h->span, span, strlen(span) + 1);
    trace_ts(weft_realtime_ns(), h->ts);
    trace_body_digest(salt, WEFT_SALT_BYTES, t->body.data, t->body.size, h->body);
    weft_buffer_clear(&t->header);
    trace_header_write(h, &t->header);
    return weft_buffer_ok(&t->header, err);
}

weft_status weft_trace_append(weft_trace *trace, const char *type, const char *span,
                              const cJSON *body, weft_durability durability, int64_t *out_seq,
                              weft_error *err)
{
    uint8_t salt[WEFT_SALT_BYTES];
    trace_header h;
    weft_error why;
    assert(!trace->visiting);
    weft_status status = trace_writable(trace, err);
    if (status) return status;
    weft_random(salt, sizeof salt);
    if ((status = event_make(trace, type, span, body, salt, &h, err))) return status;
    if (trace->tap && (status = line_make(trace, &h, err))) return status;

    int64_t now = weft_monotonic_ns();
    bool full =
        durability == WEFT_DURABLE || trace->in_transaction || now - trace->synced_ns >= SYNC_NS;
    status = store(trace, &h, salt, full, &why);
    if (!status && full && WEFT_FAULT_POINT("trace.committed"))
        status = weft_fail(&why, WEFT_E_STORAGE, "append event %lld: fault trace.committed",
                           (long long)h.seq);
    if (status) {
        trace_break(trace, &why);
        return weft_fail(err, status, "%s", why.message);
    }
    if (full) trace->synced_ns = now;
    trace->unsynced = !full;
    trace_leaf(trace->header.data, trace->header.size, trace->head);
    trace->size++;
    if (out_seq) *out_seq = h.seq;
    if (trace->tap) trace->tap(trace->tap_context, h.seq, h.type, trace->line.data);
    return WEFT_OK;
}
