// The backward kernel for displaced neighbourhoods of up to 7 x 7 taps, one tile of positions after the other.
//
// Taps share pixels, and so do positions. The kernel lists the distinct pixels of each position once. The work on
// channels is then done once for each distinct pixel, not for each corner of each tap. With the names of backward.cuh,
// and u the distinct pixels of a position:
//
//   a_u = <q, v_u>, b_u = <g, v_u>      d_j, e_j of every tap from those of its corners      gradient of the offsets
//   c_u = sum_j w_ju d_j, h_u = sum_j w_ju e_j       grad_q = sum_u h_u v_u         grad_v_u += c_u g + h_u q
//
// The gradient of a pixel is summed over all positions of the tile that read it, and added to memory once. If the pixel
// lies far from the tile, or if the taps of a position lie far apart, each position adds to memory itself.
#pragma once

#include "backward.cuh"
#include "tile_memory.cuh"

namespace sifa {

// One head of a pair of frames. Pointers are to pixel 0 and to the first channel of the head.
template <typename S>
struct PairHead {
  const S *queries, *incoming, *keys;
  Accumulator<S>* grad_keys;
  int64_t channel;
};

// The steps of tiled_backward_kernel. All threads of the block run all steps.
template <typename S, int K, int Count, int Vectors>
struct BackwardTile {
  using A = Accumulator<S>;
  using Part = Stretch<S, kWidth<S>, Vectors>;
  static constexpr int taps = K * K, most = 4 * taps;  // distinct pixels of a position

  const Problem& p;
  const Window& window;
  const BackwardArgs<S>& args;
  const TileMemory<A>& memory;
  const Lanes<Count>& lanes;
  const int channels = p.head_channels();
  const A scale = A(1) / A(channels);
  const bool whole = channels <= Part::size(lanes);  // the lanes hold a head
  Tile tile = {};
  int positions = 0;
  int64_t first = 0;  // element of pixel 0 of the queries' frame

  __device__ __forceinline__ void begin(const Tile& next) {
    tile = next;
    positions = tile.positions();
    first = tile.frame(p) * p.frame_size();
  }

  // The first pixel of the window.
  __device__ __forceinline__ int top() const { return tile.y - window.above; }
  __device__ __forceinline__ int left() const { return tile.x - window.ahead; }

  __device__ __forceinline__ PairHead<S> head(int number) const {
    const int64_t c = int64_t(number) * channels;
    return {args.x + first + c, args.grad + first + c, args.x + first + p.frame_size() + c,
            args.grad_x + first + p.frame_size() + c, c};
  }

  __device__ __forceinline__ void locate_taps() const {
    for (int i = int(threadIdx.x); i < positions * taps; i += kThreads) {
      const int position = i / taps, tap = i % taps;
      const OffsetField<S> field{args.offset, p};
      Cell<A> cell;
      const bool inside = field.locate(tile.n, tile.t, tile.row(position), tile.col(position), tap / K, tap % K, cell);
      memory.taps[i] =
          inside ? Tap<A>{int(cell.row), int(cell.col), cell.fy, cell.fx} : Tap<A>{kOutside, kOutside, A(0), A(0)};
      memory.slopes[2 * i] = memory.slopes[2 * i + 1] = 0;
    }
  }

  // memory.near and memory.pixels. A lane numbers the pixels of one row of the square, or some corners.
  __device__ __forceinline__ void list_distinct_pixels() const {
    const Lanes<kSide> eight(kSide);
    eight.for_each(positions, [&](int position, bool active) {
      const Tap<A>* tap = memory.taps + position * taps;
      const Near near = list_pixels(tap, taps, int(tile.pixel(position, p)), p, eight);
      if (!active) return;
      if (eight.lane == 0) memory.near[position] = near;
      int* pixels = memory.pixels + position * most;
      if (near.merged) {
        const int bit = eight.lane * kSide, row = near.row + eight.lane;
        const bool row_outside = row < top() || row >= top() + window.rows;
        int* next = pixels + near.rank(bit);
        for (unsigned rest = unsigned(near.map >> bit) & ((1u << kSide) - 1); rest != 0; rest &= rest - 1) {
          const int right = __ffs(int(rest)) - 1, col = near.col + right;
          const bool col_outside = col < left() || col >= left() + window.cols;
          *next++ = (row * p.width + col) << kPixelShift | (bit + right) << 1 | int(row_outside || col_outside);
        }
      } else {
        for (int i = eight.lane; i < most; i += kSide) {
          const int row = tap[i / 4].row + (i >> 1 & 1), col = tap[i / 4].col + (i & 1);
          const bool inside = row >= 0 && row < p.height && col >= 0 && col < p.width;
          pixels[i] = inside ? (row * p.width + col) << kPixelShift | 1 : -1;
        }
      }
    });
  }

