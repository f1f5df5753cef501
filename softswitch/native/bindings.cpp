// Python's view of a data plane, in plain types:
//   field  (value: bytes, mask: bytes, prefix_length: int, any: bool)
//   entry  (key: list[field], priority: int, action: str, params: list[bytes], packets: int,
//           bytes: int)
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <chrono>
#include <cstring>

#include "dataplane.hpp"
#include "lines.hpp"

namespace nb = nanobind;
using namespace nb::literals;
using namespace wiresum::softswitch;

namespace {

Bytes from_python(nb::handle value) {
  nb::bytes b = nb::cast<nb::bytes>(value);
  return {b.c_str(), b.size()};
}
nb::bytes to_python(const Bytes& value) { return nb::bytes(value.data(), value.size()); }

std::vector<Bytes> params_from(nb::handle params) {
  std::vector<Bytes> out;
  for (nb::handle p : params) out.push_back(from_python(p));
  return out;
}

Entry make_entry(nb::handle key, int priority) {
  Entry entry;
  entry.priority = priority;
  for (nb::handle item : key) {
    nb::tuple f = nb::cast<nb::tuple>(item);
    KeyField field;
    field.value = from_python(f[0]);
    field.mask = from_python(f[1]);
    field.prefix_length = nb::cast<unsigned>(f[2]);
    field.any = nb::cast<bool>(f[3]);
    entry.key.push_back(std::move(field));
  }
  return entry;
}

nb::tuple entry_to_python(const Entry& entry) {
  nb::list key;
  for (const KeyField& f : entry.key) {
    key.append(nb::make_tuple(to_python(f.value), to_python(f.mask), f.prefix_length, f.any));
  }
  nb::list params;
  for (const Bytes& p : entry.action.params) params.append(to_python(p));
  return nb::make_tuple(key, entry.priority, entry.action.name, params, entry.counter.packets,
                        entry.counter.bytes);
}

nb::list entries_to_python(const std::vector<Entry>& entries) {
  nb::list out;
  for (const Entry& e : entries) out.append(entry_to_python(e));
  return out;
}

// Runs `call` with the data plane locked. Others may hold the lock for a whole batch: wait for it
// without the GIL.
template <typename F>
auto locked(Dataplane& d, F call) {
  nb::gil_scoped_release release;
  const std::lock_guard<std::mutex> lock(d.mutex());
  return call();
}

const char* kind_name(MatchKind kind) {
  switch (kind) {
    case MatchKind::kExact:
      return "exact";
    case MatchKind::kLpm:
      return "lpm";
    case MatchKind::kTernary:
      return "ternary";
    case MatchKind::kRange:
      return "range";
    default:
      return "optional";
  }
}

nb::dict table_to_python(const TableInfo& info) {
  nb::list key, actions;
  for (const KeyFieldInfo& f : info.key) {
    key.append(nb::make_tuple(f.name, kind_name(f.match), f.bits));
  }
  for (const ActionInfo& a : info.actions) {
    nb::list params;
    for (const ParamInfo& p : a.params) params.append(nb::make_tuple(p.name, p.bits));
    actions.append(nb::make_tuple(a.name, a.id, params));
  }
  nb::dict out;
  out["name"] = info.name;
  out["id"] = info.id;
  out["max_size"] = info.max_size;
  out["key"] = key;
  out["actions"] = actions;
  out["needs_priority"] = info.needs_priority;
  out["direct_counter"] = info.direct_counter ? nb::cast(info.direct_counter_name) : nb::none();
  out["const_entries"] = info.const_entries;
  out["const_default"] = info.const_default;
  return out;
}

// Keeps the frames that a program emits.
class Collector final : public Emitter {
 public:
  std::uint8_t* frame(std::uint16_t port, std::size_t length) override {
    frames.emplace_back(port, Bytes(length, '\0'));
    return reinterpret_cast<std::uint8_t*>(frames.back().second.data());
  }
  bool shares_tails() const override { return true; }
  std::uint8_t* copy(std::uint16_t port, std::size_t head, std::size_t tail) override {
    const Bytes& before = frames.back().second;
    frames.emplace_back(port, Bytes(head, '\0') + before.substr(before.size() - tail));
    return reinterpret_cast<std::uint8_t*>(frames.back().second.data());
  }
  std::vector<std::pair<std::uint16_t, Bytes>> frames;
};

// Counts frames and lets each overwrite the one before.
class Sink final : public Emitter {
 public:
  std::uint8_t* frame(std::uint16_t, std::size_t length) override {
    ++frames;
    return length <= sizeof buffer_ ? buffer_ : nullptr;
  }
  // As ports do it: what copies have in common is written once.
  bool shares_tails() const override { return true; }
  std::uint8_t* copy(std::uint16_t port, std::size_t head, std::size_t) override {
    return frame(port, head);
  }
  std::uint64_t frames = 0;

