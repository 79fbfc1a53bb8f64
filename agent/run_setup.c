/* What a run is made of: the body of run.begin from the options, and from that body the tools, the
 * model, the timeline. `resume` enters with a recorded body, so both build the same things. */
#include "agent/engine_options.h"
#include "agent/models.h"
#include "agent/run.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void add_text(cJSON *body, const char *key, const char *text)
{
    if (text && *text) cJSON_AddStringToObject(body, key, text);
}

/* Options whose text run.begin keeps as it is. */
static const weft_option kept[] = {
    OPT_KV_TYPE, OPT_ATTENTION, OPT_CTX,  OPT_ISA,   OPT_THINK, OPT_TOOL_CHOICE,    OPT_TOOLS, OPT_DOCS,
    OPT_SEARXNG, OPT_TEMP, OPT_TOP_P, OPT_MIN_P, OPT_REPEAT_PENALTY, OPT_SEED,  OPT_ALLOW_PRIVATE};
static const weft_option counted[] = {OPT_TOP_K,       OPT_THINK_BUDGET,   OPT_JOBS,
                                      OPT_MAX_TURNS,   OPT_MAX_TOOL_CALLS, OPT_MAX_TOKENS,
                                      OPT_MAX_SECONDS, OPT_MAX_REPEATS};

/* "max_turns" for max-turns. In run.begin `tools` is the list of what is offered, so the option that
 * chose among the built-in ones has another name there. */
static void option_key(weft_option id, char out[32])
{
    size_t n = 0;
    if (id == OPT_TOOLS) {
        memcpy(out, "builtins", sizeof "builtins");
        return;
    }
    for (const char *p = weft_option_table[id].name; *p && n < 31; p++)
        out[n++] = *p == '-' ? '_' : *p;
    out[n] = '\0';
}

weft_status run_read_system(const char *text, weft_buffer *out, weft_error *err)
{
    if (text[0] == '@') return weft_file_read(text + 1, 1 << 20, out, err);
    weft_buffer_puts(out, text);
    return weft_buffer_ok(out, err);
}

static cJSON *tool_list(const weft_toolset *tools)
{
    cJSON *list = cJSON_CreateArray();
    for (size_t i = 0; i < weft_toolset_count(tools); i++) {
        const weft_tool_info *info = weft_toolset_info(tools, i);
        char hex[WEFT_DIGEST_HEX_BYTES];
        cJSON *tool = cJSON_CreateObject();
        cJSON_AddStringToObject(tool, "name", info->name);
        cJSON_AddStringToObject(tool, "origin", info->origin);
        cJSON_AddStringToObject(tool, "digest", weft_hex(info->digest, WEFT_DIGEST_BYTES, hex));
        cJSON_AddBoolToObject(tool, "idempotent", info->idempotent);
        cJSON_AddItemToArray(list, tool);
    }
    return list;
}

static weft_status add_model(weft_run *r, cJSON *body, weft_error *err)
{
    const weft_model_info *info = weft_model_get_info(r->model);
    uint8_t digest[WEFT_DIGEST_BYTES];
    char hex[WEFT_DIGEST_HEX_BYTES];
    weft_status status = models_digest(info->path, digest, err);
    if (status) return status;
    cJSON *model = cJSON_AddObjectToObject(body, "model");
    cJSON_AddStringToObject(model, "path", info->path);
    cJSON_AddStringToObject(model, "name", info->name);
    cJSON_AddStringToObject(model, "architecture", info->architecture);
    cJSON_AddStringToObject(model, "quantisation", info->quantisation);
    cJSON_AddStringToObject(model, "tokenizer", info->pre);
    cJSON_AddStringToObject(model, "sha256", weft_hex(digest, WEFT_DIGEST_BYTES, hex));
    cJSON *engine = cJSON_AddObjectToObject(body, "engine");
    cJSON_AddStringToObject(engine, "build", WEFT_VERSION);
    cJSON_AddStringToObject(engine, "backend", info->backend);
    return WEFT_OK;
}

