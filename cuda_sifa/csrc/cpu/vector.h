// Vectors of a fixed number of bytes in the compiler's own notation (GCC and Clang), so that one source serves every
// instruction set: the file that includes this one sets SIFA_VECTOR_BYTES, a target pragma and SIFA_CAPABILITY, the
// namespace that keeps the code of one instruction set apart from the others'. No standard templates are used in
// here: the linker could pick their AVX-512 copy for a machine without it.
#include <cstdint>
#include <cstring>

namespace sifa::SIFA_CAPABILITY {

#define SIFA_INLINE static inline __attribute__((always_inline))

template <typename T>
struct Vector;
template <>
struct Vector<float> {
  typedef float type __attribute__((vector_size(SIFA_VECTOR_BYTES)));
};
template <>
struct Vector<double> {
  typedef double type __attribute__((vector_size(SIFA_VECTOR_BYTES)));
};
template <typename T>
using Vec = typename Vector<T>::type;
template <typename T>
constexpr int kLanes = SIFA_VECTOR_BYTES / int(sizeof(T));

template <typename T>
SIFA_INLINE Vec<T> load(const T* from) {
  Vec<T> v;
  __builtin_memcpy(&v, from, sizeof(v));
  return v;
}

template <typename T>
SIFA_INLINE void store(T* to, Vec<T> v) {
  __builtin_memcpy(to, &v, sizeof(v));
}

template <typename T>
SIFA_INLINE T sum(Vec<T> v) {
  // Halves are added until one lane is left: a fixed order, so the same bits every time.
  T lane[kLanes<T>];
  store<T>(lane, v);
  for (int half = kLanes<T> / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) lane[i] += lane[i + half];
  return lane[0];
}

// The storage types of half precision, as bits: the kernels compute in float alone.
struct BFloat16 {
  uint16_t bits;
};
struct Half {
  uint16_t bits;
};

SIFA_INLINE float bits_to_float(uint32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, sizeof(value));
  return value;
}

SIFA_INLINE uint32_t float_to_bits(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof(bits));
  return bits;
}

SIFA_INLINE float widen(float value) { return value; }
SIFA_INLINE double widen(double value) { return value; }
SIFA_INLINE float widen(BFloat16 value) { return bits_to_float(uint32_t(value.bits) << 16); }
SIFA_INLINE float widen(Half value) {
  // Exponent and mantissa moved to their places in a float; the multiplication mends the exponent's bias, subnormal
  // numbers included, and infinities and NaNs get the full exponent back.
  const uint32_t magnitude = uint32_t(value.bits & 0x7fff) << 13;
  const float scaled = bits_to_float(magnitude) * 0x1p112f;
  const uint32_t special = magnitude >= 0x0f800000u ? 0x7f800000u : 0u;
  return bits_to_float(float_to_bits(scaled) | special | uint32_t(value.bits & 0x8000) << 16);
}

SIFA_INLINE void narrow(float value, float& to) { to = value; }
SIFA_INLINE void narrow(double value, double& to) { to = value; }
SIFA_INLINE void narrow(float value, BFloat16& to) {
  // Round to nearest, ties to even; a NaN stays one.
  const uint32_t bits = float_to_bits(value);
  const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  to.bits = uint16_t(value != value ? 0x7fc0u : rounded);
}
SIFA_INLINE void narrow(float value, Half& to) {
  const uint32_t bits = float_to_bits(value), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  uint32_t half;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u;  // NaN
  } else if (magnitude >= 0x477ff000u) {
    half = 0x7c00u;  // rounds to infinity
  } else if (magnitude < 0x38800000u) {
    // Subnormal: adding 0.5 leaves the wanted bits, rightly rounded, at the end of the mantissa.
    half = float_to_bits(bits_to_float(magnitude) + 0.5f) - 0x3f000000u;
  } else {
    half = (magnitude + 0xfffu + (magnitude >> 13 & 1u) - 0x38000000u) >> 13;
  }
  to.bits = uint16_t(sign | half);
}

}  // namespace sifa::SIFA_CAPABILITY
