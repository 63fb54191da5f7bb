// The memory of a buffer. The AddressSanitizer finds every access outside.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdlib>
#include <cstring>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace emulation {

// Memory that begins `shift` bytes after an aligned address. It holds NaN at first.
class Memory {
 public:
  Memory(size_t bytes, size_t shift)
      : size_((bytes + shift + 15) / 16 * 16),
        memory_(static_cast<unsigned char*>(std::aligned_alloc(16, size_))),
        data_(memory_ + shift) {
    if (!memory_) fail("out of memory");
    std::memset(memory_, 0xff, size_);
#if defined(__SANITIZE_ADDRESS__)
    ASAN_POISON_MEMORY_REGION(memory_, shift);
    ASAN_POISON_MEMORY_REGION(data_ + bytes, size_ - shift - bytes);
#endif
  }
  ~Memory() {
#if defined(__SANITIZE_ADDRESS__)
    ASAN_UNPOISON_MEMORY_REGION(memory_, size_);
#endif
    std::free(memory_);
  }
  Memory(const Memory&) = delete;

  unsigned char* data() { return data_; }
  void make_input() {}  // the interpreter of PTX checks that nothing writes there
  void clear(size_t first, size_t count) { std::memset(data_ + first, 0, count); }

 private:
  size_t size_;
  unsigned char *memory_, *data_;
};

}  // namespace emulation
