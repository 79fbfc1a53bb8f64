/* All kernels, compiled for the shim, and their list. */
#include "tests/cuda/shim.h"

#include "engine/cuda/kernels.cu"

SHIM_LIST(shim_listed)
