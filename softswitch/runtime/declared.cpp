#include "declared.hpp"

namespace wiresum::softswitch {

TableInfo info_of(const TableSpec& spec) {
  TableInfo info;
  info.name = spec.name;
  info.id = spec.id;
  info.max_size = spec.max_size;
  for (const KeySpec& each : spec.key) {
    info.key.push_back({std::string(each.name), each.match, each.bits});
  }
  std::size_t param = 0;
  for (const ActionSpec& each : spec.actions) {
    ActionInfo action{std::string(each.name), each.id, {}};
    for (const ParamSpec& p : spec.params.subspan(param, each.params)) {
      action.params.push_back({std::string(p.name), p.bits});
    }
    param += each.params;
    info.actions.push_back(std::move(action));
  }
  info.needs_priority = spec.needs_priority;
  info.direct_counter = spec.direct_counter;
  info.direct_counter_name = spec.direct_counter_name;
  info.const_entries = spec.const_entries;
  info.const_default = spec.const_default;
  return info;
}

ProgramInfo info_of(const ProgramSpec& spec) {
  ProgramInfo info{
      std::string(spec.source), std::string(spec.json_sha256), std::string(spec.compiler), {}};
  for (const ErrorSpec& each : spec.errors) {
    info.errors.emplace_back(std::string(each.name), each.number);
  }
  return info;
}

}  // namespace wiresum::softswitch
