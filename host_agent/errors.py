"""Errors of the worker's side. Each message is one complete line."""

from typing import Final

from wiresum.common.errors import WiresumError


class EngineError(WiresumError):
    """An option or an argument that the worker engine cannot work with."""


class CollectiveTimeout(EngineError):
    """A collective made no progress within its limit; names the missing ranks, chunk and switch."""


class CollectiveMismatch(EngineError):
    """Ranks issued different collectives; names both fingerprints and the other side's ranks."""


class SwitchUnreachable(EngineError):
    """The switch answered nothing at all within the limit; names its address."""


class PeerLost(EngineError):
    """Another rank died, or has left, before a collective that needs it; names rank and host."""


class ResultLost(EngineError):
    """A restart of the switch took a result that one rank had not received; names the chunk."""


class EngineClosed(EngineError):
    """The engine takes no more work; names the first cause."""


class CodecError(EngineError):
    """The codec cannot carry this (no budget left for so many workers, or an unknown dtype)."""


class SynchronizationError(WiresumError):
    """A model, an optimizer or an option that local steps cannot work with."""


_KINDS: Final[dict[str, type[EngineError]]] = {
    kind.__name__: kind
    for kind in (
        CollectiveTimeout,
        CollectiveMismatch,
        SwitchUnreachable,
        PeerLost,
        ResultLost,
        EngineClosed,
        CodecError,
    )
}


def engine_error(kind: str | None, message: str) -> EngineError:
    """The exception for a failed collective whose kind the engine names as its class."""
    return _KINDS.get(kind or "", EngineError)(message)
