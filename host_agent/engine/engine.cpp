// The face of the engine: construction, the queues in and out, closing.
#include "engine.hpp"

#include <arpa/inet.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstring>

namespace wiresum {
namespace {

[[noreturn]] void refuse(const std::string& line) { throw EngineError(ErrorKind::Engine, line); }

// A hundred years: no run lasts so long, and nanoseconds in 64 bits hold it twice.
constexpr double kLongest = 100 * 365.25 * 86400;

Nanoseconds nanoseconds(double seconds) { return static_cast<Nanoseconds>(seconds * 1e9); }

EngineOptions bounded(EngineOptions options) {
  for (double* seconds : {&options.timeout_s, &options.switch_timeout_s, &options.rto_initial_s,
                          &options.rto_min_s, &options.rto_max_s, &options.poll_max_s}) {
    *seconds = std::min(*seconds, kLongest);
  }
  return options;
}

std::chrono::duration<double> limit_of(double timeout_s) {
  return std::chrono::duration<double>(timeout_s > 0 ? std::min(timeout_s, kLongest) : 0.0);
}

void check(const Lease& lease, const EngineOptions& options) {
  if (lease.workers == 0 || lease.rank >= lease.workers) {
    refuse("rank " + std::to_string(lease.rank) + " is not one of " +
           std::to_string(lease.workers) + " workers");
  }
  constexpr std::uint32_t kMost = 8 * packet::kContributorsBytes;  // a bit each
  if (lease.workers > kMost) {
    refuse(std::to_string(lease.workers) + " workers: a switch adds up at most " +
           std::to_string(kMost));
  }
  if (lease.epoch == 0) refuse("epoch 0 is never used");
  if (lease.slots < 4 || lease.slots > 65536) {
    refuse(std::to_string(lease.slots) + " slots: a lease has 4 to 65536 of them");
  }
  // A UDP datagram must hold the chunk.
  if (lease.lanes == 0 || lease.lanes > 16000) {
    refuse(std::to_string(lease.lanes) + " lanes: a chunk has 1 to 16000 of them");
  }
  if (!parse_field(lease.field)) {
    refuse("field " + std::to_string(lease.field) + ": fields have 32, 16 or 8 bits");
  }
  for (const double seconds : {options.timeout_s, options.switch_timeout_s, options.rto_initial_s,
                               options.rto_min_s, options.rto_max_s, options.poll_max_s}) {
    if (!(seconds > 0)) refuse("a time limit is not above 0 s");
  }
  if (options.rto_min_s > options.rto_max_s) refuse("rto_min_s exceeds rto_max_s");
  if (options.first_position > std::uint64_t{1} << 62) refuse("first_position exceeds 2^62");
}

Lease checked(const Lease& lease, const EngineOptions& options) {
  check(lease, options);
  return lease;
}

// E slots for exponents; an even number for either stream.
std::uint32_t exponent_slots(std::uint32_t slots) { return std::max(2u, slots / 8 / 2 * 2); }

StreamConfig stream_config(const Lease& lease, const EngineOptions& options, bool exponents) {
  const std::uint32_t first = exponent_slots(lease.slots);
  return {.name = exponents ? "exponent" : "data",
          .op = exponents ? packet::Op::kMax : packet::Op::kSum,
          .slot_base = exponents ? 0 : first,
          .slot_count = exponents ? first : (lease.slots - first) / 2 * 2,
          .window = options.window,
          .first_position = options.first_position,
          .lanes = lease.lanes,
          .job = lease.job,
          .epoch = lease.epoch,
          .key = lease.key,
          .rto_initial = nanoseconds(options.rto_initial_s),
          .rto_min = nanoseconds(options.rto_min_s),
          .rto_max = nanoseconds(options.rto_max_s),
          .poll_max = nanoseconds(options.poll_max_s)};
}

// Room for what blocks_ahead() ever allows.
std::size_t ring_capacity(std::size_t window, std::size_t elements_per_chunk, std::size_t lanes) {
  return std::bit_ceil(kWindowsAhead * (window * elements_per_chunk / kBlock + 1) + 2 * lanes);
}

sockaddr_in switch_address(const Lease& lease) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(lease.switch_udp_port);
  if (lease.switch_udp_port == 0 ||
      inet_pton(AF_INET, lease.switch_ip.c_str(), &address.sin_addr) != 1) {
    refuse("switch address " + lease.switch_ip + ":" + std::to_string(lease.switch_udp_port) +
           " is not an IPv4 address and a port");
  }
  return address;
}

}  // namespace