weft_status run_begin_body(weft_run *r, const char *task, cJSON **out, weft_error *err)
{
    const weft_options *o = r->options;
    weft_buffer system = WEFT_BUFFER_INIT;
    cJSON *body = cJSON_CreateObject();
    weft_status status = add_model(r, body, err);
    if (!status && o->value[OPT_SYSTEM].text) {
        status = run_read_system(o->value[OPT_SYSTEM].text, &system, err);
        if (!status) cJSON_AddStringToObject(body, "system", weft_buffer_str(&system));
    }
    cJSON_AddStringToObject(body, "task", task);
    cJSON_AddStringToObject(body, "dialect", weft_dialect_name(r->dialect));
    cJSON_AddStringToObject(body, "workspace", r->workspace);
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        char key[32];
        option_key(kept[i], key);
        add_text(body, key, weft_option_text(o, kept[i]));
    }
    for (size_t i = 0; i < sizeof counted / sizeof *counted; i++) {
        char key[32];
        option_key(counted[i], key);
        weft_json_add_int(body, key, weft_option_int(o, counted[i]));
    }
    cJSON *manifests = cJSON_AddArrayToObject(body, "manifests");
    for (char **path = o->list[OPT_TOOL]; path && *path; path++) {
        char *whole = realpath(*path, NULL);
        cJSON_AddItemToArray(manifests, cJSON_CreateString(whole ? whole : *path));
        free(whole);
    }
    cJSON_AddItemToObject(body, "tools", tool_list(r->tools));
    char *layers = NULL;
    weft_error none;
    if (!status && r->launcher && !weft_sandbox_check(r->launcher, &layers, &none)) {
        cJSON *json = NULL;
        if (!weft_json_parse(layers, strlen(layers), &json, NULL))
            cJSON_AddItemToObject(body, "sandbox", json);
    }
    free(layers);
    weft_buffer_free(&system);
    if (status)
        cJSON_Delete(body);
    else
        *out = body;
    return status;
}

weft_status run_fork_body(weft_run *r, const cJSON *parent, cJSON **out, weft_error *err)
{
    static const weft_option own[] = {OPT_SEED, OPT_TEMP, OPT_TOP_P, OPT_TOP_K, OPT_MIN_P,
                                      OPT_REPEAT_PENALTY};
    cJSON *body = cJSON_Duplicate(parent, true);
    if (!body) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    cJSON_DeleteItemFromObjectCaseSensitive(body, "workspace");
    cJSON_AddStringToObject(body, "workspace", r->workspace);
    /* only what this call's flags say may differ: the environment must not change a fork */
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
        const weft_value *value = &r->options->value[own[i]];
        char key[32];
        if (!value->text || strcmp(value->origin, "flag") != 0) continue;
        option_key(own[i], key);
        cJSON_DeleteItemFromObjectCaseSensitive(body, key);
        if (own[i] == OPT_TOP_K)
            weft_json_add_int(body, key, weft_option_int(r->options, own[i]));
        else
            cJSON_AddStringToObject(body, key, value->text);
    }
    *out = body;
    return WEFT_OK;
}

/* ---- tools ---- */

/* A setting of the run: from run.begin on resume, else from the options. */
static const char *setting(const weft_run *r, const cJSON *begin, weft_option id)
{
    char key[32];
    if (!begin) return weft_option_text(r->options, id);
    option_key(id, key);
    const char *text = weft_json_string(begin, key);
    return text ? text : weft_option_table[id].fallback;
}

static weft_status add_builtins(weft_toolset *tools, const char *names, weft_error *err)
{
    if (strcmp(names, "none") == 0) return WEFT_OK;
    weft_status status = WEFT_OK;
    for (const char *p = names; *p && !status;) {
        size_t n = strcspn(p, ",");
        char *name = strndup(p, n);
        if (!name) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
        if (n) status = weft_toolset_add_builtin(tools, name, err);
        free(name);
        p += n + (p[n] == ',');
    }
    return status;
}

static weft_status add_manifests(const weft_run *r, const cJSON *begin, weft_error *err)
{
    weft_status status = WEFT_OK;
    if (!begin) {
        for (char **path = r->options->list[OPT_TOOL]; path && *path && !status; path++)
            status = weft_toolset_add_manifest(r->tools, *path, err);
        return status;
    }
    const cJSON *path;
    cJSON_ArrayForEach(path, cJSON_GetObjectItemCaseSensitive(begin, "manifests"))
    {
        if (!status && cJSON_IsString(path))
            status = weft_toolset_add_manifest(r->tools, path->valuestring, err);
    }
    return status;
}

static weft_status add_directories(const weft_run *r, weft_error *err)
{
    weft_status status = weft_toolset_add_directory(r->tools, ".weft/tools", err);
    char *home = weft_config_home(), *dir = home ? weft_path_join(home, "tools") : NULL;
    if (!status && dir) status = weft_toolset_add_directory(r->tools, dir, err);
    free(dir);
    free(home);
    return status;
}

