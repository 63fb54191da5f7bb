// The memory that one thread works in. Every structure of the kernels takes its arrays from one arena: a first pass
// without memory counts the bytes, a second pass hands them out.
#pragma once

#include "vector.h"

namespace sifa::SIFA_CAPABILITY {

// The memory that one thread works in, handed out in pieces that begin at a cache line, where vectors are loaded
// fastest. Without memory it only counts.
struct Arena {
  char* memory;
  int64_t used = 0;

  template <typename E>
  E* take(int64_t n) {
    E* piece = memory ? reinterpret_cast<E*>(memory + used) : nullptr;
    used += (n * int64_t(sizeof(E)) + 63) / 64 * 64;
    return piece;
  }
};

}  // namespace sifa::SIFA_CAPABILITY
