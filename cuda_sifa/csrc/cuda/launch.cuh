// Which kernel, how many lanes for a position, how large a tile: rules on the sizes and the number of multiprocessors.
// Host code, without PyTorch.
#pragma once

#include <climits>

#include "backward.cuh"
#include "forward.cuh"
#include "kernels.h"
#include "regular.cuh"
#include "saliency.cuh"
#include "tiled_backward.cuh"

namespace sifa {

constexpr int kMinPositions = 8, kMaxPositions = 64;  // of a tile
constexpr size_t kMaxShared = 48 * 1024;              // what every GPU gives a block by default

// Tiles as large as `max_positions` allows, because neighbours share the pixels that they read; smaller if there would
// be too few blocks for all multiprocessors.
inline Tiles divide(const Problem& p, int first_pair, int pair_step, int pairs, int max_positions,
                    int multiprocessors) {
  Tiles tiles{8, 8, 0, 0, first_pair, pair_step, pairs, 0};
  const auto count = [&] {
    tiles.down = (p.height - 1) / tiles.rows + 1;
    tiles.across = (p.width - 1) / tiles.cols + 1;
    return tiles.count = int64_t(p.batch) * pairs * tiles.down * tiles.across;
  };
  while (tiles.rows * tiles.cols > max_positions ||
         (tiles.rows * tiles.cols > kMinPositions && count() < 2 * multiprocessors)) {
    if (tiles.rows * tiles.cols == 1) break;
    (tiles.rows >= tiles.cols ? tiles.rows : tiles.cols) /= 2;
  }
  count();
  // The same number of tiles, of equal size if the map allows it.
  tiles.rows = (p.height - 1) / tiles.down + 1;
  tiles.cols = (p.width - 1) / tiles.across + 1;
  return tiles;
}

inline bool aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

// The number of lanes for one position if each holds `held` channels: no more than the head needs, as others would
// compute zeros.
inline int lanes_for(const Problem& p, int held) {
  int lanes = 8;
  while (lanes < 32 && lanes * held < p.head_channels()) lanes *= 2;
  return lanes;
}

// How many 16-byte vectors hold `Channels` channels. Double takes more registers, so half as many channels.
template <typename S, int Channels>
constexpr int vectors_for = Channels / (sizeof(S) == 8 ? 2 : 1) / kWidth<S>;

template <typename... Parameters, typename... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), int64_t blocks, size_t shared, cudaStream_t stream,
                   Arguments... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim =
      dim3(unsigned(blocks < INT_MAX ? blocks : INT_MAX));  // every kernel continues at the next tile with gridDim.x
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = shared;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...);
}

// ---- Forward --------------------------------------------------------------------------------------------------------

template <typename S, int K, int Count, int Vectors, bool Exact>
cudaError_t launch_forward_kernel(const Problem& p, const Call& call, const S* x, const void* offset, S* out) {
  constexpr int64_t samples = sizeof(Sample<Accumulator<S>>) * K * K;  // bytes a position
  int max_positions = kMaxPositions;
  while (max_positions * samples > int64_t(kMaxShared)) max_positions /= 2;
  const Tiles tiles = divide(p, 0, 1, p.frames, max_positions, call.multiprocessors);
  const int64_t right = int64_t(sizeof(S)) * p.channels;
  return launch(forward_kernel<S, K, Count, Vectors, Exact>, tiles.count, size_t(samples * tiles.rows * tiles.cols),
                call.stream, p, tiles, right, right * p.width, x, offset, out);
}

template <typename S>
cudaError_t launch_forward_by_taps(const Problem& p, const Call& call, const S* x, const void* offset, S* out,
                                   bool vectors) {
  const Tiles tiles = divide(p, 0, 1, p.frames, kMaxPositions, call.multiprocessors);
  constexpr int width = kWidth<S>, some = vectors_for<S, 16>;
  const auto kernel = vectors ? forward_by_taps_kernel<S, width, some> : forward_by_taps_kernel<S, 1, 4>;
  const int lanes = lanes_for(p, vectors ? width * some : 4);
  return launch(kernel, tiles.count, 0, call.stream, p, tiles, lanes, x, offset, out);
}