/* A resumed run must have the tools that it began with. */
static weft_status check_tools(const weft_run *r, const cJSON *begin, weft_error *err)
{
    const cJSON *tool;
    cJSON_ArrayForEach(tool, cJSON_GetObjectItemCaseSensitive(begin, "tools"))
    {
        const char *name = weft_json_string(tool, "name"),
                   *digest = weft_json_string(tool, "digest");
        const weft_tool_info *info = name ? weft_toolset_find(r->tools, name) : NULL;
        char hex[WEFT_DIGEST_HEX_BYTES];
        if (!info)
            return weft_fail(err, WEFT_E_CONFIG,
                             "resume %s: its tool %s is gone: put its manifest back", r->id,
                             name ? name : "?");
        if (!digest || strcmp(digest, weft_hex(info->digest, WEFT_DIGEST_BYTES, hex)) != 0)
            return weft_fail(err, WEFT_E_CONFIG,
                             "resume %s: the manifest of its tool %s was changed: %s", r->id, name,
                             "put the old one back, or begin a new run");
    }
    return WEFT_OK;
}

/* --tools-json: OpenAI-style definitions, as an array or under "tools". */
static weft_status read_definitions(weft_run *r, const char *path, weft_error *err)
{
    cJSON *json = NULL;
    weft_status status = weft_json_parse_file(path, &json, err);
    if (status) return status == WEFT_E_INVALID ? WEFT_E_CONFIG : status;
    cJSON *list =
        cJSON_IsArray(json) ? json : cJSON_DetachItemFromObjectCaseSensitive(json, "tools");
    if (list != json) cJSON_Delete(json);
    r->definitions = list;
    size_t n = cJSON_IsArray(list) ? (size_t)cJSON_GetArraySize(list) : 0;
    if (!n)
        return weft_fail(err, WEFT_E_CONFIG, "%s: an array of tool definitions is expected", path);
    r->offered = calloc(n, sizeof *r->offered);
    r->schema = calloc(n, sizeof *r->schema);
    if (!r->offered || !r->schema) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    const cJSON *item;
    cJSON_ArrayForEach(item, list)
    {
        const cJSON *function = cJSON_GetObjectItemCaseSensitive(item, "function");
        const cJSON *parameters = cJSON_GetObjectItemCaseSensitive(function, "parameters");
        const char *name = weft_json_string(function, "name");
        if (!name)
            return weft_fail(err, WEFT_E_CONFIG, "%s: tool %zu has no function.name", path,
                             r->n_offered);
        if (parameters && weft_schema_compile(parameters, &r->schema[r->n_offered], err)) {
            weft_fail_prefix(err, "%s: parameters of %s", path, name);
            return WEFT_E_CONFIG;
        }
        r->offered[r->n_offered] = (weft_turn_tool){name, r->schema[r->n_offered]};
        r->n_offered++;
    }
    return WEFT_OK;
}

weft_status run_open_tools(weft_run *r, const cJSON *begin, weft_error *err)
{
    const char *docs = setting(r, begin, OPT_DOCS), *searxng = setting(r, begin, OPT_SEARXNG);
    char *home = weft_home(), *cache = home ? weft_path_join(home, "index") : NULL;
    weft_toolset_options options = {
        .launcher = r->launcher,
        .workspace = r->workspace,
        .docs = *docs ? docs : NULL,
        .index_cache = cache,
        .searxng_url = *searxng ? searxng : NULL,
        .allow_private_network = strcmp(setting(r, begin, OPT_ALLOW_PRIVATE), "true") == 0,
    };
    weft_status status = weft_toolset_new(&r->tools, &options, err);
    if (!status) status = add_builtins(r->tools, setting(r, begin, OPT_TOOLS), err);
    if (!status) status = add_manifests(r, begin, err);
    if (!status && strcmp(setting(r, begin, OPT_TOOLS), "none") != 0)
        status = add_directories(r, err);
    if (!status && begin) status = check_tools(r, begin, err);
    const char *json = weft_option_text(r->options, OPT_TOOLS_JSON);
    if (!status && *json && !weft_option_flag(r->options, OPT_NO_EXEC))
        status = weft_fail(err, WEFT_E_USAGE,
                           "--tools-json offers tools that cannot be run: give --no-exec too");
    if (!status && *json) status = read_definitions(r, json, err);
    free(cache);
    free(home);
    return status;
}

/* ---- model and timeline ---- */

static int on_load(void *context, const char *what, int64_t done, int64_t total)
{
    weft_run *r = context;
    weft_console_progress(&r->console, what, "bytes", done, total);
    return weft_interrupted;
}

