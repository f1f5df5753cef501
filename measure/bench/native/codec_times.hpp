// How long the codec takes for a tensor, beside memcpy.
#pragma once

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "codecs/codec.hpp"

namespace wiresum::bench {

// Names and seconds, one for each round. Blocks go from the tensor into a buffer that is used over
// and over, as packets are, or back:
//   exponents, quantize   tensor -> codes, tensor and codes -> lanes
//   encode                both, block after block
//   dequantize            lanes -> tensor
//   copy_in, copy_out     memcpy of as many bytes of the tensor into the buffer, and back
//   copy                  memcpy of the tensor into another one
using Timings = std::vector<std::pair<std::string, std::vector<double>>>;

// One round measures each of them once, on the calling thread. Throws EngineError if the field has
// no budget for so many workers.
Timings time_codec(Dtype dtype, Field field, std::uint64_t workers, std::size_t elements,
                   std::size_t rounds);

}  // namespace wiresum::bench
