/* Documents of the --docs folder: which there are, what they say, what their URLs are. */
#include "tools/web/index.h"

#include "tools/web/page.h"
#include "tools/workspace.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

static bool ends_with(const char *path, const char *end)
{
    size_t n = strlen(path), m = strlen(end);
    return n > m && strcasecmp(path + n - m, end) == 0;
}

static bool is_html(const char *path)
{
    return ends_with(path, ".html") || ends_with(path, ".htm");
}

/* A text's title: its first line that says something, without the marks of a heading. */
static void title_of_text(const char *text, weft_buffer *out)
{
    text += strspn(text, "# \t\r\n");
    size_t n = strcspn(text, "\r\n");
    if (n > 120) {
        for (n = 120; n && ((unsigned char)text[n] & 0xc0) == 0x80;) n--;
    }
    weft_buffer_append(out, text, n);
}

weft_status docs_read(const char *docs, const char *path, weft_buffer *out_title,
                      weft_buffer *out_text, weft_error *err)
{
    weft_buffer bytes = WEFT_BUFFER_INIT;
    page_text page = {WEFT_BUFFER_INIT, WEFT_BUFFER_INIT};
    int root = workspace_open(docs);
    if (root < 0) return weft_fail_errno(err, WEFT_E_CONFIG, "open the documents of %s", docs);
    weft_status status = workspace_read(root, path, true, INDEX_FILE_BYTES, &bytes, err);
    close(root);
    if (!status && is_html(path))
        status = page_read_html(weft_buffer_str(&bytes), bytes.size, NULL, NULL, false, &page, err);
    else if (!status)
        status = page_read_plain(weft_buffer_str(&bytes), bytes.size, NULL, &page, err);
    if (!status) {
        if (page.title.size)
            weft_buffer_append(out_title, page.title.data, page.title.size);
        else
            title_of_text(weft_buffer_str(&page.text), out_title);
        weft_buffer_append(out_text, weft_buffer_str(&page.text), page.text.size);
        status = out_title->failed ? weft_buffer_ok(out_title, err) : weft_buffer_ok(out_text, err);
    }
    page_text_free(&page);
    weft_buffer_free(&bytes);
    return status;
}

void docs_put_url(const char *path, weft_buffer *out)
{
    static const char plain[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~/";
    weft_buffer_puts(out, "file:");
    for (; *path; path++) {
        if (strchr(plain, *path))
            weft_buffer_putc(out, *path);
        else
            weft_buffer_printf(out, "%%%02X", (unsigned char)*path);
    }
}

char *docs_path_of(const char *url)
{
    if (strncasecmp(url, "file:", 5) != 0) return NULL;
    url += 5;
    if (strncmp(url, "//", 2) == 0) url += 2;
    while (*url == '/') url++;
    char *path = malloc(strlen(url) + 1), *to = path;
    if (!path) return NULL;
    for (; *url && *url != '#' && *url != '?'; url++) {
        uint8_t byte;
        char hex[3] = {0};
        if (*url == '%' && url[1]) memcpy(hex, url + 1, 2);
        if (*url == '%' && weft_unhex(hex, &byte, 1) && byte) {
            *to++ = (char)byte;
            url += 2;
        } else {
            *to++ = *url;
        }
    }
    *to = '\0';
    return path;
}
