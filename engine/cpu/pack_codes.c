/* Packers of the 1, 2 and 3-bit types and of those whose codes stand for values of a table. */
#include "engine/cpu/pack.h"

#include "engine/cpu/codes.h"
#include "engine/cpu/half.h"

enum { PLANE = 4 * CPU_ROWS }; /* bytes from a row's word to its next one */

/* 8 words of 2-bit codes, one a byte, `shift` bits up: a block's two words. */
static void pack_two_bits(const uint8_t *in, int shift, int r, uint8_t *q)
{
    for (int v = 0; v < 2; v++) store32(q + PLANE * v + 4 * r, twos_plane(in + 16 * v, shift));
}

/* Where row r's byte k of a header stands if bytes 2 i and 2 i + 1 lie side by side. */
static int pair_at(int k, int r)
{
    return 2 * (CPU_ROWS * (k / 2) + r) + k % 2;
}

/* 16 bytes that pair column i with i + 16. */
static void copy_nibbles(const uint8_t *in, int r, uint8_t *q)
{
    for (int k = 0; k < 4; k++) memcpy(q + PLANE * k + 4 * r, in + 4 * k, 4);
}

void cpu_pack_q2_k(const uint8_t *in, size_t blocks, int r, uint8_t *tile)
{
    for (size_t i = 0; i < blocks; i++, in += 84) {
        memcpy(tile + 2 * r, in + 80, 2);
        memcpy(tile + 32 + 2 * r, in + 82, 2);
        for (int k = 0; k < 16; k++) tile[64 + pair_at(k, r)] = in[k];
        tile += 320;
        for (int j = 0; j < 8; j++, tile += 2 * PLANE)
            pack_two_bits(in + 16 + 32 * (j / 4), 2 * (j % 4), r, tile);
    }
}

void cpu_pack_q3_k(const uint8_t *in, size_t blocks, int r, uint8_t *tile)
{
    for (size_t i = 0; i < blocks; i++, in += 110) {
        memcpy(tile + 2 * r, in + 108, 2);
        for (int k = 0; k < 12; k++) tile[32 + pair_at(k, r)] = in[96 + k];
        tile += 224;
        for (int j = 0; j < 8; j++, tile += 3 * PLANE) {
            store32(tile + 4 * r, ones_plane(in, j));
            pack_two_bits(in + 32 + 32 * (j / 4), 2 * (j % 4), r, tile + PLANE);
        }
    }
}

void cpu_pack_iq4_nl(const uint8_t *in, size_t blocks, int r, uint8_t *tile)
{
    for (size_t i = 0; i < blocks; i++, in += 18, tile += 288) {
        memcpy(tile + 2 * r, in, 2);
        copy_nibbles(in + 2, r, tile + 32);
    }
}

void cpu_pack_iq4_xs(const uint8_t *in, size_t blocks, int r, uint8_t *tile)
{
    for (size_t i = 0; i < blocks; i++, in += 136) {
        memcpy(tile + 2 * r, in, 2);
        for (int k = 0; k < 6; k++) tile[32 + CPU_ROWS * k + r] = in[2 + k];
        tile += 128;
        for (int j = 0; j < 8; j++, tile += 4 * PLANE) copy_nibbles(in + 8 + 16 * j, r, tile);
    }
}

void cpu_pack_mxfp4(const uint8_t *in, size_t blocks, int r, uint8_t *tile)
{
    for (size_t i = 0; i < blocks; i++, in += 17, tile += 272) {
        tile[r] = in[0];
        copy_nibbles(in + 1, r, tile + 16);
    }
}

/* The file pairs column i with i + 8 in each part of 16; here it is i + 16. */
void cpu_pack_nvfp4(const uint8_t *in, size_t blocks, int r, uint8_t *tile)
{
    for (size_t i = 0; i < blocks; i++, in += 36) {
        for (int k = 0; k < 4; k++) tile[CPU_ROWS * k + r] = in[k] == 0x7f ? 0 : in[k] & 0x7f;
        tile += 64;
        for (int j = 0; j < 2; j++, tile += 4 * PLANE)
            for (int k = 0; k < 4; k++) {
                const uint8_t *qs = in + 4 + 16 * j + 4 * (k % 2);
                uint32_t first = load32(qs) >> 4 * (k / 2) & 0x0f0f0f0f;
                uint32_t second = load32(qs + 8) >> 4 * (k / 2) & 0x0f0f0f0f;
                store32(tile + PLANE * k + 4 * r, first | second << 4);
            }
    }
}

