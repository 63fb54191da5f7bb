// The CPU kernels. Included once for each instruction set, after vector.h, by kernel_<capability>.cpp.
//
// One position p of frame t attends to k*k taps of frame t+1; each tap is a weighted sum of the four pixels (corners)
// around its sampling point, and neighbouring taps share corners. So the work on channels is done once for each
// DISTINCT pixel ("cell") of the neighbourhood, not once for each tap or corner. With q the query, v_u the distinct
// pixels, w_ju the bilinear weight of pixel u in tap j and s = groups / C:
//
//   forward    a_u = <q, v_u>          d_j = s * sum_u w_ju a_u         out = sum_u (sum_j w_ju d_j) v_u
//   backward   b_u = <g, v_u>          e_j = s * sum_u w_ju b_u         g the incoming gradient
//              c_u = sum_j w_ju d_j    h_u = sum_j w_ju e_j         (forward: out = sum_u c_u v_u)
//              grad_q = sum_u h_u v_u          grad_v_u += c_u g + h_u q
//              grad_offset_j = sum_u dw_ju (d_j b_u + e_j a_u)
//
// Two passes over the cells with one multiply-add an element forward, and two passes with two and three backward. Heads
// of few channels go forward another way, tap by tap: attend_in_registers.

#include "neighbourhood.h"

