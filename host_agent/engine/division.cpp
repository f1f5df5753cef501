#include "division.hpp"

#include <algorithm>

namespace wiresum {
namespace {

std::uint32_t even(std::uint32_t slots) { return slots / 2 * 2; }

Nanoseconds nanoseconds(double seconds) { return static_cast<Nanoseconds>(seconds * 1e9); }

}  // namespace

const char* name_of(StreamName name) {
  switch (name) {
    case StreamName::Exponent:
      return "exponent";
    case StreamName::Data:
      return "data";
    case StreamName::Copy:
      break;
  }
  return "copy";
}

Division::Division(std::uint32_t slots) {
  exponent = {0, std::max(2u, even(slots / 8))};
  copy.count = std::max(2u, even(slots / 4));
  data = {exponent.count, even(slots - exponent.count - copy.count)};
  copy.base = data.base + data.count;
}

StreamConfig stream_config(const Lease& lease, const EngineOptions& options, StreamName name) {
  const Division division(lease.slots);
  const SlotRange slots = name == StreamName::Exponent ? division.exponent
                          : name == StreamName::Data   ? division.data
                                                       : division.copy;
  return {.name = name_of(name),
          .op = name == StreamName::Exponent ? packet::Op::kMax : packet::Op::kSum,
          .slot_base = slots.base,
          .slot_count = slots.count,
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

}  // namespace wiresum
