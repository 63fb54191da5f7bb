// Where the taps of a block of positions sample: the four pixels around each sampling point and their bilinear weights.
//
// Where a tap samples is random to the processor, and a branch that it predicts wrongly costs as much as a hundred
// multiply-adds. So this code computes both sides of a condition and selects one. It branches on rare cases only.
#pragma once

#include "arena.h"
#include "kernel.h"
#include "storage.h"
#include "vector.h"

namespace sifa::SIFA_CAPABILITY {

// Positions are processed in blocks of this many consecutive positions of a frame, one position in each lane.
constexpr int kPositions = 16;

// Addresses and bitmaps have 64 bits, twice as many as a float, so fewer of them fit in a vector. NarrowInts are as
// many integers of the size of T.
constexpr int kLanes64 = SIFA_VECTOR_BYTES / 8;
using Addresses = VectorOf<int64_t, SIFA_VECTOR_BYTES>;
using Bitmaps = VectorOf<uint64_t, SIFA_VECTOR_BYTES>;
template <typename T>
using NarrowInts = VectorOf<Int<T>, kLanes64 * sizeof(T)>;

// The taps of a block: tap j of its position p is element j * kPositions + p. The four pixels around a sampling point
// are the corners of a cell: 0 upper left, 1 upper right, 2 lower left, 3 lower right.
template <typename T>
struct Taps {
  T *y, *x;          // of the positions
  T* displacement;   // vertical and horizontal in turn, so twice as many as taps
  T *fy, *fx;        // where the sampling point lies in its cell, from 0 to 1; for the backward pass only
  T* weight[4];      // of the corners; zero where a corner is not read
  Int<T>*row, *col;  // of corner 0; -1 is above or left of the map
  Int<T>* reads;     // bit i: corner i is read, because its weight matters and it lies in the map
  Int<T>* between;   // one for each position: whether any of its sampling points lies between pixels
  bool any_between;

