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

template <typename T>
struct Scratch {
  Taps<T> taps;
  Neighbourhood<T> near;
  T* zeros;  // a pixel
  // Of half precision, in T: the incoming gradient and the result of one position, a row of queries, two frames of x.
  T *grad, *result, *row;
  T* frame[2];
  int64_t frame_number[2] = {-1, -1};

  Scratch(const Shape& s, Storage storage, Arena& arena) : taps(s, arena), near(s, arena) {
    zeros = arena.take<T>(s.channels);
    const bool half = storage == Storage::Half || storage == Storage::BFloat16;
    for (T** pixel : {&grad, &result}) *pixel = arena.take<T>(half ? s.channels : 0);
    row = arena.take<T>(half ? s.width * s.channels : 0);
    for (T*& widened : frame) widened = arena.take<T>(half ? s.frame_size() : 0);
    if (!arena.memory) return;
    for (int64_t c = 0; c < s.channels; ++c) zeros[c] = 0;
  }
};

// ---- Arithmetic over channels ---------------------------------------------------------------------------------------

// A block of cells whose dot products are computed together: as many accumulators as one lane reduction can merge.
template <typename T>
constexpr int kBlock = kLanes<T> < kCellBlock ? kLanes<T> : kCellBlock;

// Vectors of channels that a loop keeps in registers: half of those there are, 32 with AVX-512, else 16.
constexpr int kMostInRegisters = SIFA_VECTOR_BYTES == 64 ? 16 : 8;

// The sums over the lanes of Count vectors at once. Each step merges two vectors into one that holds partial sums of
// both, `Group` lanes for each sum, until one vector holds all of them. Writes kLanes values, the sums first.
template <typename T, int Count, int Group = kLanes<T>>
SIFA_INLINE void lane_sums(const Vec<T>* v, T* sums) {
  if constexpr (Group == 1) {
    store<T>(sums, v[0]);
  } else {
    constexpr int width = Group / 2, merged = Count > 1 ? Count / 2 : 1;
    Vec<T> sum[merged];
    for (int i = 0; i < merged; ++i) {
      const Vec<T> first = v[Count > 1 ? 2 * i : 0], second = v[Count > 1 ? 2 * i + 1 : 0];
      sum[i] = halves<T, kLanes<T>, width, 0>(first, second) + halves<T, kLanes<T>, width, 1>(first, second);
    }
    lane_sums<T, merged, width>(sum, sums);
  }
}

// a[u] = <q, keys + cell[u]> and, with Two, b[u] = <g, keys + cell[u]>, over n channels, for Count cells.
template <typename T, bool Two, int Count>
SIFA_INLINE void dot_products_of(const int64_t* cell, const T* keys, const T* q, const T* g, int64_t n, T* a, T* b) {
  constexpr int lanes = kLanes<T>;
  const int64_t whole = n - n % lanes;
  const T* key[Count];
  Vec<T> sum_a[Count], sum_b[Count];
#pragma GCC unroll 16
  for (int i = 0; i < Count; ++i) {
    key[i] = keys + cell[i];
    sum_a[i] = Vec<T>{};
    if (Two) sum_b[i] = Vec<T>{};
  }
  for (int64_t c = 0; c < whole; c += lanes) {
    const Vec<T> query = load(q + c), grad = Two ? load(g + c) : query;
#pragma GCC unroll 16
    for (int i = 0; i < Count; ++i) {
      const Vec<T> value = load(key[i] + c);
      sum_a[i] += query * value;
      if (Two) sum_b[i] += grad * value;
    }
  }
  lane_sums<T, Count>(sum_a, a);
  if (Two) lane_sums<T, Count>(sum_b, b);
  for (int64_t c = whole; c < n; ++c) {
    for (int i = 0; i < Count; ++i) {
      a[i] += q[c] * key[i][c];
      if (Two) b[i] += g[c] * key[i][c];
    }
  }
}

template <typename T, bool Two>
static void dot_products(int count, const int64_t* cell, const T* keys, const T* q, const T* g, int64_t n, T* a, T* b) {
  constexpr int block = kBlock<T>, half = block / 2;
  int u = 0;
  for (; u + half < count; u += block) dot_products_of<T, Two, block>(cell + u, keys, q, g, n, a + u, b + u);
  if (u < count) dot_products_of<T, Two, half>(cell + u, keys, q, g, n, a + u, b + u);
}

