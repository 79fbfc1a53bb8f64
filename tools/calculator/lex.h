/* Tokens of the calculator's language (docs/tools.md). */
#ifndef WEFT_TOOLS_CALC_LEX_H
#define WEFT_TOOLS_CALC_LEX_H

#include "tools/calculator/calc.h"

typedef enum calc_token {
    TOKEN_END,
    TOKEN_NUMBER,
    TOKEN_NAME,
    TOKEN_ADD,
    TOKEN_SUB,
    TOKEN_MUL,
    TOKEN_DIV,
    TOKEN_FLOORDIV,
    TOKEN_PERCENT,
    TOKEN_POW,
    TOKEN_FACTORIAL,
    TOKEN_OPEN,
    TOKEN_CLOSE,
    TOKEN_COMMA,
    TOKEN_LT,
    TOKEN_LE,
    TOKEN_GT,
    TOKEN_GE,
    TOKEN_EQ,
    TOKEN_NE
} calc_token;

typedef struct calc_lexer {
    calc_expression *e;
    const char *text;
    size_t size;
    size_t at;         /* first byte after the current token */
    size_t column_at;  /* its column */
    bool in_arguments; /* commas separate arguments; else they separate thousands */
    calc_token token;  /* the current token */
    size_t column;     /* where it starts */
    mpq_t number;      /* TOKEN_NUMBER */
    char name[32];     /* TOKEN_NAME, lower case */
} calc_lexer;

void calc_lexer_init(calc_lexer *x, calc_expression *e, const char *text, size_t size);
void calc_lexer_clear(calc_lexer *x);
/* Reads the next token. False: e->err is set. */
bool calc_lexer_next(calc_lexer *x);
/* True if what follows the current token begins a value: a digit, a point, a name or "(". */
bool calc_lexer_value_follows(const calc_lexer *x);

#endif
