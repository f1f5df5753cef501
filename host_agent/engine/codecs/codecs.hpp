// The codecs of one lease, and the choice of one for a collective.
#pragma once

#include <array>
#include <optional>

#include "codecs/block_float.hpp"
#include "codecs/codec.hpp"
#include "codecs/words.hpp"

namespace wiresum {

// The most elements of a small tensor. Such tensors are metrics, norms and flags, whose values are
// unrelated: each element has an exponent of its own, and a 32-bit field whatever the lease's field
// is.
inline constexpr std::uint64_t kSmall = 1024;

class Codecs {
 public:
  // `field`: of collectives that name none. Throws EngineError (kind Codec) if it has no budget for
  // so many workers.
  Codecs(std::uint64_t workers, Field field)
      : workers_(workers), field_(field), small_(workers), integers_(workers), largest_(workers) {
    for (const Field each : {Field::F32, Field::F16, Field::F8}) {
      if (each == field || budget(workers, each) != 0) {
        large_[static_cast<std::size_t>(each)].emplace(workers, each);
      }
    }
  }

  // Chosen by the element count, the type and the field alone, so that all ranks choose alike.
  // Throws EngineError (kind Codec) for a field without a budget.
  const Codec& of(std::uint64_t count, Dtype dtype, std::optional<Field> field = {}) const {
    if (dtype == Dtype::Int32) return integers_;
    if (dtype == Dtype::MaxUint32) return largest_;
    const Field chosen = field.value_or(field_);
    const auto& large = large_[static_cast<std::size_t>(chosen)];
    if (!large) BlockFloat(workers_, chosen);  // throws
    return count <= kSmall ? static_cast<const Codec&>(small_) : *large;
  }

 private:
  const std::uint64_t workers_;
  const Field field_;
  std::array<std::optional<BlockFloat>, kFields> large_;
  ElementFloat small_;
  IntegerSum integers_;
  Largest largest_;
};

}  // namespace wiresum
