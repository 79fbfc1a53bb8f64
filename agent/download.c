/* Resumable downloads (download.h). One `transfer` is one HTTP exchange; download_file strings them
 * together. libcurl's callbacks cannot return a status, so they leave it in the transfer. */
#include "agent/download.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum {
    CONNECT_SECONDS = 5,
    STALL_SECONDS = 30,
    REDIRECTS = 10,
    FRUITLESS = 4,         /* attempts in a row without a new byte */
    VALIDATOR_BYTES = 256, /* longer ones are not kept: such a file is not resumed */
    RETRY_MS = 200         /* times the number of fruitless attempts */
};

typedef struct transfer {
    const download *d;
    CURL *curl;
    int fd;
    char *state_path;
    char where[256];                 /* scheme, host and path, for messages */
    char validator[VALIDATOR_BYTES]; /* of what the file holds, "" if there is none */
    int64_t have;                    /* bytes of the file that count */
    int64_t total;                   /* of the resource as the server says, -1 unknown */
    int64_t best;                    /* the most that was ever there: progress is what passes it */
    /* of the response in progress */
    int64_t moved_ns, moved_to; /* when the last byte came, and t->have then */
    bool connected;             /* there was a connection */
    bool begun;                 /* its body was accepted */
    char etag[VALIDATOR_BYTES], modified[VALIDATOR_BYTES];
    int64_t length, range_from, range_total;
    weft_status failed; /* set by a callback, which then stops libcurl */
    weft_error why;
} transfer;

/* ---- shared by both kinds ---- */

/* The URL without user, query and fragment, which may hold secrets. */
static void shown(const char *url, char out[256])
{
    CURLU *u = curl_url();
    char *scheme = NULL, *host = NULL, *port = NULL, *path = NULL;
    snprintf(out, 256, "the URL");
    if (u && !curl_url_set(u, CURLUPART_URL, url, 0) &&
        !curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) &&
        !curl_url_get(u, CURLUPART_HOST, &host, 0) && !curl_url_get(u, CURLUPART_PATH, &path, 0)) {
        curl_url_get(u, CURLUPART_PORT, &port, 0);
        snprintf(out, 256, "%s://%s%s%s%s", scheme, host, port ? ":" : "", port ? port : "", path);
    }
    curl_free(scheme);
    curl_free(host);
    curl_free(port);
    curl_free(path);
    curl_url_cleanup(u);
}

/* What every request has in common. An Authorization header that is given as a header is dropped by
 * libcurl when a redirect leaves scheme, host and port. */
static CURL *handle_new(const char *url, const char *token, struct curl_slist **headers)
{
    CURL *c = curl_easy_init();
    if (!c) return NULL;
    if (token && *token) {
        weft_buffer b = WEFT_BUFFER_INIT;
        weft_buffer_printf(&b, "Authorization: Bearer %s", token);
        struct curl_slist *list = b.failed ? NULL : curl_slist_append(*headers, b.data);
        if (b.data) sodium_memzero(b.data, b.size);
        weft_buffer_free(&b);
        if (!list) {
            curl_easy_cleanup(c);
            return NULL;
        }
        *headers = list;
    }
    bool secure = strncasecmp(url, "https:", 6) == 0;
    curl_easy_setopt(c, CURLOPT_URL, url);
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c, CURLOPT_USERAGENT, "weft");
    curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_SECONDS);
    curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(c, CURLOPT_MAXREDIRS, (long)REDIRECTS);
    curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(c, CURLOPT_REDIR_PROTOCOLS_STR, secure ? "https" : "http,https");
    curl_easy_setopt(c, CURLOPT_HTTPHEADER, *headers);
    return c;
}

