/* What the tests of the toolset share: a scratch directory, a workspace, calls by JSON text. */
#ifndef WEFT_TESTS_TOOLS_TOOLS_TEST_H
#define WEFT_TESTS_TOOLS_TOOLS_TEST_H

#include "tools/tool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

typedef struct scene {
    char dir[64]; /* removed at the end */
    char workspace[80];
    weft_launcher *launcher;
    weft_toolset *set;
} scene;

static inline void path_in(const char *dir, const char *name, char *out, size_t size)
{
    if ((size_t)snprintf(out, size, "%s/%s", dir, name) >= size) abort();
}

/* A directory that the sandbox's user can reach and, where it is to, write. */
static inline void scene_open(scene *s, bool launcher)
{
    weft_error err;
    *s = (scene){.dir = "/tmp/weft-tools-XXXXXX"};
    if (launcher && weft_launcher_start(&s->launcher, &err)) fail_msg("launcher: %s", err.message);
    assert_non_null(mkdtemp(s->dir));
    assert_int_equal(chmod(s->dir, 0755), 0);
    path_in(s->dir, "work", s->workspace, sizeof s->workspace);
    assert_int_equal(mkdir(s->workspace, 0755), 0);
    if (geteuid() == 0)
        assert_int_equal(chown(s->workspace, weft_sandbox_uid(), weft_sandbox_uid()), 0);
}

/* options->launcher and ->workspace are filled in; tools: a built-in name or "all", or NULL. */
static inline void scene_set(scene *s, weft_toolset_options options, const char *tools)
{
    weft_error err;
    options.launcher = s->launcher;
    options.workspace = s->workspace;
    weft_toolset_free(s->set);
    s->set = NULL;
    if (weft_toolset_new(&s->set, &options, &err)) fail_msg("%s", err.message);
    if (tools && weft_toolset_add_builtin(s->set, tools, &err)) fail_msg("%s", err.message);
}

static inline void scene_close(scene *s)
{
    weft_error err;
    weft_toolset_free(s->set);
    weft_launcher_stop(s->launcher);
    if (weft_remove_tree(s->dir, &err)) fail_msg("%s", err.message);
}

static inline void put_file(const char *dir, const char *name, const void *bytes, size_t n)
{
    char path[512];
    weft_error err;
    path_in(dir, name, path, sizeof path);
    if (weft_file_write(path, bytes, n, 0644, &err)) fail_msg("%s", err.message);
}

static inline void put_text(const char *dir, const char *name, const char *text)
{
    put_file(dir, name, text, strlen(text));
}

/* Runs a call; fails the test on an error status. */
static inline weft_tool_result call_json(scene *s, const char *name, const char *json)
{
    weft_tool_result result;
    weft_error err;
    cJSON *arguments = NULL;
    if (weft_json_parse(json, strlen(json), &arguments, &err))
        fail_msg("%s: %s", json, err.message);
    weft_status status = weft_toolset_call(s->set, name, arguments, NULL, &result, &err);
    cJSON_Delete(arguments);
    if (status) fail_msg("%s %s: %s", name, json, err.message);
    if (weft_utf8_valid(result.text, strlen(result.text)) != strlen(result.text))
        fail_msg("%s: no UTF-8", name);
    return result;
}

static inline void call_gives(scene *s, const char *name, const char *json, bool error,
                              const char *text)
{
    weft_tool_result result = call_json(s, name, json);
    if (result.error != error || strcmp(result.text, text) != 0)
        fail_msg("%s %s: %s%s", name, json, result.error ? "(error) " : "", result.text);
    weft_tool_result_free(&result);
}

static inline void call_holds(scene *s, const char *name, const char *json, bool error,
                              const char *part)
{
    weft_tool_result result = call_json(s, name, json);
    if (result.error != error || !strstr(result.text, part))
        fail_msg("%s %s: %s%s\nwithout: %s", name, json, result.error ? "(error) " : "",
                 result.text, part);
    weft_tool_result_free(&result);
}

static inline const char *test_data(const char *name, char *out, size_t size)
{
    const char *root = getenv("WEFT_TEST_DATA");
    if (!root) fail_msg("set WEFT_TEST_DATA to tests/data");
    path_in(root, name, out, size);
    return out;
}

#endif
