// All contact of the op with PyTorch, but for the registration of its kernels. It uses the stable ABI of PyTorch 2.11:
// C functions that every later version keeps. So one library, built once, loads in all of them.
//
// setup.py defines TORCH_TARGET_VERSION, and the headers declare nothing that is newer. No header of ATen or c10 may be
// included: tests/op/test_library.py looks for their C++ symbols in the library.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/c/shim.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <array>
#include <cctype>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>

// The text of PyTorch's last error. Weak: null before PyTorch 2.13, and then not called.
extern "C" __attribute__((weak)) const char* torch_exception_get_what_without_backtrace();

namespace sifa {

using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;
using Sizes = torch::headeronly::IntHeaderOnlyArrayRef;
using Extents = std::array<int64_t, 5>;  // sizes or strides of (N, T, C, H, W)

// ---- Errors ---------------------------------------------------------------------------------------------------------

template <typename... Parts>
std::string text_of(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

// A wrong argument: Python receives a ValueError with this text. The parts are evaluated only if the condition is
// false.
#define SIFA_CHECK(condition, ...)                                               \
  do {                                                                           \
    if (!(condition)) throw std::invalid_argument(::sifa::text_of(__VA_ARGS__)); \
  } while (false)

// What PyTorch says of the call that has just failed.
inline std::string reason() {
  const char* what =
      torch_exception_get_what_without_backtrace ? torch_exception_get_what_without_backtrace() : nullptr;
  return what ? text_of(": ", what) : "";
}

// Checks the result of a C function of PyTorch.
inline void require(AOTITorchError error, const char* what) {
  if (error != TORCH_SUCCESS) throw std::runtime_error(text_of("cuda_sifa could not ", what, reason()));
}

// The tuple that Python prints for a shape.
inline std::string shape_of(Sizes sizes) {
  std::ostringstream out;
  out << '(';
  for (size_t i = 0; i < sizes.size(); ++i) out << (i ? ", " : "") << sizes[i];
  out << (sizes.size() == 1 ? ",)" : ")");
  return out.str();
}

// ---- Types and devices ----------------------------------------------------------------------------------------------

enum class Dtype { Double, Float, Half, BFloat16, Other };

inline int32_t dtype_code(const Tensor& tensor) {
  int32_t code;
  require(aoti_torch_get_dtype(tensor.get(), &code), "read a dtype");
  return code;
}

// Other dtypes have no place in the stable ABI's own list, so their codes are never converted to it.
inline Dtype dtype_of(const Tensor& tensor) {
  const int32_t code = dtype_code(tensor);
  if (code == aoti_torch_dtype_float32()) return Dtype::Float;
  if (code == aoti_torch_dtype_bfloat16()) return Dtype::BFloat16;
  if (code == aoti_torch_dtype_float16()) return Dtype::Half;
  if (code == aoti_torch_dtype_float64()) return Dtype::Double;
  return Dtype::Other;
}

inline bool is_half(Dtype dtype) { return dtype == Dtype::Half || dtype == Dtype::BFloat16; }

// The type in which gradients are summed.
inline Dtype accumulator_of(Dtype dtype) { return dtype == Dtype::Double ? Dtype::Double : Dtype::Float; }

inline int32_t code_of(Dtype dtype) {
  switch (dtype) {
    case Dtype::Double:
      return aoti_torch_dtype_float64();
    case Dtype::Half:
      return aoti_torch_dtype_float16();
    case Dtype::BFloat16:
      return aoti_torch_dtype_bfloat16();
    default:
      return aoti_torch_dtype_float32();
  }
}

// The name that users of Python know, for example torch.float32.
inline std::string dtype_name(const Tensor& tensor) {
  using torch::headeronly::ScalarType;
  const auto type = static_cast<ScalarType>(dtype_code(tensor));
  switch (type) {
    case ScalarType::Double:
      return "torch.float64";
    case ScalarType::Float:
      return "torch.float32";
    case ScalarType::Half:
      return "torch.float16";
    case ScalarType::Byte:
      return "torch.uint8";
    case ScalarType::Char:
      return "torch.int8";
    case ScalarType::Short:
      return "torch.int16";
    case ScalarType::Int:
      return "torch.int32";
    case ScalarType::Long:
      return "torch.int64";
    case ScalarType::ComplexHalf:
      return "torch.complex32";
    case ScalarType::ComplexFloat:
      return "torch.complex64";
    case ScalarType::ComplexDouble:
      return "torch.complex128";
    default:  // the others have the same name in C++, with capitals
      std::string name = torch::headeronly::toString(type);
      for (char& letter : name) letter = char(std::tolower(static_cast<unsigned char>(letter)));
      return "torch." + name;
  }
}

struct Device {
  int32_t type, index;
  bool operator==(const Device& other) const { return type == other.type && index == other.index; }
};

inline Device device_of(const Tensor& tensor) {
  Device device;
  require(aoti_torch_get_device_type(tensor.get(), &device.type), "read a device");
  require(aoti_torch_get_device_index(tensor.get(), &device.index), "read a device");
  return device;
}

inline std::string name_of(const Device& device) {
  if (device.type == aoti_torch_device_type_cpu()) return "cpu";
  if (device.type == aoti_torch_device_type_meta()) return "meta";
  if (device.type == aoti_torch_device_type_cuda()) return text_of("cuda:", device.index);
  if (device.type == aoti_torch_device_type_xpu()) return text_of("xpu:", device.index);
  if (device.type == aoti_torch_device_type_mps()) return text_of("mps:", device.index);
  return "another type of device";
}

// ---- Memory ---------------------------------------------------------------------------------------------------------

// An empty tensor on the device of `like`. calls.py knows the error by its text: on a GPU it raises OutOfMemoryError.
inline Tensor empty_strided(Sizes sizes, Sizes strides, Dtype dtype, const Tensor& like) {
  const Device device = device_of(like);
  AtenTensorHandle handle;
  const AOTITorchError error = aoti_torch_empty_strided(int64_t(sizes.size()), sizes.data(), strides.data(),
                                                        code_of(dtype), device.type, device.index, &handle);
  if (error != TORCH_SUCCESS)
    throw std::runtime_error(
        text_of("cuda_sifa could not allocate a tensor of shape ", shape_of(sizes), " on ", name_of(device), reason()));
  return Tensor(handle);
}

// An empty vector.
inline Tensor empty(int64_t size, Dtype dtype, const Tensor& like) {
  const int64_t one = 1;
  return empty_strided(Sizes(&size, 1), Sizes(&one, 1), dtype, like);
}

inline Tensor filled_with_zeros(Tensor tensor) {
  require(aoti_torch_zero_(tensor.get()), "fill a tensor with zeros");
  return tensor;
}

// Copies `from`, which may have another dtype and other strides.
inline void copy(const Tensor& from, const Tensor& to) {
  require(aoti_torch_copy_(to.get(), from.get(), 0), "copy a tensor");
}

// `to`, after the copy.
inline Tensor copied(const Tensor& from, Tensor to) {
  copy(from, to);
  return to;
}

// Calls `body` with parts [begin, end) of [0, size), in the threads of PyTorch: torch.set_num_threads governs them. The
// body must not throw.
template <typename Body>
void parallel_for(int64_t size, int64_t grain_size, const Body& body) {
  const auto part = [](int64_t begin, int64_t end, void* context) { (*static_cast<const Body*>(context))(begin, end); };
  void* context = const_cast<void*>(static_cast<const void*>(&body));
  require(torch_parallel_for(0, size, grain_size, part, context), "run in parallel");
}

}  // namespace sifa
