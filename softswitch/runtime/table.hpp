// Match-action tables: the lookups. What the control plane does with a table is in table.cpp.
//
// A key is packed into 64-bit words: each field sits in one word (or in whole words of its own if
// it has more than 64 bits), at the place that the translator chose (KeySlot). Action data takes
// one word per parameter, more for a parameter of more than 64 bits.
#pragma once

#include <memory>

#include "declared.hpp"
#include "hash_index.hpp"
#include "program.hpp"

namespace wiresum::softswitch {

class MatchTable final : public Table {
 public:
  // Holds the entries and the default action that the program declares.
  explicit MatchTable(const TableSpec& spec);
  ~MatchTable() override;

  // --- the data plane ---

  // The entry for this key, or nullptr.
  template <std::size_t Words>
  Row* lookup_exact(const std::uint64_t (&key)[Words]) const {
    return exact_.find<Words>(key);
  }
  template <std::size_t Words>
  Row* lookup_lpm(const std::uint64_t (&key)[Words]) const {
    for (const LengthMask& each : lengths_) {
      std::uint64_t masked[Words];
      for (std::size_t i = 0; i < Words; ++i) masked[i] = key[i] & each.mask[i];
      if (Row* row = by_length_[each.length].find<Words>(masked)) return row;
    }
    return nullptr;
  }
  template <std::size_t Words>
  Row* lookup_ternary(const std::uint64_t (&key)[Words]) const {
    for (Row* row : ordered_) {
      std::uint64_t differs = 0;
      for (std::size_t i = 0; i < Words; ++i) differs |= (key[i] & row->mask[i]) ^ row->key[i];
      if (differs == 0 && in_ranges(key, *row)) return row;
    }
    return nullptr;
  }
  Row& default_row() { return default_; }

  // --- the control plane ---

  const TableInfo& info() const override;
  Status add(const Entry& entry) override;
  Status modify(const Entry& entry) override;
  Status remove(const Entry& entry) override;
  Status clear() override;
  std::vector<Entry> entries() const override;
  std::optional<Entry> find(const Entry& key) const override;
  std::size_t size() const override;
  Status set_default(const ActionCall& action) override;
  Status reset_default() override;
  Entry default_entry() const override;
  Status write_counter(const Entry& key, CounterCell value) override;
  Status write_default_counter(CounterCell value) override;

  // Back to an empty table with the declared default. Const entries stay; all counters are zero.
  void reset();

 private:
  struct LengthMask {
    unsigned length = 0;
    std::vector<std::uint64_t> mask;
  };
  struct Rows;

  template <std::size_t Words>
  bool in_ranges(const std::uint64_t (&key)[Words], const Row& row) const {
    for (const Row::Range& r : row.ranges) {
      const std::uint64_t mask =
          r.bits == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << r.bits) - 1;
      const std::uint64_t value = (key[r.word] >> r.shift) & mask;
      if (value < r.low || value > r.high) return false;
    }
    return true;
  }

  Status install(const Entry& entry);
  Status fail(Code code, const std::string& what) const;
  Status const_entries() const;
  Status does_not_fit(const KeyFieldInfo& field) const;
  void place(std::size_t field, const std::uint64_t* words, std::uint64_t* to) const;
  Bytes field_bytes(std::size_t field, const std::vector<std::uint64_t>& from) const;
  Status encode_key(const Entry& entry, Row* row, std::vector<std::uint64_t>* id) const;
  Status encode_action(const ActionCall& call, std::uint32_t* action,
                       std::vector<std::uint64_t>* data) const;
  ActionCall decode_action(const Row& row) const;
  Entry decode(const Row& row) const;
  Status locate(const Entry& key, Row** row) const;
  void index_insert(Row* row);
  void index_erase(Row* row);
  void drop_all();

  TableInfo info_;
  Engine engine_;
  std::vector<KeySlot> slots_;
  std::size_t words_;
  ActionCall initial_;
  std::size_t lpm_field_ = 0;
  std::uint64_t next_order_ = 0;
  Row default_;
  std::unique_ptr<Rows> rows_;
  HashIndex exact_;
  std::vector<HashIndex> by_length_;
  std::vector<LengthMask> lengths_;  // prefix lengths in use, longest first
  std::vector<Row*> ordered_;
};

}  // namespace wiresum::softswitch
