/* What of a run's ids stays when the user speaks again.
 *
 * DeepSeek's models were trained to think on through any number of calls, and to see none of the
 * earlier thoughts once a new question stands. The ids say where thoughts are: behind the first
 * user token, from <think> to </think>. Cutting ids out of the sequence is what the model's own
 * encoder does with the text, since both markers are tokens that nothing merges with; what the model
 * wrote otherwise stays as it wrote it, id by id.
 *
 *   dsv32, V3.1   <Assistant><think>thought</think>words   ->   <Assistant></think>words
 *   V3.1, going round with <think></think>                 ->   <Assistant><think></think>words
 *   R1                                                     ->   <Assistant>words */
#include "engine/dialect/dialect.h"

#include <stdlib.h>

/* Copies the ids without their thoughts; out has room for n + 2. Returns how many are left. */
static size_t copy_without_thoughts(const weft_dialect *dialect, const int32_t *ids, size_t n,
                                    int32_t *out)
{
    const weft_delimiters *d = &dialect->delimiter;
    bool asked = false; /* the tools' text in front shows a thought, which is none */
    size_t written = 0;
    for (size_t i = 0; i < n;) {
        asked |= ids[i] == d->user;
        if (!asked || ids[i] != d->think) {
            out[written++] = ids[i++];
            continue;
        }
        while (i < n && ids[i] != d->end_think) i++;
        if (i < n) i++;
        if (dialect->variant.empty_thought) out[written++] = d->think;
        if (!dialect->variant.opens_thought) out[written++] = d->end_think;
    }
    return written;
}

weft_status weft_dialect_retain(const weft_dialect *dialect, const int32_t *ids, size_t n,
                                int32_t **out_ids, size_t *out_n, size_t *out_kept, weft_error *err)
{
    size_t written = 0, kept = 0;
    int32_t *list = NULL;
    *out_ids = NULL;
    *out_n = *out_kept = n;
    if (dialect->delimiter.user < 0 || dialect->delimiter.think < 0) return WEFT_OK;
    list = malloc((n + 2) * sizeof *list);
    if (!list) return weft_fail(err, WEFT_E_MEMORY, "drop earlier thoughts: out of memory");
    written = copy_without_thoughts(dialect, ids, n, list);
    while (kept < n && kept < written && list[kept] == ids[kept]) kept++;
    if (kept == n && written == n) {
        free(list);
        return WEFT_OK;
    }
    *out_ids = list;
    *out_n = written;
    *out_kept = kept;
    return WEFT_OK;
}
