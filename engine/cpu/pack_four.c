/* Four rows at a time for the two types that most of a file's bytes are: the same places as the packers of one
 * row (weight.c), but 4 x 4 transposes in registers, so that a store is 16 bytes instead of 4. Loading a
 * model is half packing; of that they take about half. */
#include "engine/cpu/pack.h"

#include "engine/cpu/half.h"

enum { ROWS = 4, PLANE = 4 * CPU_ROWS };

typedef uint32_t words __attribute__((vector_size(16)));
typedef uint8_t octets __attribute__((vector_size(16)));

static words load_words(const uint8_t *p)
{
    words w;
    memcpy(&w, p, sizeof w);
    return w;
}

/* Word k of the four rows goes to plane k, side by side from row r on. */
static void store_words(const words row[ROWS], int r, uint8_t *plane)
{
    words low = __builtin_shufflevector(row[0], row[1], 0, 4, 1, 5), high = __builtin_shufflevector(row[2], row[3], 0, 4, 1, 5);
    words next_low = __builtin_shufflevector(row[0], row[1], 2, 6, 3, 7), next_high = __builtin_shufflevector(row[2], row[3], 2, 6, 3, 7);
    const words out[4] = {__builtin_shufflevector(low, high, 0, 1, 4, 5), __builtin_shufflevector(low, high, 2, 3, 6, 7),
                          __builtin_shufflevector(next_low, next_high, 0, 1, 4, 5), __builtin_shufflevector(next_low, next_high, 2, 3, 6, 7)};
    for (int k = 0; k < 4; k++) memcpy(plane + PLANE * k + 4 * r, &out[k], sizeof out[k]);
}

/* `words4` words of bytes from `at` in each row: byte k to a line of CPU_ROWS bytes of its own. */
static void store_bytes(const uint8_t *const in[ROWS], int at, int words4, int r, uint8_t *out)
{
    for (int w = 0; w < words4; w++, out += 4 * CPU_ROWS) {
        const words rows = {load32(in[0] + at + 4 * w), load32(in[1] + at + 4 * w), load32(in[2] + at + 4 * w), load32(in[3] + at + 4 * w)};
        octets bytes = (octets)rows;
        bytes = __builtin_shufflevector(bytes, bytes, 0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        for (int k = 0; k < 4; k++) memcpy(out + CPU_ROWS * k + r, (const uint8_t *)&bytes + 4 * k, 4);
    }
}

static void store_halves(const uint8_t *const in[ROWS], int at, int r, uint8_t *out)
{
    for (int i = 0; i < ROWS; i++) memcpy(out + 2 * (r + i), in[i] + at, 2);
}

/* 32 bytes from `at` whose nibbles at `shift` are a block's columns: column i is paired with i + 16. */
static void store_nibbles(const uint8_t *const in[ROWS], int at, int shift, int r, uint8_t *q)
{
    words row[ROWS];
    for (int i = 0; i < ROWS; i++)
        row[i] = (load_words(in[i] + at) >> shift & 0x0f0f0f0f) | (load_words(in[i] + at + 16) >> shift & 0x0f0f0f0f) << 4;
    store_words(row, r, q);
}

static void step(const uint8_t *in[ROWS], int bytes)
{
    for (int i = 0; i < ROWS; i++) in[i] += bytes;
}

static void start(const uint8_t *rows, size_t row_bytes, const uint8_t *in[ROWS])
{
    for (size_t i = 0; i < ROWS; i++) in[i] = rows + i * row_bytes;
}

void cpu_pack_four_q4_k(const uint8_t *rows, size_t row_bytes, size_t blocks, int r, uint8_t *tile)
{
    const uint8_t *in[ROWS];
    start(rows, row_bytes, in);
    for (size_t i = 0; i < blocks; i++, step(in, 144)) {
        store_halves(in, 0, r, tile);
        store_halves(in, 2, r, tile + 2 * CPU_ROWS);
        store_bytes(in, 4, 3, r, tile + PLANE);
        tile += 4 * PLANE;
        for (int j = 0; j < 8; j++, tile += 4 * PLANE) store_nibbles(in, 16 + j / 2 * 32, j % 2 * 4, r, tile);
    }
}

/* The two words of high bits, two a column, of block j: of each byte of the 8 words the bits at 2 (j % 4). */
static void store_high_bits(const uint8_t *const in[ROWS], int at, int shift, int r, uint8_t *plane)
{
    uint32_t word[2][ROWS] = {0};
    for (int i = 0; i < ROWS; i++)
        for (int g = 0; g < 8; g++) word[g / 4][i] |= (load32(in[i] + at + 4 * g) >> shift & 0x03030303) << g % 4 * 2;
    for (int v = 0; v < 2; v++) memcpy(plane + PLANE * v + 4 * r, word[v], sizeof word[v]);
}

void cpu_pack_four_q6_k(const uint8_t *rows, size_t row_bytes, size_t blocks, int r, uint8_t *tile)
{
    const uint8_t *in[ROWS];
    start(rows, row_bytes, in);
    for (size_t i = 0; i < blocks; i++, step(in, 210)) {
        store_halves(in, 208, r, tile);
        store_bytes(in, 192, 4, r, tile + 2 * CPU_ROWS);
        tile += 2 * CPU_ROWS + 4 * PLANE;
        for (int j = 0; j < 8; j++, tile += 6 * PLANE) {
            store_high_bits(in, 128 + 32 * (j / 4), j % 4 * 2, r, tile);
            store_nibbles(in, 64 * (j / 4) + 32 * (j % 2), j % 4 / 2 * 4, r, tile + 2 * PLANE);
        }
    }
}
