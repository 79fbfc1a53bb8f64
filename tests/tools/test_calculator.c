/* The calculator: what it gives, what it says where it cannot, and that it refuses at once what
 * would take all memory. Values are known ones; check_calculator.py compares random ones with
 * Python's. */
#include "tools/calculator/calculator.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef struct known {
    const char *expression, *expected;
} known;

static weft_status evaluate(const char *expression, weft_buffer *out, weft_error *err)
{
    return calculator_evaluate(expression, strlen(expression), out, err);
}

static void check_all(const known *table, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        weft_buffer out = WEFT_BUFFER_INIT;
        weft_error err;
        if (evaluate(table[i].expression, &out, &err))
            fail_msg("%s: error %s", table[i].expression, err.message);
        if (strcmp(weft_buffer_str(&out), table[i].expected) != 0)
            fail_msg("%s: %s, not %s", table[i].expression, weft_buffer_str(&out),
                     table[i].expected);
        weft_buffer_free(&out);
    }
}

#define CHECK_ALL(table) check_all(table, sizeof table / sizeof *table)

static void exact_arithmetic(void **state)
{
    static const known table[] = {
        {"123+45", "168"},
        {"168*3", "504"},
        {"504-17", "487"},
        {"0.1+0.2", "0.3"},
        {"0.1*3", "0.3"},
        {"1/4", "0.25"},
        {"10/4", "2.5"},
        {"25/2", "12.5"},
        {"-7", "-7"},
        {"--7", "7"},
        {"+7", "7"},
        {"- - -7", "-7"},
        {"2*(3+4)", "14"},
        {"2+3*4", "14"},
        {"(2+3)*4", "20"},
        {"7-3-2", "2"},
        {"64/4/2", "8"},
        {"2^10", "1024"},
        {"2**10", "1024"},
        {"2^3^2", "512"},
        {"-2^2", "-4"},
        {"(-2)^2", "4"},
        {"2^-2", "0.25"},
        {"2^-1^2", "0.5"},
        {"0^0", "1"},
        {"0^5", "0"},
        {"(-1)^1000001", "-1"},
        {"1^999999999999", "1"},
        {"(1/3)*3", "1"},
        {"(2/3)^-2", "2.25"},
        {"7 % 3", "1"},
        {"-7 % 3", "2"},
        {"7 % (-3)", "-2"},
        {"7.5 % 2", "1.5"},
        {"7 // 2", "3"},
        {"-7 // 2", "-4"},
        {"mod(-7, 3)", "2"},
        {"5!", "120"},
        {"0!", "1"},
        {"2^3!", "64"},
        {"-3!", "-6"},
        {"20!", "2432902008176640000"},
        {"(3!)!", "720"},
        {"factorial(6)", "720"},
        {"comb(5, 2)", "10"},
        {"comb(5, 5)", "1"},
        {"comb(5, 7)", "0"},
        {"comb(52, 5)", "2598960"},
        {"comb(100, 98)", "4950"},
        {"perm(10, 3)", "720"},
        {"perm(5, 0)", "1"},
        {"gcd(12, 18)", "6"},
        {"gcd(0, 5)", "5"},
        {"gcd(-12, 18, 27)", "3"},
        {"lcm(4, 6)", "12"},
        {"lcm(2, 3, 5, 7)", "210"},
        {"abs(-3.5)", "3.5"},
        {"floor(-2.5)", "-3"},
        {"ceil(-2.5)", "-2"},
        {"trunc(-2.5)", "-2"},
        {"int(2.9)", "2"},
        {"round(2.5)", "3"},
        {"round(-2.5)", "-3"},
        {"round(2.4999)", "2"},
        {"round(3.14159, 2)", "3.14"},
        {"round(2.675, 2)", "2.68"},
        {"round(1234, -2)", "1200"},
        {"min(3, 1, 2)", "1"},
        {"max(3, 1, 2)", "3"},
        {"sum(1, 2, 3.5)", "6.5"},
        {"avg(1, 2)", "1.5"},
        {"mean(1, 2, 3, 6)", "3"},
        {"max(1/3, 0.333)*3", "1"},
        {"15%", "0.15"},
        {"200*15%", "30"},
        {"5%^2", "0.0025"},
        {"50%+50%", "1 (N% is N/100 here; N percent more is x * (1 + N%))"},
        {"200-15%", "199.85 (N% is N/100 here; N percent less is x * (1 - N%))"},
        {"10%%", "0.001"},
        {"1e3", "1000"},
        {"1.5E-3", "0.0015"},
        {"2e+2", "200"},
        {"1e22", "10000000000000000000000"},
        {".5", "0.5"},
        {"5.", "5"},
        {"1,234,567.89+0.11", "1234568"},
        {"1,000*2", "2000"},
        {"max(1,234)", "234"},
        {"max((1,234), 5)", "1234"},
        {"1_000_000", "1000000"},
        {"3 \xc3\x97 4 \xc3\xb7 2 \xe2\x88\x92 1", "5"},
        {" 1\t+\n2 ", "3"},
        {"1\xc2\xa0+ 2", "3"},
        {"100*1.1^10", "259.37424601"},
        {"1e16+1", "10000000000000001"},
        {"0.00000001", "0.00000001"},
        {"1e-60", "1e-60"},
        {"-1e-60", "-1e-60"},
        {"123456789*987654321", "121932631112635269"},
        {"1/3-1/3", "0"},
        {"0*-1", "0"},
        {"12345678901234567890123456789*10", "123456789012345678901234567890"},
        {"ABS(-1)", "1"},
        {"math.sqrt(9)", "3"},
    };
    CHECK_ALL(table);
}

