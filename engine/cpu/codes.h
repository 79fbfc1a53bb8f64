/* Block types whose weights are short codes: a weight is d times a scale times one of at most 16 values.
 *
 * The grid types (IQ1, IQ2, IQ3) store groups of 4 or 8 weights as an index into a table of groups. All
 * weights of such a type take 6 to 16 values in all, so each is a code of 3 or 4 bits, and a product
 * needs no grid: that is the form in which the dequantiser reads them, and the packers store them.
 */
#ifndef WEFT_ENGINE_CPU_CODES_H
#define WEFT_ENGINE_CPU_CODES_H

#include "engine/cpu/half.h"
#include "engine/cpu/kernels.h"

enum { CPU_SUPER = 256 }; /* weights of a super-block */

typedef struct cpu_codes {
    uint16_t d;                    /* fp16 */
    uint8_t scale[CPU_SUPER / 16]; /* odd, 1..31, of 16 weights each */
    uint8_t code[CPU_SUPER];
} cpu_codes;

/* A super-block of IQ1_S .. IQ3_S, TQ1_0 or TQ2_0: weight i is
 * d * cpu_code_unit * scale[i / 16] * cpu_code_values[code[i]], exactly. */
void cpu_codes_read(weft_tensor_type type, const uint8_t *block, cpu_codes *out);

/* What the codes of a format stand for; 16 bytes, unused ones 0. */
static inline const int8_t *cpu_code_values(cpu_format f)
{
    static const int8_t nonlinear[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                         1,    13,   25,  38,  53,  69,  89,  113};
    static const int8_t fp4[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
    static const int8_t iq1[16] = {-7, 1, 9, 0, -9, -1, 7};
    static const int8_t iq2[16] = {8, 25, 43, 0, -8, -25, -43};
    static const int8_t iq3[16] = {4,  12,  20,  28,  36,  44,  52,  62,
                                   -4, -12, -20, -28, -36, -44, -52, -62};
    static const int8_t iq3s[16] = {1, 3, 5, 7, 9, 11, 13, 15, -1, -3, -5, -7, -9, -11, -13, -15};
    static const int8_t ternary[16] = {-1, 0, 1, 2};
    switch (f) {
    case CPU_N4:
    case CPU_N4K: return nonlinear;
    case CPU_MX4:
    case CPU_NV4: return fp4;
    case CPU_IQ1: return iq1;
    case CPU_IQ2: return iq2;
    case CPU_IQ3: return iq3;
    case CPU_IQ3S: return iq3s;
    default: return ternary;
    }
}

/* The power of two that makes a format's values integers. */
static inline float cpu_code_unit(cpu_format f)
{
    return f == CPU_IQ1 || f == CPU_IQ2 ? 0.125f : f == CPU_IQ3 ? 0.25f : 1;
}

/* 2^(e - 128): the scale of MXFP4, whose values are doubled. */
static inline float cpu_e8m0(uint8_t e)
{
    return float_from_bits(e < 2 ? UINT32_C(0x200000) << e : (uint32_t)(e - 1) << 23);
}

/* Half of an unsigned float of 4 exponent and 3 fraction bits: the scale of NVFP4. 0x7f counts as 0. */
static inline float cpu_ue4m3(uint8_t u)
{
    if (u == 0x7f) return 0;
    return float_from_bits((uint32_t)(u & 0x7f) << 20) * 0x1p119f;
}

/* The sign bits of 8 weights from 7: their number is even. */
static inline uint8_t cpu_even_signs(uint32_t seven)
{
    seven &= 127;
    return (uint8_t)(seven | (uint32_t)__builtin_parity(seven) << 7);
}

/* The groups: 8 levels of 2 bits an entry, or (IQ3) 4 levels of 3 bits, the first weight lowest. */
extern const uint16_t cpu_grid_iq1[2048], cpu_grid_iq2_xxs[256], cpu_grid_iq2_xs[512],
    cpu_grid_iq2_s[1024], cpu_grid_iq3_xxs[256], cpu_grid_iq3_s[512];

#endif
