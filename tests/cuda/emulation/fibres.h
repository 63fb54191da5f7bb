// The threads of a block as fibres. A fibre waits at a barrier or a shuffle until all fibres of the block or of the
// warp have reached it; a block in which no fibre can continue is an error. Between two barriers the fibres run one
// after the other, in an order that the caller selects, so a missing barrier causes a wrong result.
#pragma once

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <vector>

#include "sanitizers.h"

namespace emulation {

[[noreturn]] inline void fail(const char* what) {
  std::fprintf(stderr, "emulation: %s\n", what);
  std::fflush(stderr);
  std::abort();
}

enum class Waits { No, Block, Warp };

// Where a fibre continues: a stack pointer. On processors without the lines of assembly below, the context of
// ucontext.h, which is slower because it reads the signal mask at every switch.
#if defined(__x86_64__)
struct Context {
  void* stack_pointer;
};
extern "C" void emulation_switch(Context* from, const Context* to);
asm(R"(
.text
.weak emulation_switch
emulation_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq (%rsi), %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");
inline void start(Context& context, unsigned char* stack, size_t size, void (*entry)()) {
  void** top = reinterpret_cast<void**>(reinterpret_cast<uintptr_t>(stack + size) & ~uintptr_t(15));
  top -= 2;  // as after a call, the stack is 8 bytes off a multiple of 16 when `entry` begins
  *top = reinterpret_cast<void*>(entry);
  context.stack_pointer = std::memset(top - 6, 0, 6 * sizeof(void*));
}
EMULATION_SWITCHES inline void change(Context& from, Context& to) { emulation_switch(&from, &to); }
#else
using Context = ucontext_t;
inline void start(Context& context, unsigned char* stack, size_t size, void (*entry)()) {
  getcontext(&context);
  context.uc_stack.ss_sp = stack;
  context.uc_stack.ss_size = size;
  context.uc_link = nullptr;
  makecontext(&context, entry, 0);
}
EMULATION_SWITCHES inline void change(Context& from, Context& to) { swapcontext(&from, &to); }
#endif

struct Fibre {
  Context context;
  std::unique_ptr<unsigned char[]> stack;
  Watched watched;
  int block_barriers = 0, warp_barriers = 0;  // that it has passed
  bool done;
  Waits waits;
  // The exchange of a warp: the value of this lane, and, when all lanes of `mask` have arrived, the values of all
  // lanes.
  unsigned mask;
  int kind;
  alignas(16) unsigned char given[16];
  alignas(16) unsigned char received[32][16];
};

constexpr size_t kStack = 256 * 1024;

// The block that is running.
struct Block {
  std::vector<Fibre> fibres;
  Context scheduler;
  Watched watched;  // the scheduler
  std::function<void()> kernel;
  int current = 0;
  // Where the thread sanitizer learns what is ordered: by a barrier of the block, of a warp, by the end of the block.
  // Barriers alternate between two points: a fibre may reach the next one before others have left the former.
  char at_block[2], at_warp[32][2], at_end;
};
inline Block block;
inline std::mt19937 order_random;
inline int order = 0;                      // 0: ascending, 1: descending, 2: random, different in each round
inline unsigned max_blocks = 0xffffffffu;  // limits the grid: kernels continue with step gridDim.x
inline long launches = 0, blocks_run = 0;

inline Fibre& self() { return block.fibres[size_t(block.current)]; }

EMULATION_SWITCHES inline void to_scheduler(bool forever) {
  Fibre& fibre = self();
  leave(fibre.watched, block.watched, forever);
  change(fibre.context, block.scheduler);
  arrive(fibre.watched, block.watched);
}

inline void end_fibre() {
  release(&block.at_end);
  const Unseen unseen;
  self().done = true;
}

// Without a variable of its own: the function never returns, so the address sanitizer would never release it.
inline void fibre_main() {
  arrive(self().watched, block.watched);
  block.kernel();
  end_fibre();
  to_scheduler(true);
}

EMULATION_SWITCHES inline void to_fibre(int index) {
  block.current = index;
  Fibre& fibre = self();
  leave(block.watched, fibre.watched, false);
  change(block.scheduler, fibre.context);
  arrive(block.watched, fibre.watched);
}

inline void block_barrier() {
  Fibre& me = self();
  char* const point = &block.at_block[me.block_barriers % 2];
  release(point);
  {
    const Unseen unseen;
    ++me.block_barriers;
    me.waits = Waits::Block;
  }
  to_scheduler(false);
  acquire(point);
}

inline void begin_block(int threads) {
  if (int(block.fibres.size()) < threads) block.fibres.resize(size_t(threads));
  block.watched.is_current();
  for (int i = 0; i < threads; ++i) {
    Fibre& fibre = block.fibres[size_t(i)];
    if (!fibre.stack) fibre.stack.reset(new unsigned char[kStack]);
    start(fibre.context, fibre.stack.get(), kStack, fibre_main);
    fibre.watched.begin(fibre.stack.get(), kStack);
    fibre.done = false;
    fibre.waits = Waits::No;
    fibre.block_barriers = fibre.warp_barriers = 0;
  }
}

// Each fibre that can continue does so, until it waits. False if all have ended.
inline bool run_round(const std::vector<int>& turns) {
  const int threads = int(turns.size());
  bool running = false;
  for (int i : turns) {
    Fibre& fibre = block.fibres[size_t(i)];
    if (fibre.done || fibre.waits != Waits::No) continue;
    running = true;
    to_fibre(i);
  }
  int left = 0, at_barrier = 0;
  for (int i = 0; i < threads; ++i) {
    left += !block.fibres[size_t(i)].done;
    at_barrier += block.fibres[size_t(i)].waits == Waits::Block;
  }
  if (left == 0) return false;
  if (at_barrier == left) {
    if (left != threads) fail("a thread ended before a barrier at which others wait");
    for (int i = 0; i < threads; ++i) block.fibres[size_t(i)].waits = Waits::No;
  } else if (!running) {
    fail("no thread of the block can continue: not all threads reach a barrier or a shuffle");
  }
  return true;
}

inline void run_block(int threads) {
  const Unseen unseen;
  begin_block(threads);
  std::vector<int> turns(static_cast<size_t>(threads));
  for (int i = 0; i < threads; ++i) turns[size_t(i)] = order == 1 ? threads - 1 - i : i;
  do {
    if (order == 2) std::shuffle(turns.begin(), turns.end(), order_random);
  } while (run_round(turns));
  acquire(&block.at_end);
  for (int i = 0; i < threads; ++i) block.fibres[size_t(i)].watched.end();
}

// Exchanges `value` among the lanes of `mask`. Returns the fibre, which has received the values of all lanes.
template <typename T>
const Fibre& exchange(unsigned mask, int kind, T value) {
  static_assert(sizeof(T) <= 16);
  const Unseen unseen;
  Fibre& me = self();
  const int first = block.current / 32 * 32, lane = block.current % 32;
  if (!(mask >> lane & 1)) fail("a lane shuffles with a mask that does not contain it");
  me.mask = mask;
  me.kind = kind;
  std::memcpy(me.given, &value, sizeof(T));
  me.waits = Waits::Warp;
  bool all = true;
  for (int i = 0; i < 32; ++i) {
    if (!(mask >> i & 1)) continue;
    const Fibre& other = block.fibres[size_t(first + i)];
    if (other.done) fail("the mask of a shuffle contains a lane that has ended");
    if (other.waits == Waits::Warp && (other.mask != mask || other.kind != kind))
      fail("lanes of one warp meet in different shuffles");
    all = all && other.waits == Waits::Warp;
  }
  if (!all) {
    to_scheduler(false);
    return self();
  }
  for (int i = 0; i < 32; ++i) {
    if (!(mask >> i & 1)) continue;
    Fibre& other = block.fibres[size_t(first + i)];
    for (int j = 0; j < 32; ++j)
      if (mask >> j & 1) std::memcpy(other.received[j], block.fibres[size_t(first + j)].given, 16);
    other.waits = Waits::No;
  }
  return me;
}

inline void warp_barrier(unsigned mask) {
  Fibre& me = self();
  char* const point = &block.at_warp[block.current / 32][me.warp_barriers % 2];
  release(point);
  {
    const Unseen unseen;
    ++me.warp_barriers;
  }
  exchange(mask, 1, 0);
  acquire(point);
}

template <typename T>
T shuffle(unsigned mask, int kind, T value, int source) {
  if (!(mask >> source & 1)) fail("a shuffle reads a lane that is not in its mask");
  const Fibre& me = exchange(mask, kind, value);
  T result;
  std::memcpy(&result, me.received[source], sizeof(T));
  return result;
}

inline size_t shared_limit = 48 * 1024;
void prepare_shared(size_t bytes);  // the program defines it: the array is in the namespace of the kernels

}  // namespace emulation
