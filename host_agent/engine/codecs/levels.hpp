// Blocks as sums of a few levels, in fields of any width: a rank's element is one of the integers 0
// to `top`, and the sum of n ranks at most n * top. Two levels are a vote, three are ternary, more
// are block floating point. Whole blocks of kBlock elements, and lanes in host order: for carriers
// that sum in bulk. The bits of a lane that belong to no field stay zero.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "codecs/block_float.hpp"

namespace wiresum {

// What a block's word is made of: the float32 bits of this number, with the top bit flipped (see
// kTopBit); the unit of a block is `gain` times it.
enum class Statistic : std::uint8_t { Largest = 0, Mean = 1, RootMeanSquare = 2 };

// What a block's random words follow from: a stream of its own for each key (seed, rank), step, and
// origin: two words for each block, which no other block has at this step.
struct Draw {
  std::uint32_t key[2];
  std::uint32_t step;
  std::uint32_t purpose;
  const std::uint32_t* origins;
};

class Levels {
 public:
  // Throws EngineError (kind Codec) if workers * top exceeds a field of `bits`.
  Levels(std::uint64_t workers, std::uint32_t top, int bits, double gain);

  std::size_t lanes() const { return lanes_; }  // of a block

  // Word of each block; `lengths`: how many of its elements count, the rest is zero.
  static void words(Statistic statistic, const float* values, std::size_t blocks,
                    const std::int64_t* lengths, std::int32_t* words);

  // Blocks whose word says that they are zero or not finite get lanes of zeros. Without `draw` the
  // nearest level is taken; of two levels, `up` is that of zeros.
  void encode(const float* values, const std::int32_t* words, std::size_t blocks,
              const std::optional<Draw>& draw, bool up, std::uint32_t* lanes) const;
  // From the sums of the lanes of `workers` ranks the mean. Of one rank's: what it has sent.
  void decode(const std::uint32_t* lanes, const std::int32_t* words, std::size_t blocks,
              std::uint64_t workers, float* values) const;

 private:
  std::uint32_t top_;
  int bits_;
  double gain_;
  std::size_t lanes_;
};

// Rotates blocks by random signs and a Walsh-Hadamard transform, or back. The same seed gives the
// same rotation.
void rotate(float* values, std::size_t blocks, const Draw& draw, bool back);

}  // namespace wiresum
