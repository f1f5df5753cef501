// The interface of every transport: datagrams to and from the switch. It does not look into them.
#pragma once

#include <poll.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "packet.hpp"
#include "stats.hpp"

namespace wiresum {

// What a datagram costs on a link beyond its payload.
inline constexpr std::size_t kFrameHeaders =
    packet::kEthernetBytes + packet::kIpv4Bytes + packet::kUdpBytes;

// One to send; the buffer stays the caller's.
struct Datagram {
  std::uint8_t* data;
  std::size_t bytes;
};

class Transport {
 public:
  // For datagrams of at most `datagram_bytes`.
  Transport(std::size_t datagram_bytes, Stats& stats)
      : datagram_bytes_(datagram_bytes), stats_(stats) {}
  virtual ~Transport() = default;
  Transport(const Transport&) = delete;
  Transport& operator=(const Transport&) = delete;

  // Sends datagrams in order; returns how many were handed over (or given up as lost). Fewer than
  // asked for means that no more fit: wants_write() until some do.
  virtual std::size_t send(std::span<const Datagram> datagrams) = 0;
  virtual bool wants_write() const = 0;

  // Receives one batch and calls handle(data, bytes) for each datagram that the switch sent.
  // Returns the number of datagrams taken; 0 if there was none. Then more() tells whether there may
  // be others: if not, asking again costs a system call for nothing.
  template <typename Handle>
  std::size_t receive(Handle&& handle) {
    const int messages = receive_batch();
    std::size_t taken = 0;
    for (int i = 0; i < messages; ++i) {
      const Batch batch = batch_at(i);
      for (std::size_t at = 0; at < batch.bytes; at += batch.segment) {
        ++taken;
        if (!batch.foreign) handle(batch.data + at, std::min(batch.segment, batch.bytes - at));
      }
      if (batch.bytes == 0) ++taken;
    }
    if (messages > 0) batch_done();
    return taken;
  }

  bool more() const { return more_; }

  // Sets the descriptor to poll while asleep. False: do not sleep, there is work to do.
  virtual bool about_to_sleep(pollfd& source) = 0;
  // After the sleep; `source` has the result of poll().
  virtual void awake(const pollfd& source) = 0;

  int last_error() const { return last_error_; }  // errno of the last failure on the path, 0: none
  void path_works() { last_error_ = 0; }
  // nullptr: the switch may still answer through this transport. Else why it did not take this
  // worker back; empty if the transport does not know where to ask.
  virtual const std::string* ended() const { return nullptr; }

 protected:
  struct Batch {
    const std::uint8_t* data;
    std::size_t bytes;
    std::size_t segment;  // bytes of each datagram in it (the last may be shorter)
    bool foreign;
  };

  // The messages of a batch; sets more_.
  virtual int receive_batch() = 0;
  virtual Batch batch_at(int index) = 0;
  virtual void batch_done() {}

  void count_sent(std::size_t datagrams, std::size_t bytes) {
    stats_.packets_sent.add(datagrams);
    stats_.bytes_sent.add(bytes);
    stats_.header_bytes_sent.add(datagrams * kFrameHeaders);
  }
  void count_received(std::size_t datagrams, std::size_t bytes) {
    stats_.packets_received.add(datagrams);
    stats_.bytes_received.add(bytes);
    stats_.header_bytes_received.add(datagrams * kFrameHeaders);
  }

  const std::size_t datagram_bytes_;
  Stats& stats_;
  int last_error_ = 0;
  bool more_ = false;  // the last batch was full
};

}  // namespace wiresum
