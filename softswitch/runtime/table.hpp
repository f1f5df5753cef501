// Match-action tables: what the control plane may do with them, and the lookups.
//
// A key is packed into 64-bit words: each field sits in one word (or in whole words of its own if
// it has more than 64 bits), at the place that the translator chose (KeySlot). Action data takes
// one word per parameter, more for a parameter of more than 64 bits.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <memory>
#include <utility>

#include "hash_index.hpp"
#include "program.hpp"
#include "state.hpp"

namespace wiresum::softswitch {

struct KeySlot {
  unsigned word = 0;
  unsigned shift = 0;
};

enum class Engine { kKeyless, kExact, kLpm, kTernary };

class MatchTable final : public Table {
 public:
  // `slots` says where each key field lies in the `words` words of a key. `initial` is the default
  // action that the program declares.
  MatchTable(TableInfo info, Engine engine, std::vector<KeySlot> slots, std::size_t words,
             ActionCall initial)
      : info_(std::move(info)),
        engine_(engine),
        slots_(std::move(slots)),
        words_(words),
        initial_(std::move(initial)) {
    for (std::size_t i = 0; i < info_.key.size(); ++i) {
      if (info_.key[i].match == MatchKind::kLpm) lpm_field_ = i;
    }
    if (engine_ == Engine::kLpm) by_length_.resize(info_.key[lpm_field_].bits + 1);
    encode_action(initial_, &default_.action, &default_.data);
  }

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

  const TableInfo& info() const override { return info_; }

  // Adds an entry that the program declares.
  Status install(const Entry& entry) {
    std::unique_ptr<Row> row = std::make_unique<Row>();
    std::vector<std::uint64_t> id;
    if (Status s = encode_key(entry, row.get(), &id); !s.ok()) return s;
    if (Status s = encode_action(entry.action, &row->action, &row->data); !s.ok()) return s;
    if (rows_.contains(id)) return fail(Code::kAlreadyExists, "an entry with this key exists");
    if (rows_.size() >= info_.max_size) {
      return fail(Code::kResourceExhausted,
                  "the table is full (" + std::to_string(info_.max_size) + " entries)");
    }
    row->order = next_order_++;
    index_insert(row.get());
    rows_.emplace(std::move(id), std::move(row));
    return {};
  }

  Status add(const Entry& entry) override {
    if (info_.const_entries) return const_entries();
    return install(entry);
  }
  Status modify(const Entry& entry) override {
    if (info_.const_entries) return const_entries();
    Row* row = nullptr;
    if (Status s = locate(entry, &row); !s.ok()) return s;
    return encode_action(entry.action, &row->action, &row->data);
  }
  Status remove(const Entry& entry) override {
    if (info_.const_entries) return const_entries();
    Row scratch;
    std::vector<std::uint64_t> id;
    if (Status s = encode_key(entry, &scratch, &id); !s.ok()) return s;
    const auto found = rows_.find(id);
    if (found == rows_.end()) return fail(Code::kNotFound, "there is no entry with this key");
    index_erase(found->second.get());
    rows_.erase(found);
    return {};
  }
  Status clear() override {
    if (info_.const_entries) return const_entries();
    drop_all();
    return {};
  }
  std::vector<Entry> entries() const override {
    std::vector<const Row*> rows;
    for (const auto& [id, row] : rows_) rows.push_back(row.get());
    std::sort(rows.begin(), rows.end(),
              [](const Row* a, const Row* b) { return a->order < b->order; });
    std::vector<Entry> all;
    all.reserve(rows.size());
    for (const Row* row : rows) all.push_back(decode(*row));
    return all;
  }
  std::optional<Entry> find(const Entry& key) const override {
    Row* row = nullptr;
    if (!locate(key, &row).ok()) return std::nullopt;
    return decode(*row);
  }
  std::size_t size() const override { return rows_.size(); }

  Status set_default(const ActionCall& action) override {
    if (info_.const_default) {
      return fail(Code::kPermissionDenied, "the program declares its default action const");
    }
    return encode_action(action, &default_.action, &default_.data);
  }
  Status reset_default() override {
    return encode_action(initial_, &default_.action, &default_.data);
  }
  Entry default_entry() const override {
    Entry entry;
    entry.action = decode_action(default_);
    entry.counter = default_.counter;
    return entry;
  }
  Status write_counter(const Entry& key, CounterCell value) override {
    if (!info_.direct_counter) return fail(Code::kInvalidArgument, "it has no direct counter");
    Row* row = nullptr;
    if (Status s = locate(key, &row); !s.ok()) return s;
    row->counter = value;
    return {};
  }
  Status write_default_counter(CounterCell value) override {
    if (!info_.direct_counter) return fail(Code::kInvalidArgument, "it has no direct counter");
    default_.counter = value;
    return {};
  }

  // Back to an empty table with the declared default. Const entries stay; all counters are zero.
  void reset() {
    if (!info_.const_entries) drop_all();
    for (const auto& [id, row] : rows_) row->counter = {};
    default_.counter = {};
    reset_default();
  }

