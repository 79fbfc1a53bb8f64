/* A toolset: its options, and its tools by name. Names are unique; the same manifest twice is one
 * tool. */
#include "tools/set.h"

#include "tools/builtin.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* NULL stays NULL. */
static bool copy_text(const char *from, char **to)
{
    *to = from ? strdup(from) : NULL;
    return !from || *to;
}

weft_status weft_toolset_new(weft_toolset **out, const weft_toolset_options *options,
                             weft_error *err)
{
    weft_toolset *set = calloc(1, sizeof *set);
    if (!set) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    set->launcher = options->launcher;
    set->allow_private_network = options->allow_private_network;
    set->output_bytes = options->output_bytes > 0 ? options->output_bytes : TOOLS_OUTPUT_BYTES;
    if (set->output_bytes < TOOLS_OUTPUT_LEAST) set->output_bytes = TOOLS_OUTPUT_LEAST;
    set->seconds = options->seconds > 0 ? options->seconds : TOOLS_SECONDS;
    if (!copy_text(options->workspace, &set->workspace) || !copy_text(options->docs, &set->docs) ||
        !copy_text(options->index_cache, &set->index_cache) ||
        !copy_text(options->searxng_url, &set->searxng_url)) {
        weft_toolset_free(set);
        return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    }
    *out = set;
    return WEFT_OK;
}

void weft_toolset_free(weft_toolset *set)
{
    if (!set) return;
    for (size_t i = 0; i < set->n; i++) tool_clear(&set->tools[i]);
    free(set->tools);
    free(set->workspace);
    free(set->docs);
    free(set->index_cache);
    free(set->searxng_url);
    free(set);
}

/* Consumes t whether it succeeds or not. */
static weft_status add(weft_toolset *set, tool *t, weft_error *err)
{
    const weft_tool_info *other = weft_toolset_find(set, t->info.name);
    if (other) {
        bool same = memcmp(other->digest, t->info.digest, WEFT_DIGEST_BYTES) == 0;
        weft_status status = WEFT_OK;
        if (!same)
            status = weft_fail(err, WEFT_E_CONFIG,
                               "%s: at /name: a tool named %s was added before (%s): rename one",
                               t->origin, t->info.name, other->origin);
        tool_clear(t);
        return status;
    }
    tool *bigger = realloc(set->tools, (set->n + 1) * sizeof *bigger);
    if (!bigger) {
        tool_clear(t);
        return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    }
    set->tools = bigger;
    set->tools[set->n++] = *t;
    return WEFT_OK;
}

static weft_status add_embedded(weft_toolset *set, const builtin_tool *b, weft_error *err)
{
    cJSON *manifest = NULL;
    tool t = {.run = b->run};
    weft_status status = weft_json_parse(b->manifest, strlen(b->manifest), &manifest, err);
    if (!status) status = tool_read_manifest(manifest, "built-in", true, &t, err);
    return status ? status : add(set, &t, err);
}

weft_status weft_toolset_add_builtin(weft_toolset *set, const char *name, weft_error *err)
{
    size_t n;
    const builtin_tool *b = builtin_tools(&n);
    weft_status status = WEFT_OK;
    if (strcmp(name, "all") == 0) {
        for (size_t i = 0; i < n && !status; i++) status = add_embedded(set, &b[i], err);
        return status;
    }
    for (size_t i = 0; i < n; i++)
        if (strcmp(b[i].name, name) == 0) return add_embedded(set, &b[i], err);
    weft_buffer known = WEFT_BUFFER_INIT;
    for (size_t i = 0; i < n; i++) weft_buffer_printf(&known, "%s%s", i ? ", " : "", b[i].name);
    status = weft_fail(err, WEFT_E_USAGE, "no built-in tool is named %s: known are %s, and all",
                       name, weft_buffer_str(&known));
    weft_buffer_free(&known);
    return status;
}

weft_status weft_toolset_add_manifest(weft_toolset *set, const char *path, weft_error *err)
{
    cJSON *manifest = NULL;
    tool t = {.run = tool_run_command};
    weft_status status = weft_json_parse_file(path, &manifest, err);
    if (status == WEFT_E_INVALID && err) err->code = WEFT_E_CONFIG;
    if (status) return status == WEFT_E_INVALID ? WEFT_E_CONFIG : status;
    status = tool_read_manifest(manifest, path, false, &t, err);
    return status ? status : add(set, &t, err);
}

static int is_manifest(const struct dirent *entry)
{
    size_t n = strlen(entry->d_name);
    return n > 5 && entry->d_name[0] != '.' && strcmp(entry->d_name + n - 5, ".json") == 0;
}

static int by_bytes(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name); /* alphasort would follow the locale */
}

weft_status weft_toolset_add_directory(weft_toolset *set, const char *dir, weft_error *err)
{
    struct dirent **names = NULL;
    int n = scandir(dir, &names, is_manifest, by_bytes);
    if (n < 0 && (errno == ENOENT || errno == ENOTDIR)) return WEFT_OK;
    if (n < 0) return weft_fail_errno(err, WEFT_E_CONFIG, "read the tools of %s", dir);
    weft_status status = WEFT_OK;
    for (int i = 0; i < n; i++) {
        char *path = status ? NULL : weft_path_join(dir, names[i]->d_name);
        if (!status && !path) status = weft_fail(err, WEFT_E_MEMORY, "out of memory");
        if (!status) status = weft_toolset_add_manifest(set, path, err);
        free(path);
        free(names[i]);
    }
    free(names);
    return status;
}

size_t weft_toolset_count(const weft_toolset *set)
{
    return set->n;
}

const weft_tool_info *weft_toolset_info(const weft_toolset *set, size_t i)
{
    return &set->tools[i].info;
}

const weft_tool_info *weft_toolset_find(const weft_toolset *set, const char *name)
{
    for (size_t i = 0; name && i < set->n; i++)
        if (strcmp(set->tools[i].info.name, name) == 0) return &set->tools[i].info;
    return NULL;
}

cJSON *weft_toolset_definitions(const weft_toolset *set)
{
    cJSON *list = cJSON_CreateArray();
    for (size_t i = 0; list && i < set->n; i++) {
        const weft_tool_info *info = &set->tools[i].info;
        cJSON *entry = cJSON_CreateObject(), *function = cJSON_CreateObject();
        cJSON *parameters = cJSON_Duplicate(info->parameters, true);
        bool ok = entry && function && parameters &&
                  cJSON_AddStringToObject(entry, "type", "function") &&
                  cJSON_AddStringToObject(function, "name", info->name) &&
                  cJSON_AddStringToObject(function, "description", info->description);
        /* each successful add passes ownership on */
        if (ok && cJSON_AddItemToObject(function, "parameters", parameters)) parameters = NULL;
        if (ok && !parameters && cJSON_AddItemToObject(entry, "function", function))
            function = NULL;
        if (ok && !function && cJSON_AddItemToArray(list, entry)) entry = NULL;
        if (!entry) continue;
        cJSON_Delete(parameters);
        cJSON_Delete(function);
        cJSON_Delete(entry);
        cJSON_Delete(list);
        list = NULL;
    }
    return list;
}
