// The CPU kernels: the method, and their entry points. kernel_<capability>.cpp includes this file, once for each
// instruction set.
//
// One position p of frame t attends to k*k taps of frame t+1. Each tap is a weighted sum of the four pixels (corners)
// around its sampling point, and neighbouring taps share corners. So the work on channels is done once for each
// DISTINCT pixel of the neighbourhood, not once for each tap or corner. With q the query, v_u the distinct pixels, w_ju
// the bilinear weight of pixel u in tap j and s = groups / C:
//
//   forward    a_u = <q, v_u>          d_j = s * sum_u w_ju a_u         out = sum_u (sum_j w_ju d_j) v_u
//   backward   b_u = <g, v_u>          e_j = s * sum_u w_ju b_u         g is the incoming gradient
//              c_u = sum_j w_ju d_j    h_u = sum_j w_ju e_j         (forward: out = sum_u c_u v_u)
//              grad_q = sum_u h_u v_u          grad_v_u += c_u g + h_u q
//              grad_offset_j = sum_u dw_ju (d_j b_u + e_j a_u)
//
// The forward pass reads the pixels twice, with one multiply-add for each element; the backward pass reads them twice,
// with two and with three multiply-adds. The forward pass of heads with few channels works differently: small_heads.h.
#pragma once

#include "arena.h"
#include "backward_pass.h"
#include "forward_pass.h"
#include "saliency.h"
#include "storage.h"

namespace sifa::SIFA_CAPABILITY {

// Calls `use` with a value of the types S and K (see storage.h). Half is converted to float before, because about
// twenty positions read every key. So is BFloat16 if a head is not a whole number of units.
template <typename T, typename Use>
static auto with_types(const Shape& s, Use use) {
  if constexpr (std::is_same_v<T, float>) {
    if (s.storage == Storage::Half) return use(Half{}, float{});
    if (s.storage == Storage::BFloat16) {
      if (s.channels / s.groups % Unit<BFloat16>::lanes != 0) return use(BFloat16{}, float{});
      return use(BFloat16{}, BFloat16{});
    }
  }
  return use(T{}, T{});
}

// The arrays of `Scratch` in `memory`, which has as many bytes as scratch_entry() returns.
template <typename Scratch>
static Scratch allocated(void* memory, const Shape& s) {
  Arena arena{static_cast<char*>(memory)};
  Scratch scratch;
  scratch.allocate(s, arena);
  return scratch;
}

template <typename T>
static int64_t scratch_entry(const Shape& s, bool backward) {
  return with_types<T>(s, [&](auto storage, auto key) {
    using S = decltype(storage);
    using K = decltype(key);
    Arena arena{nullptr};
    if (backward)
      BackwardScratch<S, K>().allocate(s, arena);
    else
      ForwardScratch<S, K>().allocate(s, arena);
    return arena.used;
  });
}

template <typename T>
static void forward_entry(const Shape& s, const ForwardArgs& args, int64_t begin, int64_t end, void* memory) {
  with_types<T>(s, [&](auto storage, auto key) {
    auto scratch = allocated<ForwardScratch<decltype(storage), decltype(key)>>(memory, s);
    forward_positions(s, args, begin, end, scratch);
  });
}

template <typename T>
static void backward_entry(const Shape& s, const BackwardArgs& args, int64_t begin, int64_t end, void* memory) {
  with_types<T>(s, [&](auto storage, auto key) {
    auto scratch = allocated<BackwardScratch<decltype(storage), decltype(key)>>(memory, s);
    backward_pairs(s, args, begin, end, scratch);
  });
}

// Calls `use` with the type that x is stored as.
template <typename T, typename Use>
static void with_storage(const Shape& s, Use use) {
  if constexpr (std::is_same_v<T, float>) {
    if (s.storage == Storage::Half) return use(Half{});
    if (s.storage == Storage::BFloat16) return use(BFloat16{});
  }
  use(T{});
}

template <typename T>
static void saliency_entry(const Shape& s, const void* x, void* saliency, int64_t begin, int64_t end) {
  with_storage<T>(s, [&](auto storage) {
    using S = decltype(storage);
    saliency_forward(s, static_cast<const S*>(x), static_cast<S*>(saliency), begin, end);
  });
}

template <typename T>
static void saliency_backward_entry(const Shape& s, const void* grad, const void* x, void* grad_x, int64_t begin,
                                    int64_t end) {
  with_storage<T>(s, [&](auto storage) {
    using S = decltype(storage);
    saliency_backward(s, static_cast<const S*>(grad), static_cast<const S*>(x), static_cast<S*>(grad_x), begin, end);
  });
}

extern const Kernels<float> kernels_float;
extern const Kernels<double> kernels_double;
template <typename T>
constexpr Kernels<T> kEntries{scratch_entry<T>, forward_entry<T>, backward_entry<T>, saliency_entry<T>,
                              saliency_backward_entry<T>};
const Kernels<float> kernels_float = kEntries<float>;
const Kernels<double> kernels_double = kEntries<double>;

}  // namespace sifa::SIFA_CAPABILITY
