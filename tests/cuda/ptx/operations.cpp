// What the instructions compute that need no memory. An opcode that is not here ends the program when it is executed.
#include <array>
#include <cmath>
#include <limits>
#include <utility>

#include "machine.h"

namespace ptx {
namespace {

using Half = _Float16;
struct BFloat16 {
  uint16_t bits;
};

template <typename To, typename... From>
struct Lanewise {
  // Each lane computes the function of its operands. Function: a lambda that captures nothing.
  template <typename Function, size_t... I>
  static void run(Warp& warp, const Instruction& instruction, std::index_sequence<I...>) {
    Register& to = warp.result(instruction, 0);
    const std::array<const Register*, sizeof...(I)> from{&warp.source(instruction, I)...};
    warp.for_each_lane([&](int lane) { put<To>(to, lane, To(Function{}(get<From>(*from[I], lane)...))); });
  }
  template <typename Function>
  static Run of(Function) {
    return [](Warp& warp, const Instruction& in) { run<Function>(warp, in, std::index_sequence_for<From...>()); };
  }
};

// visit(a value of the type that a suffix of an opcode names); null if it is no such type.
template <typename Visit>
Run with_integer(const std::string& type, const Visit& visit) {
  if (type == "s16") return visit(int16_t());
  if (type == "s32") return visit(int32_t());
  if (type == "s64") return visit(int64_t());
  if (type == "u16" || type == "b16") return visit(uint16_t());
  if (type == "u32" || type == "b32") return visit(uint32_t());
  if (type == "u64" || type == "b64") return visit(uint64_t());
  return nullptr;
}

template <typename Visit>
Run with_float(const std::string& type, const Visit& visit) {
  if (type == "f32") return visit(float());
  if (type == "f64") return visit(double());
  return nullptr;
}

template <typename Visit>
Run with_type(const std::string& type, const Visit& visit) {
  const Run integer = with_integer(type, visit);
  return integer ? integer : with_float(type, visit);
}

// ---- Arithmetic. The program is compiled with -fwrapv: signed integers wrap around, as on the GPU. -----------------

template <typename T>
Run arithmetic(const std::string& name) {
  if (name == "add") return Lanewise<T, T, T>::of([](T a, T b) { return a + b; });
  if (name == "sub") return Lanewise<T, T, T>::of([](T a, T b) { return a - b; });
  if (name == "neg") return Lanewise<T, T>::of([](T a) { return -a; });
  if (name == "abs") return Lanewise<T, T>::of([](T a) { return a < 0 ? -a : a; });
  if (name == "mov") return Lanewise<T, T>::of([](T a) { return a; });
  if (name == "selp") return Lanewise<T, T, T, bool>::of([](T a, T b, bool first) { return first ? a : b; });
  return nullptr;
}

template <typename T>
T quotient(T a, T b) {
  if (b == 0) return T(-1);
  return T(-1) < 0 && b == T(-1) ? T(0 - a) : T(a / b);  // the smallest number divided by -1 is no number
}

template <typename T>
T shifted_right(T a, uint32_t by) {
  return by < 8 * sizeof(T) ? T(a >> by) : T(a < 0 ? -1 : 0);  // copies of the sign come in
}

template <typename T>
Run integer_arithmetic(const std::string& name) {
  if (name == "mul.lo") return Lanewise<T, T, T>::of([](T a, T b) { return uint64_t(a) * uint64_t(b); });
  if (name == "mad.lo") return Lanewise<T, T, T, T>::of([](T a, T b, T c) { return uint64_t(a) * uint64_t(b) + c; });
  if (name == "div") return Lanewise<T, T, T>::of([](T a, T b) { return quotient(a, b); });
  if (name == "rem") return Lanewise<T, T, T>::of([](T a, T b) { return a - T(uint64_t(quotient(a, b)) * b); });
  if (name == "min") return Lanewise<T, T, T>::of([](T a, T b) { return a < b ? a : b; });
  if (name == "max") return Lanewise<T, T, T>::of([](T a, T b) { return a < b ? b : a; });
  if (name == "and") return Lanewise<T, T, T>::of([](T a, T b) { return a & b; });
  if (name == "or") return Lanewise<T, T, T>::of([](T a, T b) { return a | b; });
  if (name == "xor") return Lanewise<T, T, T>::of([](T a, T b) { return a ^ b; });
  if (name == "not") return Lanewise<T, T>::of([](T a) { return ~a; });
  if (name == "shl")
    return Lanewise<T, T, uint32_t>::of([](T a, uint32_t by) { return by < 8 * sizeof(T) ? a << by : 0; });
  if (name == "shr") return Lanewise<T, T, uint32_t>::of([](T a, uint32_t by) { return shifted_right(a, by); });
  if (name == "popc") return Lanewise<uint32_t, T>::of([](T a) { return __builtin_popcountll(a); });
  return arithmetic<T>(name);
}

template <typename T>
Run float_arithmetic(std::string name) {
  if (const size_t rounding = name.find(".rn"); rounding != std::string::npos) name.resize(rounding);
  if (name == "mul") return Lanewise<T, T, T>::of([](T a, T b) { return a * b; });
  if (name == "fma") return Lanewise<T, T, T, T>::of([](T a, T b, T c) { return std::fma(a, b, c); });
  // The GPU's results differ from these by a few units in the last place.
  if (name == "ex2.approx") return Lanewise<T, T>::of([](T a) { return std::exp2(a); });
  if (name == "div.approx") return Lanewise<T, T, T>::of([](T a, T b) { return a / b; });
  if (name == "rcp") return Lanewise<T, T>::of([](T a) { return 1 / a; });
  if (name == "div") return Lanewise<T, T, T>::of([](T a, T b) { return a / b; });
  if (name == "min") return Lanewise<T, T, T>::of([](T a, T b) { return std::fmin(a, b); });
  if (name == "max") return Lanewise<T, T, T>::of([](T a, T b) { return std::fmax(a, b); });
  return arithmetic<T>(name);
}

// Twice as wide as the operands.
template <typename Wide, typename T>
Run wide_arithmetic(const std::string& name) {
  if (name == "mul.wide") return Lanewise<Wide, T, T>::of([](T a, T b) { return Wide(a) * b; });
  if (name == "mad.wide") return Lanewise<Wide, T, T, Wide>::of([](T a, T b, Wide c) { return Wide(a) * b + c; });
  if (name == "mul.hi") return Lanewise<T, T, T>::of([](T a, T b) { return Wide(a) * b >> 8 * sizeof(T); });
  return nullptr;
}

Run wide_arithmetic(const std::string& name, const std::string& type) {
  if (type == "s16") return wide_arithmetic<int32_t, int16_t>(name);
  if (type == "u16") return wide_arithmetic<uint32_t, uint16_t>(name);
  if (type == "s32") return wide_arithmetic<int64_t, int32_t>(name);
  if (type == "u32") return wide_arithmetic<uint64_t, uint32_t>(name);
  return nullptr;
}

// ---- Comparisons and predicates -------------------------------------------------------------------------------------

template <typename T>
Run comparison(const std::string& name) {
  if (name == "eq") return Lanewise<bool, T, T>::of([](T a, T b) { return a == b; });
  if (name == "ne") return Lanewise<bool, T, T>::of([](T a, T b) { return a < b || b < a; });
  if (name == "lt" || name == "lo") return Lanewise<bool, T, T>::of([](T a, T b) { return a < b; });
  if (name == "le" || name == "ls") return Lanewise<bool, T, T>::of([](T a, T b) { return a <= b; });
  if (name == "gt" || name == "hi") return Lanewise<bool, T, T>::of([](T a, T b) { return b < a; });
  if (name == "ge" || name == "hs") return Lanewise<bool, T, T>::of([](T a, T b) { return b <= a; });
  // True for NaN too.
  if (name == "equ") return Lanewise<bool, T, T>::of([](T a, T b) { return !(a < b || b < a); });
  if (name == "neu") return Lanewise<bool, T, T>::of([](T a, T b) { return !(a == b); });
  if (name == "ltu") return Lanewise<bool, T, T>::of([](T a, T b) { return !(b <= a); });
  if (name == "leu") return Lanewise<bool, T, T>::of([](T a, T b) { return !(b < a); });
  if (name == "gtu") return Lanewise<bool, T, T>::of([](T a, T b) { return !(a <= b); });
  if (name == "geu") return Lanewise<bool, T, T>::of([](T a, T b) { return !(a < b); });
  if (name == "num") return Lanewise<bool, T, T>::of([](T a, T b) { return a == a && b == b; });
  if (name == "nan") return Lanewise<bool, T, T>::of([](T a, T b) { return !(a == a && b == b); });
  return nullptr;
}

Run of_predicates(const std::string& name) {
  if (name == "mov") return Lanewise<bool, bool>::of([](bool a) { return a; });
  if (name == "not") return Lanewise<bool, bool>::of([](bool a) { return !a; });
  if (name == "and") return Lanewise<bool, bool, bool>::of([](bool a, bool b) { return a && b; });
  if (name == "or") return Lanewise<bool, bool, bool>::of([](bool a, bool b) { return a || b; });
  if (name == "xor") return Lanewise<bool, bool, bool>::of([](bool a, bool b) { return a != b; });
  return nullptr;
}

// ---- Conversions ----------------------------------------------------------------------------------------------------

float widened(BFloat16 value) {
  const uint32_t bits = uint32_t(value.bits) << 16;
  float result;
  std::memcpy(&result, &bits, sizeof(result));
  return result;
}

BFloat16 rounded(float value) {  // to nearest, ties to even
  if (value != value) return {0x7fff};
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return {uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

// Toward zero, and to the nearest integer that there is.
template <typename To, typename From>
To truncated(From value) {
  constexpr To least = std::numeric_limits<To>::min(), most = std::numeric_limits<To>::max();
  if (value != value) return 0;
  return value <= From(least) ? least : value >= From(most) ? most : To(value);
}

Run conversion(const std::string& to, const std::string& from) {
  if (to == "f32" && from == "bf16") return Lanewise<float, BFloat16>::of([](BFloat16 a) { return widened(a); });
  if (to == "bf16" && from == "f32") return Lanewise<BFloat16, float>::of([](float a) { return rounded(a); });
  if (to == "f32" && from == "f16") return Lanewise<float, Half>::of([](Half a) { return float(a); });
  if (to == "f16" && from == "f32") return Lanewise<Half, float>::of([](float a) { return Half(a); });
  return with_type(from, [&](auto source) {
    using From = decltype(source);
    const Run integer = with_integer(to, [](auto target) {
      using To = decltype(target);
      if constexpr (std::is_integral_v<From>)
        return Lanewise<To, From>::of([](From a) { return a; });
      else
        return Lanewise<To, From>::of([](From a) { return truncated<To>(a); });
    });
    const auto plain = [](auto target) { return Lanewise<decltype(target), From>::of([](From a) { return a; }); };
    return integer ? integer : with_float(to, plain);
  });
}

// ---- Bits -----------------------------------------------------------------------------------------------------------

// The bytes of b:a (8 of them) that the digits of `choice` name; a digit above 7 names a byte's sign instead.
uint32_t permuted(uint32_t a, uint32_t b, uint32_t choice) {
  const uint64_t both = uint64_t(b) << 32 | a;
  uint32_t result = 0;
  for (int i = 0; i < 4; ++i) {
    const uint32_t digit = choice >> 4 * i & 15, byte = uint32_t(both >> 8 * (digit & 7)) & 255;
    result |= (digit < 8 ? byte : byte & 128 ? 255u : 0u) << 8 * i;
  }
  return result;
}

// `length` bits of a, at bit `at` of b.
uint32_t inserted(uint32_t a, uint32_t b, uint32_t at, uint32_t length) {
  at &= 255;
  length &= 255;
  const uint64_t mask = (length < 32 ? (uint64_t(1) << length) - 1 : 0xffffffffu) << (at < 32 ? at : 32);
  return uint32_t((b & ~mask) | (uint64_t(a) << (at < 32 ? at : 32) & mask));
}

uint32_t reversed(uint32_t a) {
  uint32_t result = 0;
  for (int i = 0; i < 32; ++i) result |= (a >> i & 1) << (31 - i);
  return result;
}

Run of_bits(const std::string& name) {
  using Word = uint32_t;
  if (name == "bfi.b32")
    return Lanewise<Word, Word, Word, Word, Word>::of(
        [](Word a, Word b, Word at, Word length) { return inserted(a, b, at, length); });
  if (name == "prmt.b32")
    return Lanewise<Word, Word, Word, Word>::of([](Word a, Word b, Word choice) { return permuted(a, b, choice); });
  if (name == "brev.b32") return Lanewise<Word, Word>::of([](Word a) { return reversed(a); });
  if (name == "clz.b32") return Lanewise<Word, Word>::of([](Word a) { return a == 0 ? 32 : __builtin_clz(a); });
  if (name == "bfind.shiftamt.u32")
    return Lanewise<Word, Word>::of([](Word a) { return a == 0 ? ~Word(0) : Word(__builtin_clz(a)); });
  return nullptr;
}

// mov {a, b}, c: the halves of c; or mov c, {a, b}.
template <typename Whole, typename Part>
void split(Warp& warp, const Instruction& instruction) {
  warp.for_each_lane([&](int lane) {
    const Whole whole = get<Whole>(warp.source(instruction, 0), lane);
    put<Part>(warp.result(instruction, 0), lane, Part(whole));
    put<Part>(warp.result(instruction, 1), lane, Part(whole >> 8 * sizeof(Part)));
  });
}

template <typename Whole, typename Part>
Run joined() {
  return Lanewise<Whole, Part, Part>::of([](Part a, Part b) { return Whole(b) << 8 * sizeof(Part) | a; });
}

// ---- Exchanges among the lanes of a warp ----------------------------------------------------------------------------

// Operands: the value, the other lane or what to combine this lane's number with, and the bounds: the lower five bits
// are the last lane, the next ones of the second byte those bits of a lane's number that stay.
template <bool Xor>
void shuffle(Warp& warp, const Instruction& instruction) {
  const Register& values = warp.source(instruction, 0);
  uint64_t found[kLanes];
  warp.for_each_lane([&](int lane) {
    const uint32_t other = get<uint32_t>(warp.source(instruction, 1), lane) & 31;
    const uint32_t bounds = get<uint32_t>(warp.source(instruction, 2), lane), stay = bounds >> 8 & 31;
    const uint32_t first = uint32_t(lane) & stay, last = first | (bounds & 31 & ~stay);
    const uint32_t wanted = Xor ? uint32_t(lane) ^ other : first | (other & ~stay);
    const uint32_t source = wanted <= last ? wanted : uint32_t(lane);
    if (!(warp.active >> source & 1)) warp.fault("shuffle from a lane that takes no part", instruction, lane);
    found[lane] = values.lane[source];
    if (instruction.to.size() > 1) put<bool>(warp.result(instruction, 1), lane, wanted <= last);
  });
  warp.for_each_lane([&](int lane) { warp.result(instruction, 0).lane[lane] = found[lane]; });
}

void all_agree(Warp& warp, const Instruction& instruction) {
  bool all = true;
  warp.for_each_lane([&](int lane) { all &= get<bool>(warp.source(instruction, 0), lane); });
  warp.for_each_lane([&](int lane) { put<bool>(warp.result(instruction, 0), lane, all); });
}

Run exchange(const std::string& opcode) {
  if (opcode == "shfl.sync.bfly.b32") return shuffle<true>;
  if (opcode == "shfl.sync.idx.b32") return shuffle<false>;
  if (opcode == "vote.sync.all.pred") return all_agree;
  if (opcode == "bar.warp.sync") return [](Warp&, const Instruction&) {};
  return nullptr;
}

}  // namespace

void choose_operation(const std::vector<std::string>& parts, Instruction& instruction) {
  std::string opcode = parts[0];
  for (size_t i = 1; i < parts.size(); ++i) opcode += "." + parts[i];
  const std::string type = parts.back(), name = opcode.substr(0, opcode.size() - type.size() - 1);
  Run& run = instruction.run;
  if ((run = exchange(opcode))) {
    instruction.flow = Flow::Warp;
  } else if (parts[0] == "cvta") {
    run = arithmetic<uint64_t>("mov");  // addresses are those of this program
  } else if (parts[0] == "mov" && instruction.to.size() == 2) {
    run = type == "b32" ? split<uint32_t, uint16_t> : split<uint64_t, uint32_t>;
  } else if (parts[0] == "mov" && instruction.from.size() == 2) {
    run = type == "b32" ? joined<uint32_t, uint16_t>() : joined<uint64_t, uint32_t>();
  } else if (parts[0] == "setp" && parts.size() == 3) {
    run = with_type(type, [&](auto value) { return comparison<decltype(value)>(parts[1]); });
  } else if (parts[0] == "cvt") {
    run = conversion(parts[parts.size() - 2], type);
  } else if (type == "pred") {
    run = of_predicates(name);
  } else if (!(run = of_bits(opcode)) && !(run = wide_arithmetic(name, type))) {
    run = with_integer(type, [&](auto value) { return integer_arithmetic<decltype(value)>(name); });
    if (!run) run = with_float(type, [&](auto value) { return float_arithmetic<decltype(value)>(name); });
  }
}

}  // namespace ptx
