// Where a tap samples. cpu/geometry.h does the same for many taps at once. Does not use PyTorch.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define SIFA_HD __host__ __device__ __forceinline__
#else
#define SIFA_HD inline __attribute__((always_inline))
#endif

namespace sifa {

// The cell of four pixels around a sampling point: (row, col) is its upper left pixel, (fy, fx) in [0, 1) is where the
// point lies inside. A point on a pixel belongs to the cell to its lower right, whose slope is the derivative there.
template <typename T>
struct Cell {
  int64_t row, col;
  T fy, fx;

  // Bilinear weight of corner (dy, dx), dy and dx in {0, 1}.
  SIFA_HD T weight(int dy, int dx) const { return (dy ? fy : 1 - fy) * (dx ? fx : 1 - fx); }
};

// False if nothing is sampled: the point lies one pixel or more outside the H x W map, or is NaN (every comparison with
// NaN is false). Only a point that passes this test is converted to integers, so no offset can overflow.
template <typename T>
SIFA_HD bool locate(T y, T x, int64_t height, int64_t width, Cell<T>& cell) {
  if (!(y > T(-1) && y < T(height) && x > T(-1) && x < T(width))) return false;
  // floor() without a library call: truncation, minus one where truncation rounds up, in (-1, 0).
  const int64_t row = int64_t(y), col = int64_t(x);
  cell.row = row - (y < T(row));
  cell.col = col - (x < T(col));
  cell.fy = y - T(cell.row);
  cell.fx = x - T(cell.col);
  return true;
}

}  // namespace sifa
