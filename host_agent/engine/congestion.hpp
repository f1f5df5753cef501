// How many chunks may be in flight.
// Loss: grows by one per result until a round loses, then more slowly; shrinks in proportion to the
// share that a round lost (as DCTCP does with marks), and not at all for a loss so small that it
// cannot be this worker's own queue. Waiting for a straggler is no loss, and is not reported here.
// A loss that proves to be none is taken back (as in Eifel, RFC 4015): if all for which the window
// shrank were, it is what it was before.
// Delay: beyond a comfortable size it grows only while round trips stay short (as in Vegas). More
// chunks in flight would only fill a queue, and leave the processor's cache.
#pragma once

#include <algorithm>
#include <cstdint>

#include "rtt.hpp"

namespace wiresum {

class CongestionWindow {
 public:
  explicit CongestionWindow(std::uint32_t most)
      : most_(most), least_(std::min(kLeast, most)), size_(std::min(kInitial, most)) {}

  void on_result() {
    ++results_;
    end_round();
  }
  // Returns the round in which the loss counts.
  unsigned on_loss() {
    const unsigned round = rounds_;
    ++losses_;
    end_round();
    return round;
  }
  // A loss of that round was none: the answers to all transmissions have come.
  void on_spurious_loss(unsigned round) {
    if (round == rounds_) {
      --losses_;
    } else if (to_refute_ > 0 && round - shrunk_from_ <= shrunk_in_ - shrunk_from_ &&
               --to_refute_ == 0) {
      size_ = std::max(size_, before_);
      slow_start_ = slow_start_before_;
    }
  }
  // A clean round trip: of a chunk sent once, with no straggler in the way.
  void on_round_trip(Nanoseconds rtt) {
    shortest_ = std::min(shortest_, rtt);
    shortest_in_round_ = std::min(shortest_in_round_, rtt);
  }
  std::uint32_t size() const { return size_; }

 private:
  static constexpr std::uint32_t kInitial = 32;
  static constexpr std::uint32_t kLeast = 16;
  static constexpr std::uint32_t kComfortable = 256;
  static constexpr double kTolerated = 0.1;
  static constexpr double kDeepest = 0.5;
  static constexpr Nanoseconds kNever = INT64_MAX / 4;
  static constexpr unsigned kForget = 1024;  // rounds after which the path may have changed

  void end_round() {
    if (results_ + losses_ < size_) return;
    const double share = static_cast<double>(losses_) / (results_ + losses_);
    if (share > kTolerated) {
      // Answers of one round may come in the next.
      if (to_refute_ == 0 || rounds_ - shrunk_in_ > 1) {
        before_ = size_;
        slow_start_before_ = slow_start_;
        shrunk_from_ = rounds_;
        to_refute_ = 0;
      }
      to_refute_ += losses_;
      shrunk_in_ = rounds_;
      slow_start_ = false;
      size_ = std::max(least_, static_cast<std::uint32_t>(size_ * (1 - std::min(share, kDeepest))));
    } else if (size_ >= kComfortable && shortest_in_round_ != kNever &&
               shortest_in_round_ > 2 * shortest_) {
      slow_start_ = false;
      size_ = std::max(kComfortable, size_ - size_ / 8);
    } else {
      size_ = std::min(slow_start_ ? 2 * size_ : size_ + 1 + size_ / 16, most_);
    }
    results_ = losses_ = 0;
    if (++rounds_ % kForget == 0) shortest_ = shortest_in_round_;
    shortest_in_round_ = kNever;
  }

  std::uint32_t most_;
  std::uint32_t least_;
  std::uint32_t size_;
  std::uint32_t results_ = 0;
  std::uint32_t losses_ = 0;
  Nanoseconds shortest_ = kNever;
  Nanoseconds shortest_in_round_ = kNever;
  unsigned rounds_ = 0;
  bool slow_start_ = true;
  // Before the last rounds that shrank it, one after the other, and how many of their losses have
  // not proved to be none.
  std::uint32_t before_ = 0;
  std::uint32_t to_refute_ = 0;
  unsigned shrunk_from_ = 0;  // the first of these rounds
  unsigned shrunk_in_ = 0;    // the last
  bool slow_start_before_ = true;
};

}  // namespace wiresum
