/* JSON: a strict parser into cJSON trees and three exact writers (json.h says why).
 * The parser is recursive with a depth bound, reads each byte once and never allocates more than a
 * small multiple of its input. */
#include "base/json.h"

#include "base/file.h"
#include "base/hash.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { JSON_DEPTH = 200 };
static const int64_t JSON_INT_LIMIT = (int64_t)1 << 53;

typedef struct parser {
    const char *text;
    size_t size, at;
    const char *why; /* first error, static text */
    weft_buffer scratch;
} parser;

static bool fail(parser *p, const char *why)
{
    if (!p->why) p->why = why;
    return false;
}

static int peek(const parser *p)
{
    return p->at < p->size ? (unsigned char)p->text[p->at] : -1;
}

static void skip_space(parser *p)
{
    while (p->at < p->size && strchr(" \t\r\n", p->text[p->at]) && p->text[p->at]) p->at++;
}

static bool digits(parser *p)
{
    size_t from = p->at;
    while (peek(p) >= '0' && peek(p) <= '9') p->at++;
    return p->at > from ? true : fail(p, "a digit is missing");
}

static bool parse_number(parser *p, cJSON **out)
{
    size_t from = p->at;
    if (peek(p) == '-') p->at++;
    if (peek(p) == '0')
        p->at++;
    else if (!digits(p))
        return false;
    if (peek(p) == '.') {
        p->at++;
        if (!digits(p)) return false;
    }
    if (peek(p) == 'e' || peek(p) == 'E') {
        p->at++;
        if (peek(p) == '+' || peek(p) == '-') p->at++;
        if (!digits(p)) return false;
    }
    char *source = strndup(p->text + from, p->at - from);
    cJSON *node = source ? cJSON_CreateNumber(strtod(source, NULL)) : NULL;
    if (!node) {
        free(source);
        return fail(p, "out of memory");
    }
    node->valuestring = source;
    *out = node;
    return true;
}

static bool parse_hex4(parser *p, unsigned *out)
{
    uint8_t two[2];
    char hex[5] = {0};
    if (p->size - p->at < 4) return fail(p, "a \\u escape is cut short");
    memcpy(hex, p->text + p->at, 4);
    if (!weft_unhex(hex, two, 2)) return fail(p, "a \\u escape needs four hex digits");
    *out = (unsigned)two[0] << 8 | two[1];
    p->at += 4;
    return true;
}

static void put_utf8(weft_buffer *b, unsigned c)
{
    char u[4];
    size_t n = 0;
    if (c < 0x80) {
        u[n++] = (char)c;
    } else if (c < 0x800) {
        u[n++] = (char)(0xc0 | c >> 6);
        u[n++] = (char)(0x80 | (c & 63));
    } else if (c < 0x10000) {
        u[n++] = (char)(0xe0 | c >> 12);
        u[n++] = (char)(0x80 | (c >> 6 & 63));
        u[n++] = (char)(0x80 | (c & 63));
    } else {
        u[n++] = (char)(0xf0 | c >> 18);
        u[n++] = (char)(0x80 | (c >> 12 & 63));
        u[n++] = (char)(0x80 | (c >> 6 & 63));
        u[n++] = (char)(0x80 | (c & 63));
    }
    weft_buffer_append(b, u, n);
}

static bool parse_escape(parser *p)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    int c = peek(p);
    p->at++;
    const char *hit = c > 0 ? strchr(from, c) : NULL;
    if (hit) {
        weft_buffer_putc(&p->scratch, to[hit - from]);
        return true;
    }
    unsigned unit, low;
    if (c != 'u') return fail(p, "unknown escape");
    if (!parse_hex4(p, &unit)) return false;
    if (unit == 0) return fail(p, "a string holds a NUL character");
    if (unit >= 0xdc00 && unit < 0xe000) return fail(p, "a lone surrogate");
    if (unit >= 0xd800 && unit < 0xdc00) {
        if (p->size - p->at < 2 || p->text[p->at] != '\\' || p->text[p->at + 1] != 'u')
            return fail(p, "a lone surrogate");
        p->at += 2;
        if (!parse_hex4(p, &low)) return false;
        if (low < 0xdc00 || low >= 0xe000) return fail(p, "a lone surrogate");
        unit = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
    }
    put_utf8(&p->scratch, unit);
    return true;
}

