/* `weft model list|pull|info|rm` over the model store. */
#include "agent/commands.h"
#include "agent/console.h"
#include "agent/engine_options.h"
#include "agent/models.h"
#include "agent/run.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

weft_status cmd_model_list(const weft_options *o, int *exit_code, weft_error *err)
{
    models_entry *list = NULL;
    size_t n = 0;
    weft_status status = models_list(&list, &n, err);
    for (size_t i = 0; i < n && !status; i++) {
        const models_entry *m = &list[i];
        if (weft_option_flag(o, OPT_JSON)) {
            cJSON *line = cJSON_CreateObject();
            cJSON_AddStringToObject(line, "name", m->name);
            cJSON_AddBoolToObject(line, "installed", m->path != NULL);
            if (m->path) cJSON_AddStringToObject(line, "path", m->path);
            weft_json_add_int(line, "bytes", m->bytes);
            if (*m->sha256) cJSON_AddStringToObject(line, "sha256", m->sha256);
            status = print_json(line, err);
        } else {
            printf("%-22s %-10s %7.0f MB  %s\n", m->name, m->path ? "installed" : "known",
                   (double)m->bytes / 1e6, m->known ? m->known->title : "");
        }
    }
    models_list_free(list, n);
    return status;
}

static int on_pull(void *context, const char *what, int64_t done, int64_t total)
{
    weft_console_progress(context, what, "bytes", done, total);
    return weft_interrupted;
}

static void on_notice(void *context, const char *line)
{
    weft_console_notice(context, "%s", line);
}

static void interrupt(int number)
{
    weft_interrupted = number;
}

weft_status cmd_model_pull(const weft_options *o, int *exit_code, weft_error *err)
{
    weft_console console;
    models_pulled pulled = {0};
    if (o->n_argument != 1)
        return weft_fail(
            err, WEFT_E_USAGE,
            "model pull: one of NAME, hf:OWNER/REPO[:FILE], URL, PATH is expected: see "
            "weft model list");
    weft_console_init(&console, weft_option_flag(o, OPT_QUIET), weft_option_text(o, OPT_COLOR));
    signal(SIGINT, interrupt);
    signal(SIGTERM, interrupt);
    models_pull_options options = {.accept_license = weft_option_flag(o, OPT_ACCEPT_LICENSE),
                                   .progress = on_pull,
                                   .notice = on_notice,
                                   .context = &console};
    weft_status status = models_pull(o->argument[0], &options, &pulled, err);
    weft_console_break(&console);
    if (!status)
        printf("%s%s: %s, SHA-256 %s\n", pulled.name, pulled.present ? " is there already" : "",
               pulled.path, pulled.sha256);
    if (status == WEFT_E_INTERRUPTED) *exit_code = 128 + weft_interrupted;
    models_pulled_free(&pulled);
    return status;
}

weft_status cmd_model_rm(const weft_options *o, int *exit_code, weft_error *err)
{
    if (o->n_argument != 1)
        return weft_fail(err, WEFT_E_USAGE, "model rm: one NAME is expected: see weft model list");
    return models_remove(o->argument[0], err);
}

/* What a run takes: fixed + tokens / 1,000 * per_thousand. */
typedef struct needs {
    size_t fixed; /* the weights in memory, the pool of experts, scratch, and the program with its vocabulary */
    size_t per_thousand;
} needs;

static needs needs_of(const weft_model *model, size_t program)
{
    const size_t one = weft_model_memory(model, 64000), two = weft_model_memory(model, 128000);
    const weft_model_info *info = weft_model_get_info(model);
    return (needs){info->weight_bytes + info->pool_bytes + weft_model_memory(model, 0) + program,
                   (two - one) / 64};
}

static void describe(const weft_model_info *info, const char *sha256, const char *dialect,
                     const needs *n, size_t disk)
{
    char pool[160] = "";
    if (info->pool_bytes)
        snprintf(pool, sizeof pool, "; %zu of %zu experts at a time in %.0f MB", info->pool_experts,
                 info->file_experts, (double)info->pool_bytes / 1e6);
    printf(
        "name          %s\npath          %s\nSHA-256       %s\narchitecture  %s\nquantisation  %s\n"
        "parameters    %.0f M\nvocabulary    %lld\nlayers        %lld%s\nwidth         %lld\nheads   "
        "      %lld (%lld KV)\n"
        "context       %lld\ntokenizer     %s %s\ndialect       %s\nfile          %.0f MB\n"
        "memory        %.0f MB of weights, %.0f MB of them left in the file%s\n"
        "              %.0f MB for a run of 1,000 tokens, %.1f MB for each further 1,000 (KV %s)\n"
        "disk          %.1f MB per 1,000 tokens, shared by forks and runs with the same beginning\n",
        info->name, info->path, sha256, info->architecture, info->quantisation,
        (double)info->n_params / 1e6, (long long)info->n_vocab, (long long)info->n_layer,
        info->n_predict ? ", and one that guesses ahead (--draft)" : "",
        (long long)info->n_embd, (long long)info->n_head, (long long)info->n_head_kv,
        (long long)info->context_length, info->tokenizer, info->pre, dialect,
        (double)info->file_bytes / 1e6, (double)(info->weight_bytes + info->mapped_bytes) / 1e6,
        (double)info->mapped_bytes / 1e6, pool, (double)(n->fixed + n->per_thousand) / 1e6,
        (double)n->per_thousand / 1e6, weft_kv_type_name(info->kv_type), (double)disk / 1e6);
}