/* The reason of a finished exchange that brought no usable answer. */
static weft_status explain(const char *where, CURLcode code, long http, weft_error *err)
{
    if (code != CURLE_OK)
        return weft_fail(err, WEFT_E_NETWORK, "%s: %s", where,
                         code == CURLE_ABORTED_BY_CALLBACK ? "the transfer stalled"
                                                           : curl_easy_strerror(code));
    if (http == 404 || http == 410)
        return weft_fail(err, WEFT_E_NOT_FOUND, "%s: not found (HTTP %ld)", where, http);
    if (http == 401 || http == 403)
        return weft_fail(err, WEFT_E_DENIED,
                         "%s: access refused (HTTP %ld); set HF_TOKEN to a token that may read it",
                         where, http);
    return weft_fail(err, WEFT_E_NETWORK, "%s: HTTP %ld", where, http);
}

weft_status download_room(const char *directory, int64_t bytes, weft_error *err)
{
    struct statvfs fs;
    if (statvfs(directory, &fs) != 0)
        return weft_fail_errno(err, WEFT_E_STORAGE, "free space of %s", directory);
    uint64_t room = (uint64_t)fs.f_bavail * fs.f_frsize;
    if (bytes <= 0 || room >= (uint64_t)bytes) return WEFT_OK;
    return weft_fail(err, WEFT_E_STORAGE,
                     "%s: %lld MiB are needed and %llu MiB are free; free some space", directory,
                     (long long)(bytes >> 20) + 1, (unsigned long long)(room >> 20));
}

static char *state_of(const char *path)
{
    weft_buffer b = WEFT_BUFFER_INIT;
    weft_buffer_printf(&b, "%s.json", path);
    return weft_buffer_take(&b);
}

void download_discard(const char *path)
{
    char *state = state_of(path);
    unlink(path);
    if (state) unlink(state);
    free(state);
}

/* ---- state beside the partial file ---- */

static weft_status state_save(transfer *t, weft_error *err)
{
    cJSON *json = cJSON_CreateObject();
    weft_buffer text = WEFT_BUFFER_INIT;
    cJSON_AddStringToObject(json, "url", t->d->url);
    cJSON_AddStringToObject(json, "validator", t->validator);
    weft_json_compact(json, &text);
    weft_status status = weft_buffer_ok(&text, err);
    /* the URL may hold a signature: for its owner only */
    if (!status) status = weft_file_write(t->state_path, text.data, text.size, 0600, err);
    cJSON_Delete(json);
    weft_buffer_free(&text);
    return status;
}

/* How many bytes of the partial file may be kept: all of them if they came from this URL and there is a
 * validator to ask for the rest with. */
static void state_load(transfer *t)
{
    cJSON *json = NULL;
    struct stat st;
    t->have = 0;
    if (weft_json_parse_file(t->state_path, &json, NULL)) return;
    const char *url = weft_json_string(json, "url"),
               *validator = weft_json_string(json, "validator");
    if (url && validator && *validator && strcmp(url, t->d->url) == 0 &&
        strlen(validator) < sizeof t->validator && fstat(t->fd, &st) == 0) {
        memcpy(t->validator, validator, strlen(validator) + 1);
        t->have = st.st_size;
    }
    cJSON_Delete(json);
}

/* ---- one exchange ---- */

static size_t stop(transfer *t)
{
    t->failed = t->why.code;
    return CURL_WRITEFUNC_ERROR;
}

static void take(char out[VALIDATOR_BYTES], const char *value, size_t n)
{
    if (n >= VALIDATOR_BYTES || memchr(value, '\0', n)) n = 0;
    memcpy(out, value, n);
    out[n] = '\0';
}

