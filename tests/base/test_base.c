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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_refuses_what_is_not_json),
        cmocka_unit_test(json_python_writes_as_json_dumps),
        cmocka_unit_test(json_compact_keeps_numbers_as_written),
        cmocka_unit_test(json_canonical_sorts_and_refuses_floats),
        cmocka_unit_test(utf8_scrub_replaces_each_bad_byte),
        cmocka_unit_test(error_text_never_carries_control_characters),
        cmocka_unit_test(file_write_replaces_whole_and_remove_tree_stays_inside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