// Few lanes with several vectors each, so that a warp has more positions: the other work for a tap (addresses, weights,
// the sum over the lanes) costs the same for one position and for four. It is faster still if the lanes hold the head
// exactly; k = 3, the size in the paper, has kernels for that.
template <typename S, int K>
cudaError_t launch_forward(const Problem& p, const Call& call, const S* x, const void* offset, S* out) {
  constexpr int some = vectors_for<S, 16>, most = vectors_for<S, 32>;
  const int vectors = p.head_channels() / kWidth<S>;
  if constexpr (K == 3 && sizeof(S) <= 4) {
    if (vectors == 8 * 2) return launch_forward_kernel<S, K, 8, 2, true>(p, call, x, offset, out);
    if (vectors == 8 * some) return launch_forward_kernel<S, K, 8, some, true>(p, call, x, offset, out);
    if (vectors == 16 * some) return launch_forward_kernel<S, K, 16, some, true>(p, call, x, offset, out);
    if (vectors == 32 * some) return launch_forward_kernel<S, K, 32, some, true>(p, call, x, offset, out);
    if (vectors == 32 * most) return launch_forward_kernel<S, K, 32, most, true>(p, call, x, offset, out);
  }
  if constexpr (K == 3) {
    if (vectors <= 8) return launch_forward_kernel<S, K, 8, 1, false>(p, call, x, offset, out);
    if (vectors > 8 * 2 && vectors <= 16 * 2) return launch_forward_kernel<S, K, 16, 2, false>(p, call, x, offset, out);
  }
  if (vectors <= 8 * 2) return launch_forward_kernel<S, K, 8, 2, false>(p, call, x, offset, out);
  if (vectors <= 32 * some) return launch_forward_kernel<S, K, 32, some, false>(p, call, x, offset, out);
  if (vectors <= 32 * most) return launch_forward_kernel<S, K, 32, most, false>(p, call, x, offset, out);
  return launch_forward_by_taps(p, call, x, offset, out, true);
}

template <typename S>
cudaError_t run_forward(const Problem& p, const Call& call, const void* x_, const void* offset, void* out_) {
  constexpr int width = kWidth<S>;
  const S* x = static_cast<const S*>(x_);
  S* out = static_cast<S*>(out_);
  const bool vectors = p.head_channels() % width == 0 && aligned(x) && aligned(out);
  if (!offset) {
    const Tiles tiles = divide(p, 0, 1, p.frames, kMaxPositions, call.multiprocessors);
    const auto run = [&](auto kernel, int held) {
      return launch(kernel, tiles.count, 0, call.stream, p, tiles, lanes_for(p, held), x, out);
    };
    constexpr int some = vectors_for<S, 16>, most = vectors_for<S, 32>;
    if (!vectors) return run(regular_forward_kernel<S, 1, 4>, 4);
    if (p.head_channels() <= 32 * width * some) return run(regular_forward_kernel<S, width, some>, width * some);
    return run(regular_forward_kernel<S, width, most>, width * most);
  }
  if (!vectors) return launch_forward_by_taps(p, call, x, offset, out, false);
  switch (p.kernel_size) {
    case 1:
      return launch_forward<S, 1>(p, call, x, offset, out);
    case 3:
      return launch_forward<S, 3>(p, call, x, offset, out);
    case 5:
      return launch_forward<S, 5>(p, call, x, offset, out);
    case 7:
      return launch_forward<S, 7>(p, call, x, offset, out);
    default:
      return launch_forward_by_taps(p, call, x, offset, out, true);
  }
}

// ---- Backward -------------------------------------------------------------------------------------------------------

template <typename S>
cudaError_t run_regular_backward(const Problem& p, const Call& call, const void* grad_, const void* x_, void* grad_x_) {
  constexpr int width = kWidth<S>;
  const S *x = static_cast<const S*>(x_), *grad = static_cast<const S*>(grad_);
  S* grad_x = static_cast<S*>(grad_x_);
  const bool vectors = p.head_channels() % width == 0 && aligned(x) && aligned(grad) && aligned(grad_x);
  const Tiles tiles = divide(p, 0, 1, p.frames, kMaxPositions, call.multiprocessors);
  const auto run = [&](auto kernel, int held) {
    return launch(kernel, tiles.count, 0, call.stream, p, tiles, lanes_for(p, held), x, grad, grad_x);
  };
  constexpr int some = vectors_for<S, 16>, most = vectors_for<S, 32>;
  if (!vectors) return run(regular_backward_kernel<S, 1, 4>, 4);
  if (p.head_channels() <= 32 * width * some) return run(regular_backward_kernel<S, width, some>, width * some);
  return run(regular_backward_kernel<S, width, most>, width * most);
}

template <typename S, int K, int Count, int Vectors>
cudaError_t launch_tiled_kernel(const Problem& p, const Call& call, Tiles tiles, const BackwardArgs<S>& args) {
  using Memory = TileMemory<Accumulator<S>>;
  int max_positions = kTilePositions;
  while (Memory::bytes(max_positions, K * K, kMaxWindow) > kMaxShared) max_positions /= 2;
  tiles = divide(p, tiles.first_pair, tiles.pair_step, tiles.pairs, max_positions, call.multiprocessors);
  // What the regular taps of the tile reach, the second pixel of a displaced cell, and offsets of up to 3 pixels.
  const int64_t margin = int64_t(K / 2) * p.dilation + 3;
  Window window{0, 0, 0, 0};
  if ((tiles.rows + 2 * margin + 1) * (tiles.cols + 2 * margin + 1) <= kMaxWindow)
    window = {int(tiles.rows + 2 * margin + 1), int(tiles.cols + 2 * margin + 1), int(margin), int(margin)};
  return launch(tiled_backward_kernel<S, K, Count, Vectors>, tiles.count,
                Memory::bytes(tiles.rows * tiles.cols, K * K, window.rows * window.cols), call.stream, p, tiles, window,
                args);
}

