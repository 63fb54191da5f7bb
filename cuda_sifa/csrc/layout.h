// The memory layout of the kernels: clips (N, T, C, H, W) with channels innermost, so dense (N, T, H, W, C).
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_strided.h>

namespace sifa {

// (N, T, C, H, W) as dense (N, T, H, W, C): a view if channels are innermost already, otherwise one copy.
inline at::Tensor channels_last(const at::Tensor& x) { return x.permute({0, 1, 3, 4, 2}).contiguous(); }

// An empty (N, T, C, H, W) with channels innermost in memory. It is no view, so that its user may change it in place.
inline at::Tensor empty_channels_last(at::IntArrayRef sizes, const at::TensorOptions& options) {
  const int64_t t = sizes[1], c = sizes[2], h = sizes[3], w = sizes[4];
  return at::empty_strided(sizes, {t * h * w * c, h * w * c, 1, w * c, c}, options);
}

}  // namespace sifa
