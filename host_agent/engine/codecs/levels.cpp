#include "codecs/levels.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

#include "codecs/arithmetic.hpp"
#include "codecs/packed.hpp"
#include "errors.hpp"
#include "lines.hpp"

namespace wiresum {
namespace {

// The number in a word; 0 for blocks that have no lanes.
float number_in(std::int32_t word) {
  const std::uint32_t code = static_cast<std::uint32_t>(word) ^ kTopBit;
  return is_sent(code) ? std::bit_cast<float>(code) : 0.0f;
}

std::uint32_t code_of(double number) {
  const std::uint32_t code = std::bit_cast<std::uint32_t>(static_cast<float>(number));
  return is_finite_code(code) ? code : kNonFinite;
}

void draw_words(const Draw& draw, std::size_t block, std::uint32_t* words) {
  const std::uint32_t* origin = draw.origins + 2 * block;
  const std::uint32_t rest[] = {draw.step, origin[1], draw.purpose};
  kernels().levels.random_words(origin[0], rest, draw.key, words);
}

}  // namespace

Levels::Levels(std::uint64_t workers, std::uint32_t top, int bits, double gain)
    : top_(top), bits_(bits), gain_(gain) {
  if (bits < 1 || bits > kLevelBits) throw EngineError(ErrorKind::Codec, lines::kBadField.of(bits));
  const std::uint64_t largest = (std::uint64_t{1} << bits) - 1;
  if (top == 0 || workers == 0 || workers > largest / top) {
    throw EngineError(ErrorKind::Codec, lines::kNoBudget.of(bits, workers, advice(workers, bits)));
  }
  const std::size_t per_lane = 32 / static_cast<std::size_t>(bits);
  lanes_ = (kBlock + per_lane - 1) / per_lane;
}

void Levels::words(Statistic statistic, const float* values, std::size_t blocks,
                   const std::int64_t* lengths, std::int32_t* words) {
  const DefaultFloatEnvironment arithmetic;
  const LevelKernels& table = kernels().levels;
  for (std::size_t i = 0; i < blocks; ++i) {
    const float* block = values + i * kBlock;
    const auto length = static_cast<double>(lengths[i]);
    std::uint32_t code = 0;
    switch (statistic) {
      case Statistic::Largest:
        code = BlockFloat::exponent(Dtype::Float32, block, kBlock);
        break;
      case Statistic::Mean:
        code = code_of(table.sum_of_magnitudes(block) / length);
        break;
      case Statistic::RootMeanSquare:
        code = code_of(std::sqrt(table.sum_of_squares(block) / length));
        break;
    }
    words[i] = static_cast<std::int32_t>(code ^ kTopBit);
  }
}

void Levels::encode(const float* values, const std::int32_t* words, std::size_t blocks,
                    const std::optional<Draw>& draw, bool up, std::uint32_t* lanes) const {
  const DefaultFloatEnvironment arithmetic;
  const LevelKernels& table = kernels().levels;
  const double top = top_;
  for (std::size_t i = 0; i < blocks; ++i, lanes += lanes_) {
    const double unit = gain_ * static_cast<double>(number_in(words[i]));
    if (unit == 0.0) {
      std::fill_n(lanes, lanes_, 0u);
      continue;
    }
    const float* block = values + i * kBlock;
    const LevelParams params{top / (2.0 * unit), top / 2.0, top};
    alignas(64) std::uint32_t levels[kBlock];
    if (draw) {
      alignas(64) std::uint32_t drawn[kBlock];
      draw_words(*draw, i, drawn);
      table.random(block, params, drawn, levels);
    } else if (top_ == 1) {
      table.nearest_of_two(block, up, levels);
    } else {
      table.nearest(block, params, levels);
    }
    table.pack[bits_](levels, lanes);
  }
}

void Levels::decode(const std::uint32_t* lanes, const std::int32_t* words, std::size_t blocks,
                    std::uint64_t workers, float* values) const {
  const DefaultFloatEnvironment arithmetic;
  const LevelKernels& table = kernels().levels;
  const auto zero = static_cast<std::int32_t>(workers * top_);
  for (std::size_t i = 0; i < blocks; ++i, lanes += lanes_) {
    alignas(64) std::uint32_t sums[kBlock];
    table.unpack[bits_](lanes, sums);
    const double unit = gain_ * static_cast<double>(number_in(words[i]));
    table.values(sums, zero, unit / static_cast<double>(zero), values + i * kBlock);
  }
}

void rotate(float* values, std::size_t blocks, const Draw& draw, bool back) {
  const DefaultFloatEnvironment arithmetic;
  const LevelKernels& table = kernels().levels;
  for (std::size_t i = 0; i < blocks; ++i) {
    float* block = values + i * kBlock;
    alignas(64) std::uint32_t drawn[kBlock];
    draw_words(draw, i, drawn);
    if (!back) table.turn_signs(drawn, block);
    table.hadamard(block);
    if (back) table.turn_signs(drawn, block);
  }
}

}  // namespace wiresum
