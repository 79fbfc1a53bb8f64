/* `weft tool ...` and `weft sandbox ...`: tools and confinement by hand. */
#include "agent/commands.h"
#include "agent/console.h"
#include "agent/run.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A run's launcher and toolset without a run. */
static weft_status open_tools(weft_run *r, const weft_options *o, bool may_run, weft_error *err)
{
    r->options = o;
    weft_console_init(&r->console, true, weft_option_text(o, OPT_COLOR));
    weft_status status = may_run ? weft_launcher_start(&r->launcher, err) : WEFT_OK;
    if (status == WEFT_E_SANDBOX) {
        weft_console_notice(&r->console, "%s", err->message);
        status = WEFT_OK;
    }
    return status ? status : run_open_tools(r, NULL, err);
}

weft_status cmd_tool_list(const weft_options *o, int *exit_code, weft_error *err)
{
    weft_run r = {0};
    weft_status status = open_tools(&r, o, false, err);
    for (size_t i = 0; !status && i < weft_toolset_count(r.tools); i++) {
        const weft_tool_info *info = weft_toolset_info(r.tools, i);
        if (weft_option_flag(o, OPT_JSON)) {
            cJSON *line = cJSON_CreateObject();
            cJSON_AddStringToObject(line, "name", info->name);
            cJSON_AddStringToObject(line, "description", info->description);
            cJSON_AddStringToObject(line, "origin", info->origin);
            status = print_json(line, err);
        } else {
            printf("%-14s %.*s\n", info->name, (int)strcspn(info->description, "\n"),
                   info->description);
        }
    }
    run_close(&r);
    return status;
}

static weft_status wanted_tool(const weft_options *o, const weft_run *r, const weft_tool_info **out,
                               weft_error *err)
{
    if (!o->n_argument) return weft_fail(err, WEFT_E_USAGE, "name a tool: see weft tool list");
    *out = weft_toolset_find(r->tools, o->argument[0]);
    if (*out) return WEFT_OK;
    return weft_fail(err, WEFT_E_USAGE, "there is no tool \"%s\": see weft tool list",
                     o->argument[0]);
}

weft_status cmd_tool_show(const weft_options *o, int *exit_code, weft_error *err)
{
    weft_run r = {0};
    const weft_tool_info *info = NULL;
    weft_status status = open_tools(&r, o, false, err);
    if (!status) status = wanted_tool(o, &r, &info, err);
    if (!status) {
        char hex[WEFT_DIGEST_HEX_BYTES];
        cJSON *out = cJSON_CreateObject();
        cJSON_AddStringToObject(out, "name", info->name);
        cJSON_AddStringToObject(out, "description", info->description);
        cJSON_AddItemToObject(out, "parameters", cJSON_Duplicate(info->parameters, true));
        cJSON_AddBoolToObject(out, "idempotent", info->idempotent);
        cJSON_AddStringToObject(out, "approval", info->approval);
        cJSON_AddStringToObject(out, "origin", info->origin);
        cJSON_AddStringToObject(out, "digest", weft_hex(info->digest, WEFT_DIGEST_BYTES, hex));
        if (weft_option_flag(o, OPT_JSON)) {
            status = print_json(out, err);
        } else {
            char *text = cJSON_Print(out);
            printf("%s\n", text ? text : "");
            free(text);
            cJSON_Delete(out);
        }
    }
    run_close(&r);
    return status;
}

static weft_status temporary_workspace(char **out, weft_error *err)
{
    char path[] = "/tmp/weft-work-XXXXXX";
    if (!mkdtemp(path)) return weft_fail_errno(err, WEFT_E_STORAGE, "create a workspace in /tmp");
    *out = strdup(path);
    return *out ? WEFT_OK : weft_fail(err, WEFT_E_MEMORY, "out of memory");
}

