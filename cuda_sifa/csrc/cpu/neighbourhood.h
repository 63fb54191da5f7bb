// Which distinct pixels each position reads. Neighbouring taps share pixels: this code lists every pixel once, so that
// the work on channels is done once for each pixel of the list, not once for each corner of each tap.
//
// As in geometry.h, it does not branch on where a tap samples, except for rare cases.
#pragma once

#include "arena.h"
#include "geometry.h"
#include "kernel.h"
#include "vector.h"

namespace sifa::SIFA_CAPABILITY {

// Lists of pixels are padded so that blocks of this many pixels may run past the end.
constexpr int kPixelBlock = 8;

// The distinct pixels of one position's neighbourhood, row by row, and what is computed for each pixel.
template <typename T>
struct Neighbourhood {
  int count;       // pixels in the list
  int64_t* pixel;  // where each pixel begins in its frame, in elements
  // See kernel_impl.h. The forward pass: a and c of each pixel. The backward pass: two values for each pixel, a and b
  // in `dots`, c and h in `weights`. There is room before and after.
  T *dots, *weights;
  // Two for each tap: the places in the list of its upper left and its lower left corner. The right corner has the next
  // place. A corner that is not read may have any place, even -1 or `count`: its weight is zero. (If the dot product at
  // that place is infinite, the result is NaN where it could be infinite.)
  int* left_corners;
  int64_t capacity;  // for values, a whole number of vectors

  // `values`: for each pixel, one or two.
  void allocate(const Shape& s, int values, Arena& arena) {
    const int64_t pixels = (s.deformable ? 4 : 1) * s.taps() + kPixelBlock;
    pixel = arena.allocate<int64_t>(pixels);
    capacity = (values * pixels + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
    for (T** array : {&dots, &weights}) {
      arena.allocate<T>(kLanes<T>);
      *array = arena.allocate<T>(capacity + kLanes<T>);
    }
    left_corners = arena.allocate<int>(s.deformable ? 2 * s.taps() : 0);
  }

  // Ends the list after n pixels.
  void finish(int n) {
    count = n;
    const int64_t last = n > 0 ? pixel[n - 1] : 0;
    for (int i = 0; i < kPixelBlock; ++i) pixel[n + i] = last;  // padding that is already in the cache
  }

  // The regular neighbourhood one pixel to the right of `left`, if both have all their columns inside the map.
  void shift_right(const Neighbourhood& left, int64_t stride) {
    count = left.count;
    for (int64_t i = 0; i < count + kPixelBlock; ++i) pixel[i] = left.pixel[i] + stride;
  }

  // All values, not `count` of them: a loop of a constant length is easier to predict.
  void clear(T* values) const {
    for (int64_t i = 0; i < capacity; i += kLanes<T>) store<T>(values + i, Vec<T>{});
  }

  // The values that left_corners may reach before and after the list.
  template <int Values>
  void clear_around(T* of) const {
    for (int i = 0; i < Values; ++i) of[i - Values] = of[Values * count + i] = of[Values * (count + 1) + i] = 0;
  }
};

// Lists the taps of the regular neighbourhood that lie inside the map.
template <typename T>
static void collect_regular(const Shape& s, int64_t stride, int64_t y, int64_t x, Neighbourhood<T>& near) {
  const int64_t k = s.kernel_size, reach = k / 2 * s.dilation;
  int n = 0;
  for (int64_t i = 0, row = y - reach; i < k; ++i, row += s.dilation) {
    if (row < 0 || row >= s.height) continue;
    for (int64_t j = 0, col = x - reach; j < k; ++j, col += s.dilation) {
      if (col < 0 || col >= s.width) continue;
      near.pixel[n++] = (row * s.width + col) * stride;
    }
  }
  near.finish(n);
}

// ---- Displaced taps: corners are merged in a bitmap, one bit for each pixel of a window around the taps -------------

// A pixel's place in the list is the rank of its bit: the number of set bits before it. The window nearly always has 8
// rows of 8 pixels, one byte for each row.
struct BitNumbers {
  int32_t of[256][8];  // the numbers of the set bits of each byte, in ascending order
  constexpr BitNumbers() : of() {
    for (int byte = 0; byte < 256; ++byte)
      for (int bit = 0, n = 0; bit < 8; ++bit)
        if (byte >> bit & 1) of[byte][n++] = bit;
  }
};
static constexpr BitNumbers kBitNumbers;

// The place of a bit's pixel, or of the pixel before it if the bit is not set.
SIFA_INLINE int64_t rank_of(uint64_t map, int64_t bit) {
  return __builtin_popcountll(map & ~(~uint64_t(1) << bit)) - 1;
}

// The windows around the taps of each position of a block. For windows of at most 8 x 8 pixels also the bitmap, and the
// bit of each tap's upper left corner.
template <typename T>
struct Windows {
  Int<T>*top, *left, *rows, *cols;
  uint64_t* map;
  Int<T>* bit;

