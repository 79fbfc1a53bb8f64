/* GGUF rows -> bricks of the device (kernels.h draws them). Every bit of the file is kept, only its place changes
 * (some types gain bits: pack_codes.c, pack_grids.c). Host code: it runs at load, for runs of tiles, into a
 * buffer that is then copied to the device. */
#include "engine/cuda/pack.h"

#include "engine/cpu/half.h"

#include <assert.h>

enum { ROWS = WEFT_CUDA_ROWS, SUPER = WEFT_CUDA_SUPER, BLOCKS = SUPER / WEFT_CUDA_BLOCK, NIBBLES = 0x0f0f0f0f };

/* Q4_0, Q4_1, Q5_0, Q5_1: nibbles pair column i with i + 16 already. */
static void pack_small(const uint8_t *in, size_t columns, size_t r, uint8_t *brick, bool minimum,
                       bool five)
{
    uint8_t *const high = brick + (minimum ? 512 : 256), *const q = high + (five ? 512 : 0);
    for (size_t j = 0; j < columns / WEFT_CUDA_BLOCK; j++) {
        memcpy(cuda_words_of(brick, 0, r) + 2 * j, in, 2);
        if (minimum) memcpy(cuda_words_of(brick, 1, r) + 2 * j, in + 2, 2);
        in += minimum ? 4 : 2;
        if (five) {
            store32(cuda_words_of(high, j / 4, r) + j % 4 * 4, fifth_plane(load32(in)));
            in += 4;
        }
        memcpy(cuda_words_of(q, j, r), in, 16);
        in += 16;
    }
}

static void pack_q4_0(const uint8_t *in, size_t columns, size_t r, uint8_t *brick)
{
    pack_small(in, columns, r, brick, false, false);
}
static void pack_q4_1(const uint8_t *in, size_t columns, size_t r, uint8_t *brick)
{
    pack_small(in, columns, r, brick, true, false);
}
static void pack_q5_0(const uint8_t *in, size_t columns, size_t r, uint8_t *brick)
{
    pack_small(in, columns, r, brick, false, true);
}
static void pack_q5_1(const uint8_t *in, size_t columns, size_t r, uint8_t *brick)
{
    pack_small(in, columns, r, brick, true, true);
}

static void pack_q8_0(const uint8_t *in, size_t columns, size_t r, uint8_t *brick)
{
    for (size_t j = 0; j < columns / WEFT_CUDA_BLOCK; j++, in += 34) {
        memcpy(cuda_words_of(brick, 0, r) + 2 * j, in, 2);
        memcpy(cuda_words_of(brick + 256, 2 * j, r), in + 2, 16);
        memcpy(cuda_words_of(brick + 256, 2 * j + 1, r), in + 18, 16);
    }
}

/* A block's 4 words from 32 bytes whose nibbles at `shift` are its columns in order. */
static void pack_nibbles(const uint8_t *in, size_t shift, uint8_t *q)
{
    for (size_t k = 0; k < 4; k++) {
        const uint32_t low = load32(in + 4 * k) >> shift & NIBBLES;
        const uint32_t high = load32(in + 4 * k + 16) >> shift & NIBBLES;
        store32(q + 4 * k, low | high << 4);
    }
}

static void pack_q45_k(const uint8_t *in, size_t r, uint8_t *brick, bool five)
{
    const uint8_t *const bits = in + 16, *const nibbles = bits + (five ? 32 : 0);
    uint8_t *const high = brick + 256, *const q = high + (five ? 512 : 0);
    memcpy(cuda_words_of(brick, 0, r), in, 16);
    for (size_t j = 0; j < BLOCKS; j++) {
        if (five) store32(cuda_words_of(high, j / 4, r) + j % 4 * 4, ones_plane(bits, (int)j));
        pack_nibbles(nibbles + j / 2 * 32, j % 2 * 4, cuda_words_of(q, j, r));
    }
}

static void pack_q4_k(const uint8_t *in, size_t columns, size_t r, uint8_t *brick)
{
    pack_q45_k(in, r, brick, false);
}
static void pack_q5_k(const uint8_t *in, size_t columns, size_t r, uint8_t *brick)
{
    pack_q45_k(in, r, brick, true);
}

static void pack_q6_k(const uint8_t *in, size_t columns, size_t r, uint8_t *brick)
{
    uint8_t *const high = brick + 288, *const q = high + 1024;
    memcpy(cuda_words_of(brick, 0, r), in + 192, 16);
    memcpy(brick + 256 + 2 * r, in + 208, 2);
    for (size_t j = 0; j < BLOCKS; j++) {
        const uint8_t *const bits = in + 128 + 32 * (j / 4);
        cuda_pack_twos(bits, (int)(j % 4 * 2), j, r, high);
        pack_nibbles(in + 64 * (j / 4) + 32 * (j % 2), j % 4 / 2 * 4, cuda_words_of(q, j, r));
    }
}

static void pack_16_bit(const uint8_t *in, size_t columns, size_t r, uint8_t *brick)
{
    for (size_t c = 0; c < columns; c++) memcpy(cuda_words_of(brick, c / 8, r) + c % 8 * 2, in + 2 * c, 2);
}
static void pack_f32(const uint8_t *in, size_t columns, size_t r, uint8_t *brick)
{
    for (size_t c = 0; c < columns; c++) memcpy(cuda_words_of(brick, c / 4, r) + c % 4 * 4, in + 4 * c, 4);
}

