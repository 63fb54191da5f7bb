// The forward pass of heads with few channels. It works tap by tap and keeps the sample of a tap in registers until the
// weight of the tap is known. That takes more multiply-adds than the list of distinct pixels (neighbourhood.h), but
// saves the time to make the list.
#pragma once

#include "channels.h"
#include "geometry.h"
#include "kernel.h"
#include "vector.h"

namespace sifa::SIFA_CAPABILITY {

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

}  // namespace sifa::SIFA_CAPABILITY
