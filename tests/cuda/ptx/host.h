// What emulated.cpp needs to run the kernels' PTX instead of their C++.
#pragma once

#include <cstddef>
#include <string>

namespace ptx {

class Region;

// Memory that begins `shift` bytes after an aligned address. Kernels may read only what was written there.
class Memory {
 public:
  Memory(size_t bytes, size_t shift);
  ~Memory();
  Memory(const Memory&) = delete;
  unsigned char* data() { return data_; }
  void make_input();                       // kernels read all of it, and write none of it
  void clear(size_t first, size_t count);  // bytes that are zero before a launch

 private:
  unsigned char *memory_, *data_;
  Region* region_;  // what the kernels did there
};

// The kernels of a file that nvcc -ptx wrote.
void read_kernels(const std::string& path);

// A line for each kernel that ran since the last call: its name, instructions of its warps, 32-byte pieces of memory.
std::string take_counts();

}  // namespace ptx
