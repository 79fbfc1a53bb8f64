/* The groups of the grid types (grids.inc). What a level and a sign stand for: cpu_code_values. 9 KiB instead of the
 * 33 KiB that a byte a weight would take.
 */
#include "engine/cpu/codes.h"

/* clang-format off */
#define GRID_8(name, entries) const uint16_t cpu_grid_##name[entries] = {
#define GRID_4 GRID_8
#define ROW_8(a, b, c, d, e, f, g, h) a, b, c, d, e, f, g, h,
#define ROW_4 ROW_8
#define END };
#include "engine/grids.inc"
