// The forward kernels. One group of lanes computes one position and head: each tap is sampled once, its dot product
// with the query taken, and the sample added to the result with that weight.
#pragma once

#include "lanes.cuh"

namespace sifa {

// K = 0: a neighbourhood of any size, whose geometry every lane works out anew. K > 0: k = K, and the block works out
// the geometry of a whole tile at once, in shared memory.
template <typename S, int K, int Width, int Vectors>
__global__ void __launch_bounds__(kThreads, kBlocks<S, Width * Vectors>)
    forward_kernel(const Problem p, const Tiles tiles, const int lane_count, const S* __restrict__ x,
                   const void* __restrict__ offset, S* __restrict__ out) {
  using A = Accumulator<S>;
  using Part = Stretch<S, Width, Vectors>;
  using One = Stretch<S, Width, 1>;
  // With very many channels the query is read anew for each tap, from the cache: the registers hold no more.
  constexpr bool kAnew = Width * Vectors * sizeof(A) > 64;
  // With few channels, several taps at once: more loads under way.
  constexpr int kTogether = K % 3 == 0 && K > 0 && Width * Vectors * sizeof(A) <= 16 ? 3 : 1;
  extern __shared__ __align__(32) unsigned char shared_memory[];
  Sample<A>* samples = reinterpret_cast<Sample<A>*>(shared_memory);  // (position, tap)
  const Lanes lanes(lane_count);
  const OffsetField<S> field{offset, p};
  const int k = K ? K : p.kernel_size, taps = k * k, channels = p.head_channels();
  const A scale = A(1) / A(channels);

  for (int64_t index = blockIdx.x; index < tiles.count; index += gridDim.x) {
    const Tile tile = tiles.at(index, p);
    if constexpr (K > 0) {
      __syncthreads();  // the samples of the tile before are no longer needed
      for (int i = int(threadIdx.x); i < tile.positions() * taps; i += kThreads) {
        const int position = i / taps, tap = i % taps;
        samples[i] = sample_at<true>(field, tile.n, tile.t, tile.row(position), tile.col(position), tap / k, tap % k);
      }
      __syncthreads();
    }
    const int64_t frame = tile.frame(p);
    for (int position = lanes.group; position < tile.positions(); position += kThreads / lane_count) {
      const int y = tile.row(position), col = tile.col(position);
      for (int head = 0; head < p.channels; head += channels) {
        const S* keys = x + (frame + 1) * p.frame_size() + head;
        const int64_t at = frame * p.frame_size() + tile.pixel(position, p) * p.channels + head;
        // A head with more channels than the lanes hold is written stretch by stretch, its weights summed anew each
        // time.
        for (int from = 0; from < channels; from += Part::size(lanes)) {
          StoredStretch<S, Width, Vectors> query;
          Part result;
          if (!kAnew) query.read(x + at + from, channels - from, lanes);
          result.zero();
#pragma unroll 1
          for (int tap = 0; tap < taps; tap += kTogether) {
            if (kAnew) query.read(x + at + from, channels - from, lanes);
            Sample<A> place[kTogether];
            Part value[kTogether];
            A weight[kTogether];
#pragma unroll
            for (int i = 0; i < kTogether; ++i) {
              place[i] = K ? samples[position * taps + tap + i]
                           : sample_at<true>(field, tile.n, tile.t, y, col, tap / k, tap % k);
              value[i].sample(keys + from, channels - from, lanes, p, place[i]);
              weight[i] = value[i].dot(query);
            }
            for (int other = 0; other < channels; other += One::size(lanes)) {
              if (other == from) other += Part::size(lanes);
              if (other >= channels) break;
              One more, there;
              more.read(x + at + other, channels - other, lanes);
#pragma unroll
              for (int i = 0; i < kTogether; ++i) {
                there.sample(keys + other, channels - other, lanes, p, place[i]);
                weight[i] += more.dot(there);
              }
            }
#pragma unroll
            for (int i = 0; i < kTogether; ++i) result.add(scale * lanes.sum(weight[i]), value[i]);
          }
          result.write(out + at + from, channels - from, lanes);
        }
      }
    }
  }
}

}  // namespace sifa
