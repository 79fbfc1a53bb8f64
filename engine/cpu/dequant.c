/* Dequantisers, one per block format (grid and ternary types: codes.c reads their blocks), written for reading and not for speed: they are what the
 * repacked kernels are tested against, and they look up embedding rows in the file's own bytes.
 *
 * Each value is one product, or a product and a sum, in float32; scale times sub-scale is exact
 * (11 + 8 bits). Layouts: docs/gguf.md.
 */
#include "engine/cpu/dequant.h"

#include "engine/cpu/codes.h"

enum { SUPER = CPU_SUPER };

static void q8_0(const uint8_t *b, float *out)
{
    float d = load_half(b);
    for (int i = 0; i < 32; i++) out[i] = d * (float)(int8_t)b[2 + i];
}

static void q4_0(const uint8_t *b, float *out)
{
    float d = load_half(b);
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)((b[2 + i] & 15) - 8);
        out[i + 16] = d * (float)((b[2 + i] >> 4) - 8);
    }
}

static void q4_1(const uint8_t *b, float *out)
{
    float d = load_half(b), m = load_half(b + 2);
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)(b[4 + i] & 15) + m;
        out[i + 16] = d * (float)(b[4 + i] >> 4) + m;
    }
}

/* The 32 five-bit numbers of Q5_0 and Q5_1: nibbles at qs, bit j of qh above number j. */
static void five_bits(const uint8_t *qh, const uint8_t *qs, int q[32])
{
    uint32_t high = load32(qh);
    for (int i = 0; i < 16; i++) {
        q[i] = (qs[i] & 15) | (int)(high >> i & 1) << 4;
        q[i + 16] = qs[i] >> 4 | (int)(high >> (i + 16) & 1) << 4;
    }
}

static void q5_0(const uint8_t *b, float *out)
{
    float d = load_half(b);
    int q[32];
    five_bits(b + 2, b + 6, q);
    for (int i = 0; i < 32; i++) out[i] = d * (float)(q[i] - 16);
}

static void q5_1(const uint8_t *b, float *out)
{
    float d = load_half(b), m = load_half(b + 2);
    int q[32];
    five_bits(b + 4, b + 8, q);
    for (int i = 0; i < 32; i++) out[i] = d * (float)q[i] + m;
}

/* The 6-bit scale and minimum of sub-block j (0..7) of a Q4_K or Q5_K super-block. */
static void scale_min(const uint8_t s[12], int j, uint8_t *out_scale, uint8_t *out_min)
{
    if (j < 4) {
        *out_scale = s[j] & 63;
        *out_min = s[j + 4] & 63;
    } else {
        *out_scale = (uint8_t)((s[j + 4] & 15) | s[j - 4] >> 6 << 4);
        *out_min = (uint8_t)(s[j + 4] >> 4 | s[j] >> 6 << 4);
    }
}

/* Q4_K and Q5_K; high NULL: no fifth bit. */
static void q45_k(const uint8_t *b, const uint8_t *high, const uint8_t *qs, float *out)
{
    float d = load_half(b), m = load_half(b + 2);
    for (int j = 0; j < 8; j++) {
        uint8_t scale, minimum;
        scale_min(b + 4, j, &scale, &minimum);
        float dj = d * (float)scale, mj = m * (float)minimum;
        for (int i = 0; i < 32; i++) {
            int q = j % 2 ? qs[j / 2 * 32 + i] >> 4 : qs[j / 2 * 32 + i] & 15;
            if (high) q |= (high[i] >> j & 1) << 4;
            out[32 * j + i] = dj * (float)q - mj;
        }
    }
}

static void q6_k(const uint8_t *b, float *out)
{
    const uint8_t *low = b, *high = b + 128, *scales = b + 192;
    float d = load_half(b + 208);
    for (int i = 0; i < SUPER; i++) {
        int half = i / 128, part = i % 128 / 32, l = i % 32;
        int nibble = low[64 * half + 32 * (part % 2) + l] >> 4 * (part / 2) & 15;
        int q = nibble | (high[32 * half + l] >> 2 * part & 3) << 4;
        out[i] = d * (float)(int8_t)scales[i / 16] * (float)(q - 32);
    }
}

/* Two bits at column i of a super-block: 4 parts of 32 columns share 32 bytes. */
static int two_bits(const uint8_t *qs, int i)
{
    return qs[i / 128 * 32 + i % 32] >> 2 * (i % 128 / 32) & 3;
}

static void q2_k(const uint8_t *b, float *out)
{
    float d = load_half(b + 80), m = load_half(b + 82);
    for (int i = 0; i < SUPER; i++) {
        uint8_t s = b[i / 16]; /* scale, minimum */
        out[i] = d * (float)(s & 15) * (float)two_bits(b + 16, i) - m * (float)(s >> 4);
    }
}

static void q3_k(const uint8_t *b, float *out)
{
    const uint8_t *high = b, *qs = b + 32, *s = b + 96;
    float d = load_half(b + 108);
    for (int i = 0; i < SUPER; i++) {
        int j = i / 16, q = two_bits(qs, i) | (high[i % 32] >> i / 32 & 1) << 2;
        int scale = (s[j % 8] >> 4 * (j / 8) & 15) | (s[8 + j % 4] >> 2 * (j / 4) & 3) << 4;
        out[i] = d * (float)(scale - 32) * (float)(q - 4);
    }
}

