#include "codec_times.hpp"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cstring>
#include <iterator>

#include "codecs/arithmetic.hpp"
#include "codecs/block_float.hpp"

namespace wiresum::bench {
namespace {

constexpr std::size_t kBufferBytes = 512 * 1024;  // about what a window of packets takes

// Finite values of both signs whose magnitudes differ from block to block.
std::vector<float> some_values(std::size_t count) {
  std::vector<float> values(count);
  std::uint32_t state = 1;
  for (std::size_t i = 0; i < count; ++i) {
    state = state * 1664525u + 1013904223u;  // Knuth and Lewis
    const std::uint32_t exponent = 120 + (i / kBlock) % 8;
    values[i] = std::bit_cast<float>((state & 0x807fffffu) | exponent << 23);
  }
  return values;
}

class Bench {
 public:
  Bench(Dtype dtype, Field field, std::uint64_t workers, std::size_t elements)
      : dtype_(dtype),
        codec_(workers, field),
        blocks_(std::max<std::size_t>(elements / kBlock, 1)),
        block_bytes_(kBlock * size_of(dtype)),
        lane_bytes_(kBlock / fields_per_lane(field) * sizeof(std::uint32_t)),
        tensor_(blocks_ * block_bytes_),
        other_(tensor_.size()),
        buffer_(kBufferBytes),
        codes_(blocks_) {
    const std::vector<float> values = some_values(blocks_ * kBlock);
    if (dtype == Dtype::Float32) {
      std::memcpy(tensor_.data(), values.data(), tensor_.size());
    } else {
      kernels().store[static_cast<int>(dtype)](values.data(), values.size(), tensor_.data());
    }
    exponents();
  }

  void exponents() {
    for (std::size_t i = 0; i < blocks_; ++i) exponent(i);
  }
  void quantize() {
    for (std::size_t i = 0; i < blocks_; ++i) {
      codec().encode(dtype_, block(i), kBlock, &codes_[i], lanes(i));
    }
  }
  void encode() {
    for (std::size_t i = 0; i < blocks_; ++i) {
      exponent(i);
      codec().encode(dtype_, block(i), kBlock, &codes_[i], lanes(i));
    }
  }
  void dequantize() {
    for (std::size_t i = 0; i < blocks_; ++i) {
      codec().decode(dtype_, lanes(i), kBlock, &codes_[i], false, other_.data() + i * block_bytes_);
    }
  }
  void copy_in() {
    pieces([&](std::size_t at, std::size_t n) { std::memcpy(buffer_.data(), &tensor_[at], n); });
  }
  void copy_out() {
    pieces([&](std::size_t at, std::size_t n) { std::memcpy(&other_[at], buffer_.data(), n); });
  }
  void copy() { std::memcpy(other_.data(), tensor_.data(), tensor_.size()); }

 private:
  // As the engine sees it: what its interface costs is charged to it.
  const Codec& codec() const { return codec_; }
  void exponent(std::size_t i) { codes_[i] = BlockFloat::exponent(dtype_, block(i), kBlock); }
  const std::uint8_t* block(std::size_t i) const { return tensor_.data() + i * block_bytes_; }
  std::uint8_t* lanes(std::size_t i) {
    return buffer_.data() + i % (kBufferBytes / lane_bytes_) * lane_bytes_;
  }
  template <typename Copy>
  void pieces(const Copy& copy) const {
    for (std::size_t at = 0; at < tensor_.size(); at += kBufferBytes) {
      copy(at, std::min(kBufferBytes, tensor_.size() - at));
      // Else the compiler might leave out all copies but the last.
      asm volatile("" ::: "memory");
    }
  }

  Dtype dtype_;
  BlockFloat codec_;
  std::size_t blocks_, block_bytes_, lane_bytes_;
  std::vector<std::uint8_t> tensor_, other_, buffer_;
  std::vector<std::uint32_t> codes_;
};

}  // namespace

Timings time_codec(Dtype dtype, Field field, std::uint64_t workers, std::size_t elements,
                   std::size_t rounds) {
  using Clock = std::chrono::steady_clock;
  const DefaultFloatEnvironment arithmetic;
  Bench bench(dtype, field, workers, elements);
  const std::pair<const char*, void (Bench::*)()> parts[] = {
      {"exponents", &Bench::exponents}, {"quantize", &Bench::quantize},
      {"encode", &Bench::encode},       {"dequantize", &Bench::dequantize},
      {"copy_in", &Bench::copy_in},     {"copy_out", &Bench::copy_out},
      {"copy", &Bench::copy},
  };
  Timings timings;
  for (const auto& [name, part] : parts) timings.emplace_back(name, std::vector<double>{});
  for (std::size_t round = 0; round <= rounds; ++round) {
    for (std::size_t i = 0; i < std::size(parts); ++i) {
      const auto begin = Clock::now();
      (bench.*parts[i].second)();
      const std::chrono::duration<double> passed = Clock::now() - begin;
      if (round > 0) timings[i].second.push_back(passed.count());  // the first one warms up
    }
  }
  return timings;
}

}  // namespace wiresum::bench
