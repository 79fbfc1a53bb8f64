/* Interval arithmetic: what the calculator does where no rational result exists.
 *
 * Every function takes intervals that hold the true arguments and gives one that holds the true
 * result: lower ends are rounded down, upper ends up (MPFR rounds each function correctly).
 * Monotone functions map ends to ends; sine and cosine are monotone between two zeros of their
 * derivative. A question that an interval leaves open (is it zero? is it below 1?) is answered
 * CALC_UNDECIDED, which asks for more bits; in the last pass open means equal: sqrt(2)^2 - 2 is
 * then 0.
 */
#include "tools/calculator/calc.h"

typedef int (*mpfr_function)(mpfr_ptr, mpfr_srcptr, mpfr_rnd_t);

static calc_verdict undecided(calc_expression *e, const calc_node *node, const char *what)
{
    if (!calc_is_last(e)) return CALC_UNDECIDED;
    return calc_fail(e, node->column, "%s, as far as 2,400 digits can tell", what);
}

/* Where a bound (0, 1, -1) lies: -1 all of v below it, 1 all above, 0 touched or within. */
static int side_of(const calc_value *v, long bound)
{
    if (mpfr_cmp_si(v->lo, bound) > 0) return 1;
    return mpfr_cmp_si(v->hi, bound) < 0 ? -1 : 0;
}

static bool is_wide(const calc_value *v)
{
    mpfr_t width;
    mpfr_init2(width, 64);
    mpfr_sub(width, v->hi, v->lo, MPFR_RNDU);
    bool wide = !(mpfr_cmp_ui(width, 1) < 0); /* also for infinite ends */
    mpfr_clear(width);
    return wide;
}

static calc_verdict rising(mpfr_function f, const calc_value *x, calc_value *out)
{
    f(out->lo, x->lo, MPFR_RNDD);
    f(out->hi, x->hi, MPFR_RNDU);
    return CALC_DONE;
}

static calc_verdict falling(mpfr_function f, const calc_value *x, calc_value *out)
{
    f(out->lo, x->hi, MPFR_RNDD);
    f(out->hi, x->lo, MPFR_RNDU);
    return CALC_DONE;
}

static void add(const calc_value *a, const calc_value *b, calc_value *out)
{
    mpfr_add(out->lo, a->lo, b->lo, MPFR_RNDD);
    mpfr_add(out->hi, a->hi, b->hi, MPFR_RNDU);
}

static void sub(const calc_value *a, const calc_value *b, calc_value *out)
{
    mpfr_sub(out->lo, a->lo, b->hi, MPFR_RNDD);
    mpfr_sub(out->hi, a->hi, b->lo, MPFR_RNDU);
}

typedef int (*mpfr_function2)(mpfr_ptr, mpfr_srcptr, mpfr_srcptr, mpfr_rnd_t);

/* A function that is monotone in each argument over the box takes its extremes at the four corners.
 */
static void corners(mpfr_function2 f, const calc_value *a, const calc_value *b, calc_value *out)
{
    mpfr_t corner;
    mpfr_init2(corner, mpfr_get_prec(out->lo));
    for (int i = 0; i < 4; i++) {
        mpfr_srcptr x = i & 1 ? a->hi : a->lo, y = i & 2 ? b->hi : b->lo;
        f(corner, x, y, MPFR_RNDD);
        if (i == 0 || mpfr_less_p(corner, out->lo)) mpfr_set(out->lo, corner, MPFR_RNDD);
        f(corner, x, y, MPFR_RNDU);
        if (i == 0 || mpfr_greater_p(corner, out->hi)) mpfr_set(out->hi, corner, MPFR_RNDU);
    }
    mpfr_clear(corner);
}

static calc_verdict divide(calc_expression *e, const calc_node *node, const calc_value *a,
                           const calc_value *b, calc_value *out)
{
    if (side_of(b, 0) == 0) return undecided(e, node, "division by zero");
    corners(mpfr_div, a, b, out);
    return CALC_DONE;
}

/* The lower end moves up to a bound that the true value cannot lie below. */
static void clamp_low(calc_value *v, long bound)
{
    if (mpfr_cmp_si(v->lo, bound) < 0) mpfr_set_si(v->lo, bound, MPFR_RNDD);
}

static void clamp_high(calc_value *v, long bound)
{
    if (mpfr_cmp_si(v->hi, bound) > 0) mpfr_set_si(v->hi, bound, MPFR_RNDU);
}

