/* From the bytes of a page to text that reads well. */
#ifndef WEFT_TOOLS_PAGE_H
#define WEFT_TOOLS_PAGE_H

#include "base/base.h"

typedef struct page_text {
    weft_buffer title; /* one line, may be empty */
    weft_buffer text;  /* UTF-8; headings as "# ", items as "- ", table cells between " | " */
} page_text;

void page_text_free(page_text *page);

/* HTML. charset is what the transport said, or NULL. With links, a link is written [text](URL),
 * URLs made absolute by base. The parts that are no reading matter (scripts, forms, navigation,
 * what is hidden) are left out; if the page marks its main part, only that is taken. */
weft_status page_read_html(const char *bytes, size_t n, const char *charset, const char *base,
                           bool links, page_text *out, weft_error *err);

/* Plain text of any charset; UTF-8 is taken as such, unknown bytes as Windows-1252. */
weft_status page_read_plain(const char *bytes, size_t n, const char *charset, page_text *out,
                            weft_error *err);

/* The charset parameter of a content type into out, or "" if there is none. */
void page_charset(const char *content_type, char out[64]);

#endif
