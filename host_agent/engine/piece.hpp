// A collective is a list of pieces, which are taken together: sums of all ranks' elements (sum.hpp)
// and copies of one rank's bytes (copy.hpp).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "codecs/packed.hpp"
#include "readers.hpp"

namespace wiresum {

// What the caller asks for.
struct PieceSpec {
  void* data = nullptr;
  std::uint64_t count = 0;  // elements of a sum, bytes of a copy
  Dtype dtype = Dtype::Float32;
  bool average = false;
  std::optional<std::uint64_t> ticket{};
  int source = kNoSource;
  Readers readers{};
  std::optional<Field> field{};  // of large floats; none: the lease's

  bool copies() const { return source != kNoSource; }
};

// A piece on its way.
struct Piece {
  std::uint64_t ticket = 0;
  std::uint64_t sequence = 0;  // of all pieces; the same on all ranks, and part of the fingerprint
  std::byte* data = nullptr;
  std::uint64_t count = 0;
  Readers readers;
  bool writes = true;  // this rank's memory gets the result
  bool finished = false;

  explicit Piece(const PieceSpec& spec)
      : data(static_cast<std::byte*>(spec.data)), count(spec.count), readers(spec.readers) {}
  virtual ~Piece() = default;
  Piece(const Piece&) = delete;
  Piece& operator=(const Piece&) = delete;

  // For error lines.
  virtual std::string describe() const = 0;
};

struct Failure;

// Called once for each piece, when it ends: well, or with a failure. `nonfinite`: the elements that
// were left as they are.
using Ended =
    std::function<void(std::uint64_t ticket, const Failure* failure, std::vector<Range> nonfinite)>;

// What is left of a piece for another carrier.
struct Rest {
  std::uint64_t ticket = 0;
  std::unique_ptr<Packed> packed;
};

}  // namespace wiresum
