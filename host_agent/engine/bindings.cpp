// The Python face. It converts types and drops the GIL; everything else is behind it.
#include "codecs/bindings.hpp"

#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <tuple>
#include <vector>

#include "codecs/packed.hpp"
#include "engine.hpp"
#include "leak_notes.hpp"
#include "lines.hpp"
#include "python_errors.hpp"
#include "transports/shm.hpp"
#include "without_gil.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace wiresum {
namespace {

// Engines that are alive, to be closed before the interpreter goes: their threads write into
// tensors that it is about to free. A thread that closes an engine owns it meanwhile, so any thread
// may drop it.
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

// Never destroyed: threads may outlive the static objects of C++.
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

// `fail` takes the name of an error of wiresum.host_agent.errors.
void check_kind(const std::string& kind) {
  const nb::module_ errors = nb::module_::import_("wiresum.host_agent.errors");
  const nb::object base = errors.attr("EngineError");
  if (nb::hasattr(errors, kind.c_str())) {
    const nb::object found = errors.attr(kind.c_str());
    if (PyType_Check(found.ptr()) && PyObject_IsSubclass(found.ptr(), base.ptr()) == 1) return;
  }
  refuse(lines::kBadKind.of(kind));
}

StreamName stream_of(const std::string& stream) {
  for (const StreamName name : kStreams) {
    if (stream == name_of(name)) return name;
  }
  refuse(lines::kBadStream.of(stream));
}

// (data, count, dtype, average, ticket, source, readers, reader, field)
using PieceArguments = std::tuple<std::uintptr_t, std::uint64_t, std::string, bool,
                                  std::optional<std::uint64_t>, int, int, int, int>;

PieceSpec spec_of(const PieceArguments& arguments, std::uint32_t workers) {
  const auto& [data, count, dtype, average, ticket, source, readers, reader, field] = arguments;
  PieceSpec spec{.data = reinterpret_cast<void*>(data),
                 .count = count,
                 .average = average,
                 .ticket = ticket,
                 .source = source,
                 .readers = readers_of(source, readers, reader, workers)};
  if (spec.copies()) {
    check_copy(dtype, average, source);
  } else {
    spec.dtype = dtype_of(dtype);
    if (field != 0) spec.field = field_of(field);
  }
  return spec;
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
  // Daemon threads and forks that end early leave objects behind: that is no leak.
  nb::set_leak_warnings(false);
  translate_errors();

  nb::class_<Completion>(m, "Completion")
      .def_ro("ticket", &Completion::ticket)
      .def_prop_ro("error",
                   [](const Completion& self) -> nb::object {
                     return self.failed ? in_python(self.error) : nb::none();
                   })
      .def_prop_ro("kind",
                   [](const Completion& self) -> std::optional<std::string> {
                     if (!self.failed) return std::nullopt;
                     return self.kind;
                   })
      .def_ro("nonfinite", &Completion::nonfinite)
      .def("__repr__", [](const Completion& self) {
        return "Completion(ticket=" + std::to_string(self.ticket) +
               (self.failed ? ", " + self.kind + ": " + self.error.text : "") + ")";
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
      Member{"keep_nonfinite", &EngineOptions::keep_nonfinite},
      Member{"suspend_unreachable", &EngineOptions::suspend_unreachable});

  nb::class_<Rest>(m, "Rest")
      .def_ro("ticket", &Rest::ticket)
      .def_prop_ro(
          "packed", [](Rest& self) -> Packed& { return *self.packed; },
          nb::rv_policy::reference_internal);

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
            const PieceSpec piece{.data = reinterpret_cast<void*>(data),
                                  .count = count,
                                  .dtype = dtype_of(dtype),
                                  .average = average,
                                  .ticket = ticket};
            const WithoutGil release;
            return self->collect({piece}).front();
          },
          "data"_a, "count"_a, "dtype"_a, "average"_a = false, "ticket"_a = nb::none())
      .def(
          "collect",
          [](PythonEngine& self, const std::vector<PieceArguments>& pieces) {
            std::vector<PieceSpec> specs;
            for (const PieceArguments& piece : pieces) {
              specs.push_back(spec_of(piece, self->lease().workers));
            }
            const WithoutGil release;
            return self->collect(specs);
          },
          "pieces"_a)
      .def_prop_ro("epoch", [](const PythonEngine& self) { return self->lease().epoch; })
      .def_prop_ro("lanes", [](const PythonEngine& self) { return self->lease().lanes; })
      .def_prop_ro("started", [](const PythonEngine& self) { return self->started(); })
      .def(
          "poll", [](PythonEngine& self, double timeout_s) { return self->poll(timeout_s); },
          "timeout_s"_a, nb::call_guard<WithoutGil>())
      .def(
          "await_end",
          [](PythonEngine& self, std::uint64_t first, std::uint64_t count, double timeout_s,
             bool leave) { return self->await_end(first, count, timeout_s, leave); },
          "first"_a, "count"_a, "timeout_s"_a, "leave"_a, nb::call_guard<WithoutGil>())
      .def("flush", [](PythonEngine& self) { self->flush(); })
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
             result["copy"] = positions.copy;
             return result;
           })
      .def(
          "fail",
          [](PythonEngine& self, const std::string& kind, const nb::str& line) {
            check_kind(kind);
            const LineText text = from_python(line);
            const WithoutGil release;
            self->fail(kind, text);
          },
          "kind"_a, "line"_a)
      .def(
          "suspend",
          [](PythonEngine& self, const nb::str& why) {
            const LineText text = from_python(why);
            const WithoutGil release;
            return self->suspend(text);
          },
          "why"_a)
      .def_prop_ro("suspended",
                   [](const PythonEngine& self) -> nb::object {
                     const std::optional<LineText> why = self->suspended();
                     return why ? in_python(*why) : nb::none();
                   })
      .def("extent",
           [](PythonEngine& self) {
             return self->handing_over([](Reducer& reducer) {
               nb::dict result;
               for (const StreamName name : kStreams) result[name_of(name)] = reducer.extent(name);
               return result;
             });
           })
      .def(
          "contributions",
          [](PythonEngine& self, const std::string& stream, std::uint64_t first,
             std::uint64_t count, std::uintptr_t words) {
            const StreamName name = stream_of(stream);
            const WithoutGil release;
            return self->handing_over([&](Reducer& reducer) {
              return reducer.contributions(name, first, count,
                                           reinterpret_cast<std::uint32_t*>(words));
            });
          },
          "stream"_a, "first"_a, "count"_a, "words"_a)
      .def(
          "take_sums",
          [](PythonEngine& self, const std::string& stream, std::uint64_t first,
             std::uint64_t count, std::uintptr_t words) {
            const StreamName name = stream_of(stream);
            const WithoutGil release;
            self->handing_over([&](Reducer& reducer) {
              reducer.take_sums(name, first, count, reinterpret_cast<const std::uint32_t*>(words));
            });
          },
          "stream"_a, "first"_a, "count"_a, "words"_a)
      .def(
          "rests",
          [](PythonEngine& self, std::uint64_t exponent_end, std::uint64_t data_end,
             std::uint64_t copy_end) { return self->rests({exponent_end, data_end, copy_end}); },
          "exponent_end"_a, "data_end"_a, "copy_end"_a, nb::call_guard<WithoutGil>())
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
  bind_codecs(m);

  m.def("close_all", &close_all);
  nb::module_::import_("atexit").attr("register")(m.attr("close_all"));
}
