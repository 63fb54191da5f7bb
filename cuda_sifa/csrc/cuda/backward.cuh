// The backward kernels for displaced neighbourhoods of any size, and for deterministic gradients. They compute one tap
// after the other. tiled_backward.cuh has the fast kernel.
//
// With q the query, g the incoming gradient, v_i the four pixels around a tap's sampling point, w_i their bilinear
// weights and s = groups / C:
//
//   a_i = <q, v_i>, b_i = <g, v_i>       d = s * sum_i w_i a_i, e = s * sum_i w_i b_i      the tap's weight, its slope
//   grad_q += e * sum_i w_i v_i          grad_v_i += w_i * (d g + e q)
//   grad_offset = sum over heads and i of dw_i (d b_i + e a_i)
//
// A launch covers every second pair of frames. It has a frame either as queries or as keys, never as both, so the
// gradient of the queries needs no atomics. The first launch has frames 1, 3, 5, ... as queries, and stores there. The
// second one has frames 0, 2, 4, ...; it adds to the sums of the first one, but for frame 0, which is never a key.
//
// Frames 2, 4, 6, ... hold zeros before the first launch: all its blocks add there, in any order, so only a barrier of
// all blocks would let the launch itself clear them.
#pragma once

#include "lanes.cuh"

namespace sifa {

template <typename S>
struct BackwardArgs {
  using A = Accumulator<S>;
  const S* __restrict__ x;
  const void* __restrict__ offset;
  const S* __restrict__ grad;
  A* __restrict__ grad_x;          // the frames that this launch has as keys hold zeros or sums
  void* __restrict__ grad_offset;  // dense (N, T-1, H, W, 2*k*k), in the type of the offset
  A* __restrict__ weights;         // (N, T-1, H, W, groups, k*k, 2): d and e, stored instead of scattering; or null
  bool second;                     // of the two launches

  // Whether a frame that this launch has as queries holds sums already.
  __device__ __forceinline__ bool holds_sums(const Tile& tile) const { return second && tile.t > 0; }
};

template <typename S>
__device__ __forceinline__ void store_offset_gradient(const BackwardArgs<S>& args, const Problem& p, int64_t index,
                                                      Accumulator<S> value) {
  if constexpr (sizeof(S) == 2) {
    if (p.offset_in_float) {
      static_cast<float*>(args.grad_offset)[index] = value;
      return;
    }
  }
  static_cast<S*>(args.grad_offset)[index] = narrow<S>(value);
}

// Stores the gradient of a position as a query, or adds to it; with the gradient of the result, if x was added to that.
// Nothing else writes there during this launch.
template <typename S, int Width, int Vectors, typename L>
__device__ __forceinline__ void store_query_gradient(const Problem& p, const BackwardArgs<S>& args, bool holds_sums,
                                                     int64_t at, int end, const L& lanes,
                                                     Stretch<S, Width, Vectors>& result) {
  using A = Accumulator<S>;
  A* to = args.grad_x + at;
  if (p.residual) {
    StoredStretch<S, Width, Vectors> grad;
    grad.read(args.grad + at, end, lanes);
    result.add(grad);
  }
#pragma unroll
  for (int v = 0; v < Vectors; ++v) {
    const int c = Stretch<S, Width, Vectors>::channel(lanes, v);
    if (c >= end) continue;
#pragma unroll
    for (int part = 0; part < Width; part += kStored<A, Width>) {
      A sum[kStored<A, Width>];
      if (holds_sums)
        load(to + c + part, sum);
      else
        fill_zero(sum);
#pragma unroll
      for (int i = 0; i < kStored<A, Width>; ++i) sum[i] += result.value[v][part + i];
      store(to + c + part, sum);
    }
  }
}

// The last frame is no query, and in the launch that has the frame two before it as queries it is no key. A tile of
// that frame begins the sums of the last one, in the first launch, or adds the gradient of the result to them.
template <typename S, int Width>
__device__ __forceinline__ void finish_last_frame(const Problem& p, const BackwardArgs<S>& args, Tile tile) {
  using A = Accumulator<S>;
  constexpr int stored = kStored<A, Width>;
  if (tile.t + 3 != p.frames || (args.second && !p.residual)) return;
  tile.t += 2;
  for_each_vector_of<stored>(tile, p, [&](int64_t at) {
    A sum[stored] = {}, grad[stored] = {};
    if (args.second) load(args.grad_x + at, sum);
    if (p.residual) load(args.grad + at, grad);
#pragma unroll
    for (int i = 0; i < stored; ++i) sum[i] += grad[i];
    store(args.grad_x + at, sum);
  });
}

// Adds to the gradient of a pixel as a key. Other blocks may do so at the same time.
template <typename S, int Width, int Vectors, typename L>
__device__ __forceinline__ void add_to_keys(Accumulator<S>* to, int end, const L& lanes,
                                            const Stretch<S, Width, Vectors>& share) {
#pragma unroll
  for (int v = 0; v < Vectors; ++v)
    if (share.channel(lanes, v) < end) add_atomically(to + share.channel(lanes, v), share.value[v]);
}

// From the eight dot products of a tap: its weight d, the slope e of its weight, and the gradient of its offset.
template <typename A>
struct TapSums {
  A d = 0, e = 0;
  A along_y, along_x;