 private:
  alignas(64) std::uint8_t buffer_[2 * kMaxFrameBytes];
};

std::span<const std::uint8_t> view(const nb::bytes& frame) {
  return {reinterpret_cast<const std::uint8_t*>(frame.c_str()), frame.size()};
}

nb::list inject(Dataplane& d, std::uint16_t port, nb::bytes frame) {
  Collector out;
  const auto bytes = view(frame);
  locked(d, [&] { d.program().process(port, bytes, out); });
  nb::list result;
  for (const auto& [to, data] : out.frames) result.append(nb::make_tuple(to, to_python(data)));
  return result;
}

// (seconds, frames emitted)
std::pair<double, std::uint64_t> replay(Dataplane& d, nb::list frames, std::size_t rounds) {
  std::vector<std::pair<std::uint16_t, Bytes>> input;
  for (nb::handle item : frames) {
    nb::tuple t = nb::cast<nb::tuple>(item);
    input.emplace_back(nb::cast<std::uint16_t>(t[0]), from_python(t[1]));
  }
  auto sink = std::make_unique<Sink>();
  return locked(d, [&] {
    const auto start = std::chrono::steady_clock::now();
    for (std::size_t r = 0; r < rounds; ++r) {
      for (const auto& [port, data] : input) {
        d.program().process(port, {reinterpret_cast<const std::uint8_t*>(data.data()), data.size()},
                            *sink);
      }
    }
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
    return std::pair{passed.count(), sink->frames};
  });
}

std::vector<Replica> replicas_from(nb::list replicas) {
  std::vector<Replica> out;
  for (nb::handle item : replicas) {
    nb::tuple t = nb::cast<nb::tuple>(item);
    out.push_back({nb::cast<std::uint16_t>(t[0]), nb::cast<std::uint16_t>(t[1])});
  }
  return out;
}

void bind_tables(nb::class_<Dataplane>& c) {
  using Edit = Status (Table::*)(const Entry&);
  const auto edit = [&c](const char* name, Edit method, const char* doc) {
    c.def(
        name,
        [method](Dataplane& d, const std::string& table, nb::list key, int priority,
                 const std::string& action, nb::list params) {
          Entry entry = make_entry(key, priority);
          entry.action = {action, params_from(params)};
          locked(d, [&] { check((d.table(table).*method)(entry)); });
        },
        "table"_a, "key"_a, "priority"_a, "action"_a, "params"_a, doc);
  };
  edit("table_add", &Table::add, "Adds an entry.");
  edit("table_modify", &Table::modify, "Gives an entry another action; its counter stays.");
  c.def(
      "table_delete",
      [](Dataplane& d, const std::string& table, nb::list key, int priority) {
        const Entry entry = make_entry(key, priority);
        locked(d, [&] { check(d.table(table).remove(entry)); });
      },
      "table"_a, "key"_a, "priority"_a);
  c.def(
      "table_clear",
      [](Dataplane& d, const std::string& table) {
        locked(d, [&] { check(d.table(table).clear()); });
      },
      "table"_a);
  c.def(
      "table_entries",
      [](Dataplane& d, const std::string& table) {
        return entries_to_python(locked(d, [&] { return d.table(table).entries(); }));
      },
      "table"_a);
  c.def(
      "table_find",
      [](Dataplane& d, const std::string& table, nb::list key, int priority) -> nb::object {
        const Entry entry = make_entry(key, priority);
        const auto found = locked(d, [&] { return d.table(table).find(entry); });
        return found ? nb::object(entry_to_python(*found)) : nb::none();
      },
      "table"_a, "key"_a, "priority"_a);
  c.def(
      "table_size",
      [](Dataplane& d, const std::string& table) {
        return locked(d, [&] { return d.table(table).size(); });
      },
      "table"_a);
  c.def(
      "table_set_default",
      [](Dataplane& d, const std::string& table, const std::string& action, nb::list params) {
        const ActionCall call{action, params_from(params)};
        locked(d, [&] { check(d.table(table).set_default(call)); });
      },
      "table"_a, "action"_a, "params"_a);
  c.def(
      "table_reset_default",
      [](Dataplane& d, const std::string& table) {
        locked(d, [&] { check(d.table(table).reset_default()); });
      },
      "table"_a);
  c.def(
      "table_default",
      [](Dataplane& d, const std::string& table) {
        return entry_to_python(locked(d, [&] { return d.table(table).default_entry(); }));
      },
      "table"_a);
  c.def(
      "table_write_counter",
      [](Dataplane& d, const std::string& table, nb::list key, int priority, std::uint64_t packets,
         std::uint64_t bytes) {
        const Entry entry = make_entry(key, priority);
        locked(d, [&] { check(d.table(table).write_counter(entry, {packets, bytes})); });
      },
      "table"_a, "key"_a, "priority"_a, "packets"_a, "bytes"_a);
  c.def(
      "table_write_default_counter",
      [](Dataplane& d, const std::string& table, std::uint64_t packets, std::uint64_t bytes) {
        locked(d, [&] { check(d.table(table).write_default_counter({packets, bytes})); });
      },
      "table"_a, "packets"_a, "bytes"_a);
}

// Throws unless [first, first + count) lies inside an array of `size`.
void check_range(const std::string& name, std::size_t first, std::size_t count, std::size_t size) {
  if (first <= size && count <= size - first) return;
  throw StatusError(Code::kOutOfRange, lines::kIndexTooLarge.of(name, first, size));
}

void bind_state(nb::class_<Dataplane>& c) {
  c.def(
      "counter_read",
      [](Dataplane& d, const std::string& name, std::size_t first, std::size_t count) {
        const auto cells = locked(d, [&] {
          const auto all = d.counter(name).cells();
          check_range(name, first, count, all.size());
          const auto part = all.subspan(first, count);
          return std::vector<CounterCell>(part.begin(), part.end());
        });
        nb::list out;
        for (const CounterCell& cell : cells) out.append(nb::make_tuple(cell.packets, cell.bytes));
        return out;
      },
      "name"_a, "first"_a, "count"_a);
  c.def(
      "counter_write",
      [](Dataplane& d, const std::string& name, std::size_t first, std::size_t count,
         std::uint64_t packets, std::uint64_t bytes) {
        locked(d, [&] {
          const auto all = d.counter(name).cells();
          check_range(name, first, count, all.size());
          for (CounterCell& cell : all.subspan(first, count)) cell = {packets, bytes};
        });
      },
      "name"_a, "first"_a, "count"_a, "packets"_a, "bytes"_a);
  c.def(
      "register_read",
      [](Dataplane& d, const std::string& name, std::size_t first, std::size_t count) {
        const auto cells = locked(d, [&] {
          Register& r = d.reg(name);
          check_range(name, first, count, r.info().size);
          std::vector<Bytes> values(count);
          for (std::size_t i = 0; i < count; ++i) check(r.read(first + i, &values[i]));
          return values;
        });
        nb::list out;
        for (const Bytes& cell : cells) out.append(to_python(cell));
        return out;
      },
      "name"_a, "first"_a, "count"_a);
  c.def(
      "register_write",
      [](Dataplane& d, const std::string& name, std::size_t index, nb::bytes value) {
        const Bytes bytes = from_python(value);
        locked(d, [&] { check(d.reg(name).write(index, bytes)); });
      },
      "name"_a, "index"_a, "value"_a);
  c.def(
      "multicast_create",
      [](Dataplane& d, std::uint16_t group, nb::list replicas) {
        auto copies = replicas_from(replicas);
        locked(d, [&] { check(d.program().multicast().create(group, std::move(copies))); });
      },
      "group"_a, "replicas"_a);
  c.def(
      "multicast_modify",
      [](Dataplane& d, std::uint16_t group, nb::list replicas) {
        auto copies = replicas_from(replicas);
        locked(d, [&] { check(d.program().multicast().modify(group, std::move(copies))); });
      },
      "group"_a, "replicas"_a);
  c.def(
      "multicast_delete",
      [](Dataplane& d, std::uint16_t group) {
        locked(d, [&] { check(d.program().multicast().remove(group)); });
      },
      "group"_a);
  c.def("multicast_list", [](Dataplane& d) {
    nb::dict out;
    for (const auto& [group, replicas] :
         locked(d, [&] { return d.program().multicast().list(); })) {
      nb::list copies;
      for (const Replica& r : replicas) copies.append(nb::make_tuple(r.port, r.instance));
      out[nb::int_(group)] = copies;
    }
    return out;
  });
}

}  // namespace