static weft_status print_result(const weft_options *o, const weft_tool_result *result,
                                weft_error *err)
{
    char hex[WEFT_DIGEST_HEX_BYTES];
    if (!weft_option_flag(o, OPT_JSON)) {
        size_t n = strlen(result->text);
        fprintf(result->error ? stderr : stdout, "%s%s", result->text,
                n && result->text[n - 1] == '\n' ? "" : "\n");
        return WEFT_OK;
    }
    cJSON *out = cJSON_CreateObject();
    cJSON_AddBoolToObject(out, "error", result->error);
    cJSON_AddStringToObject(out, "text", result->text);
    weft_json_add_int(out, "bytes", (int64_t)result->full_bytes);
    cJSON_AddStringToObject(out, "sha256", weft_hex(result->full_sha256, WEFT_DIGEST_BYTES, hex));
    if (result->stderr_text) cJSON_AddStringToObject(out, "stderr", result->stderr_text);
    if (result->facts) cJSON_AddItemToObject(out, "facts", cJSON_Duplicate(result->facts, true));
    return print_json(out, err);
}

weft_status cmd_tool_call(const weft_options *o, int *exit_code, weft_error *err)
{
    weft_run r = {0};
    const weft_tool_info *info = NULL;
    const char *text = o->n_argument > 1 ? o->argument[1] : "{}",
               *given = weft_option_text(o, OPT_WORKDIR);
    cJSON *arguments = NULL;
    weft_tool_result result = {0};
    bool temporary = !*given;
    weft_status status = WEFT_OK;
    if (o->n_argument > 2)
        return weft_fail(err, WEFT_E_USAGE, "tool call: NAME and one JSON object are expected");
    if (temporary)
        status = temporary_workspace(&r.workspace, err);
    else if (!(r.workspace = realpath(given, NULL)))
        status = weft_fail_errno(err, WEFT_E_CONFIG, "--workdir %s", given);
    if (!status) status = open_tools(&r, o, true, err);
    if (!status) status = wanted_tool(o, &r, &info, err);
    if (!status && weft_json_parse(text, strlen(text), &arguments, err)) {
        weft_fail_prefix(err, "the arguments of %s", info->name);
        status = WEFT_E_USAGE;
    }
    if (!status)
        status = weft_toolset_call(r.tools, info->name, arguments, &weft_interrupted, &result, err);
    if (!status) status = print_result(o, &result, err);
    if (!status && result.error) *exit_code = 1;
    weft_tool_result_free(&result);
    cJSON_Delete(arguments);
    char *workspace = r.workspace ? strdup(r.workspace) : NULL;
    run_close(&r);
    if (temporary && workspace) weft_remove_tree(workspace, NULL);
    free(workspace);
    return status;
}

static void write_stream(FILE *to, const weft_sandbox_stream *s)
{
    if (!s->cut) {
        fwrite(s->kept, 1, s->n_kept, to);
    } else {
        fwrite(s->kept, 1, s->cut_at, to);
        fprintf(to, "\n[%llu bytes left out]\n", (unsigned long long)s->cut);
        fwrite(s->kept + s->cut_at, 1, s->n_kept - s->cut_at, to);
    }
    fflush(to);
}

static cJSON *stream_json(const weft_sandbox_stream *s)
{
    weft_buffer text = WEFT_BUFFER_INIT;
    char hex[WEFT_DIGEST_HEX_BYTES];
    cJSON *out = cJSON_CreateObject();
    for (size_t i = 0; i < s->n_kept; i++) /* JSON text has no NUL here */
        weft_buffer_putc(&text, s->kept[i] ? s->kept[i] : '?');
    weft_buffer whole = WEFT_BUFFER_INIT;
    weft_utf8_scrub(weft_buffer_str(&text), text.size, &whole);
    cJSON_AddStringToObject(out, "text", weft_buffer_str(&whole));
    weft_json_add_int(out, "bytes", (int64_t)s->total);
    weft_json_add_int(out, "cut", (int64_t)s->cut);
    cJSON_AddStringToObject(out, "sha256", weft_hex(s->sha256, WEFT_DIGEST_BYTES, hex));
    weft_buffer_free(&text);
    weft_buffer_free(&whole);
    return out;
}

static void add_parsed(cJSON *out, const char *key, const char *json)
{
    cJSON *value = NULL;
    if (json && !weft_json_parse(json, strlen(json), &value, NULL))
        cJSON_AddItemToObject(out, key, value);
}

