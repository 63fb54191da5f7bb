// The forward pass: from dot products to weights to results, one batch of positions after the other.
#pragma once

#include "channels.h"
#include "neighbourhood.h"
#include "small_heads.h"

namespace sifa::SIFA_CAPABILITY {

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

}  // namespace sifa::SIFA_CAPABILITY
