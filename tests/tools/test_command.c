/* Tools given by a manifest, run in the real sandbox: how arguments arrive and results come back.
 */
#include "tests/tools/tools_test.h"

static scene s;

static void add_data(const char *name)
{
    char path[512];
    weft_error err;
    if (weft_toolset_add_manifest(s.set, test_data(name, path, sizeof path), &err))
        fail_msg("%s", err.message);
}

/* A manifest in the scene's own folder. */
static void add_own(const char *manifest)
{
    char dir[128], path[160];
    weft_error err;
    path_in(s.dir, "own", dir, sizeof dir);
    assert_int_equal(weft_mkdirs(dir, &err), WEFT_OK);
    assert_int_equal(chmod(dir, 0755), 0);
    put_text(dir, "own.json", manifest);
    path_in(dir, "own.json", path, sizeof path);
    if (weft_toolset_add_manifest(s.set, path, &err)) fail_msg("%s", err.message);
}

static void the_example_of_the_manual(void **state)
{
    add_data("tools/commands/word_count.json");
    call_gives(&s, "word_count", "{\"text\":\"one two  three\"}", false, "3");
    call_gives(&s, "word_count", "{\"text\":\"\"}", false, "0");
    call_holds(&s, "word_count", "{\"txt\":\"x\"}", true, "It takes text (string)");
}

static void results_and_failures(void **state)
{
    add_data("tools/commands/probe.json");
    call_gives(&s, "probe", "{\"action\":\"echo\",\"more\":[1, 2.50, null]}", false,
               "{\"action\":\"echo\",\"more\":[1,2.50,null]}");
    call_gives(&s, "probe", "{\"action\":\"data\"}", false, "forty-two");
    call_gives(&s, "probe", "{\"action\":\"empty\"}", false, "");
    call_gives(&s, "probe", "{\"action\":\"json\"}", false,
               "{ \"b\" : [1, 2.50],\n \"a\" : \"x\" }");
    call_gives(&s, "probe", "{\"action\":\"bytes\"}", false,
               "a\xef\xbf\xbd"
               "b\xef\xbf\xbd"
               "c");
    /* the last ten lines of standard error, and what was written until then */
    call_gives(&s, "probe", "{\"action\":\"fail\"}", true,
               "error: probe failed: exit status 3\nreason 3\nreason 4\nreason 5\nreason 6\nreason "
               "7\nreason 8\nreason 9\nreason 10\n"
               "reason 11\nreason 12\noutput until then:\nhalf of the output");
    call_gives(&s, "probe", "{\"action\":\"silent\"}", true, "error: probe failed: exit status 4");
    call_holds(&s, "probe", "{\"action\":\"signal\"}", true,
               "error: probe failed: it was ended by signal 11");
    weft_tool_result r = call_json(&s, "probe", "{\"action\":\"stderr\"}");
    assert_string_equal(r.text, "out"); /* standard error goes to the trace */
    assert_string_equal(r.stderr_text, "err");
    weft_tool_result_free(&r);
    r = call_json(&s, "probe", "{\"action\":\"flood\"}");
    assert_true(strlen(r.text) <= 16 << 10);
    assert_int_equal(r.n_full, 3000000);
    assert_int_equal(r.full_bytes, r.n_full);
    weft_tool_result_free(&r);
}

static void where_it_runs(void **state)
{
    add_data("tools/commands/probe.json");
    call_holds(&s, "probe", "{\"action\":\"where\"}", false, "/work\n");
    call_gives(&s, "probe", "{\"action\":\"write\"}", false, "kept");
    char path[512];
    path_in(s.workspace, "kept.txt", path, sizeof path);
    assert_true(weft_file_exists(path));
    call_holds(&s, "probe", "{\"action\":\"writetool\"}", true, "Read-only file system");
    call_holds(&s, "probe", "{\"action\":\"net\"}", true, "exit status");
    setenv("WEFT_SECRET_KEY", "do not leak", 1);
    weft_tool_result r = call_json(&s, "probe", "{\"action\":\"environment\"}");
    assert_null(strstr(r.text, "do not leak"));
    weft_tool_result_free(&r);
    unsetenv("WEFT_SECRET_KEY");
}

