/* Packers: 256 columns of a row of one block type into their place in a brick (kernels.h). Host code, private to
 * pack*.c. */
#ifndef WEFT_ENGINE_CUDA_PACK_H
#define WEFT_ENGINE_CUDA_PACK_H

#include "engine/cuda/kernels.h"

#include "engine/cpu/pack.h"

/* Up to 256 columns of a row, `in`, into row r of a brick. */
typedef void (*cuda_pack_fn)(const uint8_t *in, size_t columns, size_t r, uint8_t *brick);

void cuda_pack_q2_k(const uint8_t *in, size_t columns, size_t r, uint8_t *brick);
void cuda_pack_q3_k(const uint8_t *in, size_t columns, size_t r, uint8_t *brick);
void cuda_pack_iq4_nl(const uint8_t *in, size_t columns, size_t r, uint8_t *brick);
void cuda_pack_iq4_xs(const uint8_t *in, size_t columns, size_t r, uint8_t *brick);
void cuda_pack_mxfp4(const uint8_t *in, size_t columns, size_t r, uint8_t *brick);
void cuda_pack_nvfp4(const uint8_t *in, size_t columns, size_t r, uint8_t *brick);
void cuda_pack_iq1_s(const uint8_t *in, size_t columns, size_t r, uint8_t *brick);
void cuda_pack_iq1_m(const uint8_t *in, size_t columns, size_t r, uint8_t *brick);
void cuda_pack_iq2_xxs(const uint8_t *in, size_t columns, size_t r, uint8_t *brick);
void cuda_pack_iq2_xs(const uint8_t *in, size_t columns, size_t r, uint8_t *brick);
void cuda_pack_iq2_s(const uint8_t *in, size_t columns, size_t r, uint8_t *brick);
void cuda_pack_iq3_xxs(const uint8_t *in, size_t columns, size_t r, uint8_t *brick);
void cuda_pack_iq3_s(const uint8_t *in, size_t columns, size_t r, uint8_t *brick);
void cuda_pack_tq1_0(const uint8_t *in, size_t columns, size_t r, uint8_t *brick);
void cuda_pack_tq2_0(const uint8_t *in, size_t columns, size_t r, uint8_t *brick);
void cuda_pack_q2_0(const uint8_t *in, size_t columns, size_t r, uint8_t *brick);
void cuda_pack_q1_0(const uint8_t *in, size_t columns, size_t r, uint8_t *brick);

/* Places of row r: words of 4 bytes, [.][16][4]. */
static inline uint8_t *cuda_words_of(uint8_t *plane, size_t index, size_t r)
{
    return plane + (index * WEFT_CUDA_ROWS + r) * 16;
}

/* The twos of block j, from 32 bytes that have them at `shift`. */
static inline void cuda_pack_twos(const uint8_t *in, int shift, size_t j, size_t r, uint8_t *twos)
{
    uint8_t *const to = cuda_words_of(twos, j / 2, r) + j % 2 * 8;
    store32(to, twos_plane(in, shift));
    store32(to + 4, twos_plane(in + 16, shift));
}

#endif
