// What the CPU ops share: the kernels for this processor, how a tensor is stored, and how much work a thread is worth.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <string>
#include <type_traits>

#include "../tensor.h"
#include "kernel.h"

namespace sifa {

enum class Capability { Baseline, Avx2, Avx512 };

// The instruction set of the kernels, selected when the library runs, not when it is built: the best that this
// processor has, or a lower one that ATEN_CPU_CAPABILITY=default|avx2|avx512 names, as for PyTorch's own kernels.
inline Capability capability() {
  Capability best = Capability::Baseline;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
      __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt"))
    best = Capability::Avx2;
  if (best == Capability::Avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    best = Capability::Avx512;
#endif
  const char* named = std::getenv("ATEN_CPU_CAPABILITY");
  const std::string wanted = named ? named : "";
  if (wanted == "default") return Capability::Baseline;
  if (wanted == "avx2") return std::min(best, Capability::Avx2);
  return best;
}

template <typename Acc>
const Kernels<Acc>& kernels() {
  static const Capability selected = capability();
  constexpr bool single = std::is_same_v<Acc, float>;
#if defined(__x86_64__)
  if (selected == Capability::Avx512) {
    if constexpr (single)
      return avx512::kernels_float;
    else
      return avx512::kernels_double;
  }
  if (selected == Capability::Avx2) {
    if constexpr (single)
      return avx2::kernels_float;
    else
      return avx2::kernels_double;
  }
#endif
  if constexpr (single)
    return baseline::kernels_float;
  else
    return baseline::kernels_double;
}

inline Storage storage_of(const Tensor& tensor) {
  switch (dtype_of(tensor)) {
    case Dtype::Double:
      return Storage::Double;
    case Dtype::Half:
      return Storage::Half;
    case Dtype::BFloat16:
      return Storage::BFloat16;
    default:
      return Storage::Float;
  }
}

// The grain size of parallel_for: how many items, of so many multiply-adds each, are worth one more thread.
inline int64_t grain_size(int64_t multiply_adds) { return 1 + 100'000 / (multiply_adds + 1); }

}  // namespace sifa
