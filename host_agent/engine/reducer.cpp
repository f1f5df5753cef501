// What the engine's thread does with submissions, replies and time.
#include "reducer.hpp"

#include <poll.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "fingerprint.hpp"

namespace wiresum {
namespace {

// The most work in one turn of the loop, so that replies never wait for long.
constexpr int kReceiveBatches = 4;
constexpr int kDataChunksPerTurn = 64;
constexpr int kExponentChunksPerTurn = 16;  // of tensors without data that wait for them
constexpr Nanoseconds kLongestSleep = 1'000'000'000;

Nanoseconds nanoseconds(double seconds) { return static_cast<Nanoseconds>(seconds * 1e9); }

// E slots for exponents; an even number for either stream.
std::uint32_t exponent_slots(std::uint32_t slots) { return std::max(2u, slots / 8 / 2 * 2); }

StreamConfig stream_config(const Lease& lease, const EngineOptions& options, bool exponents) {
  const std::uint32_t first = exponent_slots(lease.slots);
  return {.name = exponents ? "exponent" : "data",
          .op = exponents ? packet::Op::kMax : packet::Op::kSum,
          .slot_base = exponents ? 0 : first,
          .slot_count = exponents ? first : (lease.slots - first) / 2 * 2,
          .window = options.window,
          .first_position = options.first_position,
          .lanes = lease.lanes,
          .job = lease.job,
          .epoch = lease.epoch,
          .key = lease.key,
          .rto_initial = nanoseconds(options.rto_initial_s),
          .rto_min = nanoseconds(options.rto_min_s),
          .rto_max = nanoseconds(options.rto_max_s),
          .poll_max = nanoseconds(options.poll_max_s)};
}

// Room for the most blocks that blocks_ahead() allows.
std::size_t ring_capacity(std::size_t window, std::size_t elements_per_chunk, std::size_t lanes) {
  return std::bit_ceil(kWindowsAhead * (window * elements_per_chunk / kBlock + 1) + 2 * lanes);
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
      exponents_(stream_config(lease, options_, true), stats, stats.exponent_contributions,
                 stats.exponent_results),
      data_(stream_config(lease, options_, false), stats, stats.data_contributions,
            stats.data_results),
      elements_per_chunk_(lease.lanes * fields_per_lane(codecs_->large().field())),
      ring_(ring_capacity(data_.window(), elements_per_chunk_, lease.lanes)),
      transport_(
          open_transport(socket, switch_address(lease), Header::kBytes + 4 * lease.lanes, stats)) {
  publish();
}

std::unique_ptr<Collective> Reducer::prepare(void* data, std::uint64_t count, Dtype dtype,
                                             bool average) const {
  auto collective = std::make_unique<Collective>();
  collective->data = static_cast<std::byte*>(data);
  collective->count = count;
  collective->dtype = dtype;
  collective->average = average;
  collective->codec = &codecs_->of(count, dtype);
  collective->block_elements = collective->codec->block_elements();
  if (collective->small()) {
    collective->sent_codes.resize(count);
    collective->sent_at.resize(count);
  }
  collective->blocks = (count + collective->block_elements - 1) / collective->block_elements;
  return collective;
}

bool Reducer::turn(Nanoseconds now) {
  bool busy = receive(now);
  if (stopped()) return busy;
  exponents_.tick(now);
  data_.tick(now);
  busy |= pump(now);
  retire_finished();
  check_limits(now);
  return busy;
}

void Reducer::end(const Failure& failure) {
  failure_ = failure;
  for (const auto& collective : active_) {
    if (!collective->finished) ended_(collective->ticket, &failure, {});
  }
  active_.clear();
  exponent_cursor_ = data_cursor_ = 0;
}

void Reducer::take(std::deque<std::unique_ptr<Collective>> submitted, Nanoseconds now) {
  if (!outstanding()) last_heard_ = last_progress_ = now;
  for (auto& collective : submitted) {
    collective->sequence = sequence_++;
    const auto print = [&](const StreamConfig& stream) {
      return fingerprint({collective->sequence, collective->count,
                          static_cast<std::uint64_t>(collective->dtype),
                          bits_of(collective->codec->field()), collective->block_elements,
                          collective->average ? 1u : 0u, static_cast<std::uint64_t>(stream.op)});
    };
    collective->exponent_fingerprint = print(exponents_.config());
    collective->data_fingerprint = print(data_.config());
    stats_.collectives.add();
    stats_.elements.add(collective->count);
    active_.push_back(std::move(collective));
    if (active_.back()->blocks == 0) finish_if_complete(*active_.back());
  }
}

void Reducer::retire_finished() {
  while (!active_.empty() && active_.front()->finished) {
    active_.pop_front();
    if (exponent_cursor_ > 0) --exponent_cursor_;
    if (data_cursor_ > 0) --data_cursor_;
  }
}

// -- sending

bool Reducer::pump(Nanoseconds now) {
  if (transport_->wants_write()) return false;
  bool busy = exponents_.anything_to_send() || data_.anything_to_send();
  // One exponent chunk opens the way for many data chunks: they take turns, so that the first data
  // leave early and the block is still in the cache when it is quantized. Those of tensors
  // without such data leave together.
  int opened = 0;
  while (opened < kExponentChunksPerTurn && open_exponents()) {
    busy = true;
    ++opened;
    if (active_[exponent_cursor_]->in_ring()) break;
  }
  if (!exponents_.flush(*transport_, now)) return busy;
  opened = 0;
  while (opened < kDataChunksPerTurn && open_data()) ++opened;
  data_.flush(*transport_, now);
  return busy || opened > 0;
}

// How many blocks may be anywhere between their exponent and their sum: those of the data window
// and as many again, so that the data never wait for the exponents' round trip, and chunks of
// exponents to fill. Not more: blocks that were looked at long ago have left the cache when they
// are quantized, and at the start of a tensor all ranks would look at blocks instead of sending the
// first ones.
std::uint64_t Reducer::blocks_ahead() const {
  const std::uint64_t in_window = data_.congestion_window() * elements_per_chunk_ / kBlock + 1;
  return std::min<std::uint64_t>(kWindowsAhead * in_window + 2 * lease_.lanes, ring_.capacity());
}

bool Reducer::open_exponents() {
  while (exponent_cursor_ < active_.size() &&
         active_[exponent_cursor_]->exponents_opened == active_[exponent_cursor_]->blocks) {
    ++exponent_cursor_;
  }
  if (exponent_cursor_ == active_.size() || !exponents_.room()) return false;
  Collective& collective = *active_[exponent_cursor_];
  const std::uint64_t first = collective.exponents_opened;
  const auto blocks =
      static_cast<std::uint32_t>(std::min<std::uint64_t>(lease_.lanes, collective.blocks - first));
  if (collective.in_ring()) {
    if (ring_.size() + blocks_in_agreement_ + blocks > blocks_ahead()) return false;
    blocks_in_agreement_ += blocks;
  }

  const Chunk& chunk =
      exponents_.open({&collective, first, blocks}, collective.exponent_fingerprint);
  std::uint8_t* lanes = exponents_.lanes(chunk);
  const std::size_t elements =
      (blocks - 1) * collective.block_elements + collective.elements_of(first + blocks - 1);
  collective.codec->exponents(collective.dtype, collective.address_of(first), elements, lanes);
  std::memset(lanes + 4 * blocks, 0, 4 * (lease_.lanes - blocks));
  collective.exponents_opened += blocks;
  return true;
}

bool Reducer::open_data() {
  while (data_cursor_ < active_.size() && active_[data_cursor_]->all_packed()) ++data_cursor_;
  if (data_cursor_ == active_.size() || !data_.room()) return false;
  Collective& collective = *active_[data_cursor_];
  const std::uint64_t first = collective.elements_packed;
  const std::uint64_t ready = collective.elements_to_send - first;
  const std::size_t most = collective.elements_per_chunk(lease_.lanes);
  // A chunk that is not full must be the last one: its numbering must not depend on timing.
  if (ready == 0 || (ready < most && !collective.all_agreed())) return false;
  const auto elements = static_cast<std::uint32_t>(std::min<std::uint64_t>(ready, most));

  const Chunk& chunk = data_.open({&collective, first, elements}, collective.data_fingerprint);
  if (collective.small()) {
    pack_each(collective, first, elements, data_.lanes(chunk));
  } else {
    pack(collective, first, elements, data_.lanes(chunk));
  }
  collective.elements_packed += elements;
  ++collective.chunks_open;
  return true;
}

void Reducer::pack(const Collective& collective, std::uint64_t first, std::uint32_t elements,
                   std::uint8_t* lanes) const {
  const Codec& codec = *collective.codec;
  std::size_t written = 0;
  for (std::uint32_t done = 0; done < elements;) {
    const std::uint64_t at = first + done;
    const BlockRing::Entry& block = ring_[collective.first_agreed_block + at / kBlock];
    const std::size_t offset = at % kBlock;
    const std::size_t n = std::min<std::size_t>(kBlock - offset, elements - done);
    written += codec.encode(collective.dtype, block.data + offset * size_of(collective.dtype), n,
                            &block.code, lanes + 4 * written);
    done += static_cast<std::uint32_t>(n);
  }
  for (; written < lease_.lanes; ++written)
    store_big_endian(lanes + 4 * written, codec.zero_lane());
}

// -- receiving

bool Reducer::receive(Nanoseconds now) {
  bool any = false;
  for (int i = 0; i < kReceiveBatches; ++i) {
    const std::size_t taken = transport_->receive(
        [&](const std::uint8_t* data, std::size_t bytes) { handle_datagram(data, bytes, now); });
    if (taken == 0) break;
    any = true;
  }
  if (any && !stopped()) {
    exponents_.advance([this](const Chunk& chunk) { agree(chunk); });
    data_.advance([this](const Chunk& chunk) { release(chunk); });
  }
  return any;
}

void Reducer::handle_datagram(const std::uint8_t* data, std::size_t bytes, Nanoseconds now) {
  if (stopped()) return;
  if (bytes < Header::kBytes) return stats_.drops_length.add();
  const Header header = Header::read(data);
  if (header.version != packet::kVersion || header.readers != 0) return stats_.drops_version.add();
  const auto kind = static_cast<packet::Kind>(header.kind);
  if (kind != packet::Kind::kResult && kind != packet::Kind::kWait &&
      kind != packet::Kind::kMismatch) {
    return stats_.drops_kind.add();
  }
  if (header.key != lease_.reply_key) return stats_.drops_key.add();
  if (header.job != lease_.job) return stats_.drops_job.add();
  if (header.epoch != lease_.epoch) return stats_.drops_epoch.add();
  const std::uint32_t data_base = data_.config().slot_base;
  if (header.slot >= data_base + data_.config().slot_count) return stats_.drops_slot.add();
  Stream& stream = header.slot < data_base ? exponents_ : data_;

  const std::uint8_t* payload = data + Header::kBytes;
  Chunk* chunk = nullptr;
  switch (stream.receive(header, bytes - Header::kBytes, payload, now, chunk)) {
    case ReplyOutcome::Result:
      last_heard_ = last_progress_ = now;
      transport_->path_works();
      if (&stream == &exponents_) {
        apply_exponents(*chunk, payload);
      } else {
        apply_data(*chunk, payload);
      }
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

// Exponents are agreed in the order of their chunks, because they number the data. Until then they
// are kept in the send buffer, which a chunk with a result does not need any more.
void Reducer::apply_exponents(const Chunk& chunk, const std::uint8_t* lanes) {
  std::memcpy(exponents_.lanes(chunk), lanes, 4 * std::size_t{chunk.cargo.count});
}

void Reducer::agree(const Chunk& chunk) {
  Collective& collective = *chunk.cargo.collective;
  const std::uint8_t* lanes = exponents_.lanes(chunk);
  if (collective.small()) return agree_each(chunk, lanes);
  if (chunk.cargo.first == 0) collective.first_agreed_block = ring_.head();
  for (std::uint32_t i = 0; i < chunk.cargo.count; ++i) {
    const std::uint64_t block = chunk.cargo.first + i;
    const auto code = load_big_endian<std::uint32_t>(lanes + 4 * i);
    const std::size_t elements = collective.elements_of(block);
    std::byte* address = collective.address_of(block);
    if (collective.codec->sends(code)) {
      ring_.push({address, code, static_cast<std::uint32_t>(elements)});
      ++collective.blocks_to_send;
      collective.elements_to_send += elements;
      stats_.blocks_sent.add();
    } else {
      leave_unsent(collective, block, code);
      const bool nonfinite = collective.codec->nonfinite(code);
      (nonfinite   ? stats_.blocks_nonfinite
       : code == 0 ? stats_.blocks_zero
                   : stats_.blocks_sent)
          .add();
    }
  }
  collective.exponents_agreed += chunk.cargo.count;
  if (collective.in_ring()) blocks_in_agreement_ -= chunk.cargo.count;
  finish_if_complete(collective);
}

// A block whose result follows from its code, or one that the caller wants as it is.
void Reducer::leave_unsent(Collective& collective, std::uint64_t block, std::uint32_t code) const {
  if (collective.codec->nonfinite(code) && options_.keep_nonfinite) {
    collective.leave(block);
  } else {
    collective.codec->fill(collective.dtype, code, collective.address_of(block),
                           collective.elements_of(block));
  }
}

void Reducer::apply_data(const Chunk& chunk, const std::uint8_t* lanes) {
  Collective& collective = *chunk.cargo.collective;
  if (collective.small()) return apply_each(chunk, lanes);
  const Codec& codec = *collective.codec;
  const std::size_t per_lane = fields_per_lane(codec.field());
  for (std::uint32_t done = 0; done < chunk.cargo.count;) {
    const std::uint64_t at = chunk.cargo.first + done;
    const BlockRing::Entry& block = ring_[collective.first_agreed_block + at / kBlock];
    const std::size_t offset = at % kBlock;
    const std::size_t n = std::min<std::size_t>(kBlock - offset, chunk.cargo.count - done);
    codec.decode(collective.dtype, lanes + 4 * (done / per_lane), n, &block.code,
                 collective.average, block.data + offset * size_of(collective.dtype));
    done += static_cast<std::uint32_t>(n);
  }
}

// Chunks leave the window in order, so all blocks before the last whole one here are done with.
void Reducer::release(const Chunk& chunk) {
  Collective& collective = *chunk.cargo.collective;
  if (!collective.small()) {
    const std::uint64_t end = chunk.cargo.first + chunk.cargo.count;
    const bool last = collective.all_packed() && end == collective.elements_to_send;
    ring_.release_before(collective.first_agreed_block +
                         (last ? collective.blocks_to_send : end / kBlock));
  }
  --collective.chunks_open;
  finish_if_complete(collective);
}

void Reducer::finish_if_complete(Collective& collective) {
  if (collective.finished || !collective.complete()) return;
  collective.finished = true;
  ended_(collective.ticket, nullptr, std::move(collective.nonfinite));
}

// -- time

// Time for which this process was stopped or starved is not silence of the switch or the ranks.
void Reducer::excuse_absence(Nanoseconds now) {
  const Nanoseconds away = now - last_turn_ - kLongestSleep;
  if (last_turn_ != 0 && away > kLongestSleep) {
    exponents_.excuse(away);
    data_.excuse(away);
    last_heard_ += away;
    last_progress_ += away;
  }
  last_turn_ = now;
}

void Reducer::check_limits(Nanoseconds now) {
  if (!outstanding()) return;
  if (transport_->ended() != nullptr || now - last_heard_ > switch_timeout_) {
    failure_ = unreachable(lease_, options_, *transport_);
  } else if (now - last_progress_ > timeout_) {
    failure_ = no_progress(lease_, slowest(), now - last_progress_);
  }
}

// The stream that all others wait for: data wait for exponents, so exponents come first.
const Stream& Reducer::slowest() const {
  const bool exponents = !exponents_.idle() && exponents_.oldest()->send_serial != 0 &&
                         (data_.idle() || exponents_.oldest()->cargo.collective->sequence <=
                                              data_.oldest()->cargo.collective->sequence);
  return exponents ? exponents_ : data_;
}

void Reducer::sleep(Nanoseconds now, int wake_fd) {
  Nanoseconds until = now + kLongestSleep;
  if (!stopped()) {
    for (const Stream* stream : {&exponents_, &data_}) {
      if (const auto deadline = stream->deadline()) until = std::min(until, *deadline);
    }
    if (outstanding()) {
      until = std::min({until, last_heard_ + switch_timeout_, last_progress_ + timeout_});
    }
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
  stats_.window.set(data_.congestion_window());
  stats_.exponent_window.set(exponents_.congestion_window());
  stats_.rtt_ns.set(static_cast<std::uint64_t>(data_.rtt().srtt()));
  stats_.rto_ns.set(static_cast<std::uint64_t>(data_.rtt().rto()));
  positions_.publish({.turn = static_cast<std::uint64_t>(last_turn_),
                      .exponent = exponents_.marks(),
                      .data = data_.marks()});
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
  return {position(marks.exponent), position(marks.data)};
}

}  // namespace wiresum