 private:
  struct LengthMask {
    unsigned length = 0;
    std::vector<std::uint64_t> mask;
  };

  Status fail(Code code, const std::string& what) const {
    return {code, "table " + info_.name + ": " + what};
  }
  Status const_entries() const {
    return fail(Code::kPermissionDenied, "the program declares its entries const");
  }

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

  // ORs the words of one field into `to` at the field's place.
  void place(std::size_t field, const std::uint64_t* words, std::uint64_t* to) const {
    const KeySlot slot = slots_[field];
    const std::size_t count = (info_.key[field].bits + 63) / 64;
    for (std::size_t i = 0; i < count; ++i) to[slot.word + i] |= words[i] << slot.shift;
  }
  // The inverse of place().
  Bytes field_bytes(std::size_t field, const std::vector<std::uint64_t>& from) const {
    const KeySlot slot = slots_[field];
    const unsigned bits = info_.key[field].bits;
    std::vector<std::uint64_t> words((bits + 63) / 64);
    for (std::size_t i = 0; i < words.size(); ++i) words[i] = from[slot.word + i] >> slot.shift;
    if (bits % 64 != 0) words.back() &= (std::uint64_t{1} << (bits % 64)) - 1;
    return words_to_bytes(words.data(), bits);
  }
  static void prefix_mask(unsigned length, unsigned bits, std::uint64_t* words) {
    for (unsigned bit = bits - length; bit < bits; ++bit) {
      words[bit / 64] |= std::uint64_t{1} << (bit % 64);
    }
  }

  Status encode_key(const Entry& entry, Row* row, std::vector<std::uint64_t>* id) const {
    if (entry.key.size() != info_.key.size() || info_.key.empty()) {
      return fail(Code::kInvalidArgument,
                  info_.key.empty()
                      ? "it has no key: only its default can be set"
                      : "the key must have " + std::to_string(info_.key.size()) + " fields");
    }
    if (info_.needs_priority ? entry.priority <= 0 : entry.priority != 0) {
      return fail(Code::kInvalidArgument, info_.needs_priority ? "an entry needs a priority above 0"
                                                               : "an entry has no priority here");
    }
    row->key.assign(words_, 0);
    row->mask.assign(words_, 0);
    row->priority = entry.priority;
    std::vector<std::uint64_t> extra;
    for (std::size_t i = 0; i < info_.key.size(); ++i) {
      const KeyFieldInfo& field = info_.key[i];
      const KeyField& given = entry.key[i];
      const std::size_t count = (field.bits + 63) / 64;
      std::vector<std::uint64_t> value(count), mask(count);
      const bool fits = bytes_to_words(given.value, field.bits, value.data());
      if (!fits) return does_not_fit(field);
      switch (field.match) {
        case MatchKind::kExact:
          prefix_mask(field.bits, field.bits, mask.data());
          break;
        case MatchKind::kLpm:
          if (given.prefix_length > field.bits) {
            return fail(Code::kInvalidArgument, "field " + field.name +
                                                    ": the prefix is longer than " +
                                                    std::to_string(field.bits) + " bits");
          }
          prefix_mask(given.prefix_length, field.bits, mask.data());
          row->prefix_length = given.prefix_length;
          extra.push_back(given.prefix_length);
          break;
        case MatchKind::kTernary:
          if (!bytes_to_words(given.mask, field.bits, mask.data())) return does_not_fit(field);
          break;
        case MatchKind::kOptional:
          if (!given.any) prefix_mask(field.bits, field.bits, mask.data());
          break;
        case MatchKind::kRange: {
          std::uint64_t high = 0;
          if (!bytes_to_words(given.mask, field.bits, &high)) return does_not_fit(field);
          if (value[0] > high) {
            return fail(Code::kInvalidArgument, "field " + field.name + ": the range is empty");
          }
          row->ranges.push_back({slots_[i].word, slots_[i].shift, field.bits, value[0], high});
          extra.push_back(value[0]);
          extra.push_back(high);
          value[0] = 0;
          break;
        }
      }
      for (std::size_t w = 0; w < count; ++w) value[w] &= mask[w];
      place(i, value.data(), row->key.data());
      place(i, mask.data(), row->mask.data());
    }
    *id = row->key;
    if (engine_ == Engine::kTernary) id->insert(id->end(), row->mask.begin(), row->mask.end());
    id->insert(id->end(), extra.begin(), extra.end());
    id->push_back(static_cast<std::uint64_t>(entry.priority));
    return {};
  }
  Status does_not_fit(const KeyFieldInfo& field) const {
    return fail(Code::kInvalidArgument, "field " + field.name + ": the value does not fit in " +
                                            std::to_string(field.bits) + " bits");
  }

