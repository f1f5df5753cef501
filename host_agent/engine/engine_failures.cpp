// The one line that says what went wrong: which ranks, which chunk, which switch.
#include <cstdio>
#include <cstring>

#include "engine.hpp"

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

std::string describe(const Collective& collective) {
  static constexpr const char* kNames[] = {"float32", "float16", "bfloat16"};
  return "all-reduce " + std::to_string(collective.sequence) + " (" +
         std::to_string(collective.count) + " x " + kNames[static_cast<int>(collective.dtype)] +
         (collective.average ? ", average)" : ")");
}

std::string describe(const Stream& stream, const Chunk& chunk) {
  return std::string(stream.config().name) + " chunk " + std::to_string(chunk.position);
}

}  // namespace

std::string Engine::switch_label() const {
  return "switch " + lease_.switch_name + " (" + lease_.switch_ip + ":" +
         std::to_string(lease_.switch_udp_port) + ")";
}

void Engine::fail_mismatch(const Stream& stream, const Chunk& chunk, const Header& header,
                           std::uint64_t bitmap) {
  // The fingerprint is the slot's, the bitmap those who sent it. If it is our own, somebody else
  // was turned away.
  const bool ours = header.fingerprint == chunk.fingerprint;
  const std::uint64_t full =
      lease_.workers >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << lease_.workers) - 1;
  const std::string others = ranks_in((ours ? ~bitmap : bitmap) & full, lease_.workers);
  give_up(ErrorKind::Mismatch,
          describe(*chunk.cargo.collective) + " of rank " + std::to_string(lease_.rank) +
              " disagrees with " + others + " at " + describe(stream, chunk) + " on " +
              switch_label() + ": fingerprint " + hexadecimal(chunk.fingerprint) + " here, " +
              (ours ? "another" : hexadecimal(header.fingerprint)) +
              " there; all ranks must issue the same collectives in the same order");
}

void Engine::fail_timeout(Nanoseconds now) {
  // The stream that holds everything up: data wait for exponents, so exponents first.
  const Stream& stream = !exponents_.idle() && exponents_.oldest()->send_serial != 0 &&
                                 (data_.idle() || exponents_.oldest()->cargo.collective->sequence <=
                                                      data_.oldest()->cargo.collective->sequence)
                             ? exponents_
                             : data_;
  const Chunk& chunk = *stream.oldest();
  std::string missing = "no rank is known to be missing";
  const auto& wait = stream.last_wait();
  if (wait && wait->position >= chunk.position) {
    const std::uint64_t full =
        lease_.workers >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << lease_.workers) - 1;
    missing = "still waiting for " + ranks_in(~wait->bitmap & full, lease_.workers) + " of " +
              std::to_string(lease_.workers);
  }
  give_up(ErrorKind::Timeout, describe(*chunk.cargo.collective) + " made no progress for " +
                                  seconds(static_cast<double>(now - last_progress_) * 1e-9) + ": " +
                                  missing + " at " + describe(stream, chunk) + " on " +
                                  switch_label());
}

void Engine::fail_unreachable() {
  if (const char* why = transport_->ended(); why != nullptr) {
    give_up(ErrorKind::Unreachable, switch_label() + " " + why);
    return;
  }
  std::string line =
      switch_label() + " has not answered anything for " + seconds(options_.switch_timeout_s);
  if (const int error = transport_->last_error(); error != 0) {
    line += std::string(" (") + std::strerror(error) + ")";
  }
  give_up(ErrorKind::Unreachable,
          line + "; is it running, and does it know this worker's address?");
}

}  // namespace wiresum
