/* Inside of a trace: the SQLite connection and what append, read and blob share. Private.
 *
 * Invariants of an open trace:
 *   size and head describe the last event this object knows (a writer: the last one in the file);
 *   a transaction is open only between a put_blob and the append that commits it, and is FULL;
 *   once `broken` is set, nothing is written any more through this object.
 */
#ifndef WEFT_TRACES_STORE_H
#define WEFT_TRACES_STORE_H

#include "traces/format.h"
#include "traces/trace.h"

#include <sqlite3.h>

struct weft_trace {
    sqlite3 *db;
    sqlite3_stmt *insert; /* writer only */
    char *path;           /* of trace.db, absolute */
    int lock_fd;          /* of trace.lock, -1 for a reader */
    bool in_transaction;  /* between calls: a blob waits for its event */
    bool visiting;        /* inside weft_trace_each: appending is a bug of the caller */
    bool full_sync;       /* the connection's synchronous setting: FULL or NORMAL */
    bool unsynced;        /* a commit with NORMAL since the last one with FULL */
    int64_t synced_ns;    /* monotonic time of the last commit with FULL */
    weft_status broken;   /* the first failed append, WEFT_OK while healthy */
    weft_error why_broken;
    int64_t size;
    uint8_t head[WEFT_DIGEST_BYTES];
    char run[TRACE_RUN_BYTES + 1];
    weft_buffer body, header, line; /* scratch, kept for their memory */
    weft_trace_tap tap;
    void *tap_context;
};

/* Fills err with "what: SQLite's reason[; what to do]" and returns code. */
weft_status trace_sql_fail(sqlite3 *db, weft_status code, weft_error *err, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
weft_status trace_exec(sqlite3 *db, const char *sql, weft_status code, weft_error *err);
/* The first column of the first row as an integer. */
weft_status trace_query_int(sqlite3 *db, const char *sql, int64_t *out, weft_error *err);

/* Takes the single-writer lock of a run directory. WEFT_E_STORAGE "in use by pid N". */
weft_status trace_lock_take(const char *dir, int *out_fd, weft_error *err);
/* Sets trace->db for trace->path: hardened, its schema checked (unless `create`). */
weft_status trace_connect_reader(weft_trace *trace, weft_error *err);
weft_status trace_connect_writer(weft_trace *trace, bool create, weft_error *err);
/* Writes application id, tables and triggers into an empty file. */
weft_status trace_schema_create(sqlite3 *db, weft_error *err);

/* Begins the transaction that the next append commits, unless it is open already. */
weft_status trace_begin(weft_trace *trace, weft_error *err);
/* Rolls back, marks the trace broken with the reason in err and returns its code. */
weft_status trace_break(weft_trace *trace, weft_error *err);
/* The error of any further write once the trace is broken, or of a write to a reader. */
weft_status trace_writable(const weft_trace *trace, weft_error *err);
/* The leaf of event seq - 1, as its stored header gives it; zeros for seq 0. */
weft_status trace_leaf_before(weft_trace *trace, int64_t seq, uint8_t out[WEFT_DIGEST_BYTES],
                              weft_error *err);
/* Sets trace->run from event 0. */
weft_status trace_read_run(weft_trace *trace, weft_error *err);

#endif