  Status encode_action(const ActionCall& call, std::uint32_t* action,
                       std::vector<std::uint64_t>* data) const {
    for (std::size_t a = 0; a < info_.actions.size(); ++a) {
      const ActionInfo& info = info_.actions[a];
      if (info.name != call.name) continue;
      if (call.params.size() != info.params.size()) {
        return fail(Code::kInvalidArgument, "action " + info.name + " takes " +
                                                std::to_string(info.params.size()) + " parameters");
      }
      std::vector<std::uint64_t> words;
      for (std::size_t i = 0; i < info.params.size(); ++i) {
        const std::size_t at = words.size();
        words.resize(at + (info.params[i].bits + 63) / 64);
        if (!bytes_to_words(call.params[i], info.params[i].bits, words.data() + at)) {
          return fail(Code::kInvalidArgument, "action " + info.name + ": parameter " +
                                                  info.params[i].name + " does not fit in " +
                                                  std::to_string(info.params[i].bits) + " bits");
        }
      }
      // Generated code may look at data[0] of an action without parameters.
      if (words.empty()) words.push_back(0);
      *action = static_cast<std::uint32_t>(a);
      *data = std::move(words);
      return {};
    }
    return fail(Code::kInvalidArgument, "it has no action " + call.name);
  }
  ActionCall decode_action(const Row& row) const {
    const ActionInfo& info = info_.actions[row.action];
    ActionCall call;
    call.name = info.name;
    std::size_t at = 0;
    for (const ParamInfo& param : info.params) {
      call.params.push_back(words_to_bytes(row.data.data() + at, param.bits));
      at += (param.bits + 63) / 64;
    }
    return call;
  }
  Entry decode(const Row& row) const {
    Entry entry;
    std::size_t range = 0;
    for (std::size_t i = 0; i < info_.key.size(); ++i) {
      KeyField field;
      field.value = field_bytes(i, row.key);
      switch (info_.key[i].match) {
        case MatchKind::kExact:
          break;
        case MatchKind::kLpm:
          field.prefix_length = row.prefix_length;
          break;
        case MatchKind::kTernary:
          field.mask = field_bytes(i, row.mask);
          break;
        case MatchKind::kOptional: {
          const Bytes mask = field_bytes(i, row.mask);
          field.any = std::all_of(mask.begin(), mask.end(), [](char c) { return c == 0; });
          break;
        }
        case MatchKind::kRange:
          field.value = words_to_bytes(&row.ranges[range].low, info_.key[i].bits);
          field.mask = words_to_bytes(&row.ranges[range].high, info_.key[i].bits);
          ++range;
          break;
      }
      entry.key.push_back(std::move(field));
    }
    entry.priority = row.priority;
    entry.action = decode_action(row);
    entry.counter = row.counter;
    return entry;
  }

  Status locate(const Entry& key, Row** row) const {
    Row scratch;
    std::vector<std::uint64_t> id;
    if (Status s = encode_key(key, &scratch, &id); !s.ok()) return s;
    const auto found = rows_.find(id);
    if (found == rows_.end()) return fail(Code::kNotFound, "there is no entry with this key");
    *row = found->second.get();
    return {};
  }

  void index_insert(Row* row) {
    switch (engine_) {
      case Engine::kKeyless:
        break;
      case Engine::kExact:
        exact_.insert(row);
        break;
      case Engine::kLpm: {
        const unsigned length = row->prefix_length;
        if (by_length_[length].size() == 0) {
          const auto at = std::find_if(lengths_.begin(), lengths_.end(),
                                       [&](const LengthMask& m) { return m.length < length; });
          lengths_.insert(at, {length, row->mask});
        }
        by_length_[length].insert(row);
        break;
      }
      case Engine::kTernary: {
        // The largest priority first; among equals the oldest.
        const auto at = std::find_if(ordered_.begin(), ordered_.end(), [&](const Row* other) {
          return other->priority < row->priority;
        });
        ordered_.insert(at, row);
        break;
      }
    }
  }
  void index_erase(Row* row) {
    switch (engine_) {
      case Engine::kKeyless:
        break;
      case Engine::kExact:
        exact_.erase(row);
        break;
      case Engine::kLpm:
        by_length_[row->prefix_length].erase(row);
        if (by_length_[row->prefix_length].size() == 0) {
          std::erase_if(lengths_,
                        [&](const LengthMask& m) { return m.length == row->prefix_length; });
        }
        break;
      case Engine::kTernary:
        std::erase(ordered_, row);
        break;
    }
  }
  void drop_all() {
    exact_.clear();
    for (HashIndex& index : by_length_) index.clear();
    lengths_.clear();
    ordered_.clear();
    rows_.clear();
  }

  TableInfo info_;
  Engine engine_;
  std::vector<KeySlot> slots_;
  std::size_t words_;
  ActionCall initial_;
  std::size_t lpm_field_ = 0;
  std::uint64_t next_order_ = 0;
  Row default_;
  // The rows by what makes them distinct: key, mask, ranges, prefix length, priority.
  std::map<std::vector<std::uint64_t>, std::unique_ptr<Row>> rows_;
  HashIndex exact_;
  std::vector<HashIndex> by_length_;
  std::vector<LengthMask> lengths_;  // prefix lengths in use, longest first
  std::vector<Row*> ordered_;
};

}  // namespace wiresum::softswitch
