// The instruction set of the codecs' inner loops, and the state of the floating-point unit.
#pragma once

#include <string_view>

#include "codecs/kernels.hpp"

namespace wiresum {

// Instruction sets: the best one that this machine has, unless another was chosen.
const Kernels& kernels();
bool use_kernels(std::string_view name);

// Arithmetic as IEEE 754 has it while one of these lives: round to nearest, denormals kept,
// whatever the thread was set to (torch.set_flush_denormal, inherited by new threads).
class DefaultFloatEnvironment {
 public:
  DefaultFloatEnvironment();
  ~DefaultFloatEnvironment();
  DefaultFloatEnvironment(const DefaultFloatEnvironment&) = delete;
  DefaultFloatEnvironment& operator=(const DefaultFloatEnvironment&) = delete;

 private:
  alignas(16) unsigned char saved_[64];
};

}  // namespace wiresum