static void exact_roots_and_logarithms(void **state)
{
    static const known table[] = {
        {"sqrt(16)", "4"},
        {"sqrt(0.25)", "0.5"},
        {"sqrt(2.25)", "1.5"},
        {"sqrt(0)", "0"},
        {"cbrt(-8)", "-2"},
        {"cbrt(27/64)", "0.75"},
        {"root(32, 5)", "2"},
        {"root(-32, 5)", "-2"},
        {"8^(1/3)", "2"},
        {"4^0.5", "2"},
        {"16^0.75", "8"},
        {"16^-0.5", "0.25"},
        {"log(1000)", "3"},
        {"log10(0.001)", "-3"},
        {"log2(1024)", "10"},
        {"log(8, 2)", "3"},
        {"log(1/9, 3)", "-2"},
        {"ln(1)", "0"},
        {"exp(0)", "1"},
        {"sin(0)", "0"},
        {"cos(0)", "1"},
        {"tan(0)", "0"},
        {"asin(0)", "0"},
        {"acos(1)", "0"},
        {"atan(0)", "0"},
        {"sinh(0)", "0"},
        {"cosh(0)", "1"},
        {"acosh(1)", "0"},
        {"pow(2, 8)", "256"},
        {"floor(pi)", "3"},
        {"ceil(pi)", "4"},
        {"round(pi, 5)", "3.14159"},
        {"trunc(-pi)", "-3"},
        {"pi // 1", "3"},
        {"max(sqrt(2), 2)", "2"},
        {"floor(sqrt(2)^2)", "2"},
        {"ceil(sqrt(2)^2)", "2"},
        {"round(sqrt(6.25)*1)", "3"},
        {"round(-(sqrt(2)^2)*1.25)", "-3"},
    };
    CHECK_ALL(table);
}