void register_dataplane(nb::module_& m) {
  nb::class_<Dataplane> c(m, "Dataplane", "A running program. Safe to use from several threads.");
  c.def(nb::init<const std::string&>(), "library"_a, "Loads a compiled program.");
  c.def("inject", &inject, "port"_a, "frame"_a,
        "Runs one frame; returns the (port, frame) pairs that leave, in order.");
  c.def(
      "replay",
      [](Dataplane& d, nb::list frames, std::size_t rounds) {
        const auto [seconds, emitted] = replay(d, frames, rounds);
        return nb::make_tuple(seconds, emitted);
      },
      "frames"_a, "rounds"_a,
      "Runs (port, frame) pairs over and over without keeping what leaves; returns the seconds "
      "that it took and the number of frames that left. For measurements.");
  c.def("info", [](Dataplane& d) {
    const ProgramInfo& info = d.program().info();
    nb::dict out, errors;
    for (const auto& [name, value] : info.errors) errors[nb::str(name.c_str())] = value;
    out["source"] = info.source;
    out["json_sha256"] = info.json_sha256;
    out["compiler"] = info.compiler;
    out["errors"] = errors;
    return out;
  });
  c.def("tables", [](Dataplane& d) {
    nb::list out;
    for (Table* t : d.program().tables()) out.append(table_to_python(t->info()));
    return out;
  });
  c.def("counters", [](Dataplane& d) {
    nb::list out;
    for (Counter* each : d.program().counters()) {
      out.append(nb::make_tuple(each->info().name, each->info().id, each->info().size));
    }
    return out;
  });
  c.def("registers", [](Dataplane& d) {
    nb::list out;
    for (Register* r : d.program().registers()) {
      out.append(nb::make_tuple(r->info().name, r->info().id, r->info().size, r->info().bits));
    }
    return out;
  });
  c.def("stats", [](Dataplane& d) {
    const ProgramStats s = locked(d, [&] { return d.program().stats(); });
    nb::dict out;
    out["received"] = s.received;
    out["emitted"] = s.emitted;
    out["parser_errors"] = s.parser_errors;
    return out;
  });
  c.def(
      "reset", [](Dataplane& d) { locked(d, [&] { d.program().reset(); }); },
      "Back to the state after loading.");
  bind_tables(c);
  bind_state(c);
}