  void allocate(const Shape& s, Arena& arena) {
    const int64_t positions = s.deformable ? kPositions : 0;
    for (Int<T>** values : {&top, &left, &rows, &cols}) *values = arena.allocate<Int<T>>(positions);
    map = arena.allocate<uint64_t>(positions);
    bit = arena.allocate<Int<T>>(positions * s.taps());
  }

  void compute(const Shape& s, const Taps<T>& taps) {
    const int64_t all = kPositions * s.taps();
    for (int p = 0; p < kPositions; p += kLanes<T>) {
      const auto first_rows = load_as<Ints<T>>(taps.row + p), first_cols = load_as<Ints<T>>(taps.col + p);
      Ints<T> first_row = first_rows, last_row = first_rows, first_col = first_cols, last_col = first_cols;
      for (int64_t at = p + kPositions; at < all; at += kPositions) {
        const auto row = load_as<Ints<T>>(taps.row + at), col = load_as<Ints<T>>(taps.col + at);
        first_row = row < first_row ? row : first_row;
        last_row = row > last_row ? row : last_row;
        first_col = col < first_col ? col : first_col;
        last_col = col > last_col ? col : last_col;
      }
      for (int64_t at = p; at < all; at += kPositions) {
        const auto row = load_as<Ints<T>>(taps.row + at), col = load_as<Ints<T>>(taps.col + at);
        store_as(bit + at, Ints<T>(((row - first_row) & 7) << 3 | ((col - first_col) & 7)));
      }
      store_as(top + p, first_row);
      store_as(left + p, first_col);
      store_as(rows + p, Ints<T>(last_row - first_row + 2));
      store_as(cols + p, Ints<T>(last_col - first_col + 2));
    }
    for (int p = 0; p < kPositions; p += kLanes64) {
      Bitmaps bits{};
      for (int64_t at = p; at < all; at += kPositions) {
        const Bitmaps upper = __builtin_convertvector(load_as<NarrowInts<T>>(bit + at), Bitmaps);
        const Bitmaps reads = __builtin_convertvector(load_as<NarrowInts<T>>(taps.reads + at), Bitmaps);
        bits |= (reads & 3) << upper | (reads >> 2) << ((upper + 8) & 63);
      }
      store_as(map + p, bits);
    }
  }
};

// Lists the distinct corners of position p's taps, in a window of at most 8 x 8 pixels. `stride` is at most
// kWindowStride: products of 64 bits are slow without AVX-512.
constexpr int64_t kWindowStride = 1 << 28;

template <typename T>
static void collect_window(const Shape& s, int64_t stride, const Windows<T>& windows, int p, Neighbourhood<T>& near) {
  using Eight = VectorOf<int64_t, 64>;
  using EightColumns = VectorOf<int32_t, 32>;
  const uint64_t map = windows.map[p];
  int64_t line = (int64_t(windows.top[p]) * s.width + windows.left[p]) * stride;
  int64_t n = 0;
#pragma GCC unroll 8
  for (int row = 0; row < 8; ++row, line += s.width * stride) {
    const uint8_t columns = uint8_t(map >> 8 * row);
    // Always writes eight; the next row overwrites those that are too many.
    store_as(near.pixel + n,
             line + __builtin_convertvector(load_as<EightColumns>(kBitNumbers.of[columns]) * int32_t(stride), Eight));
    n += __builtin_popcount(columns);
  }
  for (int64_t tap = 0; tap < s.taps(); ++tap) {
    const int64_t bit = windows.bit[tap * kPositions + p];
    near.left_corners[2 * tap] = int(rank_of(map, bit));
    near.left_corners[2 * tap + 1] = int(rank_of(map, (bit + 8) & 63));
  }
  near.finish(int(n));
}

// The same in a larger window, with rows of 2^row_bits bits.
constexpr int64_t kMaxWords = 32;

template <typename T>
static void collect_large_window(const Shape& s, int64_t stride, const Taps<T>& taps, const Windows<T>& windows, int p,
                                 int row_bits, Neighbourhood<T>& near) {
  const int64_t top = windows.top[p], left = windows.left[p], rows = windows.rows[p];
  const int64_t count = s.taps(), words = ((rows << row_bits) + 63) / 64, below = int64_t(1) << row_bits;
  uint64_t map[kMaxWords];
  int64_t rank[kMaxWords];  // of the first bit of each word
  const auto bit_of = [&](int64_t tap) {
    const int64_t at = tap * kPositions + p;
    return (taps.row[at] - top) << row_bits | (taps.col[at] - left);
  };
  for (int64_t i = 0; i < words; ++i) map[i] = 0;
  for (int64_t tap = 0; tap < count; ++tap) {
    const int64_t bit = bit_of(tap);
    const uint64_t reads = uint64_t(taps.reads[tap * kPositions + p]);
    map[bit / 64] |= (reads & 3) << bit % 64;
    map[(bit + below) / 64] |= (reads >> 2) << (bit + below) % 64;
  }
  int64_t n = 0;
  for (int64_t i = 0; i < words; ++i) {
    rank[i] = n;
    for (uint64_t bits = map[i]; bits != 0; bits &= bits - 1) {
      const int64_t bit = 64 * i + __builtin_ctzll(bits);
      near.pixel[n++] = ((top + (bit >> row_bits)) * s.width + left + (bit & (below - 1))) * stride;
    }
  }
  for (int64_t tap = 0; tap < count; ++tap) {
    for (int64_t lower = 0, bit = bit_of(tap); lower < 2; ++lower, bit += below)
      near.left_corners[2 * tap + lower] = int(rank[bit / 64] + rank_of(map[bit / 64], bit % 64));
  }
  near.finish(int(n));
}

// Without a window, for taps that lie far apart: every corner has its own place in the list.
template <typename T>
static void collect_unmerged(const Shape& s, int64_t stride, const Taps<T>& taps, int p, Neighbourhood<T>& near) {
  int n = 0, *left_corners = near.left_corners;
  for (int64_t at = p; at < kPositions * s.taps(); at += kPositions) {
    for (int corner = 0; corner < 4; corner += 2) {
      const int64_t pixel = (taps.row[at] + corner / 2) * s.width + taps.col[at];
      *left_corners++ = n - 1 + int(taps.reads[at] >> corner & 1);
      for (int right = 0; right < 2; ++right)
        if (taps.reads[at] >> (corner + right) & 1) near.pixel[n++] = (pixel + right) * stride;
    }
  }
  near.finish(n);
}

template <typename T>
static void collect_displaced(const Shape& s, int64_t stride, const Taps<T>& taps, const Windows<T>& windows, int p,
                              Neighbourhood<T>& near) {
  const int64_t rows = windows.rows[p], cols = windows.cols[p];
  if (rows <= 8 && cols <= 8 && stride <= kWindowStride) return collect_window(s, stride, windows, p, near);
  int row_bits = 3;
  while (row_bits < 6 && cols > 1 << row_bits) ++row_bits;
  if (cols <= 1 << row_bits && rows << row_bits <= 64 * kMaxWords)
    collect_large_window(s, stride, taps, windows, p, row_bits, near);
  else
    collect_unmerged(s, stride, taps, p, near);
}

// ---- A block of positions -------------------------------------------------------------------------------------------

// Consecutive positions of a frame, with their taps and neighbourhoods.
template <typename T>
struct Block {
  int64_t first;  // number of the first position in its frame
  int count;
  Taps<T> taps;
  Windows<T> windows;
  Neighbourhood<T> near[kPositions];

  void allocate(const Shape& s, int values, Arena& arena) {
    taps.allocate(s, arena);
    windows.allocate(s, arena);
    for (Neighbourhood<T>& one : near) one.allocate(s, values, arena);
  }

  // Lists the pixels of every position. `stride`: from one pixel of the keys to the next, in elements.
  void collect(const Shape& s, int64_t stride) {
    if (!s.deformable) {
      const int64_t reach = s.kernel_size / 2 * s.dilation;
      int64_t y = first / s.width, x = first % s.width;
      for (int p = 0; p < count; ++p) {
        if (p > 0 && x > reach && x + reach < s.width)
          near[p].shift_right(near[p - 1], stride);
        else
          collect_regular(s, stride, y, x, near[p]);
        if (++x == s.width) {
          x = 0;
          ++y;
        }
      }
      return;
    }
    windows.compute(s, taps);
    for (int p = 0; p < count; ++p) collect_displaced(s, stride, taps, windows, p, near[p]);
  }
};

}  // namespace sifa::SIFA_CAPABILITY
