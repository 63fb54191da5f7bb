// The parts of CUDA that the kernels in cuda_sifa/csrc/cuda use, for g++ and the CPU. Replaces the header of the same
// name. Every thread of a block is a fibre. A fibre waits at a barrier or a shuffle until all fibres of the block or of
// the warp have reached it; a block in which no fibre can continue is an error. Between two barriers the fibres run one
// after the other, in an order that the caller selects, so a missing barrier causes a wrong result.
#pragma once

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#include <algorithm>
#include <climits>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <type_traits>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

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

// ---- Fibres ---------------------------------------------------------------------------------------------------------

namespace emulation {

[[noreturn]] inline void fail(const char* what) {
  std::fprintf(stderr, "emulation: %s\n", what);
  std::fflush(stderr);
  std::abort();
}

enum class Waits { No, Block, Warp };

// Where a fibre continues: a stack pointer. On processors without the lines of assembly below, the context of
// ucontext.h, which is slower because it reads the signal mask at every switch.
#if defined(__x86_64__)
struct Context {
  void* stack_pointer;
};
extern "C" void emulation_switch(Context* from, const Context* to);
asm(R"(
.text
.weak emulation_switch
emulation_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq (%rsi), %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");
inline void start(Context& context, unsigned char* stack, size_t size, void (*entry)()) {
  void** top = reinterpret_cast<void**>(reinterpret_cast<uintptr_t>(stack + size) & ~uintptr_t(15));
  top -= 2;  // as after a call, the stack is 8 bytes off a multiple of 16 when `entry` begins
  *top = reinterpret_cast<void*>(entry);
  context.stack_pointer = std::memset(top - 6, 0, 6 * sizeof(void*));
}
inline void change(Context& from, Context& to) { emulation_switch(&from, &to); }
#else
using Context = ucontext_t;
inline void start(Context& context, unsigned char* stack, size_t size, void (*entry)()) {
  getcontext(&context);
  context.uc_stack.ss_sp = stack;
  context.uc_stack.ss_size = size;
  context.uc_link = nullptr;
  makecontext(&context, entry, 0);
}
inline void change(Context& from, Context& to) { swapcontext(&from, &to); }
#endif

struct Fibre {
  Context context;
  std::unique_ptr<unsigned char[]> stack;
  uint3 thread;
  bool done;
  Waits waits;
  // The exchange of a warp: the value of this lane, and, when all lanes of `mask` have arrived, the values of all
  // lanes.
  unsigned mask;
  int kind;
  alignas(16) unsigned char given[16];
  alignas(16) unsigned char received[32][16];
};

constexpr size_t kStack = 256 * 1024;

// The block that is running.
struct Block {
  std::vector<Fibre> fibres;
  Context scheduler;
  std::function<void()> kernel;
  int current = 0;
  bool moved = false;
#if defined(__SANITIZE_ADDRESS__)
  void* scheduler_fake = nullptr;
  const void* scheduler_stack = nullptr;
  size_t scheduler_size = 0;
#endif
};
inline Block block;
inline std::mt19937 order_random;
inline int order = 0;                      // 0: ascending, 1: descending, 2: random, different in each round
inline unsigned max_blocks = 0xffffffffu;  // limits the grid: kernels continue with step gridDim.x
inline long launches = 0, blocks_run = 0;

inline Fibre& self() { return block.fibres[size_t(block.current)]; }

inline void to_scheduler(bool forever) {
  Fibre& fibre = self();
#if defined(__SANITIZE_ADDRESS__)
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(forever ? nullptr : &fake, block.scheduler_stack, block.scheduler_size);
#endif
  change(fibre.context, block.scheduler);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake, &block.scheduler_stack, &block.scheduler_size);
#endif
}

inline void fibre_main() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &block.scheduler_stack, &block.scheduler_size);
#endif
  block.kernel();
  self().done = true;
  to_scheduler(true);
}

inline void to_fibre(int index) {
  block.current = index;
  Fibre& fibre = self();
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&block.scheduler_fake, fibre.stack.get(), kStack);
#endif
  change(block.scheduler, fibre.context);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(block.scheduler_fake, nullptr, nullptr);
#endif
}

