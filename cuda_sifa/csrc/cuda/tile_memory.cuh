// What a block of tiled_backward_kernel keeps in shared memory: the taps of a tile, and the distinct pixels that each
// position reads.
#pragma once

#include "lanes.cuh"

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
constexpr int kOutside = 1 << 30;

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

// Lists the distinct pixels of a position. Eight lanes do it: each has some of the taps.
template <typename A>
__device__ __forceinline__ Near list_pixels(const Tap<A>* taps, int count, int position, const Problem& p,
                                            const Lanes<8>& lanes) {
  using Map = unsigned long long;
  const auto smaller = [](int a, int b) { return min(a, b); };
  const auto either = [](Map a, Map b) { return a | b; };
  int row = kOutside, col = kOutside;
  for (int tap = lanes.lane; tap < count; tap += 8) {
    row = min(row, taps[tap].row);
    col = min(col, taps[tap].col);
  }
  row = lanes.joined(row, smaller);
  col = lanes.joined(col, smaller);
  Map map = 0;
  int apart = 0;
  for (int tap = lanes.lane; tap < count; tap += 8) {
    if (taps[tap].row == kOutside) continue;
    const int y = taps[tap].row, x = taps[tap].col, down = y - row, right = x - col;
    if (down + 2 > kSide || right + 2 > kSide) {
      apart = 1;
      continue;
    }
    const unsigned pair = (x >= 0 ? 1u : 0u) | (x + 1 < p.width ? 2u : 0u);
    const unsigned rows = (y >= 0 ? pair : 0u) | (y + 1 < p.height ? pair << kSide : 0u);
    map |= Map(rows) << (down * kSide + right);
  }
  map = lanes.joined(map, either);
  apart = lanes.joined(apart, [](int a, int b) { return a | b; });
  return {map, row, col, apart ? 4 * count : __popcll(map), position, !apart};
}

}  // namespace sifa