static weft_status print_confined(const weft_options *o, const weft_sandbox_result *result,
                                  weft_error *err)
{
    if (!weft_option_flag(o, OPT_JSON)) {
        write_stream(stdout, &result->out);
        write_stream(stderr, &result->err);
        if (result->hit)
            fprintf(stderr, "weft: sandbox: stopped: %s\n", weft_sandbox_hit_text(result->hit));
        return WEFT_OK;
    }
    cJSON *out = cJSON_CreateObject();
    weft_json_add_int(out, "exit", result->exit_status);
    weft_json_add_int(out, "signal", result->signal);
    cJSON_AddStringToObject(out, "hit", weft_sandbox_hit_text(result->hit));
    weft_json_add_int(out, "wall_ns", result->wall_ns);
    weft_json_add_int(out, "cpu_ns", result->cpu_ns);
    weft_json_add_int(out, "peak_bytes", result->peak_bytes);
    cJSON_AddItemToObject(out, "stdout", stream_json(&result->out));
    cJSON_AddItemToObject(out, "stderr", stream_json(&result->err));
    add_parsed(out, "layers", result->layers);
    add_parsed(out, "denials", result->denials);
    return print_json(out, err);
}

weft_status cmd_sandbox_run(const weft_options *o, int *exit_code, weft_error *err)
{
    weft_launcher *launcher = NULL;
    weft_sandbox_result result = {0};
    weft_buffer input = WEFT_BUFFER_INIT;
    const char *given = weft_option_text(o, OPT_WORKDIR);
    char *workdir = NULL;
    if (!o->n_argument)
        return weft_fail(err, WEFT_E_USAGE,
                         "sandbox: a command is missing: weft sandbox -- CMD...");
    weft_status status = weft_launcher_start(&launcher, err);
    if (!status && *given && !(workdir = realpath(given, NULL)))
        status = weft_fail_errno(err, WEFT_E_CONFIG, "--workdir %s", given);
    if (!status && !isatty(STDIN_FILENO))
        status = weft_file_read("-", (size_t)256 << 20, &input, err);
    weft_sandbox_request request = {
        .argv = (const char *const *)o->argument,
        .stdin_bytes = input.size ? input.data : NULL,
        .stdin_size = input.size,
        .workdir = workdir,
        .strict = strcmp(weft_option_text(o, OPT_PROFILE), "strict") == 0,
    };
    if (!status) status = weft_sandbox_run(launcher, &request, &weft_interrupted, &result, err);
    if (!status) {
        status = print_confined(o, &result, err);
        *exit_code = result.signal ? 128 + result.signal : result.hit ? 124 : result.exit_status;
    }
    weft_sandbox_result_free(&result);
    weft_launcher_stop(launcher);
    weft_buffer_free(&input);
    free(workdir);
    return status;
}

weft_status cmd_sandbox_check(const weft_options *o, int *exit_code, weft_error *err)
{
    weft_launcher *launcher = NULL;
    char *report = NULL;
    cJSON *json = NULL;
    weft_status status = weft_launcher_start(&launcher, err);
    if (!status) status = weft_sandbox_check(launcher, &report, err);
    if (!status) status = weft_json_parse(report, strlen(report), &json, err);
    if (!status && weft_option_flag(o, OPT_JSON)) {
        printf("%s\n", report);
    } else if (!status) {
        const cJSON *layer, *missing;
        printf("level %s\n", weft_json_string(json, "level"));
        cJSON_ArrayForEach(layer, cJSON_GetObjectItemCaseSensitive(json, "layers"))
            printf("  %-14s %s\n", layer->string, cJSON_IsTrue(layer) ? "in force" : "missing");
        cJSON_ArrayForEach(missing, cJSON_GetObjectItemCaseSensitive(json, "missing"))
            printf("%s: %s: %s\n", weft_json_string(missing, "layer"),
                   weft_json_string(missing, "cause"), weft_json_string(missing, "cure"));
    }
    cJSON_Delete(json);
    free(report);
    weft_launcher_stop(launcher);
    return status;
}
