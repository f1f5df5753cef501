#include "codecs/codec.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cfenv>
#include <cmath>
#include <cstring>
#include <string>

#include "errors.hpp"

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

// 2^exponent for exponents of normal floats.
float power_of_two(int exponent) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(exponent + 127) << 23);
}

double double_power_of_two(int exponent) {
  return std::bit_cast<double>(static_cast<std::uint64_t>(exponent + 1023) << 52);
}

struct Magnitude {
  double fraction;  // M = fraction * 2^exponent, 0.5 <= fraction < 1
  int exponent;
};

Magnitude magnitude_of(std::uint32_t code) {
  if (code >= 0x00800000u) {  // normal
    return {static_cast<double>(std::bit_cast<float>((code & 0x007fffffu) | 126u << 23)),
            static_cast<int>(code >> 23) - 126};
  }
  Magnitude result;
  result.fraction = std::frexp(static_cast<double>(std::bit_cast<float>(code)), &result.exponent);
  return result;
}

void load(Dtype dtype, const void* in, std::size_t n, float* out) {
  if (dtype == Dtype::Float32) {
    std::memcpy(out, in, n * sizeof(float));
  } else {
    kernels().load[static_cast<int>(dtype)](in, n, out);
  }
}

}  // namespace

std::optional<Dtype> parse_dtype(std::string_view name) {
  if (name == "float32") return Dtype::Float32;
  if (name == "float16") return Dtype::Float16;
  if (name == "bfloat16") return Dtype::Bfloat16;
  return std::nullopt;
}

std::optional<Field> parse_field(int bits) {
  if (bits == 32) return Field::F32;
  if (bits == 16) return Field::F16;
  if (bits == 8) return Field::F8;
  return std::nullopt;
}

std::uint32_t budget(std::uint64_t workers, Field field) {
  const std::uint64_t largest = (std::uint64_t{1} << bits_of(field)) - 1;
  return static_cast<std::uint32_t>(largest / 2 / workers);  // = floor(largest / 2n)
}

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

Codec::Codec(std::uint64_t workers, Field field) : workers_(workers), field_(field) {
  level_ = workers == 0 ? 0 : budget(workers, field);
  if (level_ == 0) {
    std::string line = "field " + std::to_string(bits_of(field)) + " leaves no budget for " +
                       std::to_string(workers) + " workers";
    for (const Field wider : {Field::F16, Field::F32}) {
      if (workers != 0 && budget(workers, wider) != 0) {
        line += "; the narrowest field that works is " + std::to_string(bits_of(wider));
        break;
      }
    }
    throw EngineError(ErrorKind::Codec, line);
  }
  level_exponent_ = std::bit_width(level_) - 1;
  zero_lane_ = 0;
  for (unsigned j = 0; j < fields_per_lane(field); ++j) zero_lane_ |= level_ << j * bits_of(field);
}

std::uint32_t Codec::exponent(Dtype dtype, const void* block, std::size_t n) {
  const std::uint32_t bits = kernels().max_bits[static_cast<int>(dtype)](block, n);
  return is_finite_code(bits) ? bits : kNonFinite;
}

std::size_t Codec::encode(Dtype dtype, const void* in, std::size_t n, std::uint32_t code,
                          std::uint8_t* lanes) const {
  const Kernels& table = kernels();
  const Magnitude m = magnitude_of(code);
  // The factor is split in two, since for denormal M it exceeds what a float can hold: `a` is a
  // power of two, so the first product is exact (or so small that the second one rounds to 0).
  QuantizeParams params;
  const int shift = (field_ == Field::F32 ? level_exponent_ : 0) - m.exponent;
  const int first = shift / 2;
  params.a = power_of_two(first);
  params.b = power_of_two(shift - first);
  if (field_ == Field::F32) {
    params.limit = power_of_two(level_exponent_);
  } else {
    params.b *= static_cast<float>(static_cast<double>(level_) / m.fraction);
    params.limit = static_cast<float>(level_);
  }
  params.offset = level_;

  table.quantize[static_cast<int>(field_)].of[static_cast<int>(dtype)](in, n, params, lanes);
  const std::size_t per_lane = fields_per_lane(field_);
  return (n + per_lane - 1) / per_lane;
}