/* The string's content goes to p->scratch; the caller copies it. */
static bool parse_string(parser *p)
{
    weft_buffer_clear(&p->scratch);
    p->at++;
    for (;;) {
        int c = peek(p);
        if (c < 0) return fail(p, "a string is not closed");
        if (c == '"') break;
        if (c < 0x20) return fail(p, "a control character in a string must be escaped");
        p->at++;
        if (c == '\\') {
            if (!parse_escape(p)) return false;
        } else {
            weft_buffer_putc(&p->scratch, (char)c);
        }
    }
    p->at++;
    if (p->scratch.failed) return fail(p, "out of memory");
    return true;
}

static bool parse_value(parser *p, int depth, cJSON **out);

static bool parse_member(parser *p, int depth, cJSON *object)
{
    skip_space(p);
    if (peek(p) != '"') return fail(p, "a key in double quotes is expected");
    if (!parse_string(p)) return false;
    if (cJSON_GetObjectItemCaseSensitive(object, weft_buffer_str(&p->scratch)))
        return fail(p, "a key stands twice in one object");
    char *key = strdup(weft_buffer_str(&p->scratch));
    if (!key) return fail(p, "out of memory");
    cJSON *value = NULL;
    skip_space(p);
    bool ok = peek(p) == ':' ? true : fail(p, "':' is expected after a key");
    if (ok) {
        p->at++;
        ok = parse_value(p, depth, &value);
    }
    if (ok && !cJSON_AddItemToObject(object, key, value)) {
        cJSON_Delete(value);
        ok = fail(p, "out of memory");
    }
    free(key);
    return ok;
}

static bool parse_container(parser *p, int depth, bool is_object, cJSON **out)
{
    const int close = is_object ? '}' : ']';
    if (depth >= JSON_DEPTH) return fail(p, "nested too deeply");
    cJSON *node = is_object ? cJSON_CreateObject() : cJSON_CreateArray();
    if (!node) return fail(p, "out of memory");
    p->at++;
    skip_space(p);
    if (peek(p) == close) {
        p->at++;
        *out = node;
        return true;
    }
    for (;;) {
        cJSON *value = NULL;
        bool ok = is_object ? parse_member(p, depth + 1, node) : parse_value(p, depth + 1, &value);
        if (ok && !is_object && !cJSON_AddItemToArray(node, value)) {
            cJSON_Delete(value);
            ok = fail(p, "out of memory");
        }
        if (!ok) break;
        skip_space(p);
        if (peek(p) == close) {
            p->at++;
            *out = node;
            return true;
        }
        if (peek(p) != ',') {
            fail(p, is_object ? "',' or '}' is expected" : "',' or ']' is expected");
            break;
        }
        p->at++;
    }
    cJSON_Delete(node);
    return false;
}

static bool parse_word(parser *p, const char *word, cJSON *node, cJSON **out)
{
    size_t n = strlen(word);
    if (!node) return fail(p, "out of memory");
    if (p->size - p->at < n || memcmp(p->text + p->at, word, n) != 0) {
        cJSON_Delete(node);
        return fail(p, "a JSON value is expected");
    }
    p->at += n;
    *out = node;
    return true;
}

static bool parse_value(parser *p, int depth, cJSON **out)
{
    skip_space(p);
    int c = peek(p);
    switch (c) {
    case '{': return parse_container(p, depth, true, out);
    case '[': return parse_container(p, depth, false, out);
    case 't': return parse_word(p, "true", cJSON_CreateTrue(), out);
    case 'f': return parse_word(p, "false", cJSON_CreateFalse(), out);
    case 'n': return parse_word(p, "null", cJSON_CreateNull(), out);
    case '"': {
        if (!parse_string(p)) return false;
        cJSON *node = cJSON_CreateString(weft_buffer_str(&p->scratch));
        if (!node) return fail(p, "out of memory");
        *out = node;
        return true;
    }
    default:
        if (c == '-' || (c >= '0' && c <= '9')) return parse_number(p, out);
        return fail(p, c < 0 ? "the text ends too early" : "a JSON value is expected");
    }
}

weft_status weft_json_parse(const char *text, size_t n, cJSON **out, weft_error *err)
{
    size_t bad = weft_utf8_valid(text, n);
    if (bad < n) return weft_fail(err, WEFT_E_INVALID, "JSON: invalid UTF-8 at byte %zu", bad);
    parser p = {text, n, 0, NULL, WEFT_BUFFER_INIT};
    cJSON *value = NULL;
    bool ok = parse_value(&p, 0, &value);
    if (ok) {
        skip_space(&p);
        if (p.at < p.size) ok = fail(&p, "text after the value");
    }
    weft_buffer_free(&p.scratch);
    if (!ok) {
        cJSON_Delete(value);
        return weft_fail(err, WEFT_E_INVALID, "JSON: %s at byte %zu", p.why, p.at);
    }
    *out = value;
    return WEFT_OK;
}