static void add_needs(cJSON *out, const weft_model_info *info, const needs *n)
{
    cJSON *memory = cJSON_AddObjectToObject(out, "memory");
    weft_json_add_int(memory, "weight_bytes", (int64_t)info->weight_bytes);
    weft_json_add_int(memory, "mapped_bytes", (int64_t)info->mapped_bytes);
    weft_json_add_int(memory, "pool_bytes", (int64_t)info->pool_bytes);
    weft_json_add_int(memory, "pool_experts", (int64_t)info->pool_experts);
    weft_json_add_int(memory, "file_experts", (int64_t)info->file_experts);
    if (info->least_bytes) weft_json_add_int(memory, "least_bytes", (int64_t)info->least_bytes);
    weft_json_add_int(memory, "fixed_bytes", (int64_t)n->fixed);
    weft_json_add_int(memory, "bytes_per_1000_tokens", (int64_t)n->per_thousand);
}

weft_status cmd_model_info(const weft_options *o, int *exit_code, weft_error *err)
{
    weft_model *model = NULL;
    weft_dialect *dialect = NULL;
    weft_error none;
    uint8_t digest[WEFT_DIGEST_BYTES];
    char hex[WEFT_DIGEST_HEX_BYTES];
    weft_status status = engine_open(o, true, &model, err);
    if (status) return status;
    const weft_model_info *info = weft_model_get_info(model);
    const needs n = needs_of(model, weft_memory_resident());
    status = models_digest(info->path, digest, err);
    if (!status) {
        weft_hex(digest, sizeof digest, hex);
        bool speaks = weft_dialect_open(&dialect, model, NULL, &none) == WEFT_OK;
        const char *name = speaks ? weft_dialect_name(dialect) : "none: text only";
        const size_t disk = info->kv_page_file_bytes * 1000 / 64; /* a page holds 64 tokens */
        if (weft_option_flag(o, OPT_JSON)) {
            cJSON *out = cJSON_CreateObject();
            cJSON_AddStringToObject(out, "name", info->name);
            cJSON_AddStringToObject(out, "path", info->path);
            cJSON_AddStringToObject(out, "sha256", hex);
            cJSON_AddStringToObject(out, "architecture", info->architecture);
            cJSON_AddStringToObject(out, "quantisation", info->quantisation);
            weft_json_add_int(out, "parameters", info->n_params);
            weft_json_add_int(out, "vocabulary", info->n_vocab);
            weft_json_add_int(out, "layers", info->n_layer);
            weft_json_add_int(out, "prediction_layers", info->n_predict);
            weft_json_add_int(out, "width", info->n_embd);
            weft_json_add_int(out, "heads", info->n_head);
            weft_json_add_int(out, "kv_heads", info->n_head_kv);
            weft_json_add_int(out, "context_length", info->context_length);
            cJSON_AddStringToObject(out, "tokenizer", info->tokenizer);
            cJSON_AddStringToObject(out, "pre", info->pre);
            cJSON_AddStringToObject(out, "dialect", name);
            weft_json_add_int(out, "file_bytes", (int64_t)info->file_bytes);
            cJSON_AddStringToObject(out, "kv_type", weft_kv_type_name(info->kv_type));
            weft_json_add_int(out, "bytes_per_1000_tokens", (int64_t)n.per_thousand);
            weft_json_add_int(out, "disk_bytes_per_1000_tokens", (int64_t)disk);
            add_needs(out, info, &n);
            cJSON_AddItemToObject(out, "tensor_types", weft_model_tensor_types(model));
            status = print_json(out, err);
        } else {
            describe(info, hex, name, &n, disk);
        }
    }
    weft_dialect_close(dialect);
    weft_model_close(model);
    return status;
}
