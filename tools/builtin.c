/* The table of built-in tools. */
#include "tools/builtin.h"

#define BUILTIN_TABLE(X)                                                                           \
    X(calculator, tool_run_calculator)                                                             \
    X(code_run, tool_run_code)                                                                     \
    X(web_search, tool_run_web_search)                                                             \
    X(web_fetch, tool_run_web_fetch)                                                               \
    X(read_file, tool_run_read_file)                                                               \
    X(write_file, tool_run_write_file)                                                             \
    X(list_files, tool_run_list_files)

#define X(name, function) extern const char embedded_##name[];
BUILTIN_TABLE(X)
#undef X

static const builtin_tool table[] = {
#define X(name, function) {#name, embedded_##name, function},
    BUILTIN_TABLE(X)
#undef X
};

const builtin_tool *builtin_tools(size_t *n)
{
    *n = sizeof table / sizeof *table;
    return table;
}
