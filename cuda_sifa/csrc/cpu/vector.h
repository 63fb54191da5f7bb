// Vectors of a fixed number of bytes in the compiler's own notation (GCC and Clang), so that one source serves every
// instruction set. kernel_<capability>.cpp defines SIFA_VECTOR_BYTES and SIFA_CAPABILITY, the namespace of the code for
// one instruction set, and sets the target. The kernels call no function of the standard library: the linker could
// choose the copy that was compiled for AVX-512, and a machine without AVX-512 would crash.
#pragma once

#include "kernel.h"

namespace sifa::SIFA_CAPABILITY {

#define SIFA_INLINE static inline __attribute__((always_inline))

template <typename T, int Bytes>
struct Part {
  typedef T type __attribute__((vector_size(Bytes)));
};
// The integer of the same size.
template <typename T>
using Int = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
template <typename T>
using Vec = typename Part<T, SIFA_VECTOR_BYTES>::type;
template <typename T>
using Ints = typename Part<Int<T>, SIFA_VECTOR_BYTES>::type;
template <typename T>
constexpr int kLanes = SIFA_VECTOR_BYTES / int(sizeof(T));

SIFA_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

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

// Every lane gets the value Width lanes before or after it.
template <int Width, typename V, typename Numbers, int... Lane>
SIFA_INLINE V swapped(V v, std::integer_sequence<int, Lane...>) {
#if defined(__clang__)
  return __builtin_shufflevector(v, v, (Lane ^ Width)...);
#else
  return __builtin_shuffle(v, Numbers{(Lane ^ Width)...});
#endif
}

// The sum over the lanes, in every lane: a fixed order, so the same bits every time.
template <typename T, int Width = kLanes<T> / 2>
SIFA_INLINE Vec<T> sum_of(Vec<T> v) {
  if constexpr (Width == 0)
    return v;
  else
    return sum_of<T, Width / 2>(v + swapped<Width, Vec<T>, Ints<T>>(v, std::make_integer_sequence<int, kLanes<T>>()));
}

// From (a, b), each of Lanes lanes: the first (Half = 0) or second (Half = 1) half of every group of 2 * Width lanes,
// a's before b's.
template <int Width, int Half, typename V, typename Numbers, int... Lane>
SIFA_INLINE V chosen(V a, V b, std::integer_sequence<int, Lane...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, (Lane / Width * 2 * Width + Lane % Width + Half * Width)...);
#else
  return __builtin_shuffle(a, b, Numbers{(Lane / Width * 2 * Width + Lane % Width + Half * Width)...});
#endif
}

template <typename T, int Lanes, int Width, int Half>
SIFA_INLINE typename Part<T, Lanes * sizeof(T)>::type halves(typename Part<T, Lanes * sizeof(T)>::type a,
                                                             typename Part<T, Lanes * sizeof(T)>::type b) {
  using Numbers = typename Part<Int<T>, Lanes * sizeof(T)>::type;
  return chosen<Width, Half, typename Part<T, Lanes * sizeof(T)>::type, Numbers>(
      a, b, std::make_integer_sequence<int, Lanes>());
}

// The storage types of half precision, as bits: the kernels compute in float alone.
struct BFloat16 {
  uint16_t bits;
};
struct Half {
  uint16_t bits;
};

// A vector's worth of them, widened to float and narrowed again.
typedef uint16_t HalfBits __attribute__((vector_size(SIFA_VECTOR_BYTES / 2)));
typedef uint32_t FloatBits __attribute__((vector_size(SIFA_VECTOR_BYTES)));

SIFA_INLINE Vec<float> widen(HalfBits value, BFloat16) {
  return (Vec<float>)(__builtin_convertvector(value, FloatBits) << 16);
}
SIFA_INLINE Vec<float> widen(HalfBits value, Half) {
  // Exponent and mantissa moved to their places in a float; the multiplication mends the exponent's bias, subnormal
  // numbers included, and infinities and NaNs get the full exponent back.
  const FloatBits bits = __builtin_convertvector(value, FloatBits), magnitude = (bits & 0x7fffu) << 13;
  const FloatBits scaled = (FloatBits)((Vec<float>)magnitude * 0x1p112f);
  const FloatBits special = (FloatBits)(magnitude >= 0x0f800000u) & 0x7f800000u;
  return (Vec<float>)(scaled | special | (bits & 0x8000u) << 16);
}

