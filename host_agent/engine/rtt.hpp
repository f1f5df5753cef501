// Retransmission timeout from round trips: RFC 6298 (SRTT, RTTVAR, back-off), in nanoseconds.
#pragma once

#include <algorithm>
#include <cstdint>

namespace wiresum {

using Nanoseconds = std::int64_t;

class RttEstimator {
 public:
  RttEstimator(Nanoseconds initial, Nanoseconds least, Nanoseconds most)
      : least_(least), most_(most), rto_(std::clamp(initial, least, most)) {}

  void sample(Nanoseconds rtt) {
    if (rtt < 0) return;
    if (srtt_ == 0) {
      srtt_ = std::max<Nanoseconds>(rtt, 1);
      variation_ = rtt / 2;
    } else {
      const Nanoseconds error = rtt - srtt_;
      variation_ += ((error < 0 ? -error : error) - variation_) / 4;
      srtt_ = std::max<Nanoseconds>(srtt_ + error / 8, 1);
    }
    rto_ = std::clamp(srtt_ + 4 * variation_, least_, most_);
  }

  // The timeout after `attempts` unanswered ones: doubled for each, up to the bound.
  Nanoseconds rto(unsigned attempts = 0) const {
    const unsigned doubled = std::min(attempts, 16u);
    return rto_ > most_ >> doubled ? most_ : rto_ << doubled;
  }
  Nanoseconds srtt() const { return srtt_; }  // 0: no sample yet

 private:
  Nanoseconds least_;
  Nanoseconds most_;
  Nanoseconds rto_;
  Nanoseconds srtt_ = 0;
  Nanoseconds variation_ = 0;
};

}  // namespace wiresum
