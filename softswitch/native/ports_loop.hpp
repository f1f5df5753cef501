// The thread that moves frames: from every port through the program and out again.
//
// One thread serves all ports. Per turn it reads one batch from each port that has something,
// takes the program's lock once, runs all frames through the program, gives the lock back, and
// sends what has come out. No lock and no allocation per frame.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "../runtime/program.hpp"
#include "ports_port.hpp"

namespace wiresum::softswitch::ports {

// The owner of the running program.
class ProgramHost {
 public:
  virtual ~ProgramHost() = default;
  // Calls `work` with the program while nobody else uses it. False: there is none.
  virtual bool with_program(const std::function<void(Program&)>& work) = 0;
};

class PortLoop {
 public:
  // Frames that leave through `cpu_port` go to the controller, and its frames come in there.
  PortLoop(std::shared_ptr<ProgramHost> host, std::optional<std::uint16_t> cpu_port);
  ~PortLoop();
  PortLoop(const PortLoop&) = delete;
  PortLoop& operator=(const PortLoop&) = delete;

  // Before start().
  void add(std::unique_ptr<Port> port);
  void start();
  // Ends the thread; frames that wait in sockets are left there. May be called twice.
  void stop();

  const std::vector<std::unique_ptr<Port>>& ports() const { return ports_; }
  std::uint64_t drops_without_program() const { return no_program_.get(); }
  std::uint64_t drops_without_port() const { return no_port_.get(); }
  std::uint64_t drops_to_controller() const { return to_controller_.get(); }

  // From any thread: gives the program a frame on the CPU port. False: too many wait.
  bool inject(std::string frame);
  // Frames for the controller, oldest first, and a descriptor that is readable while there are any.
  std::vector<std::string> take_for_controller();
  int controller_fd() const { return controller_event_.get(); }

 private:
  class Exchange;

  static constexpr std::size_t kMaxForController = 1024;
  static constexpr std::size_t kMaxInjected = 1024;
  static constexpr std::size_t kMaxPorts = 512;
  // While ports in memory are busy, the others are looked at once in so many turns.
  static constexpr unsigned kTurnsWithoutCall = 4;

  void run();
  void turn(Exchange& exchange, std::span<Port* const> ready);

  std::shared_ptr<ProgramHost> host_;
  std::optional<std::uint16_t> cpu_port_;
  std::vector<std::unique_ptr<Port>> ports_;
  std::vector<Port*> by_number_;
  std::vector<Port*> in_memory_;
  Fd poll_, wake_, controller_event_;
  std::thread thread_;
  std::atomic<bool> stopping_{false};
  TxMemory memory_;
  Count no_program_, no_port_, to_controller_;

  std::mutex exchange_mutex_;  // guards the two queues; taken only when the CPU port is used
  std::vector<std::string> injected_;
  std::vector<std::string> for_controller_;
};

}  // namespace wiresum::softswitch::ports
