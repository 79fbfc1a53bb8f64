/* The syntax of JSON under a schema, one byte at a time (item.h).
 *
 * Layout of an item, from the top: kind 6 bits, shape 16, a 20, b 22. What a and b mean stands
 * beside each kind. Everything a text can be refused for later is refused here at its first byte:
 * lone surrogates, overlong UTF-8, NUL, a comma after which no member can follow, a free property
 * name that spells a declared one.
 */
#include "schemas/item.h"

#include <string.h>

typedef enum item_kind {
    BEGIN,       /* before the first byte */
    END,         /* after the last */
    STRING,      /* a: character state */
    NUMBER,      /* a: number state */
    LITERAL,     /* a: rank of the first literal with the prefix read, b: its length */
    OBJECT_OPEN, /* a: gap */
    NAME,        /* a: first property that may come and has the prefix read, b: its length */
    FREE_NAME, /* a: rank of the first name with the prefix read; b: its length, character state */
    COLON,     /* a: property; n = unknown, here and below */
    MEMBER,    /* a: property, b: gap; its value comes next */
    AFTER_MEMBER,  /* a: first property that may still come */
    NEXT_MEMBER,   /* a: the same, b: gap; after a comma */
    ARRAY_OPEN,    /* a: gap */
    ELEMENT,       /* a: index, b: gap; after a comma */
    AFTER_ELEMENT, /* a: index of the next */
    CLOSE          /* in the indent before '}' or ']' */
} item_kind;

/* Ranks of a free name that is the beginning of no listed one. */
enum { UNTRACKED = 0xfffff, DIVERGING = 0xffffe /* by a backslash just read */ };

/* Blanks that may still come before the next token. */
typedef enum gap { GAP_NONE, GAP_BLANK, GAP_LINE, GAP_BLANK_OR_LINE, GAP_INDENT } gap;

static item make(item_kind kind, uint32_t number, uint32_t a, uint32_t b)
{
    return (uint64_t)kind << 58 | (uint64_t)number << 42 | (uint64_t)a << 22 | b;
}

static item_kind kind_of(item it)
{
    return (item_kind)(it >> 58);
}

static uint32_t a_of(item it)
{
    return it >> 22 & 0xfffff;
}

static uint32_t b_of(item it)
{
    return it & 0x3fffff;
}

item item_begin(uint32_t number)
{
    return make(BEGIN, number, 0, 0);
}

uint32_t item_shape(item it)
{
    return it >> 42 & 0xffff;
}

/* ---- characters of a string ---- */

typedef enum char_state {
    BODY, /* between characters */
    ESCAPE,
    HEX, /* after \u */
    HEX_0,
    HEX_00,
    HEX_000,
    HEX_D,
    HEX_3, /* so many digits to come */
    HEX_2,
    HEX_1,
    HIGH_2, /* of a high surrogate */
    HIGH_1,
    LOW_BACKSLASH,
    LOW_U,
    LOW_D,
    LOW_C,
    TAIL_1, /* so many bytes of UTF-8 to come */
    TAIL_2,
    TAIL_3,
    TAIL_E0, /* ranges of the second byte: RFC 3629 */
    TAIL_ED,
    TAIL_F0,
    TAIL_F4,
    CHAR_NONE
} char_state;

