/* Inside the calculator: what the parser, the exact and the real arithmetic and the printer share.
 *
 * A value is an exact rational for as long as it can be one. What cannot (roots, logarithms, sines)
 * is an interval [lo, hi] of two MPFR numbers that certainly holds the true value. The whole tree
 * is evaluated at a precision of 128 bits; if the interval that comes out does not round to one and
 * the same decimal at both ends, again at twice the precision, up to 8,192 bits. So the digits
 * shown are right, and not only likely to be: this is Ziv's strategy applied to the expression, not
 * to single functions. At the last precision numbers that 8,192 bits do not tell apart count as
 * equal: sqrt(2)^2 == 2.
 *
 * Every loop is charged against one budget of work (bits touched), checked before the work is done.
 */
#ifndef WEFT_TOOLS_CALC_H
#define WEFT_TOOLS_CALC_H

#include "base/base.h"

#include <gmp.h>
#include <mpfr.h>

enum {
    CALC_MAX_BYTES = 4096,   /* of the expression */
    CALC_MAX_DEPTH = 100,    /* parentheses, calls, signs and powers within each other */
    CALC_MAX_BITS = 100000,  /* numerator or denominator of an exact value */
    CALC_MAX_SHOWN = 1000,   /* digits of an integer that are printed */
    CALC_MAX_DECIMALS = 50,  /* decimals of a terminating fraction that are printed */
    CALC_DIGITS = 20,        /* significant digits of a rounded result */
    CALC_FIRST_BITS = 128,   /* precision of the first pass */
    CALC_LAST_BITS = 8192,   /* precision of the last pass */
    CALC_MAX_WORK = 40000000 /* bits touched; about half a second */
};

typedef enum calc_op {
    CALC_NUMBER, /* a literal: the node's exact value */
    CALC_PI,
    CALC_E,
    CALC_TAU,
    CALC_ADD,
    CALC_SUB,
    CALC_MUL,
    CALC_DIV,
    CALC_FLOORDIV,
    CALC_MOD,
    CALC_NEG,
    CALC_PERCENT,
    CALC_POW,
    CALC_FACTORIAL,
    CALC_COMB,
    CALC_PERM,
    CALC_GCD,
    CALC_LCM,
    CALC_ABS,
    CALC_FLOOR,
    CALC_CEIL,
    CALC_TRUNC,
    CALC_ROUND,
    CALC_MIN,
    CALC_MAX,
    CALC_SUM,
    CALC_AVG,
    CALC_SQRT,
    CALC_CBRT,
    CALC_ROOT,
    CALC_EXP,
    CALC_LN,
    CALC_LOG,
    CALC_LOG2,
    CALC_SIN,
    CALC_COS,
    CALC_TAN,
    CALC_ASIN,
    CALC_ACOS,
    CALC_ATAN,
    CALC_SINH,
    CALC_COSH,
    CALC_TANH,
    CALC_ASINH,
    CALC_ACOSH,
    CALC_ATANH
} calc_op;

typedef enum calc_relation { CALC_LT, CALC_LE, CALC_GT, CALC_GE, CALC_EQ, CALC_NE } calc_relation;

typedef struct calc_node {
    struct calc_node *next; /* all nodes of an expression, for freeing */
    calc_op op;
    size_t column;
    struct calc_node **argument; /* [n] */
    size_t n;
    bool exact; /* value holds the node's value; true from the start for literals */
    mpq_t value;
} calc_node;

typedef struct calc_expression {
    calc_node *nodes;
    calc_node **side;        /* [n_sides]: one, or the sides of a comparison a < b < c */
    calc_relation *relation; /* [n_sides - 1] */
    size_t n_sides;
    size_t percent_column; /* of "+ 15%": said in a note beside the result; 0: none */
    bool percent_added;    /* it was +, not - */
    weft_error *err;       /* reason of CALC_FAILED */
    weft_status status;    /* its code */
    uint64_t work;
    mpfr_prec_t bits; /* of the pass under way */
} calc_expression;

/* What became of one operation. */
typedef enum calc_verdict {
    CALC_DONE,
    CALC_UNDECIDED, /* the precision does not suffice; never at CALC_LAST_BITS */
    CALC_INEXACT,   /* no rational result: take the interval arithmetic (calc_exact only) */
    CALC_FAILED     /* expression->err says why */
} calc_verdict;

typedef struct calc_value {
    bool exact;
    mpq_t q;       /* if exact */
    mpfr_t lo, hi; /* if not */
} calc_value;

void calc_value_init(calc_value *v, mpfr_prec_t bits);
void calc_value_clear(calc_value *v);
/* An exact value also gets its interval, so that the real functions can take it. */
void calc_value_enclose(calc_value *v);

/* Fills e (zeroed by the caller but for err) from the text; freed with calc_free in any case. */
weft_status calc_parse(const char *text, size_t size, calc_expression *e);
void calc_free(calc_expression *e);

/* Records the error "at column N: ..." and returns CALC_FAILED. */
calc_verdict calc_fail(calc_expression *e, size_t column, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Takes `bits` from the budget; CALC_FAILED once it is used up. */
calc_verdict calc_charge(calc_expression *e, size_t column, uint64_t bits);
bool calc_is_last(const calc_expression *e);

/* One operation on exact arguments: CALC_DONE with out, CALC_INEXACT or CALC_FAILED. */
calc_verdict calc_exact(calc_expression *e, const calc_node *node, const calc_value *arg,
                        mpq_ptr out);
/* One operation on enclosed arguments at the pass's precision. May come out exact (floor). */
calc_verdict calc_real(calc_expression *e, const calc_node *node, calc_value *arg, calc_value *out);

/* floor, ceil, trunc and round (half away from zero) of a rational. */
void calc_round_exact(calc_op op, mpq_srcptr x, mpz_ptr out);

/* Appends an exact value. */
weft_status calc_print_exact(mpq_srcptr q, weft_buffer *out, weft_error *err);
/* Appends the decimal that both ends of [lo, hi] round to; CALC_UNDECIDED if they differ. With
 * last, an interval that holds zero and is narrow prints as 0. */
calc_verdict calc_print_real(calc_expression *e, const calc_value *v, weft_buffer *out);

#endif
