/* Writes GGUF bytes for tests, the broken ones too: every count and offset can be set by hand. */
#ifndef WEFT_TESTS_GGUF_BUILD_H
#define WEFT_TESTS_GGUF_BUILD_H

#include "base/base.h"

#include <stdio.h>
#include <string.h>

enum {
    G_U8 = 0,
    G_I8,
    G_U16,
    G_I16,
    G_U32,
    G_I32,
    G_F32,
    G_BOOL,
    G_STRING,
    G_ARRAY,
    G_U64,
    G_I64,
    G_F64
};

typedef struct gguf_build {
    uint32_t version; /* 0: 3 */
    uint64_t n_values, n_tensors;
    size_t alignment; /* 0: 32 */
    weft_buffer values, tensors, data;
} gguf_build;

static inline void put_u32(weft_buffer *b, uint32_t v)
{
    weft_buffer_append(b, &v, sizeof v);
}

static inline void put_u64(weft_buffer *b, uint64_t v)
{
    weft_buffer_append(b, &v, sizeof v);
}

static inline void put_text(weft_buffer *b, const char *text)
{
    put_u64(b, strlen(text));
    weft_buffer_puts(b, text);
}

/* A key with raw value bytes behind its type. */
static inline void build_value(gguf_build *g, const char *key, uint32_t type, const void *bytes,
                               size_t n)
{
    put_text(&g->values, key);
    put_u32(&g->values, type);
    weft_buffer_append(&g->values, bytes, n);
    g->n_values++;
}

static inline void build_u32(gguf_build *g, const char *key, uint32_t v)
{
    build_value(g, key, G_U32, &v, sizeof v);
}

static inline void build_text(gguf_build *g, const char *key, const char *text)
{
    build_value(g, key, G_STRING, NULL, 0);
    put_text(&g->values, text);
}

/* The head of an array; its elements are appended to g->values by the caller. */
static inline void build_array(gguf_build *g, const char *key, uint32_t type, uint64_t n)
{
    build_value(g, key, G_ARRAY, NULL, 0);
    put_u32(&g->values, type);
    put_u64(&g->values, n);
}

static inline void build_texts(gguf_build *g, const char *key, const char *const *text, size_t n)
{
    build_array(g, key, G_STRING, n);
    for (size_t i = 0; i < n; i++) put_text(&g->values, text[i]);
}

static inline void build_tensor_at(gguf_build *g, const char *name, uint32_t n_dims,
                                   const uint64_t *dim, uint32_t type, uint64_t offset)
{
    put_text(&g->tensors, name);
    put_u32(&g->tensors, n_dims);
    for (uint32_t d = 0; d < n_dims; d++) put_u64(&g->tensors, dim[d]);
    put_u32(&g->tensors, type);
    put_u64(&g->tensors, offset);
    g->n_tensors++;
}

/* A tensor whose data follows what is there, padded to the alignment. */
static inline void build_tensor(gguf_build *g, const char *name, uint64_t columns, uint64_t rows,
                                uint32_t type, const void *bytes, size_t n)
{
    size_t alignment = g->alignment ? g->alignment : 32;
    while (g->data.size % alignment) weft_buffer_putc(&g->data, 0);
    build_tensor_at(g, name, 2, (uint64_t[]){columns, rows}, type, g->data.size);
    weft_buffer_append(&g->data, bytes, n);
}

/* Appends the file to out; g is empty again. */
static inline void build_finish(gguf_build *g, weft_buffer *out)
{
    size_t alignment = g->alignment ? g->alignment : 32, start = out->size;
    weft_buffer_puts(out, "GGUF");
    put_u32(out, g->version ? g->version : 3);
    put_u64(out, g->n_tensors);
    put_u64(out, g->n_values);
    weft_buffer_append(out, g->values.data, g->values.size);
    weft_buffer_append(out, g->tensors.data, g->tensors.size);
    if (g->data.size)
        while ((out->size - start) % alignment) weft_buffer_putc(out, 0);
    weft_buffer_append(out, g->data.data, g->data.size);
    weft_buffer_free(&g->values);
    weft_buffer_free(&g->tensors);
    weft_buffer_free(&g->data);
    *g = (gguf_build){0};
}

#endif
