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
// Two passes over the cells with one multiply-add an element forward, and two passes with two and three backward.

namespace sifa::SIFA_CAPABILITY {

// Cells are merged when all lie in a window of this many rows and columns; otherwise every corner is a cell of its own.
constexpr int kWindowRows = 32;
constexpr int kWindowCols = 64;
// Lists of cells are padded so that blocks of cells may run over the end.
constexpr int kCellBlock = 8;

// The neighbourhood of one position. Pointers into the thread's scratch.
template <typename T>
struct Neighbourhood {
  int count;         // distinct cells
  int64_t* cell;     // element offset of each cell in its frame
  T *a, *b, *c, *h;  // see above, one for each cell
  // Deformable only, one for each tap:
  int64_t* row;  // upper left pixel; kOutside in `row` where the tap samples nothing
  int64_t* col;
  T *fy, *fx;
  int64_t* slot;  // 4 a tap: index of each corner among the cells; `count` for a corner outside the map
};
constexpr int64_t kOutside = INT64_MIN;

template <typename T>
struct Scratch {
  T* frame;  // the keys in T, when they are stored in half precision
  T *query, *grad, *result;
  int64_t frame_of = -1;  // which frame of x `frame` holds
  Neighbourhood<T> near;
};

static int64_t max_cells(const Shape& s) { return 4 * s.taps() + 1 + kCellBlock; }

static bool is_half(Storage storage) { return storage == Storage::Half || storage == Storage::BFloat16; }

static ScratchSize scratch_size(const Shape& s, Storage storage) {
  return {4 * max_cells(s) + 2 * s.taps() + 3 * s.channels + (is_half(storage) ? s.frame_size() : 0),
          max_cells(s) + 6 * s.taps()};
}

template <typename T>
static Scratch<T> carve(const Shape& s, Storage storage, T* values, int64_t* integers) {
  Scratch<T> scratch;
  const auto take = [&values](int64_t n) {
    T* p = values;
    values += n;
    return p;
  };
  const auto take_int = [&integers](int64_t n) {
    int64_t* p = integers;
    integers += n;
    return p;
  };
  Neighbourhood<T>& near = scratch.near;
  near.count = 0;
  near.a = take(max_cells(s));
  near.b = take(max_cells(s));
  near.c = take(max_cells(s));
  near.h = take(max_cells(s));
  near.fy = take(s.taps());
  near.fx = take(s.taps());
  scratch.query = take(s.channels);
  scratch.grad = take(s.channels);
  scratch.result = take(s.channels);
  scratch.frame = take(is_half(storage) ? s.frame_size() : 0);
  near.cell = take_int(max_cells(s));
  near.row = take_int(s.taps());
  near.col = take_int(s.taps());
  near.slot = take_int(4 * s.taps());
  return scratch;
}

// ---- Which pixels a position needs ----------------------------------------------------------------------------------

// The taps of the regular neighbourhood that lie inside the map.
template <typename T>
static void collect_regular(const Shape& s, int64_t y, int64_t x, Neighbourhood<T>& near) {
  const int64_t k = s.kernel_size, reach = k / 2 * s.dilation;
  int n = 0;
  for (int64_t i = 0, row = y - reach; i < k; ++i, row += s.dilation) {
    if (row < 0 || row >= s.height) continue;
    for (int64_t j = 0, col = x - reach; j < k; ++j, col += s.dilation) {
      if (col < 0 || col >= s.width) continue;
      near.cell[n++] = (row * s.width + col) * s.channels;
    }
  }
  near.count = n;
  for (int i = 0; i < kCellBlock; ++i) near.cell[n + i] = 0;  // padding reads some pixel of the frame
}

// The distinct corners of all displaced taps. `offset` points at channel 0 of this position. With SkipZero corners of
// weight zero are left out (three of four at integer offsets); the gradient of the offsets needs them.
template <typename T, bool SkipZero>
static void collect_displaced(const Shape& s, int64_t y, int64_t x, const T* offset, Neighbourhood<T>& near) {
  const int64_t k = s.kernel_size, reach = k / 2 * s.dilation, stride = s.offset_strides[2];
  const int taps = int(s.taps());
  int64_t first_row = INT64_MAX, last_row = INT64_MIN, first_col = INT64_MAX, last_col = INT64_MIN;
  int tap = 0;
  for (int64_t i = 0; i < k; ++i) {
    for (int64_t j = 0; j < k; ++j, ++tap, offset += 2 * stride) {
      Cell<T> cell;
      if (!locate<T>(T(y - reach + i * s.dilation) + offset[0], T(x - reach + j * s.dilation) + offset[stride],
                     s.height, s.width, cell)) {
        near.row[tap] = kOutside;
        near.fy[tap] = near.fx[tap] = 0;
        continue;
      }
      near.row[tap] = cell.row;
      near.col[tap] = cell.col;
      near.fy[tap] = cell.fy;
      near.fx[tap] = cell.fx;
      first_row = cell.row < first_row ? cell.row : first_row;
      last_row = cell.row > last_row ? cell.row : last_row;
      first_col = cell.col < first_col ? cell.col : first_col;
      last_col = cell.col > last_col ? cell.col : last_col;
    }
  }

  int n = 0;
  if (first_row > last_row) {
    for (int i = 0; i < 4 * taps; ++i) near.slot[i] = 0;
  } else if (last_row - first_row + 2 <= kWindowRows && last_col - first_col + 2 <= kWindowCols) {
    // One bit for each pixel of the window; a bit's rank is the pixel's place in the list.
    uint64_t wanted[kWindowRows];
    int rank[kWindowRows];
    const int rows = int(last_row - first_row) + 2;
    for (int r = 0; r < rows; ++r) wanted[r] = 0;
    for (int t = 0; t < taps; ++t) {
      if (near.row[t] == kOutside) continue;
      const int r = int(near.row[t] - first_row);
      const uint64_t left = near.col[t] >= 0 ? 1 : 0;
      const uint64_t right = near.col[t] + 1 < s.width && !(SkipZero && near.fx[t] == 0) ? 2 : 0;
      const uint64_t bits = (left | right) << (near.col[t] - first_col);
      wanted[r] |= near.row[t] >= 0 ? bits : 0;
      wanted[r + 1] |= near.row[t] + 1 < s.height && !(SkipZero && near.fy[t] == 0) ? bits : 0;
    }
    for (int r = 0; r < rows; ++r) {
      rank[r] = n;
      const int64_t start = (first_row + r) * s.width + first_col;
      for (uint64_t bits = wanted[r]; bits != 0; bits &= bits - 1)
        near.cell[n++] = (start + __builtin_ctzll(bits)) * s.channels;
    }
    for (int t = 0; t < taps; ++t) {
      int64_t* slot = near.slot + 4 * t;
      if (near.row[t] == kOutside) {
        slot[0] = slot[1] = slot[2] = slot[3] = n;
        continue;
      }
      const int r = int(near.row[t] - first_row);
      const uint64_t bit = uint64_t(1) << (near.col[t] - first_col);
      for (int dy = 0; dy < 2; ++dy) {
        const uint64_t bits = wanted[r + dy];
        const int64_t at = rank[r + dy] + __builtin_popcountll(bits & (bit - 1));
        slot[2 * dy] = bits & bit ? at : n;
        slot[2 * dy + 1] = bits & (bit << 1) ? at + (bits & bit ? 1 : 0) : n;
      }
    }
  } else {
    // Taps flung far apart: no merging. Corners outside the map get their slot once the count is known.
    for (int t = 0; t < taps; ++t) {
      for (int corner = 0; corner < 4; ++corner) {
        const int64_t row = near.row[t] + corner / 2, col = near.col[t] + corner % 2;
        const bool inside = near.row[t] != kOutside && row >= 0 && row < s.height && col >= 0 && col < s.width;
        near.slot[4 * t + corner] = inside ? n : -1;
        if (inside) near.cell[n++] = (row * s.width + col) * s.channels;
      }
    }
    for (int i = 0; i < 4 * taps; ++i)
      if (near.slot[i] < 0) near.slot[i] = n;
  }
  near.count = n;
  for (int i = 0; i < kCellBlock; ++i) near.cell[n + i] = 0;
}

template <typename T, bool SkipZero>
SIFA_INLINE void collect(const Shape& s, const T* offset, int64_t n, int64_t t, int64_t y, int64_t x,
                         Neighbourhood<T>& near) {
  if (!s.deformable) {
    collect_regular(s, y, x, near);
  } else {
    const int64_t* stride = s.offset_strides;
    collect_displaced<T, SkipZero>(s, y, x, offset + n * stride[0] + t * stride[1] + y * stride[3] + x * stride[4],
                                   near);
  }
}

// ---- Arithmetic over channels ---------------------------------------------------------------------------------------

// A block of cells whose dot products are computed together: as many accumulators as one lane reduction can merge.
template <typename T>
constexpr int kBlock = kLanes<T> < kCellBlock ? kLanes<T> : kCellBlock;

// From (a, b): the first (Part = 0) or second (Part = 1) half of every group of 2 * Width lanes, a's before b's.
template <typename T, int Width, int Part, int... Lane>
SIFA_INLINE Vec<T> halves(Vec<T> a, Vec<T> b, std::integer_sequence<int, Lane...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, (Lane / Width * 2 * Width + Lane % Width + Part * Width)...);
#else
  typedef std::conditional_t<sizeof(T) == 4, int32_t, int64_t> Lanes __attribute__((vector_size(SIFA_VECTOR_BYTES)));
  return __builtin_shuffle(a, b, Lanes{(Lane / Width * 2 * Width + Lane % Width + Part * Width)...});
#endif
}

