// Where the taps of a block of positions sample: the pixels around each sampling point and their bilinear weights.
//
// Where a tap samples is random to the processor, and a branch that it predicts wrongly costs as much as a hundred
// multiply-adds. So this file computes both sides of a condition and selects one; it branches on rare cases only.
#pragma once

#include "arena.h"
#include "kernel.h"
#include "vector.h"

namespace sifa::SIFA_CAPABILITY {

// Positions are worked on in blocks of this many that follow one another in a frame, one position to a lane.
constexpr int kPositions = 16;

// Addresses and maps of bits take twice the room of a float: of them fewer lanes fill a vector.
constexpr int kPlaces = SIFA_VECTOR_BYTES / 8;
using Addresses = typename Part<int64_t, SIFA_VECTOR_BYTES>::type;
using Maps = typename Part<uint64_t, SIFA_VECTOR_BYTES>::type;
template <typename T>
using IntsOfPlaces = typename Part<Int<T>, kPlaces * sizeof(T)>::type;

// The taps of a block: tap j of its position p at j * kPositions + p. The four corners of the cell around a sampling
// point are numbered 0 upper left, 1 upper right, 2 lower left, 3 lower right.
template <typename T>
struct Taps {
  T *y, *x;          // of the positions
  T* displacement;   // vertical and horizontal in turn, so twice the taps
  T *fy, *fx;        // the sampling point's place in its cell, from 0 to 1; for the backward pass alone
  T* weight[4];      // of the corners; zero where they are not read
  Int<T>*row, *col;  // of corner 0; -1 is above or left of the map
  Int<T>* reads;     // bit i: corner i is read: it is needed, and lies in the map
  Int<T>* between;   // of each position: whether any of its points lies between pixels
  bool any_between;

