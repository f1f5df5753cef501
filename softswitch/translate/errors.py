"""Why a program was not translated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import lines

if TYPE_CHECKING:
    from wiresum.common.errors import WiresumError

    from .ir import Source
else:
    try:
        from wiresum.common.errors import WiresumError
    except ImportError:  # inside the build, where wiresum is not installed yet
        from common.errors import WiresumError

OLD_JSON = "JSONs of p4c-bm have it: translate the P4_14 program with p4c-bm2-ss --std p4-14"
"""Why a construct of an old compiler is not in the subset."""


class TranslateError(WiresumError):
    """A BMv2 JSON that cannot be translated."""


class ProgramInvalid(TranslateError):
    """The JSON is not what p4c writes: a field is missing, or a name leads nowhere."""


class UnsupportedConstruct(TranslateError):
    """A construct of v1model outside the embedded switch's subset.

    ``construct`` is its name; ``source`` is where it stands in the P4 source, as far as the JSON
    tells (p4c writes it unless it is asked not to).
    """

    def __init__(self, construct: str, source: Source | None = None, why: str = "") -> None:
        self.construct = construct
        self.source = source
        at = f"{source.where}: " if source is not None and source.where else ""
        reason = f" ({why})" if why else ""
        super().__init__(lines.UNSUPPORTED.of(at=at, construct=construct, reason=reason))
