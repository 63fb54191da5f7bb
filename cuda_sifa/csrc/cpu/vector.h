// Vectors of a fixed number of bytes in the notation of the compiler (GCC and Clang), so that one source serves every
// instruction set. kernel_<capability>.cpp defines SIFA_VECTOR_BYTES and SIFA_CAPABILITY, the namespace of the code for
// one instruction set, and sets the target. The kernels call no function of the standard library: the linker could
// choose the copy that was compiled for AVX-512, and a machine without AVX-512 would crash.
#pragma once

#include "kernel.h"

namespace sifa::SIFA_CAPABILITY {

#define SIFA_INLINE static inline __attribute__((always_inline))

template <typename T, int Bytes>
struct VectorType {
  typedef T type __attribute__((vector_size(Bytes)));
};
template <typename T, int Bytes>
using VectorOf = typename VectorType<T, Bytes>::type;
// The integer of the same size.
template <typename T>
using Int = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
template <typename T>
using Vec = VectorOf<T, SIFA_VECTOR_BYTES>;
template <typename T>
using Ints = VectorOf<Int<T>, SIFA_VECTOR_BYTES>;
template <typename T>
constexpr int kLanes = SIFA_VECTOR_BYTES / int(sizeof(T));

SIFA_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

template <typename V, typename E>
SIFA_INLINE V load_as(const E* from) {
  V v;
  __builtin_memcpy(&v, from, sizeof(v));
  return v;
}

template <typename V, typename E>
SIFA_INLINE void store_as(E* to, V v) {
  __builtin_memcpy(to, &v, sizeof(v));
}

template <typename T>
SIFA_INLINE Vec<T> load(const T* from) {
  return load_as<Vec<T>>(from);
}

template <typename T>
SIFA_INLINE void store(T* to, Vec<T> v) {
  store_as(to, v);
}

// Exchanges neighbouring groups of Width lanes.
template <int Width, typename V, typename Numbers, int... Lane>
SIFA_INLINE V swapped(V v, std::integer_sequence<int, Lane...>) {
#if defined(__clang__)
  return __builtin_shufflevector(v, v, (Lane ^ Width)...);
#else
  return __builtin_shuffle(v, Numbers{(Lane ^ Width)...});
#endif
}

// The sum over the lanes, in every lane. The order is fixed, so the result always has the same bits.
template <typename T, int Width = kLanes<T> / 2>
SIFA_INLINE Vec<T> sum_of(Vec<T> v) {
  if constexpr (Width == 0)
    return v;
  else
    return sum_of<T, Width / 2>(v + swapped<Width, Vec<T>, Ints<T>>(v, std::make_integer_sequence<int, kLanes<T>>()));
}

// From a and b, each of Lanes lanes: the first (Half = 0) or second (Half = 1) half of every group of 2 * Width lanes,
// first those of a, then those of b.
template <int Width, int Half, typename V, typename Numbers, int... Lane>
SIFA_INLINE V selected(V a, V b, std::integer_sequence<int, Lane...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, (Lane / Width * 2 * Width + Lane % Width + Half * Width)...);
#else
  return __builtin_shuffle(a, b, Numbers{(Lane / Width * 2 * Width + Lane % Width + Half * Width)...});
#endif
}

template <typename T, int Lanes, int Width, int Half>
SIFA_INLINE VectorOf<T, Lanes * sizeof(T)> halves(VectorOf<T, Lanes * sizeof(T)> a, VectorOf<T, Lanes * sizeof(T)> b) {
  using Numbers = VectorOf<Int<T>, Lanes * sizeof(T)>;
  return selected<Width, Half, VectorOf<T, Lanes * sizeof(T)>, Numbers>(a, b, std::make_integer_sequence<int, Lanes>());
}

}  // namespace sifa::SIFA_CAPABILITY