Engine::Engine(const SwitchSocket& socket, const Lease& lease, const EngineOptions& options)
    : lease_(checked(lease, options)),
      options_(bounded(options)),
      codec_(lease.workers, *parse_field(lease.field)),
      small_codec_(lease.workers, Field::F32),
      process_(getpid()),
      exponents_(stream_config(lease, options_, true), stats_, stats_.exponent_contributions,
                 stats_.exponent_results),
      data_(stream_config(lease, options_, false), stats_, stats_.data_contributions,
            stats_.data_results),
      elements_per_chunk_(lease.lanes * fields_per_lane(codec_.field())),
      ring_(ring_capacity(data_.window(), elements_per_chunk_, lease.lanes)) {
  transport_ =
      open_transport(socket, switch_address(lease), Header::kBytes + 4 * lease.lanes, stats_);
  wake_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (wake_fd_ < 0) refuse(std::string("no eventfd: ") + strerror(errno));

  publish();

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
  if (forked()) {
    throw EngineError(ErrorKind::Closed,
                      "the engine belongs to the process that made it, not to its forks");
  }
}

std::uint64_t Engine::all_reduce(void* data, std::uint64_t count, Dtype dtype, bool average,
                                 std::optional<std::uint64_t> chosen) {
  if (data == nullptr && count != 0) refuse("all_reduce of a null address");
  if (count > std::uint64_t{1} << 48) refuse("all_reduce of more than 2^48 elements");
  auto collective = std::make_unique<Collective>();
  collective->data = static_cast<std::byte*>(data);
  collective->count = count;
  collective->dtype = dtype;
  collective->average = average;
  collective->codec = count <= kSmall ? &small_codec_ : &codec_;
  collective->block_elements = block_of(count);
  if (collective->small()) {
    collective->sent_codes.resize(count);
    collective->sent_at.resize(count);
  }
  collective->blocks = (count + collective->block_elements - 1) / collective->block_elements;

  refuse_fork();
  std::uint64_t ticket;
  {
    const std::lock_guard lock(mutex_);
    if (failure_) {
      throw EngineError(ErrorKind::Closed, "the engine takes no more work: " + failure_->line);
    }
    ticket = chosen.value_or(next_ticket_);
    if (ticket < next_ticket_) {
      refuse("ticket " + std::to_string(ticket) + " is not above those before it");
    }
    next_ticket_ = ticket + 1;
    collective->ticket = ticket;
    pending_.push_back(ticket);
    submitted_.push_back(std::move(collective));
    started_.fetch_add(1);
    has_submissions_.store(true, std::memory_order_release);
  }
  wake();
  return ticket;
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
    if (gone()) refuse("ticket " + std::to_string(ticket) + " is unknown or was taken already");
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
  completions_.push_back(std::move(completion));
  const auto at = std::lower_bound(pending_.begin(), pending_.end(), ticket);
  if (at != pending_.end() && *at == ticket) pending_.erase(at);
  completed_.notify_all();
}

void Engine::close() {
  if (forked()) return closed_.store(true);
  const std::lock_guard closing(closing_);
  if (closed_.load()) return;
  stop_.store(true);
  wake();
  if (thread_.joinable()) thread_.join();
  give_up(ErrorKind::Closed, "the engine was closed by its owner");
  transport_.reset();
  const std::lock_guard lock(mutex_);
  closed_.store(true);
  completed_.notify_all();
}

void Engine::fail(const std::string& kind, const std::string& line) {
  if (forked()) return;
  {
    const std::lock_guard lock(mutex_);
    if (failure_) return;
    failure_ = Failure{kind, line};
    told_to_fail_.store(true, std::memory_order_release);
  }
  wake();
}

void Engine::give_up(ErrorKind kind, const std::string& line) {
  give_up(Failure{class_name(kind), line});
}

// On the engine's thread, or after its end.
void Engine::give_up(Failure failure) {
  std::deque<std::unique_ptr<Collective>> late;
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
  stopped_ = true;
  for (const auto& collective : active_) {
    if (!collective->finished) complete(collective->ticket, &failure);
  }
  for (const auto& collective : late) complete(collective->ticket, &failure);
  active_.clear();
  exponent_cursor_ = data_cursor_ = 0;
}

}  // namespace wiresum
