// The forward kernels. One group of lanes computes one position and head. It samples each tap once, computes the dot
// product with the query, and adds the sample to the result with that weight.
#pragma once

#include "lanes.cuh"

namespace sifa {

// A head that fits into one group of lanes. Exact: it has exactly as many channels as the group can hold. Otherwise the
// lanes and vectors beyond its end read other channels of the head again, which needs no branch, and their values are
// not used.
template <typename S, int Vectors, bool Exact, typename L>
class WholeHead {
 public:
  using A = Accumulator<S>;
  static constexpr int width = kWidth<S>;
  using Part = Stretch<S, width, Vectors>;

  __device__ __forceinline__ WholeHead(int channels, const L& lanes) : count_(lanes.count()) {
    first_ = lanes.lane * width;
    inside_ = 0;
#pragma unroll
    for (int v = 0; v < Vectors; ++v) inside_ |= (Part::channel(lanes, v) < channels) << v;
    if (!inside(0)) first_ = 0;
  }

  // This lane's first channel of a head.
  __device__ __forceinline__ const S* of(const S* head) const { return head + first_; }

  // The bilinear sample. `pixels`: this lane's channels of pixel 0. `right`, `down`: bytes to the next pixel and to the
  // next row. The address in `tap` is in bytes too. All: every corner is read.
  template <bool All>
  __device__ __forceinline__ void sample(const S* pixels, int64_t right, int64_t down, const Sample<A>& tap,
                                         Part& sampled) const {
    const char* upper = reinterpret_cast<const char*>(pixels) + (All ? tap.corners - 15 : tap.corners & ~int64_t(15));
    const char* corner[4] = {upper, upper + right, upper + down, upper + down + right};
    const A weight[4] = {tap.weight(0), tap.weight(1), tap.weight(2), tap.weight(3)};
#pragma unroll
    for (int v = 0; v < Vectors; ++v) {
      A pixel[4][width];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (All || tap.reads(i))
          load(reinterpret_cast<const S*>(corner[i]) + step(v), pixel[i]);
        else
          fill_zero(pixel[i]);
      }
#pragma unroll
      for (int e = 0; e < width; ++e)
        sampled.value[v][e] =
            weight[3] * pixel[3][e] + (weight[2] * pixel[2][e] + (weight[1] * pixel[1][e] + weight[0] * pixel[0][e]));
    }
  }

  // This lane's part of the dot product.
  template <typename Query>
  __device__ __forceinline__ A dot(const Part& sampled, const Query& query) const {
    A sum = 0;
#pragma unroll
    for (int v = 0; v < Vectors; ++v) {
      A part = Exact || v == 0 ? sum : A(0);
#pragma unroll
      for (int e = 0; e < width; ++e) part += sampled.value[v][e] * query.at(v, e);
      if (!inside(v)) part = 0;
      sum = Exact || v == 0 ? part : sum + part;
    }
    return sum;
  }

 private:
  __device__ __forceinline__ bool inside(int v) const { return Exact || (inside_ >> v & 1); }
  // Channels from the lane's first vector to vector v.
  __device__ __forceinline__ int step(int v) const { return inside(v) ? v * count_ * width : 0; }

  int first_, inside_, count_;
};

// How many blocks of forward_kernel a multiprocessor should hold at once. Fewer if a lane has more channels, because it
// then has more loads in flight.
template <typename S, int Vectors>
constexpr int kForwardBlocks = Vectors == 1                                  ? (sizeof(S) == 2 ? 3 : 4)
                               : Vectors * kWidth<S> <= 16 && sizeof(S) <= 4 ? 2
                                                                             : 1;

