// The regular neighbourhood, without offsets: no interpolation, and a backward pass in which every pixel collects its
// own gradient, as a query and as a key, so that nothing is scattered.
#pragma once

#include "lanes.cuh"

namespace sifa {

template <typename S, int Width, int Vectors>
__global__ void __launch_bounds__(kThreads)
    regular_forward_kernel(const Problem p, const Tiles tiles, const int lane_count, const S* __restrict__ x,
                           S* __restrict__ out) {
  using A = Accumulator<S>;
  using Part = Stretch<S, Width, Vectors>;
  const Lanes lanes(lane_count);
  const int groups = int(p.groups);
  const int channels = p.head_channels();
  const int64_t reach = p.kernel_size / 2 * p.dilation;
  const A scale = A(1) / A(channels);
  for (int64_t index = blockIdx.x; index < tiles.count; index += gridDim.x) {
    const Tile tile = tiles.at(index, p);
    const int64_t frame = tile.n * p.frames + tile.t;
    for (int64_t item = lanes.group; item < int64_t(tile.positions()) * groups; item += kThreads / lane_count) {
      const int position = int(item / groups);
      const int64_t head = item % groups * channels;
      const int64_t y = tile.y + position / tile.cols, col = tile.x + position % tile.cols;
      const S* keys = x + (frame + 1) * p.frame_size() + head;
      const int64_t at = frame * p.frame_size() + (y * p.width + col) * p.channels + head;
      for (int from = 0; from < channels; from += Part::size(lanes)) {
        Part query, result;
        query.read(x + at + from, channels - from, lanes);
        result.zero();
        for (int64_t row = y - reach; row <= y + reach; row += p.dilation) {
          if (row < 0 || row >= p.height) continue;
#pragma unroll 3
          for (int64_t c = col - reach; c <= col + reach; c += p.dilation) {
            if (c < 0 || c >= p.width) continue;
            const S* key = keys + (row * p.width + c) * p.channels;
            Part value;
            value.read(key + from, channels - from, lanes);
            const A part = channels <= Part::size(lanes)
                               ? query.dot(value)
                               : dot_in_memory<S, Width, Vectors>(x + at, key, channels, lanes);
            result.add(scale * lanes.sum(part), value);
          }
        }
        result.write(out + at + from, channels - from, lanes);
      }
    }
  }
}

// Tiles run over all frames here, the last one included.
template <typename S, int Width, int Vectors>
__global__ void __launch_bounds__(kThreads)
    regular_backward_kernel(const Problem p, const Tiles tiles, const int lane_count, const S* __restrict__ x,
                            const S* __restrict__ grad, S* __restrict__ grad_x) {
  using A = Accumulator<S>;
  using Part = Stretch<S, Width, Vectors>;
  const Lanes lanes(lane_count);
  const int groups = int(p.groups);
  const int channels = p.head_channels();
  const int64_t reach = p.kernel_size / 2 * p.dilation;
  const A scale = A(1) / A(channels);
  for (int64_t index = blockIdx.x; index < tiles.count; index += gridDim.x) {
    const Tile tile = tiles.at(index, p);
    const int64_t frame = tile.n * p.frames + tile.t;
    for (int64_t item = lanes.group; item < int64_t(tile.positions()) * groups; item += kThreads / lane_count) {
      const int position = int(item / groups);
      const int64_t head = item % groups * channels;
      const int64_t y = tile.y + position / tile.cols, col = tile.x + position % tile.cols;
      const int64_t at = frame * p.frame_size() + (y * p.width + col) * p.channels + head;
      for (int from = 0; from < channels; from += Part::size(lanes)) {
        const int rest = channels - from;
        const bool whole = channels <= Part::size(lanes);
        Part own, own_grad, result;
        own.read(x + at + from, rest, lanes);
        own_grad.read(grad + at + from, rest, lanes);
        result.zero();
        for (int64_t row = y - reach; row <= y + reach; row += p.dilation) {
          if (row < 0 || row >= p.height) continue;
          for (int64_t c = col - reach; c <= col + reach; c += p.dilation) {
            if (c < 0 || c >= p.width) continue;
            // The neighbourhood is symmetric: the queries that see this pixel lie where its own keys do.
            const int64_t there = (row * p.width + c) * p.channels + head;
            if (tile.t + 1 < p.frames) {  // as a query
              const S* key = x + (frame + 1) * p.frame_size() + there;
              Part value;
              value.read(key + from, rest, lanes);
              const A part =
                  whole ? own_grad.dot(value) : dot_in_memory<S, Width, Vectors>(grad + at, key, channels, lanes);
              result.add(scale * lanes.sum(part), value);
            }
            if (tile.t > 0) {  // as a key
              const S* query = x + (frame - 1) * p.frame_size() + there;
              const S* incoming = grad + (frame - 1) * p.frame_size() + there;
              Part q, g;
              q.read(query + from, rest, lanes);
              g.read(incoming + from, rest, lanes);
              const A weight = whole ? own.dot(q) : dot_in_memory<S, Width, Vectors>(x + at, query, channels, lanes);
              const A slope = whole ? own.dot(g) : dot_in_memory<S, Width, Vectors>(x + at, incoming, channels, lanes);
              result.add(scale * lanes.sum(weight), g);
              result.add(scale * lanes.sum(slope), q);
            }
          }
        }
        result.write(grad_x + at + from, rest, lanes);
      }
    }
  }
}

}  // namespace sifa
