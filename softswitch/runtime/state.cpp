// What the control plane does with counters, registers and multicast groups. No program depends on
// it: it is compiled once, when wiresum is built, and linked to every program.
#include "state.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <new>

#include "words.hpp"

namespace wiresum::softswitch {

namespace {

// What a control-plane call answers for an index that the array does not have.
Status out_of_range(const std::string& name, std::size_t index, std::size_t size) {
  return {Code::kOutOfRange, name + "[" + std::to_string(index) + "]: the index must be below " +
                                 std::to_string(size)};
}

Status check(std::uint16_t group, const std::vector<Replica>& replicas) {
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

}  // namespace

bool bytes_to_words(const Bytes& bytes, unsigned bits, std::uint64_t* words) {
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

Bytes words_to_bytes(const std::uint64_t* words, unsigned bits) {
  const std::size_t n = (bits + 7) / 8;
  Bytes bytes(n, '\0');
  for (std::size_t i = 0; i < n; ++i) {
    bytes[n - 1 - i] = static_cast<char>(words[i / 8] >> (8 * (i % 8)));
  }
  return bytes;
}

CounterArray::CounterArray(std::string_view name, std::uint32_t id, std::size_t size)
    : info_{std::string(name), id, size}, cells_(size) {}
CounterArray::~CounterArray() = default;
const CounterInfo& CounterArray::info() const { return info_; }
std::span<CounterCell> CounterArray::cells() { return cells_; }
void CounterArray::reset() { std::fill(cells_.begin(), cells_.end(), CounterCell{}); }

RegisterCells::RegisterCells(std::string_view name, std::uint32_t id, std::size_t size,
                             unsigned bits, std::size_t cell_bytes)
    : info_{std::string(name), id, size, bits}, cell_bytes_(cell_bytes) {
  // Large arrays are a switch's working set: let the kernel back them with huge pages.
  constexpr std::size_t kHuge = std::size_t{2} << 20;
  const std::size_t bytes = std::max<std::size_t>(size, 1) * cell_bytes;
  const std::size_t align = bytes >= kHuge ? kHuge : 64;
  const std::size_t rounded = (bytes + align - 1) / align * align;
  memory_ = std::aligned_alloc(align, rounded);
  if (memory_ == nullptr) throw std::bad_alloc();
  if (align == kHuge) madvise(memory_, rounded, MADV_HUGEPAGE);
  std::memset(memory_, 0, rounded);
}
RegisterCells::~RegisterCells() { std::free(memory_); }
const RegisterInfo& RegisterCells::info() const { return info_; }

Status RegisterCells::read(std::size_t index, Bytes* value) const {
  if (index >= info_.size) return out_of_range(info_.name, index, info_.size);
  std::vector<std::uint64_t> words((cell_bytes_ + 7) / 8);
  std::memcpy(words.data(), static_cast<const char*>(memory_) + index * cell_bytes_, cell_bytes_);
  *value = words_to_bytes(words.data(), info_.bits);
  return {};
}
Status RegisterCells::write(std::size_t index, const Bytes& value) {
  if (index >= info_.size) return out_of_range(info_.name, index, info_.size);
  std::vector<std::uint64_t> words((cell_bytes_ + 7) / 8);
  if (!bytes_to_words(value, info_.bits, words.data())) {
    return {Code::kInvalidArgument,
            info_.name + ": the value does not fit in " + std::to_string(info_.bits) + " bits"};
  }
  std::memcpy(static_cast<char*>(memory_) + index * cell_bytes_, words.data(), cell_bytes_);
  return {};
}
void RegisterCells::reset() { std::memset(memory_, 0, info_.size * cell_bytes_); }

MulticastEngine::MulticastEngine() = default;
MulticastEngine::~MulticastEngine() = default;

Status MulticastEngine::create(std::uint16_t group, std::vector<Replica> replicas) {
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
Status MulticastEngine::modify(std::uint16_t group, std::vector<Replica> replicas) {
  if (Status s = exists(group); !s.ok()) return s;
  if (Status s = check(group, replicas); !s.ok()) return s;
  *groups_[group] = std::move(replicas);
  return {};
}
Status MulticastEngine::remove(std::uint16_t group) {
  if (Status s = exists(group); !s.ok()) return s;
  groups_[group].reset();
  return {};
}
std::vector<std::pair<std::uint16_t, std::vector<Replica>>> MulticastEngine::list() const {
  std::vector<std::pair<std::uint16_t, std::vector<Replica>>> all;
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    if (groups_[g] != nullptr) all.emplace_back(static_cast<std::uint16_t>(g), *groups_[g]);
  }
  return all;
}
void MulticastEngine::reset() { groups_.clear(); }

Status MulticastEngine::exists(std::uint16_t group) const {
  if (group < groups_.size() && groups_[group] != nullptr) return {};
  return {Code::kNotFound, "there is no multicast group " + std::to_string(group)};
}

std::uint64_t microseconds() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::microseconds>(now).count());
}

}  // namespace wiresum::softswitch