/* Digits from published tables (Abramowitz and Stegun, OEIS). */
static void rounded_results(void **state)
{
    static const known table[] = {
        {"1/3", "0.33333333333333333333 (rounded; exactly 1/3)"},
        {"2/3", "0.66666666666666666667 (rounded; exactly 2/3)"},
        {"-1/7", "-0.14285714285714285714 (rounded; exactly -1/7)"},
        {"1e30/7", "1.4285714285714285714e29 (rounded)"},
        {"1/7e10", "1.4285714285714285714e-11 (rounded; exactly 1/70000000000)"},
        {"pi", "3.1415926535897932385 (rounded)"},
        {"\xcf\x80", "3.1415926535897932385 (rounded)"},
        {"e", "2.7182818284590452354 (rounded)"},
        {"tau", "6.2831853071795864769 (rounded)"},
        {"sqrt(2)", "1.4142135623730950488 (rounded)"},
        {"sqrt(3)", "1.7320508075688772935 (rounded)"},
        {"2^0.5", "1.4142135623730950488 (rounded)"},
        {"cbrt(2)", "1.2599210498948731648 (rounded)"},
        {"(1+sqrt(5))/2", "1.6180339887498948482 (rounded)"},
        {"ln(2)", "0.69314718055994530942 (rounded)"},
        {"ln(10)", "2.302585092994045684 (rounded)"},
        {"log(2)", "0.30102999566398119521 (rounded)"},
        {"exp(pi)", "23.140692632779269006 (rounded)"},
        {"pi^e", "22.459157718361045473 (rounded)"},
        {"sin(1)", "0.84147098480789650665 (rounded)"},
        {"cos(1)", "0.5403023058681397174 (rounded)"},
        {"tan(1)", "1.5574077246549022305 (rounded)"},
        {"atan(1)*4", "3.1415926535897932385 (rounded)"},
        {"sin(pi/6)", "0.5 (rounded)"},
        {"sin(pi)", "0 (rounded)"},
        {"cos(pi)", "-1 (rounded)"},
        {"sqrt(2)^2", "2 (rounded)"},
        {"sinh(1)", "1.1752011936438014569 (rounded)"},
        {"cosh(1)", "1.5430806348152437785 (rounded)"},
        {"tanh(1)", "0.76159415595576488812 (rounded)"},
        {"asinh(1)", "0.88137358701954302523 (rounded)"},
        {"acosh(2)", "1.3169578969248167086 (rounded)"},
        {"atanh(0.5)", "0.5493061443340548457 (rounded)"},
        {"e^(pi*sqrt(163))", "262537412640768744 (rounded)"},
        {"e^(pi*sqrt(163)) < 262537412640768744", "true"},
        {"sqrt(sqrt(2)^2-2)", "0 (rounded)"},
        {"exp(-1e6)", "3.296831478088558579e-434295 (rounded)"},
        {"1.05^100", "131.50125784630345503 (rounded)"},
        {"log(8, 4)", "1.5 (rounded)"},
        {"1.0001^1000000", "2.6747109931421401729e43 (rounded)"},
        {"1000!", "4.0238726007709377354e2567 (rounded; the exact number has 2568 digits)"},
        {"2^100000", "9.9900209301438450794e30102 (rounded; the exact number has 30103 digits)"},
    };
    CHECK_ALL(table);
}

static void comparisons(void **state)
{
    static const known table[] = {
        {"1 < 2", "true"},
        {"2 < 1", "false"},
        {"1 <= 1", "true"},
        {"1 >= 2", "false"},
        {"1 == 1.0", "true"},
        {"2+2=4", "true"},
        {"1 != 1", "false"},
        {"3 != 6", "true"},
        {"0.1+0.2 == 0.3", "true"},
        {"1 < 2 < 3", "true"},
        {"1 < 3 < 2", "false"},
        {"sqrt(2)*sqrt(3) == sqrt(6)", "true"},
        {"sqrt(2) < 1.41421356237309504880168872420969807857", "true"},
        {"sqrt(2) > 1.41421356237309504880168872420969807856", "true"},
        {"2^100 > 3^63", "true"},
        {"pi \xe2\x89\xa4 22/7", "true"},
        {"pi \xe2\x89\xa0 3", "true"},
    };
    CHECK_ALL(table);
}

