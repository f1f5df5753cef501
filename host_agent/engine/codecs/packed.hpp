// A tensor, or the rest of one, for whoever sums lanes in bulk: its exponent codes, and the lanes
// of all blocks that are sent, packed in the order in which the engine's data chunks carry them.
// Words are in host order, so that any int32 all-reduce can sum them.
#pragma once

#include <cstdint>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include "codecs/codecs.hpp"

namespace wiresum {

// The top bit flipped, unsigned numbers have the order of signed ones.
inline constexpr std::uint32_t kTopBit = 0x80000000u;

// Elements from the first one on.
using Range = std::pair<std::uint64_t, std::uint64_t>;  // first, count

// A block that is sent: where it lies, and its agreed code.
struct SentBlock {
  std::byte* data;
  std::uint32_t code;
  std::uint32_t elements;
};

// What is done of a tensor: its first `elements` have agreed codes. Of their blocks that are sent,
// `sent` are left, and of the first one of these, `lanes` are done.
struct Done {
  std::uint64_t elements = 0;
  std::vector<SentBlock> sent;
  std::uint64_t lanes = 0;
  std::vector<Range> nonfinite;
};

class Packed {
 public:
  // `data` is the whole tensor of `count` elements, also where some of it is done.
  Packed(std::shared_ptr<const Codecs> codecs, Dtype dtype, bool average, std::byte* data,
         std::uint64_t count, Done done = {});

  // -- 1. exponents, a number of blocks at a time
  std::uint64_t blocks() const { return blocks_; }  // whose codes are not agreed at the start
  // The codes of some of these, with the top bit flipped: a signed MAX of them is the MAX of the
  // codes.
  void exponents(std::uint64_t first, std::uint64_t count, std::int32_t* codes) const;
  // Takes the MAX over all ranks for the next `count` blocks. Writes zeros over those that no rank
  // sends.
  void agree(std::uint64_t count, const std::int32_t* codes);
  // Blocks that hold Inf or NaN on some rank, neighbours merged; left as they are.
  const std::vector<Range>& nonfinite() const { return nonfinite_; }

  // Blocks of agree() that are sent, zero, and not finite.
  std::tuple<std::uint64_t, std::uint64_t, std::uint64_t> agreed() const { return agreed_; }

  // -- 2. lanes, of the agreed blocks that are sent
  std::uint64_t lanes() const;
  void encode(std::uint64_t first, std::uint64_t count, std::uint32_t* lanes) const;
  void decode(std::uint64_t first, std::uint64_t count, const std::uint32_t* lanes) const;

  std::uint64_t count() const { return count_; }
  // What must be the same on all ranks: elements, dtype, average, bits of a field, block.
  std::tuple<std::uint64_t, int, bool, unsigned, std::size_t> kind() const {
    return {count_, static_cast<int>(dtype_), average_, bits_of(codec_.field()),
            codec_.block_elements()};
  }

 private:
  // Calls use(first entry, entries, first element in it, elements) for runs that a codec takes at
  // once.
  template <typename Use>
  void each_run(std::uint64_t first, std::uint64_t count, const Use& use) const;

  const std::shared_ptr<const Codecs> codecs_;
  const Codec& codec_;
  const Dtype dtype_;
  const bool average_;
  std::byte* const data_;
  const std::uint64_t count_;
  const std::uint64_t first_element_;  // of those whose codes are not agreed yet
  const std::uint64_t blocks_;
  std::uint64_t agreed_blocks_ = 0;
  const std::size_t lanes_per_block_;
  std::uint64_t skipped_;  // lanes of the first sent block that are done
  std::vector<SentBlock> sent_;
  std::vector<Range> nonfinite_;
  std::tuple<std::uint64_t, std::uint64_t, std::uint64_t> agreed_;
};

// Merges a range with the last one where they touch.
void append(std::vector<Range>& ranges, std::uint64_t first, std::uint64_t count);

}  // namespace wiresum