namespace sifa::SIFA_CAPABILITY {

// ---- Arithmetic over channels ---------------------------------------------------------------------------------------

// A block of cells whose dot products are computed together: as many accumulators as one lane reduction can merge.
template <typename T>
constexpr int kBlock = kLanes<T> < kCellBlock ? kLanes<T> : kCellBlock;

// Vectors of channels that a loop keeps in registers: half of those there are, 32 with AVX-512, else 16.
constexpr int kMostInRegisters = SIFA_VECTOR_BYTES == 64 ? 16 : 8;

// The sums over the lanes of Count vectors at once, in the first lanes of the result. Each step merges two vectors into
// one that holds partial sums of both, `Group` lanes for each sum, until one vector holds all of them.
template <typename T, int Count, int Group = kLanes<T>>
SIFA_INLINE Vec<T> lane_sums(const Vec<T>* v) {
  if constexpr (Group == 1) {
    return v[0];
  } else {
    constexpr int width = Group / 2, merged = Count > 1 ? Count / 2 : 1;
    Vec<T> sum[merged];
    for (int i = 0; i < merged; ++i) {
      const Vec<T> first = v[Count > 1 ? 2 * i : 0], second = v[Count > 1 ? 2 * i + 1 : 0];
      sum[i] = halves<T, kLanes<T>, width, 0>(first, second) + halves<T, kLanes<T>, width, 1>(first, second);
    }
    return lane_sums<T, merged, width>(sum);
  }
}

// Writes the sums over the lanes of Count vectors, and up to a vector's length beyond them, or with Add adds them.
template <bool Add, typename T, int Count>
SIFA_INLINE void keep_lane_sums(const Vec<T>* v, T* sums) {
  const Vec<T> all = lane_sums<T, Count>(v);
  if constexpr (Add) {
    using Some = typename Part<T, Count * sizeof(T)>::type;
    store_as(sums, load_as<Some>(sums) + load_as<Some>(&all));
  } else {
    store<T>(sums, all);
  }
}

// The pixels of a frame: number i at `first` + i * stride.
template <typename K>
struct Frame {
  const K* first;
  int64_t stride;
};

// a[u] = <q, keys + cell[u]> and, with Two, b[u] = <g, keys + cell[u]>, over n channels, for Count cells; with Add
// added to what is there. A multiply-add takes four cycles or five and two can begin in each, so there are sums enough
// to have as many under way: the channels of a cell go to `apart` of them in turn.
template <typename K, bool Two, bool Add, int Count, typename T>
SIFA_INLINE void dot_products_of(const int64_t* cell, const K* keys, const K* q, const K* g, int64_t n, T* a, T* b) {
  constexpr int lanes = Unit<K>::lanes, vectors = Unit<K>::vectors;
  constexpr int apart = Two ? 1 : kMostInRegisters / Count < vectors ? 1 : kMostInRegisters / Count;
  constexpr int units = apart > vectors ? apart / vectors : 1;  // read in one step
  const K* key[Count];
  Vec<T> sum_a[apart][Count], sum_b[Count];
#pragma GCC unroll 16
  for (int i = 0; i < Count; ++i) {
    key[i] = keys + cell[i];
#pragma GCC unroll 16
    for (int part = 0; part < apart; ++part) sum_a[part][i] = Vec<T>{};
    if (Two) sum_b[i] = Vec<T>{};
  }
  const auto step = [&](int64_t c, auto several) {
    constexpr int count = decltype(several)::value;
    Vec<T> query[count * vectors], grad[count * vectors], value[vectors];
#pragma GCC unroll 16
    for (int unit = 0; unit < count; ++unit) {
      Unit<K>::load(q + c + unit * lanes, query + unit * vectors);
      if (Two) Unit<K>::load(g + c + unit * lanes, grad + unit * vectors);
    }
#pragma GCC unroll 16
    for (int i = 0; i < Count; ++i) {
#pragma GCC unroll 16
      for (int unit = 0; unit < count; ++unit) {
        Unit<K>::load(key[i] + c + unit * lanes, value);
#pragma GCC unroll 2
        for (int v = 0; v < vectors; ++v) {
          const int at = unit * vectors + v;
          sum_a[at % apart][i] += query[at] * value[v];
          if (Two) sum_b[i] += grad[at] * value[v];
        }
      }
    }
  };
  int64_t c = 0;
  for (; c + units * lanes <= n; c += units * lanes) step(c, std::integral_constant<int, units>());
  if (units > 1)
    for (; c + lanes <= n; c += lanes) step(c, std::integral_constant<int, 1>());
#pragma GCC unroll 16
  for (int part = 1; part < apart; ++part)
#pragma GCC unroll 16
    for (int i = 0; i < Count; ++i) sum_a[0][i] += sum_a[part][i];
  keep_lane_sums<Add, T, Count>(sum_a[0], a);
  if (Two) keep_lane_sums<Add, T, Count>(sum_b, b);
  if constexpr (vectors == 1) {
    for (; c < n; ++c) {
      for (int i = 0; i < Count; ++i) {
        a[i] += q[c] * key[i][c];
        if (Two) b[i] += g[c] * key[i][c];
      }
    }
  }
}

template <bool Two, bool Add, typename K, typename T>
static void dot_products(int64_t count, const int64_t* cell, const K* keys, const K* q, const K* g, int64_t n, T* a,
                         T* b) {
  constexpr int block = kBlock<T>, half = block / 2;
  int64_t u = 0;
  for (; u + half < count; u += block) dot_products_of<K, Two, Add, block>(cell + u, keys, q, g, n, a + u, b + u);
  if (u + 1 == count)
    dot_products_of<K, Two, Add, 1>(cell + u, keys, q, g, n, a + u, b + u);  // of nine, say
  else if (u < count)
    dot_products_of<K, Two, Add, half>(cell + u, keys, q, g, n, a + u, b + u);
}

// result = sum_u scale * c[u] * (keys + cell[u]), Width units of channels at a time from channel `from` to `to`.
template <typename K, int Width, typename T>
SIFA_INLINE int64_t weighted_sum_part(int64_t count, const int64_t* cell, const K* keys, const T* c, T scale,
                                      int64_t from, int64_t to, K* result) {
  constexpr int lanes = Unit<K>::lanes, vectors = Unit<K>::vectors;
  for (; from + Width * lanes <= to; from += Width * lanes) {
    Vec<T> sums[Width * vectors];
#pragma GCC unroll 16
    for (int i = 0; i < Width * vectors; ++i) sums[i] = Vec<T>{};
    for (int64_t u = 0; u < count; ++u) {
      const K* key = keys + cell[u] + from;
      const T weight = scale * c[u];
#pragma GCC unroll 16
      for (int i = 0; i < Width; ++i) {
        Vec<T> value[vectors];
        Unit<K>::load(key + i * lanes, value);
#pragma GCC unroll 2
        for (int v = 0; v < vectors; ++v) sums[i * vectors + v] += weight * value[v];
      }
    }
#pragma GCC unroll 16
    for (int i = 0; i < Width; ++i) Unit<K>::store(result + from + i * lanes, sums + i * vectors);
  }
  return from;
}

template <typename K, typename T>
static void weighted_sum(int64_t count, const int64_t* cell, const K* keys, const T* c, T scale, int64_t n, K* result) {
  constexpr int most = kMostInRegisters / Unit<K>::vectors;
  int64_t from = weighted_sum_part<K, most>(count, cell, keys, c, scale, 0, n, result);
  from = weighted_sum_part<K, most / 2>(count, cell, keys, c, scale, from, n, result);
  from = weighted_sum_part<K, 1>(count, cell, keys, c, scale, from, n, result);
  if constexpr (Unit<K>::vectors == 1) {
    for (; from < n; ++from) {
      result[from] = 0;
      for (int64_t u = 0; u < count; ++u) result[from] += scale * c[u] * keys[cell[u] + from];
    }
  }
}

// grad_query += sum_u h[u] v_u and grad_keys at each cell += c[u] g + h[u] q.
template <typename K, int Width, typename T>
SIFA_INLINE int64_t scatter_part(const Neighbourhood<T>& near, const K* keys, const K* q, const K* g, int64_t from,
                                 int64_t to, T* grad_query, T* grad_keys) {
  constexpr int lanes = Unit<K>::lanes, vectors = Unit<K>::vectors, all = Width * vectors;
  for (; from + Width * lanes <= to; from += Width * lanes) {
    Vec<T> sums[all], query[all], grad[all];
#pragma GCC unroll 16
    for (int i = 0; i < Width; ++i) {
      Unit<K>::load(q + from + i * lanes, query + i * vectors);
      Unit<K>::load(g + from + i * lanes, grad + i * vectors);
    }
#pragma GCC unroll 16
    for (int i = 0; i < all; ++i) sums[i] = load(grad_query + from + i * kLanes<T>);
    for (int64_t u = 0; u < near.count; ++u) {
      const T c = near.c[u], h = near.h[u];
      const K* key = keys + near.cell[u] + from;
      T* grad_key = grad_keys + near.cell[u] + from;
#pragma GCC unroll 16
      for (int i = 0; i < Width; ++i) {
        Vec<T> value[vectors];
        Unit<K>::load(key + i * lanes, value);
#pragma GCC unroll 2
        for (int v = 0; v < vectors; ++v) {
          const int at = i * vectors + v;
          sums[at] += h * value[v];
          T* to_key = grad_key + at * kLanes<T>;
          store<T>(to_key, load(to_key) + c * grad[at] + h * query[at]);
        }
      }
    }
#pragma GCC unroll 16
    for (int i = 0; i < all; ++i) store<T>(grad_query + from + i * kLanes<T>, sums[i]);
  }
  return from;
}

template <typename K, typename T>
static void scatter(const Neighbourhood<T>& near, const K* keys, const K* q, const K* g, int64_t n, T* grad_query,
                    T* grad_keys) {
  int64_t from = scatter_part<K, 4 / Unit<K>::vectors>(near, keys, q, g, 0, n, grad_query, grad_keys);
  from = scatter_part<K, 1>(near, keys, q, g, from, n, grad_query, grad_keys);
  if constexpr (Unit<K>::vectors == 1) {
    for (; from < n; ++from) {
      for (int64_t u = 0; u < near.count; ++u) {
        grad_query[from] += near.h[u] * keys[near.cell[u] + from];
        grad_keys[near.cell[u] + from] += near.c[u] * g[from] + near.h[u] * q[from];
      }
    }
  }
}

// n values in T: where they lie if they are stored so, else widened into `buffer`.
template <typename T, typename S>
SIFA_INLINE const T* widened(const S* from, int64_t n, T* buffer) {
  if constexpr (std::is_same_v<S, T>) {
    return from;
  } else {
    widen(from, n, buffer);
    return buffer;
  }
}

// ---- Forward --------------------------------------------------------------------------------------------------------

// Heads of so many channels go through attend_in_registers. A unit of two vectors needs work to be loaded, and the
// other way loads less often.
template <typename K>
static bool in_registers(const Shape& s) {
  constexpr int lanes = Unit<K>::lanes, vectors = Unit<K>::vectors;
  const int64_t group = s.channels / s.groups;
  return group % lanes == 0 && group <= kMostInRegisters / vectors / vectors * lanes;
}

// Where the corners of a block's taps are in memory, numbered as the taps; `zeros` for those that are not read. Of the
// regular neighbourhood the first corners alone.
template <typename K>
struct Corners {
  const K** corner[4];

