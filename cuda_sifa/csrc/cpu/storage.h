// How values are stored and how they are computed with: half precision, and channels in memory.
//
// S is the type that x is stored as, K the type of the arrays that the loops over channels read (S, or float if half
// precision was converted before), T the type of sums: float or double.
#pragma once

#include "vector.h"

namespace sifa::SIFA_CAPABILITY {

// Half precision as bits: the kernels compute in float only.
struct BFloat16 {
  uint16_t bits;
};
struct Half {
  uint16_t bits;
};

// One vector of them. The functions below convert it to float and back.
typedef uint16_t HalfBits __attribute__((vector_size(SIFA_VECTOR_BYTES / 2)));
typedef uint32_t FloatBits __attribute__((vector_size(SIFA_VECTOR_BYTES)));

SIFA_INLINE Vec<float> widen(HalfBits value, BFloat16) {
  return (Vec<float>)(__builtin_convertvector(value, FloatBits) << 16);
}
SIFA_INLINE Vec<float> widen(HalfBits value, Half) {
  // Moves exponent and mantissa to their places in a float. The multiplication corrects the bias of the exponent, also
  // for subnormal numbers. Infinity and NaN get the largest exponent of float.
  const FloatBits bits = __builtin_convertvector(value, FloatBits), magnitude = (bits & 0x7fffu) << 13;
  const FloatBits scaled = (FloatBits)((Vec<float>)magnitude * 0x1p112f);
  const FloatBits special = (FloatBits)(magnitude >= 0x0f800000u) & 0x7f800000u;
  return (Vec<float>)(scaled | special | (bits & 0x8000u) << 16);
}

// The upper 16 bits of the result are the nearest BFloat16, ties to even. NaN stays NaN.
SIFA_INLINE FloatBits rounded(Vec<float> value) {
  const FloatBits bits = (FloatBits)value;
  return value != value ? FloatBits{} + 0x7fc00000u : bits + 0x7fffu + (bits >> 16 & 1u);
}

SIFA_INLINE HalfBits narrow(Vec<float> value, BFloat16) {
  return __builtin_convertvector(rounded(value) >> 16, HalfBits);
}
SIFA_INLINE HalfBits narrow(Vec<float> value, Half) {
  const FloatBits bits = (FloatBits)value, magnitude = bits & 0x7fffffffu;
  // Subnormal: the addition of 0.5 leaves the result, correctly rounded, in the last bits of the mantissa.
  const FloatBits subnormal = (FloatBits)((Vec<float>)magnitude + 0.5f) - 0x3f000000u;
  const FloatBits normal = (magnitude + 0xfffu + (magnitude >> 13 & 1u) - 0x38000000u) >> 13;
  FloatBits half = magnitude < 0x38800000u ? subnormal : normal;
  half = magnitude >= 0x477ff000u ? FloatBits{} + 0x7c00u : half;  // rounds to infinity
  half = magnitude > 0x7f800000u ? FloatBits{} + 0x7e00u : half;   // NaN
  return __builtin_convertvector((bits >> 16 & 0x8000u) | half, HalfBits);
}

// Converts n values to float. S is BFloat16 or Half.
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

// Converts n values from float.
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

// One value, and one vector of values, converted to the type of the computation.
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

// The smallest number of channels that loops read and write at once, converted to and from the type of the computation.
template <typename S>
struct Unit {
  using Real = S;
  static constexpr int vectors = 1, lanes = kLanes<S>;

  SIFA_INLINE void load(const S* from, Vec<S>* values) { values[0] = load_as<Vec<S>>(from); }
  SIFA_INLINE void store(S* to, const Vec<S>* values) { store_as(to, values[0]); }
};

// One vector in memory holds two vectors of float: those of the even channels and those of the odd ones. The order of
// channels does not matter to the kernels, as long as it is the same everywhere.
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

template <>
struct Unit<Half> {
  using Real = float;
  static constexpr int vectors = 1, lanes = kLanes<float>;

  SIFA_INLINE void load(const Half* from, Vec<float>* values) { values[0] = load_real(from); }
  SIFA_INLINE void store(Half* to, const Vec<float>* values) { store_as(to, narrow(values[0], Half{})); }
};

// ---- Channels that need a conversion, in a buffer -------------------------------------------------------------------

// n values as T: `from` itself if they are stored as T, else `buffer`, to which they are converted.
template <typename T, typename S>
SIFA_INLINE const T* widened(const S* from, int64_t n, T* buffer) {
  if constexpr (std::is_same_v<S, T>) {
    return from;
  } else {
    widen(from, n, buffer);
    return buffer;
  }
}

// Where to compute a result that will be stored at `to`: there, or in `buffer` if it needs a conversion.
template <typename K, typename S>
SIFA_INLINE K* result_memory(S* to, K* buffer) {
  if constexpr (std::is_same_v<S, K>)
    return to;
  else
    return buffer;
}

// Stores n values that were computed in result_memory().
template <typename K, typename S>
SIFA_INLINE void store_result(const K* result, int64_t n, S* to) {
  if constexpr (!std::is_same_v<S, K>) narrow(result, n, to);
}

}  // namespace sifa::SIFA_CAPABILITY
