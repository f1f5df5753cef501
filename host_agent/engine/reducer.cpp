// What the engine's thread does with submissions, replies and time.
#include "reducer.hpp"

#include <poll.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "lines.hpp"

namespace wiresum {
namespace {

// The most batches in one turn of the loop, so that nothing else waits for long.
constexpr int kReceiveBatches = 4;
constexpr Nanoseconds kLongestSleep = 1'000'000'000;

Nanoseconds nanoseconds(double seconds) { return static_cast<Nanoseconds>(seconds * 1e9); }

void check(const PieceSpec& piece, const Lease& lease) {
  if (!piece.copies()) check_average(piece.dtype, piece.average);
  if (piece.count > std::uint64_t{1} << 48) refuse(lines::kTooManyElements.of());
  const bool touched = !piece.copies() || piece.source == static_cast<int>(lease.rank) ||
                       piece.readers.has(lease.rank);
  if (piece.data == nullptr && piece.count != 0 && touched) refuse(lines::kNullAddress.of());
}

}  // namespace

Nanoseconds monotonic_now() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1'000'000'000 + time.tv_nsec;
}

Reducer::Reducer(const SwitchSocket& socket, const Lease& lease, const EngineOptions& options,
                 Stats& stats, Ended ended)
    : lease_(checked(lease, options)),
      options_(bounded(options)),
      timeout_(nanoseconds(options_.timeout_s)),
      switch_timeout_(nanoseconds(options_.switch_timeout_s)),
      codecs_(std::make_shared<Codecs>(lease.workers, *parse_field(lease.field))),
      stats_(stats),
      ended_(std::move(ended)),
      division_(lease.slots),
      sums_(lease_, options_, codecs_, stats, ended_),
      copies_(lease_, options_, stats, ended_),
      transport_(
          open_transport(socket, switch_address(lease), Header::kBytes + 4 * lease.lanes, stats)) {
  publish();
}

Collective Reducer::prepare(const std::vector<PieceSpec>& pieces) const {
  Collective result;
  for (const PieceSpec& piece : pieces) {
    check(piece, lease_);
    if (piece.copies()) {
      result.order.push_back(
          result.copies.emplace_back(std::make_unique<Copy>(piece, lease_.rank)).get());
    } else {
      const Codec& codec = codecs_->of(piece.count, piece.dtype, piece.field);
      result.order.push_back(result.sums.emplace_back(std::make_unique<Sum>(piece, codec)).get());
    }
  }
  return result;
}

bool Reducer::turn(Nanoseconds now) {
  bool more = receive(now);
  if (stopped()) return more;
  sums_.exponents().tick(now);
  sums_.data().tick(now);
  copies_.stream().tick(now);
  more |= pump(now);
  sums_.retire();
  copies_.retire();
  check_limits(now);
  return more;
}

void Reducer::end(const Failure& failure) {
  failure_ = failure;
  const auto fail = [&](const Piece& piece) { ended_(piece.ticket, &failure, {}); };
  sums_.drain(fail);
  copies_.drain(fail);
}

void Reducer::take(std::deque<Collective> submitted, Nanoseconds now) {
  if (!outstanding()) last_heard_ = now;
  if (sums_.idle()) sums_progress_ = now;
  if (copies_.idle()) copies_progress_ = now;
  for (Collective& collective : submitted) {
    for (Piece* piece : collective.order) piece->sequence = sequence_++;
    stats_.collectives.add(collective.order.size());
    sums_.take(std::move(collective.sums), collective.order.size());
    copies_.take(std::move(collective.copies), collective.order.size());
  }
}

// -- sending

bool Reducer::pump(Nanoseconds now) {
  if (transport_->wants_write()) return false;
  bool more = false;
  if (!sums_.send_exponents(*transport_, now, more)) return more;
  // Data and copies share the way to the switch, whose queue serves first who came first. With as
  // many chunks in flight, neither has to wait for a longer queue of the other; and who finds the
  // socket full now is the first in the next turn.
  const std::uint32_t most = copies_.idle() ? UINT32_MAX : copies_.stream().window();
  copies_first_ = !copies_first_;
  if (copies_first_ && !copies_.send(*transport_, now, more)) return more;
  if (!sums_.send_data(*transport_, now, most, more)) return more;
  if (!copies_first_) copies_.send(*transport_, now, more);
  return more;
}

// -- receiving

bool Reducer::receive(Nanoseconds now) {
  bool any = false;
  for (int i = 0; i < kReceiveBatches; ++i) {
    const std::size_t taken = transport_->receive(
        [&](const std::uint8_t* data, std::size_t bytes) { handle_datagram(data, bytes, now); });
    any |= taken > 0;
    if (!transport_->more()) break;
  }
  if (any && !stopped()) {
    sums_.advance();
    copies_.advance();
  }
  return transport_->more();
}

std::optional<StreamName> Reducer::stream_at(std::uint32_t slot) const {
  if (division_.data.has(slot)) return StreamName::Data;
  if (division_.copy.has(slot)) return StreamName::Copy;
  if (division_.exponent.has(slot)) return StreamName::Exponent;
  return std::nullopt;
}

