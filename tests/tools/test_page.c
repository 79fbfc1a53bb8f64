/* Pages become text: what is kept, what is left out, and that no input breaks it. */
#include "tools/web/page.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void html_is(const char *html, const char *charset, const char *title, const char *text)
{
    page_text page;
    weft_error err;
    assert_int_equal(
        page_read_html(html, strlen(html), charset, "http://host/dir/page", true, &page, &err),
        WEFT_OK);
    if (title) assert_string_equal(weft_buffer_str(&page.title), title);
    assert_string_equal(weft_buffer_str(&page.text), text);
    page_text_free(&page);
}

static void structure_is_kept(void **state)
{
    html_is("<title> A\n b &amp; c </title><h1>One</h1><p>Some "
            "<b>bold</b>,\n\n<i>it</i>.<p>Two<br>lines",
            NULL, "A b & c", "# One\n\nSome bold, it.\n\nTwo\nlines");
    html_is("<ul><li>one<li>two <b>x</b></ul><h3>Deep</h3><pre>a\n  b</pre>", NULL, "",
            "- one\n- two x\n\n### Deep\n\na\n  b");
    html_is("<table><tr><th>a <th>b</tr><tr><td>1<td>2</table>after", NULL, "",
            "a | b\n1 | 2\n\nafter");
    html_is("", NULL, "", "");
    html_is("plain words", NULL, "", "plain words");
}

static void links_are_absolute_and_only_http(void **state)
{
    html_is("<a href='x?y=1'>rel</a> <a href='/top'>top</a> <a href='https://e.org/'>abs</a>", NULL,
            "", "[rel](http://host/dir/x?y=1) [top](http://host/top) [abs](https://e.org/)");
    html_is("<a href='#frag'>frag</a> <a href='javascript:x()'>js</a> <a "
            "href='mailto:a@b'>mail</a> <a>none</a> <a href='/i'><img></a>z",
            NULL, "", "frag js mail none z");
}

static void what_is_not_shown_is_left_out(void **state)
{
    html_is(
        "<head><title>t</title><meta "
        "name=x></head><script>a()</script><style>b{}</style><noscript>c</noscript>"
        "<p hidden>d</p><p style='Display : none'>e</p><div aria-hidden=true>f</div><span "
        "style='visibility:hidden'>g</span>"
        "<nav>h</nav><footer>i</footer><textarea>j</textarea><template>k</template><!-- l -->shown",
        NULL, "t", "shown");
}

static void the_main_part_is_taken(void **state)
{
    weft_buffer html = WEFT_BUFFER_INIT;
    page_text page;
    weft_error err;
    weft_buffer_puts(&html, "<div>around</div><main><h1>Main</h1><p>");
    for (int i = 0; i < 60; i++) weft_buffer_puts(&html, "words ");
    weft_buffer_puts(&html, "</main><div>after</div>");
    assert_int_equal(page_read_html(html.data, html.size, NULL, NULL, false, &page, &err), WEFT_OK);
    assert_memory_equal(page.text.data, "# Main\n\nwords", 13);
    assert_null(strstr(page.text.data, "around"));
    page_text_free(&page);
    weft_buffer_free(&html);
    html_is("before<main>short</main>", NULL, "", "before\nshort");
}

static void charsets(void **state)
{
    html_is("<p>caf\xe9", "ISO-8859-1", "", "caf\xc3\xa9");
    html_is("<p>caf\xc3\xa9", NULL, "", "caf\xc3\xa9");
    html_is("<meta charset=windows-1251><p>\xe4\xe0", NULL, "", "\xd0\xb4\xd0\xb0");
    html_is("<p>caf\xc3\xa9", "no-such-charset", "", "caf\xc3\xa9");
    static const struct {
        const char *bytes;
        size_t n;
        const char *charset, *text;
    } plain[] = {
        {"a\xe9", 2, "latin1", "a\xc3\xa9"},
        {"a\xe9", 2, NULL, "a\xc3\xa9"},
        {"a\xe9", 2, "klingon", "a\xc3\xa9"},
        {"a\xe9", 2, "utf-8", "a\xef\xbf\xbd"},
        {"\xef\xbb\xbf"
         "b",
         4, NULL, "b"},
        {"\xff\xfe"
         "h\0\xe9\0",
         6, NULL, "h\xc3\xa9"},
        {"\xfe\xff\0h", 4, NULL, "h"},
        {"\xff\xfe"
         "h",
         3, NULL, ""},
        {"", 0, NULL, ""},
        {"\x82\xa0", 2, "shift_jis", "\xe3\x81\x82"},
    };
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
        page_text page;
        weft_error err;
        assert_int_equal(page_read_plain(plain[i].bytes, plain[i].n, plain[i].charset, &page, &err),
                         WEFT_OK);
        assert_string_equal(weft_buffer_str(&page.text), plain[i].text);
        page_text_free(&page);
    }
    char charset[64];
    page_charset("text/html; Charset=\"UTF-8\"; x=y", charset);
    assert_string_equal(charset, "UTF-8");
    page_charset("text/html", charset);
    assert_string_equal(charset, "");
    page_charset("text/html; "
                 "charset=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                 charset);
    assert_string_equal(charset, "");
}

/* A hundred thousand open elements, and mutated pages: the walk is no recursion and trusts nothing.
 */
static void no_page_breaks_it(void **state)
{
    weft_buffer html = WEFT_BUFFER_INIT;
    page_text page;
    weft_error err;
    for (int i = 0; i < 100000; i++)
        weft_buffer_puts(&html, i % 3 ? "<div><a href=x>" : "<ul><li><pre>");
    assert_int_equal(page_read_html(html.data, html.size, NULL, "http://h/", true, &page, &err),
                     WEFT_OK);
    page_text_free(&page);
    static const char seed[] =
        "<!doctype html><title>t</title><h2>x</h2><table><tr><td>a<td>b</table><p style='a:b'>c<a "
        "href='/d'>e</a>"
        "<pre>f</pre><ul><li>g&eacute;&#233;</ul><svg><p>h</svg>";
    unsigned random = 1;
    for (int round = 0; round < 3000; round++) {
        char copy[sizeof seed];
        memcpy(copy, seed, sizeof seed);
        for (int change = 0; change < 6; change++) {
            random = random * 1664525u + 1013904223u;
            copy[(random >> 8) % (sizeof seed - 1)] = (char)(random >> 24);
        }
        assert_int_equal(
            page_read_html(copy, sizeof seed - 1, NULL, "http://h/", true, &page, &err), WEFT_OK);
        assert_int_equal(weft_utf8_valid(weft_buffer_str(&page.text), page.text.size),
                         page.text.size);
        page_text_free(&page);
    }
    weft_buffer_free(&html);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(structure_is_kept),
        cmocka_unit_test(links_are_absolute_and_only_http),
        cmocka_unit_test(what_is_not_shown_is_left_out),
        cmocka_unit_test(the_main_part_is_taken),
        cmocka_unit_test(charsets),
        cmocka_unit_test(no_page_breaks_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
