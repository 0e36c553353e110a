// Rows through a stack of transformer layers on a CPU with AVX-512, all of a pass in one call.
//
// A decoded frame is a hundred layers of short products. What this file saves over one operation after the other is what
// lies between them: dispatch, trips through memory, and putting threads together anew. The mathematics is that of
// layers.py; the layout of the weights and the ways to call are those of transformer.py beside it.
//
// A row's numbers depend on nothing but the row: however many others there are, its sums are formed in the same order.

#include <immintrin.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

namespace {

// ---- Threads ----------------------------------------------------------------------------------------------------------

// Threads that do one job after the other together. They wait actively within a job, where the wait is microseconds,
// and yield when it is longer, because another process then has the core that somebody here needs.
class Team {
 public:
  explicit Team(int size) : size_(size) {
    for (int index = 1; index < size; ++index) std::thread([this, index] { work(index); }).detach();
  }

  int size() const { return size_; }

  template <class Job>
  void run(Job& job) {
    call_ = [](void* context, int index) { (*static_cast<Job*>(context))(index); };
    context_ = &job;
    round_.fetch_add(1, std::memory_order_release);
    round_.notify_all();
    job(0);
    meet();
  }

  void meet() {
    if (size_ == 1) return;
    const uint32_t phase = phase_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
      arrived_.store(0, std::memory_order_relaxed);
      phase_.store(phase + 1, std::memory_order_release);
      return;
    }
    for (int tries = 0; phase_.load(std::memory_order_acquire) == phase; ++tries) {
      if (tries < kTries) _mm_pause(); else sched_yield();
    }
  }

 private:
  static constexpr int kTries = 1000;  // some tens of microseconds

  void work(int index) {
    for (uint32_t seen = 0;; ++seen) {
      for (int tries = 0; tries < kTries && round_.load(std::memory_order_acquire) == seen; ++tries) _mm_pause();
      round_.wait(seen, std::memory_order_acquire);
      call_(context_, index);
      meet();
    }
  }

  const int size_;
  void (*call_)(void*, int) = nullptr;
  void* context_ = nullptr;
  alignas(64) std::atomic<uint32_t> round_{0};
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<uint32_t> phase_{0};
};

// ---- Products ---------------------------------------------------------------------------------------------------------

// Weights [outputs, inputs] as panels of 16 outputs; a panel is its inputs, in groups of 4 bytes, of 16 outputs each.
// Inputs are padded to 64 bytes, outputs to 4 panels, with zeros.
struct Linear {
  const uint8_t* panels;
  const float* scale;      // int8: [outputs]
  const int32_t* offset;   // int8: [outputs], what the sums are too large by, because inputs are bytes around 128
  int32_t inputs, outputs;
  int32_t steps;           // groups of 4 bytes in a padded row of inputs
  int32_t panel_count;
};

constexpr int kTogether = 4;  // panels

inline __m512 as_floats(__m512i bits) { return _mm512_castsi512_ps(bits); }
inline uint32_t group_of(const uint8_t* bytes) { uint32_t group; std::memcpy(&group, bytes, 4); return group; }

// The lanes of the first `count` numbers.
inline __mmask16 first(int count) { return count >= 16 ? 0xFFFF : static_cast<__mmask16>((1u << count) - 1); }

// What both kinds of floating point have in common.
struct Floats {
  using Sum = __m512;
  static Sum zero() { return _mm512_setzero_ps(); }
  static Sum both(Sum one, Sum other) { return _mm512_add_ps(one, other); }
  static __m512 value(Sum sum, const Linear&, int, float) { return sum; }
};

struct Float32 : Floats {
  static Sum more(Sum sum, __m512i weights, uint32_t group) {
    return _mm512_fmadd_ps(as_floats(_mm512_set1_epi32(group)), as_floats(weights), sum);
  }
  static float encode(const float* row, int count, uint8_t* out) {
    std::memcpy(out, row, count * sizeof(float));
    return 1.0f;
  }
};

struct BFloat16 : Floats {
  static Sum more(Sum sum, __m512i weights, uint32_t group) {
    return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_set1_epi32(group), (__m512bh)weights);
  }
  static float encode(const float* row, int count, uint8_t* out) {
    for (int i = 0; i < count; i += 16) {
      const __mmask16 mask = first(count - i);
      const __m256i bits = (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, row + i));
      _mm256_mask_storeu_epi16(out + 2 * i, mask, bits);
    }
    return 1.0f;
  }
};

