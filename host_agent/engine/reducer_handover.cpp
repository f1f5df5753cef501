// Handing over to another carrier. A chunk's sum is the same integers whatever adds them: for every
// chunk of which some rank has no result, all ranks send their kept contributions again, to each
// other. Chunks that not all ranks have opened cannot have a result: they are closed again.
#include <algorithm>
#include <string>
#include <utility>

#include "big_endian.hpp"
#include "fingerprint.hpp"
#include "lines.hpp"
#include "reducer.hpp"

namespace wiresum {
namespace {

// For the signed MAX of another carrier.
std::uint32_t flip(StreamName name) { return name == StreamName::Exponent ? kTopBit : 0; }

}  // namespace

std::pair<std::uint64_t, std::uint64_t> Reducer::extent(StreamName name) const {
  return {stream_of(name).base(), stream_of(name).next()};
}

std::uint32_t Reducer::contributions(StreamName name, std::uint64_t first, std::uint64_t count,
                                     std::uint32_t* words) {
  Stream& stream = stream_of(name);
  if (first < stream.oldest_kept() || first + count > stream.next()) {
    refuse(lines::kNotKept.of(stream.config().name, first, first + count, stream.oldest_kept(),
                              stream.next()));
  }
  std::uint32_t hash = 0;
  for (std::uint64_t position = first; position < first + count; ++position) {
    const Datagram kept = stream.kept(position);
    hash = fingerprint({hash, Header::read(kept.data).fingerprint});
    const bool bare = kept.bytes == Header::kBytes;
    for (std::size_t i = 0; i < lease_.lanes; ++i) {
      const std::uint8_t* lane = kept.data + Header::kBytes + 4 * i;
      *words++ = bare ? 0 : load_big_endian<std::uint32_t>(lane) ^ flip(name);
    }
  }
  return hash;
}

void Reducer::take_sums(StreamName name, std::uint64_t first, std::uint64_t count,
                        const std::uint32_t* words) {
  Stream& stream = stream_of(name);
  std::vector<std::uint8_t> lanes(4 * std::size_t{lease_.lanes});
  for (std::uint64_t position = first; position < first + count; ++position) {
    const std::uint32_t* from = words + (position - first) * lease_.lanes;
    Chunk* chunk = stream.lacking(position);
    if (chunk == nullptr) continue;
    for (std::size_t i = 0; i < lease_.lanes; ++i) {
      store_big_endian(lanes.data() + 4 * i, from[i] ^ flip(name));
    }
    stream.settle(*chunk);
    stats_.handed_over.add();
    apply(name, *chunk, lanes.data());
  }
  sums_.advance();
  copies_.advance();
}

std::vector<Rest> Reducer::rests(const Ends& ends) {
  const std::uint64_t exponent = sums_.exponents().base();
  const std::uint64_t data = sums_.data().base();
  const std::uint64_t copy = copies_.stream().base();
  if (exponent != ends.exponent || data != ends.data || copy != ends.copy) {
    refuse(lines::kChunksLeft.of(exponent, data, copy, ends.exponent, ends.data, ends.copy));
  }
  sums_.close_from(ends.exponent, ends.data);
  copies_.close_from(ends.copy);
  std::vector<Rest> result;
  sums_.drain([&](Sum& sum) { result.push_back(sums_.rest_of(sum)); });
  copies_.drain([&](const Copy& each) { result.push_back(copies_.rest_of(each)); });
  std::sort(result.begin(), result.end(),
            [](const Rest& one, const Rest& other) { return one.ticket < other.ticket; });
  return result;
}

}  // namespace wiresum
