#include "lease.hpp"

#include <arpa/inet.h>

#include <algorithm>

#include "codecs/codec.hpp"
#include "errors.hpp"
#include "lines.hpp"
#include "packet.hpp"

namespace wiresum {
namespace {

void check(const Lease& lease, const EngineOptions& options) {
  if (lease.workers == 0 || lease.rank >= lease.workers) {
    refuse(lines::kNoSuchRank.of(lease.rank, lease.workers));
  }
  constexpr std::uint32_t kMost = 8 * packet::kContributorsBytes;  // a bit each
  if (lease.workers > kMost) refuse(lines::kTooManyWorkers.of(lease.workers, kMost));
  if (lease.epoch == 0) refuse(lines::kEpochZero.of());
  if (lease.slots < kLeastSlots || lease.slots > 65536) {
    refuse(lines::kBadSlots.of(lease.slots, kLeastSlots));
  }
  // A UDP datagram must hold the chunk.
  if (lease.lanes == 0 || lease.lanes > 16000) {
    refuse(lines::kBadLanes.of(lease.lanes));
  }
  if (!parse_field(lease.field)) refuse(lines::kBadField.of(lease.field));
  for (const double seconds : {options.timeout_s, options.switch_timeout_s, options.rto_initial_s,
                               options.rto_min_s, options.rto_max_s, options.poll_max_s}) {
    if (!(seconds > 0)) refuse(lines::kBadLimit.of());
  }
  if (options.rto_min_s > options.rto_max_s) refuse(lines::kLimitsCrossed.of());
  if (options.first_position > std::uint64_t{1} << 62) refuse(lines::kPositionTooHigh.of());
}

}  // namespace

Lease checked(const Lease& lease, const EngineOptions& options) {
  check(lease, options);
  return lease;
}

EngineOptions bounded(EngineOptions options) {
  for (double* seconds : {&options.timeout_s, &options.switch_timeout_s, &options.rto_initial_s,
                          &options.rto_min_s, &options.rto_max_s, &options.poll_max_s}) {
    *seconds = std::min(*seconds, kLongest);
  }
  return options;
}

sockaddr_in switch_address(const Lease& lease) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(lease.switch_udp_port);
  if (lease.switch_udp_port == 0 ||
      inet_pton(AF_INET, lease.switch_ip.c_str(), &address.sin_addr) != 1) {
    refuse(lines::kBadAddress.of(lease.switch_ip, lease.switch_udp_port));
  }
  return address;
}

std::string switch_label(const Lease& lease) {
  return "switch " + lease.switch_name + " (" + lease.switch_ip + ":" +
         std::to_string(lease.switch_udp_port) + ")";
}

}  // namespace wiresum
