/* From text to tree, by recursive descent; and the names that the calculator knows.
 *
 *   comparison = sum { relation sum }
 *   sum        = product { ("+" | "-") product }
 *   product    = unary { ("*" | "/" | "//" | "%") unary }
 *   unary      = { "-" | "+" } power
 *   power      = postfix [ "^" unary ]                        right to left: 2^3^2 = 512, -2^2 = -4
 *   postfix    = primary { "!" | "%" }                        5! and 15%
 *   primary    = number | name | name "(" sum { "," sum } ")" | "(" sum ")"
 *
 * "%" is the remainder if a value follows (a digit, a point, a name or a parenthesis), else per
 * cent.
 */
#include "tools/calculator/lex.h"

#include <stdlib.h>
#include <string.h>

typedef struct parser {
    calc_lexer x;
    calc_expression *e;
    int depth;
} parser;

static const struct {
    const char *name;
    calc_op op;
    unsigned min, max; /* arguments; max 0: any number */
} functions[] = {
    {"abs", CALC_ABS, 1, 1},        {"floor", CALC_FLOOR, 1, 1},
    {"ceil", CALC_CEIL, 1, 1},      {"trunc", CALC_TRUNC, 1, 1},
    {"int", CALC_TRUNC, 1, 1},      {"round", CALC_ROUND, 1, 2},
    {"min", CALC_MIN, 1, 0},        {"max", CALC_MAX, 1, 0},
    {"sum", CALC_SUM, 1, 0},        {"avg", CALC_AVG, 1, 0},
    {"mean", CALC_AVG, 1, 0},       {"sqrt", CALC_SQRT, 1, 1},
    {"cbrt", CALC_CBRT, 1, 1},      {"root", CALC_ROOT, 2, 2},
    {"pow", CALC_POW, 2, 2},        {"exp", CALC_EXP, 1, 1},
    {"ln", CALC_LN, 1, 1},          {"log", CALC_LOG, 1, 2},
    {"log10", CALC_LOG, 1, 1},      {"log2", CALC_LOG2, 1, 1},
    {"sin", CALC_SIN, 1, 1},        {"cos", CALC_COS, 1, 1},
    {"tan", CALC_TAN, 1, 1},        {"asin", CALC_ASIN, 1, 1},
    {"acos", CALC_ACOS, 1, 1},      {"atan", CALC_ATAN, 1, 1},
    {"sinh", CALC_SINH, 1, 1},      {"cosh", CALC_COSH, 1, 1},
    {"tanh", CALC_TANH, 1, 1},      {"asinh", CALC_ASINH, 1, 1},
    {"acosh", CALC_ACOSH, 1, 1},    {"atanh", CALC_ATANH, 1, 1},
    {"gcd", CALC_GCD, 1, 0},        {"lcm", CALC_LCM, 1, 0},
    {"mod", CALC_MOD, 2, 2},        {"factorial", CALC_FACTORIAL, 1, 1},
    {"fact", CALC_FACTORIAL, 1, 1}, {"comb", CALC_COMB, 2, 2},
    {"perm", CALC_PERM, 2, 2},
};

static const struct {
    const char *name;
    calc_op op;
} constants[] = {{"pi", CALC_PI}, {"e", CALC_E}, {"tau", CALC_TAU}};

/* Words that are written where an operator is meant. */
static const struct {
    const char *name, *instead;
} words[] = {
    {"x", "write * to multiply; there are no variables"},
    {"times", "write *"},
    {"of", "write *: 15% * 200"},
    {"plus", "write +"},
    {"minus", "write -"},
    {"divided", "write /"},
    {"over", "write /"},
    {"percent", "write %"},
    {"squared", "write ^2"},
    {"cubed", "write ^3"},
    {"and", "give one expression a call"},
    {"or", "give one expression a call"},
    {"to", "give one expression; units are not converted"},
    {"in", "give one expression; units are not converted"},
};

static bool fail(parser *p, size_t column, const char *what)
{
    calc_fail(p->e, column, "%s", what);
    return false;
}

static bool next(parser *p)
{
    return calc_lexer_next(&p->x);
}