void Reducer::handle_datagram(const std::uint8_t* data, std::size_t bytes, Nanoseconds now) {
  if (stopped()) return;
  if (bytes < Header::kBytes) return stats_.drops_length.add();
  const Header header = Header::read(data);
  if (header.version != packet::kVersion) return stats_.drops_version.add();
  const auto kind = static_cast<packet::Kind>(header.kind);
  if (kind != packet::Kind::kResult && kind != packet::Kind::kWait &&
      kind != packet::Kind::kMismatch) {
    return stats_.drops_kind.add();
  }
  if (header.key != lease_.reply_key) return stats_.drops_key.add();
  if (header.job != lease_.job) return stats_.drops_job.add();
  if (header.epoch != lease_.epoch) return stats_.drops_epoch.add();
  const auto name = stream_at(header.slot);
  if (!name) return stats_.drops_slot.add();
  Stream& stream = stream_of(*name);

  const std::uint8_t* payload = data + Header::kBytes;
  Chunk* chunk = nullptr;
  switch (stream.receive(header, bytes - Header::kBytes, payload, now, chunk)) {
    case ReplyOutcome::Result:
      last_heard_ = now;
      (*name == StreamName::Copy ? copies_progress_ : sums_progress_) = now;
      transport_->path_works();
      apply(*name, *chunk, payload);
      break;
    case ReplyOutcome::Wait:
      last_heard_ = now;
      transport_->path_works();
      break;
    case ReplyOutcome::Mismatch:
      failure_ = mismatch(lease_, stream, *chunk, header, load_big_endian<std::uint64_t>(payload));
      break;
    case ReplyOutcome::Ignored:
      break;
  }
}

void Reducer::apply(StreamName name, const Chunk& chunk, const std::uint8_t* lanes) {
  switch (name) {
    case StreamName::Exponent:
      return sums_.apply_exponents(chunk, lanes);
    case StreamName::Data:
      return sums_.apply_data(chunk, lanes);
    case StreamName::Copy:
      return copies_.apply(chunk, lanes);
  }
}

// -- time

// Time for which this process was stopped or starved is not silence of the switch or the ranks.
void Reducer::excuse_absence(Nanoseconds now) {
  const Nanoseconds away = now - last_turn_ - kLongestSleep;
  if (last_turn_ != 0 && away > kLongestSleep) {
    for (const StreamName name : kStreams) stream_of(name).excuse(away);
    last_heard_ += away;
    sums_progress_ += away;
    copies_progress_ += away;
  }
  last_turn_ = now;
}

void Reducer::check_limits(Nanoseconds now) {
  if (!outstanding()) return;
  if (transport_->ended() != nullptr || now - last_heard_ > switch_timeout_) {
    failure_ = unreachable(lease_, options_, *transport_);
    return;
  }
  // A piece may have to wait for those before it, of the other kind: on another rank it may begin
  // only when they have ended.
  const Sum* const sum = sums_.oldest();
  const Copy* const copy = copies_.oldest();
  if (sum != nullptr && copy != nullptr) {
    Nanoseconds& later = sum->sequence < copy->sequence ? copies_progress_ : sums_progress_;
    later = std::max(sums_progress_, copies_progress_);
  }
  if (!sums_.idle() && now - sums_progress_ > timeout_) {
    failure_ = no_progress(lease_, sums_.slowest(), now - sums_progress_);
  } else if (!copies_.idle() && now - copies_progress_ > timeout_) {
    failure_ = no_progress(lease_, copies_.stream(), now - copies_progress_);
  }
}

void Reducer::sleep(Nanoseconds now, int wake_fd) {
  Nanoseconds until = now + kLongestSleep;
  if (!stopped()) {
    for (const StreamName name : kStreams) {
      if (const auto deadline = stream_of(name).deadline()) until = std::min(until, *deadline);
    }
    if (outstanding()) until = std::min(until, last_heard_ + switch_timeout_);
    if (!sums_.idle()) until = std::min(until, sums_progress_ + timeout_);
    if (!copies_.idle()) until = std::min(until, copies_progress_ + timeout_);
  }
  const Nanoseconds span = std::max<Nanoseconds>(until - now, 0) + 1;
  const timespec timeout{.tv_sec = span / 1'000'000'000, .tv_nsec = span % 1'000'000'000};
  pollfd sources[] = {{-1, 0, 0}, {wake_fd, POLLIN, 0}};
  if (!transport_->about_to_sleep(sources[0])) return;
  if (ppoll(sources, 2, &timeout, nullptr) <= 0) sources[0].revents = sources[1].revents = 0;
  transport_->awake(sources[0]);
  if (sources[1].revents & POLLIN) {
    std::uint64_t count;
    [[maybe_unused]] const auto bytes = read(wake_fd, &count, sizeof(count));
  }
}

void Reducer::publish() {
  stats_.window.set(sums_.data().congestion_window());
  stats_.exponent_window.set(sums_.exponents().congestion_window());
  stats_.copy_window.set(copies_.stream().congestion_window());
  stats_.rtt_ns.set(static_cast<std::uint64_t>(sums_.data().rtt().srtt()));
  stats_.rto_ns.set(static_cast<std::uint64_t>(sums_.data().rtt().rto()));
  positions_.publish({.turn = static_cast<std::uint64_t>(last_turn_),
                      .exponent = sums_.exponents().marks(),
                      .data = sums_.data().marks(),
                      .copy = copies_.stream().marks()});
}

Positions Reducer::positions() const {
  const Published::Marks marks = positions_.read();
  // After the process was stopped, no time counts until the engine's thread has had a turn.
  const std::uint64_t now = std::min(static_cast<std::uint64_t>(monotonic_now()),
                                     marks.turn + 2 * std::uint64_t{kLongestSleep});
  const auto since = [now](std::uint64_t then) -> std::optional<double> {
    if (then == 0) return std::nullopt;
    return now > then ? static_cast<double>(now - then) * 1e-9 : 0.0;
  };
  const auto position = [&](const StreamMarks& stream) {
    StreamPosition result;
    result.oldest = stream.oldest;
    result.next = stream.next;
    result.result_s = since(stream.last_result);
    result.wait_s = since(stream.last_wait);
    if (result.wait_s) result.wait = WaitReport{stream.wait_position, stream.wait_bitmap};
    return result;
  };
  return {position(marks.exponent), position(marks.data), position(marks.copy)};
}

}  // namespace wiresum