template <typename S, int K>
cudaError_t launch_tiled_backward(const Problem& p, const Call& call, const Tiles& tiles, const BackwardArgs<S>& args) {
  constexpr int some = vectors_for<S, 8>;
  const int vectors = p.head_channels() / kWidth<S>;
  if constexpr (K == 3) {
    if (vectors <= 8) return launch_tiled_kernel<S, K, 8, 1>(p, call, tiles, args);
    if constexpr (some > 1)
      if (vectors <= 8 * some) return launch_tiled_kernel<S, K, 8, some>(p, call, tiles, args);
    if (vectors <= 16 * some) return launch_tiled_kernel<S, K, 16, some>(p, call, tiles, args);
  }
  return launch_tiled_kernel<S, K, 32, some>(p, call, tiles, args);
}

// One launch, for the pairs of `tiles`. The sizes of the tiles are not set yet.
template <typename S>
cudaError_t launch_backward(const Problem& p, const Call& call, Tiles tiles, const BackwardArgs<S>& args) {
  constexpr int width = kWidth<S>;
  const bool vectors = p.head_channels() % width == 0 && aligned(args.x) && aligned(args.grad) && aligned(args.grad_x);
  if (vectors && !args.weights && p.kernel_size <= 7 && p.pixels() < kMaxPixels) {
    switch (p.kernel_size) {
      case 1:
        return launch_tiled_backward<S, 1>(p, call, tiles, args);
      case 3:
        return launch_tiled_backward<S, 3>(p, call, tiles, args);
      case 5:
        return launch_tiled_backward<S, 5>(p, call, tiles, args);
      default:
        return launch_tiled_backward<S, 7>(p, call, tiles, args);
    }
  }
  tiles = divide(p, tiles.first_pair, tiles.pair_step, tiles.pairs, kMaxPositions, call.multiprocessors);
  return launch(vectors ? backward_by_taps_kernel<S, width> : backward_by_taps_kernel<S, 1>, tiles.count, 0,
                call.stream, p, tiles, lanes_for(p, vectors ? width : 1), args);
}

template <typename S>
cudaError_t run_backward(const Problem& p, const Call& call, const void* grad, const void* x, const void* offset,
                         void* grad_x, void* grad_offset, void* weights) {
  using A = Accumulator<S>;
  BackwardArgs<S> args{
      static_cast<const S*>(x), offset, static_cast<const S*>(grad), static_cast<A*>(grad_x), grad_offset,
      static_cast<A*>(weights), false};
  for (const int parity : {1, 0}) {
    const int pairs = (p.pairs() + 1 - parity) / 2;
    if (pairs == 0) continue;  // of two frames
    args.second = parity == 0;
    const Tiles tiles{0, 0, 0, 0, parity, 2, pairs, 0};
    const cudaError_t error = launch_backward(p, call, tiles, args);
    if (error != cudaSuccess) return error;
    if (!weights) continue;
    const int64_t threads = int64_t(p.batch) * pairs * p.channels;
    const cudaError_t added =
        launch(add_in_order_kernel<S>, (threads + kThreads - 1) / kThreads, 0, call.stream, p, tiles, args);
    if (added != cudaSuccess) return added;
  }
  return cudaSuccess;
}

// ---- Motion saliency ------------------------------------------------------------------------------------------------

template <int Width, typename... Parameters, typename... Arguments>
cudaError_t launch_elementwise(void (*kernel)(Parameters...), const Problem& p, const Call& call,
                               Arguments... arguments) {
  const int64_t threads = p.batch * (p.frame_size() / Width);
  return launch(kernel, (threads + kThreads - 1) / kThreads, 0, call.stream, p, arguments...);
}

template <typename S>
cudaError_t run_saliency(const Problem& p, const Call& call, const void* x_, void* saliency_) {
  constexpr int width = kWidth<S>;
  const S* x = static_cast<const S*>(x_);
  S* saliency = static_cast<S*>(saliency_);
  if (p.frame_size() % width == 0 && aligned(x) && aligned(saliency))
    return launch_elementwise<width>(saliency_kernel<S, width>, p, call, x, saliency);
  return launch_elementwise<1>(saliency_kernel<S, 1>, p, call, x, saliency);
}

template <typename S>
cudaError_t run_saliency_backward(const Problem& p, const Call& call, const void* grad_, const void* x_,
                                  void* grad_x_) {
  constexpr int width = kWidth<S>;
  const S *grad = static_cast<const S*>(grad_), *x = static_cast<const S*>(x_);
  S* grad_x = static_cast<S*>(grad_x_);
  if (p.frame_size() % width == 0 && aligned(grad) && aligned(x) && aligned(grad_x))
    return launch_elementwise<width>(saliency_backward_kernel<S, width>, p, call, grad, x, grad_x);
  return launch_elementwise<1>(saliency_backward_kernel<S, 1>, p, call, grad, x, grad_x);
}

}  // namespace sifa
