// From the text of PTX to decoded instructions. It knows as much of the language as nvcc uses for these kernels.
#include <algorithm>
#include <fstream>
#include <sstream>
#include <utility>

#include "program.h"

namespace ptx {
namespace {

std::string trimmed(const std::string& text) {
  const size_t first = text.find_first_not_of(" \t\r");
  if (first == std::string::npos) return "";
  return text.substr(first, text.find_last_not_of(" \t\r") + 1 - first);
}

// Divides at a character, except inside brackets and braces.
std::vector<std::string> divided(const std::string& text, char by) {
  std::vector<std::string> parts(1);
  int depth = 0;
  for (const char c : text) {
    depth += (c == '[' || c == '{') - (c == ']' || c == '}');
    if (c == by && depth == 0)
      parts.emplace_back();
    else
      parts.back() += c;
  }
  for (std::string& part : parts) part = trimmed(part);
  return parts;
}

bool begins(const std::string& text, const std::string& with) { return text.compare(0, with.size(), with) == 0; }

// "{a, b}" or "[a]": what stands inside.
std::string inside(const std::string& text) { return text.substr(1, text.size() - 2); }

// A line ".param .align 8 .b8 name[80]," or ".param .u64 name".
void add_parameter(Kernel& kernel, const std::string& line) {
  std::istringstream words(line);
  std::string word, name;
  size_t align = 0, size = 0;
  while (words >> word) {
    if (word == ".align")
      words >> align;
    else if (word.size() > 2 && word[0] == '.' && std::isdigit(word[2]))
      size = std::stoul(word.substr(2)) / 8;
    else
      name = word;
  }
  if (name.back() == ',') name.pop_back();
  if (align == 0) align = size;
  if (const size_t bracket = name.find('['); bracket != std::string::npos) {
    size *= std::stoul(name.substr(bracket + 1));
    name.resize(bracket);
  }
  const size_t end = kernel.parameters.empty() ? 0 : kernel.parameters.back().at + kernel.parameters.back().size;
  kernel.parameters.push_back({name, (end + align - 1) / align * align, size});
}

// Decodes the body of one kernel.
class Decoder {
 public:
  explicit Decoder(Kernel& kernel) : kernel_(kernel) {}

  void run() {
    for (const auto& [number, line] : kernel_.lines) {
      if (begins(line, ".pragma"))
        note_used_bytes(line);
      else if (line.back() == ':')
        labels_[line.substr(0, line.size() - 1)] = int(kernel_.code.size());
      else if (!begins(line, "."))  // declarations of registers
        add(line, number);
    }
    for (const auto& [at, label] : branches_) {
      if (!labels_.count(label)) fail("no label " + label + " in " + kernel_.name);
      kernel_.code[at].target = labels_[label];
    }
  }

 private:
  void note_used_bytes(const std::string& pragma) {
    const std::string name = "used_bytes_mask";
    if (const size_t at = pragma.find(name); at != std::string::npos)
      used_ = std::stoull(pragma.substr(at + name.size()), nullptr, 0);
  }

  int new_register() { return kernel_.registers++; }

  int operand(const std::string& text) {
    if (text == "_") return -1;
    if (text[0] == '%') {
      auto& known = text.find('.') == std::string::npos ? registers_ : kernel_.special;
      const auto [found, added] = known.try_emplace(text, 0);
      if (added) found->second = new_register();
      return found->second;
    }
    const auto [found, added] = kernel_.constants.try_emplace(literal(text), 0);
    if (added) found->second = new_register();
    return found->second;
  }

  static uint64_t literal(const std::string& text) {
    if (begins(text, "0f") || begins(text, "0d")) return std::stoull(text.substr(2), nullptr, 16);
    if (std::isdigit(text[0])) return std::stoull(text, nullptr, 0);
    if (text[0] == '-') return uint64_t(std::stoll(text, nullptr, 0));
    if (text.find("shared_memory") != std::string::npos) return kSharedBase;
    fail("operand " + text);
  }

  // "{a, b}" or "a|b" or "a".
  void append(std::vector<int>& to, const std::string& text) {
    const bool braces = text[0] == '{';
    for (const std::string& part : divided(braces ? inside(text) : text, braces ? ',' : '|'))
      to.push_back(operand(part));
  }

