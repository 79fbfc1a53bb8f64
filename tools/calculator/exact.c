/* Exact arithmetic on rationals, as far as it goes.
 *
 * Each operation answers CALC_DONE, or CALC_INEXACT where the result is irrational (sqrt(2)) or a
 * fraction too large to keep exactly (1.0001^1000000) and the intervals of real.c take over, or
 * CALC_FAILED. A whole number that is too large is refused and not rounded: who writes 9^9^9^9 or
 * 100000! is better told. Sizes are estimated before anything is computed.
 */
#include "tools/calculator/calc.h"

#include <math.h>
#include <stdlib.h>

static const double LOG10_2 = 0.30102999566398119521;

static calc_verdict too_large(calc_expression *e, const calc_node *node, double bits)
{
    double digits = bits * LOG10_2;
    if (digits < 1e15)
        return calc_fail(
            e, node->column,
            "the result would have about %.0f digits, and exact results end at 30,103: ask for a "
            "smaller one, or for its logarithm",
            digits);
    return calc_fail(
        e, node->column,
        "the result would have more than 10^15 digits, and exact results end at 30,103: ask for a "
        "smaller one, or for its logarithm");
}

static size_t bits_of(mpq_srcptr q)
{
    size_t num = mpz_sizeinbase(mpq_numref(q), 2), den = mpz_sizeinbase(mpq_denref(q), 2);
    return num > den ? num : den;
}

static bool is_whole(mpq_srcptr q)
{
    return mpz_cmp_ui(mpq_denref(q), 1) == 0;
}

/* The verdict on a result that was computed: kept, rounded, or refused. */
static calc_verdict fit(calc_expression *e, const calc_node *node, mpq_srcptr out)
{
    size_t bits = bits_of(out);
    if (bits <= CALC_MAX_BITS) return CALC_DONE;
    return is_whole(out) ? too_large(e, node, (double)bits) : CALC_INEXACT;
}

/* log2 |z| of a non-zero integer. */
static double log2_of(mpz_srcptr z)
{
    long exponent;
    double mantissa = fabs(mpz_get_d_2exp(&exponent, z));
    return log2(mantissa) + (double)exponent;
}

/* base^n for an integer n. */
static calc_verdict power_whole(calc_expression *e, const calc_node *node, mpq_srcptr base,
                                mpz_srcptr n, mpq_ptr out)
{
    int sign = mpz_sgn(n);
    if (mpq_sgn(base) == 0 && sign < 0)
        return calc_fail(e, node->column, "0 to a negative power divides by zero");
    if (sign == 0 || (mpq_sgn(base) == 0 && sign > 0)) {
        mpq_set_ui(out, sign == 0, 1);
        return CALC_DONE;
    }
    bool unit = is_whole(base) && mpz_cmpabs_ui(mpq_numref(base), 1) == 0;
    if (unit) {
        mpq_set_si(out, mpz_odd_p(n) ? mpq_sgn(base) : 1, 1);
        return CALC_DONE;
    }
    double num = log2_of(mpq_numref(base)), den = log2_of(mpq_denref(base));
    double bits = fabs(mpz_get_d(n)) * (num > den ? num : den);
    bool power_of_whole = is_whole(base) || mpz_cmpabs_ui(mpq_numref(base), 1) == 0;
    if (bits > CALC_MAX_BITS) return power_of_whole ? too_large(e, node, bits) : CALC_INEXACT;
    if (calc_charge(e, node->column, (uint64_t)bits)) return CALC_FAILED;
    unsigned long count = mpz_get_ui(n); /* of the absolute value, which fits: it is below bits */
    mpz_pow_ui(mpq_numref(out), mpq_numref(base), count);
    mpz_pow_ui(mpq_denref(out), mpq_denref(base), count);
    if (sign < 0) mpq_inv(out, out);
    return CALC_DONE;
}

/* The n-th root of a rational, if it is rational. The sign has been dealt with. */
static calc_verdict root_exact(mpq_srcptr x, unsigned long n, mpq_ptr out)
{
    mpq_t r;
    mpq_init(r);
    bool exact =
        mpz_root(mpq_numref(r), mpq_numref(x), n) && mpz_root(mpq_denref(r), mpq_denref(x), n);
    if (exact) mpq_set(out, r);
    mpq_clear(r);
    return exact ? CALC_DONE : CALC_INEXACT;
}