  void take(const Shape& s, Arena& arena) {
    for (const K*** pixels : {&corner[0], &corner[1], &corner[2], &corner[3]})
      *pixels = arena.take<const K*>(in_registers<K>(s) ? kPositions * s.taps() : 0);
  }

  void point_regular(const Shape& s, int64_t first_position, Frame<K> keys, const K* zeros) {
    const int64_t reach = s.kernel_size / 2 * s.dilation, pixel = keys.stride * sizeof(K);
    int64_t row[kPositions], col[kPositions], *to = reinterpret_cast<int64_t*>(corner[0]);
    row[0] = first_position / s.width;
    col[0] = first_position % s.width;
    for (int p = 1; p < kPositions; ++p) {
      const bool next_row = col[p - 1] + 1 == s.width;
      row[p] = row[p - 1] + next_row;
      col[p] = next_row ? 0 : col[p - 1] + 1;
    }
    for (int64_t row_by = -reach; row_by <= reach; row_by += s.dilation) {
      for (int64_t col_by = -reach; col_by <= reach; col_by += s.dilation, to += kPositions) {
        for (int p = 0; p < kPositions; p += kPlaces) {
          const Addresses y = load_as<Addresses>(row + p) + row_by, x = load_as<Addresses>(col + p) + col_by;
          const Addresses inside = (y >= 0) & (y < s.height) & (x >= 0) & (x < s.width);
          const Addresses address = (y * s.width + x) * pixel + reinterpret_cast<int64_t>(keys.first);
          store_as(to + p, inside ? address : Addresses{} + reinterpret_cast<int64_t>(zeros));
        }
      }
    }
  }

