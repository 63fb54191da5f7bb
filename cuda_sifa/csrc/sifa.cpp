// The schemas of the op, and a text that states what the library was built for. The kernels are registered in cpu/ and
// cuda/, fake kernels and gradients in ops.py.
#include <torch/library.h>

#ifndef SIFA_BUILD
#error "setup.py defines SIFA_BUILD: the versions this library is built for"
#endif

// library.py looks for this text in the file BEFORE it loads the library: one for another PyTorch may not load at all.
extern "C" __attribute__((visibility("default"), used)) const char sifa_build[] = "sifa-build:" SIFA_BUILD ";";

TORCH_LIBRARY(sifa, m) {
  // offset is None for the regular neighbourhood.
  m.def("inter_frame_attention(Tensor x, Tensor? offset, int kernel_size, int dilation, int groups) -> Tensor",
        {at::Tag::pt2_compliant_tag});
  // The gradients of x and of offset. The second one is empty, (0,), if offset is None.
  m.def(
      "inter_frame_attention_backward(Tensor grad, Tensor x, Tensor? offset, int kernel_size, int dilation, "
      "int groups) -> (Tensor, Tensor)",
      {at::Tag::pt2_compliant_tag});
}
