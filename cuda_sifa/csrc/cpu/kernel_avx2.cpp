// The CPU kernels for x86-64 with AVX2 and FMA.
#if defined(__x86_64__)
#include "kernel.h"

// After kernel.h, whose code must stay runnable on every processor.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,bmi,bmi2,lzcnt,popcnt"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,bmi,bmi2,lzcnt,popcnt")
#endif
#define SIFA_CAPABILITY avx2
#define SIFA_VECTOR_BYTES 32
#include "kernel_impl.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