/* The column and the beginning of what follows it. */
static void errors_say_where_and_what(void **state)
{
    static const known table[] = {
        {"", "at column 1: the expression is empty"},
        {"   ", "at column 1: the expression is empty"},
        {"1+", "at column 3: the expression ends"},
        {"*2", "at column 1: a value is expected"},
        {"1+*2", "at column 3: a value"},
        {"()", "at column 2: a value is expected"},
        {"(1+2", "at column 1: this ( is not closed"},
        {"1+2)", "at column 4: this ) has no ("},
        {"sqrt(4", "at column 5: this ( is not closed"},
        {"2(3)", "at column 2: an operator is missing"},
        {"2pi", "at column 2: an operator"},
        {"(1)(2)", "at column 4: an operator is missing"},
        {"5 apples", "at column 3: an operator is missing"},
        {"3 x 4", "at column 3: the word 'x'"},
        {"15% of 200", "at column 5: the word 'of'"},
        {"7 plus 3", "at column 3: the word 'plus'"},
        {"x+1", "at column 1: the word 'x'"},
        {"foo(1)", "at column 1: unknown name 'foo': known are pi e tau"},
        {"1+bar", "at column 3: unknown name 'bar'"},
        {"sin", "at column 1: sin is a function: write sin(...)"},
        {"sqrt(1, 2)", "at column 1: sqrt takes 1 argument, not 2"},
        {"max()", "at column 1: max takes at least 1 argument, not 0"},
        {"round(1, 2, 3)", "at column 1: round takes one or 2 arguments, not 3"},
        {"1,23", "at column 2: ',' stands between"},
        {"1,2345", "at column 2: ','"},
        {"12345,678", "at column 6: ','"},
        {"1 , 2", "at column 3: ','"},
        {"1.234,56", "at column 6: ','"},
        {"1.2.3", "at column 4: a number has one decimal point"},
        {".", "at column 1: a digit is missing"},
        {"max((1 , 2), 3)", "at column 8: ','"},
        {"[1, 2]", "at column 1: '[' has no meaning"},
        {"sum([1])", "at column 5: '['"},
        {"$5", "at column 1: '$'"},
        {"5; 6", "at column 2: ';'"},
        {"|5|", "at column 1: '|'"},
        {"\"5\"", "at column 1: '\"'"},
        {"\xe2\x82\xac"
         "5",
         "at column 1: a character"},
        {"\xc3\x97\xc3\x97\xe2\x82\xac", "at column 1: a value is expected"},
        {"2\xc3\x97\xe2\x82\xac", "at column 3: a character"},
        {"\xff", "at column 1: a character"},
        {"1/0", "at column 2: division by zero"},
        {"1/(2-2)", "at column 2: division by zero"},
        {"5 % (1-1)", "at column 3: division by zero"},
        {"5 // 0", "at column 3: division by zero"},
        {"0^-1", "at column 2: 0 to a negative power"},
        {"1/(sqrt(2)^2-2)", "at column 2: division by zero, as far"},
        {"sqrt(-1)", "at column 1: the square root of a negative"},
        {"sqrt(2-sqrt(5))", "at column 1: the square root of a negative"},
        {"(-8)^(1/3)", "at column 5: a negative number to a fractional power"},
        {"root(-16, 4)", "at column 1: an even root"},
        {"root(2, 0)", "at column 1: the degree of a root"},
        {"ln(0)", "at column 1: the logarithm exists"},
        {"log(-1)", "at column 1: the logarithm"},
        {"log(8, 1)", "at column 1: the base of a logarithm"},
        {"ln(1-sqrt(2))", "at column 1: the logarithm"},
        {"asin(2)", "at column 1: this takes numbers from -1 to 1"},
        {"acos(-1.01)", "at column 1: this takes"},
        {"acosh(0.5)", "at column 1: this takes numbers from 1 up"},
        {"atanh(1)", "at column 1: this takes numbers between"},
        {"tan(pi/2)", "at column 1: the tangent has no value"},
        {"2.5!", "at column 4: this takes whole numbers"},
        {"(-1)!", "at column 5: this takes whole"},
        {"gcd(1.5, 2)", "at column 1: gcd and lcm take whole"},
        {"comb(5, 1.5)", "at column 1: this takes whole"},
        {"sqrt(2)!", "at column 8: this takes whole"},
        {"3!!", "at column 3: '!!' may mean two things"},
        {"(1 < 2)", "at column 4: a comparison stands alone"},
        {"1 + (2 = 2)", "at column 8: a comparison"},
        {"2+2=", "at column 5: the expression ends"},
        {"round(1, 0.5)", "at column 1: round(x, n) takes a whole n"},
        {"1 2", "at column 3: an operator"},
        {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "at column 1: no name is as long"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        weft_buffer out = WEFT_BUFFER_INIT;
        weft_error err;
        if (evaluate(table[i].expression, &out, &err) != WEFT_E_INVALID)
            fail_msg("%s: no error but %s", table[i].expression, weft_buffer_str(&out));
        if (strncmp(err.message, table[i].expected, strlen(table[i].expected)) != 0)
            fail_msg("%s: \"%s\", not \"%s\"", table[i].expression, err.message, table[i].expected);
        assert_int_equal(out.size, 0);
        weft_buffer_free(&out);
    }
}

static void repeat(weft_buffer *out, const char *text, size_t n)
{
    while (n--) weft_buffer_puts(out, text);
}

/* Refused by an estimate, before anything is computed: each of these would need gigabytes or
 * minutes. */
static void what_is_too_large_is_refused(void **state)
{
    static const char *const large[] = {
        "9^9^9^9",
        "10^1000000",
        "100000!",
        "2^2^2^2^2^2",
        "10^-1000000",
        "1e1000000",
        "1e99999999999999999999",
        "1e-1000000",
        "comb(1000000, 500000)",
        "perm(1000000, 500000)",
        "comb(10^300, 300)",
        "99999999999999999999!",
        "(10^30000)^2",
        "10^20000*10^20000",
        "0.5^1000000",
        "exp(exp(exp(10)))",
        "9^(9^sqrt(81))",
        "floor(exp(1e9))",
        "lcm(10^20000, 10^20000+1)",
        "sin(1e30000)",
        "tan(1e30000)",
        "floor(e^69000)",
    };
    for (size_t i = 0; i < sizeof large / sizeof *large; i++) {
        weft_buffer out = WEFT_BUFFER_INIT;
        weft_error err;
        if (evaluate(large[i], &out, &err) != WEFT_E_INVALID)
            fail_msg("%s: %s", large[i], weft_buffer_str(&out));
        assert_non_null(strstr(err.message, "at column "));
        weft_buffer_free(&out);
    }
    weft_error err;
    weft_buffer out = WEFT_BUFFER_INIT;
    assert_int_equal(evaluate("9^9^9^9", &out, &err), WEFT_E_INVALID);
    assert_string_equal(
        err.message,
        "at column 4: the result would have about 369693100 digits, and exact results end at "
        "30,103: ask for a smaller one, or for its logarithm");
}

static void work_and_depth_are_bounded(void **state)
{
    static const struct {
        const char *piece;
        size_t times;
        const char *end, *reason;
    } table[] = {
        {"(", 101, "", "nested more than 100"},
        {"-", 101, "1", "nested more than 100"},
        {"2^", 101, "1", "nested more than 100"},
        {"sqrt(", 101, "", "nested more than 100"},
        {"1+", 2100, "1", "longer than 4096 bytes"},
        {"sin(pi)*", 400, "1", "takes too long"},
        {"comb(99000,49000)+", 200, "1", "takes too long"},
        {"3^60000/7^35000+1/", 200, "3", "takes too long"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        weft_buffer text = WEFT_BUFFER_INIT, out = WEFT_BUFFER_INIT;
        weft_error err;
        repeat(&text, table[i].piece, table[i].times);
        weft_buffer_puts(&text, table[i].end);
        if (evaluate(weft_buffer_str(&text), &out, &err) != WEFT_E_INVALID)
            fail_msg("%s...: accepted", table[i].piece);
        if (!strstr(err.message, table[i].reason))
            fail_msg("%s...: %s", table[i].piece, err.message);
        weft_buffer_free(&text);
        weft_buffer_free(&out);
    }
    weft_buffer text = WEFT_BUFFER_INIT;
    repeat(&text, "(", 99);
    weft_buffer_puts(&text, "1");
    repeat(&text, ")", 99);
    check_all(&(known){weft_buffer_str(&text), "1"}, 1);
    weft_buffer_clear(&text);
    repeat(&text, "1+", 2000);
    weft_buffer_puts(&text, "1");
    check_all(&(known){weft_buffer_str(&text), "2001"}, 1);
    weft_buffer_free(&text);
}

static void bytes_need_not_be_text(void **state)
{
    weft_buffer out = WEFT_BUFFER_INIT;
    weft_error err;
    assert_int_equal(calculator_evaluate("1\0+2", 4, &out, &err), WEFT_E_INVALID);
    assert_int_equal(calculator_evaluate("1+2garbage", 3, &out, &err), WEFT_OK);
    assert_string_equal(weft_buffer_str(&out), "3");
    weft_buffer_free(&out);
    assert_int_equal(calculator_evaluate("1/0", 3, &out, NULL), WEFT_E_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exact_arithmetic),
        cmocka_unit_test(exact_roots_and_logarithms),
        cmocka_unit_test(rounded_results),
        cmocka_unit_test(comparisons),
        cmocka_unit_test(errors_say_where_and_what),
        cmocka_unit_test(what_is_too_large_is_refused),
        cmocka_unit_test(work_and_depth_are_bounded),
        cmocka_unit_test(bytes_need_not_be_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
