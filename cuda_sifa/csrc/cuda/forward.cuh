// The forward kernels. One group of lanes computes one position and head: each tap is sampled once, its dot product
// with the query taken, and the sample added to the result with that weight.
#pragma once

#include "lanes.cuh"

namespace sifa {

// K = 0: a neighbourhood of any size, whose geometry every lane works out anew. K > 0: k = K, and the block works out
// the geometry of a whole tile at once, in shared memory.
template <typename S, int K, int Width, int Vectors>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(const Problem p, const Tiles tiles, const int lane_count, const S* __restrict__ x,
                   const void* __restrict__ offset, S* __restrict__ out) {
  using A = Accumulator<S>;
  using Part = Stretch<S, Width, Vectors>;
  extern __shared__ __align__(32) unsigned char shared_memory[];
  Sample<A>* samples = reinterpret_cast<Sample<A>*>(shared_memory);  // (position, tap)
  const Lanes lanes(lane_count);
  const OffsetField<S> field{offset, p};
  const int k = K ? K : int(p.kernel_size), taps = k * k, groups = int(p.groups);
  const int channels = p.head_channels();
  const A scale = A(1) / A(channels);

  for (int64_t index = blockIdx.x; index < tiles.count; index += gridDim.x) {
    const Tile tile = tiles.at(index, p);
    if constexpr (K > 0) {
      __syncthreads();  // the samples of the tile before are no longer needed
      for (int i = int(threadIdx.x); i < tile.positions() * taps; i += kThreads) {
        const int position = i / taps, tap = i % taps;
        samples[i] = sample_at<true>(field, tile.n, tile.t, tile.y + position / tile.cols,
                                     tile.x + position % tile.cols, tap / k, tap % k);
      }
      __syncthreads();
    }
    const int64_t frame = tile.n * p.frames + tile.t;
    for (int64_t item = lanes.group; item < int64_t(tile.positions()) * groups; item += kThreads / lane_count) {
      const int position = int(item / groups);
      const int64_t head = item % groups * channels;
      const int64_t y = tile.y + position / tile.cols, col = tile.x + position % tile.cols;
      const S* keys = x + (frame + 1) * p.frame_size() + head;
      const int64_t at = frame * p.frame_size() + (y * p.width + col) * p.channels + head;
      // A head with more channels than the lanes hold is written stretch by stretch, its weights summed anew each time.
      for (int from = 0; from < channels; from += Part::size(lanes)) {
        Part query, result;
        query.read(x + at + from, channels - from, lanes);
        result.zero();
#pragma unroll(K == 0 ? 1 : 3)
        for (int tap = 0; tap < taps; ++tap) {
          const Sample<A> place =
              K ? samples[position * taps + tap] : sample_at<true>(field, tile.n, tile.t, y, col, tap / k, tap % k);
          Part value;
          value.sample(keys + from, channels - from, lanes, p, place);
          A weight = query.dot(value);
          if (channels > Part::size(lanes)) {
            for (int other = 0; other < channels; other += Part::size(lanes)) {
              if (other == from) continue;
              Part more, there;
              more.read(x + at + other, channels - other, lanes);
              there.sample(keys + other, channels - other, lanes, p, place);
              weight += more.dot(there);
            }
          }
          result.add(scale * lanes.sum(weight), value);
        }
        result.write(out + at + from, channels - from, lanes);
      }
    }
  }
}

}  // namespace sifa
