// What the address and the thread sanitizer must know about fibres. In other builds these functions do nothing.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
extern "C" {
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}
#endif

// A function that changes the fibre must not be instrumented: it would enter in one fibre and return in another one.
#define EMULATION_SWITCHES __attribute__((no_sanitize("thread")))

namespace emulation {

// What the sanitizers keep of a fibre, or of the program's own thread.
struct Watched {
  const void* stack = nullptr;
  size_t size = 0;
  void* fake = nullptr;   // address sanitizer
  void* fibre = nullptr;  // thread sanitizer

  void begin([[maybe_unused]] const void* of_stack, [[maybe_unused]] size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
    stack = of_stack;
    size = bytes;
    fake = nullptr;
#elif defined(__SANITIZE_THREAD__)
    fibre = __tsan_create_fiber(0);
#endif
  }
  void end() {
#if defined(__SANITIZE_THREAD__)
    __tsan_destroy_fiber(fibre);
#endif
  }
  void is_current() {
#if defined(__SANITIZE_THREAD__)
    fibre = __tsan_get_current_fiber();
#endif
  }
};

// Immediately before a switch, in the old fibre.
EMULATION_SWITCHES inline void leave([[maybe_unused]] Watched& from, [[maybe_unused]] const Watched& to,
                                     [[maybe_unused]] bool forever) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(forever ? nullptr : &from.fake, to.stack, to.size);
#elif defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(to.fibre, __tsan_switch_to_fiber_no_sync);
#endif
}

// Immediately after it, in the new one.
EMULATION_SWITCHES inline void arrive([[maybe_unused]] Watched& to, [[maybe_unused]] Watched& from) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(to.fake, &from.stack, &from.size);
#endif
}

// For the thread sanitizer, what a fibre did before `release` comes before what another one does after `acquire`.
inline void release([[maybe_unused]] void* point) {
#if defined(__SANITIZE_THREAD__)
  __tsan_release(point);
#endif
}
inline void acquire([[maybe_unused]] void* point) {
#if defined(__SANITIZE_THREAD__)
  __tsan_acquire(point);
#endif
}

// While it exists, the thread sanitizer does not see what this fibre does: the emulation's own work.
struct Unseen {
#if defined(__SANITIZE_THREAD__)
  Unseen() {
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  }
  ~Unseen() {
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
  }
#else
  Unseen() {}  // so that no compiler takes it for an unused variable
#endif
};

}  // namespace emulation