static calc_node *node_new(parser *p, calc_op op, size_t column, size_t n)
{
    calc_node *node = calloc(1, sizeof *node);
    calc_node **argument = n ? calloc(n, sizeof(calc_node *)) : NULL;
    if (!node || (n && !argument)) {
        free(node);
        free(argument);
        p->e->status = weft_fail(p->e->err, WEFT_E_MEMORY, "out of memory");
        return NULL;
    }
    *node =
        (calc_node){.next = p->e->nodes, .op = op, .column = column, .argument = argument, .n = n};
    mpq_init(node->value);
    p->e->nodes = node;
    return node;
}

static calc_node *node_binary(parser *p, calc_op op, size_t column, calc_node *a, calc_node *b)
{
    calc_node *node = node_new(p, op, column, 2);
    if (!node) return NULL;
    node->argument[0] = a;
    node->argument[1] = b;
    return node;
}

static calc_node *node_unary(parser *p, calc_op op, size_t column, calc_node *a)
{
    calc_node *node = node_new(p, op, column, 1);
    if (node) node->argument[0] = a;
    return node;
}

static calc_node *parse_sum(parser *p);
static calc_node *parse_unary(parser *p);

static bool enter(parser *p)
{
    if (++p->depth > CALC_MAX_DEPTH)
        return fail(p, p->x.column,
                    "nested more than 100 deep: compute a part of it in a call of its own");
    return true;
}

static bool relation_of(calc_token token, calc_relation *relation)
{
    switch (token) {
    case TOKEN_LT: *relation = CALC_LT; return true;
    case TOKEN_LE: *relation = CALC_LE; return true;
    case TOKEN_GT: *relation = CALC_GT; return true;
    case TOKEN_GE: *relation = CALC_GE; return true;
    case TOKEN_EQ: *relation = CALC_EQ; return true;
    case TOKEN_NE: *relation = CALC_NE; return true;
    default: return false;
    }
}

/* The error of a word that stands for an operator; false if it is none. */
static bool fail_word(parser *p, const char *name, size_t column)
{
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strcmp(words[i].name, name) == 0) {
            calc_fail(p->e, column, "the word '%s' has no meaning here: %s", name,
                      words[i].instead);
            return true;
        }
    }
    return false;
}

/* The current token cannot follow a complete value. */
static bool fail_unexpected(parser *p)
{
    calc_relation relation;
    switch (p->x.token) {
    case TOKEN_CLOSE: return fail(p, p->x.column, "this ) has no ( before it");
    case TOKEN_COMMA:
        return fail(p, p->x.column,
                    "',' stands only between the arguments of a function (max(1, 2)) or between "
                    "groups of three digits");
    default:
        if (relation_of(p->x.token, &relation))
            return fail(p, p->x.column, "a comparison stands alone, not within ( )");
        if (p->x.token == TOKEN_NAME && fail_word(p, p->x.name, p->x.column)) return false;
        return fail(p, p->x.column,
                    "an operator is missing before this: write * to multiply, and no units");
    }
}

/* "(" sum ")": the current token is "(". Commas in there separate thousands. */
static calc_node *parse_group(parser *p)
{
    bool outer = p->x.in_arguments;
    size_t open = p->x.column;
    p->x.in_arguments = false;
    if (!enter(p) || !next(p)) return NULL;
    calc_node *inside = parse_sum(p);
    if (!inside) return NULL;
    if (p->x.token != TOKEN_CLOSE) {
        if (p->x.token == TOKEN_END)
            fail(p, open, "this ( is not closed: write ) behind what it holds");
        else
            fail_unexpected(p);
        return NULL;
    }
    p->depth--;
    p->x.in_arguments = outer;
    return next(p) ? inside : NULL;
}

static bool push(parser *p, calc_node ***list, size_t *n, calc_node *node)
{
    if ((*n & (*n - 1)) == 0) {
        calc_node **bigger = realloc(*list, (*n ? 2 * *n : 1) * sizeof(calc_node *));
        if (!bigger) {
            p->e->status = weft_fail(p->e->err, WEFT_E_MEMORY, "out of memory");
            return false;
        }
        *list = bigger;
    }
    (*list)[(*n)++] = node;
    return true;
}