void Codec::decode(Dtype dtype, const std::uint8_t* lanes, std::size_t n, std::uint32_t code,
                   bool average, void* out) const {
  const Kernels& table = kernels();
  const Magnitude m = magnitude_of(code);
  DequantizeParams params{};
  params.offset = static_cast<std::uint32_t>(workers_ * level_);  // nL <= 2^31 - 1
  // One step of q is 2^(e-b), or M / L in the narrow fields; an nth of it for the average.
  const double share = average ? static_cast<double>(workers_) : 1.0;
  if (field_ == Field::F32) {
    params.scale = double_power_of_two(m.exponent - level_exponent_) / share;
    const bool power_of_two = !average || std::has_single_bit(workers_);
    params.in_float = power_of_two && params.scale >= 0x1p-126;  // no result is denormal
    params.high = params.in_float ? static_cast<float>(params.scale) : 0.0f;
  } else {
    params.scale = static_cast<double>(std::bit_cast<float>(code)) / (level_ * share);
    params.in_float = params.scale >= 0x1p-80;  // nor are any of the small parts
    // Towards zero, so that the product with `high` never overflows where the sum does not.
    params.high = std::bit_cast<float>(
        std::bit_cast<std::uint32_t>(static_cast<float>(params.scale)) & 0xffff0000u);
    params.low = static_cast<float>(params.scale - static_cast<double>(params.high));
  }

  table.dequantize[static_cast<int>(field_)].of[static_cast<int>(dtype)](lanes, n, params, out);
}

void Codec::exponents_of_each(Dtype dtype, const void* in, std::size_t n, std::uint8_t* codes) {
  const auto* bytes = static_cast<const std::byte*>(in);
  for (std::size_t done = 0; done < n; done += kMaxRun) {
    float values[kMaxRun];
    const std::size_t run = std::min(n - done, kMaxRun);
    load(dtype, bytes + done * size_of(dtype), run, values);
    kernels().codes_of_each(values, run, codes + 4 * done);
  }
}

void Codec::encode_each(Dtype dtype, const void* in, std::size_t n, const std::uint32_t* codes,
                        std::uint8_t* lanes) const {
  float values[kMaxRun];
  load(dtype, in, n, values);
  const EachParams params{
      .level_exponent = level_exponent_, .level = level_, .offset = 0, .part = 1};
  kernels().quantize_each(values, codes, n, params, lanes);
}

void Codec::decode_each(Dtype dtype, const std::uint8_t* lanes, std::size_t n,
                        const std::uint32_t* codes, bool average, void* out) const {
  float values[kMaxRun];
  const EachParams params{.level_exponent = level_exponent_,
                          .level = level_,
                          .offset = static_cast<std::uint32_t>(workers_ * level_),
                          .part = 1.0 / (average ? static_cast<double>(workers_) : 1.0)};
  kernels().dequantize_each(lanes, codes, n, params, values);
  if (dtype == Dtype::Float32) {
    std::memcpy(out, values, n * sizeof(float));
  } else {
    kernels().store[static_cast<int>(dtype)](values, n, out);
  }
}

void Codec::fill_unsent(Dtype dtype, std::uint32_t code, void* out, std::size_t n) {
  if (code == 0) {
    std::memset(out, 0, n * size_of(dtype));
    return;
  }
  auto* bytes = static_cast<unsigned char*>(out);
  if (dtype == Dtype::Float32) {
    const std::uint32_t nan = 0x7fc00000u;
    for (std::size_t i = 0; i < n; ++i) std::memcpy(bytes + 4 * i, &nan, 4);
  } else {
    const std::uint16_t nan = dtype == Dtype::Float16 ? 0x7e00u : 0x7fc0u;
    for (std::size_t i = 0; i < n; ++i) std::memcpy(bytes + 2 * i, &nan, 2);
  }
}

}  // namespace wiresum
