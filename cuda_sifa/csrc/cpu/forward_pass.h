// The forward pass: from dot products to weights to results, one batch of positions after the other.
#pragma once

#include "arena.h"
#include "channels.h"
#include "geometry.h"
#include "neighbourhood.h"
#include "packed.h"
#include "small_heads.h"
#include "storage.h"

namespace sifa::SIFA_CAPABILITY {

// If a pixel has many channels, the keys around one position fill the first-level cache, and every key is read twice
// from the second level for each position. Heads of more than kWholeBytes therefore go through their channels in
// chunks, for a batch of several blocks: the chunks of the keys around a row of positions stay in the cache.
constexpr int64_t kWholeBytes = 2048, kChunkBytes = 1024;
constexpr int kMaxBlocks = 8;

template <typename S, typename K>
struct ForwardScratch {
  using T = typename Unit<K>::Real;
  static constexpr bool widens = !std::is_same_v<S, K>;

  bool in_chunks;
  int64_t chunk;  // channels
  int blocks;     // of positions in a batch; one if not in chunks
  Block<T> block[kMaxBlocks];
  Corners<K> corners;
  K* zeros;   // one pixel
  K* packed;  // the keys
  int64_t packed_frame = -1;
  // Buffers for the conversion of half precision.
  K* queries;  // of a batch
  K* result;   // of one position

