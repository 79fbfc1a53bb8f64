/* Repacking: GGUF rows -> tiles of 16 rows, the layouts of kernels.h.
 *
 * Every bit of the file is kept, only its place changes, so the repacked weights have the file's size
 * and value (the grid types have the value alone: pack_codes.c). Tiles are independent and packed in
 * parallel. 4-byte words are moved whole wherever the file's order allows; a packed word holds columns
 * of one group, and Q4_K's nibbles, which pair column i with column i + 32, are paired anew with i + 16.
 *
 * A weight may stay in its file instead. Its rows are then read and packed by the same functions, a tile at a
 * time, into a room of the thread that multiplies with it: the same bits for the memory of two tiles.
 */
#include "engine/cpu/cache.h"
#include "engine/cpu/half.h"

#include <stdlib.h>
#include <sys/mman.h>

enum { NIBBLES = 0x0f0f0f0f, ROOM_ALIGN = 4096 };

/* Q4_0, Q4_1, Q5_0, Q5_1: nibbles pair column i with i + 16 already. */
static void pack_small(const uint8_t *in, size_t blocks, int r, uint8_t *tile, bool minimum,
                       bool five)
{
    for (size_t i = 0; i < blocks; i++) {
        memcpy(tile + 2 * r, in, 2);
        if (minimum) memcpy(tile + 32 + 2 * r, in + 2, 2);
        tile += minimum ? 64 : 32;
        in += minimum ? 4 : 2;
        if (five) {
            store32(tile + 4 * r, fifth_plane(load32(in)));
            tile += 64;
            in += 4;
        }
        for (int k = 0; k < 4; k++) memcpy(tile + 64 * k + 4 * r, in + 4 * k, 4);
        tile += 256;
        in += 16;
    }
}

static void pack_q4_0(const uint8_t *in, size_t blocks, int r, uint8_t *tile)
{
    pack_small(in, blocks, r, tile, false, false);
}
static void pack_q4_1(const uint8_t *in, size_t blocks, int r, uint8_t *tile)
{
    pack_small(in, blocks, r, tile, true, false);
}
static void pack_q5_0(const uint8_t *in, size_t blocks, int r, uint8_t *tile)
{
    pack_small(in, blocks, r, tile, false, true);
}
static void pack_q5_1(const uint8_t *in, size_t blocks, int r, uint8_t *tile)
{
    pack_small(in, blocks, r, tile, true, true);
}

static void pack_q8_0(const uint8_t *in, size_t blocks, int r, uint8_t *tile)
{
    for (size_t i = 0; i < blocks; i++, in += 34, tile += 544) {
        memcpy(tile + 2 * r, in, 2);
        for (int g = 0; g < 8; g++)
            store32(tile + 32 + 64 * g + 4 * r, load32(in + 2 + 4 * g) ^ 0x80808080);
    }
}

/* A block's 4 words from 32 bytes whose nibbles at `shift` are its columns in order. */
static void pack_nibbles(const uint8_t *in, int shift, int r, uint8_t *q)
{
    for (int k = 0; k < 4; k++) {
        uint32_t low = load32(in + 4 * k) >> shift & NIBBLES;
        uint32_t high = load32(in + 4 * k + 16) >> shift & NIBBLES;
        store32(q + 64 * k + 4 * r, low | high << 4);
    }
}

static void pack_q45_k(const uint8_t *in, size_t blocks, int r, uint8_t *tile, bool five)
{
    for (size_t i = 0; i < blocks; i++) {
        const uint8_t *high = in + 16, *qs = high + (five ? 32 : 0);
        memcpy(tile + 2 * r, in, 2);
        memcpy(tile + 32 + 2 * r, in + 2, 2);
        for (int k = 0; k < 12; k++) tile[64 + 16 * k + r] = in[4 + k];
        tile += 256;
        for (int j = 0; j < 8; j++) {
            if (five) {
                store32(tile + 4 * r, ones_plane(high, j));
                tile += 64;
            }
            pack_nibbles(qs + j / 2 * 32, j % 2 * 4, r, tile);
            tile += 256;
        }
        in = qs + 128;
    }
}

static void pack_q4_k(const uint8_t *in, size_t blocks, int r, uint8_t *tile)
{
    pack_q45_k(in, blocks, r, tile, false);
}
static void pack_q5_k(const uint8_t *in, size_t blocks, int r, uint8_t *tile)
{
    pack_q45_k(in, blocks, r, tile, true);
}