// A factor per output channel and one per row of inputs; in between, exact integers.
struct Int8 {
  using Sum = __m512i;
  static Sum zero() { return _mm512_setzero_si512(); }
  static Sum more(Sum sum, __m512i weights, uint32_t group) {
    return _mm512_dpbusd_epi32(sum, _mm512_set1_epi32(group), weights);
  }
  static Sum both(Sum one, Sum other) { return _mm512_add_epi32(one, other); }
  static __m512 value(Sum sum, const Linear& linear, int output, float row_scale) {
    const __m512i exact = _mm512_sub_epi32(sum, _mm512_loadu_si512(linear.offset + output));
    const __m512 scale = _mm512_mul_ps(_mm512_loadu_ps(linear.scale + output), _mm512_set1_ps(row_scale));
    return _mm512_mul_ps(_mm512_cvtepi32_ps(exact), scale);
  }
  static float encode(const float* row, int count, uint8_t* out) {
    __m512 largest = _mm512_set1_ps(1e-12f);
    for (int i = 0; i < count; i += 16)
      largest = _mm512_max_ps(largest, _mm512_abs_ps(_mm512_maskz_loadu_ps(first(count - i), row + i)));
    const float scale = _mm512_reduce_max_ps(largest) / 127.0f;
    for (int i = 0; i < count; i += 16) {
      const __mmask16 mask = first(count - i);
      const __m512 levels = _mm512_div_ps(_mm512_maskz_loadu_ps(mask, row + i), _mm512_set1_ps(scale));
      const __m512i bytes = _mm512_add_epi32(_mm512_cvtps_epi32(levels), _mm512_set1_epi32(128));
      _mm_mask_storeu_epi8(out + i, mask, _mm512_cvtepi32_epi8(bytes));
    }
    return scale;
  }
};

// Rows of inputs as a product reads them.
struct Encoded {
  std::vector<uint8_t> bytes;
  std::vector<float> scales;
  int stride = 0;

  void resize(int rows, int steps) {
    stride = 4 * steps;
    bytes.assign(static_cast<size_t>(rows) * stride, 0);
    scales.resize(rows);
  }
  uint8_t* row(int index) { return bytes.data() + static_cast<size_t>(index) * stride; }
  template <class Kind>
  void put(int index, const float* values, int count) { scales[index] = Kind::encode(values, count, row(index)); }
};

// `Rows` rows times `Panels` panels. Even and odd groups are summed apart, whatever the sizes, for the sake of the first
// sentence at the top.
//
// While these panels are multiplied with one block of rows after the other, the next ones are fetched, a line in `blocks`
// each time: memory then works all the time, and not only for the first block.
template <class Kind, int Rows, int Panels, class Store>
inline void block(const Linear& linear, Encoded& x, int row, int panel, int blocks, Store& store) {
  typename Kind::Sum sums[2][Rows][Panels];
  for (auto& half : sums)
    for (auto& of_row : half)
      for (auto& sum : of_row) sum = Kind::zero();
  const size_t panel_bytes = static_cast<size_t>(linear.steps) * 64;
  const uint8_t* weights = linear.panels + panel * panel_bytes;
  const uint8_t* inputs = x.row(row);
  int until_fetch = 1 + row / 8 % blocks;
  for (int step = 0; step < linear.steps; step += 2) {
    const bool fetch = --until_fetch == 0;
    if (fetch) until_fetch = blocks;
    for (int half = 0; half < 2; ++half) {
      __m512i columns[Panels];
      for (int p = 0; p < Panels; ++p) {
        const uint8_t* at = weights + p * panel_bytes + (step + half) * 64;
        columns[p] = _mm512_loadu_si512(at);
        if (fetch) _mm_prefetch(reinterpret_cast<const char*>(at + kTogether * panel_bytes), _MM_HINT_T1);
      }
      for (int r = 0; r < Rows; ++r) {
        const uint32_t group = group_of(inputs + static_cast<size_t>(r) * x.stride + 4 * (step + half));
        for (int p = 0; p < Panels; ++p) sums[half][r][p] = Kind::more(sums[half][r][p], columns[p], group);
      }
    }
  }
  for (int r = 0; r < Rows; ++r)
    for (int p = 0; p < Panels; ++p) {
      const int output = 16 * (panel + p);
      if (output >= linear.outputs) continue;
      const auto sum = Kind::both(sums[0][r][p], sums[1][r][p]);
      store(row + r, output, first(linear.outputs - output), Kind::value(sum, linear, output, x.scales[row + r]));
    }
}

template <class Kind, int Rows, int Panels, class Store>
inline int blocks_of(const Linear& linear, Encoded& x, int row, int count, int panel, Store& store) {
  const int blocks = (count + 7) / 8;
  for (; count - row >= Rows; row += Rows)
    for (int p = 0; p < kTogether; p += Panels) block<Kind, Rows, Panels>(linear, x, row, panel + p, blocks, store);
  return row;
}