static const struct {
    weft_tensor_type type;
    weft_cuda_format format;
    size_t brick_bytes;
    cuda_pack_fn pack;
} packers[] = {
    {WEFT_Q8_0, WEFT_CUDA_Q8, ROWS * 8 * 34, pack_q8_0},
    {WEFT_Q4_0, WEFT_CUDA_Q4, ROWS * 8 * 18, pack_q4_0},
    {WEFT_Q4_1, WEFT_CUDA_Q4M, ROWS * 8 * 20, pack_q4_1},
    {WEFT_Q5_0, WEFT_CUDA_Q5, ROWS * 8 * 22, pack_q5_0},
    {WEFT_Q5_1, WEFT_CUDA_Q5M, ROWS * 8 * 24, pack_q5_1},
    {WEFT_Q4_K, WEFT_CUDA_Q4K, ROWS * 144, pack_q4_k},
    {WEFT_Q5_K, WEFT_CUDA_Q5K, ROWS * 176, pack_q5_k},
    {WEFT_Q6_K, WEFT_CUDA_Q6K, ROWS * 210, pack_q6_k},
    {WEFT_Q2_K, WEFT_CUDA_Q2K, ROWS * 84, cuda_pack_q2_k},
    {WEFT_Q3_K, WEFT_CUDA_Q3K, ROWS * 110, cuda_pack_q3_k},
    {WEFT_IQ4_NL, WEFT_CUDA_N4, ROWS * 8 * 18, cuda_pack_iq4_nl},
    {WEFT_IQ4_XS, WEFT_CUDA_N4K, ROWS * 136, cuda_pack_iq4_xs},
    {WEFT_MXFP4, WEFT_CUDA_MX4, ROWS * 8 * 17, cuda_pack_mxfp4},
    {WEFT_NVFP4, WEFT_CUDA_NV4, ROWS * 4 * 36, cuda_pack_nvfp4},
    {WEFT_IQ1_S, WEFT_CUDA_IQ1, ROWS * 56, cuda_pack_iq1_s},
    {WEFT_IQ1_M, WEFT_CUDA_IQ1, ROWS * 56, cuda_pack_iq1_m},
    {WEFT_IQ2_XXS, WEFT_CUDA_IQ2XXS, ROWS * 70, cuda_pack_iq2_xxs},
    {WEFT_IQ2_XS, WEFT_CUDA_IQ2XS, ROWS * 78, cuda_pack_iq2_xs},
    {WEFT_IQ2_S, WEFT_CUDA_IQ2S, ROWS * 82, cuda_pack_iq2_s},
    {WEFT_IQ3_XXS, WEFT_CUDA_IQ3XXS, ROWS * 102, cuda_pack_iq3_xxs},
    {WEFT_IQ3_S, WEFT_CUDA_IQ3S, ROWS * 110, cuda_pack_iq3_s},
    {WEFT_TQ1_0, WEFT_CUDA_Q2, ROWS * 4 * 18, cuda_pack_tq1_0},
    {WEFT_TQ2_0, WEFT_CUDA_Q2, ROWS * 4 * 18, cuda_pack_tq2_0},
    {WEFT_Q2_0, WEFT_CUDA_Q2, ROWS * 4 * 18, cuda_pack_q2_0},
    {WEFT_Q1_0, WEFT_CUDA_Q1, ROWS * 2 * 18, cuda_pack_q1_0},
    {WEFT_F16, WEFT_CUDA_F16, ROWS * SUPER * 2, pack_16_bit},
    {WEFT_BF16, WEFT_CUDA_BF16, ROWS * SUPER * 2, pack_16_bit},
    {WEFT_F32, WEFT_CUDA_F32, ROWS * SUPER * 4, pack_f32},
};
enum { PACKERS = sizeof packers / sizeof *packers };

bool weft_cuda_format_of(weft_tensor_type type, weft_cuda_format *out)
{
    for (size_t i = 0; i < PACKERS; i++)
        if (packers[i].type == type) {
            *out = packers[i].format;
            return true;
        }
    return false;
}

size_t weft_cuda_brick_bytes(weft_cuda_format format)
{
    size_t i = 0;
    while (packers[i].format != format) i++;
    return packers[i].brick_bytes;
}

size_t weft_cuda_weight_bytes(weft_cuda_format format, size_t columns, size_t rows)
{
    const size_t tiles = (rows + ROWS - 1) / ROWS, bricks = (columns + SUPER - 1) / SUPER;
    return tiles * bricks * weft_cuda_brick_bytes(format);
}

void weft_cuda_weight_pack(weft_tensor_type type, size_t columns, size_t from, size_t n, const void *file,
                           void *out)
{
    size_t block = 1, bytes = 0, k = 0;
    while (packers[k].type != type) k++;
    (void)weft_tensor_block(type, &block, &bytes); /* known: it is in the table */
    assert(from % ROWS == 0 && columns % block == 0);
    const size_t bricks = (columns + SUPER - 1) / SUPER, tile_bytes = bricks * packers[k].brick_bytes;
    uint8_t *const first = (uint8_t *)out + from / ROWS * tile_bytes;
    const uint8_t *in = file;
    memset(first, 0, (n + ROWS - 1) / ROWS * tile_bytes);
    for (size_t row = 0; row < n; row++)
        for (size_t brick = 0; brick < bricks; brick++) {
            const size_t left = columns - brick * SUPER, count = left < SUPER ? left : SUPER;
            packers[k].pack(in, count, row % ROWS,
                            first + row / ROWS * tile_bytes + brick * packers[k].brick_bytes);
            in += count / block * bytes;
        }
}