weft_status weft_json_parse_file(const char *path, cJSON **out, weft_error *err)
{
    weft_buffer text = WEFT_BUFFER_INIT;
    weft_status status = weft_file_read(path, (size_t)64 << 20, &text, err);
    if (!status) {
        status = weft_json_parse(weft_buffer_str(&text), text.size, out, err);
        if (status) weft_fail_prefix(err, "%s", path);
    }
    weft_buffer_free(&text);
    return status;
}

/* ---- writers ---- */

typedef enum style { STYLE_COMPACT, STYLE_CANONICAL, STYLE_PYTHON } style;

/* Escapes as RFC 8785 and Python agree to: the short forms, \u00XX for the other controls; U+007F
 * and everything above raw. */
static void put_string(const char *s, weft_buffer *out)
{
    static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
    weft_buffer_putc(out, '"');
    for (; *s; s++) {
        const char *hit = strchr(from, *s);
        if (hit) {
            weft_buffer_putc(out, '\\');
            weft_buffer_putc(out, to[hit - from]);
        } else if ((unsigned char)*s < 0x20) {
            weft_buffer_printf(out, "\\u%04x", (unsigned char)*s);
        } else {
            weft_buffer_putc(out, *s);
        }
    }
    weft_buffer_putc(out, '"');
}

void weft_json_repr(double value, char out[32])
{
    char digits_text[32];
    int precision = 1;
    for (; precision <= 17; precision++) {
        snprintf(digits_text, sizeof digits_text, "%.*e", precision - 1, value);
        if (strtod(digits_text, NULL) == value) break;
    }
    const char *e = strchr(digits_text, 'e');
    int exponent = e ? atoi(e + 1) : 0;
    if (exponent < -4 || exponent >= 16) {
        /* mantissa e sign two digits: as printf writes it */
        snprintf(out, 32, "%s", digits_text);
        return;
    }
    int decimals = precision - 1 - exponent;
    snprintf(out, 32, "%.*f", decimals < 1 ? 1 : decimals, value);
}

static bool is_integer_source(const char *s)
{
    return s && !strpbrk(s, ".eE");
}

static weft_status put_number(const cJSON *v, style how, weft_buffer *out, weft_error *err)
{
    double d = v->valuedouble;
    const char *source = v->valuestring;
    if (how == STYLE_CANONICAL) {
        bool whole = d == floor(d) && fabs(d) < (double)JSON_INT_LIMIT;
        if (!whole)
            return weft_fail(err, WEFT_E_INVALID, "canonical JSON: %s is no integer below 2^53",
                             source ? source : "a number");
        weft_buffer_printf(out, "%lld", (long long)d);
        return WEFT_OK;
    }
    if (how == STYLE_COMPACT && source) { /* as it was written: nothing is lost, 1e400 stays JSON */
        weft_buffer_puts(out, source);
        return WEFT_OK;
    }
    if (is_integer_source(source)) {
        weft_buffer_puts(out, strcmp(source, "-0") == 0 ? "0" : source);
        return WEFT_OK;
    }
    if (!source && d == floor(d) && fabs(d) < (double)JSON_INT_LIMIT) {
        weft_buffer_printf(out, "%lld", (long long)d);
        return WEFT_OK;
    }
    if (isnan(d) || isinf(d)) {
        weft_buffer_puts(out, isnan(d) ? "NaN" : d < 0 ? "-Infinity" : "Infinity");
        return WEFT_OK;
    }
    char text[32];
    weft_json_repr(d, text);
    weft_buffer_puts(out, text);
    return WEFT_OK;
}

static int by_key(const void *a, const void *b)
{
    /* UTF-8 byte order is code-point order; RFC 8785 sorts by UTF-16, the same for ASCII keys */
    return strcmp((*(cJSON *const *)a)->string, (*(cJSON *const *)b)->string);
}

static weft_status put_value(const cJSON *v, style how, weft_buffer *out, weft_error *err);

static weft_status put_object(const cJSON *v, style how, weft_buffer *out, weft_error *err)
{
    size_t n = (size_t)cJSON_GetArraySize(v), i = 0;
    const cJSON **member = calloc(n ? n : 1, sizeof *member);
    if (!member) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    const cJSON *child;
    cJSON_ArrayForEach(child, v) member[i++] = child;
    if (how == STYLE_CANONICAL) qsort(member, n, sizeof *member, by_key);
    weft_status status = WEFT_OK;
    weft_buffer_putc(out, '{');
    for (i = 0; i < n && !status; i++) {
        if (i) weft_buffer_puts(out, how == STYLE_PYTHON ? ", " : ",");
        put_string(member[i]->string, out);
        weft_buffer_puts(out, how == STYLE_PYTHON ? ": " : ":");
        status = put_value(member[i], how, out, err);
    }
    weft_buffer_putc(out, '}');
    free(member);
    return status;
}

