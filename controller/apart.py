"""Awaiting what may be cancelled from elsewhere."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

_R = TypeVar("_R")

# How long a cancelled task may take to clean up.
_CLEANUP_S = 5.0


class GoneError(Exception):
    """What was awaited did not come; the message says why."""


async def apart(
    coroutine: Coroutine[Any, Any, _R],
    *,
    limit_s: float,
    late: str,
    lost: str,
    down: asyncio.Event | None = None,
) -> _R:
    """Await ``coroutine`` in a task of its own.

    When a gRPC channel is closed, or a part of finsy fails, whoever is waiting for an answer
    is cancelled. That must not look as if the caller were: it becomes a :class:`GoneError` that
    says ``lost``, as does ``down`` being set; taking longer than ``limit_s``, one that says
    ``late``. A cancellation of the caller, or an error of the coroutine, goes through.
    """
    task = asyncio.create_task(coroutine)
    watch = asyncio.create_task(down.wait()) if down is not None else None
    try:
        await asyncio.wait(
            [task, watch] if watch is not None else [task],
            timeout=limit_s,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if task.done():
            if task.cancelled():
                raise GoneError(lost)
            return task.result()
        raise GoneError(lost if watch is not None and watch.done() else late)
    finally:
        if watch is not None:
            watch.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=_CLEANUP_S)
