/* Foundations: JSON strictness and exact writers, UTF-8, errors, files. */
#include "base/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static weft_status parse(const char *text, cJSON **out)
{
    weft_error err;
    return weft_json_parse(text, strlen(text), out, &err);
}

static void json_refuses_what_is_not_json(void **state)
{
    static const char *const bad[] = {"",
                                      "{",
                                      "[1,]",
                                      "{\"a\":1,}",
                                      "{\"a\":1 \"b\":2}",
                                      "01",
                                      "1.",
                                      "-",
                                      "\"\\x\"",
                                      "\"\\u12\"",
                                      "\"\\ud800\"",
                                      "\"\\u0000\"",
                                      "nul",
                                      "1 2",
                                      "{\"a\":1,\"a\":2}",
                                      "'a'",
                                      "\"\x01\"",
                                      "\"\xff\"",
                                      "\"\xc0\x80\"",
                                      "\"\xed\xa0\x80\"",
                                      "[1e]",
                                      "+1",
                                      "{1:2}",
                                      "\"abc"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cJSON *v = NULL;
        if (parse(bad[i], &v) != WEFT_E_INVALID) fail_msg("accepted: %s", bad[i]);
        assert_null(v);
    }
    weft_buffer deep = WEFT_BUFFER_INIT;
    for (int i = 0; i < 100000; i++) weft_buffer_putc(&deep, '[');
    cJSON *v = NULL;
    assert_int_equal(parse(deep.data, &v), WEFT_E_INVALID);
    weft_buffer_free(&deep);
}

static void writes(const char *source,
                   weft_status (*writer)(const cJSON *, weft_buffer *, weft_error *),
                   const char *expected)
{
    cJSON *v = NULL;
    weft_buffer out = WEFT_BUFFER_INIT;
    weft_error err;
    assert_int_equal(parse(source, &v), WEFT_OK);
    assert_int_equal(writer(v, &out, &err), WEFT_OK);
    assert_string_equal(weft_buffer_str(&out), expected);
    weft_buffer_free(&out);
    cJSON_Delete(v);
}

static weft_status compact(const cJSON *value, weft_buffer *out, weft_error *err)
{
    weft_json_compact(value, out);
    return weft_buffer_ok(out, err);
}

static void json_python_writes_as_json_dumps(void **state)
{
    writes("{\"b\":[1,2.50,1e5,1E400],\"a\":\"\\u00e9\\n<&>'/\\u007f\"}", weft_json_python,
           "{\"b\": [1, 2.5, 100000.0, Infinity], \"a\": \"\xc3\xa9\\n<&>'/\x7f\"}");
    writes("[123456789012345678901234567890,-0,-0.0,1e16,1e-5,0.0001,1e22]", weft_json_python,
           "[123456789012345678901234567890, 0, -0.0, 1e+16, 1e-05, 0.0001, 1e+22]");
    writes("[]", weft_json_python, "[]");
    writes("{}", weft_json_python, "{}");
}

static void json_compact_keeps_numbers_as_written(void **state)
{
    writes("[1e400, 0.10, 1E2, -0]", compact, "[1e400,0.10,1E2,-0]");
}

static void json_canonical_sorts_and_refuses_floats(void **state)
{
    writes("{\"b\":1,\"a\":{\"z\":true,\"y\":\"\\u0007\"}}", weft_json_canonical,
           "{\"a\":{\"y\":\"\\u0007\",\"z\":true},\"b\":1}");
    cJSON *v = NULL;
    weft_buffer out = WEFT_BUFFER_INIT;
    assert_int_equal(parse("[0.5]", &v), WEFT_OK);
    assert_int_equal(weft_json_canonical(v, &out, NULL), WEFT_E_INVALID);
    cJSON_Delete(v);
    weft_buffer_free(&out);
}

static void utf8_scrub_replaces_each_bad_byte(void **state)
{
    weft_buffer out = WEFT_BUFFER_INIT;
    weft_utf8_scrub("a\xff\xe2\x82z\xe2\x82\xac", 8, &out);
    assert_string_equal(out.data, "a\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdz\xe2\x82\xac");
    weft_buffer_free(&out);
}

static void error_text_never_carries_control_characters(void **state)
{
    weft_error err;
    assert_int_equal(weft_fail(&err, WEFT_E_CONFIG, "read %s", "a\x1b[31m\nb"), WEFT_E_CONFIG);
    assert_string_equal(err.message, "read a\\x1b[31m\\x0ab");
    weft_fail_prefix(&err, "load");
    assert_string_equal(err.message, "load: read a\\x1b[31m\\x0ab");
}

