#include "load.hpp"

#include <algorithm>
#include <chrono>
#include <string>

#include "wire.hpp"

namespace wiresum::bench {

Load::Load(std::vector<int> fds, const sockaddr_in& target, const Lease& lease, bool reflected)
    : target_(target),
      lease_(lease),
      kind_(static_cast<std::uint8_t>(reflected ? packet::Kind::kContribution
                                                : packet::Kind::kResult)),
      bytes_(Header::kBytes + 4 * std::size_t{lease.lanes}),
      length_(std::min<std::size_t>(train_length(bytes_), lease.slots / 4)),
      window_(lease.slots / 2),
      fds_(std::move(fds)) {
  if (length_ == 0) throw BenchError("a lease of fewer than 4 slots has no window for trains");
  const auto ranks = static_cast<std::uint32_t>(fds_.size());
  for (std::uint32_t rank = 0; rank < ranks; ++rank) {
    prepare_socket(fds_[rank]);
    Worker worker{.fd = fds_[rank],
                  .reply = reflected ? rank + 1 : ranks * (ranks + 1) / 2,
                  .datagrams = std::vector<std::uint8_t>(length_ * bytes_)};
    for (std::size_t i = 0; i < length_; ++i) {
      std::uint8_t* datagram = worker.datagrams.data() + i * bytes_;
      const Header header{.version = packet::kVersion,
                          .kind = static_cast<std::uint8_t>(packet::Kind::kContribution),
                          .op = static_cast<std::uint8_t>(packet::Op::kSum),
                          .readers = 0,
                          .job = lease.job,
                          .slot = 0,
                          .epoch = lease.epoch,
                          .chunk = 0,
                          .key = lease.key,
                          .fingerprint = 1};
      header.write(datagram);
      for (std::size_t lane = 0; lane < lease.lanes; ++lane) {
        store_big_endian(datagram + Header::kBytes + 4 * lane, rank + 1);
      }
    }
    workers_.push_back(std::move(worker));
  }
}

double Load::run(std::uint64_t chunks, int silence_ms) {
  const auto begin = std::chrono::steady_clock::now();
  end_ += chunks;
  const auto done = [&](const Worker& worker) { return worker.received == end_; };
  while (!std::ranges::all_of(workers_, done)) {
    bool moved = false;
    for (Worker& worker : workers_) moved |= send(worker);
    for (Worker& worker : workers_) moved |= receive(worker);
    if (!moved && !wait_for(fds_, false, silence_ms)) {
      throw BenchError("no reply in " + std::to_string(silence_ms) + " ms after chunk " +
                       std::to_string(workers_.front().received));
    }
  }
  const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - begin;
  return passed.count();
}

// One train, if the window has room for it.
bool Load::send(Worker& worker) {
  const std::uint64_t next = std::min(worker.sent + length_, end_);
  if (next == worker.sent || next > worker.received + window_) return false;
  const std::size_t count = next - worker.sent;
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint64_t chunk = worker.sent + i;
    std::uint8_t* datagram = worker.datagrams.data() + i * bytes_;
    store_big_endian(datagram + packet::offset::kSlot,
                     static_cast<std::uint16_t>(chunk % lease_.slots));
    store_big_endian(datagram + packet::offset::kChunk, static_cast<std::uint32_t>(chunk));
  }
  if (!send_train(worker.fd, {{worker.datagrams.data(), count * bytes_}, bytes_, target_})) {
    return false;
  }
  worker.sent = next;
  return true;
}

bool Load::receive(Worker& worker) {
  const auto trains = receiver_.receive(worker.fd);
  for (const Train& train : trains) {
    for (std::size_t at = 0; at < train.data.size(); at += train.segment) {
      check(worker,
            train.data.subspan(at, std::min<std::size_t>(train.segment, train.data.size() - at)));
      ++worker.received;
    }
  }
  return !trains.empty();
}

void Load::check(const Worker& worker, std::span<const std::uint8_t> datagram) const {
  const auto wrong = [&](const std::string& what) {
    throw BenchError("instead of the reply to chunk " + std::to_string(worker.received) + " came " +
                     what);
  };
  if (datagram.size() != bytes_) wrong(std::to_string(datagram.size()) + " bytes");
  const Header header = Header::read(datagram.data());
  if (header.kind != kind_) wrong("kind " + std::to_string(header.kind));
  if (header.chunk != static_cast<std::uint32_t>(worker.received)) {
    wrong("chunk " + std::to_string(header.chunk));
  }
  // The first and the last lane: all of them would cost as much as the switch's own work.
  for (const std::size_t at : {Header::kBytes, bytes_ - 4}) {
    const auto lane = load_big_endian<std::uint32_t>(datagram.data() + at);
    if (lane != worker.reply) {
      wrong("the sum " + std::to_string(lane) + ", not " + std::to_string(worker.reply));
    }
  }
}

}  // namespace wiresum::bench
