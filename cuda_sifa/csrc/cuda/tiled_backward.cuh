// The backward kernel for displaced neighbourhoods of up to 7 x 7 taps, one tile of positions after the other.
//
// Taps share pixels, and so do positions. A position's distinct pixels ("cells") are listed once; the channels are
// then walked over cells, not over taps and corners. With the names of backward.cuh, and u the cells of a position:
//
//   a_u = <q, v_u>, b_u = <g, v_u>      d_j, e_j of every tap from those of its corners      gradient of the offsets
//   c_u = sum_j w_ju d_j, h_u = sum_j w_ju e_j       grad_q = sum_u h_u v_u         grad_v_u += c_u g + h_u q
//
// The gradient of a cell is collected from all positions of the tile that see it, and added to memory once. A cell far
// from the tile, and one of a position whose taps are flung far apart, is added to memory by each position.
#pragma once

#include "backward.cuh"

namespace sifa {

constexpr int kSide = 8;            // cells are merged when they lie in a square of this many pixels
constexpr int kMaxWindow = 1024;    // cells around a tile that are collected
constexpr int kTilePositions = 32;  // bits of a word: which positions see a cell

// One tap: the upper left pixel of its cell, or kOutside in both, and the place inside.
template <typename A>
struct Tap {
  int row, col;
  A fy, fx;
};
constexpr int kOutside = -(1 << 30);

// The cells of one position: those whose bits are set, at (row + bit / 8, col + bit % 8), in the order of the bits. Or,
// when the taps lie too far apart, four for each tap.
struct Near {
  unsigned long long cells;
  int row, col;
  int count;
  int pixel;  // of the position itself
  bool merged;

  __device__ __forceinline__ int rank(int bit) const { return __popcll(cells & ((1ull << bit) - 1)); }
};

// Pixels around a tile in which the gradients of keys are collected.
struct Window {
  int rows, cols;     // 0 x 0: none
  int above, before;  // of the tile's first row and column
};

// Where each array lies in shared memory. P positions, `taps` each.
template <typename A>
struct TileMemory {
  A* products;     // (P, 4 * taps, 2): a and b of a cell, later c and h
  A* weights;      // (P, taps, 2): d and e
  A* slopes;       // (P, taps, 2): gradient of the offsets
  Tap<A>* taps;    // (P, taps)
  Near* near;      // (P)
  int* pixels;     // (P, 4 * taps): twice a cell's pixel, plus one if it is added to memory apart; -1: outside the map
  unsigned* seen;  // (window): by which positions

  static SIFA_HD size_t bytes(int positions, int taps, int window) {
    return size_t(positions) * taps * (12 * sizeof(A) + sizeof(Tap<A>) + 4 * sizeof(int)) + positions * sizeof(Near) +
           window * sizeof(unsigned);
  }

