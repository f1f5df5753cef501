// EngineError as the classes of wiresum.host_agent.errors.
#pragma once

#include <nanobind/nanobind.h>

#include <exception>

#include "errors.hpp"

namespace wiresum {

inline void raise_in_python(const EngineError& error) {
  const nanobind::object kind =
      nanobind::module_::import_("wiresum.host_agent.errors").attr(class_name(error.kind()));
  PyErr_SetString(kind.ptr(), error.what());
}

// For the module that is being made.
inline void translate_errors() {
  nanobind::register_exception_translator([](const std::exception_ptr& pointer, void*) {
    try {
      std::rethrow_exception(pointer);
    } catch (const EngineError& error) {
      raise_in_python(error);
    }
  });
}

}  // namespace wiresum
