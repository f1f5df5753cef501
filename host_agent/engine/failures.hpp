// The one line that says what went wrong: which ranks, which chunk, which switch.
#pragma once

#include <cstdint>
#include <string>

#include "errors.hpp"
#include "lease.hpp"
#include "stream.hpp"

namespace wiresum {

// Why every collective of an engine ends.
struct Failure {
  std::string kind;  // name of a class in wiresum.host_agent.errors
  LineText line;
};

inline Failure failure_of(ErrorKind kind, const LineText& line) { return {class_name(kind), line}; }

// The switch has said that ranks disagree about `chunk`: `header` and `bitmap` are of its reply.
Failure mismatch(const Lease& lease, const Stream& stream, const Chunk& chunk, const Header& header,
                 std::uint64_t bitmap);
// No result for so long; `stream` holds everything up.
Failure no_progress(const Lease& lease, const Stream& stream, Nanoseconds silence);
Failure unreachable(const Lease& lease, const EngineOptions& options, const Transport& transport);

}  // namespace wiresum
