/* One compiled pattern over PCRE2: rewritten where the two languages differ, then compiled. A match
 * allocates its small match block anew: patterns are then free of shared state and a schema can be
 * used by several threads at once. */
#include "schemas/pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <stdlib.h>
#include <string.h>

enum { PATTERN_BYTES = 16384, MATCH_STEPS = 200000, MATCH_KIB = 16384, MATCH_DEPTH = 10000 };

struct pattern {
    pcre2_code *code;
    pcre2_match_context *limits;
    char *text;
};

/* ---- from ECMA-262 to PCRE2 ---- */

/* The long names of \p{...} that ECMA has and PCRE2 lacks. */
static const char *const CATEGORIES[][2] = {
    {"Letter", "L"},
    {"Lowercase_Letter", "Ll"},
    {"Uppercase_Letter", "Lu"},
    {"Titlecase_Letter", "Lt"},
    {"Modifier_Letter", "Lm"},
    {"Other_Letter", "Lo"},
    {"Mark", "M"},
    {"Number", "N"},
    {"Decimal_Number", "Nd"},
    {"digit", "Nd"},
    {"Letter_Number", "Nl"},
    {"Other_Number", "No"},
    {"Punctuation", "P"},
    {"punct", "P"},
    {"Symbol", "S"},
    {"Separator", "Z"},
    {"Space_Separator", "Zs"},
    {"Other", "C"},
    {"Control", "Cc"},
};

/* What \s adds to PCRE2's in ECMA: no-break space, BOM, all of Zs, line and paragraph separator. */
#define ECMA_SPACE "\\s\\u00a0\\ufeff\\p{Zs}\\u2028\\u2029"

/* Appends the escape at `at` ("\x..."); returns its length. */
static size_t put_escape(const char *at, bool in_class, weft_buffer *out)
{
    if (at[1] == 's' || (at[1] == 'S' && !in_class)) {
        weft_buffer_printf(out, in_class ? "%s" : at[1] == 's' ? "[%s]" : "[^%s]", ECMA_SPACE);
        return 2;
    }
    if ((at[1] == 'p' || at[1] == 'P') && at[2] == '{') {
        size_t n = strcspn(at + 3, "}");
        for (size_t i = 0; i < sizeof CATEGORIES / sizeof *CATEGORIES; i++) {
            const char *const *c = CATEGORIES[i];
            if (strlen(c[0]) != n || strncmp(c[0], at + 3, n) != 0 || at[3 + n] != '}') continue;
            weft_buffer_printf(out, "\\%c{%s}", at[1], c[1]);
            return n + 4;
        }
    }
    size_t n = at[1] ? 2 : 1;
    weft_buffer_append(out, at, n);
    return n;
}

static void translate(const char *text, weft_buffer *out)
{
    bool in_class = false;
    while (*text) {
        if (*text == '\\') {
            text += put_escape(text, in_class, out);
            continue;
        }
        if (*text == '[') in_class = true;
        if (*text == ']') in_class = false;
        weft_buffer_putc(out, *text++);
    }
}

/* ---- one pattern ---- */

void pattern_free(pattern *p)
{
    if (!p) return;
    pcre2_code_free(p->code);
    pcre2_match_context_free(p->limits);
    free(p->text);
    free(p);
}

weft_status pattern_compile(const char *text, pattern **out, weft_error *err)
{
    weft_status status = WEFT_E_MEMORY;
    int error = 0;
    PCRE2_SIZE at = 0;
    PCRE2_UCHAR why[128] = "out of memory";
    weft_buffer source = WEFT_BUFFER_INIT;
    pattern *p = calloc(1, sizeof *p);
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    if (!p || !context || !(p->text = strdup(text))) goto done;
    if (!(p->limits = pcre2_match_context_create(NULL))) goto done;
    pcre2_set_match_limit(p->limits, MATCH_STEPS);
    pcre2_set_heap_limit(p->limits, MATCH_KIB);
    pcre2_set_depth_limit(p->limits, MATCH_DEPTH);
    pcre2_set_max_pattern_length(context, PATTERN_BYTES);
    pcre2_set_compile_extra_options(context, PCRE2_EXTRA_ALT_BSUX);
    pcre2_set_newline(context, PCRE2_NEWLINE_ANYCRLF);
    translate(text, &source);
    if (source.failed) goto done;
    p->code = pcre2_compile((PCRE2_SPTR)weft_buffer_str(&source), source.size,
                            PCRE2_UTF | PCRE2_DOLLAR_ENDONLY | PCRE2_ALLOW_EMPTY_CLASS |
                                PCRE2_MATCH_UNSET_BACKREF | PCRE2_NEVER_BACKSLASH_C,
                            &error, &at, context);
    if (p->code) {
        status = WEFT_OK;
        *out = p;
        p = NULL;
    } else {
        status = WEFT_E_INVALID;
        pcre2_get_error_message(error, why, sizeof why);
    }
done:
    if (status == WEFT_E_INVALID)
        weft_fail(err, status, "%s at byte %zu", (const char *)why, (size_t)at);
    else if (status)
        weft_fail(err, status, "out of memory");
    weft_buffer_free(&source);
    pattern_free(p);
    pcre2_compile_context_free(context);
    return status;
}

const char *pattern_text(const pattern *p)
{
    return p->text;
}

weft_status pattern_match(const pattern *p, const char *subject, bool *out, weft_error *err)
{
    pcre2_match_data *data = pcre2_match_data_create(1, NULL);
    if (!data) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    int rc =
        pcre2_match(p->code, (PCRE2_SPTR)subject, PCRE2_ZERO_TERMINATED, 0, 0, data, p->limits);
    pcre2_match_data_free(data);
    if (rc == PCRE2_ERROR_NOMEMORY) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    if (rc == PCRE2_ERROR_MATCHLIMIT || rc == PCRE2_ERROR_DEPTHLIMIT || rc == PCRE2_ERROR_HEAPLIMIT)
        return weft_fail(err, WEFT_E_LIMIT,
                         "the pattern %s needs more than %d steps on this text; simplify it",
                         p->text, MATCH_STEPS);
    *out = rc >= 0; /* any other code: no match, or text that is no UTF-8 */
    return WEFT_OK;
}