// The upper 16 bits are the nearest BFloat16, ties to even; a NaN stays one.
SIFA_INLINE FloatBits rounded(Vec<float> value) {
  const FloatBits bits = (FloatBits)value;
  return value != value ? FloatBits{} + 0x7fc00000u : bits + 0x7fffu + (bits >> 16 & 1u);
}

SIFA_INLINE HalfBits narrow(Vec<float> value, BFloat16) {
  return __builtin_convertvector(rounded(value) >> 16, HalfBits);
}
SIFA_INLINE HalfBits narrow(Vec<float> value, Half) {
  const FloatBits bits = (FloatBits)value, magnitude = bits & 0x7fffffffu;
  // Subnormal: adding 0.5 leaves the wanted bits, rightly rounded, at the end of the mantissa.
  const FloatBits subnormal = (FloatBits)((Vec<float>)magnitude + 0.5f) - 0x3f000000u;
  const FloatBits normal = (magnitude + 0xfffu + (magnitude >> 13 & 1u) - 0x38000000u) >> 13;
  FloatBits half = magnitude < 0x38800000u ? subnormal : normal;
  half = magnitude >= 0x477ff000u ? FloatBits{} + 0x7c00u : half;  // rounds to infinity
  half = magnitude > 0x7f800000u ? FloatBits{} + 0x7e00u : half;   // NaN
  return __builtin_convertvector((bits >> 16 & 0x8000u) | half, HalfBits);
}

// n values in float; S is BFloat16 or Half.
template <typename S>
SIFA_INLINE void widen(const S* from, int64_t n, float* to) {
  constexpr int lanes = kLanes<float>;
  for (; n >= lanes; n -= lanes, from += lanes, to += lanes) store(to, widen(load_as<HalfBits>(from), S{}));
  if (n == 0) return;
  HalfBits bits{};
  __builtin_memcpy(&bits, from, n * sizeof(S));
  const Vec<float> last = widen(bits, S{});
  __builtin_memcpy(to, &last, n * sizeof(float));
}

template <typename S>
SIFA_INLINE void narrow(const float* from, int64_t n, S* to) {
  constexpr int lanes = kLanes<float>;
  for (; n >= lanes; n -= lanes, from += lanes, to += lanes) store_as(to, narrow(load(from), S{}));
  if (n == 0) return;
  Vec<float> last{};
  __builtin_memcpy(&last, from, n * sizeof(float));
  const HalfBits bits = narrow(last, S{});
  __builtin_memcpy(to, &bits, n * sizeof(S));
}

// A value, and a vector of them, in the type that is computed in.
SIFA_INLINE double real(double stored) { return stored; }
SIFA_INLINE float real(float stored) { return stored; }
template <typename S>
SIFA_INLINE float real(S stored) {
  float value;
  widen(&stored, 1, &value);
  return value;
}
SIFA_INLINE Vec<double> load_real(const double* from) { return load(from); }
SIFA_INLINE Vec<float> load_real(const float* from) { return load(from); }
template <typename S>
SIFA_INLINE Vec<float> load_real(const S* from) {
  return widen(load_as<HalfBits>(from), S{});
}

// ---- The channels of a pixel, read a unit at a time in the type that is computed in ---------------------------------

template <typename S>
struct Unit {
  using Real = S;
  static constexpr int vectors = 1, lanes = kLanes<S>;

  SIFA_INLINE void load(const S* from, Vec<S>* values) { values[0] = load_as<Vec<S>>(from); }
  SIFA_INLINE void store(S* to, const Vec<S>* values) { store_as(to, values[0]); }
};

// A vector's load brings two vectors of numbers: those of even channels and those of odd ones. The order of channels
// does not matter to what is computed, as long as it is the same everywhere.
template <>
struct Unit<BFloat16> {
  using Real = float;
  static constexpr int vectors = 2, lanes = 2 * kLanes<float>;

  SIFA_INLINE void load(const BFloat16* from, Vec<float>* values) {
    const auto pairs = load_as<FloatBits>(from);
    values[0] = (Vec<float>)(pairs << 16);
    values[1] = (Vec<float>)(pairs & 0xffff0000u);
  }
  SIFA_INLINE void store(BFloat16* to, const Vec<float>* values) {
    store_as(to, FloatBits(rounded(values[0]) >> 16 | (rounded(values[1]) & 0xffff0000u)));
  }
};

}  // namespace sifa::SIFA_CAPABILITY
