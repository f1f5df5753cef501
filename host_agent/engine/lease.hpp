// What an engine is given: a lease on a switch, and its own limits and habits.
#pragma once

#include <netinet/in.h>

#include <cstdint>
#include <string>

namespace wiresum {

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
  // false: every reader writes NaN.
  bool keep_nonfinite = false;
  // A switch that cannot be reached suspends the engine, for somebody to take over what is in
  // flight; false: it ends everything.
  bool suspend_unreachable = false;
};

// The same, if an engine can work with both. Throws EngineError.
Lease checked(const Lease& lease, const EngineOptions& options);
// With times of a hundred years at most: nanoseconds in 64 bits hold that twice.
EngineOptions bounded(EngineOptions options);
inline constexpr double kLongest = 100 * 365.25 * 86400;  // seconds

// The fewest slots that an engine can work with: two for each of the three streams. The controller
// leases no fewer than 16 (MIN_SLOTS).
inline constexpr std::uint32_t kLeastSlots = 6;

// Throws EngineError for what is no IPv4 address and port.
sockaddr_in switch_address(const Lease& lease);
// Of error lines.
std::string switch_label(const Lease& lease);

}  // namespace wiresum
