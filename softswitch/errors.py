"""The errors of the embedded switch, one class per reason."""

from wiresum.common.errors import WiresumError

from .translate.errors import ProgramInvalid, TranslateError, UnsupportedConstruct

__all__ = [
    "AlreadyExists",
    "CompileFailed",
    "ConstViolation",
    "IndexOutOfRange",
    "InvalidArgument",
    "LibraryUnusable",
    "NoCompiler",
    "NotFound",
    "ProgramInvalid",
    "SwitchError",
    "TableFull",
    "TranslateError",
    "UnsupportedConstruct",
]


class SwitchError(WiresumError):
    """A call on a switch that it refused."""


class InvalidArgument(SwitchError):
    """A value that does not fit, a field that is missing, an unknown action."""


class NotFound(SwitchError):
    """No table, counter, register, entry or group of this name or key."""


class AlreadyExists(SwitchError):
    """An entry or group with this key is there already."""


class IndexOutOfRange(SwitchError):
    """An index beyond the end of a counter or register array."""


class TableFull(SwitchError):
    """The table holds as many entries as the program allows."""


class ConstViolation(SwitchError):
    """The program declares the entries or the default action const."""


class LibraryUnusable(SwitchError):
    """A compiled program that cannot be loaded."""


class NoCompiler(WiresumError):
    """There is no C++ compiler to compile a program with."""


class CompileFailed(WiresumError):
    """The C++ compiler refused the translated program, or could not keep the result."""
