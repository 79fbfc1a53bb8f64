/* The file tools against a hostile workspace. Each attack has a secret outside that must not be
 * read, and a file outside that must not change. */
#include "tests/tools/tools_test.h"

#include <fcntl.h>

static scene s;

static void put_link(const char *target, const char *name)
{
    char path[512];
    path_in(s.workspace, name, path, sizeof path);
    assert_int_equal(symlink(target, path), 0);
}

static void assert_outside_untouched(void)
{
    weft_buffer text = WEFT_BUFFER_INIT;
    char path[512];
    path_in(s.dir, "secret.txt", path, sizeof path);
    assert_int_equal(weft_file_read(path, 100, &text, NULL), WEFT_OK);
    assert_string_equal(text.data, "the secret");
    weft_buffer_free(&text);
    path_in(s.dir, "new.txt", path, sizeof path);
    assert_false(weft_file_exists(path));
}

static void files_are_read_and_written(void **state)
{
    call_gives(&s, "write_file", "{\"path\":\"a/b/c.txt\",\"content\":\"one\\ntwo\\nthree\\n\"}",
               false, "wrote a/b/c.txt: 14 bytes");
    call_gives(&s, "read_file", "{\"path\":\"a/b/c.txt\"}", false, "one\ntwo\nthree");
    call_gives(&s, "read_file", "{\"path\":\"/work/a/b/c.txt\"}", false, "one\ntwo\nthree");
    call_gives(&s, "read_file", "{\"path\":\"./a/../a/b/c.txt\"}", false, "one\ntwo\nthree");
    call_gives(&s, "read_file", "{\"path\":\"a/b/c.txt\",\"first_line\":2,\"max_lines\":1}", false,
               "two\n[1 more lines: read on with first_line 3]");
    call_gives(&s, "read_file", "{\"path\":\"a/b/c.txt\",\"first_line\":9}", false,
               "[the file has 3 lines]");
    call_gives(&s, "write_file", "{\"path\":\"a/b/c.txt\",\"content\":\"\"}", false,
               "replaced a/b/c.txt: 0 bytes");
    call_gives(&s, "read_file", "{\"path\":\"a/b/c.txt\"}", false, "[the file is empty]");
    call_gives(&s, "write_file", "{\"path\":\"z.txt\",\"content\":\"h\\u00e9\"}", false,
               "wrote z.txt: 3 bytes");
    call_gives(&s, "list_files", "{}", false, "a/\na/b/\na/b/c.txt  0 bytes\nz.txt  3 bytes");
    call_gives(&s, "list_files", "{\"path\":\"a\"}", false, "b/\nb/c.txt  0 bytes");
    call_gives(&s, "list_files", "{\"path\":\"/work\"}", false,
               "a/\na/b/\na/b/c.txt  0 bytes\nz.txt  3 bytes");
    struct stat st;
    char path[512];
    path_in(s.workspace, "a/b/c.txt", path, sizeof path);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_uid,
                     weft_sandbox_uid()); /* so that programs of the sandbox can change it */
}

static void paths_stay_in_the_workspace(void **state)
{
    static const char *const out[] = {"../secret.txt",
                                      "/etc/passwd",
                                      "a/../../secret.txt",
                                      "../work/../secret.txt",
                                      "//etc/passwd",
                                      "/work/../secret.txt",
                                      "..",
                                      "./../secret.txt",
                                      "/",
                                      "/proc/self/root/etc/passwd"};
    char inside[512];
    path_in(s.workspace, "a", inside, sizeof inside);
    assert_int_equal(mkdir(inside, 0755), 0);
    for (size_t i = 0; i < sizeof out / sizeof *out; i++) {
        char json[256];
        snprintf(json, sizeof json, "{\"path\":\"%s\"}", out[i]);
        call_holds(&s, "read_file", json, true, "error: ");
        call_holds(&s, "list_files", json, true, "error: ");
        snprintf(json, sizeof json, "{\"path\":\"%s\",\"content\":\"changed\"}", out[i]);
        call_holds(&s, "write_file", json, true, "error: ");
        snprintf(json, sizeof json, "{\"path\":\"%s/new.txt\",\"content\":\"new\"}", out[i]);
        call_holds(&s, "write_file", json, true, "error: ");
    }
    call_holds(&s, "read_file", "{\"path\":\"../secret.txt\"}", true,
               "the path leaves the workspace");
    assert_outside_untouched();
}

static void links_are_not_followed(void **state)
{
    char secret[512];
    path_in(s.dir, "secret.txt", secret, sizeof secret);
    put_link(secret, "absolute");
    put_link("../secret.txt", "relative");
    put_link("..", "up");
    put_link("up", "chain");
    put_link("nowhere", "dangling");
    put_link("/proc/self/root", "magic");
    put_text(s.workspace, "real.txt", "real");
    put_link("real.txt", "inside");
    static const char *const paths[] = {
        "absolute", "relative",         "up/secret.txt", "chain/secret.txt",
        "dangling", "magic/etc/passwd", "inside"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        char json[256];
        snprintf(json, sizeof json, "{\"path\":\"%s\"}", paths[i]);
        call_holds(&s, "read_file", json, true, "a symbolic link is on the way");
        snprintf(json, sizeof json, "{\"path\":\"%s\",\"content\":\"changed\"}", paths[i]);
        call_holds(&s, "write_file", json, true, "symbolic link");
    }
    call_holds(&s, "write_file", "{\"path\":\"up/new.txt\",\"content\":\"new\"}", true,
               "symbolic link");
    call_holds(&s, "list_files", "{\"path\":\"up\"}", true, "symbolic link");
    call_holds(&s, "list_files", "{}", false, "up  symbolic link");
    call_gives(&s, "read_file", "{\"path\":\"real.txt\"}", false, "real");
    assert_outside_untouched();
}

