/* `weft doctor`: each thing weft needs, tried out; what does not work comes with its cure. */
#include "agent/commands.h"
#include "agent/models.h"
#include "engine/engine.h"
#include "sandbox/sandbox.h"
#include "traces/trace.h"

#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

typedef struct report {
    bool json;
    bool bad;
    cJSON *list;
} report;

static void finding(report *r, const char *what, bool ok, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static void finding(report *r, const char *what, bool ok, const char *format, ...)
{
    char text[WEFT_ERROR_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (!ok) r->bad = true;
    if (r->json) {
        cJSON *item = cJSON_CreateObject();
        cJSON_AddStringToObject(item, "what", what);
        cJSON_AddBoolToObject(item, "ok", ok);
        cJSON_AddStringToObject(item, "finding", text);
        cJSON_AddItemToArray(r->list, item);
    } else {
        printf("%-10s %-4s %s\n", what, ok ? "ok" : "BAD", text);
    }
}

static void look_at_cpu(report *r)
{
    const char *backend = weft_best_backend();
    finding(r, "cpu", true, "%ld cores online; kernels: %s%s", sysconf(_SC_NPROCESSORS_ONLN), backend,
            strstr(backend, "scalar") ? ": expect a few tokens a second" : "");
    double gib = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE) / (1 << 30);
    finding(r, "memory", gib > 2, "%.1f GiB%s", gib,
            gib > 2 ? "" : ": the default model needs 2 GiB: use smollm2-135m");
}

/* No GPU is no fault: the CPU does. */
static void add_gpu(void *context, bool usable, const char *text)
{
    finding(context, "gpu", true, "%s%s", usable ? "" : "not used: ", text);
}

static void look_at_sandbox(report *r)
{
    weft_launcher *launcher = NULL;
    weft_error err;
    char *layers = NULL;
    cJSON *json = NULL;
    if (weft_launcher_start(&launcher, &err) || weft_sandbox_check(launcher, &layers, &err)) {
        finding(r, "sandbox", false, "%s", err.message);
    } else if (!weft_json_parse(layers, strlen(layers), &json, &err)) {
        const cJSON *missing;
        finding(r, "sandbox", true, "level %s", weft_json_string(json, "level"));
        cJSON_ArrayForEach(missing, cJSON_GetObjectItemCaseSensitive(json, "missing"))
            finding(r, "sandbox", true, "without %s: %s: %s", weft_json_string(missing, "layer"),
                    weft_json_string(missing, "cause"), weft_json_string(missing, "cure"));
    }
    cJSON_Delete(json);
    free(layers);
    weft_launcher_stop(launcher);
}

/* Writes, syncs and reads back a real trace in the runs directory. */
static void look_at_storage(report *r)
{
    char *dir = NULL;
    weft_error err;
    weft_trace *trace = NULL;
    weft_buffer path = WEFT_BUFFER_INIT;
    if (runs_dir(&dir, &err)) {
        finding(r, "storage", false, "%s", err.message);
        return;
    }
    weft_buffer_printf(&path, "%s/.doctor-%ld", dir, (long)getpid());
    cJSON *body = cJSON_CreateObject();
    weft_status status = weft_mkdirs(weft_buffer_str(&path), &err);
    if (!status) status = weft_trace_create(&trace, weft_buffer_str(&path), "doctor", &err);
    if (!status) status = weft_trace_append(trace, "run.begin", "", body, WEFT_DURABLE, NULL, &err);
    if (!status) status = weft_trace_each(trace, 0, NULL, NULL, &err);
    struct statvfs fs;
    bool known = statvfs(dir, &fs) == 0;
    double gib = known ? (double)fs.f_bavail * (double)fs.f_frsize / (1 << 30) : 0;
    if (status)
        finding(r, "storage", false, "%s", err.message);
    else
        finding(r, "storage", !known || gib > 1,
                "a durable event was written and read in %s; %.0f GiB free", dir, gib);
    weft_trace_close(trace, NULL);
    weft_remove_tree(weft_buffer_str(&path), NULL);
    weft_buffer_free(&path);
    cJSON_Delete(body);
    free(dir);
}

static void look_at_model(report *r, const char *name)
{
    char *path = NULL;
    weft_error err;
    if (models_resolve(name, &path, &err))
        finding(r, "model", false, "%s", err.message);
    else
        finding(r, "model", true, "%s: %s", name, path);
    free(path);
}

weft_status cmd_doctor(const weft_options *o, int *exit_code, weft_error *err)
{
    report r = {.json = weft_option_flag(o, OPT_JSON), .list = cJSON_CreateArray()};
    look_at_sandbox(&r); /* first: the launcher wants a process without threads */
    look_at_cpu(&r);
    weft_gpu_look(add_gpu, &r);
    look_at_storage(&r);
    look_at_model(&r, weft_option_text(o, OPT_MODEL));
    *exit_code = r.bad ? 1 : 0;
    if (r.json) return print_json(r.list, err);
    cJSON_Delete(r.list);
    return WEFT_OK;
}
