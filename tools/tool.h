/* Turns one call into one result: manifests, validation, dispatch, the built-in tools.
 *
 * A toolset knows nothing of models or runs: it gets a name and arguments, and gives back the text
 * the model will see, beside the facts the trace keeps. Tools run in the sandbox
 * (sandbox/sandbox.h).
 */
#ifndef WEFT_TOOL_H
#define WEFT_TOOL_H

#include "base/base.h"
#include "sandbox/sandbox.h"
#include "schemas/schema.h"

typedef struct weft_toolset weft_toolset;

typedef struct weft_toolset_options {
    weft_launcher *launcher; /* borrowed; NULL: tools that need it answer with an error result */
    const char *workspace; /* host directory that is /work; created by the caller; may be NULL when
                                  only definitions are wanted */
    const char *docs;      /* --docs DIR: the local index, or NULL */
    const char *index_cache;    /* directory where the FTS5 database of docs is kept */
    const char *searxng_url;    /* SearXNG base URL, or NULL */
    bool allow_private_network; /* web_fetch may reach private and loopback addresses */
    int64_t output_bytes;       /* cap of what the model sees per result; 0: 16 KiB */
    int64_t seconds;            /* wall-time of one call where the manifest gives none; 0: 60 */
} weft_toolset_options;

/* options are copied (strings too), launcher is borrowed. Starts empty. */
weft_status weft_toolset_new(weft_toolset **out, const weft_toolset_options *options,
                             weft_error *err);
void weft_toolset_free(weft_toolset *set);

/* Adds built-in tools by name, "all" for every one; WEFT_E_USAGE names an unknown one and lists the
 * known. */
weft_status weft_toolset_add_builtin(weft_toolset *set, const char *name, weft_error *err);
/* Adds a manifest file (docs/tools.md). WEFT_E_CONFIG with path, key and rule. */
weft_status weft_toolset_add_manifest(weft_toolset *set, const char *path, weft_error *err);
/* Every *.json of a directory, in name order; a missing directory adds nothing. */
weft_status weft_toolset_add_directory(weft_toolset *set, const char *dir, weft_error *err);

typedef struct weft_tool_info {
    const char *name, *description;
    const cJSON *parameters;   /* JSON Schema */
    const weft_schema *schema; /* compiled */
    bool idempotent;
    const char *approval;              /* "never", "ask", "deny" */
    const char *origin;                /* "built-in" or the manifest's path */
    uint8_t digest[WEFT_DIGEST_BYTES]; /* SHA-256 of the canonical manifest */
} weft_tool_info;

size_t weft_toolset_count(const weft_toolset *set);
/* Borrowed until the set changes. i < count. */
const weft_tool_info *weft_toolset_info(const weft_toolset *set, size_t i);
const weft_tool_info *weft_toolset_find(const weft_toolset *set, const char *name);
/* OpenAI-style [{"type":"function","function":{"name","description","parameters"}}...]; the caller
 * frees it with cJSON_Delete. NULL on lack of memory. */
cJSON *weft_toolset_definitions(const weft_toolset *set);

typedef struct weft_tool_result {
    bool error;          /* the model is told that the call failed */
    char *text;          /* UTF-8 without NUL: what the model sees, capped */
    uint64_t full_bytes; /* size of the whole output before the cap */
    uint8_t full_sha256[WEFT_DIGEST_BYTES];
    char *full; /* whole output (bounded by the sandbox's cap), [n_full] bytes; NULL if = text */
    size_t n_full;
    char *stderr_text; /* for the trace; may be NULL */
    cJSON *facts;      /* object for the trace: exit, signal, hit, wall_ns, cpu_ns, peak_bytes,
                            layers, denials, files; integers and strings only */
} weft_tool_result;

/* Checks name and arguments only. WEFT_OK, or WEFT_E_INVALID with the words the model should read.
 */
weft_status weft_toolset_check(const weft_toolset *set, const char *name, const cJSON *arguments,
                               weft_error *err);

/* Validates, then runs. A tool's failure is WEFT_OK with out->error set (the run goes on); an error
 * status means weft itself cannot go on (WEFT_E_SANDBOX, WEFT_E_MEMORY, WEFT_E_INTERRUPTED when
 * *cancel became non-zero). Thread-safe for different calls. */
weft_status weft_toolset_call(weft_toolset *set, const char *name, const cJSON *arguments,
                              const atomic_int *cancel, weft_tool_result *out, weft_error *err);
void weft_tool_result_free(weft_tool_result *result);

#endif
