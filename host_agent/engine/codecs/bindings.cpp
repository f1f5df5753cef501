#include "codecs/bindings.hpp"

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <memory>
#include <tuple>
#include <vector>

#include "big_endian.hpp"
#include "codecs/arithmetic.hpp"
#include "codecs/codecs.hpp"
#include "codecs/packed.hpp"
#include "errors.hpp"
#include "lines.hpp"
#include "readers.hpp"
#include "without_gil.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace wiresum {
namespace {

using Array = nb::ndarray<nb::c_contig, nb::device::cpu>;
using ReadOnlyArray = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;
using Words = nb::ndarray<const std::uint32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using OwnedWords = nb::ndarray<nb::numpy, std::uint32_t, nb::ndim<1>>;

template <typename AnyArray>
std::size_t elements_of(const AnyArray& data, Dtype dtype) {
  if (data.itemsize() != size_of(dtype)) {
    throw EngineError(ErrorKind::Codec, lines::kOtherItems.of(data.itemsize(), size_of(dtype)));
  }
  return data.size();
}

OwnedWords owned(std::vector<std::uint32_t> words) {
  auto* kept = new std::vector<std::uint32_t>(std::move(words));
  const nb::capsule owner(
      kept, [](void* p) noexcept { delete static_cast<std::vector<std::uint32_t>*>(p); });
  return OwnedWords(kept->data(), {kept->size()}, owner);
}

// The codec whose blocks have `block` elements.
std::unique_ptr<Codec> codec_of(std::uint64_t workers, int field, std::size_t block) {
  if (block != 1 && block != kBlock) {
    throw EngineError(ErrorKind::Codec, lines::kBadBlock.of(block, kBlock));
  }
  if (block == kBlock) return std::make_unique<BlockFloat>(workers, field_of(field));
  if (field != 32) throw EngineError(ErrorKind::Codec, lines::kBadFieldOfOne.of(field));
  return std::make_unique<ElementFloat>(workers);
}

std::size_t blocks_of(std::size_t elements, std::size_t block) {
  return (elements + block - 1) / block;
}

void check_codes(const Words& codes, std::size_t count, std::size_t block) {
  if (codes.size() != blocks_of(count, block)) {
    throw EngineError(ErrorKind::Codec,
                      lines::kOtherCodes.of(codes.size(), blocks_of(count, block)));
  }
}

// Neighbouring blocks of which all are sent, or none; a codec takes them in one call.
struct Run {
  std::size_t first;  // element
  std::size_t count;  // elements, at most kMaxRun
  const std::uint32_t* codes;
  bool sent;
};

template <typename Use>
void each_run(const Words& codes, std::size_t elements, std::size_t block, const Use& use) {
  const std::uint32_t* all = codes.data();
  for (std::size_t at = 0; at < codes.size();) {
    std::size_t end = at + 1;
    while (end < codes.size() && (end + 1 - at) * block <= kMaxRun &&
           is_sent(all[end]) == is_sent(all[at]) && (is_sent(all[at]) || all[end] == all[at])) {
      ++end;
    }
    const std::size_t first = at * block;
    use(Run{first, std::min(end * block, elements) - first, all + at, is_sent(all[at])});
    at = end;
  }
}

// One of the dtypes that the codecs of floats take.
Dtype float_of(const std::string& name) {
  const Dtype dtype = dtype_of(name);
  if (!is_float(dtype)) throw EngineError(ErrorKind::Codec, lines::kBadDtype.of(name));
  return dtype;
}

OwnedWords exponents(const ReadOnlyArray& data, const std::string& dtype_name, std::size_t block) {
  const auto codec = codec_of(1, 32, block);
  const Dtype dtype = float_of(dtype_name);
  const std::size_t count = elements_of(data, dtype);
  std::vector<std::uint32_t> codes(blocks_of(count, block));
  std::vector<std::uint8_t> wire(4 * codes.size());
  const DefaultFloatEnvironment arithmetic;
  codec->exponents(dtype, data.data(), count, wire.data());
  for (std::size_t i = 0; i < codes.size(); ++i) {
    codes[i] = load_big_endian<std::uint32_t>(wire.data() + 4 * i);
  }
  return owned(std::move(codes));
}

OwnedWords encode(const ReadOnlyArray& data, const std::string& dtype_name, const Words& codes,
                  std::uint64_t workers, int field, std::size_t block) {
  const auto codec = codec_of(workers, field, block);
  const Dtype dtype = float_of(dtype_name);
  const std::size_t count = elements_of(data, dtype);
  check_codes(codes, count, block);
  const auto* bytes = static_cast<const std::byte*>(data.data());
  const DefaultFloatEnvironment arithmetic;
  std::vector<std::uint32_t> lanes;
  lanes.reserve(count / fields_per_lane(codec->field()) + kBlock);
  each_run(codes, count, block, [&](const Run& run) {
    if (!run.sent) return;
    std::uint8_t wire[4 * kMaxRun];
    const std::size_t made =
        codec->encode(dtype, bytes + run.first * size_of(dtype), run.count, run.codes, wire);
    for (std::size_t i = 0; i < made; ++i) {
      lanes.push_back(load_big_endian<std::uint32_t>(wire + 4 * i));
    }
  });
  return owned(std::move(lanes));
}

void decode(const Words& lanes, const Array& data, const std::string& dtype_name,
            const Words& codes, std::uint64_t workers, int field, bool average, std::size_t block) {
  const auto codec = codec_of(workers, field, block);
  const Dtype dtype = float_of(dtype_name);
  const std::size_t count = elements_of(data, dtype);
  check_codes(codes, count, block);
  auto* bytes = static_cast<std::byte*>(data.data());
  const DefaultFloatEnvironment arithmetic;
  const std::size_t per_lane = fields_per_lane(codec->field());
  std::size_t at = 0;
  each_run(codes, count, block, [&](const Run& run) {
    std::byte* out = bytes + run.first * size_of(dtype);
    if (!run.sent) return fill_unsent(dtype, *run.codes, out, run.count);
    const std::size_t needed = (run.count + per_lane - 1) / per_lane;
    if (at + needed > lanes.size()) {
      throw EngineError(ErrorKind::Codec, lines::kTooFewLanes.of(lanes.size()));
    }
    std::uint8_t wire[4 * kMaxRun];
    for (std::size_t i = 0; i < needed; ++i) {
      store_big_endian(wire + 4 * i, lanes.data()[at + i]);
    }
    at += needed;
    codec->decode(dtype, wire, run.count, run.codes, average, out);
  });
}

std::unique_ptr<Packed> packed(std::uintptr_t data, std::uint64_t count, const std::string& dtype,
                               bool average, std::uint64_t workers, int field, int rank, int source,
                               int readers, int reader) {
  auto* const bytes = reinterpret_cast<std::byte*>(data);
  const auto ranks = static_cast<std::uint32_t>(workers);
  const Readers parsed = readers_of(source, readers, reader, ranks);
  const bool for_all = source == kNoSource && parsed.kind == packet::Readers::kAll;
  if (rank < (for_all ? -1 : 0) || rank >= static_cast<int>(ranks)) {
    refuse(lines::kBadRank.of(rank, workers));
  }
  if (source != kNoSource) {
    check_copy(dtype, average, source);
    return std::make_unique<PackedCopy>(bytes, count, source, parsed, rank);
  }
  const Dtype kind = dtype_of(dtype);
  check_average(kind, average);
  const bool writes = for_all || parsed.has(static_cast<std::uint32_t>(rank));
  auto codecs = std::make_shared<const Codecs>(workers, field_of(field));
  const Codec& codec = codecs->of(count, kind);
  return std::make_unique<PackedSum>(std::move(codecs), codec, kind, average, bytes, count, parsed,
                                     writes);
}

}  // namespace

