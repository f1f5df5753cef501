// One stream of chunks through a range of the lease's slots: numbering, the window, kept send
// buffers, retransmission, and the rules by which a reply is believed. Knows nothing of tensors:
// each chunk carries a Cargo that only the engine reads.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "congestion.hpp"
#include "positions.hpp"
#include "rtt.hpp"
#include "stats.hpp"
#include "transports/transport.hpp"
#include "wire.hpp"

namespace wiresum {

struct Piece;

// The part of a piece that a chunk carries.
struct Cargo {
  Piece* piece = nullptr;
  std::uint64_t first = 0;  // block of exponents, packed element, or byte of a copy
  std::uint32_t count = 0;  // of these
};

// The packets of a chunk: what all ranks must agree on, and the lanes that this rank sends and
// gets. A packet without lanes is bare: its header alone.
struct ChunkForm {
  std::uint32_t fingerprint = 0;
  std::uint8_t readers = 0;  // as on the wire
  bool gives = true;         // lanes in the contribution; else it adds zero
  bool gets = true;          // lanes in the result
};

struct StreamConfig {
  const char* name;
  packet::Op op;
  std::uint32_t slot_base;   // relative to the lease
  std::uint32_t slot_count;  // even
  std::uint32_t window;      // 0: slot_count / 2
  std::uint64_t first_position;
  std::size_t lanes;
  std::uint16_t job;
  std::uint32_t epoch;
  std::uint64_t key;
  Nanoseconds rto_initial;
  Nanoseconds rto_min;
  Nanoseconds rto_max;
  Nanoseconds poll_max;
};

struct Chunk {
  Cargo cargo;
  std::uint64_t position = 0;
  std::uint64_t send_serial = 0;  // of the last transmission; 0: not sent yet
  Nanoseconds first_sent = 0;
  Nanoseconds last_sent = 0;
  ChunkForm form;
  std::uint32_t resends = 0;
  std::uint32_t answers = 0;  // results and WAITs that have come
  bool done = false;
  bool queued = false;  // in the list of chunks to send again
  bool probed = false;  // the last transmission was the timer's
  bool waited = false;  // a WAIT came after the last transmission: the switch has this chunk
  std::optional<unsigned> lost_in{};  // the congestion window's round in which it counts as lost
};

enum class ReplyOutcome { Result, Wait, Mismatch, Ignored };

class Stream {
 public:
  Stream(const StreamConfig& config, Stats& stats, Counter& first_sends, Counter& applied);
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  const StreamConfig& config() const { return config_; }

  // -- sending
  // Whether another chunk may be opened, if no more than `most` are to be in flight.
  bool room(std::uint32_t most = UINT32_MAX) const {
    return next_ - base_ < window_ && in_flight_ < std::min(congestion_.size(), most);
  }
  // Opens the next chunk; the caller fills lanes(chunk), unless it is bare, before the next flush.
  Chunk& open(const Cargo& cargo, const ChunkForm& form);
  std::uint8_t* lanes(const Chunk& chunk) { return buffer(chunk.position) + Header::kBytes; }
  // Sends all waiting chunks, those to send again first; false if the socket is full.
  bool flush(Transport& transport, Nanoseconds now);
  bool anything_to_send() const { return unsent_ != next_ || !resend_.empty(); }

  // -- receiving
  // Judges a reply whose job, epoch and reply key are right. Result: `chunk` may be applied, and is
  // done.
  ReplyOutcome receive(const Header& header, std::size_t payload_bytes, const std::uint8_t* payload,
                       Nanoseconds now, Chunk*& chunk);
  // Takes the chunks that are done off the window's tail, in order.
  template <typename Handle>
  void advance(Handle&& handle) {
    while (base_ != next_ && at(base_).done) handle(at(base_++));
  }

  // -- time
  // Decides what to send again: chunks overtaken by later ones, and the oldest few after a timeout.
  void tick(Nanoseconds now);
  std::optional<Nanoseconds> deadline() const;

