// The codecs of one lease, and which of them a collective has.
#pragma once

#include "codecs/block_float.hpp"
#include "codecs/codec.hpp"

namespace wiresum {

// Tensors of so few elements are metrics, norms and flags, whose values have nothing to do with
// each other: each element has an exponent of its own, and a 32-bit field whatever the lease's
// width.
inline constexpr std::uint64_t kSmall = 1024;

class Codecs {
 public:
  // Throws EngineError (kind Codec) if the field has no budget for so many workers.
  Codecs(std::uint64_t workers, Field field) : large_(workers, field), small_(workers) {}

  // By what all ranks know of a collective, so that all choose alike.
  const Codec& of(std::uint64_t count) const {
    return count <= kSmall ? static_cast<const Codec&>(small_) : large_;
  }
  // The one of tensors that are not small: most of the work.
  const Codec& large() const { return large_; }

 private:
  BlockFloat large_;
  ElementFloat small_;
};

}  // namespace wiresum