  void take(const Shape& s, Arena& arena) {
    const int64_t positions = s.deformable ? kPositions : 0, count = positions * s.taps();
    for (T** values : {&y, &x}) *values = arena.take<T>(positions);
    displacement = arena.take<T>(2 * count);
    for (T** values : {&fy, &fx, &weight[0], &weight[1], &weight[2], &weight[3]}) *values = arena.take<T>(count);
    for (Int<T>** values : {&row, &col, &reads}) *values = arena.take<Int<T>>(count);
    between = arena.take<Int<T>>(positions);
  }
};

// The columns of a square of as many rows as a vector has lanes: each step takes the even and the odd lanes of two
// rows.
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

// Positions of a frame and their displacements, one position to a lane; those beyond `count` repeat the last. `offset`,
// stored as S, is that of the pair of frames.
template <typename T, typename S>
static void fetch(const Shape& s, const S* offset, int64_t first_position, int count, Taps<T>& taps) {
  constexpr int lanes = kLanes<T>;
  const int64_t channels = 2 * s.taps(), step = s.offset_strides[2];
  T* displacement = taps.displacement;
  int64_t line = first_position / s.width, column = first_position % s.width;
  const S* from[kPositions];
  for (int p = 0; p < kPositions; ++p) {
    taps.y[p] = T(line);
    taps.x[p] = T(column);
    from[p] = offset + line * s.offset_strides[3] + column * s.offset_strides[4];
    if (p + 1 < count && ++column == s.width) {
      column = 0;
      ++line;
    }
  }
  if (step != 1 || channels < lanes) {
    for (int64_t i = 0; i < channels; ++i)
      for (int p = 0; p < kPositions; ++p) displacement[i * kPositions + p] = real(from[p][i * step]);
    return;
  }
  for (int p = 0; p < kPositions; p += lanes) {
    for (int64_t i = 0; i < channels; i += lanes) {
      const int64_t first = i + lanes < channels ? i : channels - lanes;  // the last ones overlap others
      Vec<T> square[lanes];
#pragma GCC unroll 16
      for (int row = 0; row < lanes; ++row) square[row] = load_real(from[p + row] + first);
      transpose<T>(square);
#pragma GCC unroll 16
      for (int row = 0; row < lanes; ++row) store<T>(displacement + (first + row) * kPositions + p, square[row]);
    }
  }
}

// Along one axis: the first of the two pixels around a point and the point's place between them, whether either is
// read, and its weight, zero if not.
template <typename T>
struct Along {
  Ints<T> first;
  Vec<T> inside;
  Ints<T> reads[2];
  Vec<T> weight[2];
};

template <typename T, bool SkipZero>
SIFA_INLINE Along<T> along(Vec<T> at, T size, Int<T> last) {
  Along<T> a;
  const Ints<T> in = (at > T(-1)) & (at < size);
  // Points far outside, and NaN, are brought to the border, where they can be converted to integers.
  at = at > T(-1) ? at : Vec<T>{} - 1;
  at = at < size ? at : Vec<T>{} + T(last);
  const Ints<T> before = at < T(0);
  a.first = __builtin_convertvector(at, Ints<T>) | before;  // true is -1: truncation rounds up in (-1, 0)
  a.inside = at - __builtin_convertvector(a.first, Vec<T>);
  a.reads[0] = in & ~before;
  a.reads[1] = in & (a.first < last);
  if (SkipZero) a.reads[1] &= a.inside != T(0);
  a.weight[0] = a.reads[0] ? 1 - a.inside : Vec<T>{};
  a.weight[1] = a.reads[1] ? a.inside : Vec<T>{};
  return a;
}

// Where the taps of `count` positions from number `first` of a frame sample: what cuda/sampling.h does for one tap, for
// all of them. With SkipZero corners of weight zero are not read (three of four at integer offsets); the gradient of
// the offsets needs them. `offset` is that of the whole call, n and t say of which pair of frames.
template <typename T, bool SkipZero>
static void locate(const Shape& s, const void* offset, int64_t n, int64_t t, int64_t first, int count, Taps<T>& taps) {
  constexpr int lanes = kLanes<T>;
  const int64_t reach = s.kernel_size / 2 * s.dilation, all = s.taps();
  const int64_t pair = n * s.offset_strides[0] + t * s.offset_strides[1];
  if constexpr (std::is_same_v<T, double>)
    fetch(s, static_cast<const double*>(offset) + pair, first, count, taps);
  else if (s.offset_storage == Storage::Half)
    fetch(s, static_cast<const Half*>(offset) + pair, first, count, taps);
  else if (s.offset_storage == Storage::BFloat16)
    fetch(s, static_cast<const BFloat16*>(offset) + pair, first, count, taps);
  else
    fetch(s, static_cast<const float*>(offset) + pair, first, count, taps);
  const T height = T(s.height), width = T(s.width);
  const Int<T> last_row = Int<T>(s.height - 1), last_col = Int<T>(s.width - 1);
  for (int p = 0; p < kPositions; p += lanes) store_as(taps.between + p, Ints<T>{});
  int64_t row_by = -reach, column_by = -reach;  // the tap's place in the regular neighbourhood
  for (int64_t tap = 0; tap < all; ++tap) {
    for (int p = 0; p < kPositions; p += lanes) {
      const int64_t at = tap * kPositions + p;
      Vec<T> y = load(taps.y + p) + T(row_by) + load(taps.displacement + 2 * tap * kPositions + p);
      Vec<T> x = load(taps.x + p) + T(column_by) + load(taps.displacement + (2 * tap + 1) * kPositions + p);
      const Along<T> v = along<T, SkipZero>(y, height, last_row), h = along<T, SkipZero>(x, width, last_col);
      store_as(taps.between + p, load_as<Ints<T>>(taps.between + p) | (v.inside != T(0)) | (h.inside != T(0)));
      store_as(taps.row + at, v.first);
      store_as(taps.col + at, h.first);
      if (!SkipZero) {
        store_as(taps.fy + at, v.inside);
        store_as(taps.fx + at, h.inside);
      }
      store_as(taps.weight[0] + at, v.weight[0] * h.weight[0]);
      store_as(taps.weight[1] + at, v.weight[0] * h.weight[1]);
      store_as(taps.weight[2] + at, v.weight[1] * h.weight[0]);
      store_as(taps.weight[3] + at, v.weight[1] * h.weight[1]);
      const Ints<T> columns = (h.reads[0] & 1) | (h.reads[1] & 2);
      const Ints<T> bits = (v.reads[0] & columns) | (v.reads[1] & columns << 2);
      store_as(taps.reads + at, bits);
    }
    column_by += s.dilation;
    if (column_by > reach) {
      column_by = -reach;
      row_by += s.dilation;
    }
  }
  Int<T> any = 0;
  for (int p = 0; p < kPositions; ++p) any |= taps.between[p];
  taps.any_between = any != 0;
}

}  // namespace sifa::SIFA_CAPABILITY
