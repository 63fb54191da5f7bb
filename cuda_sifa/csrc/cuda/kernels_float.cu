// The CUDA kernels for float.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "launch.cuh"

namespace sifa {

template cudaError_t run_forward<float>(const Problem&, const Call&, const void*, const void*, void*);
template cudaError_t run_regular_backward<float>(const Problem&, const Call&, const void*, const void*, void*);
template cudaError_t run_backward<float>(const Problem&, const Call&, const void*, const void*, const void*, void*,
                                         void*, void*);
template cudaError_t run_saliency<float>(const Problem&, const Call&, const void*, void*);
template cudaError_t run_saliency_backward<float>(const Problem&, const Call&, const void*, const void*, void*);

}  // namespace sifa
