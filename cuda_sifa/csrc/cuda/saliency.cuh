// The motion saliency of consecutive frames a and f, s = f + sigmoid(f - a) * f, and its gradient. It is computed for
// each element alone. One thread follows its elements, one vector, through all frames: so every frame is read once,
// although it is the f of one pair and the a of the next.
#pragma once

#include "problem.cuh"

namespace sifa {

// In float by the fast functions: a few units in the last place, for a quarter of the instructions.
__device__ __forceinline__ float sigmoid(float value) { return __fdividef(1.0f, 1.0f + __expf(-value)); }
__device__ __forceinline__ double sigmoid(double value) { return 1.0 / (1.0 + exp(-value)); }

// Calls work(element in frame 0 of the clips, element in the first of T-1 frames) for the vectors of this thread.
template <int Width, typename Work>
__device__ __forceinline__ void for_each_vector(const Problem& p, const Work& work) {
  const int64_t vectors = p.frame_size() / Width;
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < p.batch * vectors;
       i += int64_t(gridDim.x) * kThreads) {
    const int64_t n = i / vectors, at = i % vectors * Width;
    work(n * p.frames * p.frame_size() + at, n * p.pairs() * p.frame_size() + at);
  }
}

template <typename S, int Width>
__global__ void __launch_bounds__(kThreads)
    saliency_kernel(const Problem p, const S* __restrict__ x, S* __restrict__ saliency) {
  using A = Accumulator<S>;
  for_each_vector<Width>(p, [&](int64_t from, int64_t to) {
    A frame[Width];
    load(x + from, frame);
#pragma unroll 2
    for (int t = 0; t < p.pairs(); ++t) {
      A following[Width], result[Width];
      load(x + from + (t + 1) * p.frame_size(), following);
#pragma unroll
      for (int e = 0; e < Width; ++e) {
        result[e] = following[e] + sigmoid(following[e] - frame[e]) * following[e];
        frame[e] = following[e];
      }
      store(saliency + to + t * p.frame_size(), result);
    }
  });
}

// With g the incoming gradient, s = sigmoid(f - a) and h = g f s (1 - s): the gradient of f is g + g s + h, that of a
// is -h.
template <typename S, int Width>
__global__ void __launch_bounds__(kThreads) saliency_backward_kernel(const Problem p, const S* __restrict__ grad,
                                                                     const S* __restrict__ x, S* __restrict__ grad_x) {
  using A = Accumulator<S>;
  for_each_vector<Width>(p, [&](int64_t from, int64_t incoming) {
    A frame[Width], sum[Width] = {};  // the frame, and its gradient as the second one of a pair
    load(x + from, frame);
#pragma unroll 2
    for (int t = 0; t < p.pairs(); ++t) {
      A following[Width], g[Width], next[Width];
      load(x + from + (t + 1) * p.frame_size(), following);
      load(grad + incoming + t * p.frame_size(), g);
#pragma unroll
      for (int e = 0; e < Width; ++e) {
        const A s = sigmoid(following[e] - frame[e]), h = g[e] * following[e] * (s * (A(1) - s));
        sum[e] -= h;
        next[e] = g[e] + g[e] * s + h;
        frame[e] = following[e];
      }
      store(grad_x + from + t * p.frame_size(), sum);
#pragma unroll
      for (int e = 0; e < Width; ++e) sum[e] = next[e];
    }
    store(grad_x + from + p.pairs() * p.frame_size(), sum);
  });
}

}  // namespace sifa
