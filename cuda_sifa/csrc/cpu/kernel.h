// The interface between the PyTorch side of the CPU ops (inter_frame_attention.cpp, motion_saliency.cpp) and their
// kernels (kernel_impl.h, compiled once for each instruction set). Does not use PyTorch.
//
// kernel_<capability>.cpp includes this file before it selects an instruction set. So the standard headers of the
// kernels are all included here: whatever they define stays runnable on every processor.
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

namespace sifa {

enum class Storage { Double, Float, Half, BFloat16 };

// x, out, grad and grad_x are dense in memory as (N, T, H, W, C). The offset has any strides, in elements.
struct Shape {
  int64_t batch, frames, channels, height, width;
  int64_t kernel_size, dilation, groups;
  bool deformable;            // false: no offset, the regular neighbourhood
  bool residual;              // x is added to the result, so the gradient of the result to that of x
  Storage storage;            // of x, out, grad and grad_x
  Storage offset_storage;     // as x, or Float if x is half precision
  int64_t offset_strides[5];  // of (N, T-1, 2*k*k, H, W)

  int64_t pairs() const { return frames > 0 ? frames - 1 : 0; }
  int64_t taps() const { return kernel_size * kernel_size; }
  int64_t frame_size() const { return height * width * channels; }
};

struct ForwardArgs {
  const void* x;
  const void* offset;
  void* out;
};

struct BackwardArgs {
  const void* x;
  const void* offset;
  const void* grad;
  void* grad_x;
  void* grad_offset;  // dense (N, T-1, H, W, 2*k*k), stored as the offset; null without offsets
};

// The entry points, one set for each instruction set. `memory` belongs to one thread during the call. It begins at a
// multiple of 64 and has the number of bytes that scratch() returns.
//
// `Acc`, in which gradients are summed, is float (for float and the half types) or double.
template <typename Acc>
struct Kernels {
  int64_t (*scratch)(const Shape&, bool backward);
  // Positions [begin, end) of all N * (T-1) * H * W queries.
  void (*forward)(const Shape&, const ForwardArgs&, int64_t begin, int64_t end, void* memory);
  // Pairs [begin, end) of all N * (T-1) pairs of frames: the gradients of their queries, their offsets, and the last
  // frame of each sample whose last pair is among them.
  void (*backward)(const Shape&, const BackwardArgs&, int64_t begin, int64_t end, void* memory);
  // The motion saliency and its gradient, for elements [begin, end) of all N * H * W * C of one frame of every sample.
  // Both need only batch, frames, channels, height, width and storage of the Shape.
  void (*saliency)(const Shape&, const void* x, void* saliency, int64_t begin, int64_t end);
  void (*saliency_backward)(const Shape&, const void* grad, const void* x, void* grad_x, int64_t begin, int64_t end);
};

namespace baseline {
extern const Kernels<float> kernels_float;
extern const Kernels<double> kernels_double;
}  // namespace baseline
#if defined(__x86_64__)
namespace avx2 {
extern const Kernels<float> kernels_float;
extern const Kernels<double> kernels_double;
}  // namespace avx2
namespace avx512 {
extern const Kernels<float> kernels_float;
extern const Kernels<double> kernels_double;
}  // namespace avx512
#endif

}  // namespace sifa
