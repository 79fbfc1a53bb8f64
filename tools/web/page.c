/* HTML to text with libxml2's forgiving parser.
 *
 * The tree is walked without recursion, since a page may nest as deep as it likes. Block elements
 * begin new lines, blanks are folded except within <pre>; nothing else is formatted. The parser
 * runs on foreign bytes, so for web pages this file is called in a process that has neither network
 * nor workspace (fetch_main.c).
 */
#include "tools/web/page.h"

#include <errno.h>
#include <iconv.h>
#include <libxml/HTMLparser.h>
#include <libxml/uri.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MAIN_PART_BYTES = 250 }; /* a main part shorter than this is taken for a mistake */

typedef struct writer {
    weft_buffer *out;
    const char *base;
    bool links;
    int lines;           /* newlines that are due before the next text */
    bool blank;          /* a space is due */
    int verbatim;        /* depth of <pre> */
    int cells;           /* cells so far in this table row */
    const xmlNode *link; /* the <a> whose "[" was written */
} writer;

typedef enum element_kind {
    KIND_INLINE,
    KIND_SKIP,   /* with all it holds */
    KIND_CHROME, /* skipped outside a marked main part */
    KIND_BLOCK,  /* begins and ends a line */
    KIND_SPACED, /* and an empty line */
    KIND_HEADING,
    KIND_ITEM,
    KIND_BREAK,
    KIND_PRE,
    KIND_ROW,
    KIND_CELL,
    KIND_LINK
} element_kind;

static const struct {
    const char *name;
    element_kind kind;
} elements[] = {
    {"script", KIND_SKIP},
    {"style", KIND_SKIP},
    {"template", KIND_SKIP},
    {"head", KIND_SKIP},
    {"noscript", KIND_SKIP},
    {"svg", KIND_SKIP},
    {"iframe", KIND_SKIP},
    {"object", KIND_SKIP},
    {"select", KIND_SKIP},
    {"button", KIND_SKIP},
    {"textarea", KIND_SKIP},
    {"canvas", KIND_SKIP},
    {"nav", KIND_CHROME},
    {"footer", KIND_CHROME},
    {"aside", KIND_CHROME},
    {"p", KIND_SPACED},
    {"blockquote", KIND_SPACED},
    {"ul", KIND_BLOCK},
    {"ol", KIND_BLOCK},
    {"dl", KIND_SPACED},
    {"table", KIND_SPACED},
    {"figure", KIND_SPACED},
    {"section", KIND_SPACED},
    {"article", KIND_SPACED},
    {"div", KIND_BLOCK},
    {"main", KIND_BLOCK},
    {"header", KIND_BLOCK},
    {"form", KIND_BLOCK},
    {"body", KIND_BLOCK},
    {"dt", KIND_BLOCK},
    {"dd", KIND_BLOCK},
    {"hr", KIND_SPACED},
    {"caption", KIND_BLOCK},
    {"figcaption", KIND_BLOCK},
    {"address", KIND_BLOCK},
    {"details", KIND_BLOCK},
    {"summary", KIND_BLOCK},
    {"h1", KIND_HEADING},
    {"h2", KIND_HEADING},
    {"h3", KIND_HEADING},
    {"h4", KIND_HEADING},
    {"h5", KIND_HEADING},
    {"h6", KIND_HEADING},
    {"li", KIND_ITEM},
    {"br", KIND_BREAK},
    {"pre", KIND_PRE},
    {"tr", KIND_ROW},
    {"td", KIND_CELL},
    {"th", KIND_CELL},
    {"a", KIND_LINK},
};

static element_kind kind_of(const xmlNode *node)
{
    if (node->type != XML_ELEMENT_NODE) return KIND_INLINE;
    for (size_t i = 0; i < sizeof elements / sizeof *elements; i++)
        if (strcasecmp((const char *)node->name, elements[i].name) == 0) return elements[i].kind;
    return KIND_INLINE;
}

void page_text_free(page_text *page)
{
    weft_buffer_free(&page->title);
    weft_buffer_free(&page->text);
}

