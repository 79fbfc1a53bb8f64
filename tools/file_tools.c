/* read_file, write_file, list_files: the workspace without a program. What they may touch is
 * decided in workspace.c; what cannot be done is an error result and never ends the run. */
#include "tools/set.h"
#include "tools/workspace.h"

#include <string.h>
#include <unistd.h>

enum { LIST_LINES = 1000 };

/* The workspace's descriptor, or a refusal (-1). */
static int open_workspace(const tool_call *call, tool_output *output)
{
    const char *root = call->set->workspace;
    int fd = root ? workspace_open(root) : -1;
    if (fd < 0) tool_refuse(output, "there is no workspace here");
    return fd;
}

/* A failed file operation becomes a refusal; lack of memory ends the run. */
static weft_status refuse_with(tool_output *output, const weft_error *why, weft_error *err)
{
    if (why->code == WEFT_E_MEMORY) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    return tool_refuse(output, "%s", why->message);
}

/* The lines [first, first + count) of text, with a last line about what is left. */
static void put_lines(const weft_buffer *text, int64_t first, int64_t count, weft_buffer *out)
{
    const char *at = weft_buffer_str(text), *end = at + text->size;
    int64_t line = 1, shown = 0, left = 0;
    for (; at < end; line++) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        const char *after = newline ? newline + 1 : end;
        if (line >= first && shown < count) {
            weft_buffer_append(out, at, (size_t)(after - at));
            shown++;
        } else if (line >= first) {
            left++;
        }
        at = after;
    }
    if (left)
        weft_buffer_printf(out, "[%lld more lines: read on with first_line %lld]", (long long)left,
                           (long long)(first + shown));
    if (!shown) weft_buffer_printf(out, "[the file has %lld lines]", (long long)line - 1);
}

weft_status tool_run_read_file(const tool_call *call, tool_output *output, weft_error *err)
{
    const char *path = workspace_relative(weft_json_string(call->arguments, "path"));
    int64_t first = weft_json_int(call->arguments, "first_line", 1);
    int64_t count = weft_json_int(call->arguments, "max_lines", INT64_MAX);
    weft_buffer text = WEFT_BUFFER_INIT;
    weft_error why;
    int root = open_workspace(call, output);
    if (root < 0) return WEFT_OK;
    weft_status status = workspace_read(root, path, false, WORKSPACE_FILE_BYTES, &text, &why);
    close(root);
    if (status)
        status = refuse_with(output, &why, err);
    else if (memchr(weft_buffer_str(&text), '\0', text.size))
        tool_refuse(output, "%s: %zu bytes that are no text: read them with code_run", path,
                    text.size);
    else if (!text.size)
        weft_buffer_puts(&output->text, "[the file is empty]");
    else
        put_lines(&text, first, count, &output->text);
    weft_buffer_free(&text);
    return status;
}

weft_status tool_run_write_file(const tool_call *call, tool_output *output, weft_error *err)
{
    const char *path = workspace_relative(weft_json_string(call->arguments, "path"));
    const char *content = weft_json_string(call->arguments, "content");
    size_t n = strlen(content);
    bool replaced = false;
    weft_error why;
    if (n > WORKSPACE_FILE_BYTES)
        return tool_refuse(output, "%s: %zu bytes are more than the %d that can be written at once",
                           path, n, WORKSPACE_FILE_BYTES);
    int root = open_workspace(call, output);
    if (root < 0) return WEFT_OK;
    weft_status status = workspace_write(root, path, content, n, &replaced, &why);
    close(root);
    if (status) return refuse_with(output, &why, err);
    weft_buffer_printf(&output->text, "%s %s: %zu bytes", replaced ? "replaced" : "wrote", path, n);
    return WEFT_OK;
}

typedef struct listing {
    weft_buffer *out;
    size_t lines;
    bool whole;
} listing;

static bool put_entry(void *context, const workspace_entry *entry)
{
    listing *l = context;
    if (l->lines == LIST_LINES) {
        l->whole = false;
        return false;
    }
    if (l->lines++) weft_buffer_putc(l->out, '\n');
    workspace_put_name(entry->path, l->out);
    if (S_ISDIR(entry->stat.st_mode))
        weft_buffer_putc(l->out, '/');
    else if (S_ISREG(entry->stat.st_mode))
        weft_buffer_printf(l->out, "  %lld bytes", (long long)entry->stat.st_size);
    else
        weft_buffer_puts(l->out,
                         S_ISLNK(entry->stat.st_mode) ? "  symbolic link" : "  no regular file");
    return true;
}

weft_status tool_run_list_files(const tool_call *call, tool_output *output, weft_error *err)
{
    const char *path = weft_json_string(call->arguments, "path");
    listing l = {.out = &output->text, .whole = true};
    weft_error why;
    bool whole = true;
    int root = open_workspace(call, output);
    if (root < 0) return WEFT_OK;
    weft_status status =
        workspace_walk(root, path ? workspace_relative(path) : ".", put_entry, &l, &whole, &why);
    close(root);
    if (status) return refuse_with(output, &why, err);
    if (!l.lines) weft_buffer_puts(&output->text, "[no files]");
    if (!l.whole || !whole)
        weft_buffer_puts(&output->text, "\n[... and more: list one folder of it]");
    return WEFT_OK;
}
