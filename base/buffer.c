/* Growing byte string: doubles, never shrinks, keeps a NUL behind the content. */
#include "base/buffer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

char *weft_buffer_reserve(weft_buffer *b, size_t n)
{
    if (b->failed) return NULL;
    size_t need;
    if (weft_size_add(b->size, n, &need) || weft_size_add(need, 1, &need)) goto fail;
    if (need > b->capacity) {
        size_t capacity = b->capacity ? b->capacity : 64;
        while (capacity < need)
            if (weft_size_mul(capacity, 2, &capacity)) goto fail;
        char *data = realloc(b->data, capacity);
        if (!data) goto fail;
        if (!b->data) data[0] = '\0';
        b->data = data;
        b->capacity = capacity;
    }
    return b->data + b->size;
fail:
    b->failed = true;
    return NULL;
}

void weft_buffer_append(weft_buffer *b, const void *bytes, size_t n)
{
    char *to = weft_buffer_reserve(b, n);
    if (!to) return;
    if (n) memcpy(to, bytes, n);
    to[n] = '\0';
    b->size += n;
}

void weft_buffer_puts(weft_buffer *b, const char *text)
{
    weft_buffer_append(b, text, strlen(text));
}

void weft_buffer_putc(weft_buffer *b, char c)
{
    weft_buffer_append(b, &c, 1);
}

void weft_buffer_printf(weft_buffer *b, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0) {
        b->failed = true;
    } else {
        char *to = weft_buffer_reserve(b, (size_t)n);
        if (to) {
            vsnprintf(to, (size_t)n + 1, format, again);
            b->size += (size_t)n;
        }
    }
    va_end(again);
}

void weft_buffer_clear(weft_buffer *b)
{
    b->size = 0;
    b->failed = false;
    if (b->data) b->data[0] = '\0';
}

char *weft_buffer_take(weft_buffer *b)
{
    if (!b->data) weft_buffer_append(b, "", 0);
    if (b->failed) return NULL;
    char *data = b->data;
    *b = (weft_buffer)WEFT_BUFFER_INIT;
    return data;
}

void weft_buffer_free(weft_buffer *b)
{
    if (!b) return;
    free(b->data);
    *b = (weft_buffer)WEFT_BUFFER_INIT;
}

weft_status weft_buffer_ok(const weft_buffer *b, weft_error *err)
{
    return b->failed ? weft_fail(err, WEFT_E_MEMORY, "out of memory") : WEFT_OK;
}

const char *weft_buffer_str(const weft_buffer *b)
{
    return b->data ? b->data : "";
}
