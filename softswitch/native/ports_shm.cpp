// The frames of a shm port: between the rings of its connections and the loop.
#include "ports_shm.hpp"

#include <sys/socket.h>

#include <algorithm>
#include <cstring>

namespace wiresum::softswitch::ports {

// -- frames in -----------------------------------------------------------------------------------

bool ShmPort::anything() {
  return std::any_of(active_.begin(), active_.end(), [](Connection* connection) {
    return connection->in.available() > 0 || connection->broken();
  });
}

bool ShmPort::rest() {
  if (anything()) return false;
  resting_ = true;
  for (Connection* connection : active_) {
    connection->control->switch_sleeps.store(shm::kForRecords, std::memory_order_relaxed);
  }
  shm::full_fence();
  return !anything();
}

bool ShmPort::receive() {
  if (resting_) {
    resting_ = false;
    for (Connection* connection : active_) {
      connection->control->switch_sleeps.store(shm::kAwake, std::memory_order_relaxed);
    }
  }
  bool any = false;
  for (Connection* connection : active_) {
    connection->pending = std::min(connection->in.available(kBatch), kBatch);
    if (connection->broken()) {
      stats_.drop_in_malformed.add();
      doom(*connection);
    }
    any |= connection->pending > 0;
  }
  sweep();
  return any;
}

void ShmPort::deliver(FrameSink& sink) {
  for (std::size_t i = 0; i < active_.size(); ++i) {
    Connection& connection = *active_[(first_ + i) % active_.size()];
    if (connection.pending == 0) continue;
    for (std::uint32_t ahead = 0; ahead < connection.pending; ++ahead) {
      if (ahead + 1 < connection.pending) connection.in.prefetch(ahead + 1);
      deliver(sink, connection, connection.in.at(ahead));
    }
    connection.in.take(connection.pending);
    connection.pending = 0;
    shm::full_fence();
    if (shm::wake_needed(connection.control->worker_sleeps, shm::kForRecordsOrRoom)) {
      wake(connection);
    }
  }
  ++first_;
}

void ShmPort::deliver(FrameSink& sink, Connection& connection, const shm::View& view) {
  if (!view.sound) return stats_.drop_in_malformed.add();
  if (loss_in_.lose()) return stats_.drop_in_lost.add();
  const Peer to{options_.switch_ip, options_.service_port};
  connection.headers.write(frame_.data(), connection.peer, to, view.bytes);
  std::memcpy(frame_.data() + kHeaderBytes, view.payload, view.bytes);
  stats_.frames_in.add();
  stats_.bytes_in.add(kHeaderBytes + view.bytes);
  sink.frame({frame_.data(), kHeaderBytes + view.bytes}, Offload{});
}

// -- frames out ----------------------------------------------------------------------------------

void ShmPort::transmit(std::span<const Waiting> frames) {
  for (const Waiting& frame : frames) put(frame);
  for (Connection* connection : written_) connection->out.publish();
  shm::full_fence();
  for (Connection* connection : written_) {
    connection->written = false;
    if (shm::wake_needed(connection->control->worker_sleeps, shm::kForRecords)) wake(*connection);
  }
  written_.clear();
}

// Copies a frame's datagram to where it goes.
void ShmPort::put(const Waiting& frame) {
  Waiting whole = frame;
  Datagram datagram;
  if (!read_datagram({whole.head, whole.head_bytes}, whole.length(), &datagram)) {
    if (whole.tail_bytes > 0) whole = assembled(whole);
    if (!read_datagram({whole.head, whole.head_bytes}, whole.length(), &datagram)) {
      return stats_.drop_out_not_udp.add();
    }
  }
  if (loss_out_.lose()) return stats_.drop_out_lost.add();
  Connection* connection = connection_to(datagram.to);
  if (connection == nullptr || datagram.bytes > connection->out.payload_bytes()) {
    return stats_.drop_out_failed.add();
  }
  std::uint8_t* room = connection->out.room();
  if (room == nullptr) return stats_.drop_out_full.add();
  const std::size_t first = std::min(datagram.bytes, whole.head_bytes - datagram.at);
  std::memcpy(room, whole.head + datagram.at, first);
  if (datagram.bytes > first) std::memcpy(room + first, whole.tail, datagram.bytes - first);
  connection->out.push(static_cast<std::uint32_t>(datagram.bytes));
  stats_.frames_out.add();
  stats_.bytes_out.add(whole.length());
  if (!connection->written) {
    connection->written = true;
    written_.push_back(connection);
  }
}

ShmPort::Connection* ShmPort::connection_to(Peer to) const {
  const std::uint32_t slot = to.ip - options_.network - 2 - base_;
  Connection* connection = slot < slots_.size() ? slots_[slot].get() : nullptr;
  if (connection == nullptr || connection->peer != to) {
    if (returned_.empty()) return nullptr;
    const auto returned = returned_.find(key_of(to));
    connection = returned != returned_.end() ? returned->second : nullptr;
  }
  const bool found = connection != nullptr && connection->control != nullptr && !connection->doomed;
  return found ? connection : nullptr;
}

void ShmPort::wake(Connection& connection) {
  stats_.calls_out.add();
  const std::uint8_t byte = 0;
  // Refused only if bytes enough lie there unread, or the worker has gone.
  [[maybe_unused]] const ssize_t sent =
      send(connection.socket.get(), &byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}

}  // namespace wiresum::softswitch::ports
