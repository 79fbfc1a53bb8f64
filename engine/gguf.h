/* GGUF v2/v3 files, memory-mapped. Private to engine/.
 *
 * Every offset, count, dimension, string length, alignment and type is checked against the file's size
 * at open, so that whatever the accessors return lies inside the mapping. A hostile file gets
 * WEFT_E_MODEL with one clear line. Split files (split.count > 1) are opened as one.
 * Source: the GGUF specification; block sizes: docs/gguf.md.
 */
#ifndef WEFT_ENGINE_GGUF_H
#define WEFT_ENGINE_GGUF_H

#include "base/base.h"

typedef struct weft_gguf weft_gguf;

/* Tensor types with their GGUF numbers. X(name, number, block weights, block bytes) */
#define WEFT_TENSOR_TYPES(X)                                                                       \
    X(F32, 0, 1, 4)                                                                                \
    X(F16, 1, 1, 2)                                                                                \
    X(Q4_0, 2, 32, 18)                                                                             \
    X(Q4_1, 3, 32, 20)                                                                             \
    X(Q5_0, 6, 32, 22)                                                                             \
    X(Q5_1, 7, 32, 24)                                                                             \
    X(Q8_0, 8, 32, 34)                                                                             \
    X(Q2_K, 10, 256, 84)                                                                           \
    X(Q3_K, 11, 256, 110)                                                                          \
    X(Q4_K, 12, 256, 144)                                                                          \
    X(Q5_K, 13, 256, 176)                                                                          \
    X(Q6_K, 14, 256, 210)                                                                          \
    X(IQ2_XXS, 16, 256, 66)                                                                        \
    X(IQ2_XS, 17, 256, 74)                                                                         \
    X(IQ3_XXS, 18, 256, 98)                                                                        \
    X(IQ1_S, 19, 256, 50)                                                                          \
    X(IQ4_NL, 20, 32, 18)                                                                          \
    X(IQ3_S, 21, 256, 110)                                                                         \
    X(IQ2_S, 22, 256, 82)                                                                          \
    X(IQ4_XS, 23, 256, 136)                                                                        \
    X(IQ1_M, 29, 256, 56)                                                                          \
    X(BF16, 30, 1, 2)                                                                              \
    X(TQ1_0, 34, 256, 54)                                                                          \
    X(TQ2_0, 35, 256, 66)                                                                          \
    X(MXFP4, 39, 32, 17)                                                                           \
    X(NVFP4, 40, 64, 36)                                                                           \
    X(Q1_0, 41, 128, 18)                                                                           \
    X(Q2_0, 42, 64, 18)

typedef enum weft_tensor_type {
#define X(name, number, weights, bytes) WEFT_##name = number,
    WEFT_TENSOR_TYPES(X)
#undef X
} weft_tensor_type;

const char *weft_tensor_type_name(weft_tensor_type type);
/* Weights and bytes of one block; false for a type that is not in the table. */
bool weft_tensor_block(weft_tensor_type type, size_t *weights, size_t *bytes);

typedef struct weft_tensor_file {
    int fd;
    const char *path;
} weft_tensor_file;

typedef struct weft_tensor {
    const char *name;      /* NUL-terminated */
    weft_tensor_type type;
    uint32_t n_dims;       /* 1..4 */
    uint64_t dim[4];       /* dim[0] is the contiguous one (columns); unused are 1 */
    const void *data;      /* inside the mapping, for tests and bytes in memory: see weft_tensor_read */
    size_t bytes;
    const weft_tensor_file *file; /* NULL: the bytes lie in memory alone */
    size_t offset;                /* of data in it */
} weft_tensor;

/* path of a split model: its first part. */
weft_status weft_gguf_open(weft_gguf **out, const char *path, weft_error *err);
/* Over bytes that outlive the file; not for split models. Tensor data is aligned as bytes is. */
weft_status weft_gguf_open_memory(weft_gguf **out, const void *bytes, size_t n, weft_error *err);
void weft_gguf_close(weft_gguf *file);

size_t weft_gguf_tensor_count(const weft_gguf *file);
const weft_tensor *weft_gguf_tensor_at(const weft_gguf *file, size_t i);
/* NULL if there is none of that name. */
const weft_tensor *weft_gguf_tensor_find(const weft_gguf *file, const char *name);

/* Metadata. The bool says whether the key is there with a fitting type; *out is untouched otherwise.
 * Integers of every width convert to int64_t (u64 above INT64_MAX does not fit). */
typedef struct weft_text {
    const char *data; /* not NUL-terminated, lies in the mapping */
    size_t size;
} weft_text;
bool weft_gguf_text(const weft_gguf *file, const char *key, weft_text *out);
bool weft_gguf_int(const weft_gguf *file, const char *key, int64_t *out);
bool weft_gguf_float(const weft_gguf *file, const char *key, double *out);
bool weft_gguf_bool(const weft_gguf *file, const char *key, bool *out);
/* Array length, 0 if it is none; elements by index (< length). */
size_t weft_gguf_array(const weft_gguf *file, const char *key);
bool weft_gguf_array_text(const weft_gguf *file, const char *key, size_t i, weft_text *out);
bool weft_gguf_array_int(const weft_gguf *file, const char *key, size_t i, int64_t *out);
bool weft_gguf_array_float(const weft_gguf *file, const char *key, size_t i, double *out);

/* The keys, in file order. */
size_t weft_gguf_key_count(const weft_gguf *file);
weft_text weft_gguf_key_at(const weft_gguf *file, size_t i);

/* All parts together. */
size_t weft_gguf_file_bytes(const weft_gguf *file);
/* Digest of what identifies the file cheaply: header, metadata, tensor table, size, and 4 KiB samples
 * spread over the data. */
weft_status weft_gguf_fingerprint(const weft_gguf *file, uint8_t out[WEFT_DIGEST_BYTES],
                                  weft_error *err);

/* Copies n bytes of the tensor, from byte `at` on. Of a file they are read, not looked up in the mapping: if
 * somebody has cut the file, this is WEFT_E_STORAGE, where the mapping would end the process. */
weft_status weft_tensor_read(const weft_tensor *tensor, size_t at, size_t n, void *out,
                             weft_error *err);
/* Tells the kernel that these bytes will be read: it begins, nobody waits. */
void weft_tensor_ahead(const weft_tensor *tensor, size_t at, size_t n);

#endif
