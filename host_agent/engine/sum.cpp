#include "sum.hpp"

#include <algorithm>
#include <bit>
#include <utility>

namespace wiresum {

void BlockRing::reserve(std::uint64_t more) {
  const std::uint64_t needed = head_ - tail_ + more;
  if (needed <= entries_.size()) return;
  std::vector<Entry> larger(std::bit_ceil(needed));
  for (std::uint64_t serial = tail_; serial != head_; ++serial) {
    larger[serial & (larger.size() - 1)] = (*this)[serial];
  }
  entries_ = std::move(larger);
}

Sum::Sum(const PieceSpec& spec, const Codec& its_codec)
    : Piece(spec),
      dtype(spec.dtype),
      average(spec.average),
      codec(&its_codec),
      block_elements(its_codec.block_elements()),
      blocks((spec.count + block_elements - 1) / block_elements) {
  if (small()) {
    sent_codes.resize(count);
    sent_at.resize(count);
  }
}

std::string Sum::describe() const {
  return (readers.kind == packet::Readers::kAll ? "all-reduce " : "reduce ") +
         std::to_string(sequence) + " (" + std::to_string(count) + " x " + name_of(dtype) +
         (average ? ", average" : "") + wiresum::describe(readers) + ")";
}

}  // namespace wiresum