static void pack_q6_k(const uint8_t *in, size_t blocks, int r, uint8_t *tile)
{
    for (size_t i = 0; i < blocks; i++, in += 210) {
        memcpy(tile + 2 * r, in + 208, 2);
        for (int k = 0; k < 16; k++) tile[32 + 16 * k + r] = in[192 + k];
        tile += 288;
        for (int j = 0; j < 8; j++, tile += 384) {
            const uint8_t *low = in + 64 * (j / 4) + 32 * (j % 2), *high = in + 128 + 32 * (j / 4);
            pack_nibbles(low, j % 4 / 2 * 4, r, tile + 128);
            store32(tile + 4 * r, twos_plane(high, j % 4 * 2));
            store32(tile + 64 + 4 * r, twos_plane(high + 16, j % 4 * 2));
        }
    }
}

static void pack_16_bit(const uint8_t *in, size_t columns, int r, uint8_t *tile)
{
    for (size_t c = 0; c < columns; c++) memcpy(tile + 32 * c + 2 * r, in + 2 * c, 2);
}
static void pack_f32(const uint8_t *in, size_t columns, int r, uint8_t *tile)
{
    for (size_t c = 0; c < columns; c++) memcpy(tile + 64 * c + 4 * r, in + 4 * c, 4);
}

static const struct {
    weft_tensor_type type;
    cpu_format format;
    cpu_pack_fn pack;
    size_t bytes; /* of a row's block in its tile; 0: as in the file */
} packers[] = {
    {WEFT_Q8_0, CPU_Q8, pack_q8_0, 0},
    {WEFT_Q4_0, CPU_Q4, pack_q4_0, 0},
    {WEFT_Q4_1, CPU_Q4M, pack_q4_1, 0},
    {WEFT_Q5_0, CPU_Q5, pack_q5_0, 0},
    {WEFT_Q5_1, CPU_Q5M, pack_q5_1, 0},
    {WEFT_Q4_K, CPU_Q4K, pack_q4_k, 0},
    {WEFT_Q5_K, CPU_Q5K, pack_q5_k, 0},
    {WEFT_Q6_K, CPU_Q6K, pack_q6_k, 0},
    {WEFT_Q2_K, CPU_Q2K, cpu_pack_q2_k, 0},
    {WEFT_Q3_K, CPU_Q3K, cpu_pack_q3_k, 0},
    {WEFT_IQ4_NL, CPU_N4, cpu_pack_iq4_nl, 0},
    {WEFT_IQ4_XS, CPU_N4K, cpu_pack_iq4_xs, 0},
    {WEFT_MXFP4, CPU_MX4, cpu_pack_mxfp4, 0},
    {WEFT_NVFP4, CPU_NV4, cpu_pack_nvfp4, 0},
    {WEFT_IQ1_S, CPU_IQ1, cpu_pack_iq1_s, CPU_BYTES_IQ12},
    {WEFT_IQ1_M, CPU_IQ1, cpu_pack_iq1_m, CPU_BYTES_IQ12},
    {WEFT_IQ2_XXS, CPU_IQ2, cpu_pack_iq2_xxs, CPU_BYTES_IQ12},
    {WEFT_IQ2_XS, CPU_IQ2, cpu_pack_iq2_xs, CPU_BYTES_IQ12},
    {WEFT_IQ2_S, CPU_IQ2, cpu_pack_iq2_s, CPU_BYTES_IQ12},
    {WEFT_IQ3_XXS, CPU_IQ3, cpu_pack_iq3_xxs, CPU_BYTES_IQ3},
    {WEFT_IQ3_S, CPU_IQ3S, cpu_pack_iq3_s, CPU_BYTES_IQ3},
    {WEFT_TQ1_0, CPU_T2, cpu_pack_tq1_0, CPU_BYTES_T2},
    {WEFT_TQ2_0, CPU_T2, cpu_pack_tq2_0, CPU_BYTES_T2},
    {WEFT_Q2_0, CPU_Q2, cpu_pack_q2_0, 0},
    {WEFT_Q1_0, CPU_Q1, cpu_pack_q1_0, 0},
    {WEFT_F16, CPU_F16, pack_16_bit, 0},
    {WEFT_BF16, CPU_BF16, pack_16_bit, 0},
    {WEFT_F32, CPU_F32, pack_f32, 0},
};

static cpu_pack_four_fn pack_four(weft_tensor_type type)
{
    return type == WEFT_Q4_K ? cpu_pack_four_q4_k : type == WEFT_Q6_K ? cpu_pack_four_q6_k : NULL;
}

