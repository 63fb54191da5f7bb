// Arithmetic over the channels of pixels: dot products with the query, weighted sums, and gradients that are added to
// pixels. These loops take nearly all of the time; all other code prepares their arguments.
#pragma once

#include "neighbourhood.h"
#include "storage.h"
#include "vector.h"

namespace sifa::SIFA_CAPABILITY {

// How many pixels are processed together, with so many sums each: as many as one sum over the lanes can merge.
template <typename T, int Values>
constexpr int kBlock = kLanes<T> / Values < kPixelBlock ? kLanes<T> / Values : kPixelBlock;

// How many vectors of channels a loop keeps in registers: half of the registers, which are 32 with AVX-512, else 16.
constexpr int kRegisterVectors = SIFA_VECTOR_BYTES == 64 ? 16 : 8;

// The pixels of a frame: number i at first + i * stride.
template <typename K>
struct Frame {
  const K* first;
  int64_t stride;
};

// ---- Dot products ---------------------------------------------------------------------------------------------------

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

// Stores the sums over the lanes of Count vectors, and up to one vector beyond them. With Add, adds them instead.
template <bool Add, typename T, int Count>
SIFA_INLINE void store_lane_sums(const Vec<T>* v, T* sums) {
  const Vec<T> all = lane_sums<T, Count>(v);
  if constexpr (Add) {
    using Some = VectorOf<T, Count * sizeof(T)>;
    store_as(sums, load_as<Some>(sums) + load_as<Some>(&all));
  } else {
    store<T>(sums, all);
  }
}

// For Count pixels, over n channels: <q, keys + pixel[u]> and, with Two, <g, keys + pixel[u]>, in turn. With Add, adds
// to `dots`.
//
// A multiply-add takes four or five cycles and two can begin in each cycle, so about eight must run at once. The
// channels of a pixel therefore go to several accumulators in turn.
template <typename K, bool Two, bool Add, int Count, typename T>
SIFA_INLINE void dot_products_of(const int64_t* pixel, const K* keys, const K* q, const K* g, int64_t n, T* dots) {
  constexpr int lanes = Unit<K>::lanes, vectors = Unit<K>::vectors, values = Two ? 2 : 1, all = Count * values;
  constexpr int accumulators = Two ? 1 : kRegisterVectors / Count < vectors ? 1 : kRegisterVectors / Count;
  constexpr int units = accumulators > vectors ? accumulators / vectors : 1;  // read in one step
  const K* key[Count];
  Vec<T> sums[accumulators][all];
#pragma GCC unroll 16
  for (int i = 0; i < Count; ++i) key[i] = keys + pixel[i];
#pragma GCC unroll 16
  for (int j = 0; j < accumulators; ++j)
#pragma GCC unroll 16
    for (int i = 0; i < all; ++i) sums[j][i] = Vec<T>{};
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
          sums[at % accumulators][i * values] += query[at] * value[v];
          if (Two) sums[0][i * values + values - 1] += grad[at] * value[v];
        }
      }
    }
  };
  int64_t c = 0;
  for (; c + units * lanes <= n; c += units * lanes) step(c, std::integral_constant<int, units>());
  if (units > 1)
    for (; c + lanes <= n; c += lanes) step(c, std::integral_constant<int, 1>());
#pragma GCC unroll 16
  for (int j = 1; j < accumulators; ++j)
#pragma GCC unroll 16
    for (int i = 0; i < all; ++i) sums[0][i] += sums[j][i];
  store_lane_sums<Add, T, all>(sums[0], dots);
  if constexpr (vectors == 1) {
    for (; c < n; ++c) {
      for (int i = 0; i < Count; ++i) {
        dots[i * values] += q[c] * key[i][c];
        if (Two) dots[i * values + values - 1] += g[c] * key[i][c];
      }
    }
  }
}

// The same for `count` pixels, in blocks. The last block may run past the end of the list.
template <bool Two, bool Add, typename K, typename T>
static void dot_products(int64_t count, const int64_t* pixel, const K* keys, const K* q, const K* g, int64_t n,
                         T* dots) {
  constexpr int values = Two ? 2 : 1, block = kBlock<T, values>, half = block / 2;
  int64_t u = 0;
  for (; u + half < count; u += block) dot_products_of<K, Two, Add, block>(pixel + u, keys, q, g, n, dots + u * values);
  if constexpr (half > 0) {
    if (u + 1 == count)
      dot_products_of<K, Two, Add, 1>(pixel + u, keys, q, g, n, dots + u * values);  // the last of nine, for example
    else if (u < count)
      dot_products_of<K, Two, Add, half>(pixel + u, keys, q, g, n, dots + u * values);
  }
}

// Adds Width units of channels to sums.
template <int Width, typename K>
SIFA_INLINE void add_units(const K* from, Vec<typename Unit<K>::Real>* sums) {
  using T = typename Unit<K>::Real;
  constexpr int vectors = Unit<K>::vectors;
#pragma GCC unroll 16
  for (int i = 0; i < Width; ++i) {
    Vec<T> value[vectors];
    Unit<K>::load(from + i * Unit<K>::lanes, value);
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) sums[i * vectors + v] += value[v];
  }
}

// ---- Weighted sums --------------------------------------------------------------------------------------------------