/* ---- writing ---- */

static void due_lines(writer *w, int n)
{
    if (w->lines < n) w->lines = n;
    w->blank = false;
}

static void pay(writer *w)
{
    if (w->out->size == 0) w->lines = 0, w->blank = false;
    for (; w->lines; w->lines--) weft_buffer_putc(w->out, '\n');
    if (w->blank) weft_buffer_putc(w->out, ' ');
    w->blank = false;
}

static void put_text(writer *w, const char *text)
{
    if (w->verbatim) {
        pay(w);
        weft_buffer_puts(w->out, text);
        return;
    }
    for (const char *p = text; *p;) {
        size_t n = strcspn(p, " \t\r\n\f");
        if (n) {
            pay(w);
            weft_buffer_append(w->out, p, n);
        }
        p += n;
        n = strspn(p, " \t\r\n\f");
        if (n && !w->lines) w->blank = true;
        p += n;
    }
}

static void put_word(writer *w, const char *word)
{
    pay(w);
    weft_buffer_puts(w->out, word);
}

/* ---- what is left out ---- */

static bool attribute_is(const xmlNode *node, const char *name, const char *value)
{
    xmlChar *text = xmlGetProp(node, (const xmlChar *)name);
    bool equal = text && (!value || strcasecmp((const char *)text, value) == 0);
    xmlFree(text);
    return equal;
}

/* Text that a reader of the page would not see must not reach the model either. */
static bool is_hidden(const xmlNode *node)
{
    if (!node->properties) return false;
    if (attribute_is(node, "hidden", NULL) || attribute_is(node, "aria-hidden", "true"))
        return true;
    xmlChar *style = xmlGetProp(node, (const xmlChar *)"style");
    bool hidden = false;
    if (style) {
        char *to = (char *)style;
        for (const char *from = to; *from; from++)
            if (!strchr(" \t\r\n", *from)) *to++ = *from;
        *to = '\0';
        hidden = strcasestr((const char *)style, "display:none") ||
                 strcasestr((const char *)style, "visibility:hidden");
    }
    xmlFree(style);
    return hidden;
}

/* ---- links ---- */

/* An http(s) URL, or NULL. */
static xmlChar *link_target(const writer *w, const xmlNode *node)
{
    xmlChar *href = w->links ? xmlGetProp(node, (const xmlChar *)"href") : NULL, *whole = NULL;
    if (href && href[0] != '#') whole = xmlBuildURI(href, (const xmlChar *)w->base);
    xmlFree(href);
    if (whole && strncasecmp((const char *)whole, "http://", 7) != 0 &&
        strncasecmp((const char *)whole, "https://", 8) != 0) {
        xmlFree(whole);
        whole = NULL;
    }
    return whole;
}

static void open_link(writer *w, const xmlNode *node)
{
    xmlChar *target = w->link ? NULL : link_target(w, node);
    if (target) {
        put_word(w, "[");
        w->link = node;
    }
    xmlFree(target);
}

static void close_link(writer *w, const xmlNode *node)
{
    if (w->link != node) return;
    xmlChar *target = link_target(w, node);
    w->link = NULL;
    if (w->out->size && w->out->data[w->out->size - 1] == '[') { /* no text in it, an image say */
        w->out->data[--w->out->size] = '\0';
    } else if (target) {
        weft_buffer_printf(w->out, "](%s)", (const char *)target);
    }
    xmlFree(target);
}

/* ---- the walk ---- */

static void enter(writer *w, const xmlNode *node)
{
    switch (kind_of(node)) {
    case KIND_BLOCK: due_lines(w, 1); break;
    case KIND_SPACED: due_lines(w, 2); break;
    case KIND_HEADING:
        due_lines(w, 2);
        for (int level = node->name[1] - '0'; level > 0; level--) put_word(w, "#");
        w->blank = true;
        break;
    case KIND_ITEM:
        due_lines(w, 1);
        put_word(w, "-");
        w->blank = true;
        break;
    case KIND_BREAK: due_lines(w, 1); break;
    case KIND_PRE:
        due_lines(w, 2);
        w->verbatim++;
        break;
    case KIND_ROW:
        due_lines(w, 1);
        w->cells = 0;
        break;
    case KIND_CELL:
        if (w->cells++) {
            w->blank = true;
            put_word(w, "|");
            w->blank = true;
        }
        break;
    case KIND_LINK: open_link(w, node); break;
    default: break;
    }
}

