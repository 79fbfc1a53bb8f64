/* Runs weft-fetch. "get" has the network and an empty root, "text" has neither network nor
 * workspace; both get their work on standard input and give it back on standard output. Nothing
 * they answer is trusted: a line of JSON and bytes of bounded length, parsed by weft's own strict
 * parser. */
#include "tools/web/broker.h"

#include "tools/confine.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { HEAD_BYTES = 64 << 10, FETCH_SECONDS = 30, FETCH_MEMORY_MIB = 512 };

/* dir/below, if a program is there. */
static char *candidate(const char *dir, const char *below)
{
    char *path = weft_path_join(dir, below);
    if (path && access(path, X_OK) == 0) return path;
    free(path);
    return NULL;
}

weft_status broker_find(char **out, weft_error *err)
{
    static const char *const places[] = {"weft-fetch", "../libexec/weft/weft-fetch",
                                         "../tools/weft-fetch"};
    const char *libexec = getenv("WEFT_LIBEXEC");
    char self[4096];
    if (libexec && *libexec) {
        *out = candidate(libexec, "weft-fetch");
        return *out ? WEFT_OK
                    : weft_fail(err, WEFT_E_CONFIG, "no program weft-fetch in WEFT_LIBEXEC=%.500s",
                                libexec);
    }
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(self, '/'), *found = NULL;
    if (slash) *slash = '\0';
    for (size_t i = 0; slash && !found && i < sizeof places / sizeof *places; i++)
        found = candidate(self, places[i]);
    if (!found)
        return weft_fail(err, WEFT_E_CONFIG,
                         "weft-fetch is not installed beside weft (looked in %.500s and "
                         "../libexec/weft): set WEFT_LIBEXEC to its directory",
                         self);
    *out = found;
    return WEFT_OK;
}

/* Runs one mode; *head and *body borrow from result. */
static weft_status run(const tool_call *call, const char *mode, const weft_buffer *input,
                       size_t max_bytes, tool_output *output, weft_sandbox_result *result,
                       bool *ran, weft_error *err)
{
    const char *const argv[] = {"/weft-fetch", mode, NULL};
    weft_error why;
    char *program = NULL;
    *ran = false;
    if (broker_find(&program, &why)) return tool_refuse(output, "%s", why.message);
    weft_sandbox_bind bind = {program, "/weft-fetch", false};
    weft_sandbox_request request = {
        .argv = argv,
        .stdin_bytes = weft_buffer_str(input),
        .stdin_size = input->size,
        .binds = &bind,
        .n_binds = 1,
        .network = strcmp(mode, "get") == 0,
        .limits = {.wall_ms = (FETCH_SECONDS + 5) * 1000,
                   .memory_bytes = (int64_t)FETCH_MEMORY_MIB << 20,
                   .processes = 16, /* the resolver's threads */
                   .output_bytes = (int64_t)max_bytes + HEAD_BYTES},
    };
    weft_status status = confine_run(call, &request, output, result, ran, err);
    free(program);
    if (status || !*ran) return status;
    weft_buffer_append(&output->stderr_text, result->err.kept, result->err.n_kept);
    weft_buffer end = WEFT_BUFFER_INIT;
    bool failed = confine_put_end(&request, result, &end) || result->out.cut;
    if (failed) {
        tool_refuse(output, "%s: the fetching process failed: %s", call->tool->info.name,
                    end.size ? weft_buffer_str(&end) : "its answer is too long");
        weft_sandbox_result_free(result);
        *ran = false;
    }
    weft_buffer_free(&end);
    return WEFT_OK;
}

/* Splits an answer into its head and what follows. NULL, with a refusal, if it is none or an error.
 */
static cJSON *read_head(const tool_call *call, const weft_sandbox_stream *answer,
                        tool_output *output, const char **out_body, size_t *out_n)
{
    const char *newline = memchr(answer->kept, '\n', answer->n_kept);
    cJSON *head = NULL;
    if (!newline || weft_json_parse(answer->kept, (size_t)(newline - answer->kept), &head, NULL)) {
        tool_refuse(output, "%s: the fetching process gave no answer", call->tool->info.name);
        return NULL;
    }
    const char *error = weft_json_string(head, "error");
    if (error) {
        tool_refuse(output, "%s", error);
        cJSON_Delete(head);
        return NULL;
    }
    *out_body = newline + 1;
    *out_n = answer->n_kept - (size_t)(newline + 1 - answer->kept);
    return head;
}