static weft_status put_value(const cJSON *v, style how, weft_buffer *out, weft_error *err)
{
    switch (v->type & 0xff) {
    case cJSON_NULL: weft_buffer_puts(out, "null"); return WEFT_OK;
    case cJSON_True: weft_buffer_puts(out, "true"); return WEFT_OK;
    case cJSON_False: weft_buffer_puts(out, "false"); return WEFT_OK;
    case cJSON_Number: return put_number(v, how, out, err);
    case cJSON_String: put_string(v->valuestring, out); return WEFT_OK;
    case cJSON_Object: return put_object(v, how, out, err);
    case cJSON_Array: {
        const cJSON *child;
        weft_status status = WEFT_OK;
        weft_buffer_putc(out, '[');
        cJSON_ArrayForEach(child, v)
        {
            if (child != v->child) weft_buffer_puts(out, how == STYLE_PYTHON ? ", " : ",");
            if ((status = put_value(child, how, out, err))) return status;
        }
        weft_buffer_putc(out, ']');
        return status;
    }
    default: return weft_fail(err, WEFT_E_INVALID, "JSON: a value of unknown type");
    }
}

weft_status weft_json_canonical(const cJSON *value, weft_buffer *out, weft_error *err)
{
    weft_status status = put_value(value, STYLE_CANONICAL, out, err);
    return status ? status : weft_buffer_ok(out, err);
}

weft_status weft_json_python(const cJSON *value, weft_buffer *out, weft_error *err)
{
    weft_status status = put_value(value, STYLE_PYTHON, out, err);
    return status ? status : weft_buffer_ok(out, err);
}

void weft_json_compact(const cJSON *value, weft_buffer *out)
{
    if (put_value(value, STYLE_COMPACT, out, NULL)) out->failed = true;
}

/* ---- access ---- */

const char *weft_json_string(const cJSON *object, const char *key)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsString(v) ? v->valuestring : NULL;
}

int64_t weft_json_int(const cJSON *object, const char *key, int64_t fallback)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(object, key);
    if (!cJSON_IsNumber(v) || v->valuedouble != floor(v->valuedouble) ||
        fabs(v->valuedouble) >= (double)JSON_INT_LIMIT)
        return fallback;
    return (int64_t)v->valuedouble;
}

bool weft_json_bool(const cJSON *object, const char *key, bool fallback)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsBool(v) ? cJSON_IsTrue(v) : fallback;
}

void weft_json_add_int(cJSON *object, const char *key, int64_t value)
{
    cJSON_AddNumberToObject(object, key, (double)value);
}

/* ---- UTF-8 ---- */

/* Length of the valid sequence at s (at most n bytes), 0 if it is none. */
static size_t utf8_sequence(const unsigned char *s, size_t n)
{
    unsigned char c = s[0];
    if (c < 0x80) return 1;
    size_t len = c >= 0xc2 && c <= 0xdf   ? 2
                 : c >= 0xe0 && c <= 0xef ? 3
                 : c >= 0xf0 && c <= 0xf4 ? 4
                                          : 0;
    if (!len || n < len) return 0;
    unsigned char low = 0x80,
                  high = 0xbf; /* bounds of the second byte: no overlong, no surrogate */
    if (c == 0xe0) low = 0xa0;
    if (c == 0xed) high = 0x9f;
    if (c == 0xf0) low = 0x90;
    if (c == 0xf4) high = 0x8f;
    if (s[1] < low || s[1] > high) return 0;
    for (size_t i = 2; i < len; i++)
        if ((s[i] & 0xc0) != 0x80) return 0;
    return len;
}

size_t weft_utf8_valid(const char *text, size_t n)
{
    size_t i = 0;
    while (i < n) {
        size_t len = utf8_sequence((const unsigned char *)text + i, n - i);
        if (!len) return i;
        i += len;
    }
    return n;
}

void weft_utf8_scrub(const char *text, size_t n, weft_buffer *out)
{
    for (size_t i = 0; i < n;) {
        size_t len = utf8_sequence((const unsigned char *)text + i, n - i);
        if (len) {
            weft_buffer_append(out, text + i, len);
            i += len;
        } else {
            weft_buffer_puts(out, "\xef\xbf\xbd");
            i++;
        }
    }
}
