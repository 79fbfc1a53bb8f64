/* Each loop keeps enough independent accumulators for the latency of its instruction (4 to 5 cycles on two
 * ports; a tile product takes 16 cycles of one unit, and 52 until its sum is there). */
#include "bench/peak.h"

#include <stddef.h>
#include <stdint.h>

static const char *const names[PEAK_UNITS] = {"vnni", "amx", "fma"};

const char *peak_name(peak_unit unit)
{
    return names[unit];
}

#ifdef WEFT_X86_64
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { LOOPS = 1 << 18, SUMS = 12, TILE_LOOPS = 1 << 16, TILE_SUMS = 4 };

/* Unused results must not be dropped by the compiler. */
static void keep(int32_t value)
{
    __asm__ volatile("" : : "r"(value));
}

__attribute__((target("avx512f,avx512vnni"))) static double run_vnni(void)
{
    __m512i sum[SUMS], w = _mm512_set1_epi32(3), x = _mm512_set1_epi32(5);
    for (int i = 0; i < SUMS; i++) sum[i] = _mm512_set1_epi32(i);
    for (int k = 0; k < LOOPS; k++) {
        for (int i = 0; i < SUMS; i++) sum[i] = _mm512_dpbusd_epi32(sum[i], w, x);
        __asm__ volatile("" : "+v"(w));
    }
    for (int i = 1; i < SUMS; i++) sum[0] = _mm512_add_epi32(sum[0], sum[i]);
    keep(_mm512_reduce_add_epi32(sum[0]));
    return 2.0 * 64 * SUMS * LOOPS;
}

__attribute__((target("avx512f"))) static double run_fma(void)
{
    __m512 sum[SUMS], w = _mm512_set1_ps(0.5f), x = _mm512_set1_ps(0.25f);
    for (int i = 0; i < SUMS; i++) sum[i] = _mm512_set1_ps((float)i);
    for (int k = 0; k < LOOPS; k++) {
        for (int i = 0; i < SUMS; i++) sum[i] = _mm512_fmadd_ps(sum[i], w, x);
        __asm__ volatile("" : "+v"(w));
    }
    for (int i = 1; i < SUMS; i++) sum[0] = _mm512_add_ps(sum[0], sum[i]);
    keep((int32_t)_mm512_reduce_add_ps(sum[0]));
    return 2.0 * 16 * SUMS * LOOPS;
}

/* The configuration is constant: gcc 12's _tile_loadconfig shows the compiler its first 8 bytes only. */
__attribute__((target("amx-tile,amx-int8"))) static double run_amx(void)
{
    static const struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config = {1, 0, {0}, {64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16}};
    static const int8_t data[16][64];
    _tile_loadconfig(&config);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_loadd(4, data, 64);
    _tile_loadd(5, data, 64);
    for (int k = 0; k < TILE_LOOPS; k++) {
        _tile_dpbssd(0, 4, 5);
        _tile_dpbssd(1, 4, 5);
        _tile_dpbssd(2, 4, 5);
        _tile_dpbssd(3, 4, 5);
    }
    _tile_release();
    return 2.0 * 16 * 16 * 64 * TILE_SUMS * TILE_LOOPS;
}

static bool has_amx(void)
{
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_TILE_DATA = 18 };
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & 1u << 24) || !(d & 1u << 25)) return false;
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_TILE_DATA) == 0;
}

bool peak_has(peak_unit unit)
{
    switch (unit) {
    case PEAK_VNNI: return __builtin_cpu_supports("avx512vnni");
    case PEAK_AMX: return has_amx();
    case PEAK_FMA: return __builtin_cpu_supports("avx512f");
    default: return false;
    }
}

double peak_run(peak_unit unit)
{
    switch (unit) {
    case PEAK_VNNI: return run_vnni();
    case PEAK_AMX: return run_amx();
    case PEAK_FMA: return run_fma();
    default: return 0;
    }
}
#else
bool peak_has(peak_unit unit)
{
    (void)unit;
    return false;
}

double peak_run(peak_unit unit)
{
    (void)unit;
    return 0;
}
#endif
