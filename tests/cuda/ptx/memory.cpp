// Loads, stores and atomic operations, and the faults that they can have.
#include <algorithm>
#include <array>

#include "machine.h"

namespace ptx {
namespace {

std::map<uint64_t, std::unique_ptr<Region>> regions;  // by address

const char* word_for(Access access) {
  return access == Access::Read ? "read" : access == Access::Write ? "write" : "atomic operation";
}

// An access is ordered after a former one if a barrier lies between them: not with another block of the same launch.
bool ordered(uint32_t thread, uint32_t moment, uint32_t me, const Clock& clock) {
  return thread == 0 || thread == me || moment < clock.launch || (moment >= clock.block && moment != clock.now);
}

}  // namespace

void Region::make_constant() {
  constant_ = true;
  traces_.clear();
  define(0, bytes_);
}

void Region::undefine() { std::fill(defined_.begin(), defined_.end(), 0); }

void Region::check_order(const Warp& warp, const Instruction& instruction, int lane, Trace& trace,
                         Access access) const {
  const Block& block = warp.block;
  const uint32_t me = uint32_t(block.index * block.threads + warp.thread(lane) + 1);
  Clock clock = block.clock;
  if (of_block_) clock.launch = clock.block;
  const bool both_atomic = access == Access::Atomic && trace.atomic;
  if (!both_atomic && !ordered(trace.writer, trace.written, me, clock))
    warp.fault(std::string("race: ") + word_for(access) + " after the " +
                   (trace.atomic ? "atomic operation" : "write") + " of another thread in " + name_,
               instruction, lane);
  const bool read_ordered = ordered(trace.reader, trace.read, me, clock);
  if (access != Access::Read) {
    if (!read_ordered)
      warp.fault(std::string("race: ") + word_for(access) + " after the read of another thread in " + name_,
                 instruction, lane);
    trace.writer = me;
    trace.written = clock.now;
    trace.atomic = access == Access::Atomic;
  } else if (read_ordered) {
    trace.reader = me;
    trace.read = clock.now;
  } else if (trace.read == clock.now) {
    trace.reader = kMany;
  }  // else another block of this launch has read it: that stays the access that a write meets
  if (instruction.constant && trace.writer != 0 && trace.written >= clock.launch)
    warp.fault("ld.global.nc of what this launch has written in " + name_, instruction, lane);
}

void Region::touch(const Warp& warp, const Instruction& instruction, int lane, size_t at, size_t count, Access access) {
  if (constant_) {
    if (access != Access::Read) warp.fault("write to the input " + name_, instruction, lane);
    return;
  }
  for (size_t i = at; i < at + count; ++i) {
    if (access == Access::Write)
      defined_[i] = 1;
    else if (!defined_[i] && instruction.used >> (i - at) & 1)
      warp.fault("read of what nothing has written in " + name_, instruction, lane);
    check_order(warp, instruction, lane, traces_[i], access);
  }
}

Region& add_region(unsigned char* data, size_t bytes) {
  static int number = 0;
  const std::string name = "buffer " + std::to_string(++number) + " of " + std::to_string(bytes) + " bytes";
  return *(regions[reinterpret_cast<uint64_t>(data)] = std::make_unique<Region>(name, data, bytes));
}

void remove_region(const unsigned char* data) { regions.erase(reinterpret_cast<uint64_t>(data)); }

Region* region_of(uint64_t address) {
  auto after = regions.upper_bound(address);
  if (after == regions.begin()) return nullptr;
  Region* region = std::prev(after)->second.get();
  return address - reinterpret_cast<uint64_t>(region->data()) < region->bytes() ? region : nullptr;
}

namespace {

enum class Space { Global, Shared };

// The address of the access of one lane, in this program, after all checks.
template <Space S>
unsigned char* checked(Warp& warp, const Instruction& instruction, int lane, size_t count, Access access) {
  const uint64_t address = warp.source(instruction, 0).lane[lane] + uint64_t(instruction.displacement);
  if (address % count != 0)
    warp.fault("address " + std::to_string(address) + " is no multiple of " + std::to_string(count), instruction, lane);
  Region* region = S == Space::Shared ? &warp.block.shared : region_of(address);
  if (!region) warp.fault("address outside every buffer", instruction, lane);
  const uint64_t at = address - (S == Space::Shared ? kSharedBase : reinterpret_cast<uint64_t>(region->data()));
  if (at >= region->bytes() || region->bytes() - at < count)
    warp.fault("bytes " + std::to_string(int64_t(at)) + " and following of the " + std::to_string(region->bytes()) +
                   " bytes of a buffer or of the shared memory",
               instruction, lane);
  region->touch(warp, instruction, lane, at, count, access);
  return region->data() + at;
}

// Counts the pieces of 32 bytes that an instruction moves. An access is aligned, so it lies in one of them.
class Sectors {
 public:
  void add(const unsigned char* address) { sector_[size_t(count_++)] = reinterpret_cast<uint64_t>(address) / 32; }
  void count_in(Kernel& kernel) {
    std::sort(sector_.begin(), sector_.begin() + count_);
    kernel.sectors += uint64_t(std::unique(sector_.begin(), sector_.begin() + count_) - sector_.begin());
  }