static bool is_hex(uint8_t c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static bool in(uint8_t c, uint8_t low, uint8_t high)
{
    return c >= low && c <= high;
}

static char_state body_step(uint8_t c)
{
    if (c == '\\') return ESCAPE;
    if (c < 0x20 || c == '"') return CHAR_NONE;
    if (c < 0x80) return BODY;
    if (in(c, 0xc2, 0xdf)) return TAIL_1;
    if (c == 0xe0) return TAIL_E0;
    if (c == 0xed) return TAIL_ED;
    if (in(c, 0xe1, 0xef)) return TAIL_2;
    if (c == 0xf0) return TAIL_F0;
    if (in(c, 0xf1, 0xf3)) return TAIL_3;
    return c == 0xf4 ? TAIL_F4 : CHAR_NONE;
}

static char_state hex_step(char_state state, uint8_t c)
{
    if (!is_hex(c)) return CHAR_NONE;
    switch (state) {
    case HEX: return c == '0' ? HEX_0 : c == 'd' || c == 'D' ? HEX_D : HEX_3;
    case HEX_0: return c == '0' ? HEX_00 : HEX_2;
    case HEX_00: return c == '0' ? HEX_000 : HEX_1;
    case HEX_000: return c == '0' ? CHAR_NONE : BODY; /* U+0000 has no place in a C string */
    case HEX_D: return c <= '7' ? HEX_2 : strchr("89abAB", c) ? HIGH_2 : CHAR_NONE;
    case HEX_3: return HEX_2;
    case HEX_2: return HEX_1;
    case HIGH_2: return HIGH_1;
    case HIGH_1: return LOW_BACKSLASH;
    default: return BODY; /* HEX_1 */
    }
}

static char_state char_step(char_state state, uint8_t c)
{
    switch (state) {
    case BODY: return body_step(c);
    case ESCAPE: return c == 'u' ? HEX : c && strchr("\"\\/bfnrt", c) ? BODY : CHAR_NONE;
    case LOW_BACKSLASH: return c == '\\' ? LOW_U : CHAR_NONE;
    case LOW_U: return c == 'u' ? LOW_D : CHAR_NONE;
    case LOW_D: return c == 'd' || c == 'D' ? LOW_C : CHAR_NONE;
    case LOW_C: return c && strchr("cdefCDEF", c) ? HEX_2 : CHAR_NONE;
    case TAIL_1: return in(c, 0x80, 0xbf) ? BODY : CHAR_NONE;
    case TAIL_2: return in(c, 0x80, 0xbf) ? TAIL_1 : CHAR_NONE;
    case TAIL_3: return in(c, 0x80, 0xbf) ? TAIL_2 : CHAR_NONE;
    case TAIL_E0: return in(c, 0xa0, 0xbf) ? TAIL_1 : CHAR_NONE;
    case TAIL_ED: return in(c, 0x80, 0x9f) ? TAIL_1 : CHAR_NONE;
    case TAIL_F0: return in(c, 0x90, 0xbf) ? TAIL_2 : CHAR_NONE;
    case TAIL_F4: return in(c, 0x80, 0x8f) ? TAIL_2 : CHAR_NONE;
    default: return hex_step(state, c);
    }
}

/* ---- numbers ---- */

typedef enum number_state {
    MINUS,
    ZERO,
    DIGITS,
    POINT,
    FRACTION,
    EXPONENT,
    EXPONENT_SIGN,
    EXPONENT_DIGITS,
    NUMBER_NONE
} number_state;

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

static number_state number_step(number_state state, uint8_t c, bool integer)
{
    bool fraction_next = c == '.' && !integer, exponent_next = (c == 'e' || c == 'E') && !integer;
    switch (state) {
    case MINUS: return c == '0' ? ZERO : is_digit(c) ? DIGITS : NUMBER_NONE;
    case DIGITS:
        if (is_digit(c)) return DIGITS;
        return fraction_next ? POINT : exponent_next ? EXPONENT : NUMBER_NONE;
    case ZERO: return fraction_next ? POINT : exponent_next ? EXPONENT : NUMBER_NONE;
    case POINT: return is_digit(c) ? FRACTION : NUMBER_NONE;
    case FRACTION: return is_digit(c) ? FRACTION : exponent_next ? EXPONENT : NUMBER_NONE;
    case EXPONENT:
        if (c == '+' || c == '-') return EXPONENT_SIGN;
        return is_digit(c) ? EXPONENT_DIGITS : NUMBER_NONE;
    default: return is_digit(c) ? EXPONENT_DIGITS : NUMBER_NONE;
    }
}

static bool number_may_end(number_state state)
{
    return state == ZERO || state == DIGITS || state == FRACTION || state == EXPONENT_DIGITS;
}

/* ---- blanks ---- */

/* True if the byte is a blank that the gap allows; *out is what remains. */
static bool gap_step(gap g, uint8_t c, gap *out)
{
    if (c == ' ' && (g == GAP_BLANK || g == GAP_BLANK_OR_LINE)) return *out = GAP_NONE, true;
    if (c == ' ' && g == GAP_INDENT) return *out = GAP_INDENT, true;
    if (c == '\n' && (g == GAP_LINE || g == GAP_BLANK_OR_LINE)) return *out = GAP_INDENT, true;
    return false;
}

/* ---- literals ---- */

static void literal_step(const shape *one, uint32_t number, uint32_t rank, uint32_t length,
                         uint8_t byte, words *out)
{
    uint32_t low, high;
    shape_texts_after(one, rank, length, byte, &low, &high);
    if (low < high) words_add(out, make(LITERAL, number, low, length + 1));
}

/* ---- objects ---- */

static bool property_lives(const shapes *s, const shape *one, uint32_t i)
{
    return s->values[one->properties[i].value].live;
}

static bool rest_lives(const shapes *s, const shape *one)
{
    return one->rest != NO_VALUE && s->values[one->rest].live;
}

/* No required property stands at or after p. */
static bool may_close(const shape *one, uint32_t p)
{
    return p >= one->n || !one->properties[one->properties[p].until - 1].required;
}

/* The first property at or after p that may come next; n if none. */
static uint32_t first_from(const shapes *s, const shape *one, uint32_t p)
{
    if (p >= one->n) return one->n;
    const uint32_t until = one->properties[p].until;
    while (p < until && !property_lives(s, one, p)) p++;
    return p < until ? p : one->n;
}

static bool name_may_follow(const shapes *s, const shape *one, uint32_t p)
{
    return first_from(s, one, p) < one->n || (may_close(one, p) && rest_lives(s, one));
}

/* Appends the items of the names that may stand here, after their first byte, the quote. */
static void names_from(const shapes *s, const shape *one, uint32_t number, uint32_t p, words *out)
{
    uint32_t first = first_from(s, one, p);
    if (first < one->n) words_add(out, make(NAME, number, first, 1));
    if (may_close(one, p) && rest_lives(s, one))
        words_add(out, make(FREE_NAME, number, one->n ? 0 : UNTRACKED, 1 << 5 | BODY));
}

/* Of the properties from p to the next required one, the first whose name goes on with the byte. */
static void name_step(const shapes *s, const shape *one, item it, uint8_t byte, words *out)
{
    const uint32_t p = a_of(it), length = b_of(it), until = one->properties[p].until;
    uint32_t low, high, best = one->n;
    shape_texts_after(one, one->properties[p].rank, length, byte, &low, &high);
    for (uint32_t rank = low; rank < high; rank++) {
        uint32_t i = one->texts[rank].property;
        if (i >= p && i < until && i < best && property_lives(s, one, i)) best = i;
    }
    if (best == one->n) return;
    bool whole = length + 1 == one->texts[one->properties[best].rank].n;
    words_add(out, whole ? make(COLON, item_shape(it), best, 0)
                         : make(NAME, item_shape(it), best, length + 1));
}

/* A name that the schema does not list. While what was read is the beginning of a listed one,
 * escapes that could spell a character in a second way (\u0061, \/) are refused, so that none is
 * spelled. */
static void free_name_step(const shape *one, item it, uint8_t byte, words *out)
{
    const uint32_t number = item_shape(it), tracked = a_of(it), length = b_of(it) >> 5;
    const char_state state = (char_state)(b_of(it) & 31), next = char_step(state, byte);
    uint32_t low = 0, high = 0, found;
    if (tracked < one->n) shape_texts_after(one, tracked, length, byte, &low, &high);
    found = low < high ? low : UNTRACKED;
    if (state == BODY && byte == '"') {
        if (found == UNTRACKED) words_add(out, make(COLON, number, one->n, 0));
        return;
    }
    if (next == CHAR_NONE) return;
    if (state == ESCAPE && tracked != UNTRACKED && (byte == 'u' || byte == '/')) return;
    if (state == BODY && byte == '\\' && tracked != UNTRACKED && found == UNTRACKED)
        found = DIVERGING;
    words_add(out, make(FREE_NAME, number, found,
                        (found < one->n ? length + 1 : 0) << 5 | (uint32_t)next));
}

static void object_step(const shapes *s, const shape *one, item it, uint8_t byte, words *out)
{
    const uint32_t number = item_shape(it), a = a_of(it), b = b_of(it);
    gap left;
    switch (kind_of(it)) {
    case OBJECT_OPEN:
        if (gap_step((gap)a, byte, &left)) words_add(out, make(OBJECT_OPEN, number, left, 0));
        if (byte == '"') names_from(s, one, number, 0, out);
        if (byte == '}' && may_close(one, 0)) words_add(out, make(END, number, 0, 0));
        return;
    case NEXT_MEMBER:
        if (gap_step((gap)b, byte, &left)) words_add(out, make(NEXT_MEMBER, number, a, left));
        if (byte == '"') names_from(s, one, number, a, out);
        return;
    case NAME: name_step(s, one, it, byte, out); return;
    case FREE_NAME: free_name_step(one, it, byte, out); return;
    case COLON:
        if (byte == ':') words_add(out, make(MEMBER, number, a, GAP_BLANK));
        return;
    case MEMBER:
        if (gap_step((gap)b, byte, &left)) words_add(out, make(MEMBER, number, a, left));
        return;
    default: /* AFTER_MEMBER */
        if (byte == ',' && name_may_follow(s, one, a))
            words_add(out, make(NEXT_MEMBER, number, a, GAP_BLANK_OR_LINE));
        if (byte == '}' && may_close(one, a)) words_add(out, make(END, number, 0, 0));
        if (byte == '\n' && may_close(one, a)) words_add(out, make(CLOSE, number, 0, 0));
    }
}

/* ---- arrays ---- */

/* Past this index all elements are alike. */
static uint32_t array_settles(const shape *one)
{
    uint32_t settles = one->n > one->min ? one->n : one->min;
    return one->max != NO_LIMIT && one->max > settles ? one->max : settles;
}

static void array_step(const shape *one, item it, uint8_t byte, words *out)
{
    const uint32_t number = item_shape(it), a = a_of(it);
    gap left;
    switch (kind_of(it)) {
    case ARRAY_OPEN:
        if (gap_step((gap)a, byte, &left)) words_add(out, make(ARRAY_OPEN, number, left, 0));
        if (byte == ']' && one->min == 0) words_add(out, make(END, number, 0, 0));
        return;
    case ELEMENT:
        if (gap_step((gap)b_of(it), byte, &left)) words_add(out, make(ELEMENT, number, a, left));
        return;
    default: /* AFTER_ELEMENT */
        if (byte == ',' && a < one->max)
            words_add(out, make(ELEMENT, number, a, GAP_BLANK_OR_LINE));
        if (byte == ']' && a >= one->min) words_add(out, make(END, number, 0, 0));
        if (byte == '\n' && a >= one->min) words_add(out, make(CLOSE, number, 0, 0));
    }
}

/* ---- all together ---- */

static void begin_step(const shape *one, uint32_t number, uint8_t byte, words *out)
{
    switch (one->kind) {
    case SHAPE_LITERALS: literal_step(one, number, 0, 0, byte, out); return;
    case SHAPE_STRING:
        if (byte == '"') words_add(out, make(STRING, number, BODY, 0));
        return;
    case SHAPE_NUMBER:
        if (byte == '-' && one->negative) words_add(out, make(NUMBER, number, MINUS, 0));
        if (is_digit(byte)) words_add(out, make(NUMBER, number, byte == '0' ? ZERO : DIGITS, 0));
        return;
    case SHAPE_OBJECT:
        if (byte == '{') words_add(out, make(OBJECT_OPEN, number, GAP_LINE, 0));
        return;
    case SHAPE_ARRAY:
        if (byte == '[') words_add(out, make(ARRAY_OPEN, number, GAP_LINE, 0));
        return;
    }
}

void item_step(const shapes *s, item it, uint8_t byte, words *out)
{
    const uint32_t number = item_shape(it), a = a_of(it);
    const shape *one = &s->all[number];
    switch (kind_of(it)) {
    case BEGIN: begin_step(one, number, byte, out); return;
    case END: return;
    case LITERAL: literal_step(one, number, a, b_of(it), byte, out); return;
    case STRING: {
        char_state next = char_step((char_state)a, byte);
        if (a == BODY && byte == '"')
            words_add(out, make(END, number, 0, 0));
        else if (next != CHAR_NONE)
            words_add(out, make(STRING, number, next, 0));
        return;
    }
    case NUMBER: {
        number_state next = number_step((number_state)a, byte, one->integer);
        if (next != NUMBER_NONE) words_add(out, make(NUMBER, number, next, 0));
        return;
    }
    case CLOSE:
        if (byte == ' ') words_add(out, it);
        if (byte == (one->kind == SHAPE_OBJECT ? '}' : ']'))
            words_add(out, make(END, number, 0, 0));
        return;
    case ARRAY_OPEN:
    case ELEMENT:
    case AFTER_ELEMENT: array_step(one, it, byte, out); return;
    default: object_step(s, one, it, byte, out);
    }
}

bool item_call(const shapes *s, item it, uint32_t *called, item *after)
{
    const uint32_t number = item_shape(it), a = a_of(it);
    const shape *one = &s->all[number];
    if (kind_of(it) == MEMBER) {
        *called = a < one->n ? one->properties[a].value : one->rest;
        *after = make(AFTER_MEMBER, number, a < one->n ? a + 1 : a, 0);
        return true;
    }
    if (kind_of(it) != ELEMENT && kind_of(it) != ARRAY_OPEN) return false;
    uint32_t index = kind_of(it) == ELEMENT ? a : 0, settles = array_settles(one);
    if (index >= one->max) return false;
    *called = index < one->n ? one->prefix[index] : one->rest;
    *after = make(AFTER_ELEMENT, number, index < settles ? index + 1 : settles, 0);
    return true;
}

bool item_accepts(const shapes *s, item it)
{
    const shape *one = &s->all[item_shape(it)];
    switch (kind_of(it)) {
    case END: return true;
    case NUMBER: return number_may_end((number_state)a_of(it));
    case LITERAL: return one->texts[a_of(it)].n == b_of(it);
    default: return false;
    }
}

bool item_in_indent(item it)
{
    switch (kind_of(it)) {
    case OBJECT_OPEN:
    case ARRAY_OPEN: return a_of(it) == GAP_INDENT;
    case NEXT_MEMBER:
    case ELEMENT: return b_of(it) == GAP_INDENT;
    case CLOSE: return true;
    default: return false;
    }
}

bool item_in_literal(item it)
{
    return kind_of(it) == LITERAL;
}

bool item_in_string(const shapes *s, item it, bool *between)
{
    const shape *one = &s->all[item_shape(it)];
    if (kind_of(it) != STRING || (one->min == 0 && one->max == NO_LIMIT)) return false;
    *between = a_of(it) == BODY;
    return true;
}