  // The dot products with the distinct pixels, four pixels at once.
  __device__ __forceinline__ void compute_products(const PairHead<S>& head) const {
    lanes.for_each(positions, [&](int position, bool active) {
      const int64_t at = int64_t(memory.near[position].position) * p.channels;
      const int* pixels = memory.pixels + position * most;
      const int count = memory.near[position].count, longest = lanes.most(count);
      Part q, g;
      q.read(head.queries + at, channels, lanes);
      g.read(head.incoming + at, channels, lanes);
      for (int u = 0; u < longest; u += 4) {
        A sums[8] = {};
        for (int from = 0; from < channels; from += Part::size(lanes)) {
          if (!whole) {
            q.read(head.queries + at + from, channels - from, lanes);
            g.read(head.incoming + at + from, channels - from, lanes);
          }
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            // Beyond the last pixel, and outside the map: any pixel. Its products are not used.
            const int pixel = u + i < count ? max(pixels[u + i], 0) >> kPixelShift : 0;
            Part value;
            value.read_some(head.keys + int64_t(pixel) * p.channels + from, channels - from, lanes);
            sums[2 * i] += value.dot(q);
            sums[2 * i + 1] += value.dot(g);
          }
        }
        const A mine = lanes.eight_sums(sums);
        if (active && lanes.lane < 8 && u + lanes.lane / 2 < count)
          memory.products[2 * (position * most + u) + lanes.lane] = mine;
      }
    });
  }

  __device__ __forceinline__ void clear_window() const {
    for (int i = int(threadIdx.x); i < window.rows * window.cols; i += kThreads) memory.seen[i] = 0;
  }

  // From the pixels to the taps: d and e of each tap, and the gradient of its offset.
  __device__ __forceinline__ void weigh_taps() const {
    for (int i = int(threadIdx.x); i < positions * taps; i += kThreads) {
      const int position = i / taps;
      const Near& near = memory.near[position];
      const Tap<A>& tap = memory.taps[i];
      const A* products = memory.products + 2 * position * most;
      A a[4] = {}, b[4] = {};
      if (tap.row != kOutside) {
#pragma unroll
        for (int corner = 0; corner < 4; ++corner) {
          const int bit = (tap.row + (corner >> 1) - near.row) * kSide + tap.col + (corner & 1) - near.col;
          if (near.merged && !(near.map >> bit & 1)) continue;
          const int u = near.merged ? near.rank(bit) : 4 * (i % taps) + corner;
          if (memory.pixels[position * most + u] < 0) continue;
          a[corner] = products[2 * u];
          b[corner] = products[2 * u + 1];
        }
      }
      const TapSums<A> sums(a, b, tap.fy, tap.fx, scale);
      memory.weights[2 * i] = sums.d;
      memory.weights[2 * i + 1] = sums.e;
      memory.slopes[2 * i] += sums.along_y;
      memory.slopes[2 * i + 1] += sums.along_x;
    }
  }

  // And back from the taps to the pixels: c and h of each pixel, and which positions read a pixel of the window. All
  // threads are divided among the positions.
  __device__ __forceinline__ void weigh_pixels() const {
    int shift = 3;  // of the number of threads for a position; there are no more than kThreads / 8 positions
    while (positions << (shift + 1) <= kThreads) ++shift;
    const int position = int(threadIdx.x) >> shift, step = 1 << shift;
    if (position >= positions) return;
    const Near& near = memory.near[position];
    A* products = memory.products + 2 * position * most;
    const int* pixels = memory.pixels + position * most;
    const Tap<A>* tap = memory.taps + position * taps;
    const A* weights = memory.weights + 2 * position * taps;
    const int count = near.count;
    for (int u = int(threadIdx.x) & (step - 1); u < count; u += step) {
      if (near.merged) {
        const int pixel = pixels[u], bit = pixel >> 1 & (kSide * kSide - 1);
        const int row = near.row + bit / kSide, col = near.col + bit % kSide;
        A to_grad = 0, to_query = 0;
#pragma unroll(K == 3 ? 9 : 1)
        for (int j = 0; j < taps; ++j) {
          const unsigned dy = unsigned(row - tap[j].row), dx = unsigned(col - tap[j].col);
          if (dy > 1 || dx > 1) continue;
          const A weight = (dy ? tap[j].fy : 1 - tap[j].fy) * (dx ? tap[j].fx : 1 - tap[j].fx);
          to_grad += weight * weights[2 * j];
          to_query += weight * weights[2 * j + 1];
        }
        products[2 * u] = to_grad;
        products[2 * u + 1] = to_query;
        // Weights of zero, as three of four have at integer offsets, add nothing.
        if (!(pixel & 1) && !(to_grad == 0 && to_query == 0))
          atomicOr(memory.seen + (row - top()) * window.cols + col - left(), 1u << position);
      } else {
        const int j = u / 4;
        const A weight = (u & 2 ? tap[j].fy : 1 - tap[j].fy) * (u & 1 ? tap[j].fx : 1 - tap[j].fx);
        products[2 * u] = weight * weights[2 * j];
        products[2 * u + 1] = weight * weights[2 * j + 1];
      }
    }
  }

