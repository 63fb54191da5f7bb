// The motion saliency on the CPU: checks, layout and threads. saliency.h has the arithmetic.
#include <torch/csrc/stable/library.h>

#include "../checks.h"
#include "../layout.h"
#include "selection.h"

namespace sifa {
namespace {

Shape shape_of_clip(const Tensor& x) {
  const Sizes sizes = x.sizes();
  Shape shape{};
  shape.batch = sizes[0], shape.frames = sizes[1], shape.channels = sizes[2];
  shape.height = sizes[3], shape.width = sizes[4];
  shape.storage = storage_of(x);
  return shape;
}

// Calls part(kernels, begin, end) in several threads, for parts of the elements of one frame of every sample.
template <typename Part>
void for_all_elements(const Shape& shape, const Part& part) {
  constexpr int64_t multiply_adds = 20;  // for a sigmoid
  parallel_for(shape.batch * shape.frame_size(), grain_size(shape.frames * multiply_adds),
               [&](int64_t begin, int64_t end) {
                 if (shape.storage == Storage::Double)
                   part(kernels<double>(), begin, end);
                 else
                   part(kernels<float>(), begin, end);
               });
}

Tensor forward(const Tensor& x) {
  check_clip(x);
  const Tensor dense = channels_last(x);
  const Tensor saliency = empty_channels_last(shape_of_pairs(x, x.size(2)), dtype_of(x), x);
  if (saliency.numel() == 0) return saliency;
  const Shape shape = shape_of_clip(x);
  const void* from = dense.const_data_ptr();
  void* to = saliency.mutable_data_ptr();
  for_all_elements(
      shape, [&](const auto& kernel, int64_t begin, int64_t end) { kernel.saliency(shape, from, to, begin, end); });
  return saliency;
}

Tensor backward(const Tensor& grad, const Tensor& x) {
  check_clip(x);
  check_gradient(grad, x, shape_of_pairs(x, x.size(2)), "the saliency");
  const Tensor dense = channels_last(x), incoming = channels_last(grad);
  const Tensor grad_x = empty_channels_last(x.sizes(), dtype_of(x), x);
  if (x.numel() == 0) return grad_x;
  const Shape shape = shape_of_clip(x);
  const void *gradient = incoming.const_data_ptr(), *from = dense.const_data_ptr();
  void* to = grad_x.mutable_data_ptr();
  for_all_elements(shape, [&](const auto& kernel, int64_t begin, int64_t end) {
    kernel.saliency_backward(shape, gradient, from, to, begin, end);
  });
  return grad_x;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(sifa, CPU, m) {
  m.impl("motion_saliency", TORCH_BOX(&forward));
  m.impl("motion_saliency_backward", TORCH_BOX(&backward));
}

}  // namespace sifa
