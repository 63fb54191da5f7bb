// The memory that one thread works in. Every structure of the kernels takes its arrays from an arena: a first pass
// without memory counts the bytes, a second pass hands them out.
#pragma once

#include "kernel.h"

namespace sifa::SIFA_CAPABILITY {

// Every array begins at a cache line, where vectors are loaded fastest.
struct Arena {
  char* memory;  // null: count the bytes only
  int64_t used = 0;

  template <typename E>
  E* allocate(int64_t n) {
    E* array = memory ? reinterpret_cast<E*>(memory + used) : nullptr;
    used += (n * int64_t(sizeof(E)) + 63) / 64 * 64;
    return array;
  }
};

}  // namespace sifa::SIFA_CAPABILITY
