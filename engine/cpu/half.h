/* Half and bfloat16, exactly: the integer formulas that the vector instructions (F16C) are equal to.
 *
 * To half rounds to nearest even; too large becomes infinity; subnormals are kept; a NaN stays a
 * quiet NaN with its sign and leading bits. */
#ifndef WEFT_ENGINE_CPU_HALF_H
#define WEFT_ENGINE_CPU_HALF_H

#include <stdint.h>
#include <string.h>

static inline float float_from_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline uint32_t float_bits(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static inline float half_to_float(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, magnitude = h & 0x7fff;
    if (magnitude >= 0x7c00) /* infinity, NaN (made quiet) */
        return float_from_bits(sign | 0x7f800000 | magnitude << 13 |
                               (magnitude > 0x7c00 ? 0x400000 : 0));
    if (magnitude >= 0x400) return float_from_bits(sign | ((magnitude << 13) + (112u << 23)));
    float f = (float)magnitude * 0x1p-24f; /* subnormal: exact */
    return float_from_bits(sign | float_bits(f));
}

static inline uint16_t half_from_float(float f)
{
    uint32_t bits = float_bits(f), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return (uint16_t)(sign | 0x7e00 | (magnitude >> 13 & 0x3ff));
    if (magnitude >= 0x477ff000) return (uint16_t)(sign | 0x7c00); /* rounds past 65504 */
    if (magnitude < 0x38800000) { /* subnormal half: the addition rounds at bit 2^-24 */
        float aligned = float_from_bits(magnitude) + 0.5f;
        return (uint16_t)(sign | (float_bits(aligned) - 0x3f000000));
    }
    uint32_t odd = magnitude >> 13 & 1;
    return (uint16_t)(sign | ((magnitude - (112u << 23) + 0xfff + odd) >> 13));
}

static inline float bfloat_to_float(uint16_t b)
{
    return float_from_bits((uint32_t)b << 16);
}

/* Unaligned little-endian loads (x86-64 only, as the whole backend). */
static inline uint16_t load16(const void *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint32_t load32(const void *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline float load_half(const void *p)
{
    return half_to_float(load16(p));
}

#endif