static calc_verdict power(calc_expression *e, const calc_node *node, mpq_srcptr base,
                          mpq_srcptr exponent, mpq_ptr out)
{
    if (is_whole(exponent)) return power_whole(e, node, base, mpq_numref(exponent), out);
    if (mpq_sgn(base) < 0)
        return calc_fail(e, node->column,
                         "a negative number to a fractional power is not real: write cbrt(x) or "
                         "root(x, n) for an odd root");
    if (mpq_sgn(base) == 0) {
        if (mpq_sgn(exponent) < 0)
            return calc_fail(e, node->column, "0 to a negative power divides by zero");
        mpq_set_ui(out, 0, 1);
        return CALC_DONE;
    }
    if (mpz_cmp_ui(mpq_denref(exponent), CALC_MAX_BITS) > 0) return CALC_INEXACT;
    mpq_t r;
    mpq_init(r);
    calc_verdict verdict = root_exact(base, mpz_get_ui(mpq_denref(exponent)), r);
    if (verdict == CALC_DONE) verdict = power_whole(e, node, r, mpq_numref(exponent), out);
    mpq_clear(r);
    return verdict;
}

static calc_verdict root(calc_expression *e, const calc_node *node, mpq_srcptr x, mpq_srcptr n,
                         mpq_ptr out)
{
    if (!is_whole(n) || mpz_cmp_ui(mpq_numref(n), 1) < 0 || mpz_cmp_ui(mpq_numref(n), 1000000) > 0)
        return calc_fail(e, node->column,
                         "the degree of a root is a whole number from 1 to 1,000,000");
    unsigned long degree = mpz_get_ui(mpq_numref(n));
    if (mpq_sgn(x) < 0 && degree % 2 == 0)
        return calc_fail(e, node->column, "%s",
                         degree == 2 ? "the square root of a negative number is not real"
                                     : "an even root of a negative number is not real");
    if (mpq_sgn(x) == 0) {
        mpq_set_ui(out, 0, 1);
        return CALC_DONE;
    }
    return root_exact(x, degree, out);
}

/* log of x to a whole base > 1, if it is whole: x = base^k or base^-k. */
static calc_verdict log_exact(mpq_srcptr x, mpz_srcptr base, mpq_ptr out)
{
    bool below = mpz_cmp_ui(mpq_numref(x), 1) == 0;
    if (!below && !is_whole(x)) return CALC_INEXACT;
    mpz_t rest;
    mpz_init(rest);
    mp_bitcnt_t k = mpz_remove(rest, below ? mpq_denref(x) : mpq_numref(x), base);
    bool exact = mpz_cmp_ui(rest, 1) == 0;
    mpz_clear(rest);
    if (!exact) return CALC_INEXACT;
    mpq_set_si(out, below ? -(long)k : (long)k, 1);
    return CALC_DONE;
}

static calc_verdict logarithm(calc_expression *e, const calc_node *node, const calc_value *arg,
                              mpq_ptr out)
{
    mpz_t base;
    if (mpq_sgn(arg[0].q) <= 0)
        return calc_fail(e, node->column, "the logarithm exists for positive numbers only");
    if (mpq_cmp_ui(arg[0].q, 1, 1) == 0 && node->n == 1) {
        mpq_set_ui(out, 0, 1);
        return CALC_DONE;
    }
    if (node->op == CALC_LN) return CALC_INEXACT;
    if (node->n == 2 && (mpq_sgn(arg[1].q) <= 0 || mpq_cmp_ui(arg[1].q, 1, 1) == 0))
        return calc_fail(e, node->column,
                         "the base of a logarithm is a positive number other than 1");
    if (node->n == 2 && (!is_whole(arg[1].q))) return CALC_INEXACT;
    mpz_init_set_ui(base, node->op == CALC_LOG2 ? 2 : 10);
    if (node->n == 2) mpz_set(base, mpq_numref(arg[1].q));
    calc_verdict verdict = log_exact(arg[0].q, base, out);
    mpz_clear(base);
    return verdict;
}