void check_copy(const std::string& dtype, bool average, int source) {
  if (dtype != "bytes" || average) {
    throw EngineError(ErrorKind::Codec, lines::kCopyOfBytes.of(dtype, source));
  }
}

Field field_of(int bits) {
  const auto parsed = parse_field(bits);
  if (!parsed) throw EngineError(ErrorKind::Codec, lines::kBadField.of(bits));
  return *parsed;
}

Dtype dtype_of(const std::string& name) {
  const auto dtype = parse_dtype(name);
  if (!dtype) throw EngineError(ErrorKind::Codec, lines::kBadDtype.of(name));
  return *dtype;
}

void bind_codecs(nb::module_& m) {
  m.attr("BLOCK") = kBlock;
  m.attr("SMALL") = kSmall;
  m.attr("NONFINITE_CODE") = kNonFinite;

  m.def(
      "budget",
      [](std::uint64_t workers, int field) {
        return checked_budget(workers,
                              field == 4 ? field : static_cast<int>(bits_of(field_of(field))));
      },
      "workers"_a, "field"_a);
  m.def(
      "layout",
      [](std::uint64_t count, int field) {
        return count <= kSmall ? std::make_tuple(std::size_t{1}, 32)
                               : std::make_tuple(kBlock, field);
      },
      "count"_a, "field"_a);
  m.def("exponents", &exponents, "data"_a, "dtype"_a, nb::kw_only(), "block"_a = kBlock);
  m.def("encode", &encode, "data"_a, "dtype"_a, "codes"_a, "workers"_a, "field"_a, nb::kw_only(),
        "block"_a = kBlock);
  m.def("decode", &decode, "lanes"_a, "data"_a, "dtype"_a, "codes"_a, "workers"_a, "field"_a,
        "average"_a = false, nb::kw_only(), "block"_a = kBlock);
  nb::class_<Packed>(m, "Packed")
      .def(nb::new_(&packed), "data"_a, "count"_a, "dtype"_a, "average"_a, "workers"_a, "field"_a,
           nb::kw_only(), "rank"_a = -1, "source"_a = kNoSource, "readers"_a = 0, "reader"_a = -1)
      .def_prop_ro("blocks", &Packed::blocks)
      .def_prop_ro("count", &Packed::count)
      .def_prop_ro("lanes", &Packed::lanes)
      .def_prop_ro("source", &Packed::source)
      .def_prop_ro("readers",
                   [](const Packed& self) { return static_cast<int>(self.readers().kind); })
      .def_prop_ro("reader", [](const Packed& self) { return self.readers().named(); })
      .def_prop_ro("writes", &Packed::writes)
      .def_prop_ro("kind", &Packed::kind)
      .def_prop_ro("agreed", &Packed::agreed)
      .def_prop_ro("nonfinite", &Packed::nonfinite)
      .def(
          "exponents",
          [](const Packed& self, std::uint64_t first, std::uint64_t count, std::uintptr_t words) {
            self.exponents(first, count, reinterpret_cast<std::int32_t*>(words));
          },
          "first"_a, "count"_a, "words"_a, nb::call_guard<WithoutGil>())
      .def(
          "agree",
          [](Packed& self, std::uint64_t count, std::uintptr_t words) {
            self.agree(count, reinterpret_cast<const std::int32_t*>(words));
          },
          "count"_a, "words"_a, nb::call_guard<WithoutGil>())
      .def(
          "encode",
          [](const Packed& self, std::uint64_t first, std::uint64_t count, std::uintptr_t words) {
            self.encode(first, count, reinterpret_cast<std::uint32_t*>(words));
          },
          "first"_a, "count"_a, "words"_a, nb::call_guard<WithoutGil>())
      .def(
          "decode",
          [](const Packed& self, std::uint64_t first, std::uint64_t count, std::uintptr_t words) {
            self.decode(first, count, reinterpret_cast<const std::uint32_t*>(words));
          },
          "first"_a, "count"_a, "words"_a, nb::call_guard<WithoutGil>());
  bind_levels(m);
  m.def("isa", [] { return kernels().name; });
  m.def(
      "set_isa",
      [](const std::string& name) {
        if (name.empty() || !use_kernels(name)) {
          refuse(lines::kNoInstructionSet.of(name));
        }
      },
      "name"_a);
}

}  // namespace wiresum
