/* What `weft doctor` says of GPUs, for each thing that can be the matter. The driver is loaded once a process, so
 * each case has a process of its own. */
#include "engine/engine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void print_finding(void *context, bool usable, const char *finding)
{
    int fd = *(int *)context;
    dprintf(fd, "%s: %s\n", usable ? "usable" : "not", finding);
}

/* Lines of weft_gpu_look under this driver, mock configuration and image; NULL: as tests are run. */
static void look(const char *driver, const char *mock, const char *image, char *out, size_t bytes)
{
    int ends[2], status;
    size_t n = 0;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        close(ends[0]);
        if (driver) setenv("WEFT_TEST_CUDA_DRIVER", driver, 1);
        if (mock) setenv("MOCK_CUDA", mock, 1);
        if (image) setenv("WEFT_TEST_CUDA_IMAGE", image, 1);
        weft_gpu_look(print_finding, &ends[1]);
        _exit(0);
    }
    close(ends[1]);
    for (ssize_t got; (got = read(ends[0], out + n, bytes - 1 - n)) > 0;) n += (size_t)got;
    out[n] = '\0';
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void test_findings(void **state)
{
    static const struct {
        const char *driver, *mock, *image, *says;
    } cases[] = {
        {"/nowhere/libcuda.so.1", NULL, NULL, "not: no NVIDIA driver (/nowhere/libcuda.so.1: cannot open"},
        {"libm.so.6", NULL, NULL, "not: the NVIDIA driver is too old: it has no cuInit (CUDA 11.4)"},
        {NULL, "0,8,0,13000,100", NULL, "not: the NVIDIA driver finds no GPU"},
        {NULL, "1,8,0,13000,100 init=100", NULL, "not: the NVIDIA driver finds no GPU"},
        {NULL, "1,8,0,13000,100 init=999", NULL, "not: GPU: starting the NVIDIA driver: CUDA_ERROR_MOCK (999)"},
        {NULL, "1,7,5,13000,100", NULL,
         "not: cuda:0 Mock 0 has compute capability 7.5; the kernels need 8.0 or later"},
        {NULL, "1,8,0,12020,100 load=209", NULL,
         "not: cuda:0 Mock 0: the driver knows CUDA 12.2 and cannot load kernels built with "},
        {NULL, "1,8,0,12020,100 load=222", NULL, "; update the driver"},
        {NULL, "1,8,0,13000,100 load=700", NULL, "not: GPU: loading the kernels: CUDA_ERROR_MOCK (700)"},
        {NULL, NULL, "/nowhere/weft-cuda.fatbin", "not: "},
        {NULL, "2,9,0,13000,40960", NULL,
         "usable: cuda:1 Mock 1, compute capability 9.0, 40.0 of 40.0 GiB free, driver for CUDA 13.0: used "
         "by --engine cuda"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char out[4096];
        look(cases[i].driver, cases[i].mock, cases[i].image, out, sizeof out);
        if (!strstr(out, cases[i].says)) fail_msg("case %zu: %s", i, out);
    }
}

static void test_a_line_for_each(void **state)
{
    char out[4096];
    size_t lines = 0;
    look(NULL, "3,8,6,13000,100", NULL, out, sizeof out);
    for (const char *at = out; (at = strchr(at, '\n')); at++) lines++;
    assert_int_equal(lines, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_findings), cmocka_unit_test(test_a_line_for_each)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
