// The shm port: workers on the switch's own host, each with two rings in memory that it shares with
// the switch (common/native/shm_ring.hpp). No system call while both sides are busy.
//
// A worker connects to a Unix socket, whose file mode limits who may. The port gives every
// connection a source address of its own (an IPv4 address out of `network`, a UDP port), so that
// the program can tell workers apart by addresses that they cannot choose; a datagram gets the same
// headers as in a udp port. Nothing that a worker writes is believed: see Reader. A datagram is
// copied out of the shared memory before the program sees it. A full ring loses the frame; the port
// does not wait.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "ports_headers.hpp"
#include "ports_port.hpp"
#include "ports_shm_ticket.hpp"
#include "shm_ring.hpp"

namespace wiresum::softswitch::ports {

struct ShmOptions {
  std::string path;
  unsigned mode = 0600;         // of the socket's file
  std::uint32_t network = 0;    // sources are network + 2, + 3, ...
  std::uint32_t addresses = 0;  // in the network
  std::uint32_t switch_ip = 0;  // what frames are addressed to
  std::uint16_t service_port = 0;
};

class ShmPort final : public Port {
 public:
  // Makes the socket; one that no process listens on any more is replaced. Throws
  // std::system_error.
  ShmPort(std::uint16_t number, ShmOptions options, Loss in, Loss out);
  ~ShmPort() override;

  int fd() const override { return poll_.get(); }
  std::string address() const override { return options_.path; }
  bool in_memory() const override { return true; }
  bool rest() override;
  void attend() override;
  bool receive() override;
  void deliver(FrameSink& sink) override;

 protected:
  void transmit(std::span<const Waiting> frames) override;

 private:
  static constexpr std::size_t kMaxConnections = 256;
  // Frames of one connection per turn, for the others' sake.
  static constexpr std::uint32_t kBatch = 64;

  struct Memory {
    Memory() = default;
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;
    ~Memory();
    std::uint8_t* at = nullptr;
    std::size_t bytes = 0;
  };

  struct Connection {
    Fd socket;
    Fd wake;  // an eventfd that the worker holds as well
    Memory memory;
    shm::Control* control = nullptr;  // nullptr: it has not said Hello yet
    shm::Reader in;
    shm::Writer out;
    HeaderTemplate headers;
    Peer peer;
    std::int64_t accepted_ns = 0;
    std::uint32_t slot = 0;
    std::uint32_t generation = 0;
    std::uint32_t pending = 0;
    bool written = false;
    bool doomed = false;
    // Has written indices that make no sense.
    bool broken() const { return in.broken() || out.broken(); }
  };

  // Connections: ports_shm_connections.cpp.
  void open_socket();
  void accept_workers();
  void expire_silent();
  void set_clock(std::int64_t ns);
  std::size_t next_free(bool unexpected) const;
  bool take_back(Connection& connection, const shm::Hello& hello);
  void change_places(Connection& connection, std::uint32_t slot);
  std::uint32_t ip_of(std::uint32_t slot) const { return options_.network + 2 + base_ + slot; }
  void watch(int fd, std::uint32_t events, const Connection& connection, bool is_socket);
  void socket_event(Connection& connection, std::uint32_t events);
  void greet(Connection& connection, const shm::Hello& hello);
  void answer(Connection& connection, shm::Answer answer, const int* descriptors,
              std::uint64_t ticket = 0);
  bool share(Connection& connection, std::uint32_t payload_bytes, std::uint32_t records,
             Fd* memory);
  void doom(Connection& connection);
  void sweep();

  // Frames: ports_shm.cpp.
  bool anything();
  void deliver(FrameSink& sink, Connection& connection, const shm::View& view);
  void wake(Connection& connection);
  static std::uint64_t key_of(Peer peer) { return std::uint64_t{peer.ip} << 16 | peer.port; }
  Connection* connection_to(Peer to) const;
  void put(const Waiting& frame);

  ShmOptions options_;
  Fd listener_;
  Fd poll_;
  Fd clock_;  // a timerfd: runs while there are connections without a Hello
  bool clock_runs_ = false;
  Tickets tickets_;
  std::uint64_t inode_ = 0;  // of the socket's file: only our own is removed
  // Where our own addresses begin in the network, after its first two: elsewhere in each process,
  // so that those of a process before it are free for who comes back.
  std::uint32_t base_ = 0;
  std::uint32_t generations_;
  std::uint32_t next_slot_ = 0;
  bool resting_ = false;
  bool any_doomed_ = false;
  std::size_t first_ = 0;  // whose turn it is to be first

  std::vector<std::unique_ptr<Connection>> slots_;
  std::unordered_map<std::uint64_t, Connection*> returned_;  // with addresses beyond our own
  std::vector<Connection*> active_;                          // those that have said Hello
  std::vector<Connection*> written_;  // those that have something to be published
  std::array<std::uint8_t, kHeaderBytes + shm::kMaxPayload> frame_;
};

}  // namespace wiresum::softswitch::ports
