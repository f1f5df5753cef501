// The codecs' part of the Python face: for tests, and to look at the lanes of a tensor.
#pragma once

#include <nanobind/nanobind.h>

#include <string>

#include "codecs/codec.hpp"

namespace wiresum {

// Throws EngineError (kind Codec) for a dtype that cannot be summed.
Dtype dtype_of(const std::string& name);
// Throws EngineError (kind Codec) for a width that fields do not have.
Field field_of(int bits);
// Throws EngineError (kind Codec) if a copy cannot have these arguments.
void check_copy(const std::string& dtype, bool average, int source);

void bind_codecs(nanobind::module_& m);
// levels_bindings.cpp
void bind_levels(nanobind::module_& m);

}  // namespace wiresum
