#include "codecs/packed.hpp"

#include <algorithm>
#include <cstring>

#include "big_endian.hpp"
#include "codecs/arithmetic.hpp"

namespace wiresum {
namespace {

std::uint64_t lanes_of(const SentBlock& block, std::size_t per_lane) {
  return (block.elements + per_lane - 1) / per_lane;
}

}  // namespace

void append(std::vector<Range>& ranges, std::uint64_t first, std::uint64_t count) {
  if (ranges.empty() || ranges.back().first + ranges.back().second != first) {
    ranges.emplace_back(first, 0);
  }
  ranges.back().second += count;
}

PackedSum::PackedSum(std::shared_ptr<const Codecs> codecs, const Codec& codec, Dtype dtype,
                     bool average, std::byte* data, std::uint64_t count, const Readers& readers,
                     bool writes, Done done)
    : Packed(data, count, readers, writes),
      codecs_(std::move(codecs)),
      codec_(codec),
      dtype_(dtype),
      average_(average),
      first_element_(done.elements),
      blocks_((count - done.elements + codec_.block_elements() - 1) / codec_.block_elements()),
      lanes_per_block_(
          std::max<std::size_t>(codec_.block_elements() / fields_per_lane(codec_.field()), 1)),
      skipped_(done.lanes),
      sent_(std::move(done.sent)) {
  nonfinite_ = std::move(done.nonfinite);
}

void PackedSum::exponents(std::uint64_t first, std::uint64_t count, std::int32_t* codes) const {
  const DefaultFloatEnvironment arithmetic;
  auto* bytes = reinterpret_cast<std::uint8_t*>(codes);
  const std::uint64_t from = first_element_ + first * codec_.block_elements();
  const std::uint64_t elements = std::min(count * codec_.block_elements(), count_ - from);
  codec_.exponents(dtype_, data_ + from * size_of(dtype_), elements, bytes);
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::uint32_t code = load_big_endian<std::uint32_t>(bytes + 4 * i) ^ kTopBit;
    std::memcpy(codes + i, &code, 4);
  }
}

void PackedSum::agree(std::uint64_t count, const std::int32_t* codes) {
  const std::size_t block_elements = codec_.block_elements();
  sent_.reserve(sent_.size() + blocks_ - agreed_blocks_);
  for (std::uint64_t i = 0; i < count; ++i) {
    std::uint32_t code;
    std::memcpy(&code, codes + i, 4);
    code ^= kTopBit;
    const std::uint64_t first = first_element_ + agreed_blocks_++ * block_elements;
    const std::uint64_t elements = std::min<std::uint64_t>(block_elements, count_ - first);
    std::byte* data = data_ + first * size_of(dtype_);
    if (codec_.sends(code)) {
      sent_.push_back({data, code, static_cast<std::uint32_t>(elements)});
      ++std::get<0>(agreed_);
    } else if (codec_.nonfinite(code)) {
      append(nonfinite_, first, elements);
      ++std::get<2>(agreed_);
    } else {
      if (writes_) codec_.fill(dtype_, code, data, elements);
      ++(code == 0 ? std::get<1>(agreed_) : std::get<0>(agreed_));
    }
  }
}

// Only the tensor's last block may be short.
std::uint64_t PackedSum::lanes() const {
  if (sent_.empty()) return 0;
  return (sent_.size() - 1) * lanes_per_block_ +
         lanes_of(sent_.back(), fields_per_lane(codec_.field())) - skipped_;
}

template <typename Use>
void PackedSum::each_run(std::uint64_t first, std::uint64_t count, const Use& use) const {
  const std::size_t per_lane = fields_per_lane(codec_.field());
  std::uint64_t at = first + skipped_;
  const std::uint64_t end = at + count;
  while (at < end) {
    const SentBlock* block = sent_.data() + at / lanes_per_block_;
    if (codec_.block_elements() == 1) {
      const std::uint64_t run = std::min<std::uint64_t>(end - at, kMaxRun);
      use(block, run, std::size_t{0}, static_cast<std::size_t>(run));
      at += run;
      continue;
    }
    const std::uint64_t lane = at % lanes_per_block_;
    const std::uint64_t lanes = std::min(end - at, lanes_of(*block, per_lane) - lane);
    const std::size_t from = lane * per_lane;
    use(block, std::uint64_t{1}, from,
        std::min<std::size_t>(block->elements - from, lanes * per_lane));
    at += lanes;
  }
}

void PackedSum::encode(std::uint64_t first, std::uint64_t count, std::uint32_t* lanes) const {
  const DefaultFloatEnvironment arithmetic;
  const std::size_t size = size_of(dtype_);
  each_run(first, count,
           [&](const SentBlock* block, std::uint64_t blocks, std::size_t from, std::size_t n) {
             std::uint32_t codes[kMaxRun];
             std::byte gathered[kMaxRun * sizeof(float)];
             const std::byte* in = block->data + from * size;
             if (codec_.block_elements() == 1) {
               for (std::uint64_t i = 0; i < blocks; ++i) {
                 codes[i] = block[i].code;
                 std::memcpy(gathered + i * size, block[i].data, size);
               }
               in = gathered;
             } else {
               codes[0] = block->code;
             }
             auto* bytes = reinterpret_cast<std::uint8_t*>(lanes);
             const std::size_t made = codec_.encode(dtype_, in, n, codes, bytes);
             for (std::size_t i = 0; i < made; ++i) {
               lanes[i] = load_big_endian<std::uint32_t>(bytes + 4 * i);
             }
             lanes += made;
           });
}

void PackedSum::decode(std::uint64_t first, std::uint64_t count, const std::uint32_t* lanes) const {
  if (!writes_) return;
  const DefaultFloatEnvironment arithmetic;
  const std::size_t size = size_of(dtype_);
  const std::size_t per_lane = fields_per_lane(codec_.field());
  each_run(first, count,
           [&](const SentBlock* block, std::uint64_t blocks, std::size_t from, std::size_t n) {
             std::uint8_t wire[4 * kMaxRun];
             const std::size_t taken = (n + per_lane - 1) / per_lane;
             for (std::size_t i = 0; i < taken; ++i) store_big_endian(wire + 4 * i, lanes[i]);
             lanes += taken;
             if (codec_.block_elements() != 1) {
               codec_.decode(dtype_, wire, n, &block->code, average_, block->data + from * size);
               return;
             }
             std::uint32_t codes[kMaxRun];
             std::byte sums[kMaxRun * sizeof(float)];
             for (std::uint64_t i = 0; i < blocks; ++i) codes[i] = block[i].code;
             codec_.decode(dtype_, wire, n, codes, average_, sums);
             for (std::uint64_t i = 0; i < blocks; ++i) {
               std::memcpy(block[i].data, sums + i * size, size);
             }
           });
}

// Four bytes of a lane as they lie in memory; what lies behind the last one is zero.
void PackedCopy::encode(std::uint64_t first, std::uint64_t count, std::uint32_t* lanes) const {
  std::memset(lanes, 0, 4 * count);
  if (!gives_ || count == 0) return;
  const std::uint64_t from = done_ + 4 * first;
  std::memcpy(lanes, data_ + from, std::min(4 * count, count_ - from));
}

void PackedCopy::decode(std::uint64_t first, std::uint64_t count,
                        const std::uint32_t* lanes) const {
  if (!writes_ || count == 0) return;
  const std::uint64_t from = done_ + 4 * first;
  std::memcpy(data_ + from, lanes, std::min(4 * count, count_ - from));
}

}  // namespace wiresum
