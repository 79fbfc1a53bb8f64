/* Writes results: exact ones as they are, others rounded to 20 significant digits and marked as
 * rounded. The number stands first, so that a reader who wants only the number takes the first
 * word.
 *
 *   whole, up to 1,000 digits                     168
 *   terminating, up to 50 decimals                12.5
 *   terminating, up to 50 digits                  1e-60
 *   other fractions         0.33333333333333333333 (rounded; exactly 1/3)
 *   longer whole numbers    1.0715086071862673209e3010 (rounded; the exact number has 3011 digits)
 *   irrational              1.4142135623730950488 (rounded)
 */
#include "tools/calculator/calc.h"

#include <stdlib.h>
#include <string.h>

/* Writes sign, digits and the power of ten of the first digit, without trailing zeros: plain from
 * 1e-7 to below 1e21, scientific beyond. */
static void put_number(weft_buffer *out, bool negative, const char *digits, long exponent)
{
    size_t n = strlen(digits);
    while (n > 1 && digits[n - 1] == '0') n--;
    if (negative) weft_buffer_putc(out, '-');
    if (exponent >= -7 && exponent < 0) {
        weft_buffer_puts(out, "0.");
        for (long i = -1; i > exponent; i--) weft_buffer_putc(out, '0');
        weft_buffer_append(out, digits, n);
    } else if (exponent >= 0 && exponent < 21) {
        size_t whole = (size_t)exponent + 1;
        weft_buffer_append(out, digits, n < whole ? n : whole);
        for (size_t i = n; i < whole; i++) weft_buffer_putc(out, '0');
        if (n > whole) weft_buffer_putc(out, '.');
        if (n > whole) weft_buffer_append(out, digits + whole, n - whole);
    } else {
        weft_buffer_putc(out, digits[0]);
        if (n > 1) weft_buffer_putc(out, '.');
        weft_buffer_append(out, digits + 1, n - 1);
        weft_buffer_printf(out, "e%ld", exponent);
    }
}

static void put_integer(weft_buffer *out, mpz_srcptr z)
{
    char *to = weft_buffer_reserve(out, mpz_sizeinbase(z, 10) + 1);
    if (!to) return;
    mpz_get_str(to, 10, z);
    out->size += strlen(to);
}

static size_t digits_of(mpz_srcptr z)
{
    size_t n = mpz_sizeinbase(z, 10); /* exact or one too large */
    mpz_t power;
    mpz_init(power);
    mpz_ui_pow_ui(power, 10, n - 1);
    bool less = mpz_cmpabs(z, power) < 0;
    mpz_clear(power);
    return less ? n - 1 : n;
}

/* Removes the factors 2 and 5. True if nothing else is left; *decimals is then how many decimals
 * the fraction has. */
static bool terminates(mpz_srcptr den, unsigned long *decimals)
{
    mpz_t rest, factor;
    mpz_init(rest);
    mpz_init_set_ui(factor, 5);
    mp_bitcnt_t fives = mpz_remove(rest, den, factor), twos = mpz_scan1(rest, 0);
    mpz_tdiv_q_2exp(rest, rest, twos);
    bool whole = mpz_cmp_ui(rest, 1) == 0;
    mpz_clears(rest, factor, NULL);
    *decimals = fives > twos ? fives : twos;
    return whole;
}

/* A fraction that ends: its digits without the point are q * 10^decimals. False if there are too
 * many. */
static bool print_terminating(mpq_srcptr q, unsigned long decimals, weft_buffer *out)
{
    if (decimals > CALC_MAX_BITS) return false;
    bool printed = false;
    mpz_t scaled;
    mpz_init(scaled);
    mpz_ui_pow_ui(scaled, 10, decimals);
    mpz_mul(scaled, scaled, mpq_numref(q));
    mpz_divexact(scaled, scaled, mpq_denref(q));
    size_t n = digits_of(scaled);
    if (n <= CALC_MAX_SHOWN && (decimals <= CALC_MAX_DECIMALS || n <= CALC_MAX_DECIMALS)) {
        weft_buffer text = WEFT_BUFFER_INIT;
        mpz_t size;
        mpz_init(size);
        mpz_abs(size, scaled);
        put_integer(&text, size);
        mpz_clear(size);
        if (decimals > CALC_MAX_DECIMALS) {
            put_number(out, mpq_sgn(q) < 0, weft_buffer_str(&text), (long)n - 1 - (long)decimals);
        } else {
            if (mpq_sgn(q) < 0) weft_buffer_putc(out, '-');
            if (n <= decimals) weft_buffer_puts(out, "0.");
            for (size_t i = n; i < decimals; i++) weft_buffer_putc(out, '0');
            if (n > decimals) {
                weft_buffer_append(out, weft_buffer_str(&text), n - decimals);
                weft_buffer_putc(out, '.');
            }
            weft_buffer_puts(out, weft_buffer_str(&text) + (n > decimals ? n - decimals : 0));
        }
        if (text.failed) out->failed = true;
        weft_buffer_free(&text);
        printed = true;
    }
    mpz_clear(scaled);
    return printed;
}

/* Divides |q| by 10^(exponent - 19) and rounds half to even: 20 digits if the exponent was right.
 */
