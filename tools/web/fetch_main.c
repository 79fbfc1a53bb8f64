/* weft-fetch: the broker. A program of its own, so that what talks to foreign servers and what
 * parses foreign pages holds no model, no workspace, no trace and no key; weft starts it in the
 * sandbox.
 *
 *   weft-fetch get    with network: reads {"url","timeout_ms","max_bytes","allow_private",
 *                     "trust_first"}, writes {"http_status","url","content_type","cut"} newline
 *                     body, or {"error"}
 *   weft-fetch text   without: reads {"content_type","url"} newline body,
 *                     writes {"title"} newline text, or {"error"}
 *
 * Exit status 0 in both cases; 2 if it was called wrongly.
 */
#include "tools/web/get.h"
#include "tools/web/page.h"

#include <curl/curl.h>
#include <string.h>
#include <unistd.h>

enum { INPUT_BYTES = 64 << 20, TITLE_BYTES = 300 };

/* One line of JSON, then bytes. */
static int reply(cJSON *head_take, const void *bytes, size_t n)
{
    weft_buffer line = WEFT_BUFFER_INIT;
    weft_error err;
    if (head_take) weft_json_compact(head_take, &line);
    weft_buffer_putc(&line, '\n');
    bool ok = head_take && !line.failed &&
              !weft_write_all(STDOUT_FILENO, line.data, line.size, &err) &&
              (n == 0 || !weft_write_all(STDOUT_FILENO, bytes, n, &err));
    weft_buffer_free(&line);
    cJSON_Delete(head_take);
    return ok ? 0 : 1;
}

static int reply_error(const char *words)
{
    cJSON *head = cJSON_CreateObject();
    weft_buffer clean = WEFT_BUFFER_INIT; /* words may be cut within a character */
    weft_utf8_scrub(words, strlen(words), &clean);
    cJSON_AddStringToObject(head, "error", weft_buffer_str(&clean));
    weft_buffer_free(&clean);
    return reply(head, NULL, 0);
}

static void add_text(cJSON *object, const char *key, const char *text, size_t n)
{
    weft_buffer clean = WEFT_BUFFER_INIT;
    weft_utf8_scrub(text, n, &clean);
    cJSON_AddStringToObject(object, key, weft_buffer_str(&clean));
    weft_buffer_free(&clean);
}

static int get(const cJSON *asked)
{
    weft_error err;
    get_reply got;
    get_request request = {
        .url = weft_json_string(asked, "url"),
        .timeout_ms = weft_json_int(asked, "timeout_ms", 20000),
        .max_bytes = (size_t)weft_json_int(asked, "max_bytes", 1 << 20),
        .allow_private = weft_json_bool(asked, "allow_private", false),
        .trust_first = weft_json_bool(asked, "trust_first", false),
    };
    if (!request.url) return 2;
    if (curl_global_init(CURL_GLOBAL_DEFAULT)) return reply_error("out of memory");
    int exit_status;
    if (web_get(&request, &got, &err)) {
        exit_status = reply_error(err.message);
    } else {
        cJSON *head = cJSON_CreateObject();
        weft_json_add_int(head, "http_status", got.http_status);
        add_text(head, "url", got.url, strlen(got.url));
        add_text(head, "content_type", got.content_type, strlen(got.content_type));
        cJSON_AddBoolToObject(head, "cut", got.cut);
        exit_status = reply(head, weft_buffer_str(&got.body), got.body.size);
        get_reply_free(&got);
    }
    curl_global_cleanup();
    return exit_status;
}

static bool begins_like_html(const char *bytes, size_t n)
{
    size_t at = 0;
    while (at < n && strchr(" \t\r\n\xef\xbb\xbf", bytes[at]) && bytes[at]) at++;
    return n - at > 6 &&
           (strncasecmp(bytes + at, "<!doct", 6) == 0 || strncasecmp(bytes + at, "<html", 5) == 0);
}

static int text(const cJSON *asked, const char *bytes, size_t n)
{
    const char *type = weft_json_string(asked, "content_type"),
               *url = weft_json_string(asked, "url");
    char charset[64];
    page_text page;
    weft_error err;
    if (!type || !url) return 2;
    page_charset(type, charset);
    bool html = web_type_is_html(type) || (!*type && begins_like_html(bytes, n));
    if (!html && memchr(bytes, '\0', n) && strncasecmp(charset, "utf-16", 6) != 0 &&
        strncasecmp(charset, "utf-32", 6) != 0 &&
        (n < 2 || (memcmp(bytes, "\xff\xfe", 2) != 0 && memcmp(bytes, "\xfe\xff", 2) != 0)))
        return reply_error("the content is no text");
    weft_status status = html ? page_read_html(bytes, n, charset, url, true, &page, &err)
                              : page_read_plain(bytes, n, charset, &page, &err);
    if (status) return reply_error(err.message);
    cJSON *head = cJSON_CreateObject();
    add_text(head, "title", weft_buffer_str(&page.title),
             page.title.size < TITLE_BYTES ? page.title.size : TITLE_BYTES);
    int exit_status = reply(head, weft_buffer_str(&page.text), page.text.size);
    page_text_free(&page);
    return exit_status;
}

int main(int argc, char **argv)
{
    weft_buffer input = WEFT_BUFFER_INIT;
    weft_error err;
    cJSON *asked = NULL;
    int exit_status = 2;
    if (argc != 2 || weft_file_read("-", INPUT_BYTES, &input, &err)) goto done;
    const char *bytes = weft_buffer_str(&input), *newline = memchr(bytes, '\n', input.size);
    size_t head = newline ? (size_t)(newline - bytes) : input.size;
    if (weft_json_parse(bytes, head, &asked, &err)) goto done;
    if (strcmp(argv[1], "get") == 0) exit_status = get(asked);
    if (strcmp(argv[1], "text") == 0 && newline)
        exit_status = text(asked, newline + 1, input.size - head - 1);
done:
    cJSON_Delete(asked);
    weft_buffer_free(&input);
    return exit_status;
}
