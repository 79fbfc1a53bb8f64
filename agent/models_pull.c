/* Pulling: a spec to a file in the store. Every way in ends at one gate, `install`: GGUF magic, size and
 * digest where they are known, sync, rename. Before it there is only NAME.gguf.part. */
#include "agent/download.h"
#include "agent/models_store.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

static const models_pull_options no_options;
static const char PUBLIC_HUB[] = "https://huggingface.co";
enum { HUB_LISTING_BYTES = 8 << 20 };

/* One pull under the lock of its name. */
typedef struct pull {
    const models_pull_options *options;
    store_paths paths;
    int lock;
    const char *name;
    const char *sha256; /* expected, or "" */
    int64_t bytes;      /* expected, or -1 */
} pull;

/* ---- the gate ---- */

static weft_status check_magic(const char *path, weft_error *err)
{
    uint8_t head[8] = {0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return weft_fail_errno(err, WEFT_E_NOT_FOUND, "read %s", path);
    ssize_t n = pread(fd, head, sizeof head, 0);
    close(fd);
    uint32_t version = (uint32_t)head[4] | (uint32_t)head[5] << 8 | (uint32_t)head[6] << 16 |
                       (uint32_t)head[7] << 24;
    if (n == sizeof head && memcmp(head, "GGUF", 4) == 0 && (version == 2 || version == 3))
        return WEFT_OK;
    return weft_fail(err, WEFT_E_INVALID, "%s: is no GGUF file of version 2 or 3", path);
}

static weft_status fill(const pull *p, const uint8_t digest[WEFT_DIGEST_BYTES], bool present,
                        models_pulled *out, weft_error *err)
{
    models_pulled m = {.name = strdup(p->name), .path = strdup(p->paths.file), .present = present};
    weft_hex(digest, WEFT_DIGEST_BYTES, m.sha256);
    if (!m.name || !m.path) {
        models_pulled_free(&m);
        return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    }
    *out = m;
    return WEFT_OK;
}

void models_pulled_free(models_pulled *pulled)
{
    free(pulled->name);
    free(pulled->path);
    *pulled = (models_pulled){0};
}

/* paths.part, complete, becomes the model. What is not the model is thrown away. */
static weft_status install(const pull *p, models_pulled *out, weft_error *err)
{
    uint8_t digest[WEFT_DIGEST_BYTES];
    char hex[WEFT_DIGEST_HEX_BYTES];
    const char *part = p->paths.part;
    weft_status status = check_magic(part, err);
    if (status == WEFT_E_INVALID) goto discard;
    if (!status) status = store_hash(part, p->options->progress, p->options->context, digest, err);
    if (status) return status;
    if (*p->sha256 && strcmp(weft_hex(digest, WEFT_DIGEST_BYTES, hex), p->sha256) != 0) {
        status =
            weft_fail(err, WEFT_E_VERIFY, "%s: what came has SHA-256 %s, not %s; it was removed",
                      p->name, hex, p->sha256);
        goto discard;
    }
    if (rename(part, p->paths.file) != 0)
        return weft_fail_errno(err, WEFT_E_STORAGE, "rename to %s", p->paths.file);
    download_discard(part);
    store_digest_note(p->paths.file, digest);
    if ((status = weft_sync_dir(p->paths.dir, err))) return status;
    return fill(p, digest, false, out, err);
discard:
    download_discard(part);
    return status;
}

/* Is the model there, and the right one? *out is filled if so. */
static weft_status look(const pull *p, bool *there, models_pulled *out, weft_error *err)
{
    uint8_t digest[WEFT_DIGEST_BYTES];
    char hex[WEFT_DIGEST_HEX_BYTES];
    *there = weft_file_exists(p->paths.file);
    if (!*there) return WEFT_OK;
    if (!*p->sha256)
        return weft_fail(
            err, WEFT_E_CONFIG,
            "model %s: one of this name is there already; weft model rm %s, then pull again",
            p->name, p->name);
    weft_status status =
        models_digest_with(p->paths.file, p->options->progress, p->options->context, digest, err);
    if (status) return status;
    if (strcmp(weft_hex(digest, WEFT_DIGEST_BYTES, hex), p->sha256) != 0)
        return weft_fail(
            err, WEFT_E_VERIFY,
            "model %s: the file that is there has SHA-256 %s, not %s; weft model rm %s, then "
            "pull again",
            p->name, hex, p->sha256, p->name);
    return fill(p, digest, true, out, err);
}

static weft_status pull_begin(pull *p, const char *name, const char *sha256, int64_t bytes,
                              const models_pull_options *options, weft_error *err)
{
    *p = (pull){.options = options ? options : &no_options,
                .lock = -1,
                .name = name,
                .sha256 = sha256,
                .bytes = bytes};
    weft_status status = store_paths_of(name, &p->paths, err);
    return status ? status : store_lock(&p->paths, p->options, &p->lock, err);
}

static void pull_end(pull *p)
{
    if (p->lock >= 0) close(p->lock);
    store_paths_free(&p->paths);
}

/* ---- URLs and the hub ---- */

static const char *hub_token(void)
{
    const char *token = getenv("HF_TOKEN");
    return token && *token ? token : NULL;
}

static weft_status fetch_url(const pull *p, const char *url, const char *token, weft_error *err)
{
    const download d = {.url = url,
                        .path = p->paths.part,
                        .token = token,
                        .bytes = p->bytes,
                        .stall_seconds = p->options->stall_seconds,
                        .progress = p->options->progress,
                        .context = p->options->context};
    return download_file(&d, err);
}

/* Appends a path with everything but unreserved characters and '/' percent-encoded. */
static void put_path(weft_buffer *b, const char *path)
{
    for (; *path; path++)
        if ((*path >= 'a' && *path <= 'z') || (*path >= 'A' && *path <= 'Z') ||
            (*path >= '0' && *path <= '9') || strchr("-._~/", *path))
            weft_buffer_putc(b, *path);
        else
            weft_buffer_printf(b, "%%%02X", (unsigned char)*path);
}

/* BASE/prefix REPO infix FILE suffix (malloc'd), NULL on lack of memory. */
static char *hub_url(const char *prefix, const char *repo, const char *infix, const char *file)
{
    const char *base = getenv("HF_ENDPOINT");
    weft_buffer b = WEFT_BUFFER_INIT;
    if (!base || !*base) base = PUBLIC_HUB;
    size_t n = strlen(base);
    while (n && base[n - 1] == '/') n--;
    weft_buffer_append(&b, base, n);
    weft_buffer_puts(&b, prefix);
    put_path(&b, repo);
    weft_buffer_puts(&b, infix);
    put_path(&b, file);
    return weft_buffer_take(&b);
}

static weft_status fetch_hub(const pull *p, const char *repo, const char *file, weft_error *err)
{
    char *url = hub_url("/", repo, "/resolve/main/", file);
    if (!url) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    weft_status status = fetch_url(p, url, hub_token(), err);
    free(url);
    return status;
}

/* ---- known names ---- */

static weft_status fetch_source(const pull *p, const models_source *source, weft_error *err)
{
    if (source->repo) return fetch_hub(p, source->repo, source->file, err);
    return store_fetch_packages(source, &p->paths, p->bytes, p->options, err);
}

/* Not worth another source: it would fail for the same reason, or is not wanted. */
static bool final(weft_status status)
{
    return status == WEFT_E_STORAGE || status == WEFT_E_INTERRUPTED || status == WEFT_E_MEMORY;
}

static weft_status try_sources(const pull *p, const models_known *known, models_pulled *out,
                               weft_error *err)
{
    enum { SOURCES = sizeof known->source / sizeof *known->source };
    weft_status status = WEFT_E_NOT_FOUND;
    for (int i = 0; i < SOURCES; i++) {
        const models_source *source = &known->source[i];
        if (!source->repo && !source->package) break;
        if (i > 0 && p->options->notice) { /* err holds why the one before failed */
            char line[WEFT_ERROR_BYTES + 64];
            snprintf(line, sizeof line, "%s; trying packages instead", err->message);
            p->options->notice(p->options->context, line);
        }
        status = fetch_source(p, source, err);
        if (!status) status = install(p, out, err);
        if (!status || final(status)) return status;
    }
    return status;
}

weft_status models_pull_known(const models_known *known, const models_pull_options *options,
                              models_pulled *out, weft_error *err)
{
    pull p;
    bool there = false;
    weft_error local;
    if (!err) err = &local;
    weft_status status = pull_begin(&p, known->name, known->sha256, known->bytes, options, err);
    if (!status) status = look(&p, &there, out, err);
    if (!status && !there && known->terms && !p.options->accept_license)
        status = weft_fail(
            err, WEFT_E_CONFIG,
            "model %s: is under the %s (%s); read them, and if you agree: weft model pull "
            "%s --accept-license",
            known->name, known->licence, known->terms, known->name);
    if (!status && !there) status = try_sources(&p, known, out, err);
    pull_end(&p);
    return status;
}

/* ---- any URL ---- */

/* The last path segment of n bytes without ".gguf" (malloc'd). */
static char *name_from(const char *path, size_t n)
{
    size_t from = n;
    while (from && path[from - 1] != '/') from--;
    if (n - from > 5 && strncasecmp(path + n - 5, ".gguf", 5) == 0) n -= 5;
    return strndup(path + from, n - from);
}

static weft_status pull_url(const char *spec, const models_pull_options *options,
                            models_pulled *out, weft_error *err)
{
    static const char mark[] = "#sha256=";
    uint8_t digest[WEFT_DIGEST_BYTES];
    char hex[WEFT_DIGEST_HEX_BYTES] = "";
    pull p;
    bool there = false;
    size_t end = strcspn(spec, "#"), path_end = strcspn(spec, "?#");
    if (spec[end]) {
        if (strncmp(spec + end, mark, sizeof mark - 1) != 0 ||
            !weft_unhex(spec + end + sizeof mark - 1, digest, WEFT_DIGEST_BYTES))
            return weft_fail(err, WEFT_E_USAGE,
                             "pull: what follows '#' is no sha256=HEX of 64 digits");
        weft_hex(digest, WEFT_DIGEST_BYTES, hex);
    }
    char *url = strndup(spec, end), *name = name_from(spec, path_end);
    weft_status status = url && name ? WEFT_OK : weft_fail(err, WEFT_E_MEMORY, "out of memory");
    if (status) goto done;
    status = pull_begin(&p, name, hex, -1, options, err);
    if (!status) status = look(&p, &there, out, err);
    if (!status && !there) status = fetch_url(&p, url, NULL, err);
    if (!status && !there) status = install(&p, out, err);
    pull_end(&p);
done:
    free(url);
    free(name);
    return status;
}

/* ---- hf:OWNER/REPO[:FILE] ---- */

static bool is_gguf(const char *path)
{
    size_t n = strlen(path);
    return n > 5 && strcasecmp(path + n - 5, ".gguf") == 0;
}

/* The listing's entry to pull: FILE, or the only .gguf, or the only Q4_K_M. Else the error names all. */
static weft_status choose(const cJSON *listing, const char *repo, const char *file,
                          const cJSON **out, weft_error *err)
{
    const cJSON *entry, *found = NULL, *any = NULL, *medium = NULL;
    int n_any = 0, n_medium = 0;
    weft_buffer names = WEFT_BUFFER_INIT;
    cJSON_ArrayForEach(entry, listing)
    {
        const char *path = weft_json_string(entry, "path");
        if (!path || !is_gguf(path)) continue;
        if (strcmp(path, file) == 0) found = entry;
        n_any++;
        any = entry;
        if (strcasestr(path, "Q4_K_M")) {
            n_medium++;
            medium = entry;
        }
        weft_buffer_printf(&names, " %s", path);
    }
    if (!*file) found = n_any == 1 ? any : n_medium == 1 ? medium : NULL;
    weft_status status = WEFT_OK;
    if (!found && n_any == 0)
        status = weft_fail(err, WEFT_E_NOT_FOUND,
                           "hf:%s: holds no .gguf file; look for a GGUF version", repo);
    else if (!found)
        status = weft_fail(err, WEFT_E_USAGE, "hf:%s%s%s: name one of its files, hf:%s:FILE:%s",
                           repo, *file ? ":" : "", file, repo, weft_buffer_str(&names));
    else
        *out = found;
    weft_buffer_free(&names);
    return status;
}

static weft_status hub_listing(const char *repo, cJSON **out, weft_error *err)
{
    weft_buffer text = WEFT_BUFFER_INIT;
    char *url = hub_url("/api/models/", repo, "/tree/main?recursive=true", "");
    if (!url) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    cJSON *json = NULL;
    weft_status status = download_text(url, hub_token(), HUB_LISTING_BYTES, &text, err);
    if (!status) {
        weft_error why;
        if (weft_json_parse(weft_buffer_str(&text), text.size, &json, &why) ||
            !cJSON_IsArray(json)) {
            cJSON_Delete(json);
            status =
                weft_fail(err, WEFT_E_NETWORK, "hf:%s: the hub's answer is no list of files", repo);
        }
    }
    if (!status) *out = json;
    weft_buffer_free(&text);
    free(url);
    return status;
}

/* OWNER/REPO of the characters that the hub allows. */
static bool repo_ok(const char *repo)
{
    const char *slash = strchr(repo, '/');
    char owner[128];
    if (!slash || (size_t)(slash - repo) >= sizeof owner) return false;
    memcpy(owner, repo, (size_t)(slash - repo));
    owner[slash - repo] = '\0';
    return store_name_ok(owner) && store_name_ok(slash + 1);
}

static weft_status pull_hub(const char *spec, const models_pull_options *options,
                            models_pulled *out, weft_error *err)
{
    pull p;
    bool there = false;
    cJSON *listing = NULL;
    const cJSON *entry = NULL;
    char hex[WEFT_DIGEST_HEX_BYTES] = "", *name = NULL;
    uint8_t digest[WEFT_DIGEST_BYTES];
    const char *colon = strchr(spec + 3, ':'), *file = colon ? colon + 1 : "";
    char *repo = colon ? strndup(spec + 3, (size_t)(colon - spec - 3)) : strdup(spec + 3);
    weft_status status = repo ? WEFT_OK : weft_fail(err, WEFT_E_MEMORY, "out of memory");
    if (!status && !repo_ok(repo))
        status = weft_fail(err, WEFT_E_USAGE, "pull %s: write hf:OWNER/REPO or hf:OWNER/REPO:FILE",
                           spec);
    if (!status) status = hub_listing(repo, &listing, err);
    if (!status) status = choose(listing, repo, file, &entry, err);
    if (status) goto done;
    const char *path = weft_json_string(entry, "path");
    const cJSON *lfs = cJSON_GetObjectItemCaseSensitive(entry, "lfs");
    const char *oid = weft_json_string(lfs, "oid");
    if (oid && weft_unhex(oid, digest, WEFT_DIGEST_BYTES)) weft_hex(digest, WEFT_DIGEST_BYTES, hex);
    int64_t bytes = weft_json_int(entry, "size", -1);
    if (!(name = name_from(path, strlen(path)))) {
        status = weft_fail(err, WEFT_E_MEMORY, "out of memory");
        goto done;
    }
    status = pull_begin(&p, name, hex, bytes > 0 ? bytes : -1, options, err);
    if (!status) status = look(&p, &there, out, err);
    if (!status && !there) status = fetch_hub(&p, repo, path, err);
    if (!status && !there) status = install(&p, out, err);
    pull_end(&p);
done:
    cJSON_Delete(listing);
    free(repo);
    free(name);
    return status;
}

/* ---- a file that is here ---- */

static weft_status copy_file(const pull *p, const char *from, int64_t bytes, weft_error *err)
{
    enum { CHUNK = 1 << 20 };
    weft_status status = download_room(p->paths.dir, bytes, err);
    if (status) return status;
    char *chunk = malloc(CHUNK);
    if (!chunk) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    int in = open(from, O_RDONLY | O_CLOEXEC);
    int out = open(p->paths.part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (in < 0 || out < 0) status = weft_fail_errno(err, WEFT_E_STORAGE, "copy %s", from);
    for (int64_t done = 0; !status;) {
        ssize_t n = read(in, chunk, CHUNK);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) status = weft_fail_errno(err, WEFT_E_STORAGE, "copy %s", from);
        if (n <= 0) break;
        if ((status = weft_write_all(out, chunk, (size_t)n, err))) break;
        done += n;
        if (p->options->progress && p->options->progress(p->options->context, "copy", done, bytes))
            status = weft_fail(err, WEFT_E_INTERRUPTED, "copy interrupted");
    }
    if (!status && fsync(out) != 0)
        status = weft_fail_errno(err, WEFT_E_STORAGE, "sync %s", p->paths.part);
    if (in >= 0) close(in);
    if (out >= 0) close(out);
    free(chunk);
    if (status) download_discard(p->paths.part);
    return status;
}

static weft_status register_file(pull *p, const char *real, models_pulled *out, weft_error *err)
{
    uint8_t digest[WEFT_DIGEST_BYTES];
    char hex[WEFT_DIGEST_HEX_BYTES];
    struct stat st;
    bool there = false;
    if (stat(real, &st) != 0) return weft_fail_errno(err, WEFT_E_NOT_FOUND, "read %s", real);
    weft_status status = check_magic(real, err);
    if (!status)
        status = models_digest_with(real, p->options->progress, p->options->context, digest, err);
    if (status) return status;
    p->sha256 = weft_hex(digest, WEFT_DIGEST_BYTES, hex);
    if ((status = look(p, &there, out, err)) || there) return status;
    /* a second name for the same bytes costs nothing; on another file system it takes a copy */
    if (link(real, p->paths.file) == 0) {
        store_digest_note(p->paths.file, digest);
        status = weft_sync_dir(p->paths.dir, err);
        return status ? status : fill(p, digest, false, out, err);
    }
    status = copy_file(p, real, st.st_size, err);
    return status ? status : install(p, out, err);
}

static weft_status pull_path(const char *spec, const models_pull_options *options,
                             models_pulled *out, weft_error *err)
{
    char real[PATH_MAX];
    struct stat st;
    pull p;
    if (!realpath(spec, real) || stat(real, &st) != 0)
        return weft_fail_errno(err, WEFT_E_NOT_FOUND, "pull %s", spec);
    if (!S_ISREG(st.st_mode))
        return weft_fail(err, WEFT_E_INVALID, "pull %s: it is no regular file", spec);
    char *name = name_from(spec, strlen(spec));
    if (!name) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    weft_status status = pull_begin(&p, name, "", -1, options, err);
    if (!status) status = register_file(&p, real, out, err);
    pull_end(&p);
    free(name);
    return status;
}

weft_status models_pull(const char *spec, const models_pull_options *options, models_pulled *out,
                        weft_error *err)
{
    const models_known *known = models_find(spec);
    if (known) return models_pull_known(known, options, out, err);
    if (strncmp(spec, "hf:", 3) == 0) return pull_hub(spec, options, out, err);
    if (strncasecmp(spec, "https://", 8) == 0 || strncasecmp(spec, "http://", 7) == 0)
        return pull_url(spec, options, out, err);
    if (weft_file_exists(spec)) return pull_path(spec, options, out, err);
    size_t n;
    const models_known *table = models_table(&n);
    weft_buffer names = WEFT_BUFFER_INIT;
    for (size_t i = 0; i < n; i++) weft_buffer_printf(&names, "%s, ", table[i].name);
    weft_fail(
        err, WEFT_E_USAGE,
        "pull %s: there is no such name or file; known are %shf:OWNER/REPO[:FILE], a URL or a path",
        spec, weft_buffer_str(&names));
    weft_buffer_free(&names);
    return WEFT_E_USAGE;
}
