/* Packers of types with codes of 1 to 3 bits, and of those whose nibbles name values of a table. TQ1_0 and TQ2_0
 * become what Q2_0 is: two bits a weight, and a scale for every 64. */
#include "engine/cuda/pack.h"

#include "engine/cpu/codes.h"

enum { ROWS = WEFT_CUDA_ROWS, BLOCKS = WEFT_CUDA_SUPER / WEFT_CUDA_BLOCK };

void cuda_pack_q2_k(const uint8_t *in, size_t columns, size_t r, uint8_t *brick)
{
    memcpy(cuda_words_of(brick, 0, r), in, 16);
    memcpy(brick + 256 + 4 * r, in + 80, 4);
    for (size_t j = 0; j < BLOCKS; j++)
        cuda_pack_twos(in + 16 + 32 * (j / 4), (int)(2 * (j % 4)), j, r, brick + 320);
}

void cuda_pack_q3_k(const uint8_t *in, size_t columns, size_t r, uint8_t *brick)
{
    const uint8_t *const s = in + 96; /* of half i: a nibble of s[i % 8], two bits of s[8 + i % 4] */
    uint8_t *const scale = brick + 12 * r, *const ones = brick + 224;
    uint32_t high = 0;
    for (size_t i = 0; i < 16; i++) {
        scale[i / 2] = (uint8_t)(scale[i / 2] | (s[i % 8] >> 4 * (i / 8) & 15) << 4 * (i % 2));
        high |= (uint32_t)(s[8 + i % 4] >> 2 * (i / 4) & 3) << 2 * i;
    }
    store32(scale + 8, high);
    memcpy(brick + 192 + 2 * r, in + 108, 2);
    for (size_t j = 0; j < BLOCKS; j++) {
        store32(cuda_words_of(ones, j / 4, r) + j % 4 * 4, ones_plane(in, (int)j));
        cuda_pack_twos(in + 32 + 32 * (j / 4), (int)(2 * (j % 4)), j, r, ones + 512);
    }
}

/* The low nibbles of 4 bytes, next to each other. */
static uint32_t closed_up(uint32_t v)
{
    v &= 0x0f0f0f0f;
    v = (v | v >> 4) & 0x00ff00ff;
    return (v | v >> 8) & 0xffff;
}

/* A block's 16 bytes, which pair column i with i + 16, as n4. */
static void pack_names(const uint8_t *in, size_t j, size_t r, uint8_t *codes)
{
    uint8_t *const to = cuda_words_of(codes, j, r);
    for (size_t k = 0; k < 4; k++) {
        const uint32_t v = load32(in + 4 * k);
        store32(to + 4 * k, closed_up(v) | closed_up(v >> 4) << 16);
    }
}

void cuda_pack_iq4_nl(const uint8_t *in, size_t columns, size_t r, uint8_t *brick)
{
    for (size_t j = 0; j < columns / WEFT_CUDA_BLOCK; j++, in += 18) {
        memcpy(cuda_words_of(brick, 0, r) + 2 * j, in, 2);
        pack_names(in + 2, j, r, brick + 256);
    }
}

void cuda_pack_iq4_xs(const uint8_t *in, size_t columns, size_t r, uint8_t *brick)
{
    memcpy(brick + 8 * r, in, 8);
    for (size_t j = 0; j < BLOCKS; j++) pack_names(in + 8 + 16 * j, j, r, brick + 128);
}

void cuda_pack_mxfp4(const uint8_t *in, size_t columns, size_t r, uint8_t *brick)
{
    for (size_t j = 0; j < columns / WEFT_CUDA_BLOCK; j++, in += 17) {
        brick[8 * r + j] = in[0];
        pack_names(in + 1, j, r, brick + 128);
    }
}

/* The file pairs column i with i + 8 in each part of 16. */
void cuda_pack_nvfp4(const uint8_t *in, size_t columns, size_t r, uint8_t *brick)
{
    uint8_t *const scale = cuda_words_of(brick, 0, r);
    for (size_t j = 0; j < columns / WEFT_CUDA_BLOCK; j++) {
        const uint8_t *const block = in + j / 2 * 36, *const first = block + 4 + j % 2 * 16;
        for (size_t h = 0; h < 2; h++) {
            const uint8_t s = block[j % 2 * 2 + h];
            scale[2 * j + h] = s == 0x7f ? 0 : s & 0x7f; /* cpu_ue4m3 */
        }
        for (size_t k = 0; k < 4; k++) {
            const uint8_t *const qs = first + 4 * (k % 2);
            store32(cuda_words_of(brick + 256, j, r) + 4 * k,
                    closed_up(load32(qs) >> 4 * (k / 2)) | closed_up(load32(qs + 8) >> 4 * (k / 2)) << 16);
        }
    }
}

void cuda_pack_q2_0(const uint8_t *in, size_t columns, size_t r, uint8_t *brick)
{
    for (size_t j = 0; j < columns / WEFT_CUDA_BLOCK; j++) {
        const uint8_t *const block = in + j / 2 * 18, *const qs = block + 2 + j % 2 * 8;
        uint8_t code[WEFT_CUDA_BLOCK];
        for (size_t c = 0; c < WEFT_CUDA_BLOCK; c++) code[c] = qs[c / 4] >> 2 * (c % 4) & 3;
        memcpy(brick + 8 * r + 2 * (j / 2), block, 2);
        cuda_pack_twos(code, 0, j, r, brick + 128);
    }
}

static void pack_ternary(weft_tensor_type type, const uint8_t *in, size_t r, uint8_t *brick)
{
    cpu_codes c;
    cpu_codes_read(type, in, &c);
    for (size_t i = 0; i < 4; i++) memcpy(brick + 8 * r + 2 * i, &c.d, 2);
    for (size_t j = 0; j < BLOCKS; j++)
        cuda_pack_twos(c.code + j * WEFT_CUDA_BLOCK, 0, j, r, brick + 128);
}

void cuda_pack_tq1_0(const uint8_t *in, size_t columns, size_t r, uint8_t *brick)
{
    pack_ternary(WEFT_TQ1_0, in, r, brick);
}
void cuda_pack_tq2_0(const uint8_t *in, size_t columns, size_t r, uint8_t *brick)
{
    pack_ternary(WEFT_TQ2_0, in, r, brick);
}

void cuda_pack_q1_0(const uint8_t *in, size_t columns, size_t r, uint8_t *brick)
{
    for (size_t j = 0; j < columns / WEFT_CUDA_BLOCK; j++) {
        const uint8_t *const block = in + j / 4 * 18;
        memcpy(brick + 4 * r + 2 * (j / 4), block, 2);
        store32(cuda_words_of(brick + 64, j / 4, r) + j % 4 * 4, fifth_plane(load32(block + 2 + 4 * (j % 4))));
    }
}
