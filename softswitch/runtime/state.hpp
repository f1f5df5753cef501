// Counters, registers and multicast groups of a program: what packets do with them. What the
// control plane does is in state.cpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "program.hpp"

namespace wiresum::softswitch {

class CounterArray final : public Counter {
 public:
  CounterArray(std::string_view name, std::uint32_t id, std::size_t size);
  ~CounterArray() override;
  const CounterInfo& info() const override;
  std::span<CounterCell> cells() override;

  // An index beyond the array counts nothing.
  void count(std::uint32_t index, std::uint64_t bytes) {
    if (index >= cells_.size()) return;
    ++cells_[index].packets;
    cells_[index].bytes += bytes;
  }
  void reset();

 private:
  CounterInfo info_;
  std::vector<CounterCell> cells_;
};

// The memory of a register array.
class RegisterCells : public Register {
 public:
  RegisterCells(std::string_view name, std::uint32_t id, std::size_t size, unsigned bits,
                std::size_t cell_bytes);
  ~RegisterCells() override;
  const RegisterInfo& info() const final;
  Status read(std::size_t index, Bytes* value) const final;
  Status write(std::size_t index, const Bytes& value) final;
  void reset();

 protected:
  RegisterInfo info_;
  std::size_t cell_bytes_;
  void* memory_;
};

// T holds one cell: the smallest unsigned integer of at least `bits` bits, or a Wide.
template <typename T>
class RegisterArray final : public RegisterCells {
 public:
  RegisterArray(std::string_view name, std::uint32_t id, std::size_t size, unsigned bits)
      : RegisterCells(name, id, size, bits, sizeof(T)) {}

  // Beyond the array: reads 0, writes nothing.
  T get(std::uint32_t index) const { return index < info_.size ? cells()[index] : T{}; }
  void set(std::uint32_t index, const T& value) {
    if (index < info_.size) cells()[index] = value;
  }
  // Whether all of [first, first + count) lies inside.
  bool holds(std::uint64_t first, std::uint64_t count) const { return first + count <= info_.size; }
  T* data() { return cells(); }

 private:
  T* cells() const { return static_cast<T*>(memory_); }
};

class MulticastEngine final : public MulticastGroups {
 public:
  MulticastEngine();
  ~MulticastEngine() override;

  // The replicas of a group; none if it does not exist.
  std::span<const Replica> replicas(std::uint16_t group) const {
    if (group >= groups_.size() || groups_[group] == nullptr) return {};
    return *groups_[group];
  }

  Status create(std::uint16_t group, std::vector<Replica> replicas) override;
  Status modify(std::uint16_t group, std::vector<Replica> replicas) override;
  Status remove(std::uint16_t group) override;
  std::vector<std::pair<std::uint16_t, std::vector<Replica>>> list() const override;
  void reset();

 private:
  Status exists(std::uint16_t group) const;

  std::vector<std::unique_ptr<std::vector<Replica>>> groups_;
};

// Microseconds of a clock that only goes forward.
std::uint64_t microseconds();

}  // namespace wiresum::softswitch