// The sums over the lanes of Count vectors at once. Each step merges two vectors into one that holds partial sums of
// both, `Group` lanes for each sum, until one vector holds all of them.
template <typename T, int Count, int Group = kLanes<T>>
SIFA_INLINE void lane_sums(const Vec<T>* v, T* sums) {
  if constexpr (Count == 1) {
    T lane[kLanes<T>];
    store<T>(lane, v[0]);
    for (int i = 0; i < kLanes<T> / Group; ++i) {
      T total = lane[i * Group];
      for (int j = 1; j < Group; ++j) total += lane[i * Group + j];
      sums[i] = total;
    }
  } else {
    constexpr int width = Group / 2;
    constexpr auto lanes = std::make_integer_sequence<int, kLanes<T>>();
    Vec<T> merged[Count / 2];
    for (int i = 0; i < Count / 2; ++i)
      merged[i] =
          halves<T, width, 0>(v[2 * i], v[2 * i + 1], lanes) + halves<T, width, 1>(v[2 * i], v[2 * i + 1], lanes);
    lane_sums<T, Count / 2, width>(merged, sums);
  }
}

// a[u] = <q, keys + cell[u]> and, with Two, b[u] = <g, keys + cell[u]>, over n channels.
template <typename T, bool Two>
static void dot_products(int count, const int64_t* cell, const T* keys, const T* q, const T* g, int64_t n, T* a, T* b) {
  constexpr int block = kBlock<T>, lanes = kLanes<T>;
  const int64_t whole = n - n % lanes;
  for (int u = 0; u < count; u += block) {
    const T* key[block];
    Vec<T> sum_a[block], sum_b[block];
    for (int i = 0; i < block; ++i) {
      key[i] = keys + cell[u + i];
      sum_a[i] = Vec<T>{};
      if (Two) sum_b[i] = Vec<T>{};
    }
    for (int64_t c = 0; c < whole; c += lanes) {
      const Vec<T> query = load(q + c), grad = Two ? load(g + c) : query;
#pragma GCC unroll 8
      for (int i = 0; i < block; ++i) {
        const Vec<T> value = load(key[i] + c);
        sum_a[i] += query * value;
        if (Two) sum_b[i] += grad * value;
      }
    }
    lane_sums<T, block>(sum_a, a + u);
    if (Two) lane_sums<T, block>(sum_b, b + u);
    for (int64_t c = whole; c < n; ++c) {
      for (int i = 0; i < block; ++i) {
        a[u + i] += q[c] * key[i][c];
        if (Two) b[u + i] += g[c] * key[i][c];
      }
    }
  }
}

