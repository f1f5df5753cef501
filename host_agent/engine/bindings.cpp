// The Python face. It converts types and drops the GIL; everything else is behind it.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <tuple>
#include <vector>

#include "bench.hpp"
#include "codecs/codec.hpp"
#include "engine.hpp"
#include "leak_notes.hpp"
#include "transports/shm.hpp"
#include "wire.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace wiresum {
namespace {

using Array = nb::ndarray<nb::c_contig, nb::device::cpu>;
using ReadOnlyArray = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;
using Words = nb::ndarray<const std::uint32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using OwnedWords = nb::ndarray<nb::numpy, std::uint32_t, nb::ndim<1>>;

// While one lives, other threads may have the GIL. Where the interpreter has ended meanwhile, this
// thread stays where it is: Python before 3.14 would unwind its stack, through functions that let
// nothing pass, which ends the process with an abort.
class WithoutGil {
 public:
  WithoutGil() : state_(PyEval_SaveThread()) {}
  WithoutGil(const WithoutGil&) = delete;
  WithoutGil& operator=(const WithoutGil&) = delete;
  ~WithoutGil() {
    try {
      PyEval_RestoreThread(state_);
    } catch (...) {
      while (true) pause();
    }
  }

 private:
  PyThreadState* state_;
};

// Engines that are alive, to be closed before the interpreter goes: their threads write into
// tensors that it is about to free. Whoever closes an engine owns it meanwhile, so it does not
// matter which thread drops it.
class Registry {
 public:
  void add(const std::shared_ptr<Engine>& engine) {
    const std::lock_guard lock(mutex_);
    std::erase_if(engines_, [](const auto& each) { return each.expired(); });
    engines_.push_back(engine);
  }
  std::vector<std::shared_ptr<Engine>> alive() {
    const std::lock_guard lock(mutex_);
    std::vector<std::shared_ptr<Engine>> result;
    for (const auto& each : engines_) {
      if (auto engine = each.lock()) result.push_back(std::move(engine));
    }
    return result;
  }

 private:
  std::mutex mutex_;
  std::vector<std::weak_ptr<Engine>> engines_;
};

// Never destroyed: threads may outlive what C++ takes down at the end.
Registry& registry() {
  static auto& registry = *new Registry;
  return registry;
}

// A field of a struct that Python makes from keywords and cannot change afterwards.
template <typename T, typename V>
struct Member {
  const char* name;
  V T::* at;
};

enum class Defaults { kNone, kOfStruct };  // of the keywords

template <Defaults kDefaults, typename T, typename V>
auto argument(const Member<T, V>& member) {
  if constexpr (kDefaults == Defaults::kNone) {
    return nb::arg(member.name);
  } else {
    return nb::arg(member.name) = T{}.*member.at;
  }
}

// A class of values: made from keywords, read-only, and with `replace`, which derives another one.
template <Defaults kDefaults, typename T, typename... V>
nb::class_<T> value_class(nb::module_& m, const char* name, Member<T, V>... members) {
  nb::class_<T> made(m, name);
  made.def(
      "__init__",
      [members...](T* self, V... values) {
        new (self) T{};
        ((self->*members.at = std::move(values)), ...);
      },
      nb::kw_only(), argument<kDefaults>(members)...);
  (made.def_ro(members.name, members.at), ...);
  made.def("replace", [members...](const nb::handle self, const nb::kwargs& changes) {
    nb::dict fields;
    ((fields[members.name] = self.attr(members.name)), ...);
    fields.update(changes);
    return self.type()(**fields);
  });
  return made;
}

class PythonEngine {
 public:
  PythonEngine(const SwitchSocket& socket, const Lease& lease, const EngineOptions& options)
      : engine_(std::make_shared<Engine>(socket, lease, options)) {
    registry().add(engine_);
  }
  PythonEngine(const PythonEngine&) = delete;
  PythonEngine& operator=(const PythonEngine&) = delete;
  ~PythonEngine() {
    const WithoutGil release;
    engine_->close();
    if (engine_->forked()) {
      // Destroying what another thread of the parent may have been waiting on would wait for it.
      new std::shared_ptr<Engine>(std::move(engine_));
    }
    engine_.reset();
  }
  Engine* operator->() const { return engine_.get(); }

