// Arithmetic over the channels of pixels: dot products with the query, weighted sums, and the gradients that are added
// to the pixels. These loops take nearly all of the time. Everything else prepares their arguments.
#pragma once

#include "neighbourhood.h"
#include "vector.h"

namespace sifa::SIFA_CAPABILITY {

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

}  // namespace sifa::SIFA_CAPABILITY
