/* Mathematics whose results may not depend on the C library's version: sine, cosine, power.
 *
 * Double precision, a few ulp at worst; basic operations, fma() and rint-like additions are the only
 * things asked of the platform, and IEEE 754 defines those to the last bit. The float exponential is
 * the kernels' (cpu/float.inc).
 */
#include "engine/cpu/kernels.h"
#include "engine/trig.h"

#include <assert.h>
#include <math.h>
#include <string.h>

static const double MAGIC = 0x1.8p52; /* adding it rounds to an integer, to nearest even */

static double polynomial(double x, const double *c, int n)
{
    double p = c[n - 1];
    for (int i = n - 2; i >= 0; i--) p = p * x + c[i];
    return p;
}

/* sin and cos of r, |r| <= pi/4: Taylor, the next terms are below 1e-17. */
static double small_sin(double r)
{
    static const double c[] = {-1.0 / 6,        1.0 / 120,        -1.0 / 5040,         1.0 / 362880,
                               -1.0 / 39916800, 1.0 / 6227020800, -1.0 / 1307674368000};
    double z = r * r;
    return r + r * z * polynomial(z, c, 7);
}

static double small_cos(double r)
{
    static const double c[] = {
        1.0 / 24,        -1.0 / 720,         1.0 / 40320,         -1.0 / 3628800,
        1.0 / 479001600, -1.0 / 87178291200, 1.0 / 20922789888000};
    double z = r * r, half = 0.5 * z, w = 1 - half;
    return w + ((1 - w - half) + z * z * polynomial(z, c, 7));
}

void weft_sincos(double x, double *out_sin, double *out_cos)
{
    assert(fabs(x) < 0x1p40); /* rope: position times a frequency of at most a few */
    double n = x * 0x1.45f306dc9c883p-1 + MAGIC - MAGIC; /* 2 / pi */
    double r = fma(n, -0x1.921fb54442d18p+0, x);         /* pi / 2 in three parts */
    r = fma(n, -0x1.1a62633145c07p-54, r);
    r = fma(n, 0x1.f1976b8p-110, r);
    double s = small_sin(r), c = small_cos(r);
    switch ((int64_t)n & 3) {
    case 0: *out_sin = s, *out_cos = c; break;
    case 1: *out_sin = c, *out_cos = -s; break;
    case 2: *out_sin = -s, *out_cos = -c; break;
    default: *out_sin = -c, *out_cos = s; break;
    }
}

/* ln x = e ln 2 + ln m, m in [sqrt 1/2, sqrt 2], ln m = 2 atanh((m - 1) / (m + 1)). */
static double natural_log(double x)
{
    static const double c[] = {1.0 / 3,  1.0 / 5,  1.0 / 7,  1.0 / 9,  1.0 / 11,
                               1.0 / 13, 1.0 / 15, 1.0 / 17, 1.0 / 19, 1.0 / 21};
    int e;
    double m = frexp(x, &e);
    if (m < 0.70710678118654752) {
        m *= 2;
        e--;
    }
    double s = (m - 1) / (m + 1), z = s * s;
    double low = fma((double)e, 0x1.abc9e3b39803fp-56, 2 * s * z * polynomial(z, c, 10));
    return fma((double)e, 0x1.62e42fefa39efp-1, 2 * s + low);
}

static double exponential(double x)
{
    static const double c[] = {1.0,
                               1.0,
                               1.0 / 2,
                               1.0 / 6,
                               1.0 / 24,
                               1.0 / 120,
                               1.0 / 720,
                               1.0 / 5040,
                               1.0 / 40320,
                               1.0 / 362880,
                               1.0 / 3628800,
                               1.0 / 39916800,
                               1.0 / 479001600,
                               1.0 / 6227020800};
    if (!(x < 710)) return x >= 710 ? (double)INFINITY : x;
    if (x < -746) return 0;
    double n = x * 0x1.71547652b82fep+0 + MAGIC - MAGIC;
    double r = fma(n, -0x1.62e42fefa39efp-1, x);
    r = fma(n, -0x1.abc9e3b39803fp-56, r);
    return ldexp(polynomial(r, c, 14), (int)n);
}

double weft_pow(double base, double exponent)
{
    assert(base > 0);
    return exponential(exponent * natural_log(base));
}

float weft_expf(float x)
{
    float out;
    (void)cpu_kernels_scalar.softmax_sum(&x, 1, 0, &out);
    return out;
}

float weft_softmax_sum(const float *x, size_t n, float max, float *out)
{
    bool known;
    return cpu_kernels_find(NULL, &known, NULL)->softmax_sum(x, n, max, out);
}
