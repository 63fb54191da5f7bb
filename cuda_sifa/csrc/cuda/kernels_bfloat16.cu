// The CUDA kernels for bfloat16.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "launch.cuh"

namespace sifa {

template cudaError_t run_forward<__nv_bfloat16>(const Problem&, const Call&, const void*, const void*, void*);
template cudaError_t run_regular_backward<__nv_bfloat16>(const Problem&, const Call&, const void*, const void*, void*);
template cudaError_t run_backward<__nv_bfloat16>(const Problem&, const Call&, const void*, const void*, const void*,
                                                 void*, void*, void*);
template cudaError_t run_saliency<__nv_bfloat16>(const Problem&, const Call&, const void*, void*);
template cudaError_t run_saliency_backward<__nv_bfloat16>(const Problem&, const Call&, const void*, const void*, void*);

}  // namespace sifa
