// What nanobind says when an interpreter ends with objects that somebody still holds.

#pragma once

#include <nanobind/nanobind.h>

namespace wiresum {

// Keep forks quiet about objects that their parent's threads hold: in a fork these threads do not
// run, so objects in their frames are never released, and that is no leak. The parent's own end is
// still checked.
inline void no_leak_notes_in_forks() {
  nanobind::module_::import_("os").attr("register_at_fork")(
      nanobind::arg("after_in_child") =
          nanobind::cpp_function([] { nanobind::set_leak_warnings(false); }));
}

}  // namespace wiresum
