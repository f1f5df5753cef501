// Why the engine refused or gave up; the kinds are the classes of wiresum.host_agent.errors.
#pragma once

#include <stdexcept>
#include <string>

#include "error_line.hpp"

namespace wiresum {

enum class ErrorKind { Engine, Timeout, Mismatch, Unreachable, Closed, Codec };

inline const char* class_name(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::Timeout:
      return "CollectiveTimeout";
    case ErrorKind::Mismatch:
      return "CollectiveMismatch";
    case ErrorKind::Unreachable:
      return "SwitchUnreachable";
    case ErrorKind::Closed:
      return "EngineClosed";
    case ErrorKind::Codec:
      return "CodecError";
    case ErrorKind::Engine:
      break;
  }
  return "EngineError";
}

class EngineError : public std::runtime_error {
 public:
  EngineError(ErrorKind kind, const LineText& line)
      : std::runtime_error(line.text), kind_(kind), line_(line) {}
  ErrorKind kind() const { return kind_; }
  const LineText& line() const { return line_; }

 private:
  ErrorKind kind_;
  LineText line_;
};

[[noreturn]] inline void refuse(const LineText& line) {
  throw EngineError(ErrorKind::Engine, line);
}

}  // namespace wiresum
