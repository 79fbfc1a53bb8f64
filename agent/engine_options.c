/* Opening a model from the command line's options. */
#include "agent/engine_options.h"

#include "agent/models.h"

#include <stdlib.h>
#include <string.h>

weft_status engine_kv_type(const char *name, weft_kv_type *out, weft_error *err)
{
    if (weft_kv_type_find(name, out)) return WEFT_OK;
    return weft_fail(err, WEFT_E_USAGE, "--kv-type %s: unknown; choose f16, f32 or q8_0", name);
}

weft_status engine_attention(const char *name, bool *out_dense, weft_error *err)
{
    *out_dense = strcmp(name, "dense") == 0;
    if (*out_dense || strcmp(name, "sparse") == 0) return WEFT_OK;
    return weft_fail(err, WEFT_E_USAGE, "--attention %s: unknown; choose sparse or dense", name);
}

weft_status engine_memory(const weft_options *o, weft_engine_options *out, weft_error *err)
{
    const char *text = weft_option_text(o, OPT_MEMORY);
    out->limit_process = strcmp(text, "auto") != 0;
    if (out->limit_process && weft_memory_parse(text, &out->memory, err))
        return weft_fail_prefix(err, "--memory");
    return WEFT_OK;
}

weft_status engine_open(const weft_options *o, bool vocab_only, weft_model **out, weft_error *err)
{
    const char *isa = weft_option_text(o, OPT_ISA);
    char *path = NULL;
    weft_engine_options options = {
        .engine = weft_option_text(o, OPT_ENGINE),
        .isa = *isa ? isa : NULL,
        .threads = (int)weft_option_int(o, OPT_THREADS),
        .context = weft_option_int(o, OPT_CTX),
        .chunk = (int)weft_option_int(o, OPT_CHUNK),
        .vocab_only = vocab_only,
    };
    weft_status status = engine_kv_type(weft_option_text(o, OPT_KV_TYPE), &options.kv_type, err);
    if (!status)
        status = engine_attention(weft_option_text(o, OPT_ATTENTION), &options.dense_attention, err);
    if (!status) status = engine_memory(o, &options, err);
    if (!status) status = models_resolve(weft_option_text(o, OPT_MODEL), &path, err);
    if (!status) status = weft_model_open(out, path, &options, err);
    const char *notice = status || vocab_only ? NULL : weft_model_memory_notice(*out);
    if (notice) fprintf(stderr, "weft: %s\n", notice);
    notice = status || vocab_only ? NULL : weft_model_unused_notice(*out);
    if (notice) fprintf(stderr, "weft: %s\n", notice);
    free(path);
    return status;
}

weft_status engine_read_ids(const cJSON *list, int64_t n_vocab, int32_t **out, size_t *n,
                            weft_error *err)
{
    const cJSON *item;
    size_t count = 0;
    if (!cJSON_IsArray(list))
        return weft_fail(err, WEFT_E_CONFIG, "a JSON array of token ids is expected");
    int32_t *ids = calloc((size_t)cJSON_GetArraySize(list) + 1, sizeof *ids);
    if (!ids) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    cJSON_ArrayForEach(item, list)
    {
        if (!cJSON_IsNumber(item) || item->valuedouble < 0 ||
            item->valuedouble >= (double)n_vocab ||
            item->valuedouble != (double)(int64_t)item->valuedouble) {
            free(ids);
            return weft_fail(err, WEFT_E_CONFIG, "entry %zu is no token id below %lld", count,
                             (long long)n_vocab);
        }
        ids[count++] = (int32_t)item->valuedouble;
    }
    *out = ids;
    *n = count;
    return WEFT_OK;
}
