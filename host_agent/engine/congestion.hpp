// How many chunks may be in flight, from what was lost: grows by one per result until a round
// loses, then by one per round; shrinks in proportion to the share that a round lost (as DCTCP does
// with marks), and not at all for a loss so small that it cannot be this worker's own queue.
// Waiting for a straggler is no loss and never gets here.
#pragma once

#include <algorithm>
#include <cstdint>

namespace wiresum {

class CongestionWindow {
 public:
  explicit CongestionWindow(std::uint32_t most)
      : most_(most), least_(std::min(kLeast, most)), size_(std::min(kInitial, most)) {}

  void on_result() {
    ++results_;
    if (slow_start_ && size_ < most_) ++size_;
    end_round();
  }
  void on_loss() {
    ++losses_;
    end_round();
  }
  std::uint32_t size() const { return size_; }

 private:
  static constexpr std::uint32_t kInitial = 32;
  static constexpr std::uint32_t kLeast = 16;
  static constexpr double kTolerated = 0.1;
  static constexpr double kDeepest = 0.5;

  void end_round() {
    if (results_ + losses_ < round_) return;
    const double share = static_cast<double>(losses_) / (results_ + losses_);
    if (share > kTolerated) {
      slow_start_ = false;
      size_ = std::max(least_, static_cast<std::uint32_t>(size_ * (1 - std::min(share, kDeepest))));
    } else if (!slow_start_) {
      size_ = std::min(size_ + 1 + size_ / 16, most_);
    }
    results_ = losses_ = 0;
    round_ = size_;
  }

  std::uint32_t most_;
  std::uint32_t least_;
  std::uint32_t size_;
  std::uint32_t round_ = kInitial;
  std::uint32_t results_ = 0;
  std::uint32_t losses_ = 0;
  bool slow_start_ = true;
};

}  // namespace wiresum
