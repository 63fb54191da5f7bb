// The parts of CUDA that the kernels in cuda_sifa/csrc/cuda use, for g++ and the CPU. Replaces the header of the same
// name. Every thread of a block is a fibre.
#pragma once

#include <algorithm>
#include <atomic>
#include <climits>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <type_traits>
#include <utility>

#include "fibres.h"

#ifndef __CUDA_ARCH__
#define __CUDA_ARCH__ 900
#endif
#define __host__
#define __device__
#define __global__
#define __shared__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))

// ---- Types ----------------------------------------------------------------------------------------------------------

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
struct alignas(8) float2 {
  float x, y;
};
inline float2 make_float2(float x, float y) { return {x, y}; }

struct __half {
  _Float16 value;
};
struct __nv_bfloat16 {
  uint16_t bits;
};
inline float __half2float(__half half) { return float(half.value); }
inline __half __float2half_rn(float value) { return {_Float16(value)}; }
inline float __bfloat162float(__nv_bfloat16 value) {
  const uint32_t bits = uint32_t(value.bits) << 16;
  float result;
  std::memcpy(&result, &bits, 4);
  return result;
}
inline float __uint_as_float(uint32_t bits) {
  float result;
  std::memcpy(&result, &bits, 4);
  return result;
}
inline __nv_bfloat16 __float2bfloat16_rn(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  if (value != value) return {0x7fff};
  return {uint16_t((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16)};  // to nearest, ties to even
}

// ---- Threads of a block ---------------------------------------------------------------------------------------------

#define threadIdx (uint3{unsigned(emulation::block.current), 0, 0})
inline uint3 blockIdx;
inline dim3 gridDim;

inline void __syncthreads() { emulation::block_barrier(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { emulation::warp_barrier(mask); }
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int with) {
  return emulation::shuffle(mask, 2, value, (emulation::block.current % 32) ^ with);
}
template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  return emulation::shuffle(mask, 3, value, (emulation::block.current % 32 & ~(width - 1)) + (source & (width - 1)));
}
inline int __all_sync(unsigned mask, int value) {
  const emulation::Fibre& me = emulation::exchange(mask, 4, value != 0);
  for (int i = 0; i < 32; ++i)
    if ((mask >> i & 1) && !me.received[i][0]) return 0;
  return 1;
}
using std::exp;
inline float __expf(float value) { return std::exp(value); }
inline float __fdividef(float a, float b) { return a / b; }
using std::max;
using std::min;
inline int __popc(unsigned value) { return __builtin_popcount(value); }
inline int __popcll(unsigned long long value) { return __builtin_popcountll(value); }
inline int __ffs(unsigned value) { return __builtin_ffs(int(value)); }

// Atomic for the thread sanitizer too.
template <typename T>
T atomicAdd(T* to, T value) {
  return std::atomic_ref<T>(*to).fetch_add(value, std::memory_order_relaxed);
}
inline float4 atomicAdd(float4* to, float4 value) {
  if (reinterpret_cast<uintptr_t>(to) % 16) emulation::fail("atomicAdd of a float4 that is not aligned");
  return {atomicAdd(&to->x, value.x), atomicAdd(&to->y, value.y), atomicAdd(&to->z, value.z),
          atomicAdd(&to->w, value.w)};
}
inline unsigned atomicOr(unsigned* to, unsigned value) {
  return std::atomic_ref<unsigned>(*to).fetch_or(value, std::memory_order_relaxed);
}

// ---- Launch ---------------------------------------------------------------------------------------------------------

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInvalidConfiguration = 9 };
using cudaStream_t = struct CUstream_st*;
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
};

#if defined(SIFA_PTX)
namespace emulation {
// Not by fibres: ptx/host.cpp executes the PTX of the kernel.
cudaError_t launch_compiled(const void* kernel, const cudaLaunchConfig_t& config, void** arguments);
}  // namespace emulation
#endif

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  using emulation::block;
  const unsigned threads = config->blockDim.x;
  if (config->gridDim.x < 1 || threads < 1 || threads > 1024 || threads % 32 ||
      config->dynamicSmemBytes > emulation::shared_limit)
    return cudaErrorInvalidConfiguration;
  ++emulation::launches;
#if defined(SIFA_PTX)
  static_assert((std::is_same_v<Parameters, std::decay_t<Arguments>> && ...), "PTX needs the kernel's own types");
  void* addresses[] = {const_cast<void*>(static_cast<const void*>(&arguments))...};
  return emulation::launch_compiled(reinterpret_cast<const void*>(kernel), *config, addresses);
#endif
  gridDim = dim3(std::min(config->gridDim.x, emulation::max_blocks));
  block.kernel = [&] { kernel(arguments...); };
  // Blocks in ascending order, or from the last to the first.
  for (unsigned i = 0; i < gridDim.x; ++i) {
    blockIdx = {emulation::order == 1 ? gridDim.x - 1 - i : i, 0, 0};
    emulation::prepare_shared(config->dynamicSmemBytes);
    emulation::run_block(int(threads));
    ++emulation::blocks_run;
  }
  return cudaSuccess;
}
