/* web_search and web_fetch as a run uses them: broker and reader in the sandbox, a real server on
 * loopback. */
#include "tests/tools/server.h"
#include "tests/tools/tools_test.h"

static scene s;
static test_server server;

static const char *url_json(const char *path)
{
    static char json[1200];
    snprintf(json, sizeof json, "{\"url\":\"%s%s\"}", server.base, path);
    return json;
}

static void options(bool private, bool with_docs)
{
    static char docs[512], cache[128];
    path_in(s.dir, "cache", cache, sizeof cache);
    scene_set(&s,
              (weft_toolset_options){.allow_private_network = private,
                                     .docs = with_docs ? test_data("tools/docs", docs, sizeof docs)
                                                       : NULL,
                                     .index_cache = cache},
              "all");
}

static void pages_are_fetched_as_text(void **state)
{
    options(true, false);
    char expected[600];
    snprintf(expected, sizeof expected,
             "A page & more\n%s/page\n\n# Heading\n\nFirst paragraph with a [link](%s/next?x=1).",
             server.base, server.base);
    call_gives(&s, "web_fetch", url_json("/page"), false, expected);
    call_gives(&s, "web_fetch", url_json("/to-page"), false,
               expected); /* the URL shown is the last */
    snprintf(expected, sizeof expected, "%s/plain\n\njust text\nsecond line", server.base);
    call_gives(&s, "web_fetch", url_json("/hops/3"), false, expected);
    call_holds(&s, "web_fetch", url_json("/json"), false, "{\"a\": [1, 2]}");
    call_holds(&s, "web_fetch", url_json("/latin1"), false, "caf\xc3\xa9");
    call_holds(&s, "web_fetch", url_json("/meta"), false, "\xd0\xb4\xd0\xb0");
    call_holds(&s, "web_fetch", url_json("/utf16"), false, "h\xc3\xa9llo");
    call_holds(&s, "web_fetch", url_json("/untyped"), false, "T\n");
    call_holds(&s, "web_fetch", url_json("/empty"), false, "[the page holds no text]");
    weft_tool_result r = call_json(&s, "web_fetch", url_json("/page"));
    assert_int_equal(weft_json_int(r.facts, "http_status", 0), 200);
    assert_string_equal(weft_json_string(r.facts, "content_type"), "text/html; charset=utf-8");
    assert_true(cJSON_IsObject(cJSON_GetObjectItemCaseSensitive(r.facts, "layers")));
    weft_tool_result_free(&r);
}

static void failures_are_results(void **state)
{
    options(true, false);
    call_holds(&s, "web_fetch", url_json("/missing"), true,
               "HTTP status 404. The page says: There is no such page.");
    call_holds(&s, "web_fetch", url_json("/error"), true,
               "HTTP status 500. The page says: It broke");
    call_holds(&s, "web_fetch", url_json("/pdf"), true,
               "content of type application/pdf is no text");
    call_holds(&s, "web_fetch", url_json("/binary-text"), true, "the content is no text");
    call_holds(&s, "web_fetch", url_json("/loop"), true, "redirects more than 5 times");
    call_holds(&s, "web_fetch", url_json("/to-file"), true, "error: ");
    call_holds(&s, "web_fetch", "{\"url\":\"nonsense\"}", true, "is no URL");
    call_holds(&s, "web_fetch", "{\"url\":\"http://127.0.0.1:1/\"}", true, "does not answer");
    call_holds(&s, "web_fetch", "{\"url\":\"http://no-such-host.invalid/\"}", true, "no such host");
}

static void long_pages_are_cut(void **state)
{
    options(true, false);
    weft_tool_result r = call_json(&s, "web_fetch", url_json("/big"));
    assert_false(r.error);
    assert_true(strlen(r.text) <= 16 << 10);
    assert_non_null(
        strstr(r.text, "[the page is longer than 2097152 bytes: the rest was not read]"));
    weft_tool_result_free(&r);
}

static void private_addresses_are_refused(void **state)
{
    options(false, false);
    static const char *const hosts[] = {"127.0.0.1",      "localhost",  "[::1]",
                                        "0x7f000001",     "2130706433", "[::ffff:127.0.0.1]",
                                        "169.254.169.254"};
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++) {
        char json[200];
        snprintf(json, sizeof json, "{\"url\":\"http://%s:%d/page\"}", hosts[i], server.port);
        call_holds(&s, "web_fetch", json, true, "leads to the private address");
    }
}