// For k = K and heads that fit into one group of lanes. The block computes the geometry of a whole tile at once, in
// shared memory. `right`, `down`: bytes from a pixel to its neighbours.
template <typename S, int K, int Count, int Vectors, bool Exact>
__global__ void __launch_bounds__(kThreads, kForwardBlocks<S, Vectors>)
    forward_kernel(const Problem p, const Tiles tiles, const int64_t right, const int64_t down, const S* __restrict__ x,
                   const void* __restrict__ offset, S* __restrict__ out) {
  using A = Accumulator<S>;
  using Part = Stretch<S, kWidth<S>, Vectors>;
  constexpr int taps = K * K;
  // With very many channels, the registers have no room for the query: each tap reads it again from the cache.
  constexpr bool reload_query = kWidth<S> * Vectors * sizeof(A) > 64;
  // Most taps have all their corners in the map, and need no test for each corner. The whole warp decides together: if
  // its groups took different branches, they would run one after the other. Near the limit of the registers there is
  // one branch only, with all tests.
  constexpr bool two_branches = Exact || kWidth<S> * Vectors * sizeof(A) < 128;
  using Query = std::conditional_t<Vectors == 1, Part, StoredStretch<S, kWidth<S>, Vectors>>;
  extern __shared__ __align__(32) unsigned char shared_memory[];
  Sample<A>* samples = reinterpret_cast<Sample<A>*>(shared_memory);  // (position, tap)
  const Lanes<Count> lanes(Count);
  const OffsetField<S> field{offset, p};
  const int channels = p.head_channels(), end = Exact ? Part::size(lanes) : channels;
  const WholeHead<S, Vectors, Exact, Lanes<Count>> whole(channels, lanes);
  const A scale = A(1) / A(channels);

  for (int64_t index = blockIdx.x; index < tiles.count; index += gridDim.x) {
    const Tile tile = tiles.at(index, p);
    if (tile.is_last_frame(p)) {
      finish_last_frame<S, kWidth<S>>(x, out, tile, p);
      continue;
    }
    __syncthreads();  // all threads have read the samples of the previous tile
    for (int i = int(threadIdx.x); i < tile.positions() * taps; i += kThreads) {
      const int position = i / taps, tap = i % taps;
      samples[i] = sample_at<true, int(sizeof(S))>(field, tile.n, tile.t, tile.row(position), tile.col(position),
                                                   tap / K, tap % K);
    }
    __syncthreads();
    const int64_t frame = tile.frame(p) * p.frame_size();
    lanes.for_each(tile.positions(), [&](int position, bool active) {
      const int64_t pixel = frame + tile.pixel(position, p) * p.channels;
      for (int head = 0; head < p.channels; head += channels) {
        const S* keys = whole.of(x + frame + p.frame_size() + head);
        Query query;
        Part result;
        if (!reload_query) query.read(x + pixel + head, end, lanes);
        result.zero();
#pragma unroll 1
        for (int tap = 0; tap < taps; ++tap) {
          if (reload_query) query.read(x + pixel + head, end, lanes);
          const Sample<A> place = samples[position * taps + tap];
          Part sampled;
          if (two_branches && __all_sync(kWarp, (int(place.corners) & 15) == 15))
            whole.template sample<true>(keys, right, down, place, sampled);
          else
            whole.template sample<false>(keys, right, down, place, sampled);
          result.add(scale * lanes.sum(whole.dot(sampled, query)), sampled);
        }
        if (p.residual) result.add(query);
        if (active) result.write(out + pixel + head, end, lanes);
      }
    });
  }
}

// For neighbourhoods of any size and heads of any length. Every lane computes the geometry of every tap itself.
template <typename S, int Width, int Vectors>
__global__ void __launch_bounds__(kThreads, kBlocks<S, Width * Vectors>)
    forward_by_taps_kernel(const Problem p, const Tiles tiles, const int lane_count, const S* __restrict__ x,
                           const void* __restrict__ offset, S* __restrict__ out) {
  using A = Accumulator<S>;
  using Part = Stretch<S, Width, Vectors>;
  using One = Stretch<S, Width, 1>;
  const Lanes<> lanes(lane_count);
  const OffsetField<S> field{offset, p};
  const int k = p.kernel_size, channels = p.head_channels();
  const A scale = A(1) / A(channels);

  for (int64_t index = blockIdx.x; index < tiles.count; index += gridDim.x) {
    const Tile tile = tiles.at(index, p);
    if (tile.is_last_frame(p)) {
      finish_last_frame<S, Width>(x, out, tile, p);
      continue;
    }
    const int64_t frame = tile.frame(p) * p.frame_size();
    lanes.for_each(tile.positions(), [&](int position, bool active) {
      const int y = tile.row(position), col = tile.col(position);
      for (int head = 0; head < p.channels; head += channels) {
        const S* keys = x + frame + p.frame_size() + head;
        const int64_t at = frame + tile.pixel(position, p) * p.channels + head;
        // A head that does not fit into the group is computed range by range, and each range sums the weights again.
        for (int from = 0; from < channels; from += Part::size(lanes)) {
          StoredStretch<S, Width, Vectors> query;
          Part result;
          query.read(x + at + from, channels - from, lanes);
          result.zero();
          for (int tap = 0; tap < k * k; ++tap) {
            const Sample<A> place = sample_at<true>(field, tile.n, tile.t, y, col, tap / k, tap % k);
            Part value;
            value.sample(keys + from, channels - from, lanes, p, place);
            A weight = value.dot(query);
            for (int other = 0; other < channels; other += One::size(lanes)) {
              if (other == from) other += Part::size(lanes);
              if (other >= channels) break;
              One other_query, other_value;
              other_query.read(x + at + other, channels - other, lanes);
              other_value.sample(keys + other, channels - other, lanes, p, place);
              weight += other_query.dot(other_value);
            }
            result.add(scale * lanes.sum(weight), value);
          }
          if (p.residual) result.add(query);
          if (active) result.write(out + at + from, channels - from, lanes);
        }
      }
    });
  }
}

}  // namespace sifa
