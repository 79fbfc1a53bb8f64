/* The SQLite side of a trace: exact errors, the single-writer lock, connections, the schema.
 *
 * Locking. One process writes. It holds flock(2) on `trace.lock` beside the database: a lock that
 * the kernel drops with the process, so a dead writer is no obstacle, and whose file no one needs
 * to remove (removing would let two writers lock two files of one name). Nobody but SQLite ever
 * opens trace.db itself: closing any descriptor of it would drop SQLite's POSIX locks in this
 * process.
 *
 * Two read-write connections on one WAL can corrupt it in SQLite before 3.51.3; readers therefore
 * are read-only connections, which neither write nor checkpoint.
 *
 * A file from elsewhere is hostile until checked: its schema must be, word for word, the one below
 * (no view in place of a table, no extra trigger, none of ours dropped), before anything is read by
 * it.
 */
#include "traces/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { APPLICATION_ID = 0x77656674, /* 'weft' */ BUSY_MS = 5000 };

/* Docs/trace.md prints these texts. ev_insert closes what the other two leave open: INSERT OR
 * REPLACE deletes without firing a delete trigger, and a skipped number would be a gap. */
static const struct schema_object {
    const char *name, *sql;
} schema[] = {
    {"ev", "CREATE TABLE ev(seq INTEGER PRIMARY KEY, hdr BLOB NOT NULL, salt BLOB, body BLOB)"},
    {"ckpt", "CREATE TABLE ckpt(size INTEGER PRIMARY KEY, note TEXT NOT NULL)"},
    {"blob", "CREATE TABLE blob(h BLOB PRIMARY KEY, z BLOB)"},
    {"ev_insert", "CREATE TRIGGER ev_insert BEFORE INSERT ON ev"
                  " WHEN NEW.seq IS NOT (SELECT ifnull(max(seq) + 1, 0) FROM ev)"
                  " BEGIN SELECT RAISE(ABORT, 'ev is append-only: seq must follow the last'); END"},
    {"ev_update", "CREATE TRIGGER ev_update BEFORE UPDATE ON ev"
                  " WHEN NEW.seq IS NOT OLD.seq OR NEW.hdr IS NOT OLD.hdr"
                  " OR NEW.salt IS NOT NULL OR NEW.body IS NOT NULL"
                  " BEGIN SELECT RAISE(ABORT, 'ev is append-only: only redaction to NULL'); END"},
    {"ev_delete", "CREATE TRIGGER ev_delete BEFORE DELETE ON ev"
                  " BEGIN SELECT RAISE(ABORT, 'ev is append-only'); END"},
};
enum { SCHEMA_OBJECTS = sizeof schema / sizeof *schema };

/* ---- errors ---- */

static const char *cure(int code)
{
    switch (code & 0xff) {
    case SQLITE_FULL: return "; free some space, then resume the run";
    case SQLITE_IOERR: return "; check the disk and its free space, then resume the run";
    case SQLITE_BUSY:
    case SQLITE_LOCKED: return "; close the other program that writes to this file";
    default: return "";
    }
}

weft_status trace_sql_fail(sqlite3 *db, weft_status code, weft_error *err, const char *format, ...)
{
    char what[512];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    int sql = sqlite3_extended_errcode(db);
    if (sql == SQLITE_NOMEM) code = WEFT_E_MEMORY;
    int os = (sql & 0xff) == SQLITE_IOERR ? sqlite3_system_errno(db) : 0;
    return weft_fail(err, code, "%s: %s%s%s%s", what, sqlite3_errmsg(db), os ? ": " : "",
                     os ? strerror(os) : "", cure(sql));
}

weft_status trace_exec(sqlite3 *db, const char *sql, weft_status code, weft_error *err)
{
    if (sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK) return WEFT_OK;
    return trace_sql_fail(db, code, err, "%.60s", sql);
}

/* The first column of the first row as an integer. */
weft_status trace_query_int(sqlite3 *db, const char *sql, int64_t *out, weft_error *err)
{
    sqlite3_stmt *q = NULL;
    weft_status status = WEFT_OK;
    if (sqlite3_prepare_v2(db, sql, -1, &q, NULL) != SQLITE_OK || sqlite3_step(q) != SQLITE_ROW)
        status = trace_sql_fail(db, WEFT_E_VERIFY, err, "read");
    else
        *out = sqlite3_column_int64(q, 0);
    sqlite3_finalize(q);
    return status;
}

