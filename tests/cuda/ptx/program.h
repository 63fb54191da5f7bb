// A kernel as the interpreter executes it: PTX text, decoded into an array of instructions.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace ptx {

constexpr int kLanes = 32;
constexpr uint64_t kSharedBase = 4096;  // address of the shared memory of a block; 0 is none
using Mask = uint32_t;                  // one bit for each lane of a warp

[[noreturn]] void fail(const std::string& what);  // ends the program with status 3

struct Warp;
struct Instruction;
using Run = void (*)(Warp&, const Instruction&);

// Next: continues with the next instruction. Warp, Block: first waits for the lanes of a mask, for the whole block.
enum class Flow { Next, Branch, Return, Warp, Block };

struct Instruction {
  Run run = nullptr;  // for all active lanes; null: the interpreter does not know it
  Flow flow = Flow::Next;
  int predicate = -1;    // register, or -1
  bool negated = false;  // the predicate
  std::vector<int> to, from;
  int64_t displacement = 0;  // added to the address in from[0]
  int target = 0;            // of a branch
  bool constant = false;     // ld.global.nc: of memory that no kernel changes meanwhile
  uint64_t used = ~0ull;     // bytes of a load that are used: padding need not be initialised
  std::string text;
  int line = 0;
};

struct Parameter {
  std::string name;
  size_t at, size;
};

struct Kernel {
  std::string name;
  std::vector<Parameter> parameters;
  std::vector<std::pair<int, std::string>> lines;  // of its body, with their numbers in the file; decoded when needed
  std::vector<Instruction> code;
  int registers = 0;
  std::map<uint64_t, int> constants;   // registers that hold a literal
  std::map<std::string, int> special;  // registers that hold %tid.x and so on
  uint64_t executed = 0, sectors = 0;  // instructions of warps; pieces of 32 bytes that they move to and from memory
  std::vector<unsigned char> layout(void** arguments) const;  // the parameters as the kernel reads them
};

struct Grid {
  int blocks, threads;  // threads of a block
  size_t shared;        // bytes of a block
  bool descending;      // the order of blocks and warps
};

// machine.cpp
void run_kernel(Kernel& kernel, const Grid& grid, void** arguments);
// parser.cpp. The kernels of a file, and the body of one.
void read_kernels(const std::string& path, std::map<std::string, Kernel>& kernels);
void decode(Kernel& kernel);

// operations.cpp. Sets what an instruction does, from its opcode: `parts` is the opcode, divided at its dots.
void choose_operation(const std::vector<std::string>& parts, Instruction& instruction);
// memory.cpp. The same for loads, stores and atomic operations.
void choose_access(const std::vector<std::string>& parts, Instruction& instruction);

}  // namespace ptx
