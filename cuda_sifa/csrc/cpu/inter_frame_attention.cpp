// The CPU op: checks, layout and threads. kernel_impl.h leads to the arithmetic.
#include "kernel.h"

#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/core/CPUAllocator.h>
#include <torch/library.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <tuple>
#include <type_traits>

#include "../checks.h"
#include "../layout.h"

namespace sifa {
namespace {

// The kernels for the processor of this machine, selected when the library runs, not when it is built. The choice is
// that of ATen, so ATEN_CPU_CAPABILITY=default|avx2|avx512 selects these kernels too.
template <typename Acc>
const Kernels<Acc>& kernels() {
#if defined(__x86_64__)
  static const std::string capability = at::get_cpu_capability();
  if (capability == "AVX512") {
    if constexpr (std::is_same_v<Acc, float>)
      return avx512::kernels_float;
    else
      return avx512::kernels_double;
  }
  if (capability == "AVX2") {
    if constexpr (std::is_same_v<Acc, float>)
      return avx2::kernels_float;
    else
      return avx2::kernels_double;
  }
#endif
  if constexpr (std::is_same_v<Acc, float>)
    return baseline::kernels_float;
  else
    return baseline::kernels_double;
}

Storage storage_of(at::ScalarType type) {
  switch (type) {
    case at::kDouble:
      return Storage::Double;
    case at::kHalf:
      return Storage::Half;
    case at::kBFloat16:
      return Storage::BFloat16;
    default:
      return Storage::Float;
  }
}

Shape shape_of_call(const at::Tensor& x, const std::optional<at::Tensor>& offset, int64_t kernel_size, int64_t dilation,
                    int64_t groups) {
  Shape shape{x.size(0), x.size(1), x.size(2), x.size(3), x.size(4), kernel_size, dilation, groups};
  shape.deformable = offset.has_value();
  shape.storage = storage_of(x.scalar_type());
  shape.offset_storage = offset ? storage_of(offset->scalar_type()) : shape.storage;
  for (int i = 0; shape.deformable && i < 5; ++i) shape.offset_strides[i] = offset->stride(i);
  return shape;
}

// The kernels compute rows and columns as 32-bit integers where coordinates are float.
void check_extents(const at::Tensor& x) {
  TORCH_CHECK_VALUE(x.size(3) <= 1 << 30 && x.size(4) <= 1 << 30, "height and width of x must be at most 2^30, got ",
                    shape_of(x.sizes()));
}

// The grain size of at::parallel_for: how many items, of so many multiply-adds each, are worth one more thread.
int64_t grain_size(int64_t multiply_adds) { return 1 + 100'000 / (multiply_adds + 1); }

// The last frame of each sample has no next frame. Fills the pixels [begin, end) of all last frames with zeros.
void clear_last_frames(const Shape& shape, at::Tensor& out, int64_t begin, int64_t end) {
  const int64_t pixels = shape.height * shape.width, pixel = shape.channels * out.element_size();
  char* first = static_cast<char*>(out.mutable_data_ptr()) + shape.pairs() * pixels * pixel;
  for (int64_t stop; begin < end; begin = stop) {
    const int64_t n = begin / pixels;
    stop = std::min(end, (n + 1) * pixels);
    std::memset(first + (n * shape.frames * pixels + begin % pixels) * pixel, 0, (stop - begin) * pixel);
  }
}

template <typename Acc>
void run_forward(const Shape& shape, const at::Tensor& x, const std::optional<at::Tensor>& offset, at::Tensor& out) {
  const Kernels<Acc>& kernel = kernels<Acc>();
  const ForwardArgs args{x.const_data_ptr(), offset ? offset->const_data_ptr() : nullptr, out.mutable_data_ptr()};
  const int64_t grain = grain_size(shape.channels * shape.taps() * 6);
  const int64_t pairs = shape.pairs();
  at::parallel_for(0, shape.batch * pairs * shape.height * shape.width, grain, [&](int64_t begin, int64_t end) {
    // Each thread has a part of the N * (T-1) * H * W positions, and the same part of the N * H * W last pixels.
    clear_last_frames(shape, out, begin / pairs, end / pairs);
    const c10::DataPtr memory = c10::GetCPUAllocator()->allocate(kernel.scratch(shape, false));
    kernel.forward(shape, args, begin, end, memory.get());
  });
}

at::Tensor forward(const at::Tensor& x, const std::optional<at::Tensor>& offset, int64_t kernel_size, int64_t dilation,
                   int64_t groups) {
  check_arguments(x, offset, kernel_size, dilation, groups);
  check_extents(x);
  const at::Tensor dense = channels_last(x);
  at::Tensor out = empty_channels_last(x.sizes(), x.options());
  if (out.numel() == 0) return out;
  if (x.size(1) == 1) return out.zero_();
  const Shape shape = shape_of_call(x, offset, kernel_size, dilation, groups);
  if (shape.storage == Storage::Double)
    run_forward<double>(shape, dense, offset, out);
  else
    run_forward<float>(shape, dense, offset, out);
  return out;
}

template <typename Acc>
void run_backward(const Shape& shape, const at::Tensor& grad, const at::Tensor& x,
                  const std::optional<at::Tensor>& offset, at::Tensor& grad_x, at::Tensor& grad_offset) {
  const Kernels<Acc>& kernel = kernels<Acc>();
  const BackwardArgs<Acc> args{x.const_data_ptr(), offset ? offset->const_data_ptr() : nullptr, grad.const_data_ptr(),
                               grad_x.mutable_data_ptr<Acc>(), offset ? grad_offset.mutable_data_ptr<Acc>() : nullptr};
  // A pair of frames adds to the gradients of both frames. Even pairs share no frame, and odd pairs share no frame. So
  // there are two rounds without races, and every sum has the same order for any number of threads.
  const int64_t grain = grain_size(shape.frame_size() * shape.taps() * 15);
  for (int64_t parity = 0; parity < 2; ++parity) {
    const int64_t per_sample = (shape.pairs() + 1 - parity) / 2;
    at::parallel_for(0, shape.batch * per_sample, grain, [&](int64_t begin, int64_t end) {
      const c10::DataPtr memory = c10::GetCPUAllocator()->allocate(kernel.scratch(shape, true));
      for (int64_t i = begin; i < end; ++i)
        kernel.backward(shape, args, i / per_sample, 2 * (i % per_sample) + parity, memory.get());
    });
  }
}

at::Tensor narrowed(const Shape& shape, const at::Tensor& grad_x, at::ScalarType type) {
  at::Tensor stored = empty_channels_last(grad_x.sizes(), grad_x.options().dtype(type));
  const Kernels<float>& kernel = kernels<float>();
  const int64_t pixels = shape.batch * shape.frames * shape.height * shape.width;
  at::parallel_for(0, pixels, grain_size(shape.channels), [&](int64_t begin, int64_t end) {
    kernel.narrow(shape, grad_x.const_data_ptr<float>(), stored.mutable_data_ptr(), begin, end);
  });
  return stored;
}

std::tuple<at::Tensor, at::Tensor> backward(const at::Tensor& grad, const at::Tensor& x,
                                            const std::optional<at::Tensor>& offset, int64_t kernel_size,
                                            int64_t dilation, int64_t groups) {
  check_arguments(x, offset, kernel_size, dilation, groups);
  check_gradient(grad, x);
  check_extents(x);
  const at::Tensor dense = channels_last(x), incoming = channels_last(grad);
  const at::ScalarType acc = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::TensorOptions options = x.options().dtype(acc);
  at::Tensor grad_x = empty_channels_last(x.sizes(), options).zero_();
  at::Tensor grad_offset = at::empty({0}, options);
  if (offset) {
    grad_offset = empty_channels_last(offset->sizes(), options);
    if (x.numel() == 0) grad_offset.zero_();  // a map without channels still has offsets
  }
  if (x.numel() > 0) {
    const Shape shape = shape_of_call(x, offset, kernel_size, dilation, groups);
    if (acc == at::kDouble)
      run_backward<double>(shape, incoming, dense, offset, grad_x, grad_offset);
    else
      run_backward<float>(shape, incoming, dense, offset, grad_x, grad_offset);
    if (acc != x.scalar_type()) grad_x = narrowed(shape, grad_x, x.scalar_type());
  }
  return {grad_x.to(x.scalar_type()), offset ? grad_offset.to(offset->scalar_type()) : grad_offset};
}

}  // namespace

TORCH_LIBRARY_IMPL(sifa, CPU, m) {
  m.impl("inter_frame_attention", &forward);
  m.impl("inter_frame_attention_backward", &backward);
}

}  // namespace sifa
