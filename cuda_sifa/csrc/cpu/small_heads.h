// The forward pass of heads with few channels. It works tap by tap and keeps the sample of a tap in registers until the
// weight of the tap is known. That takes more multiply-adds than the list of distinct pixels (neighbourhood.h), but
// saves the time to make the list.
#pragma once

#include "arena.h"
#include "channels.h"
#include "geometry.h"
#include "neighbourhood.h"
#include "storage.h"
#include "vector.h"

namespace sifa::SIFA_CAPABILITY {

// Whether heads have so few channels. The limit is lower where a unit has two vectors: to load such a unit costs extra
// work, and the other way loads less often.
template <typename K>
static bool fits_registers(const Shape& s) {
  constexpr int lanes = Unit<K>::lanes, vectors = Unit<K>::vectors;
  const int64_t group = s.channels / s.groups;
  return group % lanes == 0 && group <= kRegisterVectors / vectors / vectors * lanes;
}

// The addresses of the corners of a block's taps, in the order of the taps; `zeros` for a corner that is not read. The
// regular neighbourhood needs the first corner of each tap only.
template <typename K>
struct Corners {
  const K** address[4];

  void allocate(const Shape& s, Arena& arena) {
    for (const K*** corner : {&address[0], &address[1], &address[2], &address[3]})
      *corner = arena.allocate<const K*>(fits_registers<K>(s) ? kPositions * s.taps() : 0);
  }

  void compute_regular(const Shape& s, int64_t first_position, Frame<K> keys, const K* zeros) {
    const int64_t reach = s.kernel_size / 2 * s.dilation, pixel = keys.stride * sizeof(K);
    int64_t row[kPositions], col[kPositions], *to = reinterpret_cast<int64_t*>(address[0]);
    row[0] = first_position / s.width;
    col[0] = first_position % s.width;
    for (int p = 1; p < kPositions; ++p) {
      const bool next_row = col[p - 1] + 1 == s.width;
      row[p] = row[p - 1] + next_row;
      col[p] = next_row ? 0 : col[p - 1] + 1;
    }
    for (int64_t row_by = -reach; row_by <= reach; row_by += s.dilation) {
      for (int64_t col_by = -reach; col_by <= reach; col_by += s.dilation, to += kPositions) {
        for (int p = 0; p < kPositions; p += kLanes64) {
          const Addresses y = load_as<Addresses>(row + p) + row_by, x = load_as<Addresses>(col + p) + col_by;
          const Addresses inside = (y >= 0) & (y < s.height) & (x >= 0) & (x < s.width);
          const Addresses there = (y * s.width + x) * pixel + reinterpret_cast<int64_t>(keys.first);
          store_as(to + p, inside ? there : Addresses{} + reinterpret_cast<int64_t>(zeros));
        }
      }
    }
  }

  template <typename T>
  void compute(const Shape& s, const Taps<T>& taps, Frame<K> keys, const K* zeros) {
    const int64_t pixel = keys.stride * sizeof(K), line = s.width * pixel, step[4] = {0, pixel, line, line + pixel};
    for (int64_t at = 0; at < kPositions * s.taps(); at += kLanes64) {
      const Addresses row = __builtin_convertvector(load_as<NarrowInts<T>>(taps.row + at), Addresses);
      const Addresses col = __builtin_convertvector(load_as<NarrowInts<T>>(taps.col + at), Addresses);
      const Addresses reads = __builtin_convertvector(load_as<NarrowInts<T>>(taps.reads + at), Addresses);
      const Addresses first = row * line + col * pixel + reinterpret_cast<int64_t>(keys.first);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i)
        store_as(address[i] + at,
                 Addresses((reads & (1 << i)) != 0 ? first + step[i] : Addresses{} + reinterpret_cast<int64_t>(zeros)));
    }
  }
};

// The result of position p, for a head of Width units. PerTap: corners to read for each tap, four, or one if all taps
// lie on pixels.
template <int PerTap, int Width, typename K, typename T>
SIFA_INLINE void attend_position(const Shape& s, const Taps<T>& taps, const Corners<K>& corners, int p, const K* q,
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
    Vec<T> value[all], dots[2] = {};  // with one sum, each multiply-add would wait for the previous one
#pragma GCC unroll 4
    for (int corner = 0; corner < PerTap; ++corner) {
      const K* pixel = corners.address[corner][at];
      const T weight = taps.weight[corner][at];
#pragma GCC unroll 16
      for (int i = 0; i < Width; ++i) {
        Vec<T> part[vectors];
        Unit<K>::load(pixel + i * lanes, part);
#pragma GCC unroll 2
        for (int v = 0; v < vectors; ++v) {
          if (PerTap > 1) part[v] = weight * part[v];
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
  if (s.residual) add_units<Width>(q, sum);
#pragma GCC unroll 16
  for (int i = 0; i < Width; ++i) Unit<K>::store(result + i * lanes, sum + i * vectors);
}

// The results of a block. `queries` and `out` are those of the first position and begin at the head; `buffer` holds one
// result before its conversion. Not inlined: each Width has a loop of its own, with all registers.
template <int PerTap, int Width, typename S, typename K, typename T>
__attribute__((noinline)) static void attend_block(const Shape& s, const Block<T>& block, const Corners<K>& corners,
                                                   const K* queries, T scale, K* buffer, S* out) {
  for (int p = 0; p < block.count; ++p, queries += s.channels, out += s.channels) {
    K* result = result_memory(out, buffer);
    attend_position<PerTap, Width>(s, block.taps, corners, p, queries, scale, result);
    store_result(result, Width * Unit<K>::lanes, out);
  }
}

// The same for a head of `units` units: selects the Width.
template <int Width, typename S, typename K, typename T>
SIFA_INLINE void attend_block(const Shape& s, const Block<T>& block, const Corners<K>& corners, const K* queries,
                              T scale, int64_t units, K* buffer, S* out) {
  if constexpr (Width > 0) {
    if (units != Width)
      attend_block<Width - 1>(s, block, corners, queries, scale, units, buffer, out);
    else if (s.deformable && block.taps.any_between)
      attend_block<4, Width>(s, block, corners, queries, scale, buffer, out);
    else
      attend_block<1, Width>(s, block, corners, queries, scale, buffer, out);
  }
}

}  // namespace sifa::SIFA_CAPABILITY
