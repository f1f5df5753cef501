// The extension module wiresum.softswitch._softswitch.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include "dataplane.hpp"
#include "leak_notes.hpp"

namespace nb = nanobind;

void register_dataplane(nb::module_& m);
void register_ports(nb::module_& m);

namespace {

// Raises wiresum.softswitch.errors.<name> with an error line; `code` is empty if it has none.
void raise(const char* name, const char* message, const std::string& code) {
  try {
    nb::object type = nb::module_::import_("wiresum.softswitch.errors").attr(name);
    nb::object text = nb::module_::import_("wiresum.common.errors").attr("LineText");
    PyErr_SetObject(type.ptr(), text(message, code).ptr());
  } catch (nb::python_error& e) {
    e.restore();
  }
}

const char* exception_of(wiresum::softswitch::Code code) {
  using wiresum::softswitch::Code;
  switch (code) {
    case Code::kNotFound:
      return "NotFound";
    case Code::kAlreadyExists:
      return "AlreadyExists";
    case Code::kOutOfRange:
      return "IndexOutOfRange";
    case Code::kResourceExhausted:
      return "TableFull";
    case Code::kPermissionDenied:
      return "ConstViolation";
    default:
      return "InvalidArgument";
  }
}

}  // namespace

NB_MODULE(_softswitch, m) {
  wiresum::no_leak_notes_in_forks();
  m.doc() = "The embedded switch: compiled programs and their data plane.";
  m.attr("ABI") = WIRESUM_ABI;
  nb::register_exception_translator([](const std::exception_ptr& p, void*) {
    try {
      std::rethrow_exception(p);
    } catch (const wiresum::softswitch::StatusError& e) {
      raise(exception_of(e.code), e.what(), e.line_code);
    } catch (const wiresum::softswitch::LibraryError& e) {
      raise("LibraryUnusable", e.what(), e.line_code);
    }
  });
  register_dataplane(m);
  register_ports(m);
}