const uint8_t *cpu_read(weft_backend *b, const weft_tensor *t, size_t at, size_t n, uint8_t *room)
{
    weft_error err;
    if (!t->file) return (const uint8_t *)t->data + at;
    if (weft_tensor_read(t, at, n, room, &err)) {
        cpu_fail(b, &err);
        memset(room, 0, n);
    }
    return room;
}

void cpu_weight_pack(const weft_weight *w, size_t matrix, size_t from, size_t to, uint8_t *rows,
                     uint8_t *out)
{
    const size_t first = from * CPU_ROWS, n = cpu_min(to * CPU_ROWS, w->rows) - first;
    const size_t at = (matrix * w->rows + first) * w->row_bytes;
    const uint8_t *row = cpu_read(w->backend, &w->from, at, n * w->row_bytes, rows);
    size_t r = 0;
    for (; w->pack_four && r + 4 <= n; r += 4)
        w->pack_four(row + r * w->row_bytes, w->row_bytes, w->count, (int)(r % CPU_ROWS),
                     out + r / CPU_ROWS * w->tile_bytes);
    for (; r < n; r++)
        w->pack(row + r * w->row_bytes, w->count, (int)(r % CPU_ROWS),
                out + r / CPU_ROWS * w->tile_bytes);
}

typedef struct pack_job {
    const weft_weight *w;
    size_t run, runs; /* tiles of an item; items of a matrix */
} pack_job;

static void pack_item(void *context, uint32_t item, int thread)
{
    const pack_job *job = context;
    const weft_weight *w = job->w;
    const size_t matrix = item / job->runs, from = item % job->runs * job->run;
    cpu_weight_pack(w, matrix, from, cpu_min(from + job->run, w->tiles),
                    cpu_tile_room(w->backend, thread, 0) + w->backend->room_tile_bytes,
                    (uint8_t *)w->memory.at + (matrix * w->tiles + from) * w->tile_bytes);
}

/* Everything but the place of the tiles; *out_bytes is what they would take repacked. */
static weft_status describe(weft_backend *b, const weft_tensor *t, weft_weight *out,
                            size_t *out_bytes, weft_error *err)
{
    size_t block, bytes, matrix_bytes, tiles;
    const size_t columns = t->dim[0], rows = t->dim[1], matrices = t->dim[2];
    size_t k = 0, n = sizeof packers / sizeof *packers;
    while (k < n && packers[k].type != t->type) k++;
    if (k == n || !weft_tensor_block(t->type, &block, &bytes))
        return weft_fail(err, WEFT_E_MODEL,
                         "tensor %s: the CPU backend has no kernel for type %s; use another "
                         "quantisation",
                         t->name, weft_tensor_type_name(t->type));
    if (t->dim[3] != 1 || matrices == 0 || columns == 0 || columns > UINT32_MAX || rows == 0 ||
        rows > UINT32_MAX || columns % block != 0)
        return weft_fail(err, WEFT_E_MODEL,
                         "tensor %s: matrices with columns in multiples of %zu are needed, this is "
                         "%zu x %zu",
                         t->name, block, columns, rows);
    const size_t in_tile = packers[k].bytes ? packers[k].bytes : bytes;
    *out = (weft_weight){.backend = b,
                         .from = *t,
                         .pack = packers[k].pack,
                         .pack_four = pack_four(t->type),
                         .format = packers[k].format,
                         .matrices = matrices,
                         .rows = rows,
                         .columns = columns,
                         .tiles = cpu_divide_up(rows, CPU_ROWS),
                         .row_bytes = columns / block * bytes,
                         .count = columns / block};
    if (weft_size_mul(out->count * in_tile, CPU_ROWS, &out->tile_bytes) ||
        weft_size_mul(out->tiles, matrices, &tiles) || tiles > UINT32_MAX ||
        weft_size_mul(out->tile_bytes, tiles, out_bytes) ||
        weft_size_mul(out->row_bytes * rows, matrices, &matrix_bytes) || t->bytes < matrix_bytes)
        return weft_fail(err, WEFT_E_MODEL, "tensor %s: impossible size", t->name);
    return WEFT_OK;
}

/* ---- what packing needs ---- */

void cpu_fail(weft_backend *b, const weft_error *err)
{
    if (!atomic_exchange(&b->failed, true)) b->failure = *err;
}

weft_status cpu_failure(weft_backend *b, weft_error *err)
{
    if (!atomic_load(&b->failed)) return WEFT_OK;
    const weft_status status = b->failure.code;
    if (err) *err = b->failure;
    atomic_store(&b->failed, false);
    return status;
}