// This thread's share of x W^T; store(row, output, mask, 16 values).
template <class Kind, class Store>
void multiply(const Linear& linear, Encoded& x, int rows, int thread, int threads, Store store) {
  const int groups = linear.panel_count / kTogether;
  for (int g = groups * thread / threads; g < groups * (thread + 1) / threads; ++g) {
    const int panel = g * kTogether;
    int row = blocks_of<Kind, 8, 1>(linear, x, 0, rows, panel, store);
    row = blocks_of<Kind, 4, 2>(linear, x, row, rows, panel, store);
    row = blocks_of<Kind, 2, 4>(linear, x, row, rows, panel, store);
    blocks_of<Kind, 1, 4>(linear, x, row, rows, panel, store);
  }
}

// ---- What lies between the products -----------------------------------------------------------------------------------

// e^x, to 2 units in the last place (Cephes' polynomial).
inline __m512 exponential(__m512 x) {
  x = _mm512_max_ps(_mm512_set1_ps(-87.3f), x);
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), _MM_FROUND_TO_NEAREST_INT);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
  __m512 p = _mm512_set1_ps(1.9875691500e-4f);
  for (float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(c));
  p = _mm512_fmadd_ps(_mm512_mul_ps(p, r), r, _mm512_add_ps(r, _mm512_set1_ps(1.0f)));
  return _mm512_scalef_ps(p, n);
}

void normalise(const float* x, const float* weight, int count, float eps, float* out) {
  __m512 squares = _mm512_setzero_ps();
  for (int i = 0; i < count; i += 16) {
    const __m512 v = _mm512_maskz_loadu_ps(first(count - i), x + i);
    squares = _mm512_fmadd_ps(v, v, squares);
  }
  const __m512 factor = _mm512_set1_ps(1.0f / std::sqrt(_mm512_reduce_add_ps(squares) / count + eps));
  for (int i = 0; i < count; i += 16) {
    const __mmask16 mask = first(count - i);
    const __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x + i), factor);
    _mm512_mask_storeu_ps(out + i, mask, _mm512_mul_ps(v, _mm512_maskz_loadu_ps(mask, weight + i)));
  }
}

// silu(gate) * up
void gate(const float* gates, const float* ups, int count, float* out) {
  for (int i = 0; i < count; i += 16) {
    const __mmask16 mask = first(count - i);
    const __m512 g = _mm512_maskz_loadu_ps(mask, gates + i), one = _mm512_set1_ps(1.0f);
    const __m512 s = _mm512_div_ps(g, _mm512_add_ps(one, exponential(_mm512_sub_ps(_mm512_setzero_ps(), g))));
    _mm512_mask_storeu_ps(out + i, mask, _mm512_mul_ps(s, _mm512_maskz_loadu_ps(mask, ups + i)));
  }
}

// Up to 16 numbers of the cache, in either of its types.
inline __m512 load(__mmask16 mask, const float* at) { return _mm512_maskz_loadu_ps(mask, at); }
inline __m512 load(__mmask16 mask, const uint16_t* at) {
  return as_floats(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, at)), 16));
}
inline void save(__mmask16 mask, float* at, __m512 value) { _mm512_mask_storeu_ps(at, mask, value); }
inline void save(__mmask16 mask, uint16_t* at, __m512 value) {
  _mm256_mask_storeu_epi16(at, mask, (__m256i)_mm512_cvtneps_pbh(value));
}

// Rotate-half positions on one head (arXiv:2104.09864).
inline void rotate(float* head, const float* cos, const float* sin, int half) {
  for (int i = 0; i < half; i += 16) {
    const __mmask16 mask = first(half - i);
    const __m512 a = _mm512_maskz_loadu_ps(mask, head + i), b = _mm512_maskz_loadu_ps(mask, head + half + i);
    const __m512 c = _mm512_maskz_loadu_ps(mask, cos + i), s = _mm512_maskz_loadu_ps(mask, sin + i);
    _mm512_mask_storeu_ps(head + i, mask, _mm512_fnmadd_ps(b, s, _mm512_mul_ps(a, c)));
    _mm512_mask_storeu_ps(head + half + i, mask, _mm512_fmadd_ps(a, s, _mm512_mul_ps(b, c)));
  }
}

