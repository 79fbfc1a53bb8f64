/* Which kernels this CPU runs. */
#include "engine/cpu/kernels.h"

#include <string.h>

#ifdef WEFT_X86_64
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

/* What the compilers' cpu_supports has no name for in every version. */
static bool has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && c & bit_F16C;
}

static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
}

/* cpu_supports looks at what the operating system saves, too. */
static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vnni");
}

/* The kernel saves 8 KiB of tile registers only for processes that asked; it may refuse. */
static bool has_amx(void)
{
    enum { TILE = 1 << 24, INT8 = 1 << 25, XTILEDATA = 18, REQUEST = 0x1023 };
    unsigned a, b, c, d;
    return has_avx512() && __get_cpuid_count(7, 0, &a, &b, &c, &d) && d & TILE && d & INT8 &&
           syscall(SYS_arch_prctl, REQUEST, XTILEDATA) == 0;
}
#endif

static bool always(void)
{
    return true;
}

const cpu_kernels *cpu_kernels_find(const char *isa, bool *known, const cpu_wide **out_wide)
{
    static const struct {
        const char *isa;
        const cpu_kernels *kernels;
        const cpu_wide *wide;
        bool (*runs)(void);
    } table[] = {
#ifdef WEFT_X86_64
        {"amx", &cpu_kernels_avx512, &cpu_wide_amx, has_amx},
        {"avx512", &cpu_kernels_avx512, NULL, has_avx512},
        {"avx2", &cpu_kernels_avx2, NULL, has_avx2},
#endif
        {"scalar", &cpu_kernels_scalar, NULL, always},
    };
    *known = !isa;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (isa && strcmp(isa, table[i].isa) != 0) continue;
        *known = true;
        if ((table[i].wide && !out_wide) || !table[i].runs()) continue;
        if (out_wide) *out_wide = table[i].wide;
        return table[i].kernels;
    }
    return NULL;
}

size_t cpu_read_ahead(void)
{
#ifdef WEFT_X86_64
    /* Intel's prefetchers stay close to the reads: with this a core reads half as fast again (docs/speed.md).
     * On Zen 4 each distance that was tried cost 15 to 40 %. */
    if (__builtin_cpu_is("intel")) return 8192;
#endif
    return 0;
}
