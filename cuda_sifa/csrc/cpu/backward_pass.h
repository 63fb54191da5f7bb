// The backward pass: the gradients of one pair of frames, one position after the other.
#pragma once

#include "arena.h"
#include "channels.h"
#include "geometry.h"
#include "neighbourhood.h"
#include "storage.h"

namespace sifa::SIFA_CAPABILITY {

template <typename S, typename K>
struct BackwardScratch {
  using T = typename Unit<K>::Real;
  static constexpr bool widens = !std::is_same_v<S, K>;

  Block<T> block;
  // Buffers for the conversion of half precision.
  K* grad;      // of one position
  K* frame[2];  // queries and keys

  void allocate(const Shape& s, Arena& arena) {
    block.allocate(s, arena);
    grad = arena.allocate<K>(widens ? s.channels : 0);
    for (K*& converted : frame) converted = arena.allocate<K>(widens ? s.frame_size() : 0);
  }
};

// From the dot products a and b of one position and head to the weights c and h of its pixels. Adds to the gradient of
// the position's offsets.
template <typename T>
static void weigh_pixels_backward(const Shape& s, const Taps<T>& taps, int p, T scale, Neighbourhood<T>& near,
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
  const int* left = near.left_corners;
  for (int64_t at = p, end = s.taps() * kPositions; at < end; at += kPositions, left += 2, grad_offset += 2) {
    const T fy = taps.fy[at], fx = taps.fx[at];
    T w[4], a[4], b[4], d = 0, e = 0;
    for (int i = 0; i < 4; ++i) {
      const int64_t u = left[i / 2] + i % 2;
      const bool reads = taps.reads[at] >> i & 1;
      w[i] = taps.weight[i][at];
      a[i] = reads ? near.a[u] : 0;
      b[i] = reads ? near.b[u] : 0;
      d += w[i] * a[i];
      e += w[i] * b[i];
    }
    d *= scale;
    e *= scale;
    T slope[4];  // derivative of the result by the weight of each corner
    for (int i = 0; i < 4; ++i) {
      const int64_t u = left[i / 2] + i % 2;
      near.c[u] += w[i] * d;
      near.h[u] += w[i] * e;
      slope[i] = d * b[i] + e * a[i];
    }
    grad_offset[0] += (1 - fx) * (slope[2] - slope[0]) + fx * (slope[3] - slope[1]);
    grad_offset[1] += (1 - fy) * (slope[1] - slope[0]) + fy * (slope[3] - slope[2]);
  }
}

// The pair of frames (t, t + 1) of sample n. Adds to the gradients of both frames.
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
    block.count = int(smaller(pixels - block.first, kPositions));
    if (s.deformable) locate<T, false>(s, args.offset, n, t, block.first, block.count, block.taps);
    block.collect(s, s.channels);
    for (int p = 0; p < block.count; ++p) {
      const int64_t pixel = block.first + p, at = pixel * s.channels;
      const K *query = queries + at, *incoming = widened<K>(grad + at, s.channels, scratch.grad);
      Neighbourhood<T>& near = block.near[p];
      for (int64_t i = 0; s.deformable && i < field; ++i) grad_offset[pixel * field + i] = 0;
      for (int64_t g = 0; g < s.channels; g += group) {
        dot_products<true, false>(near.count, near.pixel, keys + g, query + g, incoming + g, group, near.a, near.b);
        weigh_pixels_backward(s, block.taps, p, scale, near, s.deformable ? grad_offset + pixel * field : nullptr);
        scatter(near, keys + g, query + g, incoming + g, group, s.residual, grad_queries + at + g, grad_keys + g);
      }
    }
  }
  if (!s.residual || t + 1 < s.pairs()) return;
  for (int64_t pixel = 0; pixel < pixels; ++pixel) {  // the last frame, which has no queries
    const S* last = grad + s.frame_size() + pixel * s.channels;
    add_gradient(widened<K>(last, s.channels, scratch.grad), s.channels, grad_keys + pixel * s.channels);
  }
}

}  // namespace sifa::SIFA_CAPABILITY
