// A group of lanes and the channels that it holds.
#pragma once

#include "problem.cuh"

namespace sifa {

// Lanes of a warp that work on one position: a power of two, at least 8. Together they hold a stretch of its channels,
// each lane some 16-byte vectors.
struct Lanes {
  int count;      // in a group
  int lane;       // of this thread in its group
  int group;      // of this thread in its block
  unsigned mask;  // the group's lanes in the warp

  __device__ explicit Lanes(int count) : count(count) {
    const int thread = int(threadIdx.x);
    lane = thread & (count - 1);
    group = thread / count;
    mask = count == 32 ? 0xffffffffu : ((1u << count) - 1) << (thread & 31 & ~(count - 1));
  }

  // The sum over the group, in every lane of it.
  template <typename A>
  __device__ __forceinline__ A sum(A value) const {
    value += __shfl_xor_sync(mask, value, 1);
    value += __shfl_xor_sync(mask, value, 2);
    value += __shfl_xor_sync(mask, value, 4);
    if (count > 8) value += __shfl_xor_sync(mask, value, 8);
    if (count > 16) value += __shfl_xor_sync(mask, value, 16);
    return value;
  }

  // The value that lane `other` of the group has.
  template <typename A>
  __device__ __forceinline__ A from(A value, int other) const {
    return __shfl_sync(mask, value, other, count);
  }

  // Eight sums over the group at once: lane i returns sum i % 8. Each step halves the values a lane has to carry, so
  // it takes 7 shuffles and one for each doubling beyond 8 lanes, where eight sums apart would take 24 and 8.
  template <typename A>
  __device__ __forceinline__ A eight_sums(const A (&value)[8]) const {
    A four[4], two[2];
    const bool odd = lane & 1, upper = lane & 2, last = lane & 4;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const A given = odd ? value[2 * i] : value[2 * i + 1];
      four[i] = (odd ? value[2 * i + 1] : value[2 * i]) + __shfl_xor_sync(mask, given, 1);
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const A given = upper ? four[2 * i] : four[2 * i + 1];
      two[i] = (upper ? four[2 * i + 1] : four[2 * i]) + __shfl_xor_sync(mask, given, 2);
    }
    A one = (last ? two[1] : two[0]) + __shfl_xor_sync(mask, last ? two[0] : two[1], 4);
    if (count > 8) one += __shfl_xor_sync(mask, one, 8);
    if (count > 16) one += __shfl_xor_sync(mask, one, 16);
    return one;
  }
};

// Channels [from, from + Vectors * lanes * Width) of a head, as one group of lanes holds them: vector v of lane l
// starts at from + (v * lanes + l) * Width.
template <typename S, int Width, int Vectors>
struct Stretch {
  using A = Accumulator<S>;
  A value[Vectors][Width];

  static __device__ __forceinline__ int channel(const Lanes& lanes, int v) {
    return (v * lanes.count + lanes.lane) * Width;
  }
  static __device__ __forceinline__ int size(const Lanes& lanes) { return Vectors * lanes.count * Width; }

  __device__ __forceinline__ void zero() {
#pragma unroll
    for (int v = 0; v < Vectors; ++v) fill_zero(value[v]);
  }

  // Channels at and beyond `end` are zero.
  __device__ __forceinline__ void read(const S* from, int end, const Lanes& lanes) {
#pragma unroll
    for (int v = 0; v < Vectors; ++v) {
      const int c = channel(lanes, v);
      if (c < end)
        load(from + c, value[v]);
      else
        fill_zero(value[v]);
    }
  }

  __device__ __forceinline__ void write(S* to, int end, const Lanes& lanes) const {
#pragma unroll
    for (int v = 0; v < Vectors; ++v)
      if (channel(lanes, v) < end) store(to + channel(lanes, v), value[v]);
  }

  // The bilinear sample of `keys` (channel `from` of pixel 0).
  __device__ __forceinline__ void sample(const S* keys, int end, const Lanes& lanes, const Problem& p,
                                         const Sample<A>& tap) {
#pragma unroll
    for (int v = 0; v < Vectors; ++v) {
      const int c = channel(lanes, v);
      A pixel[4][Width];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (tap.reads(i) && c < end)
          load(keys + tap.element(i, p) + c, pixel[i]);
        else
          fill_zero(pixel[i]);
      }
#pragma unroll
      for (int e = 0; e < Width; ++e)
        value[v][e] = (tap.weight(0) * pixel[0][e] + tap.weight(1) * pixel[1][e]) +
                      (tap.weight(2) * pixel[2][e] + tap.weight(3) * pixel[3][e]);
    }
  }

  // This lane's part of the dot product.
  template <typename Other>
  __device__ __forceinline__ A dot(const Other& other) const {
    A sum = 0;
#pragma unroll
    for (int v = 0; v < Vectors; ++v)
#pragma unroll
      for (int e = 0; e < Width; ++e) sum += value[v][e] * other.at(v, e);
    return sum;
  }
  __device__ __forceinline__ A at(int v, int e) const { return value[v][e]; }

  __device__ __forceinline__ void add(A factor, const Stretch& other) {
#pragma unroll
    for (int v = 0; v < Vectors; ++v)
#pragma unroll
      for (int e = 0; e < Width; ++e) value[v][e] += factor * other.value[v][e];
  }
};

// The same as it is stored, in half the registers for a half type. For reading only.
template <typename S, int Width, int Vectors>
struct StoredStretch {
  Pack<S, Width> value[Vectors];

  __device__ __forceinline__ void read(const S* from, int end, const Lanes& lanes) {
#pragma unroll
    for (int v = 0; v < Vectors; ++v) {
      const int c = Stretch<S, Width, Vectors>::channel(lanes, v);
      if (c < end) {
        value[v] = *reinterpret_cast<const Pack<S, Width>*>(from + c);
      } else {
#pragma unroll
        for (int e = 0; e < Width; ++e) value[v].value[e] = narrow<S>(0);
      }
    }
  }
  __device__ __forceinline__ Accumulator<S> at(int v, int e) const { return widen(value[v].value[e]); }
};

// This lane's part of the dot product of two vectors of `channels` channels in memory.
template <typename S, int Width>
__device__ __forceinline__ Accumulator<S> dot_in_memory(const S* a, const S* b, int channels, const Lanes& lanes) {
  using Part = Stretch<S, Width, 1>;
  Accumulator<S> sum = 0;
  for (int from = 0; from < channels; from += Part::size(lanes)) {
    Part left, right;
    left.read(a + from, channels - from, lanes);
    right.read(b + from, channels - from, lanes);
    sum += left.dot(right);
  }
  return sum;
}

}  // namespace sifa