// `group` queries [group, d] over `length` positions, `stride` numbers apart, of one key-value head -> out [group, d].
template <class Cached>
void attend(const float* queries, const Cached* keys, const Cached* values, int64_t stride, int length, int group, int d,
            std::vector<float>& scores, float* out) {
  const int padded = (length + 15) / 16 * 16;
  scores.resize(static_cast<size_t>(group) * padded);
  const float factor = 1.0f / std::sqrt(static_cast<float>(d));
  for (int p = 0; p < length; ++p)
    for (int q = 0; q < group; ++q) {
      __m512 sum = _mm512_setzero_ps();
      for (int i = 0; i < d; i += 16) {
        const __mmask16 mask = first(d - i);
        sum = _mm512_fmadd_ps(load(mask, keys + p * stride + i), load(mask, queries + q * d + i), sum);
      }
      scores[static_cast<size_t>(q) * padded + p] = _mm512_reduce_add_ps(sum) * factor;
    }
  for (int q = 0; q < group; ++q) {
    float* row = scores.data() + static_cast<size_t>(q) * padded;
    const float largest = *std::max_element(row, row + length);
    __m512 sum = _mm512_setzero_ps();
    for (int p = 0; p < length; p += 16) {
      const __mmask16 mask = first(length - p);
      const __m512 weight = exponential(_mm512_sub_ps(_mm512_maskz_loadu_ps(mask, row + p), _mm512_set1_ps(largest)));
      _mm512_storeu_ps(row + p, _mm512_maskz_mov_ps(mask, weight));
      sum = _mm512_add_ps(sum, _mm512_maskz_mov_ps(mask, weight));
    }
    const float whole = _mm512_reduce_add_ps(sum);
    for (int i = 0; i < d; i += 16) {
      const __mmask16 mask = first(d - i);
      __m512 read = _mm512_setzero_ps();
      for (int p = 0; p < length; ++p)
        read = _mm512_fmadd_ps(load(mask, values + p * stride + i), _mm512_set1_ps(row[p]), read);
      save(mask, out + q * d + i, _mm512_div_ps(read, _mm512_set1_ps(whole)));
    }
  }
}

// ---- The stack --------------------------------------------------------------------------------------------------------

struct Layer {
  Linear qkv, out, gate_up, down;
  const float *enter, *q_norm, *k_norm, *leave;
};

struct Stack {
  int32_t layer_count, width, heads, kv_heads, head_dim, inner;
  float eps;
  const Layer* layers;
  const float* norm;
};

// Row n belongs to row rows[n] of the cache at positions[n], and sees that one up to there. Strides are in numbers.
struct Pass {
  int32_t count;
  float* x;  // [count, width], in place
  const int64_t *rows, *positions;
  const float *cos, *sin;  // [position, head_dim / 2]
  void* cache;
  int64_t layer_stride, value_stride, row_stride, position_stride;
};