  template <typename T>
  void point(const Shape& s, const Taps<T>& taps, Frame<K> keys, const K* zeros) {
    const int64_t pixel = keys.stride * sizeof(K), line = s.width * pixel, step[4] = {0, pixel, line, line + pixel};
    for (int64_t at = 0; at < kPositions * s.taps(); at += kPlaces) {
      const Addresses row = __builtin_convertvector(load_as<IntsOfPlaces<T>>(taps.row + at), Addresses);
      const Addresses col = __builtin_convertvector(load_as<IntsOfPlaces<T>>(taps.col + at), Addresses);
      const Addresses reads = __builtin_convertvector(load_as<IntsOfPlaces<T>>(taps.reads + at), Addresses);
      const Addresses first = row * line + col * pixel + reinterpret_cast<int64_t>(keys.first);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i)
        store_as(corner[i] + at,
                 Addresses((reads & (1 << i)) != 0 ? first + step[i] : Addresses{} + reinterpret_cast<int64_t>(zeros)));
    }
  }
};

// The keys around one position fill the first cache when a pixel has many channels, and every key is then read from the
// second, twice for each position. Beyond this many bytes of a pixel a batch of positions goes through the channels in
// chunks, of which the keys around a row of positions stay in the cache.
constexpr int64_t kWholeBytes = 2048, kChunkBytes = 1024;
constexpr int kMostBlocks = 8;

// S is what is stored, K what is computed on: S, or float for half precision that is widened beforehand.
template <typename S, typename K>
struct ForwardScratch {
  using T = typename Unit<K>::Real;
  static constexpr bool widens = !std::is_same_v<S, K>;

  bool in_chunks;
  int64_t chunk;  // channels
  int blocks;     // of positions in a batch
  Block<T> block[kMostBlocks];
  Corners<K> corners;
  K* zeros;  // a pixel
  // The keys, copied, with a cache line between pixels: pixels of a power of two bytes would share few lines.
  K* packed;
  int64_t packed_stride, packed_frame = -1;
  K *queries, *result;  // widened: a batch of queries, and one position's result

  void take(const Shape& s, Arena& arena) {
    const int64_t group = s.channels / s.groups, line = 64 / int64_t(sizeof(K));
    in_chunks = s.deformable && group * int64_t(sizeof(K)) > kWholeBytes;
    chunk = in_chunks ? kChunkBytes / int64_t(sizeof(K)) : group;
    blocks = in_chunks ? kMostBlocks : 1;
    for (int i = 0; i < blocks; ++i) block[i].take(s, arena);
    corners.take(s, arena);
    zeros = arena.take<K>(s.channels);
    packed_stride = (s.channels + line - 1) / line * line + line;
    packed = arena.take<K>(widens || in_chunks ? s.height * s.width * packed_stride : 0);
    queries = arena.take<K>(widens ? blocks * kPositions * s.channels : 0);
    result = arena.take<K>(widens ? s.channels : 0);
    if (arena.memory) __builtin_memset(zeros, 0, s.channels * sizeof(K));
  }
};

