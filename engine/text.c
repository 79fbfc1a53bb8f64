/* Text and ids: the public face of the tokenizer. */
#include "engine/model.h"

weft_status weft_encode(const weft_model *model, const weft_span *spans, size_t n_spans,
                        int32_t **out_ids, size_t **out_from, size_t *out_n, weft_error *err) {
    return weft_tokenizer_encode(model->tokenizer, spans, n_spans, out_ids, out_from, out_n, err);
}

void weft_decode(const weft_model *model, const int32_t *ids, size_t n, bool with_control,
                 weft_buffer *out) {
    for (size_t i = 0; i < n; i++) {
        weft_text bytes = weft_tokenizer_bytes(model->tokenizer, ids[i], with_control);
        weft_buffer_append(out, bytes.data, bytes.size);
    }
}

const char *weft_segment_name(weft_segment segment) {
    static const char *const names[] = {
        [WEFT_SYSTEM] = "system", [WEFT_USER] = "user",     [WEFT_THOUGHT] = "thought",
        [WEFT_CALL] = "call",     [WEFT_RESULT] = "result", [WEFT_ANSWER] = "answer"};
    return (size_t)segment < sizeof names / sizeof *names ? names[segment] : "unknown";
}
