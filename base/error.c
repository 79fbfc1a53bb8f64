/* Error texts. The message is formatted once and then scrubbed of control characters: reasons often
 * quote file names, model output or server replies, and those must not reach a terminal raw. */
#include "base/error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

const char *weft_status_text(weft_status status)
{
    switch (status) {
    case WEFT_OK: return "ok";
#define X(name, value, exit_code, text)                                                            \
    case name: return text;
        WEFT_STATUS_TABLE(X)
#undef X
    }
    return "unknown status";
}

int weft_status_exit(weft_status status)
{
    switch (status) {
    case WEFT_OK: return 0;
#define X(name, value, exit_code, text)                                                            \
    case name: return exit_code;
        WEFT_STATUS_TABLE(X)
#undef X
    }
    return 1;
}

static void message_set(weft_error *err, const char *text)
{
    size_t at = 0;
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (*p < 0x20 || *p == 0x7f) {
            if (at + 5 > sizeof err->message) break;
            at += (size_t)snprintf(err->message + at, 5, "\\x%02x", *p);
        } else {
            if (at + 2 > sizeof err->message) break;
            err->message[at++] = (char)*p;
        }
    }
    err->message[at] = '\0';
}

weft_status weft_fail(weft_error *err, weft_status code, const char *format, ...)
{
    if (!err) return code;
    char text[WEFT_ERROR_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    err->code = code;
    message_set(err, text);
    return code;
}

weft_status weft_fail_errno(weft_error *err, weft_status code, const char *format, ...)
{
    int saved = errno;
    if (!err) return code;
    char text[WEFT_ERROR_BYTES];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (n < 0) n = 0;
    if ((size_t)n < sizeof text)
        snprintf(text + n, sizeof text - (size_t)n, ": %s", strerror(saved));
    err->code = code;
    message_set(err, text);
    errno = saved;
    return code;
}

weft_status weft_fail_prefix(weft_error *err, const char *format, ...)
{
    if (!err) return WEFT_E_INVALID;
    char text[WEFT_ERROR_BYTES], whole[2 * WEFT_ERROR_BYTES + 2];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    snprintf(whole, sizeof whole, "%s: %s", text, err->message);
    message_set(err, whole);
    return err->code;
}