/* ---- the lock ---- */

/* DIR/trace.lock; its content, the holder's pid, only serves the message. */
weft_status trace_lock_take(const char *dir, int *out_fd, weft_error *err)
{
    char *path = weft_path_join(dir, "trace.lock");
    if (!path) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    weft_status status = WEFT_OK;
    char pid[24] = "";
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600), locked;
    if (fd < 0) {
        status = weft_fail_errno(err, WEFT_E_STORAGE, "lock %s", path);
        goto done;
    }
    while ((locked = flock(fd, LOCK_EX | LOCK_NB)) != 0 && errno == EINTR) continue;
    if (locked != 0 && errno == EWOULDBLOCK) {
        ssize_t n = pread(fd, pid, sizeof pid - 1, 0);
        pid[n > 0 ? strspn(pid, "0123456789") : 0] = '\0';
        status =
            weft_fail(err, WEFT_E_STORAGE, "trace in %s: in use by pid %s; wait for it or stop it",
                      dir, *pid ? pid : "(unknown)");
        goto done;
    }
    if (locked != 0) {
        status = weft_fail_errno(err, WEFT_E_STORAGE, "lock %s", path);
        goto done;
    }
    int n = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
    if (ftruncate(fd, 0) != 0 || pwrite(fd, pid, (size_t)n, 0) != n)
        status = weft_fail_errno(err, WEFT_E_STORAGE, "write %s", path);
done:
    free(path);
    if (status && fd >= 0) close(fd);
    if (!status) *out_fd = fd;
    return status;
}

/* ---- the connection ---- */

static weft_status schema_check(sqlite3 *db, const char *path, bool writing, weft_error *err)
{
    static const char list[] = "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL";
    sqlite3_stmt *q = NULL;
    int64_t id = 0;
    int found = 0, step = SQLITE_DONE;
    weft_status status = trace_query_int(db, "PRAGMA application_id", &id, err);
    if (status) {
        weft_fail_prefix(err, "%s: is no readable trace", path);
        goto done;
    }
    bool same = id == APPLICATION_ID;
    if (sqlite3_prepare_v2(db, list, -1, &q, NULL) != SQLITE_OK) {
        status = trace_sql_fail(db, WEFT_E_VERIFY, err, "%s: read its schema", path);
        goto done;
    }
    /* its creator was killed: only who may begin it anew is told so */
    if (writing && id == 0 && sqlite3_step(q) == SQLITE_DONE) {
        status = weft_fail(err, WEFT_E_NOT_FOUND,
                           "%s: is empty, its run never began; start a new run", path);
        goto done;
    }
    while (same && (step = sqlite3_step(q)) == SQLITE_ROW) {
        const char *name = (const char *)sqlite3_column_text(q, 0);
        const char *sql = (const char *)sqlite3_column_text(q, 1);
        same = false;
        for (int i = 0; i < SCHEMA_OBJECTS && name && sql; i++)
            if (strcmp(name, schema[i].name) == 0) same = strcmp(sql, schema[i].sql) == 0;
        found++;
    }
    if (same && step != SQLITE_DONE)
        status = trace_sql_fail(db, WEFT_E_VERIFY, err, "%s: read its schema", path);
    else if (!same || found != SCHEMA_OBJECTS)
        status = weft_fail(err, WEFT_E_VERIFY,
                           "%s: is no weft trace, or its tables or triggers were changed", path);
done:
    sqlite3_finalize(q);
    return status;
}

/* A file on a read-only medium cannot have the shared memory that reading a WAL needs. If there is
 * no WAL beside it, the file alone is the whole database and is opened as immutable. */
