// Which distinct pixels each position reads. The taps of a position share pixels: this file lists every pixel once, and
// the work on channels is then done once for each pixel of the list.
//
// As in geometry.h there are no branches on where a tap samples, except on rare cases.
#pragma once

#include "arena.h"
#include "geometry.h"
#include "kernel.h"
#include "vector.h"

namespace sifa::SIFA_CAPABILITY {

// Lists of cells are padded so that blocks of cells may run over the end.
constexpr int kCellBlock = 8;

// The distinct pixels ("cells") of one position's neighbourhood, row by row, and what is computed for each.
template <typename T>
struct Neighbourhood {
  int count;         // cells
  int64_t* cell;     // where each pixel begins in its frame, in elements
  T *a, *b, *c, *h;  // see kernel_impl.h; there is room before and after
  // Two for each tap: the cell of its upper left and of its lower left corner; the right corner is the next one. A
  // corner that is not read may be any cell, also -1 or `count`: its weight is zero. (Where another cell's dot product
  // is infinite, that makes a NaN of what may be an infinity otherwise.)
  int* left_cells;
  int64_t most;  // room for values, a whole number of vectors

  void take(const Shape& s, Arena& arena) {
    const int64_t cells = (s.deformable ? 4 : 1) * s.taps() + kCellBlock;
    cell = arena.take<int64_t>(cells);
    most = (cells + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
    for (T** values : {&a, &b, &c, &h}) {
      arena.take<T>(kLanes<T>);
      *values = arena.take<T>(most + kLanes<T>);
    }
    left_cells = arena.take<int>(s.deformable ? 2 * s.taps() : 0);
  }

  void end(int cells) {
    count = cells;
    const int64_t last = cells > 0 ? cell[cells - 1] : 0;
    for (int i = 0; i < kCellBlock; ++i) cell[cells + i] = last;  // near by in the cache
  }

  // The regular neighbourhood one pixel further to the right, when neither is cut off at its left or right.
  void follow(const Neighbourhood& before, int64_t stride) {
    count = before.count;
    for (int64_t i = 0; i < count + kCellBlock; ++i) cell[i] = before.cell[i] + stride;
  }

  // All, not `count`: how often a loop goes round is better not random either.
  void clear(T* values) const {
    for (int64_t i = 0; i < most; i += kLanes<T>) store<T>(values + i, Vec<T>{});
  }

  // The values of corners that are not read.
  void clear_around(T* values) const { values[-1] = values[count] = values[count + 1] = 0; }
};

// The taps of the regular neighbourhood that lie inside the map.
template <typename T>
static void collect_regular(const Shape& s, int64_t stride, int64_t y, int64_t x, Neighbourhood<T>& near) {
  const int64_t k = s.kernel_size, reach = k / 2 * s.dilation;
  int n = 0;
  for (int64_t i = 0, row = y - reach; i < k; ++i, row += s.dilation) {
    if (row < 0 || row >= s.height) continue;
    for (int64_t j = 0, col = x - reach; j < k; ++j, col += s.dilation) {
      if (col < 0 || col >= s.width) continue;
      near.cell[n++] = (row * s.width + col) * stride;
    }
  }
  near.end(n);
}

// Corners are merged by a map of bits, one for each pixel of a window around the taps of a position: 8 rows of 8 bits
// nearly always. A bit's rank among those set is the number of its cell.
struct Columns {
  int32_t set[256][8];  // the numbers of the bits that are set in each byte, the lowest first
  constexpr Columns() : set() {
    for (int byte = 0; byte < 256; ++byte)
      for (int bit = 0, n = 0; bit < 8; ++bit)
        if (byte >> bit & 1) set[byte][n++] = bit;
  }
};
static constexpr Columns kColumns;

// The number of the cell of a bit, or of the cell before it if the bit is not set.
SIFA_INLINE int64_t rank_of(uint64_t map, int64_t bit) {
  return __builtin_popcountll(map & ~(~uint64_t(1) << bit)) - 1;
}

// The windows around the taps of each position of a block, and of those of 8 rows and columns at most the maps and the
// bit of each tap's upper left corner.
template <typename T>
struct Windows {
  Int<T>*top, *left, *rows, *cols;
  uint64_t* map;
  Int<T>* bit;

  void take(const Shape& s, Arena& arena) {
    const int64_t positions = s.deformable ? kPositions : 0;
    for (Int<T>** values : {&top, &left, &rows, &cols}) *values = arena.take<Int<T>>(positions);
    map = arena.take<uint64_t>(positions);
    bit = arena.take<Int<T>>(positions * s.taps());
  }

