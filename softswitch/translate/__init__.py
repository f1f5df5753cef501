"""Translates p4c's BMv2 JSON (v1model, as simple_switch runs it) to C++.

Standard library only: this package runs inside the build of wiresum (``python -m translate``) as
well as at run time (:mod:`wiresum.softswitch.compiler`).

Reading order: :mod:`ir` (what a program is), :mod:`reader` (JSON → IR, refusing what is outside the
subset), :mod:`structure` and :mod:`simplify` (jumps → ifs, temporaries → locals), :mod:`reroll`
(repeated statements → loops), :mod:`values` (expressions → C++), ``emit_*`` (the rest → C++).
"""

from .errors import ProgramInvalid, TranslateError, UnsupportedConstruct
from .translator import Translation, translate

__all__ = [
    "ProgramInvalid",
    "TranslateError",
    "Translation",
    "UnsupportedConstruct",
    "translate",
]
