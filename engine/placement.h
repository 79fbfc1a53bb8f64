/* Where each matrix of a model lives: repacked in memory, or left in its file. Private to engine/.
 *
 * Decided once, before anything is loaded, from the tensors' sizes and a budget; so `weft model info` can
 * say it without loading. What every token reads comes first (attention, output, dense feed-forward),
 * experts after it, each in the file's order: of a stack of experts a token reads a few, so that what is
 * left in the file is what is read least. Nothing of this can be seen in the logits.
 */
#ifndef WEFT_ENGINE_PLACEMENT_H
#define WEFT_ENGINE_PLACEMENT_H

#include "engine/engine.h"
#include "engine/gguf.h"

typedef struct weft_placement {
    bool *in_memory;             /* [tensors of the file] */
    size_t memory_bytes, mapped_bytes; /* of the matrices, each about its size in the file */
    size_t budget;               /* SIZE_MAX: none is known */
} weft_placement;

weft_status weft_placement_new(weft_placement *out, const weft_gguf *file,
                               const weft_engine_options *options, weft_error *err);
void weft_placement_free(weft_placement *placement);
bool weft_placement_in_memory(const weft_placement *placement, const weft_gguf *file,
                              const weft_tensor *tensor);
/* One line for the user if something stays in the file: what, why, what it costs. NULL if nothing does,
 * or on lack of memory (*memory). */
char *weft_placement_notice(const weft_placement *placement, const weft_engine_options *options,
                            bool *memory);

#endif
