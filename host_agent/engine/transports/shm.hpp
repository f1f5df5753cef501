// Datagrams to and from a switch on the same host through memory that both share
// (common/native/shm_ring.hpp): no system call while both sides are busy.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "shm_ring.hpp"
#include "transports/transport.hpp"

namespace wiresum {

// Where a connection puts its worker. Host byte order.
struct ShmAddress {
  std::uint32_t ip = 0;
  std::uint16_t udp_port = 0;
  std::uint32_t switch_ip = 0;
};

// Connects to a switch's shm port at `path` and asks for rings of so many records of datagrams of
// at most `payload_bytes`. Returns the socket, for ShmTransport. Throws EngineError.
int shm_connect(const std::string& path, std::uint32_t payload_bytes, std::uint32_t records,
                double timeout_s, ShmAddress& address);

class ShmTransport final : public Transport {
 public:
  // Takes over `fd`, a socket of shm_connect()'s that nobody has used since. If the switch hangs
  // up, asks at `path`, unless that is empty, for the same address again. Throws EngineError.
  ShmTransport(int fd, std::string path, std::size_t datagram_bytes, Stats& stats);
  ~ShmTransport() override;

  std::size_t send(std::span<const Datagram> datagrams) override;
  bool wants_write() const override {
    return full_ && state_ == State::kConnected && !out_.has_room();
  }
  bool about_to_sleep(pollfd& source) override;
  void awake(const pollfd& source) override;
  const std::string* ended() const override {
    return state_ == State::kEnded ? &refusal_ : nullptr;
  }

 protected:
  int receive_batch() override;
  Batch batch_at(int index) override;
  void batch_done() override;

 private:
  enum class State {
    kConnected,
    kAlone,    // the switch has hung up: it is called from time to time
    kCalling,  // Hello is said, Welcome is not there yet
    kEnded
  };

  bool attach();
  void gone(int error);
  void give_up(std::string refusal);
  void call();
  bool dial();
  void listen();
  void close_all();

  const pid_t process_;  // a fork must not end its parent's connection
  const std::string path_;
  State state_ = State::kCalling;
  std::string refusal_;
  shm::Hello again_;  // for the next call of the switch
  std::chrono::steady_clock::time_point next_call_{};
  int fd_ = -1;
  int wake_ = -1;  // an eventfd; the switch holds it as well
  void* memory_ = nullptr;
  std::size_t memory_bytes_ = 0;
  shm::Control* control_ = nullptr;
  shm::Reader in_;
  mutable shm::Writer out_;  // has_room() stores the index that it reads
  std::uint32_t received_ = 0;
  bool full_ = false;
};

}  // namespace wiresum
