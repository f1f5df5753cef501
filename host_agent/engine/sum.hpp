// A sum of all ranks' elements on its way through the exponent and the data stream.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "codecs/codec.hpp"
#include "codecs/packed.hpp"
#include "piece.hpp"
#include "stream.hpp"
#include "turns.hpp"

namespace wiresum {

// Blocks that are sent, in the order in which they are packed, from the agreement on their exponent
// until the sums have come back.
class BlockRing {
 public:
  using Entry = SentBlock;

  std::uint64_t tail() const { return tail_; }
  // Makes room for so many entries more.
  void reserve(std::uint64_t more);
  void push(const Entry& entry) { entries_[head_++ & (entries_.size() - 1)] = entry; }
  const Entry& operator[](std::uint64_t serial) const {
    return entries_[serial & (entries_.size() - 1)];
  }
  void release_before(std::uint64_t serial) { tail_ = serial; }

 private:
  std::vector<Entry> entries_;  // a power of two of them, or none
  std::uint64_t head_ = 0;
  std::uint64_t tail_ = 0;
};

struct Sum : Piece {
  const Dtype dtype;
  const bool average;
  const Codec* const codec;
  const std::size_t block_elements;  // the codec's
  const std::uint64_t blocks;
  ChunkForm exponent_form;
  ChunkForm data_form;
  Group<Sum>* group = nullptr;

  // exponent stream, in blocks
  std::uint64_t exponents_opened = 0;
  std::uint64_t exponents_agreed = 0;
  // data stream: elements of the blocks that are sent, packed in order
  std::uint64_t blocks_to_send = 0;  // of those agreed so far
  std::uint64_t elements_to_send = 0;
  std::uint64_t elements_scheduled = 0;  // their chunks have their place in the order
  std::uint64_t elements_packed = 0;
  std::uint64_t chunks_open = 0;
  BlockRing sent;  // by number among the blocks that are sent; not of small tensors
  // small tensors: codes of the elements that are sent, in order, and where these lie
  std::vector<std::uint32_t> sent_codes;
  std::vector<std::uint16_t> sent_at;
  std::vector<Range> nonfinite;  // of the blocks that are left as they are, neighbours merged

  Sum(const PieceSpec& spec, const Codec& its_codec);

  std::string describe() const override;

  std::uint64_t opened() const { return exponents_opened; }
  std::uint64_t total() const { return blocks; }

  // A tensor of few floats, each with its own exponent.
  bool small() const { return codec->gathers(); }
  // Its blocks wait for their data in `sent`.
  bool in_ring() const { return !small() && !codec->codes_only(); }
  bool all_agreed() const { return exponents_agreed == blocks; }
  bool all_packed() const { return all_agreed() && elements_packed == elements_to_send; }
  bool complete() const { return all_packed() && chunks_open == 0; }

  std::size_t elements_of(std::uint64_t block) const {
    return static_cast<std::size_t>(block + 1 < blocks ? block_elements
                                                       : count - block * block_elements);
  }
  std::byte* address_of(std::uint64_t block) const {
    return data + block * block_elements * size_of(dtype);
  }
  std::size_t elements_per_chunk(std::size_t lanes) const {
    return lanes * fields_per_lane(codec->field());
  }
  void leave(std::uint64_t block) { append(nonfinite, block * block_elements, elements_of(block)); }
};

}  // namespace wiresum
