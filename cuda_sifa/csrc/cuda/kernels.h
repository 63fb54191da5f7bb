// The interface between the PyTorch side of the CUDA ops (inter_frame_attention.cpp) and their kernels (launch.cuh,
// compiled once for each storage type). Does not use PyTorch. All pointers are to memory of the current device.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "sampling.h"

namespace sifa {

// x, out, grad and grad_x lie dense in memory as (N, T, H, W, C). The offset has any strides, in elements. No extent
// exceeds 31 bits; their products do.
struct Problem {
  int batch, frames, channels, height, width;
  int kernel_size, dilation, groups;
  int64_t offset_strides[5];  // of (N, T-1, 2*k*k, H, W)
  bool offset_in_float;       // the offset is float while x is half or bfloat16
  bool residual;              // x is added to the result, so the gradient of the result to that of x

  SIFA_HD int pairs() const { return frames - 1; }
  SIFA_HD int taps() const { return kernel_size * kernel_size; }
  SIFA_HD int head_channels() const { return channels / groups; }
  SIFA_HD int64_t pixels() const { return int64_t(height) * width; }
  SIFA_HD int64_t frame_size() const { return pixels() * channels; }
};

struct Call {
  cudaStream_t stream;
  int multiprocessors;  // of the device
};

// x and out are dense (N, T, H, W, C); offset is null for the regular neighbourhood. Writes all of out; in the
// last frame zeros, or x if it is added.
template <typename S>
cudaError_t run_forward(const Problem& p, const Call& call, const void* x, const void* offset, void* out);

// Without offsets. Writes all of grad_x, which has the type S.
template <typename S>
cudaError_t run_regular_backward(const Problem& p, const Call& call, const void* grad, const void* x, void* grad_x);

// With offsets, for at least two frames. grad_x is float (double for double) and holds zeros in frames 2, 4, 6, ...; of
// two frames the second one holds zeros, or the gradient of the result if p.residual. grad_offset is dense
// (N, T-1, H, W, 2*k*k), in the type of the offset. `weights` is memory for (N, T-1, H, W, groups, k*k, 2) values of
// the type of grad_x and makes the result deterministic; null is faster.
template <typename S>
cudaError_t run_backward(const Problem& p, const Call& call, const void* grad, const void* x, const void* offset,
                         void* grad_x, void* grad_offset, void* weights);

// The motion saliency, dense (N, T-1, H, W, C), and the gradient of x. T is at least 2 for the first one. Only the
// sizes of the problem matter.
template <typename S>
cudaError_t run_saliency(const Problem& p, const Call& call, const void* x, void* saliency);
template <typename S>
cudaError_t run_saliency_backward(const Problem& p, const Call& call, const void* grad, const void* x, void* grad_x);

}  // namespace sifa
