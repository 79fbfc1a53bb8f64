/* Reading events in order, each one checked against its header and the header against its link.
 *
 * What one pass proves of event n: its row is there; its header is byte for byte in weft's form and
 * says n; its prev is the leaf of n - 1; its body, unless redacted, has the salted digest and the
 * length that the header names. What it cannot prove is that the end was not cut off or the last
 * header rewritten: that is what signed checkpoints are for.
 *
 * Blame: a link that does not fit says that one of two headers was changed. If the event behind the
 * pair still links to the second, the second is as written and the first one is named.
 */
#include "traces/store.h"

#include <string.h>

/* One row of ev, copied out of SQLite and NUL-terminated. */
typedef struct row {
    int64_t seq;
    weft_buffer header, body;
    uint8_t salt[WEFT_SALT_BYTES];
    bool redacted;
} row;

static void row_free(row *r)
{
    weft_buffer_free(&r->header);
    weft_buffer_free(&r->body);
}

static weft_status row_load(sqlite3_stmt *q, row *r, weft_error *err)
{
    r->seq = sqlite3_column_int64(q, 0);
    weft_buffer_clear(&r->header);
    weft_buffer_clear(&r->body);
    int header = sqlite3_column_type(q, 1), salt = sqlite3_column_type(q, 2),
        body = sqlite3_column_type(q, 3);
    r->redacted = salt == SQLITE_NULL && body == SQLITE_NULL;
    if (header != SQLITE_BLOB || (!r->redacted && (salt != SQLITE_BLOB || body != SQLITE_BLOB ||
                                                   sqlite3_column_bytes(q, 2) != WEFT_SALT_BYTES)))
        return weft_fail(err, WEFT_E_VERIFY, "its columns are not as weft writes them");
    weft_buffer_append(&r->header, sqlite3_column_blob(q, 1), (size_t)sqlite3_column_bytes(q, 1));
    if (!r->redacted) {
        memcpy(r->salt, sqlite3_column_blob(q, 2), WEFT_SALT_BYTES);
        weft_buffer_append(&r->body, sqlite3_column_blob(q, 3), (size_t)sqlite3_column_bytes(q, 3));
    }
    weft_status status = weft_buffer_ok(&r->header, err);
    return status ? status : weft_buffer_ok(&r->body, err);
}

/* The stored header of event seq. *found is false if there is no such row. */
static weft_status header_at(weft_trace *t, int64_t seq, weft_buffer *out, bool *found,
                             weft_error *err)
{
    sqlite3_stmt *q = NULL;
    weft_status status = WEFT_OK;
    int step = sqlite3_prepare_v2(t->db, "SELECT hdr FROM ev WHERE seq = ?1", -1, &q, NULL);
    if (step == SQLITE_OK) step = sqlite3_bind_int64(q, 1, seq);
    if (step == SQLITE_OK) step = sqlite3_step(q);
    *found = step == SQLITE_ROW;
    if (*found) {
        weft_buffer_append(out, sqlite3_column_blob(q, 0), (size_t)sqlite3_column_bytes(q, 0));
        status = weft_buffer_ok(out, err);
    } else if (step != SQLITE_DONE) {
        status = trace_sql_fail(t->db, WEFT_E_VERIFY, err, "event %lld: read", (long long)seq);
    }
    sqlite3_finalize(q);
    return status;
}

weft_status trace_leaf_before(weft_trace *t, int64_t seq, uint8_t out[WEFT_DIGEST_BYTES],
                              weft_error *err)
{
    weft_buffer header = WEFT_BUFFER_INIT;
    bool found = true;
    memset(out, 0, WEFT_DIGEST_BYTES);
    if (seq == 0) return WEFT_OK;
    weft_status status = header_at(t, seq - 1, &header, &found, err);
    if (!status && !found)
        status = weft_fail(err, WEFT_E_VERIFY, "event %lld: is missing", (long long)seq - 1);
    if (!status) trace_leaf(weft_buffer_str(&header), header.size, out);
    weft_buffer_free(&header);
    return status;
}

weft_status trace_read_run(weft_trace *t, weft_error *err)
{
    weft_buffer header = WEFT_BUFFER_INIT;
    trace_header h;
    bool found;
    weft_status status = header_at(t, 0, &header, &found, err);
    if (!status && !found) status = weft_fail(err, WEFT_E_VERIFY, "event 0: is missing");
    if (!status) {
        weft_error why;
        status = trace_header_read(weft_buffer_str(&header), header.size, &h, &why);
        if (status)
            weft_fail(err, status, "event 0: %s", why.message);
        else
            memcpy(t->run, h.run, sizeof t->run);
    }
    weft_buffer_free(&header);
    return status;
}