// Frame number `frame` of x, as keys of so many positions.
template <typename S, typename K>
static Frame<K> keys_of(const Shape& s, const S* x, int64_t frame, int64_t positions, ForwardScratch<S, K>& scratch) {
  const int64_t pixels = s.height * s.width;
  const S* stored = x + frame * s.frame_size();
  if constexpr (!ForwardScratch<S, K>::widens) {
    if (!scratch.in_chunks || 4 * positions < pixels) return {stored, s.channels};
  }
  for (int64_t i = 0; i < pixels && scratch.packed_frame != frame; ++i) {
    K* to = scratch.packed + i * scratch.packed_stride;
    if constexpr (ForwardScratch<S, K>::widens)
      widen(stored + i * s.channels, s.channels, to);
    else
      __builtin_memcpy(to, stored + i * s.channels, s.channels * sizeof(K));
  }
  scratch.packed_frame = frame;
  return {scratch.packed, scratch.packed_stride};
}

// From the dot products a to the weights c of the cells, in place of the sums over taps and corners; returns the
// weights. Of the regular neighbourhood one is the other.
template <typename T>
static const T* attend(const Shape& s, const Taps<T>& taps, int p, Neighbourhood<T>& near) {
  if (!s.deformable) return near.a;
  const int64_t all = s.taps();
  T *a = near.a, *c = near.c;
  near.clear(c);
  near.clear_around(a);
  const int* left_cells = near.left_cells;
  if (!taps.between[p]) {  // on pixels
    for (int64_t t = 0; t < all; ++t) {
      const int64_t cell = left_cells[2 * t];
      c[cell] += taps.weight[0][t * kPositions + p] * a[cell];
    }
    return c;
  }
  for (int64_t t = 0, at = p; t < all; ++t, at += kPositions) {
    const T w0 = taps.weight[0][at], w1 = taps.weight[1][at], w2 = taps.weight[2][at], w3 = taps.weight[3][at];
    const int64_t upper = left_cells[2 * t], lower = left_cells[2 * t + 1];
    const T d = (w0 * a[upper] + w1 * a[upper + 1]) + (w2 * a[lower] + w3 * a[lower + 1]);
    c[upper] += w0 * d;
    c[upper + 1] += w1 * d;
    c[lower] += w2 * d;
    c[lower + 1] += w3 * d;
  }
  return c;
}

// Heads of few channels: a tap's sample stays in registers until its weight is known. That takes more multiply-adds
// than to merge the corners of all taps, but no time to merge them. With one corner all taps lie on pixels.
template <int Points, int Width, typename K, typename T>
static void attend_in_registers(const Shape& s, const Taps<T>& taps, const Corners<K>& corners, int p, const K* q,
                                T scale, K* result) {
  constexpr int lanes = Unit<K>::lanes, vectors = Unit<K>::vectors, all = Width * vectors;
  Vec<T> query[all], sum[all];
#pragma GCC unroll 16
  for (int i = 0; i < Width; ++i) Unit<K>::load(q + i * lanes, query + i * vectors);
#pragma GCC unroll 16
  for (int i = 0; i < all; ++i) {
    query[i] = scale * query[i];
    sum[i] = Vec<T>{};
  }
  for (int64_t at = p, end = s.taps() * kPositions; at < end; at += kPositions) {
    Vec<T> value[all], dots[2] = {};  // a single sum would wait for each multiply-add
#pragma GCC unroll 4
    for (int corner = 0; corner < Points; ++corner) {
      const K* pixel = corners.corner[corner][at];
      const T weight = taps.weight[corner][at];
#pragma GCC unroll 16
      for (int i = 0; i < Width; ++i) {
        Vec<T> part[vectors];
        Unit<K>::load(pixel + i * lanes, part);
#pragma GCC unroll 2
        for (int v = 0; v < vectors; ++v) {
          if (Points > 1) part[v] = weight * part[v];
          value[i * vectors + v] = corner == 0 ? part[v] : value[i * vectors + v] + part[v];
        }
      }
    }
#pragma GCC unroll 16
    for (int i = 0; i < all; ++i) dots[i % 2] += value[i] * query[i];
    const Vec<T> d = sum_of<T>(dots[0] + dots[1]);
#pragma GCC unroll 16
    for (int i = 0; i < all; ++i) sum[i] += d * value[i];
  }
#pragma GCC unroll 16
  for (int i = 0; i < Width; ++i) Unit<K>::store(result + i * lanes, sum + i * vectors);
}

// `units`: of channels. Points: corners of each tap.
template <typename K, int Width = kMostInRegisters / Unit<K>::vectors, typename T>
SIFA_INLINE void attend_in_registers(const Shape& s, const Taps<T>& taps, const Corners<K>& corners, int p, const K* q,
                                     T scale, int64_t units, K* result) {
  if constexpr (Width > 0) {
    if (units != Width)
      attend_in_registers<K, Width - 1>(s, taps, corners, p, q, scale, units, result);
    else if (s.deformable && taps.any_between)
      attend_in_registers<4, Width>(s, taps, corners, p, q, scale, result);
    else
      attend_in_registers<1, Width>(s, taps, corners, p, q, scale, result);
  }
}