template <class Kind, class Cached>
void run(Team& team, const Stack& stack, const Pass& pass) {
  const int count = pass.count, width = stack.width, d = stack.head_dim, inner = stack.inner;
  const int q_width = stack.heads * d, kv_width = stack.kv_heads * d, group = stack.heads / stack.kv_heads;
  const int projected = q_width + 2 * kv_width, most = std::max(projected, 2 * inner);
  // Kept from pass to pass: one at a time is run, by one thread of the caller's.
  static thread_local Encoded encoded;
  static thread_local std::vector<float> wide, narrow;
  const Layer& any = stack.layers[0];
  encoded.resize(count, std::max({any.qkv.steps, any.out.steps, any.gate_up.steps, any.down.steps}));
  wide.resize(static_cast<size_t>(count) * most);
  narrow.resize(static_cast<size_t>(count) * std::max({width, q_width, inner}));
  Encoded& inputs = encoded;
  float *const buffer = wide.data(), *const small = narrow.data();
  const auto add_to_x = [&](int row, int output, __mmask16 mask, __m512 value) {
    float* at = pass.x + static_cast<size_t>(row) * width + output;
    _mm512_mask_storeu_ps(at, mask, _mm512_add_ps(_mm512_maskz_loadu_ps(mask, at), value));
  };
  const auto put = [&](int row, int output, __mmask16 mask, __m512 value) {
    _mm512_mask_storeu_ps(buffer + static_cast<size_t>(row) * most + output, mask, value);
  };

  auto job = [&](int thread) {
    const int threads = team.size();
    std::vector<float> scores;
    const auto mine = [&](int units, auto each) {
      for (int unit = units * thread / threads; unit < units * (thread + 1) / threads; ++unit) each(unit);
      team.meet();
    };
    const auto product = [&](const Linear& linear, auto store) {
      multiply<Kind>(linear, inputs, count, thread, threads, store);
      team.meet();
    };
    const auto normalised = [&](const float* weight) {
      mine(count, [&](int n) {
        float* out = small + static_cast<size_t>(n) * width;
        normalise(pass.x + static_cast<size_t>(n) * width, weight, width, stack.eps, out);
        inputs.put<Kind>(n, out, width);
      });
    };
    for (int index = 0; index < stack.layer_count; ++index) {
      const Layer& layer = stack.layers[index];
      Cached* const keys = static_cast<Cached*>(pass.cache) + index * pass.layer_stride;
      Cached* const values = keys + pass.value_stride;
      const auto place = [&](int n) { return pass.rows[n] * pass.row_stride + pass.positions[n] * pass.position_stride; };

      normalised(layer.enter);
      product(layer.qkv, put);
      const int per_row = stack.heads + 2 * stack.kv_heads;
      mine(count * per_row, [&](int unit) {  // a head of a row: queries stay where they are, the others are cached
        const int n = unit / per_row, head = unit % per_row, kv_head = (head - stack.heads) % stack.kv_heads;
        float* values_of = buffer + static_cast<size_t>(n) * most + head * d;
        const bool is_query = head < stack.heads, is_key = !is_query && head < stack.heads + stack.kv_heads;
        if (is_query || is_key) {
          normalise(values_of, is_query ? layer.q_norm : layer.k_norm, d, stack.eps, values_of);
          const int64_t at = pass.positions[n] * (d / 2);
          rotate(values_of, pass.cos + at, pass.sin + at, d / 2);
        }
        if (is_query) return;
        Cached* to = (is_key ? keys : values) + place(n) + kv_head * d;
        for (int i = 0; i < d; i += 16) save(first(d - i), to + i, load(first(d - i), values_of + i));
      });
      mine(count * stack.kv_heads, [&](int unit) {
        const int n = unit / stack.kv_heads, kv_head = unit % stack.kv_heads, head = kv_head * group;
        const int64_t from = pass.rows[n] * pass.row_stride + kv_head * d;
        attend(buffer + static_cast<size_t>(n) * most + head * d, keys + from, values + from, pass.position_stride,
               static_cast<int>(pass.positions[n]) + 1, group, d, scores,
               small + static_cast<size_t>(n) * q_width + head * d);
      });
      mine(count, [&](int n) { inputs.put<Kind>(n, small + static_cast<size_t>(n) * q_width, q_width); });
      product(layer.out, add_to_x);

      normalised(layer.leave);
      product(layer.gate_up, put);
      mine(count, [&](int n) {
        const float* both = buffer + static_cast<size_t>(n) * most;
        float* out = small + static_cast<size_t>(n) * inner;
        gate(both, both + inner, inner, out);
        inputs.put<Kind>(n, out, inner);
      });
      product(layer.down, add_to_x);
    }
    mine(count, [&](int n) {
      float* row = pass.x + static_cast<size_t>(n) * width;
      normalise(row, stack.norm, width, stack.eps, row);
    });
  };
  team.run(job);
}

template <class Kind>
void run_linear(Team& team, const Linear& linear, const float* x, int count, float* y) {
  static thread_local Encoded encoded;
  encoded.resize(count, linear.steps);
  Encoded& inputs = encoded;
  for (int n = 0; n < count; ++n) inputs.put<Kind>(n, x + static_cast<size_t>(n) * linear.inputs, linear.inputs);
  auto job = [&](int thread) {
    multiply<Kind>(linear, inputs, count, thread, team.size(), [&](int row, int output, __mmask16 mask, __m512 value) {
      _mm512_mask_storeu_ps(y + static_cast<size_t>(row) * linear.outputs + output, mask, value);
    });
  };
  team.run(job);
}

}  // namespace

extern "C" {

Team* new_team(int32_t size) { return new Team(size); }

// Which kinds of weights are compiled is said on the command line: each takes its time.
#ifdef WITH_FLOAT32
void read_float32(Team* team, const Stack* stack, const Pass* pass) { run<Float32, float>(*team, *stack, *pass); }

void multiply_float32(Team* team, const Linear* linear, const float* x, int32_t count, float* y) {
  run_linear<Float32>(*team, *linear, x, count, y);
}
#endif

#ifdef WITH_BFLOAT16
void read_bfloat16(Team* team, const Stack* stack, const Pass* pass) { run<BFloat16, uint16_t>(*team, *stack, *pass); }

void multiply_bfloat16(Team* team, const Linear* linear, const float* x, int32_t count, float* y) {
  run_linear<BFloat16>(*team, *linear, x, count, y);
}
#endif

#ifdef WITH_INT8
void read_int8(Team* team, const Stack* stack, const Pass* pass) { run<Int8, uint16_t>(*team, *stack, *pass); }
#endif

}  // extern "C"
