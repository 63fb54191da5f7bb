// The regular neighbourhood, without offsets: no interpolation, and a backward pass in which every pixel collects its
// own gradient, as a query and as a key, so that nothing is scattered.
#pragma once

#include "lanes.cuh"

namespace sifa {

template <typename S, int Width, int Vectors>
__global__ void __launch_bounds__(kThreads, kBlocks<S, Width * Vectors>)
    regular_forward_kernel(const Problem p, const Tiles tiles, const int lane_count, const S* __restrict__ x,
                           S* __restrict__ out) {
  using A = Accumulator<S>;
  using Part = Stretch<S, Width, Vectors>;
  const Lanes lanes(lane_count);
  const int channels = p.head_channels(), reach = p.kernel_size / 2 * p.dilation;
  const A scale = A(1) / A(channels);
  for (int64_t index = blockIdx.x; index < tiles.count; index += gridDim.x) {
    const Tile tile = tiles.at(index, p);
    const int64_t frame = tile.frame(p);
    for (int position = lanes.group; position < tile.positions(); position += kThreads / lane_count) {
      const int y = tile.row(position), col = tile.col(position);
      for (int head = 0; head < p.channels; head += channels) {
        const S* keys = x + (frame + 1) * p.frame_size() + head;
        const int64_t at = frame * p.frame_size() + tile.pixel(position, p) * p.channels + head;
        for (int from = 0; from < channels; from += Part::size(lanes)) {
          Part query, result;
          query.read(x + at + from, channels - from, lanes);
          result.zero();
          for (int64_t row = int64_t(y) - reach; row <= int64_t(y) + reach; row += p.dilation) {
            if (row < 0 || row >= p.height) continue;
#pragma unroll 3
            for (int64_t c = int64_t(col) - reach; c <= int64_t(col) + reach; c += p.dilation) {
              if (c < 0 || c >= p.width) continue;
              const S* key = keys + (row * p.width + c) * p.channels;
              Part value;
              value.read(key + from, channels - from, lanes);
              const A part = channels <= Part::size(lanes) ? query.dot(value)
                                                           : dot_in_memory<S, Width>(x + at, key, channels, lanes);
              result.add(scale * lanes.sum(part), value);
            }
          }
          result.write(out + at + from, channels - from, lanes);
        }
      }
    }
  }
}

// Tiles run over all frames here, the last one included.
template <typename S, int Width, int Vectors>
__global__ void __launch_bounds__(kThreads, kBlocks<S, Width * Vectors>)
    regular_backward_kernel(const Problem p, const Tiles tiles, const int lane_count, const S* __restrict__ x,
                            const S* __restrict__ grad, S* __restrict__ grad_x) {
  using A = Accumulator<S>;
  using Part = Stretch<S, Width, Vectors>;
  const Lanes lanes(lane_count);
  const int channels = p.head_channels(), reach = p.kernel_size / 2 * p.dilation;
  const A scale = A(1) / A(channels);
  for (int64_t index = blockIdx.x; index < tiles.count; index += gridDim.x) {
    const Tile tile = tiles.at(index, p);
    const int64_t frame = tile.frame(p);
    for (int position = lanes.group; position < tile.positions(); position += kThreads / lane_count) {
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
            if (row < 0 || row >= p.height) continue;
            for (int64_t c = int64_t(col) - reach; c <= int64_t(col) + reach; c += p.dilation) {
              if (c < 0 || c >= p.width) continue;
              // The neighbourhood is symmetric: the queries that see this pixel lie where its own keys do.
              const int64_t there = (row * p.width + c) * p.channels + head;
              if (tile.t + 1 < p.frames) {  // as a query
                const S* key = x + (frame + 1) * p.frame_size() + there;
                Part value;
                value.read(key + from, rest, lanes);
                const A part = whole ? own_grad.dot(value) : dot_in_memory<S, Width>(grad + at, key, channels, lanes);
                result.add(scale * lanes.sum(part), value);
              }
              if (tile.t > 0) {  // as a key
                const S* query = x + (frame - 1) * p.frame_size() + there;
                const S* incoming = grad + (frame - 1) * p.frame_size() + there;
                Part q, g;
                q.read(query + from, rest, lanes);
                g.read(incoming + from, rest, lanes);
                const A weight = whole ? own.dot(q) : dot_in_memory<S, Width>(x + at, query, channels, lanes);
                const A slope = whole ? own.dot(g) : dot_in_memory<S, Width>(x + at, incoming, channels, lanes);
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
}

}  // namespace sifa
