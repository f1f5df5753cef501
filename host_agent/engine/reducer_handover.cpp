// Handing over to another carrier. A chunk's sum is the same integers whatever adds them: for every
// chunk of which some rank has no result, all ranks send their kept contributions again, to each
// other. Chunks that not all ranks have opened cannot have a result: they are closed again.
#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "big_endian.hpp"
#include "fingerprint.hpp"
#include "lines.hpp"
#include "reducer.hpp"

namespace wiresum {
namespace {

// For the signed MAX of another carrier.
std::uint32_t flip(packet::Op op) { return op == packet::Op::kMax ? kTopBit : 0; }

}  // namespace

std::pair<std::uint64_t, std::uint64_t> Reducer::extent(packet::Op op) const {
  return {stream_of(op).base(), stream_of(op).next()};
}

std::uint32_t Reducer::contributions(packet::Op op, std::uint64_t first, std::uint64_t count,
                                     std::uint32_t* words) const {
  const Stream& stream = stream_of(op);
  if (first < stream.oldest_kept() || first + count > stream.next()) {
    refuse(lines::kNotKept.of(stream.config().name, first, first + count, stream.oldest_kept(),
                              stream.next()));
  }
  std::uint32_t hash = 0;
  for (std::uint64_t position = first; position < first + count; ++position) {
    const std::uint8_t* datagram = stream.kept(position);
    hash = fingerprint({hash, Header::read(datagram).fingerprint});
    for (std::size_t i = 0; i < lease_.lanes; ++i) {
      *words++ = load_big_endian<std::uint32_t>(datagram + Header::kBytes + 4 * i) ^ flip(op);
    }
  }
  return hash;
}

void Reducer::take_sums(packet::Op op, std::uint64_t first, std::uint64_t count,
                        const std::uint32_t* words) {
  const bool exponents = op == packet::Op::kMax;
  Stream& stream = exponents ? exponents_ : data_;
  std::vector<std::uint8_t> lanes(4 * std::size_t{lease_.lanes});
  for (std::uint64_t position = first; position < first + count; ++position) {
    const std::uint32_t* from = words + (position - first) * lease_.lanes;
    Chunk* chunk = stream.lacking(position);
    if (chunk == nullptr) continue;
    for (std::size_t i = 0; i < lease_.lanes; ++i) {
      store_big_endian(lanes.data() + 4 * i, from[i] ^ flip(op));
    }
    stream.settle(*chunk);
    stats_.handed_over.add();
    if (exponents) {
      apply_exponents(*chunk, lanes.data());
    } else {
      apply_data(*chunk, lanes.data());
    }
  }
  exponents_.advance([this](const Chunk& chunk) { agree(chunk); });
  data_.advance([this](const Chunk& chunk) { release(chunk); });
}

std::vector<Rest> Reducer::rests(std::uint64_t exponent_end, std::uint64_t data_end) {
  if (exponents_.base() != exponent_end || data_.base() != data_end) {
    refuse(lines::kChunksLeft.of(exponents_.base(), data_.base(), exponent_end, data_end));
  }
  exponents_.close_from(exponent_end, [](const Chunk& chunk) {
    chunk.cargo.collective->exponents_opened -= chunk.cargo.count;
  });
  data_.close_from(data_end, [](const Chunk& chunk) {
    chunk.cargo.collective->elements_packed -= chunk.cargo.count;
    --chunk.cargo.collective->chunks_open;
  });
  std::vector<Rest> result;
  for (const auto& collective : active_) {
    if (!collective->finished) result.push_back(rest_of(*collective));
  }
  active_.clear();
  exponent_cursor_ = data_cursor_ = 0;
  return result;
}

Rest Reducer::rest_of(Collective& collective) const {
  Done done;
  done.elements =
      std::min(collective.exponents_agreed * collective.block_elements, collective.count);
  done.nonfinite = std::move(collective.nonfinite);
  const std::size_t size = size_of(collective.dtype);
  std::uint64_t block = collective.elements_packed / collective.block_elements;
  if (collective.elements_packed < collective.elements_to_send) {
    done.lanes = collective.elements_packed % collective.block_elements /
                 fields_per_lane(collective.codec->field());
  } else {
    block = collective.blocks_to_send;
  }
  for (; block < collective.blocks_to_send; ++block) {
    done.sent.push_back(collective.small()
                            ? SentBlock{collective.data + collective.sent_at[block] * size,
                                        collective.sent_codes[block], 1}
                            : ring_[collective.first_agreed_block + block]);
  }
  return {collective.ticket,
          std::make_unique<Packed>(codecs_, collective.dtype, collective.average, collective.data,
                                   collective.count, std::move(done))};
}

}  // namespace wiresum
