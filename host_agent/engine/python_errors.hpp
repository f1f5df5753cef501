// EngineError as the classes of wiresum.host_agent.errors, and error lines with their codes as
// wiresum.common.errors.LineText.
#pragma once

#include <nanobind/nanobind.h>

#include <exception>
#include <string>

#include "errors.hpp"

namespace wiresum {

inline nanobind::object in_python(const LineText& line) {
  return nanobind::module_::import_("wiresum.common.errors").attr("LineText")(line.text, line.code);
}

// A str, or a LineText.
inline LineText from_python(const nanobind::str& line) {
  const nanobind::object code = nanobind::getattr(line, "code", nanobind::str(""));
  return {nanobind::cast<std::string>(code), line.c_str()};
}

inline void raise_in_python(const EngineError& error) {
  try {
    const nanobind::object kind =
        nanobind::module_::import_("wiresum.host_agent.errors").attr(class_name(error.kind()));
    PyErr_SetObject(kind.ptr(), in_python(error.line()).ptr());
  } catch (nanobind::python_error& failed) {
    failed.restore();
  }
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
