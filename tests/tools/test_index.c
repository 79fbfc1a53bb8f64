/* The index over documents: what is found and in which order, and that it follows the files. */
#include "tests/tools/tools_test.h"

#include "tools/web/index.h"

#include <dirent.h>

static scene s;
static char docs[80], cache[80];

static docs_hits search(const char *query, size_t limit)
{
    docs_hits hits;
    weft_error err;
    if (docs_search(docs, cache, query, limit, &hits, &err)) fail_msg("%s: %s", query, err.message);
    return hits;
}

static void finds(const char *query, const char *first)
{
    docs_hits hits = search(query, 5);
    if (!first && hits.n) fail_msg("%s: found %s", query, hits.hit[0].path);
    if (first && (!hits.n || strcmp(hits.hit[0].path, first) != 0))
        fail_msg("%s: %s", query, hits.n ? hits.hit[0].path : "nothing");
    docs_hits_free(&hits);
}

static void copy_docs(void)
{
    char from[512], command[1200];
    snprintf(command, sizeof command, "cp -r '%s' '%s'", test_data("tools/docs", from, sizeof from),
             docs);
    assert_int_equal(system(command), 0);
}

static void words_find_documents(void **state)
{
    finds("sourdough", "bread.txt");
    finds("SOURDOUGH Flour", "bread.txt");
    finds("lighthouse", "lighthouse.html");
    finds("nautical miles", "lighthouse.html");
    finds("pilot", "guide/harbour.md");
    finds("kneading", "bread.txt");
    finds("knead", "bread.txt"); /* stems */
    finds("percent", "guide/two words.txt");
    finds("eckm\xc3\xbchl", "lighthouse.html");
    finds("eckmuhl", "lighthouse.html"); /* accents are folded */
    finds("zeppelin", NULL);
    finds("zebra", NULL); /* hidden in the page */
    finds("disregard", NULL);
    finds("csv", NULL);
    docs_hits hits = search("tides", 10); /* in the title and more often beats once */
    assert_int_equal(hits.n, 3);
    assert_string_equal(hits.hit[0].path, "tides.md");
    assert_string_equal(hits.hit[0].title, "Tides");
    assert_non_null(strstr(hits.hit[0].snippet, "tide"));
    assert_int_equal(hits.files, 5);
    docs_hits_free(&hits);
    hits = search("tide table harbour", 10); /* all words first, then some */
    assert_int_equal(hits.n, 3);
    assert_true(strcmp(hits.hit[2].path, "lighthouse.html") == 0);
    docs_hits_free(&hits);
    hits = search("tide table harbour", 1);
    assert_int_equal(hits.n, 1);
    docs_hits_free(&hits);
}

/* FTS5 has a language of its own; no query may reach it. */
static void queries_are_only_words(void **state)
{
    static const char *const odd[] = {
        "\"",    "'",     "tide\"", "tide OR",  "NEAR(",        "title:tide",
        "tide*", "-tide", "^tide",  "(tide",    "tide AND NOT", "'; DROP TABLE page; --",
        "",      "   ",   "%",      "\xff\xfe", "{a b}:c",      "tide + table",
        "\x01",  "!!!"};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        docs_hits hits = search(odd[i], 5);
        docs_hits_free(&hits);
    }
    finds("tide*", "tides.md");
    finds("'; DROP TABLE page; -- sourdough", "bread.txt");
}

static void the_index_follows_the_files(void **state)
{
    docs_hits hits = search("sourdough", 5);
    assert_int_equal(hits.read, 5);
    docs_hits_free(&hits);
    hits = search("sourdough", 5);
    assert_int_equal(hits.read, 0); /* nothing changed */
    docs_hits_free(&hits);
    put_text(docs, "new.md", "# Zeppelin\nIt flies with sourdough.\n");
    hits = search("zeppelin", 5);
    assert_int_equal(hits.read, 1);
    assert_int_equal(hits.n, 1);
    docs_hits_free(&hits);
    put_text(docs, "new.md", "# Balloon\nIt flies with hydrogen\n");
    finds("zeppelin", NULL);
    finds("balloon", "new.md");
    char path[256];
    path_in(docs, "new.md", path, sizeof path);
    assert_int_equal(unlink(path), 0);
    finds("balloon", NULL);
    hits = search("tide", 5);
    assert_int_equal(hits.files, 5);
    docs_hits_free(&hits);
}

/* Overwrites every file of the cache with the bytes. */
static void spoil(const char *bytes)
{
    struct dirent **names;
    int n = scandir(cache, &names, NULL, NULL), spoilt = 0;
    for (int i = 0; i < n; i++) {
        if (strstr(names[i]->d_name, ".db")) {
            put_text(cache, names[i]->d_name, bytes);
            spoilt++;
        }
        free(names[i]);
    }
    free(names);
    assert_true(spoilt > 0);
}

