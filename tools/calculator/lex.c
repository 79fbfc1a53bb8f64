/* Reads tokens. Numbers become exact rationals here: 0.1 is 1/10, 1.5e3 is 1500.
 *
 * A comma has two meanings, told apart by where it stands: outside the arguments of a function it
 * separates thousands and must stand between groups of exactly three digits, inside them it
 * separates arguments. Whatever is read as something else than it may have been meant (1,23 or 5
 * apples) is an error that says what to write.
 */
#include "tools/calculator/lex.h"

#include <stdlib.h>
#include <string.h>

/* Characters outside ASCII that people and models write for an operator. */
static const struct {
    const char *utf8;
    const char *means;
} spellings[] = {
    {"\xc3\x97", "*"},      {"\xc2\xb7", "*"},     {"\xe2\x8b\x85", "*"},  {"\xc3\xb7", "/"},
    {"\xe2\x88\x92", "-"},  {"\xe2\x80\x93", "-"}, {"\xe2\x89\xa4", "<="}, {"\xe2\x89\xa5", ">="},
    {"\xe2\x89\xa0", "!="}, {"\xc2\xa0", " "},     {"\xe2\x80\xaf", " "},  {"\xcf\x80", "pi"},
    {"\xcf\x84", "tau"},
};

/* Longest first where one begins another. */
static const struct {
    const char *text;
    calc_token token;
} symbols[] = {
    {"**", TOKEN_POW},      {"//", TOKEN_FLOORDIV}, {"<=", TOKEN_LE},     {">=", TOKEN_GE},
    {"==", TOKEN_EQ},       {"!=", TOKEN_NE},       {"+", TOKEN_ADD},     {"-", TOKEN_SUB},
    {"*", TOKEN_MUL},       {"/", TOKEN_DIV},       {"%", TOKEN_PERCENT}, {"^", TOKEN_POW},
    {"!", TOKEN_FACTORIAL}, {"(", TOKEN_OPEN},      {")", TOKEN_CLOSE},   {",", TOKEN_COMMA},
    {"<", TOKEN_LT},        {">", TOKEN_GT},        {"=", TOKEN_EQ},
};

static const struct {
    char symbol;
    const char *instead;
} refused[] = {
    {'[', "write the values as arguments: sum(1, 2, 3)"},
    {']', "write the values as arguments: sum(1, 2, 3)"},
    {'{', "write ( for grouping"},
    {'}', "write ) for grouping"},
    {'$', "write the number without a unit"},
    {';', "write one expression"},
    {':', "write / for a ratio"},
    {'&', "only arithmetic is known here"},
    {'|', "write abs(x) for the absolute value"},
};

void calc_lexer_init(calc_lexer *x, calc_expression *e, const char *text, size_t size)
{
    *x = (calc_lexer){.e = e, .text = text, .size = size, .column_at = 1};
    mpq_init(x->number);
}

void calc_lexer_clear(calc_lexer *x)
{
    mpq_clear(x->number);
}

static int byte_at(const calc_lexer *x, size_t at)
{
    return at < x->size ? (unsigned char)x->text[at] : -1;
}

static bool is_digit(int c)
{
    return c >= '0' && c <= '9';
}

