// The interpreter's lock, released for a while.
#pragma once

#include <Python.h>
#include <unistd.h>

namespace wiresum {

// While one lives, other threads may have the GIL. Where the interpreter has ended meanwhile, this
// thread stays where it is: Python before 3.14 would unwind its stack, through functions that let
// nothing pass, which ends the process with an abort.
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
