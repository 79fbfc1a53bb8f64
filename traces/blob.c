/* Large payloads beside the events: stored once under the SHA-256 of their bytes, zstd-compressed.
 *
 * An event names a blob by its digest, so the chain covers it. A blob is committed by the event
 * that follows it, in one transaction: neither is there without the other (or by close, if none
 * follows). Redaction sets z to NULL, and it stays so.
 */
#include "traces/store.h"

#include <zstd.h>

/* Below SQLite's limit of 10^9 bytes a value, and a bound for what a hostile frame may ask for. */
static const size_t BLOB_BYTES = (size_t)1 << 29;
enum { ZSTD_LEVEL = 3 };

/* Compresses into out. */
static weft_status compress(const void *bytes, size_t n, weft_buffer *out, weft_error *err)
{
    size_t bound = ZSTD_compressBound(n);
    char *to = weft_buffer_reserve(out, bound);
    if (!to) return weft_buffer_ok(out, err);
    size_t z = ZSTD_compress(to, bound, bytes, n, ZSTD_LEVEL);
    if (ZSTD_isError(z))
        return weft_fail(err, WEFT_E_MEMORY, "compress a blob: %s", ZSTD_getErrorName(z));
    out->size += z;
    return WEFT_OK;
}

static weft_status insert(weft_trace *t, const uint8_t *digest, const weft_buffer *z,
                          weft_error *err)
{
    sqlite3_stmt *q = NULL;
    weft_status status = trace_begin(t, err);
    if (status) return status;
    if (sqlite3_prepare_v2(t->db, "INSERT OR IGNORE INTO blob(h, z) VALUES(?1, ?2)", -1, &q,
                           NULL) != SQLITE_OK ||
        sqlite3_bind_blob(q, 1, digest, WEFT_DIGEST_BYTES, SQLITE_STATIC) != SQLITE_OK ||
        sqlite3_bind_blob64(q, 2, z->data, z->size, SQLITE_STATIC) != SQLITE_OK ||
        sqlite3_step(q) != SQLITE_DONE)
        status = trace_sql_fail(t->db, WEFT_E_STORAGE, err, "store a blob");
    sqlite3_finalize(q);
    return status;
}

weft_status weft_trace_put_blob(weft_trace *trace, const void *bytes, size_t n,
                                uint8_t out_sha256[WEFT_DIGEST_BYTES], weft_error *err)
{
    uint8_t digest[WEFT_DIGEST_BYTES];
    weft_buffer z = WEFT_BUFFER_INIT;
    weft_error why;
    weft_status status = trace_writable(trace, err);
    if (status) return status;
    if (n > BLOB_BYTES)
        return weft_fail(err, WEFT_E_INVALID, "store a blob: %zu bytes are past %zu", n,
                         BLOB_BYTES);
    weft_sha256_of(bytes, n, digest);
    if ((status = compress(bytes, n, &z, err))) goto done;
    if ((status = insert(trace, digest, &z, &why))) {
        trace_break(trace, &why);
        weft_fail(err, status, "%s", why.message);
        goto done;
    }
    for (int i = 0; i < WEFT_DIGEST_BYTES; i++) out_sha256[i] = digest[i];
done:
    weft_buffer_free(&z);
    return status;
}

/* The frame's content, appended to out and checked against its name. */
static weft_status restore(const void *z, size_t n_z, const uint8_t *sha256, const char *hex,
                           weft_buffer *out, weft_error *err)
{
    uint8_t digest[WEFT_DIGEST_BYTES];
    unsigned long long size = ZSTD_getFrameContentSize(z, n_z);
    if (size > BLOB_BYTES) /* also the two error values */
        return weft_fail(err, WEFT_E_VERIFY, "blob %.16s: is damaged", hex);
    char *to = weft_buffer_reserve(out, (size_t)size);
    if (!to) return weft_buffer_ok(out, err);
    size_t got = ZSTD_decompress(to, (size_t)size, z, n_z);
    bool same = !ZSTD_isError(got) && got == size;
    if (same) {
        weft_sha256_of(to, got, digest);
        same = sodium_memcmp(digest, sha256, WEFT_DIGEST_BYTES) == 0;
    }
    to[same ? got : 0] = '\0';
    if (!same) return weft_fail(err, WEFT_E_VERIFY, "blob %.16s: its content was changed", hex);
    out->size += got;
    return WEFT_OK;
}

weft_status weft_trace_get_blob(weft_trace *trace, const uint8_t sha256[WEFT_DIGEST_BYTES],
                                weft_buffer *out, weft_error *err)
{
    char hex[WEFT_DIGEST_HEX_BYTES];
    sqlite3_stmt *q = NULL;
    weft_status status = WEFT_OK;
    weft_hex(sha256, WEFT_DIGEST_BYTES, hex);
    int step = sqlite3_prepare_v2(trace->db, "SELECT z FROM blob WHERE h = ?1", -1, &q, NULL);
    if (step == SQLITE_OK) step = sqlite3_bind_blob(q, 1, sha256, WEFT_DIGEST_BYTES, SQLITE_STATIC);
    if (step == SQLITE_OK) step = sqlite3_step(q);
    if (step == SQLITE_DONE)
        status = weft_fail(err, WEFT_E_NOT_FOUND, "blob %.16s: is not in the trace", hex);
    else if (step != SQLITE_ROW)
        status = trace_sql_fail(trace->db, WEFT_E_VERIFY, err, "blob %.16s: read", hex);
    else if (sqlite3_column_type(q, 0) == SQLITE_NULL)
        status = weft_fail(err, WEFT_E_NOT_FOUND, "blob %.16s: was redacted", hex);
    else
        status = restore(sqlite3_column_blob(q, 0), (size_t)sqlite3_column_bytes(q, 0), sha256, hex,
                         out, err);
    sqlite3_finalize(q);
    return status;
}
