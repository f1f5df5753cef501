// Counters of one engine. One thread writes, any thread reads; a name appears here and nowhere
// else.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace wiresum {

class Counter {
 public:
  // A single writer needs no locked instruction.
  void add(std::uint64_t n = 1) { set(get() + n); }
  void set(std::uint64_t n) { value_.store(n, std::memory_order_relaxed); }
  std::uint64_t get() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> value_{0};
};

// clang-format off
#define WIRESUM_COUNTERS(X)                                                                        \
  X(collectives) X(elements) X(copied_bytes)                                                       \
  /* first sends, by stream; contributions is their sum */                                         \
  X(contributions) X(exponent_contributions) X(data_contributions) X(copy_contributions)           \
  X(retransmissions) X(fast_retransmissions) X(probes)                                             \
  /* results applied, by stream; each chunk once */                                                \
  X(results) X(exponent_results) X(data_results) X(copy_results)                                   \
  /* chunks whose sum the ranks have carried when they left the switch */                           \
  X(handed_over)                                                                                   \
  X(waits) X(mismatches) X(duplicates) X(losses) X(spurious_losses)                                  \
  X(blocks_sent) X(blocks_zero) X(blocks_nonfinite)                                                \
  X(drops_foreign) X(drops_length) X(drops_version) X(drops_kind) X(drops_job) X(drops_epoch)      \
  X(drops_key) X(drops_slot) X(drops_chunk) X(drops_op) X(drops_fingerprint) X(drops_readers)      \
  X(drops_late)                                                                                    \
  X(packets_sent) X(packets_received) X(bytes_sent) X(bytes_received)                              \
  /* what Ethernet, IPv4 and UDP headers add to bytes_sent and bytes_received */                   \
  X(header_bytes_sent) X(header_bytes_received)                                                    \
  X(send_calls) X(receive_calls) X(send_errors) X(refused) X(gso) X(gro)                           \
  X(window) X(exponent_window) X(copy_window) X(rtt_ns) X(rto_ns)
// clang-format on

struct Stats {
#define WIRESUM_COUNTER(name) Counter name;
  WIRESUM_COUNTERS(WIRESUM_COUNTER)
#undef WIRESUM_COUNTER

  std::vector<std::pair<std::string, std::uint64_t>> read() const {
    return {
#define WIRESUM_COUNTER(name) {#name, name.get()},
        WIRESUM_COUNTERS(WIRESUM_COUNTER)
#undef WIRESUM_COUNTER
    };
  }
};

}  // namespace wiresum
