// Contributions of all workers of a job, from one thread, as fast as the window lets them go.
#pragma once

#include <cstdint>
#include <vector>

#include "trains.hpp"

namespace wiresum::bench {

struct Lease {
  std::uint16_t job;
  std::uint32_t epoch;
  std::uint64_t key;
  std::uint32_t slots;
  std::uint32_t lanes;
};

// Rank r contributes r + 1 in every lane. Replies must come in order, one for each chunk and
// worker: RESULTs that hold the sum, or, from a reflector, the contributions themselves.
class Load {
 public:
  // One bound socket for each worker, not owned; `target` is where the contributions go.
  Load(std::vector<int> fds, const sockaddr_in& target, const Lease& lease, bool reflected);

  // Reduces `chunks` more chunks; the seconds that took. Throws BenchError for a wrong reply, and
  // when there is none for `silence_ms`.
  double run(std::uint64_t chunks, int silence_ms);

 private:
  struct Worker {
    int fd;
    std::uint32_t reply;  // what each lane of a reply holds
    std::vector<std::uint8_t> datagrams;
    std::uint64_t sent = 0;
    std::uint64_t received = 0;
  };

  bool send(Worker& worker);
  bool receive(Worker& worker);
  void check(const Worker& worker, std::span<const std::uint8_t> datagram) const;

  sockaddr_in target_;
  Lease lease_;
  std::uint8_t kind_;  // of the replies
  std::uint64_t end_ = 0;
  std::size_t bytes_;   // of a datagram
  std::size_t length_;  // of a train
  std::uint64_t window_;
  std::vector<int> fds_;
  std::vector<Worker> workers_;
  Receiver receiver_;
};

}  // namespace wiresum::bench
