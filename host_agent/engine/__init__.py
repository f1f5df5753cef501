"""Typed Python face of the worker engine: its native classes and their errors as exceptions."""

from typing import Final

from wiresum.host_agent import errors
from wiresum.host_agent._engine import Completion, Engine

__all__ = ["Completion", "Engine", "error_of", "raise_for"]

_KINDS: Final[dict[str, type[errors.EngineError]]] = {
    kind.__name__: kind
    for kind in (
        errors.CollectiveTimeout,
        errors.CollectiveMismatch,
        errors.SwitchUnreachable,
        errors.EngineClosed,
        errors.CodecError,
    )
}


def error_of(completion: Completion) -> errors.EngineError | None:
    """Return the exception that a completion stands for, or None if the collective succeeded."""
    if completion.error is None:
        return None
    return _KINDS.get(completion.kind or "", errors.EngineError)(completion.error)


def raise_for(completion: Completion) -> None:
    """Raise the completion's error, if it has one."""
    error = error_of(completion)
    if error is not None:
        raise error