/* prev of event seq does not fit: which header was changed, seq - 1 or seq? */
static weft_status link_broken(weft_trace *t, int64_t seq, const uint8_t leaf[WEFT_DIGEST_BYTES],
                               weft_error *err)
{
    weft_buffer next = WEFT_BUFFER_INIT;
    trace_header h;
    bool found, intact = false;
    weft_status status = header_at(t, seq + 1, &next, &found, err);
    if (!status) {
        intact = found && !trace_header_read(weft_buffer_str(&next), next.size, &h, NULL) &&
                 memcmp(h.prev, leaf, WEFT_DIGEST_BYTES) == 0;
        if (intact && seq > 0)
            status =
                weft_fail(err, WEFT_E_VERIFY,
                          "event %lld: its header was changed, event %lld links to another one",
                          (long long)seq - 1, (long long)seq);
        else
            status =
                weft_fail(err, WEFT_E_VERIFY, "event %lld: its link to the event before is broken",
                          (long long)seq);
    }
    weft_buffer_free(&next);
    return status;
}

/* Checks the row as event `seq` after the leaf in *head; *head becomes its own leaf. */
static weft_status row_check(weft_trace *t, const row *r, int64_t seq,
                             uint8_t head[WEFT_DIGEST_BYTES], trace_header *h, weft_error *err)
{
    uint8_t leaf[WEFT_DIGEST_BYTES], digest[WEFT_DIGEST_BYTES];
    const char *why = NULL;
    weft_status status = trace_header_read(weft_buffer_str(&r->header), r->header.size, h, err);
    if (status) {
        weft_fail_prefix(err, "event %lld", (long long)seq);
        return status;
    }
    trace_leaf(r->header.data, r->header.size, leaf);
    if (memcmp(h->prev, head, WEFT_DIGEST_BYTES) != 0) return link_broken(t, seq, leaf, err);
    if (h->seq != seq)
        why = "its header carries another number";
    else if (*t->run && strcmp(h->run, t->run) != 0)
        why = "its header names another run";
    else if (!r->redacted && (uint64_t)h->len != r->body.size)
        why = "its body has another length than its header says";
    if (!why && !r->redacted) {
        trace_body_digest(r->salt, WEFT_SALT_BYTES, r->body.data, r->body.size, digest);
        if (memcmp(digest, h->body, WEFT_DIGEST_BYTES) != 0)
            why = "its body or salt does not match its header's digest";
    }
    if (why) return weft_fail(err, WEFT_E_VERIFY, "event %lld: %s", (long long)seq, why);
    memcpy(head, leaf, WEFT_DIGEST_BYTES);
    return WEFT_OK;
}

/* The walk itself, inside one statement and thus one snapshot of the file. */
static weft_status walk(weft_trace *t, sqlite3_stmt *q, int64_t from,
                        bool (*visit)(void *, const weft_event *), void *context, weft_error *err)
{
    row r = {0};
    trace_header h;
    uint8_t head[WEFT_DIGEST_BYTES];
    int64_t seq = from;
    bool linked = false, go_on = true;
    int step;
    weft_status status = WEFT_OK;
    while (go_on && (step = sqlite3_step(q)) == SQLITE_ROW) {
        if (!linked && (status = trace_leaf_before(t, from, head, err))) goto done;
        linked = true;
        if (sqlite3_column_int64(q, 0) != seq) {
            status = weft_fail(err, WEFT_E_VERIFY, "event %lld: is missing", (long long)seq);
            goto done;
        }
        if ((status = row_load(q, &r, err))) {
            weft_fail_prefix(err, "event %lld", (long long)seq);
            goto done;
        }
        if ((status = row_check(t, &r, seq, head, &h, err))) goto done;
        const weft_event event = {
            seq,         h.type,        h.span,       h.ts, r.redacted ? NULL : r.body.data,
            r.body.size, r.header.data, r.header.size};
        if (visit) go_on = visit(context, &event);
        seq++;
    }
    if (go_on && step != SQLITE_DONE) {
        status = trace_sql_fail(t->db, WEFT_E_VERIFY, err, "event %lld: read", (long long)seq);
        goto done;
    }
    if (go_on && linked && seq >= t->size) { /* a reader has now seen what the writer added */
        t->size = seq;
        memcpy(t->head, head, WEFT_DIGEST_BYTES);
    }
done:
    row_free(&r);
    return status;
}

weft_status weft_trace_each(weft_trace *trace, int64_t from,
                            bool (*visit)(void *context, const weft_event *event), void *context,
                            weft_error *err)
{
    static const char sql[] = "SELECT seq, hdr, salt, body FROM ev WHERE seq >= ?1 ORDER BY seq";
    sqlite3_stmt *q = NULL;
    if (from < 0)
        return weft_fail(err, WEFT_E_INVALID, "event %lld: numbers start at 0", (long long)from);
    weft_status status = WEFT_OK;
    if (sqlite3_prepare_v2(trace->db, sql, -1, &q, NULL) != SQLITE_OK ||
        sqlite3_bind_int64(q, 1, from) != SQLITE_OK) {
        status = trace_sql_fail(trace->db, WEFT_E_VERIFY, err, "%s: read", trace->path);
        goto done;
    }
    trace->visiting = true;
    status = walk(trace, q, from, visit, context, err);
    trace->visiting = false;
done:
    sqlite3_finalize(q);
    return status;
}