  // "[a+4]": a register, a parameter or the shared memory.
  void append_address(Instruction& instruction, const std::string& text) {
    const std::vector<std::string> parts = divided(inside(text), '+');
    if (parts.size() > 1) instruction.displacement = std::stoll(parts[1]);
    for (const Parameter& parameter : kernel_.parameters)
      if (parameter.name == parts[0]) {
        instruction.displacement += int64_t(parameter.at);
        return;
      }
    instruction.from.push_back(operand(parts[0]));
  }

  void add(std::string text, int number) {
    Instruction instruction;
    instruction.text = text;
    instruction.line = number;
    if (text[0] == '@') {
      instruction.negated = text[1] == '!';
      const size_t end = text.find_first_of(" \t"), first = instruction.negated ? 2 : 1;
      instruction.predicate = operand(text.substr(first, end - first));
      text = trimmed(text.substr(end));
    }
    const size_t end = std::min(text.find_first_of(" \t"), text.size());
    const std::vector<std::string> parts = divided(text.substr(0, end), '.');
    const std::string rest = trimmed(text.substr(end));
    add_operands(instruction, parts, rest.empty() ? std::vector<std::string>() : divided(rest, ','));
    kernel_.code.push_back(instruction);
  }

  void add_operands(Instruction& instruction, const std::vector<std::string>& parts,
                    const std::vector<std::string>& operands) {
    const std::string& name = parts[0];
    if (name == "bra") {
      instruction.flow = Flow::Branch;
      branches_.emplace_back(kernel_.code.size(), operands.at(0));
      return;
    }
    if (name == "ret" || name == "exit") {
      instruction.flow = Flow::Return;
      return;
    }
    if (name == "bar" && parts.at(1) != "warp") {
      instruction.flow = Flow::Block;
      return;
    }
    const bool stores = name == "st" || name == "red";
    for (size_t i = 0; i < operands.size(); ++i) {
      if (operands[i][0] == '[')
        append_address(instruction, operands[i]);
      else
        append(i == 0 && !stores && name != "bar" ? instruction.to : instruction.from, operands[i]);
    }
    if (name == "ld" || name == "st" || name == "atom" || name == "red") {
      instruction.used = std::exchange(used_, ~0ull);
      choose_access(parts, instruction);
    } else {
      choose_operation(parts, instruction);
    }
  }

  Kernel& kernel_;
  std::map<std::string, int> registers_, labels_;
  std::vector<std::pair<size_t, std::string>> branches_;
  uint64_t used_ = ~0ull;  // of the next load
};

}  // namespace

std::vector<unsigned char> Kernel::layout(void** arguments) const {
  std::vector<unsigned char> memory;
  for (const Parameter& parameter : parameters) {
    memory.resize(parameter.at + parameter.size);
    const unsigned char* from = static_cast<const unsigned char*>(*arguments++);
    std::copy_n(from, parameter.size, &memory[parameter.at]);
  }
  return memory;
}

void read_kernels(const std::string& path, std::map<std::string, Kernel>& kernels) {
  std::ifstream file(path);
  if (!file) fail("cannot read " + path);
  std::string line;
  Kernel* kernel = nullptr;
  bool in_body = false;
  int scopes = 0;  // inside the body: inline assembly and what takes a double apart stand in braces of their own
  for (int number = 1; std::getline(file, line); ++number) {
    line = trimmed(line.substr(0, line.find("//")));
    if (const size_t entry = line.find(".entry "); entry != std::string::npos) {
      const std::string name = line.substr(entry + 7, line.find('(') - entry - 7);
      kernel = &kernels[name];
      kernel->name = name;
    } else if (!kernel) {
      continue;
    } else if (!in_body) {
      if (begins(line, ".param")) add_parameter(*kernel, line);
      in_body = line == "{";
    } else if (line == "}" && scopes == 0) {
      kernel = nullptr;
      in_body = false;
    } else {
      if (begins(line, "{")) {
        ++scopes;
        line = trimmed(line.substr(1));
      }
      if (!line.empty() && line.back() == '}') {
        --scopes;
        line = trimmed(line.substr(0, line.size() - 1));
      }
      if (!line.empty() && line.back() == ';') line = trimmed(line.substr(0, line.size() - 1));
      if (!line.empty()) kernel->lines.emplace_back(number, line);
    }
  }
}

void decode(Kernel& kernel) { Decoder(kernel).run(); }

}  // namespace ptx