// result = sum_u c[u] * (keys + cell[u]), Width vectors of channels at a time from channel `from` to `to`.
template <typename T, int Width>
SIFA_INLINE int64_t weighted_sum_part(int count, const int64_t* cell, const T* keys, const T* c, int64_t from,
                                      int64_t to, T* result) {
  constexpr int lanes = kLanes<T>;
  for (; from + Width * lanes <= to; from += Width * lanes) {
    Vec<T> sums[Width];
#pragma GCC unroll 16
    for (int i = 0; i < Width; ++i) sums[i] = Vec<T>{};
    for (int u = 0; u < count; ++u) {
      const T* key = keys + cell[u] + from;
#pragma GCC unroll 16
      for (int i = 0; i < Width; ++i) sums[i] += c[u] * load(key + i * lanes);
    }
#pragma GCC unroll 16
    for (int i = 0; i < Width; ++i) store<T>(result + from + i * lanes, sums[i]);
  }
  return from;
}

template <typename T>
static void weighted_sum(int count, const int64_t* cell, const T* keys, const T* c, int64_t n, T* result) {
  int64_t from = weighted_sum_part<T, kMostInRegisters>(count, cell, keys, c, 0, n, result);
  from = weighted_sum_part<T, 2>(count, cell, keys, c, from, n, result);
  from = weighted_sum_part<T, 1>(count, cell, keys, c, from, n, result);
  for (; from < n; ++from) {
    T total = 0;
    for (int u = 0; u < count; ++u) total += c[u] * keys[cell[u] + from];
    result[from] = total;
  }
}

// grad_query += sum_u h[u] v_u and grad_keys at each cell += c[u] g + h[u] q.
template <typename T, int Width>
SIFA_INLINE int64_t scatter_part(const Neighbourhood<T>& near, const T* keys, const T* q, const T* g, int64_t from,
                                 int64_t to, T* grad_query, T* grad_keys) {
  constexpr int lanes = kLanes<T>;
  for (; from + Width * lanes <= to; from += Width * lanes) {
    Vec<T> sums[Width], query[Width], grad[Width];
#pragma GCC unroll 16
    for (int i = 0; i < Width; ++i) {
      sums[i] = load(grad_query + from + i * lanes);
      query[i] = load(q + from + i * lanes);
      grad[i] = load(g + from + i * lanes);
    }
    for (int u = 0; u < near.count; ++u) {
      const T c = near.c[u], h = near.h[u];
      const T* key = keys + near.cell[u] + from;
      T* grad_key = grad_keys + near.cell[u] + from;
#pragma GCC unroll 16
      for (int i = 0; i < Width; ++i) {
        sums[i] += h * load(key + i * lanes);
        store<T>(grad_key + i * lanes, load(grad_key + i * lanes) + c * grad[i] + h * query[i]);
      }
    }
#pragma GCC unroll 16
    for (int i = 0; i < Width; ++i) store<T>(grad_query + from + i * lanes, sums[i]);
  }
  return from;
}

template <typename T>
static void scatter(const Neighbourhood<T>& near, const T* keys, const T* q, const T* g, int64_t n, T* grad_query,
                    T* grad_keys) {
  int64_t from = scatter_part<T, 4>(near, keys, q, g, 0, n, grad_query, grad_keys);
  from = scatter_part<T, 1>(near, keys, q, g, from, n, grad_query, grad_keys);
  for (; from < n; ++from) {
    for (int u = 0; u < near.count; ++u) {
      const int64_t at = near.cell[u] + from;
      grad_query[from] += near.h[u] * keys[at];
      grad_keys[at] += near.c[u] * g[from] + near.h[u] * q[from];
    }
  }
}

// ---- Half precision is widened on its way in and narrowed on its way out --------------------------------------------

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

// Where to compute in T what is to be stored at `to`: there, or in `buffer`. keep() then stores n values.
template <typename T, typename S>
SIFA_INLINE T* result_for(S* to, T* buffer) {
  if constexpr (std::is_same_v<S, T>)
    return to;
  else
    return buffer;
}
template <typename T, typename S>
SIFA_INLINE void keep(const T* result, int64_t n, S* to) {
  if constexpr (!std::is_same_v<S, T>) narrow(result, n, to);
}

