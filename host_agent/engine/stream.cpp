#include "stream.hpp"

#include <algorithm>

namespace wiresum {
namespace {

// Datagrams may overtake each other by this many before the overtaken one counts as lost.
constexpr std::uint64_t kReordering = 3;
// Chunks that ask after a timeout: a few, in case some of the questions are lost too. After a
// WAIT there is a straggler, which delays all of them: then one chunk asks for all.
constexpr std::uint32_t kProbes = 4;
constexpr std::uint32_t kPolls = 1;
// If later chunks are complete, all ranks are at work and a datagram was lost: then timeouts double
// only every so many attempts.
constexpr unsigned kHurry = 4;

// Send buffers of one stream stay below this, whatever the lease.
constexpr std::size_t kMostBytes = 24 << 20;

std::uint32_t window_of(const StreamConfig& config, std::size_t chunk_bytes) {
  auto window = static_cast<std::uint32_t>(
      std::min<std::size_t>(config.slot_count / 2, kMostBytes / chunk_bytes));
  if (config.window != 0) window = std::min(window, config.window);
  return window;
}

}  // namespace

Stream::Stream(const StreamConfig& config, Stats& stats, Counter& first_sends, Counter& applied)
    : config_(config),
      stats_(stats),
      first_sends_(first_sends),
      applied_(applied),
      chunk_bytes_(Header::kBytes + 4 * config.lanes),
      window_(window_of(config, chunk_bytes_)),
      kept_(2 * std::uint64_t{window_}),
      chunks_(kept_),
      buffers_(kept_ * chunk_bytes_),
      bytes_(kept_),
      base_(config.first_position),
      unsent_(config.first_position),
      next_(config.first_position),
      congestion_(window_),
      rtt_(config.rto_initial, config.rto_min, config.rto_max) {
  outgoing_.reserve(2 * window_);
  resend_.reserve(window_);
}

Chunk& Stream::open(const Cargo& cargo, const ChunkForm& form) {
  Chunk& chunk = at(next_);
  chunk = Chunk{.cargo = cargo, .position = next_, .form = form};
  const Header header{.version = static_cast<std::uint8_t>(packet::kVersion),
                      .kind = static_cast<std::uint8_t>(packet::Kind::kContribution),
                      .op = static_cast<std::uint8_t>(config_.op),
                      .readers = form.readers,
                      .job = config_.job,
                      .slot = static_cast<std::uint16_t>(slot_of(next_)),
                      .epoch = config_.epoch,
                      .chunk = static_cast<std::uint32_t>(next_),
                      .key = config_.key,
                      .fingerprint = form.fingerprint};
  header.write(buffer(next_));
  bytes_[next_ % kept_] = form.gives ? chunk_bytes_ : Header::kBytes;
  ++next_;
  ++in_flight_;
  return chunk;
}

void Stream::mark_sent(Chunk& chunk, Nanoseconds now) {
  chunk.send_serial = ++send_serial_;
  chunk.last_sent = now;
  chunk.waited = false;
}

bool Stream::flush(Transport& transport, Nanoseconds now) {
  if (!anything_to_send()) return true;
  outgoing_.clear();
  std::erase_if(resend_,
                [&](std::uint64_t position) { return position < base_ || at(position).done; });
  for (const std::uint64_t position : resend_) outgoing_.push_back(kept(position));
  for (std::uint64_t position = unsent_; position != next_; ++position) {
    outgoing_.push_back(kept(position));
  }
  const std::size_t sent = transport.send(outgoing_);

  const std::size_t again = std::min(sent, resend_.size());
  for (std::size_t i = 0; i < again; ++i) {
    Chunk& chunk = at(resend_[i]);
    chunk.queued = false;
    ++chunk.resends;
    mark_sent(chunk, now);
  }
  stats_.retransmissions.add(again);
  resend_.erase(resend_.begin(), resend_.begin() + static_cast<std::ptrdiff_t>(again));
  const std::size_t fresh = sent - again;
  for (std::size_t i = 0; i < fresh; ++i) {
    Chunk& chunk = at(unsent_++);
    chunk.first_sent = now;
    mark_sent(chunk, now);
  }
  stats_.contributions.add(fresh);
  first_sends_.add(fresh);
  return sent == outgoing_.size();
}

ReplyOutcome Stream::receive(const Header& header, std::size_t payload_bytes,
                             const std::uint8_t* payload, Nanoseconds now, Chunk*& chunk) {
  const auto kind = static_cast<packet::Kind>(header.kind);
  const std::size_t lane_bytes = 4 * config_.lanes;
  if (kind == packet::Kind::kResult ? payload_bytes != 0 && payload_bytes != lane_bytes
                                    : payload_bytes != packet::kContributorsBytes) {
    stats_.drops_length.add();
    return ReplyOutcome::Ignored;
  }
  if (header.op != static_cast<std::uint8_t>(config_.op)) {
    stats_.drops_op.add();
    return ReplyOutcome::Ignored;
  }
  // The position nearest to the window's tail that has this serial number.
  const auto ahead = static_cast<std::int32_t>(header.chunk - static_cast<std::uint32_t>(base_));
  const auto position = static_cast<std::int64_t>(base_) + static_cast<std::int64_t>(ahead);
  if (position < static_cast<std::int64_t>(config_.first_position) ||
      position >= static_cast<std::int64_t>(unsent_)) {
    stats_.drops_chunk.add();  // of a chunk that was never sent
    return ReplyOutcome::Ignored;
  }
  if (header.slot != slot_of(static_cast<std::uint64_t>(position))) {
    stats_.drops_slot.add();
    return ReplyOutcome::Ignored;
  }
  if (static_cast<std::uint64_t>(position) < base_ ||
      at(static_cast<std::uint64_t>(position)).done) {
    (kind == packet::Kind::kResult ? stats_.duplicates : stats_.drops_late).add();
    if (kind == packet::Kind::kResult) on_duplicate(static_cast<std::uint64_t>(position));
    return ReplyOutcome::Ignored;
  }
  chunk = &at(static_cast<std::uint64_t>(position));
  if (kind == packet::Kind::kMismatch) {
    stats_.mismatches.add();
    return ReplyOutcome::Mismatch;
  }
  if (header.fingerprint != chunk->form.fingerprint) {
    stats_.drops_fingerprint.add();
    return ReplyOutcome::Ignored;
  }
  if (header.readers != chunk->form.readers) {
    stats_.drops_readers.add();
    return ReplyOutcome::Ignored;
  }
  if (kind == packet::Kind::kResult && payload_bytes != (chunk->form.gets ? lane_bytes : 0)) {
    stats_.drops_length.add();
    return ReplyOutcome::Ignored;
  }
  if (kind == packet::Kind::kResult) {
    on_result(*chunk, now);
    return ReplyOutcome::Result;
  }

  // WAIT: the switch has our contribution, and waits for another rank's. No loss: no need to hurry.
  stats_.waits.add();
  if (chunk->resends == 1 && !chunk->waited) rtt_.sample(now - chunk->last_sent);
  chunk->waited = true;
  ++chunk->answers;
  last_wait_ = WaitReport{chunk->position, load_big_endian<std::uint64_t>(payload)};
  straggling_since_ = now;
  recovery_ = 0;
  polling_ = true;
  return ReplyOutcome::Wait;
}

void Stream::on_result(Chunk& chunk, Nanoseconds now) {
  stats_.results.add();
  applied_.add();
  chunk.done = true;
  ++chunk.answers;
  --in_flight_;
  last_result_ = now;
  attempts_ = 0;
  polling_ = false;
  congestion_.on_result();
  if (chunk.resends == 0) {
    delivered_serial_ = std::max(delivered_serial_, chunk.send_serial);
    // Karn: only a chunk sent once tells a round trip; and not where a straggler was the delay.
    if (chunk.first_sent > straggling_since_) {
      rtt_.sample(now - chunk.first_sent);
      congestion_.on_round_trip(now - chunk.first_sent);
    }
    // Sent before the last probe and back without one: the path was slow, not lossy (as F-RTO,
    // RFC 5682, has it).
    if (chunk.send_serial < probe_serial_) recovery_ = 0;
  } else if (!chunk.waited) {
    stats_.losses.add();
    chunk.lost_in = congestion_.on_loss();
    // Each answered probe lets two more expired chunks go: a lost window returns in a few round
    // trips, and a straggler (whose probes WAIT answers) never sets off a storm.
    if (chunk.probed) {
      recovery_ += 2;
      // With an initial timeout below the round trip no chunk would ever be sent just once: take
      // the age of the first transmission, which is no less than the round trip.
      if (rtt_.srtt() == 0) rtt_.sample(now - chunk.first_sent);
    }
  }
}

// Of a chunk with an answer to each transmission nothing was lost: this worker was slow, or the
// path.
void Stream::on_duplicate(std::uint64_t position) {
  Chunk& chunk = at(position);
  if (chunk.position != position || !chunk.lost_in || ++chunk.answers <= chunk.resends) return;
  stats_.spurious_losses.add();
  congestion_.on_spurious_loss(*chunk.lost_in);
  chunk.lost_in.reset();
}

void Stream::queue_again(Chunk& chunk, bool probe) {
  if (chunk.queued) return;
  chunk.queued = true;
  chunk.probed = probe;
  resend_.push_back(chunk.position);
}

void Stream::resend_overtaken() {
  if (delivered_serial_ == scanned_serial_) return;
  scanned_serial_ = delivered_serial_;
  for (std::uint64_t position = base_; position != unsent_; ++position) {
    Chunk& chunk = at(position);
    if (chunk.done) continue;
    if (chunk.send_serial + kReordering <= delivered_serial_) {
      if (!chunk.queued) stats_.fast_retransmissions.add();
      queue_again(chunk, false);
    } else if (chunk.resends == 0) {
      break;  // all chunks behind it were sent later, or were checked already
    }
  }
}

void Stream::resend_expired(Nanoseconds now) {
  for (std::uint64_t position = base_; position != unsent_ && recovery_ > 0; ++position) {
    Chunk& chunk = at(position);
    if (chunk.done || chunk.queued || chunk.waited) continue;
    if (chunk.last_sent + rtt_.rto() > now) break;
    queue_again(chunk, true);
    --recovery_;
  }
  recovery_ = 0;
}

void Stream::probe_oldest(Nanoseconds now) {
  const Nanoseconds sent_before = now - patience();
  ++attempts_;
  const std::uint32_t most = polling_ && !overtaken() ? kPolls : kProbes;
  std::uint32_t probes = 0;
  for (std::uint64_t position = base_; position != unsent_ && probes < most; ++position) {
    Chunk& chunk = at(position);
    if (chunk.done || chunk.queued) continue;
    if (chunk.last_sent > sent_before) break;
    queue_again(chunk, true);
    stats_.probes.add();
    ++probes;
  }
  probe_serial_ = send_serial_ + 1;
}

// How long silence about the oldest chunk lasts before it is asked about.
Nanoseconds Stream::patience() const {
  const Nanoseconds wait = rtt_.rto(overtaken() ? attempts_ / kHurry : attempts_);
  return polling_ ? std::min(wait, config_.poll_max) : wait;
}

std::optional<Nanoseconds> Stream::deadline() const {
  if (base_ == unsent_) return std::nullopt;  // nothing was sent that has no result
  const Chunk& chunk = at(base_);
  if (chunk.queued) return std::nullopt;
  return std::max(chunk.last_sent, last_result_) + patience();
}

StreamMarks Stream::marks() const {
  StreamMarks marks{.oldest = base_, .next = next_};
  marks.last_result = static_cast<std::uint64_t>(last_result_);
  if (last_wait_) {
    marks.last_wait = static_cast<std::uint64_t>(straggling_since_);
    marks.wait_position = last_wait_->position;
    marks.wait_bitmap = last_wait_->bitmap;
  }
  return marks;
}

void Stream::excuse(Nanoseconds away) {
  if (last_result_ != 0) last_result_ += away;
  if (last_wait_) straggling_since_ += away;
}

void Stream::tick(Nanoseconds now) {
  resend_overtaken();
  if (recovery_ > 0) resend_expired(now);
  const auto limit = deadline();
  if (limit && *limit <= now) probe_oldest(now);
}

}  // namespace wiresum
