// Executes blocks: one warp after the other, from barrier to barrier.
#include "machine.h"

#include <algorithm>
#include <climits>
#include <cstdio>
#include <cstdlib>

namespace ptx {

void fail(const std::string& what) {
  std::fprintf(stderr, "ptx: %s\n", what.c_str());
  std::exit(3);
}

void Warp::begin() {
  const int lanes = std::min(kLanes, block.threads - number * kLanes);
  live = lanes == kLanes ? ~Mask(0) : (Mask(1) << lanes) - 1;
  ready[0] = live;
  registers.resize(size_t(block.kernel.registers));
  for (Register& each : registers) each.defined = 0;
  const auto fill = [&](int index, const auto& value) {
    registers[size_t(index)].defined = ~Mask(0);
    for (int lane = 0; lane < kLanes; ++lane) registers[size_t(index)].lane[lane] = uint64_t(value(lane));
  };
  for (const auto& [value, index] : block.kernel.constants) fill(index, [&](int) { return value; });
  for (const auto& [name, index] : block.kernel.special) {
    if (name == "%tid.x")
      fill(index, [&](int lane) { return thread(lane); });
    else if (name == "%ctaid.x")
      fill(index, [&](int) { return block.index; });
    else if (name == "%nctaid.x")
      fill(index, [&](int) { return block.blocks; });
    else if (name == "%ntid.x")
      fill(index, [&](int) { return block.threads; });
    else
      fail("no register " + name);
  }
}

void Warp::fault(const std::string& what, const Instruction& instruction, int lane) const {
  fail(what + "\n  kernel " + block.kernel.name + "\n  line " + std::to_string(instruction.line) + ": " +
       instruction.text + "\n  block " + std::to_string(block.index) + ", thread " + std::to_string(thread(lane)));
}

namespace {

Mask lanes_where(const Warp& warp, const Instruction& instruction, Mask among) {
  if (instruction.predicate < 0) return among;
  const Register& predicate = warp.registers[size_t(instruction.predicate)];
  if (among & ~predicate.defined) warp.fault("the predicate is undefined", instruction, __builtin_ctz(among));
  Mask found = 0;
  for (Mask rest = among; rest != 0; rest &= rest - 1) {
    const int lane = __builtin_ctz(rest);
    found |= Mask(get<bool>(predicate, lane) != instruction.negated) << lane;
  }
  return found;
}

void execute(Warp& warp, const Instruction& instruction, Mask lanes) {
  warp.active = lanes_where(warp, instruction, lanes);
  if (warp.active == 0) return;
  if (!instruction.run) warp.fault("the interpreter does not know the instruction", instruction, 0);
  for (const int from : instruction.from)
    if (const Mask missing = warp.active & ~warp.registers[size_t(from)].defined)
      warp.fault("an operand is undefined", instruction, __builtin_ctz(missing));
  instruction.run(warp, instruction);
  for (const int to : instruction.to)
    if (to >= 0) warp.registers[size_t(to)].defined |= warp.active;
}

// Lanes arrive at an instruction that all lanes of its mask execute together. The last ones execute it for all.
void meet(Warp& warp, const Instruction& instruction, int at, Mask lanes) {
  Mask& here = warp.waiting[at];
  here |= lanes;
  const Mask wanted = get<Mask>(warp.registers[size_t(instruction.from.back())], __builtin_ctz(lanes));
  if (wanted & ~warp.live) warp.fault("the mask has a lane that has returned", instruction, __builtin_ctz(lanes));
  if (here & ~wanted) warp.fault("the mask has not all lanes that are here", instruction, __builtin_ctz(lanes));
  if (here != wanted) return;
  warp.waiting.erase(at);
  ++warp.block.kernel.executed;
  execute(warp, instruction, wanted);
  warp.ready[at + 1] |= wanted;
}

// Executes the lanes that are farthest behind, until they meet others, part or wait.
void run_some(Warp& warp) {
  int at = warp.ready.begin()->first;
  const Mask lanes = warp.ready.begin()->second;
  warp.ready.erase(warp.ready.begin());
  const int others = warp.ready.empty() ? INT_MAX : warp.ready.begin()->first;
  Kernel& kernel = warp.block.kernel;
  while (at < others) {
    const Instruction& instruction = kernel.code[size_t(at)];
    if (instruction.flow == Flow::Warp) return meet(warp, instruction, at, lanes);
    if (instruction.flow == Flow::Block) {
      warp.waiting[at] |= lanes;
      return;
    }
    ++kernel.executed;
    if (instruction.flow == Flow::Next) {
      execute(warp, instruction, lanes);
      ++at;
      continue;
    }
    const Mask leaving = lanes_where(warp, instruction, lanes), staying = lanes & ~leaving;
    if (instruction.flow == Flow::Return) {
      warp.live &= ~leaving;
      if (staying) warp.ready[at + 1] |= staying;
      return;
    }
    if (leaving && staying) {
      warp.ready[instruction.target] |= leaving;
      warp.ready[at + 1] |= staying;
      return;
    }
    at = leaving ? instruction.target : at + 1;
  }
  warp.ready[at] |= lanes;
}

// Until all lanes wait at a barrier or have returned.
void run_to_barrier(Warp& warp) {
  while (!warp.ready.empty()) run_some(warp);
  if (warp.live == 0) return;
  const auto& [at, lanes] = *warp.waiting.begin();
  const Instruction& instruction = warp.block.kernel.code[size_t(at)];
  if (lanes != warp.live || instruction.flow != Flow::Block)
    warp.fault("not all lanes of the warp arrive here", instruction, __builtin_ctz(lanes));
  warp.at_barrier = true;
}

void pass_barrier(Warp& warp) {
  const auto [at, lanes] = *warp.waiting.begin();
  warp.waiting.clear();
  warp.ready[at + 1] = lanes;
  warp.at_barrier = false;
  ++warp.block.kernel.executed;
}

void run_block(std::vector<Warp>& warps, Block& block, bool descending) {
  for (Warp& warp : warps) warp.begin();
  for (;;) {
    size_t arrived = 0;
    for (size_t i = 0; i < warps.size(); ++i) {
      Warp& warp = warps[descending ? warps.size() - 1 - i : i];
      run_to_barrier(warp);
      arrived += warp.at_barrier;
    }
    if (arrived == 0) return;
    if (arrived != warps.size()) fail("a warp has returned before a barrier of " + block.kernel.name);
    ++block.clock.now;
    for (Warp& warp : warps) pass_barrier(warp);
  }
}

}  // namespace

void run_kernel(Kernel& kernel, const Grid& grid, void** arguments) {
  static Clock clock;
  if (kernel.code.empty()) decode(kernel);
  const std::vector<unsigned char> parameters = kernel.layout(arguments);
  std::vector<unsigned char> memory(grid.shared);
  Region shared("the shared memory", memory.data(), memory.size(), true);
  Block block{kernel, parameters, 0, grid.blocks, grid.threads, shared, clock};
  std::vector<Warp> warps;
  for (int i = 0; i < (grid.threads + kLanes - 1) / kLanes; ++i) warps.push_back({block, i});
  clock.launch = ++clock.now;
  for (int i = 0; i < grid.blocks; ++i) {
    block.index = grid.descending ? grid.blocks - 1 - i : i;
    clock.block = ++clock.now;
    shared.undefine();
    run_block(warps, block, grid.descending);
  }
}

}  // namespace ptx
