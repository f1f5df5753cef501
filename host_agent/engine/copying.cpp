#include "copying.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "division.hpp"
#include "fingerprint.hpp"

namespace wiresum {
namespace {

// The most work in one turn of the engine's loop, so that replies never wait for long.
constexpr int kChunksPerTurn = 64;

// Where a sum's fingerprint has its dtype.
constexpr std::uint64_t kBytes = 0xff;

Copy& copy_of(const Chunk& chunk) { return static_cast<Copy&>(*chunk.cargo.piece); }

}  // namespace

Copying::Copying(const Lease& lease, const EngineOptions& options, Stats& stats, const Ended& ended)
    : rank_(lease.rank),
      chunk_bytes_(4 * std::size_t{lease.lanes}),
      window_(Division(lease.slots).copy.count / 2),
      stats_(stats),
      ended_(ended),
      stream_(stream_config(lease, options, StreamName::Copy), stats, stats.copy_contributions,
              stats.copy_results) {}

void Copying::take(std::vector<std::unique_ptr<Copy>> copies, std::size_t pieces) {
  if (copies.empty()) return;
  const std::uint64_t row = row_of(window_, copies.size()) * chunk_bytes_;
  for (const auto& copy : turns_.add(std::move(copies), row).pieces) {
    copy->form.fingerprint =
        fingerprint({copy->sequence, pieces, copy->count, kBytes,
                     static_cast<std::uint64_t>(copy->source), copy->readers.on_wire()});
    stats_.copied_bytes.add(copy->count);
    finish_if_complete(*copy);
  }
}

bool Copying::send(Transport& transport, Nanoseconds now, bool& more) {
  int opened = 0;
  while (opened < kChunksPerTurn && open()) ++opened;
  more |= opened == kChunksPerTurn;
  return stream_.flush(transport, now);
}

// A lane is four bytes as they lie in memory: nothing but zeros is added to it.
bool Copying::open() {
  if (!stream_.room()) return false;
  Copy* const next = turns_.next();
  if (next == nullptr) return false;
  Copy& copy = *next;
  const std::uint64_t first = copy.bytes_opened;
  const auto bytes =
      static_cast<std::uint32_t>(std::min<std::uint64_t>(chunk_bytes_, copy.count - first));
  const Chunk& chunk = stream_.open({&copy, first, bytes}, copy.form);
  if (copy.form.gives) {
    std::uint8_t* lanes = stream_.lanes(chunk);
    std::memcpy(lanes, copy.data + first, bytes);
    std::memset(lanes + bytes, 0, chunk_bytes_ - bytes);
  }
  copy.bytes_opened += bytes;
  ++copy.chunks_open;
  return true;
}

void Copying::apply(const Chunk& chunk, const std::uint8_t* lanes) {
  const Copy& copy = copy_of(chunk);
  if (copy.writes) std::memcpy(copy.data + chunk.cargo.first, lanes, chunk.cargo.count);
}

void Copying::advance() {
  stream_.advance([this](const Chunk& chunk) {
    --copy_of(chunk).chunks_open;
    finish_if_complete(copy_of(chunk));
  });
}

void Copying::finish_if_complete(Copy& copy) {
  if (copy.finished || !copy.complete()) return;
  copy.finished = true;
  ended_(copy.ticket, nullptr, {});
}

// -- handing over to another carrier

void Copying::close_from(std::uint64_t end) {
  stream_.close_from(end, [](const Chunk& chunk) {
    copy_of(chunk).bytes_opened -= chunk.cargo.count;
    --copy_of(chunk).chunks_open;
  });
}

Rest Copying::rest_of(const Copy& copy) const {
  return {copy.ticket, std::make_unique<PackedCopy>(copy.data, copy.count, copy.source,
                                                    copy.readers, rank_, copy.bytes_opened)};
}

}  // namespace wiresum
