// Which pixels the positions of a row attend to, and with which bilinear weights. Included once for each instruction
// set, by kernel_impl.h.
//
// Where a tap samples is random to the processor, and a branch on it guessed wrongly costs as much as a hundred
// multiply-adds. So there is no such branch in here but for rare cases: both sides are computed, and one is taken.

namespace sifa::SIFA_CAPABILITY {

// The memory that one thread works in, handed out in pieces that begin at a cache line, where vectors are loaded
// fastest. Without memory it only counts.
struct Arena {
  char* memory;
  int64_t used = 0;

  template <typename E>
  E* take(int64_t n) {
    E* piece = memory ? reinterpret_cast<E*>(memory + used) : nullptr;
    used += (n * int64_t(sizeof(E)) + 63) / 64 * 64;
    return piece;
  }
};

// Taps are located this many at a time: as many addresses as a vector holds.
constexpr int kPlaces = SIFA_VECTOR_BYTES / 8;
template <typename T>
struct Places {
  using Reals = typename Part<T, kPlaces * sizeof(T)>::type;
  using Ints = typename Part<Int<T>, kPlaces * sizeof(T)>::type;
  using Addresses = typename Part<int64_t, kPlaces * sizeof(int64_t)>::type;
};

template <typename V, typename E>
SIFA_INLINE V load_as(const E* from) {
  V v;
  __builtin_memcpy(&v, from, sizeof(v));
  return v;
}

template <typename V, typename E>
SIFA_INLINE void store_as(E* to, V v) {
  __builtin_memcpy(to, &v, sizeof(v));
}

// Taps of a block of positions, unless one position alone has more.
constexpr int64_t kBlockTaps = 144;

// The taps of a block of neighbours in a row: tap j of position p at p * k*k + j. The four corners of the cell around a
// sampling point are numbered 0 upper left, 1 upper right, 2 lower left, 3 lower right.
template <typename T>
struct Taps {
  int64_t most_positions;  // that a block holds
  T *y, *x;                // where taps lie without displacement, in a block that begins at (0, 0)
  T* displacement;         // vertical and horizontal in turn, where the call's offsets do not lie so
  T *fy, *fx;              // the sampling point's place in its cell, from 0 to 1
  T* weight[4];            // of the corners; zero where they are not read
  Int<T>*row, *col;        // of corner 0; -1 is above or left of the map
  Int<T>* reads;           // bit i: corner i is read: it is needed, and lies in the map
  const T** corner[4];     // the pixel; zeros where it is not read
  bool between;            // whether any point of the block lies between pixels