  __device__ __forceinline__ TapSums(const A (&a)[4], const A (&b)[4], A fy, A fx, A scale) {
    const A w[4] = {(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      d += w[i] * a[i];
      e += w[i] * b[i];
    }
    d *= scale;
    e *= scale;
    A slope[4];  // derivative of the result by the weight of each corner
#pragma unroll
    for (int i = 0; i < 4; ++i) slope[i] = d * b[i] + e * a[i];
    along_y = (1 - fx) * (slope[2] - slope[0]) + fx * (slope[3] - slope[1]);
    along_x = (1 - fy) * (slope[1] - slope[0]) + fy * (slope[3] - slope[2]);
  }
};

// The dot products of the query and of the incoming gradient (of one head) with the four corners, in every lane.
template <typename S, int Width, typename L>
__device__ __forceinline__ void corner_products(const S* query, const S* incoming, const S* keys, const Problem& p,
                                                const Sample<Accumulator<S>>& tap, const L& lanes,
                                                Accumulator<S> (&a)[4], Accumulator<S> (&b)[4]) {
  using A = Accumulator<S>;
  using Part = Stretch<S, Width, 1>;
  const int channels = p.head_channels();
  A sums[8] = {};
  for (int from = 0; from < channels; from += Part::size(lanes)) {
    Part q, g, pixel;
    q.read(query + from, channels - from, lanes);
    g.read(incoming + from, channels - from, lanes);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (!tap.reads(i)) continue;
      pixel.read(keys + tap.element(i, p) + from, channels - from, lanes);
      sums[i] += pixel.dot(q);
      sums[4 + i] += pixel.dot(g);
    }
  }
  const A mine = lanes.eight_sums(sums);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    a[i] = lanes.from(mine, i);
    b[i] = lanes.from(mine, 4 + i);
  }
}

// The steps of backward_by_taps_kernel for one position of a pair of frames. All lanes of a group run all steps; only
// an active group writes.
template <typename S, int Width>
struct BackwardByTaps {
  using A = Accumulator<S>;
  using Part = Stretch<S, Width, 1>;

  const Problem& p;
  const BackwardArgs<S>& args;
  const Lanes<>& lanes;
  const OffsetField<S> field = {args.offset, p};
  const int k = p.kernel_size, taps = k * k, channels = p.head_channels();
  const A scale = A(1) / A(channels);

  // The gradient of the offsets. Stores the weights of the taps too, unless args.weights is null.
  __device__ __forceinline__ void offset_gradients(const Tile& tile, int position, const S* keys, bool active) const {
    const int y = tile.row(position), col = tile.col(position);
    const int64_t at = tile.frame(p) * p.frame_size() + tile.pixel(position, p) * p.channels;
    const int64_t place = tile.pair(p) * p.pixels() + tile.pixel(position, p);
    for (int tap = 0; tap < taps; ++tap) {
      const Sample<A> sample = sample_at<false>(field, tile.n, tile.t, y, col, tap / k, tap % k);
      A along_y = 0, along_x = 0;
      for (int head = 0; head < p.groups; ++head) {
        A a[4], b[4];
        const int c = head * channels;
        corner_products<S, Width>(args.x + at + c, args.grad + at + c, keys + c, p, sample, lanes, a, b);
        const TapSums<A> sums(a, b, sample.fy, sample.fx, scale);
        along_y += sums.along_y;
        along_x += sums.along_x;
        if (args.weights && active && lanes.lane == 0) {
          A* weights = args.weights + 2 * ((place * p.groups + head) * taps + tap);
          weights[0] = sums.d;
          weights[1] = sums.e;
        }
      }
      if (active && lanes.lane == 0) {
        store_offset_gradient(args, p, 2 * (place * taps + tap), along_y);
        store_offset_gradient(args, p, 2 * (place * taps + tap) + 1, along_x);
      }
    }
  }

