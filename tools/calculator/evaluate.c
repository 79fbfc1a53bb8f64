/* Evaluates a parsed expression: exact where it can be, else in passes of growing precision
 * (calc.h). A node that came out exact keeps its value, so later passes evaluate only what is
 * irrational. */
#include "tools/calculator/calculator.h"

#include "tools/calculator/calc.h"

#include <stdio.h>
#include <stdlib.h>

void calc_value_init(calc_value *v, mpfr_prec_t bits)
{
    v->exact = false;
    mpq_init(v->q);
    mpfr_init2(v->lo, bits);
    mpfr_init2(v->hi, bits);
}

void calc_value_clear(calc_value *v)
{
    mpq_clear(v->q);
    mpfr_clear(v->lo);
    mpfr_clear(v->hi);
}

void calc_value_enclose(calc_value *v)
{
    if (!v->exact) return;
    mpfr_set_q(v->lo, v->q, MPFR_RNDD);
    mpfr_set_q(v->hi, v->q, MPFR_RNDU);
}

calc_verdict calc_fail(calc_expression *e, size_t column, const char *format, ...)
{
    char text[WEFT_ERROR_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    e->status = weft_fail(e->err, WEFT_E_INVALID, "at column %zu: %s", column, text);
    return CALC_FAILED;
}

calc_verdict calc_charge(calc_expression *e, size_t column, uint64_t bits)
{
    if (bits > CALC_MAX_WORK - e->work)
        return calc_fail(e, column,
                         "the expression takes too long to work out: compute it in parts");
    e->work += bits;
    return CALC_DONE;
}

bool calc_is_last(const calc_expression *e)
{
    return e->bits >= CALC_LAST_BITS;
}

static calc_verdict evaluate(calc_expression *e, calc_node *node, calc_value *out);

/* The operation itself, once its arguments are known. */
static calc_verdict apply(calc_expression *e, calc_node *node, calc_value *arg, bool all_exact,
                          calc_value *out)
{
    calc_verdict verdict = CALC_INEXACT;
    if (all_exact) verdict = calc_exact(e, node, arg, out->q);
    if (verdict == CALC_DONE) out->exact = true;
    if (verdict == CALC_INEXACT) {
        for (size_t i = 0; i < node->n; i++) calc_value_enclose(&arg[i]);
        verdict = calc_real(e, node, arg, out);
    }
    if (verdict == CALC_DONE && out->exact) {
        mpq_set(node->value, out->q);
        node->exact = true;
    }
    return verdict;
}

static calc_verdict evaluate(calc_expression *e, calc_node *node, calc_value *out)
{
    if (node->exact) {
        mpq_set(out->q, node->value);
        out->exact = true;
        return CALC_DONE;
    }
    size_t begun = 0;
    bool all_exact = true;
    calc_verdict verdict = CALC_DONE;
    calc_value *arg = calloc(node->n ? node->n : 1, sizeof *arg);
    if (!arg) {
        e->status = weft_fail(e->err, WEFT_E_MEMORY, "out of memory");
        return CALC_FAILED;
    }
    for (; begun < node->n && !verdict; begun++) {
        calc_value_init(&arg[begun], e->bits);
        verdict = evaluate(e, node->argument[begun], &arg[begun]);
        all_exact = all_exact && arg[begun].exact;
    }
    if (!verdict) verdict = apply(e, node, arg, all_exact, out);
    while (begun) calc_value_clear(&arg[--begun]);
    free(arg);
    return verdict;
}

/* -1, 0, 1; equal is certain for exact values, and for others what the last pass cannot tell apart.
 */
static calc_verdict compare(const calc_expression *e, calc_value *a, calc_value *b, int *order)
{
    if (a->exact && b->exact) {
        *order = mpq_cmp(a->q, b->q);
        return CALC_DONE;
    }
    calc_value_enclose(a);
    calc_value_enclose(b);
    *order = mpfr_less_p(a->hi, b->lo) ? -1 : mpfr_greater_p(a->lo, b->hi) ? 1 : 0;
    return *order || calc_is_last(e) ? CALC_DONE : CALC_UNDECIDED;
}

static bool holds(calc_relation relation, int order)
{
    switch (relation) {
    case CALC_LT: return order < 0;
    case CALC_LE: return order <= 0;
    case CALC_GT: return order > 0;
    case CALC_GE: return order >= 0;
    case CALC_EQ: return order == 0;
    default: return order != 0;
    }
}

/* a < b < c: every neighbouring pair, as in mathematics. */
static calc_verdict evaluate_comparison(calc_expression *e, weft_buffer *out)
{
    calc_value left, right;
    bool all = true;
    calc_value_init(&left, e->bits);
    calc_value_init(&right, e->bits);
    calc_verdict verdict = evaluate(e, e->side[0], &left);
    for (size_t i = 1; i < e->n_sides && !verdict; i++) {
        int order = 0;
        right.exact = false;
        verdict = evaluate(e, e->side[i], &right);
        if (!verdict) verdict = compare(e, &left, &right, &order);
        all = all && holds(e->relation[i - 1], order);
        calc_value swap = left;
        left = right;
        right = swap;
    }
    if (!verdict) weft_buffer_puts(out, all ? "true" : "false");
    calc_value_clear(&left);
    calc_value_clear(&right);
    return verdict;
}

static calc_verdict evaluate_value(calc_expression *e, weft_buffer *out)
{
    calc_value v;
    calc_value_init(&v, e->bits);
    calc_verdict verdict = evaluate(e, e->side[0], &v);
    if (!verdict && v.exact) {
        e->status = calc_print_exact(v.q, out, e->err);
        if (e->status) verdict = CALC_FAILED;
    } else if (!verdict) {
        verdict = calc_print_real(e, &v, out);
    }
    calc_value_clear(&v);
    return verdict;
}

weft_status calculator_evaluate(const char *text, size_t size, weft_buffer *out, weft_error *err)
{
    calc_expression e = {.err = err};
    weft_buffer result = WEFT_BUFFER_INIT;
    calc_verdict verdict = CALC_UNDECIDED;
    weft_status status = calc_parse(text, size, &e);
    for (e.bits = CALC_FIRST_BITS; !status && verdict == CALC_UNDECIDED; e.bits *= 2) {
        verdict = e.n_sides > 1 ? evaluate_comparison(&e, &result) : evaluate_value(&e, &result);
        if (verdict == CALC_FAILED) status = e.status;
    }
    if (!status && e.percent_column)
        weft_buffer_printf(&result, " (N%% is N/100 here; N percent %s is x * (1 %c N%%))",
                           e.percent_added ? "more" : "less", e.percent_added ? '+' : '-');
    if (!status) status = weft_buffer_ok(&result, err);
    if (!status) {
        weft_buffer_append(out, weft_buffer_str(&result), result.size);
        status = weft_buffer_ok(out, err);
    }
    calc_free(&e);
    mpfr_free_cache(); /* pi and e of this thread */
    weft_buffer_free(&result);
    return status;
}
