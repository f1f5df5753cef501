#include "lease.hpp"

#include <arpa/inet.h>

#include <algorithm>

#include "codecs/codec.hpp"
#include "errors.hpp"
#include "packet.hpp"

namespace wiresum {
namespace {

[[noreturn]] void refuse(const std::string& line) { throw EngineError(ErrorKind::Engine, line); }

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
    refuse("switch address " + lease.switch_ip + ":" + std::to_string(lease.switch_udp_port) +
           " is not an IPv4 address and a port");
  }
  return address;
}

std::string switch_label(const Lease& lease) {
  return "switch " + lease.switch_name + " (" + lease.switch_ip + ":" +
         std::to_string(lease.switch_udp_port) + ")";
}

}  // namespace wiresum
