/* web_search and web_fetch. */
#include "tools/web/broker.h"
#include "tools/web/index.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum {
    DEFAULT_RESULTS = 5,
    SNIPPET_BYTES = 400,
    PAGE_BYTES = 2 << 20,
    ANSWER_BYTES = 2 << 20,
    SHOWN_ERROR_BYTES = 500
};

/* ---- search ---- */

/* Appends text on one line, at most `max` bytes of it, cut at a character. */
static void put_line(weft_buffer *out, const char *text, size_t max)
{
    size_t begun = out->size;
    bool blank = false;
    for (; *text; text++) {
        if (strchr(" \t\r\n", *text)) {
            blank = out->size > begun;
            continue;
        }
        bool begins = ((unsigned char)*text & 0xc0) != 0x80;
        if (begins && out->size - begun + 8 > max) {
            weft_buffer_puts(out, " ...");
            return;
        }
        if (blank) weft_buffer_putc(out, ' ');
        blank = false;
        weft_buffer_putc(out, *text);
    }
}

static void put_hit(weft_buffer *out, size_t number, const char *title, const char *url,
                    const char *snippet)
{
    weft_buffer_printf(out, "%s%zu. ", number > 1 ? "\n\n" : "", number);
    put_line(out, *title ? title : url, SNIPPET_BYTES);
    weft_buffer_puts(out, "\n   ");
    weft_buffer_puts(out, url);
    if (!*snippet) return;
    weft_buffer_puts(out, "\n   ");
    put_line(out, snippet, SNIPPET_BYTES);
}

static void put_nothing(weft_buffer *out, const char *query)
{
    weft_buffer_puts(out, "no results for \"");
    put_line(out, query, 200);
    weft_buffer_puts(out, "\": try fewer or other words");
}

static weft_status search_docs(const tool_call *call, const char *query, size_t limit,
                               tool_output *output, weft_error *err)
{
    docs_hits hits;
    weft_error why;
    weft_status status =
        docs_search(call->set->docs, call->set->index_cache, query, limit, &hits, &why);
    if (status == WEFT_E_MEMORY) return weft_fail(err, status, "out of memory");
    if (status) return tool_refuse(output, "web_search: %s", why.message);
    for (size_t i = 0; i < hits.n; i++) {
        weft_buffer url = WEFT_BUFFER_INIT;
        docs_put_url(hits.hit[i].path, &url);
        put_hit(&output->text, i + 1, hits.hit[i].title, weft_buffer_str(&url),
                hits.hit[i].snippet);
        if (url.failed) output->text.failed = true;
        weft_buffer_free(&url);
    }
    if (!hits.n) put_nothing(&output->text, query);
    cJSON_AddStringToObject(output->facts, "backend", "index");
    weft_json_add_int(output->facts, "indexed", (int64_t)hits.files);
    weft_json_add_int(output->facts, "read", (int64_t)hits.read);
    if (hits.left_out) weft_json_add_int(output->facts, "left_out", (int64_t)hits.left_out);
    docs_hits_free(&hits);
    return WEFT_OK;
}

