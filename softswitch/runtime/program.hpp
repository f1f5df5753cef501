// The interface between the switch and a compiled P4 program.
//
// A program is a shared object that the translator generated from p4c's BMv2 JSON. It exports one
// C function, `wiresum_program_create`, and implements `Program`. The switch (native/, ports,
// P4Runtime) knows programs through this header alone.
//
// Threads: a Program has no lock. Its owner makes sure that control-plane calls and `process` never
// run at the same time (the data plane takes one lock per batch, see native/dataplane.hpp).
//
// Values cross this interface as big-endian byte strings. A value may be given with any number of
// leading zero bytes or none; it is refused where it does not fit the field's width. Values that
// are read back have exactly (bits + 7) / 8 bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace wiresum::softswitch {

using Bytes = std::string;

// How a control-plane call ended. Nothing throws across the boundary of a shared object.
enum class Code : int {
  kOk = 0,
  kInvalidArgument,    // a value does not fit, a field is missing, an unknown action
  kNotFound,           // no such entry, group, index
  kAlreadyExists,      // an entry with this key is there already
  kOutOfRange,         // an index beyond the array's size
  kResourceExhausted,  // the table is full
  kPermissionDenied,   // the P4 program declares it const
};

struct Status {
  Code code = Code::kOk;
  std::string message;  // one complete line; empty when ok
  bool ok() const { return code == Code::kOk; }
};

enum class MatchKind : int { kExact = 0, kLpm, kTernary, kRange, kOptional };

struct KeyFieldInfo {
  std::string name;  // as in P4Info's match_fields
  MatchKind match = MatchKind::kExact;
  unsigned bits = 0;
};

struct ParamInfo {
  std::string name;
  unsigned bits = 0;
};

struct ActionInfo {
  std::string name;      // control-plane name, as in P4Info ("Ingress.forward", or absolute)
  std::uint32_t id = 0;  // as in the JSON; one P4 action has several where several tables use it
  std::vector<ParamInfo> params;
};

struct TableInfo {
  std::string name;      // control-plane name, as in P4Info
  std::uint32_t id = 0;  // as in the JSON
  std::size_t max_size = 0;
  std::vector<KeyFieldInfo> key;
  std::vector<ActionInfo> actions;  // names are unique within a table
  bool needs_priority = false;      // some field is ternary, range or optional
  bool direct_counter = false;      // every entry (and the default one) counts packets and bytes
  std::string direct_counter_name;  // empty without one
  bool const_entries = false;       // entries come from the program and cannot be changed
  bool const_default = false;       // the default action cannot be changed
};

struct CounterCell {
  std::uint64_t packets = 0;
  std::uint64_t bytes = 0;
};

// One field of an entry's key. exact: value. lpm: value, prefix_length. ternary: value, mask.
// range: value = low end, mask = high end (both included). optional: value, and `any` to match
// everything.
struct KeyField {
  Bytes value;
  Bytes mask;
  unsigned prefix_length = 0;
  bool any = false;
};

struct ActionCall {
  std::string name;
  std::vector<Bytes> params;  // in the order of ActionInfo::params
};

struct Entry {
  std::vector<KeyField> key;  // in the order of TableInfo::key
  int priority = 0;  // > 0 where needs_priority, larger wins (as in P4Runtime); 0 elsewhere
  ActionCall action;
  CounterCell counter;  // read only; direct counters
};

// One table as the control plane sees it.
class Table {
 public:
  virtual ~Table() = default;
  virtual const TableInfo& info() const = 0;

  virtual Status add(const Entry& entry) = 0;
  // Replaces the action of the entry with this key (and priority); its direct counter stays.
  virtual Status modify(const Entry& entry) = 0;
  // Looks at the key and the priority only.
  virtual Status remove(const Entry& entry) = 0;
  // Removes every entry; the default action stays. Refused for const entries.
  virtual Status clear() = 0;
  virtual std::vector<Entry> entries() const = 0;
  // The entry with this key (and priority), or none.
  virtual std::optional<Entry> find(const Entry& key) const = 0;
  virtual std::size_t size() const = 0;

  virtual Status set_default(const ActionCall& action) = 0;
  // Back to what the program declares.
  virtual Status reset_default() = 0;
  // The default action and its direct counter; key and priority are empty.
  virtual Entry default_entry() const = 0;

  // Sets the direct counter of the entry with this key (and priority).
  virtual Status write_counter(const Entry& key, CounterCell value) = 0;
  virtual Status write_default_counter(CounterCell value) = 0;
};

struct CounterInfo {
  std::string name;
  std::uint32_t id = 0;
  std::size_t size = 0;
};

