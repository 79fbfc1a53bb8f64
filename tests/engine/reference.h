/* What references in double precision are made of, over the tensors of a random model. */
#ifndef WEFT_TESTS_REFERENCE_H
#define WEFT_TESTS_REFERENCE_H

#include "tests/engine/random_model.h"

#include <math.h>

/* A tensor's values by its name behind "blk.N."; layer -1: by its whole name. NULL: there is none. */
static inline const float *find(const writer *w, int layer, const char *part)
{
    char name[48];
    if (layer >= 0)
        snprintf(name, sizeof name, "blk.%d.%s", layer, part);
    else
        snprintf(name, sizeof name, "%s", part);
    for (size_t i = 0; i < w->n; i++)
        if (strcmp(w->t[i].name, name) == 0) return w->t[i].data;
    return NULL;
}

/* y [rows] = m [rows][columns] x + bias, which may be NULL */
static inline void times(const float *m, const float *bias, const double *x, size_t columns,
                         size_t rows, double *y)
{
    for (size_t r = 0; r < rows; r++) {
        y[r] = bias ? bias[r] : 0;
        for (size_t c = 0; c < columns; c++) y[r] += (double)m[r * columns + c] * x[c];
    }
}

static inline void norm(const double *x, const float *weight, size_t n, double *y)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += x[i] * x[i];
    for (size_t i = 0; i < n; i++) y[i] = x[i] / sqrt(sum / (double)n + 1e-5) * weight[i];
}

#endif