weft_status run_check_model(const weft_run *r, const cJSON *begin, weft_error *err)
{
    const char *recorded =
        weft_json_string(cJSON_GetObjectItemCaseSensitive(begin, "model"), "sha256");
    uint8_t digest[WEFT_DIGEST_BYTES];
    char hex[WEFT_DIGEST_HEX_BYTES];
    weft_status status = models_digest(weft_model_get_info(r->model)->path, digest, err);
    if (status) return status;
    if (!recorded || strcmp(recorded, weft_hex(digest, WEFT_DIGEST_BYTES, hex)) != 0)
        return weft_fail(err, WEFT_E_MODEL,
                         "resume %s: %s is not the model that the run began with: put the "
                         "file back that has the SHA-256 %s",
                         r->id, weft_model_get_info(r->model)->path,
                         recorded ? recorded : "of run.begin");
    return WEFT_OK;
}

/* --draft decides nothing but speed, so it is no part of run.begin. */
static weft_status read_draft(weft_run *r, weft_error *err)
{
    enum { MOST = 7 };
    const char *text = weft_option_text(r->options, OPT_DRAFT);
    char *end;
    long most = strcmp(text, "auto") == 0 ? -1 : strcmp(text, "off") == 0 ? 0 : strtol(text, &end, 10);
    if (most > 0 && (*end || most > MOST)) most = -2;
    if (most < -1 || (most == 0 && strcmp(text, "off") != 0))
        return weft_fail(err, WEFT_E_USAGE, "--draft \"%s\": auto, off or 1 to %d is expected",
                         text, MOST);
    r->draft = (int)most;
    return WEFT_OK;
}

/* Where runs share pages of KV (malloc'd), NULL if they do not. */
static char *prefix_dir(const weft_run *r)
{
    char *home = weft_option_int(r->options, OPT_PREFIX_MB) > 0 ? weft_home() : NULL;
    char *dir = home ? weft_path_join(home, "prefix") : NULL;
    free(home);
    return dir;
}

weft_status run_open_model(weft_run *r, const cJSON *begin, weft_error *err)
{
    const cJSON *model = cJSON_GetObjectItemCaseSensitive(begin, "model");
    const char *name =
        model ? weft_json_string(model, "path") : weft_option_text(r->options, OPT_MODEL);
    const char *isa = weft_option_text(r->options, OPT_ISA);
    const char *dialect =
        begin ? weft_json_string(begin, "dialect") : weft_option_text(r->options, OPT_DIALECT);
    char *path = NULL, *prefix = NULL;
    uint8_t digest[WEFT_DIGEST_BYTES];
    weft_engine_options options = {
        .isa = *isa ? isa : NULL,
        .threads = (int)weft_option_int(r->options, OPT_THREADS),
        .context = strtoll(setting(r, begin, OPT_CTX), NULL, 10),
        .progress = on_load,
        .progress_context = r,
    };
    weft_status status = engine_kv_type(setting(r, begin, OPT_KV_TYPE), &options.kv_type, err);
    if (!status)
        status = engine_attention(setting(r, begin, OPT_ATTENTION), &options.dense_attention, err);
    if (!status) status = engine_memory(r->options, &options, err);
    if (!status) status = read_draft(r, err);
    if (!status) status = models_resolve(name ? name : "", &path, err);
    /* pages are shared between runs of the very same file; whether it is a model, opening says */
    if (!status && !models_digest(path, digest, NULL)) options.file_digest = digest;
    if (!status && options.file_digest) prefix = prefix_dir(r);
    options.prefix_dir = prefix;
    if (!status) status = weft_model_open(&r->model, path, &options, err);
    if (!status && begin) status = run_check_model(r, begin, err);
    if (!status)
        status =
            weft_dialect_open(&r->dialect, r->model, dialect && *dialect ? dialect : NULL, err);
    const char *notice = status ? NULL : weft_model_vocabulary_notice(r->model);
    if (notice && r->console.live) weft_console_notice(&r->console, "%s", notice);
    notice = r->model ? weft_model_memory_notice(r->model) : NULL;
    if (notice) weft_console_notice(&r->console, "%s", notice);
    notice = r->model ? weft_model_unused_notice(r->model) : NULL;
    if (notice && r->console.live) weft_console_notice(&r->console, "%s", notice);
    free(prefix);
    free(path);
    return status;
}