// Where to compute what is to be stored at `to`: there, or in a buffer. keep() then stores n values.
template <typename K, typename S>
SIFA_INLINE K* result_for(S* to, K* buffer) {
  if constexpr (std::is_same_v<S, K>)
    return to;
  else
    return buffer;
}
template <typename K, typename S>
SIFA_INLINE void keep(const K* result, int64_t n, S* to) {
  if constexpr (!std::is_same_v<S, K>) narrow(result, n, to);
}

// The positions of a batch of blocks. `queries` points at the first of them, keys and out at a frame.
template <typename S, typename K>
static void forward_batch(const Shape& s, int blocks, const K* queries, Frame<K> keys, S* out,
                          ForwardScratch<S, K>& scratch) {
  using T = typename Unit<K>::Real;
  const int64_t channels = s.channels, group = channels / s.groups, chunk = scratch.chunk;
  const int64_t start = scratch.block[0].first * channels;
  const T scale = T(1) / T(group);
  const auto each = [&](auto work) {
    for (int i = 0; i < blocks; ++i) {
      Block<T>& block = scratch.block[i];
      for (int p = 0; p < block.count; ++p) work(block, p, (block.first + p) * channels);
    }
  };
  for (int64_t g = 0; g < channels; g += group) {
    if (in_registers<K>(s)) {
      const Block<T>& only = scratch.block[0];
      const Frame<K> head = {keys.first + g, keys.stride};
      if (s.deformable)
        scratch.corners.point(s, only.taps, head, scratch.zeros);
      else
        scratch.corners.point_regular(s, only.first, head, scratch.zeros);
      each([&](Block<T>& block, int p, int64_t at) {
        K* result = result_for(out + at + g, scratch.result);
        attend_in_registers(s, block.taps, scratch.corners, p, queries + (at - start) + g, scale,
                            group / Unit<K>::lanes, result);
        keep(result, group, out + at + g);
      });
    } else {
      // Of the channels from c: all of the head, or a chunk.
      const auto dots = [&](Block<T>& block, int p, int64_t at, int64_t c, auto add) {
        const Neighbourhood<T>& near = block.near[p];
        const int64_t some = least(g + group - c, chunk);
        dot_products<false, add>(near.count, near.cell, keys.first + c, queries + (at - start) + c, queries, some,
                                 near.a, near.b);
      };
      const auto sums = [&](Block<T>& block, int p, int64_t at, int64_t c, const T* weights) {
        const Neighbourhood<T>& near = block.near[p];
        const int64_t some = least(g + group - c, chunk);
        K* result = result_for(out + at + c, scratch.result);
        weighted_sum(near.count, near.cell, keys.first + c, weights, scale, some, result);
        keep(result, some, out + at + c);
      };
      if (!scratch.in_chunks) {
        each([&](Block<T>& block, int p, int64_t at) {
          dots(block, p, at, g, std::false_type());
          const T* weights = attend(s, block.taps, p, block.near[p]);
          sums(block, p, at, g, weights);  // while the keys are in the cache
        });
      } else {
        each([&](Block<T>& block, int p, int64_t) { block.near[p].clear(block.near[p].a); });
        for (int64_t c = g; c < g + group; c += chunk)
          each([&](Block<T>& block, int p, int64_t at) { dots(block, p, at, c, std::true_type()); });
        each([&](Block<T>& block, int p, int64_t) { attend(s, block.taps, p, block.near[p]); });
        for (int64_t c = g; c < g + group; c += chunk)
          each([&](Block<T>& block, int p, int64_t at) { sums(block, p, at, c, block.near[p].c); });
      }
    }
  }
}