  // -- handing over to another carrier: from then on nothing is sent, and no reply is received
  std::uint64_t base() const { return base_; }  // the oldest chunk without a result
  std::uint64_t next() const { return next_; }  // the first chunk that is not open yet
  // This rank's contribution to a chunk. It is kept for two windows: a rank opens chunk c + window
  // only with the result of c, so while any rank lacks the result of c, no rank has opened
  // c + 2 * window.
  Datagram kept(std::uint64_t position) { return {buffer(position), bytes_[position % kept_]}; }
  std::uint64_t oldest_kept() const {
    return std::max(config_.first_position, next_ > kept_ ? next_ - kept_ : 0);
  }
  // The chunk, if it is open and has no result.
  Chunk* lacking(std::uint64_t position) {
    if (position < base_ || position >= next_ || at(position).done) return nullptr;
    return &at(position);
  }
  void settle(Chunk& chunk) {
    chunk.done = true;
    --in_flight_;
  }
  // Closes the chunks from `end` on, the last one first.
  template <typename Handle>
  void close_from(std::uint64_t end, Handle&& handle) {
    while (next_ > end && next_ > base_) handle(at(--next_));
  }

  bool idle() const { return base_ == next_; }
  const Chunk* oldest() const { return idle() ? nullptr : &at(base_); }
  const std::optional<WaitReport>& last_wait() const { return last_wait_; }
  std::uint32_t congestion_window() const { return std::min(congestion_.size(), window_); }
  std::uint32_t window() const { return window_; }
  const RttEstimator& rtt() const { return rtt_; }
  StreamMarks marks() const;
  // The process was stopped for this time, which does not count as silence.
  void excuse(Nanoseconds away);

 private:
  Chunk& at(std::uint64_t position) { return chunks_[position % kept_]; }
  const Chunk& at(std::uint64_t position) const { return chunks_[position % kept_]; }
  std::uint8_t* buffer(std::uint64_t position) {
    return buffers_.data() + position % kept_ * chunk_bytes_;
  }
  std::uint32_t slot_of(std::uint64_t position) const {
    return config_.slot_base + static_cast<std::uint32_t>(position % config_.slot_count);
  }
  // Whether a chunk behind the oldest one is complete.
  bool overtaken() const { return next_ - base_ > in_flight_; }
  void queue_again(Chunk& chunk, bool probe);
  void resend_overtaken();
  void resend_expired(Nanoseconds now);
  void probe_oldest(Nanoseconds now);
  Nanoseconds patience() const;
  void mark_sent(Chunk& chunk, Nanoseconds now);
  void on_result(Chunk& chunk, Nanoseconds now);
  void on_duplicate(std::uint64_t position);

  StreamConfig config_;
  Stats& stats_;
  Counter& first_sends_;
  Counter& applied_;
  std::size_t chunk_bytes_;
  std::uint32_t window_;
  std::uint64_t kept_;                 // two windows
  std::vector<Chunk> chunks_;          // by position mod kept_: late answers find theirs
  std::vector<std::uint8_t> buffers_;  // datagrams, by position mod kept_: neighbours form a train
  std::vector<std::size_t> bytes_;     // of each of these
  std::vector<Datagram> outgoing_;
  std::vector<std::uint64_t> resend_;  // positions

  std::uint64_t base_;    // oldest chunk without a result
  std::uint64_t unsent_;  // first chunk that was never sent
  std::uint64_t next_;    // first chunk that is not open yet
  std::uint32_t in_flight_ = 0;

  std::uint64_t send_serial_ = 0;
  std::uint64_t delivered_serial_ = 0;  // highest of a chunk sent once whose result came
  std::uint64_t scanned_serial_ = 0;
  CongestionWindow congestion_;
  RttEstimator rtt_;
  Nanoseconds last_result_ = 0;
  Nanoseconds straggling_since_ = -1;  // results of chunks sent before this measure no round trip
  unsigned attempts_ = 0;              // timeouts since the last result
  bool polling_ = false;               // the last word on the oldest chunk was WAIT
  std::uint64_t probe_serial_ = 0;     // what was sent before the last timeout has lower ones
  std::uint32_t recovery_ = 0;         // expired chunks that may be sent again now
  std::optional<WaitReport> last_wait_;
};

}  // namespace wiresum