 private:
  std::array<uint64_t, kLanes> sector_;
  int count_ = 0;
};

// T: an element, of the type that extends it as the instruction asks.
template <typename T, Space S>
void load(Warp& warp, const Instruction& instruction) {
  const size_t count = instruction.to.size() * sizeof(T);
  Sectors sectors;
  warp.for_each_lane([&](int lane) {
    const unsigned char* from = checked<S>(warp, instruction, lane, count, Access::Read);
    sectors.add(from);
    for (size_t i = 0; i < instruction.to.size(); ++i) {
      T value;
      std::memcpy(&value, from + i * sizeof(T), sizeof(T));
      if (instruction.to[i] >= 0) put<T>(warp.result(instruction, i), lane, value);
    }
  });
  if (S == Space::Global) sectors.count_in(warp.block.kernel);
}

template <typename T>
void load_parameter(Warp& warp, const Instruction& instruction) {
  for (size_t i = 0; i < instruction.to.size(); ++i) {
    T value;
    std::memcpy(&value, warp.block.parameters.data() + instruction.displacement + i * sizeof(T), sizeof(T));
    warp.for_each_lane([&](int lane) { put<T>(warp.result(instruction, i), lane, value); });
  }
}

template <typename T, Space S>
void store(Warp& warp, const Instruction& instruction) {
  const size_t elements = instruction.from.size() - 1;
  Sectors sectors;
  warp.for_each_lane([&](int lane) {
    unsigned char* to = checked<S>(warp, instruction, lane, elements * sizeof(T), Access::Write);
    sectors.add(to);
    for (size_t i = 0; i < elements; ++i) {
      const T value = get<T>(warp.source(instruction, 1 + i), lane);
      std::memcpy(to + i * sizeof(T), &value, sizeof(T));
    }
  });
  if (S == Space::Global) sectors.count_in(warp.block.kernel);
}

// Function: from what is in memory and the operand, what is there next. Lanes take their turns in ascending order.
template <typename T, Space S, typename Function>
void atomic(Warp& warp, const Instruction& instruction) {
  const size_t elements = instruction.from.size() - 1;
  Sectors sectors;
  warp.for_each_lane([&](int lane) {
    unsigned char* to = checked<S>(warp, instruction, lane, elements * sizeof(T), Access::Atomic);
    sectors.add(to);
    for (size_t i = 0; i < elements; ++i) {
      T before;
      std::memcpy(&before, to + i * sizeof(T), sizeof(T));
      const T after = Function{}(before, get<T>(warp.source(instruction, 1 + i), lane));
      std::memcpy(to + i * sizeof(T), &after, sizeof(T));
      if (i < instruction.to.size() && instruction.to[i] >= 0) put<T>(warp.result(instruction, i), lane, before);
    }
  });
  if (S == Space::Global) sectors.count_in(warp.block.kernel);
}

template <Space S>
Run atomic_of(const std::string& operation, const std::string& type) {
  if (operation == "add" && type == "f32") return atomic<float, S, std::plus<float>>;
  if (operation == "add" && type == "f64") return atomic<double, S, std::plus<double>>;
  if (operation == "add" && (type == "u32" || type == "s32")) return atomic<uint32_t, S, std::plus<uint32_t>>;
  if (operation == "or" && type == "b32") return atomic<uint32_t, S, std::bit_or<uint32_t>>;
  return nullptr;
}

template <typename T>
Run access_of(const std::string& name, const std::string& space) {
  if (name == "ld" && space == "param") return load_parameter<T>;
  if (name == "ld" && space == "shared") return load<T, Space::Shared>;
  if (name == "ld" && space == "global") return load<T, Space::Global>;
  if (name == "st" && space == "shared") return store<T, Space::Shared>;
  if (name == "st" && space == "global") return store<T, Space::Global>;
  return nullptr;
}

Run access_of(const std::string& name, const std::string& space, const std::string& type) {
  if (type == "s8") return access_of<int8_t>(name, space);
  if (type == "s16") return access_of<int16_t>(name, space);
  if (type == "s32") return access_of<int32_t>(name, space);
  switch (std::stoi(type.substr(1))) {
    case 8:
      return access_of<uint8_t>(name, space);
    case 16:
      return access_of<uint16_t>(name, space);
    case 32:
      return access_of<uint32_t>(name, space);
    default:
      return access_of<uint64_t>(name, space);
  }
}

}  // namespace

void choose_access(const std::vector<std::string>& parts, Instruction& instruction) {
  const auto has = [&](const char* part) { return std::find(parts.begin(), parts.end(), part) != parts.end(); };
  instruction.constant = has("nc");
  if (parts[0] == "ld" || parts[0] == "st") {
    instruction.run = access_of(parts[0], parts[1], parts.back());
    return;
  }
  const std::string operation = has("add") ? "add" : has("or") ? "or" : "";
  instruction.run = has("shared") ? atomic_of<Space::Shared>(operation, parts.back())
                                  : atomic_of<Space::Global>(operation, parts.back());
}

}  // namespace ptx
