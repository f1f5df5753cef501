#include "codecs/arithmetic.hpp"

#include <atomic>
#include <cfenv>

namespace wiresum {
namespace {

const Kernels* find_kernels(std::string_view name) {
#if defined(WIRESUM_X86_KERNELS)
  const bool any = name.empty();
  if ((any || name == kKernelsAvx512.name) && __builtin_cpu_supports("f16c") &&
      __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    return &kKernelsAvx512;
  }
  if ((any || name == kKernelsAvx2.name) && __builtin_cpu_supports("avx2") &&
      __builtin_cpu_supports("f16c")) {
    return &kKernelsAvx2;
  }
#endif
  if (name.empty() || name == kKernelsBaseline.name) return &kKernelsBaseline;
  return nullptr;
}

std::atomic<const Kernels*>& current() {
  static std::atomic<const Kernels*> table{find_kernels({})};
  return table;
}

}  // namespace

const Kernels& kernels() { return *current().load(std::memory_order_relaxed); }

bool use_kernels(std::string_view name) {
  const Kernels* found = find_kernels(name);
  if (found != nullptr) current().store(found, std::memory_order_relaxed);
  return found != nullptr;
}

DefaultFloatEnvironment::DefaultFloatEnvironment() {
  static_assert(sizeof(std::fenv_t) <= sizeof(saved_));
  std::fegetenv(reinterpret_cast<std::fenv_t*>(saved_));
  std::fesetenv(FE_DFL_ENV);
}

DefaultFloatEnvironment::~DefaultFloatEnvironment() {
  std::fesetenv(reinterpret_cast<const std::fenv_t*>(saved_));
}

}  // namespace wiresum