/* x^n for a whole n. */
static calc_verdict power_whole(calc_expression *e, const calc_node *node, const calc_value *x,
                                mpz_srcptr n, calc_value *out)
{
    int side = side_of(x, 0);
    if (mpz_sgn(n) < 0 && side == 0)
        return undecided(e, node, "0 to a negative power divides by zero");
    bool even = mpz_even_p(n), mirrored = even && side < 0;
    bool down = mpz_sgn(n) < 0 ? !mirrored : mirrored; /* x^n falls over the interval */
    mpfr_pow_z(out->lo, down ? x->hi : x->lo, n, MPFR_RNDD);
    mpfr_pow_z(out->hi, down ? x->lo : x->hi, n, MPFR_RNDU);
    if (even && side == 0) { /* the least value is 0, the greatest at one of the ends */
        mpfr_pow_z(out->lo, x->lo, n, MPFR_RNDU);
        if (mpfr_greater_p(out->lo, out->hi)) mpfr_set(out->hi, out->lo, MPFR_RNDU);
        mpfr_set_zero(out->lo, 1);
    }
    return CALC_DONE;
}

static calc_verdict power(calc_expression *e, const calc_node *node, calc_value *x,
                          const calc_value *y, calc_value *out)
{
    int side = side_of(x, 0);
    /* small whole exponents keep the sign; with a large one only x^y = exp(y ln x) is cheap */
    bool whole = y->exact && mpz_cmp_ui(mpq_denref(y->q), 1) == 0;
    if (whole && (side <= 0 || mpz_sizeinbase(mpq_numref(y->q), 2) <= 32)) {
        if (mpz_sizeinbase(mpq_numref(y->q), 2) > 62)
            return calc_fail(e, node->column, "this power is too large");
        return power_whole(e, node, x, mpq_numref(y->q), out);
    }
    if (side < 0)
        return calc_fail(e, node->column,
                         "a negative number to a fractional power is not real: write cbrt(x) or "
                         "root(x, n) for an odd root");
    if (side == 0) {
        int exponent = side_of(y, 0);
        if (exponent <= 0) return undecided(e, node, "0 to a power that is not positive");
        clamp_low(x, 0);
    }
    corners(mpfr_pow, x, y, out);
    return CALC_DONE;
}

static calc_verdict square_root(calc_expression *e, const calc_node *node, calc_value *x,
                                calc_value *out)
{
    if (side_of(x, 0) < 0)
        return calc_fail(e, node->column, "the square root of a negative number is not real");
    clamp_low(x, 0);
    return rising(mpfr_sqrt, x, out);
}

static calc_verdict root(calc_expression *e, const calc_node *node, calc_value *x,
                         const calc_value *n, calc_value *out)
{
    if (!n->exact || mpz_cmp_ui(mpq_denref(n->q), 1) != 0 || mpq_sgn(n->q) <= 0 ||
        mpq_cmp_ui(n->q, 1000000, 1) > 0)
        return calc_fail(e, node->column,
                         "the degree of a root is a whole number from 1 to 1,000,000");
    unsigned long degree = mpz_get_ui(mpq_numref(n->q));
    if (degree % 2 == 0) {
        if (side_of(x, 0) < 0)
            return calc_fail(e, node->column, "an even root of a negative number is not real");
        clamp_low(x, 0);
    }
    mpfr_rootn_ui(out->lo, x->lo, degree, MPFR_RNDD);
    mpfr_rootn_ui(out->hi, x->hi, degree, MPFR_RNDU);
    return CALC_DONE;
}

static calc_verdict logarithm(calc_expression *e, const calc_node *node, const calc_value *arg,
                              calc_value *out)
{
    int side = side_of(&arg[0], 0);
    if (side < 0)
        return calc_fail(e, node->column, "the logarithm exists for positive numbers only");
    if (side == 0) return undecided(e, node, "the logarithm of zero");
    if (node->n == 1)
        return rising(node->op == CALC_LN     ? mpfr_log
                      : node->op == CALC_LOG2 ? mpfr_log2
                                              : mpfr_log10,
                      &arg[0], out);
    if (side_of(&arg[1], 0) < 0)
        return calc_fail(e, node->column,
                         "the base of a logarithm is a positive number other than 1");
    if (side_of(&arg[1], 0) == 0 || side_of(&arg[1], 1) == 0)
        return undecided(e, node, "the base of a logarithm is a positive number other than 1");
    calc_value top, base;
    calc_value_init(&top, e->bits);
    calc_value_init(&base, e->bits);
    rising(mpfr_log, &arg[0], &top);
    rising(mpfr_log, &arg[1], &base);
    calc_verdict verdict = divide(e, node, &top, &base, out);
    calc_value_clear(&top);
    calc_value_clear(&base);
    return verdict;
}

