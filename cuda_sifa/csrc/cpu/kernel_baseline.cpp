// The CPU kernels for any machine: 16-byte vectors.
#include "kernel.h"

#define SIFA_CAPABILITY baseline
#define SIFA_VECTOR_BYTES 16
#include "kernel_impl.h"