/* A whole, non-negative number that fits a long. */
static calc_verdict count_of(calc_expression *e, const calc_node *node, mpq_srcptr q,
                             unsigned long *out)
{
    if (!is_whole(q) || mpq_sgn(q) < 0)
        return calc_fail(e, node->column, "this takes whole numbers from 0 up");
    if (!mpz_fits_ulong_p(mpq_numref(q))) return too_large(e, node, HUGE_VAL);
    *out = mpz_get_ui(mpq_numref(q));
    return CALC_DONE;
}

/* log2 of n (n-1) ... (n-k+1) */
static double log2_falling(mpz_srcptr n, unsigned long k)
{
    int sign;
    double d = mpz_get_d(n);
    if (d > 1e12) return (double)k * log2_of(n);
    return (lgamma_r(d + 1, &sign) - lgamma_r(d - (double)k + 1, &sign)) / log(2);
}

static calc_verdict factorial(calc_expression *e, const calc_node *node, const calc_value *arg,
                              mpq_ptr out)
{
    unsigned long n = 0;
    if (count_of(e, node, arg->q, &n)) return CALC_FAILED;
    double bits = log2_falling(mpq_numref(arg->q), n);
    if (bits > CALC_MAX_BITS) return too_large(e, node, bits);
    if (calc_charge(e, node->column, (uint64_t)bits * 4)) return CALC_FAILED;
    mpz_fac_ui(mpq_numref(out), n);
    mpz_set_ui(mpq_denref(out), 1);
    return CALC_DONE;
}

static void falling(mpz_srcptr n, unsigned long k, mpz_ptr out)
{
    mpz_t factor;
    mpz_init_set(factor, n);
    mpz_set_ui(out, 1);
    for (; k; k--, mpz_sub_ui(factor, factor, 1)) mpz_mul(out, out, factor);
    mpz_clear(factor);
}

/* n (n-1) ... (n-k+1), divided by k! for combinations, where the smaller of k and n-k does. */
static calc_verdict choose(calc_expression *e, const calc_node *node, const calc_value *arg,
                           mpq_ptr out)
{
    unsigned long k = 0;
    mpz_srcptr n = mpq_numref(arg[0].q);
    mpq_t least;
    mpq_init(least);
    mpq_set(least, arg[1].q);
    calc_verdict verdict = CALC_DONE;
    if (!is_whole(arg[0].q) || !is_whole(least) || mpz_sgn(n) < 0 || mpq_sgn(least) < 0) {
        verdict = calc_fail(e, node->column, "this takes whole numbers from 0 up");
    } else if (mpq_cmp(least, arg[0].q) <= 0) {
        mpq_sub(out, arg[0].q, least);
        if (node->op == CALC_COMB && mpq_cmp(out, least) < 0) mpq_set(least, out);
        verdict = count_of(e, node, least, &k);
        double bits = verdict ? 0 : log2_falling(n, k),
               down = verdict ? 0 : log2_falling(mpq_numref(least), k);
        if (node->op == CALC_COMB) bits -= down;
        if (bits > CALC_MAX_BITS) verdict = too_large(e, node, bits);
        if (!verdict) verdict = calc_charge(e, node->column, ((uint64_t)fabs(bits) + k) * 8);
        mpq_set_ui(out, 1, 1);
        if (!verdict && node->op == CALC_COMB) mpz_bin_ui(mpq_numref(out), n, k);
        if (!verdict && node->op == CALC_PERM) falling(n, k, mpq_numref(out));
    } else {
        mpq_set_ui(out, 0, 1);
    }
    mpq_clear(least);
    return verdict;
}

void calc_round_exact(calc_op op, mpq_srcptr x, mpz_ptr out)
{
    switch (op) {
    case CALC_FLOOR: mpz_fdiv_q(out, mpq_numref(x), mpq_denref(x)); return;
    case CALC_CEIL: mpz_cdiv_q(out, mpq_numref(x), mpq_denref(x)); return;
    case CALC_TRUNC: mpz_tdiv_q(out, mpq_numref(x), mpq_denref(x)); return;
    default: { /* half away from zero: trunc((2|n| + d) / 2d) with the sign of n */
        mpz_t twice;
        mpz_init(twice);
        mpz_mul_2exp(twice, mpq_denref(x), 1);
        mpz_mul_2exp(out, mpq_numref(x), 1);
        mpz_abs(out, out);
        mpz_add(out, out, mpq_denref(x));
        mpz_fdiv_q(out, out, twice);
        if (mpq_sgn(x) < 0) mpz_neg(out, out);
        mpz_clear(twice);
    }
    }
}

