/* Life cycle of a trace: create, open, close.
 *
 * Creating makes the file itself, exclusively, before SQLite sees it, and syncs its directories:
 * after a power cut a run that has begun is found under its name. Opening to write goes on where
 * the last writer, however it ended, left off: SQLite recovers the WAL, and the last event, its
 * link and the count of events are checked before anything is added.
 */
#include "traces/store.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static weft_trace *trace_new(void)
{
    weft_trace *t = calloc(1, sizeof *t);
    if (t) {
        t->lock_fd = -1;
        t->synced_ns = weft_monotonic_ns();
    }
    return t;
}

static void trace_free(weft_trace *t)
{
    if (!t) return;
    sqlite3_finalize(t->insert);
    sqlite3_close(t->db);
    if (t->lock_fd >= 0) close(t->lock_fd); /* after the database: the lock covers its closing */
    weft_buffer_free(&t->body);
    weft_buffer_free(&t->header);
    weft_buffer_free(&t->line);
    free(t->path);
    free(t);
}

static weft_status prepare_insert(weft_trace *t, weft_error *err)
{
    static const char sql[] = "INSERT INTO ev(seq, hdr, salt, body) VALUES(?1, ?2, ?3, ?4)";
    if (sqlite3_prepare_v3(t->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &t->insert, NULL) ==
        SQLITE_OK)
        return WEFT_OK;
    return trace_sql_fail(t->db, WEFT_E_STORAGE, err, "open %s", t->path);
}

/* The directory of an absolute path, in a buffer of PATH_MAX. */
static void parent_of(const char *path, char out[PATH_MAX])
{
    snprintf(out, PATH_MAX, "%s", path);
    char *slash = strrchr(out, '/');
    if (slash == out) slash++;
    *slash = '\0';
}

/* The file is made by us, exclusively and private, before SQLite sees it: two creators cannot both
 * succeed, and SQLite gives its -wal and -shm the same mode. */
static weft_status file_create(const char *path, weft_error *err)
{
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 && errno == EEXIST)
        return weft_fail(err, WEFT_E_STORAGE, "create %s: it is there already; take another run id",
                         path);
    if (fd < 0) return weft_fail_errno(err, WEFT_E_STORAGE, "create %s", path);
    close(fd);
    return WEFT_OK;
}

weft_status weft_trace_create(weft_trace **out, const char *dir, const char *run_id,
                              weft_error *err)
{
    char real[PATH_MAX], parent[PATH_MAX];
    bool made = false;
    if (!trace_run_ok(run_id))
        return weft_fail(err, WEFT_E_USAGE,
                         "run id '%.80s': it is not 1 to 64 of a-z, 0-9 and '-'; choose another",
                         run_id);
    weft_trace *t = trace_new();
    if (!t) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    weft_status status = weft_mkdirs(dir, err);
    if (status) goto done;
    if (!realpath(dir, real)) {
        status = weft_fail_errno(err, WEFT_E_STORAGE, "open %s", dir);
        goto done;
    }
    if (!(t->path = weft_path_join(real, "trace.db"))) {
        status = weft_fail(err, WEFT_E_MEMORY, "out of memory");
        goto done;
    }
    parent_of(real, parent);
    if ((status = trace_lock_take(real, &t->lock_fd, err))) goto done;
    if ((status = file_create(t->path, err))) goto done;
    made = true;
    if ((status = trace_connect_writer(t, true, err))) goto done;
    if ((status = trace_schema_create(t->db, err))) goto done;
    if ((status = prepare_insert(t, err))) goto done;
    if ((status = weft_sync_dir(real, err))) goto done;   /* the file's own entry, */
    if ((status = weft_sync_dir(parent, err))) goto done; /* and the run directory's */
    memcpy(t->run, run_id, strlen(run_id) + 1);
    *out = t;
    t = NULL;
done:
    if (t && made) unlink(t->path); /* closing then removes the -wal and -shm */
    trace_free(t);
    return status;
}

/* Size, head and run id. A writer insists on a sound end and on a full count of events; a reader
 * takes what is there, so that a damaged trace can still be read up to the damage. */
