// The Python face of the codec's benchmark. The module holds a codec of its own, the engine's
// library linked once more: the instruction set is chosen here, and the engine's stays what it is.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "codec_times.hpp"
#include "codecs/arithmetic.hpp"
#include "python_errors.hpp"

namespace nb = nanobind;
using namespace nb::literals;

NB_MODULE(_codec, m) {
  using namespace wiresum;
  m.doc() = "How long the codec takes.";
  translate_errors();
  m.def("isa", [] { return kernels().name; });
  m.def(
      "use_isa", [](const std::string& name) { return !name.empty() && use_kernels(name); },
      "name"_a);
  m.def(
      "time_codec",
      [](const std::string& dtype_name, int field_bits, std::uint64_t workers, std::size_t elements,
         std::size_t rounds) {
        const auto dtype = parse_dtype(dtype_name);
        const auto field = parse_field(field_bits);
        if (!dtype || !field) throw nb::value_error("no such dtype or field");
        bench::Timings timings;
        {
          const nb::gil_scoped_release release;
          timings = bench::time_codec(*dtype, *field, workers, elements, rounds);
        }
        nb::dict result;
        for (const auto& [name, seconds] : timings) result[name.c_str()] = nb::cast(seconds);
        return result;
      },
      "dtype"_a, "field"_a, "workers"_a, "elements"_a, "rounds"_a);
}