  Taps(const Shape& s, Arena& arena) {
    most_positions = s.taps() < kBlockTaps ? kBlockTaps / s.taps() : 1;
    const int64_t count = s.deformable ? most_positions * s.taps() + kPlaces : 0;
    for (T** values : {&y, &x, &fy, &fx, &weight[0], &weight[1], &weight[2], &weight[3]})
      *values = arena.take<T>(count);
    displacement = arena.take<T>(2 * count);
    for (Int<T>** values : {&row, &col, &reads}) *values = arena.take<Int<T>>(count);
    for (const T*** pixels : {&corner[0], &corner[1], &corner[2], &corner[3]}) *pixels = arena.take<const T*>(count);
    if (!arena.memory) return;
    const int64_t k = s.kernel_size, reach = k / 2 * s.dilation;
    for (int64_t position = 0, at = 0; at < count; ++position)
      for (int64_t i = 0; i < k && at < count; ++i)
        for (int64_t j = 0; j < k && at < count; ++j, ++at) {
          y[at] = T(i * s.dilation - reach);
          x[at] = T(position + j * s.dilation - reach);
        }
  }
};

// The displacements of a block's taps, vertical and horizontal in turn: where they lie if they do so there, else
// copied. `offset` points at channel 0 of the first position.
template <typename T>
static const T* displacements(const Shape& s, const T* offset, int64_t positions, Taps<T>& taps) {
  const int64_t channels = 2 * s.taps(), step = s.offset_strides[2], across = s.offset_strides[4];
  if (step == 1 && across == channels) return offset;
  for (int64_t p = 0; p < positions; ++p)
    for (int64_t i = 0; i < channels; ++i) taps.displacement[p * channels + i] = offset[p * across + i * step];
  return taps.displacement;
}

// Where the taps of the positions sample that lie in row `line` from column `start`: what cuda/sampling.h says of one
// tap, for all of them. With SkipZero corners of weight zero are not read (three of four at integer offsets); the
// gradient of the offsets needs them. `offset` is that of the whole call.
template <typename T, bool SkipZero>
static void locate(const Shape& s, const T* offset, int64_t n, int64_t t, int64_t line, int64_t start,
                   int64_t positions, Taps<T>& taps) {
  const int64_t* stride = s.offset_strides;
  offset += n * stride[0] + t * stride[1] + line * stride[3] + start * stride[4];
  const T* displacement = displacements(s, offset, positions, taps);
  const int64_t count = positions * s.taps();
  using Reals = typename Places<T>::Reals;
  using Ints = typename Places<T>::Ints;
  const T height = T(s.height), width = T(s.width);
  const Int<T> last_row = Int<T>(s.height - 1), last_col = Int<T>(s.width - 1);
  Ints between{};
  for (int64_t at = 0; at < count; at += kPlaces) {
    Reals moves[2] = {};
    if (at + kPlaces <= count)
      __builtin_memcpy(moves, displacement + 2 * at, sizeof(moves));
    else
      __builtin_memcpy(moves, displacement + 2 * at, 2 * (count - at) * sizeof(T));
    Reals y = load_as<Reals>(taps.y + at) + T(line) + halves<T, kPlaces, 1, 0>(moves[0], moves[1]);
    Reals x = load_as<Reals>(taps.x + at) + T(start) + halves<T, kPlaces, 1, 1>(moves[0], moves[1]);
    const Ints inside = (y > T(-1)) & (y < height) & (x > T(-1)) & (x < width);
    // Points far outside, and NaN, are brought to the border, where they can be converted to integers.
    y = y > T(-1) ? y : Reals{} - 1;
    x = x > T(-1) ? x : Reals{} - 1;
    y = y < height ? y : Reals{} + T(last_row);
    x = x < width ? x : Reals{} + T(last_col);
    Ints row = __builtin_convertvector(y, Ints), col = __builtin_convertvector(x, Ints);
    row += y < __builtin_convertvector(row, Reals);  // true is -1: truncation rounds up in (-1, 0)
    col += x < __builtin_convertvector(col, Reals);
    const Reals fy = y - __builtin_convertvector(row, Reals), fx = x - __builtin_convertvector(col, Reals);
    const Ints top = row >= 0, left = col >= 0;
    Ints bottom = row < last_row, right = col < last_col;
    between |= (fy != T(0)) | (fx != T(0));
    if (SkipZero) {
      bottom &= fy != T(0);
      right &= fx != T(0);
    }
    store_as(taps.row + at, row);
    store_as(taps.col + at, col);
    store_as(taps.fy + at, fy);
    store_as(taps.fx + at, fx);
    const Ints reads[4] = {inside & top & left, inside & top & right, inside & bottom & left, inside & bottom & right};
    const Reals weight[4] = {(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx};
    Ints bits{};
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      bits |= reads[i] & (1 << i);
      store_as(taps.weight[i] + at, reads[i] ? weight[i] : Reals{});
    }
    store_as(taps.reads + at, bits);
  }
  Int<T> any = 0;
  for (int i = 0; i < kPlaces; ++i) any |= between[i];
  taps.between = any != 0;
}

// Where the corners are in memory; `zeros` for those that are not needed.
template <typename T>
static void point_at_corners(const Shape& s, const T* keys, const T* zeros, int64_t count, Taps<T>& taps) {
  using Addresses = typename Places<T>::Addresses;
  using Ints = typename Places<T>::Ints;
  const int64_t pixel = s.channels * sizeof(T), line = s.width * pixel;
  const int64_t step[4] = {0, pixel, line, line + pixel};
  for (int64_t at = 0; at < count; at += kPlaces) {
    const Addresses row = __builtin_convertvector(load_as<Ints>(taps.row + at), Addresses);
    const Addresses col = __builtin_convertvector(load_as<Ints>(taps.col + at), Addresses);
    const Addresses reads = __builtin_convertvector(load_as<Ints>(taps.reads + at), Addresses);
    const Addresses first = row * line + col * pixel + reinterpret_cast<int64_t>(keys);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i)
      store_as(taps.corner[i] + at,
               Addresses((reads & (1 << i)) != 0 ? first + step[i] : Addresses{} + reinterpret_cast<int64_t>(zeros)));
  }
}

// Lists of cells are padded so that blocks of cells may run over the end.
constexpr int kCellBlock = 8;

// The distinct pixels ("cells") of one position's neighbourhood, row by row, and what is computed for each.
template <typename T>
struct Neighbourhood {
  int count;         // cells
  int64_t* cell;     // element offset of each in its frame
  T *a, *b, *c, *h;  // see kernel_impl.h; there is room before and after
  // Two for each tap: the cell of its upper left and of its lower left corner; the right corner is the next one. A
  // corner that is not read may be any cell, also -1 or `count`: its weight is zero (and makes an infinity of another
  // cell a NaN, of which there is one in the result then in any case).
  int* left_cells;

  Neighbourhood(const Shape& s, Arena& arena) {
    const int64_t most = (s.deformable ? 4 : 1) * s.taps() + kCellBlock;
    cell = arena.take<int64_t>(most);
    for (T** values : {&a, &b, &c, &h}) {
      arena.take<T>(1);
      *values = arena.take<T>(most + kLanes<T>);
    }
    left_cells = arena.take<int>(s.deformable ? 2 * s.taps() : 0);
  }

  void end(int cells) {
    count = cells;
    const int64_t last = cells > 0 ? cell[cells - 1] : 0;
    for (int i = 0; i < kCellBlock; ++i) cell[cells + i] = last;  // near by in the cache
  }

  // The values of corners that are not read.
  static void clear_around(T* values, int count) { values[-1] = values[count] = values[count + 1] = 0; }
};