/* 16 bytes, low nibbles first, as values of a table times d. */
static void nibbles(float d, const int8_t *value, const uint8_t *qs, float *out)
{
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)value[qs[i] & 15];
        out[i + 16] = d * (float)value[qs[i] >> 4];
    }
}

static void iq4_nl(const uint8_t *b, float *out)
{
    nibbles(load_half(b), cpu_code_values(CPU_N4), b + 2, out);
}

static void iq4_xs(const uint8_t *b, float *out)
{
    float d = load_half(b);
    for (int j = 0; j < 8; j++) {
        int scale = (b[4 + j / 2] >> 4 * (j % 2) & 15) | (load16(b + 2) >> 2 * j & 3) << 4;
        nibbles(d * (float)(scale - 32), cpu_code_values(CPU_N4K), b + 8 + 16 * j, out + 32 * j);
    }
}

static void mxfp4(const uint8_t *b, float *out)
{
    nibbles(cpu_e8m0(b[0]), cpu_code_values(CPU_MX4), b + 1, out);
}

/* 4 parts of 16 columns, each with a scale and 8 bytes, low nibbles first. */
static void nvfp4(const uint8_t *b, float *out)
{
    const int8_t *value = cpu_code_values(CPU_NV4);
    for (int i = 0; i < 64; i++) {
        uint8_t byte = b[4 + i / 16 * 8 + i % 8];
        out[i] = cpu_ue4m3(b[i / 16]) * (float)value[byte >> 4 * (i / 8 % 2) & 15];
    }
}

static void q1_0(const uint8_t *b, float *out)
{
    float d = load_half(b);
    for (int i = 0; i < 128; i++) out[i] = b[2 + i / 8] >> i % 8 & 1 ? d : -d;
}

static void q2_0(const uint8_t *b, float *out)
{
    float d = load_half(b);
    for (int i = 0; i < 64; i++) out[i] = d * (float)((b[2 + i / 4] >> 2 * (i % 4) & 3) - 1);
}

static void codes(weft_tensor_type type, cpu_format format, const uint8_t *b, float *out)
{
    cpu_codes c;
    cpu_codes_read(type, b, &c);
    const int8_t *value = cpu_code_values(format);
    float d = half_to_float(c.d) * cpu_code_unit(format);
    for (int i = 0; i < SUPER; i++) out[i] = d * (float)c.scale[i / 16] * (float)value[c.code[i]];
}

static void f16(const uint8_t *b, float *out)
{
    *out = load_half(b);
}

static void bf16(const uint8_t *b, float *out)
{
    *out = bfloat_to_float(load16(b));
}

static void f32(const uint8_t *b, float *out)
{
    memcpy(out, b, sizeof *out);
}

size_t cpu_row_bytes(weft_tensor_type type, size_t n)
{
    size_t weights, bytes;
    if (!weft_tensor_block(type, &weights, &bytes) || n % weights) return 0;
    return n / weights * bytes;
}

static void block(weft_tensor_type type, const uint8_t *b, float *out)
{
    switch (type) {
    case WEFT_F32: f32(b, out); break;
    case WEFT_F16: f16(b, out); break;
    case WEFT_BF16: bf16(b, out); break;
    case WEFT_Q8_0: q8_0(b, out); break;
    case WEFT_Q4_0: q4_0(b, out); break;
    case WEFT_Q4_1: q4_1(b, out); break;
    case WEFT_Q5_0: q5_0(b, out); break;
    case WEFT_Q5_1: q5_1(b, out); break;
    case WEFT_Q2_K: q2_k(b, out); break;
    case WEFT_Q3_K: q3_k(b, out); break;
    case WEFT_Q4_K: q45_k(b, NULL, b + 16, out); break;
    case WEFT_Q5_K: q45_k(b, b + 16, b + 48, out); break;
    case WEFT_Q6_K: q6_k(b, out); break;
    case WEFT_IQ4_NL: iq4_nl(b, out); break;
    case WEFT_IQ4_XS: iq4_xs(b, out); break;
    case WEFT_MXFP4: mxfp4(b, out); break;
    case WEFT_NVFP4: nvfp4(b, out); break;
    case WEFT_Q1_0: q1_0(b, out); break;
    case WEFT_Q2_0: q2_0(b, out); break;
    case WEFT_IQ1_S:
    case WEFT_IQ1_M: codes(type, CPU_IQ1, b, out); break;
    case WEFT_IQ2_XXS:
    case WEFT_IQ2_XS:
    case WEFT_IQ2_S: codes(type, CPU_IQ2, b, out); break;
    case WEFT_IQ3_XXS: codes(type, CPU_IQ3, b, out); break;
    case WEFT_IQ3_S: codes(type, CPU_IQ3S, b, out); break;
    case WEFT_TQ1_0:
    case WEFT_TQ2_0: codes(type, CPU_T2, b, out); break;
    }
}

void cpu_dequantise(weft_tensor_type type, const void *data, size_t n, float *out)
{
    const uint8_t *b = data;
    size_t weights, bytes;
    if (!weft_tensor_block(type, &weights, &bytes)) return;
    for (size_t i = 0; i < n; i += weights, b += bytes) block(type, b, out + i);
}
