// The memory layout of the kernels: clips (N, T, C, H, W) with channels innermost, so dense (N, T, H, W, C).
#pragma once

#include "tensor.h"

namespace sifa {

inline Extents strides_with_channels_innermost(Sizes sizes) {
  const int64_t t = sizes[1], c = sizes[2], h = sizes[3], w = sizes[4];
  return {t * h * w * c, h * w * c, 1, w * c, c};
}

// An empty (N, T, C, H, W) with channels innermost in memory. It is no view, so that its user may change it in place.
inline Tensor empty_channels_last(Sizes sizes, Dtype dtype, const Tensor& like) {
  return empty_strided(sizes, strides_with_channels_innermost(sizes), dtype, like);
}

// Whether x is dense in memory as (N, T, H, W, C). The stride of a dimension with one entry does not matter.
inline bool is_channels_last(const Tensor& x) {
  const Sizes sizes = x.sizes(), strides = x.strides();
  int64_t expected = 1;
  for (const int dim : {2, 4, 3, 1, 0}) {
    if (sizes[dim] == 0) return true;
    if (sizes[dim] != 1 && strides[dim] != expected) return false;
    expected *= sizes[dim];
  }
  return true;
}

// x itself if it is dense as (N, T, H, W, C), otherwise a copy that is.
inline Tensor channels_last(const Tensor& x) {
  if (is_channels_last(x)) return x;
  const Tensor dense = empty_channels_last(x.sizes(), dtype_of(x), x);
  copy(x, dense);
  return dense;
}

// x as the type `dtype`, with channels innermost.
inline Tensor converted(const Tensor& x, Dtype dtype) {
  if (dtype_of(x) == dtype) return x;
  const Tensor stored = empty_channels_last(x.sizes(), dtype, x);
  copy(x, stored);
  return stored;
}

}  // namespace sifa