static char *copy_bytes(const char *bytes, size_t n)
{
    char *copy = malloc(n + 1);
    if (!copy) return NULL;
    if (n) memcpy(copy, bytes, n);
    copy[n] = '\0';
    return copy;
}

static char *copy_member(const cJSON *head, const char *key)
{
    const char *text = weft_json_string(head, key);
    return strdup(text ? text : "");
}

weft_status broker_get(const tool_call *call, const broker_request *request, tool_output *output,
                       broker_page *out, bool *got, weft_error *err)
{
    int64_t seconds = call->set->seconds < FETCH_SECONDS ? call->set->seconds : FETCH_SECONDS;
    weft_buffer input = WEFT_BUFFER_INIT;
    weft_sandbox_result r;
    bool ran = false;
    *got = false;
    cJSON *asked = cJSON_CreateObject();
    cJSON_AddStringToObject(asked, "url", request->url);
    weft_json_add_int(asked, "timeout_ms", seconds * 1000);
    weft_json_add_int(asked, "max_bytes", (int64_t)request->max_bytes);
    cJSON_AddBoolToObject(asked, "allow_private", request->allow_private);
    cJSON_AddBoolToObject(asked, "trust_first", request->trust_first);
    if (asked) weft_json_compact(asked, &input);
    cJSON_Delete(asked);
    weft_status status = weft_buffer_ok(&input, err);
    if (!status) status = run(call, "get", &input, request->max_bytes, output, &r, &ran, err);
    weft_buffer_free(&input);
    if (status || !ran) return status;
    const char *body = NULL;
    size_t n = 0;
    cJSON *head = read_head(call, &r.out, output, &body, &n);
    if (head) {
        broker_page page = {.http_status = (long)weft_json_int(head, "http_status", 0),
                            .url = copy_member(head, "url"),
                            .content_type = copy_member(head, "content_type"),
                            .cut = weft_json_bool(head, "cut", false),
                            .body = copy_bytes(body, n),
                            .n = n};
        *got = page.url && page.content_type && page.body;
        if (*got) {
            *out = page;
        } else {
            broker_page_free(&page);
            status = weft_fail(err, WEFT_E_MEMORY, "out of memory");
        }
    }
    cJSON_Delete(head);
    weft_sandbox_result_free(&r);
    return status;
}

weft_status broker_text(const tool_call *call, const broker_page *page, tool_output *output,
                        char **out_title, char **out_text, bool *got, weft_error *err)
{
    weft_buffer input = WEFT_BUFFER_INIT;
    weft_sandbox_result r;
    bool ran = false;
    *got = false;
    cJSON *asked = cJSON_CreateObject();
    cJSON_AddStringToObject(asked, "content_type", page->content_type);
    cJSON_AddStringToObject(asked, "url", page->url);
    if (asked) weft_json_compact(asked, &input);
    cJSON_Delete(asked);
    weft_buffer_putc(&input, '\n');
    weft_buffer_append(&input, page->body, page->n);
    weft_status status = weft_buffer_ok(&input, err);
    /* links are written out, so the text may be longer than the page */
    if (!status) status = run(call, "text", &input, 4 * page->n, output, &r, &ran, err);
    weft_buffer_free(&input);
    if (status || !ran) return status;
    const char *text = NULL;
    size_t n = 0;
    cJSON *head = read_head(call, &r.out, output, &text, &n);
    if (head) {
        char *title = copy_member(head, "title"), *copy = copy_bytes(text, n);
        *got = title && copy;
        if (*got) {
            *out_title = title;
            *out_text = copy;
        } else {
            free(title);
            free(copy);
            status = weft_fail(err, WEFT_E_MEMORY, "out of memory");
        }
    }
    cJSON_Delete(head);
    weft_sandbox_result_free(&r);
    return status;
}

void broker_page_free(broker_page *page)
{
    free(page->url);
    free(page->content_type);
    free(page->body);
    *page = (broker_page){0};
}