void cpu_pack_q1_0(const uint8_t *in, size_t blocks, int r, uint8_t *tile)
{
    for (size_t i = 0; i < blocks; i++, in += 18) {
        memcpy(tile + 2 * r, in, 2);
        tile += 32;
        for (int j = 0; j < 4; j++, tile += PLANE)
            store32(tile + 4 * r, fifth_plane(load32(in + 2 + 4 * j)));
    }
}

/* A byte of the file is a group: its bits are spread over a word. */
void cpu_pack_q2_0(const uint8_t *in, size_t blocks, int r, uint8_t *tile)
{
    for (size_t i = 0; i < blocks; i++, in += 18) {
        memcpy(tile + 2 * r, in, 2);
        tile += 32;
        for (int j = 0; j < 2; j++, tile += 2 * PLANE) {
            uint8_t code[CPU_BLOCK];
            for (int c = 0; c < CPU_BLOCK; c++) code[c] = in[2 + 8 * j + c / 4] >> 2 * (c % 4) & 3;
            pack_two_bits(code, 0, r, tile);
        }
    }
}

/* ---- types that codes.c reads ---- */

static void pack_iq12(weft_tensor_type type, size_t bytes, const uint8_t *in, size_t blocks, int r,
                      uint8_t *tile)
{
    cpu_codes c;
    for (size_t i = 0; i < blocks; i++, in += bytes) {
        cpu_codes_read(type, in, &c);
        memcpy(tile + 2 * r, &c.d, 2);
        for (int k = 0; k < 8; k++)
            tile[32 + pair_at(k, r)] = (uint8_t)(c.scale[k] / 2 | c.scale[k + 8] / 2 << 4);
        tile += 160;
        for (int j = 0; j < 8; j++, tile += 3 * PLANE) {
            store32(tile + 4 * r, ones_plane(c.code + CPU_BLOCK * j, 2));
            pack_two_bits(c.code + CPU_BLOCK * j, 0, r, tile + PLANE);
        }
    }
}

static void pack_iq3(weft_tensor_type type, size_t bytes, const uint8_t *in, size_t blocks, int r,
                     uint8_t *tile)
{
    cpu_codes c;
    for (size_t i = 0; i < blocks; i++, in += bytes) {
        cpu_codes_read(type, in, &c);
        memcpy(tile + 2 * r, &c.d, 2);
        for (int j = 0; j < 8; j++) tile[32 + CPU_ROWS * j + r] = c.scale[2 * j];
        tile += 160;
        for (int j = 0; j < 8; j++)
            for (int k = 0; k < 4; k++, tile += PLANE) {
                const uint8_t *code = c.code + CPU_BLOCK * j + 4 * k;
                store32(tile + 4 * r, load32(code) | load32(code + 16) << 4);
            }
    }
}

static void pack_ternary(weft_tensor_type type, size_t bytes, const uint8_t *in, size_t blocks,
                         int r, uint8_t *tile)
{
    cpu_codes c;
    for (size_t i = 0; i < blocks; i++, in += bytes) {
        cpu_codes_read(type, in, &c);
        memcpy(tile + 2 * r, &c.d, 2);
        tile += 32;
        for (int j = 0; j < 8; j++, tile += 2 * PLANE)
            pack_two_bits(c.code + CPU_BLOCK * j, 0, r, tile);
    }
}

#define PACKER(name, type, bytes, pack)                                                            \
    void cpu_pack_##name(const uint8_t *in, size_t blocks, int r, uint8_t *tile)                   \
    {                                                                                              \
        pack(type, bytes, in, blocks, r, tile);                                                    \
    }
PACKER(iq1_s, WEFT_IQ1_S, 50, pack_iq12)
PACKER(iq1_m, WEFT_IQ1_M, 56, pack_iq12)
PACKER(iq2_xxs, WEFT_IQ2_XXS, 66, pack_iq12)
PACKER(iq2_xs, WEFT_IQ2_XS, 74, pack_iq12)
PACKER(iq2_s, WEFT_IQ2_S, 82, pack_iq12)
PACKER(iq3_xxs, WEFT_IQ3_XXS, 98, pack_iq3)
PACKER(iq3_s, WEFT_IQ3_S, 110, pack_iq3)
PACKER(tq1_0, WEFT_TQ1_0, 54, pack_ternary)
PACKER(tq2_0, WEFT_TQ2_0, 66, pack_ternary)
