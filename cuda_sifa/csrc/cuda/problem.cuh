// How the positions of one call are divided among blocks, and where a tap samples. Does not use PyTorch.
#pragma once

#include <cstdint>

#include "sampling.h"
#include "kernels.h"
#include "storage.cuh"

namespace sifa {

constexpr int kThreads = 256;  // of every block

// How many blocks a multiprocessor should hold at once if a lane holds so many channels. With few channels two, where a
// thread may use 128 registers; with many channels one, because each thread then has more loads in flight.
template <typename S, int Channels>
constexpr int kBlocks = Channels * sizeof(Accumulator<S>) <= 32 ? 2 : 1;

// A rectangle of positions of one frame: what a block works on at one time.
struct Tile {
  int n, t, y, x;  // sample, frame of the queries, upper left position
  int rows, cols;

  __device__ __forceinline__ int positions() const { return rows * cols; }
  __device__ __forceinline__ int row(int position) const { return y + position / cols; }
  __device__ __forceinline__ int col(int position) const { return x + position % cols; }
  __device__ __forceinline__ int64_t pixel(int position, const Problem& p) const {
    return int64_t(row(position)) * p.width + col(position);
  }
  __device__ __forceinline__ int64_t frame(const Problem& p) const { return int64_t(n) * p.frames + t; }
  __device__ __forceinline__ bool is_last_frame(const Problem& p) const { return t + 1 == p.frames; }
  __device__ __forceinline__ int64_t pair(const Problem& p) const { return int64_t(n) * p.pairs() + t; }
};

// Calls work(element) for each vector of `Width` channels of a tile, with its first element in (N, T, H, W, C). All
// threads of the block take part.
template <int Width, typename Work>
__device__ __forceinline__ void for_each_vector_of(const Tile& tile, const Problem& p, const Work& work) {
  for (int row = 0; row < tile.rows; ++row) {
    const int64_t first = tile.frame(p) * p.frame_size() + tile.pixel(row * tile.cols, p) * p.channels;
    for (int64_t i = int64_t(threadIdx.x) * Width; i < int64_t(tile.cols) * p.channels; i += kThreads * Width)
      work(first + i);
  }
}

// The result in a tile of the last frame, which has no next one: zeros, or x if it is added.
template <typename S, int Width>
__device__ __forceinline__ void finish_last_frame(const S* x, S* out, const Tile& tile, const Problem& p) {
  for_each_vector_of<Width>(tile, p, [&](int64_t at) {
    Accumulator<S> values[Width] = {};
    if (p.residual) load(x + at, values);
    store(out + at, values);
  });
}

// The tiles of some pairs of frames: pairs first_pair, first_pair + pair_step, ... of every sample. The forward pass
// counts the last frame as one more pair, to clear its result in the same launch.
struct Tiles {
  int rows, cols;    // of a tile; fewer at the lower and right borders of the map
  int down, across;  // tiles in a frame
  int first_pair, pair_step, pairs;
  int64_t count;

  __device__ __forceinline__ Tile at(int64_t index, const Problem& p) const {
    Tile tile;
    tile.x = int(index % across) * cols;
    index /= across;
    tile.y = int(index % down) * rows;
    index /= down;
    tile.t = first_pair + int(index % pairs) * pair_step;
    tile.n = int(index / pairs);
    tile.rows = min(p.height - tile.y, rows);
    tile.cols = min(p.width - tile.x, cols);
    return tile;
  }
};

// The offsets of a call, and from them where a tap samples.
template <typename S>
struct OffsetField {
  using A = Accumulator<S>;
  const void* offset;  // of S, or of float
  const Problem& p;

  __device__ __forceinline__ A at(int64_t index) const {
    if constexpr (sizeof(S) == 2)
      if (p.offset_in_float) return static_cast<const float*>(offset)[index];
    return widen(static_cast<const S*>(offset)[index]);
  }

  // False if tap (i, j) of position (y, x) samples nothing.
  __device__ __forceinline__ bool locate(int n, int t, int y, int x, int i, int j, Cell<A>& cell) const {
    const int64_t* stride = p.offset_strides;
    const int reach = p.kernel_size / 2, tap = i * p.kernel_size + j;
    const int64_t index = n * stride[0] + t * stride[1] + 2 * tap * stride[2] + y * stride[3] + x * stride[4];
    return sifa::locate<A>(A(int64_t(y) + (i - reach) * p.dilation) + at(index),
                           A(int64_t(x) + (j - reach) * p.dilation) + at(index + stride[2]), p.height, p.width, cell);
  }
};

// One tap of one position as the kernels read it: its cell of four pixels, and which of them to read.
template <typename A>
struct alignas(4 * sizeof(A)) Sample {
  int64_t corners;  // address of the upper left corner in its frame, plus one bit for each corner to read: sample_at
  A fy, fx;

  // The element of channel 0 of a corner, if addresses are in sixteenths of elements.
  __device__ __forceinline__ int64_t element(int corner, const Problem& p) const {
    return (corners >> 4) + (corner & 1 ? p.channels : 0) + (corner & 2 ? int64_t(p.width) * p.channels : 0);
  }
  __device__ __forceinline__ bool reads(int corner) const { return corners >> corner & 1; }
  __device__ __forceinline__ A weight(int corner) const {
    return (corner & 2 ? fy : 1 - fy) * (corner & 1 ? fx : 1 - fx);
  }
};

// SkipZero: corners of weight zero are not read (three of four at integer offsets); the gradient of the offsets needs
// them. Addresses are in units of 1 / Unit elements. A pixel is a multiple of 16 units, so four bits are free.
template <bool SkipZero, int Unit = 16, typename S>
__device__ __forceinline__ Sample<Accumulator<S>> sample_at(const OffsetField<S>& field, int n, int t, int y, int x,
                                                            int i, int j) {
  Cell<Accumulator<S>> cell;
  if (!field.locate(n, t, y, x, i, j, cell)) return {0, 0, 0};
  const Problem& p = field.p;
  const bool top = cell.row >= 0, bottom = cell.row + 1 < p.height && !(SkipZero && cell.fy == 0);
  const bool left = cell.col >= 0, right = cell.col + 1 < p.width && !(SkipZero && cell.fx == 0);
  const int64_t read = (top && left) | (top && right) << 1 | (bottom && left) << 2 | (bottom && right) << 3;
  return {(cell.row * p.width + cell.col) * p.channels * Unit + read, cell.fy, cell.fx};
}

}  // namespace sifa
