/* A script: the labelled text that a dialect writes, and its ids.
 *
 * Spans hold sizes only while the script grows, since the text may move; weft_script_spans sets
 * their pointers at the end. A failed allocation marks the buffer, so that writers need no checks
 * of their own. */
#include "engine/dialect/dialect.h"

#include <stdlib.h>
#include <string.h>

void weft_script_free(weft_script *script)
{
    if (!script) return;
    weft_buffer_free(&script->text);
    free(script->span);
    *script = (weft_script){0};
}

void weft_script_put(weft_script *script, weft_trust trust, weft_segment segment, const char *text,
                     size_t n)
{
    if (n == 0 || script->text.failed) return;
    weft_span *last = script->n ? &script->span[script->n - 1] : NULL;
    if (!last || last->trust != trust || last->segment != segment) {
        if (script->n == script->capacity) {
            size_t more = script->capacity ? 2 * script->capacity : 16;
            weft_span *grown = realloc(script->span, more * sizeof *grown);
            if (!grown) {
                script->text.failed = true;
                return;
            }
            script->span = grown;
            script->capacity = more;
        }
        last = &script->span[script->n++];
        *last = (weft_span){NULL, 0, trust, segment};
    }
    weft_buffer_append(&script->text, text, n);
    last->size += n;
}

void weft_script_puts(weft_script *script, weft_trust trust, weft_segment segment, const char *text)
{
    weft_script_put(script, trust, segment, text, strlen(text));
}

weft_status weft_script_ok(const weft_script *script, weft_error *err)
{
    return weft_buffer_ok(&script->text, err);
}

const weft_span *weft_script_spans(weft_script *script)
{
    const char *at = weft_buffer_str(&script->text);
    for (size_t i = 0; i < script->n; i++) {
        script->span[i].text = at;
        at += script->span[i].size;
    }
    return script->span;
}

weft_status weft_script_encode_with(const weft_tokenizer *tokenizer, weft_script *script,
                                    int32_t **out_ids, weft_segment **out_segment, size_t *out_n,
                                    weft_error *err)
{
    int32_t *ids = NULL;
    size_t *from = NULL, n = 0;
    weft_segment *segment = NULL;
    const weft_span *span = weft_script_spans(script);
    weft_status status = weft_tokenizer_encode(tokenizer, span, script->n, &ids,
                                               out_segment ? &from : NULL, &n, err);
    if (!status && out_segment) {
        segment = malloc((n ? n : 1) * sizeof *segment);
        if (!segment) status = weft_fail(err, WEFT_E_MEMORY, "label %zu tokens: out of memory", n);
    }
    if (status) goto done;
    if (segment) {
        /* a token that a merge drew over a span's border takes the label of its first byte */
        size_t at = 0, end = script->n ? span[0].size : 0;
        for (size_t i = 0; i < n; i++) {
            while (from[i] >= end && at + 1 < script->n) end += span[++at].size;
            segment[i] = span[at].segment;
        }
        *out_segment = segment;
    }
    *out_ids = ids;
    *out_n = n;
    ids = NULL;
done:
    free(ids);
    free(from);
    return status;
}
