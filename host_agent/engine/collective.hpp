// One collective on its way through both streams, and the blocks whose exponents are agreed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "codecs/codec.hpp"
#include "codecs/packed.hpp"

namespace wiresum {

struct Collective {
  std::uint64_t ticket = 0;
  std::uint64_t sequence = 0;  // the same on all ranks; part of the fingerprint
  std::byte* data = nullptr;
  std::uint64_t count = 0;
  Dtype dtype = Dtype::Float32;
  bool average = false;

  const Codec* codec = nullptr;
  std::size_t block_elements = 0;  // the codec's
  std::uint64_t blocks = 0;
  std::uint32_t exponent_fingerprint = 0;
  std::uint32_t data_fingerprint = 0;

  // exponent stream, in blocks
  std::uint64_t exponents_opened = 0;
  std::uint64_t exponents_agreed = 0;
  // data stream: elements of the blocks that are sent, packed in order
  std::uint64_t first_agreed_block = 0;  // serial number in the BlockRing
  std::uint64_t blocks_to_send = 0;      // of those agreed so far
  std::uint64_t elements_to_send = 0;
  std::uint64_t elements_packed = 0;
  std::uint64_t chunks_open = 0;
  // small tensors: codes of the elements that are sent, in order, and where these lie
  std::vector<std::uint32_t> sent_codes;
  std::vector<std::uint16_t> sent_at;
  std::vector<Range> nonfinite;  // of the blocks that are left as they are, neighbours merged
  bool finished = false;

  // A tensor of few floats, each with its own exponent.
  bool small() const { return codec->gathers(); }
  // Its blocks wait for their data in the BlockRing.
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

// Blocks that are sent, in the order in which they are packed, from the agreement on their exponent
// until the sums have come back. Bounded: exponents go no further ahead than there is room here.
class BlockRing {
 public:
  using Entry = SentBlock;

  explicit BlockRing(std::size_t capacity) : entries_(capacity) {}  // a power of two

  std::uint64_t head() const { return head_; }
  std::uint64_t size() const { return head_ - tail_; }
  std::uint64_t capacity() const { return entries_.size(); }
  void push(const Entry& entry) { entries_[head_++ & (entries_.size() - 1)] = entry; }
  const Entry& operator[](std::uint64_t serial) const {
    return entries_[serial & (entries_.size() - 1)];
  }
  void release_before(std::uint64_t serial) { tail_ = serial; }

 private:
  std::vector<Entry> entries_;
  std::uint64_t head_ = 0;
  std::uint64_t tail_ = 0;
};

}  // namespace wiresum