  __device__ __forceinline__ TileMemory(unsigned char* memory, int positions, int taps_each) {
    const int all = positions * taps_each;
    products = reinterpret_cast<A*>(memory);
    weights = products + 8 * all;
    slopes = weights + 2 * all;
    taps = reinterpret_cast<Tap<A>*>(slopes + 2 * all);
    near = reinterpret_cast<Near*>(taps + all);
    pixels = reinterpret_cast<int*>(near + positions);
    seen = reinterpret_cast<unsigned*>(pixels + 4 * all);
  }
};

// Lists the cells of a position; one thread does it.
template <typename A>
__device__ __forceinline__ Near list_cells(const Tap<A>* taps, int count, int pixel, const Problem& p) {
  Near near{0, INT_MAX, INT_MAX, 0, pixel, true};
  int last_row = INT_MIN, last_col = INT_MIN;
  for (int tap = 0; tap < count; ++tap) {
    if (taps[tap].row == kOutside) continue;
    near.row = min(near.row, taps[tap].row);
    near.col = min(near.col, taps[tap].col);
    last_row = max(last_row, taps[tap].row);
    last_col = max(last_col, taps[tap].col);
  }
  if (near.row > last_row) return near;  // all taps are outside
  if (last_row - near.row + 2 > kSide || last_col - near.col + 2 > kSide) {
    near.merged = false;
    near.count = 4 * count;
    return near;
  }
  for (int tap = 0; tap < count; ++tap) {
    const int row = taps[tap].row, col = taps[tap].col;
    if (row == kOutside) continue;
    const unsigned pair = (col >= 0 ? 1u : 0u) | (col + 1 < p.width ? 2u : 0u);
    const unsigned rows = (row >= 0 ? pair : 0u) | (row + 1 < p.height ? pair << kSide : 0u);
    near.cells |= static_cast<unsigned long long>(rows) << ((row - near.row) * kSide + col - near.col);
  }
  near.count = __popcll(near.cells);
  return near;
}

template <typename S, int K, int Count, int Vectors>
__global__ void __launch_bounds__(kThreads, kBlocks<S, kWidth<S> * Vectors>)
    tiled_backward_kernel(const Problem p, const Tiles tiles, const Window window, const BackwardArgs<S> args) {
  using A = Accumulator<S>;
  using Part = Stretch<S, kWidth<S>, Vectors>;
  constexpr int taps = K * K, cells = 4 * taps;
  extern __shared__ __align__(32) unsigned char shared_memory[];
  const TileMemory<A> memory(shared_memory, tiles.rows * tiles.cols, taps);
  const Lanes<Count> lanes(Count);
  const int thread = int(threadIdx.x);
  const int channels = p.head_channels();
  const A scale = A(1) / A(channels);
  const bool whole = channels <= Part::size(lanes);

  for (int64_t index = blockIdx.x; index < tiles.count; index += gridDim.x) {
    const Tile tile = tiles.at(index, p);
    const int positions = tile.positions();
    const int64_t first = tile.frame(p) * p.frame_size();  // element of the queries' frame

    __syncthreads();  // the tile before is done
    for (int i = thread; i < positions * taps; i += kThreads) {
      const int position = i / taps, tap = i % taps;
      const OffsetField<S> field{args.offset, p};
      Cell<A> cell;
      const bool inside = field.locate(tile.n, tile.t, tile.row(position), tile.col(position), tap / K, tap % K, cell);
      memory.taps[i] =
          inside ? Tap<A>{int(cell.row), int(cell.col), cell.fy, cell.fx} : Tap<A>{kOutside, kOutside, A(0), A(0)};
      memory.slopes[2 * i] = memory.slopes[2 * i + 1] = 0;
    }
    __syncthreads();
    for (int i = thread; i < positions; i += kThreads)
      memory.near[i] = list_cells(memory.taps + i * taps, taps, int(tile.pixel(i, p)), p);
    __syncthreads();
    const int top = tile.y - window.above, left = tile.x - window.before;
    constexpr int bits = cells > kSide * kSide ? cells : kSide * kSide;
    for (int i = thread; i < positions * bits; i += kThreads) {
      const int position = i / bits, bit = i % bits;
      const Near& near = memory.near[position];
      int* pixels = memory.pixels + position * cells;
      if (near.merged) {
        if (bit >= kSide * kSide || !(near.cells >> bit & 1)) continue;
        const int row = near.row + bit / kSide, col = near.col + bit % kSide;
        const bool apart = row < top || row >= top + window.rows || col < left || col >= left + window.cols;
        pixels[near.rank(bit)] = 2 * (row * p.width + col) + apart;
      } else if (bit < cells) {
        const Tap<A>& tap = memory.taps[position * taps + bit / 4];
        const int row = tap.row + (bit >> 1 & 1), col = tap.col + (bit & 1);
        const bool inside = row >= 0 && row < p.height && col >= 0 && col < p.width;
        pixels[bit] = inside ? 2 * (row * p.width + col) + 1 : -1;
      }
    }

    for (int head = 0; head < p.groups; ++head) {
      const int64_t c = int64_t(head) * channels;
      const S* queries = args.x + first + c;
      const S* incoming = args.grad + first + c;
      const S* keys = args.x + first + p.frame_size() + c;
      A* grad_keys = args.grad_x + first + p.frame_size() + c;
      __syncthreads();  // the cells are listed; the head before is done

      // Dot products with the cells, four cells at once.
      lanes.for_each(positions, [&](int position, bool active) {
        const int64_t at = int64_t(memory.near[position].pixel) * p.channels;
        const int* pixels = memory.pixels + position * cells;
        const int count = memory.near[position].count, most = lanes.most(count);
        Part q, g;
        q.read(queries + at, channels, lanes);
        g.read(incoming + at, channels, lanes);
        for (int u = 0; u < most; u += 4) {
          A sums[8] = {};
          for (int from = 0; from < channels; from += Part::size(lanes)) {
            if (!whole) {
              q.read(queries + at + from, channels - from, lanes);
              g.read(incoming + at + from, channels - from, lanes);
            }
#pragma unroll
            for (int i = 0; i < 4; ++i) {
              // Beyond the last cell, and outside the map, some pixel: its products are not used.
              const int pixel = u + i < count ? max(pixels[u + i], 0) >> 1 : 0;
              Part value;
              value.read_some(keys + int64_t(pixel) * p.channels + from, channels - from, lanes);
              sums[2 * i] += value.dot(q);
              sums[2 * i + 1] += value.dot(g);
            }
          }
          const A mine = lanes.eight_sums(sums);
          if (active && lanes.lane < 8 && u + lanes.lane / 2 < count)
            memory.products[2 * (position * cells + u) + lanes.lane] = mine;
        }
      });
      for (int i = thread; i < window.rows * window.cols; i += kThreads) memory.seen[i] = 0;
      __syncthreads();

      // From the cells to the taps: weights, their slopes, the gradient of the offsets.
      for (int i = thread; i < positions * taps; i += kThreads) {
        const int position = i / taps;
        const Near& near = memory.near[position];
        const Tap<A>& tap = memory.taps[i];
        const A* products = memory.products + 2 * position * cells;
        A a[4] = {}, b[4] = {};
        if (tap.row != kOutside) {
#pragma unroll
          for (int corner = 0; corner < 4; ++corner) {
            const int bit = (tap.row + (corner >> 1) - near.row) * kSide + tap.col + (corner & 1) - near.col;
            if (near.merged && !(near.cells >> bit & 1)) continue;
            const int u = near.merged ? near.rank(bit) : 4 * (i % taps) + corner;
            if (memory.pixels[position * cells + u] < 0) continue;
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
      __syncthreads();

      // And back to the cells.
      for (int i = thread; i < positions * bits; i += kThreads) {
        const int position = i / bits, bit = i % bits;
        const Near& near = memory.near[position];
        A* products = memory.products + 2 * position * cells;
        const Tap<A>* tap = memory.taps + position * taps;
        const A* weights = memory.weights + 2 * position * taps;
        if (near.merged) {
          if (bit >= kSide * kSide || !(near.cells >> bit & 1)) continue;
          const int row = near.row + bit / kSide, col = near.col + bit % kSide, u = near.rank(bit);
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
          // A weight of zero, as three of four have at integer offsets, adds nothing.
          if (!(memory.pixels[position * cells + u] & 1) && !(to_grad == 0 && to_query == 0))
            atomicOr(memory.seen + (row - top) * window.cols + col - left, 1u << position);
        } else if (bit < cells) {
          const int j = bit / 4;
          const A weight = (bit & 2 ? tap[j].fy : 1 - tap[j].fy) * (bit & 1 ? tap[j].fx : 1 - tap[j].fx);
          products[2 * bit] = weight * weights[2 * j];
          products[2 * bit + 1] = weight * weights[2 * j + 1];
        }
      }
      __syncthreads();

      // The gradient of the queries, and of the cells that are not collected.
      lanes.for_each(positions, [&](int position, bool active) {
        if (!active) return;
        const int64_t at = int64_t(memory.near[position].pixel) * p.channels;
        const int* pixels = memory.pixels + position * cells;
        const A* products = memory.products + 2 * position * cells;
        const int count = memory.near[position].count;
        for (int from = 0; from < channels; from += Part::size(lanes)) {
          Part result;
          result.zero();
#pragma unroll 4
          for (int u = 0; u < count; ++u) {
            const int pixel = pixels[u];
            Part value;
            value.read(keys + int64_t(max(pixel, 0) >> 1) * p.channels + from, pixel < 0 ? 0 : channels - from, lanes);
            result.add(products[2 * u + 1], value);
          }
          store_query_gradient(args, first + c + at + from, channels - from, lanes, result);
          for (int u = 0; u < count; ++u) {
            if (pixels[u] < 0 || !(pixels[u] & 1)) continue;
            const A to_grad = products[2 * u], to_query = products[2 * u + 1];
            if (to_grad == 0 && to_query == 0) continue;
            Part q, g;
            q.read(queries + at + from, channels - from, lanes);
            g.read(incoming + at + from, channels - from, lanes);
            result.zero();
            result.add(to_grad, g);
            result.add(to_query, q);
            add_to_keys(grad_keys + int64_t(pixels[u] >> 1) * p.channels + from, channels - from, lanes, result);
          }
        }
      });

      // The gradient of the cells around the tile: all positions that see a cell, then one addition to memory.
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
            const A* products = memory.products + 2 * (position * cells + u);
            const int64_t there = int64_t(near.pixel) * p.channels + from;
            Part q, g;
            q.read_some(queries + there, channels - from, lanes);
            g.read_some(incoming + there, channels - from, lanes);
            result.add(products[0], g);
            result.add(products[1], q);
          }
          add_to_keys(grad_keys + at + from, channels - from, lanes, result);
        }
      });
    }

    for (int i = thread; i < positions * 2 * taps; i += kThreads) {
      const int position = i / (2 * taps);
      store_offset_gradient(args, p,
                            (tile.pair(p) * p.pixels() + memory.near[position].pixel) * 2 * taps + i % (2 * taps),
                            memory.slopes[i]);
    }
  }
}

}  // namespace sifa