static void second_names_are_refused(void **state)
{
    char secret[512], path[512];
    path_in(s.dir, "secret.txt", secret, sizeof secret);
    path_in(s.workspace, "hard", path, sizeof path);
    assert_int_equal(link(secret, path), 0);
    call_holds(&s, "read_file", "{\"path\":\"hard\"}", true, "second name (a hard link)");
    call_holds(&s, "write_file", "{\"path\":\"hard\",\"content\":\"changed\"}", true,
               "second name (a hard link)");
    assert_outside_untouched();
}

static void only_regular_files(void **state)
{
    char path[512];
    path_in(s.workspace, "pipe", path, sizeof path);
    assert_int_equal(mkfifo(path, 0666), 0);
    path_in(s.workspace, "folder", path, sizeof path);
    assert_int_equal(mkdir(path, 0755), 0);
    call_holds(&s, "read_file", "{\"path\":\"pipe\"}", true,
               "no regular file"); /* and does not wait for a writer */
    call_holds(&s, "write_file", "{\"path\":\"pipe\",\"content\":\"x\"}", true, "no regular file");
    call_holds(&s, "read_file", "{\"path\":\"folder\"}", true, "this is a folder");
    call_holds(&s, "write_file", "{\"path\":\"folder\",\"content\":\"x\"}", true,
               "this is a folder");
    call_holds(&s, "write_file", "{\"path\":\"folder/\",\"content\":\"x\"}", true,
               "must end in a file name");
    call_holds(&s, "read_file", "{\"path\":\"none.txt\"}", true, "no such file");
    put_text(s.workspace, "file", "x");
    call_holds(&s, "read_file", "{\"path\":\"file/below\"}", true, "no folder");
    call_holds(&s, "write_file", "{\"path\":\"file/below\",\"content\":\"x\"}", true, "no folder");
    call_holds(&s, "list_files", "{\"path\":\"file\"}", true, "no folder");
    put_file(s.workspace, "binary", "a\0b", 3);
    call_holds(&s, "read_file", "{\"path\":\"binary\"}", true, "3 bytes that are no text");
    path_in(s.workspace, "huge", path, sizeof path);
    int fd = open(path, O_WRONLY | O_CREAT, 0644);
    assert_true(fd >= 0 && ftruncate(fd, (17 << 20)) == 0);
    close(fd);
    call_holds(&s, "read_file", "{\"path\":\"huge\"}", true, "more than the 16777216");
}

/* A name is shown escaped, and neither depth nor number of entries runs away. */
static void listings_are_bounded_and_escaped(void **state)
{
    put_text(s.workspace, "a\x1b[31mb\n\xff", "x");
    call_holds(&s, "list_files", "{}", false, "a\\x1b[31mb\\x0a\xef\xbf\xbd  1 bytes");
    char path[4000];
    path_in(s.workspace, "d", path, sizeof path);
    for (int i = 0; i < 60; i++) {
        assert_int_equal(mkdir(path, 0755), 0);
        strcat(path, "/d");
    }
    weft_tool_result deep = call_json(&s, "list_files", "{}");
    assert_non_null(strstr(deep.text, "[... and more: list one folder of it]"));
    size_t lines = 0;
    for (const char *p = deep.text; (p = strchr(p, '\n')); p++) lines++;
    assert_int_equal(lines, 33); /* the file, 32 folders, the last line */
    weft_tool_result_free(&deep);
    for (int i = 0; i < 1200; i++) {
        char name[32];
        snprintf(name, sizeof name, "f%04d", i);
        path_in(s.workspace, name, path, sizeof path);
        int fd = open(path, O_WRONLY | O_CREAT, 0644);
        assert_true(fd >= 0);
        close(fd);
    }
    weft_tool_result r = call_json(&s, "list_files", "{}");
    const char *whole = r.full ? r.full : r.text;
    assert_null(strstr(whole, "f1199"));
    assert_non_null(strstr(whole, "and more"));
    weft_tool_result_free(&r);
}

static void without_a_workspace(void **state)
{
    weft_toolset *bare;
    weft_error err;
    weft_toolset_options none = {0};
    assert_int_equal(weft_toolset_new(&bare, &none, &err), WEFT_OK);
    assert_int_equal(weft_toolset_add_builtin(bare, "all", &err), WEFT_OK);
    scene alone = {.set = bare};
    call_gives(&alone, "read_file", "{\"path\":\"a\"}", true, "error: there is no workspace here");
    call_gives(&alone, "list_files", "{}", true, "error: there is no workspace here");
    call_gives(&alone, "write_file", "{\"path\":\"a\",\"content\":\"\"}", true,
               "error: there is no workspace here");
    weft_toolset_free(bare);
}

static int begin(void **state)
{
    scene_open(&s, false);
    scene_set(&s, (weft_toolset_options){0}, "all");
    put_text(s.dir, "secret.txt", "the secret");
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
        cmocka_unit_test_setup_teardown(files_are_read_and_written, begin, end),
        cmocka_unit_test_setup_teardown(paths_stay_in_the_workspace, begin, end),
        cmocka_unit_test_setup_teardown(links_are_not_followed, begin, end),
        cmocka_unit_test_setup_teardown(second_names_are_refused, begin, end),
        cmocka_unit_test_setup_teardown(only_regular_files, begin, end),
        cmocka_unit_test_setup_teardown(listings_are_bounded_and_escaped, begin, end),
        cmocka_unit_test_setup_teardown(without_a_workspace, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
