/* JSON numbers as they were written, compared exactly.
 *
 * A decimal is a view of a number's source text: sign, significant digits, power of ten. Comparing
 * two, asking for an integer, or testing divisibility needs no floating point, so 1.0 is an
 * integer, 9007199254740993 differs from its neighbour and 0.0075 is a multiple of 0.0001.
 * Exponents past 10^15 saturate. A view borrows the text of the node it was read from; do not copy
 * the struct (it may point into itself).
 */
#ifndef WEFT_SCHEMAS_DECIMAL_H
#define WEFT_SCHEMAS_DECIMAL_H

#include "base/base.h"

typedef struct decimal {
    const char *digits; /* first significant digit; a '.' may stand between digits */
    size_t n;           /* digits, neither leading nor trailing zeros; 0 = the number zero */
    int64_t exponent;   /* of the last of them: value = digits * 10^exponent */
    bool negative;      /* false for zero */
    char own[32];       /* text of a node that came without its source */
} decimal;

/* False if the node is no finite number (only a tree built by hand can hold one). */
bool decimal_read(const cJSON *number, decimal *out);
int decimal_compare(const decimal *a, const decimal *b); /* <0, 0, >0 */
bool decimal_is_integer(const decimal *d);
/* *out = value is an integral multiple of step; step > 0. */
weft_status decimal_is_multiple(const decimal *value, const decimal *step, bool *out,
                                weft_error *err);
/* The integer it is, saturated at the ends of int64_t; false if it is none. */
bool decimal_to_int(const decimal *d, int64_t *out);
/* Equal numbers have equal hashes. */
uint64_t decimal_hash(const decimal *d, uint64_t seed);

#endif
