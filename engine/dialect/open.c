/* The dialect of a model: the two public functions that need the model itself. */
#include "engine/dialect/dialect.h"
#include "engine/model.h"

weft_status weft_dialect_open(weft_dialect **out, const weft_model *model, const char *name,
                              weft_error *err)
{
    const weft_model_info *info = weft_model_get_info(model);
    return weft_dialect_new(out, weft_model_tokenizer(model), info->architecture,
                            info->chat_template, name, err);
}

weft_status weft_script_encode(const weft_model *model, weft_script *script, int32_t **out_ids,
                               weft_segment **out_segment, size_t *out_n, weft_error *err)
{
    return weft_script_encode_with(weft_model_tokenizer(model), script, out_ids, out_segment, out_n,
                                   err);
}