static void leave(writer *w, const xmlNode *node)
{
    switch (kind_of(node)) {
    case KIND_BLOCK:
    case KIND_ITEM:
    case KIND_ROW: due_lines(w, 1); break;
    case KIND_SPACED:
    case KIND_HEADING: due_lines(w, 2); break;
    case KIND_PRE:
        w->verbatim--;
        due_lines(w, 2);
        break;
    case KIND_LINK: close_link(w, node); break;
    default: break;
    }
}

/* The next node after everything below `node`, closing elements on the way up to root. */
static const xmlNode *after(writer *w, const xmlNode *root, const xmlNode *node)
{
    while (node != root && !node->next) {
        node = node->parent;
        if (node != root && w) leave(w, node);
    }
    return node == root ? NULL : node->next;
}

static void write_tree(writer *w, const xmlNode *root, bool keep_chrome)
{
    for (const xmlNode *node = root->children; node;) {
        element_kind kind = kind_of(node);
        bool skip = kind == KIND_SKIP || (kind == KIND_CHROME && !keep_chrome) ||
                    (node->type == XML_ELEMENT_NODE && is_hidden(node));
        if (node->type == XML_TEXT_NODE && node->content) put_text(w, (const char *)node->content);
        if (!skip && node->type == XML_ELEMENT_NODE) {
            enter(w, node);
            if (node->children) {
                node = node->children;
                continue;
            }
            leave(w, node);
        }
        node = after(w, root, node);
    }
}

/* The first element of that name, in document order. */
static const xmlNode *find_element(const xmlNode *root, const char *name)
{
    for (const xmlNode *node = root->children; node;) {
        if (node->type == XML_ELEMENT_NODE && strcasecmp((const char *)node->name, name) == 0)
            return node;
        node = node->type == XML_ELEMENT_NODE && node->children ? node->children
                                                                : after(NULL, root, node);
    }
    return NULL;
}

static void write_title(const xmlNode *root, page_text *out)
{
    const xmlNode *title = find_element(root, "title");
    writer w = {.out = &out->title};
    for (const xmlNode *node = title ? title->children : NULL; node; node = node->next)
        if (node->type == XML_TEXT_NODE && node->content) put_text(&w, (const char *)node->content);
}

static void write_text(const xmlNode *root, const char *base, bool links, page_text *out)
{
    static const char *const main_parts[] = {"main", "article"};
    for (size_t i = 0; i < 2; i++) {
        const xmlNode *part = find_element(root, main_parts[i]);
        if (!part) continue;
        writer w = {.out = &out->text, .base = base, .links = links};
        write_tree(&w, part, true);
        if (out->text.size >= MAIN_PART_BYTES) return;
        weft_buffer_clear(&out->text);
    }
    writer w = {.out = &out->text, .base = base, .links = links};
    write_tree(&w, root, false);
}

/* ---- charsets ---- */

/* Converts what it can; a byte that has no meaning becomes "?". False if the charset is unknown. */
static bool convert(const char *bytes, size_t n, const char *charset, weft_buffer *out)
{
    iconv_t cd = iconv_open("UTF-8", charset);
    if (cd == (iconv_t)-1) return false;
    char chunk[4096], *in = (char *)bytes;
    while (n) {
        char *to = chunk;
        size_t room = sizeof chunk, got = iconv(cd, &in, &n, &to, &room);
        weft_buffer_append(out, chunk, (size_t)(to - chunk));
        if (got != (size_t)-1 || errno == E2BIG) continue;
        if (errno == EINVAL) break; /* the last character is cut short */
        weft_buffer_putc(out, '?');
        in++;
        n--;
    }
    iconv_close(cd);
    return true;
}

