"""Typed Python face of the worker engine: its native classes and their errors as exceptions."""

from wiresum.host_agent import errors
from wiresum.host_agent._engine import (
    Completion,
    Engine,
    EngineOptions,
    Lease,
    Packed,
    Rest,
    ShmSocket,
    UdpSocket,
)

__all__ = [
    "Completion",
    "Engine",
    "EngineOptions",
    "Lease",
    "Packed",
    "Rest",
    "ShmSocket",
    "UdpSocket",
    "error_of",
    "raise_for",
]


def error_of(completion: Completion) -> errors.EngineError | None:
    """Return the exception that a completion stands for, or None if the collective succeeded."""
    if completion.error is None:
        return None
    return errors.engine_error(completion.kind, completion.error)


def raise_for(completion: Completion) -> None:
    """Raise the completion's error, if it has one."""
    error = error_of(completion)
    if error is not None:
        raise error
