/* Digests of model files and their cache.
 *
 * Hashing a gigabyte takes seconds (libsodium's SHA-256: 0.4 GB/s here), and every run names the digest of
 * its model. So the digest is kept with the size and the modification time (to the nanosecond) of the file
 * it was computed from, and computed again when either differs. It protects against damage and mix-ups,
 * not against someone who can write the store.
 */
#include "agent/models_store.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

weft_status store_hash(const char *path, models_progress progress, void *context,
                       uint8_t out[WEFT_DIGEST_BYTES], weft_error *err)
{
    enum { CHUNK = 1 << 20 };
    struct stat st;
    weft_sha256 h;
    weft_status status = WEFT_OK;
    char *chunk = malloc(CHUNK);
    if (!chunk) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0) {
        status = weft_fail_errno(err, WEFT_E_NOT_FOUND, "read %s", path);
        goto done;
    }
    weft_sha256_init(&h);
    for (int64_t at = 0;;) {
        ssize_t n = read(fd, chunk, CHUNK);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            status = weft_fail_errno(err, WEFT_E_STORAGE, "read %s", path);
            goto done;
        }
        if (n == 0) break;
        weft_sha256_update(&h, chunk, (size_t)n);
        at += n;
        if (progress && progress(context, "check", at, st.st_size)) {
            status = weft_fail(err, WEFT_E_INTERRUPTED, "interrupted while checking %s", path);
            goto done;
        }
    }
    weft_sha256_final(&h, out);
done:
    if (fd >= 0) close(fd);
    free(chunk);
    return status;
}

/* Where the digest of a file is kept: beside a model of the store, else in the store under the hash of
 * the file's path, so that foreign directories stay clean. */
static char *facts_path(const char *real)
{
    char *dir = NULL, real_dir[PATH_MAX], *out = NULL;
    if (store_dir(&dir, NULL)) return NULL;
    const char *slash = strrchr(real, '/');
    if (slash && realpath(dir, real_dir) && strlen(real_dir) == (size_t)(slash - real) &&
        strncmp(real, real_dir, (size_t)(slash - real)) == 0) {
        out = store_print("%s%s.json", real, "");
    } else {
        uint8_t digest[WEFT_DIGEST_BYTES];
        char hex[WEFT_DIGEST_HEX_BYTES];
        weft_sha256_of(real, strlen(real), digest);
        out = store_print("%s/digests/%s.json", dir, weft_hex(digest, 16, hex));
    }
    free(dir);
    return out;
}

static void time_text(const struct stat *st, char out[48])
{
    snprintf(out, 48, "%lld.%09ld", (long long)st->st_mtim.tv_sec, st->st_mtim.tv_nsec);
}

bool store_digest_cached(const char *path, uint8_t out[WEFT_DIGEST_BYTES])
{
    char real[PATH_MAX], text[48];
    struct stat st;
    uint8_t digest[WEFT_DIGEST_BYTES];
    cJSON *json = NULL;
    bool fits = false;
    char *facts = realpath(path, real) ? facts_path(real) : NULL;
    if (facts && stat(real, &st) == 0 && weft_json_parse_file(facts, &json, NULL) == WEFT_OK) {
        const char *hex = weft_json_string(json, "sha256"),
                   *mtime = weft_json_string(json, "mtime");
        time_text(&st, text);
        fits = hex && mtime && strcmp(mtime, text) == 0 &&
               weft_json_int(json, "size", -1) == st.st_size &&
               weft_unhex(hex, digest, WEFT_DIGEST_BYTES);
    }
    if (fits) memcpy(out, digest, WEFT_DIGEST_BYTES);
    cJSON_Delete(json);
    free(facts);
    return fits;
}

/* Writes what store_digest_cached reads, for the state of the file in st. */
static void note(const char *real, const struct stat *st, const uint8_t digest[WEFT_DIGEST_BYTES])
{
    char text[48], hex[WEFT_DIGEST_HEX_BYTES];
    weft_buffer out = WEFT_BUFFER_INIT;
    cJSON *json = cJSON_CreateObject();
    char *facts = facts_path(real), *slash = facts ? strrchr(facts, '/') : NULL;
    time_text(st, text);
    cJSON_AddStringToObject(json, "sha256", weft_hex(digest, WEFT_DIGEST_BYTES, hex));
    weft_json_add_int(json, "size", st->st_size);
    cJSON_AddStringToObject(json, "mtime", text);
    weft_json_compact(json, &out);
    weft_buffer_putc(&out, '\n');
    if (slash && !out.failed) {
        *slash = '\0';
        bool there = weft_mkdirs(facts, NULL) == WEFT_OK;
        *slash = '/';
        if (there) weft_file_write(facts, out.data, out.size, 0644, NULL);
    }
    cJSON_Delete(json);
    weft_buffer_free(&out);
    free(facts);
}

void store_digest_note(const char *path, const uint8_t digest[WEFT_DIGEST_BYTES])
{
    char real[PATH_MAX];
    struct stat st;
    if (realpath(path, real) && stat(real, &st) == 0) note(real, &st, digest);
}

weft_status models_digest_with(const char *path, models_progress progress, void *context,
                               uint8_t out[WEFT_DIGEST_BYTES], weft_error *err)
{
    char real[PATH_MAX];
    struct stat before, after;
    uint8_t digest[WEFT_DIGEST_BYTES];
    if (store_digest_cached(path, out)) return WEFT_OK;
    if (!realpath(path, real) || stat(real, &before) != 0)
        return weft_fail_errno(err, WEFT_E_NOT_FOUND, "read %s", path);
    weft_status status = store_hash(real, progress, context, digest, err);
    if (status) return status;
    /* a file that is being written has no digest worth keeping */
    if (stat(real, &after) == 0 && after.st_size == before.st_size &&
        after.st_mtim.tv_sec == before.st_mtim.tv_sec &&
        after.st_mtim.tv_nsec == before.st_mtim.tv_nsec)
        note(real, &before, digest);
    memcpy(out, digest, WEFT_DIGEST_BYTES);
    return WEFT_OK;
}

weft_status models_digest(const char *path, uint8_t out[WEFT_DIGEST_BYTES], weft_error *err)
{
    return models_digest_with(path, NULL, NULL, out, err);
}