/* Sine and cosine. Over less than 1 (zeros of the derivative are pi apart) the function is monotone
 * if its derivative has one sign at both ends, and else has exactly one extreme, 1 or -1, in
 * between. */
static calc_verdict wave(calc_op op, const calc_value *x, calc_value *out)
{
    if (is_wide(x)) {
        mpfr_set_si(out->lo, -1, MPFR_RNDD);
        mpfr_set_si(out->hi, 1, MPFR_RNDU);
        return CALC_DONE;
    }
    mpfr_function f = op == CALC_SIN ? mpfr_sin : mpfr_cos,
                  slope = op == CALC_SIN ? mpfr_cos : mpfr_sin;
    slope(out->lo, x->lo, MPFR_RNDN);
    slope(out->hi, x->hi, MPFR_RNDN);
    int turn = op == CALC_SIN ? 1 : -1; /* cos' = -sin */
    int at_lo = turn * mpfr_sgn(out->lo), at_hi = turn * mpfr_sgn(out->hi);
    if (at_lo >= 0 && at_hi >= 0) return rising(f, x, out);
    if (at_lo <= 0 && at_hi <= 0) return falling(f, x, out);
    if (at_lo > 0) {
        f(out->lo, x->lo, MPFR_RNDD);
        f(out->hi, x->hi, MPFR_RNDD);
        mpfr_min(out->lo, out->lo, out->hi, MPFR_RNDD);
        mpfr_set_si(out->hi, 1, MPFR_RNDU);
    } else {
        f(out->lo, x->lo, MPFR_RNDU);
        f(out->hi, x->hi, MPFR_RNDU);
        mpfr_max(out->hi, out->lo, out->hi, MPFR_RNDU);
        mpfr_set_si(out->lo, -1, MPFR_RNDD);
    }
    return CALC_DONE;
}

static calc_verdict tangent(calc_expression *e, const calc_node *node, const calc_value *x,
                            calc_value *out)
{
    if (is_wide(x)) return undecided(e, node, "the argument is too large for the tangent");
    mpfr_cos(out->lo, x->lo, MPFR_RNDN);
    mpfr_cos(out->hi, x->hi, MPFR_RNDN);
    if (mpfr_sgn(out->lo) != mpfr_sgn(out->hi))
        return undecided(e, node, "the tangent has no value here");
    return rising(mpfr_tan, x, out);
}

/* asin and acos on [-1, 1], atanh between, acosh from 1 up */
static calc_verdict arc(calc_expression *e, const calc_node *node, calc_value *x, calc_value *out)
{
    if (node->op == CALC_ACOSH) {
        if (side_of(x, 1) < 0) return calc_fail(e, node->column, "this takes numbers from 1 up");
        clamp_low(x, 1);
        return rising(mpfr_acosh, x, out);
    }
    if (side_of(x, 1) > 0 || side_of(x, -1) < 0)
        return calc_fail(e, node->column, "this takes numbers from -1 to 1");
    if (node->op == CALC_ATANH) {
        if (side_of(x, 1) == 0 || side_of(x, -1) == 0)
            return undecided(e, node, "atanh takes numbers between -1 and 1");
        return rising(mpfr_atanh, x, out);
    }
    clamp_low(x, -1);
    clamp_high(x, 1);
    return node->op == CALC_ASIN ? rising(mpfr_asin, x, out) : falling(mpfr_acos, x, out);
}

static void absolute(const calc_value *x, calc_value *out)
{
    int side = side_of(x, 0);
    mpfr_abs(out->lo, side < 0 ? x->hi : x->lo, MPFR_RNDD);
    mpfr_abs(out->hi, side < 0 ? x->lo : x->hi, MPFR_RNDU);
    if (side == 0) {
        mpfr_max(out->hi, out->lo, out->hi, MPFR_RNDU);
        mpfr_set_zero(out->lo, 1);
    }
}

static calc_verdict hyperbolic_cosine(const calc_value *x, calc_value *out)
{
    calc_value size;
    calc_value_init(&size, mpfr_get_prec(out->lo));
    absolute(x, &size);
    rising(mpfr_cosh, &size, out);
    calc_value_clear(&size);
    return CALC_DONE;
}

/* floor and kin: exact once both ends agree. In the last pass an interval about a whole number (or
 * about a half, for round) counts as that number. */