// Frame number `frame` of x in T. Widened, it is kept: the keys of one pair of frames are the queries of the next.
template <typename T, typename S>
SIFA_INLINE const T* frame_of(const Shape& s, const S* x, int64_t frame, Scratch<T>& scratch) {
  const S* stored = x + frame * s.frame_size();
  if constexpr (std::is_same_v<S, T>) {
    return stored;
  } else {
    const int slot = frame % 2;
    if (scratch.frame_number[slot] != frame) widen(stored, s.frame_size(), scratch.frame[slot]);
    scratch.frame_number[slot] = frame;
    return scratch.frame[slot];
  }
}

// Row y of a frame: of the widened frame where that is there, else widened alone. A thread may have a few rows only.
template <typename T, typename S>
SIFA_INLINE const T* row_of(const Shape& s, const S* x, int64_t frame, int64_t y, Scratch<T>& scratch) {
  const int64_t length = s.width * s.channels;
  if (!std::is_same_v<S, T> && scratch.frame_number[frame % 2] == frame) return scratch.frame[frame % 2] + y * length;
  return widened<T, S>(x + frame * s.frame_size() + y * length, length, scratch.row);
}

// ---- Forward --------------------------------------------------------------------------------------------------------

// From the dot products a to the weights c of the cells, in place of the sums over taps and corners.
template <typename T>
static void attend(const Shape& s, const Taps<T>& taps, int64_t first, T scale, Neighbourhood<T>& near) {
  if (!s.deformable) {
    for (int u = 0; u < near.count; ++u) near.c[u] = scale * near.a[u];
    return;
  }
  const int count = near.count, all = int(s.taps());
  T *a = near.a, *c = near.c;
  for (int u = 0; u < count; ++u) c[u] = 0;
  near.clear_around(a, count);
  near.clear_around(c, count);
  const int* left_cells = near.left_cells;
  if (!taps.between) {  // on pixels
    for (int t = 0; t < all; ++t) c[left_cells[2 * t]] += scale * taps.weight[0][first + t] * a[left_cells[2 * t]];
    return;
  }
  const T *w0 = taps.weight[0] + first, *w1 = taps.weight[1] + first;
  const T *w2 = taps.weight[2] + first, *w3 = taps.weight[3] + first;
  for (int t = 0; t < all; ++t) {
    const int upper = left_cells[2 * t], lower = left_cells[2 * t + 1];
    const T d = scale * ((w0[t] * a[upper] + w1[t] * a[upper + 1]) + (w2[t] * a[lower] + w3[t] * a[lower + 1]));
    c[upper] += w0[t] * d;
    c[upper + 1] += w1[t] * d;
    c[lower] += w2[t] * d;
    c[lower + 1] += w3[t] * d;
  }
}

// Heads of few channels: a tap's sample stays in registers until its weight is known. That takes more multiply-adds
// than to merge the corners of all taps, but no time to merge them. With one corner all taps lie on pixels.
template <typename T, int Corners, int Width>
static void attend_in_registers(const Taps<T>& taps, int64_t first, int64_t last, const T* q, T scale, T* result) {
  constexpr int lanes = kLanes<T>;
  Vec<T> query[Width], sum[Width];
#pragma GCC unroll 16
  for (int i = 0; i < Width; ++i) {
    query[i] = scale * load(q + i * lanes);
    sum[i] = Vec<T>{};
  }
  for (int64_t at = first; at < last; ++at) {
    Vec<T> value[Width], dot{};
#pragma GCC unroll 4
    for (int corner = 0; corner < Corners; ++corner) {
      const T* pixel = taps.corner[corner][at];
      const T weight = taps.weight[corner][at];
#pragma GCC unroll 16
      for (int i = 0; i < Width; ++i) {
        const Vec<T> part = Corners == 1 ? load(pixel + i * lanes) : weight * load(pixel + i * lanes);
        value[i] = corner == 0 ? part : value[i] + part;
      }
    }
#pragma GCC unroll 16
    for (int i = 0; i < Width; ++i) dot += value[i] * query[i];
    const T d = sum_of<T>(dot);
#pragma GCC unroll 16
    for (int i = 0; i < Width; ++i) sum[i] += d * value[i];
  }
#pragma GCC unroll 16
  for (int i = 0; i < Width; ++i) store<T>(result + i * lanes, sum[i]);
}