  void lay(const Shape& s, const Taps<T>& taps) {
    const int64_t all = kPositions * s.taps();
    for (int p = 0; p < kPositions; p += kLanes<T>) {
      const auto lines = load_as<Ints<T>>(taps.row + p), columns = load_as<Ints<T>>(taps.col + p);
      Ints<T> first_row = lines, last_row = lines, first_col = columns, last_col = columns;
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
    for (int p = 0; p < kPositions; p += kPlaces) {
      Maps bits{};
      for (int64_t at = p; at < all; at += kPositions) {
        const Maps upper = __builtin_convertvector(load_as<IntsOfPlaces<T>>(bit + at), Maps);
        const Maps reads = __builtin_convertvector(load_as<IntsOfPlaces<T>>(taps.reads + at), Maps);
        bits |= (reads & 3) << upper | (reads >> 2) << ((upper + 8) & 63);
      }
      store_as(map + p, bits);
    }
  }
};

// The distinct corners of position p's taps, in a window of 8 rows and columns.
template <typename T>
static void collect_window(const Shape& s, int64_t stride, const Windows<T>& windows, int p, Neighbourhood<T>& near) {
  using Eight = typename Part<int64_t, 64>::type;
  using EightColumns = typename Part<int32_t, 32>::type;
  const uint64_t map = windows.map[p];
  int64_t line = (int64_t(windows.top[p]) * s.width + windows.left[p]) * stride;
  int64_t n = 0;
#pragma GCC unroll 8
  for (int row = 0; row < 8; ++row, line += s.width * stride) {
    const uint8_t columns = uint8_t(map >> 8 * row);
    // All eight are written; the next row overwrites those that are too many.
    store_as(near.cell + n,
             line + stride * __builtin_convertvector(load_as<EightColumns>(kColumns.set[columns]), Eight));
    n += __builtin_popcount(columns);
  }
  for (int64_t tap = 0; tap < s.taps(); ++tap) {
    const int64_t bit = windows.bit[tap * kPositions + p];
    near.left_cells[2 * tap] = int(rank_of(map, bit));
    near.left_cells[2 * tap + 1] = int(rank_of(map, (bit + 8) & 63));
  }
  near.end(int(n));
}

// In a wider window, of rows of 2^row_bits bits.
constexpr int64_t kMostWords = 32;

template <typename T>
static void collect_wide(const Shape& s, int64_t stride, const Taps<T>& taps, const Windows<T>& windows, int p,
                         int row_bits, Neighbourhood<T>& near) {
  const int64_t top = windows.top[p], left = windows.left[p], rows = windows.rows[p];
  const int64_t count = s.taps(), words = ((rows << row_bits) + 63) / 64, below = int64_t(1) << row_bits;
  uint64_t wanted[kMostWords];
  int64_t rank[kMostWords];
  const auto bit_of = [&](int64_t tap) {
    const int64_t at = tap * kPositions + p;
    return (taps.row[at] - top) << row_bits | (taps.col[at] - left);
  };
  for (int64_t i = 0; i < words; ++i) wanted[i] = 0;
  for (int64_t tap = 0; tap < count; ++tap) {
    const int64_t bit = bit_of(tap);
    const uint64_t reads = uint64_t(taps.reads[tap * kPositions + p]);
    wanted[bit / 64] |= (reads & 3) << bit % 64;
    wanted[(bit + below) / 64] |= (reads >> 2) << (bit + below) % 64;
  }
  int64_t n = 0;
  for (int64_t i = 0; i < words; ++i) {
    rank[i] = n;
    for (uint64_t bits = wanted[i]; bits != 0; bits &= bits - 1) {
      const int64_t bit = 64 * i + __builtin_ctzll(bits);
      near.cell[n++] = ((top + (bit >> row_bits)) * s.width + left + (bit & (below - 1))) * stride;
    }
  }
  for (int64_t tap = 0; tap < count; ++tap) {
    for (int64_t lower = 0, bit = bit_of(tap); lower < 2; ++lower, bit += below)
      near.left_cells[2 * tap + lower] = int(rank[bit / 64] + rank_of(wanted[bit / 64], bit % 64));
  }
  near.end(int(n));
}

// Taps flung far apart: every corner is a cell of its own.
template <typename T>
static void collect_apart(const Shape& s, int64_t stride, const Taps<T>& taps, int p, Neighbourhood<T>& near) {
  int n = 0, *left_cells = near.left_cells;
  for (int64_t at = p; at < kPositions * s.taps(); at += kPositions) {
    for (int corner = 0; corner < 4; corner += 2) {
      const int64_t pixel = (taps.row[at] + corner / 2) * s.width + taps.col[at];
      *left_cells++ = n - 1 + int(taps.reads[at] >> corner & 1);
      for (int right = 0; right < 2; ++right)
        if (taps.reads[at] >> (corner + right) & 1) near.cell[n++] = (pixel + right) * stride;
    }
  }
  near.end(n);
}

// The distinct corners of position p's taps.
template <typename T>
static void collect_displaced(const Shape& s, int64_t stride, const Taps<T>& taps, const Windows<T>& windows, int p,
                              Neighbourhood<T>& near) {
  const int64_t rows = windows.rows[p], cols = windows.cols[p];
  if (rows <= 8 && cols <= 8) return collect_window(s, stride, windows, p, near);
  int row_bits = 3;
  while (row_bits < 6 && cols > 1 << row_bits) ++row_bits;
  if (cols <= 1 << row_bits && rows << row_bits <= 64 * kMostWords)
    collect_wide(s, stride, taps, windows, p, row_bits, near);
  else
    collect_apart(s, stride, taps, p, near);
}

// Positions that follow one another in a frame, with their taps and neighbourhoods.
template <typename T>
struct Block {
  int64_t first;  // the number of the first position in its frame
  int count;
  Taps<T> taps;
  Windows<T> windows;
  Neighbourhood<T> near[kPositions];

  void take(const Shape& s, Arena& arena) {
    taps.take(s, arena);
    windows.take(s, arena);
    for (Neighbourhood<T>& one : near) one.take(s, arena);
  }

  // `stride`: from one pixel of the keys to the next, in elements.
  void collect(const Shape& s, int64_t stride) {
    if (!s.deformable) {
      const int64_t reach = s.kernel_size / 2 * s.dilation;
      int64_t y = first / s.width, x = first % s.width;
      for (int p = 0; p < count; ++p) {
        if (p > 0 && x > reach && x + reach < s.width)
          near[p].follow(near[p - 1], stride);
        else
          collect_regular(s, stride, y, x, near[p]);
        if (++x == s.width) {
          x = 0;
          ++y;
        }
      }
      return;
    }
    windows.lay(s, taps);
    for (int p = 0; p < count; ++p) collect_displaced(s, stride, taps, windows, p, near[p]);
  }
};

}  // namespace sifa::SIFA_CAPABILITY
