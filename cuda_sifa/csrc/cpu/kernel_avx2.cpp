// The CPU kernels for x86-64 with AVX2 and FMA.
#if defined(__x86_64__)
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "kernel.h"

// From here on only: the headers above stay runnable everywhere.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,bmi,bmi2,lzcnt,popcnt"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,bmi,bmi2,lzcnt,popcnt")
#endif
#define SIFA_CAPABILITY avx2
#define SIFA_VECTOR_BYTES 32
#include "vector.h"
// vector.h first: kernel_impl.h is written in its terms.
#include "kernel_impl.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