static void file_write_replaces_whole_and_remove_tree_stays_inside(void **state)
{
    char dir[] = "/tmp/weft-base-XXXXXX";
    weft_error err;
    assert_non_null(mkdtemp(dir));
    char *deep = weft_path_join(dir, "a/b/c"), *file = weft_path_join(dir, "a/f"),
         *link = weft_path_join(dir, "a/b/out");
    char outside[] = "/tmp/weft-base-out-XXXXXX";
    assert_non_null(mkdtemp(outside));
    assert_int_equal(weft_mkdirs(deep, &err), WEFT_OK);
    assert_int_equal(weft_file_write(file, "one", 3, 0600, &err), WEFT_OK);
    assert_int_equal(weft_file_write(file, "two2", 4, 0600, &err), WEFT_OK);
    weft_buffer b = WEFT_BUFFER_INIT;
    assert_int_equal(weft_file_read(file, 100, &b, &err), WEFT_OK);
    assert_string_equal(b.data, "two2");
    assert_int_equal(weft_file_read(file, 3, &b, &err), WEFT_E_CONFIG);
    assert_int_equal(symlink(outside, link), 0);
    assert_int_equal(weft_remove_tree(dir, &err), WEFT_OK);
    assert_false(weft_file_exists(dir));
    assert_true(weft_file_exists(outside));
    rmdir(outside);
    weft_buffer_free(&b);
    free(deep);
    free(file);
    free(link);
}

static void put(const char *root, const char *name, const char *text)
{
    weft_error err;
    char *path = weft_path_join(root, name), *end = strrchr(path, '/');
    *end = '\0';
    assert_int_equal(weft_mkdirs(path, &err), WEFT_OK);
    *end = '/';
    assert_int_equal(weft_file_write(path, text, strlen(text), 0600, &err), WEFT_OK);
    free(path);
}

/* The least of what the kernel calls available and what each cgroup level leaves beside its page cache. */
static void memory_available_obeys_meminfo_and_cgroups(void **state)
{
    char root[] = "/tmp/weft-base-XXXXXX";
    assert_non_null(mkdtemp(root));
    assert_int_equal(weft_memory_available_under(root), 0); /* nothing is known */
    put(root, "proc/meminfo", "MemTotal:  4000 kB\nMemAvailable:   3000 kB\n");
    assert_int_equal(weft_memory_available_under(root), 3000 << 10);
    put(root, "proc/self/cgroup", "4:memory:/a/b\n0::/c/d\n");
    put(root, "sys/fs/cgroup/c/d/memory.max", "max\n");
    put(root, "sys/fs/cgroup/c/memory.max", "1000000\n");
    put(root, "sys/fs/cgroup/c/memory.current", "700000\n");
    put(root, "sys/fs/cgroup/c/memory.stat", "anon 5\ninactive_file 100000\nactive_file 50000\n");
    assert_int_equal(weft_memory_available_under(root), 450000);
    put(root, "sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "600000\n");
    put(root, "sys/fs/cgroup/memory/a/b/memory.usage_in_bytes", "500000\n");
    assert_int_equal(weft_memory_available_under(root), 100000);
    put(root, "sys/fs/cgroup/memory.max", "40000\n"); /* a container's root is its own group */
    put(root, "sys/fs/cgroup/memory.current", "50000\n");
    assert_int_equal(weft_memory_available_under(root), 0);
    weft_remove_tree(root, NULL);
    assert_true(weft_memory_available() > 0);
}

static void memory_sizes_are_read_with_units(void **state)
{
    static const struct {
        const char *text;
        size_t bytes;
    } good[] = {{"0", 0}, {"123", 123}, {"2k", 2048}, {"1.5G", (size_t)3 << 29}, {"16T", (size_t)16 << 40}};
    static const char *const bad[] = {"", "G", "-1", "1GB", "inf", "nan", "9999999T", "1 G"};
    weft_error err;
    size_t bytes;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_int_equal(weft_memory_parse(good[i].text, &bytes, &err), WEFT_OK);
        assert_int_equal(bytes, good[i].bytes);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(weft_memory_parse(bad[i], &bytes, &err), WEFT_E_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_refuses_what_is_not_json),
        cmocka_unit_test(json_python_writes_as_json_dumps),
        cmocka_unit_test(json_compact_keeps_numbers_as_written),
        cmocka_unit_test(json_canonical_sorts_and_refuses_floats),
        cmocka_unit_test(utf8_scrub_replaces_each_bad_byte),
        cmocka_unit_test(error_text_never_carries_control_characters),
        cmocka_unit_test(memory_available_obeys_meminfo_and_cgroups),
        cmocka_unit_test(memory_sizes_are_read_with_units),
        cmocka_unit_test(file_write_replaces_whole_and_remove_tree_stays_inside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