/* The arguments behind a name; the current token is "(". */
static bool parse_arguments(parser *p, calc_node ***list, size_t *n)
{
    bool outer = p->x.in_arguments;
    size_t open = p->x.column;
    p->x.in_arguments = true;
    if (!enter(p) || !next(p)) return false;
    while (p->x.token != TOKEN_CLOSE || *n) {
        calc_node *argument = parse_sum(p);
        if (!argument || !push(p, list, n, argument)) return false;
        if (p->x.token == TOKEN_CLOSE) break;
        if (p->x.token == TOKEN_END)
            return fail(p, open, "this ( is not closed: write ) behind the last argument");
        if (p->x.token != TOKEN_COMMA) return fail_unexpected(p);
        if (!next(p)) return false;
    }
    p->depth--;
    p->x.in_arguments = outer;
    return next(p);
}

static calc_node *parse_call(parser *p, size_t which, size_t column)
{
    calc_node **list = NULL;
    size_t n = 0;
    const char *name = functions[which].name;
    unsigned min = functions[which].min, max = functions[which].max;
    if (p->x.token != TOKEN_OPEN) {
        calc_fail(p->e, column, "%s is a function: write %s(...)", name, name);
        return NULL;
    }
    if (!parse_arguments(p, &list, &n)) goto fail;
    if (n < min || (max && n > max)) {
        calc_fail(p->e, column, "%s takes %s%u argument%s, not %zu", name,
                  max == 0    ? "at least "
                  : min < max ? "one or "
                              : "",
                  max ? max : min, max == 1 || (!max && min == 1) ? "" : "s", n);
        goto fail;
    }
    calc_node *node = node_new(p, functions[which].op, column, 0);
    if (!node) goto fail;
    node->argument = list;
    node->n = n;
    return node;
fail:
    free(list);
    return NULL;
}

static calc_node *parse_name(parser *p)
{
    size_t column = p->x.column;
    char name[sizeof p->x.name];
    memcpy(name, p->x.name, sizeof name);
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        if (strcmp(functions[i].name, name) == 0) return next(p) ? parse_call(p, i, column) : NULL;
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++)
        if (strcmp(constants[i].name, name) == 0)
            return next(p) ? node_new(p, constants[i].op, column, 0) : NULL;
    if (fail_word(p, name, column)) return NULL;
    calc_fail(p->e, column,
              "unknown name '%s': known are pi e tau, abs floor ceil round trunc min max sum avg "
              "sqrt cbrt root "
              "pow exp ln log log2 sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh gcd "
              "lcm mod "
              "factorial comb perm",
              name);
    return NULL;
}

static calc_node *parse_primary(parser *p)
{
    calc_node *node;
    switch (p->x.token) {
    case TOKEN_NUMBER:
        node = node_new(p, CALC_NUMBER, p->x.column, 0);
        if (!node) return NULL;
        mpq_set(node->value, p->x.number);
        node->exact = true;
        return next(p) ? node : NULL;
    case TOKEN_NAME: return parse_name(p);
    case TOKEN_OPEN: return parse_group(p);
    case TOKEN_END:
        fail(p, p->x.column, "the expression ends where a value is expected");
        return NULL;
    default: fail(p, p->x.column, "a value is expected here: a number, a name or ("); return NULL;
    }
}

static calc_node *parse_postfix(parser *p)
{
    calc_node *node = parse_primary(p);
    for (bool factorial = false; node;) {
        size_t column = p->x.column;
        bool again = factorial;
        factorial = p->x.token == TOKEN_FACTORIAL;
        if (!factorial && (p->x.token != TOKEN_PERCENT || calc_lexer_value_follows(&p->x)))
            return node;
        if (factorial && again) {
            fail(p, column,
                 "'!!' may mean two things: write factorial(factorial(n)) for the one that is "
                 "known");
            return NULL;
        }
        node = node_unary(p, factorial ? CALC_FACTORIAL : CALC_PERCENT, column, node);
        if (!node || !next(p)) return NULL;
    }
    return NULL;
}