static size_t on_header(char *line, size_t size, size_t count, void *context)
{
    transfer *t = context;
    size_t n = size * count;
    char text[VALIDATOR_BYTES * 2];
    long long from, total;
    if (n >= 5 && strncmp(line, "HTTP/", 5) == 0) { /* of a redirect, or the final one */
        *t->etag = *t->modified = '\0';
        t->length = t->range_from = t->range_total = -1;
    }
    const char *colon = memchr(line, ':', n);
    if (!colon) return n;
    size_t key = (size_t)(colon - line);
    const char *value = colon + 1, *end = line + n;
    while (value < end && (*value == ' ' || *value == '\t')) value++;
    while (end > value && strchr(" \t\r\n", end[-1])) end--;
    size_t n_value = (size_t)(end - value);
    if (n_value >= sizeof text) return n;
    memcpy(text, value, n_value);
    text[n_value] = '\0';
    if (key == 4 && strncasecmp(line, "ETag", key) == 0 &&
        *text == '"') /* W/"..." is no use here */
        take(t->etag, value, n_value);
    else if (key == 13 && strncasecmp(line, "Last-Modified", key) == 0)
        take(t->modified, value, n_value);
    else if (key == 14 && strncasecmp(line, "Content-Length", key) == 0)
        t->length = strtoll(text, NULL, 10);
    else if (key == 13 && strncasecmp(line, "Content-Range", key) == 0) {
        if (sscanf(text, "bytes %lld-%*d/%lld", &from, &total) == 2) {
            t->range_from = from;
            t->range_total = total;
        } else if (sscanf(text, "bytes %lld-", &from) == 1) {
            t->range_from = from;
        } else if (sscanf(text, "bytes */%lld", &total) == 1) {
            t->range_total = total;
        }
    }
    return n;
}

/* Forgets what the file holds. */
static weft_status start_over(transfer *t, weft_error *err)
{
    t->have = 0;
    *t->validator = '\0';
    if (ftruncate(t->fd, 0) != 0)
        return weft_fail_errno(err, WEFT_E_STORAGE, "truncate %s", t->d->path);
    return WEFT_OK;
}

/* Does a 206 continue what the file holds? */
static bool continues(const transfer *t)
{
    const char *validator = *t->etag ? t->etag : t->modified;
    return t->have > 0 && t->range_from == t->have &&
           (!*validator || strcmp(validator, t->validator) == 0);
}

/* The first byte of a body that is wanted: it continues the file (206) or replaces it (200). */
static weft_status begin_body(transfer *t, long http)
{
    const char *validator = *t->etag ? t->etag : t->modified;
    weft_status status = WEFT_OK;
    if (http == 206) {
        t->total = t->range_total;
    } else {
        if ((status = start_over(t, &t->why))) return status;
        t->total = t->length;
        take(t->validator, validator, strlen(validator));
        if ((status = state_save(t, &t->why))) return status;
    }
    if (t->d->bytes >= 0 && t->total >= 0 && t->total != t->d->bytes)
        return weft_fail(&t->why, WEFT_E_VERIFY, "%s: has %lld bytes, not %lld: it is another file",
                         t->where, (long long)t->total, (long long)t->d->bytes);
    char *dir = strdup(t->d->path), *slash = dir ? strrchr(dir, '/') : NULL;
    if (slash) slash[1] = '\0';
    if (t->total > t->have) status = download_room(slash ? dir : ".", t->total - t->have, &t->why);
    free(dir);
    t->begun = true;
    return status;
}

static size_t on_body(char *bytes, size_t size, size_t count, void *context)
{
    transfer *t = context;
    size_t n = size * count;
    long http = 0;
    curl_easy_getinfo(t->curl, CURLINFO_RESPONSE_CODE, &http);
    if (http != 200 && http != 206) return n;        /* an error page: not for the file */
    if (!t->begun && http == 206 && !continues(t)) { /* another version: no failure, but not this */
        if (start_over(t, &t->why)) return stop(t);
        return CURL_WRITEFUNC_ERROR;
    }
    if (!t->begun && begin_body(t, http)) return stop(t);
    if (t->d->bytes >= 0 && (uint64_t)t->have + n > (uint64_t)t->d->bytes) {
        weft_fail(&t->why, WEFT_E_VERIFY, "%s: has more than %lld bytes: it is another file",
                  t->where, (long long)t->d->bytes);
        return stop(t);
    }
    for (size_t done = 0; done < n;) {
        ssize_t w = pwrite(t->fd, bytes + done, n - done, t->have);
        if (w < 0 && errno == EINTR) continue;
        if (w < 0) {
            weft_fail_errno(&t->why, WEFT_E_STORAGE, "write %s", t->d->path);
            return stop(t);
        }
        done += (size_t)w;
        t->have += w;
    }
    return n;
}