/* round(x, n): to n decimals, or to tens and hundreds where n is negative. */
static calc_verdict round_places(calc_expression *e, const calc_node *node, const calc_value *arg,
                                 mpq_ptr out)
{
    if (node->n == 2 && (!is_whole(arg[1].q) || mpz_cmpabs_ui(mpq_numref(arg[1].q), 1000) > 0))
        return calc_fail(e, node->column, "round(x, n) takes a whole n from -1000 to 1000");
    long places = node->n == 2 ? mpz_get_si(mpq_numref(arg[1].q)) : 0;
    mpz_t whole;
    mpq_t scale;
    mpz_init(whole);
    mpq_init(scale);
    mpz_ui_pow_ui(mpq_numref(scale), 10, (unsigned long)labs(places));
    if (places < 0) mpq_inv(scale, scale);
    mpq_mul(out, arg[0].q, scale);
    calc_round_exact(CALC_ROUND, out, whole);
    mpq_set_z(out, whole);
    mpq_div(out, out, scale);
    mpz_clear(whole);
    mpq_clear(scale);
    return fit(e, node, out);
}

/* x - y floor(x / y), or the floor alone. */
static calc_verdict floor_division(calc_expression *e, const calc_node *node, mpq_srcptr x,
                                   mpq_srcptr y, mpq_ptr out)
{
    if (mpq_sgn(y) == 0) return calc_fail(e, node->column, "division by zero");
    mpz_t floor_of;
    mpq_t r;
    mpz_init(floor_of);
    mpq_init(r);
    mpq_div(r, x, y);
    mpz_fdiv_q(floor_of, mpq_numref(r), mpq_denref(r));
    mpq_set_z(r, floor_of);
    if (node->op == CALC_MOD) {
        mpq_mul(r, r, y);
        mpq_sub(r, x, r);
    }
    mpq_set(out, r);
    mpz_clear(floor_of);
    mpq_clear(r);
    return fit(e, node, out);
}

static calc_verdict whole_fold(calc_expression *e, const calc_node *node, const calc_value *arg,
                               mpq_ptr out)
{
    for (size_t i = 0; i < node->n; i++)
        if (!is_whole(arg[i].q))
            return calc_fail(e, node->column, "gcd and lcm take whole numbers");
    mpq_abs(out, arg[0].q);
    for (size_t i = 1; i < node->n; i++) {
        if (node->op == CALC_GCD)
            mpz_gcd(mpq_numref(out), mpq_numref(out), mpq_numref(arg[i].q));
        else
            mpz_lcm(mpq_numref(out), mpq_numref(out), mpq_numref(arg[i].q));
        if (bits_of(out) > CALC_MAX_BITS) return fit(e, node, out);
    }
    return CALC_DONE;
}

/* sum, avg, min, max */
static calc_verdict fold(calc_expression *e, const calc_node *node, const calc_value *arg,
                         mpq_ptr out)
{
    mpq_set(out, arg[0].q);
    for (size_t i = 1; i < node->n; i++) {
        int order = mpq_cmp(arg[i].q, out);
        if (node->op == CALC_MIN || node->op == CALC_MAX) {
            if (node->op == CALC_MIN ? order < 0 : order > 0) mpq_set(out, arg[i].q);
            continue;
        }
        mpq_add(out, out, arg[i].q);
        calc_verdict verdict = fit(e, node, out);
        if (verdict) return verdict;
    }
    if (node->op == CALC_AVG) {
        mpq_t n;
        mpq_init(n);
        mpq_set_ui(n, node->n, 1);
        mpq_div(out, out, n);
        mpq_clear(n);
    }
    return CALC_DONE;
}

/* f(0) = 0 or f(0) = 1 or f(1) = 0 are the only rational results of these functions at rational
 * arguments (Lindemann-Weierstrass); and their domains. */