  // The gradient of the query. Adds to the gradients of its keys too, if args.weights is null.
  __device__ __forceinline__ void frame_gradients(const Tile& tile, int position, const S* keys, A* grad_keys,
                                                  bool active) const {
    const int y = tile.row(position), col = tile.col(position);
    const int64_t at = tile.frame(p) * p.frame_size() + tile.pixel(position, p) * p.channels;
    for (int head = 0; head < p.groups; ++head) {
      const int c = head * channels;
      for (int from = 0; from < channels; from += Part::size(lanes)) {
        const int rest = channels - from;
        Part q, g, result;
        q.read(args.x + at + c + from, rest, lanes);
        g.read(args.grad + at + c + from, rest, lanes);
        result.zero();
        for (int tap = 0; tap < taps; ++tap) {
          const Sample<A> sample = sample_at<true>(field, tile.n, tile.t, y, col, tap / k, tap % k);
          A a[4], b[4];
          corner_products<S, Width>(args.x + at + c, args.grad + at + c, keys + c, p, sample, lanes, a, b);
          const TapSums<A> sums(a, b, sample.fy, sample.fx, scale);
          Part value;
          value.sample(keys + c + from, rest, lanes, p, sample);
          result.add(sums.e, value);
          if (args.weights || !active) continue;
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            if (!sample.reads(i)) continue;
            Part share;
            share.zero();
            share.add(sample.weight(i) * sums.d, g);
            share.add(sample.weight(i) * sums.e, q);
            add_to_keys(grad_keys + sample.element(i, p) + c + from, rest, lanes, share);
          }
        }
        if (active) store_query_gradient(p, args, args.holds_sums(tile), at + c + from, rest, lanes, result);
      }
    }
  }
};

template <typename S, int Width>
__global__ void __launch_bounds__(kThreads, 2)
    backward_by_taps_kernel(const Problem p, const Tiles tiles, const int lane_count, const BackwardArgs<S> args) {
  const Lanes<> lanes(lane_count);
  const BackwardByTaps<S, Width> steps{p, args, lanes};
  for (int64_t index = blockIdx.x; index < tiles.count; index += gridDim.x) {
    const Tile tile = tiles.at(index, p);
    finish_last_frame<S, Width>(p, args, tile);
    const int64_t next = (tile.frame(p) + 1) * p.frame_size();
    const S* keys = args.x + next;
    Accumulator<S>* grad_keys = args.grad_x + next;
    lanes.for_each(tile.positions(), [&](int position, bool active) {
      steps.offset_gradients(tile, position, keys, active);
      steps.frame_gradients(tile, position, keys, grad_keys, active);
    });
  }
}

// The deterministic gradient of the keys, from the weights that backward_by_taps_kernel stored. One thread for each
// channel of a frame adds the contributions of all positions, always in the same order.
template <typename S>
__global__ void __launch_bounds__(kThreads, 2)
    add_in_order_kernel(const Problem p, const Tiles pairs, const BackwardArgs<S> args) {
  using A = Accumulator<S>;
  const OffsetField<S> field{args.offset, p};
  const int k = p.kernel_size, taps = k * k;
  const int64_t count = int64_t(p.batch) * pairs.pairs * p.channels;
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < count; i += int64_t(gridDim.x) * kThreads) {
    const int64_t pair = i / p.channels;
    const int c = int(i % p.channels), head = c / p.head_channels();
    const int n = int(pair / pairs.pairs), t = pairs.first_pair + int(pair % pairs.pairs) * pairs.pair_step;
    const int64_t frame = int64_t(n) * p.frames + t;
    A* grad_keys = args.grad_x + (frame + 1) * p.frame_size() + c;
    for (int64_t y = 0; y < p.height; ++y) {
      for (int64_t col = 0; col < p.width; ++col) {
        const int64_t pixel = int64_t(y) * p.width + col;
        const int64_t at = frame * p.frame_size() + pixel * p.channels + c;
        const A q = widen(args.x[at]), g = widen(args.grad[at]);
        const int64_t place = (int64_t(n) * p.pairs() + t) * p.pixels() + pixel;
        const A* weights = args.weights + 2 * (place * p.groups + head) * taps;
        for (int tap = 0; tap < taps; ++tap) {
          const Sample<A> sample = sample_at<true>(field, n, t, y, col, tap / k, tap % k);
          const A share = weights[2 * tap] * g + weights[2 * tap + 1] * q;
          for (int corner = 0; corner < 4; ++corner)
            if (sample.reads(corner)) grad_keys[sample.element(corner, p)] += sample.weight(corner) * share;
        }
      }
    }
  }
}

}  // namespace sifa