template <typename S, typename K>
static void forward_positions(const Shape& s, const ForwardArgs& args, int64_t begin, int64_t end,
                              ForwardScratch<S, K>& scratch) {
  using T = typename Unit<K>::Real;
  const int64_t channels = s.channels, pixels = s.height * s.width;
  for (int64_t next = begin; next < end;) {
    const int64_t pair = next / pixels, n = pair / s.pairs(), t = pair % s.pairs(), frame = n * s.frames + t;
    const int64_t first = next - pair * pixels, last = least(end - pair * pixels, pixels);
    next += last - first;
    const S* x = static_cast<const S*>(args.x);
    const Frame<K> keys = keys_of(s, x, frame + 1, last - first, scratch);
    const S* stored = x + frame * s.frame_size();
    S* out = static_cast<S*>(args.out) + frame * s.frame_size();
    for (int64_t at = first, batch_end; at < last; at = batch_end) {
      batch_end = least(at + scratch.blocks * kPositions, last);
      const int blocks = int((batch_end - at + kPositions - 1) / kPositions);
      for (int i = 0; i < blocks; ++i) {
        Block<T>& block = scratch.block[i];
        block.first = at + i * kPositions;
        block.count = int(least(batch_end - block.first, kPositions));
        if (s.deformable) locate<T, true>(s, args.offset, n, t, block.first, block.count, block.taps);
        if (!in_registers<K>(s)) block.collect(s, keys.stride);
      }
      const K* queries = widened<K>(stored + at * channels, (batch_end - at) * channels, scratch.queries);
      forward_batch(s, blocks, queries, keys, out, scratch);
    }
  }
}

// ---- Backward -------------------------------------------------------------------------------------------------------

template <typename S, typename K>
struct BackwardScratch {
  using T = typename Unit<K>::Real;
  static constexpr bool widens = !std::is_same_v<S, K>;

  Block<T> block;
  K* grad;  // widened: one position's, and frames
  K* frame[2];

  void take(const Shape& s, Arena& arena) {
    block.take(s, arena);
    grad = arena.take<K>(widens ? s.channels : 0);
    for (K*& widened : frame) widened = arena.take<K>(widens ? s.frame_size() : 0);
  }
};

// From the dot products a and b to the weights c and h of the cells; adds the gradient of this position's offsets.
template <typename T>
static void attend_backward(const Shape& s, const Taps<T>& taps, int p, T scale, Neighbourhood<T>& near,
                            T* grad_offset) {
  if (!s.deformable) {
    for (int64_t u = 0; u < near.count; ++u) {
      near.c[u] = scale * near.a[u];
      near.h[u] = scale * near.b[u];
    }
    return;
  }
  for (T* values : {near.c, near.h}) near.clear(values);
  for (T* values : {near.a, near.b}) near.clear_around(values);
  const int* left_cells = near.left_cells;
  for (int64_t at = p, end = s.taps() * kPositions; at < end; at += kPositions, left_cells += 2, grad_offset += 2) {
    const T fy = taps.fy[at], fx = taps.fx[at];
    T w[4], a[4], b[4], d = 0, e = 0;
    for (int i = 0; i < 4; ++i) {
      const int64_t cell = left_cells[i / 2] + i % 2;
      const bool reads = taps.reads[at] >> i & 1;
      w[i] = taps.weight[i][at];
      a[i] = reads ? near.a[cell] : 0;
      b[i] = reads ? near.b[cell] : 0;
      d += w[i] * a[i];
      e += w[i] * b[i];
    }
    d *= scale;
    e *= scale;
    T slope[4];  // of the result by the weight of each corner
    for (int i = 0; i < 4; ++i) {
      const int64_t cell = left_cells[i / 2] + i % 2;
      near.c[cell] += w[i] * d;
      near.h[cell] += w[i] * e;
      slope[i] = d * b[i] + e * a[i];
    }
    grad_offset[0] += (1 - fx) * (slope[2] - slope[0]) + fx * (slope[3] - slope[1]);
    grad_offset[1] += (1 - fy) * (slope[1] - slope[0]) + fy * (slope[3] - slope[2]);
  }
}

