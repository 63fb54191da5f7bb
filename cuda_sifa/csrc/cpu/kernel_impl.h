// The CPU kernels: the method, and their entry points. kernel_<capability>.cpp includes this file, once for each
// instruction set.
//
// One position p of frame t attends to k*k taps of frame t+1; each tap is a weighted sum of the four pixels (corners)
// around its sampling point, and neighbouring taps share corners. So the work on channels is done once for each
// DISTINCT pixel ("cell") of the neighbourhood, not once for each tap or corner. With q the query, v_u the distinct
// pixels, w_ju the bilinear weight of pixel u in tap j and s = groups / C:
//
//   forward    a_u = <q, v_u>          d_j = s * sum_u w_ju a_u         out = sum_u (sum_j w_ju d_j) v_u
//   backward   b_u = <g, v_u>          e_j = s * sum_u w_ju b_u         g the incoming gradient
//              c_u = sum_j w_ju d_j    h_u = sum_j w_ju e_j         (forward: out = sum_u c_u v_u)
//              grad_q = sum_u h_u v_u          grad_v_u += c_u g + h_u q
//              grad_offset_j = sum_u dw_ju (d_j b_u + e_j a_u)
//
// Two passes over the cells with one multiply-add an element forward, and two passes with two and three backward. Heads
// of few channels go forward another way, tap by tap: attend_in_registers.
#pragma once

#include "backward_pass.h"
#include "forward_pass.h"

namespace sifa::SIFA_CAPABILITY {

// Calls `use` with what x is stored as and what is computed on. Half is widened beforehand, since some twenty positions
// read every key, and so is BFloat16 where heads are no whole number of units.
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

template <typename Scratch>
static Scratch laid_in(void* memory, const Shape& s) {
  Arena arena{static_cast<char*>(memory)};
  Scratch scratch;
  scratch.take(s, arena);
  return scratch;
}

template <typename T>
static int64_t scratch_entry(const Shape& s, bool backward) {
  return with_types<T>(s, [&](auto stored, auto key) {
    using S = decltype(stored);
    using K = decltype(key);
    Arena arena{nullptr};
    if (backward)
      BackwardScratch<S, K>().take(s, arena);
    else
      ForwardScratch<S, K>().take(s, arena);
    return arena.used;
  });
}

template <typename T>
static void forward_entry(const Shape& s, const ForwardArgs& args, int64_t begin, int64_t end, void* memory) {
  with_types<T>(s, [&](auto stored, auto key) {
    auto scratch = laid_in<ForwardScratch<decltype(stored), decltype(key)>>(memory, s);
    forward_positions(s, args, begin, end, scratch);
  });
}

template <typename T>
static void backward_entry(const Shape& s, const BackwardArgs<T>& args, int64_t n, int64_t t, void* memory) {
  with_types<T>(s, [&](auto stored, auto key) {
    auto scratch = laid_in<BackwardScratch<decltype(stored), decltype(key)>>(memory, s);
    backward_pair(s, args, n, t, scratch);
  });
}

template <typename T>
static void narrow_entry(const Shape& s, const T* grad_x, void* stored, int64_t begin, int64_t end) {
  with_types<T>(s, [&](auto as, auto key) {
    using S = decltype(as);
    using K = decltype(key);
    S* to = static_cast<S*>(stored);
    begin *= s.channels;
    end *= s.channels;
    if constexpr (Unit<K>::vectors == 1) {
      if constexpr (!std::is_same_v<S, K>) narrow(grad_x + begin, end - begin, to + begin);
    } else {
      for (int64_t at = begin; at < end; at += Unit<K>::lanes) {
        const Vec<T> values[2] = {load(grad_x + at), load(grad_x + at + kLanes<T>)};
        Unit<K>::store(to + at, values);
      }
    }
  });
}

extern const Kernels<float> kernels_float;
extern const Kernels<double> kernels_double;
const Kernels<float> kernels_float{scratch_entry<float>, forward_entry<float>, backward_entry<float>,
                                   narrow_entry<float>};
const Kernels<double> kernels_double{scratch_entry<double>, forward_entry<double>, backward_entry<double>,
                                     narrow_entry<double>};

}  // namespace sifa::SIFA_CAPABILITY
