// Tensors whose elements have an exponent each: the steps that differ from those of large ones.
#include <cstring>

#include "big_endian.hpp"
#include "summing.hpp"

namespace wiresum {
namespace {

// Whether the elements that are sent from `first` on, `count` of them, are neighbours.
bool in_a_row(const Sum& sum, std::uint64_t first, std::uint32_t count) {
  const auto& at = sum.sent_at;
  return at[first + count - 1] - at[first] == static_cast<int>(count) - 1;
}

}  // namespace

void Summing::agree_each(const Chunk& chunk, const std::uint8_t* lanes) {
  auto& sum = static_cast<Sum&>(*chunk.cargo.piece);
  const auto first = static_cast<std::uint32_t>(chunk.cargo.first);
  const std::uint64_t before = sum.elements_to_send;
  std::uint64_t sent = before;
  std::uint64_t zero = 0;
  for (std::uint32_t i = 0; i < chunk.cargo.count; ++i) {
    const auto code = load_big_endian<std::uint32_t>(lanes + 4 * i);
    if (is_sent(code)) {
      sum.sent_codes[sent] = code;
      sum.sent_at[sent++] = static_cast<std::uint16_t>(first + i);
    } else {
      leave_unsent(sum, first + i, code);
      zero += code == 0;
    }
  }
  sum.blocks_to_send = sum.elements_to_send = sent;
  stats_.blocks_sent.add(sent - before);
  stats_.blocks_zero.add(zero);
  stats_.blocks_nonfinite.add(chunk.cargo.count - (sent - before) - zero);
}

// Elements that are sent need not be neighbours in the tensor: then they are gathered first.
void Summing::pack_each(const Sum& sum, std::uint64_t first, std::uint32_t elements,
                        std::uint8_t* lanes) const {
  const std::size_t size = size_of(sum.dtype);
  for (std::uint32_t done = 0; done < elements;) {
    const std::uint32_t run = std::min<std::uint32_t>(elements - done, kMaxRun);
    const std::uint16_t* at = sum.sent_at.data() + first + done;
    const std::byte* from = sum.data + at[0] * size;
    std::byte gathered[kMaxRun * sizeof(float)];
    if (!in_a_row(sum, first + done, run)) {
      for (std::uint32_t i = 0; i < run; ++i) {
        std::memcpy(gathered + i * size, sum.data + at[i] * size, size);
      }
      from = gathered;
    }
    sum.codec->encode(sum.dtype, from, run, sum.sent_codes.data() + first + done, lanes + 4 * done);
    done += run;
  }
  for (std::uint32_t i = elements; i < lanes_; ++i) {
    store_big_endian(lanes + 4 * i, sum.codec->zero_lane());
  }
}

void Summing::apply_each(const Chunk& chunk, const std::uint8_t* lanes) const {
  const auto& sum = static_cast<const Sum&>(*chunk.cargo.piece);
  const std::size_t size = size_of(sum.dtype);
  for (std::uint32_t done = 0; done < chunk.cargo.count;) {
    const std::uint32_t run = std::min<std::uint32_t>(chunk.cargo.count - done, kMaxRun);
    const std::uint64_t first = chunk.cargo.first + done;
    const std::uint16_t* at = sum.sent_at.data() + first;
    const bool row = in_a_row(sum, first, run);
    std::byte gathered[kMaxRun * sizeof(float)];
    sum.codec->decode(sum.dtype, lanes + 4 * done, run, sum.sent_codes.data() + first, sum.average,
                      row ? sum.data + at[0] * size : gathered);
    for (std::uint32_t i = 0; !row && i < run; ++i) {
      std::memcpy(sum.data + at[i] * size, gathered + i * size, size);
    }
    done += run;
  }
}

}  // namespace wiresum