static int open_immutable(const char *path, sqlite3 **out)
{
    weft_buffer uri = WEFT_BUFFER_INIT;
    int result = SQLITE_CANTOPEN;
    struct stat wal;
    weft_buffer_printf(&uri, "%s-wal", path);
    if (uri.failed || (stat(uri.data, &wal) == 0 && wal.st_size > 0)) goto done;
    weft_buffer_clear(&uri);
    weft_buffer_puts(&uri, "file:");
    for (const char *p = path; *p; p++)
        if (strchr("%?#", *p))
            weft_buffer_printf(&uri, "%%%02x", (unsigned)*p);
        else
            weft_buffer_putc(&uri, *p);
    weft_buffer_puts(&uri, "?immutable=1");
    if (!uri.failed)
        result = sqlite3_open_v2(uri.data, out, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, NULL);
done:
    weft_buffer_free(&uri);
    return result;
}

/* A connection that trusts nothing in the file, waits for a moment's lock and reports exact errors.
 */
static void connection_harden(sqlite3 *db)
{
    sqlite3_extended_result_codes(db, 1);
    sqlite3_busy_timeout(db, BUSY_MS);
    sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, (int *)NULL);
    sqlite3_db_config(db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, (int *)NULL);
}

weft_status trace_connect_reader(weft_trace *t, weft_error *err)
{
    int opened = sqlite3_open_v2(t->path, &t->db, SQLITE_OPEN_READONLY, NULL);
    if (opened == SQLITE_OK) {
        connection_harden(t->db);
        /* opening is lazy: the first read shows whether the WAL's shared memory can be had */
        opened = sqlite3_exec(t->db, "PRAGMA schema_version", NULL, NULL, NULL) & 0xff;
    }
    if (opened == SQLITE_CANTOPEN || opened == SQLITE_READONLY) {
        sqlite3_close(t->db);
        t->db = NULL;
        if (open_immutable(t->path, &t->db) != SQLITE_OK) {
            sqlite3_close(t->db);
            t->db = NULL;
            return weft_fail(err, WEFT_E_STORAGE,
                             "open %s: its -wal needs a writable directory; copy both files to one",
                             t->path);
        }
        connection_harden(t->db);
    }
    if (!t->db) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    return schema_check(t->db, t->path, false, err);
}

weft_status trace_connect_writer(weft_trace *t, bool create, weft_error *err)
{
    sqlite3_stmt *q = NULL;
    weft_status status = WEFT_OK;
    if (sqlite3_open_v2(t->path, &t->db, SQLITE_OPEN_READWRITE, NULL) != SQLITE_OK)
        return t->db ? trace_sql_fail(t->db, WEFT_E_STORAGE, err, "open %s", t->path)
                     : weft_fail(err, WEFT_E_MEMORY, "out of memory");
    connection_harden(t->db);
    if (sqlite3_db_readonly(t->db, "main") == 1) /* SQLite falls back to reading silently */
        return weft_fail(err, WEFT_E_STORAGE, "open %s: it is write-protected", t->path);
    if (!create && (status = schema_check(t->db, t->path, true, err))) return status;
    if (sqlite3_prepare_v2(t->db, "PRAGMA journal_mode=WAL", -1, &q, NULL) != SQLITE_OK ||
        sqlite3_step(q) != SQLITE_ROW)
        status = trace_sql_fail(t->db, WEFT_E_STORAGE, err, "open %s", t->path);
    else if (strcmp((const char *)sqlite3_column_text(q, 0), "wal") != 0)
        status = weft_fail(
            err, WEFT_E_STORAGE,
            "open %s: this file system has no shared memory for a WAL; use a local disk", t->path);
    sqlite3_finalize(q);
    if (!status) status = trace_exec(t->db, "PRAGMA synchronous=FULL", WEFT_E_STORAGE, err);
    t->full_sync = true;
    return status;
}

weft_status trace_schema_create(sqlite3 *db, weft_error *err)
{
    char id[48];
    snprintf(id, sizeof id, "PRAGMA application_id=%d", APPLICATION_ID);
    weft_status status = trace_exec(db, "BEGIN IMMEDIATE", WEFT_E_STORAGE, err);
    if (!status) status = trace_exec(db, id, WEFT_E_STORAGE, err);
    for (int i = 0; i < SCHEMA_OBJECTS && !status; i++)
        status = trace_exec(db, schema[i].sql, WEFT_E_STORAGE, err);
    return status ? status : trace_exec(db, "COMMIT", WEFT_E_STORAGE, err);
}
