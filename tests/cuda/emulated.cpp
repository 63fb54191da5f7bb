// Runs the CUDA kernels on the CPU with the headers in emulation/: a program that reads cases and writes results.
//
//   emulated DIRECTORY [PTX ...]
//
// With SIFA_PTX and linked with ptx/, it executes the PTX of the kernels, from the files that it gets, instead of their
// C++, and writes what each case executed to DIRECTORY/counts.txt: instructions and sectors of each kernel.
//
// DIRECTORY/cases.txt has one case on each line: name, type of x and type of the offset (f32 f16 bf16 f64; none;
// saliency for the motion saliency instead of attention), N T C H W k dilation groups, the five strides of the offset,
// the number of elements by which x is moved from an aligned address, the number of multiprocessors, the order of the
// threads, the largest number of blocks in a grid, whether the gradient is deterministic, and whether x is added.
//
// Inputs are NAME.x, NAME.offset and NAME.grad, results NAME.out, NAME.grad_x and NAME.grad_offset: plain arrays, dense
// as (N, T, H, W, C); of the motion saliency, grad and out are (N, T-1, H, W, C). grad_x has the type of the
// accumulator (without offsets: of x). Every buffer is a separate allocation of the exact size, so that the
// AddressSanitizer finds every access outside. Results hold NaN before a run.
#include <fstream>
#include <iostream>
#include <sstream>
#include <string>

#include <cuda_runtime_api.h>

#include "launch.cuh"

#if defined(SIFA_PTX)
#include "ptx/host.h"
using ptx::Memory;
#else
#include "emulation/memory.h"
using emulation::Memory;
#endif

namespace sifa {
alignas(128) unsigned char shared_memory[228 * 1024];
}

void emulation::prepare_shared(size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  ASAN_UNPOISON_MEMORY_REGION(sifa::shared_memory, sizeof(sifa::shared_memory));
#endif
  std::memset(sifa::shared_memory, 0xff, sizeof(sifa::shared_memory));  // NaN, and no small number
#if defined(__SANITIZE_ADDRESS__)
  ASAN_POISON_MEMORY_REGION(sifa::shared_memory + bytes, sizeof(sifa::shared_memory) - bytes);
#endif
}

namespace {

[[noreturn]] void fail(const std::string& what) {
  std::cerr << what << std::endl;
  std::exit(2);
}

// An array that kernels read or write.
class Buffer {
 public:
  explicit Buffer(size_t bytes, size_t shift = 0) : bytes_(bytes), memory_(bytes, shift) {}
  unsigned char* data() { return memory_.data(); }
  void clear(size_t first, size_t count) { memory_.clear(first, count); }
  void read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file.read(reinterpret_cast<char*>(data()), std::streamsize(bytes_))) fail("cannot read " + path);
    memory_.make_input();
  }
  void write(const std::string& path) {
    std::ofstream file(path, std::ios::binary);
    if (!file.write(reinterpret_cast<char*>(data()), std::streamsize(bytes_))) fail("cannot write " + path);
  }

 private:
  size_t bytes_;
  Memory memory_;
};

void check(cudaError_t error, const std::string& path) {
  if (error != cudaSuccess) fail(path + ": launch error " + std::to_string(error));
}

template <typename S>
void run_saliency(const std::string& path, const sifa::Problem& p, size_t shift, int multiprocessors) {
  const size_t of_x = size_t(p.batch * p.frames * p.frame_size()) * sizeof(S);
  const size_t of_pairs = size_t(p.batch * p.pairs() * p.frame_size()) * sizeof(S);
  const sifa::Call call{nullptr, multiprocessors};
  Buffer x(of_x, shift * sizeof(S)), grad(of_pairs), out(of_pairs), grad_x(of_x);
  x.read(path + ".x");
  grad.read(path + ".grad");
  if (p.frames > 1) check(sifa::run_saliency<S>(p, call, x.data(), out.data()), path);
  check(sifa::run_saliency_backward<S>(p, call, grad.data(), x.data(), grad_x.data()), path);
  out.write(path + ".out");
  grad_x.write(path + ".grad_x");
}

