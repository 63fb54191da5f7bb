// The kernels for the regular neighbourhood, without offsets. They need no interpolation. In the backward pass every
// pixel collects its own gradient, as a query and as a key, so nothing is scattered.
#pragma once

#include "lanes.cuh"

namespace sifa {

__device__ __forceinline__ bool in_map(int64_t row, int64_t col, const Problem& p) {
  return row >= 0 && row < p.height && col >= 0 && col < p.width;
}

template <typename S, int Width, int Vectors>
__global__ void __launch_bounds__(kThreads, kBlocks<S, Width * Vectors>)
    regular_forward_kernel(const Problem p, const Tiles tiles, const int lane_count, const S* __restrict__ x,
                           S* __restrict__ out) {
  using A = Accumulator<S>;
  using Part = Stretch<S, Width, Vectors>;
  const Lanes<> lanes(lane_count);
  const int channels = p.head_channels(), reach = p.kernel_size / 2 * p.dilation;
  const A scale = A(1) / A(channels);
  for (int64_t index = blockIdx.x; index < tiles.count; index += gridDim.x) {
    const Tile tile = tiles.at(index, p);
    if (tile.is_last_frame(p)) {
      finish_last_frame<S, Width>(x, out, tile, p);
      continue;
    }
    const int64_t frame = tile.frame(p);
    lanes.for_each(tile.positions(), [&](int position, bool active) {
      const int y = tile.row(position), col = tile.col(position);
      for (int head = 0; head < p.channels; head += channels) {
        const S* keys = x + (frame + 1) * p.frame_size() + head;
        const int64_t at = frame * p.frame_size() + tile.pixel(position, p) * p.channels + head;
        for (int from = 0; from < channels; from += Part::size(lanes)) {
          Part query, result;
          query.read(x + at + from, channels - from, lanes);
          result.zero();
          for (int64_t row = int64_t(y) - reach; row <= int64_t(y) + reach; row += p.dilation) {
#pragma unroll 3
            for (int64_t c = int64_t(col) - reach; c <= int64_t(col) + reach; c += p.dilation) {
              const int count = in_map(row, c, p) ? channels : 0;  // outside the map: zeros
              const S* key = keys + (row * p.width + c) * p.channels;
              Part value;
              value.read(key + from, count - from, lanes);
              const A part =
                  channels <= Part::size(lanes) ? query.dot(value) : dot_in_memory<S, Width>(x + at, key, count, lanes);
              result.add(scale * lanes.sum(part), value);
            }
          }
          if (p.residual) result.add(query);
          if (active) result.write(out + at + from, channels - from, lanes);
        }
      }
    });
  }
}

// Tiles cover all frames here, the last frame too.
template <typename S, int Width, int Vectors>
__global__ void __launch_bounds__(kThreads, kBlocks<S, Width * Vectors>)
    regular_backward_kernel(const Problem p, const Tiles tiles, const int lane_count, const S* __restrict__ x,
                            const S* __restrict__ grad, S* __restrict__ grad_x) {
  using A = Accumulator<S>;
  using Part = Stretch<S, Width, Vectors>;
  const Lanes<> lanes(lane_count);
  const int channels = p.head_channels(), reach = p.kernel_size / 2 * p.dilation;
  const A scale = A(1) / A(channels);
  for (int64_t index = blockIdx.x; index < tiles.count; index += gridDim.x) {
    const Tile tile = tiles.at(index, p);
    const int64_t frame = tile.frame(p);
    lanes.for_each(tile.positions(), [&](int position, bool active) {
      const int y = tile.row(position), col = tile.col(position);
      for (int head = 0; head < p.channels; head += channels) {
        const int64_t at = frame * p.frame_size() + tile.pixel(position, p) * p.channels + head;
        for (int from = 0; from < channels; from += Part::size(lanes)) {
          const int rest = channels - from;
          const bool whole = channels <= Part::size(lanes);
          Part own, own_grad, result;
          own.read(x + at + from, rest, lanes);
          own_grad.read(grad + at + from, rest, lanes);
          result.zero();
          for (int64_t row = int64_t(y) - reach; row <= int64_t(y) + reach; row += p.dilation) {
            for (int64_t c = int64_t(col) - reach; c <= int64_t(col) + reach; c += p.dilation) {
              const int count = in_map(row, c, p) ? channels : 0;  // outside the map: zeros
              const int left = count - from;
              // The neighbourhood is symmetric: the queries that read this pixel have the positions of its own keys.
              const int64_t there = (row * p.width + c) * p.channels + head;
              if (tile.t + 1 < p.frames) {  // as a query
                const S* key = x + (frame + 1) * p.frame_size() + there;
                Part value;
                value.read(key + from, left, lanes);
                const A part = whole ? own_grad.dot(value) : dot_in_memory<S, Width>(grad + at, key, count, lanes);
                result.add(scale * lanes.sum(part), value);
              }
              if (tile.t > 0) {  // as a key
                const S* query = x + (frame - 1) * p.frame_size() + there;
                const S* incoming = grad + (frame - 1) * p.frame_size() + there;
                Part q, g;
                q.read(query + from, left, lanes);
                g.read(incoming + from, left, lanes);
                const A weight = whole ? own.dot(q) : dot_in_memory<S, Width>(x + at, query, count, lanes);
                const A slope = whole ? own.dot(g) : dot_in_memory<S, Width>(x + at, incoming, count, lanes);
                result.add(scale * lanes.sum(weight), g);
                result.add(scale * lanes.sum(slope), q);
              }
            }
          }
          if (p.residual) result.add(own_grad);
          if (active) result.write(grad_x + at + from, rest, lanes);
        }
      }
    });
  }
}

}  // namespace sifa
