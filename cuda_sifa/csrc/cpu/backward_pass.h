// The backward pass: pairs of frames, one position after the other.
#pragma once

#include "arena.h"
#include "channels.h"
#include "geometry.h"
#include "neighbourhood.h"
#include "packed.h"
#include "storage.h"

namespace sifa::SIFA_CAPABILITY {

template <typename S, typename K>
struct BackwardScratch {
  using T = typename Unit<K>::Real;
  static constexpr bool widens = !std::is_same_v<S, K>;

  Block<T> block;
  K* frame;  // the keys, packed
  // Gradients as keys, of the queries' frame and of the keys, with pixels as far apart as those of `frame`. They are
  // zero but for what waits to be added.
  T *before, *keys;
  T* field;  // the gradient of the offsets of one position
  // Buffers for the conversion of half precision, of one position.
  K *query, *grad, *result;

  void allocate(const Shape& s, Arena& arena) {
    block.allocate(s, 2, arena);
    const int64_t size = s.height * s.width * packed_stride<K>(s.channels);
    frame = arena.allocate<K>(size);
    for (T** gradient : {&before, &keys}) {
      *gradient = arena.allocate<T>(size);
      if (arena.memory) __builtin_memset(*gradient, 0, size * sizeof(T));
    }
    field = arena.allocate<T>(s.deformable ? 2 * s.taps() : 0);
    for (K** converted : {&query, &grad, &result}) *converted = arena.allocate<K>(widens ? s.channels : 0);
  }
};

// Two pixels of a row, the left one first, with two values each: a, b, a, b.
template <typename T>
using Corners2 = VectorOf<T, 4 * sizeof(T)>;

// Exchanges the two values of each pixel (Width 1), or the two pixels (Width 2).
template <typename T, int Width>
SIFA_INLINE Corners2<T> exchanged(Corners2<T> v) {
  return swapped<Width, Corners2<T>, VectorOf<Int<T>, 4 * sizeof(T)>>(v, std::make_integer_sequence<int, 4>());
}

// Which lanes of a row's corners are read, by two bits of Taps::reads.
template <typename T>
static constexpr Int<T> kReadLanes[4][4] = {{0, 0, 0, 0}, {-1, -1, 0, 0}, {0, 0, -1, -1}, {-1, -1, -1, -1}};

// The values of the corner at `place` and of the one to its right; zero for one that is not read.
template <typename T>
SIFA_INLINE Corners2<T> corners_at(const T* dots, int64_t place, int64_t reads) {
  using Lanes = VectorOf<Int<T>, 4 * sizeof(T)>;
  return (Corners2<T>)(load_as<Lanes>(dots + 2 * place) & load_as<Lanes>(kReadLanes<T>[reads]));
}

// From the dot products a and b of one position and head to the weights c and h of its pixels. Adds to the gradient of
// the position's offsets.
template <typename T>
static void weigh_pixels_backward(const Shape& s, const Taps<T>& taps, int p, T scale, Neighbourhood<T>& near,
                                  T* grad_offset) {
  using OfPixel = VectorOf<T, 2 * sizeof(T)>;
  T *dots = near.dots, *weights = near.weights;
  if (!s.deformable) {
    for (int64_t i = 0; i < near.capacity; i += kLanes<T>) store<T>(weights + i, scale * load(dots + i));
    return;
  }
  near.clear(weights);
  near.template clear_around<2>(weights);
  near.template clear_around<2>(dots);
  const int* left = near.left_corners;
  for (int64_t at = p, end = s.taps() * kPositions; at < end; at += kPositions, left += 2, grad_offset += 2) {
    const T fy = taps.fy[at], fx = taps.fx[at];
    const int64_t reads = taps.reads[at];
    const Corners2<T> upper = corners_at(dots, left[0], reads & 3), lower = corners_at(dots, left[1], reads >> 2);
    const Corners2<T> across = {1 - fx, 1 - fx, fx, fx};
    const Corners2<T> columns = upper * (1 - fy) + lower * fy, rows = (lower - upper) * across;
    Corners2<T> d_e = scale * (columns * across);  // d, e, d, e
    d_e += exchanged<T, 2>(d_e);
    // The derivatives of a and b by fy, then those by fx.
    const Corners2<T> slopes = halves<T, 4, 2, 0>(rows + exchanged<T, 2>(rows), exchanged<T, 2>(columns) - columns);
    const Corners2<T> products = exchanged<T, 1>(d_e) * slopes, gradient = products + exchanged<T, 1>(products);
    grad_offset[0] += gradient[0];
    grad_offset[1] += gradient[2];
    const auto pixel = OfPixel{d_e[0], d_e[1]};
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      T* of_corner = weights + 2 * (left[i / 2] + i % 2);
      store_as(of_corner, load_as<OfPixel>(of_corner) + taps.weight[i][at] * pixel);
    }
  }
}