static int on_progress(void *context, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    transfer *t = context;
    int64_t total = t->d->bytes >= 0 ? t->d->bytes : t->total > 0 ? t->total : 0;
    int seconds = t->d->stall_seconds > 0 ? t->d->stall_seconds : STALL_SECONDS;
    if (t->d->progress && t->d->progress(t->d->context, "download", t->have, total)) {
        t->failed = weft_fail(&t->why, WEFT_E_INTERRUPTED, "download interrupted");
        return 1;
    }
    /* libcurl's own low-speed limit averages over five seconds more */
    if (t->have != t->moved_to) {
        t->moved_to = t->have;
        t->moved_ns = weft_monotonic_ns();
    }
    return t->curl && weft_monotonic_ns() - t->moved_ns > (int64_t)seconds * 1000000000;
}

/* Runs one exchange from t->have on. *http is 0 if there was no response. */
static CURLcode exchange(transfer *t, long *http)
{
    weft_buffer line = WEFT_BUFFER_INIT;
    struct curl_slist *headers = NULL;
    CURLcode code = CURLE_OUT_OF_MEMORY;
    char range[32];
    curl_off_t connect_us = 0;
    *http = 0;
    t->begun = t->connected = false;
    if (!*t->validator && start_over(t, &t->why)) { /* nothing ties new bytes to the old ones */
        t->failed = t->why.code;
        return code;
    }
    if (t->have > 0) {
        weft_buffer_printf(&line, "If-Range: %s", t->validator);
        if (line.failed || !(headers = curl_slist_append(NULL, line.data))) goto done;
    }
    if (!(t->curl = handle_new(t->d->url, t->d->token, &headers))) goto done;
    if (t->have > 0) { /* not RESUME_FROM: libcurl refuses a 200 to that */
        snprintf(range, sizeof range, "%lld-", (long long)t->have);
        curl_easy_setopt(t->curl, CURLOPT_RANGE, range);
    }
    curl_easy_setopt(t->curl, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(t->curl, CURLOPT_HEADERDATA, t);
    curl_easy_setopt(t->curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(t->curl, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(t->curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(t->curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(t->curl, CURLOPT_XFERINFODATA, t);
    t->moved_ns = weft_monotonic_ns();
    t->moved_to = t->have;
    code = curl_easy_perform(t->curl);
    curl_easy_getinfo(t->curl, CURLINFO_RESPONSE_CODE, http);
    curl_easy_getinfo(t->curl, CURLINFO_CONNECT_TIME_T, &connect_us);
    t->connected = connect_us > 0 || *http != 0;
done:
    curl_easy_cleanup(t->curl);
    t->curl = NULL;
    curl_slist_free_all(headers);
    weft_buffer_free(&line);
    return code;
}

/* ---- the whole download ---- */

/* Would another attempt be of use? */
static bool transient(const transfer *t, CURLcode code, long http)
{
    switch (code) {
    case CURLE_OK: return http == 408 || http == 425 || http == 429 || http >= 500 || http < 400;
    case CURLE_OUT_OF_MEMORY:
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_TOO_MANY_REDIRECTS:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE: return false;
    default: return t->connected || t->best > 0; /* the network that worked a moment ago */
    }
}

static weft_status pause_before_retry(transfer *t, int fruitless)
{
    for (int i = 0; i < fruitless; i++) {
        usleep(RETRY_MS * 1000);
        if (on_progress(t, 0, 0, 0, 0)) return t->failed;
    }
    return WEFT_OK;
}

/* True if the exchange, or what was there before it, makes the file whole. */
static bool whole(transfer *t, CURLcode code, long http)
{
    if (code != CURLE_OK) return false;
    if (http == 416) /* nothing behind the end: whole, if the server's end is ours */
        return t->have > 0 && t->range_total == t->have;
    if (http == 200 && !t->begun && begin_body(t, http)) { /* an empty body has no first byte */
        t->failed = t->why.code;
        return false;
    }
    return t->begun && (t->total < 0 || t->have >= t->total);
}

static weft_status run(transfer *t, weft_error *err)
{
    int fruitless = 0;
    weft_status status;
    state_load(t);
    if (t->d->bytes >= 0 && t->have > t->d->bytes && (status = start_over(t, err))) return status;
    t->total = -1;
    while (t->d->bytes < 0 || t->have != t->d->bytes) {
        long http;
        CURLcode code = exchange(t, &http);
        bool done = !t->failed && whole(t, code, http);
        if (t->failed) goto failed;
        if (done) break;
        if (http == 416 && t->have > 0) { /* the resource is shorter than what was kept of it */
            if (start_over(t, &t->why)) goto failed;
        } else if (!transient(t, code, http)) {
            return explain(t->where, code, http, err);
        }
        if (t->have > t->best) {
            t->best = t->have;
            fruitless = 0;
        } else if (++fruitless == FRUITLESS) {
            explain(t->where, code, http, err);
            weft_fail_prefix(err, "download given up after %d fruitless attempts", FRUITLESS);
            return WEFT_E_NETWORK;
        }
        if (pause_before_retry(t, fruitless)) goto failed;
    }
    if (t->d->bytes >= 0 && t->have != t->d->bytes) {
        weft_fail(&t->why, WEFT_E_VERIFY, "%s: has %lld bytes, not %lld: it is another file",
                  t->where, (long long)t->have, (long long)t->d->bytes);
        goto failed;
    }
    if (t->d->progress) t->d->progress(t->d->context, "download", t->have, t->have);
    if (fsync(t->fd) != 0) return weft_fail_errno(err, WEFT_E_STORAGE, "sync %s", t->d->path);
    return WEFT_OK;
failed:
    if (t->why.code == WEFT_E_VERIFY) download_discard(t->d->path);
    return weft_fail(err, t->why.code, "%s", t->why.message);
}

weft_status download_file(const download *d, weft_error *err)
{
    transfer t = {.d = d, .fd = -1, .total = -1};
    weft_status status = WEFT_OK;
    shown(d->url, t.where);
    if (!(t.state_path = state_of(d->path))) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    t.fd = open(d->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (t.fd < 0)
        status = weft_fail_errno(err, WEFT_E_STORAGE, "create %s", d->path);
    else
        status = run(&t, err);
    if (t.fd >= 0) close(t.fd);
    free(t.state_path);
    return status;
}

/* ---- small texts ---- */

typedef struct text_sink {
    weft_buffer *out;
    size_t room;
} text_sink;

static size_t on_text(char *bytes, size_t size, size_t count, void *context)
{
    text_sink *sink = context;
    size_t n = size * count;
    if (n > sink->room) return CURL_WRITEFUNC_ERROR;
    sink->room -= n;
    weft_buffer_append(sink->out, bytes, n);
    return n;
}

weft_status download_text(const char *url, const char *token, size_t max_bytes, weft_buffer *out,
                          weft_error *err)
{
    struct curl_slist *headers = NULL;
    weft_buffer text = WEFT_BUFFER_INIT;
    text_sink sink = {&text, max_bytes};
    char where[256];
    long http = 0;
    shown(url, where);
    CURL *c = handle_new(url, token, &headers);
    if (!c) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_text);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, &sink);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, (long)STALL_SECONDS);
    CURLcode code = curl_easy_perform(c);
    curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &http);
    weft_status status = weft_buffer_ok(&text, err);
    if (!status && (code != CURLE_OK || http != 200)) status = explain(where, code, http, err);
    if (!status) {
        weft_buffer_append(out, weft_buffer_str(&text), text.size);
        status = weft_buffer_ok(out, err);
    }
    curl_easy_cleanup(c);
    curl_slist_free_all(headers);
    weft_buffer_free(&text);
    return status;
}
