#include "ports_loop.hpp"

#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <stdexcept>

namespace wiresum::softswitch::ports {
namespace {

void signal_event(int fd) {
  const std::uint64_t one = 1;
  // Fails only if the counter is full, and then it is readable already.
  [[maybe_unused]] const ssize_t written = ::write(fd, &one, sizeof one);
}

void clear_event(int fd) {
  std::uint64_t count = 0;
  [[maybe_unused]] const ssize_t got = ::read(fd, &count, sizeof count);
}

}  // namespace

// Runs frames through the program and collects what leaves.
class PortLoop::Exchange final : public FrameSink, public Emitter {
 public:
  explicit Exchange(PortLoop& loop) : loop_(loop) {}

  void run(Program& program, std::span<Port* const> ready, std::span<const std::string> injected) {
    program_ = &program;
    for (Port* port : ready) {
      ingress_ = port->number();
      port->deliver(*this);
    }
    for (const std::string& bytes : injected) {
      ingress_ = *loop_.cpu_port_;
      frame({reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()}, Offload{});
    }
  }

  void frame(std::span<const std::uint8_t> frame, const Offload& offload) override {
    offload_ = offload;
    length_ = frame.size();
    program_->process(ingress_, frame, *this);
  }

  std::uint8_t* frame(std::uint16_t number, std::size_t length) override {
    if (loop_.cpu_port_ == number) return for_controller(length);
    Port* port = port_of(number);
    if (port == nullptr) return nullptr;
    std::uint8_t* at = loop_.memory_.add(length);
    if (at == nullptr) {
      flush_all();
      at = loop_.memory_.add(length);
      if (at == nullptr) return nullptr;
    }
    given(at, length);
    queue(*port, {.head = at, .head_bytes = static_cast<std::uint32_t>(length)});
    return at;
  }

  bool shares_tails() const override { return true; }

  std::uint8_t* copy(std::uint16_t number, std::size_t head, std::size_t tail) override {
    const std::uint8_t* shared = last_end_ - tail;
    const bool to_port = loop_.cpu_port_ != number;
    Port* port = to_port ? port_of(number) : nullptr;
    if (to_port && port == nullptr) return nullptr;
    // Not worth it; or the frame before went to the controller, and its memory is not the loop's.
    if (!to_port || head < kLeastHead || tail < kLeastTail || !last_is_ours_) {
      // First out of the way: making room may move or reuse the memory that it lies in.
      scratch_.assign(shared, shared + tail);
      std::uint8_t* at = frame(number, head + tail);
      if (at != nullptr) std::memcpy(at + head, scratch_.data(), tail);
      return at;
    }
    std::uint8_t* at = loop_.memory_.add(head);
    if (at == nullptr) {
      flush_all();
      at = loop_.memory_.add(head + tail);
      if (at == nullptr) return nullptr;
      std::memmove(at + head, shared, tail);  // out of what add() has just given away
      given(at, head + tail);
      queue(*port, {.head = at, .head_bytes = static_cast<std::uint32_t>(head + tail)});
      return at;
    }
    queue(*port, {.head = at,
                  .tail = shared,
                  .head_bytes = static_cast<std::uint32_t>(head),
                  .tail_bytes = static_cast<std::uint32_t>(tail)});
    return at;
  }

  std::vector<std::string> controller_frames;

 private:
  // What ports look at in most frames: Ethernet, IPv4 without options, UDP.
  static constexpr std::size_t kLeastHead = 42;
  static constexpr std::size_t kLeastTail = 64;

  Port* port_of(std::uint16_t number) {
    Port* port = number < kMaxPorts ? loop_.by_number_[number] : nullptr;
    if (port == nullptr) loop_.no_port_.add();
    return port;
  }

  void given(const std::uint8_t* at, std::size_t length) {
    last_end_ = at + length;
    last_is_ours_ = true;
  }

  void queue(Port& port, Waiting frame) {
    // The description of a TCP train fits what leaves only if nothing was put in or taken out.
    if (frame.length() == length_) frame.offload = offload_;
    if (port.queue(frame)) return;
    port.flush();
    port.queue(frame);
  }

  void flush_all() {
    for (const auto& port : loop_.ports_) port->flush();
    loop_.memory_.clear();
  }

  std::uint8_t* for_controller(std::size_t length) {
    if (controller_frames.size() >= kMaxForController) {
      loop_.to_controller_.add();
      return nullptr;
    }
    controller_frames.emplace_back(length, '\0');
    auto* at = reinterpret_cast<std::uint8_t*>(controller_frames.back().data());
    given(at, length);
    last_is_ours_ = false;
    return at;
  }

  const std::uint8_t* last_end_ = nullptr;  // of the frame that the program was given last
  bool last_is_ours_ = false;
  std::vector<std::uint8_t> scratch_;
  PortLoop& loop_;
  Program* program_ = nullptr;
  std::uint16_t ingress_ = 0;
  std::size_t length_ = 0;
  Offload offload_;
};

namespace {

// Takes a batch while there is no program.
class Discard final : public FrameSink {
 public:
  explicit Discard(Count& count) : count_(count) {}
  void frame(std::span<const std::uint8_t>, const Offload&) override { count_.add(); }