// result = sum_u scale * c[u] * (keys + pixel[u]) + added, from channel `from`, Width units at a time while they fit
// before `to`. Returns the first channel that is left. `added` may be null.
template <typename K, int Width, typename T>
SIFA_INLINE int64_t weighted_sum_part(int64_t count, const int64_t* pixel, const K* keys, const T* c, T scale,
                                      const K* added, int64_t from, int64_t to, K* result) {
  constexpr int lanes = Unit<K>::lanes, vectors = Unit<K>::vectors;
  for (; from + Width * lanes <= to; from += Width * lanes) {
    Vec<T> sums[Width * vectors];
#pragma GCC unroll 16
    for (int i = 0; i < Width * vectors; ++i) sums[i] = Vec<T>{};
#pragma GCC unroll 2
    for (int64_t u = 0; u < count; ++u) {
      const K* key = keys + pixel[u] + from;
      const T weight = scale * c[u];
#pragma GCC unroll 16
      for (int i = 0; i < Width; ++i) {
        Vec<T> value[vectors];
        Unit<K>::load(key + i * lanes, value);
#pragma GCC unroll 2
        for (int v = 0; v < vectors; ++v) sums[i * vectors + v] += weight * value[v];
      }
    }
    if (added) add_units<Width>(added + from, sums);
#pragma GCC unroll 16
    for (int i = 0; i < Width; ++i) Unit<K>::store(result + from + i * lanes, sums + i * vectors);
  }
  return from;
}

template <typename K, typename T>
static void weighted_sum(int64_t count, const int64_t* pixel, const K* keys, const T* c, T scale, const K* added,
                         int64_t n, K* result) {
  constexpr int most = kRegisterVectors / Unit<K>::vectors;
  int64_t from = weighted_sum_part<K, most>(count, pixel, keys, c, scale, added, 0, n, result);
  from = weighted_sum_part<K, most / 2>(count, pixel, keys, c, scale, added, from, n, result);
  from = weighted_sum_part<K, 1>(count, pixel, keys, c, scale, added, from, n, result);
  if constexpr (Unit<K>::vectors == 1) {
    for (; from < n; ++from) {
      result[from] = 0;
      for (int64_t u = 0; u < count; ++u) result[from] += scale * c[u] * keys[pixel[u] + from];
      if (added) result[from] += added[from];
    }
  }
}

// ---- Gradients of pixels --------------------------------------------------------------------------------------------

// result = before + sum_u h[u] v_u, plus g if `residual`, and grad_keys at each pixel += c[u] g + h[u] q. Leaves zeros
// in `before`. Without a result, only adds to grad_keys. Channels as in weighted_sum_part.
template <typename K, int Width, typename T>
SIFA_INLINE int64_t scatter_part(const Neighbourhood<T>& near, const K* keys, const K* q, const K* g, int64_t from,
                                 int64_t to, bool residual, T* before, K* result, T* grad_keys) {
  constexpr int lanes = Unit<K>::lanes, vectors = Unit<K>::vectors, all = Width * vectors;
  const int64_t count = near.count, *pixel = near.pixel;
  const T* weights = near.weights;
  for (; from + Width * lanes <= to; from += Width * lanes) {
    Vec<T> sums[all], query[all], grad[all];
#pragma GCC unroll 16
    for (int i = 0; i < Width; ++i) {
      Unit<K>::load(q + from + i * lanes, query + i * vectors);
      Unit<K>::load(g + from + i * lanes, grad + i * vectors);
    }
#pragma GCC unroll 16
    for (int i = 0; i < all; ++i) sums[i] = load(before + from + i * kLanes<T>) + (residual ? grad[i] : Vec<T>{});
#pragma GCC unroll 2
    for (int64_t u = 0; u < count; ++u) {
      const T c = weights[2 * u], h = weights[2 * u + 1];
      const K* key = keys + pixel[u] + from;
      T* grad_key = grad_keys + pixel[u] + from;
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
    if (!result) continue;
#pragma GCC unroll 16
    for (int i = 0; i < all; ++i) store<T>(before + from + i * kLanes<T>, Vec<T>{});
#pragma GCC unroll 16
    for (int i = 0; i < Width; ++i) Unit<K>::store(result + from + i * lanes, sums + i * vectors);
  }
  return from;
}

template <typename K, typename T>
static void scatter(const Neighbourhood<T>& near, const K* keys, const K* q, const K* g, int64_t n, bool residual,
                    T* before, K* result, T* grad_keys) {
  constexpr int most = 4 / Unit<K>::vectors;
  int64_t from = scatter_part<K, most>(near, keys, q, g, 0, n, residual, before, result, grad_keys);
  from = scatter_part<K, 1>(near, keys, q, g, from, n, residual, before, result, grad_keys);
  if constexpr (Unit<K>::vectors == 1) {
    for (; from < n; ++from) {
      T sum = before[from] + (residual ? g[from] : T(0));
      for (int64_t u = 0; u < near.count; ++u) {
        const T c = near.weights[2 * u], h = near.weights[2 * u + 1];
        sum += h * keys[near.pixel[u] + from];
        grad_keys[near.pixel[u] + from] += c * g[from] + h * q[from];
      }
      if (!result) continue;
      before[from] = 0;
      result[from] = sum;
    }
  }
}

// result = before, plus g if it is not null: what is left of scatter() for a pixel that is no query.
template <typename K, typename T>
static void take_gradient(const K* g, int64_t n, T* before, K* result) {
  constexpr int lanes = Unit<K>::lanes, vectors = Unit<K>::vectors;
  int64_t c = 0;
  for (; c + lanes <= n; c += lanes) {
    Vec<T> sums[vectors];
    for (int v = 0; v < vectors; ++v) {
      sums[v] = load(before + c + v * kLanes<T>);
      store<T>(before + c + v * kLanes<T>, Vec<T>{});
    }
    if (g) add_units<1>(g + c, sums);
    Unit<K>::store(result + c, sums);
  }
  if constexpr (vectors == 1) {
    for (; c < n; ++c) {
      result[c] = before[c] + (g ? g[c] : T(0));
      before[c] = 0;
    }
  }
}

}  // namespace sifa::SIFA_CAPABILITY
