// Messages of a socket, many per system call: shared by the kinds of ports that have a socket.
#pragma once

#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "ports_port.hpp"

namespace wiresum::softswitch::ports {

// Calls `each` with every control message of a received message.
template <typename Each>
void for_each_control(const msghdr& header, Each&& each) {
  auto* whole = const_cast<msghdr*>(&header);  // the macros do not write to it
  for (cmsghdr* c = CMSG_FIRSTHDR(whole); c != nullptr; c = CMSG_NXTHDR(whole, c)) each(*c);
}

// The value of a control message.
template <typename T>
T control_value(const cmsghdr& control) {
  T value{};
  std::memcpy(&value, CMSG_DATA(const_cast<cmsghdr*>(&control)), sizeof value);
  return value;
}

inline bool is_control(const cmsghdr& control, int level, int type) {
  return control.cmsg_level == level && control.cmsg_type == type;
}

// Receives. All memory is made at the start: per message `headroom` bytes that the kernel leaves
// alone, and `bytes` for what it writes.
template <typename Address>
class RxBatch {
 public:
  RxBatch(std::size_t messages, std::size_t headroom, std::size_t bytes)
      : stride_(headroom + bytes),
        buffer_(std::make_unique_for_overwrite<std::uint8_t[]>(messages * stride_)),
        headers_(messages),
        slots_(messages) {
    for (std::size_t i = 0; i < messages; ++i) {
      Slot& slot = slots_[i];
      slot.vector = {buffer_.get() + i * stride_ + headroom, bytes};
      msghdr& header = headers_[i].msg_hdr;
      header.msg_name = &slot.from;
      header.msg_iov = &slot.vector;
      header.msg_iovlen = 1;
      header.msg_control = slot.control.data();
    }
    dirty_ = messages;
  }

  // Reads as many messages as there are and fit. False if there was none.
  bool receive(int fd, PortStats& stats) {
    // Of what recvmmsg has written last time, only this is also read by it.
    for (std::size_t i = 0; i < dirty_; ++i) {
      headers_[i].msg_hdr.msg_namelen = sizeof(Address);
      headers_[i].msg_hdr.msg_controllen = kControlBytes;
    }
    stats.calls_in.add();
    const int got = recvmmsg(fd, headers_.data(), static_cast<unsigned>(headers_.size()),
                             MSG_DONTWAIT, nullptr);
    received_ = got > 0 ? static_cast<std::size_t>(got) : 0;
    dirty_ = received_;
    return received_ > 0;
  }

  // Calls handle(header, from, bytes) for each message received, once.
  template <typename Handle>
  void each(Handle&& handle) {
    for (std::size_t i = 0; i < received_; ++i) {
      auto* data = static_cast<std::uint8_t*>(slots_[i].vector.iov_base);
      handle(headers_[i].msg_hdr, slots_[i].from,
             std::span<std::uint8_t>{data, headers_[i].msg_len});
    }
    received_ = 0;
  }

  // Counts what the kernel has thrown away, from SO_RXQ_OVFL's running total.
  void count_overflows(std::uint32_t total, PortStats& stats) {
    stats.drop_in_kernel.add(total - overflows_);  // it wraps at 2^32
    overflows_ = total;
  }

 private:
  static constexpr std::size_t kControlBytes = 128;
  struct Slot {
    Address from;
    iovec vector;
    alignas(cmsghdr) std::array<std::uint8_t, kControlBytes> control;
  };

  std::size_t stride_;
  std::unique_ptr<std::uint8_t[]> buffer_;
  std::vector<mmsghdr> headers_;
  std::vector<Slot> slots_;
  std::size_t received_ = 0;
  std::size_t dirty_ = 0;
  std::uint32_t overflows_ = 0;
};

// Collects messages made of pieces and sends them together.
class TxBatch {
 public:
  static constexpr std::size_t kMessages = 64;

  TxBatch() : vectors_(kVectors), headers_(kMessages) {}

  // Whether a new message, or the one being made, can have so many pieces more.
  bool room_for_message(std::size_t pieces) const {
    return count_ < kMessages && used_ + pieces <= kVectors;
  }
  bool room_for_pieces(std::size_t pieces) const { return used_ + pieces <= kVectors; }

  // The number of the message being made, from 0.
  std::size_t number() const { return count_; }
  msghdr& begin() {
    msghdr& header = headers_[count_].msg_hdr;
    header = {};
    header.msg_iov = &vectors_[used_];
    return header;
  }
  msghdr& message() { return headers_[count_].msg_hdr; }
  void piece(const void* data, std::size_t bytes) {
    if (bytes == 0) return;
    vectors_[used_++] = {const_cast<void*>(data), bytes};
    ++headers_[count_].msg_hdr.msg_iovlen;
  }
  void end() { ++count_; }
  // Takes the message being made back.
  void drop() { used_ -= headers_[count_].msg_hdr.msg_iovlen; }

  // Sends all. What the kernel refuses goes to refused(number, header, error); it is not tried
  // again here.
  template <typename Refused>
  void send(int fd, PortStats& stats, Refused&& refused) {
    for (std::size_t sent = 0; sent < count_;) {
      stats.calls_out.add();
      const int got =
          sendmmsg(fd, &headers_[sent], static_cast<unsigned>(count_ - sent), MSG_DONTWAIT);
      if (got > 0) {
        sent += static_cast<std::size_t>(got);
        continue;
      }
      const int error = errno;
      if (error == EINTR || (error == EAGAIN && wait_writable(fd))) continue;
      refused(sent, headers_[sent].msg_hdr, error);
      ++sent;
    }
    count_ = used_ = 0;
  }

 private:
  static constexpr std::size_t kVectors = 2048;

  std::vector<iovec> vectors_;
  std::vector<mmsghdr> headers_;
  std::size_t count_ = 0;
  std::size_t used_ = 0;
};

// Sends one message that a batch was refused with. 0, or why it was refused again.
int send_singly(int fd, const msghdr& header, PortStats& stats);

// Counts frames that the kernel did not take.
void count_refused(PortStats& stats, int error, std::size_t frames);

}  // namespace wiresum::softswitch::ports
