/* HTTP GET over libcurl.
 *
 * The address is checked when the socket for it is made, with the very address that is then
 * connected to. What a name resolved to earlier, or how the address was spelled (0x7f000001,
 * [::ffff:127.0.0.1]), does not matter, and a name server that answers differently the second time
 * gains nothing. Redirects are followed here and not by libcurl, so that each target passes the
 * same door: http or https, no user and password, checked address. No proxy, no cookies, no netrc,
 * no alternative services.
 */
#include "tools/web/get.h"

#include "tools/web/address.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

typedef struct hop {
    const get_request *request;
    CURL *curl;
    weft_buffer *body;
    bool cut, refused_type;
    bool any_address;
    char refused[ADDRESS_TEXT_BYTES]; /* the last address that was refused, or "" */
} hop;

/* Type without parameters, compared without case. */
static bool type_is(const char *content_type, const char *type)
{
    size_t n = strcspn(content_type, "; \t");
    return strlen(type) == n && strncasecmp(content_type, type, n) == 0;
}

bool web_type_is_html(const char *content_type)
{
    return type_is(content_type, "text/html") || type_is(content_type, "application/xhtml+xml");
}

static bool ends_with(const char *text, size_t n, const char *end)
{
    size_t m = strlen(end);
    return n >= m && strncasecmp(text + n - m, end, m) == 0;
}

bool web_type_is_text(const char *content_type)
{
    static const char *const types[] = {"application/json",      "application/xml",
                                        "application/xhtml+xml", "application/javascript",
                                        "application/x-ndjson",  "application/yaml",
                                        "application/x-yaml",    "application/toml"};
    size_t n = strcspn(content_type, "; \t");
    if (n == 0 || strncasecmp(content_type, "text/", 5) == 0) return true;
    if (ends_with(content_type, n, "+json") || ends_with(content_type, n, "+xml")) return true;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (type_is(content_type, types[i])) return true;
    return false;
}

static const char *content_type_of(CURL *curl)
{
    char *type = NULL;
    curl_easy_getinfo(curl, CURLINFO_CONTENT_TYPE, &type);
    return type ? type : "";
}

static size_t on_body(char *bytes, size_t one, size_t n, void *context)
{
    hop *h = context;
    size_t room = h->request->max_bytes - h->body->size;
    (void)one; /* always 1 */
    if (!web_type_is_text(content_type_of(h->curl))) {
        h->refused_type = true;
        return 0;
    }
    weft_buffer_append(h->body, bytes, n < room ? n : room);
    if (h->body->failed) return 0;
    if (n > room) h->cut = true;
    return n > room ? 0 : n; /* 0 ends the transfer; what came is kept */
}

static curl_socket_t on_socket(void *context, curlsocktype purpose, struct curl_sockaddr *address)
{
    hop *h = context;
    (void)purpose;
    if (!h->any_address && !address_is_public(&address->addr, address->addrlen)) {
        address_text(&address->addr, address->addrlen, h->refused);
        return CURL_SOCKET_BAD;
    }
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

/* http or https, a host, no user: what curl's own parser makes of the URL, which is what it will
 * use. */
static weft_status check_url(const char *url, weft_error *err)
{
    CURLU *u = curl_url();
    char *scheme = NULL, *host = NULL, *user = NULL;
    if (!u) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    weft_status status = WEFT_OK;
    CURLUcode code = curl_url_set(u, CURLUPART_URL, url, 0);
    if (code)
        status = weft_fail(err, WEFT_E_NETWORK,
                           "%.500s is no URL (%s): write one such as https://example.org/page", url,
                           curl_url_strerror(code));
    if (!status && (curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) ||
                    curl_url_get(u, CURLUPART_HOST, &host, 0)))
        status = weft_fail(err, WEFT_E_NETWORK,
                           "%.500s is no URL: write one such as https://example.org/page", url);
    if (!status && strcmp(scheme, "http") != 0 && strcmp(scheme, "https") != 0)
        status = weft_fail(err, WEFT_E_NETWORK, "%.500s: only http and https are fetched", url);
    if (!status && !curl_url_get(u, CURLUPART_USER, &user, 0))
        status = weft_fail(err, WEFT_E_NETWORK,
                           "a URL with a user name is not fetched: leave out what stands before @");
    curl_free(scheme);
    curl_free(host);
    curl_free(user);
    curl_url_cleanup(u);
    return status;
}

