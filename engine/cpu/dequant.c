/* Dequantisers, one per block format, written for reading and not for speed: they are what the
 * repacked kernels are tested against, and they look up embedding rows in the file's own bytes.
 *
 * Each value is one product, or a product and a sum, in float32; scale times sub-scale is exact
 * (11 + 8 bits). Layouts: docs/gguf.md.
 */
#include "engine/cpu/dequant.h"

#include "engine/cpu/half.h"

enum { SUPER = 256 };

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

static void q4_k(const uint8_t *b, float *out)
{
    q45_k(b, NULL, b + 16, out);
}

static void q5_k(const uint8_t *b, float *out)
{
    q45_k(b, b + 16, b + 48, out);
}

size_t cpu_row_bytes(weft_tensor_type type, size_t n)
{
    size_t weights, bytes;
    if (!weft_tensor_block(type, &weights, &bytes) || n % weights) return 0;
    return n / weights * bytes;
}

void cpu_dequantise(weft_tensor_type type, const void *data, size_t n, float *out)
{
    static const struct {
        weft_tensor_type type;
        uint32_t weights, bytes;
        void (*block)(const uint8_t *, float *);
    } table[] = {
        {WEFT_F32, 1, 4, f32},         {WEFT_F16, 1, 2, f16},         {WEFT_BF16, 1, 2, bf16},
        {WEFT_Q8_0, 32, 34, q8_0},     {WEFT_Q4_0, 32, 18, q4_0},     {WEFT_Q4_1, 32, 20, q4_1},
        {WEFT_Q5_0, 32, 22, q5_0},     {WEFT_Q5_1, 32, 24, q5_1},     {WEFT_Q4_K, SUPER, 144, q4_k},
        {WEFT_Q5_K, SUPER, 176, q5_k}, {WEFT_Q6_K, SUPER, 210, q6_k},
    };
    for (size_t k = 0; k < sizeof table / sizeof *table; k++) {
        if (table[k].type != type) continue;
        const uint8_t *b = data;
        for (size_t i = 0; i < n; i += table[k].weights, b += table[k].bytes)
            table[k].block(b, out + i);
    }
}
