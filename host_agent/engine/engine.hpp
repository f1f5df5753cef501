// The worker engine: a thread that all-reduces tensors in place through one lease. The rest of the
// program talks to it through a queue in and a queue out.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "codecs/codec.hpp"
#include "collective.hpp"
#include "errors.hpp"
#include "positions.hpp"
#include "stats.hpp"
#include "stream.hpp"
#include "transports/open.hpp"
#include "transports/transport.hpp"

namespace wiresum {

// Exponents go ahead of the data by so many data windows, the one in flight among them.
inline constexpr std::size_t kWindowsAhead = 2;

// What the controller leased to this worker.
struct Lease {
  std::string switch_ip;
  std::uint16_t switch_udp_port = 0;
  std::string switch_name;
  std::uint32_t rank = 0;
  std::uint32_t workers = 0;
  std::uint16_t job = 0;
  std::uint32_t epoch = 0;
  std::uint64_t key = 0;        // of contributions
  std::uint64_t reply_key = 0;  // of what the switch sends
  std::uint32_t slots = 0;
  std::uint32_t lanes = 0;
  int field = 32;
};

struct EngineOptions {
  double timeout_s = 60.0;
  double switch_timeout_s = 10.0;
  double rto_initial_s = 0.02;
  double rto_min_s = 0.01;
  double rto_max_s = 0.25;
  double poll_max_s = 0.1;
  std::uint32_t window = 0;
  std::uint64_t first_position = 0;
  // Blocks that hold Inf or NaN on any rank stay as they are and are named in the completion;
  // false: every rank writes NaN.
  bool keep_nonfinite = false;
};

struct Completion {
  std::uint64_t ticket = 0;
  bool failed = false;
  std::string kind;  // name of a class in wiresum.host_agent.errors
  std::string error;
  std::vector<Range> nonfinite;  // elements that were left as they are
};

// One for each stream.
struct Positions {
  StreamPosition exponent;
  StreamPosition data;
};

class Engine {
 public:
  // The socket's descriptor is duplicated. Throws EngineError for a socket, a lease or an option
  // that cannot be worked with.
  Engine(const SwitchSocket& socket, const Lease& lease, const EngineOptions& options);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Any thread may call these.
  // The caller may choose the ticket, so that it knows it even if it never sees this call return.
  std::uint64_t all_reduce(void* data, std::uint64_t count, Dtype dtype, bool average,
                           std::optional<std::uint64_t> chosen = std::nullopt);
  std::uint64_t started() const { return started_.load(); }  // all-reduces taken so far
  std::vector<Completion> poll(double timeout_s);
  std::optional<Completion> wait(std::uint64_t ticket, double timeout_s);
  std::vector<std::pair<std::string, std::uint64_t>> stats() const { return stats_.read(); }
  Positions positions() const;
  // Ends everything in flight with this cause, unless there is one already.
  void fail(const std::string& kind, const std::string& line);
  void close();
  bool closed() const { return closed_.load(); }
  // In a child of the process that made it: there is no thread here, and its locks may be held.
  bool forked() const;

 private:
  struct Failure {
    std::string kind;  // name of a class in wiresum.host_agent.errors
    std::string line;
  };

  // -- the engine's thread
  void run();
  void excuse_absence(Nanoseconds now);
  bool take_submissions(Nanoseconds now);
  void retire_finished();
  bool receive(Nanoseconds now);
  void handle_datagram(const std::uint8_t* data, std::size_t bytes, Nanoseconds now);
  bool pump(Nanoseconds now);
  std::uint64_t blocks_ahead() const;
  bool open_exponents();
  bool open_data();
  void agree(const Chunk& chunk);
  void pack(const Collective& collective, std::uint64_t first, std::uint32_t elements,
            std::uint8_t* lanes) const;
  void leave_unsent(Collective& collective, std::uint64_t block, std::uint32_t code) const;
  void apply_exponents(const Chunk& chunk, const std::uint8_t* lanes);
  void apply_data(const Chunk& chunk, const std::uint8_t* lanes);
  void release(const Chunk& chunk);
  // of small tensors
  void agree_each(const Chunk& chunk, const std::uint8_t* lanes);
  void pack_each(const Collective& collective, std::uint64_t first, std::uint32_t elements,
                 std::uint8_t* lanes) const;
  void apply_each(const Chunk& chunk, const std::uint8_t* lanes) const;
  void finish_if_complete(Collective& collective);
  void check_limits(Nanoseconds now);
  void sleep(Nanoseconds now);
  void publish();
  bool outstanding() const { return !exponents_.idle() || !data_.idle(); }

  // -- failing
  void give_up(ErrorKind kind, const std::string& line);
  void give_up(Failure failure);
  void fail_mismatch(const Stream& stream, const Chunk& chunk, const Header& header,
                     std::uint64_t bitmap);
  void fail_timeout(Nanoseconds now);
  void fail_unreachable();
  std::string switch_label() const;

  void refuse_fork() const;
  void complete(std::uint64_t ticket, const Failure* failure, std::vector<Range> nonfinite = {});
  void wake();

  const Lease lease_;
  const EngineOptions options_;
  const Codec codec_;
  const Codec small_codec_;  // of tensors whose elements have an exponent each
  const int process_;        // the thread does not survive a fork
  Stats stats_;
  Published positions_;
  std::unique_ptr<Transport> transport_;
  int wake_fd_ = -1;

  // Owned by the engine's thread.
  Stream exponents_;
  Stream data_;
  std::size_t elements_per_chunk_;  // of large tensors
  BlockRing ring_;
  std::uint64_t blocks_in_agreement_ = 0;  // of exponent chunks opened, not agreed yet
  std::deque<std::unique_ptr<Collective>> active_;
  std::size_t exponent_cursor_ = 0;  // index in active_ of the one whose exponents leave next
  std::size_t data_cursor_ = 0;
  std::uint64_t sequence_ = 0;
  Nanoseconds last_turn_ = 0;
  Nanoseconds last_heard_ = 0;     // a valid reply of any kind
  Nanoseconds last_progress_ = 0;  // a result
  bool stopped_ = false;           // failed: nothing is sent or applied any more

  // Shared, under mutex_.
  std::mutex mutex_;
  std::condition_variable completed_;
  std::deque<std::unique_ptr<Collective>> submitted_;
  std::deque<Completion> completions_;
  std::vector<std::uint64_t> pending_;  // tickets given and not completed, ascending
  std::uint64_t next_ticket_ = 0;
  std::atomic<std::uint64_t> started_{0};
  std::optional<Failure> failure_;
  std::atomic<bool> has_submissions_{false};
  std::atomic<bool> told_to_fail_{false};
  std::atomic<bool> stop_{false};
  std::atomic<bool> closed_{false};
  std::mutex closing_;
  std::thread thread_;
};

}  // namespace wiresum