/* Appends the bytes as UTF-8. charset "" or NULL: UTF-8 if it is valid as such, else Windows-1252,
 * as browsers take it; the same if the charset is unknown. */
static void to_utf8(const char *bytes, size_t n, const char *charset, weft_buffer *out)
{
    bool marked =
        n >= 2 && (memcmp(bytes, "\xff\xfe", 2) == 0 || memcmp(bytes, "\xfe\xff", 2) == 0);
    if (marked) charset = "UTF-16";
    if (!marked && n >= 3 && memcmp(bytes, "\xef\xbb\xbf", 3) == 0) bytes += 3, n -= 3;
    bool said = charset && *charset;
    bool utf8 = said ? strcasecmp(charset, "utf-8") == 0 || strcasecmp(charset, "us-ascii") == 0
                     : weft_utf8_valid(bytes, n) == n;
    if (!utf8 && said && convert(bytes, n, charset, out)) return;
    if (!utf8 && weft_utf8_valid(bytes, n) != n && convert(bytes, n, "WINDOWS-1252", out)) return;
    weft_utf8_scrub(bytes, n, out);
}

/* The charset that a <meta> in the first KiB names, or "". */
static void meta_charset(const char *bytes, size_t n, char out[64])
{
    char begin[1025];
    size_t size = n < 1024 ? n : 1024;
    memcpy(begin, bytes, size);
    begin[size] = '\0';
    page_charset(begin, out);
}

weft_status page_read_html(const char *bytes, size_t n, const char *charset, const char *base,
                           bool links, page_text *out, weft_error *err)
{
    page_text page = {WEFT_BUFFER_INIT, WEFT_BUFFER_INIT};
    char named[64] = "";
    weft_buffer utf8 = WEFT_BUFFER_INIT;
    /* valid UTF-8 is UTF-8 whatever a <meta> says */
    if (charset && *charset)
        snprintf(named, sizeof named, "%s", charset);
    else if (weft_utf8_valid(bytes, n) != n)
        meta_charset(bytes, n, named);
    to_utf8(bytes, n, named, &utf8);
    if (utf8.failed || utf8.size > INT32_MAX) {
        weft_buffer_free(&utf8);
        return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    }
    htmlDocPtr doc = htmlReadMemory(weft_buffer_str(&utf8), (int)utf8.size, base, "UTF-8",
                                    HTML_PARSE_RECOVER | HTML_PARSE_NOERROR | HTML_PARSE_NOWARNING |
                                        HTML_PARSE_NONET);
    weft_buffer_free(&utf8);
    const xmlNode *root = doc ? xmlDocGetRootElement(doc) : NULL;
    if (root) {
        /* the document node is the walk's root, so that the root element itself is entered */
        write_title((const xmlNode *)doc, &page);
        write_text((const xmlNode *)doc, base, links, &page);
    }
    xmlFreeDoc(doc);
    if (page.text.failed || page.title.failed) {
        page_text_free(&page);
        return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    }
    *out = page;
    return WEFT_OK;
}

/* ---- plain text ---- */

weft_status page_read_plain(const char *bytes, size_t n, const char *charset, page_text *out,
                            weft_error *err)
{
    page_text page = {WEFT_BUFFER_INIT, WEFT_BUFFER_INIT};
    to_utf8(bytes, n, charset, &page.text);
    if (page.text.failed) {
        page_text_free(&page);
        return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    }
    *out = page;
    return WEFT_OK;
}

void page_charset(const char *content_type, char out[64])
{
    const char *at = strcasestr(content_type, "charset=");
    size_t n = 0;
    out[0] = '\0';
    if (!at) return;
    at += 8;
    if (*at == '"' || *at == '\'') at++;
    n = strspn(at, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-:.");
    if (n > 63) return;
    memcpy(out, at, n);
    out[n] = '\0';
}