static calc_verdict transcendental(calc_expression *e, const calc_node *node, mpq_srcptr x,
                                   mpq_ptr out)
{
    int sign = mpq_sgn(x), to_one = mpq_cmp_ui(x, 1, 1), to_minus_one = mpq_cmp_si(x, -1, 1);
    bool zero_at_one = node->op == CALC_ACOS || node->op == CALC_ACOSH;
    bool one_at_zero = node->op == CALC_EXP || node->op == CALC_COS || node->op == CALC_COSH;
    if ((node->op == CALC_ASIN || node->op == CALC_ACOS) && (to_one > 0 || to_minus_one < 0))
        return calc_fail(e, node->column, "this takes numbers from -1 to 1");
    if (node->op == CALC_ATANH && (to_one >= 0 || to_minus_one <= 0))
        return calc_fail(e, node->column, "this takes numbers between -1 and 1");
    if (node->op == CALC_ACOSH && to_one < 0)
        return calc_fail(e, node->column, "this takes numbers from 1 up");
    if (zero_at_one ? to_one != 0 : sign != 0) return CALC_INEXACT;
    mpq_set_ui(out, one_at_zero, 1);
    return CALC_DONE;
}

calc_verdict calc_exact(calc_expression *e, const calc_node *node, const calc_value *arg,
                        mpq_ptr out)
{
    uint64_t bits = 64;
    for (size_t i = 0; i < node->n; i++) bits += bits_of(arg[i].q);
    if (calc_charge(e, node->column, bits)) return CALC_FAILED;
    switch (node->op) {
    case CALC_NUMBER: mpq_set(out, node->value); return CALC_DONE;
    case CALC_PI:
    case CALC_E:
    case CALC_TAU: return CALC_INEXACT;
    case CALC_ADD: mpq_add(out, arg[0].q, arg[1].q); return fit(e, node, out);
    case CALC_SUB: mpq_sub(out, arg[0].q, arg[1].q); return fit(e, node, out);
    case CALC_MUL: mpq_mul(out, arg[0].q, arg[1].q); return fit(e, node, out);
    case CALC_DIV:
        if (mpq_sgn(arg[1].q) == 0) return calc_fail(e, node->column, "division by zero");
        mpq_div(out, arg[0].q, arg[1].q);
        return fit(e, node, out);
    case CALC_FLOORDIV:
    case CALC_MOD: return floor_division(e, node, arg[0].q, arg[1].q, out);
    case CALC_NEG: mpq_neg(out, arg[0].q); return CALC_DONE;
    case CALC_PERCENT: {
        mpq_t hundred;
        mpq_init(hundred);
        mpq_set_ui(hundred, 100, 1);
        mpq_div(out, arg[0].q, hundred);
        mpq_clear(hundred);
        return fit(e, node, out);
    }
    case CALC_POW: return power(e, node, arg[0].q, arg[1].q, out);
    case CALC_FACTORIAL: return factorial(e, node, arg, out);
    case CALC_COMB:
    case CALC_PERM: return choose(e, node, arg, out);
    case CALC_GCD:
    case CALC_LCM: return whole_fold(e, node, arg, out);
    case CALC_ABS: mpq_abs(out, arg[0].q); return CALC_DONE;
    case CALC_FLOOR:
    case CALC_CEIL:
    case CALC_TRUNC:
        calc_round_exact(node->op, arg[0].q, mpq_numref(out));
        mpz_set_ui(mpq_denref(out), 1);
        return CALC_DONE;
    case CALC_ROUND: return round_places(e, node, arg, out);
    case CALC_MIN:
    case CALC_MAX:
    case CALC_SUM:
    case CALC_AVG: return fold(e, node, arg, out);
    case CALC_SQRT:
    case CALC_CBRT: {
        mpq_t degree;
        mpq_init(degree);
        mpq_set_ui(degree, node->op == CALC_SQRT ? 2 : 3, 1);
        calc_verdict verdict = root(e, node, arg[0].q, degree, out);
        mpq_clear(degree);
        return verdict;
    }
    case CALC_ROOT: return root(e, node, arg[0].q, arg[1].q, out);
    case CALC_LN:
    case CALC_LOG:
    case CALC_LOG2: return logarithm(e, node, arg, out);
    default: return transcendental(e, node, arg[0].q, out);
    }
}