void cpu_weight_drop_room(weft_backend *b)
{
    if (b->room) munmap(b->room, (size_t)b->threads * 2 * (b->room_tile_bytes + b->room_row_bytes));
    b->room = NULL;
    b->room_tile_bytes = b->room_row_bytes = 0;
}

weft_status cpu_room_grow(weft_backend *b, size_t tile, size_t row, weft_error *err)
{
    size_t bytes;
    tile = cpu_divide_up(tile, ROOM_ALIGN) * ROOM_ALIGN;
    row = cpu_divide_up(row, ROOM_ALIGN) * ROOM_ALIGN;
    if (tile <= b->room_tile_bytes && row <= b->room_row_bytes) return WEFT_OK;
    tile = cpu_max(tile, b->room_tile_bytes);
    row = cpu_max(row, b->room_row_bytes);
    if (weft_size_mul(tile + row, (size_t)b->threads * 2, &bytes))
        return weft_fail(err, WEFT_E_MEMORY, "room for tiles of %zu bytes: too large", tile);
    void *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED)
        return weft_fail_errno(err, WEFT_E_MEMORY, "room for tiles of %zu bytes", tile);
    cpu_weight_drop_room(b);
    b->room = map;
    b->room_tile_bytes = tile;
    b->room_row_bytes = row;
    return WEFT_OK;
}

/* ---- weights in memory, weights left in the file ---- */

weft_status cpu_weight_new(weft_backend *b, const weft_tensor *t, weft_weight **out,
                           weft_error *err)
{
    weft_weight whole;
    size_t want = 0;
    weft_status s = describe(b, t, &whole, &want, err);
    if (!s)
        s = cpu_room_grow(b, whole.tile_bytes, cpu_weight_run(&whole) * CPU_ROWS * whole.row_bytes, err);
    if (s) return s;
    weft_weight *w = malloc(sizeof *w);
    whole.memory = w ? cpu_arena_take(&b->arena, want) : (cpu_memory){NULL, NULL};
    if (!whole.memory.at) {
        free(w);
        return weft_fail(err, WEFT_E_MEMORY, "tensor %s: %zu MiB: out of memory", t->name,
                         want >> 20);
    }
    *w = whole;
    pack_job job = {.w = w, .run = cpu_weight_run(w)};
    job.runs = cpu_divide_up(w->tiles, job.run);
    cpu_pool_run(b->pool, pack_item, &job, (uint32_t)(w->matrices * job.runs));
    w->data = w->memory.at;
    s = cpu_failure(b, err);
    if (s)
        cpu_weight_free(w);
    else
        *out = w;
    return s;
}

weft_status cpu_weight_map(weft_backend *b, const weft_tensor *t, weft_weight **out,
                           weft_error *err)
{
    weft_weight whole;
    size_t repacked = 0;
    weft_status s = describe(b, t, &whole, &repacked, err);
    if (!s) s = cpu_room_grow(b, whole.tile_bytes, whole.row_bytes * CPU_ROWS, err);
    if (s) return s;
    weft_weight *w = malloc(sizeof *w);
    if (!w) return weft_fail(err, WEFT_E_MEMORY, "tensor %s: out of memory", t->name);
    *w = whole;
    *out = w;
    return WEFT_OK;
}

size_t cpu_weight_run(const weft_weight *w)
{
    return cpu_min(w->tiles, cpu_max(1, CPU_READ_BYTES / (w->row_bytes * CPU_ROWS)));
}

void cpu_weight_ahead(const weft_weight *w, size_t matrix)
{
    const size_t bytes = w->rows * w->row_bytes;
    if (!w->data) weft_tensor_ahead(&w->from, matrix * bytes, bytes);
}

void cpu_weight_free(weft_weight *w)
{
    if (!w) return;
    cpu_cache_free(w->cache);
    cpu_arena_give(&w->backend->arena, w->memory);
    free(w);
}

size_t weft_cpu_packed_bytes(const weft_tensor *t)
{
    weft_weight w = {0};
    size_t bytes = t->bytes;
    (void)describe(NULL, t, &w, &bytes, NULL); /* what it refuses is refused again when it is loaded */
    return bytes;
}

size_t weft_cpu_room_bytes(const weft_tensor *t)
{
    weft_weight w = {0};
    size_t bytes;
    (void)describe(NULL, t, &w, &bytes, NULL);
    return 2 * (w.tile_bytes + cpu_max(w.row_bytes * CPU_ROWS, CPU_READ_BYTES) + 2 * ROOM_ALIGN);
}
