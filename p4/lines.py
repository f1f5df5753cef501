"""The error lines of the switch programs. Codes P…; docs/operations.md has the cures."""

from wiresum.common.errors import Line

NO_PROGRAM = Line("P001", "no switch program has {lanes} lanes: choose {known}")
NO_VERSION = Line("P002", "{p4info} carries no pkg_info version: run make p4")