  void allocate(const Shape& s, Arena& arena) {
    const int64_t group = s.channels / s.groups;
    in_chunks = s.deformable && group * int64_t(sizeof(K)) > kWholeBytes;
    chunk = in_chunks ? kChunkBytes / int64_t(sizeof(K)) : group;
    blocks = in_chunks ? kMaxBlocks : 1;
    for (int i = 0; i < blocks; ++i) block[i].allocate(s, 1, arena);
    corners.allocate(s, arena);
    zeros = arena.allocate<K>(s.channels);
    packed = arena.allocate<K>(widens || in_chunks ? s.height * s.width * packed_stride<K>(s.channels) : 0);
    queries = arena.allocate<K>(widens ? blocks * kPositions * s.channels : 0);
    result = arena.allocate<K>(widens ? s.channels : 0);
    if (arena.memory) __builtin_memset(zeros, 0, s.channels * sizeof(K));
  }
};

// Consecutive positions of a frame, in the blocks scratch.block[0 .. blocks - 1]; what they read and what they write.
template <typename S, typename K>
struct Batch {
  int blocks;
  const K* queries;  // of the first position
  Frame<K> keys;
  S* out;  // of the first position
};

// Frame number `frame` of x as the keys of so many positions: in x itself, or as a copy.
template <typename S, typename K>
static Frame<K> keys_of(const Shape& s, const S* x, int64_t frame, int64_t positions, ForwardScratch<S, K>& scratch) {
  const int64_t pixels = s.height * s.width;
  const S* stored = x + frame * s.frame_size();
  if constexpr (!ForwardScratch<S, K>::widens) {
    if (!scratch.in_chunks || 4 * positions < pixels) return {stored, s.channels};
  }
  if (scratch.packed_frame != frame) pack(stored, pixels, s.channels, scratch.packed);
  scratch.packed_frame = frame;
  return {scratch.packed, packed_stride<K>(s.channels)};
}

// From the dot products a of one position and head to the weights c of its pixels. Returns the weights, which in the
// regular neighbourhood are the dot products themselves. weighted_sum() applies the scale.
template <typename T>
SIFA_INLINE const T* weigh_pixels(const Shape& s, const Taps<T>& taps, int p, Neighbourhood<T>& near) {
  if (!s.deformable) return near.dots;
  const int64_t all = s.taps();
  T *a = near.dots, *c = near.weights;
  near.clear(c);
  near.template clear_around<1>(a);
  const int* left_corners = near.left_corners;
  if (!taps.between[p]) {  // all sampling points lie on pixels
    for (int64_t t = 0; t < all; ++t) {
      const int64_t u = left_corners[2 * t];
      c[u] += taps.weight[0][t * kPositions + p] * a[u];
    }
    return c;
  }
  for (int64_t t = 0, at = p; t < all; ++t, at += kPositions) {
    const T w0 = taps.weight[0][at], w1 = taps.weight[1][at], w2 = taps.weight[2][at], w3 = taps.weight[3][at];
    const int64_t upper = left_corners[2 * t], lower = left_corners[2 * t + 1];
    const T d = (w0 * a[upper] + w1 * a[upper + 1]) + (w2 * a[lower] + w3 * a[lower + 1]);
    c[upper] += w0 * d;
    c[upper + 1] += w1 * d;
    c[lower] += w2 * d;
    c[lower + 1] += w3 * d;
  }
  return c;
}

// Three ways to compute a head, whose channels begin at g: few channels, all channels at once, in chunks.

template <typename S, typename K>
SIFA_INLINE void forward_small_head(const Shape& s, const Batch<S, K>& batch, int64_t g,
                                    ForwardScratch<S, K>& scratch) {
  using T = typename Unit<K>::Real;
  const int64_t group = s.channels / s.groups;
  const Block<T>& block = scratch.block[0];
  const Frame<K> head = {batch.keys.first + g, batch.keys.stride};
  if (s.deformable)
    scratch.corners.compute(s, block.taps, head, scratch.zeros);
  else
    scratch.corners.compute_regular(s, block.first, head, scratch.zeros);
  attend_block<kRegisterVectors / Unit<K>::vectors>(s, block, scratch.corners, batch.queries + g, T(1) / T(group),
                                                    group / Unit<K>::lanes, scratch.result, batch.out + g);
}

template <typename S, typename K>
SIFA_INLINE void forward_head(const Shape& s, const Batch<S, K>& batch, int64_t g, ForwardScratch<S, K>& scratch) {
  using T = typename Unit<K>::Real;
  const int64_t group = s.channels / s.groups;
  const T scale = T(1) / T(group);
  const K *keys = batch.keys.first + g, *query = batch.queries + g;
  S* out = batch.out + g;
  Block<T>& block = scratch.block[0];
  for (int p = 0; p < block.count; ++p, query += s.channels, out += s.channels) {
    Neighbourhood<T>& near = block.near[p];
    dot_products<false, false>(near.count, near.pixel, keys, query, query, group, near.dots);
    const T* weights = weigh_pixels(s, block.taps, p, near);
    K* result = result_memory(out, scratch.result);
    const K* added = s.residual ? query : nullptr;
    weighted_sum(near.count, near.pixel, keys, weights, scale, added, group, result);  // the keys are in the cache
    store_result(result, group, out);
  }
}

template <typename S, typename K>
SIFA_INLINE void forward_head_in_chunks(const Shape& s, const Batch<S, K>& batch, int64_t g,
                                        ForwardScratch<S, K>& scratch) {
  using T = typename Unit<K>::Real;
  const int64_t group = s.channels / s.groups, end = g + group, chunk = scratch.chunk;
  const T scale = T(1) / T(group);
  // Calls work(block, p, first channel of the position).
  const auto for_each_position = [&](auto work) {
    for (int i = 0; i < batch.blocks; ++i) {
      Block<T>& block = scratch.block[i];
      for (int p = 0; p < block.count; ++p) work(block, p, (i * kPositions + p) * s.channels);
    }
  };
  for_each_position([&](Block<T>& block, int p, int64_t) { block.near[p].clear(block.near[p].dots); });
  for (int64_t c = g; c < end; c += chunk) {
    for_each_position([&](Block<T>& block, int p, int64_t at) {
      const Neighbourhood<T>& near = block.near[p];
      dot_products<false, true>(near.count, near.pixel, batch.keys.first + c, batch.queries + at + c, batch.queries,
                                smaller(end - c, chunk), near.dots);
    });
  }
  for_each_position([&](Block<T>& block, int p, int64_t) { weigh_pixels(s, block.taps, p, block.near[p]); });
  for (int64_t c = g; c < end; c += chunk) {
    for_each_position([&](Block<T>& block, int p, int64_t at) {
      const Neighbourhood<T>& near = block.near[p];
      const int64_t n = smaller(end - c, chunk);
      K* result = result_memory(batch.out + at + c, scratch.result);
      const K* added = s.residual ? batch.queries + at + c : nullptr;
      weighted_sum(near.count, near.pixel, batch.keys.first + c, near.weights, scale, added, n, result);
      store_result(result, n, batch.out + at + c);
    });
  }
}

template <typename S, typename K>
static void forward_batch(const Shape& s, const Batch<S, K>& batch, ForwardScratch<S, K>& scratch) {
  const int64_t group = s.channels / s.groups;
  for (int64_t g = 0; g < s.channels; g += group) {
    if (fits_registers<K>(s))
      forward_small_head(s, batch, g, scratch);
    else if (!scratch.in_chunks)
      forward_head(s, batch, g, scratch);
    else
      forward_head_in_chunks(s, batch, g, scratch);
  }
}

// Positions [begin, end) of frame t of sample n.
template <typename S, typename K>
static void forward_frame(const Shape& s, const ForwardArgs& args, int64_t n, int64_t t, int64_t begin, int64_t end,
                          ForwardScratch<S, K>& scratch) {
  using T = typename Unit<K>::Real;
  const int64_t frame = n * s.frames + t;
  const S* x = static_cast<const S*>(args.x);
  const S* queries = x + frame * s.frame_size();
  S* out = static_cast<S*>(args.out) + frame * s.frame_size();
  const Frame<K> keys = keys_of(s, x, frame + 1, end - begin, scratch);
  for (int64_t first = begin, last; first < end; first = last) {
    last = smaller(first + scratch.blocks * kPositions, end);
    const int blocks = int((last - first + kPositions - 1) / kPositions);
    for (int i = 0; i < blocks; ++i) {
      Block<T>& block = scratch.block[i];
      block.first = first + i * kPositions;
      block.count = int(smaller(last - block.first, kPositions));
      if (s.deformable) locate<T, true>(s, args.offset, n, t, block.first, block.count, block.taps);
      if (!fits_registers<K>(s)) block.collect(s, keys.stride);
    }
    const int64_t at = first * s.channels;
    const K* converted = widened<K>(queries + at, (last - first) * s.channels, scratch.queries);
    forward_batch(s, Batch<S, K>{blocks, converted, keys, out + at}, scratch);
  }
}

// Positions [begin, end) of all N * (T-1) * H * W queries.
template <typename S, typename K>
static void forward_positions(const Shape& s, const ForwardArgs& args, int64_t begin, int64_t end,
                              ForwardScratch<S, K>& scratch) {
  const int64_t pixels = s.height * s.width;
  for (int64_t next = begin; next < end;) {
    const int64_t pair = next / pixels, start = pair * pixels, stop = smaller(end, start + pixels);
    forward_frame(s, args, pair / s.pairs(), pair % s.pairs(), next - start, stop - start, scratch);
    next = stop;
  }
}

}  // namespace sifa::SIFA_CAPABILITY
