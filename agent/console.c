/* Terminal output. Bars are redrawn at most ten times a second; everything goes to standard error
 * so that standard output carries the answer alone. */
#include "agent/console.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BLOCK_LINES = 12, REDRAW_NS = 100000000 };

void weft_console_init(weft_console *c, bool quiet, const char *color)
{
    bool terminal = isatty(STDERR_FILENO) == 1;
    const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");
    bool dumb = term && strcmp(term, "dumb") == 0;
    *c = (weft_console){.live = terminal && !quiet};
    c->color = strcmp(color, "always") == 0 ||
               (strcmp(color, "auto") == 0 && terminal && !dumb && !(no_color && *no_color));
}

void weft_console_escape(const char *text, weft_buffer *out)
{
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        bool c1 =
            p[0] == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0; /* C1 controls: CSI and kin in UTF-8 */
        if (c1)
            weft_buffer_printf(out, "\\x%02x", *++p);
        else if ((*p < 0x20 && *p != '\n' && *p != '\t') || *p == 0x7f)
            weft_buffer_printf(out, "\\x%02x", *p);
        else
            weft_buffer_putc(out, (char)*p);
    }
}

static void paint(const weft_console *c, const char *code)
{
    if (c->color) fprintf(stderr, "\x1b[%sm", code);
}

void weft_console_break(weft_console *c)
{
    if (c->bar) fputs("\r\x1b[K", stderr);
    if (c->text) fputc('\n', stderr);
    c->bar = c->text = false;
}

static void put_escaped(const char *text)
{
    weft_buffer safe = WEFT_BUFFER_INIT;
    weft_console_escape(text, &safe);
    fputs(weft_buffer_str(&safe), stderr);
    weft_buffer_free(&safe);
}

void weft_console_notice(weft_console *c, const char *format, ...)
{
    char text[WEFT_ERROR_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    weft_console_break(c);
    fputs("weft: ", stderr);
    put_escaped(text);
    fputc('\n', stderr);
}

void weft_console_line(weft_console *c, const char *format, ...)
{
    if (!c->live) return;
    char text[WEFT_ERROR_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    weft_console_break(c);
    paint(c, "2");
    put_escaped(text);
    paint(c, "0");
    fputc('\n', stderr);
}

void weft_console_progress(weft_console *c, const char *phase, const char *unit, int64_t done,
                           int64_t total)
{
    enum { WIDTH = 24 };
    if (!c->live || total <= 0) return;
    int64_t now = weft_monotonic_ns();
    if (strcmp(c->phase, phase) != 0 || (done == 0 && c->phase_ns != 0)) {
        snprintf(c->phase, sizeof c->phase, "%s", phase);
        c->phase_ns = now;
    }
    static const char bar[] = "########################";
    static int64_t drawn_ns; /* one terminal: one clock for redrawing */
    if (done < total && c->bar && now - drawn_ns < REDRAW_NS) return;
    drawn_ns = now;
    if (!c->bar) weft_console_break(c);
    double seconds = (double)(now - c->phase_ns) / 1e9;
    int filled = (int)(WIDTH * done / total);
    fprintf(stderr, "\r\x1b[K%s [%-*.*s] ", phase, WIDTH, filled, bar);
    if (strcmp(unit, "bytes") == 0)
        fprintf(stderr, "%.0f/%.0f MiB", (double)done / (1 << 20), (double)total / (1 << 20));
    else if (strcmp(unit, "tokens") == 0 && seconds > 0)
        fprintf(stderr, "%lld/%lld tokens, %.0f tokens/s", (long long)done, (long long)total,
                (double)done / seconds);
    else
        fprintf(stderr, "%lld/%lld", (long long)done, (long long)total);
    fflush(stderr);
    c->bar = true;
    if (done >= total) weft_console_break(c);
}

void weft_console_stream(weft_console *c, const char *text, bool dim)
{
    if (!c->live || !*text) return;
    if (c->bar) weft_console_break(c);
    if (dim) paint(c, "2");
    put_escaped(text);
    if (dim) paint(c, "0");
    fflush(stderr);
    c->text = text[strlen(text) - 1] != '\n';
}

void weft_console_block(weft_console *c, const char *title, const char *text, bool bad)
{
    if (!c->live) return;
    weft_console_break(c);
    paint(c, bad ? "31" : "36");
    fputs("+- ", stderr);
    put_escaped(title);
    paint(c, "0");
    fputc('\n', stderr);
    int lines = 0;
    for (const char *p = text; *p; lines++) {
        size_t n = strcspn(p, "\n");
        if (lines == BLOCK_LINES) {
            fputs("| ...\n", stderr);
            break;
        }
        char *line = strndup(p, n);
        fputs("| ", stderr);
        if (line) put_escaped(line);
        fputc('\n', stderr);
        free(line);
        p += n + (p[n] == '\n');
    }
}
