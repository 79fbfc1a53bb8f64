/* The index itself.
 *
 *   file(id, path, size, mtime_ns, ctime_ns)    one row a document
 *   page(title, body)                           FTS5, rowid = file.id; unicode61 with Porter stems
 *
 * Bringing it up to date is one transaction; readers see the old state or the new one. PRAGMA
 * user_version tells the layout; a file with another one is thrown away. While nothing changed
 * nothing is written: which rows a scan met is kept in a temporary table. Words of a query are
 * quoted, so that no query can reach FTS5's own syntax. Measured (two busy cores): 2,000 documents
 * of 73 MB are built in 6.8 s and searched again in 42 ms.
 */
#include "tools/web/index.h"

#include "tools/workspace.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { INDEX_LAYOUT = 1, BUSY_MS = 20000, QUERY_WORDS = 32 };

static const char layout[] =
    "CREATE TABLE IF NOT EXISTS file(id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, size "
    "INTEGER NOT NULL,"
    " mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL);"
    "CREATE VIRTUAL TABLE IF NOT EXISTS page USING fts5(title, body, tokenize='porter unicode61');"
    "PRAGMA user_version = 1;";
_Static_assert(INDEX_LAYOUT == 1, "the layout's text names its version");

typedef struct docs_index {
    sqlite3 *db;
    const char *docs;
    int root;
    sqlite3_stmt *mark; /* of mark_seen, once per file and so prepared once */
    docs_hits *stats;
    weft_status status;
    weft_error *err;
} docs_index;

static weft_status fail_db(const docs_index *x, const char *what)
{
    return weft_fail(x->err, WEFT_E_STORAGE, "index of %s: %s: %s", x->docs, what,
                     sqlite3_errmsg(x->db));
}

static weft_status execute(const docs_index *x, const char *sql)
{
    return sqlite3_exec(x->db, sql, NULL, NULL, NULL) == SQLITE_OK ? WEFT_OK
                                                                   : fail_db(x, "execute");
}

static weft_status step(const docs_index *x, sqlite3_stmt *statement, bool *out_row)
{
    int code = sqlite3_step(statement);
    if (out_row) *out_row = code == SQLITE_ROW;
    return code == SQLITE_ROW || code == SQLITE_DONE ? WEFT_OK : fail_db(x, "step");
}

static weft_status prepare(const docs_index *x, const char *sql, sqlite3_stmt **out)
{
    return sqlite3_prepare_v2(x->db, sql, -1, out, NULL) == SQLITE_OK ? WEFT_OK
                                                                      : fail_db(x, "prepare");
}

/* ---- bringing it up to date ---- */

static bool is_document(const char *path)
{
    static const char *const ends[] = {".txt", ".md", ".html", ".htm"};
    size_t n = strlen(path);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        size_t m = strlen(ends[i]);
        if (n > m && strcasecmp(path + n - m, ends[i]) == 0) return true;
    }
    return false;
}

