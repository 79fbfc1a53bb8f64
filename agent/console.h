/* What a person sees on standard error while a run goes on: notices, progress, the thought as it is
 * sampled, frames around calls and results, the closing line. Silent where it is no terminal,
 * except for notices. Every foreign text is stripped of control characters first. */
#ifndef WEFT_AGENT_CONSOLE_H
#define WEFT_AGENT_CONSOLE_H

#include "base/base.h"

typedef struct weft_console {
    bool live; /* progress and streaming wanted: a terminal, not --quiet */
    bool color;
    bool bar;         /* a progress line stands on the terminal */
    bool text;        /* streamed text stands on the current line */
    int64_t phase_ns; /* when the phase that the bar shows began */
    char phase[32];
} weft_console;

/* color: "auto", "always", "never" (NO_COLOR counts under auto). */
void weft_console_init(weft_console *c, bool quiet, const char *color);
/* One line "weft: ..." , shown everywhere. */
void weft_console_notice(weft_console *c, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Bar for done of total; unit "tokens" adds a rate, "bytes" prints MiB. Ends itself at done ==
 * total. */
void weft_console_progress(weft_console *c, const char *phase, const char *unit, int64_t done,
                           int64_t total);
/* Streams sampled text; dim for thought. */
void weft_console_stream(weft_console *c, const char *text, bool dim);
/* A framed block: title line, then at most 12 lines of text. */
void weft_console_block(weft_console *c, const char *title, const char *text, bool bad);
/* Ends streamed text and bars, so that other output begins on a line of its own. */
void weft_console_break(weft_console *c);
/* A plain dim line (live only). */
void weft_console_line(weft_console *c, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Text with control characters other than newline and tab written as \xNN; appends to out. */
void weft_console_escape(const char *text, weft_buffer *out);

#endif
