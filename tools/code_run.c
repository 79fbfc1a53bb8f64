/* code_run: a program of the model's, in the sandbox, in the run's workspace.
 *
 * The code goes into a file of a private directory that is mounted read-only at /code, not into the
 * workspace: so the listing of what the program wrote holds no file of ours, and Python's
 * tracebacks show the source line. Files are new or changed if inode, size or ctime differ; calls
 * that run at the same time in one workspace may each list what the other wrote.
 *
 * Result: standard output alone if that is all there is, else parts under their names:
 *
 *   exit status 1
 *   stdout:
 *   ...
 *   stderr:
 *   ...
 *   files written: a.txt (12 bytes), b.png (1,024 bytes)
 */
#include "tools/confine.h"
#include "tools/workspace.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FILES_SHOWN = 20, FILES_KEPT = 200, CODE_BYTES = 1 << 20 };

/* -I: no environment, and the workspace is not searched for modules before the library, where a
 * file random.py would break every later program. The workspace comes last instead, so that own
 * modules can still be imported. The hook drops this frame from tracebacks. -u: what was printed
 * before a limit hit is not lost in a buffer. */
static const char python_start[] =
    "import sys\n"
    "def _weft_hook(kind, error, trace):\n"
    "    import traceback\n"
    "    traceback.print_exception(kind, error, trace and trace.tb_next)\n"
    "sys.excepthook = _weft_hook\n"
    "sys.path.append('/work')\n"
    "sys.argv = ['/code/main.py']\n"
    "__file__ = '/code/main.py'\n"
    "exec(compile(open(__file__, 'rb').read(), __file__, 'exec'))\n";

static const struct {
    const char *name, *file;
    const char *argv[5];
} languages[] = {
    {"python", "main.py", {"python3", "-Iu", "-c", python_start, NULL}},
    {"c",
     "main.c",
     {"sh", "-c",
      "gcc -O1 -x c -fmax-errors=5 -fdiagnostics-color=never -o /tmp/main /code/main.c -lm "
      "</dev/null && exec /tmp/main",
      NULL}},
    {"shell", "main.sh", {"bash", "/code/main.sh", NULL}},
};

/* What a call holds until its end. */
typedef struct code_call {
    const tool_call *call;
    size_t language;
    char *folder; /* private directory with the code */
    workspace_state *before, *after;
    cJSON *files;
    size_t n_files;
} code_call;

/* A private directory with the code in it, readable for the sandbox's user. */
static weft_status write_code(code_call *c, weft_error *err)
{
    const char *code = weft_json_string(c->call->arguments, "code"), *temp = getenv("TMPDIR");
    weft_status status = WEFT_E_STORAGE;
    char *path = NULL;
    int fd = -1;
    char *folder = weft_path_join(temp && *temp == '/' ? temp : "/tmp", "weft-code-XXXXXX");
    if (!folder) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    if (!mkdtemp(folder)) {
        weft_fail_errno(err, WEFT_E_STORAGE, "make %s", folder);
        free(folder);
        return WEFT_E_STORAGE;
    }
    c->folder = folder;
    path = weft_path_join(folder, languages[c->language].file);
    if (!path) {
        status = weft_fail(err, WEFT_E_MEMORY, "out of memory");
        goto done;
    }
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) {
        weft_fail_errno(err, WEFT_E_STORAGE, "make %s", path);
        goto done;
    }
    status = weft_write_all(fd, code, strlen(code), err);
    if (!status && geteuid() == 0 &&
        (fchown(fd, weft_sandbox_uid(), weft_sandbox_uid()) != 0 ||
         chown(folder, weft_sandbox_uid(), weft_sandbox_uid()) != 0))
        status = weft_fail_errno(err, WEFT_E_STORAGE, "hand %s to the sandbox's user", path);
done:
    if (fd >= 0) close(fd);
    free(path);
    return status;
}

static weft_status take_state(const code_call *c, workspace_state **out, weft_error *err)
{
    int root = workspace_open(c->call->set->workspace);
    if (root < 0)
        return weft_fail_errno(err, WEFT_E_STORAGE, "open the workspace %s",
                               c->call->set->workspace);
    weft_status status = workspace_state_take(root, out, err);
    close(root);
    return status;
}

static bool is_blank(const weft_sandbox_stream *s)
{
    for (size_t i = 0; i < s->n_kept; i++)
        if (!strchr(" \t\r\n", s->kept[i]) || !s->kept[i]) return false;
    return true;
}