static void documents_are_searched_and_fetched(void **state)
{
    options(false, true);
    call_gives(&s, "web_search", "{\"query\":\"sourdough rye\"}", false,
               "1. Rye bread with sourdough\n   file:bread.txt\n   Rye bread with sourdough Mix "
               "500 g of rye flour, 400 g of water, 100 g "
               "of sourdough and 10 g of salt. Let the dough rest for twelve hours in a warm "
               "place. Bake it for one hour at ...");
    call_holds(&s, "web_search", "{\"query\":\"tide\",\"max_results\":2}", false, "\n\n2. ");
    call_holds(&s, "web_search", "{\"query\":\"percent blanks\"}", false,
               "file:guide/two%20words.txt");
    call_holds(&s, "web_search", "{\"query\":\"zeppelin\"}", false, "no results for \"zeppelin\"");
    call_holds(&s, "web_fetch", "{\"url\":\"file:guide/two%20words.txt\"}", false,
               "This document tests");
    call_holds(&s, "web_fetch", "{\"url\":\"file:lighthouse.html\"}", false,
               "Lighthouse of Eckm\xc3\xbchl\nfile:lighthouse.html\n\n# The lighthouse");
    static const char *const out[] = {"file:../commands/probe.sh",
                                      "file:///etc/passwd",
                                      "file:/etc/passwd",
                                      "file:%2e%2e/commands/probe.sh",
                                      "file:guide/../../commands/probe.sh",
                                      "file:",
                                      "file:.",
                                      "FILE:../commands/probe.sh"};
    for (size_t i = 0; i < sizeof out / sizeof *out; i++) {
        char json[200];
        snprintf(json, sizeof json, "{\"url\":\"%s\"}", out[i]);
        call_holds(&s, "web_fetch", json, true, "web_search lists the documents");
    }
    options(false, false);
    call_holds(&s, "web_fetch", "{\"url\":\"file:bread.txt\"}", true, "--docs DIR");
    call_holds(&s, "web_search", "{\"query\":\"x\"}", true, "nothing to search");
}

static void searxng_is_asked(void **state)
{
    weft_buffer base = WEFT_BUFFER_INIT;
    weft_buffer_printf(&base, "%s/", server.base);
    scene_set(&s, (weft_toolset_options){.searxng_url = base.data},
              "all"); /* private, but the user named it */
    weft_tool_result r =
        call_json(&s, "web_search", "{\"query\":\"two & words\",\"max_results\":3}");
    assert_false(r.error);
    assert_memory_equal(r.text, "1. Title 1 of two & words\n   https://example.org/1\n   word word",
                        63);
    assert_non_null(strstr(r.text, "\n\n3. Title 3"));
    assert_null(strstr(r.text, "\n\n4. "));
    assert_string_equal(weft_json_string(r.facts, "backend"), "searxng");
    weft_tool_result_free(&r);
    call_holds(&s, "web_search", "{\"query\":\"nothing\"}", false, "no results for \"nothing\"");
    call_holds(&s, "web_search", "{\"query\":\"broken\"}", true, "answer cannot be read");
    call_holds(&s, "web_search", "{\"query\":\"forbidden\"}", true,
               "HTTP status 403: its settings must allow the format json");
    call_holds(&s, "web_search", "{\"query\":\"redirect\"}", true, "leads to the private address");
    weft_buffer_free(&base);
    scene_set(&s, (weft_toolset_options){.searxng_url = "http://127.0.0.1:1"}, "all");
    call_holds(&s, "web_search", "{\"query\":\"x\"}", true, "does not answer");
}

static void a_missing_broker_is_named(void **state)
{
    options(true, false);
    char *libexec = strdup(getenv("WEFT_LIBEXEC"));
    setenv("WEFT_LIBEXEC", "/no/such/place", 1);
    call_holds(&s, "web_fetch", url_json("/page"), true,
               "no program weft-fetch in WEFT_LIBEXEC=/no/such/place");
    setenv("WEFT_LIBEXEC", libexec, 1);
    free(libexec);
}

static int begin(void **state)
{
    scene_open(&s, true);
    return server_start(&server) ? 0 : -1;
}

static int end(void **state)
{
    server_stop(&server);
    scene_close(&s);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(pages_are_fetched_as_text, begin, end),
        cmocka_unit_test_setup_teardown(failures_are_results, begin, end),
        cmocka_unit_test_setup_teardown(long_pages_are_cut, begin, end),
        cmocka_unit_test_setup_teardown(private_addresses_are_refused, begin, end),
        cmocka_unit_test_setup_teardown(documents_are_searched_and_fetched, begin, end),
        cmocka_unit_test_setup_teardown(searxng_is_asked, begin, end),
        cmocka_unit_test_setup_teardown(a_missing_broker_is_named, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