static calc_verdict to_whole(calc_expression *e, const calc_node *node, const calc_value *x,
                             calc_value *out)
{
    if (!mpfr_number_p(x->lo) || !mpfr_number_p(x->hi) || mpfr_get_exp(x->hi) > CALC_MAX_BITS ||
        mpfr_get_exp(x->lo) > CALC_MAX_BITS)
        return calc_fail(e, node->column, "the value is too large to be rounded to a whole number");
    mpq_t end;
    mpz_t low, high;
    mpq_init(end);
    mpz_inits(low, high, NULL);
    mpfr_get_q(end, x->lo);
    calc_round_exact(node->op, end, low);
    mpfr_get_q(end, x->hi);
    calc_round_exact(node->op, end, high);
    calc_verdict verdict = CALC_DONE;
    if (mpz_cmp(low, high) != 0) {
        bool wide = is_wide(x);
        if (!calc_is_last(e))
            verdict = CALC_UNDECIDED;
        else if (wide)
            verdict =
                calc_fail(e, node->column,
                          "the value is not known well enough to be rounded to a whole number");
        else if (node->op == CALC_CEIL ||
                 ((node->op == CALC_TRUNC || node->op == CALC_ROUND) && mpfr_sgn(x->lo) < 0))
            mpz_set(high, low);
    }
    if (!verdict) {
        mpq_set_z(out->q, high);
        out->exact = true;
    }
    mpq_clear(end);
    mpz_clears(low, high, NULL);
    return verdict;
}

/* x - y floor(x / y), or the floor alone. */
static calc_verdict floor_division(calc_expression *e, const calc_node *node, const calc_value *x,
                                   const calc_value *y, calc_value *out)
{
    calc_node floor_node = {.op = CALC_FLOOR, .column = node->column};
    calc_value quotient, product;
    calc_value_init(&quotient, e->bits);
    calc_value_init(&product, e->bits);
    calc_verdict verdict = divide(e, node, x, y, &quotient);
    if (!verdict)
        verdict = to_whole(e, &floor_node, &quotient, node->op == CALC_MOD ? &quotient : out);
    if (!verdict && node->op == CALC_MOD) {
        calc_value_enclose(&quotient);
        corners(mpfr_mul, &quotient, y, &product);
        sub(x, &product, out);
    }
    calc_value_clear(&quotient);
    calc_value_clear(&product);
    return verdict;
}

/* round(x, n) of an irrational x: the tie is impossible or not to be told apart from one. */
static calc_verdict round_places(calc_expression *e, const calc_node *node, calc_value *arg,
                                 calc_value *out)
{
    if (node->n == 1) return to_whole(e, node, &arg[0], out);
    if (!arg[1].exact || mpz_cmp_ui(mpq_denref(arg[1].q), 1) != 0 ||
        mpz_cmpabs_ui(mpq_numref(arg[1].q), 1000) > 0)
        return calc_fail(e, node->column, "round(x, n) takes a whole n from -1000 to 1000");
    long places = mpz_get_si(mpq_numref(arg[1].q));
    calc_value scale;
    calc_value_init(&scale, e->bits);
    mpz_ui_pow_ui(mpq_numref(scale.q), 10, (unsigned long)(places < 0 ? -places : places));
    if (places < 0) mpq_inv(scale.q, scale.q);
    scale.exact = true;
    calc_value_enclose(&scale);
    corners(mpfr_mul, &arg[0], &scale, out);
    calc_verdict verdict = to_whole(e, node, out, out);
    if (!verdict) mpq_div(out->q, out->q, scale.q);
    calc_value_clear(&scale);
    return verdict;
}

static void copy(const calc_value *from, calc_value *to)
{
    to->exact = from->exact;
    if (from->exact) mpq_set(to->q, from->q);
    mpfr_set(to->lo, from->lo, MPFR_RNDD);
    mpfr_set(to->hi, from->hi, MPFR_RNDU);
}

/* min and max: the argument itself where it is decided, so that an exact one stays exact. */
static void extreme(calc_op op, const calc_value *x, calc_value *out)
{
    bool below = mpfr_less_p(x->hi, out->lo), above = mpfr_greater_p(x->lo, out->hi);
    if (op == CALC_MIN ? below : above) {
        copy(x, out);
    } else if (!below && !above) {
        out->exact = false;
        (op == CALC_MIN ? mpfr_min : mpfr_max)(out->lo, out->lo, x->lo, MPFR_RNDD);
        (op == CALC_MIN ? mpfr_min : mpfr_max)(out->hi, out->hi, x->hi, MPFR_RNDU);
    }
}

static calc_verdict fold(const calc_node *node, const calc_value *arg, calc_value *out)
{
    copy(&arg[0], out);
    if (node->op == CALC_SUM || node->op == CALC_AVG) out->exact = false;
    for (size_t i = 1; i < node->n; i++) {
        if (node->op == CALC_SUM || node->op == CALC_AVG)
            add(out, &arg[i], out);
        else
            extreme(node->op, &arg[i], out);
    }
    if (node->op == CALC_AVG) {
        mpfr_div_ui(out->lo, out->lo, node->n, MPFR_RNDD);
        mpfr_div_ui(out->hi, out->hi, node->n, MPFR_RNDU);
    }
    return CALC_DONE;
}

