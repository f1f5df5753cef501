// The worker engine: a thread that carries collectives through one lease. Engine holds
// the queues in and out, the thread's lifetime, and the waiting; what the thread does is Reducer's.
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

#include "lease.hpp"
#include "reducer.hpp"
#include "stats.hpp"
#include "transports/open.hpp"

namespace wiresum {

struct Completion {
  std::uint64_t ticket = 0;
  bool failed = false;
  std::string kind;  // name of a class in wiresum.host_agent.errors
  LineText error;
  std::vector<Range> nonfinite;  // elements that were left as they are
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
  // Queues the pieces of one collective, all or none. The caller may choose their tickets: then it
  // knows them even if an interrupt ends this call.
  std::vector<std::uint64_t> collect(const std::vector<PieceSpec>& pieces);
  const Lease& lease() const { return reducer_.lease(); }
  std::uint64_t started() const { return started_.load(); }  // pieces taken so far
  std::vector<Completion> poll(double timeout_s);
  // Waits until the pieces with `count` tickets from `first` on have ended, without taking their
  // completions. True: all have their results, and there is nothing else to know of them. False:
  // not all have ended in time, or one of them not well, or this engine cannot tell. With `leave`,
  // who is in `poll` may take a few completions of this kind together, later.
  bool await_end(std::uint64_t first, std::uint64_t count, double timeout_s, bool leave);
  // Lets who is in `poll` take what is there.
  void flush();
  std::optional<Completion> wait(std::uint64_t ticket, double timeout_s);
  std::vector<std::pair<std::string, std::uint64_t>> stats() const { return stats_.read(); }
  Positions positions() const { return reducer_.positions(); }
  // Ends everything in flight with this cause, unless there is one already.
  void fail(const std::string& kind, const LineText& line);
  // Ends the thread where it stands, so that another carrier takes over: nothing is sent, applied
  // or ended any more. False if it has failed or was closed.
  bool suspend(const LineText& why);
  std::optional<LineText> suspended();  // why, if it is
  // Calls use(reducer) for a suspended engine; throws EngineError (kind Closed) for any other.
  template <typename Use>
  auto handing_over(const Use& use) {
    const std::lock_guard closing(closing_);
    check_suspended();
    return use(reducer_);
  }
  // What is left of all pieces, in order; the engine forgets them.
  std::vector<Rest> rests(const Ends& ends);
  void close();
  bool closed() const { return closed_.load(); }
  // In a child of the process that made it: there is no thread here, and its locks may be held.
  bool forked() const;

 private:
  void run();
  void hand_over(Nanoseconds now);
  void give_up(Failure failure);
  void refuse_fork() const;
  void complete(std::uint64_t ticket, const Failure* failure, std::vector<Range> nonfinite);
  void wake();
  void park();
  void check_suspended();

  const bool suspend_unreachable_;
  const int process_;  // the thread does not survive a fork
  Stats stats_;
  Reducer reducer_;  // the thread's, but for what it says of itself
  int wake_fd_ = -1;

  // Shared, under mutex_.
  std::mutex mutex_;
  std::condition_variable completed_;
  std::condition_variable awaited_;  // in `await_end`
  unsigned awaiting_ = 0;
  std::uint64_t awaited_first_ = 1;  // the tickets of the one that waits there; none: not known
  std::uint64_t awaited_last_ = 0;
  std::optional<std::uint64_t> first_ticket_;  // that this engine was given
  std::optional<std::uint64_t> last_unclean_;  // the highest of those that have not ended well
  std::deque<Collective> submitted_;
  std::deque<Completion> completions_;
  std::vector<std::uint64_t> pending_;  // tickets given and not completed, ascending
  std::uint64_t next_ticket_ = 0;
  std::atomic<std::uint64_t> started_{0};
  std::optional<Failure> failure_;
  std::optional<LineText> suspended_;
  std::atomic<bool> has_submissions_{false};
  std::atomic<bool> told_to_fail_{false};
  std::atomic<bool> stop_{false};
  std::atomic<bool> closed_{false};
  std::mutex closing_;
  bool ended_ = false;  // the thread's: everything has ended with failure_
  std::thread thread_;
};

}  // namespace wiresum
