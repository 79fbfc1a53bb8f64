/* Opening a model from the command line's options, shared by the verbs that work the engine by
 * hand. */
#ifndef WEFT_AGENT_ENGINE_OPTIONS_H
#define WEFT_AGENT_ENGINE_OPTIONS_H

#include "agent/options.h"
#include "engine/engine.h"

/* --memory, into the engine's options. */
weft_status engine_memory(const weft_options *o, weft_engine_options *out, weft_error *err);
/* -m, --isa, --threads, --memory, --kv-type, --attention, --ctx, --chunk; vocab_only: no weights. A notice about
 * weights that stay in the file goes to standard error. */
weft_status engine_open(const weft_options *o, bool vocab_only, weft_model **out, weft_error *err);
/* --kv-type as the engine names it; WEFT_E_USAGE for another. */
weft_status engine_kv_type(const char *name, weft_kv_type *out, weft_error *err);
/* --attention; WEFT_E_USAGE for a name that is not known. */
weft_status engine_attention(const char *name, bool *out_dense, weft_error *err);
/* A JSON array of token ids below n_vocab; *out is malloc'd. */
weft_status engine_read_ids(const cJSON *list, int64_t n_vocab, int32_t **out, size_t *n,
                            weft_error *err);

#endif