 private:
  Count& count_;
};

}  // namespace

PortLoop::PortLoop(std::shared_ptr<ProgramHost> host, std::optional<std::uint16_t> cpu_port)
    : host_(std::move(host)),
      cpu_port_(cpu_port),
      by_number_(kMaxPorts, nullptr),
      poll_(epoll_create1(EPOLL_CLOEXEC)),
      wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      controller_event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (poll_.get() < 0 || wake_.get() < 0 || controller_event_.get() < 0) throw_errno("eventfd");
}

PortLoop::~PortLoop() { stop(); }

void PortLoop::add(std::unique_ptr<Port> port) {
  if (thread_.joinable()) throw std::logic_error("ports are added before start()");
  if (port->number() >= kMaxPorts || by_number_[port->number()] != nullptr) {
    throw std::invalid_argument("port number out of range or used twice");
  }
  by_number_[port->number()] = port.get();
  if (port->in_memory()) in_memory_.push_back(port.get());
  ports_.push_back(std::move(port));
}

void PortLoop::start() {
  if (thread_.joinable()) return;
  epoll_event event{EPOLLIN, {.ptr = nullptr}};
  if (epoll_ctl(poll_.get(), EPOLL_CTL_ADD, wake_.get(), &event) != 0) throw_errno("epoll_ctl");
  for (const auto& port : ports_) {
    event.data.ptr = port.get();
    if (epoll_ctl(poll_.get(), EPOLL_CTL_ADD, port->fd(), &event) != 0) throw_errno("epoll_ctl");
  }
  // Python handles the process's signals.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void PortLoop::stop() {
  if (!thread_.joinable()) return;
  stopping_ = true;
  signal_event(wake_.get());
  thread_.join();
}

void PortLoop::run() {
  pthread_setname_np(pthread_self(), "wiresum-ports");
  Exchange exchange(*this);
  std::vector<epoll_event> events(ports_.size() + 1);
  std::vector<Port*> ready;
  ready.reserve(ports_.size());
  unsigned busy_turns = 0;
  while (!stopping_.load(std::memory_order_relaxed)) {
    bool rest = true;
    for (Port* port : in_memory_) rest = port->rest() && rest;
    ready.clear();
    if (rest || ++busy_turns % kTurnsWithoutCall == 0) {
      const int count =
          epoll_wait(poll_.get(), events.data(), static_cast<int>(events.size()), rest ? -1 : 0);
      if (count < 0 && errno != EINTR) return;
      for (int i = 0; i < count; ++i) {
        auto* port = static_cast<Port*>(events[static_cast<std::size_t>(i)].data.ptr);
        if (port == nullptr) {
          clear_event(wake_.get());
        } else if (port->in_memory()) {
          port->attend();
        } else if (port->receive()) {
          ready.push_back(port);
        }
      }
    }
    for (Port* port : in_memory_) {
      if (port->receive()) ready.push_back(port);
    }
    turn(exchange, ready);
  }
}

void PortLoop::turn(Exchange& exchange, std::span<Port* const> ready) {
  std::vector<std::string> injected;
  if (cpu_port_) {
    const std::lock_guard lock(exchange_mutex_);
    injected.swap(injected_);
  }
  if (ready.empty() && injected.empty()) return;
  struct Work {
    Exchange& exchange;
    std::span<Port* const> ready;
    std::span<const std::string> injected;
  } work{exchange, ready, injected};
  // One pointer is captured, so that std::function allocates nothing.
  if (host_->with_program(
          [&work](Program& program) { work.exchange.run(program, work.ready, work.injected); })) {
    for (const auto& port : ports_) port->flush();
    memory_.clear();
  } else {
    Discard discard(no_program_);
    for (Port* port : ready) port->deliver(discard);
    no_program_.add(injected.size());
  }
  if (exchange.controller_frames.empty()) return;
  const std::lock_guard lock(exchange_mutex_);
  for (std::string& frame : exchange.controller_frames) {
    if (for_controller_.size() < kMaxForController) {
      for_controller_.push_back(std::move(frame));
    } else {
      to_controller_.add();
    }
  }
  exchange.controller_frames.clear();
  signal_event(controller_event_.get());
}

bool PortLoop::inject(std::string frame) {
  {
    const std::lock_guard lock(exchange_mutex_);
    if (injected_.size() >= kMaxInjected) return false;
    injected_.push_back(std::move(frame));
  }
  signal_event(wake_.get());
  return true;
}

std::vector<std::string> PortLoop::take_for_controller() {
  const std::lock_guard lock(exchange_mutex_);
  clear_event(controller_event_.get());
  return std::exchange(for_controller_, {});
}

}  // namespace wiresum::softswitch::ports
