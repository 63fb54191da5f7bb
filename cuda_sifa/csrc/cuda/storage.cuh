// How values are stored and how they are computed with: vectors of 16 bytes in the storage type, sums in float or
// double.
#pragma once

#include <cstdint>
#include <type_traits>

namespace sifa {

template <typename S>
struct AccumulatorOf {
  using type = float;
};
template <>
struct AccumulatorOf<double> {
  using type = double;
};
template <typename S>
using Accumulator = typename AccumulatorOf<S>::type;

// Elements in a 16-byte vector.
template <typename S>
constexpr int kWidth = 16 / int(sizeof(S));

// How many accumulators one instruction moves, out of the `Width` that belong to one stored vector.
template <typename A, int Width>
constexpr int kStored = Width < kWidth<A> ? Width : kWidth<A>;

__device__ __forceinline__ double widen(double value) { return value; }
__device__ __forceinline__ float widen(float value) { return value; }
__device__ __forceinline__ float widen(__half value) { return __half2float(value); }
__device__ __forceinline__ float widen(__nv_bfloat16 value) { return __bfloat162float(value); }

template <typename S>
__device__ __forceinline__ S narrow(Accumulator<S> value) {
  return value;
}
template <>
__device__ __forceinline__ __half narrow<__half>(float value) {
  return __float2half_rn(value);
}
template <>
__device__ __forceinline__ __nv_bfloat16 narrow<__nv_bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}

// `Width` consecutive elements in memory, moved by one instruction. The address is a multiple of their size.
template <typename S, int Width>
struct alignas(sizeof(S) * Width) Pack {
  S value[Width];
};

// An element of a pack. A bfloat16 is the upper half of a float, so one instruction converts it from a whole word.
template <typename S, int Width>
__device__ __forceinline__ Accumulator<S> element_of(const Pack<S, Width>& pack, int i) {
  if constexpr (std::is_same_v<S, __nv_bfloat16> && Width % 2 == 0) {
    const unsigned word = reinterpret_cast<const unsigned*>(pack.value)[i / 2];
    return __uint_as_float(i % 2 ? word & 0xffff0000u : word << 16);
  } else {
    return widen(pack.value[i]);
  }
}

template <int Width, typename S, typename A>
__device__ __forceinline__ void load(const S* from, A (&to)[Width]) {
  const Pack<S, Width> pack = *reinterpret_cast<const Pack<S, Width>*>(from);
#pragma unroll
  for (int i = 0; i < Width; ++i) to[i] = element_of(pack, i);
}

template <int Width, typename S, typename A>
__device__ __forceinline__ void store(S* to, const A (&from)[Width]) {
  Pack<S, Width> pack;
#pragma unroll
  for (int i = 0; i < Width; ++i) pack.value[i] = narrow<S>(from[i]);
  *reinterpret_cast<Pack<S, Width>*>(to) = pack;
}

template <int Width, typename A>
__device__ __forceinline__ void fill_zero(A (&values)[Width]) {
#pragma unroll
  for (int i = 0; i < Width; ++i) values[i] = 0;
}

// Adds to memory while other threads may add to it too. From compute capability 9.0 on, four floats at once.
template <int Width, typename A>
__device__ __forceinline__ void add_atomically(A* to, const A (&values)[Width]) {
  int i = 0;
#if __CUDA_ARCH__ >= 900
  if constexpr (sizeof(A) == 4 && Width % 4 == 0) {
#pragma unroll
    for (; i < Width; i += 4)
      atomicAdd(reinterpret_cast<float4*>(to + i), make_float4(values[i], values[i + 1], values[i + 2], values[i + 3]));
  }
#endif
#pragma unroll
  for (; i < Width; ++i) atomicAdd(to + i, values[i]);
}

}  // namespace sifa
