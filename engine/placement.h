/* Where each matrix of a model lives: repacked in memory, in the file, or, an expert, in the file and for as long
 * as it is worth it in a pool. Private to engine/.
 *
 * Decided once, before anything is loaded, from the tensors' sizes and a budget; so `weft model info` can
 * say it without loading. If not everything fits, the experts of all layers stay in the file and share a pool; it
 * has room for what one token takes at the least. What every token reads (attention, output, dense and
 * shared feed-forward) comes first, in the file's order; what is left of the budget is the pool's, by layers
 * evenly: each of them is asked for as many experts a token. Nothing of this can be seen in the logits.
 */
#ifndef WEFT_ENGINE_PLACEMENT_H
#define WEFT_ENGINE_PLACEMENT_H

#include "engine/engine.h"
#include "engine/gguf.h"

typedef struct weft_placement {
    bool *in_memory;                   /* [tensors of the file] */
    size_t memory_bytes, mapped_bytes; /* of the matrices: repacked, and what stays in the file, experts too */
    uint32_t *slots;                   /* [n_layer] experts of a layer that the pool holds; 0: it needs none */
    uint32_t n_layer;
    size_t pool_bytes, n_slot, n_expert; /* of all layers; n_expert: those that stay in the file */
    size_t budget;                       /* of the matrices; SIZE_MAX: none is known */
    size_t fixed;                        /* what the process takes beside */
    size_t least;                        /* the smallest limit of the whole process */
} weft_placement;

/* n_layer: layers that are loaded. `fixed` counts with a limit of the whole process; n_used: experts that a token
 * takes. */
weft_status weft_placement_new(weft_placement *out, const weft_gguf *file, uint32_t n_layer, size_t fixed,
                               uint32_t n_used, const weft_engine_options *options, weft_error *err);
void weft_placement_free(weft_placement *placement);
/* WEFT_E_LIMIT if the whole process was to take less than it needs. */
weft_status weft_placement_check(const weft_placement *placement, const weft_engine_options *options,
                                 weft_error *err);
bool weft_placement_in_memory(const weft_placement *placement, const weft_gguf *file,
                              const weft_tensor *tensor);
uint32_t weft_placement_slots(const weft_placement *placement, uint32_t layer);
/* One line for the user if something stays in the file: what, why, what it costs. NULL if nothing does,
 * or on lack of memory (*memory). */
char *weft_placement_notice(const weft_placement *placement, const weft_engine_options *options,
                            bool *memory);

#endif