inline void run_block(int threads) {
  if (int(block.fibres.size()) < threads) block.fibres.resize(size_t(threads));
  for (int i = 0; i < threads; ++i) {
    Fibre& fibre = block.fibres[size_t(i)];
    if (!fibre.stack) fibre.stack.reset(new unsigned char[kStack]);
    start(fibre.context, fibre.stack.get(), kStack, fibre_main);
    fibre.thread = {unsigned(i), 0, 0};
    fibre.done = false;
    fibre.waits = Waits::No;
  }
  std::vector<int> turns(static_cast<size_t>(threads));
  for (int i = 0; i < threads; ++i) turns[size_t(i)] = order == 1 ? threads - 1 - i : i;
  for (;;) {
    if (order == 2) std::shuffle(turns.begin(), turns.end(), order_random);
    bool running = false;
    block.moved = false;
    for (int i : turns) {
      Fibre& fibre = block.fibres[size_t(i)];
      if (fibre.done || fibre.waits != Waits::No) continue;
      block.moved = running = true;
      to_fibre(i);
    }
    int left = 0, at_barrier = 0;
    for (int i = 0; i < threads; ++i) {
      left += !block.fibres[size_t(i)].done;
      at_barrier += block.fibres[size_t(i)].waits == Waits::Block;
    }
    if (left == 0) return;
    if (at_barrier == left) {
      if (left != threads) fail("a thread ended before a barrier at which others wait");
      for (int i = 0; i < threads; ++i) block.fibres[size_t(i)].waits = Waits::No;
    } else if (!running) {
      fail("no thread of the block can continue: not all threads reach a barrier or a shuffle");
    }
  }
}

// Exchanges `value` among the lanes of `mask`. Returns the fibre, which has received the values of all lanes.
template <typename T>
const Fibre& exchange(unsigned mask, int kind, T value) {
  static_assert(sizeof(T) <= 16);
  Fibre& me = self();
  const int first = block.current / 32 * 32, lane = block.current % 32;
  if (!(mask >> lane & 1)) fail("a lane shuffles with a mask that does not contain it");
  me.mask = mask;
  me.kind = kind;
  std::memcpy(me.given, &value, sizeof(T));
  me.waits = Waits::Warp;
  bool all = true;
  for (int i = 0; i < 32; ++i) {
    if (!(mask >> i & 1)) continue;
    const Fibre& other = block.fibres[size_t(first + i)];
    if (other.done) fail("the mask of a shuffle contains a lane that has ended");
    if (other.waits == Waits::Warp && (other.mask != mask || other.kind != kind))
      fail("lanes of one warp meet in different shuffles");
    all = all && other.waits == Waits::Warp;
  }
  if (!all) {
    to_scheduler(false);
    return self();
  }
  for (int i = 0; i < 32; ++i) {
    if (!(mask >> i & 1)) continue;
    Fibre& other = block.fibres[size_t(first + i)];
    for (int j = 0; j < 32; ++j)
      if (mask >> j & 1) std::memcpy(other.received[j], block.fibres[size_t(first + j)].given, 16);
    other.waits = Waits::No;
  }
  return me;
}

template <typename T>
T shuffle(unsigned mask, int kind, T value, int source) {
  if (!(mask >> source & 1)) fail("a shuffle reads a lane that is not in its mask");
  const Fibre& me = exchange(mask, kind, value);
  T result;
  std::memcpy(&result, me.received[source], sizeof(T));
  return result;
}

inline size_t shared_limit = 48 * 1024;
void prepare_shared(size_t bytes);  // the program defines it: the array is in the namespace of the kernels

}  // namespace emulation

#define threadIdx (emulation::self().thread)
inline uint3 blockIdx;
inline dim3 gridDim;

inline void __syncthreads() {
  emulation::self().waits = emulation::Waits::Block;
  emulation::to_scheduler(false);
}
inline void __syncwarp(unsigned mask = 0xffffffffu) { emulation::exchange(mask, 1, 0); }
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

template <typename T>
T atomicAdd(T* to, T value) {
  const T before = *to;
  *to = before + value;
  return before;
}
inline float4 atomicAdd(float4* to, float4 value) {
  if (reinterpret_cast<uintptr_t>(to) % 16) emulation::fail("atomicAdd of a float4 that is not aligned");
  const float4 before = *to;
  *to = {before.x + value.x, before.y + value.y, before.z + value.z, before.w + value.w};
  return before;
}
inline unsigned atomicOr(unsigned* to, unsigned value) {
  const unsigned before = *to;
  *to = before | value;
  return before;
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
