// The interpreter's lock, released for a while.
#pragma once

#include <Python.h>
#include <unistd.h>

namespace wiresum {

// While an object of this class exists, other threads may have the GIL. If the interpreter has
// ended meanwhile, this thread stays here for ever: Python before 3.14 would unwind its stack
// through noexcept functions, which would abort the process.
class WithoutGil {
 public:
  WithoutGil() : state_(PyEval_SaveThread()) {}
  WithoutGil(const WithoutGil&) = delete;
  WithoutGil& operator=(const WithoutGil&) = delete;
  ~WithoutGil() {
    try {
      PyEval_RestoreThread(state_);
    } catch (...) {
      while (true) pause();
    }
  }

 private:
  PyThreadState* state_;
};

}  // namespace wiresum
