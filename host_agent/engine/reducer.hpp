// The work of the engine's thread: it sends collectives through the two streams of a lease, and
// reports how each one ended. One thread calls it; positions() and prepare() are for any thread.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "codecs/codecs.hpp"
#include "codecs/packed.hpp"
#include "collective.hpp"
#include "failures.hpp"
#include "lease.hpp"
#include "positions.hpp"
#include "stats.hpp"
#include "stream.hpp"
#include "transports/open.hpp"

namespace wiresum {

// Exponents go ahead of the data by so many data windows, the one in flight among them.
inline constexpr std::size_t kWindowsAhead = 2;

// How far each stream is.
struct Positions {
  StreamPosition exponent;
  StreamPosition data;
};

// What is left of a collective for another carrier.
struct Rest {
  std::uint64_t ticket = 0;
  std::unique_ptr<Packed> packed;
};

// CLOCK_MONOTONIC.
Nanoseconds monotonic_now();

class Reducer {
 public:
  // Called once for each collective, when it ends: well, or with a failure. `nonfinite`: the
  // elements that were left as they are.
  using Ended = std::function<void(std::uint64_t ticket, const Failure* failure,
                                   std::vector<Range> nonfinite)>;

  // Throws EngineError for a socket, a lease or an option that cannot be worked with.
  Reducer(const SwitchSocket& socket, const Lease& lease, const EngineOptions& options,
          Stats& stats, Ended ended);
  Reducer(const Reducer&) = delete;
  Reducer& operator=(const Reducer&) = delete;

  // -- any thread
  std::unique_ptr<Collective> prepare(void* data, std::uint64_t count, Dtype dtype,
                                      bool average) const;
  Positions positions() const;
  const Lease& lease() const { return lease_; }

  // -- the engine's thread
  // Before each turn: time for which this thread did not run does not count as silence.
  void excuse_absence(Nanoseconds now);
  void take(std::deque<std::unique_ptr<Collective>> submitted, Nanoseconds now);
  // Receives, sends, and looks at the limits; whether there was anything to do.
  bool turn(Nanoseconds now);
  // Waits until there is something to do, at most a second; `wake_fd` is an eventfd.
  void sleep(Nanoseconds now, int wake_fd);
  void publish();
  // Why nothing is sent or applied any more, if that is so.
  const std::optional<Failure>& failure() const { return failure_; }
  // Ends all collectives with this failure; there will be no others.
  void end(const Failure& failure);
  void disconnect() { transport_.reset(); }

  // -- handing over to another carrier, once the engine's thread has ended (reducer_handover.cpp)
  // From the oldest chunk without a result to the first one that is not open.
  std::pair<std::uint64_t, std::uint64_t> extent(packet::Op op) const;
  // Copies this rank's contributions to `count` chunks: words in host order; those of exponents
  // with the top bit flipped. Returns a hash of their fingerprints.
  std::uint32_t contributions(packet::Op op, std::uint64_t first, std::uint64_t count,
                              std::uint32_t* words) const;
  // Takes the sums (or maxima) of these chunks, like the switch's results. A second
  // call changes nothing.
  void take_sums(packet::Op op, std::uint64_t first, std::uint64_t count,
                 const std::uint32_t* words);
  // Closes the chunks that other ranks have not opened, and hands out what is left of all
  // collectives, in order. All chunks before these ends must have their results.
  std::vector<Rest> rests(std::uint64_t exponent_end, std::uint64_t data_end);
  Rest rest_of(Collective& collective) const;

 private:
  bool receive(Nanoseconds now);
  void handle_datagram(const std::uint8_t* data, std::size_t bytes, Nanoseconds now);
  bool pump(Nanoseconds now);
  std::uint64_t blocks_ahead() const;
  bool open_exponents();
  bool open_data();
  void agree(const Chunk& chunk);
  void pack(const Collective& collective, std::uint64_t first, std::uint32_t elements,
            std::uint8_t* lanes) const;
  void leave_unsent(Collective& collective, std::uint64_t block, std::uint32_t code) const;
  void apply_exponents(const Chunk& chunk, const std::uint8_t* lanes);
  void apply_data(const Chunk& chunk, const std::uint8_t* lanes);
  void release(const Chunk& chunk);
  // of small tensors
  void agree_each(const Chunk& chunk, const std::uint8_t* lanes);
  void pack_each(const Collective& collective, std::uint64_t first, std::uint32_t elements,
                 std::uint8_t* lanes) const;
  void apply_each(const Chunk& chunk, const std::uint8_t* lanes) const;
  void finish_if_complete(Collective& collective);
  void retire_finished();
  void check_limits(Nanoseconds now);
  const Stream& slowest() const;
  const Stream& stream_of(packet::Op op) const {
    return op == packet::Op::kMax ? exponents_ : data_;
  }
  bool stopped() const { return failure_.has_value(); }
  bool outstanding() const { return !exponents_.idle() || !data_.idle(); }

  const Lease lease_;
  const EngineOptions options_;
  const Nanoseconds timeout_;
  const Nanoseconds switch_timeout_;
  const std::shared_ptr<const Codecs> codecs_;
  Stats& stats_;
  const Ended ended_;
  Published positions_;
  Stream exponents_;
  Stream data_;
  std::size_t elements_per_chunk_;  // of large tensors
  BlockRing ring_;
  std::unique_ptr<Transport> transport_;

  std::uint64_t blocks_in_agreement_ = 0;  // of exponent chunks opened, not agreed yet
  std::deque<std::unique_ptr<Collective>> active_;
  std::size_t exponent_cursor_ = 0;  // index in active_ of the one whose exponents leave next
  std::size_t data_cursor_ = 0;
  std::uint64_t sequence_ = 0;
  Nanoseconds last_turn_ = 0;
  Nanoseconds last_heard_ = 0;     // a valid reply of any kind
  Nanoseconds last_progress_ = 0;  // a result
  std::optional<Failure> failure_;
};

}  // namespace wiresum
