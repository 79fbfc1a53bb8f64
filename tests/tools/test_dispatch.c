/* The dispatcher: malformed calls, unknown tools, the cap, and what works without a sandbox. */
#include "tests/tools/tools_test.h"

static scene s;

static void unknown_tools_are_named(void **state)
{
    weft_error err;
    cJSON *arguments = cJSON_CreateObject();
    assert_int_equal(weft_toolset_check(s.set, "calculater", arguments, &err), WEFT_E_INVALID);
    assert_string_equal(
        err.message,
        "there is no tool named \"calculater\": the tools are calculator, code_run, web_search, "
        "web_fetch, read_file, write_file, list_files");
    assert_int_equal(weft_toolset_check(s.set, NULL, arguments, &err), WEFT_E_INVALID);
    assert_int_equal(weft_toolset_check(s.set, "", arguments, &err), WEFT_E_INVALID);
    cJSON_Delete(arguments);
    call_holds(&s, "Calculator", "{}", true,
               "error: there is no tool named \"Calculator\": the tools are calculator,");
    scene_set(&s, (weft_toolset_options){0}, NULL);
    call_gives(&s, "x", "{}", true, "error: there is no tool named \"x\": no tools are offered");
}

/* One call that is wrong; the words must name the tool and say what it takes. */
static size_t must_refuse(const char *name, const cJSON *arguments, const char *part)
{
    weft_error err;
    weft_tool_result result;
    weft_buffer shown = WEFT_BUFFER_INIT;
    if (arguments) weft_json_compact(arguments, &shown);
    if (weft_toolset_check(s.set, name, arguments, &err) != WEFT_E_INVALID)
        fail_msg("%s accepted %s", name, weft_buffer_str(&shown));
    if (strncmp(err.message, name, strlen(name)) != 0 || !strstr(err.message, "It takes ") ||
        !strstr(err.message, part))
        fail_msg("%s %s: %s", name, weft_buffer_str(&shown), err.message);
    assert_int_equal(weft_toolset_call(s.set, name, arguments, NULL, &result, &err), WEFT_OK);
    assert_true(result.error);
    assert_memory_equal(result.text, "error: ", 7);
    weft_tool_result_free(&result);
    weft_buffer_free(&shown);
    return 1;
}

/* For every built-in tool: no object at all, each required member missing, each member of each
 * wrong type, out of its bounds, an unknown member. */
static void malformed_calls_are_refused_with_path_and_rule(void **state)
{
    static const char *const good[][2] = {
        {"calculator", "{\"expression\":\"1\"}"},
        {"code_run", "{\"language\":\"python\",\"code\":\"1\",\"stdin\":\"x\"}"},
        {"web_search", "{\"query\":\"x\",\"max_results\":3}"},
        {"web_fetch", "{\"url\":\"https://example.org/\"}"},
        {"read_file", "{\"path\":\"a\",\"first_line\":1,\"max_lines\":2}"},
        {"write_file", "{\"path\":\"a\",\"content\":\"x\"}"},
        {"list_files", "{\"path\":\"a\"}"},
    };
    static const char *const values[] = {"null",  "true", "false",   "7",  "-1",       "1.5",
                                         "\"x\"", "[]",   "[\"x\"]", "{}", "{\"x\":1}"};
    size_t calls = 0;
    for (size_t t = 0; t < 7; t++) {
        cJSON *base = NULL;
        assert_int_equal(weft_json_parse(good[t][1], strlen(good[t][1]), &base, NULL), WEFT_OK);
        assert_int_equal(weft_toolset_check(s.set, good[t][0], base, NULL), WEFT_OK);
        calls += must_refuse(good[t][0], NULL, "must be one JSON object");
        for (size_t v = 0; v < 9; v++) {
            cJSON *value = NULL;
            assert_int_equal(weft_json_parse(values[v], strlen(values[v]), &value, NULL), WEFT_OK);
            calls += must_refuse(good[t][0], value, "must be one JSON object");
            cJSON_Delete(value);
        }
        cJSON_AddTrueToObject(base, "colour");
        calls += must_refuse(good[t][0], base, "colour");
        cJSON_DeleteItemFromObject(base, "colour");
        for (const cJSON *member = base->child; member; member = member->next) {
            char key[32];
            snprintf(key, sizeof key, "%s", member->string);
            bool text = cJSON_IsString(member);
            for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
                bool fits = text ? values[v][0] == '"' && strcmp(key, "language") != 0
                                 : strcmp(values[v], "7") == 0;
                if (fits) continue;
                cJSON *copy = cJSON_Duplicate(base, true), *value = NULL;
                assert_int_equal(weft_json_parse(values[v], strlen(values[v]), &value, NULL),
                                 WEFT_OK);
                cJSON_ReplaceItemInObjectCaseSensitive(copy, key, value);
                calls += must_refuse(good[t][0], copy, key);
                cJSON_Delete(copy);
            }
        }
        const cJSON *name, *schema = weft_toolset_find(s.set, good[t][0])->parameters;
        cJSON_ArrayForEach(name, cJSON_GetObjectItemCaseSensitive(schema, "required"))
        {
            cJSON *copy = cJSON_Duplicate(base, true);
            cJSON_DeleteItemFromObject(copy, name->valuestring);
            calls += must_refuse(good[t][0], copy, name->valuestring);
            cJSON_Delete(copy);
        }
        cJSON_Delete(base);
    }
    if (calls < 200) fail_msg("only %zu malformed calls", calls);
}

