/* Status codes and the one error object every fallible call fills in.
 *
 * A function that can fail returns weft_status: 0, or a negative code from the table below, and
 * writes the reason into the caller's weft_error as one line "what failed: why; what to do".
 * Out parameters stay untouched on failure. The third column is the process exit code that the
 * command line maps the status to (docs: weft(1), EXIT STATUS).
 */
#ifndef WEFT_BASE_ERROR_H
#define WEFT_BASE_ERROR_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#define WEFT_STATUS_TABLE(X)                                                                       \
    X(WEFT_E_TASK, -1, 1, "the task failed")                                                       \
    X(WEFT_E_USAGE, -2, 2, "wrong use of the command line")                                        \
    X(WEFT_E_CONFIG, -3, 3, "bad configuration or input file")                                     \
    X(WEFT_E_MODEL, -4, 4, "model or backend failed")                                              \
    X(WEFT_E_SANDBOX, -5, 5, "the sandbox is not available")                                       \
    X(WEFT_E_LIMIT, -6, 6, "a limit was reached")                                                  \
    X(WEFT_E_DENIED, -7, 7, "approval denied")                                                     \
    X(WEFT_E_DIVERGED, -8, 8, "the replay diverged")                                               \
    X(WEFT_E_VERIFY, -9, 9, "verification failed")                                                 \
    X(WEFT_E_STORAGE, -10, 10, "storage failed")                                                   \
    X(WEFT_E_MEMORY, -11, 4, "out of memory")                                                      \
    X(WEFT_E_INVALID, -12, 3, "invalid data")                                                      \
    X(WEFT_E_NOT_FOUND, -13, 3, "not found")                                                       \
    X(WEFT_E_NETWORK, -14, 3, "the network failed")                                                \
    X(WEFT_E_INTERRUPTED, -15, 130, "interrupted")

typedef enum weft_status {
    WEFT_OK = 0,
#define X(name, value, exit_code, text) name = value,
    WEFT_STATUS_TABLE(X)
#undef X
} weft_status;

enum { WEFT_ERROR_BYTES = 1024 };

typedef struct weft_error {
    weft_status code;
    char message[WEFT_ERROR_BYTES]; /* one line, UTF-8, NUL-terminated; longer text is cut */
} weft_error;

/* Short text of a code ("out of memory"); never NULL. */
const char *weft_status_text(weft_status status);

/* Process exit code of a status, cli.md. */
int weft_status_exit(weft_status status);

/* Fills err (NULL is allowed: the reason is dropped) and returns code. Control characters in the
 * formatted text are written as \xNN, so that foreign text cannot reach a terminal raw. */
weft_status weft_fail(weft_error *err, weft_status code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* As weft_fail, with ": " and the text of errno appended ("open /x: No such file or directory"). */
weft_status weft_fail_errno(weft_error *err, weft_status code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "prefix: " before the message that is already there; the code stays. Returns err->code. */
weft_status weft_fail_prefix(weft_error *err, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