// The taps of the regular neighbourhood that lie inside the map.
template <typename T>
static void collect_regular(const Shape& s, int64_t y, int64_t x, Neighbourhood<T>& near) {
  const int64_t k = s.kernel_size, reach = k / 2 * s.dilation;
  int n = 0;
  for (int64_t i = 0, row = y - reach; i < k; ++i, row += s.dilation) {
    if (row < 0 || row >= s.height) continue;
    for (int64_t j = 0, col = x - reach; j < k; ++j, col += s.dilation) {
      if (col < 0 || col >= s.width) continue;
      near.cell[n++] = (row * s.width + col) * s.channels;
    }
  }
  near.end(n);
}

// Corners are merged by a map of bits, one for each pixel of a window around the taps, rows of 2^row_bits bits. A bit's
// rank among those set is the number of its cell.
constexpr int kMostWords = 32;

// Words: how many words of 64 bits the map has at most; a single one stays in a register.
template <typename T, int Words>
SIFA_INLINE void merge(const Shape& s, const Taps<T>& taps, int64_t first, int64_t top, int64_t left, int rows,
                       int row_bits, Neighbourhood<T>& near) {
  const int count = int(s.taps()), words = Words == 1 ? 1 : ((rows << row_bits) + 63) / 64, below = 1 << row_bits;
  const auto word_of = [](int bit) { return Words == 1 ? 0 : bit / 64; };
  uint64_t wanted[Words];
  int rank[Words];
  for (int i = 0; i < words; ++i) wanted[i] = 0;
  for (int t = 0; t < count; ++t) {
    const int64_t at = first + t;
    const int bit = int(taps.row[at] - top) << row_bits | int(taps.col[at] - left);
    const uint64_t reads = uint64_t(taps.reads[at]);
    wanted[word_of(bit)] |= (reads & 3) << bit % 64;
    wanted[word_of(bit + below)] |= (reads >> 2) << (bit + below) % 64;
    near.left_cells[2 * t] = bit;
  }
  const int64_t pixel = s.channels, line = s.width * pixel, corner = top * line + left * pixel;
  int64_t* cell = near.cell;
  int n = 0;
  for (int i = 0; i < words; ++i) {
    rank[i] = n;
    for (uint64_t bits = wanted[i]; bits != 0; bits &= bits - 1) {
      const int64_t bit = 64 * i + __builtin_ctzll(bits);
      cell[n++] = corner + (bit >> row_bits) * line + (bit & (below - 1)) * pixel;
    }
  }
  int* left_cells = near.left_cells;
  for (int t = 0; t < count; ++t, left_cells += 2) {
    for (int i = 0, bit = left_cells[0]; i < 2; ++i, bit += below) {
      const uint64_t word = wanted[word_of(bit)];
      left_cells[i] = rank[word_of(bit)] + __builtin_popcountll(word & ~(~uint64_t(1) << bit % 64)) - 1;
    }
  }
  near.end(n);
}

// The distinct corners of the taps [first, first + k*k).
template <typename T>
static void collect_displaced(const Shape& s, const Taps<T>& taps, int64_t first, Neighbourhood<T>& near) {
  const int count = int(s.taps());
  Int<T> top = taps.row[first], left = taps.col[first], last_row = top, last_col = left;
  for (int64_t at = first + 1; at < first + count; ++at) {
    const Int<T> row = taps.row[at], col = taps.col[at];
    top = row < top ? row : top;
    left = col < left ? col : left;
    last_row = row > last_row ? row : last_row;
    last_col = col > last_col ? col : last_col;
  }
  const int64_t rows = int64_t(last_row) - top + 2, cols = int64_t(last_col) - left + 2;
  if (rows <= 8 && cols <= 8) return merge<T, 1>(s, taps, first, top, left, int(rows), 3, near);
  int row_bits = 3;
  while (row_bits < 6 && cols > 1 << row_bits) ++row_bits;
  if (cols <= 1 << row_bits && rows << row_bits <= 64 * kMostWords)
    return merge<T, kMostWords>(s, taps, first, top, left, int(rows), row_bits, near);

  // Taps flung far apart: every corner is a cell of its own.
  int n = 0, *left_cells = near.left_cells;
  for (int64_t at = first; at < first + count; ++at) {
    for (int corner = 0; corner < 4; corner += 2) {
      const int64_t pixel = (taps.row[at] + corner / 2) * s.width + taps.col[at];
      *left_cells++ = n - 1 + (taps.reads[at] >> corner & 1);
      for (int right = 0; right < 2; ++right)
        if (taps.reads[at] >> (corner + right) & 1) near.cell[n++] = (pixel + right) * s.channels;
    }
  }
  near.end(n);
}

template <typename T>
SIFA_INLINE void collect(const Shape& s, const Taps<T>& taps, int64_t first, int64_t y, int64_t x,
                         Neighbourhood<T>& near) {
  if (s.deformable)
    collect_displaced(s, taps, first, near);
  else
    collect_regular(s, y, x, near);
}

}  // namespace sifa::SIFA_CAPABILITY
