// The codecs of one lease, and the choice of one for a collective.
#pragma once

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
  // Throws EngineError (kind Codec) if the field has no budget for so many workers.
  Codecs(std::uint64_t workers, Field field)
      : large_(workers, field), small_(workers), integers_(workers), largest_(workers) {}

  // Chosen by the element count and type alone, so that all ranks choose alike.
  const Codec& of(std::uint64_t count, Dtype dtype) const {
    if (dtype == Dtype::Int32) return integers_;
    if (dtype == Dtype::MaxUint32) return largest_;
    return count <= kSmall ? static_cast<const Codec&>(small_) : large_;
  }
  // The codec of floats in tensors that are not small.
  const Codec& large() const { return large_; }

 private:
  BlockFloat large_;
  ElementFloat small_;
  IntegerSum integers_;
  Largest largest_;
};

}  // namespace wiresum
