/* Rotary positions. The table of cosines and sines is made once a pass and distinct frequencies, in double, by the
 * operations of engine/math.c: the same bits as on the CPU. */
#include "engine/cuda/device.cuh"

enum { TABLE_THREADS = 128, ROPE_THREADS = 256 };

INLINE double taylor(double x, double c0, double c1, double c2, double c3, double c4, double c5,
                     double c6)
{
    return (((((c6 * x + c5) * x + c4) * x + c3) * x + c2) * x + c1) * x + c0;
}

/* |x| < 2^40 */
INLINE void sine_cosine(double x, double *out_sin, double *out_cos)
{
    const double magic = 0x1.8p52, n = x * 0x1.45f306dc9c883p-1 + magic - magic;
    double r = fma(n, -0x1.921fb54442d18p+0, x);
    r = fma(n, -0x1.1a62633145c07p-54, r);
    r = fma(n, 0x1.f1976b8p-110, r);
    const double z = r * r, half = 0.5 * z, w = 1 - half;
    const double s = r + r * z * taylor(z, -1.0 / 6, 1.0 / 120, -1.0 / 5040, 1.0 / 362880,
                                        -1.0 / 39916800, 1.0 / 6227020800, -1.0 / 1307674368000);
    const double c = w + ((1 - w - half) +
                          z * z * taylor(z, 1.0 / 24, -1.0 / 720, 1.0 / 40320, -1.0 / 3628800,
                                         1.0 / 479001600, -1.0 / 87178291200, 1.0 / 20922789888000));
    const int quadrant = (int)((int64_t)n & 3);
    *out_sin = quadrant == 0 ? s : quadrant == 1 ? c : quadrant == 2 ? -s : -c;
    *out_cos = quadrant == 0 ? c : quadrant == 1 ? -s : quadrant == 2 ? -c : s;
}

KERNEL(rope_table, TABLE_THREADS, weft_cuda_rope_table_args)
{
    const uint32_t half = a.rope_dim / 2;
    const uint64_t i = (uint64_t)blockIdx.x * TABLE_THREADS + threadIdx.x;
    if (i >= (uint64_t)a.n * half) return;
    double s, c;
    sine_cosine((double)a.row[i / half].position * a.inv_freq[i % half], &s, &c);
    a.cos_sin[2 * i] = (float)c * a.magnitude;
    a.cos_sin[2 * i + 1] = (float)s * a.magnitude;
}

/* A thread a pair. Floor: the bytes of x twice. */
KERNEL(rope, ROPE_THREADS, weft_cuda_rope_args)
{
    const uint32_t half = a.rope_dim / 2;
    const uint64_t at = (uint64_t)blockIdx.x * ROPE_THREADS + threadIdx.x, head = at / half;
    if (head >= (uint64_t)a.n * a.heads) return;
    const uint32_t i = (uint32_t)(at % half);
    const float *const table = a.cos_sin + (head / a.heads * half + i) * 2;
    float *const x = a.x + head * a.head_stride;
    float *const first = a.kind == WEFT_ROPE_NEOX ? x + i : x + 2 * i;
    float *const second = a.kind == WEFT_ROPE_NEOX ? x + i + half : x + 2 * i + 1;
    const float c = table[0], s = table[1], u = *first, v = *second;
    *first = fmaf(u, c, -(v * s));
    *second = fmaf(u, s, v * c);
}
