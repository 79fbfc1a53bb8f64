/* The calculator: one expression in, one line out. No process, no file, no state; bounded in time
 * and memory whatever the expression (docs/tools.md lists what may be written and the limits). */
#ifndef WEFT_TOOLS_CALCULATOR_H
#define WEFT_TOOLS_CALCULATOR_H

#include "base/base.h"

/* Appends the result to out: "168", "0.3", "0.33333333333333333333 (rounded; exactly 1/3)", "true".
 * WEFT_E_INVALID with "at column 7: ..." (columns count characters from 1) if there is none. Size
 * and text: the text may hold any bytes. */
weft_status calculator_evaluate(const char *text, size_t size, weft_buffer *out, weft_error *err);

#endif
