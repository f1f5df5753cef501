// Sums on their way through two streams: exponents (MAX), and data (SUM) in fields that follow from
// the agreed exponents. The engine's thread calls it.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "codecs/codecs.hpp"
#include "lease.hpp"
#include "stats.hpp"
#include "stream.hpp"
#include "sum.hpp"
#include "turns.hpp"

namespace wiresum {

// Exponents go ahead of the data by so many data windows, the one in flight among them.
inline constexpr std::size_t kWindowsAhead = 2;

class Summing {
 public:
  Summing(const Lease& lease, const EngineOptions& options,
          const std::shared_ptr<const Codecs>& codecs, Stats& stats, const Ended& ended);
  Summing(const Summing&) = delete;
  Summing& operator=(const Summing&) = delete;

  // Takes the sums of one collective of `pieces` pieces; their sequences are set.
  void take(std::vector<std::unique_ptr<Sum>> sums, std::size_t pieces);

  // Open chunks and send them; `more` is set if there may be more to open. False: the socket is
  // full.
  bool send_exponents(Transport& transport, Nanoseconds now, bool& more);
  // With no more than `most` chunks in flight.
  bool send_data(Transport& transport, Nanoseconds now, std::uint32_t most, bool& more);

  // A chunk's result has come, or has been made by another carrier.
  void apply_exponents(const Chunk& chunk, const std::uint8_t* lanes);
  void apply_data(const Chunk& chunk, const std::uint8_t* lanes);
  // After results: what has to be done in the order of the chunks.
  void advance();
  void retire() { turns_.retire(); }

  Stream& exponents() { return exponents_; }
  Stream& data() { return data_; }
  const Stream& exponents() const { return exponents_; }
  const Stream& data() const { return data_; }
  bool idle() const { return exponents_.idle() && data_.idle(); }
  const Sum* oldest() const { return turns_.oldest(); }
  // The stream that the other one waits for.
  const Stream& slowest() const;

  // Closes the chunks from these positions on.
  void close_from(std::uint64_t exponent_end, std::uint64_t data_end);
  // Calls use(sum) for all that have not ended, in order, and forgets them.
  template <typename Use>
  void drain(const Use& use) {
    ready_.clear();
    turns_.drain(use);
  }
  Rest rest_of(Sum& sum) const;

 private:
  // Chunks of a sum whose turn has come: up to this one of its packed elements.
  struct Ready {
    Sum* sum;
    std::uint64_t end;
  };

  std::uint64_t blocks_ahead(const Sum& sum) const;
  const Sum* open_exponents();
  bool open_data(std::uint32_t most);
  void agree(const Chunk& chunk);
  void schedule(Group<Sum>& group);
  void pack(const Sum& sum, std::uint64_t first, std::uint32_t elements, std::uint8_t* lanes) const;
  void leave_unsent(Sum& sum, std::uint64_t block, std::uint32_t code) const;
  void release(const Chunk& chunk);
  void finish_if_complete(Sum& sum);
  // of small tensors (summing_small.cpp)
  void agree_each(const Chunk& chunk, const std::uint8_t* lanes);
  void pack_each(const Sum& sum, std::uint64_t first, std::uint32_t elements,
                 std::uint8_t* lanes) const;
  void apply_each(const Chunk& chunk, const std::uint8_t* lanes) const;

  const std::uint32_t rank_;
  const std::uint32_t lanes_;
  const std::uint32_t data_window_;  // as all ranks have it
  const bool keep_nonfinite_;
  const std::shared_ptr<const Codecs> codecs_;
  Stats& stats_;
  const Ended& ended_;
  Stream exponents_;
  Stream data_;

  Turns<Sum> turns_;                       // of exponents
  std::deque<Ready> ready_;                // the order of data chunks, as far as it is known
  std::uint64_t blocks_in_agreement_ = 0;  // of exponent chunks opened, not agreed yet
  std::uint64_t blocks_kept_ = 0;          // agreed, and in the rings of their sums
};

}  // namespace wiresum