// Stores the gradient of one position's offsets.
template <typename T>
static void store_field(const Shape& s, const T* field, int64_t position, void* grad_offset) {
  const int64_t n = 2 * s.taps(), at = position * n;
  if constexpr (std::is_same_v<T, float>) {
    if (s.offset_storage == Storage::Half) return narrow(field, n, static_cast<Half*>(grad_offset) + at);
    if (s.offset_storage == Storage::BFloat16) return narrow(field, n, static_cast<BFloat16*>(grad_offset) + at);
  }
  __builtin_memcpy(static_cast<T*>(grad_offset) + at, field, n * sizeof(T));
}

// The pair of frames (t, t + 1) of sample n. Adds to the gradient of its keys, scratch.keys, and stores the gradients
// of its queries and offsets: that of the queries is complete with scratch.before. With `only_keys` it stores nothing.
template <typename S, typename K>
static void backward_pair(const Shape& s, const BackwardArgs& args, int64_t n, int64_t t, bool only_keys,
                          BackwardScratch<S, K>& scratch) {
  using T = typename Unit<K>::Real;
  const int64_t group = s.channels / s.groups, first = (n * s.frames + t) * s.frame_size();
  const int64_t pixels = s.height * s.width, pair = n * s.pairs() + t, stride = packed_stride<K>(s.channels);
  const S *x = static_cast<const S*>(args.x) + first, *grad = static_cast<const S*>(args.grad) + first;
  S* grad_x = static_cast<S*>(args.grad_x) + first;
  const T scale = T(1) / T(group);
  const K* keys = scratch.frame;
  pack(x + s.frame_size(), pixels, s.channels, scratch.frame);
  Block<T>& block = scratch.block;
  for (block.first = 0; block.first < pixels; block.first += kPositions) {
    block.count = int(smaller(pixels - block.first, kPositions));
    if (s.deformable) locate<T, false>(s, args.offset, n, t, block.first, block.count, block.taps);
    block.collect(s, stride);
    for (int p = 0; p < block.count; ++p) {
      const int64_t pixel = block.first + p, at = pixel * s.channels;
      const K* query = widened<K>(x + at, s.channels, scratch.query);
      const K* incoming = widened<K>(grad + at, s.channels, scratch.grad);
      K* result = only_keys ? nullptr : result_memory(grad_x + at, scratch.result);
      T* before = scratch.before + pixel * stride;
      Neighbourhood<T>& near = block.near[p];
      for (int64_t i = 0; s.deformable && i < 2 * s.taps(); ++i) scratch.field[i] = 0;
      for (int64_t g = 0; g < s.channels; g += group) {
        dot_products<true, false>(near.count, near.pixel, keys + g, query + g, incoming + g, group, near.dots);
        weigh_pixels_backward(s, block.taps, p, scale, near, scratch.field);
        scatter(near, keys + g, query + g, incoming + g, group, s.residual, before + g,
                only_keys ? nullptr : result + g, scratch.keys + g);
      }
      if (only_keys) continue;
      store_result(result, s.channels, grad_x + at);
      if (s.deformable) store_field(s, scratch.field, pair * pixels + pixel, args.grad_offset);
    }
  }
}

// The last frame of sample n, which has no queries: its gradient as keys, plus that of the result if `residual`.
template <typename S, typename K>
static void backward_last_frame(const Shape& s, const BackwardArgs& args, int64_t n, BackwardScratch<S, K>& scratch) {
  const int64_t first = (n * s.frames + s.pairs()) * s.frame_size();
  const S* grad = static_cast<const S*>(args.grad) + first;
  S* grad_x = static_cast<S*>(args.grad_x) + first;
  for (int64_t pixel = 0; pixel < s.height * s.width; ++pixel) {
    const int64_t at = pixel * s.channels;
    const K* incoming = s.residual ? widened<K>(grad + at, s.channels, scratch.grad) : nullptr;
    K* result = result_memory(grad_x + at, scratch.result);
    take_gradient(incoming, s.channels, scratch.before + pixel * packed_stride<K>(s.channels), result);
    store_result(result, s.channels, grad_x + at);
  }
}

// Pairs [begin, end) of all N * (T-1), one after the other. A frame's gradient is the sum of two: as the keys of a pair
// and as the queries of the next. So the first waits, in float or double, until a position of the next pair takes it.
template <typename S, typename K>
static void backward_pairs(const Shape& s, const BackwardArgs& args, int64_t begin, int64_t end,
                           BackwardScratch<S, K>& scratch) {
  const auto next_pair = [&] {
    const auto taken = scratch.before;  // all zeros again
    scratch.before = scratch.keys;
    scratch.keys = taken;
  };
  for (int64_t pair = begin; pair < end; ++pair) {
    const int64_t n = pair / s.pairs(), t = pair % s.pairs();
    if (pair == begin && t > 0) {  // the pair before is another thread's
      backward_pair(s, args, n, t - 1, true, scratch);
      next_pair();
    }
    backward_pair(s, args, n, t, false, scratch);
    next_pair();
    if (t + 1 == s.pairs()) backward_last_frame(s, args, n, scratch);
  }
}

}  // namespace sifa::SIFA_CAPABILITY
