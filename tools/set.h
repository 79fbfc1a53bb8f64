/* Inside tools/: what a toolset holds, and what a tool's function gets and gives.
 *
 * A tool function does not cap, scrub or hash: it appends its whole output to a tool_output, and
 * the dispatcher (dispatch.c) makes of it what the model and the trace get. Functions hold no state
 * between calls, so different calls may run side by side.
 */
#ifndef WEFT_TOOLS_SET_H
#define WEFT_TOOLS_SET_H

#include "tools/tool.h"

enum {
    TOOLS_OUTPUT_BYTES = 16 << 10, /* of a result, where the options give none */
    TOOLS_OUTPUT_LEAST = 512,
    TOOLS_SECONDS = 60,
    TOOLS_KEPT_BYTES = 1 << 20 /* of a program's output, where the manifest gives none */
};

typedef struct tool tool;

typedef struct tool_call {
    const weft_toolset *set;
    const tool *tool;
    const cJSON *arguments; /* they conform to the tool's schema */
    const atomic_int *cancel;
} tool_call;

/* Zeroed at the start of a call. */
typedef struct tool_output {
    bool error;
    weft_buffer text;        /* all of it, any bytes */
    weft_buffer stderr_text; /* for the trace */
    cJSON *facts;            /* object; made by the dispatcher before the call */
} tool_output;

/* WEFT_OK also where the tool failed (output->error); an error status ends the run. */
typedef weft_status (*tool_function)(const tool_call *call, tool_output *output, weft_error *err);

typedef enum tool_workspace {
    TOOL_WORKSPACE_WRITE,
    TOOL_WORKSPACE_READ,
    TOOL_WORKSPACE_NONE
} tool_workspace;

struct tool {
    weft_tool_info info; /* borrows from what follows */
    cJSON *manifest;
    weft_schema *schema;
    char *origin;
    tool_function run;
    /* of a command tool only */
    char *folder; /* absolute path of the manifest's directory */
    char **argv;  /* NULL-terminated, paths as they are inside the sandbox */
    char **read;  /* [n_read] absolute host paths, mounted at the same place */
    size_t n_read;
    bool network, json_output;
    tool_workspace workspace;
    int64_t seconds, memory_mb, processes, output_kb; /* 0: the default */
};

struct weft_toolset {
    weft_launcher *launcher;
    char *workspace, *docs, *index_cache, *searxng_url;
    bool allow_private_network;
    int64_t output_bytes, seconds;
    tool *tools; /* [n] */
    size_t n;
};

/* Reads a manifest into out (zeroed). built_in: no command, no folder. manifest is taken in any
 * case. WEFT_E_CONFIG "ORIGIN: at /key: rule". */
weft_status tool_read_manifest(cJSON *manifest_take, const char *origin, bool built_in, tool *out,
                               weft_error *err);
void tool_clear(tool *t);

/* The result of a command tool (command.c) and of the built-in ones. */
weft_status tool_run_command(const tool_call *call, tool_output *output, weft_error *err);
weft_status tool_run_calculator(const tool_call *call, tool_output *output, weft_error *err);
weft_status tool_run_code(const tool_call *call, tool_output *output, weft_error *err);
weft_status tool_run_read_file(const tool_call *call, tool_output *output, weft_error *err);
weft_status tool_run_write_file(const tool_call *call, tool_output *output, weft_error *err);
weft_status tool_run_list_files(const tool_call *call, tool_output *output, weft_error *err);
weft_status tool_run_web_search(const tool_call *call, tool_output *output, weft_error *err);
weft_status tool_run_web_fetch(const tool_call *call, tool_output *output, weft_error *err);

/* The output becomes the words of an error; what was there is dropped. Returns WEFT_OK. */
weft_status tool_refuse(tool_output *output, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
