/* Finding the CUDA driver. */
#include "engine/cuda/driver.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

typedef struct symbol {
    const char *name;
    size_t offset; /* of its pointer in cuda_driver */
} symbol;

static const symbol symbols[] = {
#define X(name, symbol, parameters) {symbol, offsetof(cuda_driver, name)},
    CUDA_DRIVER(X)
#undef X
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static cuda_driver driver;
static weft_status loaded;
static weft_error why;

/* Tests bring a driver of their own (tests/cuda/mock_driver.c); programs as they are shipped do not look. */
static const char *library(void)
{
#ifdef WEFT_FAULTS
    const char *path = getenv("WEFT_TEST_CUDA_DRIVER");
    if (path) return path;
#endif
    return "libcuda.so.1";
}

static weft_status resolve(weft_error *err)
{
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        void *at = dlsym(driver.library, symbols[i].name);
        if (!at)
            return weft_fail(err, WEFT_E_MODEL,
                             "the NVIDIA driver is too old: it has no %s (CUDA 11.4); update the driver",
                             symbols[i].name);
        memcpy((char *)&driver + symbols[i].offset, &at, sizeof at);
    }
    return WEFT_OK;
}

static weft_status load(weft_error *err)
{
    driver.library = dlopen(library(), RTLD_NOW | RTLD_LOCAL);
    if (!driver.library)
        return weft_fail(err, WEFT_E_MODEL, "no NVIDIA driver (%s)", dlerror());
    weft_status status = resolve(err);
    if (status) return status;
    int result = driver.init(0);
    if (result == CUDA_ERROR_NO_DEVICE_)
        return weft_fail(err, WEFT_E_MODEL, "the NVIDIA driver finds no GPU");
    status = cuda_check(&driver, result, err, "starting the NVIDIA driver");
    if (!status) status = cuda_check(&driver, driver.driver_version(&driver.version), err,
                                     "the NVIDIA driver's version");
    return status;
}

static void load_once(void)
{
    loaded = load(&why);
}

weft_status cuda_driver_get(const cuda_driver **out, weft_error *err)
{
    pthread_once(&once, load_once);
    if (loaded) {
        if (err) *err = why;
        return loaded;
    }
    *out = &driver;
    return WEFT_OK;
}

weft_status cuda_check(const cuda_driver *d, int result, weft_error *err, const char *what)
{
    const char *name = NULL;
    if (result == 0) return WEFT_OK;
    if (d->error_name(result, &name) != 0 || !name) name = "unknown error";
    return weft_fail(err, result == CUDA_ERROR_OUT_OF_MEMORY_ ? WEFT_E_MEMORY : WEFT_E_MODEL,
                     "GPU: %s: %s (%d)", what, name, result);
}
