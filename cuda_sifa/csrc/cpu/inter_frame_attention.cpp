// The CPU op: checks, layout and threads. kernel_impl.h leads to the arithmetic.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <new>
#include <tuple>

#include "../checks.h"
#include "../layout.h"
#include "selection.h"

namespace sifa {
namespace {

Shape shape_of_call(const Tensor& x, const OptionalTensor& offset, int64_t kernel_size, int64_t dilation,
                    int64_t groups, bool residual) {
  const Sizes sizes = x.sizes();
  Shape shape{};
  shape.batch = sizes[0], shape.frames = sizes[1], shape.channels = sizes[2];
  shape.height = sizes[3], shape.width = sizes[4];
  shape.kernel_size = kernel_size, shape.dilation = dilation, shape.groups = groups;
  shape.deformable = offset.has_value(), shape.residual = residual;
  shape.storage = shape.offset_storage = storage_of(x);
  if (offset) {
    shape.offset_storage = storage_of(*offset);
    std::copy_n(offset->strides().data(), 5, shape.offset_strides);
  }
  return shape;
}

// The kernels compute rows and columns as 32-bit integers where coordinates are float.
void check_extents(const Tensor& x) {
  const Sizes sizes = x.sizes();
  SIFA_CHECK(sizes[3] <= 1 << 30 && sizes[4] <= 1 << 30, "height and width of x must be at most 2^30, got ",
             shape_of(sizes));
}

// The memory in which one thread works; null if there is none.
struct Free {
  void operator()(void* memory) const { ::operator delete(memory, std::align_val_t(64)); }
};
using Memory = std::unique_ptr<void, Free>;

Memory memory_for_a_thread(int64_t bytes) {
  return Memory(::operator new(size_t(bytes), std::align_val_t(64), std::nothrow));
}

// Calls `part` with a range [begin, end) of [0, size) and with `scratch` bytes of memory, in several threads.
template <typename Part>
void in_parallel(int64_t size, int64_t grain_size, int64_t scratch, const Part& part) {
  std::atomic<bool> without_memory{false};
  parallel_for(size, grain_size, [&](int64_t begin, int64_t end) {
    const Memory memory = memory_for_a_thread(scratch);
    if (memory)
      part(begin, end, memory.get());
    else
      without_memory = true;
  });
  if (without_memory)
    throw std::runtime_error(text_of("cuda_sifa could not allocate ", scratch, " bytes for a thread"));
}

// The last frame of each sample has no next frame. Fills the pixels [begin, end) of all last frames with zeros, or with
// x if that is added to the result.
void finish_last_frames(const Shape& shape, const ForwardArgs& args, int64_t element_size, int64_t begin, int64_t end) {
  const int64_t pixels = shape.height * shape.width, pixel = shape.channels * element_size;
  for (int64_t stop; begin < end; begin = stop) {
    const int64_t n = begin / pixels;
    stop = std::min(end, (n + 1) * pixels);
    const int64_t at = ((n * shape.frames + shape.pairs()) * pixels + begin % pixels) * pixel;
    const auto size = size_t((stop - begin) * pixel);
    if (shape.residual)
      std::memcpy(static_cast<char*>(args.out) + at, static_cast<const char*>(args.x) + at, size);
    else
      std::memset(static_cast<char*>(args.out) + at, 0, size);
  }
}

template <typename Acc>
void run_forward(const Shape& shape, const Tensor& x, const OptionalTensor& offset, const Tensor& out) {
  const Kernels<Acc>& kernel = kernels<Acc>();
  const ForwardArgs args{x.const_data_ptr(), offset ? offset->const_data_ptr() : nullptr, out.mutable_data_ptr()};
  const int64_t grain = grain_size(shape.channels * shape.taps() * 6);
  const int64_t pairs = shape.pairs(), element_size = int64_t(out.element_size());
  const int64_t positions = shape.batch * pairs * shape.height * shape.width;
  in_parallel(positions, grain, kernel.scratch(shape, false), [&](int64_t begin, int64_t end, void* memory) {
    // Each thread has a part of the N * (T-1) * H * W positions, and the same part of the N * H * W last pixels.
    finish_last_frames(shape, args, element_size, begin / pairs, end / pairs);
    kernel.forward(shape, args, begin, end, memory);
  });
}

Tensor forward(const Tensor& x, const OptionalTensor& offset, int64_t kernel_size, int64_t dilation, int64_t groups,
               bool residual) {
  check_arguments(x, offset, kernel_size, dilation, groups);
  check_extents(x);
  const Tensor dense = channels_last(x);  // before the result: in the other order the pages of both are slower
  const Tensor out = empty_channels_last(x.sizes(), dtype_of(x), x);
  if (x.numel() == 0) return out;
  if (x.size(1) == 1) return residual ? copied(x, out) : filled_with_zeros(out);
  const Shape shape = shape_of_call(x, offset, kernel_size, dilation, groups, residual);
  if (shape.storage == Storage::Double)
    run_forward<double>(shape, dense, offset, out);
  else
    run_forward<float>(shape, dense, offset, out);
  return out;
}

template <typename Acc>
void run_backward(const Shape& shape, const BackwardArgs& args) {
  const Kernels<Acc>& kernel = kernels<Acc>();
  const int64_t grain = grain_size(shape.frame_size() * shape.taps() * 15);
  in_parallel(shape.batch * shape.pairs(), grain, kernel.scratch(shape, true),
              [&](int64_t begin, int64_t end, void* memory) { kernel.backward(shape, args, begin, end, memory); });
}

// Sums have the same order for any number of threads, so the result is deterministic anyway.
std::tuple<Tensor, Tensor> backward(const Tensor& grad, const Tensor& x, const OptionalTensor& offset,
                                    int64_t kernel_size, int64_t dilation, int64_t groups, bool /*deterministic*/,
                                    bool residual) {
  check_arguments(x, offset, kernel_size, dilation, groups);
  check_gradient(grad, x, x.sizes(), "x");
  check_extents(x);
  const Tensor dense = channels_last(x), incoming = channels_last(grad);
  const Tensor grad_x = empty_channels_last(x.sizes(), dtype_of(x), x);
  const Tensor grad_offset =
      offset ? empty_channels_last(offset->sizes(), dtype_of(*offset), x) : empty(0, accumulator_of(dtype_of(x)), x);
  if (x.numel() == 0) return {grad_x, filled_with_zeros(grad_offset)};  // a map without channels still has offsets
  if (x.size(1) == 1) return {residual ? copied(grad, grad_x) : filled_with_zeros(grad_x), grad_offset};
  const Shape shape = shape_of_call(x, offset, kernel_size, dilation, groups, residual);
  const BackwardArgs args{dense.const_data_ptr(), offset ? offset->const_data_ptr() : nullptr,
                          incoming.const_data_ptr(), grad_x.mutable_data_ptr(),
                          offset ? grad_offset.mutable_data_ptr() : nullptr};
  if (shape.storage == Storage::Double)
    run_backward<double>(shape, args);
  else
    run_backward<float>(shape, args);
  return {grad_x, grad_offset};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(sifa, CPU, m) {
  m.impl("inter_frame_attention", TORCH_BOX(&forward));
  m.impl("inter_frame_attention_backward", TORCH_BOX(&backward));
}

}  // namespace sifa
