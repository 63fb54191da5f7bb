// What the ops accept. These checks reject every wrong argument before any memory is read. The message
// is one sentence that names the argument, what is expected and what was given. cuda_sifa/checks.py has the same checks
// for the reference in plain PyTorch and for the fake kernels; tests/op/test_errors.py compares the two.
#pragma once

#include "tensor.h"

namespace sifa {

// With these limits every index fits in 64 bits. They are far beyond practical sizes.
constexpr int64_t kMaxKernelSize = 255;
constexpr int64_t kMaxDilation = 65535;

inline void check_clip(const Tensor& x) {
  const Sizes sizes = x.sizes();
  SIFA_CHECK(sizes.size() == 5, "x must be (N, T, C, H, W), got ", sizes.size(), " dimensions: ", shape_of(sizes));
  SIFA_CHECK(dtype_of(x) != Dtype::Other, "x must be float64, float32, float16 or bfloat16, got ", dtype_name(x));
}

// The shape of what belongs to pairs of frames of x: (N, T-1, channels, H, W).
inline Extents shape_of_pairs(const Tensor& x, int64_t channels) {
  const Sizes sizes = x.sizes();
  return {sizes[0], sizes[1] > 0 ? sizes[1] - 1 : 0, channels, sizes[3], sizes[4]};
}

inline void check_arguments(const Tensor& x, const OptionalTensor& offset, int64_t kernel_size, int64_t dilation,
                            int64_t groups) {
  check_clip(x);
  const Sizes sizes = x.sizes();
  const Dtype dtype = dtype_of(x);
  SIFA_CHECK(kernel_size >= 1 && kernel_size % 2 == 1 && kernel_size <= kMaxKernelSize,
             "kernel_size must be odd and between 1 and ", kMaxKernelSize, ", got ", kernel_size);
  SIFA_CHECK(dilation >= 1 && dilation <= kMaxDilation, "dilation must be between 1 and ", kMaxDilation, ", got ",
             dilation);
  SIFA_CHECK(groups >= 1 && sizes[2] % groups == 0,
             "groups must be positive and divide the channels of x, got groups=", groups, " for C=", sizes[2]);
  if (!offset) return;

  const int64_t channels = 2 * kernel_size * kernel_size;
  const Extents expected = shape_of_pairs(x, channels);
  SIFA_CHECK(offset->sizes().equals(expected), "offset must be (N, T-1, ", channels, ", H, W) = ", shape_of(expected),
             " for kernel_size=", kernel_size, ", got ", shape_of(offset->sizes()));
  SIFA_CHECK(device_of(*offset) == device_of(x), "offset must be on the device of x, ", name_of(device_of(x)), ", got ",
             name_of(device_of(*offset)));
  const Dtype offset_dtype = dtype_of(*offset);
  SIFA_CHECK(offset_dtype == dtype || (is_half(dtype) && offset_dtype == Dtype::Float),
             "offset must have the dtype of x, ", dtype_name(x), is_half(dtype) ? " (or torch.float32)" : "", ", got ",
             dtype_name(*offset));
}

// grad has the shape `expected`, which is that of `result`.
inline void check_gradient(const Tensor& grad, const Tensor& x, Sizes expected, const char* result) {
  SIFA_CHECK(grad.sizes().equals(expected), "grad must have the shape of ", result, ", ", shape_of(expected), ", got ",
             shape_of(grad.sizes()));
  SIFA_CHECK(dtype_of(grad) == dtype_of(x), "grad must have the dtype of x, ", dtype_name(x), ", got ",
             dtype_name(grad));
  SIFA_CHECK(device_of(grad) == device_of(x), "grad must be on the device of x, ", name_of(device_of(x)), ", got ",
             name_of(device_of(grad)));
}

}  // namespace sifa
