// The op's schemas, and the line by which a library says what it was built for. Kernels are registered beside their
// code (cpu/, cuda/), fake kernels and gradients in ops.py.
#include <torch/library.h>

#ifndef SIFA_BUILD
#error "setup.py defines SIFA_BUILD: the versions this library is built for"
#endif

// ops.py looks for this text in the file BEFORE loading it: a library for another PyTorch may not load at all.
extern "C" __attribute__((visibility("default"), used)) const char sifa_build[] = "sifa-build:" SIFA_BUILD ";";

TORCH_LIBRARY(sifa, m) {
  // offset is None for the regular neighbourhood.
  m.def("inter_frame_attention(Tensor x, Tensor? offset, int kernel_size, int dilation, int groups) -> Tensor",
        {at::Tag::pt2_compliant_tag});
  // Gradients of x and of offset; the latter is empty, (0,), where offset is None.
  m.def(
      "inter_frame_attention_backward(Tensor grad, Tensor x, Tensor? offset, int kernel_size, int dilation, "
      "int groups) -> (Tensor, Tensor)",
      {at::Tag::pt2_compliant_tag});
}
