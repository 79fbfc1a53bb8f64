/* code_run in the real sandbox: results as a model reads them, limits, files, what the program
 * cannot do. */
#include "tests/tools/tools_test.h"

#include <pthread.h>

static scene s;

static void code_gives(const char *language, const char *code, bool error, const char *text)
{
    cJSON *arguments = cJSON_CreateObject();
    weft_buffer json = WEFT_BUFFER_INIT;
    cJSON_AddStringToObject(arguments, "language", language);
    cJSON_AddStringToObject(arguments, "code", code);
    weft_json_compact(arguments, &json);
    call_gives(&s, "code_run", weft_buffer_str(&json), error, text);
    weft_buffer_free(&json);
    cJSON_Delete(arguments);
}

static weft_tool_result run_code(const char *language, const char *code)
{
    cJSON *arguments = cJSON_CreateObject();
    weft_buffer json = WEFT_BUFFER_INIT;
    cJSON_AddStringToObject(arguments, "language", language);
    cJSON_AddStringToObject(arguments, "code", code);
    weft_json_compact(arguments, &json);
    weft_tool_result r = call_json(&s, "code_run", weft_buffer_str(&json));
    weft_buffer_free(&json);
    cJSON_Delete(arguments);
    return r;
}

static void code_holds(const char *language, const char *code, bool error, const char *part)
{
    weft_tool_result r = run_code(language, code);
    if (r.error != error || !strstr(r.text, part))
        fail_msg("%s\n-> %s%s\nwithout: %s", code, r.error ? "(error) " : "", r.text, part);
    weft_tool_result_free(&r);
}

static void three_languages(void **state)
{
    code_gives("python", "print(6 * 7)", false, "42");
    code_gives("python", "import sys\nprint(sys.version_info[0], __name__)", false, "3 __main__");
    code_gives("c",
               "#include <stdio.h>\n#include <math.h>\nint main(void) { printf(\"%.3f\\n\", "
               "sqrt(2)); return 0; }",
               false, "1.414");
    code_gives("shell", "for i in 1 2 3; do echo $((i * i)); done", false, "1\n4\n9");
    code_gives("python", "pass", false, "[no output, exit status 0: print what you want to see]");
    call_gives(&s, "code_run",
               "{\"language\":\"python\",\"code\":\"print(input()[::-1])\",\"stdin\":\"abc\\n\"}",
               false, "cba");
    call_gives(&s, "code_run",
               "{\"language\":\"c\",\"code\":\"#include <stdio.h>\\nint main(void){int "
               "c=getchar();printf(\\\"%c\\\",c);}\",\"stdin\":\"z\"}",
               false, "z");
}

static void failures_show_what_a_model_needs(void **state)
{
    code_gives("python", "print('before')\nx = 1 / 0", true,
               "error: exit status 1\nstdout:\nbefore\nstderr:\nTraceback (most recent call "
               "last):\n  File \"/code/main.py\", line 2, in "
               "<module>\n    x = 1 / 0\n        ~~^~~\nZeroDivisionError: division by zero");
    code_holds("python", "def f(:\n  pass", true, "SyntaxError");
    code_gives("python", "import sys; sys.exit(3)", true, "error: exit status 3");
    code_holds("c", "int main(void) { return undeclared; }", true, "main.c:1:25: error: ");
    code_holds("c", "int main(void) { int *p = 0; return *p; }", true,
               "it was ended by signal 11 (Segmentation fault)");
    code_gives("shell", "echo out; echo err >&2", false, "stdout:\nout\nstderr:\nerr");
    code_holds("shell", "exit 7", true, "exit status 7");
}