// An indirect counter: always counts both packets and bytes, as BMv2 does.
class Counter {
 public:
  virtual ~Counter() = default;
  virtual const CounterInfo& info() const = 0;
  virtual std::span<CounterCell> cells() = 0;
};

struct RegisterInfo {
  std::string name;
  std::uint32_t id = 0;
  std::size_t size = 0;
  unsigned bits = 0;
};

class Register {
 public:
  virtual ~Register() = default;
  virtual const RegisterInfo& info() const = 0;
  // Sets `value` to the cell's (bits + 7) / 8 bytes.
  virtual Status read(std::size_t index, Bytes* value) const = 0;
  virtual Status write(std::size_t index, const Bytes& value) = 0;
};

struct Replica {
  std::uint16_t port = 0;      // egress port
  std::uint16_t instance = 0;  // egress_rid of this copy
  bool operator==(const Replica&) const = default;
};

// Multicast groups. Group 0 means "no multicast" in v1model and cannot be created.
class MulticastGroups {
 public:
  virtual ~MulticastGroups() = default;
  virtual Status create(std::uint16_t group, std::vector<Replica> replicas) = 0;
  virtual Status modify(std::uint16_t group, std::vector<Replica> replicas) = 0;
  virtual Status remove(std::uint16_t group) = 0;
  virtual std::vector<std::pair<std::uint16_t, std::vector<Replica>>> list() const = 0;
};

// Where a program puts the frames that it sends.
class Emitter {
 public:
  virtual ~Emitter() = default;
  // Room for a frame of `length` bytes that leaves through `port`, or nullptr to drop it. The
  // program fills all of it before its next call. The room must not overlap the input frame.
  virtual std::uint8_t* frame(std::uint16_t port, std::size_t length) = 0;

  // Copies of a packet often differ in their first headers only. Where shares_tails() is true, the
  // program may ask for the first `head` bytes of a frame alone: its last `tail` bytes are those of
  // the frame that it was given last, in the same call of process(). Room or nullptr, as above.
  virtual bool shares_tails() const { return false; }
  virtual std::uint8_t* copy(std::uint16_t port, std::size_t head, std::size_t tail) {
    static_cast<void>(port), static_cast<void>(head), static_cast<void>(tail);
    return nullptr;
  }
};

struct ProgramInfo {
  std::string source;       // the P4 program's file name, where the JSON tells it
  std::string json_sha256;  // of the JSON that the program was made from, lower-case hex
  std::string compiler;     // p4c's version, as the JSON tells it
  std::vector<std::pair<std::string, std::uint32_t>>
      errors;  // name → standard_metadata.parser_error
};

struct ProgramStats {
  std::uint64_t received = 0;       // frames given to process()
  std::uint64_t emitted = 0;        // frames handed to an Emitter
  std::uint64_t parser_errors = 0;  // frames whose parsing ended in an error
};

class Program {
 public:
  virtual ~Program() = default;
  virtual const ProgramInfo& info() const = 0;

  // Runs one frame through parser, ingress, replication, egress and deparser. Every frame that
  // leaves has been put into `out` when this returns. The frame is only read. Frames of more than
  // kMaxFrameBytes are dropped.
  virtual void process(std::uint16_t ingress_port, std::span<const std::uint8_t> frame,
                       Emitter& out) = 0;

  // The tables of the P4 source; those that p4c makes for an action call in a control are not
  // among them.
  virtual std::span<Table* const> tables() = 0;
  virtual std::span<Counter* const> counters() = 0;
  virtual std::span<Register* const> registers() = 0;
  virtual MulticastGroups& multicast() = 0;
  virtual ProgramStats stats() const = 0;

  // Back to the state after creation: const entries and declared defaults only, everything else
  // empty and zero.
  virtual void reset() = 0;
};

inline constexpr std::size_t kMaxFrameBytes = 65536;
// simple_switch's port number for "drop".
inline constexpr std::uint16_t kDropPort = 511;

// Finds an element of tables(), counters() or registers() by name; a leading dot (an absolute P4
// name) is ignored. nullptr if there is none.
template <typename T>
T* find_by_name(std::span<T* const> all, std::string_view name) {
  if (!name.empty() && name.front() == '.') name.remove_prefix(1);
  for (T* each : all) {
    if (each->info().name == name) return each;
  }
  return nullptr;
}

}  // namespace wiresum::softswitch

// A program's one export. `abi` is WIRESUM_ABI of the caller; nullptr comes back if the program was
// compiled against other runtime headers. The caller owns the result and deletes it before it
// unloads the library.
extern "C" {
using wiresum_program_create_t = wiresum::softswitch::Program*(const char* abi);
}