#define OWN(rest)                                                                                  \
    "{\"name\":\"own\",\"description\":\"d\",\"parameters\":{\"type\":\"object\"}," rest "}"

static void json_output_is_made_compact(void **state)
{
    add_own(OWN(
        "\"command\":[\"sh\",\"-c\",\"echo '{ \\\"b\\\" : [1, 2.50] }'\"],\"output\":\"json\""));
    call_gives(&s, "own", "{}", false, "{\"b\":[1,2.50]}");
    scene_set(&s, (weft_toolset_options){0}, NULL);
    add_own(OWN("\"command\":[\"echo\",\"no json\"],\"output\":\"json\""));
    call_gives(&s, "own", "{}", false, "no json");
}

static void workspace_read_and_none(void **state)
{
    put_text(s.workspace, "seen.txt", "seen");
    add_own(OWN(
        "\"command\":[\"sh\",\"-c\",\"cat seen.txt; echo x > new.txt\"],\"workspace\":\"read\""));
    call_holds(&s, "own", "{}", true, "Read-only file system");
    scene_set(&s, (weft_toolset_options){0}, NULL);
    add_own(OWN("\"command\":[\"sh\",\"-c\",\"ls -A | wc -l; echo x > new.txt; "
                "pwd\"],\"workspace\":\"none\""));
    call_gives(&s, "own", "{}", false, "0\n/work");
    char path[512];
    path_in(s.workspace, "new.txt", path, sizeof path);
    assert_false(weft_file_exists(path));
}

static void read_adds_paths(void **state)
{
    char outside[128], manifest[512];
    weft_error err;
    path_in(s.dir, "elsewhere", outside, sizeof outside);
    assert_int_equal(weft_mkdirs(outside, &err), WEFT_OK);
    assert_int_equal(chmod(outside, 0755), 0);
    put_text(outside, "data.txt", "from elsewhere");
    /* /tmp is the tool's own inside, so a path below it cannot be shown */
    snprintf(manifest, sizeof manifest,
             OWN("\"command\":[\"cat\",\"%s/data.txt\"],\"sandbox\":{\"read\":[\"%s\"]}"), outside,
             outside);
    char dir[128], path[160];
    path_in(s.dir, "own", dir, sizeof dir);
    assert_int_equal(weft_mkdirs(dir, &err), WEFT_OK);
    put_text(dir, "own.json", manifest);
    path_in(dir, "own.json", path, sizeof path);
    assert_int_equal(weft_toolset_add_manifest(s.set, path, &err), WEFT_E_CONFIG);
    assert_non_null(strstr(err.message, "the sandbox has its own there"));
    add_own(OWN("\"command\":[\"sh\",\"-c\",\"ls -d "
                "/opt\"],\"sandbox\":{\"read\":[\"/opt\",\"/usr/share\"]}"));
    call_gives(&s, "own", "{}", false, "/opt");
}

static void limits_and_absent_programs(void **state)
{
    add_own(
        OWN("\"command\":[\"sh\",\"-c\",\"echo begun; sleep 100\"],\"sandbox\":{\"seconds\":1}"));
    call_gives(&s, "own", "{}", true,
               "error: own failed: the time limit of 1 s was reached\noutput until then:\nbegun");
    scene_set(&s, (weft_toolset_options){0}, NULL);
    add_own(OWN("\"command\":[\"no-such-program-at-all\"]"));
    call_holds(&s, "own", "{}", true, "no-such-program-at-all");
}

static int begin(void **state)
{
    scene_open(&s, true);
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
        cmocka_unit_test_setup_teardown(the_example_of_the_manual, begin, end),
        cmocka_unit_test_setup_teardown(results_and_failures, begin, end),
        cmocka_unit_test_setup_teardown(where_it_runs, begin, end),
        cmocka_unit_test_setup_teardown(json_output_is_made_compact, begin, end),
        cmocka_unit_test_setup_teardown(workspace_read_and_none, begin, end),
        cmocka_unit_test_setup_teardown(read_adds_paths, begin, end),
        cmocka_unit_test_setup_teardown(limits_and_absent_programs, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
