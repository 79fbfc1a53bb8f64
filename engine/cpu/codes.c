/* Super-blocks of the grid and ternary types as codes and scales. Layouts: docs/gguf.md.
 *
 * Written for reading; it runs once a block at load, and for each embedding row.
 */
#include "engine/cpu/codes.h"

#include <assert.h>

/* 8 codes of 3 bits: two of level, one of sign. */
static void eight(uint16_t group, uint8_t signs, uint8_t *code)
{
    for (int i = 0; i < 8; i++) code[i] = (uint8_t)((group >> 2 * i & 3) | (signs >> i & 1) << 2);
}

/* 4 codes of 4 bits: three of level, one of sign. */
static void four(uint16_t group, int signs, uint8_t *code)
{
    for (int i = 0; i < 4; i++) code[i] = (uint8_t)((group >> 3 * i & 7) | (signs >> i & 1) << 3);
}

static void iq2_xxs(const uint8_t *b, cpu_codes *out)
{
    for (int j = 0; j < 8; j++) {
        const uint8_t *index = b + 2 + 8 * j;
        uint32_t packed = load32(index + 4); /* 4 x 7 signs, then the scale */
        out->scale[2 * j] = out->scale[2 * j + 1] = (uint8_t)(2 * (packed >> 28) + 1);
        for (int k = 0; k < 4; k++)
            eight(cpu_grid_iq2_xxs[index[k]], cpu_even_signs(packed >> 7 * k),
                  out->code + 32 * j + 8 * k);
    }
}

static void iq2_xs(const uint8_t *b, cpu_codes *out)
{
    for (int k = 0; k < 32; k++) {
        uint16_t packed = load16(b + 2 + 2 * k); /* 9 bits of index, 7 signs */
        out->scale[k / 2] = (uint8_t)(2 * (b[66 + k / 4] >> 4 * (k / 2 % 2) & 15) + 1);
        eight(cpu_grid_iq2_xs[packed & 511], cpu_even_signs(packed >> 9), out->code + 8 * k);
    }
}

static void iq2_s(const uint8_t *b, cpu_codes *out)
{
    const uint8_t *index = b + 2, *signs = b + 34, *high = b + 66, *scale = b + 74;
    for (int k = 0; k < 32; k++) {
        int i = index[k] | (high[k / 4] >> 2 * (k % 4) & 3) << 8;
        out->scale[k / 2] = (uint8_t)(2 * (scale[k / 4] >> 4 * (k / 2 % 2) & 15) + 1);
        eight(cpu_grid_iq2_s[i], signs[k], out->code + 8 * k);
    }
}

static void iq3_xxs(const uint8_t *b, cpu_codes *out)
{
    for (int j = 0; j < 8; j++) {
        const uint8_t *index = b + 2 + 8 * j;
        uint32_t packed = load32(b + 66 + 4 * j);
        out->scale[2 * j] = out->scale[2 * j + 1] = (uint8_t)(2 * (packed >> 28) + 1);
        for (int k = 0; k < 8; k++)
            four(cpu_grid_iq3_xxs[index[k]], cpu_even_signs(packed >> 7 * (k / 2)) >> 4 * (k % 2),
                 out->code + 32 * j + 4 * k);
    }
}

static void iq3_s(const uint8_t *b, cpu_codes *out)
{
    const uint8_t *index = b + 2, *high = b + 66, *signs = b + 74, *scale = b + 106;
    for (int k = 0; k < 64; k++) {
        int j = k / 8, i = index[k] | (high[j] >> k % 8 & 1) << 8;
        out->scale[k / 4] = (uint8_t)(2 * (scale[j / 2] >> 4 * (j % 2) & 15) + 1);
        four(cpu_grid_iq3_s[i], signs[k / 2] >> 4 * (k % 2), out->code + 4 * k);
    }
}

/* The "sign" of an IQ1 group lowers all its values by 2/8, where the others flip one each. */
static void iq1_group(int index, bool lower, uint8_t *code)
{
    eight(cpu_grid_iq1[index], lower ? 0xff : 0, code);
}

static void iq1_s(const uint8_t *b, cpu_codes *out)
{
    for (int j = 0; j < 8; j++) {
        uint16_t packed = load16(b + 34 + 2 * j); /* 4 x 3 bits of index, scale, lower */
        out->scale[2 * j] = out->scale[2 * j + 1] = (uint8_t)(2 * (packed >> 12 & 7) + 1);
        for (int k = 0; k < 4; k++)
            iq1_group(b[2 + 4 * j + k] | (packed >> 3 * k & 7) << 8, packed >> 15,
                      out->code + 32 * j + 8 * k);
    }
}

static void iq1_m(const uint8_t *b, cpu_codes *out)
{
    const uint8_t *scales = b + 48; /* 4 x 16 bits: 4 scales of 3, and 4 bits of d */
    out->d = 0;
    for (int i = 0; i < 4; i++) out->d |= (uint16_t)(load16(scales + 2 * i) >> 12 << 4 * i);
    for (int k = 0; k < 32; k++) {
        int packed = b[32 + k / 2] >> 4 * (k % 2), half = k / 2; /* 3 bits of index, lower */
        int scale = load16(scales + 2 * (half / 4)) >> 3 * (half % 4) & 7;
        out->scale[half] = (uint8_t)(2 * scale + 1);
        iq1_group(b[k] | (packed & 7) << 8, packed & 8, out->code + 8 * k);
    }
}

/* Digit n (the first is the most significant) of a byte that holds a fraction in base 3. */
static uint8_t ternary_digit(uint8_t byte, int n)
{
    static const uint8_t power[5] = {1, 3, 9, 27, 81};
    return (uint8_t)((uint8_t)(byte * power[n]) * 3 >> 8);
}

/* Five weights a byte, those of a byte `stride` weights apart; the last 16 weights four a byte. */
static void tq1_0(const uint8_t *b, cpu_codes *out)
{
    for (int i = 0; i < 160; i++) out->code[i] = ternary_digit(b[i % 32], i / 32);
    for (int i = 0; i < 80; i++) out->code[160 + i] = ternary_digit(b[32 + i % 16], i / 16);
    for (int i = 0; i < 16; i++) out->code[240 + i] = ternary_digit(b[48 + i % 4], i / 4);
}

static void tq2_0(const uint8_t *b, cpu_codes *out)
{
    for (int i = 0; i < CPU_SUPER; i++)
        out->code[i] = b[i / 128 * 32 + i % 32] >> 2 * (i / 32 % 4) & 3;
}

void cpu_codes_read(weft_tensor_type type, const uint8_t *block, cpu_codes *out)
{
    out->d = load16(block); /* where most types have it */
    switch (type) {
    case WEFT_IQ1_S: iq1_s(block, out); break;
    case WEFT_IQ1_M: iq1_m(block, out); break;
    case WEFT_IQ2_XXS: iq2_xxs(block, out); break;
    case WEFT_IQ2_XS: iq2_xs(block, out); break;
    case WEFT_IQ2_S: iq2_s(block, out); break;
    case WEFT_IQ3_XXS: iq3_xxs(block, out); break;
    case WEFT_IQ3_S: iq3_s(block, out); break;
    case WEFT_TQ1_0:
    case WEFT_TQ2_0:
        memset(out->scale, 1, sizeof out->scale);
        out->d = load16(block + (type == WEFT_TQ1_0 ? 52 : 64));
        if (type == WEFT_TQ1_0)
            tq1_0(block, out);
        else
            tq2_0(block, out);
        break;
    default: assert(!"a type with codes"); break;
    }
}
