// The Python face of the benchmark's native parts.
#include <arpa/inet.h>
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "load.hpp"
#include "trains.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace wiresum::bench {
namespace {

constexpr int kLookMs = 100;

sockaddr_in address(const std::string& ip, std::uint16_t port) {
  sockaddr_in made{};
  made.sin_family = AF_INET;
  made.sin_port = htons(port);
  if (inet_pton(AF_INET, ip.c_str(), &made.sin_addr) != 1) {
    throw BenchError(ip + " is not an IPv4 address");
  }
  return made;
}

void look_for_signals() {
  const nb::gil_scoped_acquire acquire;
  if (PyErr_CheckSignals() != 0) throw nb::python_error();
}

// Sends every train back to where it came from, until a signal's handler raises.
void reflect(int fd) {
  const nb::gil_scoped_release release;
  prepare_socket(fd);
  Receiver receiver;
  const int fds[] = {fd};
  for (;;) {
    const auto trains = receiver.receive(fd);
    if (trains.empty() && !wait_for(fds, false, kLookMs)) look_for_signals();
    for (const Train& train : trains) {
      while (!send_train(fd, train)) {
        if (!wait_for(fds, true, kLookMs)) look_for_signals();
      }
    }
  }
}

}  // namespace
}  // namespace wiresum::bench

NB_MODULE(_native, m) {
  using namespace wiresum::bench;
  m.doc() = "Trains of datagrams for measurements.";
  nb::exception<BenchError>(m, "BenchError", PyExc_RuntimeError);
  m.def("reflect", &reflect, "fd"_a);
  nb::class_<Load>(m, "Load")
      .def(
          "__init__",
          [](Load* self, std::vector<int> fds, const std::string& ip, std::uint16_t port,
             std::uint16_t job, std::uint32_t epoch, std::uint64_t key, std::uint32_t slots,
             std::uint32_t lanes, bool reflected) {
            new (self) Load(std::move(fds), address(ip, port),
                            wiresum::bench::Lease{job, epoch, key, slots, lanes}, reflected);
          },
          "fds"_a, nb::kw_only(), "ip"_a, "port"_a, "job"_a = 1, "epoch"_a = 1, "key"_a = 0,
          "slots"_a, "lanes"_a, "reflected"_a = false)
      .def("run", &Load::run, "chunks"_a, "silence_ms"_a = 5000,
           nb::call_guard<nb::gil_scoped_release>());
}
