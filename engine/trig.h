/* Sine and cosine of our own, in double. Private to engine/; the rest of math.c is in ops.h. */
#ifndef WEFT_ENGINE_TRIG_H
#define WEFT_ENGINE_TRIG_H

/* |x| < 2^40; absolute error below 2e-16. */
void weft_sincos(double x, double *out_sin, double *out_cos);

#endif