template <typename S, typename K, typename T>
static void backward_pair(const Shape& s, const BackwardArgs<T>& args, int64_t n, int64_t t,
                          BackwardScratch<S, K>& scratch) {
  const int64_t group = s.channels / s.groups, frame = n * s.frames + t, field = 2 * s.taps();
  const S* x = static_cast<const S*>(args.x) + frame * s.frame_size();
  const int64_t pixels = s.height * s.width;
  const T scale = T(1) / T(group);
  const K* queries = widened<K>(x, s.frame_size(), scratch.frame[0]);
  const K* keys = widened<K>(x + s.frame_size(), s.frame_size(), scratch.frame[1]);
  const S* grad = static_cast<const S*>(args.grad) + frame * s.frame_size();
  T *grad_queries = args.grad_x + frame * s.frame_size(), *grad_keys = grad_queries + s.frame_size();
  T* grad_offset = s.deformable ? args.grad_offset + (n * s.pairs() + t) * pixels * field : nullptr;
  Block<T>& block = scratch.block;
  for (block.first = 0; block.first < pixels; block.first += kPositions) {
    block.count = int(least(pixels - block.first, kPositions));
    if (s.deformable) locate<T, false>(s, args.offset, n, t, block.first, block.count, block.taps);
    block.collect(s, s.channels);
    for (int p = 0; p < block.count; ++p) {
      const int64_t pixel = block.first + p, at = pixel * s.channels;
      const K *query = queries + at, *incoming = widened<K>(grad + at, s.channels, scratch.grad);
      Neighbourhood<T>& near = block.near[p];
      for (int64_t i = 0; s.deformable && i < field; ++i) grad_offset[pixel * field + i] = 0;
      for (int64_t g = 0; g < s.channels; g += group) {
        dot_products<true, false>(near.count, near.cell, keys + g, query + g, incoming + g, group, near.a, near.b);
        attend_backward(s, block.taps, p, scale, near, s.deformable ? grad_offset + pixel * field : nullptr);
        scatter(near, keys + g, query + g, incoming + g, group, grad_queries + at + g, grad_keys + g);
      }
    }
  }
}

// ---- Entry points ---------------------------------------------------------------------------------------------------

// Calls `use` with what x is stored as and what is computed on. Half is widened beforehand, since some twenty positions
// read every key, and so is BFloat16 where heads are no whole number of units.
template <typename T, typename Use>
static auto with_types(const Shape& s, Use use) {
  if constexpr (std::is_same_v<T, float>) {
    if (s.storage == Storage::Half) return use(Half{}, float{});
    if (s.storage == Storage::BFloat16) {
      if (s.channels / s.groups % Unit<BFloat16>::lanes != 0) return use(BFloat16{}, float{});
      return use(BFloat16{}, BFloat16{});
    }
  }
  return use(T{}, T{});
}

template <typename Scratch>
static Scratch laid_in(void* memory, const Shape& s) {
  Arena arena{static_cast<char*>(memory)};
  Scratch scratch;
  scratch.take(s, arena);
  return scratch;
}

template <typename T>
static int64_t scratch_entry(const Shape& s, bool backward) {
  return with_types<T>(s, [&](auto stored, auto key) {
    using S = decltype(stored);
    using K = decltype(key);
    Arena arena{nullptr};
    if (backward)
      BackwardScratch<S, K>().take(s, arena);
    else
      ForwardScratch<S, K>().take(s, arena);
    return arena.used;
  });
}

template <typename T>
static void forward_entry(const Shape& s, const ForwardArgs& args, int64_t begin, int64_t end, void* memory) {
  with_types<T>(s, [&](auto stored, auto key) {
    auto scratch = laid_in<ForwardScratch<decltype(stored), decltype(key)>>(memory, s);
    forward_positions(s, args, begin, end, scratch);
  });
}

template <typename T>
static void backward_entry(const Shape& s, const BackwardArgs<T>& args, int64_t n, int64_t t, void* memory) {
  with_types<T>(s, [&](auto stored, auto key) {
    auto scratch = laid_in<BackwardScratch<decltype(stored), decltype(key)>>(memory, s);
    backward_pair(s, args, n, t, scratch);
  });
}

template <typename T>
static void narrow_entry(const Shape& s, const T* grad_x, void* stored, int64_t begin, int64_t end) {
  with_types<T>(s, [&](auto as, auto key) {
    using S = decltype(as);
    using K = decltype(key);
    S* to = static_cast<S*>(stored);
    begin *= s.channels;
    end *= s.channels;
    if constexpr (Unit<K>::vectors == 1) {
      if constexpr (!std::is_same_v<S, K>) narrow(grad_x + begin, end - begin, to + begin);
    } else {
      for (int64_t at = begin; at < end; at += Unit<K>::lanes) {
        const Vec<T> values[2] = {load(grad_x + at), load(grad_x + at + kLanes<T>)};
        Unit<K>::store(to + at, values);
      }
    }
  });
}

extern const Kernels<float> kernels_float;
extern const Kernels<double> kernels_double;
const Kernels<float> kernels_float{scratch_entry<float>, forward_entry<float>, backward_entry<float>,
                                   narrow_entry<float>};
const Kernels<double> kernels_double{scratch_entry<double>, forward_entry<double>, backward_entry<double>,
                                     narrow_entry<double>};

}  // namespace sifa::SIFA_CAPABILITY
