/* Manifests: what is refused, and with which words; names, digests, directories. */
#include "tests/tools/tools_test.h"

static scene s;

static weft_status add(const char *manifest, weft_error *err)
{
    char path[128];
    put_text(s.dir, "t.json", manifest);
    path_in(s.dir, "t.json", path, sizeof path);
    return weft_toolset_add_manifest(s.set, path, err);
}

#define BEGIN "{\"name\":\"t\",\"description\":\"d\","
#define PARAMETERS "\"parameters\":{\"type\":\"object\"},"
#define COMMAND "\"command\":[\"cat\"]"
#define SANDBOX(x) BEGIN PARAMETERS COMMAND ",\"sandbox\":{" x "}}"
#define ALL(x) BEGIN PARAMETERS COMMAND "," x "}"

static void bad_manifests_say_key_and_rule(void **state)
{
    static const struct {
        const char *manifest, *words;
    } table[] = {
        {"", "JSON: the text ends"},
        {"{", "JSON:"},
        {"[]", "at /: an object is expected"},
        {"7", "at /: an object"},
        {"null", "at /: an object"},
        {"{\"name\":\"t\",\"name\":\"t\"}", "JSON: a key stands twice"},
        {"{}", "at /name: a name is expected"},
        {"{\"name\":7}", "at /name:"},
        {"{\"name\":\"\"}", "at /name:"},
        {"{\"name\":\"has blank\"}", "at /name:"},
        {"{\"name\":\"a/b\"}", "at /name:"},
        {"{\"name\":\"-x\"}", "at /name:"},
        {"{\"name\":\"n\xc3\xa9\"}", "at /name:"},
        {"{\"name\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}",
         "at /name:"},
        {"{\"name\":\"t\"}", "at /description: a text"},
        {"{\"name\":\"t\",\"description\":\"\"}", "at /description:"},
        {"{\"name\":\"t\",\"description\":[\"d\"]}", "at /description:"},
        {BEGIN COMMAND "}", "at /parameters: a JSON Schema"},
        {BEGIN COMMAND ",\"parameters\":true}", "at /parameters:"},
        {BEGIN COMMAND ",\"parameters\":{}}", "at /parameters:"},
        {BEGIN COMMAND ",\"parameters\":{\"type\":\"string\"}}", "at /parameters:"},
        {BEGIN COMMAND ",\"parameters\":{\"type\":\"object\",\"propertys\":{}}}",
         "at /parameters:"},
        {BEGIN COMMAND
         ",\"parameters\":{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"strnig\"}}}}",
         "at /parameters:"},
        {BEGIN COMMAND
         ",\"parameters\":{\"type\":\"object\",\"properties\":{\"a\":{\"pattern\":\"(\"}}}}",
         "at /parameters:"},
        {BEGIN PARAMETERS "\"command\":\"cat\"}", "at /command: an array"},
        {BEGIN PARAMETERS "\"idempotent\":true}", "at /command: an array"},
        {BEGIN PARAMETERS "\"command\":[]}", "at /command:"},
        {BEGIN PARAMETERS "\"command\":[1]}", "at /command/0:"},
        {BEGIN PARAMETERS "\"command\":[\"\"]}", "at /command/0:"},
        {BEGIN PARAMETERS "\"command\":[\"sh\",null]}", "at /command/1:"},
        {BEGIN PARAMETERS "\"command\":[\"./gone.sh\"]}",
         "at /command/0: no file ./gone.sh stands beside"},
        {BEGIN PARAMETERS "\"command\":[\"bin/gone\"]}", "at /command/0: no file"},
        {BEGIN PARAMETERS "\"command\":[\"sh\",\"./gone.sh\"]}", "at /command/1: no file"},
        {BEGIN PARAMETERS "\"command\":[\"./../../bin/sh\"]}", "at /command/0: no file"},
        {ALL("\"colour\":\"red\""), "at /colour: unknown key: known are name, description"},
        {ALL("\"Name\":\"x\""), "at /Name: unknown key"},
        {ALL("\"approval\":\"always\""), "at /approval: \"never\", \"ask\" or \"deny\""},
        {ALL("\"approval\":true"), "at /approval:"},
        {ALL("\"output\":\"xml\""), "at /output: \"text\" or \"json\""},
        {ALL("\"workspace\":\"rw\""), "at /workspace:"},
        {ALL("\"idempotent\":\"yes\""), "at /idempotent: true or false"},
        {ALL("\"idempotent\":1"), "at /idempotent:"},
        {ALL("\"sandbox\":[]"), "at /sandbox: an object"},
        {SANDBOX("\"cpu\":1"), "at /sandbox/cpu: unknown key: known are network"},
        {SANDBOX("\"network\":\"no\""), "at /sandbox/network: true or false"},
        {SANDBOX("\"seconds\":0"), "at /sandbox/seconds: a whole number from 1"},
        {SANDBOX("\"seconds\":1.5"), "at /sandbox/seconds:"},
        {SANDBOX("\"seconds\":\"10\""), "at /sandbox/seconds:"},
        {SANDBOX("\"seconds\":100000"), "at /sandbox/seconds:"},
        {SANDBOX("\"memory_mb\":-1"), "at /sandbox/memory_mb:"},
        {SANDBOX("\"memory_mb\":1e12"), "at /sandbox/memory_mb:"},
        {SANDBOX("\"processes\":0"), "at /sandbox/processes:"},
        {SANDBOX("\"output_kb\":true"), "at /sandbox/output_kb:"},
        {SANDBOX("\"read\":\"x\""), "at /sandbox/read: an array"},
        {SANDBOX("\"read\":[1]"), "at /sandbox/read/0: a path"},
        {SANDBOX("\"read\":[\"\"]"), "at /sandbox/read/0: a path"},
        {SANDBOX("\"read\":[\"gone/\"]"), "at /sandbox/read/0: no gone/ stands beside"},
        {SANDBOX("\"read\":[\"../\"]"), "at /sandbox/read/0:"},
        {SANDBOX("\"read\":[\"/no/such/place\"]"),
         "at /sandbox/read/0: /no/such/place does not exist"},
        {SANDBOX("\"read\":[\"/\"]"), "at /sandbox/read/0: / cannot"},
        {SANDBOX("\"read\":[\"/proc\"]"), "at /sandbox/read/0: /proc cannot"},
        {SANDBOX("\"read\":[\"/dev/null\"]"), "at /sandbox/read/0:"},
        {SANDBOX("\"read\":[\"/usr/../etc/passwd\"]"), "at /sandbox/read/0:"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        weft_error err;
        weft_status status = add(table[i].manifest, &err);
        if (status != WEFT_E_CONFIG || err.code != WEFT_E_CONFIG)
            fail_msg("%s: status %d", table[i].manifest, (int)status);
        if (!strstr(err.message, table[i].words))
            fail_msg("%s: \"%s\", without \"%s\"", table[i].manifest, err.message, table[i].words);
        if (!strstr(err.message, "t.json"))
            fail_msg("%s: the path is missing: %s", table[i].manifest, err.message);
        assert_int_equal(weft_toolset_count(s.set), 0);
    }
    weft_error err;
    assert_int_equal(weft_toolset_add_manifest(s.set, "/no/such/file.json", &err), WEFT_E_CONFIG);
}

static void a_good_manifest_is_read(void **state)
{
    char path[512];
    weft_error err;
    assert_int_equal(
        weft_toolset_add_manifest(
            s.set, test_data("tools/commands/word_count.json", path, sizeof path), &err),
        WEFT_OK);
    const weft_tool_info *info = weft_toolset_find(s.set, "word_count");
    assert_non_null(info);
    assert_ptr_equal(info, weft_toolset_info(s.set, 0));
    assert_string_equal(info->description, "Counts words in a text.");
    assert_string_equal(info->approval, "never");
    assert_string_equal(info->origin, path);
    assert_true(info->idempotent);
    assert_non_null(info->schema);
    /* what a manifest leaves out */
    assert_int_equal(add("{\"name\":\"plain\",\"description\":\"d\"," PARAMETERS COMMAND "}", &err),
                     WEFT_OK);
    info = weft_toolset_find(s.set, "plain");
    assert_false(info->idempotent);
    assert_string_equal(info->approval, "never");
}

static void digests_follow_the_meaning(void **state)
{
    weft_error err;
    uint8_t first[WEFT_DIGEST_BYTES];
    assert_int_equal(add(ALL("\"idempotent\":true"), &err), WEFT_OK);
    memcpy(first, weft_toolset_info(s.set, 0)->digest, sizeof first);
    /* the same with other blanks and order is the same tool, and no second one */
    assert_int_equal(add("{ \"idempotent\": true, " COMMAND ", " PARAMETERS
                         " \"description\":\"d\", \"name\":\"t\" }",
                         &err),
                     WEFT_OK);
    assert_int_equal(weft_toolset_count(s.set), 1);
    assert_memory_equal(first, weft_toolset_info(s.set, 0)->digest, sizeof first);
    assert_int_equal(add(ALL("\"idempotent\":false"), &err), WEFT_E_CONFIG);
    assert_non_null(strstr(err.message, "at /name: a tool named t was added before"));
    /* fractions count, though canonical JSON has none */
    static const char *const bounds[] = {"0.5", "0.25", "5e-1"};
    uint8_t digest[3][WEFT_DIGEST_BYTES];
    for (size_t i = 0; i < 3; i++) {
        char text[256];
        scene_set(&s, (weft_toolset_options){0}, NULL);
        snprintf(text, sizeof text,
                 BEGIN COMMAND
                 ",\"parameters\":{\"type\":\"object\",\"properties\":{\"x\":{\"minimum\":%s}}}}",
                 bounds[i]);
        if (add(text, &err)) fail_msg("%s", err.message);
        memcpy(digest[i], weft_toolset_info(s.set, 0)->digest, WEFT_DIGEST_BYTES);
    }
    assert_memory_not_equal(digest[0], digest[1], WEFT_DIGEST_BYTES);
    assert_memory_equal(digest[0], digest[2], WEFT_DIGEST_BYTES);
}

static void directories_in_name_order(void **state)
{
    char dir[128], other[128];
    weft_error err;
    path_in(s.dir, "tools", dir, sizeof dir);
    path_in(s.dir, "none", other, sizeof other);
    assert_int_equal(mkdir(dir, 0755), 0);
    put_text(dir, "b.json", "{\"name\":\"first\",\"description\":\"d\"," PARAMETERS COMMAND "}");
    put_text(dir, "a.json", "{\"name\":\"second\",\"description\":\"d\"," PARAMETERS COMMAND "}");
    put_text(dir, "readme.txt", "no manifest");
    put_text(dir, ".hidden.json", "no manifest either");
    assert_int_equal(weft_toolset_add_directory(s.set, other, &err), WEFT_OK);
    assert_int_equal(weft_toolset_count(s.set), 0);
    assert_int_equal(weft_toolset_add_directory(s.set, dir, &err), WEFT_OK);
    assert_int_equal(weft_toolset_count(s.set), 2);
    assert_string_equal(weft_toolset_info(s.set, 0)->name, "second");
    assert_string_equal(weft_toolset_info(s.set, 1)->name, "first");
    put_text(dir, "c.json", "{");
    assert_int_equal(weft_toolset_add_directory(s.set, dir, &err), WEFT_E_CONFIG);
    assert_non_null(strstr(err.message, "c.json"));
}

static void built_ins(void **state)
{
    static const char *const names[] = {"calculator", "code_run",   "web_search", "web_fetch",
                                        "read_file",  "write_file", "list_files"};
    weft_error err;
    assert_int_equal(weft_toolset_add_builtin(s.set, "calculater", &err), WEFT_E_USAGE);
    for (size_t i = 0; i < 7; i++) assert_non_null(strstr(err.message, names[i]));
    assert_int_equal(weft_toolset_add_builtin(s.set, "read_file", &err), WEFT_OK);
    assert_int_equal(weft_toolset_add_builtin(s.set, "all", &err),
                     WEFT_OK); /* read_file is there already */
    assert_int_equal(weft_toolset_count(s.set), 7);
    cJSON *list = weft_toolset_definitions(s.set);
    assert_int_equal(cJSON_GetArraySize(list), 7);
    const cJSON *entry;
    cJSON_ArrayForEach(entry, list)
    {
        const cJSON *function = cJSON_GetObjectItemCaseSensitive(entry, "function");
        assert_string_equal(weft_json_string(entry, "type"), "function");
        assert_non_null(weft_toolset_find(s.set, weft_json_string(function, "name")));
        assert_true(strlen(weft_json_string(function, "description")) > 10);
        assert_true(cJSON_IsObject(cJSON_GetObjectItemCaseSensitive(function, "parameters")));
    }
    cJSON_Delete(list);
    for (size_t i = 0; i < 7; i++)
        assert_string_equal(weft_toolset_find(s.set, names[i])->origin, "built-in");
    assert_false(weft_toolset_find(s.set, "code_run")->idempotent);
    assert_true(weft_toolset_find(s.set, "calculator")->idempotent);
}

static int begin(void **state)
{
    scene_open(&s, false);
    scene_set(&s, (weft_toolset_options){0}, NULL);
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
        cmocka_unit_test_setup_teardown(bad_manifests_say_key_and_rule, begin, end),
        cmocka_unit_test_setup_teardown(a_good_manifest_is_read, begin, end),
        cmocka_unit_test_setup_teardown(digests_follow_the_meaning, begin, end),
        cmocka_unit_test_setup_teardown(directories_in_name_order, begin, end),
        cmocka_unit_test_setup_teardown(built_ins, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