// result = sum_u c[u] * (keys + cell[u]), Width vectors of channels at a time from channel `from` to `to`.
template <typename T, int Width>
SIFA_INLINE int64_t weighted_sum_part(int count, const int64_t* cell, const T* keys, const T* c, int64_t from,
                                      int64_t to, T* result) {
  constexpr int lanes = kLanes<T>;
  for (; from + Width * lanes <= to; from += Width * lanes) {
    Vec<T> sums[Width] = {};
    for (int u = 0; u < count; ++u) {
      const T* key = keys + cell[u] + from;
#pragma GCC unroll 8
      for (int i = 0; i < Width; ++i) sums[i] += c[u] * load(key + i * lanes);
    }
    for (int i = 0; i < Width; ++i) store<T>(result + from + i * lanes, sums[i]);
  }
  return from;
}

template <typename T>
static void weighted_sum(int count, const int64_t* cell, const T* keys, const T* c, int64_t n, T* result) {
  int64_t from = weighted_sum_part<T, 8>(count, cell, keys, c, 0, n, result);
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
    for (int i = 0; i < Width; ++i) {
      sums[i] = load(grad_query + from + i * lanes);
      query[i] = load(q + from + i * lanes);
      grad[i] = load(g + from + i * lanes);
    }
    for (int u = 0; u < near.count; ++u) {
      const T c = near.c[u], h = near.h[u];
      const T* key = keys + near.cell[u] + from;
      T* grad_key = grad_keys + near.cell[u] + from;
#pragma GCC unroll 8
      for (int i = 0; i < Width; ++i) {
        sums[i] += h * load(key + i * lanes);
        store<T>(grad_key + i * lanes, load(grad_key + i * lanes) + c * grad[i] + h * query[i]);
      }
    }
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
    for (int64_t i = 0; i < n; ++i) buffer[i] = widen(from[i]);
    return buffer;
  }
}