static void a_damaged_cache_is_built_again(void **state)
{
    finds("sourdough", "bread.txt");
    spoil("this is no database at all, and longer than a header of one hundred bytes must be for "
          "the test to mean something");
    finds("sourdough", "bread.txt");
    spoil("");
    finds("sourdough", "bread.txt");
    char command[600];
    snprintf(command, sizeof command,
             "python3 -c \"import sqlite3,glob;c=sqlite3.connect(glob.glob('%s/*.db')[0]);"
             "c.execute('PRAGMA user_version=77');c.execute('DROP TABLE page')\"",
             cache);
    assert_int_equal(system(command), 0);
    finds("sourdough", "bread.txt");
    /* a cache that cannot be made is said; without one the index lives in memory */
    docs_hits hits;
    weft_error err;
    assert_int_equal(docs_search(docs, NULL, "sourdough", 5, &hits, &err), WEFT_OK);
    assert_int_equal(hits.n, 1);
    docs_hits_free(&hits);
    assert_int_not_equal(docs_search(docs, "/proc/no/such", "x", 5, &hits, &err), WEFT_OK);
    assert_int_equal(docs_search("/no/such/docs", cache, "x", 5, &hits, &err), WEFT_E_CONFIG);
}

static void documents_are_read_inside_the_folder_only(void **state)
{
    static const char *const out[] = {"../secret.txt", "/etc/passwd",   "guide/../../secret.txt",
                                      "link.md",       "up/secret.txt", ".",
                                      "none.md"};
    char path[256];
    put_text(s.dir, "secret.txt", "zebra secret");
    path_in(docs, "link.md", path, sizeof path);
    assert_int_equal(symlink("../secret.txt", path), 0);
    path_in(docs, "up", path, sizeof path);
    assert_int_equal(symlink("..", path), 0);
    for (size_t i = 0; i < sizeof out / sizeof *out; i++) {
        weft_buffer title = WEFT_BUFFER_INIT, text = WEFT_BUFFER_INIT;
        weft_error err;
        if (docs_read(docs, out[i], &title, &text, &err) != WEFT_E_INVALID)
            fail_msg("%s: %s", out[i], weft_buffer_str(&text));
        weft_buffer_free(&title);
        weft_buffer_free(&text);
    }
    finds("secret", NULL);
}

static void urls_travel(void **state)
{
    static const char *const paths[] = {"a.md",     "guide/two words.txt", "100%.txt",
                                        "a#b?c.md", "\xc3\xa9.md",         "a+b&c.txt",
                                        "x%20y.md"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        weft_buffer url = WEFT_BUFFER_INIT;
        docs_put_url(paths[i], &url);
        assert_null(strchr(url.data, ' '));
        char *back = docs_path_of(url.data);
        assert_string_equal(back, paths[i]);
        free(back);
        weft_buffer_free(&url);
    }
    static const char *const forms[] = {"file:a.md",    "file:/a.md",     "file://a.md",
                                        "file:///a.md", "FILE:a.md#part", "file:a.md?x"};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        char *path = docs_path_of(forms[i]);
        assert_string_equal(path, "a.md");
        free(path);
    }
    assert_null(docs_path_of("http://a.md"));
    char *path = docs_path_of("file:a%00b%zz%4");
    assert_string_equal(path, "a%00b%zz%4");
    free(path);
}

static void too_large_documents_are_counted(void **state)
{
    char path[256];
    path_in(docs, "large.txt", path, sizeof path);
    put_text(docs, "large.txt", "sourdough");
    assert_int_equal(truncate(path, INDEX_FILE_BYTES + 1), 0);
    docs_hits hits = search("sourdough", 5);
    assert_int_equal(hits.n, 1);
    assert_int_equal(hits.left_out, 1);
    docs_hits_free(&hits);
}

static int begin(void **state)
{
    scene_open(&s, false);
    path_in(s.dir, "docs", docs, sizeof docs);
    path_in(s.dir, "cache", cache, sizeof cache);
    copy_docs();
    return 0;
}

static int end(void **state)
{
    scene_close(&s);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(words_find_documents, begin, end),
        cmocka_unit_test_setup_teardown(queries_are_only_words, begin, end),
        cmocka_unit_test_setup_teardown(the_index_follows_the_files, begin, end),
        cmocka_unit_test_setup_teardown(a_damaged_cache_is_built_again, begin, end),
        cmocka_unit_test_setup_teardown(documents_are_read_inside_the_folder_only, begin, end),
        cmocka_unit_test_setup_teardown(urls_travel, begin, end),
        cmocka_unit_test_setup_teardown(too_large_documents_are_counted, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
