// The error lines of the switch's native part. Codes N...; docs/operations.md has the cures.
#pragma once

#include "error_line.hpp"

namespace wiresum::softswitch::lines {

inline constexpr Line<"N001", "cannot load the compiled program {library}: {why}"> kCannotLoad;
inline constexpr Line<"N002",
                      "cannot load the compiled program {library}: there is not enough "
                      "memory for its registers and counters">
    kNoMemory;
inline constexpr Line<"N003", "{library} is not a compiled switch program"> kNotAProgram;
inline constexpr Line<"N004",
                      "{library} was compiled by another version of wiresum: compile it "
                      "anew">
    kOtherVersion;
inline constexpr Line<"N005", "the program has no {kind} {name}"> kUnknownName;
inline constexpr Line<"N006", "{name}[{index}]: the index must be below {size}"> kIndexTooLarge;

}  // namespace wiresum::softswitch::lines