// Frame number `frame` of x in T. Kept in the scratch for the next position that needs it.
template <typename T, typename S>
SIFA_INLINE const T* keys_of(const Shape& s, const S* x, int64_t frame, Scratch<T>& scratch) {
  const S* stored = x + frame * s.frame_size();
  if constexpr (std::is_same_v<S, T>) {
    return stored;
  } else {
    if (scratch.frame_of != frame) widened<T, S>(stored, s.frame_size(), scratch.frame);
    scratch.frame_of = frame;
    return scratch.frame;
  }
}

// ---- Forward --------------------------------------------------------------------------------------------------------

// From the dot products a to the weights c of the cells, in place of the sums over taps and corners.
template <typename T>
static void attend(const Shape& s, T scale, Neighbourhood<T>& near) {
  if (!s.deformable) {
    for (int u = 0; u < near.count; ++u) near.c[u] = scale * near.a[u];
    return;
  }
  for (int u = 0; u <= near.count; ++u) near.c[u] = 0;
  near.a[near.count] = 0;  // the corner outside the map
  for (int t = 0; t < int(s.taps()); ++t) {
    const int64_t* slot = near.slot + 4 * t;
    const T fy = near.fy[t], fx = near.fx[t];
    const T w[4] = {(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx};
    const T d =
        scale * (w[0] * near.a[slot[0]] + w[1] * near.a[slot[1]] + w[2] * near.a[slot[2]] + w[3] * near.a[slot[3]]);
    for (int i = 0; i < 4; ++i) near.c[slot[i]] += w[i] * d;
  }
}

template <typename T, typename S>
static void forward_rows(const Shape& s, const ForwardArgs<T>& args, int64_t begin, int64_t end, Scratch<T>& scratch) {
  const S* x = static_cast<const S*>(args.x);
  S* out = static_cast<S*>(args.out);
  const int64_t group = s.channels / s.groups;
  const T scale = T(1) / T(group);
  Neighbourhood<T>& near = scratch.near;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t pair = row / s.height, y = row % s.height, n = pair / s.pairs(), t = pair % s.pairs();
    const int64_t frame = n * s.frames + t;
    const T* keys = keys_of<T, S>(s, x, frame + 1, scratch);
    for (int64_t col = 0; col < s.width; ++col) {
      const int64_t at = frame * s.frame_size() + (y * s.width + col) * s.channels;
      const T* query = widened<T, S>(x + at, s.channels, scratch.query);
      T* result = scratch.result;
      if constexpr (std::is_same_v<S, T>) result = out + at;
      collect<T, true>(s, args.offset, n, t, y, col, near);
      for (int64_t g = 0; g < s.channels; g += group) {
        dot_products<T, false>(near.count, near.cell, keys + g, query + g, nullptr, group, near.a, nullptr);
        attend(s, scale, near);
        weighted_sum(near.count, near.cell, keys + g, near.c, group, result + g);
      }
      if constexpr (!std::is_same_v<S, T>)
        for (int64_t c = 0; c < s.channels; ++c) narrow(result[c], out[at + c]);
    }
  }
}

// ---- Backward -------------------------------------------------------------------------------------------------------

