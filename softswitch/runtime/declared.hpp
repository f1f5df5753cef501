// What a generated program declares about itself, as plain data: it costs a compiler almost
// nothing, where a std::string or a std::vector in the generated code would cost much.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "program.hpp"

namespace wiresum::softswitch {

// Where a key field lies in the 64-bit words of a key.
struct KeySlot {
  unsigned word = 0;
  unsigned shift = 0;
};

enum class Engine { kKeyless, kExact, kLpm, kTernary };

struct ParamSpec {
  std::string_view name;
  unsigned bits = 0;
};

struct ActionSpec {
  std::string_view name;
  std::uint32_t id = 0;
  std::size_t params = 0;  // the next so many of TableSpec::params
};

struct KeySpec {
  std::string_view name;
  MatchKind match = MatchKind::kExact;
  unsigned bits = 0;
  KeySlot slot;
};

// One key field of a declared entry, as KeyField.
struct FieldSpec {
  std::string_view value = {};
  std::string_view mask = {};
  unsigned prefix_length = 0;
  bool any = false;
};

struct EntrySpec {
  int priority = 0;
  std::string_view action;
  std::size_t data = 0;  // the next so many of TableSpec::data
};

struct TableSpec {
  std::string_view name;
  std::uint32_t id = 0;
  std::size_t max_size = 0;
  Engine engine = Engine::kKeyless;
  std::size_t key_words = 0;  // of 64 bits
  std::span<const KeySpec> key = {};
  std::span<const ActionSpec> actions = {};
  std::span<const ParamSpec> params = {};  // of all actions, in their order
  bool needs_priority = false;
  bool direct_counter = false;
  std::string_view direct_counter_name = {};
  bool const_entries = false;
  bool const_default = false;
  std::string_view default_action = {};
  std::span<const std::string_view> default_data = {};
  std::span<const EntrySpec> entries = {};
  std::span<const FieldSpec> fields = {};       // of all entries, in their order
  std::span<const std::string_view> data = {};  // likewise
};

struct ErrorSpec {
  std::string_view name;
  std::uint32_t number = 0;
};

struct ProgramSpec {
  std::string_view source;
  std::string_view json_sha256;
  std::string_view compiler;
  std::span<const ErrorSpec> errors = {};
};

TableInfo info_of(const TableSpec& spec);
ProgramInfo info_of(const ProgramSpec& spec);

}  // namespace wiresum::softswitch
