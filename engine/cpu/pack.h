/* Packers: one row of one block type into its place in a tile (kernels.h). Private to engine/cpu, but for
 * the bit shuffles that engine/cuda/pack.c takes too. */
#ifndef WEFT_ENGINE_CPU_PACK_H
#define WEFT_ENGINE_CPU_PACK_H

#include "engine/cpu/half.h"
#include "engine/cpu/kernels.h"

/* `blocks` blocks of a row into lane r (0..15) of a tile. */
typedef void (*cpu_pack_fn)(const uint8_t *row, size_t blocks, int r, uint8_t *tile);

/* Four rows, row_bytes apart, into lanes r..r + 3 of a tile. */
typedef void (*cpu_pack_four_fn)(const uint8_t *rows, size_t row_bytes, size_t blocks, int r, uint8_t *tile);

void cpu_pack_four_q4_k(const uint8_t *rows, size_t row_bytes, size_t blocks, int r, uint8_t *tile);
void cpu_pack_four_q6_k(const uint8_t *rows, size_t row_bytes, size_t blocks, int r, uint8_t *tile);
void cpu_pack_q2_k(const uint8_t *in, size_t blocks, int r, uint8_t *tile);
void cpu_pack_q3_k(const uint8_t *in, size_t blocks, int r, uint8_t *tile);
void cpu_pack_iq4_nl(const uint8_t *in, size_t blocks, int r, uint8_t *tile);
void cpu_pack_iq4_xs(const uint8_t *in, size_t blocks, int r, uint8_t *tile);
void cpu_pack_mxfp4(const uint8_t *in, size_t blocks, int r, uint8_t *tile);
void cpu_pack_nvfp4(const uint8_t *in, size_t blocks, int r, uint8_t *tile);
void cpu_pack_q1_0(const uint8_t *in, size_t blocks, int r, uint8_t *tile);
void cpu_pack_q2_0(const uint8_t *in, size_t blocks, int r, uint8_t *tile);
void cpu_pack_iq1_s(const uint8_t *in, size_t blocks, int r, uint8_t *tile);
void cpu_pack_iq1_m(const uint8_t *in, size_t blocks, int r, uint8_t *tile);
void cpu_pack_iq2_xxs(const uint8_t *in, size_t blocks, int r, uint8_t *tile);
void cpu_pack_iq2_xs(const uint8_t *in, size_t blocks, int r, uint8_t *tile);
void cpu_pack_iq2_s(const uint8_t *in, size_t blocks, int r, uint8_t *tile);
void cpu_pack_iq3_xxs(const uint8_t *in, size_t blocks, int r, uint8_t *tile);
void cpu_pack_iq3_s(const uint8_t *in, size_t blocks, int r, uint8_t *tile);
void cpu_pack_tq1_0(const uint8_t *in, size_t blocks, int r, uint8_t *tile);
void cpu_pack_tq2_0(const uint8_t *in, size_t blocks, int r, uint8_t *tile);

/* Bytes a row's block takes in a tile of the grid and ternary types: kernels.h, a 16th of a super-block. */
enum {
    CPU_BYTES_IQ12 = 2 + 8 * (1 + 12),
    CPU_BYTES_IQ3 = 2 + 8 * (1 + 16),
    CPU_BYTES_T2 = 2 + 8 * 8
};

static inline void store32(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, sizeof v);
}

/* Every 4th bit of v from bit b on, closed up. */
static inline uint32_t every_fourth(uint32_t v, int b)
{
    v = v >> b & 0x11111111;
    v = (v | v >> 3) & 0x03030303;
    v = (v | v >> 6) & 0x000f000f;
    return (v | v >> 12) & 0xff;
}

/* Bit 4 g + b becomes bit g of byte b. */
static inline uint32_t fifth_plane(uint32_t v)
{
    return every_fourth(v, 0) | every_fourth(v, 1) << 8 | every_fourth(v, 2) << 16 |
           every_fourth(v, 3) << 24;
}

/* 8 words of which bit `bit` of each byte counts: bit g of byte b is that of byte b of word g. */
static inline uint32_t ones_plane(const uint8_t *in, int bit)
{
    uint32_t plane = 0;
    for (int g = 0; g < 8; g++) plane |= (load32(in + 4 * g) >> bit & 0x01010101) << g;
    return plane;
}

/* 4 words of which the two bits at `shift` of each byte count: bits 2 i of byte b are those of word i. */
static inline uint32_t twos_plane(const uint8_t *in, int shift)
{
    uint32_t plane = 0;
    for (int i = 0; i < 4; i++) plane |= (load32(in + 4 * i) >> shift & 0x03030303) << 2 * i;
    return plane;
}

#endif