static void put_encoded(const char *text, weft_buffer *out)
{
    static const char plain[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~";
    for (; *text; text++) {
        if (strchr(plain, *text))
            weft_buffer_putc(out, *text);
        else
            weft_buffer_printf(out, "%%%02X", (unsigned char)*text);
    }
}

static const char *member(const cJSON *object, const char *key)
{
    const char *text = weft_json_string(object, key);
    return text ? text : "";
}

/* {"results": [{"title", "url", "content"}...]} */
static void put_searxng(const broker_page *page, const char *query, size_t limit,
                        tool_output *output)
{
    cJSON *answer = NULL;
    const cJSON *result;
    weft_error why;
    size_t n = 0;
    if (page->http_status != 200) {
        tool_refuse(output, "the search server answered with HTTP status %ld%s", page->http_status,
                    page->http_status == 403 ? ": its settings must allow the format json" : "");
        return;
    }
    if (page->cut || weft_json_parse(page->body, page->n, &answer, &why)) {
        tool_refuse(output, "the search server's answer cannot be read: %s",
                    page->cut ? "it is too long" : why.message);
        return;
    }
    cJSON_ArrayForEach(result, cJSON_GetObjectItemCaseSensitive(answer, "results"))
    {
        if (n == limit || !*member(result, "url")) continue;
        put_hit(&output->text, ++n, member(result, "title"), member(result, "url"),
                member(result, "content"));
    }
    if (!n) put_nothing(&output->text, query);
    cJSON_Delete(answer);
}

static weft_status search_searxng(const tool_call *call, const char *query, size_t limit,
                                  tool_output *output, weft_error *err)
{
    weft_buffer url = WEFT_BUFFER_INIT;
    const char *base = call->set->searxng_url;
    broker_page page;
    bool got = false;
    size_t n = strlen(base);
    while (n && base[n - 1] == '/') n--;
    weft_buffer_append(&url, base, n);
    weft_buffer_puts(&url, "/search?format=json&q=");
    put_encoded(query, &url);
    weft_status status = weft_buffer_ok(&url, err);
    /* the user named this server, so it may well be a private one; what it redirects to may not */
    broker_request request = {.url = url.data, .max_bytes = ANSWER_BYTES, .trust_first = true};
    if (!status) status = broker_get(call, &request, output, &page, &got, err);
    if (!status && got) {
        put_searxng(&page, query, limit, output);
        broker_page_free(&page);
    }
    if (!status) cJSON_AddStringToObject(output->facts, "backend", "searxng");
    weft_buffer_free(&url);
    return status;
}

weft_status tool_run_web_search(const tool_call *call, tool_output *output, weft_error *err)
{
    const char *query = weft_json_string(call->arguments, "query");
    size_t limit = (size_t)weft_json_int(call->arguments, "max_results", DEFAULT_RESULTS);
    if (call->set->searxng_url) return search_searxng(call, query, limit, output, err);
    if (call->set->docs) return search_docs(call, query, limit, output, err);
    return tool_refuse(
        output,
        "web_search has nothing to search: weft was started without --docs DIR (a folder of .txt, "
        ".md and .html files) and without --searxng URL. Go on without it");
}

/* ---- fetch ---- */

static void put_page(weft_buffer *out, const char *title, const char *url, const char *text)
{
    if (*title) {
        put_line(out, title, SNIPPET_BYTES);
        weft_buffer_putc(out, '\n');
    }
    weft_buffer_printf(out, "%s\n\n", url);
    weft_buffer_puts(out, *text ? text : "[the page holds no text]");
}

static weft_status fetch_document(const tool_call *call, const char *url, tool_output *output,
                                  weft_error *err)
{
    weft_buffer title = WEFT_BUFFER_INIT, text = WEFT_BUFFER_INIT, shown = WEFT_BUFFER_INIT;
    weft_error why;
    if (!call->set->docs)
        return tool_refuse(
            output, "file: URLs name documents of --docs DIR, and weft was started without one");
    char *path = docs_path_of(url);
    if (!path) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    weft_status status = docs_read(call->set->docs, *path ? path : ".", &title, &text, &why);
    if (!status) {
        docs_put_url(path, &shown);
        put_page(&output->text, weft_buffer_str(&title), weft_buffer_str(&shown),
                 weft_buffer_str(&text));
    } else if (status == WEFT_E_MEMORY) {
        weft_fail(err, status, "out of memory");
    } else {
        status =
            tool_refuse(output, "%s: web_search lists the documents that there are", why.message);
    }
    free(path);
    weft_buffer_free(&title);
    weft_buffer_free(&text);
    weft_buffer_free(&shown);
    return status;
}

static weft_status put_fetched(const tool_call *call, const broker_page *page, tool_output *output,
                               weft_error *err)
{
    char *title = NULL, *text = NULL;
    bool got = false;
    weft_status status = broker_text(call, page, output, &title, &text, &got, err);
    if (status || !got) return status;
    if (page->http_status >= 400) {
        size_t n = strlen(text);
        tool_refuse(output, "%s: HTTP status %ld", page->url, page->http_status);
        if (n) {
            weft_buffer_puts(&output->text, ". The page says: ");
            put_line(&output->text, text, SHOWN_ERROR_BYTES);
        }
    } else {
        put_page(&output->text, title, page->url, text);
        if (page->cut)
            weft_buffer_printf(&output->text,
                               "\n[the page is longer than %d bytes: the rest was not read]",
                               PAGE_BYTES);
    }
    free(title);
    free(text);
    return WEFT_OK;
}

weft_status tool_run_web_fetch(const tool_call *call, tool_output *output, weft_error *err)
{
    const char *url = weft_json_string(call->arguments, "url");
    broker_page page;
    bool got = false;
    if (strncasecmp(url, "file:", 5) == 0) return fetch_document(call, url, output, err);
    broker_request request = {
        .url = url, .max_bytes = PAGE_BYTES, .allow_private = call->set->allow_private_network};
    weft_status status = broker_get(call, &request, output, &page, &got, err);
    if (status || !got) return status;
    status = put_fetched(call, &page, output, err);
    if (!status) {
        weft_json_add_int(output->facts, "http_status", page.http_status);
        cJSON_AddStringToObject(output->facts, "url", page.url);
        cJSON_AddStringToObject(output->facts, "content_type", page.content_type);
    }
    broker_page_free(&page);
    return status;
}