static calc_verdict constant(calc_op op, calc_value *out)
{
    if (op == CALC_E) {
        mpfr_set_ui(out->lo, 1, MPFR_RNDD);
        mpfr_set_ui(out->hi, 1, MPFR_RNDU);
        return rising(mpfr_exp, out, out);
    }
    mpfr_const_pi(out->lo, MPFR_RNDD);
    mpfr_const_pi(out->hi, MPFR_RNDU);
    if (op == CALC_TAU) {
        mpfr_mul_2ui(out->lo, out->lo, 1, MPFR_RNDD);
        mpfr_mul_2ui(out->hi, out->hi, 1, MPFR_RNDU);
    }
    return CALC_DONE;
}

static calc_verdict apply(calc_expression *e, const calc_node *node, calc_value *arg,
                          calc_value *out)
{
    switch (node->op) {
    case CALC_PI:
    case CALC_E:
    case CALC_TAU: return constant(node->op, out);
    case CALC_ADD: add(&arg[0], &arg[1], out); return CALC_DONE;
    case CALC_SUB: sub(&arg[0], &arg[1], out); return CALC_DONE;
    case CALC_MUL: corners(mpfr_mul, &arg[0], &arg[1], out); return CALC_DONE;
    case CALC_DIV: return divide(e, node, &arg[0], &arg[1], out);
    case CALC_FLOORDIV:
    case CALC_MOD: return floor_division(e, node, &arg[0], &arg[1], out);
    case CALC_NEG: return falling(mpfr_neg, &arg[0], out);
    case CALC_PERCENT:
        mpfr_div_ui(out->lo, arg[0].lo, 100, MPFR_RNDD);
        mpfr_div_ui(out->hi, arg[0].hi, 100, MPFR_RNDU);
        return CALC_DONE;
    case CALC_POW: return power(e, node, &arg[0], &arg[1], out);
    case CALC_FACTORIAL:
    case CALC_COMB:
    case CALC_PERM:
    case CALC_GCD:
    case CALC_LCM: return calc_fail(e, node->column, "this takes whole numbers");
    case CALC_ABS: absolute(&arg[0], out); return CALC_DONE;
    case CALC_FLOOR:
    case CALC_CEIL:
    case CALC_TRUNC: return to_whole(e, node, &arg[0], out);
    case CALC_ROUND: return round_places(e, node, arg, out);
    case CALC_MIN:
    case CALC_MAX:
    case CALC_SUM:
    case CALC_AVG: return fold(node, arg, out);
    case CALC_SQRT: return square_root(e, node, &arg[0], out);
    case CALC_CBRT: return rising(mpfr_cbrt, &arg[0], out);
    case CALC_ROOT: return root(e, node, &arg[0], &arg[1], out);
    case CALC_EXP: return rising(mpfr_exp, &arg[0], out);
    case CALC_LN:
    case CALC_LOG:
    case CALC_LOG2: return logarithm(e, node, arg, out);
    case CALC_SIN:
    case CALC_COS: return wave(node->op, &arg[0], out);
    case CALC_TAN: return tangent(e, node, &arg[0], out);
    case CALC_ATAN: return rising(mpfr_atan, &arg[0], out);
    case CALC_SINH: return rising(mpfr_sinh, &arg[0], out);
    case CALC_COSH: return hyperbolic_cosine(&arg[0], out);
    case CALC_TANH: return rising(mpfr_tanh, &arg[0], out);
    case CALC_ASINH: return rising(mpfr_asinh, &arg[0], out);
    default: return arc(e, node, &arg[0], out);
    }
}

calc_verdict calc_real(calc_expression *e, const calc_node *node, calc_value *arg, calc_value *out)
{
    uint64_t per_bit =
        node->op >= CALC_POW ? 40 : 2; /* transcendental functions cost many products */
    if (calc_charge(e, node->column, (uint64_t)e->bits * (per_bit + node->n))) return CALC_FAILED;
    out->exact = false;
    calc_verdict verdict = apply(e, node, arg, out);
    if (verdict || out->exact) return verdict;
    if (mpfr_number_p(out->lo) && mpfr_number_p(out->hi)) return CALC_DONE;
    /* an end overflowed: with more bits the interval may shrink to where it does not */
    return calc_is_last(e) ? calc_fail(e, node->column, "the result is too large") : CALC_UNDECIDED;
}
