/* Packers of the grid types: indices stay indices, and the fields of a block go to where a lane has its own in one
 * word. Signs that the file has 7 of for 8 weights become 8, and scales that it has beside them stand alone: that
 * is what IQ2_XXS, IQ2_XS and IQ3_XXS gain. IQ1_S becomes what IQ1_M is. */
#include "engine/cuda/pack.h"

#include "engine/cpu/codes.h"

enum { ROWS = WEFT_CUDA_ROWS, BLOCKS = WEFT_CUDA_SUPER / WEFT_CUDA_BLOCK };

/* Block j's word of a plane [2][16][4]. */
static void put_word(uint8_t *plane, size_t j, size_t r, uint32_t word)
{
    store32(cuda_words_of(plane, j / 4, r) + j % 4 * 4, word);
}

/* 32 signs, from 4 times 7. */
static uint32_t signs_of(uint32_t packed)
{
    uint32_t signs = 0;
    for (uint32_t g = 0; g < 4; g++) signs |= (uint32_t)cpu_even_signs(packed >> 7 * g) << 8 * g;
    return signs;
}

/* The file's upper bits of the indices and scale lie where they shall in IQ1_M alone. */
static void pack_iq1(const uint8_t *low, const uint8_t *high, const uint8_t *scales, size_t r, uint8_t *brick)
{
    memcpy(brick + 8 * r, scales, 8);
    memcpy(cuda_words_of(brick + 8 * ROWS, 0, r), high, 16);
    for (size_t j = 0; j < BLOCKS; j++) put_word(brick + 384, j, r, load32(low + 4 * j));
}

void cuda_pack_iq1_m(const uint8_t *in, size_t columns, size_t r, uint8_t *brick)
{
    pack_iq1(in, in + 32, in + 48, r, brick);
}

void cuda_pack_iq1_s(const uint8_t *in, size_t columns, size_t r, uint8_t *brick)
{
    const uint16_t d = load16(in);
    uint16_t high[BLOCKS], scale[4];
    for (size_t i = 0; i < 4; i++) scale[i] = (uint16_t)((d >> 4 * i & 15) << 12);
    for (size_t j = 0; j < BLOCKS; j++) {
        const uint16_t packed = load16(in + 34 + 2 * j); /* 4 x 3 bits of index, scale, lower */
        const uint32_t lower = packed >> 15, s = packed >> 12 & 7;
        uint32_t h = 0;
        for (size_t g = 0; g < 4; g++) h |= ((packed >> 3 * g & 7) | lower << 3) << 4 * g;
        high[j] = (uint16_t)h;
        scale[j / 2] = (uint16_t)(scale[j / 2] | (s | s << 3) << j % 2 * 6);
    }
    pack_iq1(in + 2, (const uint8_t *)high, (const uint8_t *)scale, r, brick);
}

/* Blocks of `index` u32 of indices, then one of signs and a scale. */
static void pack_xxs(const uint8_t *index, const uint8_t *packed, size_t stride, size_t r, uint8_t *brick)
{
    uint32_t scale = 0;
    for (size_t j = 0; j < BLOCKS; j++) {
        const uint32_t v = load32(packed + j * stride);
        scale |= v >> 28 << 4 * j;
        put_word(brick + 96, j, r, fifth_plane(signs_of(v)));
        if (stride == 8) put_word(brick + 608, j, r, load32(index + 8 * j));
        if (stride == 4) memcpy(cuda_words_of(brick + 608, j / 2, r) + j % 2 * 8, index + 8 * j, 8);
    }
    store32(brick + 4 * r, scale);
}

void cuda_pack_iq2_xxs(const uint8_t *in, size_t columns, size_t r, uint8_t *brick)
{
    memcpy(brick + 64 + 2 * r, in, 2);
    pack_xxs(in + 2, in + 6, 8, r, brick);
}
void cuda_pack_iq3_xxs(const uint8_t *in, size_t columns, size_t r, uint8_t *brick)
{
    memcpy(brick + 64 + 2 * r, in, 2);
    pack_xxs(in + 2, in + 66, 4, r, brick);
}

void cuda_pack_iq2_xs(const uint8_t *in, size_t columns, size_t r, uint8_t *brick)
{
    uint32_t high = 0;
    memcpy(brick + 8 * r, in + 66, 8);
    memcpy(brick + 192 + 2 * r, in, 2);
    for (size_t j = 0; j < BLOCKS; j++) {
        uint32_t low = 0, signs = 0;
        for (size_t g = 0; g < 4; g++) {
            const uint32_t packed = load16(in + 2 + 8 * j + 2 * g); /* 9 bits of index, 7 signs */
            low |= (packed & 255) << 8 * g;
            high |= (packed >> 8 & 1) << (4 * j + g);
            signs |= (uint32_t)cpu_even_signs(packed >> 9) << 8 * g;
        }
        put_word(brick + 224, j, r, fifth_plane(signs));
        put_word(brick + 736, j, r, low);
    }
    store32(brick + 128 + 4 * r, high);
}

void cuda_pack_iq2_s(const uint8_t *in, size_t columns, size_t r, uint8_t *brick)
{
    memcpy(brick + 8 * r, in + 74, 8);
    memcpy(brick + 128 + 8 * r, in + 66, 8);
    memcpy(brick + 256 + 2 * r, in, 2);
    for (size_t j = 0; j < BLOCKS; j++) {
        put_word(brick + 288, j, r, fifth_plane(load32(in + 34 + 4 * j)));
        put_word(brick + 800, j, r, load32(in + 2 + 4 * j));
    }
}

void cuda_pack_iq3_s(const uint8_t *in, size_t columns, size_t r, uint8_t *brick)
{
    memcpy(brick + 4 * r, in + 106, 4);
    memcpy(brick + 64 + 8 * r, in + 66, 8);
    memcpy(brick + 192 + 2 * r, in, 2);
    for (size_t j = 0; j < BLOCKS; j++) {
        put_word(brick + 224, j, r, fifth_plane(load32(in + 74 + 4 * j)));
        memcpy(cuda_words_of(brick + 736, j / 2, r) + j % 2 * 8, in + 2 + 8 * j, 8);
    }
}