static weft_status load_end(weft_trace *t, bool for_writing, weft_error *err)
{
    static const char ends[] = "SELECT ifnull(max(seq) + 1, 0) FROM ev";
    static const char count[] = "SELECT count(*) FROM ev";
    int64_t size = 0, rows = 0;
    weft_status status = trace_query_int(t->db, ends, &size, err);
    if (!status && for_writing) status = trace_query_int(t->db, count, &rows, err);
    if (status) {
        weft_fail_prefix(err, "%s", t->path);
        return status;
    }
    if (for_writing && rows != size)
        return weft_fail(err, WEFT_E_VERIFY,
                         "%s: holds %lld of %lld events; weft trace verify names the first missing",
                         t->path, (long long)rows, (long long)size);
    if (for_writing && size == 0)
        return weft_fail(err, WEFT_E_NOT_FOUND,
                         "%s: holds no event, its run never began; start a new run", t->path);
    if (size == 0) return WEFT_OK;
    if (!for_writing) {
        t->size = size;
        trace_read_run(t, NULL); /* if it cannot be read, weft_trace_each says so of event 0 */
        return trace_leaf_before(t, size, t->head, err);
    }
    if ((status = trace_read_run(t, err))) return status;
    return weft_trace_each(t, size - 1, NULL, NULL, err); /* the last event and its link */
}

weft_status weft_trace_open(weft_trace **out, const char *path, bool for_writing, weft_error *err)
{
    char real[PATH_MAX], parent[PATH_MAX];
    struct stat st;
    weft_trace *t = trace_new();
    if (!t) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    weft_status status = WEFT_OK;
    char *file = NULL;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        file = weft_path_join(path, "trace.db");
    else
        file = strdup(path);
    if (!file || !realpath(file, real)) {
        status = file ? weft_fail_errno(err, WEFT_E_NOT_FOUND, "open trace %s", file)
                      : weft_fail(err, WEFT_E_MEMORY, "out of memory");
        goto done;
    }
    if (!(t->path = strdup(real))) {
        status = weft_fail(err, WEFT_E_MEMORY, "out of memory");
        goto done;
    }
    parent_of(real, parent);
    if (for_writing && (status = trace_lock_take(parent, &t->lock_fd, err))) goto done;
    status = for_writing ? trace_connect_writer(t, false, err) : trace_connect_reader(t, err);
    if (status) goto done;
    if ((status = load_end(t, for_writing, err))) goto done;
    if (for_writing && (status = prepare_insert(t, err))) goto done;
    *out = t;
    t = NULL;
done:
    free(file);
    trace_free(t);
    return status;
}

/* Commits with synchronous=NORMAL are in the WAL file, but perhaps not on the disk. SQLite offers
 * its file object for this; a descriptor of our own would be a raw open. */
static weft_status wal_sync(weft_trace *t, weft_error *err)
{
    sqlite3_file *wal = NULL;
    if (sqlite3_file_control(t->db, "main", SQLITE_FCNTL_JOURNAL_POINTER, &wal) != SQLITE_OK ||
        !wal || !wal->pMethods)
        return weft_fail(err, WEFT_E_STORAGE, "sync %s: SQLite gives no WAL file", t->path);
    if (wal->pMethods->xSync(wal, SQLITE_SYNC_FULL) != SQLITE_OK)
        return weft_fail_errno(err, WEFT_E_STORAGE, "sync %s-wal", t->path);
    return WEFT_OK;
}

weft_status weft_trace_close(weft_trace *trace, weft_error *err)
{
    if (!trace) return WEFT_OK;
    weft_status status = WEFT_OK;
    if (trace->in_transaction && !trace->broken) {
        status = trace_exec(trace->db, "COMMIT", WEFT_E_STORAGE, err);
        trace->unsynced = false; /* such a transaction is always FULL */
    }
    if (!status && trace->unsynced && !trace->broken) status = wal_sync(trace, err);
    trace_free(trace);
    return status;
}

/* ---- small accessors ---- */

void weft_trace_set_tap(weft_trace *trace, weft_trace_tap tap, void *context)
{
    trace->tap = tap;
    trace->tap_context = context;
}

int64_t weft_trace_size(const weft_trace *trace)
{
    return trace->size;
}

void weft_trace_head(const weft_trace *trace, uint8_t out[WEFT_DIGEST_BYTES])
{
    memcpy(out, trace->head, WEFT_DIGEST_BYTES);
}

const char *weft_trace_run_id(const weft_trace *trace)
{
    return trace->run;
}

weft_status weft_trace_leaf(weft_trace *trace, int64_t seq, uint8_t out[WEFT_DIGEST_BYTES],
                            weft_error *err)
{
    return trace_leaf_before(trace, seq + 1, out, err);
}
