/* The whole module in one file: what the host side loads (the tests' shim compiles it too). */
#include "engine/cuda/attention.cu"
#include "engine/cuda/element.cu"
#include "engine/cuda/kv.cu"
#include "engine/cuda/matmul.cu"
#include "engine/cuda/matvec.cu"
#include "engine/cuda/norm.cu"
#include "engine/cuda/quantise.cu"
#include "engine/cuda/rope.cu"