template <typename S>
void run(const std::string& path, sifa::Problem p, const std::string& offset_type, size_t shift, int multiprocessors,
         bool deterministic) {
  using A = sifa::Accumulator<S>;
  if (offset_type == "saliency") return run_saliency<S>(path, p, shift, multiprocessors);
  const size_t elements = size_t(p.batch * p.frames * p.frame_size());
  const sifa::Call call{nullptr, multiprocessors};
  Buffer x(elements * sizeof(S), shift * sizeof(S)), grad(elements * sizeof(S)), out(elements * sizeof(S));
  x.read(path + ".x");
  grad.read(path + ".grad");
  if (offset_type == "none") {
    check(sifa::run_forward<S>(p, call, x.data(), nullptr, out.data()), path);
    Buffer grad_x(elements * sizeof(S));
    check(sifa::run_regular_backward<S>(p, call, grad.data(), x.data(), grad_x.data()), path);
    out.write(path + ".out");
    grad_x.write(path + ".grad_x");
    return;
  }
  p.offset_in_float = offset_type == "f32";
  const size_t offset_size = p.offset_in_float ? 4 : sizeof(S);
  int64_t extent[5] = {p.batch, p.frames - 1, 2 * p.taps(), p.height, p.width}, last = 0, count = 1;
  for (int i = 0; i < 5; ++i) {
    last += (extent[i] - 1) * p.offset_strides[i];
    count *= extent[i];
  }
  Buffer offset(size_t(last + 1) * offset_size), grad_offset(size_t(count) * offset_size);
  offset.read(path + ".offset");
  check(sifa::run_forward<S>(p, call, x.data(), offset.data(), out.data()), path);
  // Zeros, or the gradient, only in the frames for which kernels.h requires them. The other frames hold NaN.
  Buffer sums(elements * sizeof(A));
  for (int64_t n = 0; n < p.batch; ++n)
    for (int64_t t = p.frames == 2 ? 1 : 2; t < p.frames; t += 2)
      sums.clear(size_t((n * p.frames + t) * p.frame_size()) * sizeof(A), size_t(p.frame_size()) * sizeof(A));
  for (int64_t n = 0; n < p.batch && p.residual && p.frames == 2; ++n)
    for (int64_t i = 0; i < p.frame_size(); ++i) {
      const int64_t at = (2 * n + 1) * p.frame_size() + i;
      reinterpret_cast<A*>(sums.data())[at] = sifa::widen(reinterpret_cast<const S*>(grad.data())[at]);
    }
  std::unique_ptr<Buffer> weights;
  if (deterministic) weights.reset(new Buffer(size_t(count * p.groups) * sizeof(A)));
  check(sifa::run_backward<S>(p, call, grad.data(), x.data(), offset.data(), sums.data(), grad_offset.data(),
                              weights ? weights->data() : nullptr),
        path);
  out.write(path + ".out");
  sums.write(path + ".grad_x");
  grad_offset.write(path + ".grad_offset");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) fail("usage: emulated DIRECTORY [PTX ...]");
  const std::string folder = argv[1];
#if defined(SIFA_PTX)
  for (int i = 2; i < argc; ++i) ptx::read_kernels(argv[i]);
  std::ofstream counts(folder + "/counts.txt");
#endif
  std::ifstream cases(folder + "/cases.txt");
  if (!cases) fail("cannot read " + folder + "/cases.txt");
  std::string line;
  while (std::getline(cases, line)) {
    std::istringstream words(line);
    std::string name, storage, offset_type;
    sifa::Problem p{};
    size_t shift;
    int multiprocessors, deterministic;
    words >> name >> storage >> offset_type >> p.batch >> p.frames >> p.channels >> p.height >> p.width >>
        p.kernel_size >> p.dilation >> p.groups;
    for (int64_t& stride : p.offset_strides) words >> stride;
    words >> shift >> multiprocessors >> emulation::order >> emulation::max_blocks >> deterministic >> p.residual;
    if (!words) fail("not a case: " + line);
    const std::string path = folder + "/" + name;
    if (storage == "f32") run<float>(path, p, offset_type, shift, multiprocessors, deterministic);
    if (storage == "f64") run<double>(path, p, offset_type, shift, multiprocessors, deterministic);
    if (storage == "f16") run<__half>(path, p, offset_type, shift, multiprocessors, deterministic);
    if (storage == "bf16") run<__nv_bfloat16>(path, p, offset_type, shift, multiprocessors, deterministic);
    std::cout << name << ' ' << emulation::launches << ' ' << emulation::blocks_run << std::endl;
#if defined(SIFA_PTX)
    counts << "case " << name << '\n' << ptx::take_counts();
#endif
  }
}
