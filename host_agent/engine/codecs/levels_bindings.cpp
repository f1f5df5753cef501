#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/tuple.h>

#include <cstdint>
#include <optional>
#include <tuple>

#include "codecs/bindings.hpp"
#include "codecs/levels.hpp"
#include "without_gil.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace wiresum {
namespace {

// seed, rank, step, purpose, address of the blocks' origins
using Drawn =
    std::tuple<std::uint32_t, std::uint32_t, std::uint32_t, std::uint32_t, std::uintptr_t>;

Draw draw_of(const Drawn& drawn) {
  const auto [seed, rank, step, purpose, origins] = drawn;
  return {{seed, rank}, step, purpose, reinterpret_cast<const std::uint32_t*>(origins)};
}

void encode(const Levels& self, std::size_t blocks, std::uintptr_t values, std::uintptr_t words,
            std::uintptr_t lanes, const std::optional<Drawn>& drawn, bool up) {
  std::optional<Draw> draw;
  if (drawn) draw = draw_of(*drawn);
  const WithoutGil others_may_run;
  self.encode(reinterpret_cast<const float*>(values), reinterpret_cast<const std::int32_t*>(words),
              blocks, draw, up, reinterpret_cast<std::uint32_t*>(lanes));
}

void decode(const Levels& self, std::size_t blocks, std::uintptr_t lanes, std::uintptr_t words,
            std::uint64_t workers, std::uintptr_t values) {
  const WithoutGil others_may_run;
  self.decode(reinterpret_cast<const std::uint32_t*>(lanes),
              reinterpret_cast<const std::int32_t*>(words), blocks, workers,
              reinterpret_cast<float*>(values));
}

void words_of(int statistic, std::size_t blocks, std::uintptr_t values, std::uintptr_t lengths,
              std::uintptr_t words) {
  const WithoutGil others_may_run;
  Levels::words(static_cast<Statistic>(statistic), reinterpret_cast<const float*>(values), blocks,
                reinterpret_cast<const std::int64_t*>(lengths),
                reinterpret_cast<std::int32_t*>(words));
}

void rotated(std::size_t blocks, std::uintptr_t values, const Drawn& drawn, bool back) {
  const Draw draw = draw_of(drawn);
  const WithoutGil others_may_run;
  rotate(reinterpret_cast<float*>(values), blocks, draw, back);
}

}  // namespace

void bind_levels(nb::module_& m) {
  nb::class_<Levels>(m, "Levels")
      .def(nb::init<std::uint64_t, std::uint32_t, int, double>(), "workers"_a, "top"_a, "bits"_a,
           "gain"_a = 1.0)
      .def_prop_ro("lanes", &Levels::lanes)
      .def("encode", &encode, "blocks"_a, "values"_a, "words"_a, "lanes"_a, "draw"_a = nb::none(),
           "up"_a = false)
      .def("decode", &decode, "blocks"_a, "lanes"_a, "words"_a, "workers"_a, "values"_a);
  m.def("words", &words_of, "statistic"_a, "blocks"_a, "values"_a, "lengths"_a, "words"_a);
  m.def("rotate", &rotated, "blocks"_a, "values"_a, "draw"_a, "back"_a = false);
}

}  // namespace wiresum
