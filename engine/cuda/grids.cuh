/* Weights of the grid types (IQ1, IQ2, IQ3): the levels that an index names, and what levels and signs stand for
 * (cpu/codes.h).
 *
 * An entry has the level of each weight in a nibble, the first lowest, so that it selects bytes as it is.
 */
#ifndef WEFT_ENGINE_CUDA_GRIDS_CUH
#define WEFT_ENGINE_CUDA_GRIDS_CUH

#include "engine/cuda/device.cuh"

/* clang-format off */
#define PLACE(e, bits, i) (((uint32_t)(e) >> (bits) * (i) & ((1u << (bits)) - 1)) << 4 * (i))
#define EIGHT_LEVELS(e) (PLACE(e, 2, 0) | PLACE(e, 2, 1) | PLACE(e, 2, 2) | PLACE(e, 2, 3) | \
                         PLACE(e, 2, 4) | PLACE(e, 2, 5) | PLACE(e, 2, 6) | PLACE(e, 2, 7))
#define FOUR_LEVELS(e) ((uint16_t)(PLACE(e, 3, 0) | PLACE(e, 3, 1) | PLACE(e, 3, 2) | PLACE(e, 3, 3)))
#define GRID_8(name, entries) GATHERED uint32_t grid_##name[entries] = {
#define GRID_4(name, entries) GATHERED uint16_t grid_##name[entries] = {
#define ROW_8(a, b, c, d, e, f, g, h)                                        \
    EIGHT_LEVELS(a), EIGHT_LEVELS(b), EIGHT_LEVELS(c), EIGHT_LEVELS(d),      \
    EIGHT_LEVELS(e), EIGHT_LEVELS(f), EIGHT_LEVELS(g), EIGHT_LEVELS(h),
#define ROW_4(a, b, c, d, e, f, g, h)                                        \
    FOUR_LEVELS(a), FOUR_LEVELS(b), FOUR_LEVELS(c), FOUR_LEVELS(d),          \
    FOUR_LEVELS(e), FOUR_LEVELS(f), FOUR_LEVELS(g), FOUR_LEVELS(h),
#define END };
#include "engine/grids.inc"
/* clang-format on */

/* Bits of an index beyond the first 8. */
INLINE int high_bits(int f)
{
    return f == WEFT_CUDA_IQ1                               ? 3
           : f == WEFT_CUDA_IQ2S                            ? 2
           : f == WEFT_CUDA_IQ2XS || f == WEFT_CUDA_IQ3S ? 1
                                                            : 0;
}

/* The levels of 4 weights: of group i, for groups of 8 their first or second half. */
INLINE uint32_t levels_of(int f, uint32_t i, int half)
{
    switch (f) {
    case WEFT_CUDA_IQ3XXS: return grid_iq3_xxs[i];
    case WEFT_CUDA_IQ3S: return grid_iq3_s[i];
    case WEFT_CUDA_IQ2XXS: return grid_iq2_xxs[i] >> 16 * half;
    case WEFT_CUDA_IQ2XS: return grid_iq2_xs[i] >> 16 * half;
    case WEFT_CUDA_IQ2S: return grid_iq2_s[i] >> 16 * half;
    default: return grid_iq1[i] >> 16 * half;
    }
}

/* What levels stand for; IQ1: of 0 to 2, and 4 to 6 for those of a lower group. */
INLINE uint32_t magnitudes_of(int f, uint32_t levels)
{
    switch (f) {
    case WEFT_CUDA_IQ3XXS: return __byte_perm(0x1c140c04, 0x3e342c24, levels);
    case WEFT_CUDA_IQ3S: return __byte_perm(0x07050301, 0x0f0d0b09, levels);
    case WEFT_CUDA_IQ1: return __byte_perm(0x000901f9, 0x0007fff7, levels);
    default: return __byte_perm(0x002b1908, 0, levels);
    }
}

/* 4 weights by the first 8 bits of their group's index, and what is beyond them. IQ1's `lower` is the fourth bit of
 * that. signs has a bit in each byte; no magnitude is 0, so that nothing is carried into the next byte. */
INLINE uint32_t grid_weights(int f, uint32_t low, uint32_t high, int half, uint32_t signs)
{
    const uint32_t mask = (1u << high_bits(f)) - 1;
    const uint32_t levels = levels_of(f, low | (high & mask) << 8, half);
    if (f == WEFT_CUDA_IQ1) return magnitudes_of(f, levels | (high & 8 ? 0x4444 : 0));
    return (magnitudes_of(f, levels) ^ signs * 255) + signs;
}

#endif
