// What inter_frame_attention accepts. These checks reject every wrong argument before any memory is read. The message
// is one sentence that names the argument, what is expected and what was given. cuda_sifa/checks.py has the same checks
// for the reference in plain PyTorch and for the fake kernels; tests/op/test_errors.py compares the two.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <optional>
#include <sstream>
#include <string>

namespace sifa {

// With these limits every index fits in 64 bits. They are far beyond practical sizes.
constexpr int64_t kMaxKernelSize = 255;
constexpr int64_t kMaxDilation = 65535;

inline std::string shape_of(at::IntArrayRef sizes) {
  std::ostringstream out;
  out << '(';
  for (size_t i = 0; i < sizes.size(); ++i) out << (i ? ", " : "") << sizes[i];
  if (sizes.size() == 1) out << ',';
  out << ')';
  return out.str();
}

// The names that users of Python know: torch.float32, not Float.
inline std::string dtype_name(at::ScalarType type) {
  switch (type) {
    case at::kDouble:
      return "torch.float64";
    case at::kFloat:
      return "torch.float32";
    case at::kHalf:
      return "torch.float16";
    case at::kBFloat16:
      return "torch.bfloat16";
    case at::kByte:
      return "torch.uint8";
    case at::kChar:
      return "torch.int8";
    case at::kShort:
      return "torch.int16";
    case at::kInt:
      return "torch.int32";
    case at::kLong:
      return "torch.int64";
    case at::kBool:
      return "torch.bool";
    case at::kComplexFloat:
      return "torch.complex64";
    case at::kComplexDouble:
      return "torch.complex128";
    default:
      return c10::toString(type);
  }
}

inline bool is_half(at::ScalarType type) { return type == at::kHalf || type == at::kBFloat16; }

inline void check_arguments(const at::Tensor& x, const std::optional<at::Tensor>& offset, int64_t kernel_size,
                            int64_t dilation, int64_t groups) {
  TORCH_CHECK_VALUE(x.dim() == 5, "x must be (N, T, C, H, W), got ", x.dim(), " dimensions: ", shape_of(x.sizes()));
  TORCH_CHECK_VALUE(x.scalar_type() == at::kDouble || x.scalar_type() == at::kFloat || is_half(x.scalar_type()),
                    "x must be float64, float32, float16 or bfloat16, got ", dtype_name(x.scalar_type()));
  TORCH_CHECK_VALUE(kernel_size >= 1 && kernel_size % 2 == 1 && kernel_size <= kMaxKernelSize,
                    "kernel_size must be odd and between 1 and ", kMaxKernelSize, ", got ", kernel_size);
  TORCH_CHECK_VALUE(dilation >= 1 && dilation <= kMaxDilation, "dilation must be between 1 and ", kMaxDilation,
                    ", got ", dilation);
  TORCH_CHECK_VALUE(groups >= 1 && x.size(2) % groups == 0,
                    "groups must be positive and divide the channels of x, got groups=", groups, " for C=", x.size(2));
  if (!offset.has_value()) return;

  const int64_t channels = 2 * kernel_size * kernel_size;
  const int64_t pairs = x.size(1) > 0 ? x.size(1) - 1 : 0;
  const std::vector<int64_t> expected{x.size(0), pairs, channels, x.size(3), x.size(4)};
  TORCH_CHECK_VALUE(offset->sizes() == at::IntArrayRef(expected), "offset must be (N, T-1, ", channels,
                    ", H, W) = ", shape_of(expected), " for kernel_size=", kernel_size, ", got ",
                    shape_of(offset->sizes()));
  TORCH_CHECK_VALUE(offset->device() == x.device(), "offset must be on the device of x, ", x.device().str(), ", got ",
                    offset->device().str());
  TORCH_CHECK_VALUE(
      offset->scalar_type() == x.scalar_type() || (is_half(x.scalar_type()) && offset->scalar_type() == at::kFloat),
      "offset must have the dtype of x, ", dtype_name(x.scalar_type()),
      is_half(x.scalar_type()) ? " (or torch.float32)" : "", ", got ", dtype_name(offset->scalar_type()));
}

inline void check_gradient(const at::Tensor& grad, const at::Tensor& x) {
  TORCH_CHECK_VALUE(grad.sizes() == x.sizes(), "grad must have the shape of x, ", shape_of(x.sizes()), ", got ",
                    shape_of(grad.sizes()));
  TORCH_CHECK_VALUE(grad.scalar_type() == x.scalar_type(), "grad must have the dtype of x, ",
                    dtype_name(x.scalar_type()), ", got ", dtype_name(grad.scalar_type()));
  TORCH_CHECK_VALUE(grad.device() == x.device(), "grad must be on the device of x, ", x.device().str(), ", got ",
                    grad.device().str());
}

}  // namespace sifa