 private:
  std::shared_ptr<Engine> engine_;
};

void close_all() {
  // With the GIL, under which others fork: a child never inherits the registry's lock.
  auto engines = registry().alive();
  const WithoutGil release;
  for (const auto& engine : engines) engine->close();
  engines.clear();
}

Dtype dtype_of(const std::string& name) {
  const auto dtype = parse_dtype(name);
  if (!dtype) {
    throw EngineError(ErrorKind::Codec,
                      "dtype " + name + ": float32, float16 and bfloat16 can be summed");
  }
  return *dtype;
}

Codec codec_of(std::uint64_t workers, int field) {
  const auto parsed = parse_field(field);
  if (!parsed) {
    throw EngineError(ErrorKind::Codec,
                      "field " + std::to_string(field) + ": fields have 32, 16 or 8 bits");
  }
  return Codec(workers, *parsed);
}

template <typename AnyArray>
std::size_t elements_of(const AnyArray& data, Dtype dtype) {
  if (data.itemsize() != size_of(dtype)) {
    throw EngineError(ErrorKind::Codec,
                      "the array's items have " + std::to_string(data.itemsize()) +
                          " bytes, the dtype's " + std::to_string(size_of(dtype)));
  }
  return data.size();
}

OwnedWords owned(std::vector<std::uint32_t> words) {
  auto* kept = new std::vector<std::uint32_t>(std::move(words));
  const nb::capsule owner(
      kept, [](void* p) noexcept { delete static_cast<std::vector<std::uint32_t>*>(p); });
  return OwnedWords(kept->data(), {kept->size()}, owner);
}

// Elements that share an exponent code, as the caller has it.
std::size_t checked_block(std::size_t block, int field) {
  if (block != 1 && block != kBlock) {
    throw EngineError(ErrorKind::Codec, "blocks of " + std::to_string(block) +
                                            " elements: they have 1 or " + std::to_string(kBlock));
  }
  if (block == 1 && field != 32) {
    throw EngineError(ErrorKind::Codec,
                      "blocks of one element have fields of 32 bits, not " + std::to_string(field));
  }
  return block;
}

std::size_t blocks_of(std::size_t elements, std::size_t block) {
  return (elements + block - 1) / block;
}

OwnedWords exponents(const ReadOnlyArray& data, const std::string& dtype_name, std::size_t block) {
  checked_block(block, 32);
  const Dtype dtype = dtype_of(dtype_name);
  const std::size_t count = elements_of(data, dtype);
  const auto* bytes = static_cast<const std::byte*>(data.data());
  std::vector<std::uint32_t> codes(blocks_of(count, block));
  const DefaultFloatEnvironment arithmetic;
  if (block == 1) {
    std::vector<std::uint8_t> wire(4 * count);
    Codec::exponents_of_each(dtype, bytes, count, wire.data());
    for (std::size_t i = 0; i < count; ++i) {
      codes[i] = load_big_endian<std::uint32_t>(wire.data() + 4 * i);
    }
    return owned(std::move(codes));
  }
  for (std::size_t i = 0; i < codes.size(); ++i) {
    codes[i] = Codec::exponent(dtype, bytes + i * kBlock * size_of(dtype),
                               std::min(kBlock, count - i * kBlock));
  }
  return owned(std::move(codes));
}

void check_codes(const Words& codes, std::size_t count, std::size_t block) {
  if (codes.size() != blocks_of(count, block)) {
    throw EngineError(ErrorKind::Codec, std::to_string(codes.size()) + " exponent codes for " +
                                            std::to_string(blocks_of(count, block)) + " blocks");
  }
}

// Where the elements that are sent lie, in order, with their codes.
struct Sent {
  std::vector<std::size_t> at;
  std::vector<std::uint32_t> codes;
};

Sent sent_of(const Words& codes) {
  Sent sent;
  for (std::size_t i = 0; i < codes.size(); ++i) {
    if (!is_sent(codes.data()[i])) continue;
    sent.at.push_back(i);
    sent.codes.push_back(codes.data()[i]);
  }
  return sent;
}

std::vector<std::uint32_t> encode_each(const Codec& codec, Dtype dtype, const std::byte* bytes,
                                       const Words& codes) {
  const Sent sent = sent_of(codes);
  const std::size_t size = size_of(dtype);
  std::vector<std::uint32_t> lanes;
  for (std::size_t done = 0; done < sent.at.size(); done += kMaxRun) {
    const std::size_t n = std::min(kMaxRun, sent.at.size() - done);
    std::byte values[kMaxRun * sizeof(float)];
    std::uint8_t wire[4 * kMaxRun];
    for (std::size_t i = 0; i < n; ++i) {
      std::memcpy(values + i * size, bytes + sent.at[done + i] * size, size);
    }
    codec.encode_each(dtype, values, n, sent.codes.data() + done, wire);
    for (std::size_t i = 0; i < n; ++i) {
      lanes.push_back(load_big_endian<std::uint32_t>(wire + 4 * i));
    }
  }
  return lanes;
}

[[noreturn]] void too_few(const Words& lanes) {
  throw EngineError(ErrorKind::Codec,
                    std::to_string(lanes.size()) + " lanes are fewer than the codes call for");
}

void decode_each(const Codec& codec, Dtype dtype, const Words& lanes, const Words& codes,
                 bool average, std::byte* bytes) {
  const Sent sent = sent_of(codes);
  const std::size_t size = size_of(dtype);
  if (sent.at.size() > lanes.size()) too_few(lanes);
  for (std::size_t i = 0; i < codes.size(); ++i) {
    if (!is_sent(codes.data()[i])) {
      Codec::fill_unsent(dtype, codes.data()[i], bytes + i * size, 1);
    }
  }
  for (std::size_t done = 0; done < sent.at.size(); done += kMaxRun) {
    const std::size_t n = std::min(kMaxRun, sent.at.size() - done);
    std::byte values[kMaxRun * sizeof(float)];
    std::uint8_t wire[4 * kMaxRun];
    for (std::size_t i = 0; i < n; ++i) store_big_endian(wire + 4 * i, lanes.data()[done + i]);
    codec.decode_each(dtype, wire, n, sent.codes.data() + done, average, values);
    for (std::size_t i = 0; i < n; ++i) {
      std::memcpy(bytes + sent.at[done + i] * size, values + i * size, size);
    }
  }
}

OwnedWords encode(const ReadOnlyArray& data, const std::string& dtype_name, const Words& codes,
                  std::uint64_t workers, int field, std::size_t block) {
  const Codec codec = codec_of(workers, field);
  checked_block(block, field);
  const Dtype dtype = dtype_of(dtype_name);
  const std::size_t count = elements_of(data, dtype);
  check_codes(codes, count, block);
  const auto* bytes = static_cast<const std::byte*>(data.data());
  const DefaultFloatEnvironment arithmetic;
  if (block == 1) return owned(encode_each(codec, dtype, bytes, codes));
  std::vector<std::uint32_t> lanes;
  lanes.reserve(count / fields_per_lane(codec.field()) + kBlock);
  for (std::size_t i = 0; i < codes.size(); ++i) {
    if (!is_sent(codes.data()[i])) continue;
    std::uint8_t wire[4 * kBlock];
    const std::size_t made =
        codec.encode(dtype, bytes + i * kBlock * size_of(dtype),
                     std::min(kBlock, count - i * kBlock), codes.data()[i], wire);
    for (std::size_t j = 0; j < made; ++j) {
      lanes.push_back(load_big_endian<std::uint32_t>(wire + 4 * j));
    }
  }
  return owned(std::move(lanes));
}

void decode(const Words& lanes, const Array& data, const std::string& dtype_name,
            const Words& codes, std::uint64_t workers, int field, bool average,
            std::size_t block_elements) {
  const Codec codec = codec_of(workers, field);
  checked_block(block_elements, field);
  const Dtype dtype = dtype_of(dtype_name);
  const std::size_t count = elements_of(data, dtype);
  check_codes(codes, count, block_elements);
  auto* bytes = static_cast<std::byte*>(data.data());
  const DefaultFloatEnvironment arithmetic;
  if (block_elements == 1) return decode_each(codec, dtype, lanes, codes, average, bytes);
  const std::size_t per_lane = fields_per_lane(codec.field());
  std::size_t at = 0;
  for (std::size_t i = 0; i < codes.size(); ++i) {
    const std::size_t n = std::min(kBlock, count - i * kBlock);
    std::byte* block = bytes + i * kBlock * size_of(dtype);
    if (!is_sent(codes.data()[i])) {
      Codec::fill_unsent(dtype, codes.data()[i], block, n);
      continue;
    }
    const std::size_t needed = (n + per_lane - 1) / per_lane;
    if (at + needed > lanes.size()) too_few(lanes);
    std::uint8_t wire[4 * kBlock];
    for (std::size_t j = 0; j < needed; ++j) {
      store_big_endian(wire + 4 * j, lanes.data()[at + j]);
    }
    at += needed;
    codec.decode(dtype, wire, n, codes.data()[i], average, block);
  }
}

// What `fail` may be told: the name of an error that this package's users know.
void check_kind(const std::string& kind) {
  const nb::module_ errors = nb::module_::import_("wiresum.host_agent.errors");
  const nb::object base = errors.attr("EngineError");
  if (nb::hasattr(errors, kind.c_str())) {
    const nb::object found = errors.attr(kind.c_str());
    if (PyType_Check(found.ptr()) && PyObject_IsSubclass(found.ptr(), base.ptr()) == 1) return;
  }
  throw EngineError(ErrorKind::Engine, "fail with kind " + kind +
                                           ": it must be the name of an EngineError in "
                                           "wiresum.host_agent.errors");
}

void raise(const EngineError& error) {
  const nb::object kind =
      nb::module_::import_("wiresum.host_agent.errors").attr(class_name(error.kind()));
  PyErr_SetString(kind.ptr(), error.what());
}

nb::dict stats_of(const PythonEngine& engine) {
  nb::dict result;
  for (const auto& [name, value] : engine->stats()) {
    if (name == "rtt_ns" || name == "rto_ns") {
      result[(name.substr(0, 3) + "_us").c_str()] = static_cast<double>(value) * 1e-3;
    } else {
      result[name.c_str()] = value;
    }
  }
  return result;
}

}  // namespace
}  // namespace wiresum