template <typename T, int Width = kMostInRegisters>
SIFA_INLINE void attend_in_registers(const Taps<T>& taps, int64_t first, int64_t last, const T* q, T scale,
                                     int64_t vectors, T* result) {
  if constexpr (Width > 0) {
    if (vectors != Width)
      attend_in_registers<T, Width - 1>(taps, first, last, q, scale, vectors, result);
    else if (taps.between)
      attend_in_registers<T, 4, Width>(taps, first, last, q, scale, result);
    else
      attend_in_registers<T, 1, Width>(taps, first, last, q, scale, result);
  }
}

template <typename T, typename S>
static void forward_rows(const Shape& s, const ForwardArgs<T>& args, int64_t begin, int64_t end, Scratch<T>& scratch) {
  const S* x = static_cast<const S*>(args.x);
  const int64_t group = s.channels / s.groups, vectors = group / kLanes<T>;
  const bool in_registers = s.deformable && group % kLanes<T> == 0 && vectors <= kMostInRegisters;
  const T scale = T(1) / T(group);
  Taps<T>& taps = scratch.taps;
  Neighbourhood<T>& near = scratch.near;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t pair = row / s.height, y = row % s.height, n = pair / s.pairs(), t = pair % s.pairs();
    const int64_t frame = n * s.frames + t;
    const T* keys = frame_of<T, S>(s, x, frame + 1, scratch);
    const T* queries = row_of<T, S>(s, x, frame, y, scratch);
    S* out = static_cast<S*>(args.out) + frame * s.frame_size() + y * s.width * s.channels;
    for (int64_t start = 0; start < s.width; start += taps.most_positions) {
      const int64_t count = s.width - start < taps.most_positions ? s.width - start : taps.most_positions;
      if (s.deformable) locate<T, true>(s, args.offset, n, t, y, start, count, taps);
      if (in_registers) {
        for (int64_t g = 0; g < s.channels; g += group) {
          point_at_corners(s, keys + g, scratch.zeros, count * s.taps(), taps);
          for (int64_t p = 0; p < count; ++p) {
            const int64_t at = (start + p) * s.channels + g;
            T* result = result_for(out + at, scratch.result);
            attend_in_registers(taps, p * s.taps(), (p + 1) * s.taps(), queries + at, scale, vectors, result);
            keep(result, group, out + at);
          }
        }
        continue;
      }
      for (int64_t p = 0; p < count; ++p) {
        const int64_t at = (start + p) * s.channels;
        T* result = result_for(out + at, scratch.result);
        collect(s, taps, p * s.taps(), y, start + p, near);
        for (int64_t g = 0; g < s.channels; g += group) {
          dot_products<T, false>(near.count, near.cell, keys + g, queries + at + g, nullptr, group, near.a, nullptr);
          attend(s, taps, p * s.taps(), scale, near);
          weighted_sum(near.count, near.cell, keys + g, near.c, group, result + g);
        }
        keep(result, s.channels, out + at);
      }
    }
  }
}

// ---- Backward -------------------------------------------------------------------------------------------------------

// From the dot products a and b to the weights c and h of the cells; adds the gradient of this position's offsets.
template <typename T>
static void attend_backward(const Shape& s, const Taps<T>& taps, int64_t first, T scale, Neighbourhood<T>& near,
                            T* grad_offset) {
  if (!s.deformable) {
    for (int u = 0; u < near.count; ++u) {
      near.c[u] = scale * near.a[u];
      near.h[u] = scale * near.b[u];
    }
    return;
  }
  for (int u = 0; u < near.count; ++u) near.c[u] = near.h[u] = 0;
  for (T* values : {near.a, near.b, near.c, near.h}) near.clear_around(values, near.count);
  const int* left_cells = near.left_cells;
  for (int64_t at = first; at < first + s.taps(); ++at, left_cells += 2, grad_offset += 2) {
    const T fy = taps.fy[at], fx = taps.fx[at];
    T w[4], a[4], b[4], d = 0, e = 0;
    for (int i = 0; i < 4; ++i) {
      const int cell = left_cells[i / 2] + i % 2;
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
      const int cell = left_cells[i / 2] + i % 2;
      near.c[cell] += w[i] * d;
      near.h[cell] += w[i] * e;
      slope[i] = d * b[i] + e * a[i];
    }
    grad_offset[0] += (1 - fx) * (slope[2] - slope[0]) + fx * (slope[3] - slope[1]);
    grad_offset[1] += (1 - fy) * (slope[1] - slope[0]) + fy * (slope[3] - slope[2]);
  }
}