static bool is_letter(int c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

/* Length of the special spelling at `at`, 0 if there is none. */
static size_t spelling_at(const calc_lexer *x, size_t at, const char **means)
{
    for (size_t i = 0; i < sizeof spellings / sizeof *spellings; i++) {
        size_t n = strlen(spellings[i].utf8);
        if (x->size - at >= n && memcmp(x->text + at, spellings[i].utf8, n) == 0) {
            *means = spellings[i].means;
            return n;
        }
    }
    return 0;
}

static size_t skip_space(const calc_lexer *x, size_t at, size_t *column)
{
    for (;;) {
        const char *means = "";
        int c = byte_at(x, at);
        size_t n = c >= 0 && strchr(" \t\r\n", c) && c ? 1 : 0;
        if (!n && c >= 0x80) n = spelling_at(x, at, &means);
        if (!n || (c >= 0x80 && *means != ' ')) return at;
        at += n;
        ++*column;
    }
}

bool calc_lexer_value_follows(const calc_lexer *x)
{
    size_t column = 0, at = skip_space(x, x->at, &column);
    const char *means = "";
    int c = byte_at(x, at);
    if (c >= 0x80 && spelling_at(x, at, &means)) c = (unsigned char)*means;
    return is_digit(c) || is_letter(c) || c == '.' || c == '(';
}

static bool fail(const calc_lexer *x, size_t column, const char *what)
{
    calc_fail(x->e, column, "%s", what);
    return false;
}

/* Appends a run of digits to out; single underscores between digits are dropped. */
static size_t read_digits(const calc_lexer *x, size_t at, weft_buffer *out)
{
    while (is_digit(byte_at(x, at)) || (byte_at(x, at) == '_' && is_digit(byte_at(x, at - 1)) &&
                                        is_digit(byte_at(x, at + 1)))) {
        if (x->text[at] != '_') weft_buffer_putc(out, x->text[at]);
        at++;
    }
    return at;
}

static bool is_group(const calc_lexer *x, size_t at)
{
    return byte_at(x, at) == ',' && is_digit(byte_at(x, at + 1)) && is_digit(byte_at(x, at + 2)) &&
           is_digit(byte_at(x, at + 3)) && !is_digit(byte_at(x, at + 4));
}

/* ",ddd,ddd" after at most three digits. */
static size_t read_thousands(const calc_lexer *x, size_t at, weft_buffer *out)
{
    if (x->in_arguments || out->size > 3) return at;
    while (is_group(x, at)) {
        weft_buffer_append(out, x->text + at + 1, 3);
        at += 4;
    }
    return at;
}

/* value = digits * 10^exponent */
static bool set_number(calc_lexer *x, const char *digits, long exponent)
{
    mpz_t scale;
    mpz_set_str(mpq_numref(x->number), digits, 10);
    mpz_set_ui(mpq_denref(x->number), 1);
    if (mpz_sgn(mpq_numref(x->number)) == 0) return true;
    unsigned long power = exponent < 0 ? (unsigned long)-exponent : (unsigned long)exponent;
    if (power > CALC_MAX_BITS / 3)
        return fail(x, x->column, "this number has too many digits: 30,103 are the limit");
    mpz_init(scale);
    mpz_ui_pow_ui(scale, 10, power);
    mpz_ptr side = exponent < 0 ? mpq_denref(x->number) : mpq_numref(x->number);
    mpz_mul(side, side, scale);
    mpz_clear(scale);
    mpq_canonicalize(x->number);
    if (mpz_sizeinbase(mpq_numref(x->number), 2) > CALC_MAX_BITS ||
        mpz_sizeinbase(mpq_denref(x->number), 2) > CALC_MAX_BITS)
        return fail(x, x->column, "this number has too many digits: 30,103 are the limit");
    return true;
}

/* "e" with optional sign and digits at `at`: the place after it, and the exponent; else `at`. */
static size_t read_exponent(const calc_lexer *x, size_t at, long *exponent)
{
    size_t p = at + 1;
    if (byte_at(x, at) != 'e' && byte_at(x, at) != 'E') return at;
    if (byte_at(x, p) == '+' || byte_at(x, p) == '-') p++;
    if (!is_digit(byte_at(x, p))) return at;
    bool negative = byte_at(x, p - 1) == '-';
    long value = 0;
    for (; is_digit(byte_at(x, p)); p++)
        if (value < 10000000) value = value * 10 + (byte_at(x, p) - '0');
    *exponent += negative ? -value : value;
    return p;
}

static bool check_after_number(const calc_lexer *x, size_t at, size_t column)
{
    int c = byte_at(x, at);
    if (c == '.')
        return fail(x, column, "a number has one decimal point: write 1234.56 or 1,234.56");
    if (c == ',' && !x->in_arguments)
        return fail(
            x, column,
            "',' stands between the arguments of a function, or between groups of three digits "
            "(1,234,567); decimals take a point (1.5)");
    if (is_letter(c) || c == '(')
        return fail(x, column,
                    "an operator is missing after the number: write 2*pi, 2*(3+4), and no units");
    return true;
}

static bool read_number(calc_lexer *x)
{
    weft_buffer digits = WEFT_BUFFER_INIT;
    long exponent = 0;
    size_t from = x->at, at = read_thousands(x, read_digits(x, from, &digits), &digits);
    if (byte_at(x, at) == '.') {
        size_t whole = digits.size;
        at = read_digits(x, at + 1, &digits);
        exponent = -(long)(digits.size - whole);
    }
    bool ok = digits.size > 0 || fail(x, x->column, "a digit is missing beside the decimal point");
    if (ok) at = read_exponent(x, at, &exponent);
    x->at = at;
    x->column_at += at - from;
    ok = ok && check_after_number(x, at, x->column_at);
    ok = ok && (!digits.failed || fail(x, x->column, "out of memory"));
    ok = ok && set_number(x, weft_buffer_str(&digits), exponent);
    weft_buffer_free(&digits);
    x->token = TOKEN_NUMBER;
    return ok;
}

/* Letters, digits and underscores, in lower case; a leading "math." is dropped, as models write it.
 */
static bool read_name(calc_lexer *x)
{
    size_t n = 0, from = x->at, at = from;
    if (x->size - at > 5 && memcmp(x->text + at, "math.", 5) == 0 && is_letter(byte_at(x, at + 5)))
        at += 5;
    for (; is_letter(byte_at(x, at)) || is_digit(byte_at(x, at)); at++) {
        int c = byte_at(x, at);
        if (n + 1 >= sizeof x->name) return fail(x, x->column, "no name is as long as this one");
        x->name[n++] = (char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
    }
    x->name[n] = '\0';
    x->at = at;
    x->column_at += at - from;
    x->token = TOKEN_NAME;
    return true;
}

static bool read_symbol(calc_lexer *x, const char *from, size_t left, size_t *used)
{
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        size_t n = strlen(symbols[i].text);
        if (left >= n && memcmp(from, symbols[i].text, n) == 0) {
            x->token = symbols[i].token;
            *used = n;
            return true;
        }
    }
    return false;
}

static bool fail_at_character(const calc_lexer *x)
{
    int c = byte_at(x, x->at);
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        if (refused[i].symbol == c) {
            calc_fail(x->e, x->column, "'%c' has no meaning here: %s", c, refused[i].instead);
            return false;
        }
    }
    if (c >= 0x80 || c < 0x20)
        return fail(x, x->column,
                    "a character that has no meaning here: write numbers, + - * / ^ ( ) and names");
    calc_fail(x->e, x->column, "'%c' has no meaning here: write numbers, + - * / ^ ( ) and names",
              c);
    return false;
}

bool calc_lexer_next(calc_lexer *x)
{
    x->at = skip_space(x, x->at, &x->column_at);
    x->column = x->column_at;
    x->token = TOKEN_END;
    if (x->at == x->size) return true;
    int c = byte_at(x, x->at);
    if (is_digit(c) || c == '.') return read_number(x);
    if (is_letter(c)) return read_name(x);
    const char *means = "";
    size_t n = c >= 0x80 ? spelling_at(x, x->at, &means) : 0, used = 0;
    if (n && is_letter((unsigned char)*means)) {
        strcpy(x->name, means);
        x->token = TOKEN_NAME;
        used = 1;
    } else if (n) {
        read_symbol(x, means, strlen(means), &used);
        used = 1;
    } else if (read_symbol(x, x->text + x->at, x->size - x->at, &used)) {
        n = used;
    } else {
        return fail_at_character(x);
    }
    x->at += n;
    x->column_at += used;
    return true;
}
