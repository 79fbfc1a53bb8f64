/* JSON of layers, denials and the verdict. */
#include "sandbox/report.h"

#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Serialises and frees the tree; NULL means that building it ran out of memory. */
static weft_status canonical_take(cJSON *tree, char **out, weft_error *err)
{
    weft_buffer text = WEFT_BUFFER_INIT;
    weft_status status = tree ? weft_json_canonical(tree, &text, err)
                              : weft_fail(err, WEFT_E_MEMORY, "out of memory for sandbox facts");
    if (!status) status = weft_buffer_ok(&text, err);
    char *taken = status ? NULL : weft_buffer_take(&text);
    if (!status && !taken) status = weft_fail(err, WEFT_E_MEMORY, "out of memory");
    if (!status) *out = taken;
    weft_buffer_free(&text);
    cJSON_Delete(tree);
    return status;
}

static const char *level_text(bool no_proc)
{
    return no_proc ? "no-proc" : "full";
}

static cJSON *layers_tree(sandbox_layers layers, const char *level)
{
    cJSON *tree = cJSON_CreateObject();
    cJSON *list = cJSON_AddObjectToObject(tree, "layers");
    bool ok = list && cJSON_AddStringToObject(tree, "level", level);
    for (int i = 0; ok && i < LAYER_COUNT; i++)
        ok = cJSON_AddBoolToObject(list, sandbox_layer_name((sandbox_layer)i), layers >> i & 1);
    if (ok) return tree;
    cJSON_Delete(tree);
    return NULL;
}

weft_status sandbox_layers_json(sandbox_layers layers, bool no_proc, char **out, weft_error *err)
{
    return canonical_take(layers_tree(layers, level_text(no_proc)), out, err);
}

weft_status sandbox_denials_json(const sandbox_report *report, char **out, weft_error *err)
{
    cJSON *list = cJSON_CreateArray();
    bool ok = list != NULL;
    for (uint32_t i = 0; ok && i < report->n_denials && i < SANDBOX_MAX_DENIALS; i++) {
        char number[24];
        char *name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, report->denials[i].call);
        snprintf(number, sizeof number, "%d", report->denials[i].call);
        cJSON *entry = cJSON_CreateObject();
        ok = entry && cJSON_AddItemToArray(list, entry) &&
             cJSON_AddStringToObject(entry, "call", name ? name : number) &&
             cJSON_AddNumberToObject(entry, "count", report->denials[i].count);
        free(name);
    }
    if (!ok) {
        cJSON_Delete(list);
        list = NULL;
    }
    return canonical_take(list, out, err);
}

weft_status sandbox_verdict_json(const sandbox_verdict *verdict, char **out, weft_error *err)
{
    const char *level =
        verdict->usable ? level_text(!(verdict->layers & 1u << LAYER_PROC)) : "none";
    cJSON *tree = layers_tree(verdict->layers, level);
    cJSON *missing = tree ? cJSON_AddArrayToObject(tree, "missing") : NULL;
    bool ok = missing != NULL;
    for (uint32_t i = 0; ok && i < verdict->n_missing && i < SANDBOX_MAX_MISSING; i++) {
        const sandbox_fault *fault = &verdict->missing[i];
        char cause[256], cure[384], full[SANDBOX_WHAT_BYTES + 384];
        sandbox_cause(fault, cause, sizeof cause, cure, sizeof cure);
        snprintf(full, sizeof full, "%s: %s%s%s", fault->what,
                 fault->error ? strerror(fault->error) : "", fault->error ? ": " : "", cause);
        cJSON *entry = cJSON_CreateObject();
        ok = entry && cJSON_AddItemToArray(missing, entry) &&
             cJSON_AddStringToObject(entry, "layer",
                                     sandbox_layer_name((sandbox_layer)fault->layer)) &&
             cJSON_AddStringToObject(entry, "cause", full) &&
             cJSON_AddStringToObject(entry, "cure", cure);
    }
    if (!ok) {
        cJSON_Delete(tree);
        tree = NULL;
    }
    return canonical_take(tree, out, err);
}
