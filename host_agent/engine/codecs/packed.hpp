// A piece of a collective, or the rest of one, for whoever sums lanes in bulk: of a sum the
// exponent codes, and the lanes of all blocks that are sent, packed in the order in which the
// engine's data chunks carry them; of a copy its bytes, four to a lane. Words are in host order, so
// that any int32 all-reduce can sum them.
#pragma once

#include <cstdint>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include "codecs/codecs.hpp"
#include "readers.hpp"

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

// The source of a sum.
inline constexpr int kNoSource = -1;

class Packed {
 public:
  // What must be the same on all ranks: elements, dtype (a copy's: -1), average, bits of a field,
  // block, source, readers, reader.
  using Kind = std::tuple<std::uint64_t, int, bool, unsigned, std::size_t, int, int, int>;

  virtual ~Packed() = default;
  Packed(const Packed&) = delete;
  Packed& operator=(const Packed&) = delete;

  // -- 1. exponents, a number of blocks at a time
  virtual std::uint64_t blocks() const { return 0; }  // whose codes are not agreed at the start
  // The codes of some of these, with the top bit flipped: a signed MAX of them is the MAX of the
  // codes.
  virtual void exponents(std::uint64_t, std::uint64_t, std::int32_t*) const {}
  // Takes the MAX over all ranks for the next blocks. Where this rank writes, fills
  // those whose result follows from their code.
  virtual void agree(std::uint64_t, const std::int32_t*) {}
  // Blocks that hold Inf or NaN on some rank, neighbours merged; left as they are.
  const std::vector<Range>& nonfinite() const { return nonfinite_; }

  // Blocks of agree() that are sent, zero, and not finite.
  std::tuple<std::uint64_t, std::uint64_t, std::uint64_t> agreed() const { return agreed_; }

  // -- 2. lanes, of the agreed blocks that are sent
  virtual std::uint64_t lanes() const = 0;
  virtual void encode(std::uint64_t first, std::uint64_t count, std::uint32_t* lanes) const = 0;
  // Writes only where this rank writes.
  virtual void decode(std::uint64_t first, std::uint64_t count,
                      const std::uint32_t* lanes) const = 0;

  std::uint64_t count() const { return count_; }
  virtual int source() const { return kNoSource; }
  const Readers& readers() const { return readers_; }
  bool writes() const { return writes_; }  // the memory of this rank
  virtual Kind kind() const = 0;

 protected:
  Packed(std::byte* data, std::uint64_t count, const Readers& readers, bool writes)
      : data_(data), count_(count), readers_(readers), writes_(writes) {}

  std::byte* const data_;
  const std::uint64_t count_;  // elements, or bytes
  const Readers readers_;
  const bool writes_;
  std::vector<Range> nonfinite_;
  std::tuple<std::uint64_t, std::uint64_t, std::uint64_t> agreed_;
};

class PackedSum final : public Packed {
 public:
  // `data` is the whole tensor of `count` elements, also where some of it is done. `codec` is one
  // of `codecs`.
  PackedSum(std::shared_ptr<const Codecs> codecs, const Codec& codec, Dtype dtype, bool average,
            std::byte* data, std::uint64_t count, const Readers& readers, bool writes,
            Done done = {});

  std::uint64_t blocks() const override { return blocks_; }
  void exponents(std::uint64_t first, std::uint64_t count, std::int32_t* codes) const override;
  void agree(std::uint64_t count, const std::int32_t* codes) override;
  std::uint64_t lanes() const override;
  void encode(std::uint64_t first, std::uint64_t count, std::uint32_t* lanes) const override;
  void decode(std::uint64_t first, std::uint64_t count, const std::uint32_t* lanes) const override;
  Kind kind() const override {
    return {count_,
            static_cast<int>(dtype_),
            average_,
            bits_of(codec_.field()),
            codec_.block_elements(),
            kNoSource,
            static_cast<int>(readers_.kind),
            readers_.named()};
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
  const std::uint64_t first_element_;  // of those whose codes are not agreed yet
  const std::uint64_t blocks_;
  std::uint64_t agreed_blocks_ = 0;
  const std::size_t lanes_per_block_;
  std::uint64_t skipped_;  // lanes of the first sent block that are done
  std::vector<SentBlock> sent_;
};

class PackedCopy final : public Packed {
 public:
  // `data` is the whole of it, also where the first `done` bytes, a whole number of lanes or all,
  // have been copied.
  PackedCopy(std::byte* data, std::uint64_t bytes, int source, const Readers& readers,
             std::uint32_t rank, std::uint64_t done = 0)
      : Packed(data, bytes, readers, readers.has(rank) && static_cast<int>(rank) != source),
        source_(source),
        gives_(static_cast<int>(rank) == source),
        done_(done) {}

  std::uint64_t lanes() const override { return (count_ - done_ + 3) / 4; }
  void encode(std::uint64_t first, std::uint64_t count, std::uint32_t* lanes) const override;
  void decode(std::uint64_t first, std::uint64_t count, const std::uint32_t* lanes) const override;
  int source() const override { return source_; }
  Kind kind() const override {
    return {count_, -1, false, 0, 0, source_, static_cast<int>(readers_.kind), readers_.named()};
  }

 private:
  const int source_;
  const bool gives_;
  const std::uint64_t done_;
};

// Merges a range with the last one where they touch.
void append(std::vector<Range>& ranges, std::uint64_t first, std::uint64_t count);

}  // namespace wiresum
