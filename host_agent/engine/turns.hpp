// The order in which the chunks of pieces are opened. Collectives come one after the other. The
// pieces of one take turns, a row of chunks each, because pieces have different sources or readers:
// so all links are in use at the same time. The order depends on the pieces' sizes alone.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <utility>
#include <vector>

namespace wiresum {

// Chunks of one piece in a row, in a stream of so large a window. The packets of a row are alike,
// so they make a train: the longer it is, the less each packet costs. But all pieces of a
// collective are in flight together, as long as a row has the least chunks that make a train worth
// while. All ranks must have the same: it depends on the lease and the pieces alone.
inline std::uint64_t row_of(std::uint64_t window, std::size_t pieces) {
  constexpr std::uint64_t kLeast = 8;
  constexpr std::uint64_t kMost = 32;
  return std::clamp<std::uint64_t>(window / pieces, kLeast, kMost);
}

// The pieces of one collective that take turns. P has opened(), total() and finished.
template <typename P>
struct Group {
  std::vector<std::unique_ptr<P>> pieces;
  std::uint64_t row;       // how much of a piece is in one row, in the unit of opened() and total()
  std::size_t turn = 0;    // index of the piece whose chunks are opened next
  std::uint64_t rows = 0;  // before the one that is being opened
};

template <typename P>
class Turns {
 public:
  Group<P>& add(std::vector<std::unique_ptr<P>> pieces, std::uint64_t row) {
    return groups_.emplace_back(std::move(pieces), row);
  }

  // The piece whose chunk is the next to be opened; nullptr: there is none.
  P* next() {
    for (; cursor_ < groups_.size(); ++cursor_) {
      Group<P>& group = groups_[cursor_];
      for (bool more = true; more;) {
        for (; group.turn < group.pieces.size(); ++group.turn) {
          P& piece = *group.pieces[group.turn];
          if (piece.opened() < std::min(piece.total(), (group.rows + 1) * group.row)) return &piece;
        }
        more = std::any_of(group.pieces.begin(), group.pieces.end(),
                           [](const auto& piece) { return piece->opened() < piece->total(); });
        if (more) {
          group.turn = 0;
          ++group.rows;
        }
      }
    }
    return nullptr;
  }

  // The first piece that has not ended; nullptr: there is none.
  const P* oldest() const {
    for (const Group<P>& group : groups_) {
      for (const auto& piece : group.pieces) {
        if (!piece->finished) return piece.get();
      }
    }
    return nullptr;
  }
  // Forgets the oldest groups as far as they have ended.
  void retire() {
    const auto ended = [](const auto& piece) { return piece->finished; };
    while (!groups_.empty() &&
           std::all_of(groups_.front().pieces.begin(), groups_.front().pieces.end(), ended)) {
      groups_.pop_front();
      if (cursor_ > 0) --cursor_;
    }
  }
  // Calls use(piece) for all that have not ended, in order, and forgets all.
  template <typename Use>
  void drain(const Use& use) {
    for (Group<P>& group : groups_) {
      for (const auto& piece : group.pieces) {
        if (!piece->finished) use(*piece);
      }
    }
    groups_.clear();
    cursor_ = 0;
  }

 private:
  std::deque<Group<P>> groups_;
  std::size_t cursor_ = 0;  // index of the group whose chunks are opened next
};

}  // namespace wiresum
