// The CPU kernels for any machine: 16-byte vectors.
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "kernel.h"

#define SIFA_CAPABILITY baseline
#define SIFA_VECTOR_BYTES 16
#include "vector.h"
// vector.h first: kernel_impl.h is written in its terms.
#include "kernel_impl.h"
