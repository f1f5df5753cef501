#include "failures.hpp"

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "lines.hpp"
#include "piece.hpp"

namespace wiresum {
namespace {

std::string ranks_in(std::uint64_t bitmap, std::uint32_t workers) {
  std::string names;
  unsigned listed = 0;
  for (std::uint32_t rank = 0; rank < std::min(workers, 64u); ++rank) {
    if ((bitmap >> rank & 1) == 0) continue;
    names += (listed++ == 0 ? "" : ", ") + std::to_string(rank);
  }
  return (listed == 1 ? "rank " : "ranks ") + (listed == 0 ? "?" : names);
}

std::string hexadecimal(std::uint32_t value) {
  char text[16];
  std::snprintf(text, sizeof(text), "0x%08x", value);
  return text;
}

std::string seconds(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.3g s", value);
  return text;
}

std::string describe(const Stream& stream, const Chunk& chunk) {
  return std::string(stream.config().name) + " chunk " + std::to_string(chunk.position);
}

std::uint64_t all_ranks(std::uint32_t workers) {
  return workers >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << workers) - 1;
}

}  // namespace

Failure mismatch(const Lease& lease, const Stream& stream, const Chunk& chunk, const Header& header,
                 std::uint64_t bitmap) {
  // The fingerprint is the slot's, the bitmap the ranks that sent it. If it is our own, another
  // rank was turned away.
  const bool ours = header.fingerprint == chunk.form.fingerprint;
  const std::uint64_t full = all_ranks(lease.workers);
  const std::string others = ranks_in((ours ? ~bitmap : bitmap) & full, lease.workers);
  return failure_of(ErrorKind::Mismatch,
                    lines::kMismatch.of(chunk.cargo.piece->describe(), lease.rank, others,
                                        describe(stream, chunk), switch_label(lease),
                                        hexadecimal(chunk.form.fingerprint),
                                        ours ? "another" : hexadecimal(header.fingerprint)));
}

Failure no_progress(const Lease& lease, const Stream& stream, Nanoseconds silence) {
  const Chunk& chunk = *stream.oldest();
  std::string missing = "no rank is known to be missing";
  const auto& wait = stream.last_wait();
  if (wait && wait->position >= chunk.position) {
    const std::uint64_t full = all_ranks(lease.workers);
    missing = "still waiting for " + ranks_in(~wait->bitmap & full, lease.workers) + " of " +
              std::to_string(lease.workers);
  }
  return failure_of(ErrorKind::Timeout,
                    lines::kNoProgress.of(chunk.cargo.piece->describe(),
                                          seconds(static_cast<double>(silence) * 1e-9), missing,
                                          describe(stream, chunk), switch_label(lease)));
}

Failure unreachable(const Lease& lease, const EngineOptions& options, const Transport& transport) {
  const std::string label = switch_label(lease);
  if (const std::string* refusal = transport.ended(); refusal != nullptr) {
    return failure_of(ErrorKind::Unreachable, refusal->empty()
                                                  ? lines::kHungUp.of(label)
                                                  : lines::kHungUpAndThen.of(label, *refusal));
  }
  std::string reason;
  if (const int error = transport.last_error(); error != 0) {
    reason = std::string(" (") + std::strerror(error) + ")";
  }
  return failure_of(ErrorKind::Unreachable,
                    lines::kSilent.of(label, seconds(options.switch_timeout_s), reason));
}

}  // namespace wiresum