  // The gradient of the queries, and of the pixels outside the window.
  __device__ __forceinline__ void add_positions(const PairHead<S>& head) const {
    lanes.for_each(positions, [&](int position, bool active) {
      if (!active) return;
      const int64_t at = int64_t(memory.near[position].position) * p.channels;
      const int* pixels = memory.pixels + position * most;
      const A* products = memory.products + 2 * position * most;
      const int count = memory.near[position].count;
      for (int from = 0; from < channels; from += Part::size(lanes)) {
        Part result;
        result.zero();
#pragma unroll 4
        for (int u = 0; u < count; ++u) {
          const int pixel = pixels[u];
          Part value;
          value.read(head.keys + int64_t(max(pixel, 0) >> kPixelShift) * p.channels + from,
                     pixel < 0 ? 0 : channels - from, lanes);
          result.add(products[2 * u + 1], value);
        }
        store_query_gradient(p, args, args.holds_sums(tile), first + head.channel + at + from, channels - from, lanes,
                             result);
        for (int u = 0; u < count; ++u) {
          if (pixels[u] < 0 || !(pixels[u] & 1)) continue;
          const A to_grad = products[2 * u], to_query = products[2 * u + 1];
          if (to_grad == 0 && to_query == 0) continue;
          Part q, g;
          q.read(head.queries + at + from, channels - from, lanes);
          g.read(head.incoming + at + from, channels - from, lanes);
          result.zero();
          result.add(to_grad, g);
          result.add(to_query, q);
          add_to_keys(head.grad_keys + int64_t(pixels[u] >> kPixelShift) * p.channels + from, channels - from, lanes,
                      result);
        }
      }
    });
  }

  // The gradient of the pixels of the window: summed over all positions that read a pixel, then added to memory once.
  __device__ __forceinline__ void add_window(const PairHead<S>& head) const {
    const int top = this->top(), left = this->left();
    lanes.for_each(window.rows * window.cols, [&](int i, bool active) {
      if (!active || memory.seen[i] == 0) return;
      const int row = top + i / window.cols, col = left + i % window.cols;
      const int64_t at = (int64_t(row) * p.width + col) * p.channels;
      for (int from = 0; from < channels; from += Part::size(lanes)) {
        Part result;
        result.zero();
        for (unsigned seen = memory.seen[i]; seen != 0; seen &= seen - 1) {
          const int position = __ffs(int(seen)) - 1;
          const Near& near = memory.near[position];
          const int u = near.rank((row - near.row) * kSide + col - near.col);
          const A* products = memory.products + 2 * (position * most + u);
          const int64_t there = int64_t(near.position) * p.channels + from;
          Part q, g;
          q.read_some(head.queries + there, channels - from, lanes);
          g.read_some(head.incoming + there, channels - from, lanes);
          result.add(products[0], g);
          result.add(products[1], q);
        }
        add_to_keys(head.grad_keys + at + from, channels - from, lanes, result);
      }
    });
  }

  __device__ __forceinline__ void store_offset_gradients() const {
    for (int i = int(threadIdx.x); i < positions * 2 * taps; i += kThreads) {
      const int position = i / (2 * taps);
      store_offset_gradient(args, p,
                            (tile.pair(p) * p.pixels() + memory.near[position].position) * 2 * taps + i % (2 * taps),
                            memory.slopes[i]);
    }
  }
};

template <typename S, int K, int Count, int Vectors>
__global__ void __launch_bounds__(kThreads, kBlocks<S, kWidth<S> * Vectors>)
    tiled_backward_kernel(const Problem p, const Tiles tiles, const Window window, const BackwardArgs<S> args) {
  extern __shared__ __align__(32) unsigned char shared_memory[];
  const TileMemory<Accumulator<S>> memory(shared_memory, tiles.rows * tiles.cols, K * K);
  const Lanes<Count> lanes(Count);
  BackwardTile<S, K, Count, Vectors> tile{p, window, args, memory, lanes};
  for (int64_t index = blockIdx.x; index < tiles.count; index += gridDim.x) {
    tile.begin(tiles.at(index, p));
    finish_last_frame<S, kWidth<S>>(p, args, tile.tile);
    __syncthreads();  // all threads have finished the previous tile
    tile.locate_taps();
    __syncthreads();
    tile.list_distinct_pixels();
    for (int number = 0; number < p.groups; ++number) {
      const PairHead<S> head = tile.head(number);
      __syncthreads();  // the pixels are listed, and all threads have finished the previous head
      tile.compute_products(head);
      tile.clear_window();
      __syncthreads();
      tile.weigh_taps();
      __syncthreads();
      tile.weigh_pixels();
      __syncthreads();
      tile.add_positions(head);
      tile.add_window(head);
    }
    tile.store_offset_gradients();
  }
}

}  // namespace sifa