// From the dot products a and b to the weights c and h of the cells; adds the gradient of this position's offsets.
template <typename T>
static void attend_backward(const Shape& s, T scale, Neighbourhood<T>& near, T* grad_offset) {
  if (!s.deformable) {
    for (int u = 0; u < near.count; ++u) {
      near.c[u] = scale * near.a[u];
      near.h[u] = scale * near.b[u];
    }
    return;
  }
  for (int u = 0; u <= near.count; ++u) near.c[u] = near.h[u] = 0;
  near.a[near.count] = near.b[near.count] = 0;
  for (int t = 0; t < int(s.taps()); ++t) {
    if (near.row[t] == kOutside) continue;
    const int64_t* slot = near.slot + 4 * t;
    const T fy = near.fy[t], fx = near.fx[t];
    const T w[4] = {(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx};
    T a[4], b[4], d = 0, e = 0;
    for (int i = 0; i < 4; ++i) {
      a[i] = near.a[slot[i]];
      b[i] = near.b[slot[i]];
      d += w[i] * a[i];
      e += w[i] * b[i];
    }
    d *= scale;
    e *= scale;
    T slope[4];  // of the result by the weight of each corner
    for (int i = 0; i < 4; ++i) {
      near.c[slot[i]] += w[i] * d;
      near.h[slot[i]] += w[i] * e;
      slope[i] = d * b[i] + e * a[i];
    }
    grad_offset[2 * t] += (1 - fx) * (slope[2] - slope[0]) + fx * (slope[3] - slope[1]);
    grad_offset[2 * t + 1] += (1 - fy) * (slope[1] - slope[0]) + fy * (slope[3] - slope[2]);
  }
}

template <typename T, typename S>
static void backward_pair(const Shape& s, const BackwardArgs<T>& args, int64_t n, int64_t t, Scratch<T>& scratch) {
  const S* x = static_cast<const S*>(args.x);
  const S* grad = static_cast<const S*>(args.grad);
  const int64_t group = s.channels / s.groups, frame = n * s.frames + t, field = 2 * s.taps();
  const T scale = T(1) / T(group);
  const T* keys = keys_of<T, S>(s, x, frame + 1, scratch);
  T* grad_keys = args.grad_x + (frame + 1) * s.frame_size();
  T* grad_offset = args.grad_offset;
  if (s.deformable) grad_offset += (n * s.pairs() + t) * s.height * s.width * field;
  Neighbourhood<T>& near = scratch.near;
  for (int64_t y = 0; y < s.height; ++y) {
    for (int64_t col = 0; col < s.width; ++col) {
      const int64_t at = frame * s.frame_size() + (y * s.width + col) * s.channels;
      const T* query = widened<T, S>(x + at, s.channels, scratch.query);
      const T* incoming = widened<T, S>(grad + at, s.channels, scratch.grad);
      T* grad_query = args.grad_x + at;
      collect<T, false>(s, args.offset, n, t, y, col, near);
      for (int64_t i = 0; s.deformable && i < field; ++i) grad_offset[i] = 0;
      for (int64_t g = 0; g < s.channels; g += group) {
        dot_products<T, true>(near.count, near.cell, keys + g, query + g, incoming + g, group, near.a, near.b);
        attend_backward(s, scale, near, grad_offset);
        scatter(near, keys + g, query + g, incoming + g, group, grad_query + g, grad_keys + g);
      }
      if (s.deformable) grad_offset += field;
    }
  }
}

// ---- Entry points ---------------------------------------------------------------------------------------------------

template <typename T>
static void forward_entry(const Shape& s, Storage storage, const ForwardArgs<T>& args, int64_t begin, int64_t end,
                          T* values, int64_t* integers) {
  Scratch<T> scratch = carve<T>(s, storage, values, integers);
  if constexpr (std::is_same_v<T, float>) {
    if (storage == Storage::Half) return forward_rows<T, Half>(s, args, begin, end, scratch);
    if (storage == Storage::BFloat16) return forward_rows<T, BFloat16>(s, args, begin, end, scratch);
  }
  forward_rows<T, T>(s, args, begin, end, scratch);
}

template <typename T>
static void backward_entry(const Shape& s, Storage storage, const BackwardArgs<T>& args, int64_t n, int64_t t,
                           T* values, int64_t* integers) {
  Scratch<T> scratch = carve<T>(s, storage, values, integers);
  if constexpr (std::is_same_v<T, float>) {
    if (storage == Storage::Half) return backward_pair<T, Half>(s, args, n, t, scratch);
    if (storage == Storage::BFloat16) return backward_pair<T, BFloat16>(s, args, n, t, scratch);
  }
  backward_pair<T, T>(s, args, n, t, scratch);
}

extern const Kernels<float> kernels_float;
extern const Kernels<double> kernels_double;
const Kernels<float> kernels_float{scratch_size, forward_entry<float>, backward_entry<float>};
const Kernels<double> kernels_double{scratch_size, forward_entry<double>, backward_entry<double>};

}  // namespace sifa::SIFA_CAPABILITY