  void allocate(const Shape& s, Arena& arena) {
    const int64_t positions = s.deformable ? kPositions : 0, count = positions * s.taps();
    for (T** values : {&y, &x}) *values = arena.allocate<T>(positions);
    displacement = arena.allocate<T>(2 * count);
    for (T** values : {&fy, &fx, &weight[0], &weight[1], &weight[2], &weight[3]}) *values = arena.allocate<T>(count);
    for (Int<T>** values : {&row, &col, &reads}) *values = arena.allocate<Int<T>>(count);
    between = arena.allocate<Int<T>>(positions);
  }
};

// Transposes a square of as many rows as a vector has lanes. Each step takes the even and the odd lanes of two rows.
template <typename T, int Step = kLanes<T> / 2>
SIFA_INLINE void transpose(Vec<T>* rows) {
  if constexpr (Step > 0) {
    constexpr int lanes = kLanes<T>;
    Vec<T> next[lanes];
#pragma GCC unroll 8
    for (int i = 0; i < lanes / 2; ++i) {
      next[i] = halves<T, lanes, 1, 0>(rows[2 * i], rows[2 * i + 1]);
      next[lanes / 2 + i] = halves<T, lanes, 1, 1>(rows[2 * i], rows[2 * i + 1]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i) rows[i] = next[i];
    transpose<T, Step / 2>(rows);
  }
}

// Reads the offsets of a block into `taps`, one position in each lane; the lanes beyond `count` repeat the last
// position. `offset`, stored as S, belongs to the pair of frames.
template <typename T, typename S>
static void load_offsets(const Shape& s, const S* offset, int64_t first_position, int count, Taps<T>& taps) {
  constexpr int lanes = kLanes<T>;
  const int64_t channels = 2 * s.taps(), step = s.offset_strides[2];
  T* displacement = taps.displacement;
  int64_t row = first_position / s.width, col = first_position % s.width;
  const S* from[kPositions];
  for (int p = 0; p < kPositions; ++p) {
    taps.y[p] = T(row);
    taps.x[p] = T(col);
    from[p] = offset + row * s.offset_strides[3] + col * s.offset_strides[4];
    if (p + 1 < count && ++col == s.width) {
      col = 0;
      ++row;
    }
  }
  if (step != 1 || channels < lanes) {
    for (int64_t i = 0; i < channels; ++i)
      for (int p = 0; p < kPositions; ++p) displacement[i * kPositions + p] = real(from[p][i * step]);
    return;
  }
  for (int p = 0; p < kPositions; p += lanes) {
    for (int64_t i = 0; i < channels; i += lanes) {
      const int64_t first = i + lanes < channels ? i : channels - lanes;  // the last square overlaps the previous one
      Vec<T> square[lanes];
#pragma GCC unroll 16
      for (int row = 0; row < lanes; ++row) square[row] = load_real(from[p + row] + first);
      transpose<T>(square);
#pragma GCC unroll 16
      for (int row = 0; row < lanes; ++row) store<T>(displacement + (first + row) * kPositions + p, square[row]);
    }
  }
}

// One axis of a cell: the first of its two pixels, where the sampling point lies between them (0 to 1), and of both
// pixels whether they are read and their weight, which is zero if not.
template <typename T>
struct Axis {
  Ints<T> first;
  Vec<T> fraction;
  Ints<T> reads[2];
  Vec<T> weight[2];
};

template <typename T, bool SkipZero>
SIFA_INLINE Axis<T> locate_on_axis(Vec<T> point, T size, Int<T> last) {
  Axis<T> axis;
  const Ints<T> in = (point > T(-1)) & (point < size);
  // Points far outside, and NaN, move to the border, where they can be converted to integers.
  point = point > T(-1) ? point : Vec<T>{} - 1;
  point = point < size ? point : Vec<T>{} + T(last);
  const Ints<T> before = point < T(0);
  axis.first = __builtin_convertvector(point, Ints<T>) | before;  // true is -1: truncation rounds up in (-1, 0)
  axis.fraction = point - __builtin_convertvector(axis.first, Vec<T>);
  axis.reads[0] = in & ~before;
  axis.reads[1] = in & (axis.first < last);
  if (SkipZero) axis.reads[1] &= axis.fraction != T(0);
  axis.weight[0] = axis.reads[0] ? 1 - axis.fraction : Vec<T>{};
  axis.weight[1] = axis.reads[1] ? axis.fraction : Vec<T>{};
  return axis;
}

// Locates the taps of `count` positions of frame t of sample n, from position `first`. cuda/sampling.h does the same
// for one tap. SkipZero: corners of weight zero are not read (three of four at integer offsets); the gradient of the
// offsets needs them. `offset` belongs to the whole call.
template <typename T, bool SkipZero>
static void locate(const Shape& s, const void* offset, int64_t n, int64_t t, int64_t first, int count, Taps<T>& taps) {
  constexpr int lanes = kLanes<T>;
  const int64_t reach = s.kernel_size / 2 * s.dilation, all = s.taps();
  const int64_t pair = n * s.offset_strides[0] + t * s.offset_strides[1];
  if constexpr (std::is_same_v<T, double>)
    load_offsets(s, static_cast<const double*>(offset) + pair, first, count, taps);
  else if (s.offset_storage == Storage::Half)
    load_offsets(s, static_cast<const Half*>(offset) + pair, first, count, taps);
  else if (s.offset_storage == Storage::BFloat16)
    load_offsets(s, static_cast<const BFloat16*>(offset) + pair, first, count, taps);
  else
    load_offsets(s, static_cast<const float*>(offset) + pair, first, count, taps);
  const T height = T(s.height), width = T(s.width);
  const Int<T> last_row = Int<T>(s.height - 1), last_col = Int<T>(s.width - 1);
  for (int p = 0; p < kPositions; p += lanes) store_as(taps.between + p, Ints<T>{});
  int64_t row_by = -reach, col_by = -reach;  // where the tap lies in the regular neighbourhood
  for (int64_t tap = 0; tap < all; ++tap) {
    for (int p = 0; p < kPositions; p += lanes) {
      const int64_t at = tap * kPositions + p;
      Vec<T> y = load(taps.y + p) + T(row_by) + load(taps.displacement + 2 * tap * kPositions + p);
      Vec<T> x = load(taps.x + p) + T(col_by) + load(taps.displacement + (2 * tap + 1) * kPositions + p);
      const Axis<T> v = locate_on_axis<T, SkipZero>(y, height, last_row);
      const Axis<T> h = locate_on_axis<T, SkipZero>(x, width, last_col);
      store_as(taps.between + p, load_as<Ints<T>>(taps.between + p) | (v.fraction != T(0)) | (h.fraction != T(0)));
      store_as(taps.row + at, v.first);
      store_as(taps.col + at, h.first);
      if (!SkipZero) {
        store_as(taps.fy + at, v.fraction);
        store_as(taps.fx + at, h.fraction);
      }
      store_as(taps.weight[0] + at, v.weight[0] * h.weight[0]);
      store_as(taps.weight[1] + at, v.weight[0] * h.weight[1]);
      store_as(taps.weight[2] + at, v.weight[1] * h.weight[0]);
      store_as(taps.weight[3] + at, v.weight[1] * h.weight[1]);
      const Ints<T> columns = (h.reads[0] & 1) | (h.reads[1] & 2);
      const Ints<T> bits = (v.reads[0] & columns) | (v.reads[1] & columns << 2);
      store_as(taps.reads + at, bits);
    }
    col_by += s.dilation;
    if (col_by > reach) {
      col_by = -reach;
      row_by += s.dilation;
    }
  }
  Int<T> any = 0;
  for (int p = 0; p < kPositions; ++p) any |= taps.between[p];
  taps.any_between = any != 0;
}

}  // namespace sifa::SIFA_CAPABILITY