weft_status run_open_timeline(weft_run *r, weft_error *err)
{
    const run_state *s = &r->state;
    const int32_t *forced = NULL;
    size_t n_forced = run_state_forced(s, &forced),
           from_segments = s->phase == RUN_TURN ? s->turn_from : s->n_id;
    char *kv = weft_path_join(r->dir, "kv");
    int32_t *ids = malloc((from_segments + n_forced + 1) * sizeof *ids);
    weft_status status = WEFT_E_MEMORY;
    if (!kv || !ids) {
        weft_fail(err, WEFT_E_MEMORY, "out of memory");
        goto done;
    }
    if (from_segments) memcpy(ids, s->id, from_segments * sizeof *ids);
    if (n_forced) memcpy(ids + from_segments, forced, n_forced * sizeof *ids);
    status = weft_timeline_open_from(&r->timeline, r->model, kv,
                                     r->parent.kv_dir ? &r->parent : NULL, ids,
                                     from_segments + n_forced, err);
    if (!status) status = weft_timeline_guess(r->timeline, r->draft, err);
    if (status) goto done;
    /* the counters live beside the pages: if they were lost, go on from what the trace knows */
    int64_t evaluated = weft_timeline_evaluated(r->timeline);
    int64_t shared = weft_timeline_shared(r->timeline);
    r->evaluated_before = s->evaluated > evaluated ? s->evaluated - evaluated : 0;
    r->shared_before = s->shared > shared ? s->shared - shared : 0;
done:
    free(ids);
    free(kv);
    return status;
}

static int64_t limit_of(const weft_run *r, weft_option id, const char *key)
{
    /* a flag given with `resume` replaces the limit that the run began with */
    if (r->options->value[id].text && strcmp(r->options->value[id].origin, "flag") == 0)
        return weft_option_int(r->options, id);
    return weft_json_int(r->state.begin, key, 0);
}

weft_status run_read_begin(weft_run *r, weft_error *err)
{
    const cJSON *begin = r->state.begin;
    r->limits = (run_limits){
        .turns = limit_of(r, OPT_MAX_TURNS, "max_turns"),
        .tool_calls = limit_of(r, OPT_MAX_TOOL_CALLS, "max_tool_calls"),
        .tokens = limit_of(r, OPT_MAX_TOKENS, "max_tokens"),
        .seconds = limit_of(r, OPT_MAX_SECONDS, "max_seconds"),
        .repeats = limit_of(r, OPT_MAX_REPEATS, "max_repeats"),
    };
    r->sampler = (weft_sampler){
        .temperature = strtod(setting(r, begin, OPT_TEMP), NULL),
        .top_k = (int)weft_json_int(begin, "top_k", 0),
        .top_p = strtod(setting(r, begin, OPT_TOP_P), NULL),
        .min_p = strtod(setting(r, begin, OPT_MIN_P), NULL),
        .repeat_penalty = strtod(setting(r, begin, OPT_REPEAT_PENALTY), NULL),
        .seed = strtoull(setting(r, begin, OPT_SEED), NULL, 10),
    };
    r->elapsed_before_ns = r->state.elapsed_ns;
    if (r->definitions) return WEFT_OK;
    r->n_offered = weft_toolset_count(r->tools);
    r->offered = calloc(r->n_offered ? r->n_offered : 1, sizeof *r->offered);
    if (!r->offered) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    for (size_t i = 0; i < r->n_offered; i++) {
        const weft_tool_info *info = weft_toolset_info(r->tools, i);
        r->offered[i] = (weft_turn_tool){info->name, info->schema};
    }
    return WEFT_OK;
}

void run_close(weft_run *r)
{
    bool had_pages = r->timeline != NULL;
    weft_timeline_close(r->timeline);
    char *prefix = had_pages ? prefix_dir(r) : NULL;
    if (prefix) weft_prefix_trim(prefix, weft_option_int(r->options, OPT_PREFIX_MB) << 20);
    free(prefix);
    if (r->borrowed) {
        if (r->dialect) weft_dialect_forget(r->dialect); /* the toolset's schemas end here */
    } else {
        weft_dialect_close(r->dialect);
        weft_model_close(r->model);
        weft_launcher_stop(r->launcher);
    }
    weft_toolset_free(r->tools);
    run_state_free(&r->state);
    for (size_t i = 0; r->schema && i < r->n_offered; i++) weft_schema_free(r->schema[i]);
    free(r->schema);
    cJSON_Delete(r->definitions);
    free(r->offered);
    free(r->sampled);
    free(r->workspace);
    free(r->dir);
    free(r->id);
}