static void the_workspace_lasts(void **state)
{
    code_gives("python", "open('a.txt', 'w').write('hello')\nprint('done')", false,
               "done\nfiles written: a.txt (5 bytes)");
    code_gives("shell", "cat a.txt", false, "hello");
    code_gives("shell", "cat a.txt; printf ' world' >> a.txt; mkdir -p d; echo 1 > d/b", false,
               "hello\nfiles written: a.txt (11 bytes), d/b (2 bytes)");
    call_gives(&s, "read_file", "{\"path\":\"a.txt\"}", false, "hello world");
    call_gives(&s, "write_file",
               "{\"path\":\"helper.py\",\"content\":\"def double(x):\\n    return 2 * x\\n\"}",
               false, "wrote helper.py: 32 bytes");
    weft_tool_result r = run_code(
        "python", "import helper\nprint(helper.double(21))"); /* own modules can be imported */
    assert_memory_equal(r.text, "42", 2);
    weft_tool_result_free(&r);
    /* but none takes the place of the library's */
    call_gives(&s, "write_file",
               "{\"path\":\"random.py\",\"content\":\"raise SystemExit('shadowed')\\n\"}", false,
               "wrote random.py: 29 bytes");
    code_gives("python", "import random\nprint(random.Random(1).random() < 1)", false, "True");
    /* what we write, a program can change, and what it writes, we can read */
    code_gives("shell", "echo more >> helper.py && tail -1 helper.py", false,
               "more\nfiles written: helper.py (37 bytes)");
    code_gives("shell", "touch -d 2001-01-01 d/b", false, "files written: d/b (2 bytes)");
    /* many files are counted, not listed */
    code_holds("shell", "for i in $(seq 100 150); do echo $i > f$i; done", false, " and 31 more");
}

static void facts_are_for_the_trace(void **state)
{
    weft_tool_result r = run_code(
        "python", "import sys\nprint('x')\nprint('y', file=sys.stderr)\nopen('f', 'w').write('z')");
    assert_false(r.error);
    assert_string_equal(r.stderr_text, "y");
    assert_int_equal(weft_json_int(r.facts, "exit", -1), 0);
    assert_true(weft_json_int(r.facts, "wall_ns", 0) > 0);
    assert_true(weft_json_int(r.facts, "cpu_ns", 0) > 0);
    assert_true(weft_json_int(r.facts, "peak_bytes", 0) > 0);
    assert_int_equal(weft_json_int(r.facts, "stdout_bytes", -1), 2);
    assert_true(cJSON_IsObject(cJSON_GetObjectItemCaseSensitive(r.facts, "layers")));
    assert_true(cJSON_IsArray(cJSON_GetObjectItemCaseSensitive(r.facts, "denials")));
    const cJSON *files = cJSON_GetObjectItemCaseSensitive(r.facts, "files");
    assert_int_equal(cJSON_GetArraySize(files), 1);
    assert_string_equal(weft_json_string(files->child, "name"), "f");
    weft_buffer text = WEFT_BUFFER_INIT; /* they must have a canonical form */
    assert_int_equal(weft_json_canonical(r.facts, &text, NULL), WEFT_OK);
    weft_buffer_free(&text);
    weft_tool_result_free(&r);
}

static void limits_say_which(void **state)
{
    scene_set(&s, (weft_toolset_options){.seconds = 2}, "all");
    weft_tool_result r = run_code("python", "print('begun')\nwhile True: pass");
    assert_true(r.error);
    assert_memory_equal(r.text, "error: the time limit of 2 s was reached\nstdout:\nbegun", 54);
    weft_tool_result_free(&r);
    scene_set(&s, (weft_toolset_options){0}, "all");
    r = run_code("python", "x = bytearray(3 << 30)");
    assert_true(r.error); /* MemoryError or the limit, whichever is first */
    weft_tool_result_free(&r);
    r = run_code("shell", "yes 0123456789 | head -c 5000000");
    assert_false(r.error);
    assert_true(strlen(r.text) <= 16 << 10);
    assert_non_null(strstr(r.text, "bytes are left out here"));
    assert_true(r.n_full > 1 << 20);
    assert_int_equal(weft_json_int(r.facts, "stdout_bytes", 0), 5000000);
    weft_tool_result_free(&r);
}

static void any_bytes_become_text(void **state)
{
    code_gives("python", "import sys\nsys.stdout.buffer.write(b'a\\0b\\xffc\\n')", false,
               "a\xef\xbf\xbd"
               "b\xef\xbf\xbd"
               "c");
    code_gives("shell", "printf '\\033[31mred'", false,
               "\x1b[31mred"); /* terminals are protected where they are written to */
}

