// The work of the engine's thread: it sends the pieces of collectives through the streams of a
// lease, and reports how each one ended. One thread calls it; positions() and prepare() are for any
// thread.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "codecs/codecs.hpp"
#include "copying.hpp"
#include "division.hpp"
#include "failures.hpp"
#include "lease.hpp"
#include "piece.hpp"
#include "positions.hpp"
#include "stats.hpp"
#include "summing.hpp"
#include "transports/open.hpp"

namespace wiresum {

// How far each stream is.
struct Positions {
  StreamPosition exponent;
  StreamPosition data;
  StreamPosition copy;
};

// The first positions of the streams that are left to another carrier.
struct Ends {
  std::uint64_t exponent;
  std::uint64_t data;
  std::uint64_t copy;
};

// The pieces that are taken together. `order`: all of them, as the caller has listed them.
struct Collective {
  std::vector<std::unique_ptr<Sum>> sums;
  std::vector<std::unique_ptr<Copy>> copies;
  std::vector<Piece*> order;
};

// CLOCK_MONOTONIC.
Nanoseconds monotonic_now();

class Reducer {
 public:
  // Throws EngineError for a socket, a lease or an option that cannot be worked with.
  Reducer(const SwitchSocket& socket, const Lease& lease, const EngineOptions& options,
          Stats& stats, Ended ended);
  Reducer(const Reducer&) = delete;
  Reducer& operator=(const Reducer&) = delete;

  // -- any thread
  // Throws EngineError for a piece that cannot be carried.
  Collective prepare(const std::vector<PieceSpec>& pieces) const;
  Positions positions() const;
  const Lease& lease() const { return lease_; }

  // -- the engine's thread
  // Before each turn: time for which this thread did not run does not count as silence.
  void excuse_absence(Nanoseconds now);
  void take(std::deque<Collective> submitted, Nanoseconds now);
  // Receives, sends, and looks at the limits; whether there may be more to do now.
  bool turn(Nanoseconds now);
  // Whether a reply is due.
  bool waits() const { return !stopped() && outstanding(); }
  // Waits until there is something to do, at most a second; `wake_fd` is an eventfd.
  void sleep(Nanoseconds now, int wake_fd);
  void publish();
  // Why nothing is sent or applied any more, if that is so.
  const std::optional<Failure>& failure() const { return failure_; }
  // Ends all pieces with this failure; there will be no others.
  void end(const Failure& failure);
  void disconnect() { transport_.reset(); }

  // -- handing over to another carrier, once the engine's thread has ended (reducer_handover.cpp)
  // From the oldest chunk without a result to the first one that is not open.
  std::pair<std::uint64_t, std::uint64_t> extent(StreamName name) const;
  // Copies this rank's contributions to `count` chunks: words in host order; those of exponents
  // with the top bit flipped. Returns a hash of their fingerprints.
  std::uint32_t contributions(StreamName name, std::uint64_t first, std::uint64_t count,
                              std::uint32_t* words);
  // Takes the sums (or maxima) of these chunks, like the switch's results. A second
  // call changes nothing.
  void take_sums(StreamName name, std::uint64_t first, std::uint64_t count,
                 const std::uint32_t* words);
  // Closes the chunks that other ranks have not opened, and hands out what is left of all
  // pieces, in order. All chunks before these ends must have their results.
  std::vector<Rest> rests(const Ends& ends);

 private:
  // These return whether there may be more to do now.
  bool receive(Nanoseconds now);
  bool pump(Nanoseconds now);
  void handle_datagram(const std::uint8_t* data, std::size_t bytes, Nanoseconds now);
  void apply(StreamName name, const Chunk& chunk, const std::uint8_t* lanes);
  void check_limits(Nanoseconds now);
  std::optional<StreamName> stream_at(std::uint32_t slot) const;
  Stream& stream_of(StreamName name) {
    return name == StreamName::Exponent ? sums_.exponents()
           : name == StreamName::Data   ? sums_.data()
                                        : copies_.stream();
  }
  const Stream& stream_of(StreamName name) const {
    return const_cast<Reducer*>(this)->stream_of(name);
  }
  bool stopped() const { return failure_.has_value(); }
  bool outstanding() const { return !sums_.idle() || !copies_.idle(); }

  const Lease lease_;
  const EngineOptions options_;
  const Nanoseconds timeout_;
  const Nanoseconds switch_timeout_;
  const std::shared_ptr<const Codecs> codecs_;
  Stats& stats_;
  const Ended ended_;
  const Division division_;
  Published positions_;
  Summing sums_;
  Copying copies_;
  std::unique_ptr<Transport> transport_;

  std::uint64_t sequence_ = 0;
  bool copies_first_ = false;  // in this turn of the loop
  Nanoseconds last_turn_ = 0;
  Nanoseconds last_heard_ = 0;  // a valid reply of any kind
  // The last result of either kind, or the start of the first piece that waits for one.
  Nanoseconds sums_progress_ = 0;
  Nanoseconds copies_progress_ = 0;
  std::optional<Failure> failure_;
};

}  // namespace wiresum
