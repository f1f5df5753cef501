// A running program and the lock that keeps packets and the control plane apart.
#pragma once

#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>

#include "error_line.hpp"
#include "program.hpp"

namespace wiresum::softswitch {

// What a Status that is not ok becomes; Python sees an exception of wiresum.softswitch.errors.
class StatusError : public std::runtime_error {
 public:
  explicit StatusError(const Status& status)
      : std::runtime_error(status.message), code(status.code) {}
  StatusError(Code code, const LineText& line)
      : std::runtime_error(line.text), code(code), line_code(line.code) {}
  Code code;
  std::string line_code;  // empty where a program says what is wrong
};

// A library that cannot be loaded, or was compiled against other runtime headers.
class LibraryError : public std::runtime_error {
 public:
  explicit LibraryError(const LineText& line)
      : std::runtime_error(line.text), line_code(line.code) {}
  std::string line_code;
};

class Dataplane {
 public:
  // Loads a compiled program. Throws LibraryError.
  explicit Dataplane(const std::string& library);
  ~Dataplane();
  Dataplane(const Dataplane&) = delete;
  Dataplane& operator=(const Dataplane&) = delete;

  // Hold this while calling the program. The data plane takes it once per batch of frames, a
  // control-plane call once per call.
  std::mutex& mutex() { return mutex_; }
  // Only with mutex() held (info() and the names and sizes in it never change).
  Program& program() { return *program_; }

  // The table, counter or register of this name. Throws StatusError (not found).
  Table& table(const std::string& name);
  Counter& counter(const std::string& name);
  Register& reg(const std::string& name);

 private:
  void* handle_ = nullptr;
  std::unique_ptr<Program> program_;
  std::mutex mutex_;
};

// Throws if a call failed.
inline void check(const Status& status) {
  if (!status.ok()) throw StatusError(status);
}

}  // namespace wiresum::softswitch
