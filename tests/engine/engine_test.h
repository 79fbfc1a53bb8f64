/* Shared by the tests of models and timelines: fixtures, temporary directories, digests of logits.
 */
#ifndef WEFT_TESTS_ENGINE_TEST_H
#define WEFT_TESTS_ENGINE_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/ops.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHECK(call)                                                                                \
    do {                                                                                           \
        weft_error check_error = {0};                                                              \
        weft_error *err = &check_error;                                                            \
        if ((call) != WEFT_OK) fail_msg("%s", check_error.message);                                \
    } while (0)

/* tests/data/<name>; the returned text lives until the next call. */
static inline const char *data_path(const char *name) {
    static char path[4096];
    const char *root = getenv("WEFT_TEST_DATA");
    if (!root) fail_msg("WEFT_TEST_DATA is not set: run through meson test");
    snprintf(path, sizeof path, "%s/%s", root, name);
    return path;
}

static inline char *make_temp_dir(void) {
    const char *root = getenv("TMPDIR");
    char path[4096];
    snprintf(path, sizeof path, "%s/weft-test-XXXXXX", root ? root : "/tmp");
    if (!mkdtemp(path)) fail_msg("mkdtemp %s failed", path);
    return strdup(path);
}

static inline void remove_temp_dir(char *path) {
    CHECK(weft_remove_tree(path, err));
    free(path);
}

/* A file of tests/data/logits. */
typedef struct fixture {
    cJSON *json;
    int32_t *ids; /* [n] */
    size_t n;
} fixture;

static inline fixture fixture_open(const char *name) {
    fixture f = {0};
    char relative[256];
    snprintf(relative, sizeof relative, "logits/%s.json", name);
    CHECK(weft_json_parse_file(data_path(relative), &f.json, err));
    const cJSON *ids = cJSON_GetObjectItem(f.json, "ids"), *id;
    f.ids = malloc(sizeof(int32_t) * (size_t)cJSON_GetArraySize(ids));
    cJSON_ArrayForEach(id, ids) f.ids[f.n++] = (int32_t)id->valuedouble;
    return f;
}

static inline void fixture_close(fixture *f) {
    cJSON_Delete(f->json);
    free(f->ids);
}

static inline weft_model *model_open(const char *path, const weft_engine_options *options) {
    weft_model *model = NULL;
    CHECK(weft_model_open(&model, path, options, err));
    return model;
}

/* One digest a position. */
typedef struct digests {
    uint8_t (*at)[WEFT_DIGEST_BYTES]; /* [n] */
    size_t n, n_vocab;
    size_t visited;
} digests;

static inline digests digests_new(const weft_model *model, size_t n) {
    digests d = {calloc(n, WEFT_DIGEST_BYTES), n, (size_t)weft_model_get_info(model)->n_vocab, 0};
    assert_non_null(d.at);
    return d;
}

static inline void digests_visit(void *context, int64_t position, const float *logits) {
    digests *d = context;
    assert_true(position >= 0 && (size_t)position < d->n);
    weft_blake2b_of(NULL, 0, logits, d->n_vocab * sizeof *logits, d->at[position]);
    d->visited++;
}

/* Digests of the positions from `from` on must be equal. */
static inline void digests_compare(const digests *a, const digests *b, size_t from, size_t to,
                                   const char *what) {
    for (size_t i = from; i < to; i++)
        if (memcmp(a->at[i], b->at[i], WEFT_DIGEST_BYTES) != 0)
            fail_msg("%s: the logits differ at position %zu", what, i);
}

/* Evaluates all ids on a fresh timeline in memory. */
static inline digests digests_of(weft_model *model, const int32_t *ids, size_t n) {
    digests d = digests_new(model, n);
    weft_timeline *t = NULL;
    CHECK(weft_timeline_open(&t, model, NULL, ids, n, err));
    CHECK(weft_timeline_evaluate_each(t, digests_visit, &d, err));
    assert_int_equal(d.visited, n);
    weft_timeline_close(t);
    return d;
}

/* True if this CPU has the instruction set. */
static inline bool isa_usable(const char *isa) {
    weft_backend *backend = NULL;
    const weft_ops *ops;
    bool usable = weft_cpu_backend_new(&backend, &ops, isa, 1, NULL) == WEFT_OK;
    if (usable) weft_cpu_backend_free(backend);
    return usable;
}

#endif