static void refusals_read_well(void **state)
{
    call_holds(&s, "calculator", "{\"expresion\":\"1\"}", true, ". It takes expression (string)");
    call_holds(
        &s, "read_file", "{\"path\":1}", true,
        "It takes path (string), first_line (integer, optional), max_lines (integer, optional)");
    call_holds(&s, "web_search", "{\"query\":\"x\",\"max_results\":100}", true, "/max_results");
}

static void the_calculator_needs_no_sandbox(void **state)
{
    call_gives(&s, "calculator", "{\"expression\":\"123+45\"}", false, "168");
    call_gives(&s, "calculator", "{\"expression\":\"1/0\"}", true,
               "error: at column 2: division by zero");
    call_holds(&s, "code_run", "{\"language\":\"python\",\"code\":\"print(1)\"}", true,
               "needs the sandbox");
    call_holds(&s, "web_fetch", "{\"url\":\"http://127.0.0.1/\"}", true, "needs the sandbox");
    call_holds(&s, "web_search", "{\"query\":\"x\"}", true, "--docs DIR");
    weft_tool_result r = call_json(&s, "calculator", "{\"expression\":\"2^64\"}");
    uint8_t digest[WEFT_DIGEST_BYTES];
    weft_sha256_of(r.text, strlen(r.text), digest);
    assert_memory_equal(digest, r.full_sha256, WEFT_DIGEST_BYTES);
    assert_int_equal(r.full_bytes, strlen(r.text));
    assert_null(r.full);
    assert_true(weft_json_int(r.facts, "wall_ns", -1) >= 0);
    weft_tool_result_free(&r);
}

static void long_results_lose_their_middle(void **state)
{
    weft_buffer text = WEFT_BUFFER_INIT;
    for (int i = 0; i < 20000; i++) weft_buffer_printf(&text, "\xe2\x82\xac%05d\n", i);
    put_file(s.workspace, "long.txt", text.data, text.size);
    weft_tool_result r = call_json(&s, "read_file", "{\"path\":\"long.txt\"}");
    assert_false(r.error);
    assert_true(strlen(r.text) <= 16 << 10);
    assert_true(strlen(r.text) > 15 << 10);
    assert_memory_equal(r.text,
                        "\xe2\x82\xac"
                        "00000\n",
                        9);
    assert_string_equal(r.text + strlen(r.text) - 8, "\xe2\x82\xac"
                                                     "19999");
    assert_non_null(strstr(r.text, " of 179,999 bytes are left out here ...]"));
    assert_int_equal(r.n_full, text.size - 1); /* the last newline goes */
    assert_memory_equal(r.full, text.data, r.n_full);
    assert_int_equal(r.full_bytes, r.n_full);
    uint8_t digest[WEFT_DIGEST_BYTES];
    weft_sha256_of(r.full, r.n_full, digest);
    assert_memory_equal(digest, r.full_sha256, WEFT_DIGEST_BYTES);
    weft_tool_result_free(&r);
    /* whatever the cap, it is kept and no character is broken */
    for (int64_t cap = 512; cap < 530; cap++) {
        scene_set(&s, (weft_toolset_options){.output_bytes = cap}, "read_file");
        r = call_json(&s, "read_file", "{\"path\":\"long.txt\"}");
        assert_true((int64_t)strlen(r.text) <= cap);
        weft_tool_result_free(&r);
    }
    weft_buffer_free(&text);
}

static void invalid_bytes_are_replaced(void **state)
{
    put_file(s.workspace, "bad.txt", "a\xff\xc3z\n", 5);
    call_gives(&s, "read_file", "{\"path\":\"bad.txt\"}", false, "a\xef\xbf\xbd\xef\xbf\xbdz");
}

static void an_interrupted_call_says_so(void **state)
{
    weft_tool_result r;
    weft_error err;
    atomic_int cancel = 1;
    cJSON *arguments = NULL;
    assert_int_equal(weft_json_parse("{\"expression\":\"1\"}", 18, &arguments, NULL), WEFT_OK);
    assert_int_equal(weft_toolset_call(s.set, "calculator", arguments, &cancel, &r, &err),
                     WEFT_E_INTERRUPTED);
    cJSON_Delete(arguments);
}

static int begin(void **state)
{
    scene_open(&s, false);
    scene_set(&s, (weft_toolset_options){0}, "all");
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
        cmocka_unit_test_setup_teardown(unknown_tools_are_named, begin, end),
        cmocka_unit_test_setup_teardown(malformed_calls_are_refused_with_path_and_rule, begin, end),
        cmocka_unit_test_setup_teardown(refusals_read_well, begin, end),
        cmocka_unit_test_setup_teardown(the_calculator_needs_no_sandbox, begin, end),
        cmocka_unit_test_setup_teardown(long_results_lose_their_middle, begin, end),
        cmocka_unit_test_setup_teardown(invalid_bytes_are_replaced, begin, end),
        cmocka_unit_test_setup_teardown(an_interrupted_call_says_so, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
