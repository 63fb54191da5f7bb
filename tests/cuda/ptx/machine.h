// What executes the instructions: warps of 32 lanes, blocks, and memory that knows who touched it.
#pragma once

#include <cstring>
#include <memory>
#include <vector>

#include "program.h"

namespace ptx {

// 32 values of up to 64 bits. A narrower value lies in the lower bits.
struct Register {
  uint64_t lane[kLanes];
  Mask defined;
};

template <typename T>
T get(const Register& from, int lane) {
  T value;
  std::memcpy(&value, &from.lane[lane], sizeof(T));
  return value;
}

template <typename T>
void put(Register& to, int lane, T value) {
  if constexpr (std::is_integral_v<T>) {
    to.lane[lane] = uint64_t(value);  // extended to 64 bits by its sign, as ld does in a wider register
  } else {
    to.lane[lane] = 0;
    std::memcpy(&to.lane[lane], &value, sizeof(T));
  }
}

// Moments are numbered through all launches. Each block of a launch, and each of its stretches between two barriers,
// begins a new one; blocks run one after the other.
struct Clock {
  uint32_t launch = 0, block = 0, now = 0;  // when this launch, this block and this stretch began
};

// Who touched a byte last: a thread of the launch plus one, 0 for nobody, kMany for several.
struct Trace {
  uint32_t writer = 0, written = 0, reader = 0, read = 0;
  bool atomic = false;  // the last write
};
constexpr uint32_t kMany = ~0u;

enum class Access { Read, Write, Atomic };

// One array: a buffer of the caller, or the shared memory of a block.
class Region {
 public:
  Region(std::string name, unsigned char* data, size_t bytes, bool of_block = false)
      : name_(std::move(name)), data_(data), bytes_(bytes), of_block_(of_block), defined_(bytes), traces_(bytes) {}

  unsigned char* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  void define(size_t at, size_t count) { std::memset(defined_.data() + at, 1, count); }
  void make_constant();  // an input: all of it is defined, and no kernel writes it
  void undefine();       // all of it

  // Records an access of a lane of `warp`. Ends the program if it is a fault.
  void touch(const Warp& warp, const Instruction& instruction, int lane, size_t at, size_t count, Access access);

 private:
  void check_order(const Warp& warp, const Instruction& instruction, int lane, Trace& trace, Access access) const;

  std::string name_;
  unsigned char* data_;
  size_t bytes_;
  bool of_block_;  // what former blocks did there is forgotten
  bool constant_ = false;
  std::vector<unsigned char> defined_;
  std::vector<Trace> traces_;
};

struct Block {
  Kernel& kernel;
  const std::vector<unsigned char>& parameters;
  int index, blocks, threads;
  Region& shared;
  Clock& clock;
};

struct Warp {
  Block& block;
  int number;  // in the block
  std::vector<Register> registers;
  Mask active = 0, live = 0;           // lanes that execute the instruction; lanes that have not returned
  std::map<int, Mask> ready, waiting;  // other lanes, by their next instruction: they can continue, or wait for lanes
  bool at_barrier = false;

  void begin();  // of the block
  int thread(int lane) const { return number * kLanes + lane; }
  Register& source(const Instruction& instruction, size_t i) { return registers[size_t(instruction.from[i])]; }
  Register& result(const Instruction& instruction, size_t i) { return registers[size_t(instruction.to[i])]; }

  template <typename Work>
  void for_each_lane(const Work& work) const {
    for (Mask rest = active; rest != 0; rest &= rest - 1) work(__builtin_ctz(rest));
  }

  // Ends the program with a message that names kernel, line, instruction and thread.
  [[noreturn]] void fault(const std::string& what, const Instruction& instruction, int lane) const;
};

// All buffers of the caller. The one that holds an address; null if none does.
Region& add_region(unsigned char* data, size_t bytes);
void remove_region(const unsigned char* data);
Region* region_of(uint64_t address);

}  // namespace ptx