NB_MODULE(_engine, m) {
  using namespace wiresum;
  wiresum::no_leak_notes_in_forks();
  m.doc() = "The worker engine in C++; engine/README.md says what lives there.";
  // Daemon threads and forks that end early leave objects behind, which nobody can do anything
  // about.
  nb::set_leak_warnings(false);
  nb::register_exception_translator([](const std::exception_ptr& pointer, void*) {
    try {
      std::rethrow_exception(pointer);
    } catch (const EngineError& error) {
      raise(error);
    }
  });

  m.attr("BLOCK") = kBlock;
  m.attr("SMALL") = kSmall;
  m.attr("NONFINITE_CODE") = kNonFinite;

  nb::class_<Completion>(m, "Completion")
      .def_ro("ticket", &Completion::ticket)
      .def_prop_ro("error",
                   [](const Completion& self) -> std::optional<std::string> {
                     if (!self.failed) return std::nullopt;
                     return self.error;
                   })
      .def_prop_ro("kind",
                   [](const Completion& self) -> std::optional<std::string> {
                     if (!self.failed) return std::nullopt;
                     return self.kind;
                   })
      .def_ro("nonfinite", &Completion::nonfinite)
      .def("__repr__", [](const Completion& self) {
        return "Completion(ticket=" + std::to_string(self.ticket) +
               (self.failed ? ", " + self.kind + ": " + self.error : "") + ")";
      });

  nb::class_<StreamPosition>(m, "StreamPosition")
      .def_ro("oldest", &StreamPosition::oldest)
      .def_ro("next", &StreamPosition::next)
      .def_ro("result_s", &StreamPosition::result_s)
      .def_prop_ro("wait",
                   [](const StreamPosition& self)
                       -> std::optional<std::tuple<std::uint64_t, std::uint64_t>> {
                     if (!self.wait) return std::nullopt;
                     return std::make_tuple(self.wait->position, self.wait->bitmap);
                   })
      .def_ro("wait_s", &StreamPosition::wait_s)
      .def("__repr__", [](const StreamPosition& self) {
        return "StreamPosition(oldest=" + std::to_string(self.oldest) +
               ", next=" + std::to_string(self.next) + ")";
      });

  value_class<Defaults::kOfStruct>(m, "UdpSocket", Member{"fd", &UdpSocket::fd},
                                   Member{"gso", &UdpSocket::gso}, Member{"gro", &UdpSocket::gro});
  value_class<Defaults::kOfStruct>(m, "ShmSocket", Member{"fd", &ShmSocket::fd},
                                   Member{"path", &ShmSocket::path});
  value_class<Defaults::kNone>(m, "Lease", Member{"switch_ip", &Lease::switch_ip},
                               Member{"switch_udp_port", &Lease::switch_udp_port},
                               Member{"switch_name", &Lease::switch_name},
                               Member{"rank", &Lease::rank}, Member{"workers", &Lease::workers},
                               Member{"job", &Lease::job}, Member{"epoch", &Lease::epoch},
                               Member{"key", &Lease::key}, Member{"reply_key", &Lease::reply_key},
                               Member{"slots", &Lease::slots}, Member{"lanes", &Lease::lanes},
                               Member{"field", &Lease::field});
  value_class<Defaults::kOfStruct>(
      m, "EngineOptions", Member{"timeout_s", &EngineOptions::timeout_s},
      Member{"switch_timeout_s", &EngineOptions::switch_timeout_s},
      Member{"rto_initial_s", &EngineOptions::rto_initial_s},
      Member{"rto_min_s", &EngineOptions::rto_min_s},
      Member{"rto_max_s", &EngineOptions::rto_max_s},
      Member{"poll_max_s", &EngineOptions::poll_max_s}, Member{"window", &EngineOptions::window},
      Member{"first_position", &EngineOptions::first_position},
      Member{"keep_nonfinite", &EngineOptions::keep_nonfinite});

  nb::class_<PythonEngine>(m, "Engine", nb::is_weak_referenceable())
      .def(
          "__init__",
          [](PythonEngine* self, const SwitchSocket& socket, const Lease& lease,
             const std::optional<EngineOptions>& options) {
            new (self) PythonEngine(socket, lease, options.value_or(EngineOptions{}));
          },
          "socket"_a, "lease"_a, "options"_a = nb::none())
      .def(
          "all_reduce",
          [](PythonEngine& self, std::uintptr_t data, std::uint64_t count, const std::string& dtype,
             bool average, std::optional<std::uint64_t> ticket) {
            const Dtype parsed = dtype_of(dtype);
            const WithoutGil release;
            return self->all_reduce(reinterpret_cast<void*>(data), count, parsed, average, ticket);
          },
          "data"_a, "count"_a, "dtype"_a, "average"_a = false, "ticket"_a = nb::none())
      .def_prop_ro("started", [](const PythonEngine& self) { return self->started(); })
      .def(
          "poll", [](PythonEngine& self, double timeout_s) { return self->poll(timeout_s); },
          "timeout_s"_a, nb::call_guard<WithoutGil>())
      .def(
          "wait",
          [](PythonEngine& self, std::uint64_t ticket, double timeout_s) {
            return self->wait(ticket, timeout_s);
          },
          "ticket"_a, "timeout_s"_a, nb::call_guard<WithoutGil>())
      .def("stats", [](const PythonEngine& self) { return stats_of(self); })
      .def("positions",
           [](const PythonEngine& self) {
             const Positions positions = self->positions();
             nb::dict result;
             result["exponent"] = positions.exponent;
             result["data"] = positions.data;
             return result;
           })
      .def(
          "fail",
          [](PythonEngine& self, const std::string& kind, const std::string& line) {
            check_kind(kind);
            const WithoutGil release;
            self->fail(kind, line);
          },
          "kind"_a, "line"_a)
      .def(
          "close", [](PythonEngine& self) { self->close(); }, nb::call_guard<WithoutGil>())
      .def_prop_ro("closed", [](const PythonEngine& self) { return self->closed(); });

  m.def(
      "shm_connect",
      [](const std::string& path, std::uint32_t payload_bytes, std::uint32_t records,
         double timeout_s) {
        ShmAddress address;
        int fd;
        {
          const WithoutGil release;
          fd = shm_connect(path, payload_bytes, records, timeout_s, address);
        }
        return std::make_tuple(fd, address.ip, address.udp_port, address.switch_ip);
      },
      "path"_a, "payload_bytes"_a, "records"_a, "timeout_s"_a);
  m.def(
      "budget", [](std::uint64_t workers, int field) { return codec_of(workers, field).level(); },
      "workers"_a, "field"_a);
  m.def(
      "layout",
      [](std::uint64_t count, int field) {
        return std::make_tuple(block_of(count), count <= kSmall ? 32 : field);
      },
      "count"_a, "field"_a);
  m.def("exponents", &exponents, "data"_a, "dtype"_a, nb::kw_only(), "block"_a = kBlock);
  m.def("encode", &encode, "data"_a, "dtype"_a, "codes"_a, "workers"_a, "field"_a, nb::kw_only(),
        "block"_a = kBlock);
  m.def("decode", &decode, "lanes"_a, "data"_a, "dtype"_a, "codes"_a, "workers"_a, "field"_a,
        "average"_a = false, nb::kw_only(), "block"_a = kBlock);
  m.def(
      "time_codec",
      [](const std::string& dtype, int field, std::uint64_t workers, std::size_t elements,
         std::size_t rounds) {
        const Codec codec = codec_of(workers, field);
        const Dtype parsed = dtype_of(dtype);
        Timings timings;
        {
          const WithoutGil release;
          timings = time_codec(parsed, codec.field(), workers, elements, rounds);
        }
        nb::dict result;
        for (const auto& [name, seconds] : timings) result[name.c_str()] = nb::cast(seconds);
        return result;
      },
      "dtype"_a, "field"_a, "workers"_a, "elements"_a, "rounds"_a);
  m.def("isa", [] { return kernels().name; });
  m.def(
      "set_isa",
      [](const std::string& name) {
        if (name.empty() || !use_kernels(name)) {
          throw EngineError(ErrorKind::Engine,
                            "instruction set " + name + " is unknown or not in this machine");
        }
      },
      "name"_a);

  m.def("close_all", &close_all);
  nb::module_::import_("atexit").attr("register")(m.attr("close_all"));
}
