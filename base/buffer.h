/* A growing byte string.
 *
 * Invariants: data is NUL-terminated whenever it is not NULL, size excludes that NUL; a failed
 * allocation sets `failed`, frees nothing that was there and turns every later append into a no-op,
 * so a chain of appends is checked once at its end with weft_buffer_ok().
 * Life cycle: WEFT_BUFFER_INIT (or zeroed) -> append ... -> weft_buffer_free, or _take.
 */
#ifndef WEFT_BASE_BUFFER_H
#define WEFT_BASE_BUFFER_H

#include "base/error.h"

#include <stdint.h>

typedef struct weft_buffer {
    char *data; /* [size + 1] or NULL while empty */
    size_t size;
    size_t capacity;
    bool failed;
} weft_buffer;

#define WEFT_BUFFER_INIT                                                                           \
    {                                                                                              \
        NULL, 0, 0, false                                                                          \
    }

void weft_buffer_append(weft_buffer *b, const void *bytes, size_t n);
void weft_buffer_puts(weft_buffer *b, const char *text);
void weft_buffer_putc(weft_buffer *b, char c);
void weft_buffer_printf(weft_buffer *b, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Room for n more bytes at the returned place (NULL on failure); commit with b->size += n. */
char *weft_buffer_reserve(weft_buffer *b, size_t n);
/* Size becomes 0, memory is kept. */
void weft_buffer_clear(weft_buffer *b);
/* The string as a malloc'd, NUL-terminated pointer that the caller frees; b becomes empty.
 * NULL if the buffer failed. */
char *weft_buffer_take(weft_buffer *b);
void weft_buffer_free(weft_buffer *b);
/* WEFT_OK, or WEFT_E_MEMORY with err filled if any append since init failed. */
weft_status weft_buffer_ok(const weft_buffer *b, weft_error *err);
/* Never NULL: "" for an empty buffer. */
const char *weft_buffer_str(const weft_buffer *b);

/* Overflow-checked size arithmetic for values that come from files. True: it overflowed. */
static inline bool weft_size_mul(size_t a, size_t b, size_t *out)
{
    return __builtin_mul_overflow(a, b, out);
}
static inline bool weft_size_add(size_t a, size_t b, size_t *out)
{
    return __builtin_add_overflow(a, b, out);
}

#endif
