// The codec's inner loops, one table of them per instruction set. Every table gives bitwise the
// same results: integer arithmetic, single-rounding float operations, no contraction.
#pragma once

#include <cstddef>
#include <cstdint>

namespace wiresum {

// What is reduced: floats, integers mod 2^32, or words of which the largest one counts.
enum class Dtype : std::uint8_t {
  Float32 = 0,
  Float16 = 1,
  Bfloat16 = 2,
  Int32 = 3,
  MaxUint32 = 4
};
inline constexpr int kDtypes = 3;  // of floats: the others need no kernels

// Index of a field width in the tables.
enum class Field : std::uint8_t { F32 = 0, F16 = 1, F8 = 2 };
inline constexpr int kFields = 3;

// x -> u: y = (x * a) * b, clamped to +-limit, rounded to nearest even, + offset.
struct QuantizeParams {
  float a;
  float b;
  float limit;
  std::uint32_t offset;
};

// u -> x: (u - offset) * scale.
struct DequantizeParams {
  std::uint32_t offset;
  double scale;
  // Products in single precision, twice as many at a time. 32-bit fields: where the scale is a
  // power of two, `high`, so that the product is as exact as in double. Narrow fields: `high` is
  // the scale's first 8 bits, whose product with a sum of at most 16 bits is exact, and `low` the
  // rest, whose product is off by 2^-32 of the whole: a value that a float can hold comes out
  // exactly; any other value as the nearest float, or, very near the middle, as either neighbour.
  bool in_float;
  float high;
  float low;
};

// Elements with an exponent code each, 32-bit fields: x -> x * 2^(level_exponent - e) + level, and
// u -> (u - offset) * 2^(e - level_exponent) * part.
struct EachParams {
  int level_exponent;
  std::uint32_t level;
  std::uint32_t offset;
  double part;
};

// By element type; n is at most kMaxRun, lanes are big-endian. The last lane is whole: the rest of
// it encodes zero, and is ignored on the way back.
struct QuantizeKernels {
  void (*of[kDtypes])(const void* in, std::size_t n, const QuantizeParams& params,
                      std::uint8_t* lanes);
};
struct DequantizeKernels {
  void (*of[kDtypes])(const std::uint8_t* lanes, std::size_t n, const DequantizeParams& params,
                      void* out);
};

// x -> u: x * factor + middle, clamped to 0 and top, rounded.
struct LevelParams {
  double factor;
  double middle;  // top / 2
  double top;
};

inline constexpr int kLevelBits = 16;  // the widest field of levels

// Of blocks of kMaxRun elements; see levels.inl.
struct LevelKernels {
  void (*random_words)(std::uint32_t first, const std::uint32_t* rest, const std::uint32_t* key,
                       std::uint32_t* words);
  void (*nearest)(const float* in, const LevelParams& params, std::uint32_t* levels);
  void (*nearest_of_two)(const float* in, bool up, std::uint32_t* levels);  // `up`: zeros are
  void (*random)(const float* in, const LevelParams& params, const std::uint32_t* words,
                 std::uint32_t* levels);
  // (2 * sum - zero) * scale
  void (*values)(const std::uint32_t* sums, std::int32_t zero, double scale, float* out);
  double (*sum_of_magnitudes)(const float* in);
  double (*sum_of_squares)(const float* in);
  void (*hadamard)(float* values);
  void (*turn_signs)(const std::uint32_t* words, float* values);
  // By the bits of a field; lanes in host order.
  void (*pack[kLevelBits + 1])(const std::uint32_t* levels, std::uint32_t* lanes);
  void (*unpack[kLevelBits + 1])(const std::uint32_t* lanes, std::uint32_t* levels);
};

struct Kernels {
  const char* name;

  // Largest bit pattern of |x| over n elements, as float32 bits.
  std::uint32_t (*max_bits[kDtypes])(const void* in, std::size_t n);
  // To and from float32; [Float32] is not used.
  void (*load[kDtypes])(const void* in, std::size_t n, float* out);
  void (*store[kDtypes])(const float* in, std::size_t n, void* out);
  QuantizeKernels quantize[kFields];
  DequantizeKernels dequantize[kFields];

  // Of at most kMaxRun elements that have a code each.
  void (*codes_of_each)(const float* in, std::size_t n, std::uint8_t* codes);  // big-endian
  void (*quantize_each)(const float* in, const std::uint32_t* codes, std::size_t n,
                        const EachParams& params, std::uint8_t* lanes);
  void (*dequantize_each)(const std::uint8_t* lanes, const std::uint32_t* codes, std::size_t n,
                          const EachParams& params, float* out);

  LevelKernels levels;
};

inline constexpr std::size_t kMaxRun = 256;

extern const Kernels kKernelsBaseline;
#if defined(WIRESUM_X86_KERNELS)
extern const Kernels kKernelsAvx2;
extern const Kernels kKernelsAvx512;
#endif

}  // namespace wiresum
