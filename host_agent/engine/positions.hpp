// How far each stream is. One thread publishes it, any thread reads it, and neither waits for the
// other.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <optional>

#include "rtt.hpp"

namespace wiresum {

// The last WAIT: the chunk, and the ranks that the switch has it from, as bits.
struct WaitReport {
  std::uint64_t position;
  std::uint64_t bitmap;
};

struct StreamPosition {
  std::uint64_t oldest = 0;        // first chunk without a result
  std::uint64_t next = 0;          // first chunk that is not open yet
  std::optional<double> result_s;  // since the last result
  std::optional<WaitReport> wait;  // the last one
  std::optional<double> wait_s;    // since then
};

// What a stream publishes; times are monotonic, 0: never.
struct StreamMarks {
  std::uint64_t oldest = 0;
  std::uint64_t next = 0;
  std::uint64_t last_result = 0;
  std::uint64_t last_wait = 0;
  std::uint64_t wait_position = 0;
  std::uint64_t wait_bitmap = 0;
};

// A sequence lock: odd while the words change; a reader that meets a change reads again.
class Published {
 public:
  struct Marks {
    std::uint64_t turn = 0;  // when it was published
    StreamMarks exponent;
    StreamMarks data;
    StreamMarks copy;
  };

  void publish(const Marks& marks) {
    const std::uint64_t before = version_.load(std::memory_order_relaxed);
    version_.store(before + 1, std::memory_order_relaxed);
    std::size_t at = 0;
    // Released one by one, so that a reader that sees one of them sees the odd version too.
    each(marks, [&](std::uint64_t word) { words_[at++].store(word, std::memory_order_release); });
    version_.store(before + 2, std::memory_order_release);
  }

  Marks read() const {
    while (true) {
      const std::uint64_t before = version_.load(std::memory_order_acquire);
      Marks marks;
      std::size_t at = 0;
      each(marks,
           [&](std::uint64_t& word) { word = words_[at++].load(std::memory_order_acquire); });
      if (before % 2 == 0 && version_.load(std::memory_order_relaxed) == before) return marks;
    }
  }

 private:
  template <typename AnyMarks, typename Use>
  static void each(AnyMarks& marks, const Use& use) {
    use(marks.turn);
    for (auto* stream : {&marks.exponent, &marks.data, &marks.copy}) {
      use(stream->oldest);
      use(stream->next);
      use(stream->last_result);
      use(stream->last_wait);
      use(stream->wait_position);
      use(stream->wait_bitmap);
    }
  }

  std::atomic<std::uint64_t> version_{0};
  std::array<std::atomic<std::uint64_t>, 19> words_{};
};

}  // namespace wiresum
