// The schemas of the ops, and a text that states what the library was built for. The kernels are registered in cpu/ and
// cuda/, fake kernels and gradients in ops.py.
#include "tensor.h"

#ifndef SIFA_BUILD
#error "setup.py defines SIFA_BUILD: what this library is built for"
#endif

// library.py looks for this text in the file BEFORE it loads the library: it may not load at all.
extern "C" __attribute__((visibility("default"), used)) const char sifa_build[] = "sifa-build:" SIFA_BUILD ";";

// Schemas have tags from PyTorch 2.12 on. Weak: null before.
extern "C" {
__attribute__((weak)) int32_t torch_tag_pt2_compliant_tag();
__attribute__((weak)) AOTITorchError torch_library_def_with_tags(TorchLibraryHandle library, const char* schema,
                                                                 const int32_t* tags, int32_t number_of_tags);
}

namespace sifa {
namespace {

// Defined while the library is loaded.
class Schemas {
 public:
  Schemas() {
    require(aoti_torch_library_init_def("sifa", __FILE__, __LINE__, &library_), "open its library of operators");
    // offset is None for the regular neighbourhood.
    define(
        "inter_frame_attention(Tensor x, Tensor? offset, int kernel_size, int dilation, int groups, "
        "bool residual=False) -> Tensor");
    // The gradients of x and of offset. The second one is empty, (0,), if offset is None.
    define(
        "inter_frame_attention_backward(Tensor grad, Tensor x, Tensor? offset, int kernel_size, int dilation, "
        "int groups, bool deterministic=False, bool residual=False) -> (Tensor, Tensor)");
    define("motion_saliency(Tensor x) -> Tensor");
    define("motion_saliency_backward(Tensor grad, Tensor x) -> Tensor");
  }
  ~Schemas() { aoti_torch_delete_library_object(library_); }
  Schemas(const Schemas&) = delete;
  Schemas& operator=(const Schemas&) = delete;

 private:
  void define(const char* schema) {
    if (torch_library_def_with_tags) {
      const int32_t tag = torch_tag_pt2_compliant_tag();
      require(torch_library_def_with_tags(library_, schema, &tag, 1), "define its operator");
    } else {
      require(aoti_torch_library_def(library_, schema), "define its operator");
    }
  }

  TorchLibraryHandle library_;
};

const Schemas schemas;

}  // namespace
}  // namespace sifa
