// The motion saliency of consecutive frames a and f, s = f + sigmoid(f - a) * f, and its gradient. It is computed for
// each element alone, so the order of channels and positions does not matter.
//
// A frame is both the f of one pair and the a of the next. Small blocks of elements go through all frames in turn: the
// frame that two pairs share is read from memory once, and from the first-level cache the second time.
#pragma once

#include "storage.h"
#include "vector.h"

namespace sifa::SIFA_CAPABILITY {

constexpr int kSaliencyBlock = 256;  // elements

// ---- The sigmoid ----------------------------------------------------------------------------------------------------

// 1/0!, 1/1!, 1/2!, ...: the Taylor series of the exponential function.
template <typename T, int Count>
struct InverseFactorials {
  T of[Count];
  constexpr InverseFactorials() : of() {
    double factorial = 1;
    for (int i = 0; i < Count; ++i) {
      of[i] = T(1 / factorial);
      factorial *= i + 1;
    }
  }
};

// What the exponential function needs to know of a type. Its argument is limited to where 2^n is a normal number. ln 2
// is high + low; n * high is exact. To add `round` rounds to an integer, which is then in the last bits.
template <typename T>
struct Exponent;
template <>
struct Exponent<float> {
  static constexpr int terms = 8, mantissa = 23, bias = 127;
  static constexpr float limit = 87, high = 0.693359375f, low = -2.12194440e-4f, round = 0x1.8p23f;
};
template <>
struct Exponent<double> {
  static constexpr int terms = 14, mantissa = 52, bias = 1023;
  static constexpr double limit = 708, high = 0.693145751953125, low = 1.42860682030941723212e-6, round = 0x1.8p52;
};

// 1 / (1 + e^-x), with e^-x = 2^n e^r and r at most half of ln 2. NaN stays NaN.
template <typename T>
SIFA_INLINE Vec<T> sigmoid(Vec<T> x) {
  using E = Exponent<T>;
  using Bits = VectorOf<std::make_unsigned_t<Int<T>>, SIFA_VECTOR_BYTES>;
  static constexpr InverseFactorials<T, E::terms> inverse;
  x = x > E::limit ? Vec<T>{} + E::limit : x;
  x = x < -E::limit ? Vec<T>{} - E::limit : x;
  const Vec<T> rounded = x * T(-1.4426950408889634) + E::round, n = rounded - E::round;
  const Vec<T> r = (-x - n * E::high) - n * E::low;
  Vec<T> power = Vec<T>{} + inverse.of[E::terms - 1];
#pragma GCC unroll 16
  for (int i = E::terms - 2; i >= 0; --i) power = power * r + inverse.of[i];
  const Vec<T> scale = (Vec<T>)(((Bits)rounded + E::bias) << E::mantissa);
  return 1 / (1 + power * scale);
}

// ---- Elements in memory ---------------------------------------------------------------------------------------------

// A unit of elements, or as many as there are, converted to the type of the computation.
template <typename S>
SIFA_INLINE void load_some(const S* from, int64_t count, Vec<typename Unit<S>::Real>* values) {
  if (count >= Unit<S>::lanes) return Unit<S>::load(from, values);
  S some[Unit<S>::lanes] = {};
  __builtin_memcpy(some, from, count * sizeof(S));
  Unit<S>::load(some, values);
}

template <typename S>
SIFA_INLINE void store_some(S* to, const Vec<typename Unit<S>::Real>* values, int64_t count) {
  if (count >= Unit<S>::lanes) return Unit<S>::store(to, values);
  S some[Unit<S>::lanes];
  Unit<S>::store(some, values);
  __builtin_memcpy(to, some, count * sizeof(S));
}

// Calls work(first, number of elements) for all units of so many elements. The number is known to the compiler, but for
// the last unit.
template <typename S, typename Work>
SIFA_INLINE void for_each_unit(int64_t count, Work work) {
  constexpr int64_t lanes = Unit<S>::lanes;
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) work(i, std::integral_constant<int64_t, lanes>());
  if (i < count) work(i, count - i);
}

// Calls block(sample, first element in a frame, number of elements) for all blocks of [begin, end), where every sample
// has the elements of one frame.
template <typename Work>
SIFA_INLINE void for_each_block(const Shape& s, int64_t begin, int64_t end, Work work) {
  for (int64_t count; begin < end; begin += count) {
    const int64_t n = begin / s.frame_size(), first = begin % s.frame_size();
    count = smaller(smaller(end - begin, s.frame_size() - first), kSaliencyBlock);
    work(n, first, count);
  }
}

// ---- Forward and backward -------------------------------------------------------------------------------------------

template <typename S>
static void saliency_forward(const Shape& s, const S* x, S* saliency, int64_t begin, int64_t end) {
  using T = typename Unit<S>::Real;
  constexpr int vectors = Unit<S>::vectors;
  for_each_block(s, begin, end, [&](int64_t n, int64_t first, int64_t count) {
    const S* frame = x + n * s.frames * s.frame_size() + first;
    S* out = saliency + n * s.pairs() * s.frame_size() + first;
    for (int64_t t = 0; t < s.pairs(); ++t, frame += s.frame_size(), out += s.frame_size()) {
      for_each_unit<S>(count, [&](int64_t i, int64_t some) {
        Vec<T> a[vectors], f[vectors];
        load_some(frame + i, some, a);
        load_some(frame + s.frame_size() + i, some, f);
        for (int v = 0; v < vectors; ++v) f[v] += sigmoid<T>(f[v] - a[v]) * f[v];
        store_some(out + i, f, some);
      });
    }
  });
}

// With g the incoming gradient, p = sigmoid(f - a) and h = g f p (1 - p): the gradient of f is g + g p + h, that of a
// is -h.
template <typename S>
static void saliency_backward(const Shape& s, const S* grad, const S* x, S* grad_x, int64_t begin, int64_t end) {
  using T = typename Unit<S>::Real;
  constexpr int vectors = Unit<S>::vectors;
  for_each_block(s, begin, end, [&](int64_t n, int64_t first, int64_t count) {
    Vec<T> as_following[kSaliencyBlock / kLanes<T>] = {};  // the gradient of the frame as the second one of a pair
    const S* frame = x + n * s.frames * s.frame_size() + first;
    const S* incoming = grad + n * s.pairs() * s.frame_size() + first;
    S* out = grad_x + n * s.frames * s.frame_size() + first;
    for (int64_t t = 0; t < s.pairs(); ++t) {
      for_each_unit<S>(count, [&](int64_t i, int64_t some) {
        Vec<T> a[vectors], f[vectors], g[vectors], *following = as_following + i / kLanes<T>;
        load_some(frame + i, some, a);
        load_some(frame + s.frame_size() + i, some, f);
        load_some(incoming + i, some, g);
        for (int v = 0; v < vectors; ++v) {
          const Vec<T> p = sigmoid<T>(f[v] - a[v]), h = g[v] * f[v] * (p * (1 - p));
          a[v] = following[v] - h;
          following[v] = g[v] + g[v] * p + h;
        }
        store_some(out + i, a, some);
      });
      frame += s.frame_size();
      incoming += s.frame_size();
      out += s.frame_size();
    }
    for_each_unit<S>(count, [&](int64_t i, int64_t some) { store_some(out + i, as_following + i / kLanes<T>, some); });
  });
}

}  // namespace sifa::SIFA_CAPABILITY
