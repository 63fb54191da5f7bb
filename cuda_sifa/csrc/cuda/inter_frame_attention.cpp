// The CUDA ops: checks, layout, device and stream. launch.cuh selects the kernels, which are in the other .cuh files.
#include "kernels.h"

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <tuple>
#include <type_traits>

#include "../checks.h"
#include "../layout.h"

// Weak: null in a PyTorch without CUDA, where the library loads all the same.
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device_index, void** stream);

// The storage types, declared as in kernels_*.cu: this file does not need the CUDA headers that define them.
struct __half;
struct __nv_bfloat16;

namespace sifa {
namespace {

using torch::stable::accelerator::DeviceGuard;

void check(cudaError_t error) {
  if (error == cudaSuccess) return;
  (void)cudaGetLastError();  // so that the next call does not see this error again
  throw std::runtime_error(text_of("cuda_sifa failed on the GPU: ", cudaGetErrorString(error)));
}

// What the sizes of x say.
Problem problem_of_clip(const Tensor& x) {
  const Sizes sizes = x.sizes();
  for (const int64_t extent : sizes)
    if (extent > INT32_MAX)
      throw std::runtime_error(text_of("on a CUDA device no extent of x may exceed 2^31 - 1, got ", shape_of(sizes)));
  Problem p{};
  p.batch = int(sizes[0]), p.frames = int(sizes[1]), p.channels = int(sizes[2]);
  p.height = int(sizes[3]), p.width = int(sizes[4]);
  return p;
}

Problem problem_of_call(const Tensor& x, const OptionalTensor& offset, int64_t kernel_size, int64_t dilation,
                        int64_t groups, bool residual) {
  Problem p = problem_of_clip(x);
  p.residual = residual;
  p.kernel_size = int(kernel_size), p.dilation = int(dilation), p.groups = int(groups);
  if (offset) {
    std::copy_n(offset->strides().data(), 5, p.offset_strides);
    p.offset_in_float = dtype_of(*offset) == Dtype::Float;
  }
  return p;
}

// The current stream of PyTorch on the device of x.
Call call_on(const Tensor& x) {
  const int device = x.get_device_index();
  void* stream;
  require(aoti_torch_get_current_cuda_stream(device, &stream), "find the current stream");
  Call call{static_cast<cudaStream_t>(stream), 0};
  check(cudaDeviceGetAttribute(&call.multiprocessors, cudaDevAttrMultiProcessorCount, device));
  return call;
}

// Calls `function` with a null pointer of the storage type.
template <typename Function>
cudaError_t with_storage(Dtype dtype, const Function& function) {
  switch (dtype) {
    case Dtype::Double:
      return function(static_cast<double*>(nullptr));
    case Dtype::Half:
      return function(static_cast<__half*>(nullptr));
    case Dtype::BFloat16:
      return function(static_cast<__nv_bfloat16*>(nullptr));
    default:
      return function(static_cast<float*>(nullptr));
  }
}

// The frames first, first + step, ... of a tensor, as a view.
Tensor frames_of(const Tensor& tensor, int64_t first, int64_t step) {
  const Sizes sizes = tensor.sizes(), strides = tensor.strides();
  const Extents some{sizes[0], (sizes[1] - first - 1) / step + 1, sizes[2], sizes[3], sizes[4]};
  const Extents steps{strides[0], strides[1] * step, strides[2], strides[3], strides[4]};
  AtenTensorHandle frames;
  require(aoti_torch__reinterpret_tensor(tensor.get(), 5, some.data(), steps.data(),
                                         tensor.storage_offset() + first * strides[1], &frames),
          "select frames");
  return Tensor(frames);
}

Tensor forward(const Tensor& x, const OptionalTensor& offset, int64_t kernel_size, int64_t dilation, int64_t groups,
               bool residual) {
  check_arguments(x, offset, kernel_size, dilation, groups);
  const DeviceGuard guard(x.get_device_index());
  const Tensor dense = channels_last(x);
  const Tensor out = empty_channels_last(x.sizes(), dtype_of(x), x);
  if (x.numel() == 0) return out;
  const Problem p = problem_of_call(x, offset, kernel_size, dilation, groups, residual);
  const Call call = call_on(x);
  check(with_storage(dtype_of(x), [&](auto* storage) {
    return run_forward<std::remove_pointer_t<decltype(storage)>>(
        p, call, dense.const_data_ptr(), offset ? offset->const_data_ptr() : nullptr, out.mutable_data_ptr());
  }));
  return out;
}

// What the backward kernels add to before they store there: see kernels.h. At least two frames.
Tensor sums_of_frames(const Tensor& x, const Tensor& grad, bool residual) {
  const Tensor sums = empty_channels_last(x.sizes(), accumulator_of(dtype_of(x)), x);
  const int64_t first = x.size(1) == 2 ? 1 : 2;
  if (residual && first == 1)
    copy(frames_of(grad, 1, 1), frames_of(sums, 1, 1));
  else
    filled_with_zeros(frames_of(sums, first, 2));
  return sums;
}

Tensor regular_backward(const Problem& p, const Tensor& grad, const Tensor& x) {
  const Tensor grad_x = empty_channels_last(x.sizes(), dtype_of(x), x);
  if (x.numel() == 0) return grad_x;
  const Call call = call_on(x);
  check(with_storage(dtype_of(x), [&](auto* storage) {
    return run_regular_backward<std::remove_pointer_t<decltype(storage)>>(
        p, call, grad.const_data_ptr(), x.const_data_ptr(), grad_x.mutable_data_ptr());
  }));
  return grad_x;
}

std::tuple<Tensor, Tensor> backward(const Tensor& grad, const Tensor& x, const OptionalTensor& offset,
                                    int64_t kernel_size, int64_t dilation, int64_t groups, bool deterministic,
                                    bool residual) {
  check_arguments(x, offset, kernel_size, dilation, groups);
  check_gradient(grad, x, x.sizes(), "x");
  const DeviceGuard guard(x.get_device_index());
  const Tensor dense = channels_last(x), incoming = channels_last(grad);
  const Dtype dtype = dtype_of(x), accumulator = accumulator_of(dtype);
  const Problem p = problem_of_call(x, offset, kernel_size, dilation, groups, residual);
  if (!offset) return {regular_backward(p, incoming, dense), empty(0, accumulator, x)};

  const Tensor grad_offset = empty_channels_last(offset->sizes(), dtype_of(*offset), x);
  if (x.numel() == 0 || x.size(1) == 1) {
    filled_with_zeros(grad_offset);  // a map without channels still has offsets
    const Tensor grad_x = empty_channels_last(x.sizes(), dtype, x);
    return {residual ? copied(incoming, grad_x) : filled_with_zeros(grad_x), grad_offset};
  }
  const Tensor sums = sums_of_frames(x, incoming, residual);
  std::optional<Tensor> weights;
  if (deterministic) weights = empty(grad_offset.numel() * groups, accumulator, x);
  const Call call = call_on(x);
  check(with_storage(dtype, [&](auto* storage) {
    return run_backward<std::remove_pointer_t<decltype(storage)>>(
        p, call, incoming.const_data_ptr(), dense.const_data_ptr(), offset->const_data_ptr(), sums.mutable_data_ptr(),
        grad_offset.mutable_data_ptr(), weights ? weights->mutable_data_ptr() : nullptr);
  }));
  return {converted(sums, dtype), grad_offset};
}

Tensor saliency(const Tensor& x) {
  check_clip(x);
  const DeviceGuard guard(x.get_device_index());
  const Tensor dense = channels_last(x);
  const Tensor saliency = empty_channels_last(shape_of_pairs(x, x.size(2)), dtype_of(x), x);
  if (saliency.numel() == 0) return saliency;
  const Problem p = problem_of_clip(x);
  const Call call = call_on(x);
  check(with_storage(dtype_of(x), [&](auto* storage) {
    return run_saliency<std::remove_pointer_t<decltype(storage)>>(p, call, dense.const_data_ptr(),
                                                                  saliency.mutable_data_ptr());
  }));
  return saliency;
}

Tensor saliency_backward(const Tensor& grad, const Tensor& x) {
  check_clip(x);
  check_gradient(grad, x, shape_of_pairs(x, x.size(2)), "the saliency");
  const DeviceGuard guard(x.get_device_index());
  const Tensor dense = channels_last(x), incoming = channels_last(grad);
  const Tensor grad_x = empty_channels_last(x.sizes(), dtype_of(x), x);
  if (x.numel() == 0) return grad_x;
  const Problem p = problem_of_clip(x);
  const Call call = call_on(x);
  check(with_storage(dtype_of(x), [&](auto* storage) {
    return run_saliency_backward<std::remove_pointer_t<decltype(storage)>>(
        p, call, incoming.const_data_ptr(), dense.const_data_ptr(), grad_x.mutable_data_ptr());
  }));
  return grad_x;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(sifa, CUDA, m) {
  m.impl("inter_frame_attention", TORCH_BOX(&forward));
  m.impl("inter_frame_attention_backward", TORCH_BOX(&backward));
  m.impl("motion_saliency", TORCH_BOX(&saliency));
  m.impl("motion_saliency_backward", TORCH_BOX(&saliency_backward));
}

}  // namespace sifa
