// Counters, registers and multicast groups of a program.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <utility>

#include "bits.hpp"
#include "program.hpp"

namespace wiresum::softswitch {

// What a control-plane call answers for an index that the array does not have.
inline Status out_of_range(const std::string& name, std::size_t index, std::size_t size) {
  return {Code::kOutOfRange, name + "[" + std::to_string(index) + "]: the index must be below " +
                                 std::to_string(size)};
}

class CounterArray final : public Counter {
 public:
  explicit CounterArray(CounterInfo info) : info_(std::move(info)), cells_(info_.size) {}
  const CounterInfo& info() const override { return info_; }
  std::span<CounterCell> cells() override { return cells_; }

  // An index beyond the array counts nothing.
  void count(std::uint32_t index, std::uint64_t bytes) {
    if (index >= cells_.size()) return;
    ++cells_[index].packets;
    cells_[index].bytes += bytes;
  }
  void reset() { std::fill(cells_.begin(), cells_.end(), CounterCell{}); }

 private:
  CounterInfo info_;
  std::vector<CounterCell> cells_;
};

// Big-endian bytes → little-endian 64-bit words. False if the value has more than `bits` bits.
inline bool bytes_to_words(const Bytes& bytes, unsigned bits, std::uint64_t* words) {
  const std::size_t count = (bits + 63) / 64;
  std::fill(words, words + count, 0);
  const std::size_t n = bytes.size();
  for (std::size_t i = 0; i < n; ++i) {
    const auto byte = static_cast<std::uint8_t>(bytes[n - 1 - i]);
    if (byte == 0) continue;
    if (8 * i + std::bit_width(byte) > bits) return false;
    words[i / 8] |= static_cast<std::uint64_t>(byte) << (8 * (i % 8));
  }
  return true;
}

inline Bytes words_to_bytes(const std::uint64_t* words, unsigned bits) {
  const std::size_t n = (bits + 7) / 8;
  Bytes bytes(n, '\0');
  for (std::size_t i = 0; i < n; ++i) {
    bytes[n - 1 - i] = static_cast<char>(words[i / 8] >> (8 * (i % 8)));
  }
  return bytes;
}

// T holds one cell: the smallest unsigned integer of at least `bits` bits, or a Wide.
template <typename T>
class RegisterArray final : public Register {
 public:
  explicit RegisterArray(RegisterInfo info) : info_(std::move(info)) {
    // Large arrays are a switch's working set: let the kernel back them with huge pages.
    constexpr std::size_t kHuge = std::size_t{2} << 20;
    const std::size_t bytes = std::max<std::size_t>(info_.size, 1) * sizeof(T);
    const std::size_t align = bytes >= kHuge ? kHuge : 64;
    const std::size_t rounded = (bytes + align - 1) / align * align;
    void* memory = std::aligned_alloc(align, rounded);
    if (memory == nullptr) throw std::bad_alloc();
    if (align == kHuge) madvise(memory, rounded, MADV_HUGEPAGE);
    std::memset(memory, 0, rounded);
    cells_.reset(static_cast<T*>(memory));
  }
  const RegisterInfo& info() const override { return info_; }

  // Beyond the array: reads 0, writes nothing.
  T get(std::uint32_t index) const { return index < info_.size ? cells_.get()[index] : T{}; }
  void set(std::uint32_t index, const T& value) {
    if (index < info_.size) cells_.get()[index] = value;
  }
  // Whether all of [first, first + count) lies inside.
  bool holds(std::uint64_t first, std::uint64_t count) const { return first + count <= info_.size; }
  T* data() { return cells_.get(); }

  Status read(std::size_t index, Bytes* value) const override {
    if (index >= info_.size) return out_of_range(info_.name, index, info_.size);
    std::uint64_t words[kWords] = {};
    std::memcpy(words, cells_.get() + index, sizeof(T));
    *value = words_to_bytes(words, info_.bits);
    return {};
  }
  Status write(std::size_t index, const Bytes& value) override {
    if (index >= info_.size) return out_of_range(info_.name, index, info_.size);
    std::uint64_t words[kWords] = {};
    if (!bytes_to_words(value, info_.bits, words)) {
      return {Code::kInvalidArgument,
              info_.name + ": the value does not fit in " + std::to_string(info_.bits) + " bits"};
    }
    std::memcpy(cells_.get() + index, words, sizeof(T));
    return {};
  }
  void reset() { std::memset(static_cast<void*>(cells_.get()), 0, info_.size * sizeof(T)); }

 private:
  static constexpr std::size_t kWords = (sizeof(T) + 7) / 8;
  struct Free {
    void operator()(T* p) const { std::free(p); }
  };
  RegisterInfo info_;
  std::unique_ptr<T, Free> cells_;
};

class MulticastEngine final : public MulticastGroups {
 public:
  // The replicas of a group; none if it does not exist.
  std::span<const Replica> replicas(std::uint16_t group) const {
    if (group >= groups_.size() || groups_[group] == nullptr) return {};
    return *groups_[group];
  }

  Status create(std::uint16_t group, std::vector<Replica> replicas) override {
    if (group == 0) {
      return {Code::kInvalidArgument, "multicast group 0 means no multicast: it cannot be created"};
    }
    if (group < groups_.size() && groups_[group] != nullptr) {
      return {Code::kAlreadyExists, "multicast group " + std::to_string(group) + " exists already"};
    }
    if (Status s = check(group, replicas); !s.ok()) return s;
    if (group >= groups_.size()) groups_.resize(group + std::size_t{1});
    groups_[group] = std::make_unique<std::vector<Replica>>(std::move(replicas));
    return {};
  }
  Status modify(std::uint16_t group, std::vector<Replica> replicas) override {
    if (Status s = exists(group); !s.ok()) return s;
    if (Status s = check(group, replicas); !s.ok()) return s;
    *groups_[group] = std::move(replicas);
    return {};
  }
  Status remove(std::uint16_t group) override {
    if (Status s = exists(group); !s.ok()) return s;
    groups_[group].reset();
    return {};
  }
  std::vector<std::pair<std::uint16_t, std::vector<Replica>>> list() const override {
    std::vector<std::pair<std::uint16_t, std::vector<Replica>>> all;
    for (std::size_t g = 0; g < groups_.size(); ++g) {
      if (groups_[g] != nullptr) all.emplace_back(static_cast<std::uint16_t>(g), *groups_[g]);
    }
    return all;
  }
  void reset() { groups_.clear(); }

 private:
  Status exists(std::uint16_t group) const {
    if (group < groups_.size() && groups_[group] != nullptr) return {};
    return {Code::kNotFound, "there is no multicast group " + std::to_string(group)};
  }
  static Status check(std::uint16_t group, const std::vector<Replica>& replicas) {
    for (std::size_t i = 0; i < replicas.size(); ++i) {
      for (std::size_t j = 0; j < i; ++j) {
        if (replicas[i] == replicas[j]) {
          return {Code::kInvalidArgument, "multicast group " + std::to_string(group) + ": port " +
                                              std::to_string(replicas[i].port) + " instance " +
                                              std::to_string(replicas[i].instance) +
                                              " is there twice"};
        }
      }
    }
    return {};
  }
  std::vector<std::unique_ptr<std::vector<Replica>>> groups_;
};

}  // namespace wiresum::softswitch