static bool set_options(hop *h, const char *url, long left_ms)
{
    CURL *c = h->curl;
    CURLcode bad = CURLE_OK;
#define SET(option, value) bad = bad ? bad : curl_easy_setopt(c, option, value)
    SET(CURLOPT_URL, url);
    SET(CURLOPT_PROTOCOLS_STR, "http,https");
    SET(CURLOPT_FOLLOWLOCATION, 0L);
    SET(CURLOPT_PROXY, "");
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_TIMEOUT_MS, left_ms);
    SET(CURLOPT_CONNECTTIMEOUT_MS, left_ms < GET_CONNECT_MS ? left_ms : (long)GET_CONNECT_MS);
    SET(CURLOPT_ACCEPT_ENCODING, "gzip, deflate");
    SET(CURLOPT_USERAGENT, "weft/" WEFT_VERSION);
    SET(CURLOPT_OPENSOCKETFUNCTION, on_socket);
    SET(CURLOPT_OPENSOCKETDATA, h);
    SET(CURLOPT_WRITEFUNCTION, on_body);
    SET(CURLOPT_WRITEDATA, h);
#undef SET
    return bad == CURLE_OK;
}

/* Words for what libcurl answered. */
static weft_status fail_transfer(const hop *h, CURLcode code, const char *url, weft_error *err)
{
    if (h->refused[0])
        return weft_fail(err, WEFT_E_NETWORK,
                         "%.500s leads to the private address %s, which is not fetched", url,
                         h->refused);
    switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
        return weft_fail(err, WEFT_E_NETWORK, "%.500s: no such host, or no network", url);
    case CURLE_OPERATION_TIMEDOUT:
        return weft_fail(err, WEFT_E_NETWORK, "%.500s: the server took longer than %lld s", url,
                         (long long)(h->request->timeout_ms + 999) / 1000);
    case CURLE_COULDNT_CONNECT:
        return weft_fail(err, WEFT_E_NETWORK, "%.500s: the server does not answer", url);
    default: return weft_fail(err, WEFT_E_NETWORK, "%.500s: %s", url, curl_easy_strerror(code));
    }
}

/* One request. *out_next is the target of a redirect, or NULL with the reply filled. */
static weft_status get_once(const get_request *request, const char *url, bool first,
                            int64_t deadline_ns, char **out_next, get_reply *out, weft_error *err)
{
    hop h = {.request = request,
             .body = &out->body,
             .curl = curl_easy_init(),
             .any_address = request->allow_private || (first && request->trust_first)};
    char *next = NULL;
    int64_t left_ms = (deadline_ns - weft_monotonic_ns()) / 1000000;
    weft_status status = check_url(url, err);
    *out_next = NULL;
    if (status) goto done;
    status = WEFT_E_MEMORY;
    weft_buffer_clear(&out->body);
    if (!h.curl || !set_options(&h, url, left_ms > 1 ? (long)left_ms : 1)) {
        weft_fail(err, WEFT_E_MEMORY, "out of memory");
        goto done;
    }
    CURLcode code = curl_easy_perform(h.curl);
    if (h.refused_type) {
        status = weft_fail(err, WEFT_E_NETWORK, "%.500s: content of type %.100s is no text", url,
                           content_type_of(h.curl));
        goto done;
    }
    if (code && !(code == CURLE_WRITE_ERROR && h.cut)) {
        status = fail_transfer(&h, code, url, err);
        goto done;
    }
    curl_easy_getinfo(h.curl, CURLINFO_RESPONSE_CODE, &out->http_status);
    curl_easy_getinfo(h.curl, CURLINFO_REDIRECT_URL, &next);
    out->cut = h.cut;
    free(out->content_type);
    out->content_type = strdup(content_type_of(h.curl));
    if (next) *out_next = strdup(next);
    status = out->content_type && (!next || *out_next)
                 ? weft_buffer_ok(&out->body, err)
                 : weft_fail(err, WEFT_E_MEMORY, "out of memory");
done:
    curl_easy_cleanup(h.curl);
    return status;
}

weft_status web_get(const get_request *request, get_reply *out, weft_error *err)
{
    get_reply reply = {0};
    char *url = strdup(request->url), *next = NULL;
    int64_t deadline_ns = weft_monotonic_ns() + request->timeout_ms * 1000000;
    weft_status status = url ? WEFT_OK : weft_fail(err, WEFT_E_MEMORY, "out of memory");
    for (int hops = 0; !status; hops++) {
        status = get_once(request, url, hops == 0, deadline_ns, &next, &reply, err);
        if (status || !next) break;
        free(url);
        url = next;
        next = NULL;
        if (hops == GET_REDIRECTS)
            status = weft_fail(err, WEFT_E_NETWORK, "%.500s redirects more than %d times",
                               request->url, GET_REDIRECTS);
    }
    if (status) {
        free(url);
        get_reply_free(&reply);
        return status;
    }
    reply.url = url;
    *out = reply;
    return WEFT_OK;
}

void get_reply_free(get_reply *reply)
{
    free(reply->url);
    free(reply->content_type);
    weft_buffer_free(&reply->body);
    *reply = (get_reply){0};
}
