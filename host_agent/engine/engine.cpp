// Construction, the queues in and out, the thread's lifetime, closing.
#include "engine.hpp"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "codecs/arithmetic.hpp"
#include "lines.hpp"

namespace wiresum {
namespace {

// How long after a collective was handed over this thread stays awake while it waits for replies:
// a few round trips on a rack, each of which waking up would double. It yields to whoever is ready
// to run, and sleeps in the rest of a large collective.
constexpr Nanoseconds kStayAwake = 500'000;

// Completions that are left until there are more, or `poll` wakes up by itself.
constexpr std::size_t kLeft = 16;

std::chrono::duration<double> limit_of(double timeout_s) {
  return std::chrono::duration<double>(timeout_s > 0 ? std::min(timeout_s, kLongest) : 0.0);
}

}  // namespace

Engine::Engine(const SwitchSocket& socket, const Lease& lease, const EngineOptions& options)
    : suspend_unreachable_(options.suspend_unreachable),
      process_(getpid()),
      reducer_(socket, lease, options, stats_,
               [this](std::uint64_t ticket, const Failure* failure, std::vector<Range> nonfinite) {
                 complete(ticket, failure, std::move(nonfinite));
               }) {
  wake_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (wake_fd_ < 0) refuse(lines::kNoEventfd.of(strerror(errno)));

  // The process's signals belong to the threads that were there before.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    thread_ = std::thread([this] { run(); });
    pthread_setname_np(thread_.native_handle(), "wiresum-engine");
  } catch (...) {
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    ::close(wake_fd_);
    throw;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

Engine::~Engine() {
  close();
  if (thread_.joinable()) thread_.detach();  // in a fork
  if (wake_fd_ >= 0) ::close(wake_fd_);
}

void Engine::wake() {
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto written = write(wake_fd_, &one, sizeof(one));
}

bool Engine::forked() const { return getpid() != process_; }

void Engine::refuse_fork() const {
  if (forked()) throw EngineError(ErrorKind::Closed, lines::kForked.of());
}

std::vector<std::uint64_t> Engine::collect(const std::vector<PieceSpec>& pieces) {
  Collective collective = reducer_.prepare(pieces);
  refuse_fork();
  std::vector<std::uint64_t> tickets;
  tickets.reserve(pieces.size());
  {
    const std::lock_guard lock(mutex_);
    if (failure_) {
      throw EngineError(ErrorKind::Closed, lines::kNoMoreWork.of(failure_->line.text));
    }
    std::uint64_t next = next_ticket_;
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      const std::uint64_t ticket = pieces[i].ticket.value_or(next);
      if (ticket < next) refuse(lines::kTicketTooLow.of(ticket));
      next = ticket + 1;
      collective.order[i]->ticket = ticket;
      tickets.push_back(ticket);
    }
    if (!first_ticket_ && !tickets.empty()) first_ticket_ = tickets.front();
    next_ticket_ = next;
    pending_.insert(pending_.end(), tickets.begin(), tickets.end());
    submitted_.push_back(std::move(collective));
    started_.fetch_add(pieces.size());
    has_submissions_.store(true, std::memory_order_release);
  }
  wake();
  return tickets;
}

std::vector<Completion> Engine::poll(double timeout_s) {
  refuse_fork();
  std::unique_lock lock(mutex_);
  completed_.wait_for(lock, limit_of(timeout_s),
                      [this] { return !completions_.empty() || closed_.load(); });
  std::vector<Completion> taken(std::make_move_iterator(completions_.begin()),
                                std::make_move_iterator(completions_.end()));
  completions_.clear();
  return taken;
}

bool Engine::await_end(std::uint64_t first, std::uint64_t count, double timeout_s, bool leave) {
  refuse_fork();
  std::unique_lock lock(mutex_);
  const std::uint64_t last = first + count - 1;
  // Tickets that it has not got yet, or that another engine has had.
  if (count == 0 || last >= next_ticket_ || !first_ticket_ || first < *first_ticket_) return false;
  const auto over = [&] { return suspended_ || closed_.load() || failure_; };
  const auto ended = [&] {
    const auto at = std::lower_bound(pending_.begin(), pending_.end(), first);
    return over() || at == pending_.end() || *at > last;
  };
  if (++awaiting_ == 1) {
    awaited_first_ = first;
    awaited_last_ = last;
  }
  awaited_.wait_for(lock, limit_of(timeout_s), ended);
  --awaiting_;
  awaited_first_ = 1;  // of who waits on, the tickets are not known here
  awaited_last_ = 0;
  const bool well = !over() && ended() && !(last_unclean_ && *last_unclean_ >= first);
  const bool few = completions_.size() < kLeft;
  if (!completions_.empty() && !(well && leave && few)) completed_.notify_all();  // see `complete`
  return well;
}

void Engine::flush() {
  refuse_fork();
  const std::lock_guard lock(mutex_);
  completed_.notify_all();
}

std::optional<Completion> Engine::wait(std::uint64_t ticket, double timeout_s) {
  refuse_fork();
  std::unique_lock lock(mutex_);
  const auto find = [&] {
    return std::find_if(completions_.begin(), completions_.end(),
                        [&](const Completion& each) { return each.ticket == ticket; });
  };
  const auto gone = [&] {  // neither pending nor there: never given, or taken by another call
    return find() == completions_.end() &&
           !std::binary_search(pending_.begin(), pending_.end(), ticket);
  };
  completed_.wait_for(lock, limit_of(timeout_s),
                      [&] { return find() != completions_.end() || gone(); });
  const auto found = find();
  if (found == completions_.end()) {
    if (gone()) refuse(lines::kTicketGone.of(ticket));
    return std::nullopt;
  }
  Completion taken = std::move(*found);
  completions_.erase(found);
  return taken;
}

void Engine::complete(std::uint64_t ticket, const Failure* failure, std::vector<Range> nonfinite) {
  const std::lock_guard lock(mutex_);
  Completion completion;
  completion.ticket = ticket;
  completion.nonfinite = std::move(nonfinite);
  if (failure != nullptr) {
    completion.failed = true;
    completion.kind = failure->kind;
    completion.error = failure->line;
  }
  if (completion.failed || !completion.nonfinite.empty()) {
    last_unclean_ = std::max(ticket, last_unclean_.value_or(0));
  }
  completions_.push_back(std::move(completion));
  const auto at = std::lower_bound(pending_.begin(), pending_.end(), ticket);
  if (at != pending_.end() && *at == ticket) pending_.erase(at);
  // Who waits for this very piece goes first, and wakes those that take completions: they would
  // only be in its way (with Python's lock).
  if (awaiting_ > 0) awaited_.notify_all();
  const bool awaited = awaiting_ == 1 && ticket >= awaited_first_ && ticket <= awaited_last_;
  if (!awaited) completed_.notify_all();
}

void Engine::close() {
  if (forked()) return closed_.store(true);
  const std::lock_guard closing(closing_);
  if (closed_.load()) return;
  stop_.store(true);
  wake();
  if (thread_.joinable()) thread_.join();
  if (!ended_) give_up(failure_of(ErrorKind::Closed, lines::kClosed.of()));
  reducer_.disconnect();
  const std::lock_guard lock(mutex_);
  closed_.store(true);
  completed_.notify_all();
  awaited_.notify_all();
}

void Engine::fail(const std::string& kind, const LineText& line) {
  if (forked()) return;
  {
    const std::lock_guard lock(mutex_);
    if (failure_) return;
    failure_ = Failure{kind, line};
    told_to_fail_.store(true, std::memory_order_release);
    if (!suspended_) return wake();
  }
  const std::lock_guard closing(closing_);  // there is no thread any more
  if (!ended_) give_up({});
}

bool Engine::suspend(const LineText& why) {
  if (forked()) return false;
  const std::lock_guard closing(closing_);
  if (closed_.load()) return false;
  stop_.store(true);
  wake();
  if (thread_.joinable()) thread_.join();
  {
    const std::lock_guard lock(mutex_);
    if (!failure_) {
      if (!suspended_) suspended_ = why;
      return true;
    }
  }
  if (!ended_) give_up({});
  return false;
}

std::optional<LineText> Engine::suspended() {
  const std::lock_guard lock(mutex_);
  return suspended_;
}

void Engine::check_suspended() {
  const std::lock_guard lock(mutex_);
  if (failure_) {
    throw EngineError(ErrorKind::Closed, lines::kNoMoreWork.of(failure_->line.text));
  }
  if (!suspended_ || closed_.load()) {
    throw EngineError(ErrorKind::Closed, lines::kNotSuspended.of());
  }
}

std::vector<Rest> Engine::rests(const Ends& ends) {
  return handing_over([&](Reducer& reducer) {
    hand_over(monotonic_now());  // what the thread has not taken any more
    std::vector<Rest> result = reducer.rests(ends);
    const std::lock_guard lock(mutex_);
    pending_.clear();
    return result;
  });
}

// On the engine's thread, or after its end. The first cause holds.
void Engine::give_up(Failure failure) {
  std::deque<Collective> late;
  {
    const std::lock_guard lock(mutex_);
    if (!failure_) {
      failure_ = failure;
    } else {
      failure = *failure_;
    }
    late.swap(submitted_);
    has_submissions_.store(false, std::memory_order_release);
  }
  ended_ = true;
  reducer_.end(failure);
  for (const Collective& collective : late) {
    for (const Piece* piece : collective.order) complete(piece->ticket, &failure, {});
  }
}

// -- the thread

void Engine::run() {
  const DefaultFloatEnvironment arithmetic;
  Nanoseconds handed_over = 0;
  while (!stop_.load(std::memory_order_acquire)) {
    const Nanoseconds now = monotonic_now();
    reducer_.excuse_absence(now);
    if (told_to_fail_.load(std::memory_order_acquire) && !ended_) give_up({});
    if (has_submissions_.load(std::memory_order_acquire)) {
      hand_over(now);
      handed_over = now;
    }
    const bool more = reducer_.turn(now);
    if (reducer_.failure() && !ended_) {
      if (suspend_unreachable_ && reducer_.failure()->kind == class_name(ErrorKind::Unreachable)) {
        return park();
      }
      give_up(*reducer_.failure());
    }
    reducer_.publish();
    if (more) continue;
    if (reducer_.waits() && now - handed_over < kStayAwake) {
      sched_yield();
    } else {
      reducer_.sleep(now, wake_fd_);
    }
  }
}

// Ends the thread, so that another carrier can take over; unless the engine was told to fail.
void Engine::park() {
  reducer_.publish();
  {
    const std::lock_guard lock(mutex_);
    if (!failure_) {
      suspended_ = reducer_.failure()->line;
      return;
    }
  }
  give_up({});
}

void Engine::hand_over(Nanoseconds now) {
  std::deque<Collective> taken;
  {
    const std::lock_guard lock(mutex_);
    taken.swap(submitted_);
    has_submissions_.store(false, std::memory_order_release);
  }
  reducer_.take(std::move(taken), now);
}

}  // namespace wiresum