template <typename T, typename S>
static void backward_pair(const Shape& s, const BackwardArgs<T>& args, int64_t n, int64_t t, Scratch<T>& scratch) {
  const S* x = static_cast<const S*>(args.x);
  const S* grad = static_cast<const S*>(args.grad);
  const int64_t group = s.channels / s.groups, frame = n * s.frames + t, field = 2 * s.taps();
  const T scale = T(1) / T(group);
  const T *queries = frame_of<T, S>(s, x, frame, scratch), *keys = frame_of<T, S>(s, x, frame + 1, scratch);
  T* grad_keys = args.grad_x + (frame + 1) * s.frame_size();
  T* grad_offset = args.grad_offset;
  if (s.deformable) grad_offset += (n * s.pairs() + t) * s.height * s.width * field;
  Taps<T>& taps = scratch.taps;
  Neighbourhood<T>& near = scratch.near;
  for (int64_t y = 0; y < s.height; ++y) {
    for (int64_t start = 0; start < s.width; start += taps.most_positions) {
      const int64_t count = s.width - start < taps.most_positions ? s.width - start : taps.most_positions;
      if (s.deformable) locate<T, false>(s, args.offset, n, t, y, start, count, taps);
      for (int64_t p = 0; p < count; ++p) {
        const int64_t pixel = (y * s.width + start + p) * s.channels, at = frame * s.frame_size() + pixel;
        const T* query = queries + pixel;
        const T* incoming = widened<T, S>(grad + at, s.channels, scratch.grad);
        T* grad_query = args.grad_x + at;
        collect(s, taps, p * s.taps(), y, start + p, near);
        for (int64_t i = 0; s.deformable && i < field; ++i) grad_offset[i] = 0;
        for (int64_t g = 0; g < s.channels; g += group) {
          dot_products<T, true>(near.count, near.cell, keys + g, query + g, incoming + g, group, near.a, near.b);
          attend_backward(s, taps, p * s.taps(), scale, near, grad_offset);
          scatter(near, keys + g, query + g, incoming + g, group, grad_query + g, grad_keys + g);
        }
        if (s.deformable) grad_offset += field;
      }
    }
  }
}

// ---- Entry points ---------------------------------------------------------------------------------------------------

template <typename T>
static int64_t scratch_entry(const Shape& s, Storage storage) {
  Arena arena{nullptr};
  Scratch<T>(s, storage, arena);
  return arena.used;
}

template <typename T>
static void forward_entry(const Shape& s, Storage storage, const ForwardArgs<T>& args, int64_t begin, int64_t end,
                          void* memory) {
  Arena arena{static_cast<char*>(memory)};
  Scratch<T> scratch(s, storage, arena);
  if constexpr (std::is_same_v<T, float>) {
    if (storage == Storage::Half) return forward_rows<T, Half>(s, args, begin, end, scratch);
    if (storage == Storage::BFloat16) return forward_rows<T, BFloat16>(s, args, begin, end, scratch);
  }
  forward_rows<T, T>(s, args, begin, end, scratch);
}

template <typename T>
static void backward_entry(const Shape& s, Storage storage, const BackwardArgs<T>& args, int64_t n, int64_t t,
                           void* memory) {
  Arena arena{static_cast<char*>(memory)};
  Scratch<T> scratch(s, storage, arena);
  if constexpr (std::is_same_v<T, float>) {
    if (storage == Storage::Half) return backward_pair<T, Half>(s, args, n, t, scratch);
    if (storage == Storage::BFloat16) return backward_pair<T, BFloat16>(s, args, n, t, scratch);
  }
  backward_pair<T, T>(s, args, n, t, scratch);
}

extern const Kernels<float> kernels_float;
extern const Kernels<double> kernels_double;
const Kernels<float> kernels_float{scratch_entry<float>, forward_entry<float>, backward_entry<float>};
const Kernels<double> kernels_double{scratch_entry<double>, forward_entry<double>, backward_entry<double>};

}  // namespace sifa::SIFA_CAPABILITY
