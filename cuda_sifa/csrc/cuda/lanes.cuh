// A group of lanes that works on one position, and the channels that the group holds in registers.
#pragma once

#include "problem.cuh"

namespace sifa {

constexpr unsigned kWarp = 0xffffffffu;

// The lanes of a warp that work on one position: a power of two, at least 8. Together they hold a range of its
// channels, each lane some 16-byte vectors. Count: the number of lanes if the kernel knows it when it is compiled, else
// 0.
//
// The groups of a warp stay together: every lane of the warp takes part in every shuffle. A mask that is unknown to the
// compiler costs several instructions for each shuffle.
template <int Count = 0>
class Lanes {
 public:
  const int lane;  // of this thread in its group

  __device__ __forceinline__ explicit Lanes(int lane_count)
      : lane(int(threadIdx.x) & ((Count ? Count : lane_count) - 1)), count_(lane_count) {}

  __device__ __forceinline__ int count() const { return Count ? Count : count_; }

  // Calls work(item, active) for the items 0 to items - 1, one for each group of the block. A group without an item
  // repeats the last one with `active` false, and must write nothing.
  template <typename Work>
  __device__ __forceinline__ void for_each(int items, const Work& work) const {
    const int in_warp = int(threadIdx.x) % 32 / count();
    for (int first = int(threadIdx.x) / 32 * (32 / count()); first < items; first += kThreads / count()) {
      const int item = first + in_warp;
      if constexpr (Count == 32)
        work(item, true);
      else
        work(min(item, items - 1), item < items);
    }
  }

  // The largest value among the groups of the warp.
  __device__ __forceinline__ int most(int value) const {
    if (count() < 32) value = max(value, __shfl_xor_sync(kWarp, value, 16));
    if (count() < 16) value = max(value, __shfl_xor_sync(kWarp, value, 8));
    return value;
  }

  // The values of the lanes of the group, joined by join(a, b), in every lane of it.
  template <typename T, typename Join>
  __device__ __forceinline__ T joined(T value, const Join& join) const {
    value = join(value, __shfl_xor_sync(kWarp, value, 1));
    value = join(value, __shfl_xor_sync(kWarp, value, 2));
    value = join(value, __shfl_xor_sync(kWarp, value, 4));
    if (count() > 8) value = join(value, __shfl_xor_sync(kWarp, value, 8));
    if (count() > 16) value = join(value, __shfl_xor_sync(kWarp, value, 16));
    return value;
  }

  // The sum over the group, in every lane of it.
  template <typename A>
  __device__ __forceinline__ A sum(A value) const {
    return joined(value, [](A a, A b) { return a + b; });
  }

  // The value that lane `other` of the group has.
  template <typename A>
  __device__ __forceinline__ A from(A value, int other) const {
    return __shfl_sync(kWarp, value, other, count());
  }

  // Eight sums over the group at once: lane i returns sum i % 8. Each step halves the number of values in a lane, so it
  // takes 7 shuffles, and one more for each doubling beyond 8 lanes. Eight separate sums would take 24, and 8 more.
  template <typename A>
  __device__ __forceinline__ A eight_sums(const A (&value)[8]) const {
    A four[4], two[2];
    const bool odd = lane & 1, upper = lane & 2, last = lane & 4;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const A given = odd ? value[2 * i] : value[2 * i + 1];
      four[i] = (odd ? value[2 * i + 1] : value[2 * i]) + __shfl_xor_sync(kWarp, given, 1);
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const A given = upper ? four[2 * i] : four[2 * i + 1];
      two[i] = (upper ? four[2 * i + 1] : four[2 * i]) + __shfl_xor_sync(kWarp, given, 2);
    }
    A one = (last ? two[1] : two[0]) + __shfl_xor_sync(kWarp, last ? two[0] : two[1], 4);
    if (count() > 8) one += __shfl_xor_sync(kWarp, one, 8);
    if (count() > 16) one += __shfl_xor_sync(kWarp, one, 16);
    return one;
  }

 private:
  const int count_;
};

// Channels [from, from + Vectors * lanes * Width) of a head, as one group of lanes holds them: vector v of lane l
// starts at from + (v * lanes + l) * Width.
template <typename S, int Width, int Vectors>
struct Stretch {
  using A = Accumulator<S>;
  A value[Vectors][Width];

  template <typename L>
  static __device__ __forceinline__ int channel(const L& lanes, int v) {
    return (v * lanes.count() + lanes.lane) * Width;
  }
  template <typename L>
  static __device__ __forceinline__ int size(const L& lanes) {
    return Vectors * lanes.count() * Width;
  }

  __device__ __forceinline__ void zero() {
#pragma unroll
    for (int v = 0; v < Vectors; ++v) fill_zero(value[v]);
  }

  // Channels at and beyond `end` are zero.
  template <typename L>
  __device__ __forceinline__ void read(const S* from, int end, const L& lanes) {
#pragma unroll
    for (int v = 0; v < Vectors; ++v) {
      const int c = channel(lanes, v);
      if (c < end)
        load(from + c, value[v]);
      else
        fill_zero(value[v]);
    }
  }

  // The same without a branch for each vector: a vector at or beyond `end` repeats the first channels. Its values must
  // not be used.
  template <typename L>
  __device__ __forceinline__ void read_some(const S* from, int end, const L& lanes) {
#pragma unroll
    for (int v = 0; v < Vectors; ++v) load(from + (channel(lanes, v) < end ? channel(lanes, v) : 0), value[v]);
  }

  template <typename L>
  __device__ __forceinline__ void write(S* to, int end, const L& lanes) const {
#pragma unroll
    for (int v = 0; v < Vectors; ++v)
      if (channel(lanes, v) < end) store(to + channel(lanes, v), value[v]);
  }

  // The bilinear sample of `keys` (channel `from` of pixel 0).
  template <typename L>
  __device__ __forceinline__ void sample(const S* keys, int end, const L& lanes, const Problem& p,
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

  template <typename Other>
  __device__ __forceinline__ void add(const Other& other) {
#pragma unroll
    for (int v = 0; v < Vectors; ++v)
#pragma unroll
      for (int e = 0; e < Width; ++e) value[v][e] += other.at(v, e);
  }

  __device__ __forceinline__ void add(A factor, const Stretch& other) {
#pragma unroll
    for (int v = 0; v < Vectors; ++v)
#pragma unroll
      for (int e = 0; e < Width; ++e) value[v][e] += factor * other.value[v][e];
  }
};

// The same channels as they are stored: half precision takes half the registers. Read only.
template <typename S, int Width, int Vectors>
struct StoredStretch {
  Pack<S, Width> value[Vectors];

  template <typename L>
  __device__ __forceinline__ void read(const S* from, int end, const L& lanes) {
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
  __device__ __forceinline__ Accumulator<S> at(int v, int e) const { return element_of(value[v], e); }
};

// This lane's part of the dot product of `channels` channels at two places in memory.
template <typename S, int Width, typename L>
__device__ __forceinline__ Accumulator<S> dot_in_memory(const S* a, const S* b, int channels, const L& lanes) {
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
