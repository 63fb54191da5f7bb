// The interpreter as emulated.cpp sees it, and the launch of a kernel.
#include "host.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>

#include <cuda_runtime_api.h>

#include "machine.h"

namespace ptx {
namespace {

constexpr size_t kGap = 1 << 20;  // bytes before and after a buffer: an access a little outside hits no other buffer
std::map<std::string, Kernel> kernels;

}  // namespace

Memory::Memory(size_t bytes, size_t shift) {
  const size_t size = (bytes + shift + 255) / 256 * 256 + 2 * kGap;
  memory_ = static_cast<unsigned char*>(std::aligned_alloc(256, size));
  if (!memory_) fail("out of memory");
  data_ = memory_ + kGap + shift;
  std::memset(data_, 0xff, bytes);
  region_ = &add_region(data_, bytes);
}

Memory::~Memory() {
  remove_region(data_);
  std::free(memory_);
}

void Memory::make_input() { region_->make_constant(); }

void Memory::clear(size_t first, size_t count) {
  std::memset(data_ + first, 0, count);
  region_->define(first, count);
}

void read_kernels(const std::string& path) { read_kernels(path, kernels); }

std::string take_counts() {
  std::string lines;
  for (auto& [name, kernel] : kernels) {
    if (kernel.executed == 0) continue;
    lines += name + ' ' + std::to_string(kernel.executed) + ' ' + std::to_string(kernel.sectors) + '\n';
    kernel.executed = kernel.sectors = 0;
  }
  return lines;
}

}  // namespace ptx

// The linker's name of the function is the name of the kernel in PTX.
cudaError_t emulation::launch_compiled(const void* function, const cudaLaunchConfig_t& config, void** arguments) {
  Dl_info symbol;
  if (!dladdr(function, &symbol) || !symbol.dli_sname) ptx::fail("a kernel without a name: link with -rdynamic");
  const auto found = ptx::kernels.find(symbol.dli_sname);
  if (found == ptx::kernels.end()) ptx::fail("no PTX of " + std::string(symbol.dli_sname));
  ptx::run_kernel(
      found->second,
      {int(std::min(config.gridDim.x, max_blocks)), int(config.blockDim.x), config.dynamicSmemBytes, order == 1},
      arguments);
  return cudaSuccess;
}
