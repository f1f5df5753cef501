// A copy of one rank's bytes to others on its way through the copy stream: a sum to which only the
// source contributes lanes.
#pragma once

#include <cstdint>
#include <string>

#include "piece.hpp"
#include "stream.hpp"

namespace wiresum {

struct Copy : Piece {
  const int source;
  ChunkForm form;
  std::uint64_t bytes_opened = 0;
  std::uint64_t chunks_open = 0;

  Copy(const PieceSpec& spec, std::uint32_t rank) : Piece(spec), source(spec.source) {
    form.gives = static_cast<int>(rank) == source;
    form.gets = readers.has(rank);
    form.readers = readers.on_wire();
    writes = form.gets && !form.gives;
  }

  std::string describe() const override {
    return "copy " + std::to_string(sequence) + " (" + std::to_string(count) + " bytes of rank " +
           std::to_string(source) + wiresum::describe(readers) + ")";
  }

  std::uint64_t opened() const { return bytes_opened; }
  std::uint64_t total() const { return count; }
  bool complete() const { return bytes_opened == count && chunks_open == 0; }
};

}  // namespace wiresum
