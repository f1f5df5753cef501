// Entries of a table and the hash index over their keys.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "program.hpp"

namespace wiresum::softswitch {

// One entry of a table.
struct Row {
  struct Range {
    unsigned word, shift, bits;
    std::uint64_t low, high;
  };
  CounterCell counter;
  std::uint32_t action = 0;  // index in TableInfo::actions
  int priority = 0;
  unsigned prefix_length = 0;
  std::uint64_t order = 0;          // of insertion
  std::vector<std::uint64_t> data;  // the action's parameters
  std::vector<std::uint64_t> key;   // already masked
  std::vector<std::uint64_t> mask;
  std::vector<Range> ranges;
};

// Open addressing with linear probing, at most half full, so that a lookup that misses ends soon.
class HashIndex {
 public:
  template <std::size_t Words>
  Row* find(const std::uint64_t (&key)[Words]) const {
    if (count_ == 0) return nullptr;
    const std::uint64_t h = hash(key, Words);
    for (std::size_t i = h & mask_;; i = (i + 1) & mask_) {
      const Slot& slot = slots_[i];
      if (slot.row == nullptr) return nullptr;
      if (slot.hash == h && std::memcmp(slot.row->key.data(), key, sizeof key) == 0) {
        return slot.row;
      }
    }
  }
  std::size_t size() const { return count_; }

  // The key must not be there yet.
  void insert(Row* row) {
    if (2 * (count_ + 1) > slots_.size()) grow();
    put({hash(row->key.data(), row->key.size()), row});
    ++count_;
  }
  void erase(const Row* row) {
    std::vector<Slot> old(slots_.size());
    old.swap(slots_);
    count_ = 0;
    for (const Slot& slot : old) {
      if (slot.row != nullptr && slot.row != row) {
        put(slot);
        ++count_;
      }
    }
  }
  void clear() {
    slots_.clear();
    count_ = 0;
    mask_ = 0;
  }

 private:
  struct Slot {
    std::uint64_t hash = 0;
    Row* row = nullptr;
  };

  // Multiply and fold, as in wyhash (Wang Yi): one 128-bit product per word.
  static std::uint64_t hash(const std::uint64_t* key, std::size_t words) {
    std::uint64_t h = 0x9e3779b97f4a7c15ULL;
    for (std::size_t i = 0; i < words; ++i) {
      const unsigned __int128 p =
          static_cast<unsigned __int128>(h ^ key[i] ^ 0xa0761d6478bd642fULL) *
          0xe7037ed1a0b428dbULL;
      h = static_cast<std::uint64_t>(p) ^ static_cast<std::uint64_t>(p >> 64);
    }
    return h;
  }
  void put(const Slot& slot) {
    std::size_t i = slot.hash & mask_;
    while (slots_[i].row != nullptr) i = (i + 1) & mask_;
    slots_[i] = slot;
  }
  void grow() {
    std::vector<Slot> old(slots_.empty() ? 16 : 2 * slots_.size());
    old.swap(slots_);
    mask_ = slots_.size() - 1;
    for (const Slot& slot : old) {
      if (slot.row != nullptr) put(slot);
    }
  }

  std::vector<Slot> slots_;
  std::size_t mask_ = 0;
  std::size_t count_ = 0;
};

}  // namespace wiresum::softswitch
