// The CPU kernels for x86-64 with AVX-512 (F, BW, DQ, VL).
#if defined(__x86_64__)
#include "kernel.h"

// After kernel.h, whose code must stay runnable on every processor.
#if defined(__clang__)
#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi,bmi2,lzcnt,popcnt"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi,bmi2,lzcnt,popcnt")
#endif
#define SIFA_CAPABILITY avx512
#define SIFA_VECTOR_BYTES 64
#include "kernel_impl.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