static calc_node *parse_power(parser *p)
{
    calc_node *base = parse_postfix(p);
    if (!base || p->x.token != TOKEN_POW) return base;
    size_t column = p->x.column;
    if (!enter(p) || !next(p)) return NULL;
    calc_node *exponent = parse_unary(p);
    p->depth--;
    return exponent ? node_binary(p, CALC_POW, column, base, exponent) : NULL;
}

static calc_node *parse_unary(parser *p)
{
    if (p->x.token != TOKEN_SUB && p->x.token != TOKEN_ADD) return parse_power(p);
    bool minus = p->x.token == TOKEN_SUB;
    size_t column = p->x.column;
    if (!enter(p) || !next(p)) return NULL;
    calc_node *operand = parse_unary(p);
    p->depth--;
    if (!operand || !minus) return operand;
    return node_unary(p, CALC_NEG, column, operand);
}

static bool product_op(calc_token token, calc_op *op)
{
    switch (token) {
    case TOKEN_MUL: *op = CALC_MUL; return true;
    case TOKEN_DIV: *op = CALC_DIV; return true;
    case TOKEN_FLOORDIV: *op = CALC_FLOORDIV; return true;
    case TOKEN_PERCENT: *op = CALC_MOD; return true;
    default: return false;
    }
}

static calc_node *parse_product(parser *p)
{
    calc_node *left = parse_unary(p);
    calc_op op;
    while (left && product_op(p->x.token, &op)) {
        size_t column = p->x.column;
        calc_node *right = next(p) ? parse_unary(p) : NULL;
        left = right ? node_binary(p, op, column, left, right) : NULL;
    }
    return left;
}

static calc_node *parse_sum(parser *p)
{
    calc_node *left = parse_product(p);
    while (left && (p->x.token == TOKEN_ADD || p->x.token == TOKEN_SUB)) {
        size_t column = p->x.column;
        bool add = p->x.token == TOKEN_ADD;
        calc_node *right = next(p) ? parse_product(p) : NULL;
        if (!right) return NULL;
        if (right->op == CALC_PERCENT && !p->e->percent_column) {
            p->e->percent_column = column;
            p->e->percent_added = add;
        }
        left = node_binary(p, add ? CALC_ADD : CALC_SUB, column, left, right);
    }
    return left;
}

static bool parse_comparison(parser *p)
{
    calc_expression *e = p->e;
    for (;;) {
        calc_node *side = parse_sum(p);
        calc_relation relation;
        if (!side || !push(p, &e->side, &e->n_sides, side)) return false;
        if (!relation_of(p->x.token, &relation)) return true;
        calc_relation *bigger = realloc(e->relation, e->n_sides * sizeof *bigger);
        if (!bigger) {
            e->status = weft_fail(e->err, WEFT_E_MEMORY, "out of memory");
            return false;
        }
        e->relation = bigger;
        e->relation[e->n_sides - 1] = relation;
        if (!next(p)) return false;
    }
}

weft_status calc_parse(const char *text, size_t size, calc_expression *e)
{
    parser p = {.e = e};
    if (size > CALC_MAX_BYTES)
        return weft_fail(e->err, WEFT_E_INVALID,
                         "the expression is longer than %d bytes: compute it in parts",
                         CALC_MAX_BYTES);
    calc_lexer_init(&p.x, e, text, size);
    bool ok = next(&p);
    if (ok && p.x.token == TOKEN_END)
        ok = fail(&p, 1, "the expression is empty: write one such as 12*(3+4)");
    ok = ok && parse_comparison(&p) && (p.x.token == TOKEN_END || fail_unexpected(&p));
    calc_lexer_clear(&p.x);
    return ok ? WEFT_OK : e->status;
}

void calc_free(calc_expression *e)
{
    for (calc_node *node = e->nodes, *after; node; node = after) {
        after = node->next;
        mpq_clear(node->value);
        free(node->argument);
        free(node);
    }
    free(e->side);
    free(e->relation);
}
