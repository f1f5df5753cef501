// What the control plane does with a table. No program depends on it: it is compiled once, when
// wiresum is built, and linked to every program.
#include "table.hpp"

#include <algorithm>
#include <map>

#include "words.hpp"

namespace wiresum::softswitch {

// The rows by what makes them distinct: key, mask, ranges, prefix length, priority.
struct MatchTable::Rows {
  std::map<std::vector<std::uint64_t>, std::unique_ptr<Row>> by_id;
};

namespace {

void prefix_mask(unsigned length, unsigned bits, std::uint64_t* words) {
  for (unsigned bit = bits - length; bit < bits; ++bit) {
    words[bit / 64] |= std::uint64_t{1} << (bit % 64);
  }
}

ActionCall call_of(std::string_view action, std::span<const std::string_view> data) {
  return {std::string(action), {data.begin(), data.end()}};
}

}  // namespace

MatchTable::MatchTable(const TableSpec& spec)
    : info_(info_of(spec)),
      engine_(spec.engine),
      words_(spec.key_words),
      initial_(call_of(spec.default_action, spec.default_data)),
      rows_(std::make_unique<Rows>()) {
  for (std::size_t i = 0; i < spec.key.size(); ++i) {
    slots_.push_back(spec.key[i].slot);
    if (spec.key[i].match == MatchKind::kLpm) lpm_field_ = i;
  }
  if (engine_ == Engine::kLpm) by_length_.resize(info_.key[lpm_field_].bits + 1);
  encode_action(initial_, &default_.action, &default_.data);
  std::size_t field = 0;
  std::size_t datum = 0;
  for (const EntrySpec& declared : spec.entries) {
    Entry entry;
    for (std::size_t i = 0; i < spec.key.size(); ++i) {
      const FieldSpec& f = spec.fields[field++];
      entry.key.push_back({Bytes(f.value), Bytes(f.mask), f.prefix_length, f.any});
    }
    entry.priority = declared.priority;
    entry.action = call_of(declared.action, spec.data.subspan(datum, declared.data));
    datum += declared.data;
    install(entry);
  }
}

MatchTable::~MatchTable() = default;

const TableInfo& MatchTable::info() const { return info_; }

// Adds an entry that the program declares.
Status MatchTable::install(const Entry& entry) {
  std::unique_ptr<Row> row = std::make_unique<Row>();
  std::vector<std::uint64_t> id;
  if (Status s = encode_key(entry, row.get(), &id); !s.ok()) return s;
  if (Status s = encode_action(entry.action, &row->action, &row->data); !s.ok()) return s;
  if (rows_->by_id.contains(id)) return fail(Code::kAlreadyExists, "an entry with this key exists");
  if (rows_->by_id.size() >= info_.max_size) {
    return fail(Code::kResourceExhausted,
                "the table is full (" + std::to_string(info_.max_size) + " entries)");
  }
  row->order = next_order_++;
  index_insert(row.get());
  rows_->by_id.emplace(std::move(id), std::move(row));
  return {};
}

Status MatchTable::add(const Entry& entry) {
  if (info_.const_entries) return const_entries();
  return install(entry);
}
Status MatchTable::modify(const Entry& entry) {
  if (info_.const_entries) return const_entries();
  Row* row = nullptr;
  if (Status s = locate(entry, &row); !s.ok()) return s;
  return encode_action(entry.action, &row->action, &row->data);
}
Status MatchTable::remove(const Entry& entry) {
  if (info_.const_entries) return const_entries();
  Row scratch;
  std::vector<std::uint64_t> id;
  if (Status s = encode_key(entry, &scratch, &id); !s.ok()) return s;
  const auto found = rows_->by_id.find(id);
  if (found == rows_->by_id.end()) return fail(Code::kNotFound, "there is no entry with this key");
  index_erase(found->second.get());
  rows_->by_id.erase(found);
  return {};
}
Status MatchTable::clear() {
  if (info_.const_entries) return const_entries();
  drop_all();
  return {};
}
std::vector<Entry> MatchTable::entries() const {
  std::vector<const Row*> rows;
  for (const auto& [id, row] : rows_->by_id) rows.push_back(row.get());
  std::sort(rows.begin(), rows.end(),
            [](const Row* a, const Row* b) { return a->order < b->order; });
  std::vector<Entry> all;
  all.reserve(rows.size());
  for (const Row* row : rows) all.push_back(decode(*row));
  return all;
}
std::optional<Entry> MatchTable::find(const Entry& key) const {
  Row* row = nullptr;
  if (!locate(key, &row).ok()) return std::nullopt;
  return decode(*row);
}
std::size_t MatchTable::size() const { return rows_->by_id.size(); }

Status MatchTable::set_default(const ActionCall& action) {
  if (info_.const_default) {
    return fail(Code::kPermissionDenied, "the program declares its default action const");
  }
  return encode_action(action, &default_.action, &default_.data);
}
Status MatchTable::reset_default() {
  return encode_action(initial_, &default_.action, &default_.data);
}
Entry MatchTable::default_entry() const {
  Entry entry;
  entry.action = decode_action(default_);
  entry.counter = default_.counter;
  return entry;
}
Status MatchTable::write_counter(const Entry& key, CounterCell value) {
  if (!info_.direct_counter) return fail(Code::kInvalidArgument, "it has no direct counter");
  Row* row = nullptr;
  if (Status s = locate(key, &row); !s.ok()) return s;
  row->counter = value;
  return {};
}
Status MatchTable::write_default_counter(CounterCell value) {
  if (!info_.direct_counter) return fail(Code::kInvalidArgument, "it has no direct counter");
  default_.counter = value;
  return {};
}

void MatchTable::reset() {
  if (!info_.const_entries) drop_all();
  for (const auto& [id, row] : rows_->by_id) row->counter = {};
  default_.counter = {};
  reset_default();
}

Status MatchTable::fail(Code code, const std::string& what) const {
  return {code, "table " + info_.name + ": " + what};
}
Status MatchTable::const_entries() const {
  return fail(Code::kPermissionDenied, "the program declares its entries const");
}

// ORs the words of one field into `to` at the field's place.
void MatchTable::place(std::size_t field, const std::uint64_t* words, std::uint64_t* to) const {
  const KeySlot slot = slots_[field];
  const std::size_t count = (info_.key[field].bits + 63) / 64;
  for (std::size_t i = 0; i < count; ++i) to[slot.word + i] |= words[i] << slot.shift;
}
// The inverse of place().
Bytes MatchTable::field_bytes(std::size_t field, const std::vector<std::uint64_t>& from) const {
  const KeySlot slot = slots_[field];
  const unsigned bits = info_.key[field].bits;
  std::vector<std::uint64_t> words((bits + 63) / 64);
  for (std::size_t i = 0; i < words.size(); ++i) words[i] = from[slot.word + i] >> slot.shift;
  if (bits % 64 != 0) words.back() &= (std::uint64_t{1} << (bits % 64)) - 1;
  return words_to_bytes(words.data(), bits);
}

Status MatchTable::encode_key(const Entry& entry, Row* row, std::vector<std::uint64_t>* id) const {
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
Status MatchTable::does_not_fit(const KeyFieldInfo& field) const {
  return fail(Code::kInvalidArgument, "field " + field.name + ": the value does not fit in " +
                                          std::to_string(field.bits) + " bits");
}

Status MatchTable::encode_action(const ActionCall& call, std::uint32_t* action,
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
ActionCall MatchTable::decode_action(const Row& row) const {
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
Entry MatchTable::decode(const Row& row) const {
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

Status MatchTable::locate(const Entry& key, Row** row) const {
  Row scratch;
  std::vector<std::uint64_t> id;
  if (Status s = encode_key(key, &scratch, &id); !s.ok()) return s;
  const auto found = rows_->by_id.find(id);
  if (found == rows_->by_id.end()) return fail(Code::kNotFound, "there is no entry with this key");
  *row = found->second.get();
  return {};
}

void MatchTable::index_insert(Row* row) {
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
void MatchTable::index_erase(Row* row) {
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
void MatchTable::drop_all() {
  exact_.clear();
  for (HashIndex& index : by_length_) index.clear();
  lengths_.clear();
  ordered_.clear();
  rows_->by_id.clear();
}

}  // namespace wiresum::softswitch
