/* Exact comparison and divisibility of JSON numbers (decimal.h says why).
 * Divisibility of a*10^p by b*10^q, both without trailing zeros: if p < q it is impossible (10
 * would divide a), otherwise b must divide a*10^(p-q), which GMP answers modulo b, so that
 * 1e1000000 costs no million digits. */
#include "schemas/decimal.h"

#include <gmp.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

static const int64_t EXPONENT_LIMIT = 1000000000000000;

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Past one exponent "e+12", saturated; NULL if it is malformed. */
static const char *read_exponent(const char *at, int64_t *out)
{
    bool negative = *at == '-';
    int64_t e = 0;
    if (*at == '-' || *at == '+') at++;
    if (!is_digit(*at)) return NULL;
    for (; is_digit(*at); at++)
        if (e < EXPONENT_LIMIT) e = e * 10 + (*at - '0');
    if (e > EXPONENT_LIMIT) e = EXPONENT_LIMIT;
    *out = negative ? -e : e;
    return at;
}

/* Reads the whole text as a JSON number; false if it is something else. */
static bool read_text(const char *text, decimal *out)
{
    decimal d = {.negative = *text == '-'};
    const char *at = text + d.negative;
    size_t pending = 0; /* zeros that count only if another digit follows */
    bool fraction = false;
    if (!is_digit(*at)) return false;
    for (; is_digit(*at) || (*at == '.' && !fraction); at++) {
        if (*at == '.') {
            fraction = true;
            if (!is_digit(at[1])) return false;
            continue;
        }
        if (fraction) d.exponent--;
        if (*at == '0') {
            if (d.n) pending++;
            continue;
        }
        if (!d.n) d.digits = at;
        d.n += pending + 1;
        pending = 0;
    }
    d.exponent += (int64_t)pending;
    if (*at == 'e' || *at == 'E') {
        int64_t e = 0;
        at = read_exponent(at + 1, &e);
        if (!at) return false;
        d.exponent += e;
    }
    if (*at) return false;
    if (!d.n) {
        d.exponent = 0;
        d.negative = false;
    }
    memcpy(out, &d, offsetof(decimal, own));
    return true;
}

bool decimal_read(const cJSON *number, decimal *out)
{
    if (number->valuestring && read_text(number->valuestring, out)) return true;
    if (!isfinite(number->valuedouble)) return false;
    weft_json_repr(number->valuedouble, out->own);
    return read_text(out->own, out);
}

/* The next digit of a view, stepping over the point. */
static char next_digit(const char **at)
{
    if (**at == '.') ++*at;
    return *(*at)++;
}

int decimal_compare(const decimal *a, const decimal *b)
{
    int sign = a->negative ? -1 : 1;
    if (!a->n || !b->n || a->negative != b->negative) {
        int sa = !a->n ? 0 : sign, sb = !b->n ? 0 : b->negative ? -1 : 1;
        return sa - sb;
    }
    int64_t top_a = a->exponent + (int64_t)a->n, top_b = b->exponent + (int64_t)b->n;
    if (top_a != top_b) return top_a < top_b ? -sign : sign;
    const char *pa = a->digits, *pb = b->digits;
    for (size_t i = 0; i < a->n && i < b->n; i++) {
        char da = next_digit(&pa), db = next_digit(&pb);
        if (da != db) return da < db ? -sign : sign;
    }
    return a->n == b->n ? 0 : a->n < b->n ? -sign : sign;
}

bool decimal_is_integer(const decimal *d)
{
    return !d->n || d->exponent >= 0;
}

static weft_status to_mpz(const decimal *d, mpz_t out, weft_error *err)
{
    char *text = malloc(d->n + 1);
    if (!text) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    const char *at = d->digits;
    for (size_t i = 0; i < d->n; i++) text[i] = next_digit(&at);
    text[d->n] = '\0';
    mpz_set_str(out, text, 10);
    free(text);
    return WEFT_OK;
}

weft_status decimal_is_multiple(const decimal *value, const decimal *step, bool *out,
                                weft_error *err)
{
    if (!value->n || value->exponent < step->exponent) {
        *out = !value->n;
        return WEFT_OK;
    }
    mpz_t a, b, shift;
    mpz_inits(a, b, shift, NULL);
    weft_status status = to_mpz(value, a, err);
    if (!status) status = to_mpz(step, b, err);
    if (!status) {
        mpz_set_ui(shift, 10);
        mpz_powm_ui(shift, shift, (unsigned long)(value->exponent - step->exponent), b);
        mpz_mul(a, a, shift);
        *out = mpz_divisible_p(a, b) != 0;
    }
    mpz_clears(a, b, shift, NULL);
    return status;
}

bool decimal_to_int(const decimal *d, int64_t *out)
{
    if (!decimal_is_integer(d)) return false;
    int64_t v = 0;
    const char *at = d->digits;
    bool over = false;
    for (size_t i = 0; i < d->n && !over; i++)
        over = __builtin_mul_overflow(v, (int64_t)10, &v) ||
               __builtin_add_overflow(v, (int64_t)(next_digit(&at) - '0'), &v);
    for (int64_t e = 0; d->n && e < d->exponent && !over; e++)
        over = __builtin_mul_overflow(v, (int64_t)10, &v);
    if (over) v = INT64_MAX;
    *out = d->negative ? -v : v;
    return true;
}

uint64_t decimal_hash(const decimal *d, uint64_t seed)
{
    const uint64_t prime = 0x100000001b3;
    uint64_t h = (seed ^ (uint64_t)d->negative) * prime;
    const char *at = d->digits;
    for (size_t i = 0; i < d->n; i++) h = (h ^ (uint64_t)next_digit(&at)) * prime;
    return (h ^ (uint64_t)d->exponent) * prime;
}