static void scale_to_digits(mpq_srcptr q, long exponent, mpz_ptr out)
{
    long shift = CALC_DIGITS - 1 - exponent;
    mpz_t num, den, rest;
    mpz_inits(num, den, rest, NULL);
    mpz_abs(num, mpq_numref(q));
    mpz_set(den, mpq_denref(q));
    mpz_ui_pow_ui(rest, 10, (unsigned long)labs(shift));
    mpz_mul(shift >= 0 ? num : den, shift >= 0 ? num : den, rest);
    mpz_fdiv_qr(out, rest, num, den);
    mpz_mul_2exp(rest, rest, 1);
    int half = mpz_cmp(rest, den);
    if (half > 0 || (half == 0 && mpz_odd_p(out))) mpz_add_ui(out, out, 1);
    mpz_clears(num, den, rest, NULL);
}

static void print_rounded(mpq_srcptr q, weft_buffer *out)
{
    long exponent =
        (long)mpz_sizeinbase(mpq_numref(q), 10) - (long)mpz_sizeinbase(mpq_denref(q), 10) + 1;
    mpz_t digits;
    mpz_init(digits);
    /* the estimate is never too small, and at most 3 too large */
    for (;;) {
        scale_to_digits(q, exponent, digits);
        size_t n = digits_of(digits);
        if (n >= CALC_DIGITS) {
            exponent += (long)n - CALC_DIGITS; /* 9.99... rounded up to 10 */
            break;
        }
        exponent--;
    }
    weft_buffer text = WEFT_BUFFER_INIT;
    put_integer(&text, digits);
    put_number(out, mpq_sgn(q) < 0, weft_buffer_str(&text), exponent);
    if (text.failed) out->failed = true;
    weft_buffer_free(&text);
    mpz_clear(digits);
}

weft_status calc_print_exact(mpq_srcptr q, weft_buffer *out, weft_error *err)
{
    unsigned long decimals;
    if (mpz_cmp_ui(mpq_denref(q), 1) == 0) {
        size_t n = digits_of(mpq_numref(q));
        if (n <= CALC_MAX_SHOWN) {
            put_integer(out, mpq_numref(q));
        } else {
            print_rounded(q, out);
            weft_buffer_printf(out, " (rounded; the exact number has %zu digits)", n);
        }
        return weft_buffer_ok(out, err);
    }
    if (terminates(mpq_denref(q), &decimals) && print_terminating(q, decimals, out))
        return weft_buffer_ok(out, err);
    print_rounded(q, out);
    weft_buffer_puts(out, " (rounded");
    if (digits_of(mpq_numref(q)) <= CALC_DIGITS && digits_of(mpq_denref(q)) <= CALC_DIGITS) {
        weft_buffer_puts(out, "; exactly ");
        put_integer(out, mpq_numref(q));
        weft_buffer_putc(out, '/');
        put_integer(out, mpq_denref(q));
    }
    weft_buffer_putc(out, ')');
    return weft_buffer_ok(out, err);
}

/* Neither end is zero and both round to the same decimal: that one; NULL text otherwise. */
static bool print_agreed(const calc_value *v, weft_buffer *out)
{
    mpfr_exp_t at_lo, at_hi;
    char *lo = mpfr_get_str(NULL, &at_lo, 10, CALC_DIGITS, v->lo, MPFR_RNDN);
    char *hi = mpfr_get_str(NULL, &at_hi, 10, CALC_DIGITS, v->hi, MPFR_RNDN);
    bool agreed = lo && hi && at_lo == at_hi && strcmp(lo, hi) == 0;
    if (agreed) put_number(out, lo[0] == '-', lo + (lo[0] == '-'), (long)at_lo - 1);
    mpfr_free_str(lo);
    mpfr_free_str(hi);
    return agreed;
}

calc_verdict calc_print_real(calc_expression *e, const calc_value *v, weft_buffer *out)
{
    bool zero_within = mpfr_sgn(v->lo) <= 0 && mpfr_sgn(v->hi) >= 0;
    if (zero_within ? mpfr_zero_p(v->lo) && mpfr_zero_p(v->hi) : print_agreed(v, out)) {
        weft_buffer_puts(out, zero_within ? "0 (rounded)" : " (rounded)");
        return CALC_DONE;
    }
    if (!calc_is_last(e)) return CALC_UNDECIDED;
    size_t column = e->side[0]->column;
    mpfr_t width;
    mpfr_init2(width, 64);
    mpfr_sub(width, v->hi, v->lo, MPFR_RNDU);
    mpfr_exp_t scale = zero_within ? 0 : mpfr_get_exp(v->lo);
    bool narrow = mpfr_get_exp(width) < scale - CALC_LAST_BITS / 8;
    mpfr_clear(width);
    if (!narrow)
        return calc_fail(e, column,
                         "the result cannot be told to 20 digits: its arguments are too large");
    if (zero_within) {
        weft_buffer_puts(out, "0 (rounded)");
        return CALC_DONE;
    }
    /* half-way between two decimals, as far as thousands of digits tell: either is right to the
     * half */
    char *digits;
    mpfr_exp_t exponent;
    digits = mpfr_get_str(NULL, &exponent, 10, CALC_DIGITS, v->hi, MPFR_RNDN);
    if (!digits) return calc_fail(e, column, "out of memory");
    put_number(out, digits[0] == '-', digits + (digits[0] == '-'), (long)exponent - 1);
    mpfr_free_str(digits);
    weft_buffer_puts(out, " (rounded)");
    return CALC_DONE;
}
