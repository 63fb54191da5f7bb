// The CUDA op: checks, layout, device and stream. launch.cuh selects the kernels, which are in the other .cuh files.
#include "kernels.h"

#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <tuple>

#include "../checks.h"
#include "../layout.h"

// The storage types, declared as in kernels_*.cu: this file does not need the CUDA headers that define them.
struct __half;
struct __nv_bfloat16;

namespace sifa {
namespace {

Problem problem_of_call(const at::Tensor& x, const std::optional<at::Tensor>& offset, int64_t kernel_size,
                        int64_t dilation, int64_t groups) {
  for (const int64_t extent : x.sizes())
    TORCH_CHECK(extent <= INT32_MAX, "on a CUDA device no extent of x may exceed 2^31 - 1, got ", shape_of(x.sizes()));
  Problem p{int(x.size(0)), int(x.size(1)), int(x.size(2)),
            int(x.size(3)), int(x.size(4)), int(kernel_size),
            int(dilation),  int(groups),    {},
            false};
  for (int i = 0; offset && i < 5; ++i) p.offset_strides[i] = offset->stride(i);
  p.offset_in_float = offset && offset->scalar_type() == at::kFloat;
  return p;
}

// The current stream of PyTorch on the device of x.
Call call_on(const at::Tensor& x) {
  Call call{c10::cuda::getCurrentCUDAStream(x.get_device()).stream(), 0};
  C10_CUDA_CHECK(cudaDeviceGetAttribute(&call.multiprocessors, cudaDevAttrMultiProcessorCount, x.get_device()));
  return call;
}

// Calls `function` with a null pointer of the storage type.
template <typename Function>
cudaError_t with_storage(at::ScalarType type, const Function& function) {
  switch (type) {
    case at::kDouble:
      return function(static_cast<double*>(nullptr));
    case at::kHalf:
      return function(static_cast<__half*>(nullptr));
    case at::kBFloat16:
      return function(static_cast<__nv_bfloat16*>(nullptr));
    default:
      return function(static_cast<float*>(nullptr));
  }
}

at::Tensor forward(const at::Tensor& x, const std::optional<at::Tensor>& offset, int64_t kernel_size, int64_t dilation,
                   int64_t groups) {
  check_arguments(x, offset, kernel_size, dilation, groups);
  const c10::cuda::CUDAGuard guard(x.device());
  const at::Tensor dense = channels_last(x);
  at::Tensor out = empty_channels_last(x.sizes(), x.options());
  if (out.numel() == 0) return out;
  out.select(1, x.size(1) - 1).zero_();  // the last frame has no next frame
  if (x.size(1) == 1) return out;
  const Problem p = problem_of_call(x, offset, kernel_size, dilation, groups);
  const Call call = call_on(x);
  C10_CUDA_CHECK(with_storage(x.scalar_type(), [&](auto* storage) {
    return run_forward<std::remove_pointer_t<decltype(storage)>>(
        p, call, dense.const_data_ptr(), offset ? offset->const_data_ptr() : nullptr, out.mutable_data_ptr());
  }));
  return out;
}

// Zeros for the frames that the backward kernels add to before they store there: see kernels.h.
at::Tensor sums_of_frames(const at::Tensor& x, at::ScalarType type) {
  at::Tensor sums = empty_channels_last(x.sizes(), x.options().dtype(type));
  const int64_t frames = x.size(1);
  sums.slice(1, 1, frames, 2).zero_();
  if (frames % 2 == 1) sums.select(1, frames - 1).zero_();
  return sums;
}

std::tuple<at::Tensor, at::Tensor> backward(const at::Tensor& grad, const at::Tensor& x,
                                            const std::optional<at::Tensor>& offset, int64_t kernel_size,
                                            int64_t dilation, int64_t groups) {
  check_arguments(x, offset, kernel_size, dilation, groups);
  check_gradient(grad, x);
  const c10::cuda::CUDAGuard guard(x.device());
  const at::Tensor dense = channels_last(x), incoming = channels_last(grad);
  const at::ScalarType accumulation = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const Problem p = problem_of_call(x, offset, kernel_size, dilation, groups);

  if (!offset) {
    at::Tensor grad_x = empty_channels_last(x.sizes(), x.options());
    if (x.numel() > 0) {
      const Call call = call_on(x);
      C10_CUDA_CHECK(with_storage(x.scalar_type(), [&](auto* storage) {
        return run_regular_backward<std::remove_pointer_t<decltype(storage)>>(
            p, call, incoming.const_data_ptr(), dense.const_data_ptr(), grad_x.mutable_data_ptr());
      }));
    }
    return {grad_x, at::empty({0}, x.options().dtype(accumulation))};
  }

  at::Tensor grad_offset = empty_channels_last(offset->sizes(), offset->options());
  if (x.numel() == 0 || x.size(1) == 1) {
    grad_offset.zero_();  // a map without channels still has offsets
    return {empty_channels_last(x.sizes(), x.options()).zero_(), grad_offset};
  }
  at::Tensor sums = sums_of_frames(x, accumulation);
  at::Tensor weights;
  if (at::globalContext().deterministicAlgorithms())
    weights = at::empty({grad_offset.numel() * groups}, sums.options());
  const Call call = call_on(x);
  C10_CUDA_CHECK(with_storage(x.scalar_type(), [&](auto* storage) {
    return run_backward<std::remove_pointer_t<decltype(storage)>>(
        p, call, incoming.const_data_ptr(), dense.const_data_ptr(), offset->const_data_ptr(), sums.mutable_data_ptr(),
        grad_offset.mutable_data_ptr(), weights.defined() ? weights.mutable_data_ptr() : nullptr);
  }));
  return {sums.to(x.scalar_type()), grad_offset};
}

}  // namespace

TORCH_LIBRARY_IMPL(sifa, CUDA, m) {
  m.impl("inter_frame_attention", &forward);
  m.impl("inter_frame_attention_backward", &backward);
}

}  // namespace sifa