static void put_part(const char *name, const weft_sandbox_stream *stream, weft_buffer *out)
{
    if (is_blank(stream)) return;
    if (out->size && out->data[out->size - 1] != '\n') weft_buffer_putc(out, '\n');
    if (name) weft_buffer_printf(out, "%s:\n", name);
    confine_put_stream(stream, out);
}

static void put_files(const code_call *c, weft_buffer *out)
{
    const cJSON *file;
    size_t shown = 0;
    if (!c->n_files) return;
    if (out->size && out->data[out->size - 1] != '\n') weft_buffer_putc(out, '\n');
    weft_buffer_puts(out, "files written: ");
    cJSON_ArrayForEach(file, c->files)
    {
        if (shown == FILES_SHOWN) break;
        weft_buffer_printf(out, "%s%s (%lld bytes)", shown++ ? ", " : "",
                           weft_json_string(file, "name"),
                           (long long)weft_json_int(file, "bytes", 0));
    }
    if (c->n_files > shown) weft_buffer_printf(out, " and %zu more", c->n_files - shown);
}

static void put_result(const code_call *c, const weft_sandbox_request *request,
                       const weft_sandbox_result *r, tool_output *output)
{
    weft_buffer *out = &output->text;
    output->error = confine_put_end(request, r, out);
    bool bare = !output->error && is_blank(&r->err);
    put_part(bare ? NULL : "stdout", &r->out, out);
    put_part("stderr", &r->err, out);
    if (!out->size && !c->n_files) weft_buffer_puts(out, "[no output, exit status 0: print what you want to see]");
    put_files(c, out);
    weft_buffer_append(&output->stderr_text, r->err.kept, r->err.n_kept);
}

/* Refuses, or runs the program and leaves its result in output. */
static weft_status run(code_call *c, tool_output *output, weft_error *err)
{
    const weft_toolset *set = c->call->set;
    const char *input = weft_json_string(c->call->arguments, "stdin");
    weft_sandbox_bind bind = {c->folder, "/code", false};
    weft_sandbox_request request = {
        .argv = languages[c->language].argv,
        .stdin_bytes = input,
        .stdin_size = input ? strlen(input) : 0,
        .workdir = set->workspace,
        .binds = &bind,
        .n_binds = 1,
        .limits = {.wall_ms = 1000 * set->seconds,
                   .memory_bytes = 1024LL << 20,
                   .processes = 64,
                   .output_bytes = TOOLS_KEPT_BYTES},
    };
    weft_sandbox_result r;
    bool ran = false;
    weft_status status = confine_run(c->call, &request, output, &r, &ran, err);
    if (status || !ran) return status;
    status = take_state(c, &c->after, err);
    if (!status) {
        c->files = workspace_state_changes(c->before, c->after, FILES_KEPT, &c->n_files);
        if (!c->files) status = weft_fail(err, WEFT_E_MEMORY, "out of memory");
    }
    if (!status) put_result(c, &request, &r, output);
    if (!status && c->n_files) {
        cJSON_AddItemToObject(output->facts, "files", c->files);
        c->files = NULL;
    }
    weft_sandbox_result_free(&r);
    return status;
}

weft_status tool_run_code(const tool_call *call, tool_output *output, weft_error *err)
{
    code_call c = {.call = call};
    const char *language = weft_json_string(call->arguments, "language");
    const char *code = weft_json_string(call->arguments, "code");
    if (!call->set->launcher)
        return tool_refuse(
            output, "code_run needs the sandbox, which is not available here: nothing was run");
    if (!call->set->workspace) return tool_refuse(output, "there is no workspace here");
    if (strlen(code) > CODE_BYTES)
        return tool_refuse(output, "the code is longer than %d bytes", CODE_BYTES);
    while (strcmp(languages[c.language].name, language) != 0)
        c.language++; /* the schema lists them all */
    weft_status status = write_code(&c, err);
    if (!status) status = take_state(&c, &c.before, err);
    if (!status) status = run(&c, output, err);
    if (c.folder && weft_remove_tree(c.folder, status ? NULL : err) && !status)
        status = err ? err->code : WEFT_E_STORAGE;
    free(c.folder);
    workspace_state_free(c.before);
    workspace_state_free(c.after);
    cJSON_Delete(c.files);
    return status;
}
