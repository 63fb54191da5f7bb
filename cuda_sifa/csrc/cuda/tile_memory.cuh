// What a block of tiled_backward_kernel keeps in shared memory: the taps of a tile, and the distinct pixels that each
// position reads.
#pragma once

#include <climits>

#include "problem.cuh"

namespace sifa {

constexpr int kSide = 8;            // pixels are merged if they lie in a square of this many pixels on a side
constexpr int kMaxWindow = 1024;    // pixels of the window around a tile
constexpr int kTilePositions = 32;  // one bit of a word for each position: which positions read a pixel
constexpr int kPixelShift = 7;      // of the pixel in a word of TileMemory::pixels
constexpr int64_t kMaxPixels = int64_t(1) << (31 - kPixelShift);  // of a frame

// One tap: the upper left pixel of its cell, or kOutside in both, and where the sampling point lies inside.
template <typename A>
struct Tap {
  int row, col;
  A fy, fx;
};
constexpr int kOutside = -(1 << 30);

// The distinct pixels of one position: one for each bit of `map` that is set, at (row + bit / 8, col + bit % 8), in the
// order of the bits. Or, if the taps lie too far apart, all four corners of each tap, not merged.
struct Near {
  unsigned long long map;
  int row, col;
  int count;
  int position;  // pixel of the position itself
  bool merged;

  __device__ __forceinline__ int rank(int bit) const { return __popcll(map & ((1ull << bit) - 1)); }
};

// The pixels around a tile whose gradients as keys the block sums before it adds them to memory.
struct Window {
  int rows, cols;    // 0 x 0: none
  int above, ahead;  // rows above the first row of the tile, columns to the left of its first column
};

// The arrays in shared memory, for P positions with `taps` taps each.
template <typename A>
struct TileMemory {
  A* products;     // (P, 4 * taps, 2): a and b of each distinct pixel, later c and h
  A* weights;      // (P, taps, 2): d and e
  A* slopes;       // (P, taps, 2): gradient of the offsets
  Tap<A>* taps;    // (P, taps)
  Near* near;      // (P)
  int* pixels;     // (P, 4 * taps): the pixel, six bits for its bit in Near::map, one that is set if it lies outside
                   // the window; -1: outside the map
  unsigned* seen;  // (window): the positions that read a pixel

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

// Lists the distinct pixels of a position. One thread does it.
template <typename A>
__device__ __forceinline__ Near list_pixels(const Tap<A>* taps, int count, int position, const Problem& p) {
  Near near{0, INT_MAX, INT_MAX, 0, position, true};
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
    near.map |= static_cast<unsigned long long>(rows) << ((row - near.row) * kSide + col - near.col);
  }
  near.count = __popcll(near.map);
  return near;
}

}  // namespace sifa
