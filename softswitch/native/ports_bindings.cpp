// Python's view of the ports.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <cerrno>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <system_error>

#include "dataplane.hpp"
#include "ports_loop.hpp"
#include "ports_raw.hpp"
#include "ports_shm.hpp"
#include "ports_udp.hpp"

namespace nb = nanobind;
using namespace nb::literals;
using namespace wiresum::softswitch;
using namespace wiresum::softswitch::ports;

namespace {

// The data plane that the ports run frames through; it can be exchanged while they do.
class Current final : public ProgramHost {
 public:
  bool with_program(const std::function<void(Program&)>& work) override {
    const std::lock_guard host_lock(mutex_);
    if (dataplane_ == nullptr) return false;
    const std::lock_guard lock(dataplane_->mutex());
    work(dataplane_->program());
    return true;
  }

  void set(Dataplane* dataplane) {
    const std::lock_guard lock(mutex_);
    dataplane_ = dataplane;
  }

 private:
  std::mutex mutex_;
  Dataplane* dataplane_ = nullptr;
};

// Runs `make`; a failed system call becomes Python's OSError with its errno.
template <typename F>
auto or_oserror(F make) {
  try {
    return make();
  } catch (const std::system_error& e) {
    errno = e.code().value();
    PyErr_SetFromErrno(PyExc_OSError);
    throw nb::python_error();
  }
}

class Ports {
 public:
  explicit Ports(std::optional<std::uint16_t> cpu_port)
      : current_(std::make_shared<Current>()), loop_(current_, cpu_port) {}

  ~Ports() { stop(); }

  std::string add(std::unique_ptr<Port> port) {
    std::string address = port->address();
    loop_.add(std::move(port));
    return address;
  }

  // `keep` is the Python object that owns `dataplane`.
  void set_dataplane(nb::object keep) {
    Dataplane* dataplane = keep.is_none() ? nullptr : nb::cast<Dataplane*>(keep);
    {
      nb::gil_scoped_release release;
      current_->set(dataplane);
    }
    keep_ = std::move(keep);  // only now may the one before it go
  }

  void start() {
    or_oserror([this] { loop_.start(); });
  }

  void stop() {
    nb::gil_scoped_release release;
    loop_.stop();
  }

  nb::dict stats() const {
    nb::dict all;
    for (const auto& port : loop_.ports()) {
      nb::dict one;
      for (const auto& [name, value] : port->stats().list()) one[name.c_str()] = value;
      all[nb::int_(port->number())] = one;
    }
    return all;
  }

  nb::dict drops() const {
    nb::dict drops;
    drops["no_program"] = loop_.drops_without_program();
    drops["no_port"] = loop_.drops_without_port();
    drops["to_controller"] = loop_.drops_to_controller();
    return drops;
  }

  bool inject(nb::bytes frame) { return loop_.inject({frame.c_str(), frame.size()}); }

  nb::list take_for_controller() {
    nb::list frames;
    for (const std::string& frame : loop_.take_for_controller()) {
      frames.append(nb::bytes(frame.data(), frame.size()));
    }
    return frames;
  }

  int controller_fd() const { return loop_.controller_fd(); }

 private:
  std::shared_ptr<Current> current_;
  PortLoop loop_;
  nb::object keep_;
};

}  // namespace

void register_ports(nb::module_& m) {
  nb::class_<Ports> c(m, "Ports",
                      "The ports of a switch and the thread that moves frames between them.");
  c.def(nb::init<std::optional<std::uint16_t>>(), "cpu_port"_a = nb::none());
  c.def(
      "add_udp",
      [](Ports& ports, std::uint16_t number, const std::string& host, std::uint16_t port,
         std::uint16_t service_port, double loss, std::uint64_t seed) {
        // Two generators, so that the frames lost inwards do not depend on the frames that leave.
        return or_oserror([&] {
          return ports.add(std::make_unique<UdpPort>(number, host, port, service_port,
                                                     Loss(loss, seed), Loss(loss, ~seed)));
        });
      },
      "number"_a, "host"_a, "port"_a, "service_port"_a, "loss"_a = 0.0, "seed"_a = 0,
      "Opens a udp port; returns HOST:PORT. Raises OSError.");
  c.def(
      "add_raw",
      [](Ports& ports, std::uint16_t number, const std::string& interface, double loss,
         std::uint64_t seed) {
        return or_oserror([&] {
          return ports.add(
              std::make_unique<RawPort>(number, interface, Loss(loss, seed), Loss(loss, ~seed)));
        });
      },
      "number"_a, "interface"_a, "loss"_a = 0.0, "seed"_a = 0,
      "Opens a raw port; returns the interface. Raises OSError.");
  c.def(
      "add_shm",
      [](Ports& ports, std::uint16_t number, const std::string& path, unsigned mode,
         std::uint32_t network, std::uint32_t addresses, std::uint32_t switch_ip,
         std::uint16_t service_port, double loss, std::uint64_t seed) {
        return or_oserror([&] {
          return ports.add(std::make_unique<ShmPort>(
              number, ShmOptions{path, mode, network, addresses, switch_ip, service_port},
              Loss(loss, seed), Loss(loss, ~seed)));
        });
      },
      "number"_a, "path"_a, "mode"_a, "network"_a, "addresses"_a, "switch_ip"_a, "service_port"_a,
      "loss"_a = 0.0, "seed"_a = 0, "Opens a shm port; returns the path. Raises OSError.");
  c.def("set_dataplane", &Ports::set_dataplane, "dataplane"_a.none(),
        "Runs frames through this data plane from now on (None: drops and counts them).");
  c.def("start", &Ports::start, "Starts the thread.");
  c.def("stop", &Ports::stop, "Ends the thread.");
  c.def("stats", &Ports::stats, "What each port has counted, by its number.");
  c.def("drops", &Ports::drops, "What was dropped between the ports.");
  c.def("inject", &Ports::inject, "frame"_a,
        "Gives the program a frame on the CPU port; False if too many wait.");
  c.def("take_for_controller", &Ports::take_for_controller,
        "The frames that left through the CPU port since the last call.");
  c.def("controller_fd", &Ports::controller_fd,
        "A descriptor that is readable while frames for the controller wait.");
}
