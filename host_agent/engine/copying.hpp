// Copies on their way through the copy stream. The engine's thread calls it.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "copy.hpp"
#include "lease.hpp"
#include "stats.hpp"
#include "stream.hpp"
#include "turns.hpp"

namespace wiresum {

class Copying {
 public:
  Copying(const Lease& lease, const EngineOptions& options, Stats& stats, const Ended& ended);
  Copying(const Copying&) = delete;
  Copying& operator=(const Copying&) = delete;

  // Takes the copies of one collective of `pieces` pieces; their sequences are set.
  void take(std::vector<std::unique_ptr<Copy>> copies, std::size_t pieces);

  // Opens chunks and sends them; `more` is set if there may be more to open. False: the socket is
  // full.
  bool send(Transport& transport, Nanoseconds now, bool& more);

  // A chunk's result has come, or has been made by another carrier.
  void apply(const Chunk& chunk, const std::uint8_t* lanes);
  // After results: what has to be done in the order of the chunks.
  void advance();
  void retire() { turns_.retire(); }

  Stream& stream() { return stream_; }
  const Stream& stream() const { return stream_; }
  bool idle() const { return stream_.idle(); }
  const Copy* oldest() const { return turns_.oldest(); }

  // Closes the chunks from this position on.
  void close_from(std::uint64_t end);
  // Calls use(copy) for all that have not ended, in order, and forgets them.
  template <typename Use>
  void drain(const Use& use) {
    turns_.drain(use);
  }
  Rest rest_of(const Copy& copy) const;

 private:
  bool open();
  void finish_if_complete(Copy& copy);

  const std::uint32_t rank_;
  const std::size_t chunk_bytes_;
  const std::uint32_t window_;  // as all ranks have it
  Stats& stats_;
  const Ended& ended_;
  Stream stream_;
  Turns<Copy> turns_;
};

}  // namespace wiresum
