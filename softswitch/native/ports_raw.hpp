// The raw port: a real interface, through a packet socket.
//
// Frames arrive as the stack left them: with checksums still to be computed, and many segments in
// one frame (GSO, GRO). The kernel describes that in a header of its own (PACKET_VNET_HDR), and
// the port makes what a cable would have carried:
//  - a checksum that is still open is computed;
//  - a train of UDP datagrams over IPv4 is split into frames;
//  - a TCP train stays one frame; it passes the program as such and leaves with the same
//    description if its length is unchanged, so that the kernel cuts it on the way out. A program
//    that changes the length of TCP segments needs offloads switched off (ethtool -K ... gro off);
//  - a VLAN tag that the kernel has taken off is put back.
// Other frames longer than the outgoing interface's MTU are refused by the kernel and counted.
//
// Trains also leave as one, where that changes nothing: frames that follow each other, that are UDP
// over IPv4 with right checksums, alike but for consecutive identifications, are exactly what the
// kernel (or the card) makes of one large frame when it cuts it. See RawTrain.
#pragma once

#include <linux/if_packet.h>
#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <string>

#include "ports_batch.hpp"
#include "ports_headers.hpp"
#include "ports_port.hpp"
#include "ports_raw_train.hpp"

namespace wiresum::softswitch::ports {

class RawPort final : public Port {
 public:
  // Opens `interface`. Throws std::system_error: ENODEV, EPERM without CAP_NET_RAW, ...
  RawPort(std::uint16_t number, const std::string& interface, Loss in, Loss out);

  int fd() const override { return socket_.get(); }
  std::string address() const override { return interface_; }
  bool receive() override { return rx_.receive(fd(), stats_); }
  void deliver(FrameSink& sink) override;

 protected:
  void transmit(std::span<const Waiting> frames) override;

 private:
  static constexpr std::size_t kRxMessages = 32;
  // In front of a frame: room for a tag and for the headers of a split train.
  static constexpr std::size_t kHeadroom = 128;
  static constexpr std::size_t kRxBytes = 65536 + 32;

  // What belongs to a message being sent.
  struct Outgoing {
    RawTrain::Head head;
    std::size_t first = 0;  // of its frames in sending_
    std::size_t count = 0;
  };

  void accept(const msghdr& header, const sockaddr_ll& from, std::span<std::uint8_t> data,
              FrameSink& sink);
  void split(std::span<std::uint8_t> frame, std::size_t network, const Offload& offload,
             FrameSink& sink);
  void pass(std::span<std::uint8_t> frame, const Offload& offload, FrameSink& sink);

  void append(std::size_t index);
  void begin(std::size_t index);
  void close();
  void send_messages();
  void put_frame(const Waiting& frame);
  void send_alone(const Waiting& frame);
  std::size_t longest_frame();

  std::string interface_;
  Fd socket_;
  bool described_ = false;  // every frame has an Offload in front
  bool trains_ = false;
  unsigned refusals_ = 0;

  RxBatch<sockaddr_ll> rx_;

  std::span<const Waiting> sending_;
  RawTrain train_;
  bool open_ = false;
  std::size_t longest_ = 0;  // frame that the interface takes; 0: not asked yet
  TxBatch tx_;
  std::array<Outgoing, TxBatch::kMessages> outgoing_;
};

}  // namespace wiresum::softswitch::ports