static void nothing_outside_is_reached(void **state)
{
    put_text(s.dir, "secret.txt", "the secret");
    code_holds("shell", "cat /etc/shadow /root/.bashrc", true, "No such file");
    code_holds("shell", "echo x > /usr/x", true, "exit status");
    code_holds("shell", "echo x > /code/main.sh", true, "exit status");
    code_holds("python", "import socket\nsocket.create_connection(('127.0.0.1', 1), 2)", true,
               "Error");
    weft_buffer code = WEFT_BUFFER_INIT;
    weft_buffer_printf(&code, "ls %s; cat %s/secret.txt ../secret.txt", s.dir, s.dir);
    weft_tool_result r = run_code("shell", code.data);
    assert_true(r.error);
    assert_null(strstr(r.text, "the secret"));
    weft_tool_result_free(&r);
    weft_buffer_free(&code);
    /* links that it leaves lead nowhere for us */
    call_gives(&s, "write_file", "{\"path\":\"a.txt\",\"content\":\"a\"}", false,
               "wrote a.txt: 1 bytes");
    code_holds("shell", "ln -s /etc/passwd link; ln -s .. up; ln a.txt hard", false, "");
    call_holds(&s, "read_file", "{\"path\":\"link\"}", true, "symbolic link");
    call_holds(&s, "list_files", "{\"path\":\"up\"}", true, "symbolic link");
    call_holds(&s, "read_file", "{\"path\":\"hard\"}", true, "second name");
}

static atomic_int cancel;

static void *cancel_soon(void *context)
{
    usleep(300000);
    cancel = 1;
    return NULL;
}

static void interruption_ends_it(void **state)
{
    weft_tool_result r;
    weft_error err;
    pthread_t thread;
    cJSON *arguments = cJSON_CreateObject();
    cJSON_AddStringToObject(arguments, "language", "shell");
    cJSON_AddStringToObject(arguments, "code", "sleep 100");
    assert_int_equal(pthread_create(&thread, NULL, cancel_soon, NULL), 0);
    assert_int_equal(weft_toolset_call(s.set, "code_run", arguments, &cancel, &r, &err),
                     WEFT_E_INTERRUPTED);
    pthread_join(thread, NULL);
    cJSON_Delete(arguments);
}

typedef struct parallel_call {
    pthread_t thread;
    int number;
    char text[32];
} parallel_call;

static void *call_one(void *context)
{
    parallel_call *p = context;
    char json[128];
    snprintf(json, sizeof json, "{\"language\":\"python\",\"code\":\"print(%d * 1000)\"}",
             p->number);
    weft_tool_result r = call_json(&s, "code_run", json);
    snprintf(p->text, sizeof p->text, "%s", r.text);
    weft_tool_result_free(&r);
    return NULL;
}

static void calls_run_side_by_side(void **state)
{
    parallel_call calls[8];
    for (int i = 0; i < 8; i++) {
        calls[i].number = i + 1;
        assert_int_equal(pthread_create(&calls[i].thread, NULL, call_one, &calls[i]), 0);
    }
    for (int i = 0; i < 8; i++) {
        char expected[32];
        pthread_join(calls[i].thread, NULL);
        snprintf(expected, sizeof expected, "%d", (i + 1) * 1000);
        assert_string_equal(calls[i].text, expected);
    }
}

static int begin(void **state)
{
    scene_open(&s, true);
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
        cmocka_unit_test_setup_teardown(three_languages, begin, end),
        cmocka_unit_test_setup_teardown(failures_show_what_a_model_needs, begin, end),
        cmocka_unit_test_setup_teardown(the_workspace_lasts, begin, end),
        cmocka_unit_test_setup_teardown(facts_are_for_the_trace, begin, end),
        cmocka_unit_test_setup_teardown(limits_say_which, begin, end),
        cmocka_unit_test_setup_teardown(any_bytes_become_text, begin, end),
        cmocka_unit_test_setup_teardown(nothing_outside_is_reached, begin, end),
        cmocka_unit_test_setup_teardown(interruption_ends_it, begin, end),
        cmocka_unit_test_setup_teardown(calls_run_side_by_side, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