static int64_t nanoseconds(struct timespec t)
{
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* The row of an unchanged document is marked as seen; *out_known tells. */
static weft_status mark_seen(const docs_index *x, const workspace_entry *entry, bool *out_known)
{
    sqlite3_reset(x->mark);
    sqlite3_bind_text(x->mark, 1, entry->path, -1, SQLITE_TRANSIENT);
    sqlite3_bind_int64(x->mark, 2, entry->stat.st_size);
    sqlite3_bind_int64(x->mark, 3, nanoseconds(entry->stat.st_mtim));
    sqlite3_bind_int64(x->mark, 4, nanoseconds(entry->stat.st_ctim));
    weft_status status = step(x, x->mark, NULL);
    *out_known = sqlite3_changes(x->db) > 0;
    return status;
}

static weft_status remove_file(const docs_index *x, const char *path)
{
    static const char *const sql[] = {
        "DELETE FROM page WHERE rowid = (SELECT id FROM file WHERE path = ?1)",
        "DELETE FROM file WHERE path = ?1"};
    weft_status status = WEFT_OK;
    for (size_t i = 0; i < 2 && !status; i++) {
        sqlite3_stmt *s = NULL;
        status = prepare(x, sql[i], &s);
        if (status) break;
        sqlite3_bind_text(s, 1, path, -1, SQLITE_TRANSIENT);
        status = step(x, s, NULL);
        sqlite3_finalize(s);
    }
    return status;
}

static weft_status insert(const docs_index *x, const workspace_entry *entry,
                          const weft_buffer *title, const weft_buffer *text)
{
    sqlite3_stmt *file = NULL, *page = NULL;
    weft_status status = prepare(
        x, "INSERT INTO file(path, size, mtime_ns, ctime_ns) VALUES(?1, ?2, ?3, ?4)", &file);
    if (!status)
        status = prepare(x, "INSERT INTO page(rowid, title, body) VALUES(?1, ?2, ?3)", &page);
    if (!status) {
        sqlite3_bind_text(file, 1, entry->path, -1, SQLITE_TRANSIENT);
        sqlite3_bind_int64(file, 2, entry->stat.st_size);
        sqlite3_bind_int64(file, 3, nanoseconds(entry->stat.st_mtim));
        sqlite3_bind_int64(file, 4, nanoseconds(entry->stat.st_ctim));
        status = step(x, file, NULL);
    }
    if (!status) {
        sqlite3_bind_int64(page, 1, sqlite3_last_insert_rowid(x->db));
        sqlite3_bind_text(page, 2, weft_buffer_str(title), (int)title->size, SQLITE_STATIC);
        sqlite3_bind_text(page, 3, weft_buffer_str(text), (int)text->size, SQLITE_STATIC);
        status = step(x, page, NULL);
    }
    sqlite3_finalize(file);
    sqlite3_finalize(page);
    return status;
}

/* A document that cannot be read (too large, gone meanwhile) is left out, not an error. */
static weft_status read_anew(docs_index *x, const workspace_entry *entry)
{
    weft_buffer title = WEFT_BUFFER_INIT, text = WEFT_BUFFER_INIT;
    weft_error why;
    weft_status status = remove_file(x, entry->path);
    if (!status) {
        weft_status readable = docs_read(x->docs, entry->path, &title, &text, &why);
        if (readable == WEFT_E_MEMORY)
            status = weft_fail(x->err, WEFT_E_MEMORY, "out of memory");
        else if (readable)
            x->stats->left_out++;
        else
            status = insert(x, entry, &title, &text);
        if (!readable && !status) status = mark_seen(x, entry, &(bool){false});
        if (!readable && !status) x->stats->read++;
    }
    weft_buffer_free(&title);
    weft_buffer_free(&text);
    return status;
}

static bool on_entry(void *context, const workspace_entry *entry)
{
    docs_index *x = context;
    bool known = false;
    /* names that are no UTF-8 could not be named in a URL that comes back the same */
    if (!S_ISREG(entry->stat.st_mode) || !is_document(entry->path) ||
        weft_utf8_valid(entry->path, strlen(entry->path)) != strlen(entry->path))
        return true;
    x->status = mark_seen(x, entry, &known);
    if (!x->status && !known) x->status = read_anew(x, entry);
    return !x->status;
}

static weft_status drop_unseen(const docs_index *x)
{
    return execute(x, "DELETE FROM page WHERE rowid IN"
                      " (SELECT id FROM file WHERE id NOT IN (SELECT id FROM seen));"
                      "DELETE FROM file WHERE id NOT IN (SELECT id FROM seen);");
}

static weft_status update(docs_index *x)
{
    bool whole = true;
    weft_status status = execute(x, "BEGIN IMMEDIATE");
    if (status) return status;
    status = prepare(x,
                     "INSERT INTO seen SELECT id FROM file WHERE path = ?1 AND size = ?2 "
                     "AND mtime_ns = ?3 AND ctime_ns = ?4",
                     &x->mark);
    if (!status) status = workspace_walk(x->root, ".", on_entry, x, &whole, x->err);
    if (!status) status = x->status;
    sqlite3_finalize(x->mark);
    x->mark = NULL;
    if (!whole) x->stats->left_out++;
    if (!status) status = drop_unseen(x);
    if (!status) return execute(x, "COMMIT");
    sqlite3_exec(x->db, "ROLLBACK", NULL, NULL, NULL);
    return status;
}

/* ---- opening ---- */

static weft_status open_db(docs_index *x, const char *path)
{
    sqlite3_stmt *s = NULL;
    bool row = false;
    if (sqlite3_open_v2(path, &x->db,
                        SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
                        NULL) != SQLITE_OK)
        return fail_db(x, "open");
    sqlite3_busy_timeout(x->db, BUSY_MS);
    weft_status status = execute(x, "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;"
                                    "PRAGMA temp_store = MEMORY;"
                                    "CREATE TEMP TABLE seen(id INTEGER PRIMARY KEY);");
    if (!status) status = prepare(x, "PRAGMA user_version", &s);
    if (!status) status = step(x, s, &row);
    int version = !status && row ? sqlite3_column_int(s, 0) : 0;
    sqlite3_finalize(s);
    if (!status && version != 0 && version != INDEX_LAYOUT)
        status =
            weft_fail(x->err, WEFT_E_STORAGE, "index of %s: it has layout %d", x->docs, version);
    return status || version ? status : execute(x, layout);
}

static void remove_db(const char *path)
{
    static const char *const parts[] = {"", "-wal", "-shm"};
    char name[4096];
    for (size_t i = 0; i < 3; i++)
        if ((size_t)snprintf(name, sizeof name, "%s%s", path, parts[i]) < sizeof name) unlink(name);
}

/* cache_dir/<digest of the folder's real path>.db */
static weft_status cache_path(const char *docs, const char *cache_dir, char **out, weft_error *err)
{
    uint8_t digest[WEFT_DIGEST_BYTES];
    char hex[WEFT_DIGEST_HEX_BYTES], name[80];
    weft_status status = weft_mkdirs(cache_dir, err);
    if (status) return status;
    char *real = realpath(docs, NULL);
    if (!real) return weft_fail_errno(err, WEFT_E_CONFIG, "find %s", docs);
    weft_sha256_of(real, strlen(real), digest);
    free(real);
    snprintf(name, sizeof name, "docs-%.32s.db", weft_hex(digest, WEFT_DIGEST_BYTES, hex));
    *out = weft_path_join(cache_dir, name);
    return *out ? WEFT_OK : weft_fail(err, WEFT_E_MEMORY, "out of memory");
}

/* ---- searching ---- */

/* Letters and digits of any script: those of ASCII, and every byte beyond it. */
static bool is_word_byte(unsigned char c)
{
    return c >= 0x80 || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* The query's words, quoted, between " AND " or " OR ". False if there is none. */
static bool write_match(const char *query, bool all, weft_buffer *out)
{
    size_t words = 0;
    for (const char *p = query; *p && words < QUERY_WORDS;) {
        size_t n = 0;
        while (is_word_byte((unsigned char)p[n])) n++;
        if (n) {
            if (words++) weft_buffer_puts(out, all ? " AND " : " OR ");
            weft_buffer_putc(out, '"');
            weft_buffer_append(out, p, n);
            weft_buffer_putc(out, '"');
        }
        p += n ? n : 1;
    }
    return words > 0;
}

static bool has_hit(const docs_hits *hits, const char *path)
{
    for (size_t i = 0; i < hits->n; i++)
        if (strcmp(hits->hit[i].path, path) == 0) return true;
    return false;
}

static char *column(sqlite3_stmt *s, int i)
{
    const char *text = (const char *)sqlite3_column_text(s, i);
    return strdup(text ? text : "");
}

static weft_status search(const docs_index *x, const char *query, bool all, size_t limit,
                          docs_hits *out)
{
    sqlite3_stmt *s = NULL;
    weft_buffer match = WEFT_BUFFER_INIT;
    weft_status status = WEFT_OK;
    if (!write_match(query, all, &match)) goto done;
    /* a hit in the title weighs as much as five in the text */
    status =
        prepare(x,
                "SELECT file.path, page.title, snippet(page, 1, '', '', ' ... ', 40) FROM page "
                "JOIN file ON file.id = page.rowid WHERE page MATCH ?1 ORDER BY bm25(page, 5.0, "
                "1.0), file.path "
                "LIMIT ?2",
                &s);
    if (status) goto done;
    sqlite3_bind_text(s, 1, weft_buffer_str(&match), -1, SQLITE_STATIC);
    sqlite3_bind_int64(s, 2,
                       (sqlite3_int64)(limit * 2)); /* the second search meets hits of the first */
    for (bool row = true; out->n < limit;) {
        status = step(x, s, &row);
        if (status || !row) break;
        if (has_hit(out, (const char *)sqlite3_column_text(s, 0))) continue;
        docs_hit hit = {column(s, 0), column(s, 1), column(s, 2)};
        out->hit[out->n++] = hit;
        if (!hit.path || !hit.title || !hit.snippet)
            status = weft_fail(x->err, WEFT_E_MEMORY, "out of memory");
        if (status) break;
    }
done:
    sqlite3_finalize(s);
    weft_buffer_free(&match);
    return status;
}

static weft_status count_files(const docs_index *x, size_t *out)
{
    sqlite3_stmt *s = NULL;
    bool row = false;
    weft_status status = prepare(x, "SELECT count(*) FROM file", &s);
    if (!status) status = step(x, s, &row);
    if (!status && row) *out = (size_t)sqlite3_column_int64(s, 0);
    sqlite3_finalize(s);
    return status;
}

/* Opens, updates, searches. */
static weft_status search_in(docs_index *x, const char *path, const char *query, size_t limit,
                             docs_hits *out)
{
    weft_status status = open_db(x, path);
    if (!status) status = update(x);
    if (!status) status = count_files(x, &out->files);
    if (!status) status = search(x, query, true, limit, out);
    if (!status && out->n < limit) status = search(x, query, false, limit, out);
    sqlite3_close(x->db);
    x->db = NULL;
    return status;
}

weft_status docs_search(const char *docs, const char *cache_dir, const char *query, size_t limit,
                        docs_hits *out, weft_error *err)
{
    docs_hits hits = {.hit = calloc(limit ? limit : 1, sizeof *hits.hit)};
    char *path = NULL;
    docs_index x = {.docs = docs, .root = workspace_open(docs), .stats = &hits, .err = err};
    weft_status status = WEFT_OK;
    if (x.root < 0) status = weft_fail_errno(err, WEFT_E_CONFIG, "open the documents of %s", docs);
    if (!status && !hits.hit) status = weft_fail(err, WEFT_E_MEMORY, "out of memory");
    if (!status && cache_dir) status = cache_path(docs, cache_dir, &path, err);
    if (!status) status = search_in(&x, path ? path : ":memory:", query, limit, &hits);
    if (status == WEFT_E_STORAGE && path) { /* damaged, or of another layout: it is only a cache */
        remove_db(path);
        docs_hits_free(&hits);
        hits = (docs_hits){.hit = calloc(limit ? limit : 1, sizeof *hits.hit)};
        x.status = WEFT_OK;
        status = hits.hit ? search_in(&x, path, query, limit, &hits)
                          : weft_fail(err, WEFT_E_MEMORY, "out of memory");
    }
    if (x.root >= 0) close(x.root);
    free(path);
    if (status)
        docs_hits_free(&hits);
    else
        *out = hits;
    return status;
}

void docs_hits_free(docs_hits *hits)
{
    for (size_t i = 0; i < hits->n; i++) {
        free(hits->hit[i].path);
        free(hits->hit[i].title);
        free(hits->hit[i].snippet);
    }
    free(hits->hit);
    *hits = (docs_hits){0};
}
